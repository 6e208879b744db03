//! What an agent asked for, checked once, and the digests that name it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use countersign_core::id::{ApprovalId, PurchaseId};
use countersign_core::json::canonical;
use countersign_core::ledger::Fingerprint;
use countersign_core::money::Micros;
use countersign_core::spend::Attribute;
use countersign_core::web::{self, Target, carries_payment, forbidden_request_header};
use countersign_core::x402::{Offer, Protocol, text};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::sign::Elsewhere;
use crate::config::MandateConfig;
use crate::problem::{Code, Problem};
use crate::telemetry::{TRACEPARENT, TRACESTATE, TraceParent};

/// Longest name of a tool, in bytes.
const MAX_TOOL: usize = 128;
/// Largest body an agent may send to a seller.
pub const MAX_BODY: usize = 1 << 20;
/// Most claims an agent may make, `purpose` and `task` among them.
const MAX_CLAIMS: usize = 32;
/// Longest name or value of a claim, in bytes.
const MAX_CLAIM: usize = 1_024;
/// Longest an agent may ask to wait for an approval.
const MAX_WAIT_SECONDS: u32 = 600;

/// The JSON body of `POST /v1/fetch`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    url: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    body_base64: Option<String>,
    #[serde(default)]
    purpose: Option<String>,
    #[serde(default)]
    max_price: Option<String>,
    #[serde(default)]
    purchase_id: Option<String>,
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    wait_seconds: Option<u32>,
    #[serde(default)]
    claims: Option<BTreeMap<String, Value>>,
}

/// A tool of an MCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// The server's name in the configuration.
    pub server: String,
    /// The tool, as the server calls it.
    pub name: String,
}

/// What an agent says beside the call of a tool itself: the same as at the fetch API.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// What it is for.
    pub purpose: Option<String>,
    /// The task it is for.
    pub task: Option<String>,
    /// The most it may cost.
    pub max_price: Option<String>,
    /// The purchase's name.
    pub purchase_id: Option<String>,
    /// How long to wait for an approval.
    pub wait_seconds: Option<u32>,
    /// More that the agent states.
    pub claims: BTreeMap<String, Value>,
}

/// One call, from whichever door, ready to be made.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The URL, parsed once.
    pub target: Target,
    /// Headers for the seller, as the agent gave them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body for the seller.
    pub body: Bytes,
    /// The agent's own ceiling.
    pub max_price: Option<Micros>,
    /// The agent's own id for the purchase.
    pub purchase: Option<PurchaseId>,
    /// What the agent says: its purpose, task and other claims.
    pub claims: Vec<Attribute>,
    /// How long to hold the call open for an approval.
    pub wait_seconds: u32,
    /// The caller's span that this call belongs to.
    pub parent: Option<TraceParent>,
    /// Told which approval the call has begun to wait for.
    pub waits: Option<watch::Sender<Option<ApprovalId>>>,
    /// The agent makes the call itself, and wants the payment for it.
    pub elsewhere: Option<Elsewhere>,
    /// The call is one of an MCP server's tool at this URL, and the body is its name and arguments.
    pub tool: Option<ToolCall>,
}

