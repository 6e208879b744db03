//! Approvals as operators have them: who must and who may decide, signed messages out and in, and proposed rules.
//!
//! What is signed is checked and made by the reference library of Standard Webhooks; see `tests/peers/telemetry`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

mod inbox;
mod outbox;
mod people;
#[expect(dead_code, reason = "made for the tests of telemetry")]
#[path = "../telemetry/receiver.rs"]
mod receiver;
mod rules;

use countersign_tests::{
    agent::Client,
    config::{Config, Policy},
    http::Response,
    process::Gateway,
    refusal::refusal,
    till::{plain, text},
    wait_for,
    world::LocalWorld,
};
use serde_json::{Value, json};
use std::time::Duration;

/// How long something may take that happens by itself.
const SOON: Duration = Duration::from_secs(60);
const BOB_TOKEN: &str = "test-operator-token-of-bob-0123456789abcdef";
const CAROL_TOKEN: &str = "test-operator-token-of-carol-0123456789abcdef";

/// A gateway, the seller `honest`, and a chain.
struct Scene {
    world: LocalWorld,
    gateway: Gateway,
}

/// What asks people about everything above nothing.
fn threshold(name: &str) -> Policy {
    Policy::new(name, "builtin:review-threshold").setting("above", "0.0001")
}

impl Scene {
    /// With allowlist, caps and these policies, and the configuration changed.
    fn with(policies: impl IntoIterator<Item = Policy>, change: impl FnOnce(Config) -> Config) -> Self {
        let world = LocalWorld::start();
        let config = world.config(&["honest"], plain().into_iter().chain(policies));
        let config = config.operator("bob", BOB_TOKEN, &["viewer", "approver"]).operator(
            "carol",
            CAROL_TOKEN,
            &["viewer", "approver"],
        );
        Self { gateway: Gateway::start(change(config)), world }
    }

    fn url(&self) -> String {
        self.world.world().seller("honest").unwrap().url("/quote")
    }

    fn operator(&self, token: &str) -> Client {
        Client::new(&self.gateway.admin_url, token)
    }

    /// Buys something of its own for each purchase.
    fn buy(&self, purchase: &str) -> Response {
        let url = format!("{}?{purchase}", self.url());
        self.gateway.agent().fetch(&url, json!({"purchase_id": purchase, "purpose": "look <b>here</b>"}))
    }

    /// Asks; returns the approval as operators see it.
    #[track_caller]
    fn asked(&self, purchase: &str) -> Value {
        asked(&self.gateway, &self.buy(purchase))
    }

    fn vote(&self, token: &str, approval: &Value, word: &str) -> Response {
        self.operator(token).post(&format!("/v1/approvals/{}/{word}", text(approval, "/id")), &json!({"note": "seen"}))
    }

    /// How many payments the chain executed since the last look.
    fn redeemed(&self) -> usize {
        self.world.new_redemptions().len()
    }

    /// Changes the configuration and waits until it is in force.
    #[track_caller]
    fn activate(&mut self, config: Config) {
        let generation = |gateway: &Gateway| gateway.operator().get("/v1/policies").json()["generation"].as_u64();
        let before = generation(&self.gateway);
        self.gateway.write_config(config);
        wait_for(SOON, || (generation(&self.gateway) > before).then_some(())).expect("never activated");
    }
}

/// The approval that a 202 asks for, as operators see it.
#[track_caller]
fn asked(gateway: &Gateway, answer: &Response) -> Value {
    let body = refusal(answer, 202, "approval-required");
    shown(gateway, text(&body, "/approval/id"))
}

#[track_caller]
fn shown(gateway: &Gateway, approval: &str) -> Value {
    let answer = gateway.operator().get(&format!("/v1/approvals/{approval}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Checks an answer to a vote; returns the approval.
#[track_caller]
fn counted(answer: &Response, state: &str) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["state"], state, "{}", answer.text());
    answer.json()
}
