//! The MCP door: the official Python client lists, asks, buys, waits and is refused, over HTTP and over standard input,
//! against the real binary, a chain and sellers in this process. Then what no client of good faith would send; and, behind
//! `/mcp/NAME`, the official x402 seller for MCP and servers of no good faith at all.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

mod buying;
mod hostile;
mod limits;
mod model;
mod servers;
mod tools;
mod transport;

use countersign_tests::{
    config::{Config, Policy},
    process::Gateway,
    till::{caps, items, text},
    wait_for,
    world::{LocalWorld, Redemption},
};
use serde_json::{Value, json};
use std::time::Duration;

/// How long something may take that happens by itself.
const SOON: Duration = Duration::from_secs(30);
/// Sellers that may be reached.
const SELLERS: [&str; 2] = ["honest", "talks-to-the-model"];

/// A gateway, and a world around it.
struct Scene {
    world: LocalWorld,
    gateway: Gateway,
}

impl Scene {
    /// With the allowlist and caps at 1 USD a payment.
    fn new() -> Self {
        Self::with([], |config| config)
    }

    /// With more policies, and with the configuration changed.
    fn with<const N: usize>(more: [Policy; N], change: impl FnOnce(Config) -> Config) -> Self {
        Self::around(LocalWorld::start(), more, change)
    }

    /// The same around a world that is there already.
    fn around<const N: usize>(world: LocalWorld, more: [Policy; N], change: impl FnOnce(Config) -> Config) -> Self {
        let config = world.config(&SELLERS, [Policy::vendors(), caps("5.00")].into_iter().chain(more));
        Self { gateway: Gateway::start(change(config)), world }
    }

    fn url(&self, path: &str) -> String {
        self.world.world().seller("honest").unwrap().url(path)
    }

    /// What moved on the chain since the last look.
    fn moved(&self) -> Vec<Redemption> {
        self.world.new_redemptions().into_values().collect()
    }

    /// The token of a new session of `scout`.
    fn session(&self) -> String {
        let wish = json!({"agent": "scout", "limit": "1.00", "max_payments": 10});
        let opened = self.gateway.operator().post("/v1/sessions", &wish);
        text(&opened.json(), "/token").to_owned()
    }

    /// Answers the one approval that is waited for.
    fn decide(&self, word: &str) {
        let operator = self.gateway.operator();
        let waiting = wait_for(SOON, || items(&operator.get("/v1/approvals")).pop()).expect("nobody is asked");
        let answer = operator.post(&format!("/v1/approvals/{}/{word}", text(&waiting, "/id")), &json!({}));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// What a budget that the agent may see says.
#[track_caller]
fn budget<'a>(budgets: &'a Value, name: &str) -> &'a Value {
    let all = budgets["items"].as_array().unwrap();
    all.iter().find(|b| text(b, "/budget").contains(name)).unwrap_or_else(|| panic!("no {name}: {budgets}"))
}
