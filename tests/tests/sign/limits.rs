//! The same policies, holds, limits and people as at every other door.

use countersign_tests::{
    config::Policy,
    refusal::{refusal, refusal_because},
    till::{caps, items, plain, text},
    wait_for,
};
use serde_json::json;
use std::thread;

use crate::{SOON, Scene, given, present};

#[test]
fn policies_budgets_and_ceilings_hold() {
    let scene = Scene::with(&["honest"], [Policy::vendors(), caps("0.0025")], |config| config);
    let body = refusal_because(&scene.sign("/report", json!({})), 403, "policy-denied", "above-per-payment");
    assert_eq!(scene.agent().payment(text(&body, "/payment"))["state"], "denied");
    refusal(&scene.sign("/quote", json!({"max_price": "0.0009"})), 403, "price-above-max");
    given(&scene.sign("/quote?1", json!({"max_price": "0.001"})));
    given(&scene.sign("/quote?2", json!({})));
    let body = refusal(&scene.sign("/quote?3", json!({})), 403, "budget-exceeded");
    assert_eq!(body["policy"], "caps", "{body}");
    assert!(scene.moved().is_empty());
}

#[test]
fn rule_05_a_session_is_held_to_its_limit_and_count() {
    let scene = Scene::new(&["honest"]);
    let wish = json!({"agent": "scout", "limit": "0.0025", "max_payments": 10});
    let opened = scene.gateway.operator().post("/v1/sessions", &wish).json();
    let session = scene.gateway.agent_with(text(&opened, "/token"));
    let sign = |path: &str| {
        let url = scene.honest().url(path);
        crate::sign(&session, &url, &crate::demand(&url), json!({}))
    };
    given(&sign("/quote?1"));
    given(&sign("/quote?2"));
    refusal(&sign("/quote?3"), 403, "budget-exceeded");
    let closed = scene.gateway.operator().delete(&format!("/v1/sessions/{}", text(&opened, "/id")));
    assert!(matches!(closed.status, 200 | 204), "{}", closed.text());
    refusal(&sign("/quote?1"), 403, "session-expired");
}

#[test]
fn rule_08_payments_that_nobody_presents_stop_the_agent() {
    let scene = Scene::new(&["honest"]);
    let open: Vec<_> = (0..3).map(|n| given(&scene.sign(&format!("/quote?{n}"), json!({})))).collect();
    refusal(&scene.sign("/quote?3", json!({})), 403, "too-many-unresolved");
    // What was given is given again all the same, and once it is redeemed there is room.
    assert_eq!(given(&scene.sign("/quote?0", json!({}))), open[0]);
    assert_eq!(present(&scene.honest().url("/quote"), &open[0]).status, 200);
    scene.until(text(&open[0], "/payment"), "settled");
    given(&scene.sign("/quote?3", json!({})));
}

#[test]
fn rule_24_orders_are_rate_limited() {
    let scene =
        Scene::with(&["honest"], plain(), |config| config.set(&["limits", "purchases-per-agent-per-minute"], 2));
    let first = given(&scene.sign("/quote?1", json!({})));
    let outcome = format!("/v1/payments/{}/outcome", text(&first, "/payment"));
    assert_eq!(scene.agent().post(&outcome, &json!({"status": 200})).status, 200);
    refusal(&scene.sign("/quote?2", json!({})), 429, "rate-limited");
    refusal(&scene.agent().post(&outcome, &json!({"status": 200})), 429, "rate-limited");
}

/// People are asked about every payment.
fn asking() -> Scene {
    let [vendors, caps] = plain();
    let review = Policy::new("review", "builtin:review-threshold").setting("above", "0.000999");
    Scene::with(&["honest"], [vendors, caps, review], |config| config)
}

fn approve(scene: &Scene, word: &str) {
    let operator = scene.gateway.operator();
    let waiting = wait_for(SOON, || items(&operator.get("/v1/approvals")).pop()).expect("nobody is asked");
    let answer = operator.post(&format!("/v1/approvals/{}/{word}", text(&waiting, "/id")), &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn people_are_asked_and_waited_for() {
    let scene = asking();
    let body = refusal(&scene.sign("/quote?1", json!({"purchase_id": "later"})), 202, "approval-required");
    assert_eq!(body["purchase"], "later");
    refusal(&scene.sign("/quote?1", json!({})), 202, "approval-required");
    approve(&scene, "approve");
    let first = given(&scene.sign("/quote?1", json!({"purchase_id": "later"})));
    assert_eq!((&first["purchase"], &first["payment"]), (&json!("later"), &body["payment"]));

    let waited = thread::scope(|scope| {
        let call = scope.spawn(|| scene.sign("/quote?2", json!({"wait_seconds": 60})));
        approve(&scene, "approve");
        call.join().unwrap()
    });
    given(&waited);
    let refused = thread::scope(|scope| {
        let call = scope.spawn(|| scene.sign("/quote?3", json!({"wait_seconds": 60})));
        approve(&scene, "deny");
        call.join().unwrap()
    });
    refusal(&refused, 403, "approval-denied");
}

#[test]
fn rule_16_an_approval_is_for_what_was_shown() {
    let scene = asking();
    let first = refusal(&scene.sign("/quote", json!({"purchase_id": "p"})), 202, "approval-required");
    approve(&scene, "approve");
    // Approved for an agent that makes the call itself: the gateway asks again before it makes it.
    let url = scene.honest().url("/quote");
    let second = refusal(&scene.agent().fetch(&url, json!({"purchase_id": "p"})), 202, "approval-required");
    assert_ne!(second["approval"]["id"], first["approval"]["id"]);
    approve(&scene, "approve");
    // And the other way round, at another price.
    scene.honest().set_price("/quote", 2_000);
    let third = refusal(&scene.sign("/quote", json!({"purchase_id": "p"})), 202, "approval-required");
    assert_ne!(third["approval"]["id"], second["approval"]["id"]);
    assert_eq!(scene.honest().stats().presented, 0);
}
