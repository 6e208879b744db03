//! Rules 1, 2, 3: one live authorization per purchase, through whichever doors it is asked for.

use countersign_tests::{
    http::Response,
    refusal::refusal,
    till::{bought, header, plain, text},
};
use serde_json::json;
use std::collections::BTreeSet;
use std::thread;

use crate::{RIVAL_TOKEN, Scene, authorization, given, present};

#[test]
fn rule_01_a_repeat_is_given_the_same_and_another_id_is_refused() {
    let mut scene = Scene::new(&["honest"]);
    let first = given(&scene.sign("/quote", json!({"purchase_id": "once"})));
    for more in [json!({"purchase_id": "once"}), json!({}), json!({"purpose": "other words"})] {
        assert_eq!(given(&scene.sign("/quote", more)), first);
    }
    let other = refusal(&scene.sign("/quote", json!({"purchase_id": "another"})), 409, "payment-unknown");
    assert_eq!((&other["purchase"], &other["payment"]), (&json!("once"), &first["payment"]));
    let conflict = refusal(&scene.sign("/quote?other", json!({"purchase_id": "once"})), 409, "purchase-conflict");
    assert_eq!(conflict["retry"], false);
    // Over a crash too.
    scene.gateway.kill();
    scene.gateway.restart();
    assert_eq!(given(&scene.sign("/quote", json!({}))), first);
    assert_eq!(present(&scene.honest().url("/quote"), &first).status, 200);
    assert_eq!((scene.honest().stats().authorizations, scene.moved().len()), (1, 1));

    // Redeemed: its id buys nothing more; without it, the next call is the next purchase.
    scene.until(text(&first, "/payment"), "settled");
    let over = refusal(&scene.sign("/quote", json!({"purchase_id": "once"})), 409, "already-settled");
    assert_eq!((&over["payment"], &over["retry"]), (&first["payment"], &json!(false)));
    let next = given(&scene.sign("/quote", json!({})));
    assert_ne!(authorization(&next)["nonce"], authorization(&first)["nonce"]);
    assert_ne!((&next["payment"], &next["purchase"]), (&first["payment"], &first["purchase"]));
}

