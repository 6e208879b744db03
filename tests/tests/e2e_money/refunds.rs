//! Money that the chain shows to have come back credits the budgets it was taken from, once.

use super::*;
use countersign_core::evm::{Address, hex32};
use countersign_tests::world::buyer;

const STRANGER: Address = Address::new([0x52; 20]);

/// Makes the gateway compare its books with the chain.
#[track_caller]
fn reconcile(scene: &Scene) {
    let answer = scene.operator().post("/v1/reconcile", &json!({}));
    assert!(matches!(answer.status, 200 | 202), "{} {}", answer.status, answer.text());
}

/// Waits until so many refunds of a payment are booked; returns the payment.
#[track_caller]
fn refunded(scene: &Scene, payment: &str, times: usize) -> Value {
    let booked = |p: &Value| p["state"] == "refunded" && p["refunds"].as_array().map(Vec::len) == Some(times);
    let found = wait_for(PATIENCE, || {
        reconcile(scene);
        Some(scene.payment(payment)).filter(&booked)
    });
    found.unwrap_or_else(|| panic!("not {times} refunds: {:#}", scene.payment(payment)))
}

/// Gives money back from a seller's account.
fn give_back(scene: &Scene, seller: &str, value: u128) -> String {
    hex32::print(&scene.chain().transfer(scene.seller(seller).pay_to(), buyer(), value).unwrap())
}

#[test]
fn rule_09_a_transfer_from_the_payee_is_booked_once_and_credits_the_budget() {
    let mut scene = Scene::new(&["honest"]);
    let payment = scene.settled("honest");
    assert_eq!((scene.caps(), scene.wallet()), ((0, 1_000), (0, 1_000)));
    let transaction = give_back(&scene, "honest", 500);
    let view = refunded(&scene, &payment, 1);
    assert_eq!(view["refunds"][0]["amount"], "0.0005");
    assert_eq!(text(&view, "/refunds/0/source/transaction"), transaction);
    assert_eq!(scene.caps(), (0, 500), "the budget is credited");
    assert_eq!(scene.wallet(), (0, 1_000), "the host's own limit is not");

    // The same transfer is never booked again: not by another scan, not after a restart.
    reconcile(&scene);
    scene.gateway.restart();
    reconcile(&scene);
    scene.stays(&payment, "refunded");
    assert_eq!(scene.payment(&payment)["refunds"].as_array().unwrap().len(), 1);
    assert_eq!((scene.caps(), scene.wallet()), ((0, 500), (0, 1_000)));

    let second = give_back(&scene, "honest", 500);
    let view = refunded(&scene, &payment, 2);
    assert_eq!(text(&view, "/refunds/1/source/transaction"), second);
    assert_eq!((scene.caps(), scene.wallet()), ((0, 0), (0, 1_000)));
}

#[test]
fn rule_09_a_credited_budget_can_be_spent_again_and_the_wallets_limit_cannot() {
    let scene = Scene::with(&["honest", "elsewhere"], 2, |config, _| {
        config
            .set(&["policy", "caps", "settings", "per-agent-hour"], "0.001")
            .set(&["wallet", "research", "daily-limit"], "0.002")
    });
    let payment = scene.settled("honest");
    let over = |more: Value| refusal(&scene.fetch("elsewhere", more), 403, "budget-exceeded");
    assert!(text(&over(json!({})), "/budget").contains("agent/scout"));
    give_back(&scene, "honest", 1_000);
    refunded(&scene, &payment, 1);
    let second = scene.settled("elsewhere");
    give_back(&scene, "elsewhere", 1_000);
    refunded(&scene, &second, 1);
    assert_eq!(scene.caps(), (0, 0));
    assert!(text(&over(json!({})), "/budget").contains("wallet/research"), "two were paid, whatever came back");
}

