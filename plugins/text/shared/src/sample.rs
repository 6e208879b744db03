//! A request that has everything.

use countersign_sdk::{Attribute, Commitment, History, Payment, Principal, Purchase, Seller, SpendRequest, Tally};

/// 2026-01-15 12:00:00 UTC.
const NOON: u64 = 1_768_478_400_000;

/// A request in which every option is set, to try rules on before any payment: what fails on it for its
/// types fails on every request.
#[must_use]
pub fn full_request() -> SpendRequest {
    let some = |text: &str| Some(text.to_owned());
    let tally = Tally { count: 1, value: 50_000 };
    let said = |name: &str| vec![Attribute { name: name.to_owned(), value: "sample".to_owned() }];
    SpendRequest {
        id: "decision".to_owned(),
        purchase_id: "purchase".to_owned(),
        at: NOON,
        principal: Principal {
            agent: "agent".to_owned(),
            user: some("user"),
            workspace: some("workspace"),
            roles: vec!["role".to_owned()],
            session: some("session"),
            client: some("client"),
            project: some("project"),
            task: some("task"),
        },
        purchase: Purchase {
            method: "GET".to_owned(),
            url: "https://api.example.com/v1/quote".to_owned(),
            host: "api.example.com".to_owned(),
            path: "/v1/quote".to_owned(),
            query_digest: some("query"),
            body_digest: some("body"),
            observed: true,
            description: some("description"),
            media_type: some("application/json"),
            category: some("category"),
        },
        seller: Seller {
            host: "api.example.com".to_owned(),
            pay_to: "0x209693bc6afc0c5328ba36faf03c514ef312287c".to_owned(),
            host_first_paid: Some(NOON),
            pay_to_first_paid: Some(NOON),
            pay_to_changed: false,
            last_price: Some(50_000),
            judged: 1,
            useful: 1,
        },
        payment: Payment {
            rail: "x402".to_owned(),
            scheme: "exact".to_owned(),
            commitment: Commitment::Fixed,
            network: "eip155:84532".to_owned(),
            asset: "0x036cbd53842c5426634e7929541ec2318f3dcf7e".to_owned(),
            asset_symbol: "USDC".to_owned(),
            asset_decimals: 6,
            amount: "50000".to_owned(),
            value: 50_000,
            valid_for_seconds: 60,
            wallet: "wallet".to_owned(),
        },
        history: History {
            agent_hour: tally,
            agent_day: tally,
            session: tally,
            seller_day: tally,
            seller_lifetime: tally,
            repeats: 0,
        },
        claims: said("claim"),
        facts: said("fact"),
    }
}
