//! Several gateways on one PostgreSQL behave as one: each with its own configuration file, listeners and local copy,
//! all with the same wallet, agents, operators and log key.
//!
//! The chain and the sellers live in this process and are the judges: what they saw is what was paid.

#![expect(clippy::panic, reason = "a test: whatever is not as expected must fail it loudly")]
#![expect(clippy::disallowed_methods, reason = "real processes take real time")]

use countersign::demo::world::{Chain, Seller};
use countersign_core::money::Micros;
use countersign_tests::{
    agent::Client,
    config::{Config, Policy},
    http::Response,
    node::Node,
    peers::NETWORK,
    process::Gateway,
    refusal::refusal,
    till::{bought, header, items, text},
    wait_for,
    world::{LocalWorld, Redemption, buyer},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    sync::{
        Barrier, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tempfile::TempDir;

#[cfg(test)]
#[path = "../../../host/ledger/tests/ledger/postgres.rs"]
mod postgres;

#[cfg(test)]
mod approvals;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod copies;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod history;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod load;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod purchases;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod stops;

use judge::{agree, sound};
use load::{Load, drain};
use postgres::{PASSWORD, Postgres};
use scene::{Place, Scene};

/// Longer than a gateway ever waits between two looks at one payment, or needs to come back by itself.
const PATIENCE: Duration = Duration::from_secs(150);
/// Clients that buy at the same time, at each gateway.
const CLIENTS: usize = 6;
/// A seller that takes a payment, says nothing, and redeems it only when a test makes it.
const KEEPER: &str = "keeps-and-hangs-up";
/// A token of a second agent or operator.
const OTHER_TOKEN: &str = "test-token-of-somebody-else-0123456789abcdef";

/// The builtin allowlist, and caps that only one purchase can break: what limits is each test's own.
fn open_handed() -> Vec<Policy> {
    let caps = Policy::new("caps", "builtin:spend-caps").setting("per-payment", "1.00");
    vec![Policy::vendors(), caps.setting("per-agent-hour", "9000.00")]
}

/// A budget of the host's own for everybody, for ever, of so many quotes of 0.001 USD.
fn with_budget(config: Config, quotes: usize) -> Config {
    config
        .set(&["budget", "everybody", "when"], toml::Table::new())
        .set(&["budget", "everybody", "per"], "lifetime")
        .set(&["budget", "everybody", "limit"], dollars(quotes))
}

/// What so many quotes cost.
fn dollars(quotes: usize) -> String {
    format!("{}.{:03}", quotes / 1000, quotes % 1000)
}

/// An amount as answers have it, in millionths.
#[track_caller]
fn micros(amount: &Value) -> u64 {
    let text = amount.as_str().unwrap_or_else(|| panic!("no amount: {amount}"));
    Micros::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).get()
}

/// What a command printed; it must have succeeded.
#[track_caller]
fn said(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {out}{}", output.status, String::from_utf8_lossy(&output.stderr));
    out
}

/// Checks that an operator's word was taken.
#[track_caller]
fn done(answer: &Response) -> Value {
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    answer.json()
}
