//! The rules that attackers taught us, each by its number, against the real gateway.
//!
//! The sellers live in this process and count what is presented to them: that, and the chain, are the judges.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

use countersign::demo::world::Seller;
use countersign_core::evm::Address;
use countersign_tests::{
    agent::Client,
    config::{ALICE_TOKEN, Config, Policy, SCOUT_TOKEN},
    http::{self, Response},
    peers::BUYER,
    process::Gateway,
    refusal::{refusal, refusal_because},
    stub::Stub,
    till::{bought, caps, header, items, plain, text},
    wait_for,
    world::LocalWorld,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::Duration,
};

const RIVAL_TOKEN: &str = "test-agent-token-of-rival-0123456789abcdef";
const SOON: Duration = Duration::from_secs(20);

/// A world and a gateway that may reach the named sellers.
struct Scene {
    gateway: Gateway,
    world: LocalWorld,
}

impl Scene {
    fn new(sellers: &[&str]) -> Self {
        Self::with(sellers, plain(), |config| config)
    }

    fn with(
        sellers: &[&str],
        policies: impl IntoIterator<Item = Policy>,
        change: impl FnOnce(Config) -> Config,
    ) -> Self {
        let world = LocalWorld::start();
        let gateway = Gateway::start(change(world.config(sellers, policies)));
        Self { gateway, world }
    }

    fn seller(&self, name: &str) -> &Seller {
        self.world.world().seller(name).unwrap()
    }

    fn quote(&self, name: &str) -> String {
        self.seller(name).url("/quote")
    }

    fn agent(&self) -> Client {
        self.gateway.agent()
    }

    fn fetch(&self, name: &str, more: Value) -> Response {
        self.agent().fetch(&self.quote(name), more)
    }

    fn until(&self, payment: &str, state: &str) -> Value {
        let agent = self.agent();
        let found = wait_for(SOON, || Some(agent.payment(payment)).filter(|p| p["state"] == state));
        found.unwrap_or_else(|| panic!("not {state}: {}", agent.payment(payment)))
    }

    /// How many payments the chain executed since the last look.
    fn redeemed(&self) -> usize {
        self.world.new_redemptions().len()
    }
}

/// Nobody presented anything to this seller.
#[track_caller]
fn unpaid(seller: &Seller) {
    assert_eq!((seller.stats().presented, seller.stats().authorizations), (0, 0), "{}", seller.name());
}

/// Every payment of everybody.
fn ledger(gateway: &Gateway) -> Vec<Value> {
    items(&gateway.operator().get("/v1/payments"))
}

/// Changes the configuration and waits until it is in force.
#[track_caller]
fn activate(gateway: &mut Gateway, config: Config) {
    let generation = |gateway: &Gateway| gateway.operator().get("/v1/policies").json()["generation"].as_u64().unwrap();
    let before = generation(gateway);
    gateway.write_config(config);
    wait_for(SOON, || (generation(gateway) > before).then_some(())).expect("never activated");
}

/// Waits until the gateway answers so; the last answer otherwise.
#[track_caller]
fn eventually(call: impl Fn() -> Response, status: u16, code: &str) {
    let found = wait_for(SOON, || {
        let answer = call();
        (answer.status == status && answer.text().contains(code)).then_some(answer)
    });
    match found {
        Some(answer) => drop(refusal(&answer, status, code)),
        None => panic!("never {status} {code}: {}", call().text()),
    }
}

// ---- One purchase, one signature

#[test]
fn rule_01_one_purchase_one_signature() {
    let scene = Scene::new(&["takes-and-hangs-up"]);
    let seller = scene.seller("takes-and-hangs-up").clone();
    let order = json!({"purchase_id": "once"});
    let body = refusal(&scene.fetch(seller.name(), order.clone()), 504, "outcome-unknown");
    let payment = text(&body, "/payment").to_owned();
    assert_eq!((&body["payment_state"], &body["purchase"]), (&json!("unknown"), &json!("once")));

    let answer = scene.fetch(seller.name(), order.clone());
    assert_eq!(bought(&answer, "0.001"), payment);
    assert_eq!(answer.json()["symbol"], "ACME");
    assert_eq!(header(&scene.fetch(seller.name(), order), "countersign-replayed"), "true");

    let stats = seller.stats();
    assert_eq!((stats.authorizations, stats.redeemed), (1, 1), "{stats:?}");
    let nonces: BTreeSet<_> = seller.visits().iter().filter_map(|visit| visit.nonce).collect();
    assert_eq!((nonces.len(), scene.redeemed()), (1, 1));
    scene.until(&payment, "settled");
}

#[test]
fn rule_01_a_repeat_without_an_id_presents_the_same_and_with_another_is_refused() {
    let scene = Scene::new(&["takes-and-hangs-up"]);
    let seller = scene.seller("takes-and-hangs-up").clone();
    let body = refusal(&scene.fetch(seller.name(), json!({})), 504, "outcome-unknown");
    let (payment, purchase) = (text(&body, "/payment").to_owned(), text(&body, "/purchase").to_owned());
    // Even once the chain has proven it: nothing was delivered.
    scene.until(&payment, "settled");
    let other = refusal(&scene.fetch(seller.name(), json!({"purchase_id": "another"})), 409, "payment-unknown");
    assert_eq!((&other["purchase"], &other["retry"]), (&json!(purchase), &json!(false)));
    assert_eq!(seller.stats().presented, 1);
    let answer = scene.fetch(seller.name(), json!({}));
    assert_eq!((bought(&answer, "0.001"), header(&answer, "countersign-purchase")), (payment, purchase.as_str()));
    assert_eq!((seller.stats().authorizations, scene.redeemed()), (1, 1));
    // Delivered: the next one is a purchase of its own.
    refusal(&scene.fetch(seller.name(), json!({"purchase_id": "another"})), 504, "outcome-unknown");
    assert_eq!(seller.stats().authorizations, 2);
}

#[test]
fn rule_01_a_raised_price_is_never_signed_on_top() {
    let scene = Scene::new(&["raises-price", "takes-and-raises-price"]);
    for name in ["raises-price", "takes-and-raises-price"] {
        let order = json!({"purchase_id": name});
        for _ in 0..3 {
            let answer = scene.fetch(name, order.clone());
            let code = if answer.status == 409 { "already-settled" } else { "payment-refused" };
            refusal(&answer, if answer.status == 409 { 409 } else { 502 }, code);
        }
        let stats = scene.seller(name).stats();
        assert_eq!(stats.authorizations, 1, "{name}: {stats:?}");
    }
    assert_eq!(scene.redeemed(), 1, "only one of the two took it");
}

#[test]
fn rule_01_an_error_after_payment_is_unknown_and_not_paid_again() {
    let scene = Scene::new(&["takes-and-fails"]);
    for more in [json!({"purchase_id": "p"}), json!({"purchase_id": "p"}), json!({})] {
        let answer = scene.fetch("takes-and-fails", more);
        assert_eq!((answer.status, header(&answer, "countersign-source")), (500, "seller"), "{}", answer.text());
        assert_eq!(header(&answer, "countersign-purchase"), "p");
        assert_ne!(header(&answer, "countersign-state"), "failed");
    }
    let stats = scene.seller("takes-and-fails").stats();
    assert_eq!((stats.authorizations, stats.redeemed, scene.redeemed()), (1, 1, 1), "{stats:?}");
}

