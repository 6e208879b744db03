//! People are asked once, wherever they answer.

use super::*;

fn asking(gateways: usize, change: impl FnOnce(Config) -> Config) -> Scene {
    let review = Policy::new("review", "builtin:review-threshold").setting("above", "0.000999");
    with_review(review, gateways, change)
}

fn with_review(review: Policy, gateways: usize, change: impl FnOnce(Config) -> Config) -> Scene {
    let policies = [open_handed(), vec![review]].concat();
    let many = |config: Config| config.set(&["limits", "reviews-per-agent"], 1_000);
    Scene::with(Place::Shared, gateways, &["honest"], policies, |config| change(many(config)))
}

/// The id of the approval that a 202 asks for.
#[track_caller]
fn asked(answer: &Response) -> String {
    text(&refusal(answer, 202, "approval-required"), "/approval/id").to_owned()
}

/// The ids of the approvals that wait, as an operator sees them at a gateway.
fn waiting(scene: &Scene, gateway: usize) -> Vec<String> {
    let listed = items(&scene.operator(gateway).get("/v1/approvals"));
    listed.iter().map(|approval| text(approval, "/id").to_owned()).collect()
}

fn vote(scene: &Scene, gateway: usize, approval: &str, word: &str) -> Response {
    scene.operator(gateway).post(&format!("/v1/approvals/{approval}/{word}"), &json!({}))
}

/// A call that waits at the first gateway while `word` is said at the second.
fn hears(scene: &Scene, word: &str) -> Response {
    let url = scene.quote();
    thread::scope(|scope| {
        let agent = scene.agent(0);
        let call = scope.spawn(move || agent.fetch(&url, json!({"purchase_id": word, "wait_seconds": 100})));
        let approval = wait_for(PATIENCE, || waiting(scene, 1).pop()).expect("nobody is asked");
        done(&vote(scene, 1, &approval, word));
        call.join().unwrap()
    })
}

#[test]
fn a_call_that_waits_hears_what_is_said_at_another_gateway() {
    let scene = asking(2, |config| with_budget(config, 1));
    let body = refusal(&hears(&scene, "deny"), 403, "approval-denied");
    // What was reserved is free again, everywhere.
    scene.until(text(&body, "/payment"), "failed");
    let payment = bought(&hears(&scene, "approve"), "0.001");
    scene.until(&payment, "settled");
    assert_eq!((waiting(&scene, 0), waiting(&scene, 1)), (Vec::new(), Vec::new()));
    assert_eq!(scene.seller("honest").stats().authorizations, 1);
    assert_eq!(sound(&scene, &["honest"], &[]).len(), 1);
}

#[test]
fn what_was_asked_at_one_gateway_is_bought_at_another() {
    let mut scene = asking(2, |config| config);
    let (url, order) = (scene.quote(), json!({"purchase_id": "brief"}));
    let approval = asked(&scene.agent(0).fetch(&url, order.clone()));
    // Asking elsewhere asks nobody anew.
    assert_eq!(asked(&scene.agent(1).fetch(&url, order.clone())), approval);
    assert_eq!(waiting(&scene, 1), [approval.as_str()]);
    let held = scene.budget(1, "wallet/research");
    assert_eq!(micros(&held["held"]), 1_000, "{held}");
    // Who asked is gone; nobody needs it.
    scene.gateways[0].kill();
    done(&vote(&scene, 1, &approval, "approve"));
    let payment = bought(&scene.agent(1).fetch(&url, order.clone()), "0.001");
    scene.gateways[0].restart();
    scene.until(&payment, "settled");
    let again = scene.agent(0).fetch(&url, order);
    assert_eq!((again.status, header(&again, "countersign-replayed")), (200, "true"), "{}", again.text());
    assert_eq!(scene.seller("honest").stats().authorizations, 1);
}