#[test]
fn rule_09_no_more_is_booked_than_was_settled() {
    let scene = Scene::new(&["honest", "elsewhere"]);
    let (payment, other) = (scene.settled("honest"), scene.settled("elsewhere"));
    scene.chain().mint(scene.seller("honest").pay_to(), 5_000);
    give_back(&scene, "honest", 1_500);
    // A later transfer that is beyond doubt shows that the scan passed the earlier one.
    give_back(&scene, "elsewhere", 1_000);
    refunded(&scene, &other, 1);
    scene.stays(&payment, "settled");
    assert_eq!(scene.caps(), (0, 1_000));
}

#[test]
fn rule_09_what_may_be_of_two_payments_or_is_a_strangers_is_not_booked() {
    let scene = Scene::new(&["honest", "elsewhere"]);
    let twins = [scene.settled("honest"), scene.settled("honest")];
    let other = scene.settled("elsewhere");
    give_back(&scene, "honest", 500);
    scene.chain().mint(STRANGER, 1_000);
    scene.chain().transfer(STRANGER, buyer(), 1_000).unwrap();
    give_back(&scene, "elsewhere", 400);
    refunded(&scene, &other, 1);
    for twin in &twins {
        scene.stays(twin, "settled");
        assert_eq!(scene.payment(twin)["refunds"], json!([]));
    }
    assert_eq!(scene.caps(), (0, 2_600));
}

#[test]
fn rule_09_what_is_ambiguous_is_so_whatever_period_is_looked_at() {
    let scene = Scene::new(&["honest", "elsewhere"]);
    let (old, new) = (scene.settled("honest"), scene.settled("honest"));
    let other = scene.settled("elsewhere");
    give_back(&scene, "honest", 500);
    give_back(&scene, "elsewhere", 400);
    // The older of the two is before this moment, and could be meant all the same.
    let since = json!({"since": text(&scene.payment(&new), "/created_at")});
    let found = wait_for(PATIENCE, || {
        let answer = scene.operator().post("/v1/reconcile", &since);
        assert!(matches!(answer.status, 200 | 202), "{} {}", answer.status, answer.text());
        (scene.payment(&other)["state"] == "refunded").then_some(())
    });
    assert!(found.is_some(), "{:#}", scene.payment(&other));
    for payment in [&old, &new] {
        scene.stays(payment, "settled");
    }
    assert_eq!(scene.caps(), (0, 2_600));
}

#[test]
fn rule_09_what_was_signed_before_the_period_and_redeemed_in_it_accuses_nobody() {
    let scene = Scene::new(&[KEEPER, "honest"]);
    let Doubtful { payment, .. } = scene.doubtful();
    let signed = scene.chain().now();
    let later = wait_for(PATIENCE, || Some(scene.chain().now()).filter(|now| now.since(signed) > 3_000));
    let since = json!({"since": later.unwrap().to_string()});
    let clock = scene.chain().now();
    wait_for(PATIENCE, || (scene.chain().now().since(clock) > 2_000).then_some(())).unwrap();
    scene.seller(KEEPER).redeem().unwrap();
    scene.until(&payment, "settled");
    let answer = scene.operator().post("/v1/reconcile", &since);
    assert!(matches!(answer.status, 200 | 202), "{} {}", answer.status, answer.text());
    assert_eq!(items(&scene.operator().get("/v1/suspend")), Vec::<Value>::new(), "{}", answer.text());
    scene.settled("honest");
}

#[test]
fn rule_11_money_that_left_without_the_ledger_stops_the_wallet() {
    let scene = Scene::new(&["honest"]);
    scene.settled("honest");
    reconcile(&scene);
    scene.settled("honest");
    let stray = scene.chain().redeem_wrongly(buyer(), [9; 32], STRANGER, 2_000);
    let stopped = wait_for(PATIENCE, || {
        reconcile(&scene);
        let stops = items(&scene.operator().get("/v1/suspend"));
        stops.into_iter().find(|stop| stop["reason"].as_str().is_some_and(|why| why.contains(&hex32::print(&stray))))
    });
    assert!(stopped.is_some(), "nobody is told");
    refusal(&scene.fetch("honest", json!({})), 403, "suspended");
}

