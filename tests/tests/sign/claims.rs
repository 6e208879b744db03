//! Rule 4: what an agent says came of a payment is written down and moves nothing.

use countersign_tests::{
    refusal::refusal,
    till::{items, text},
};
use serde_json::{Value, json};

use crate::{Scene, authorization, given, present};

/// A receipt that contradicts nothing, for a transaction that nobody ever made.
fn forged(given: &Value) -> Value {
    let payer = authorization(given)["from"].clone();
    let transaction = format!("0x{}", "ab".repeat(32));
    json!({"success": true, "transaction": transaction, "network": "eip155:84532", "payer": payer})
}

#[test]
fn rule_04_an_outcome_moves_no_state() {
    let scene = Scene::new(&["honest"]);
    let first = given(&scene.sign("/quote", json!({"purchase_id": "p"})));
    let id = text(&first, "/payment");
    let url = format!("/v1/payments/{id}/outcome");
    let budgets = items(&scene.gateway.operator().get("/v1/budgets"));
    let before = scene.agent().payment(id);
    for said in [
        json!({"status": 200, "receipt": forged(&first), "note": "it came"}),
        json!({"status": 200}),
        json!({"status": 500, "receipt": {"success": false, "transaction": "", "errorReason": "no"}}),
        json!({"status": 200, "receipt": "not base64!"}),
    ] {
        let answer = scene.agent().post(&url, &said);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json(), before, "{said}");
    }
    assert_eq!(scene.agent().payment(id), before);
    assert_eq!(items(&scene.gateway.operator().get("/v1/budgets")), budgets, "what was held is held");
    // Nor what may be signed next.
    assert_eq!(given(&scene.sign("/quote", json!({}))), first);
    refusal(&scene.sign("/quote", json!({"purchase_id": "q"})), 409, "payment-unknown");

    // It is on record, with what the claim is worth.
    let lines = scene.records();
    let records = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let claims: Vec<Value> = records.filter(|r| r["kind"] == "outcome-reported").collect();
    let told: Vec<(&str, &str)> =
        claims.iter().map(|r| (text(r, "/body/payment"), text(r, "/body/claim/receipt"))).collect();
    assert_eq!(told, [(id, "valid"), (id, "absent"), (id, "failed"), (id, "invalid")], "{lines}");
    assert!(claims.iter().all(|r| r["by"] == "scout"));

    // Only the chain speaks.
    assert_eq!(present(&scene.honest().url("/quote"), &first).status, 200);
    scene.until(id, "settled");
    let late = scene.agent().post(&url, &json!({"status": 402}));
    assert_eq!((late.status, &late.json()["state"]), (200, &json!("settled")));
}

#[test]
fn outcomes_are_refused_where_there_can_be_none() {
    let scene = Scene::new(&["honest"]);
    let denied = refusal(&scene.sign("/report", json!({})), 403, "policy-denied");
    let of = |id: &str, said: Value| scene.agent().post(&format!("/v1/payments/{id}/outcome"), &said);
    refusal(&of(text(&denied, "/payment"), json!({"status": 200})), 409, "conflict");
    let first = given(&scene.sign("/quote", json!({})));
    let id = text(&first, "/payment");
    for said in [json!({}), json!({"status": 99}), json!({"status": 200, "receipt": 1}), json!({"status": 200, "x": 1})]
    {
        refusal(&of(id, said), 400, "bad-request");
    }
    refusal(&of("x", json!({"status": 200})), 404, "not-found");
}
