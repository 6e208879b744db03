//! Traces, metrics and alerts as their receivers see them: OpenTelemetry's own messages, promtool and Prometheus's own
//! parser, the reference library of Standard Webhooks; see `tests/peers/telemetry`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

mod alerts;
mod quiet;
mod receiver;
mod scrape;
mod traces;

use countersign_tests::{
    config::{Config, Policy},
    process::Gateway,
    till::caps,
    world::LocalWorld,
};
use receiver::Receiver;
use std::time::Duration;

/// How long something may take that happens by itself.
const SOON: Duration = Duration::from_secs(60);

/// A gateway that tells a receiver, and a world around it.
struct Scene {
    world: LocalWorld,
    gateway: Gateway,
    receiver: Receiver,
}

impl Scene {
    /// With the allowlist, caps at 1 USD a payment, and the configuration changed.
    fn with(change: impl FnOnce(Config) -> Config) -> Self {
        let (world, receiver) = (LocalWorld::start(), Receiver::start());
        let config = world
            .config(&["honest"], [Policy::vendors(), caps("5.00")])
            .set(&["telemetry", "otlp"], receiver.url.as_str())
            .set(&["telemetry", "every"], "1s");
        Self { gateway: Gateway::start(change(config)), world, receiver }
    }

    fn url(&self, path: &str) -> String {
        self.world.world().seller("honest").unwrap().url(path)
    }
}
