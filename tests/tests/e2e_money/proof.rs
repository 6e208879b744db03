//! A payment is settled by the chain alone, and only by what is final.

use super::*;
use countersign_core::evm::{Address, hex32};
use countersign_tests::{node::Lie, till::header, world::buyer};

const STRANGER: Address = Address::new([0x51; 20]);

fn final_only_when_deep(change: impl FnOnce(Config, &LocalWorld) -> Config) {
    let scene = Scene::with(&["honest"], 1, change);
    let answer = scene.fetch("honest", json!({}));
    let payment = bought(&answer, "0.001");
    let transaction = header(&answer, "countersign-transaction").to_owned();
    scene.looks(&scene.nonce("honest"));
    scene.stays(&payment, "accepted");
    assert_eq!((scene.caps(), scene.wallet()), ((1_000, 0), (1_000, 0)));

    for _ in 0..BEDROCK {
        scene.chain().mine();
    }
    let settled = scene.until(&payment, "settled");
    assert_eq!((scene.caps(), scene.wallet()), ((0, 1_000), (0, 1_000)));
    let block = scene.chain().block_with(&hex32::parse(&transaction).unwrap()).unwrap();
    let evidence = &settled["evidence"];
    assert_eq!((&settled["transaction"], &evidence["transaction"]), (&json!(transaction), &json!(transaction)));
    assert_eq!(evidence["block"], block.number);
    assert_eq!(evidence["block_hash"], hex32::print(&block.hash));
    assert_eq!(evidence["block_time"], block.timestamp);
    assert_eq!(evidence["nodes"], 1);
    let states: Vec<&str> = settled["history"].as_array().unwrap().iter().map(|step| text(step, "/state")).collect();
    assert!(states.contains(&"accepted") && states.last() == Some(&"settled"), "{states:?}");
}

#[test]
fn a_payment_is_settled_only_when_its_block_is_deep_enough() {
    final_only_when_deep(|config, _| config.set(&["network", NETWORK, "finality-blocks"], 50));
}

#[test]
fn without_a_depth_the_nodes_own_finality_counts() {
    final_only_when_deep(|config, world| {
        world.world().chain().set_finality_lag(50);
        config.remove(&["network", NETWORK, "finality-blocks"])
    });
}

#[test]
fn two_nodes_vouch_together() {
    let scene = Scene::new(&["honest"]);
    let payment = scene.settled("honest");
    assert_eq!(scene.payment(&payment)["evidence"]["nodes"], 2);
}

#[test]
fn what_one_of_two_nodes_does_not_know_is_not_settled() {
    let scene = Scene::new(&["honest"]);
    scene.nodes[1].tell(Lie::Behind(scene.chain().head().number));
    let payment = scene.buy("honest");
    asked(&scene.nodes[1], "jsonrpc", 10);
    scene.stays(&payment, "accepted");
    scene.nodes[1].tell(Lie::None);
    scene.until(&payment, "settled");
}

#[test]
fn an_endpoint_named_twice_does_not_vouch_for_itself() {
    let (status, log) = Gateway::refused(
        Config::new(plain()).set(&["network", NETWORK, "rpc"], vec!["http://127.0.0.1:9", "http://127.0.0.1:9"]),
    );
    assert!(!status.success());
    assert!(log.contains("127.0.0.1:9"), "it does not say which: {log}");
}