impl Call {
    /// Parses the fetch API's body. `header_purchase` is the `Countersign-Purchase` header.
    ///
    /// # Errors
    /// `bad-request` naming the member, or `body-too-large`.
    pub fn parse(json: &[u8], header_purchase: Option<&str>) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(Code::BadRequest, detail);
        let wire: Wire =
            serde_json::from_slice(json).map_err(|e| bad(format!("the call is not as documented: {e}")))?;
        let target = Target::parse(&wire.url).map_err(|e| bad(format!("url: {e}")))?;
        let method =
            web::Method::parse(wire.method.as_deref().unwrap_or("GET")).map_err(|e| bad(format!("method: {e}")))?;
        let method: Method = method.as_str().parse().map_err(|_| bad("method: not a method".to_owned()))?;
        let mut headers = parse_headers(wire.headers.unwrap_or_default())?;
        let body = parse_body(wire.body, wire.body_base64, &mut headers)?;
        let purchase = parse_purchase(wire.purchase_id.as_deref(), header_purchase)?;
        let max_price = parse_max_price(wire.max_price.as_deref())?;
        let wait_seconds = parse_wait(wire.wait_seconds)?;
        let claims = parse_claims(wire.purpose, wire.task, wire.claims.unwrap_or_default())?;
        Ok(Self {
            method,
            target,
            headers,
            body,
            max_price,
            purchase,
            claims,
            wait_seconds,
            parent: None,
            waits: None,
            elsewhere: None,
            tool: None,
        })
    }

    /// The call of a tool of the MCP server `server` at `target`. `header_purchase` is the `Countersign-Purchase`
    /// header.
    ///
    /// # Errors
    /// `bad-request` naming the member, or `body-too-large`.
    pub fn of_tool(
        (server, target): (&str, Target),
        (name, arguments): (&str, Value),
        beside: Beside,
        header_purchase: Option<&str>,
    ) -> Result<Self, Problem> {
        if !(1..=MAX_TOOL).contains(&name.len()) || name.chars().any(text::hidden) {
            let detail = format!("name: expected a tool's name, 1 to {MAX_TOOL} bytes of text that can be seen");
            return Err(Problem::new(Code::BadRequest, detail));
        }
        let body = canonical(&serde_json::json!({"name": name, "arguments": arguments}));
        if body.len() > MAX_BODY {
            let detail = format!("the arguments have {} bytes; at most {MAX_BODY}", body.len());
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
        Ok(Self {
            method: Method::POST,
            target,
            headers: Vec::new(),
            body: body.into(),
            max_price: parse_max_price(beside.max_price.as_deref())?,
            purchase: parse_purchase(beside.purchase_id.as_deref(), header_purchase)?,
            claims: parse_claims(beside.purpose, beside.task, beside.claims)?,
            wait_seconds: parse_wait(beside.wait_seconds)?,
            parent: None,
            waits: None,
            elsewhere: None,
            tool: Some(ToolCall { server: server.to_owned(), name: name.to_owned() }),
        })
    }

    /// The path as records have it: of a tool with its name behind `#`, which no path contains, so that each tool has
    /// prices of its own and people see which one is bought.
    #[must_use]
    pub fn recorded_path(&self) -> String {
        format!("{}{}", self.target.path(), self.fragment())
    }

    /// The URL as records have it: without the query, of a tool with its name behind `#`.
    #[must_use]
    pub fn recorded_url(&self) -> String {
        format!("{}{}", self.target.url_without_query(), self.fragment())
    }

    fn fragment(&self) -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'/');
        let spell = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
        let name = self.tool.as_ref().map(|tool| tool.name.bytes().map(spell).collect::<String>());
        name.map_or_else(String::new, |name| format!("#{name}"))
    }

    /// Which request this is: method, URL and body. Headers and everything else are not compared. Of the body
    /// its digest: whoever knows only that, names the same request. A call of a tool is no POST of the same bytes.
    #[must_use]
    pub fn fingerprint(&self, key: &[u8; 32]) -> Fingerprint {
        let url = format!("{}{}", self.target.origin(), self.target.path_and_query());
        let body = self.body_sha256();
        let body: &[u8] = body.as_ref().map_or(&[], |digest| digest);
        let domain: &[u8] = if self.tool.is_some() { b"tool" } else { b"request" };
        Fingerprint(keyed(key, domain, &[self.method.as_str().as_bytes(), url.as_bytes(), body]))
    }

    /// SHA-256 of the body; none when empty.
    pub(super) fn body_sha256(&self) -> Option<[u8; 32]> {
        match &self.elsewhere {
            Some(elsewhere) => elsewhere.body_sha256,
            None => (!self.body.is_empty()).then(|| Sha256::digest(&self.body).into()),
        }
    }

    /// Why this call cannot carry the payment for an offer, which may well be payable otherwise.
    #[must_use]
    pub fn cannot_carry(&self, offer: &Offer) -> Option<&'static str> {
        if matches!(offer.protocol, Protocol::X402(_)) || self.tool.is_some() {
            return None;
        }
        if self.elsewhere.is_some() {
            return Some("MPP is paid by the gateway's own call only; buy it with POST /v1/fetch");
        }
        self.headers.iter().any(|(name, _)| name == http::header::AUTHORIZATION).then_some(
            "MPP is paid in the `Authorization` header, where the call has a credential of its own; call without it, \
             or ask the seller to take x402",
        )
    }

    /// Whether the host itself sees what the seller offers, rather than take the agent's word.
    #[must_use]
    pub fn observed(&self, mandate: &MandateConfig) -> bool {
        self.elsewhere.is_none() || !mandate.unobserved
    }

    /// Exactly what an approver approves: request, forwarded headers, wallet and the offer's bytes; where the agent
    /// makes the call itself, that it does, and whose word the offer is; and of a tool, by which server it is called.
    #[must_use]
    pub fn frozen(&self, key: &[u8; 32], mandate: &MandateConfig, offer: &Offer) -> String {
        let fingerprint = self.fingerprint(key).0;
        let digest = offer.digest();
        let mut parts: Vec<&[u8]> = vec![&fingerprint, mandate.wallet.as_bytes(), &digest];
        if self.elsewhere.is_some() {
            let seen: &[u8] = if self.observed(mandate) { b"signed for" } else { b"signed for, unobserved" };
            parts.push(seen);
        }
        if let Some(tool) = &self.tool {
            parts.push(b"tool of");
            parts.push(tool.server.as_bytes());
        }
        for (name, value) in &self.headers {
            parts.push(name.as_str().as_bytes());
            parts.push(value.as_bytes());
        }
        hex::encode(keyed(key, b"frozen", &parts))
    }

    /// Digest of the query under the ledger's key, for policies and records.
    #[must_use]
    pub fn query_digest(&self, key: &[u8; 32]) -> Option<String> {
        self.target.query().map(|q| hex::encode(keyed(key, b"query", &[q.as_bytes()])))
    }

    /// Digest of the body under the ledger's key, for policies and records.
    #[must_use]
    pub fn body_digest(&self, key: &[u8; 32]) -> Option<String> {
        self.body_sha256().map(|digest| hex::encode(keyed(key, b"body", &[&digest])))
    }
}

