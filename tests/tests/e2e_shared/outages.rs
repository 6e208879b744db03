//! The database dies, is cut off, or hangs: nothing is signed without it, nothing that was is lost.

use super::*;
use countersign_tests::config::SCOUT_TOKEN;
use load::everywhere;

/// Every gateway refuses to buy, and nothing new reaches the seller.
#[track_caller]
fn nothing_is_signed(scene: &Scene) {
    let before = scene.seller("honest").stats();
    for gateway in 0..scene.gateways.len() {
        for _ in 0..2 {
            let body = refusal(&scene.agent(gateway).fetch(&scene.quote(), json!({})), 503, "ledger-unavailable");
            assert_eq!(body["retry"], true, "{body}");
        }
    }
    let after = scene.seller("honest").stats();
    assert_eq!((before.presented, before.authorizations), (after.presented, after.authorizations));
}

#[track_caller]
fn all_recover(scene: &Scene) {
    let pids: Vec<u32> = scene.gateways.iter().map(Gateway::pid).collect();
    for (gateway, pid) in pids.into_iter().enumerate() {
        scene.recovers(gateway);
        // By themselves: not started again by anybody.
        assert_eq!(scene.gateways[gateway].pid(), pid);
    }
}

/// What is left is spent to the last quote, and no further.
#[track_caller]
fn spends_all(scene: &Scene, load: &Load, quotes: usize) {
    load.finish(0);
    drain(scene, &everywhere(scene, SCOUT_TOKEN));
    assert_eq!(sound(scene, &["honest"], &load.acks()).len(), quotes);
}

#[test]
fn a_database_that_is_killed_loses_no_payment_and_lets_none_through() {
    let mut scene = Scene::limited(Place::Own, 2, 700);
    let load = Load::on(&scene);
    for round in 0..4 {
        load.during(&[0, 1], || {
            load.goes_on(30);
            scene.server().kill();
            let told = || load.answers().get("503 ledger-unavailable").copied().unwrap_or_default();
            let before = told();
            let heard = wait_for(PATIENCE, || (told() >= before + 4).then_some(()));
            assert!(heard.is_some(), "the clients are not told: {:?}", load.answers());
        });
        nothing_is_signed(&scene);
        scene.server().restart();
        all_recover(&scene);
        load.finish(round % 2);
        agree(&scene);
    }
    spends_all(&scene, &load, 700);
}

#[test]
fn a_database_that_is_killed_and_comes_back_at_once_is_hardly_noticed() {
    let mut scene = Scene::limited(Place::Own, 2, 700);
    let load = Load::on(&scene);
    load.during(&[0, 1], || {
        for round in 0..5 {
            load.goes_on(30);
            if round % 2 == 0 {
                scene.server().kill();
            } else {
                scene.server().shut_down();
            }
            scene.server().restart();
        }
        load.goes_on(30);
    });
    all_recover(&scene);
    spends_all(&scene, &load, 700);
}

#[test]
fn connections_that_are_cut_are_made_again() {
    let scene = Scene::limited(Place::Own, 3, 900);
    let load = Load::on(&scene);
    load.during(&[0, 1, 2], || {
        for _ in 0..20 {
            load.goes_on(10);
            scene.postgres().disconnect();
        }
        load.goes_on(30);
    });
    all_recover(&scene);
    spends_all(&scene, &load, 900);
}

#[test]
fn a_database_that_hangs_signs_nothing_and_pays_nothing_twice() {
    let scene = Scene::limited(Place::Own, 2, 50);
    for gateway in [0, 1] {
        scene.buy(gateway);
    }
    let before = scene.seller("honest").stats();
    let orders: Vec<(String, Value)> =
        (0..6).map(|n| (scene.quote(), json!({"purchase_id": format!("hung-{n}")}))).collect();
    scene.postgres().pause();
    let answers: Vec<Response> = thread::scope(|scope| {
        let call = |(n, (url, order)): (usize, &(String, Value))| {
            let (agent, url, order) = (scene.agent(n % 2), url.clone(), order.clone());
            scope.spawn(move || agent.fetch(&url, order))
        };
        let calls: Vec<_> = orders.iter().enumerate().map(call).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let hung = scene.seller("honest").stats();
    scene.postgres().resume();
    for answer in &answers {
        refusal(answer, 503, "ledger-unavailable");
    }
    assert_eq!((before.presented, before.authorizations), (hung.presented, hung.authorizations));
    all_recover(&scene);
    // What the database did after all is known to whoever asks again, at the other gateway too.
    let mut acks = Vec::new();
    for (n, (url, order)) in orders.iter().enumerate() {
        let payment = bought(&scene.agent((n + 1) % 2).fetch(url, order.clone()), "0.001");
        acks.push((format!("hung-{n}"), payment));
    }
    assert_eq!(scene.seller("honest").stats().authorizations, before.authorizations + 6);
    assert_eq!(sound(&scene, &["honest"], &acks).len(), 8);
}

#[test]
fn a_database_that_hangs_under_load_and_goes_on_is_not_over() {
    let scene = Scene::limited(Place::Own, 2, 400);
    let load = Load::on(&scene);
    load.during(&[0, 1], || {
        for _ in 0..2 {
            load.goes_on(30);
            scene.postgres().pause();
            let told = || load.answers().get("503 ledger-unavailable").copied().unwrap_or_default();
            let before = told();
            let heard = wait_for(PATIENCE, || (told() > before).then_some(()));
            scene.postgres().resume();
            assert!(heard.is_some(), "the clients are not told: {:?}", load.answers());
        }
        load.goes_on(30);
    });
    all_recover(&scene);
    spends_all(&scene, &load, 400);
}

#[test]
fn while_it_is_down_reviews_sessions_and_stops_are_not_lost() {
    let review = Policy::new("review", "builtin:review-threshold").setting("above", "0.000999");
    let policies = [open_handed(), vec![review]].concat();
    let mut scene = Scene::with(Place::Own, 2, &["honest"], policies, |config| config);
    let (url, order) = (scene.quote(), json!({"purchase_id": "asked"}));
    let asked = refusal(&scene.agent(0).fetch(&url, order.clone()), 202, "approval-required");
    let approve = format!("/v1/approvals/{}/approve", text(&asked, "/approval/id"));
    let (_, token) = scene.session(0, &json!({"agent": "scout", "limit": "1.00"}));
    scene.server().kill();
    // Nobody may be told that something was done which was not.
    let told = scene.operator(1).post(&approve, &json!({}));
    assert_eq!(told.status, 503, "{}", told.text());
    scene.server().restart();
    all_recover(&scene);
    refusal(&scene.agent(1).fetch(&url, order.clone()), 202, "approval-required");
    done(&scene.operator(1).post(&approve, &json!({})));
    bought(&scene.agent(0).fetch(&url, order), "0.001");
    let agent = scene.gateways[1].agent_with(&token);
    assert_eq!(agent.fetch(&scene.seller("honest").url("/free"), json!({})).status, 200);

    done(&scene.operator(0).post("/v1/suspend", &json!({"reason": "drill"})));
    scene.server().kill();
    scene.server().restart();
    // Until it is heard again, and after.
    let answer = wait_for(PATIENCE, || {
        let answer = scene.agent(1).fetch(&scene.quote(), json!({}));
        assert_ne!(answer.status, 200, "the stop was forgotten");
        (answer.status != 503).then_some(answer)
    });
    refusal(&answer.expect("never answered"), 403, "suspended");
}