/// Anybody may make a token say that nothing left somebody's wallet, or reached it.
#[test]
fn rule_11_a_transfer_of_nothing_stops_no_wallet() {
    let scene = Scene::new(&["honest"]);
    let payment = scene.settled("honest");
    let stranger: Address = STRANGER;
    scene.chain().transfer(buyer(), stranger, 0).unwrap();
    scene.chain().transfer(stranger, buyer(), 0).unwrap();
    for _ in 0..BEDROCK {
        scene.chain().mine();
    }
    reconcile(&scene);
    assert!(items(&scene.operator().get("/v1/suspend")).is_empty());
    scene.settled("honest");
    scene.stays(&payment, "settled");
}

/// Whoever lifted a stop has looked: the same transfer does not order it again.
#[test]
fn rule_11_a_lifted_stop_stays_lifted() {
    let scene = Scene::new(&["honest"]);
    scene.settled("honest");
    scene.chain().redeem_wrongly(buyer(), [9; 32], STRANGER, 2_000);
    let stops = || items(&scene.operator().get("/v1/suspend"));
    let stopped = wait_for(PATIENCE, || {
        reconcile(&scene);
        (!stops().is_empty()).then_some(())
    });
    assert!(stopped.is_some());
    let wallet = stops()[0]["name"].as_str().unwrap().to_owned();
    assert_eq!(scene.operator().delete(&format!("/v1/suspend?wallet={wallet}")).status, 200);
    reconcile(&scene);
    assert!(stops().is_empty(), "{:?}", stops());
    scene.settled("honest");
}

#[test]
fn rule_09_only_what_is_final_comes_back() {
    let scene = Scene::with(&["honest"], 2, |config, _| config.set(&["network", NETWORK, "finality-blocks"], 50));
    let payment = scene.buy("honest");
    for _ in 0..BEDROCK {
        scene.chain().mine();
    }
    scene.until(&payment, "settled");
    give_back(&scene, "honest", 500);
    reconcile(&scene);
    reconcile(&scene);
    scene.stays(&payment, "settled");
    for _ in 0..BEDROCK {
        scene.chain().mine();
    }
    refunded(&scene, &payment, 1);
    assert_eq!(scene.caps(), (0, 500));
}

#[test]
fn rule_09_two_nodes_must_tell_of_the_same_refund() {
    use countersign_tests::node::Lie;
    let mut scene = Scene::new(&["honest"]);
    let payment = scene.settled("honest");
    scene.gateway.kill();
    scene.nodes[1].tell(Lie::Behind(scene.chain().head().number));
    give_back(&scene, "honest", 500);
    scene.gateway.restart();
    // It may say that the nodes disagree, or do nothing.
    let _said = scene.operator().post("/v1/reconcile", &json!({}));
    scene.stays(&payment, "settled");
    scene.nodes[1].tell(Lie::None);
    refunded(&scene, &payment, 1);
}

#[test]
fn reconciling_needs_its_roles() {
    let scene = Scene::with(&["honest"], 2, |config, _| config.operator("bob", OTHER_TOKEN, &["viewer"]));
    let bob = Client::new(&scene.gateway.admin_url, OTHER_TOKEN);
    refused(&bob.post("/v1/reconcile", &json!({})), 403);
    let nobody = Client::new(&scene.gateway.admin_url, "nobody");
    refused(&nobody.post("/v1/reconcile", &json!({})), 401);
    reconcile(&scene);
}

#[test]
fn the_command_line_compares_the_books_with_the_chain() {
    let scene = Scene::new(&["honest", KEEPER]);
    scene.settled("honest");
    let clean = said(&scene.gateway.command(&["ledger", "reconcile"]));
    assert!(!clean.trim().is_empty());
    // What the wallet paid and no payment knows of.
    let stray = scene.chain().redeem_wrongly(buyer(), [7; 32], STRANGER, 2_000);
    let output = scene.gateway.command(&["ledger", "reconcile"]);
    let told = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert!(!output.status.success(), "{told}");
    assert!(told.contains(&hex32::print(&stray)), "it does not name the transaction: {told}");
}