/// An HMAC key padded to SHA-256's block, as HMAC itself pads it.
fn block(key: &[u8; 32]) -> hmac::digest::Key<Hmac<Sha256>> {
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    block
}

/// HMAC-SHA-256 over length-prefixed parts.
fn keyed(key: &[u8; 32], domain: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block(key));
    for part in std::iter::once(&domain).chain(parts) {
        mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn parse_headers(wire: BTreeMap<String, String>) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
    let bad = |detail: String| Problem::new(Code::BadRequest, detail);
    if wire.len() > 64 {
        return Err(bad("headers: at most 64".to_owned()));
    }
    let mut headers = Vec::with_capacity(wire.len());
    for (name, value) in wire {
        let parsed: HeaderName = name.parse().map_err(|_| bad("headers: a name is not a header name".to_owned()))?;
        let payment = carries_payment(parsed.as_str(), value.as_bytes());
        if forbidden_request_header(parsed.as_str()) || payment {
            return Err(bad(format!("headers: `{parsed}` is the gateway's to set")));
        }
        let value = HeaderValue::from_str(&value)
            .map_err(|_| bad(format!("headers: the value of `{parsed}` is not a header value")))?;
        // What the gateway must be able to read has to arrive uncompressed. A trace is the operator's: its
        // names differ with each call, and an approval is for exactly the headers that were approved.
        let ours = [http::header::ACCEPT_ENCODING.as_str(), TRACEPARENT, TRACESTATE];
        if !ours.contains(&parsed.as_str()) {
            headers.push((parsed, value));
        }
    }
    Ok(headers)
}

