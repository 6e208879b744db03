//! Payments to write books about.
#![expect(clippy::unwrap_used, reason = "test support: a broken fixture must fail the test loudly")]
#![allow(dead_code, reason = "each suite uses its part")]
#![allow(clippy::allow_attributes, reason = "what is unused differs between suites, so nothing can be expected")]

use std::collections::BTreeMap;

use countersign_core::budget::PlacedHold;
use countersign_core::id::{ApprovalId, DecisionId, PaymentId, PurchaseId};
use countersign_core::ledger::{
    Approval, ApprovalState, Channel, DecisionRecord, Evidence, Fingerprint, HoldView, PaymentFacts, PaymentView,
    PurchaseKey, Refund, RefundSource, Step, Vote,
};
use countersign_core::money::{Atomic, Micros};
use countersign_core::payment::State;
use countersign_core::spend::{Commitment, History, Payment, Principal, Purchase, Seller, SpendRequest};
use countersign_core::terms::ApprovalTerms;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Attributed, Decision, Judgement, Mode, Opinion, Reason, Unit, Verdict, Window};
use serde_json::json;

pub(crate) const NETWORK: &str = "eip155:84532";
pub(crate) const ASSET: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
pub(crate) const PAYER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
pub(crate) const PAYEE: &str = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
/// 2026-11-22T10:00:00Z.
pub(crate) const NOON: u64 = 1_795_341_600;

pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(NOON + seconds)
}

pub(crate) fn random(n: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes.iter_mut().zip(n.to_le_bytes()).for_each(|(to, from)| *to = from);
    bytes
}

pub(crate) fn transaction(n: u64) -> String {
    format!("0x{n:064x}")
}