#[test]
fn a_reorganised_payment_is_unknown_until_it_is_redeemed_again() {
    let mut scene = Scene::with(&["honest"], 2, |config, _| config.set(&["network", NETWORK, "finality-blocks"], 40));
    let answer = scene.fetch("honest", json!({}));
    let payment = bought(&answer, "0.001");
    let first = hex32::parse(header(&answer, "countersign-transaction")).unwrap();
    let height = scene.chain().block_with(&first).unwrap().number;
    scene.looks(&scene.nonce("honest"));
    scene.stays(&payment, "accepted");

    scene.chain().reorganise(height - 1);
    for _ in 0..3 {
        scene.chain().mine();
    }
    assert_eq!(scene.world.world().balance(scene.seller("honest").pay_to()), 0, "the redemption is undone");
    scene.until(&payment, "unknown");
    assert_eq!((scene.caps(), scene.wallet()), ((1_000, 0), (1_000, 0)), "it may be redeemed again");

    let second = scene.seller("honest").redeem().unwrap().unwrap();
    let block = scene.chain().block_with(&second).unwrap();
    for _ in 0..BEDROCK {
        scene.chain().mine();
    }
    scene.gateway.restart();
    let settled = scene.until(&payment, "settled");
    assert_eq!(settled["evidence"]["block"], block.number);
    assert_eq!(settled["evidence"]["transaction"], hex32::print(&second));
    assert_eq!(scene.world.world().balance(scene.seller("honest").pay_to()), 1_000);
    assert_eq!((scene.states(), scene.caps(), scene.wallet()), (vec!["settled".to_owned()], (0, 1_000), (0, 1_000)));
    let settlements = settled["history"].as_array().unwrap().iter().filter(|step| step["state"] == "settled").count();
    assert_eq!(settlements, 1, "settled once");
}

#[test]
fn a_receipt_that_names_another_transaction_settles_nothing() {
    let mut scene = Scene::new(&["honest", "fake-receipt"]);
    let honest = scene.settled("honest");
    // The same payer, payee, token and amount: only the nonce is another.
    let liar = scene.seller("fake-receipt").clone();
    liar.set_pay_to(scene.seller("honest").pay_to());
    let ours = hex32::parse(text(&scene.payment(&honest), "/transaction")).unwrap();
    let minted = scene.chain().mint(STRANGER, 1_000);
    let strangers = scene.chain().transfer(STRANGER, liar.pay_to(), 1_000).unwrap();
    let mut payments = Vec::new();
    for (n, transaction) in [ours, minted, strangers].into_iter().enumerate() {
        liar.set_receipt(transaction);
        let answer = scene.agent().fetch(&liar.url(&format!("/quote?n={n}")), json!({}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let payment = header(&answer, "countersign-payment").to_owned();
        scene.looks(&scene.nonce("fake-receipt"));
        let state = text(&scene.payment(&payment), "/state").to_owned();
        assert!(matches!(state.as_str(), "accepted" | "unknown"), "{n}: {state}");
        scene.stays(&payment, &state);
        payments.push(payment);
    }
    assert_eq!(scene.caps(), (3_000, 1_000), "still held");
    assert_eq!(scene.payment(&honest)["state"], "settled");

    let last = liar.visits().iter().filter_map(|visit| visit.valid_before).max().unwrap();
    scene.chain().mine_at(last);
    scene.gateway.restart();
    for payment in &payments {
        scene.until(payment, "failed");
    }
    assert_eq!(scene.caps(), (0, 1_000));
}

/// A token that uses our nonce for another transfer than was signed: nothing is believed, nothing is freed.
fn wrongly_redeemed(payee: impl FnOnce(&Scene) -> Address, value: u128) {
    let mut scene = Scene::new(&[KEEPER]);
    let Doubtful { payment, nonce, valid_before } = scene.doubtful();
    scene.chain().redeem_wrongly(buyer(), nonce, payee(&scene), value);
    scene.looks(&hex::encode(nonce));
    scene.stays(&payment, "unknown");
    scene.chain().mine_at(valid_before);
    scene.gateway.restart();
    asked(&scene.nodes[0], "jsonrpc", 10);
    scene.stays(&payment, "unknown");
    assert_eq!((scene.caps(), scene.wallet()), ((1_000, 0), (1_000, 0)));
}

#[test]
fn a_redemption_for_another_payee_is_not_ours() {
    wrongly_redeemed(|_| STRANGER, 1_000);
}

#[test]
fn a_redemption_of_more_than_was_signed_is_not_ours() {
    wrongly_redeemed(|scene| scene.seller(KEEPER).pay_to(), 2_000);
}
