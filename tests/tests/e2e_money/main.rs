//! What becomes of money after it was signed for: proof, doubt, time that runs out, reorganisations, refunds, disputes,
//! the books and the records.
//!
//! The chain and the sellers live in this process and do what they are told; the gateway reads them through nodes that
//! lie when they are told to.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

use countersign::demo::world::{Chain, Seller};
use countersign_core::money::Micros;
use countersign_tests::{
    agent::Client,
    config::Config,
    http::Response,
    node::Node,
    peers::NETWORK,
    process::Gateway,
    refusal::refusal,
    till::{bought, items, plain, text},
    wait_for,
    world::LocalWorld,
};
use serde_json::{Value, json};
use std::{process::Output, time::Duration};

#[cfg(test)]
mod anchor;
#[cfg(test)]
mod doubt;
#[cfg(test)]
mod exports;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod proof;
#[cfg(test)]
mod records;
#[cfg(test)]
mod redress;
#[cfg(test)]
mod refunds;
#[cfg(test)]
mod words;

/// Longer than the gateway ever waits between two looks at one payment.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long something is watched that must not happen, after the gateway was seen to look.
const A_WHILE: Duration = Duration::from_secs(2);
/// Blocks below everything that happens, so that any depth of finality can be reached.
const BEDROCK: usize = 60;
/// The names of this machine under which nodes are configured: two names are two nodes.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];
/// A seller that takes a payment, says nothing, and redeems it only when a test makes it.
const KEEPER: &str = "keeps-and-hangs-up";
/// A token of a second agent or operator.
const OTHER_TOKEN: &str = "test-token-of-somebody-else-0123456789abcdef";

/// A world, the nodes that tell of it, and a gateway that asks them.
struct Scene {
    gateway: Gateway,
    world: LocalWorld,
    nodes: Vec<Node>,
}

/// A payment that was signed and never answered for.
struct Doubtful {
    payment: String,
    nonce: [u8; 32],
    valid_before: u64,
}

impl Scene {
    /// With two nodes, at which every block is final at once.
    fn new(sellers: &[&str]) -> Self {
        Self::with(sellers, 2, |config, _| config)
    }

    /// With so many nodes (without any, the network is not configured at all), and the configuration changed.
    fn with(sellers: &[&str], nodes: usize, change: impl FnOnce(Config, &LocalWorld) -> Config) -> Self {
        let world = LocalWorld::start();
        for _ in 0..BEDROCK {
            world.world().chain().mine();
        }
        let nodes: Vec<Node> = (0..nodes).map(|_| Node::before(world.world().rpc_url())).collect();
        let urls: Vec<String> = nodes.iter().zip(HOSTS).map(|(node, host)| node.url(host)).collect();
        let config = world.config(sellers, plain());
        let config =
            if urls.is_empty() { config.remove(&["network"]) } else { config.set(&["network", NETWORK, "rpc"], urls) };
        let gateway = Gateway::start(change(config, &world));
        Self { gateway, world, nodes }
    }

    fn chain(&self) -> &Chain {
        self.world.world().chain()
    }

    fn seller(&self, name: &str) -> &Seller {
        self.world.world().seller(name).unwrap()
    }

    fn agent(&self) -> Client {
        self.gateway.agent()
    }

    fn operator(&self) -> Client {
        self.gateway.operator()
    }

    /// Asks for the seller's quote.
    fn fetch(&self, name: &str, more: Value) -> Response {
        self.agent().fetch(&self.seller(name).url("/quote"), more)
    }

    /// Buys the seller's quote; returns the payment.
    #[track_caller]
    fn buy(&self, name: &str) -> String {
        bought(&self.fetch(name, json!({})), "0.001")
    }

    /// Buys the seller's quote and waits for the proof; returns the payment.
    #[track_caller]
    fn settled(&self, name: &str) -> String {
        let payment = self.buy(name);
        self.until(&payment, "settled");
        payment
    }