#[test]
fn rule_01_many_at_once_are_given_one() {
    // With an id and without: at this door nothing tells a second purchase of the same from a repeat.
    for more in [json!({"purchase_id": "crowd"}), json!({})] {
        let scene = Scene::new(&["honest"]);
        let crowd: BTreeSet<String> = thread::scope(|scope| {
            let call = || given(&scene.sign("/quote", more.clone())).to_string();
            let calls: Vec<_> = (0..12).map(|_| scope.spawn(call)).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        assert_eq!(crowd.len(), 1);
    }
    // Under ids of their own, one is signed for and the others are told which.
    let scene = Scene::new(&["honest"]);
    let answers: Vec<Response> = thread::scope(|scope| {
        let scene = &scene;
        let call = move |n| scene.sign("/quote", json!({"purchase_id": format!("own-{n}")}));
        let calls: Vec<_> = (0..12).map(|n| scope.spawn(move || call(n))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let (signed, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((signed.len(), refused.len()), (1, 11));
    for answer in refused {
        assert_eq!(refusal(answer, 409, "payment-unknown")["payment"], signed[0].json()["payment"]);
    }
}

#[test]
fn rule_01_what_one_door_signed_the_others_present() {
    let scene = Scene::new(&["honest", "takes-and-hangs-up"]);
    // Handed out, then fetched: the gateway presents what the agent has.
    let first = given(&scene.sign("/quote", json!({})));
    let answer = scene.agent().fetch(&scene.honest().url("/quote"), json!({}));
    assert_eq!(bought(&answer, "0.001"), text(&first, "/payment"));
    assert_eq!(header(&answer, "countersign-purchase"), text(&first, "/purchase"));
    assert_eq!(scene.honest().stats().authorizations, 1);
    let again = json!({"purchase_id": first["purchase"]});
    refusal(&scene.sign("/quote", again), 409, "already-settled");

    // Fetched and never answered, then asked for: the agent is given what the gateway has presented.
    let url = scene.seller("takes-and-hangs-up").url("/quote");
    let lost = refusal(&scene.agent().fetch(&url, json!({"purchase_id": "lost"})), 504, "outcome-unknown");
    let other = refusal(&scene.sign_at(&url, json!({"purchase_id": "other"})), 409, "payment-unknown");
    assert_eq!(other["payment"], lost["payment"]);
    let seller = scene.seller("takes-and-hangs-up");
    assert_eq!((seller.stats().authorizations, scene.moved().len()), (1, 2));
}

#[test]
fn rule_02_a_session_and_an_agent_see_only_their_own() {
    let scene = Scene::with(&["honest"], plain(), |config| config.agent("rival", RIVAL_TOKEN));
    let session = || {
        let wish = json!({"agent": "scout", "limit": "1.00", "max_payments": 10});
        let opened = scene.gateway.operator().post("/v1/sessions", &wish).json();
        scene.gateway.agent_with(text(&opened, "/token"))
    };
    let url = scene.honest().url("/quote");
    let terms = crate::demand(&url);
    let (mine, other) = (session(), session());
    let first = given(&crate::sign(&mine, &url, &terms, json!({"purchase_id": "mine"})));
    assert_eq!(given(&crate::sign(&mine, &url, &terms, json!({}))), first);
    for more in [json!({"purchase_id": "mine"}), json!({})] {
        let body = refusal(&crate::sign(&other, &url, &terms, more), 409, "purchase-conflict");
        assert!(!body.to_string().contains(text(&first, "/header_value")), "{body}");
    }
    let rival = scene.gateway.agent_with(RIVAL_TOKEN);
    let theirs = given(&crate::sign(&rival, &url, &terms, json!({"purchase_id": "mine"})));
    assert_ne!(theirs["payment"], first["payment"]);

    let id = text(&first, "/payment");
    let (head, last) = id.split_at(id.len() - 1);
    let unknown = format!("{head}{}", if last == "0" { "1" } else { "0" });
    for stranger in [&rival, &other] {
        let say = |id: &str| stranger.post(&format!("/v1/payments/{id}/outcome"), &json!({"status": 200}));
        let (foreign, unknown) = (say(id), say(&unknown));
        assert_eq!((foreign.status, &foreign.body), (404, &unknown.body));
        assert_eq!(stranger.get(&format!("/v1/payments/{id}")).status, 404);
    }
    assert_eq!(mine.post(&format!("/v1/payments/{id}/outcome"), &json!({"status": 200})).status, 200);
}

#[test]
fn rule_03_a_suspension_stops_handing_out_and_handing_out_again() {
    let mut scene = Scene::new(&["honest"]);
    let first = given(&scene.sign("/quote", json!({"purchase_id": "open"})));
    assert_eq!(scene.gateway.operator().post("/v1/suspend", &json!({"agent": "scout"})).status, 200);
    for _ in 0..2 {
        for (path, more) in [("/quote", json!({"purchase_id": "open"})), ("/quote?new", json!({}))] {
            let body = refusal(&scene.sign(path, more), 403, "suspended");
            assert!(!body.to_string().contains(text(&first, "/header_value")), "{body}");
        }
        scene.gateway.kill();
        scene.gateway.restart();
    }
    let lifted = scene.gateway.operator().delete("/v1/suspend?agent=scout");
    assert_eq!(lifted.status, 200, "{}", lifted.text());
    assert_eq!(given(&scene.sign("/quote", json!({"purchase_id": "open"}))), first);
}

#[test]
fn nothing_is_kept_but_what_can_be_given_again() {
    // The header is worth money: it is in no list, no record and no log.
    let scene = Scene::new(&["honest"]);
    let first = given(&scene.sign("/quote", json!({})));
    let value = text(&first, "/header_value");
    let signature = crate::decode(value)["payload"]["signature"].as_str().unwrap().trim_start_matches("0x").to_owned();
    let payment = scene.gateway.operator().payment(text(&first, "/payment"));
    let records = scene.records();
    assert!(records.contains(text(&first, "/payment")), "{records}");
    for place in [payment.to_string(), records, scene.gateway.log()] {
        assert!(!place.contains(value) && !place.contains(&signature), "{place}");
    }
}