#[test]
fn rule_01_holds_over_a_crash() {
    let mut scene = Scene::new(&["takes-and-hangs-up"]);
    let order = json!({"purchase_id": "crash"});
    refusal(&scene.fetch("takes-and-hangs-up", order.clone()), 504, "outcome-unknown");
    scene.gateway.kill();
    scene.gateway.restart();
    bought(&scene.fetch("takes-and-hangs-up", order), "0.001");
    assert_eq!((scene.seller("takes-and-hangs-up").stats().authorizations, scene.redeemed()), (1, 1));
}

#[test]
fn rule_01_concurrent_repeats_present_one_authorization() {
    let scene = Scene::new(&["takes-and-hangs-up"]);
    let answers: Vec<Response> = thread::scope(|scope| {
        let call = || scene.fetch("takes-and-hangs-up", json!({"purchase_id": "crowd"}));
        let calls: Vec<_> = (0..12).map(|_| scope.spawn(call)).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(answers.iter().any(|answer| answer.status == 200));
    for answer in &answers {
        assert!(matches!(answer.status, 200 | 504), "{} {}", answer.status, answer.text());
    }
    assert_eq!((scene.seller("takes-and-hangs-up").stats().authorizations, scene.redeemed()), (1, 1));
}

#[test]
fn rule_01_different_purchases_of_the_same_thing_do_not_disturb_each_other() {
    let scene = Scene::new(&["honest"]);
    for round in 0..4 {
        let answers: Vec<Response> = thread::scope(|scope| {
            let scene = &scene;
            let call = move |i| scene.fetch("honest", json!({"purchase_id": format!("r{round}-{i}")}));
            let calls: Vec<_> = (0..32).map(|i| scope.spawn(move || call(i))).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        for answer in &answers {
            bought(answer, "0.001");
        }
    }
    assert_eq!(scene.redeemed(), 128);
}

#[test]
fn rule_01_different_purchases_without_an_id_are_not_mixed_up() {
    let scene = Scene::new(&["honest"]);
    let answers: Vec<Response> = thread::scope(|scope| {
        let calls: Vec<_> = (0..32).map(|_| scope.spawn(|| scene.fetch("honest", json!({})))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let payments: BTreeSet<String> = answers.iter().map(|answer| bought(answer, "0.001")).collect();
    assert_eq!((payments.len(), scene.redeemed()), (32, 32));
}

#[test]
fn rule_02_ids_are_scoped_and_foreign_ones_tell_nothing() {
    let scene = Scene::with(&["honest"], plain(), |config| config.agent("rival", RIVAL_TOKEN));
    let rival = scene.gateway.agent_with(RIVAL_TOKEN);
    let mine = bought(&scene.fetch("honest", json!({"purchase_id": "shared"})), "0.001");
    let theirs = bought(&rival.fetch(&scene.quote("honest"), json!({"purchase_id": "shared"})), "0.001");
    assert_ne!(mine, theirs);
    let (head, last) = mine.split_at(mine.len() - 1);
    let unknown = rival.get(&format!("/v1/payments/{head}{}", if last == "0" { "1" } else { "0" }));
    let foreign = rival.get(&format!("/v1/payments/{mine}"));
    assert_eq!((foreign.status, &foreign.body), (404, &unknown.body));
    let names = |answer: &Response| answer.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&foreign), names(&unknown));
    // Another request of theirs under our id is no conflict either.
    bought(&rival.fetch(&scene.seller("honest").url("/choice"), json!({"purchase_id": "elsewhere"})), "0.003");
    assert_eq!(scene.redeemed(), 3);
}

#[test]
fn rule_03_a_suspension_stops_signing_and_presenting() {
    let mut scene = Scene::new(&["honest", "raises-price"]);
    let seller = scene.seller("raises-price").clone();
    refusal(&scene.fetch("raises-price", json!({"purchase_id": "open"})), 502, "payment-refused");
    assert_eq!(seller.stats().presented, 1);
    let answer = scene.gateway.operator().post("/v1/suspend", &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    for _ in 0..2 {
        refusal(&scene.fetch("raises-price", json!({"purchase_id": "open"})), 403, "suspended");
        refusal(&scene.fetch("honest", json!({})), 403, "suspended");
        scene.gateway.kill();
        scene.gateway.restart();
    }
    assert_eq!(seller.stats().presented, 1, "presented again under suspension");
    unpaid(scene.seller("honest"));
}

#[test]
fn rule_03_a_suspension_races_purchases_and_wins() {
    let scene = Scene::new(&["honest"]);
    let seller = scene.seller("honest").clone();
    let late = thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    // Buys until it is stopped.
                    wait_for(SOON, || Some(scene.fetch("honest", json!({}))).filter(|answer| answer.status != 200))
                        .unwrap()
                })
            })
            .collect();
        wait_for(SOON, || (seller.stats().redeemed >= 5).then_some(())).expect("nothing is bought");
        assert_eq!(scene.gateway.operator().post("/v1/suspend", &json!({})).status, 200);
        for call in calls {
            refusal(&call.join().unwrap(), 403, "suspended");
        }
        seller.stats().authorizations
    });
    refusal(&scene.fetch("honest", json!({})), 403, "suspended");
    assert_eq!(seller.stats().authorizations, late);
}

// ---- No money without a hold that covers it

#[test]
fn rule_05_the_wallets_daily_limit_holds_when_policies_hold_nothing() {
    let scene = Scene::with(&["honest"], [Policy::vendors()], |config| {
        config.set(&["wallet", "research", "daily-limit"], "0.0025")
    });
    bought(&scene.fetch("honest", json!({})), "0.001");
    bought(&scene.fetch("honest", json!({})), "0.001");
    let body = refusal(&scene.fetch("honest", json!({})), 403, "budget-exceeded");
    assert!(text(&body, "/budget").contains("wallet/research"), "{body}");
    assert_eq!(scene.redeemed(), 2);
}

#[test]
fn rule_05_a_session_is_held_to_its_limit_and_count_by_the_host() {
    let scene = Scene::with(&["honest"], [Policy::vendors()], |config| config);
    for (wish, left) in [
        (json!({"agent": "scout", "limit": "0.0015"}), 1),
        (json!({"agent": "scout", "limit": "9.00", "max_payments": 2}), 2),
    ] {
        let session = scene.gateway.operator().post("/v1/sessions", &wish).json();
        let agent = scene.gateway.agent_with(text(&session, "/token"));
        for _ in 0..left {
            bought(&agent.fetch(&scene.quote("honest"), json!({})), "0.001");
        }
        refusal(&agent.fetch(&scene.quote("honest"), json!({})), 403, "budget-exceeded");
    }
    assert_eq!(scene.redeemed(), 3);
}

#[test]
fn rule_05_no_wallet_without_a_limit_and_networks() {
    for key in ["daily-limit", "networks"] {
        let (status, log) = Gateway::refused(Config::new(plain()).remove(&["wallet", "research", key]));
        assert!(!status.success());
        assert!(log.contains(key), "it does not name {key}: {log}");
    }
}

// ---- Bounds on what is open

/// The n-th request of its own kind to a seller.
fn nth(scene: &Scene, name: &str, n: usize) -> Response {
    scene.agent().fetch(&scene.seller(name).url(&format!("/quote?n={n}")), json!({}))
}