fn parse_body(
    body: Option<Value>,
    base64: Option<String>,
    headers: &mut Vec<(HeaderName, HeaderValue)>,
) -> Result<Bytes, Problem> {
    let bytes = match (body, base64) {
        (None | Some(Value::Null), None) => Bytes::new(),
        (Some(Value::String(text)), None) => text.into(),
        (Some(json), None) => {
            if !headers.iter().any(|(n, _)| *n == http::header::CONTENT_TYPE) {
                headers.push((http::header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
            }
            json.to_string().into()
        }
        (None | Some(Value::Null), Some(text)) => {
            let bytes = BASE64.decode(text).map_err(|e| Problem::new(Code::BadRequest, format!("body_base64: {e}")))?;
            bytes.into()
        }
        (Some(_), Some(_)) => return Err(Problem::new(Code::BadRequest, "body and body_base64 exclude each other")),
    };
    if bytes.len() > MAX_BODY {
        return Err(Problem::new(
            Code::BodyTooLarge,
            format!("the body has {} bytes; at most {MAX_BODY}", bytes.len()),
        ));
    }
    Ok(bytes)
}

/// The purchase that a call names, in its body, its header, or both.
pub(super) fn parse_purchase(body: Option<&str>, header: Option<&str>) -> Result<Option<PurchaseId>, Problem> {
    let bad = |detail: String| Problem::new(Code::BadRequest, detail);
    match (body, header) {
        (Some(a), Some(b)) if a != b => Err(bad("purchase_id and the Countersign-Purchase header differ".to_owned())),
        (a, b) => a.or(b).map(PurchaseId::parse).transpose().map_err(|e| bad(format!("purchase_id: {e}"))),
    }
}

pub(super) fn parse_max_price(said: Option<&str>) -> Result<Option<Micros>, Problem> {
    let price = said.map(Micros::parse).transpose();
    price.map_err(|e| Problem::new(Code::BadRequest, format!("max_price: {e}")))
}

pub(super) fn parse_wait(said: Option<u32>) -> Result<u32, Problem> {
    let seconds = said.unwrap_or(0);
    if seconds > MAX_WAIT_SECONDS {
        return Err(Problem::new(Code::BadRequest, format!("wait_seconds: at most {MAX_WAIT_SECONDS}")));
    }
    Ok(seconds)
}

pub(super) fn parse_claims(
    purpose: Option<String>,
    task: Option<String>,
    claims: BTreeMap<String, Value>,
) -> Result<Vec<Attribute>, Problem> {
    let said = [("purpose", purpose), ("task", task)];
    let mut all: Vec<Attribute> =
        said.into_iter().filter_map(|(n, v)| Some(Attribute { name: n.to_owned(), value: v? })).collect();
    for (name, value) in claims {
        let value = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        all.push(Attribute { name, value });
    }
    if all.len() > MAX_CLAIMS || all.iter().any(|a| a.name.len() > MAX_CLAIM || a.value.len() > MAX_CLAIM) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("claims: at most {MAX_CLAIMS}, each at most {MAX_CLAIM} bytes"),
        ));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: Value) -> Result<Call, Problem> {
        Call::parse(json.to_string().as_bytes(), None)
    }

    #[test]
    fn only_the_url_is_required() {
        let call = parse(serde_json::json!({"url": "https://api.example.com/quote?q=1"})).unwrap();
        assert_eq!(call.method, Method::GET);
        assert_eq!(call.target.host(), "api.example.com");
        assert!(call.body.is_empty() && call.claims.is_empty());
    }

    #[test]
    fn malformed_calls_are_refused_by_name() {
        let check = |json: Value, code: Code, names: &str| {
            let problem = parse(json).unwrap_err();
            assert_eq!(problem.code, code);
            assert!(problem.detail.contains(names), "{}", problem.detail);
        };
        let url = "https://a.example/";
        check(serde_json::json!({}), Code::BadRequest, "url");
        check(serde_json::json!({"url": "ftp://a.example/"}), Code::BadRequest, "url");
        check(serde_json::json!({"url": url, "prise": "1"}), Code::BadRequest, "prise");
        check(serde_json::json!({"url": url, "max_price": "1e3"}), Code::BadRequest, "max_price");
        check(serde_json::json!({"url": url, "purchase_id": "a b"}), Code::BadRequest, "purchase_id");
        check(serde_json::json!({"url": url, "method": "CONNECT"}), Code::BadRequest, "method");
        check(serde_json::json!({"url": url, "body": "a", "body_base64": "YQ=="}), Code::BadRequest, "body_base64");
        check(serde_json::json!({"url": url, "wait_seconds": 601}), Code::BadRequest, "wait_seconds");
        check(serde_json::json!({"url": url, "body": "x".repeat(MAX_BODY + 1)}), Code::BodyTooLarge, "body");
        for header in
            ["Host", "X-PAYMENT", "payment-signature", "X-Forwarded-For", "Connection", "X-HTTP-Method-Override"]
        {
            check(serde_json::json!({"url": url, "headers": {header: "x"}}), Code::BadRequest, &header.to_lowercase());
        }
        check(
            serde_json::json!({"url": url, "headers": {"Authorization": "Payment abc"}}),
            Code::BadRequest,
            "authorization",
        );
    }

    #[test]
    fn the_same_request_is_method_url_and_body() {
        let key = [7; 32];
        let of = |json: Value| parse(json).unwrap().fingerprint(&key);
        let base = of(serde_json::json!({"url": "https://a.example/x?q=1", "method": "POST", "body": "b"}));
        let same = of(serde_json::json!({"url": "https://A.example:443/x?q=1", "method": "POST", "body": "b",
            "purpose": "p", "max_price": "1", "headers": {"accept": "a"}}));
        assert_eq!(base, same);
        for other in [
            serde_json::json!({"url": "https://a.example/x?q=2", "method": "POST", "body": "b"}),
            serde_json::json!({"url": "https://a.example/x?q=1", "method": "PUT", "body": "b"}),
            serde_json::json!({"url": "https://a.example/x?q=1", "method": "POST", "body": "c"}),
            serde_json::json!({"url": "http://a.example/x?q=1", "method": "POST", "body": "b"}),
        ] {
            assert_ne!(base, of(other));
        }
    }

    #[test]
    fn a_tools_call_is_its_name_and_arguments_and_nothing_else() {
        let key = [7; 32];
        let target = || Target::parse("https://a.example/mcp?v=1").unwrap();
        let of = |server: &str, name: &str, arguments: Value, beside: Beside| {
            Call::of_tool((server, target()), (name, arguments), beside, None).unwrap()
        };
        let (a, b) = (serde_json::json!({"a": 1, "b": 2}), serde_json::json!({"b": 2, "a": 1}));
        let base = of("s", "t", a.clone(), Beside::default());
        let said = Beside { purpose: Some("p".to_owned()), max_price: Some("1".to_owned()), ..Beside::default() };
        assert_eq!(base.fingerprint(&key), of("other", "t", b, said).fingerprint(&key));
        assert_ne!(base.fingerprint(&key), of("s", "u", a.clone(), Beside::default()).fingerprint(&key));
        assert_ne!(base.fingerprint(&key), of("s", "t", Value::Null, Beside::default()).fingerprint(&key));
        // The same bytes, posted.
        let body = String::from_utf8(base.body.to_vec()).unwrap();
        let posted = parse(serde_json::json!({"url": target().url(), "method": "POST", "body": body})).unwrap();
        assert_eq!((&posted.body, posted.body_digest(&key)), (&base.body, base.body_digest(&key)));
        assert_ne!(posted.fingerprint(&key), base.fingerprint(&key));
        // How people see it.
        let odd = of("s", "get weather/ü#1", a, Beside::default());
        assert_eq!(odd.recorded_path(), "/mcp#get%20weather/%C3%BC%231");
        assert_eq!(
            (odd.recorded_url(), odd.target.path()),
            (format!("https://a.example{}", odd.recorded_path()), "/mcp")
        );
        for name in ["", "a\nb", "a\u{202e}b", &"x".repeat(129)] {
            let refused = Call::of_tool(("s", target()), (name, Value::Null), Beside::default(), None);
            assert_eq!(refused.unwrap_err().code, Code::BadRequest, "{name:?}");
        }
        let large = serde_json::json!({"x": "y".repeat(MAX_BODY)});
        let refused = Call::of_tool(("s", target()), ("t", large), Beside::default(), None);
        assert_eq!(refused.unwrap_err().code, Code::BodyTooLarge);
    }
}
