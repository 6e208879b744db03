//! The remote signer: an agent with an HTTP stack of its own is given the payment for a call that it makes itself.
//!
//! Sellers and chain are in this process; what an agent would do is done here by hand: it asks, sends what it was told to
//! `POST /v1/sign`, and presents what it is given. The judges are the sellers, who count, and the chain.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

mod claims;
mod limits;
mod once;
mod select;
mod unseen;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::demo::world::Seller;
use countersign_tests::{
    agent::Client,
    config::{Config, Policy},
    http::{self, Response},
    process::Gateway,
    till::{plain, text},
    wait_for,
    world::{LocalWorld, Redemption},
};
use serde_json::{Value, json};
use std::time::Duration;

/// How long something may take that happens by itself.
const SOON: Duration = Duration::from_secs(30);
const RIVAL_TOKEN: &str = "test-agent-token-of-rival-0123456789abcdef";

/// A world and a gateway whose only mandate lists the doors `sign` and `fetch`.
struct Scene {
    gateway: Gateway,
    world: LocalWorld,
}

impl Scene {
    fn new(sellers: &[&str]) -> Self {
        Self::with(sellers, plain(), |config| config)
    }

    fn with(
        sellers: &[&str],
        policies: impl IntoIterator<Item = Policy>,
        change: impl FnOnce(Config) -> Config,
    ) -> Self {
        let world = LocalWorld::start();
        let config = world.config(sellers, policies).mandate(&["doors"], vec!["fetch", "sign"]);
        Self { gateway: Gateway::start(change(config)), world }
    }

    /// As [`Scene::new`], with `unobserved = true` and only these payees.
    fn unobserved(payees: &[&str]) -> Self {
        let vendors = Policy::vendors();
        let vendors = if payees.is_empty() { vendors } else { vendors.setting("payees", payees.to_vec()) };
        let [_, caps] = plain();
        Self::with(&["honest"], [vendors, caps], |config| config.mandate(&["unobserved"], true))
    }

    fn seller(&self, name: &str) -> &Seller {
        self.world.world().seller(name).unwrap()
    }

    fn honest(&self) -> &Seller {
        self.seller("honest")
    }

    fn agent(&self) -> Client {
        self.gateway.agent()
    }

    /// Asks to be given the payment for what the honest seller answers to this.
    fn sign(&self, path: &str, more: Value) -> Response {
        self.sign_at(&self.honest().url(path), more)
    }

    fn sign_at(&self, url: &str, more: Value) -> Response {
        sign(&self.agent(), url, &demand(url), more)
    }

    /// What moved on the chain since the last look.
    fn moved(&self) -> Vec<Redemption> {
        self.world.new_redemptions().into_values().collect()
    }

    /// Every audit record so far, one a line.
    fn records(&self) -> String {
        assert_eq!(self.gateway.operator().get("/v1/audit/checkpoint").status, 200);
        let exported = self.gateway.command(&["ledger", "export", "--format", "audit"]);
        String::from_utf8(exported.stdout).unwrap()
    }

    #[track_caller]
    fn until(&self, payment: &str, state: &str) -> Value {
        let agent = self.agent();
        let found = wait_for(SOON, || Some(agent.payment(payment)).filter(|p| p["state"] == state));
        found.unwrap_or_else(|| panic!("not {state}: {}", agent.payment(payment)))
    }
}

/// The terms that a seller answers a call without payment with.
fn demand(url: &str) -> Value {
    let answer = http::get(url).send();
    assert_eq!(answer.status, 402, "{}", answer.text());
    answer.header("payment-required").map_or_else(|| answer.json(), decode)
}

fn decode(header: &str) -> Value {
    serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap()
}

/// `POST /v1/sign` for a GET of `url` with this copy of the 402; `more` is merged over it.
fn sign(agent: &Client, url: &str, terms: &Value, more: Value) -> Response {
    let mut order = json!({"payment_required": terms, "resource": {"url": url, "method": "GET"}});
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    agent.post("/v1/sign", &order)
}

/// A payment that was handed out, in full shape.
#[track_caller]
fn given(answer: &Response) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("countersign-source"), Some("gateway"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let given = answer.json();
    for name in ["/purchase", "/payment", "/header_name", "/header_value", "/expires_at"] {
        text(&given, name);
    }
    assert_eq!(given.as_object().unwrap().len(), 5, "{given}");
    assert_eq!(answer.header("countersign-purchase"), given["purchase"].as_str());
    assert_eq!(answer.header("countersign-payment"), given["payment"].as_str());
    given
}

/// What is signed in a payment that was handed out.
fn authorization(given: &Value) -> Value {
    decode(text(given, "/header_value"))["payload"]["authorization"].clone()
}

/// Makes the call with the payment, as the agent would.
fn present(url: &str, given: &Value) -> Response {
    http::get(url).header(text(given, "/header_name"), text(given, "/header_value")).send()
}