#[test]
fn rule_08_three_unknown_payments_stop_a_seller() {
    let scene = Scene::new(&["no-receipt", "honest"]);
    for n in 0..3 {
        let answer = nth(&scene, "no-receipt", n);
        assert_eq!((answer.status, header(&answer, "countersign-state")), (200, "unknown"), "{}", answer.text());
    }
    refusal(&nth(&scene, "no-receipt", 3), 403, "too-many-unresolved");
    assert_eq!(scene.seller("no-receipt").stats().authorizations, 3);
    // Others may still sell.
    bought(&nth(&scene, "honest", 0), "0.001");
}

#[test]
fn rule_08_a_payee_and_an_agent_are_bounded_too() {
    let sellers = ["no-receipt", "raises-price", "redirects-paid", "honest"];
    let scene = Scene::with(&sellers, plain(), |config| {
        config.agent("rival", RIVAL_TOKEN).set(&["limits", "unresolved-per-agent"], 5)
    });
    let payee = scene.seller("no-receipt").pay_to();
    scene.seller("raises-price").set_pay_to(payee);
    scene.seller("honest").set_pay_to(payee);
    assert_eq!(nth(&scene, "no-receipt", 0).status, 200);
    assert_eq!(nth(&scene, "no-receipt", 1).status, 200);
    refusal(&nth(&scene, "raises-price", 0), 502, "payment-refused");
    refusal(&nth(&scene, "honest", 0), 403, "too-many-unresolved");
    // Five of one agent, at whomever.
    for n in 0..2 {
        assert_eq!(nth(&scene, "redirects-paid", n).status, 307);
    }
    refusal(&nth(&scene, "redirects-paid", 2), 403, "too-many-unresolved");
    let rival = scene.gateway.agent_with(RIVAL_TOKEN);
    assert_eq!(rival.fetch(&scene.seller("redirects-paid").url("/quote?n=9"), json!({})).status, 307);
    unpaid(scene.seller("honest"));
}

#[test]
fn rule_08_a_looping_agent_cannot_bury_approvers() {
    let review = Policy::new("review", "builtin:review-threshold").setting("above", "0.000001");
    let [vendors, caps] = plain();
    let scene = Scene::with(&["honest"], [vendors, caps, review], |config| config.agent("rival", RIVAL_TOKEN));
    for n in 0..5 {
        refusal(&nth(&scene, "honest", n), 202, "approval-required");
    }
    refusal(&nth(&scene, "honest", 5), 403, "too-many-unresolved");
    let rival = scene.gateway.agent_with(RIVAL_TOKEN);
    refusal(&rival.fetch(&scene.quote("honest"), json!({})), 202, "approval-required");
    let waiting = items(&scene.gateway.operator().get("/v1/approvals"));
    assert_eq!(waiting.len(), 6);
    let first = text(&waiting[0], "/id").to_owned();
    assert_eq!(scene.gateway.operator().post(&format!("/v1/approvals/{first}/deny"), &json!({})).status, 200);
    unpaid(scene.seller("honest"));
}

#[test]
fn rule_08_a_seller_of_fake_receipts_is_stopped() {
    // The goods come, the receipt names a transaction that does not exist, and the chain, asked in vain, never shows it.
    let scene = Scene::with(&["fake-receipt", "honest"], plain(), |config| {
        config
            .set(&["limits", "purchases-per-agent-per-minute"], 1_000_000)
            .set(&["limits", "unresolved-per-agent"], 1_000_000)
    });
    let mut n = 0;
    let refused = wait_for(SOON, || {
        n += 1;
        Some(nth(&scene, "fake-receipt", n)).filter(|answer| answer.status != 200)
    });
    refusal(&refused.expect("nothing but unproven payments"), 403, "too-many-unresolved");
    assert_eq!(scene.redeemed(), 0);
    // Whose receipts the chain bears out is not held to it.
    for n in 0..4 {
        scene.until(&bought(&nth(&scene, "honest", n), "0.001"), "settled");
    }
}

// ---- Who is asking

#[test]
fn rule_12_the_principal_is_what_token_and_session_say() {
    let scene = Scene::with(&["honest"], plain(), |config| config.set(&["agent", "scout", "user"], "ada"));
    let order = json!({"task": "mine", "claims": {"agent": "root", "user": "mallory", "workspace": "x", "session": "y", "role": "admin"}});
    let payment = scene.gateway.operator().payment(&bought(&scene.fetch("honest", order), "0.001"));
    assert_eq!(
        (&payment["agent"], &payment["user"], &payment["workspace"]),
        (&json!("scout"), &json!("ada"), &json!("research"))
    );
    assert_eq!((&payment["task"], &payment["session"]), (&Value::Null, &Value::Null));
}

#[test]
fn rule_12_a_cap_whose_scope_is_missing_denies() {
    let caps = caps("5.00").setting("per-session", "0.0015");
    let scene = Scene::with(&["honest"], [Policy::vendors(), caps], |config| config);
    refusal_because(&scene.fetch("honest", json!({})), 403, "policy-denied", "no-session");
    let session = scene.gateway.operator().post("/v1/sessions", &json!({"agent": "scout", "limit": "9.00"})).json();
    let agent = scene.gateway.agent_with(text(&session, "/token"));
    bought(&agent.fetch(&scene.quote("honest"), json!({})), "0.001");
    let body = refusal(&agent.fetch(&scene.quote("honest"), json!({})), 403, "budget-exceeded");
    assert_eq!(body["policy"], "caps");
    assert_eq!(scene.redeemed(), 1);
}

#[test]
fn rule_12_a_mandate_may_require_a_session() {
    let scene = Scene::with(&["honest"], plain(), |config| config.mandate(&["require-session"], true));
    refusal(&scene.fetch("honest", json!({})), 403, "no-mandate");
    let session = scene.gateway.operator().post("/v1/sessions", &json!({"agent": "scout", "limit": "1.00"})).json();
    bought(&scene.gateway.agent_with(text(&session, "/token")).fetch(&scene.quote("honest"), json!({})), "0.001");
    assert_eq!(scene.redeemed(), 1);
}

// ---- Who is paid

