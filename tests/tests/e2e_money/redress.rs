//! What people say of a payment: that money came back, that it is contested.

use super::*;
use countersign_core::evm::{Address, CancelAuthorization, Signature65};
use sha2::{Digest, Sha256};
use std::fs;

/// An operator call about a payment.
fn tell(scene: &Scene, payment: &str, what: &str, body: &Value) -> Response {
    scene.operator().post(&format!("/v1/payments/{payment}/{what}"), body)
}

/// As [`tell`], which must be taken; returns the payment.
#[track_caller]
fn told(scene: &Scene, payment: &str, what: &str, body: &Value) -> Value {
    let answer = tell(scene, payment, what, body);
    assert_eq!(answer.status, 200, "{what} {body}: {}", answer.text());
    answer.json()
}

fn back(amount: &str, reference: &str) -> Value {
    json!({"amount": amount, "reference": reference})
}

#[test]
fn rule_09_a_refund_by_hand_touches_only_the_books() {
    let scene = Scene::new(&["honest"]);
    let payment = scene.settled("honest");
    let view = told(&scene, &payment, "refunds", &back("0.0004", "CN-1"));
    assert_eq!((&view["state"], &view["refunds"][0]["amount"]), (&json!("refunded"), &json!("0.0004")));
    assert_eq!(view, scene.payment(&payment));
    assert!(view["refunds"][0].to_string().contains("alice") && view["refunds"][0].to_string().contains("CN-1"));
    assert_eq!((scene.caps(), scene.wallet()), ((0, 1_000), (0, 1_000)), "no budget is credited");

    refused(&tell(&scene, &payment, "refunds", &back("0.0001", "CN-1")), 409);
    refused(&tell(&scene, &payment, "refunds", &back("0.0007", "CN-2")), 409);
    assert_eq!(scene.payment(&payment), view, "a refused refund changes nothing");
    let view = told(&scene, &payment, "refunds", &back("0.0006", "CN-2"));
    assert_eq!(view["refunds"].as_array().unwrap().len(), 2);
    refused(&tell(&scene, &payment, "refunds", &back("0.000001", "CN-3")), 409);
    assert_eq!((scene.caps(), scene.wallet()), ((0, 1_000), (0, 1_000)));
}

#[test]
fn the_same_reference_may_name_a_refund_of_another_payment() {
    let scene = Scene::new(&["honest"]);
    let (first, second) = (scene.settled("honest"), scene.settled("honest"));
    told(&scene, &first, "refunds", &back("0.001", "CN-1"));
    assert_eq!(scene.payment(&second)["state"], "settled");
    told(&scene, &second, "refunds", &back("0.001", "CN-1"));
}

#[test]
fn only_what_is_settled_is_refunded_or_contested() {
    let mut scene = Scene::new(&[KEEPER, "honest"]);
    let Doubtful { payment: doubtful, valid_before, .. } = scene.doubtful();
    let denied = refusal(&scene.agent().fetch(&scene.seller("honest").url("/report"), json!({})), 403, "policy-denied");
    let denied = text(&denied, "/payment").to_owned();
    let tries = [
        ("refunds", back("0.0005", "CN-1")),
        ("dispute", json!({"why": "nothing came", "evidence_base64": ""})),
        ("dispute/end", json!({"why": "it came"})),
    ];
    for payment in [&doubtful, &denied] {
        let before = scene.payment(payment);
        for (what, body) in &tries {
            refused(&tell(&scene, payment, what, body), 409);
        }
        assert_eq!(scene.payment(payment), before);
    }
    scene.chain().mine_at(valid_before);
    scene.gateway.restart();
    scene.until(&doubtful, "failed");
    for (what, body) in &tries {
        refused(&tell(&scene, &doubtful, what, body), 409);
    }
    assert_eq!(scene.payment(&doubtful)["state"], "failed");
}

#[test]
fn a_dispute_ends_as_what_came_back_says() {
    let scene = Scene::new(&["honest"]);
    let payment = scene.settled("honest");
    let contest = json!({"why": "an empty answer", "evidence_base64": "bm90aGluZyBjYW1l"});
    let view = told(&scene, &payment, "dispute", &contest);
    assert_eq!(view["state"], "disputed");
    assert_eq!(view["evidence"]["document"], hex::encode(Sha256::digest(b"nothing came")));
    assert!(view["evidence"]["block_hash"].is_string(), "the proof of payment stays: {view:#}");
    let last = view["history"].as_array().unwrap().last().unwrap().to_string();
    assert!(last.contains("alice") && last.contains("an empty answer"), "{last}");
    assert_eq!((scene.caps(), scene.wallet()), ((0, 1_000), (0, 1_000)), "it is spent all the same");
    assert_eq!(told(&scene, &payment, "dispute/end", &json!({"why": "it was there"}))["state"], "settled");
    refused(&tell(&scene, &payment, "dispute/end", &json!({"why": "again"})), 409);

    assert_eq!(told(&scene, &payment, "dispute", &json!({"why": "worse", "evidence_base64": ""}))["state"], "disputed");
    assert_eq!(told(&scene, &payment, "refunds", &back("0.001", "CN-1"))["state"], "disputed");
    assert_eq!(told(&scene, &payment, "dispute/end", &json!({"why": "all of it came back"}))["state"], "refunded");
}