/// The `n`th payment, of `amount` millionths of a USDC, made `n` seconds after ten and paid within ten seconds.
pub(crate) fn payment(n: u64, state: State, amount: u64) -> PaymentView {
    let made = at(n);
    let principal = Principal {
        agent: "scout".into(),
        user: Some("ann".into()),
        workspace: Some("research".into()),
        roles: vec!["analyst".into()],
        session: None,
        client: Some("acme".into()),
        project: Some("brief-42".into()),
        task: Some("T-42".into()),
    };
    let request = SpendRequest {
        id: DecisionId::new(made, random(n)),
        purchase_id: PurchaseId::mint(made, random(n)),
        at: made,
        principal: principal.clone(),
        purchase: Purchase {
            method: "GET".into(),
            url: "https://api.example.com/quote".into(),
            host: "api.example.com".into(),
            path: "/quote".into(),
            query_digest: None,
            body_digest: None,
            observed: true,
            description: Some("one price".into()),
            media_type: Some("application/json".into()),
            category: Some("market data".into()),
        },
        seller: Seller::default(),
        payment: Payment {
            rail: "x402".into(),
            scheme: "exact".into(),
            commitment: Commitment::Fixed,
            network: NETWORK.into(),
            asset: ASSET.into(),
            asset_symbol: "USDC".into(),
            asset_decimals: 6,
            amount: Atomic::new(u128::from(amount)),
            value: Micros::new(amount).unwrap(),
            valid_for_seconds: 60,
            wallet: "research".into(),
        },
        history: History::default(),
        claims: vec![],
        facts: vec![],
    };
    let opinion = |policy: &str, code: &str| Opinion {
        policy: policy.into(),
        version: "1.0.0".into(),
        module_sha256: "ab".repeat(32),
        settings_sha256: "cd".repeat(32),
        mode: Mode::Enforce,
        claims: false,
        outcome: Ok(Decision {
            verdict: Verdict::Allow,
            reasons: vec![Reason::new(code, format!("{policy} is content"))],
            holds: vec![],
            review: None,
            obligations: vec![],
            notes: vec![],
        }),
        log: vec![],
        fuel: 1,
        micros: 1,
    };
    let allowed = |policy: &str, code: &str| Attributed {
        policy: policy.into(),
        reason: Reason::new(code, format!("{policy} is content")),
    };
    let signed = !matches!(state, State::Denied | State::Review);
    let spent = state.is_spent();
    let authorization = json!({
        "offer": {
            "protocol": {"x402": 2}, "index": 0, "scheme": "exact", "network": NETWORK, "network_name": NETWORK,
            "asset": {
                "id": "usdc-base-sepolia", "network": NETWORK, "address": ASSET, "symbol": "USDC", "decimals": 6,
                "eip712": {"name": "USDC", "version": "2"}, "price": 1_000_000,
            },
            "amount": amount.to_string(), "pay_to": PAYEE, "max_timeout_seconds": 60, "raw": "{}", "resource": null,
            "extensions": null, "needs_identifier": false, "description": null, "mime_type": null, "category": null,
            "resource_url": null,
        },
        "payment": PaymentId::new(made, random(n)), "from": PAYER, "nonce": transaction(n),
        "valid_after": 0, "valid_before": NOON + n + 60,
    });
    let mut history = vec![Step { at: made, state: State::Signed, why: "allowed".into() }];
    if state != State::Signed {
        let first = if spent { State::Settled } else { state };
        history.push(Step { at: at(n + 10), state: first, why: "what happened".into() });
    }
    PaymentView {
        id: PaymentId::new(made, random(n)),
        key: PurchaseKey { workspace: "research".into(), agent: "scout".into(), purchase: request.purchase_id.clone() },
        attempt: 1,
        state,
        facts: PaymentFacts {
            principal,
            method: "GET".into(),
            url: "https://api.example.com/quote".into(),
            host: "api.example.com".into(),
            path: "/quote".into(),
            pay_to: PAYEE.into(),
            rail: "x402".into(),
            scheme: "exact".into(),
            network: NETWORK.into(),
            asset: ASSET.into(),
            asset_symbol: "USDC".into(),
            asset_decimals: 6,
            amount: Atomic::new(u128::from(amount)),
            value: Micros::new(amount).unwrap(),
            wallet: "research".into(),
            mandate: "research".into(),
            offer_sha256: "ef".repeat(32),
            claims: BTreeMap::from([("purpose".into(), "price check".into())]),
            resource_elsewhere: None,
        },
        fingerprint: Fingerprint([7; 32]),
        session: None,
        decision: DecisionRecord {
            id: request.id,
            request,
            judgement: Judgement {
                generation: 3,
                opinions: vec![opinion("vendors", "vendor-listed"), opinion("caps", "within-caps")],
            },
            verdict: Verdict::Allow,
            reasons: vec![allowed("vendors", "vendor-listed"), allowed("caps", "within-caps")],
            refusal: None,
        },
        refusal: (state == State::Denied).then(|| "policy-denied".into()),
        repeats: 1,
        holds: if state == State::Denied { vec![] } else { vec![hold(amount, state)] },
        authorization: signed.then(|| serde_json::from_value(authorization).unwrap()),
        approval: None,
        transaction: spent.then(|| transaction(n)),
        evidence: spent.then(|| {
            Box::new(Evidence {
                transaction: Some(transaction(n)),
                block: Some(1_000 + n),
                block_hash: Some(transaction(1_000 + n)),
                block_time: Some(NOON + n + 5),
                ..Evidence::default()
            })
        }),
        refunds: vec![],
        delivered: spent,
        uses: vec![],
        created_at: made,
        updated_at: at(n + 10),
        history,
    }
}

fn hold(amount: u64, state: State) -> HoldView {
    HoldView {
        hold: PlacedHold {
            owner: "host".into(),
            name: "wallet/research/day".into(),
            unit: Unit::Micros,
            window: Window::Day("UTC".into()),
            win: 1_795_305_600_000,
            limit: 100_000_000,
            amount,
            alert_at: None,
            review_at: None,
        },
        open: state.is_open() || state == State::Review,
        spent: if state.is_spent() { amount } else { 0 },
        refunded: 0,
    }
}

/// Money of a payment that the chain shows coming back, a minute after ten.
pub(crate) fn refund(payment: &PaymentView, n: u64, amount: u64) -> Refund {
    Refund {
        payment: payment.id,
        amount: Atomic::new(u128::from(amount)),
        source: RefundSource::Chain { transaction: transaction(n), log: 0, block: 5_000 },
        at: at(60),
    }
}

pub(crate) fn approval(payment: &PaymentView) -> Approval {
    let vote = |operator: &str, seconds| Vote {
        operator: operator.into(),
        approve: true,
        at: at(seconds),
        note: "fine by me".into(),
        groups: vec![],
        channel: Channel::Api,
        message: None,
    };
    Approval {
        id: ApprovalId::new(payment.created_at, random(9)),
        payment: payment.id,
        state: ApprovalState::Used,
        frozen: "12".repeat(32),
        shown: vec![("caps".into(), "above-review".into())],
        terms: ApprovalTerms::of(2, 3_600),
        created_at: at(1),
        expires_at: at(3_600),
        votes: vec![vote("alice", 2), vote("bob", 3)],
    }
}
