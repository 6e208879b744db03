//! One purchase is one payment, whichever gateways are asked for it.

use super::*;
use countersign::demo::world::Revert;

/// The payment that an answer names, in a header or in a problem.
#[track_caller]
fn named(answer: &Response) -> String {
    match answer.header("countersign-payment") {
        Some(payment) => payment.to_owned(),
        None => text(&answer.json(), "/payment").to_owned(),
    }
}

#[test]
fn one_purchase_through_two_gateways_at_once_is_one_payment() {
    let scene = Scene::new(2);
    for round in 1..=12_u64 {
        let (url, order) = (scene.quote(), json!({"purchase_id": format!("order-{round}")}));
        let start = Barrier::new(4);
        let answers: Vec<Response> = thread::scope(|scope| {
            let call = |n: usize| {
                let (agent, url, order, start) = (scene.agent(n % 2), &url, order.clone(), &start);
                move || {
                    start.wait();
                    agent.fetch(url, order)
                }
            };
            let calls: Vec<_> = (0..4).map(|n| scope.spawn(call(n))).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        let paid: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert!(!paid.is_empty(), "nobody was served: {answers:#?}");
        let payment = named(paid[0]);
        for answer in &answers {
            // Whoever came second may have shown the seller the same payment again, which it does not serve twice.
            let code = if answer.status == 200 { Value::Null } else { answer.json()["code"].clone() };
            let fine = matches!(code.as_str(), None | Some("payment-refused" | "payment-unknown" | "overloaded"));
            assert!(fine, "{} {}", answer.status, answer.text());
            if code != "overloaded" {
                assert_eq!(named(answer), payment);
            }
        }
        assert_eq!(scene.seller("honest").stats().authorizations, round, "signed twice: {answers:#?}");
        scene.until(&payment, "settled");
        for gateway in [0, 1] {
            let again = scene.agent(gateway).fetch(&url, order.clone());
            assert_eq!((again.status, header(&again, "countersign-replayed")), (200, "true"), "{}", again.text());
            assert_eq!(named(&again), payment);
        }
    }
    assert_eq!(sound(&scene, &["honest"], &[]).len(), 12);
}

#[test]
fn calls_without_an_id_are_one_purchase_when_the_first_is_in_doubt() {
    let scene = Scene::with(Place::Shared, 2, &[KEEPER], open_handed(), |config| config);
    let url = scene.seller(KEEPER).url("/quote");
    let first = refusal(&scene.agent(0).fetch(&url, json!({})), 504, "outcome-unknown");
    let (payment, purchase) = (text(&first, "/payment"), text(&first, "/purchase"));

    // Presented again by the other gateway: the same payload.
    let again = scene.agent(1).fetch(&url, json!({}));
    let body = refusal(&again, 504, "outcome-unknown");
    assert_eq!((text(&body, "/payment"), text(&body, "/purchase")), (payment, purchase));
    // Another purchase of the same is not begun while this one is in doubt.
    for gateway in [0, 1] {
        let answer = scene.agent(gateway).fetch(&url, json!({"purchase_id": "another"}));
        let body = refusal(&answer, 409, "payment-unknown");
        assert_eq!(body["purchase"], purchase, "{body}");
    }
    assert_eq!(scene.seller(KEEPER).stats().authorizations, 1);
    scene.until(payment, "unknown");
    scene.seller(KEEPER).redeem().unwrap();
    scene.until(payment, "settled");
    assert_eq!(sound(&scene, &[KEEPER], &[]).len(), 1);
}

#[test]
fn what_nobody_can_redeem_any_more_comes_back_at_every_gateway() {
    let mut scene = Scene::with(Place::Shared, 2, &["honest", KEEPER], open_handed(), |config| with_budget(config, 1));
    let url = scene.seller(KEEPER).url("/quote");
    let order = json!({"purchase_id": "once"});
    let first = refusal(&scene.agent(0).fetch(&url, order.clone()), 504, "outcome-unknown");
    let signed = scene.chain().now();
    let payment = text(&first, "/payment").to_owned();
    refusal(&scene.agent(1).fetch(&scene.quote(), json!({})), 403, "budget-exceeded");
    let visits = scene.seller(KEEPER).visits();
    let valid_before = visits.iter().find_map(|visit| visit.valid_before).unwrap();
    scene.chain().mine_at(valid_before);
    // A start looks at once.
    scene.restart();
    scene.until(&payment, "failed");
    assert_eq!(scene.seller(KEEPER).redeem(), Err(Revert::Expired));
    // Once, not once for each gateway that found it out.
    agree(&scene);
    for gateway in [0, 1] {
        let row = scene.budget(gateway, "everybody");
        assert_eq!((micros(&row["held"]), micros(&row["spent"])), (0, 0), "{row}");
    }
    // For the chain, whose clock was moved on, the next one must not be over as well.
    let later = wait_for(PATIENCE, || (scene.chain().now().since(signed) > 2_000).then_some(()));
    assert!(later.is_some());
    let (paid, _) = drain(&scene, &load::everywhere(&scene, countersign_tests::config::SCOUT_TOKEN));
    assert_eq!(paid.len(), 1);
}

#[test]
fn a_kept_answer_is_given_by_every_gateway() {
    let mut scene = Scene::new(2);
    let (url, order) = (scene.quote(), json!({"purchase_id": "kept"}));
    let first = scene.agent(0).fetch(&url, order.clone());
    let payment = bought(&first, "0.001");
    scene.until(&payment, "settled");
    let requests = scene.seller("honest").stats().requests;
    scene.gateways[0].kill();
    let again = scene.agent(1).fetch(&url, order.clone());
    assert_eq!((again.status, header(&again, "countersign-replayed")), (200, "true"), "{}", again.text());
    assert_eq!((&again.body, named(&again)), (&first.body, payment.clone()));
    assert_eq!(scene.seller("honest").stats().requests, requests, "the seller was asked again");
    // Another request under this id is none.
    refusal(&scene.agent(1).fetch(&scene.quote(), order), 409, "purchase-conflict");
    assert_eq!(scene.gateways[1].agent().payment(&payment)["state"], "settled");
}

#[test]
fn a_purchase_begun_elsewhere_conflicts_with_another_of_its_name() {
    let scene = Scene::new(3);
    for (round, (first, second)) in [(0, 1), (1, 2), (2, 0)].into_iter().enumerate() {
        let order = json!({"purchase_id": format!("named-{round}")});
        bought(&scene.agent(first).fetch(&scene.quote(), order.clone()), "0.001");
        refusal(&scene.agent(second).fetch(&scene.quote(), order), 409, "purchase-conflict");
    }
    assert_eq!(scene.seller("honest").stats().authorizations, 3);
}

#[test]
fn an_agent_reads_its_payments_at_every_gateway_and_nobody_elses() {
    let scene = Scene::with(Place::Shared, 2, &["honest"], open_handed(), |config| config.agent("rival", OTHER_TOKEN));
    let payment = scene.buy(0);
    scene.until(&payment, "settled");
    assert_eq!(scene.agent(1).payment(&payment), scene.agent(0).payment(&payment));
    let rival = scene.gateways[1].agent_with(OTHER_TOKEN);
    assert_eq!(rival.get(&format!("/v1/payments/{payment}")).status, 404);
    assert_eq!(items(&rival.get("/v1/payments")), Vec::<Value>::new());
    assert_eq!(items(&scene.agent(1).get("/v1/payments")).len(), 1);
    agree(&scene);
    let listed = |gateway: &Gateway| said(&gateway.command(&["payments", "list", "--json"]));
    assert_eq!(listed(&scene.gateways[0]), listed(&scene.gateways[1]));
}
