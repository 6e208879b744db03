//! Sellers and callers of no good faith at all: what they compress, keep quiet about, say of themselves or ask to be signed,
//! where their names lead, and what is sent at the doors beside the request. Sellers are in this process and write down
//! every byte; the judges are what reached them, the ledger, and the gateway's memory.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

mod bombs;
mod doors;
mod names;
mod secrets;
mod silence;
mod terms;
mod trailers;
mod words;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_tests::{
    agent::Client,
    config::{Config, Policy},
    http::{self, Response},
    process::Gateway,
    stub::Stub,
    till::{items, plain},
    world::LocalWorld,
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Condvar, Mutex, OnceLock},
    time::Duration,
};

/// How long something may take that happens by itself.
const SOON: Duration = Duration::from_secs(30);

/// One world for all: nothing here is redeemed unless a test says so.
fn world() -> &'static LocalWorld {
    static WORLD: OnceLock<LocalWorld> = OnceLock::new();
    WORLD.get_or_init(LocalWorld::start)
}

/// The terms of an honest seller: a quote for 0.001 USD.
fn honest() -> Value {
    static TERMS: OnceLock<Value> = OnceLock::new();
    let asked = || {
        let unpaid = http::get(&world().world().seller("honest").unwrap().url("/quote")).send();
        decoded(unpaid.header("payment-required").unwrap())
    };
    TERMS.get_or_init(asked).clone()
}

/// The honest terms with these changes.
fn altered(change: impl FnOnce(&mut Value)) -> Value {
    let mut terms = honest();
    change(&mut terms);
    terms
}

fn decoded(header: &str) -> Value {
    serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap()
}

fn encoded(json: &Value) -> String {
    STANDARD.encode(json.to_string())
}

/// A 402 with these terms.
fn asks(terms: &Value) -> String {
    let terms = encoded(terms);
    format!(
        "HTTP/1.1 402 Payment Required\r\nPAYMENT-REQUIRED: {terms}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    )
}

/// A 200 with these headers and this body.
fn goods(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A receipt with success for a transaction that nobody looks for.
fn receipt() -> String {
    let receipt = json!({
        "success": true, "transaction": format!("0x{}", "ab".repeat(32)), "network": "eip155:84532",
        "payer": countersign_tests::peers::BUYER.address,
    });
    format!("PAYMENT-RESPONSE: {}\r\n", encoded(&receipt))
}

/// What a request carries as its payment, in either version.
fn payment(request: &str) -> Option<&str> {
    request.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        ["payment-signature", "x-payment"].contains(&name.to_ascii_lowercase().as_str()).then_some(value)
    })
}

/// What was presented to a seller, in order.
fn payments(stub: &Stub) -> Vec<String> {
    stub.seen().iter().filter_map(|request| payment(request).map(str::to_owned)).collect()
}

/// A gateway in front of one seller that writes down what reaches it.
struct Scene {
    gateway: Gateway,
    stub: Stub,
}

impl Scene {
    /// A seller that makes these terms, and answers `paid` to who has paid.
    fn selling(terms: &Value, paid: impl Into<Vec<u8>>) -> Self {
        Self::selling_with(terms, paid, plain(), |config| config)
    }

    fn selling_with(
        terms: &Value,
        paid: impl Into<Vec<u8>>,
        policies: impl IntoIterator<Item = Policy>,
        change: impl FnOnce(Config) -> Config,
    ) -> Self {
        let (unpaid, paid) = (asks(terms).into_bytes(), paid.into());
        let stub = Stub::answering_at_once(
            move |request| if payment(request).is_some() { paid.clone() } else { unpaid.clone() },
        );
        Self::before(stub, policies, change)
    }

    fn before(stub: Stub, policies: impl IntoIterator<Item = Policy>, change: impl FnOnce(Config) -> Config) -> Self {
        let config = world().config(&["honest"], policies).allow_private(&stub.authority);
        Self { gateway: Gateway::start(change(config)), stub }
    }

    fn agent(&self) -> Client {
        self.gateway.agent()
    }

    fn fetch(&self, more: Value) -> Response {
        self.agent().fetch(&self.stub.url("/quote"), more)
    }

    /// Every payment in the ledger, denied ones too, as operators see them.
    fn ledger(&self) -> Vec<Value> {
        items(&self.gateway.operator().get("/v1/payments"))
    }
}

/// Keeps sellers from answering while it is shut.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn shut(&self) {
        *self.0.0.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = false;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    fn pass(&self) {
        let shut = self.0.0.lock().unwrap();
        let _open = self.0.1.wait_while(shut, |shut| *shut).unwrap();
    }
}