#[test]
fn rule_13_headers_that_are_the_gateways_are_refused() {
    let stub = Stub::start("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(Config::new(plain()).allow_private(&stub.authority));
    for name in [
        "Host",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Content-Length",
        "Upgrade",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-HTTP-Method-Override",
        "X-PAYMENT",
        "x-payment",
        "PAYMENT-SIGNATURE",
        "Payment-Signature",
    ] {
        let answer = gateway.agent().fetch(&stub.url("/"), json!({"headers": {name: "1"}}));
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        refusal(&answer, 400, "bad-request");
    }
    for (name, value) in [("X-A", "a\r\nX-B: b"), ("X-A", "a\nb"), ("X A", "a"), ("X-A\r\nX-B", "a"), ("", "a")] {
        refusal(&gateway.agent().fetch(&stub.url("/"), json!({"headers": {name: value}})), 400, "bad-request");
    }
    assert_eq!(stub.seen(), Vec::<String>::new());
}

#[test]
fn rule_13_the_agents_token_and_identity_never_reach_a_seller() {
    let stub = Stub::start("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(Config::new(plain()).allow_private(&stub.authority));
    let order = json!({"url": stub.url("/look?q=1"), "purpose": "secret purpose", "purchase_id": "secret-id", "headers": {"X-Mine": "yes", "Authorization": "Bearer for-the-seller"}});
    let answer = gateway.agent().request("POST", "/v1/fetch").header("X-Api-Key", "also-secret").json(&order).send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = stub.seen();
    assert_eq!(seen.len(), 1);
    let request = seen[0].to_lowercase();
    assert!(request.starts_with("get /look?q=1 http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: {}\r\n", stub.authority)), "{request}");
    assert!(request.contains("\r\nx-mine: yes\r\n") && request.contains("bearer for-the-seller"), "{request}");
    for secret in [SCOUT_TOKEN, "also-secret", "secret purpose", "secret-id", "scout", "research"] {
        assert!(!request.contains(secret), "{secret} reached the seller: {request}");
    }
}

#[test]
fn rule_13_what_a_seller_says_is_filtered() {
    let stub = Stub::start(
        "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: http://169.254.169.254/\r\nSet-Cookie: a=b\r\nWWW-Authenticate: Payment x\r\n\
         Countersign-Source: gateway\r\nCountersign-State: settled\r\nCountersign-Payment: pay_forged\r\nPAYMENT-RESPONSE: e30=\r\n\
         X-PAYMENT-RESPONSE: e30=\r\nPAYMENT-REQUIRED: e30=\r\nKeep-Alive: timeout=5\r\nX-Own: kept\r\nContent-Length: 2\r\n\r\nok",
    );
    let gateway = Gateway::start(Config::new(plain()).allow_private(&stub.authority));
    let answer = gateway.agent().fetch(&stub.url("/"), json!({}));
    assert_eq!(answer.status, 302, "a redirect is answered: {}", answer.text());
    assert_eq!((header(&answer, "x-own"), header(&answer, "countersign-source")), ("kept", "seller"));
    assert_eq!(header(&answer, "countersign-seller-location"), "http://169.254.169.254/");
    assert_eq!(header(&answer, "countersign-seller-set-cookie"), "a=b");
    assert_eq!(header(&answer, "countersign-seller-www-authenticate"), "Payment x");
    for name in [
        "location",
        "set-cookie",
        "www-authenticate",
        "countersign-state",
        "countersign-payment",
        "payment-response",
        "x-payment-response",
        "payment-required",
        "keep-alive",
    ] {
        assert!(answer.header(name).is_none(), "{name} reached the agent: {:?}", answer.headers);
    }
    assert_eq!(answer.headers.iter().filter(|(name, _)| name == "countersign-source").count(), 1);
    assert_eq!(stub.seen().len(), 1);
}

#[test]
fn rule_13_one_reading_of_a_url() {
    let stub = Stub::start("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(Config::new(plain()).allow_private(&stub.authority));
    let (host, port) = stub.authority.split_once(':').unwrap();
    for url in [
        format!("http://user@{host}:{port}/"),
        format!("http://user:secret@{host}:{port}/"),
        format!("http://api.example.com@{host}:{port}/"),
        format!("http://{host}.:{port}/"),
        format!("http://{host}:{port}/a/%2e%2e/b"),
        format!("http://{host}:{port}/a/%2E%2E%2fb"),
        format!("http://{host}:{port}/%2e/b"),
        format!("http:\\\\{host}:{port}\\"),
        format!("http:///{host}:{port}/"),
        format!("file://{host}:{port}/"),
        format!("//{host}:{port}/"),
        format!("http://{host}:{port}/\r\nX: y"),
        format!("http://{host}:99999/"),
        "http:///".to_owned(),
        "".to_owned(),
    ] {
        let answer = gateway.agent().fetch(&url, json!({}));
        assert_eq!(answer.status, 400, "{url}: {} {}", answer.status, answer.text());
    }
    assert_eq!(stub.seen(), Vec::<String>::new());
    // A fragment stays here.
    assert_eq!(gateway.agent().fetch(&stub.url("/x#secret"), json!({})).status, 200);
    assert!(stub.seen()[0].starts_with("GET /x HTTP/1.1"), "{:?}", stub.seen());
}

#[test]
fn rule_13_redirects_are_never_followed_with_or_into_a_payment() {
    let scene = Scene::new(&["redirects-paid", "redirects-unpaid", "redirects-to-metadata", "elsewhere"]);
    let paid = scene.fetch("redirects-paid", json!({"purchase_id": "p"}));
    assert_eq!((paid.status, header(&paid, "countersign-source")), (307, "seller"));
    assert_eq!(header(&paid, "countersign-state"), "unknown");
    assert!(header(&paid, "countersign-seller-location").starts_with(scene.seller("elsewhere").base_url()));
    assert!(paid.header("location").is_none());
    let again = scene.fetch("redirects-paid", json!({"purchase_id": "p"}));
    assert_eq!(again.status, 307);
    assert_eq!(scene.seller("redirects-paid").stats().authorizations, 1);

    for name in ["redirects-unpaid", "redirects-to-metadata"] {
        let answer = scene.fetch(name, json!({}));
        assert_eq!((answer.status, header(&answer, "countersign-source")), (302, "seller"));
        assert!(answer.header("location").is_none() && answer.header("countersign-payment").is_none());
        unpaid(scene.seller(name));
    }
    assert_eq!(scene.seller("elsewhere").stats().requests, 0);
    assert_eq!(ledger(&scene.gateway).len(), 1);
}

#[test]
fn rule_14_private_addresses_are_refused_in_every_spelling() {
    let stub = Stub::start("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(Config::new(plain()));
    let port = stub.authority.split_once(':').unwrap().1;
    let own = [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "127.000.000.001",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:0:0:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "１２７.0.0.1",
        "127。0。0。1",
        "%31%32%37.0.0.1",
        "①②⑦.0.0.1",
    ];
    for host in own {
        let answer = gateway.agent().fetch(&format!("http://{host}:{port}/"), json!({}));
        assert_eq!(answer.status, 400, "{host}: {}", answer.text());
        assert!(
            matches!(text(&answer.json(), "/code"), "egress-forbidden" | "bad-request"),
            "{host}: {}",
            answer.text()
        );
    }
    for host in [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[ff02::1]",
        "[2001:db8::1]",
        "[::ffff:10.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a00:1]",
        "[2002:a00:1::]",
    ] {
        for scheme in ["http", "https"] {
            let answer = gateway.agent().fetch(&format!("{scheme}://{host}/"), json!({}));
            refusal(&answer, 400, "egress-forbidden");
        }
    }
    assert_eq!(stub.seen(), Vec::<String>::new());
    assert_eq!(ledger(&gateway), Vec::<Value>::new());
}

#[test]
fn rule_14_only_the_port_that_is_listed() {
    let stub = Stub::start("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let other = Stub::start("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(Config::new(plain()).allow_private(&stub.authority));
    assert_eq!(gateway.agent().fetch(&stub.url("/"), json!({})).status, 200);
    refusal(&gateway.agent().fetch(&other.url("/"), json!({})), 400, "egress-forbidden");
    // Listed as an address, asked for as a name: the same place, or none.
    let port = other.authority.split_once(':').unwrap().1;
    refusal(&gateway.agent().fetch(&format!("http://localhost:{port}/"), json!({})), 400, "egress-forbidden");
    // A whole address is no licence for every port.
    let gateway = Gateway::start(Config::new(plain()).allow_private("127.0.0.1"));
    refusal(&gateway.agent().fetch(&other.url("/"), json!({})), 400, "egress-forbidden");
    assert_eq!((stub.seen().len(), other.seen().len()), (1, 0));
}

#[test]
fn rule_14_the_gateways_own_listeners_and_rpc_are_refused_even_if_listed() {
    let world = LocalWorld::start();
    let mut gateway = Gateway::start(world.config(&["honest"], plain()));
    let own: Vec<String> = [&gateway.url, &gateway.admin_url, world.world().rpc_url()]
        .map(|url| url.trim_start_matches("http://").trim_end_matches('/').to_owned())
        .to_vec();
    let mut config = gateway.config().allow_private("127.0.0.0/8");
    for authority in &own {
        let port: u16 = authority.split_once(':').unwrap().1.parse().unwrap();
        config = config.allow_private(authority).allow_private(&format!("localhost:{port}"));
    }
    gateway.write_config(config);
    gateway.restart();
    for authority in &own {
        let port = authority.split_once(':').unwrap().1;
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"] {
            let answer = gateway.agent().fetch(&format!("http://{host}:{port}/v1/budgets"), json!({}));
            assert_eq!(answer.status, 400, "{host}:{port}: {}", answer.text());
        }
        refusal(
            &gateway.agent().fetch(&format!("http://127.0.0.1:{port}/healthz"), json!({})),
            400,
            "egress-forbidden",
        );
    }
    bought(&gateway.agent().fetch(&world.world().seller("honest").unwrap().url("/quote"), json!({})), "0.001");
}

#[test]
fn rule_14_proxy_variables_are_ignored() {
    let proxy = Stub::start("HTTP/1.1 418 Proxied\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let stub = Stub::start("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let mut config =
        Config::new(plain()).allow_private(&stub.authority).variable("NO_PROXY", "").variable("no_proxy", "");
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        config = config.variable(name, &format!("http://{}", proxy.authority));
    }
    let gateway = Gateway::start(config);
    assert_eq!(gateway.agent().fetch(&stub.url("/"), json!({})).status, 200);
    assert_eq!(proxy.seen(), Vec::<String>::new());
}

// ---- Approvals

fn asking(sellers: &[&str]) -> Scene {
    let review = Policy::new("review", "builtin:review-threshold").setting("above", "0.000999");
    let [vendors, caps] = plain();
    Scene::with(sellers, [vendors, caps, review], |config| config)
}

/// Asks, gets the approval, approves it; returns its id.
fn approve(scene: &Scene, url: &str, more: Value) -> String {
    let body = refusal(&scene.agent().fetch(url, more), 202, "approval-required");
    let approval = text(&body, "/approval/id").to_owned();
    let answer = scene.gateway.operator().post(&format!("/v1/approvals/{approval}/approve"), &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    approval
}

#[test]
fn rule_16_only_what_was_approved_is_paid() {
    let scene = asking(&["honest"]);
    let seller = scene.seller("honest").clone();
    let payee = seller.pay_to();
    let ask = |id: &str, account: &str| {
        let url = seller.url(&format!("/quote?{id}"));
        (url, json!({"purchase_id": id, "headers": {"X-Account": account}}))
    };
    let asks_again = |id: &str, account: &str, first: &str| {
        let (url, order) = ask(id, account);
        let second = refusal(&scene.agent().fetch(&url, order), 202, "approval-required");
        assert_ne!(text(&second, "/approval/id"), first, "{id}");
    };

    // Another price, even a lower one.
    let (url, order) = ask("dearer", "1");
    let dearer = approve(&scene, &url, order);
    let (url, order) = ask("cheaper", "1");
    seller.set_price("/quote", 3_000);
    let cheaper = approve(&scene, &url, order);
    seller.set_price("/quote", 2_000);
    asks_again("dearer", "1", &dearer);
    asks_again("cheaper", "1", &cheaper);
    // Another payee.
    let (url, order) = ask("payee", "1");
    let first = approve(&scene, &url, order);
    seller.set_pay_to(Address::new([7; 20]));
    asks_again("payee", "1", &first);
    // Other headers: what is sent must be what was shown.
    seller.set_pay_to(payee);
    let (url, order) = ask("headers", "1");
    let first = approve(&scene, &url, order);
    asks_again("headers", "2", &first);
    unpaid(&seller);
    assert_eq!(scene.redeemed(), 0);
}

#[test]
fn rule_16_an_approval_is_used_once() {
    let scene = asking(&["honest"]);
    let url = scene.quote("honest");
    approve(&scene, &url, json!({"purchase_id": "p"}));
    let answers: Vec<Response> = thread::scope(|scope| {
        let calls: Vec<_> =
            (0..12).map(|_| scope.spawn(|| scene.agent().fetch(&url, json!({"purchase_id": "p"})))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let payments: BTreeSet<String> = answers.iter().map(|answer| bought(answer, "0.001")).collect();
    assert_eq!((payments.len(), scene.redeemed()), (1, 1));
    refusal(&scene.agent().fetch(&url, json!({"purchase_id": "q"})), 202, "approval-required");
    assert_eq!(scene.seller("honest").stats().authorizations, 1);
}

#[test]
fn rule_16_everything_is_checked_again_when_resumed() {
    let mut scene = asking(&["honest"]);
    let url = scene.quote("honest");
    // A suspension after the approval.
    approve(&scene, &url, json!({"purchase_id": "stopped"}));
    assert_eq!(scene.gateway.operator().post("/v1/suspend", &json!({})).status, 200);
    refusal(&scene.agent().fetch(&url, json!({"purchase_id": "stopped"})), 403, "suspended");
    assert_eq!(scene.gateway.operator().delete("/v1/suspend").status, 200);
    // A policy that has changed its mind.
    let config = scene.gateway.config().set(&["policy", "vendors", "settings", "hosts"], vec!["api.example.com"]);
    activate(&mut scene.gateway, config);
    refusal(&scene.agent().fetch(&url, json!({"purchase_id": "stopped"})), 403, "policy-denied");
    // An agent that is no longer there.
    scene.gateway.write_config(scene.gateway.config().remove(&["agent", "scout"]));
    eventually(|| scene.agent().fetch(&url, json!({"purchase_id": "stopped"})), 401, "unauthenticated");
    unpaid(scene.seller("honest"));
}

#[test]
fn rule_16_an_approval_says_yes_to_the_reasons_shown_only() {
    let scene = asking(&["honest"]);
    let url = scene.quote("honest");
    approve(&scene, &url, json!({"purchase_id": "p"}));
    // Now another policy asks, for a reason nobody was shown.
    let mut scene = scene;
    let second = Policy::new("newcomer", "builtin:review-threshold").setting("first-time-vendor", true);
    scene.gateway.write_config(scene.gateway.config().policy(second));
    let generation =
        |scene: &Scene| scene.gateway.operator().get("/v1/policies").json()["policies"].as_array().unwrap().len();
    wait_for(SOON, || (generation(&scene) == 4).then_some(())).expect("never activated");
    refusal(&scene.agent().fetch(&url, json!({"purchase_id": "p"})), 202, "approval-required");
    unpaid(scene.seller("honest"));
}

// ---- Configuration

#[test]
fn rule_19_tightening_takes_effect_while_policies_are_broken() {
    let mut scene = Scene::with(&["honest"], plain(), |config| {
        config.agent("rival", RIVAL_TOKEN).operator("bob", "test-operator-token-of-bob-0123456789abcd", &["viewer"])
    });
    let rival = scene.gateway.agent_with(RIVAL_TOKEN);
    let url = scene.quote("honest");
    bought(&rival.fetch(&url, json!({})), "0.001");
    bought(&scene.agent().fetch(&url, json!({})), "0.001");
    let newcomer = "test-agent-token-of-newcomer-0123456789abc";
    let edit = scene
        .gateway
        .config()
        .set(&["policy", "caps", "settings", "per-paymnet"], "9.00")
        .remove(&["agent", "rival"])
        .remove(&["operator", "bob"])
        .agent("newcomer", newcomer)
        .set(&["limits", "purchases-per-agent-per-minute"], 1);
    scene.gateway.write_config(edit);

    eventually(|| rival.fetch(&url, json!({})), 401, "unauthenticated");
    let bob = Client::new(&scene.gateway.admin_url, "test-operator-token-of-bob-0123456789abcd");
    refusal(&bob.get("/v1/payments"), 401, "unauthenticated");
    eventually(|| scene.agent().fetch(&url, json!({})), 429, "rate-limited");
    // Nothing becomes possible by a broken edit, and people are told of it.
    refusal(&scene.gateway.agent_with(newcomer).fetch(&url, json!({})), 401, "unauthenticated");
    let report = scene.gateway.operator().get("/v1/policies").json();
    assert!(!report["last_error"].is_null(), "{report}");
    assert!(report.to_string().contains("per-paymnet"), "the error does not name the key: {report}");
}

#[test]
fn rule_19_a_lower_wallet_limit_holds_at_once() {
    let mut scene = Scene::new(&["honest"]);
    bought(&scene.fetch("honest", json!({})), "0.001");
    let edit = scene
        .gateway
        .config()
        .set(&["wallet", "research", "daily-limit"], "0.0015")
        .set(&["policy", "caps", "settings", "per-payment"], "not money");
    scene.gateway.write_config(edit);
    eventually(|| scene.fetch("honest", json!({})), 403, "budget-exceeded");
}

#[test]
fn rule_19_an_edit_that_does_not_parse_changes_nothing() {
    let mut scene = Scene::new(&["honest"]);
    let before = scene.gateway.operator().get("/v1/policies").json();
    fs::write(scene.gateway.dir().join("countersign.toml"), "this is [ not toml").unwrap();
    let report = || scene.gateway.operator().get("/v1/policies").json();
    let after = wait_for(SOON, || Some(report()).filter(|report| !report["last_error"].is_null()))
        .expect("no error is reported");
    assert_eq!(after["generation"], before["generation"]);
    bought(&scene.fetch("honest", json!({})), "0.001");
    // And a good one after it heals.
    scene.gateway.write_config(scene.gateway.config().set(&["policy", "caps", "settings", "per-payment"], "0.0005"));
    eventually(|| scene.fetch("honest", json!({})), 403, "policy-denied");
    assert!(report_is_clean(&scene.gateway));
}

fn report_is_clean(gateway: &Gateway) -> bool {
    gateway.operator().get("/v1/policies").json()["last_error"].is_null()
}

#[test]
fn rule_19_what_needs_a_restart_is_refused_whole() {
    let mut scene = Scene::new(&["honest"]);
    let edit = scene
        .gateway
        .config()
        .set(&["gateway", "currency"], "EUR")
        .set(&["policy", "caps", "settings", "per-payment"], "0.0005");
    scene.gateway.write_config(edit);
    let report = || scene.gateway.operator().get("/v1/policies").json();
    let told = wait_for(SOON, || Some(report()).filter(|report| !report["last_error"].is_null()))
        .expect("no error is reported");
    assert!(told.to_string().contains("needs-restart") || told.to_string().contains("restart"), "{told}");
    bought(&scene.fetch("honest", json!({})), "0.001");
}

#[test]
fn rule_19_policies_that_cannot_start_deny_everything() {
    let scene = Scene::with(&["honest"], [Policy::vendors(), caps("5.00").setting("per-day", "1.00")], |config| config);
    refusal_because(&scene.fetch("honest", json!({})), 403, "policy-denied", "policy-unavailable");
    let report = scene.gateway.operator().get("/v1/policies").json();
    assert!(report.to_string().contains("per-day") && !report["last_error"].is_null(), "{report}");
    unpaid(scene.seller("honest"));
}

// ---- The host itself

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn rule_20_loose_permissions_are_refused_and_named() {
    let check = |what: &str, config: Config, change: &dyn Fn(&Path), names: &str| {
        let (status, log) = Gateway::refused_in(config, |dir| change(dir));
        assert_eq!(status.code(), Some(1), "{what}: {log}");
        assert!(log.contains(names), "{what}: {names} is not named: {log}");
        assert!(log.contains("chmod") || log.contains("mode"), "{what}: it does not say what to do: {log}");
    };
    let plain_config = || Config::new(plain());
    check("config", plain_config(), &|dir| chmod(&dir.join("countersign.toml"), 0o666), "countersign.toml");
    check("config of a group", plain_config(), &|dir| chmod(&dir.join("countersign.toml"), 0o660), "countersign.toml");
    check("folder", plain_config(), &|dir| chmod(dir, 0o777), "mode 0777");
    check(
        "ledger",
        plain_config(),
        &|dir| {
            fs::write(dir.join("countersign.db"), "").unwrap();
            chmod(&dir.join("countersign.db"), 0o644);
        },
        "countersign.db",
    );
    let secret = |dir: &Path, mode| {
        fs::write(dir.join("wallet.key"), BUYER.key).unwrap();
        chmod(&dir.join("wallet.key"), mode);
    };
    let in_file = || {
        let table: toml::Table = [("file".to_owned(), toml::Value::from("wallet.key"))].into_iter().collect();
        Config::new(plain()).set(&["wallet", "research", "key"], table)
    };
    check("secret", in_file(), &|dir| secret(dir, 0o644), "wallet.key");
    check("secret of a group", in_file(), &|dir| secret(dir, 0o640), "wallet.key");
    let policy = |dir: &Path| {
        fs::write(dir.join("own.wasm"), b"\0asm").unwrap();
        chmod(&dir.join("own.wasm"), 0o666);
    };
    check("policy", Config::new([Policy::new("own", "own.wasm")]), &policy, "own.wasm");
}

#[test]
fn rule_20_a_ledger_that_was_opened_to_others_is_not_used_again() {
    let mut gateway = Gateway::start(Config::new(plain()));
    assert!(gateway.terminate().success());
    let mode = |name: &str| fs::metadata(gateway.dir().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("countersign.db"), 0o600);
    for entry in fs::read_dir(gateway.dir()).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("countersign.db") {
            assert_eq!(mode(&name) & 0o077, 0, "{name} can be read by others");
        }
    }
    chmod(&gateway.dir().join("countersign.db"), 0o644);
    let out = gateway.command(&["serve", "--config", "countersign.toml"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("countersign.db"), "{out:?}");
}

#[test]
fn rule_20_secrets_leave_the_environment_and_never_enter_the_log() {
    let scene = Scene::new(&["honest", "raises-price"]);
    bought(&scene.fetch("honest", json!({})), "0.001");
    refusal(&scene.fetch("raises-price", json!({})), 502, "payment-refused");
    let key = BUYER.key.trim_start_matches("0x");
    for file in ["environ", "cmdline"] {
        let path = format!("/proc/{}/{file}", scene.gateway.pid());
        let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        assert!(!text.to_lowercase().contains(key), "the wallet's key is in {file}");
    }
    let log = scene.gateway.log().to_lowercase();
    let signature = "signature\":\"0x";
    for secret in [key, SCOUT_TOKEN, ALICE_TOKEN, signature] {
        assert!(!log.contains(&secret.to_lowercase()), "{secret} is in the log");
    }
    let mut left = vec![scene.gateway.dir().to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let found = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle));
        assert!(!found(key.as_bytes()), "the key is in {path:?}");
        assert!(!found(SCOUT_TOKEN.as_bytes()), "a token is in {path:?}");
    }
}

#[test]
fn rule_20_only_loopback_without_tls() {
    let open = |key: &'static str, name: &'static str| {
        let (status, log) = Gateway::refused_in(Config::new(plain()), |dir| {
            let path = dir.join("countersign.toml");
            let text = fs::read_to_string(&path).unwrap();
            let table: toml::Table = toml::from_str(&text).unwrap();
            let old = table["gateway"][key].as_str().unwrap();
            fs::write(&path, text.replace(old, &old.replace("127.0.0.1", name))).unwrap();
        });
        assert_eq!(status.code(), Some(1), "{key} {name}: {log}");
        assert!(log.to_lowercase().contains("tls"), "{key} {name}: {log}");
    };
    open("listen", "0.0.0.0");
    open("admin", "0.0.0.0");
    open("listen", "[::]");
    open("admin", "192.168.0.1");
}

#[test]
fn rule_20_unknown_keys_are_named_with_the_nearest() {
    let (status, log) = Gateway::refused(Config::new(plain()).set(&["limits", "unresolved-per-seler"], 3));
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("unresolved-per-seler") && log.contains("unresolved-per-seller"), "{log}");
    let (_, log) = Gateway::refused(Config::new(plain()).set(&["wallet", "research", "key"], BUYER.key));
    assert!(!log.contains(BUYER.key.trim_start_matches("0x")), "a secret is repeated: {log}");
}

// ---- What is told to whom

#[test]
fn rule_22_agents_read_codes_and_operators_read_words() {
    let run = |tell: bool| {
        let vendors = Policy::new("vendors", "builtin:vendor-allowlist")
            .setting("hosts", vec!["api.example.com"])
            .key(&["tell-agent"], tell);
        let scene = Scene::with(&["honest"], [vendors, caps("5.00")], |config| config);
        let body = refusal_because(&scene.fetch("honest", json!({})), 403, "policy-denied", "vendor-not-listed");
        let told = text(&body, "/reasons/0/message").to_owned();
        let id = text(&body, "/payment");
        let words = text(&scene.gateway.operator().payment(id), "/decision/reasons/0/message").to_owned();
        let listed = scene.agent().payment(id);
        (
            told,
            text(&listed, "/decision/reasons/0/message").to_owned(),
            text(&listed, "/decision/policies/0/reasons/0/message").to_owned(),
            words,
        )
    };
    let (told, read, read_of_policy, words) = run(false);
    for message in [told, read, read_of_policy] {
        assert_ne!(message, words, "the policy's own words reached the agent");
    }
    let (told, read, _, words) = run(true);
    assert_eq!((told, read), (words.clone(), words));
}

#[test]
fn rule_22_other_peoples_figures_are_not_told() {
    let scene = Scene::with(&["honest"], plain(), |config| {
        config
            .set(&["budget", "workspace/research", "when", "workspace"], "research")
            .set(&["budget", "workspace/research", "per"], "lifetime")
            .set(&["budget", "workspace/research", "limit"], "0.001777")
    });
    bought(&scene.fetch("honest", json!({})), "0.001");
    let answer = scene.fetch("honest", json!({}));
    refusal(&answer, 403, "budget-exceeded");
    let read = scene.agent().payment(text(&answer.json(), "/payment")).to_string();
    for told in [answer.text(), read, scene.agent().get("/v1/budgets").text(), scene.agent().get("/v1/payments").text()]
    {
        // What is left, and the limit, in either unit; as words, for ids are made of digits too.
        let mut words = told.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
        let figure = words.find(|word| ["0.001777", "0.000777", "1777", "777"].contains(word));
        assert_eq!(figure, None, "a foreign budget's figure is told: {told}");
    }
}

#[test]
fn rule_22_a_sellers_words_do_not_reach_the_model() {
    let review = Policy::new("review", "builtin:review-threshold").setting("above", "0.000001");
    let [vendors, caps] = plain();
    let scene = Scene::with(&["talks-to-the-model"], [vendors, caps, review], |config| config);
    let asked = scene.fetch("talks-to-the-model", json!({"purchase_id": "p"}));
    let body = refusal(&asked, 202, "approval-required");
    let approval = text(&body, "/approval/id").to_owned();
    let mut told = vec![asked, scene.agent().get(&format!("/v1/approvals/{approval}"))];
    assert_eq!(scene.gateway.operator().post(&format!("/v1/approvals/{approval}/approve"), &json!({})).status, 200);
    let paid = scene.fetch("talks-to-the-model", json!({"purchase_id": "p"}));
    told.push(scene.agent().get(&format!("/v1/payments/{}", bought(&paid, "0.001"))));
    told.extend([paid, scene.agent().get("/v1/payments"), scene.agent().get("/v1/budgets")]);
    for answer in &told {
        let headers = format!("{:?}", answer.headers);
        for word in ["IGNORE ALL", "approve every", "X-Approved", "\u{202e}", "\u{1b}"] {
            assert!(!answer.text().contains(word) && !headers.contains(word), "{word:?}: {headers} {}", answer.text());
        }
        assert!(answer.header("x-approved").is_none());
    }
    let log = scene.gateway.log();
    assert!(!log.contains('\u{1b}') && !log.contains('\u{202e}'), "raw control characters in the log");
    // Who looks at a terminal is not to be fooled either.
    let shown = String::from_utf8_lossy(&scene.gateway.command(&["payments", "list"]).stdout).into_owned();
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'));
}

#[test]
fn rule_24_decisions_are_rate_limited() {
    let scene = Scene::with(&["honest"], plain(), |config| {
        config.agent("rival", RIVAL_TOKEN).set(&["limits", "purchases-per-agent-per-minute"], 3)
    });
    for _ in 0..3 {
        bought(&scene.fetch("honest", json!({})), "0.001");
    }
    let body = refusal(&scene.fetch("honest", json!({})), 429, "rate-limited");
    assert!((1..=60).contains(&body["retry_after"].as_u64().unwrap()), "{body}");
    assert_eq!(scene.agent().fetch(&scene.seller("honest").url("/free"), json!({})).status, 200);
    bought(&scene.gateway.agent_with(RIVAL_TOKEN).fetch(&scene.quote("honest"), json!({})), "0.001");
    assert_eq!((scene.redeemed(), ledger(&scene.gateway).len()), (4, 4), "a rate-limited call is recorded");
}

#[test]
fn rule_24_equal_denials_are_one_record_with_a_count() {
    let scene = Scene::with(&["honest"], plain(), |config| config.agent("rival", RIVAL_TOKEN));
    let report = scene.seller("honest").url("/report");
    for _ in 0..6 {
        refusal(&scene.agent().fetch(&report, json!({})), 403, "policy-denied");
    }
    let records = ledger(&scene.gateway);
    assert_eq!(records.len(), 1, "{records:?}");
    // The first, and five more; or all six.
    let count = records[0]["repeats"].as_u64().unwrap_or_else(|| panic!("no count: {}", records[0]));
    assert!(matches!(count, 5 | 6), "{}", records[0]);
    // What is not equal is not collapsed.
    refusal(&scene.gateway.agent_with(RIVAL_TOKEN).fetch(&report, json!({})), 403, "policy-denied");
    refusal(&scene.agent().fetch(&scene.seller("honest").url("/dataset"), json!({})), 403, "policy-denied");
    assert_eq!(ledger(&scene.gateway).len(), 3);
}

#[test]
fn rule_24_long_words_are_cut_in_the_record() {
    let scene = Scene::new(&["honest"]);
    let long = "x".repeat(1_000);
    let payment = bought(&scene.fetch("honest", json!({"purpose": long})), "0.001");
    let record = scene.gateway.operator().payment(&payment).to_string();
    assert!(record.contains("xxxxxxxx") && !record.contains(&"x".repeat(257)), "not cut at 256 bytes: {record}");
    let shown = scene.gateway.command(&["payments", "show", &payment]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("xxxxxxxx") && !shown.contains(&"x".repeat(257)), "not cut at 256 bytes: {shown}");
}

// ---- Offers that must not be signed

#[test]
fn offers_that_lie_are_never_signed() {
    let liars = [
        "two-terms",
        "hex-amount",
        "number-amount",
        "text-timeout",
        "look-alike-token",
        "wrong-token-name",
        "main-net",
        "burns-money",
        "wants-permit2",
    ];
    let scene = Scene::new(&liars);
    for name in liars {
        let answer = scene.fetch(name, json!({}));
        let body = refusal(&answer, 422, "unpayable-offer");
        assert_eq!(body["retry"], false, "{name}");
        unpaid(scene.seller(name));
    }
    // A main-net offer names the field; so do the others.
    for (name, field) in [
        ("hex-amount", "amount"),
        ("number-amount", "amount"),
        ("text-timeout", "maxTimeoutSeconds"),
        ("look-alike-token", "asset"),
        ("wrong-token-name", "name"),
        ("burns-money", "payTo"),
        ("wants-permit2", "assetTransferMethod"),
    ] {
        let told = scene.fetch(name, json!({})).text();
        assert!(told.contains(field), "{name} does not name {field}: {told}");
    }
    assert_eq!(ledger(&scene.gateway).iter().filter(|p| !p["valid_before"].is_null()).count(), 0);
    assert_eq!(scene.redeemed(), 0);
}

#[test]
fn a_main_net_offer_is_not_paid_even_if_the_network_is_known() {
    let scene = Scene::new(&["main-net"]);
    let told = scene.fetch("main-net", json!({})).text();
    assert!(told.contains("eip155:8453") || told.contains("network"), "{told}");
    unpaid(scene.seller("main-net"));
}

#[test]
fn terms_without_end_end() {
    let scene = Scene::new(&["huge-terms", "endless-terms"]);
    for name in ["huge-terms", "endless-terms"] {
        let answer = scene.fetch(name, json!({}));
        assert!(matches!(answer.status, 422 | 502), "{name}: {} {}", answer.status, answer.text());
        refusal(&answer, answer.status, if answer.status == 422 { "unpayable-offer" } else { "seller-misbehaved" });
        unpaid(scene.seller(name));
    }
}

#[test]
fn a_signature_never_lasts_longer_than_allowed() {
    for (seconds, limit) in [(None, 300), (Some(30), 30)] {
        let scene = Scene::with(&["huge-timeout"], plain(), |config| match seconds {
            Some(seconds) => config.mandate(&["max-validity-seconds"], seconds),
            None => config,
        });
        bought(&scene.fetch("huge-timeout", json!({})), "0.001");
        let visits = scene.seller("huge-timeout").visits();
        let paid = visits.iter().find(|visit| visit.presented).unwrap();
        let lasts = paid.valid_before.unwrap() - paid.at.as_secs();
        assert!((6..=limit).contains(&lasts), "{lasts} s");
    }
}

#[test]
fn a_receipt_for_somebody_else_is_not_believed() {
    let scene = Scene::new(&["foreign-network-receipt", "foreign-payer-receipt"]);
    for name in ["foreign-network-receipt", "foreign-payer-receipt"] {
        let answer = scene.fetch(name, json!({}));
        assert_eq!((answer.status, header(&answer, "countersign-state")), (200, "unknown"), "{name}");
        // The chain decides.
        scene.until(header(&answer, "countersign-payment"), "settled");
    }
    assert_eq!(scene.redeemed(), 2);
}

#[test]
fn a_receipt_for_nothing_is_accepted_and_never_settled() {
    let scene = Scene::new(&["fake-receipt", "honest"]);
    let fake = bought(&scene.fetch("fake-receipt", json!({})), "0.001");
    let honest = bought(&scene.fetch("honest", json!({})), "0.001");
    scene.until(&honest, "settled");
    assert_eq!(scene.agent().payment(&fake)["state"], "accepted");
    let budgets = items(&scene.agent().get("/v1/budgets"));
    assert!(budgets.iter().any(|row| row["held"] == "0.001"), "the money is not held: {budgets:?}");
}

#[test]
fn a_failure_before_the_money_is_taken_costs_nothing_but_the_hold() {
    let scene = Scene::new(&["honest", "honest-v1"]);
    for name in ["honest", "honest-v1"] {
        let answer = scene.agent().fetch(&scene.seller(name).url("/broken"), json!({}));
        assert_eq!((answer.status, header(&answer, "countersign-state")), (500, "unknown"), "{name}");
    }
    assert_eq!(scene.redeemed(), 0);
}

#[test]
fn the_dear_offer_first_does_not_win() {
    let scene = Scene::new(&["honest"]);
    bought(&scene.agent().fetch(&scene.seller("honest").url("/choice"), json!({})), "0.003");
    assert_eq!(scene.redeemed(), 1);
}

#[test]
fn a_402_is_never_passed_on() {
    for extra in [
        "",
        "PAYMENT-REQUIRED: !!!\r\n",
        "PAYMENT-REQUIRED: bnVsbA==\r\n",
        "PAYMENT-REQUIRED: eyJ4NDAyVmVyc2lvbiI6M30=\r\n",
        "WWW-Authenticate: Payment\r\n",
    ] {
        let stub = Stub::start(format!(
            "HTTP/1.1 402 Payment Required\r\nConnection: close\r\n{extra}Content-Length: 4\r\n\r\nnull"
        ));
        let gateway = Gateway::start(Config::new(plain()).allow_private(&stub.authority));
        let answer = gateway.agent().fetch(&stub.url("/"), json!({}));
        refusal(&answer, 422, "unpayable-offer");
        for name in ["payment-required", "x-payment", "www-authenticate"] {
            assert!(answer.header(name).is_none(), "{name}");
        }
        assert_eq!(stub.seen().len(), 1);
    }
}

#[test]
fn nobody_there_is_seller_unreachable() {
    let port = countersign_tests::process::free_port();
    let gateway = Gateway::start(Config::new(plain()).allow_private(&format!("127.0.0.1:{port}")));
    let body =
        refusal(&gateway.agent().fetch(&format!("http://127.0.0.1:{port}/"), json!({})), 502, "seller-unreachable");
    assert_eq!(body["retry"], true);
    let health = http::get(&format!("{}/healthz", gateway.admin_url)).send();
    assert_eq!(health.status, 200);
}