#[test]
fn bodies_ids_and_roles_are_checked() {
    let scene = Scene::with(&["honest"], 2, |config, _| config.operator("bob", OTHER_TOKEN, &["viewer"]));
    let payment = scene.settled("honest");
    let before = scene.payment(&payment);
    let bob = Client::new(&scene.gateway.admin_url, OTHER_TOKEN);
    let nobody = Client::new(&scene.gateway.admin_url, "nobody");
    let contest = json!({"why": "w", "evidence_base64": ""});
    for (what, good) in
        [("refunds", back("0.0005", "CN-1")), ("dispute", contest), ("dispute/end", json!({"why": "w"}))]
    {
        let path = format!("/v1/payments/{payment}/{what}");
        refused(&bob.post(&path, &good), 403);
        refused(&nobody.post(&path, &good), 401);
        // The agents' token opens nothing here, and the operators' door is not the agents'.
        refused(&Client::new(&scene.gateway.admin_url, countersign_tests::config::SCOUT_TOKEN).post(&path, &good), 401);
        assert!(matches!(scene.agent().post(&path, &good).status, 403..=405), "{what} at the agents' door");
        let (head, tail) = payment.split_at(payment.len() - 1);
        let unknown = format!("{head}{}", if tail == "0" { "1" } else { "0" });
        for id in [unknown.as_str(), "pay_0", "x", "%00"] {
            refused(&tell(&scene, id, what, &good), 404);
        }
        for bad in [json!({}), json!([]), json!("text"), json!(null)] {
            refused(&tell(&scene, &payment, what, &bad), 400);
        }
        let mut more = good.clone();
        more.as_object_mut().unwrap().insert("state".to_owned(), json!("refunded"));
        refused(&tell(&scene, &payment, what, &more), 400);
        refused(&scene.operator().request("POST", &path).body("{").send(), 400);
    }
    for amount in
        ["", "x", "-0.0005", "1e-4", "0,0005", "0x1", "0.0000001", "99999999999999999999999999999999999999999"]
    {
        refused(&tell(&scene, &payment, "refunds", &back(amount, "CN-1")), 400);
    }
    let nothing = tell(&scene, &payment, "refunds", &back("0", "CN-1"));
    assert!(matches!(nothing.status, 400 | 409), "{}", nothing.text());
    let long = "x".repeat(10_000);
    for reference in ["", "   ", "a\nb", long.as_str()] {
        refused(&tell(&scene, &payment, "refunds", &back("0.0005", reference)), 400);
    }
    for why in ["", "  ", long.as_str()] {
        refused(&tell(&scene, &payment, "dispute", &json!({"why": why, "evidence_base64": ""})), 400);
    }
    refused(&tell(&scene, &payment, "dispute", &json!({"why": "w", "evidence_base64": "***"})), 400);
    assert_eq!(scene.payment(&payment), before);
}

#[test]
fn the_command_line_refunds_disputes_and_ends_disputes() {
    let scene = Scene::new(&["honest"]);
    let (refund, dispute) = (scene.settled("honest"), scene.settled("honest"));
    let run = |args: &[&str]| scene.gateway.command(args);
    let order = ["payments", "refund", refund.as_str(), "--amount", "0.0005", "--reference", "CN-1"];
    let out = said(&run(&order));
    assert!(out.contains(&refund) && out.contains("refunded"), "{out}");
    let again = failed(&run(&order));
    assert!(again.contains("booked") || again.contains("CN-1"), "it does not say why: {again}");
    assert_eq!(scene.payment(&refund)["refunds"].as_array().unwrap().len(), 1);

    fs::write(scene.gateway.dir().join("proof.txt"), "nothing came").unwrap();
    let contest =
        ["payments", "dispute", dispute.as_str(), "--why", "nothing came", "--evidence", "proof.txt", "--json"];
    let view: Value = serde_json::from_str(&said(&run(&contest))).unwrap();
    assert_eq!((&view["id"], &view["state"]), (&json!(dispute), &json!("disputed")));
    assert_eq!(view["evidence"]["document"], hex::encode(Sha256::digest(b"nothing came")));
    assert!(said(&run(&["payments", "end-dispute", &dispute, "--why", "it came"])).contains("settled"));
    failed(&run(&["payments", "end-dispute", &dispute, "--why", "it came"]));
    failed(&run(&["payments", "dispute", &dispute, "--why", "w", "--evidence", "missing.txt"]));
    failed(&run(&["payments", "refund", "pay_0", "--amount", "0.0005", "--reference", "CN-1"]));
    assert_eq!(run(&["payments", "refund", &refund]).status.code(), Some(2));
    assert_eq!(scene.payment(&dispute)["state"], "settled");
}

