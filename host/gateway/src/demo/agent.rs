//! The two who talk to the gateway: an agent with nothing but a token, and an operator with another.
//!
//! They use HTTP like anybody else; nothing here reaches into the gateway.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use countersign_core::seams::Clock as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::clock::SystemClock;

/// Longest wait for one answer, in milliseconds.
const PATIENCE_MS: u64 = 15_000;
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 8 << 20;
/// Most payments asked for at once.
const PAGE: usize = 500;

/// Something the demo itself could not do. A scenario that ends in one has failed.
#[derive(Debug)]
pub(super) struct Trouble(pub(super) String);

impl Trouble {
    /// For `map_err`: what was being done when it went wrong.
    pub(super) fn with<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Trouble {}

/// One of the gateway's doors and a token for it.
#[derive(Clone)]
struct Door {
    address: SocketAddr,
    token: String,
}

/// An answer as it came.
struct Heard {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Heard {
    fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name)?.to_str().ok().map(str::to_owned)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Door {
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Heard, Trouble> {
        let what = format!("{method} http://{}{path}", self.address);
        tokio::select! {
            heard = self.converse(method, path, body) => heard.map_err(Trouble::with(what)),
            () = SystemClock.sleep(PATIENCE_MS) => Err(Trouble(format!("{what}: no answer in {PATIENCE_MS} ms"))),
        }
    }

    async fn converse(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Heard, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its errors reach whoever waits for the answer.
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body: Bytes = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        connection.abort();
        Ok(Heard { status: head.status.as_u16(), headers: head.headers, body })
    }
}

/// An agent: a name, and a token that says so.
#[derive(Clone)]
pub(super) struct Agent {
    /// Its name in the configuration.
    pub(super) name: String,
    door: Door,
}

impl Agent {
    /// An agent at the gateway's front door.
    pub(super) fn new(name: impl Into<String>, address: SocketAddr, token: impl Into<String>) -> Self {
        Self { name: name.into(), door: Door { address, token: token.into() } }
    }

    /// The same agent in a session: with the session's token instead of its own.
    pub(super) fn in_session(&self, token: impl Into<String>) -> Self {
        Self::new(self.name.clone(), self.door.address, token)
    }

    /// `POST /v1/fetch` of a URL, under a purchase id or a new one.
    pub(super) async fn fetch(&self, url: &str, purchase: Option<&str>) -> Result<Answer, Trouble> {
        let order = json!({"url": url, "purchase_id": purchase, "purpose": "the demo"});
        let heard = self.door.call(Method::POST, "/v1/fetch", Some(&order)).await?;
        Ok(Answer::read(url, &heard))
    }
}

/// What an agent learns from one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// What was asked for.
    pub(super) url: String,
    /// The status.
    pub(super) status: u16,
    /// The gateway's code, when it refused; empty when the seller answered.
    pub(super) code: String,
    /// What the gateway says of it.
    pub(super) detail: String,
    /// The payment's state as told with the answer.
    pub(super) state: Option<String>,
    /// The amount as told with the answer: `0.001 USD`.
    pub(super) amount: Option<String>,
    /// The payment.
    pub(super) payment: Option<String>,
    /// The budget that had no room.
    pub(super) budget: Option<String>,
    /// The approval that has to come first.
    pub(super) approval: Option<String>,
    /// Codes of the reasons given.
    pub(super) reasons: Vec<String>,
    /// Whether a kept answer was given again.
    pub(super) replayed: bool,
    /// The body.
    pub(super) body: String,
}

impl Answer {
    fn read(url: &str, heard: &Heard) -> Self {
        let refused = heard.header("countersign-source").as_deref() == Some("gateway");
        let problem = if refused { heard.json() } else { Value::Null };
        let member = |pointer: &str| problem.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Self {
            url: url.to_owned(),
            status: heard.status,
            code: member("/code").unwrap_or_default(),
            detail: member("/detail").unwrap_or_default(),
            state: heard.header("countersign-state").or_else(|| member("/payment_state")),
            amount: heard.header("countersign-amount"),
            payment: heard.header("countersign-payment").or_else(|| member("/payment")),
            budget: member("/budget"),
            approval: member("/approval/id"),
            reasons: items(&problem, "/reasons").filter_map(|r| Some(r.get("code")?.as_str()?.to_owned())).collect(),
            replayed: heard.header("countersign-replayed").as_deref() == Some("true"),
            body: String::from_utf8_lossy(&heard.body).into_owned(),
        }
    }

    /// The seller's goods, paid for and with its receipt.
    pub(super) fn is_bought(&self) -> bool {
        self.status == 200 && matches!(self.state.as_deref(), Some("accepted" | "settled"))
    }

    /// A refusal of the gateway with this status and code.
    pub(super) fn is_refused(&self, status: u16, code: &str) -> bool {
        self.status == status && self.code == code
    }
}

/// An operator at the admin port.
#[derive(Clone)]
pub(super) struct Operator {
    door: Door,
}

impl Operator {
    /// An operator.
    pub(super) fn new(address: SocketAddr, token: impl Into<String>) -> Self {
        Self { door: Door { address, token: token.into() } }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Trouble> {
        let heard = self.door.call(method, path, body).await?;
        if (200..300).contains(&heard.status) {
            return Ok(heard.json());
        }
        Err(Trouble(format!("{path}: status {}: {}", heard.status, text(&heard.json(), "/detail"))))
    }

    /// `GET` of a path.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Trouble> {
        self.ask(Method::GET, path, None).await
    }

    /// `POST` to a path.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Trouble> {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// One payment.
    pub(super) async fn payment(&self, id: &str) -> Result<Value, Trouble> {
        self.get(&format!("/v1/payments/{id}")).await
    }

    /// Every payment there is, newest first.
    pub(super) async fn payments(&self) -> Result<Vec<Value>, Trouble> {
        let mut all = Vec::new();
        let mut path = format!("/v1/payments?limit={PAGE}");
        loop {
            let page = self.get(&path).await?;
            all.extend(items(&page, "/items").cloned());
            match page.get("next").and_then(Value::as_str) {
                Some(next) => path = format!("/v1/payments?limit={PAGE}&before={next}"),
                None => return Ok(all),
            }
        }
    }
}

/// The text at a JSON pointer; empty if there is none.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer.
pub(super) fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}

/// The items of the list at a JSON pointer.
pub(super) fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}
