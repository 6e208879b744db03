//! Sellers that accept a call and say nothing for longer than the gateway waits.

use super::*;
use countersign_tests::{
    refusal::refusal,
    till::{bought, text},
};

fn waiting(stub: Stub) -> Scene {
    Scene::before(stub, plain(), |config| config.set(&["egress", "answer-timeout"], "1s"))
}

#[test]
fn silence_before_any_terms_costs_nothing_and_may_be_asked_again() {
    let gate = Gate::default();
    gate.shut();
    let at = gate.clone();
    let scene = waiting(Stub::answering_at_once(move |request| {
        at.pass();
        if payment(request).is_some() { goods(&receipt(), "goods") } else { asks(&honest()) }
    }));
    let problem = refusal(&scene.fetch(json!({"purchase_id": "quiet"})), 502, "seller-misbehaved");
    assert!(text(&problem, "/detail").contains("no answer within 1000 ms"), "{problem}");
    assert_eq!((scene.ledger().len(), payments(&scene.stub).len()), (0, 0));
    gate.open();
    bought(&scene.fetch(json!({"purchase_id": "quiet"})), "0.001");
    assert_eq!(payments(&scene.stub).len(), 1);
}

#[test]
fn silence_after_the_payment_leaves_it_unknown_and_the_same_one_is_presented_again() {
    let gate = Gate::default();
    gate.shut();
    let at = gate.clone();
    let scene = waiting(Stub::answering_at_once(move |request| {
        if payment(request).is_none() {
            return asks(&honest());
        }
        at.pass();
        goods(&receipt(), "goods")
    }));
    let order = json!({"purchase_id": "quiet"});
    let problem = refusal(&scene.fetch(order.clone()), 504, "outcome-unknown");
    assert_eq!(problem["payment_state"], "unknown", "{problem}");
    let id = text(&problem, "/payment").to_owned();
    let held = |scene: &Scene| {
        let view = scene.agent().payment(&id);
        assert_eq!(view["state"], "unknown", "{view:#}");
        assert!(view["holds"].as_array().unwrap().iter().all(|hold| hold["open"] == true), "{view:#}");
    };
    held(&scene);
    // As often as it stays silent: the same payment, held all the while, and none beside it.
    refusal(&scene.fetch(order.clone()), 504, "outcome-unknown");
    held(&scene);
    let other = refusal(&scene.fetch(json!({"purchase_id": "other"})), 409, "payment-unknown");
    assert_eq!((&other["purchase"], &other["payment"]), (&json!("quiet"), &json!(id)), "{other}");
    gate.open();
    assert_eq!(bought(&scene.fetch(order), "0.001"), id);
    let presented = payments(&scene.stub);
    assert_eq!(presented.len(), 3);
    assert!(presented.iter().all(|one| *one == presented[0]), "signed twice: {presented:?}");
    assert_eq!(scene.ledger().len(), 1);
}