#[test]
fn what_was_approved_once_is_paid_once() {
    let scene = asking(2, |config| config);
    for round in 1..=6_u64 {
        let (url, order) = (scene.quote(), json!({"purchase_id": format!("approved-{round}")}));
        let approval = asked(&scene.agent(0).fetch(&url, order.clone()));
        done(&vote(&scene, 1, &approval, "approve"));
        let start = Barrier::new(2);
        let answers: Vec<Response> = thread::scope(|scope| {
            let call = |gateway: usize| {
                let (agent, url, order, start) = (scene.agent(gateway), &url, order.clone(), &start);
                move || {
                    start.wait();
                    agent.fetch(url, order)
                }
            };
            let calls = [scope.spawn(call(0)), scope.spawn(call(1))];
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        assert!(answers.iter().any(|answer| answer.status == 200), "{answers:#?}");
        assert_eq!(scene.seller("honest").stats().authorizations, round, "{answers:#?}");
        assert_eq!(waiting(&scene, 0), [""; 0], "somebody is asked again");
    }
    assert_eq!(sound(&scene, &["honest"], &[]).len(), 6);
}

#[test]
fn two_words_of_one_hand_at_two_gateways_are_one_and_a_conflict() {
    let scene = asking(2, |config| config);
    for (first, second) in [("approve", "approve"), ("approve", "deny"), ("deny", "approve"), ("deny", "deny")] {
        let (url, order) = (scene.quote(), json!({"purchase_id": format!("{first}-{second}")}));
        let approval = asked(&scene.agent(0).fetch(&url, order.clone()));
        done(&vote(&scene, 0, &approval, first));
        let late = vote(&scene, 1, &approval, second);
        assert_eq!(
            (late.status, &late.json()["code"]),
            (409, &json!("conflict")),
            "{first}, {second}: {}",
            late.text()
        );
        let answer = scene.agent(1).fetch(&url, order);
        if first == "approve" {
            bought(&answer, "0.001");
        } else {
            // Denied is decided anew when it is asked for again.
            assert_ne!(answer.status, 200, "{}", answer.text());
        }
    }
    assert_eq!(scene.seller("honest").stats().authorizations, 2);
}

#[test]
fn a_yes_and_a_no_at_once_are_one_of_them() {
    let scene = asking(2, |config| config);
    for round in 0..8 {
        let (url, order) = (scene.quote(), json!({"purchase_id": format!("torn-{round}")}));
        let approval = asked(&scene.agent(0).fetch(&url, order.clone()));
        let start = Barrier::new(2);
        let [yes, no] = thread::scope(|scope| {
            let say = |gateway: usize, word: &'static str| {
                let (scene, approval, start) = (&scene, &approval, &start);
                move || {
                    start.wait();
                    vote(scene, gateway, approval, word).status
                }
            };
            [scope.spawn(say(0, "approve")), scope.spawn(say(1, "deny"))].map(|call| call.join().unwrap())
        });
        assert!(matches!((yes, no), (200, 409) | (409, 200)), "{yes} {no}");
        let answer = scene.agent(round % 2).fetch(&url, order);
        assert_eq!(answer.status == 200, yes == 200, "{}", answer.text());
    }
    agree(&scene);
}

#[test]
fn two_hands_at_two_gateways_are_two() {
    let scene = asking(2, |config| {
        config.set(&["approvals", "quorum"], 2).operator("bob", OTHER_TOKEN, &["viewer", "approver"])
    });
    let (url, order) = (scene.quote(), json!({"purchase_id": "both"}));
    let approval = asked(&scene.agent(0).fetch(&url, order.clone()));
    done(&vote(&scene, 0, &approval, "approve"));
    // The same hand at another gateway is no second one.
    vote(&scene, 1, &approval, "approve");
    assert_eq!(asked(&scene.agent(1).fetch(&url, order.clone())), approval);
    let bob = Client::new(&scene.gateways[1].admin_url, OTHER_TOKEN);
    done(&bob.post(&format!("/v1/approvals/{approval}/approve"), &json!({})));
    bought(&scene.agent(0).fetch(&url, order), "0.001");
}

#[test]
fn silence_is_a_no_at_every_gateway() {
    let review = Policy::new("review", "builtin:review-threshold").setting("above", "0.000999");
    let scene = with_review(review.setting("expires-in-seconds", 2), 2, |config| with_budget(config, 1));
    let (url, order) = (scene.quote(), json!({"purchase_id": "slow", "wait_seconds": 100}));
    let body = refusal(&scene.agent(0).fetch(&url, order), 403, "approval-expired");
    scene.until(text(&body, "/payment"), "failed");
    assert_eq!((waiting(&scene, 0), waiting(&scene, 1)), (Vec::new(), Vec::new()));
    for gateway in [0, 1] {
        let row = scene.budget(gateway, "everybody");
        assert_eq!(micros(&row["held"]), 0, "{row}");
    }
    assert_eq!(scene.seller("honest").stats().presented, 0);
}