#[test]
fn without_a_running_gateway_the_command_line_does_it_itself() {
    let mut scene = Scene::new(&["honest"]);
    let payment = scene.settled("honest");
    assert!(scene.gateway.terminate().success());
    let order = ["payments", "refund", payment.as_str(), "--amount", "0.0005", "--reference", "CN-1"];
    assert!(said(&scene.gateway.command(&order)).contains("refunded"));
    failed(&scene.gateway.command(&order));
    scene.gateway.restart();
    let view = scene.payment(&payment);
    assert_eq!((&view["state"], &view["refunds"][0]["amount"]), (&json!("refunded"), &json!("0.0005")));
    assert_eq!((scene.caps(), scene.wallet()), ((0, 1_000), (0, 1_000)));
}

/// The records of this kind, oldest first.
fn recorded(scene: &Scene, kind: &str) -> Vec<Value> {
    assert_eq!(scene.operator().get("/v1/audit/checkpoint").status, 200);
    said(&scene.gateway.command(&["ledger", "export", "--format", "audit", "--out", "records"]));
    let file = fs::read_to_string(scene.gateway.dir().join("records")).unwrap();
    fs::remove_file(scene.gateway.dir().join("records")).unwrap();
    let records = file.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records.filter(|record| record["kind"] == kind).collect()
}

/// Sends `cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)`, as anybody may, to the token.
fn send(scene: &Scene, data: &str) {
    let call = hex::decode(data.strip_prefix("0x").unwrap()).unwrap();
    assert_eq!((&call[..4], call.len()), ([0x5a, 0x04, 0x9a, 0x70].as_slice(), 4 + 5 * 32));
    let word = |n: usize| -> [u8; 32] { call[4 + 32 * n..36 + 32 * n].try_into().unwrap() };
    assert_eq!((&word(0)[..12], &word(2)[..31]), ([0; 12].as_slice(), [0; 31].as_slice()));
    let message = CancelAuthorization { authorizer: Address::new(word(0)[12..].try_into().unwrap()), nonce: word(1) };
    let signature = [&word(3)[..], &word(4), &word(2)[31..]].concat();
    let signature = Signature65::new(signature.try_into().unwrap()).unwrap();
    scene.chain().cancel_authorization(&message, &signature).unwrap();
}

#[test]
fn what_an_operator_cancels_is_given_back_once_the_chain_shows_it() {
    let mut scene = Scene::new(&[KEEPER]);
    let Doubtful { payment, nonce, .. } = scene.doubtful();
    refused(&tell(&scene, &payment, "cancel", &json!({"why": " "})), 400);
    refused(&tell(&scene, "pay_00000000000000000000000000", "cancel", &json!({"why": "late"})), 404);
    assert_eq!(recorded(&scene, "cancellation").len(), 0, "what is refused is not recorded");

    let signed = told(&scene, &payment, "cancel", &json!({"why": "the seller is gone"}));
    let again = told(&scene, &payment, "cancel", &json!({"why": "the seller is gone"}));
    assert_eq!(signed, again, "one payment has one cancellation");
    let recorded = recorded(&scene, "cancellation");
    let whose =
        |record: &Value| [&record["payment"], &record["by"], &record["why"]].map(|v| v.as_str().unwrap().to_owned());
    assert_eq!(recorded.len(), 2);
    assert!(recorded.iter().all(|r| whose(r) == [&payment, "alice", "the seller is gone"]), "{recorded:?}");
    assert_eq!((&signed["payment"], text(&signed, "/network")), (&json!(payment), NETWORK));
    // Nothing is given back for a signature.
    scene.looks(&hex::encode(nonce));
    assert_eq!((scene.payment(&payment)["state"].clone(), scene.caps()), (json!("unknown"), (1_000, 0)));

    send(&scene, text(&signed, "/data"));
    let failed = scene.until(&payment, "failed");
    assert!(failed.to_string().contains("cancelled on the chain"), "{failed}");
    assert_eq!((scene.caps(), scene.wallet()), ((0, 0), (0, 0)));
    refused(&tell(&scene, &payment, "cancel", &json!({"why": "again"})), 409);
    scene.gateway.restart();
    assert_eq!(scene.payment(&payment)["state"], "failed");
}
