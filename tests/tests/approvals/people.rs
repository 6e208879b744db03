//! Who must decide, and who may not.

use countersign_tests::{
    config::{ALICE_TOKEN, Policy},
    process::Gateway,
    refusal::refusal,
    till::{bought, text},
};
use serde_json::json;

use super::{BOB_TOKEN, CAROL_TOKEN, Scene, counted, threshold};

/// Two policies that ask two groups: two of finance, one of legal.
fn two_groups() -> Scene {
    let finance =
        threshold("money").setting("group", "finance").setting("quorum", 2).setting("expires-in-seconds", 7_200);
    let legal = threshold("law").setting("group", "legal").setting("expires-in-seconds", 600);
    Scene::with([finance, legal], |config| {
        config
            .set(&["operator", "alice", "groups"], vec!["finance"])
            .set(&["operator", "bob", "groups"], vec!["finance"])
            .set(&["operator", "carol", "groups"], vec!["legal"])
            .operator("dora", DORA_TOKEN, &["viewer", "approver"])
            .set(&["operator", "dora", "groups"], vec!["legal", "finance"])
            .operator("eve", EVE_TOKEN, &["viewer", "approver"])
    })
}

const DORA_TOKEN: &str = "test-operator-token-of-dora-0123456789abcdef";
const EVE_TOKEN: &str = "test-operator-token-of-eve-0123456789abcdef";

#[test]
fn rule_17_every_group_highest_quorum_shortest_expiry() {
    let scene = two_groups();
    let asked = scene.asked("p");
    assert_eq!((&asked["quorum"], &asked["groups"]), (&json!(2), &json!({"finance": 2, "legal": 1})));
    let seconds = |pointer| {
        let moment = countersign_core::time::Timestamp::parse(text(&asked, pointer)).unwrap();
        moment.as_secs()
    };
    assert_eq!(seconds("/expires_at") - seconds("/created_at"), 600);
    let body = refusal(&scene.vote(EVE_TOKEN, &asked, "approve"), 403, "forbidden");
    assert!(text(&body, "/detail").contains("`finance` or `legal`"), "{body}");
    refusal(&scene.vote(EVE_TOKEN, &asked, "deny"), 403, "forbidden");
    counted(&scene.vote(ALICE_TOKEN, &asked, "approve"), "pending");
    let two = counted(&scene.vote(BOB_TOKEN, &asked, "approve"), "pending");
    assert_eq!(two["missing"], json!({"people": 0, "groups": {"legal": 1}}));
    refusal(&scene.buy("p"), 202, "approval-required");
    let done = counted(&scene.vote(CAROL_TOKEN, &asked, "approve"), "approved");
    assert_eq!(done["votes"][2]["groups"], json!(["legal"]));
    bought(&scene.buy("p"), "0.001");
    // One person may stand for two groups, and is one person.
    let other = scene.asked("q");
    let one = counted(&scene.vote(DORA_TOKEN, &other, "approve"), "pending");
    assert_eq!(one["missing"], json!({"people": 1, "groups": {"finance": 1}}));
    counted(&scene.vote(ALICE_TOKEN, &other, "approve"), "approved");
    // One no of anybody who is asked is a no.
    let third = scene.asked("r");
    counted(&scene.vote(CAROL_TOKEN, &third, "deny"), "denied");
    assert_eq!(scene.redeemed(), 1);
}

#[test]
fn rule_17_nobody_approves_what_they_asked_for() {
    let mut scene = Scene::with([threshold("review")], |config| {
        config
            .set(&["agent", "scout", "user"], "bert")
            .set(&["operator", "bob", "users"], vec!["bert", "robert"])
            .set(&["operator", "carol", "users"], vec!["clara"])
    });
    let own = scene.asked("own");
    for word in ["approve", "deny"] {
        let body = refusal(&scene.vote(BOB_TOKEN, &own, word), 403, "forbidden");
        assert!(text(&body, "/detail").contains("`bert`"), "{body}");
    }
    // A session says for whom it is: that user is in the chain, and so is whose agent it is.
    let open = |user| {
        let order = json!({"agent": "scout", "user": user, "limit": "1.00"});
        let opened = scene.operator(ALICE_TOKEN).post("/v1/sessions", &order);
        assert_eq!(opened.status, 201, "{}", opened.text());
        scene.gateway.agent_with(text(&opened.json(), "/token"))
    };
    let clara = open("clara");
    let asked =
        super::asked(&scene.gateway, &clara.fetch(&format!("{}?hers", scene.url()), json!({"purchase_id": "hers"})));
    refusal(&scene.vote(CAROL_TOKEN, &asked, "approve"), 403, "forbidden");
    let body = refusal(&scene.vote(BOB_TOKEN, &asked, "approve"), 403, "forbidden");
    assert!(text(&body, "/detail").contains("whose agent"), "{body}");
    let body = refusal(&scene.vote(ALICE_TOKEN, &asked, "approve"), 403, "forbidden");
    assert!(text(&body, "/detail").contains("opened the session"), "{body}");
    // Nobody has spoken by all that, and whoever is in no chain decides.
    assert_eq!(super::shown(&scene.gateway, text(&asked, "/id"))["votes"], json!([]));
    counted(&scene.vote(CAROL_TOKEN, &own, "approve"), "approved");
    bought(&scene.buy("own"), "0.001");
    // On the command line, with and without a gateway.
    let refused = |gateway: &Gateway, more: &[&str]| {
        let args = [&["approvals", "approve", text(&asked, "/id")], more].concat();
        let told = gateway.command(&args);
        let said = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.status.code() == Some(1) && said.contains("opened the session"), "{said}");
    };
    let admin = scene.gateway.admin_url.clone();
    refused(&scene.gateway, &["--admin", &admin]);
    scene.gateway.terminate();
    refused(&scene.gateway, &[]);
}

#[test]
fn rule_17_one_person_is_not_two_operators() {
    let pair = Policy::new("review", "builtin:review-threshold").setting("above", "0.0001").setting("quorum", 2);
    let mut scene = Scene::with([pair], |config| {
        config.set(&["operator", "alice", "users"], vec!["ann"]).set(&["operator", "bob", "users"], vec!["ann", "bea"])
    });
    let asked = scene.asked("p");
    counted(&scene.vote(ALICE_TOKEN, &asked, "approve"), "pending");
    refusal(&scene.vote(BOB_TOKEN, &asked, "approve"), 409, "conflict");
    // What makes somebody involved holds at once, whatever else is wrong with the edit.
    let config = scene.gateway.config().set(&["operator", "carol", "users"], vec!["uma"]);
    let config = config.set(&["agent", "scout", "user"], "uma");
    scene.activate(config);
    let hers = super::asked(&scene.gateway, &scene.buy("q"));
    refusal(&scene.vote(CAROL_TOKEN, &hers, "approve"), 403, "forbidden");
}
