//! How many sessions may be opened, by whom, for whom, for how much; and whose purchases an operator decides about.

use countersign_tests::{
    agent::Client,
    config::{Config, Policy},
    http::Response,
    process::Gateway,
    refusal::refusal,
    till::{bought, caps, text},
    world::LocalWorld,
};
use serde_json::{Value, json};

const BOB_TOKEN: &str = "test-operator-token-of-bob-0123456789abcdef";
const RIVAL_TOKEN: &str = "test-agent-token-of-rival-0123456789abcdef";

fn scene(change: impl FnOnce(Config) -> Config) -> (LocalWorld, Gateway) {
    let world = LocalWorld::start();
    let asks = Policy::new("review", "builtin:review-threshold").setting("above", "0.2");
    let config = world.config(&["honest"], [Policy::vendors(), caps("5.00"), asks]);
    let config = config.agent("rival", RIVAL_TOKEN).set(&["agent", "rival", "workspace"], "sales");
    let config = config.operator("bob", BOB_TOKEN, &["viewer", "approver", "session-admin"]);
    (world, Gateway::start(change(config)))
}

fn bob(gateway: &Gateway) -> Client {
    Client::new(&gateway.admin_url, BOB_TOKEN)
}

fn open(by: &Client, agent: &str, limit: &str) -> Response {
    by.post("/v1/sessions", &json!({"agent": agent, "limit": limit, "expires_in": 600}))
}

/// A refusal that says when there is room again.
#[track_caller]
fn full(answer: &Response, what: &str) -> Value {
    let told = refusal(answer, 429, "rate-limited");
    assert!(text(&told, "/detail").contains(what), "{told}");
    assert!(text(&told, "/frees_at").ends_with('Z'), "{told}");
    told
}

#[test]
fn a_loop_of_sessions_ends_at_its_caps_over_a_restart_and_after_an_edit() {
    let (_world, mut gateway) = scene(|config| {
        let config = config.set(&["limits", "sessions-per-operator-per-hour"], 4);
        config.set(&["limits", "sessions-per-agent-per-hour"], 3).set(&["limits", "session-limits-open"], "10.00")
    });
    let alice = gateway.operator();
    for _ in 0..3 {
        assert_eq!(open(&alice, "scout", "1.00").status, 201);
    }
    let told = full(&open(&alice, "scout", "1.00"), "3 sessions an hour for agent `scout`");
    assert!((3_500..=3_600).contains(&told["retry_after"].as_u64().unwrap()), "{told}");
    refusal(&open(&alice, "rival", "10.01"), 403, "forbidden");
    full(&open(&bob(&gateway), "rival", "7.01"), "10 in open sessions");
    assert_eq!(open(&alice, "rival", "7.00").status, 201);
    full(&open(&alice, "rival", "1.00"), "4 sessions an hour by operator `alice`");
    gateway.kill();
    gateway.restart();
    full(&open(&gateway.operator(), "rival", "1.00"), "4 sessions an hour by operator `alice`");

    // An edit that cannot be taken whole lowers the caps all the same.
    let config = gateway.config().set(&["limits", "session-limits-per-day"], "10.00");
    let config = config.remove(&["limits", "session-limits-open"]).set(&["policy", "vendors", "module"], "gone.wasm");
    gateway.write_config(config);
    let sessions = gateway.operator().get("/v1/sessions").json();
    let one = text(&sessions, "/items/0/id");
    assert_eq!(gateway.operator().delete(&format!("/v1/sessions/{one}")).status, 200);
    let refused = || gateway.operator().get("/v1/policies").json()["last_error"].is_object().then_some(());
    super::wait_for(super::SOON, refused).expect("the edit was not seen");
    full(&open(&bob(&gateway), "rival", "7.00"), "10 in sessions opened in a day");
}

#[test]
fn rule_18_an_operator_decides_within_a_scope_and_up_to_a_sum() {
    let (world, gateway) = scene(|config| {
        config
            .set(&["operator", "bob", "workspaces"], vec!["sales"])
            .set(&["operator", "bob", "session-limit"], "2.00")
            .set(&["operator", "bob", "session-limits-per-day"], "3.00")
    });
    let (alice, bob) = (gateway.operator(), bob(&gateway));
    let told = refusal(&open(&bob, "scout", "1.00"), 403, "forbidden");
    assert!(text(&told, "/detail").contains("does not decide about this workspace"), "{told}");
    refusal(&open(&bob, "rival", "2.01"), 403, "forbidden");
    assert_eq!(open(&bob, "rival", "2.00").status, 201);
    full(&open(&bob, "rival", "2.00"), "3 in sessions opened in a day by operator `bob`");
    assert_eq!(open(&alice, "rival", "9.00").status, 201, "alice has no such sum");

    // Neither the sessions nor the purchases of others.
    let others = open(&alice, "scout", "1.00").json();
    let (id, token) = (text(&others, "/id"), text(&others, "/token"));
    refusal(&bob.delete(&format!("/v1/sessions/{id}")), 403, "forbidden");
    refusal(&bob.delete("/v1/sessions/ses_00000000000000000000000000000000"), 404, "not-found");
    let url = world.world().seller("honest").unwrap().url("/quote");
    let payment = bought(&gateway.agent_with(token).fetch(&url, json!({})), "0.001");
    refusal(&bob.post(&format!("/v1/payments/{payment}/dispute"), &json!({"why": "x"})), 403, "forbidden");
    refusal(&bob.post(&format!("/v1/payments/{payment}/use"), &json!({"used": "used"})), 403, "forbidden");
    world.world().seller("honest").unwrap().set_price("/quote", 300_000);
    let asked = |token: &str| {
        let told = gateway.agent_with(token).fetch(&url, json!({}));
        text(&refusal(&told, 202, "approval-required"), "/approval/id").to_owned()
    };
    let (theirs, ours) = (asked(countersign_tests::config::SCOUT_TOKEN), asked(RIVAL_TOKEN));
    for word in ["approve", "deny"] {
        refusal(&bob.post(&format!("/v1/approvals/{theirs}/{word}"), &json!({})), 403, "forbidden");
    }
    assert_eq!(bob.post(&format!("/v1/approvals/{ours}/approve"), &json!({})).status, 200);
    assert_eq!(alice.post(&format!("/v1/approvals/{theirs}/deny"), &json!({})).status, 200);
    assert_eq!(bob.post(&format!("/v1/payments/{payment}/nothing"), &json!({})).status, 403);
}
