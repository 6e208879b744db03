//! `POST /v1/sign`: a payment for an agent that makes the call itself.
//!
//! It is the one purchase flow with two other ends. The offers are those that the host has just fetched, and
//! the agent's copy of the 402 only selects among them (`terms.rs`). And the payment is handed out instead of
//! presented: it stays open until the chain proves it redeemed or unused, whatever anybody says.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::json::Json;
use countersign_core::ledger::PaymentView;
use countersign_core::payment::{Event, State};
use countersign_core::permit::Sealed;
use countersign_core::web::{self, Target};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::answer::{Reply, full};
use super::call::{parse_claims, parse_max_price, parse_purchase, parse_wait};
use super::present::{Paying, note};
use super::terms::Copy;
use super::{Call, Purchase};
use crate::config::Door;
use crate::problem::{Code, Problem};

/// Largest body of such a call, in bytes: a 402 and little more.
pub const MAX_ORDER: usize = 512 << 10;

/// The JSON body of `POST /v1/sign`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    /// Read by a stricter reader, which keeps its bytes.
    #[serde(default)]
    payment_required: Option<IgnoredAny>,
    #[serde(default)]
    header: Option<String>,
    resource: Resource,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "resource, an object with url")]
struct Resource {
    url: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    body_sha256: Option<String>,
}

/// What the agent says of a call that it makes itself.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// SHA-256 of the body, which stays with the agent; none when empty.
    pub body_sha256: Option<[u8; 32]>,
    /// The 402 as the agent says it was.
    pub(super) copy: Copy,
}

impl Call {
    /// Parses the remote signer's body. `header_purchase` is the `Countersign-Purchase` header.
    ///
    /// # Errors
    /// `bad-request` naming the member.
    pub fn parse_order(json: &[u8], header_purchase: Option<&str>) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(Code::BadRequest, detail);
        let wire: Wire =
            serde_json::from_slice(json).map_err(|e| bad(format!("the call is not as documented: {e}")))?;
        let copy = match (wire.payment_required, wire.header) {
            (Some(IgnoredAny), None) => {
                let strict =
                    Json::parse(json, MAX_ORDER).map_err(|e| bad(format!("the call is not strict JSON: {e}")))?;
                Copy::of_terms(strict.get("payment_required").ok_or_else(|| bad("payment_required: null".to_owned()))?)
            }
            (None, Some(header)) => Copy::of_header(&header),
            _ => {
                let detail =
                    "payment_required (the terms of the 402 as JSON) or header (its PAYMENT-REQUIRED), not both";
                return Err(bad(detail.to_owned()));
            }
        };
        let Resource { url, method, body_sha256 } = wire.resource;
        let target = Target::parse(&url).map_err(|e| bad(format!("resource.url: {e}")))?;
        let method = web::Method::parse(method.as_deref().unwrap_or("GET"));
        let method = method.map_err(|e| bad(format!("resource.method: {e}")))?;
        let method: Method = method.as_str().parse().map_err(|_| bad("resource.method: not a method".to_owned()))?;
        let body_sha256 = body_sha256.map(|text| sha256(&text)).transpose()?;
        // An empty body is no body, whichever way that is said.
        let body_sha256 = body_sha256.filter(|digest| *digest != <[u8; 32]>::from(Sha256::digest([])));
        Ok(Self {
            method,
            target,
            headers: Vec::new(),
            body: bytes::Bytes::new(),
            max_price: parse_max_price(wire.max_price.as_deref())?,
            purchase: parse_purchase(wire.purchase_id.as_deref(), header_purchase)?,
            claims: parse_claims(wire.purpose, wire.task, wire.claims.unwrap_or_default())?,
            wait_seconds: parse_wait(wire.wait_seconds)?,
            parent: None,
            waits: None,
            elsewhere: Some(Elsewhere { body_sha256, copy }),
            tool: None,
        })
    }
}

fn sha256(text: &str) -> Result<[u8; 32], Problem> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest)
        .map_err(|_| Problem::new(Code::BadRequest, "resource.body_sha256: 64 hexadecimal digits"))?;
    Ok(digest)
}

