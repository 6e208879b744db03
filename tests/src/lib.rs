//! The harness of the tests that cross crates: real peers (a local chain, the official x402 facilitator and
//! sellers, see `tests/peers`), and the real `countersign` binary driven from outside, as a user drives it.
//!
//! ```no_run
//! use countersign_tests::{config::{Policy, standard_config}, peers::Peers, process::Gateway};
//! use serde_json::json;
//!
//! let peers = Peers::start();
//! let gateway = Gateway::start(standard_config(&peers, Policy::standard()));
//! let answer = gateway.agent().fetch(&format!("{}/cheap", peers.v2), json!({"purpose": "example"}));
//! assert_eq!(answer.status, 200);
//! assert_eq!(answer.header("countersign-source"), Some("seller"));
//! ```
//!
//! Everything blocks, everything panics when a fixture is broken, and nothing started here outlives the test
//! process, even when that is killed.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a broken fixture must fail the test loudly"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "test support drives real processes: it waits, within bounds, on the real clock"
)]

pub mod agent;
mod canary;
pub mod cases;
pub mod chain;
pub mod config;
pub mod facilitator;
pub mod guests;
pub mod http;
pub mod issuer;
pub mod measure;
pub mod modules;
pub mod node;
pub mod peers;
pub mod process;
pub mod purse;
pub mod refusal;
pub mod stub;
pub mod till;
pub mod tls;
pub mod world;

use std::time::{Duration, Instant};

/// Asks `done` again and again, with short pauses, until it returns something or `limit` is over (`None`).
/// For what can only be observed, such as a payment that becomes settled in the background.
pub fn wait_for<T>(limit: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = done();
        if found.is_some() || start.elapsed() >= limit {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The end of a log file, for a panic's message.
fn tail(path: &std::path::Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}
