//! `POST /v1/quote`: what a purchase would come to, without one.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

use countersign_tests::{
    config::{Config, Policy},
    process::Gateway,
    refusal::refusal,
    till::{caps, items},
    world::LocalWorld,
};
use serde_json::{Value, json};

fn scene(change: impl FnOnce(Config) -> Config) -> (LocalWorld, Gateway) {
    let world = LocalWorld::start();
    let asks = Policy::new("review", "builtin:review-threshold").setting("above", "0.4");
    let config = world.config(&["honest"], [Policy::vendors(), caps("0.505"), asks]);
    (world, Gateway::start(change(config)))
}

fn url(world: &LocalWorld, path: &str) -> String {
    world.world().seller("honest").unwrap().url(path)
}

/// What a quote says, which is always a 200 in full shape.
#[track_caller]
fn quoted(gateway: &Gateway, url: &str, more: Value) -> Value {
    let answer = gateway.agent().quote(url, more);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("countersign-source"), Some("gateway"));
    let quote = answer.json();
    assert!(quote["reasons"].is_array() && quote["budgets"].is_array() && quote.get("price").is_some(), "{quote}");
    assert_eq!(quote.as_object().unwrap().len(), 4, "{quote}");
    quote
}

fn verdict(quote: &Value) -> (&str, &str, &str) {
    let text = |pointer| quote.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    (text("/price/amount"), text("/verdict"), text("/reasons/0/code"))
}

#[test]
fn a_quote_says_what_a_purchase_would_be_told_and_leaves_no_trace_but_a_record() {
    let (world, gateway) = scene(|config| config);
    let before = items(&gateway.operator().get("/v1/budgets"));
    let (cheap, dear) = (url(&world, "/quote"), url(&world, "/report"));

    let quote = quoted(&gateway, &cheap, json!({}));
    assert_eq!((verdict(&quote).0, verdict(&quote).1), ("0.001", "allow"), "{quote}");
    let price = json!({"amount": "0.001", "currency": "USD", "asset": "USDC", "network": "eip155:84532"});
    assert_eq!(quote["price"], price);
    assert!(quote["budgets"].as_array().unwrap().iter().any(|b| b["available"] == "0.505"), "{quote}");

    assert_eq!(verdict(&quoted(&gateway, &dear, json!({}))), ("2.5", "deny", "above-per-payment"));
    assert_eq!(
        verdict(&quoted(&gateway, &cheap, json!({"max_price": "0.0009"}))),
        ("0.001", "deny", "price-above-max")
    );
    // Half a dollar asks people; the other offer costs less than that.
    let choice = quoted(&gateway, &url(&world, "/choice"), json!({}));
    assert_eq!((verdict(&choice).0, verdict(&choice).1), ("0.003", "allow"), "{choice}");
    let free = quoted(&gateway, &url(&world, "/free"), json!({}));
    assert_eq!(free, json!({"price": null, "verdict": "allow", "reasons": [], "budgets": []}));
    assert_eq!(verdict(&quoted(&gateway, "http://10.1.2.3/x", json!({}))), ("", "deny", "egress-forbidden"));
    assert_eq!(verdict(&quoted(&gateway, "http://127.0.0.1:1/x", json!({}))), ("", "deny", "egress-forbidden"));

    refusal(&gateway.agent().quote(&cheap, json!({"prise": 1})), 400, "bad-request");
    refusal(&gateway.agent_with("nobody").quote(&cheap, json!({})), 401, "unauthenticated");

    assert_eq!(items(&gateway.operator().get("/v1/budgets")), before, "a quote holds nothing");
    assert_eq!(items(&gateway.agent().get("/v1/payments")), [Value::Null; 0]);
    assert!(world.new_redemptions().is_empty());
    let visits = world.world().seller("honest").unwrap().visits();
    assert!(visits.iter().all(|visit| !visit.presented), "{visits:?}");

    // Recorded: who asked what, and what they were told.
    assert_eq!(gateway.operator().get("/v1/audit/checkpoint").status, 200);
    let exported = gateway.command(&["ledger", "export", "--format", "audit"]);
    let lines = String::from_utf8(exported.stdout).unwrap();
    let records: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let quotes: Vec<&Value> = records.iter().filter(|r| r["kind"] == "quote").collect();
    let told: Vec<(&Value, &Value)> = quotes.iter().map(|r| (&r["body"]["value"], &r["body"]["verdict"])).collect();
    let expected =
        [("0.001", "allow"), ("2.5", "deny"), ("0.001", "deny"), ("0.003", "allow")].map(|(v, d)| (json!(v), json!(d)));
    assert_eq!(told, expected.iter().map(|(v, d)| (v, d)).collect::<Vec<_>>(), "{} {lines}", exported.status);
    assert!(quotes.iter().all(|r| r["by"] == "scout" && r["body"]["door"] == "fetch"));
}

#[test]
fn a_quote_knows_budgets_sessions_stops_and_how_often_it_was_asked() {
    let (world, gateway) = scene(|config| config.set(&["limits", "purchases-per-agent-per-minute"], 12));
    let cheap = url(&world, "/quote");
    world.world().seller("honest").unwrap().set_price("/quote", 300_000);
    assert_eq!(gateway.agent().fetch(&cheap, json!({})).status, 200);
    let quote = quoted(&gateway, &cheap, json!({}));
    assert_eq!(verdict(&quote).1, "deny", "0.30 of 0.505 are gone: {quote}");
    let refused = gateway.agent().fetch(&cheap, json!({}));
    let (told, said) = (refused.json(), &quote["reasons"][0]);
    assert_eq!((&told["code"], &told["detail"]), (&said["code"], &said["message"]));
    world.world().seller("honest").unwrap().set_price("/quote", 1_000);
    assert_eq!(verdict(&quoted(&gateway, &cheap, json!({}))).1, "allow");

    // The session's own wall.
    let opened = gateway.operator().post("/v1/sessions", &json!({"agent": "scout", "limit": "0.0005"})).json();
    let session = gateway.agent_with(opened["token"].as_str().unwrap());
    let quote = session.quote(&cheap, json!({})).json();
    assert_eq!(verdict(&quote), ("0.001", "deny", "budget-exceeded"), "{quote}");

    let stop = gateway.operator().post("/v1/suspend", &json!({"agent": "scout"}));
    assert!(matches!(stop.status, 200 | 201), "{}", stop.text());
    assert_eq!(verdict(&quoted(&gateway, &cheap, json!({}))), ("0.001", "deny", "suspended"));
    assert_eq!(world.new_redemptions().len(), 1);

    // Quotes and purchases count alike.
    let answers: Vec<u16> = (0..12).map(|_| gateway.agent().quote(&cheap, json!({})).status).collect();
    assert_eq!(answers.last(), Some(&429), "{answers:?}");
    refusal(&gateway.agent().quote(&cheap, json!({})), 429, "rate-limited");
    refusal(&gateway.agent().fetch(&cheap, json!({})), 429, "rate-limited");
}
