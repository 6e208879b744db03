//! Gateways that are killed or hang, while others go on.

use super::*;
use countersign_tests::config::SCOUT_TOKEN;
use load::everywhere;

/// A seller that settles and never answers; shown the same payment again, it delivers.
const SILENT: &str = "takes-and-goes-silent";
/// How long a gateway hangs: longer than any store waits for anybody.
const FROZEN: Duration = Duration::from_secs(45);

/// Spends what is left, and checks that the budget of so many quotes was used to its end and not beyond.
#[track_caller]
fn spends_all(scene: &Scene, load: &Load, quotes: usize) {
    load.finish(0);
    drain(scene, &everywhere(scene, SCOUT_TOKEN));
    let live = sound(scene, &["honest"], &load.acks());
    assert_eq!(live.len(), quotes);
    for gateway in 0..scene.gateways.len() {
        let row = scene.budget(gateway, "everybody");
        let used = micros(&row["held"]) + micros(&row["spent"]);
        assert_eq!(used, 1_000 * u64::try_from(quotes).unwrap(), "gateway {gateway}: {row}");
    }
}

#[test]
fn a_gateway_that_is_killed_takes_nothing_with_it() {
    let mut scene = Scene::limited(Place::Shared, 2, 900);
    let load = Load::on(&scene);
    for round in 0..6 {
        let dead = round % 2;
        load.during(&[0, 1], || {
            load.goes_on(20);
            scene.gateways[dead].kill();
            // Without it, and without anybody's help.
            load.goes_on(20);
            if round == 3 {
                scene.gateways[dead].spawn_again();
                thread::sleep(Duration::from_millis(80));
            }
            scene.gateways[dead].restart();
            load.goes_on(20);
        });
        load.finish(1 - dead);
    }
    assert!(load.answers()["cut off"] > 0, "crashes that hit nobody: {:?}", load.answers());
    agree(&scene);
    spends_all(&scene, &load, 900);
}

#[test]
fn a_gateway_that_is_stopped_in_order_takes_nothing_with_it() {
    let mut scene = Scene::limited(Place::Shared, 2, 400);
    let load = Load::on(&scene);
    for round in 0..3 {
        load.during(&[0, 1], || {
            load.goes_on(20);
            assert!(scene.gateways[round % 2].terminate().success());
            load.goes_on(20);
            scene.gateways[round % 2].restart();
        });
    }
    spends_all(&scene, &load, 400);
}

#[test]
fn all_gateways_killed_at_once_lose_nothing() {
    let mut scene = Scene::limited(Place::Shared, 3, 500);
    let load = Load::on(&scene);
    for _ in 0..3 {
        load.during(&[0, 1, 2], || {
            load.goes_on(30);
            scene.gateways.iter_mut().for_each(Gateway::kill);
        });
        scene.restart();
    }
    spends_all(&scene, &load, 500);
}

/// A call at the first gateway that has paid and hears nothing, while `meanwhile` is done.
fn silence(scene: &mut Scene, meanwhile: impl FnOnce(&mut Scene, &str)) {
    let (agent, seller) = (scene.agent(0), scene.seller(SILENT).clone());
    let url = seller.url("/quote");
    let call = thread::spawn(move || agent.try_fetch(&url, json!({"purchase_id": "silent"})));
    wait_for(PATIENCE, || (seller.stats().redeemed == 1).then_some(())).expect("nothing was paid");
    let all = judge::payments(&scene.gateways[1]);
    let payment = text(&all[0], "/id").to_owned();
    meanwhile(scene, &payment);
    assert_eq!(seller.stats().authorizations, 1, "signed twice");
    let _answer_or_none = call.join().unwrap();
}

/// Repeats the purchase at the second gateway: the same payment is shown again, and the goods come.
#[track_caller]
fn fetched_by_another(scene: &Scene, payment: &str) {
    let order = json!({"purchase_id": "silent"});
    let url = scene.seller(SILENT).url("/quote");
    // While the first may still be at it, the second may have to wait.
    let found = wait_for(PATIENCE, || Some(scene.agent(1).fetch(&url, order.clone())).filter(|a| a.status == 200));
    let answer = found.unwrap_or_else(|| panic!("never delivered: {:#}", scene.operator(1).payment(payment)));
    assert_eq!(header(&answer, "countersign-payment"), payment);
}