    /// Pays a seller that neither answers nor redeems.
    #[track_caller]
    fn doubtful(&self) -> Doubtful {
        let body = refusal(&self.fetch(KEEPER, json!({})), 504, "outcome-unknown");
        let payment = text(&body, "/payment").to_owned();
        assert_eq!(self.payment(&payment)["state"], "unknown");
        let visits = self.seller(KEEPER).visits();
        let last = visits.iter().rev().find(|visit| visit.presented).unwrap();
        Doubtful { payment, nonce: last.nonce.unwrap(), valid_before: last.valid_before.unwrap() }
    }

    /// The nonce that was presented to a seller last, as hex digits.
    fn nonce(&self, name: &str) -> String {
        let visits = self.seller(name).visits();
        hex::encode(visits.iter().rev().find_map(|visit| visit.nonce).unwrap())
    }

    #[track_caller]
    fn payment(&self, id: &str) -> Value {
        self.operator().payment(id)
    }

    /// Waits for a payment's state; returns the payment.
    #[track_caller]
    fn until(&self, payment: &str, state: &str) -> Value {
        let found = wait_for(PATIENCE, || Some(self.payment(payment)).filter(|p| p["state"] == state));
        found.unwrap_or_else(|| panic!("not {state}: {:#}", self.payment(payment)))
    }

    /// Watches a payment for a while: it must not leave this state.
    #[track_caller]
    fn stays(&self, payment: &str, state: &str) {
        let other = wait_for(A_WHILE, || Some(self.payment(payment)).filter(|p| p["state"] != state));
        assert!(other.is_none(), "not {state} any more: {:#}", other.unwrap_or_default());
    }

    /// Waits until every node was asked about this nonce (hex digits) twice more: the first of these looks is over.
    #[track_caller]
    fn looks(&self, nonce: &str) {
        for node in &self.nodes {
            asked(node, nonce, 2);
        }
    }

    /// A figure of a budget in millionths of the currency; 0 if the budget is not listed.
    #[track_caller]
    fn figure(&self, budget: &str, window: &str, field: &str) -> u64 {
        let rows = items(&self.operator().get("/v1/budgets"));
        let row = rows.iter().find(|row| text(row, "/budget").contains(budget) && text(row, "/window") == window);
        row.map_or(0, |row| micros(&row[field]))
    }

    /// What the agent's hourly budget of the policy `caps` has held and spent.
    #[track_caller]
    fn caps(&self) -> (u64, u64) {
        (self.figure("agent/scout", "hour", "held"), self.figure("agent/scout", "hour", "spent"))
    }

    /// What the wallet's daily limit has held and spent.
    #[track_caller]
    fn wallet(&self) -> (u64, u64) {
        let rows = items(&self.operator().get("/v1/budgets"));
        let row = rows.iter().find(|row| text(row, "/budget").contains("wallet/research"));
        row.map_or((0, 0), |row| (micros(&row["held"]), micros(&row["spent"])))
    }

    /// The state that every payment is in, newest first.
    fn states(&self) -> Vec<String> {
        items(&self.operator().get("/v1/payments")).iter().map(|p| text(p, "/state").to_owned()).collect()
    }
}

/// Waits until a node was asked something with `what` in it so many times more.
#[track_caller]
fn asked(node: &Node, what: &str, times: usize) {
    let before = node.asked(what);
    let found = wait_for(PATIENCE, || (node.asked(what) >= before + times).then_some(()));
    assert!(found.is_some(), "{node:?} was not asked about {what}");
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

/// Everything a command printed; it must have failed with status 1.
#[track_caller]
fn failed(output: &Output) -> String {
    let told = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert_eq!(output.status.code(), Some(1), "{told}");
    told
}

/// Checks an operator's refusal: its status, and that it is a problem.
#[track_caller]
fn refused(answer: &Response, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
    answer.json()
}

/// Has `countersign.db` and what belongs to it, without the log's key: what a backup of the database has.
fn is_database(name: &str) -> bool {
    ["countersign.db", "countersign.db-wal", "countersign.db-shm"].contains(&name)
}