impl Purchase {
    /// Gives the payment to the agent. From here on nobody but the chain can say what becomes of it.
    pub(super) async fn hand_out(self, sealed: &Sealed, paying: Paying) -> Result<Reply, Problem> {
        let Paying { id, state, flight, .. } = paying;
        let (authorization, gateway) = (sealed.authorization(), Arc::clone(&self.gateway));
        if state == State::Signed {
            note(&gateway, id, state, Event::Ambiguous, "handed out to the agent".to_owned(), None).await;
        }
        // Only what is open is given away: its hold covers whatever the agent does with it.
        let now = gateway.ledger.payment(id).await?;
        if !now.is_some_and(|payment| payment.state.is_open()) {
            let detail = "the payment is not open any more; repeat the call";
            return Err(Problem::new(Code::Overloaded, detail).with("payment", id.to_string()));
        }
        gateway.chains.watch(&gateway, id);
        let header = self.snapshot.rail.present(authorization, sealed.signature()).map_err(|e| {
            Problem::new(Code::UnpayableOffer, e.to_string())
                .with("payment", id.to_string())
                .with("payment_state", State::Redeemable.public())
        })?;
        let told = json!({
            "purchase": self.key.purchase,
            "payment": id,
            "header_name": header.name.to_ascii_uppercase(),
            "header_value": header.value,
            "expires_at": authorization.expires_at().to_string(),
        });
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // It is worth money until it expires.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let mut reply = Reply { status: StatusCode::OK, headers, body: full(told.to_string()) };
        reply.set("countersign-source", "gateway");
        reply.set("countersign-payment", &id.to_string());
        drop((flight, self.lock, self.exclusive));
        Ok(reply)
    }
}

/// Whether a payment was decided on for an agent that presents it itself.
pub(super) fn was_handed_out(payment: &PaymentView) -> bool {
    let door = payment.decision.request.facts.iter().find(|fact| fact.name == "door");
    door.is_some_and(|fact| fact.value == Door::Sign.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(change: impl FnOnce(&mut Value)) -> Value {
        let mut order = json!({
            "payment_required": {"x402Version": 2, "accepts": []},
            "resource": {"url": "https://api.example.com/quote?q=1", "method": "POST"},
        });
        change(&mut order);
        order
    }

    fn parse(order: &Value) -> Result<Call, Problem> {
        Call::parse_order(order.to_string().as_bytes(), None)
    }

    #[test]
    fn the_same_request_is_the_same_at_every_door() {
        let key = [7; 32];
        let fetched = |body: &str| {
            let call = json!({"url": "https://api.example.com/quote?q=1", "method": "POST", "body": body});
            Call::parse(call.to_string().as_bytes(), None).unwrap()
        };
        let signed = |digest: Option<String>| parse(&order(|o| o["resource"]["body_sha256"] = json!(digest))).unwrap();
        let digest = |body: &str| Some(hex::encode(Sha256::digest(body)));
        for body in ["", "b", "another"] {
            let (fetched, signed) = (fetched(body), signed(digest(body)));
            assert_eq!(fetched.fingerprint(&key), signed.fingerprint(&key), "{body:?}");
            assert_eq!(fetched.body_digest(&key), signed.body_digest(&key), "{body:?}");
        }
        assert_eq!(fetched("").fingerprint(&key), signed(None).fingerprint(&key));
        assert_ne!(fetched("b").fingerprint(&key), signed(digest("c")).fingerprint(&key));
        // A body that spells the digest of another is not that other.
        let spelled = hex::encode(Sha256::digest("b"));
        assert_ne!(fetched(&spelled).fingerprint(&key), signed(digest("b")).fingerprint(&key));
    }

    #[test]
    fn malformed_orders_are_refused_by_name() {
        let check = |change: &dyn Fn(&mut Value), names: &str| {
            let problem = parse(&order(change)).unwrap_err();
            assert_eq!(problem.code, Code::BadRequest);
            assert!(problem.detail.contains(names), "{names}: {}", problem.detail);
        };
        check(&|o| o["resource"] = Value::Null, "resource");
        check(&|o| o["resource"]["url"] = json!("ftp://a.example/"), "resource.url");
        check(&|o| o["resource"]["method"] = json!("CONNECT"), "resource.method");
        check(&|o| o["resource"]["body_sha256"] = json!("00"), "resource.body_sha256");
        check(&|o| o["resource"]["headers"] = json!({}), "headers");
        check(&|o| o["header"] = json!("e30="), "payment_required");
        check(&|o| o["payment_required"] = Value::Null, "payment_required");
        check(&|o| o["hash"] = json!("00"), "hash");
        check(&|o| o["typed_data"] = json!({}), "typed_data");
        check(&|o| o["wait_seconds"] = json!(601), "wait_seconds");
        check(&|o| o["purchase_id"] = json!("a b"), "purchase_id");
        check(&|o| o["max_price"] = json!("1e3"), "max_price");
    }
}
