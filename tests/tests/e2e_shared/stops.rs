//! What an operator stops or closes at one gateway is stopped at all of them when the answer is there.

use super::*;

fn stop(scene: &Scene, gateway: usize, what: &Value) {
    done(&scene.operator(gateway).post("/v1/suspend", what));
}

fn lift(scene: &Scene, gateway: usize, query: &str) {
    let answer = scene.operator(gateway).delete(&format!("/v1/suspend{query}"));
    assert!(matches!(answer.status, 200 | 204), "{}", answer.text());
}

#[test]
fn a_stop_at_one_gateway_is_the_next_decision_of_all() {
    let scene = Scene::new(2);
    let vendor = scene.seller("honest").authority().to_owned();
    let scopes = [
        (json!({}), String::new()),
        (json!({"agent": "scout"}), "?agent=scout".to_owned()),
        (json!({"wallet": "research"}), "?wallet=research".to_owned()),
        (json!({"mandate": "all"}), "?mandate=all".to_owned()),
        (json!({"vendor": vendor}), format!("?vendor={vendor}")),
    ];
    for (what, query) in &scopes {
        for (here, there) in [(0, 1), (1, 0)] {
            stop(&scene, there, what);
            refusal(&scene.agent(here).fetch(&scene.quote(), json!({})), 403, "suspended");
            lift(&scene, there, query);
            scene.buy(here);
        }
        // Lifted by the other hand than stopped it.
        stop(&scene, 0, what);
        lift(&scene, 1, query);
        scene.buy(0);
    }
    assert_eq!(scene.seller("honest").stats().authorizations, 15);
}

#[test]
fn a_stop_races_purchases_at_another_gateway_and_wins() {
    let scene = Scene::new(2);
    for _ in 0..5 {
        let seller = scene.seller("honest");
        let before = seller.stats().redeemed;
        // True once the stop was confirmed: a call that begins after that is refused.
        let confirmed = AtomicBool::new(false);
        let late = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (scene, confirmed, late) = (&scene, &confirmed, &late);
                scope.spawn(move || {
                    loop {
                        let after = confirmed.load(Ordering::SeqCst);
                        let answer = scene.agent(client % 2).fetch(&scene.quote(), json!({}));
                        if after {
                            late.lock().unwrap().push(answer);
                            return;
                        }
                        if answer.status != 200 {
                            refusal(&answer, 403, "suspended");
                        }
                    }
                });
            }
            let busy = wait_for(PATIENCE, || (seller.stats().redeemed >= before + 10).then_some(()));
            stop(&scene, 1, &json!({"reason": "drill"}));
            confirmed.store(true, Ordering::SeqCst);
            busy.expect("nothing is bought");
        });
        let authorizations = seller.stats().authorizations;
        let late = late.into_inner().unwrap();
        assert_eq!(late.len(), CLIENTS);
        late.iter().for_each(|answer| drop(refusal(answer, 403, "suspended")));
        for gateway in [0, 1] {
            refusal(&scene.agent(gateway).fetch(&scene.quote(), json!({})), 403, "suspended");
        }
        assert_eq!(seller.stats().authorizations, authorizations);
        lift(&scene, 0, "");
        scene.buy(1);
    }
}

#[test]
fn what_is_signed_already_is_not_presented_again_by_anybody() {
    let mut scene = Scene::with(Place::Shared, 2, &["raises-price"], open_handed(), |config| config);
    let (url, order) = (scene.seller("raises-price").url("/quote"), json!({"purchase_id": "open"}));
    let first = refusal(&scene.agent(0).fetch(&url, order.clone()), 502, "payment-refused");
    let told = scene.operator(1).post("/v1/suspend", &json!({"reason": "drill"}));
    assert!(told.text().contains(text(&first, "/payment")), "what is redeemable is not listed: {}", told.text());
    for _ in 0..2 {
        for gateway in [0, 1] {
            refusal(&scene.agent(gateway).fetch(&url, order.clone()), 403, "suspended");
            let listed = wait_for(PATIENCE, || items(&scene.operator(gateway).get("/v1/suspend")).pop());
            assert_eq!(listed.expect("the stop is not listed")["by"], "alice");
        }
        scene.restart();
    }
    assert_eq!(scene.seller("raises-price").stats().presented, 1);
}

#[test]
fn a_session_opened_at_one_gateway_works_at_all_until_it_is_closed_at_one() {
    let scene = Scene::new(2);
    for (opened, closed) in [(0, 1), (1, 0), (1, 1)] {
        let (id, token) = scene.session(opened, &json!({"agent": "scout", "limit": "5.00", "task": "t-42"}));
        for gateway in &scene.gateways {
            let payment = bought(&gateway.agent_with(&token).fetch(&scene.quote(), json!({})), "0.001");
            let told = gateway.operator().payment(&payment);
            assert_eq!((&told["session"], &told["task"]), (&json!(id), &json!("t-42")));
        }
        done(&scene.operator(closed).delete(&format!("/v1/sessions/{id}")));
        for gateway in &scene.gateways {
            refusal(&gateway.agent_with(&token).fetch(&scene.quote(), json!({})), 403, "session-expired");
        }
    }
    let listed = |gateway: usize| -> Vec<String> {
        let sessions = items(&scene.operator(gateway).get("/v1/sessions"));
        sessions.iter().map(|session| text(session, "/id").to_owned()).collect()
    };
    wait_for(PATIENCE, || (listed(0) == listed(1)).then_some(())).expect("two lists of sessions");
    assert_eq!(listed(0).len(), 3);
}

#[test]
fn a_session_ends_at_every_gateway() {
    let scene = Scene::new(2);
    let (_, token) = scene.session(0, &json!({"agent": "scout", "limit": "5.00", "expires_in": 1}));
    let free = scene.seller("honest").url("/free");
    for gateway in [1, 0] {
        let agent = scene.gateways[gateway].agent_with(&token);
        let over = wait_for(PATIENCE, || Some(agent.fetch(&free, json!({}))).filter(|answer| answer.status != 200));
        refusal(&over.expect("it never ends"), 403, "session-expired");
    }
}