#[test]
fn what_a_dead_gateway_had_in_flight_is_held_and_settles_without_it() {
    let mut scene = Scene::with(Place::Shared, 2, &[SILENT], open_handed(), |config| with_budget(config, 1));
    silence(&mut scene, |scene, payment| {
        scene.gateways[0].kill();
        let row = scene.budget(1, "everybody");
        assert_eq!(micros(&row["held"]) + micros(&row["spent"]), 1_000, "{row}");
        fetched_by_another(scene, payment);
        let look = || scene.operator(1).payment(payment);
        let proven = wait_for(PATIENCE, || (look()["state"] == "settled").then_some(()));
        assert!(proven.is_some(), "{:#}", look());
        scene.gateways[0].restart();
        scene.until(payment, "settled");
    });
    assert_eq!(sound(&scene, &[SILENT], &[]).len(), 1);
}

#[test]
fn what_a_dead_gateway_had_in_flight_settles_though_nobody_asks_again() {
    let mut scene = Scene::with(Place::Shared, 2, &[SILENT], open_handed(), |config| config);
    silence(&mut scene, |scene, payment| {
        scene.gateways[0].kill();
        let look = || scene.operator(1).payment(payment);
        let proven = wait_for(PATIENCE, || (look()["state"] == "settled").then_some(()));
        assert!(proven.is_some(), "only the gateway that signed looks for it: {:#}", look());
        scene.gateways[0].restart();
    });
    assert_eq!(sound(&scene, &[SILENT], &[]).len(), 1);
}

#[test]
fn the_late_word_of_a_gateway_that_hung_changes_nothing() {
    let mut scene = Scene::with(Place::Shared, 2, &["honest", SILENT], open_handed(), |config| config);
    silence(&mut scene, |scene, payment| {
        scene.gateways[0].freeze();
        fetched_by_another(scene, payment);
        let look = || scene.operator(1).payment(payment);
        let proven = wait_for(PATIENCE, || (look()["state"] == "settled").then_some(()));
        let history = look()["history"].clone();
        scene.gateways[0].thaw();
        assert!(proven.is_some(), "{:#}", look());
        scene.recovers(0);
        scene.until(payment, "settled");
        let now = look()["history"].clone();
        assert!(now.as_array().unwrap().starts_with(history.as_array().unwrap()), "{history:#} became {now:#}");
    });
    scene.buy(0);
    assert_eq!(sound(&scene, &["honest", SILENT], &[]).len(), 2);
}

#[test]
fn a_gateway_that_hangs_under_load_spends_nothing_that_others_spent_meanwhile() {
    let scene = Scene::limited(Place::Own, 2, 300);
    let load = Load::on(&scene);
    load.during(&[0, 1], || {
        load.goes_on(30);
        scene.gateways[0].freeze();
        let frozen = std::time::Instant::now();
        // The other takes all that is left, to the last quote.
        let clients: Vec<Client> = (0..CLIENTS).map(|_| scene.agent(1)).collect();
        drain(&scene, &clients);
        thread::sleep(FROZEN.saturating_sub(frozen.elapsed()));
        scene.gateways[0].thaw();
    });
    scene.recovers(0);
    spends_all(&scene, &load, 300);
}

#[test]
fn a_stop_counts_for_a_gateway_that_hung_when_it_was_ordered() {
    let scene = Scene::new(2);
    let load = Load::on(&scene);
    let authorizations = || scene.seller("honest").stats().authorizations;
    scene.gateways[0].freeze();
    done(&scene.operator(1).post("/v1/suspend", &json!({"reason": "drill"})));
    let before = authorizations();
    scene.gateways[0].thaw();
    refusal(&scene.agent(0).fetch(&scene.quote(), json!({})), 403, "suspended");
    assert_eq!(authorizations(), before);
    let lifted = scene.operator(0).delete("/v1/suspend");
    assert!(matches!(lifted.status, 200 | 204), "{}", lifted.text());
    load.during(&[0, 1], || load.goes_on(10));
    load.finish(1);
    sound(&scene, &["honest"], &load.acks());
}
