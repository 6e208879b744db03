//! A gateway of a test's own with a purse of its own, in front of the real peers.

use crate::{
    agent::Client,
    chain::Transfer,
    config::{Config, Policy, standard_config},
    http::Response,
    peers::{Peers, USDC},
    process::Gateway,
    purse::Purse,
    wait_for,
};
use serde_json::{Value, json};
use std::time::Duration;

/// How long the chain's proof may take to reach the ledger.
const PROOF: Duration = Duration::from_secs(30);
/// What a purse is given at first, in atomic units: a thousand USDC.
pub const FUNDS: u128 = 1_000_000_000;

/// A running gateway, and the only account its wallet pays from.
#[derive(Debug)]
pub struct Till<'a> {
    /// Chain, facilitator and sellers.
    pub peers: &'a Peers,
    /// The gateway.
    pub gateway: Gateway,
    /// What it pays from.
    pub purse: Purse,
}

impl Till<'static> {
    /// At the shared peers, with the policies of [`plain`].
    pub fn open() -> Self {
        Self::open_with(|config| config)
    }

    /// As [`Till::open`], with the configuration changed first.
    pub fn open_with(change: impl FnOnce(Config) -> Config) -> Self {
        Till::at(Peers::shared(), plain(), change)
    }
}

impl<'a> Till<'a> {
    /// At these peers, with these policies, with the configuration changed first.
    pub fn at(
        peers: &'a Peers,
        policies: impl IntoIterator<Item = Policy>,
        change: impl FnOnce(Config) -> Config,
    ) -> Self {
        let purse = Purse::new();
        peers.chain().mint(USDC, &purse.address, FUNDS);
        let gateway = Gateway::start(change(purse.pays(standard_config(peers, policies))));
        Self { peers, gateway, purse }
    }

    /// The agent `scout`.
    pub fn agent(&self) -> Client {
        self.gateway.agent()
    }

    /// URL of a route of the v2 seller.
    pub fn v2(&self, path: &str) -> String {
        format!("{}{path}", self.peers.v2)
    }

    /// URL of a route of the v1 seller.
    pub fn v1(&self, path: &str) -> String {
        format!("{}{path}", self.peers.v1)
    }

    /// The USDC that left the purse, oldest first.
    pub fn spent(&self) -> Vec<Transfer> {
        self.purse.spent(&self.peers.chain(), USDC)
    }

    /// The amounts of [`Till::spent`], in atomic units.
    pub fn amounts(&self) -> Vec<u128> {
        self.spent().iter().map(|transfer| transfer.value).collect()
    }

    /// Waits until `scout` reads this state of a payment; returns the payment.
    #[track_caller]
    pub fn until(&self, payment: &str, state: &str) -> Value {
        let agent = self.agent();
        let found = wait_for(PROOF, || Some(agent.payment(payment)).filter(|p| p.get("state") == Some(&json!(state))));
        found.unwrap_or_else(|| panic!("not {state}: {}", agent.payment(payment)))
    }

    /// Every payment that `scout` may read.
    pub fn payments(&self) -> Vec<Value> {
        items(&self.agent().get("/v1/payments"))
    }
}

/// The builtin allowlist, and caps that hold with and without a session: 1 USD a payment, 5 an hour, 20 a day.
pub fn plain() -> [Policy; 2] {
    [Policy::vendors(), caps("5.00")]
}

/// The builtin caps at 1 USD a payment and this much an hour.
pub fn caps(per_agent_hour: &str) -> Policy {
    Policy::new("caps", "builtin:spend-caps")
        .setting("per-payment", "1.00")
        .setting("per-agent-hour", per_agent_hour)
        .setting("per-agent-day", "20.00")
}

/// The `items` of a list, which must be one.
#[track_caller]
pub fn items(answer: &Response) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let list = answer.json();
    assert!(list.get("next").is_some_and(|next| next.is_null() || next.is_string()), "{list}");
    list.get("items").and_then(Value::as_array).cloned().unwrap_or_else(|| panic!("no items: {list}"))
}

/// The text at a JSON pointer.
#[track_caller]
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer}: {value}"))
}

/// A header that must be there.
#[track_caller]
pub fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.header(name).unwrap_or_else(|| panic!("no {name}: {} {:?} {}", answer.status, answer.headers, answer.text()))
}

/// Checks a paid 200 of a seller with everything the gateway says about it; returns the payment's id.
#[track_caller]
pub fn bought(answer: &Response, amount: &str) -> String {
    assert_eq!(answer.status, 200, "{:?} {}", answer.headers, answer.text());
    assert_eq!(header(answer, "countersign-source"), "seller");
    assert!(!header(answer, "countersign-purchase").is_empty());
    assert_eq!(header(answer, "countersign-amount"), format!("{amount} USD"));
    let state = header(answer, "countersign-state");
    assert!(matches!(state, "accepted" | "settled"), "{state}");
    let transaction = header(answer, "countersign-transaction");
    let digits = transaction.strip_prefix("0x").unwrap_or_default();
    assert!(digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{transaction}");
    for hidden in ["payment-response", "x-payment-response", "payment-required", "payment-signature", "x-payment"] {
        assert!(answer.header(hidden).is_none(), "{hidden} reached the agent");
    }
    header(answer, "countersign-payment").to_owned()
}
