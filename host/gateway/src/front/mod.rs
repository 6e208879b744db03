//! The doors: HTTP for agents and for operators. Each is a thin translation into the one purchase
//! flow or into a ledger call.

mod admin;
pub(crate) mod after;
mod agent;
mod books;
mod directory;
mod inbox;
mod linger;
pub(crate) mod mcp;
mod metrics;
mod openapi;
mod outcome;
mod policies;
mod proxy;
mod quorum;
mod server;
mod shadows;
mod tls;
mod uses;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;

pub use admin::Admin;
pub use proxy::Tunnels;
pub use quorum::Quorum;
pub use server::{Acceptor, Door, serve};
pub use tls::{Certificates, Side};

use crate::problem::{Code, Problem};
use crate::purchase::{Body, full};
use crate::state::Gateway;

/// How long a request's body may take to arrive, in milliseconds.
const BODY_MS: u64 = 30_000;

/// An answer of either door.
pub type Answer = Response<Body>;

/// JSON with a status.
fn json(status: StatusCode, body: &Value) -> Answer {
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("countersign-source"), HeaderValue::from_static("gateway"));
    response
}

/// problem+json.
fn refuse(problem: &Problem) -> Answer {
    let (code, status) = problem.code.parts();
    tracing::debug!(code, detail = problem.detail, "refused");
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &problem.body());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(seconds) = problem.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(purchase) = problem.member("purchase").and_then(Value::as_str)
        && let Ok(value) = HeaderValue::from_str(purchase)
    {
        headers.insert(HeaderName::from_static("countersign-purchase"), value);
    }
    response
}

/// A request body of at most `limit` bytes, which must not take forever. Who calls is to be looked at
/// again after it: what was removed while it arrived is gone.
async fn body(gateway: &Gateway, request: Request<Incoming>, limit: usize) -> Result<Bytes, Problem> {
    let collected = tokio::select! {
        collected = Limited::new(request.into_body(), limit).collect() => collected,
        () = gateway.clock.sleep(BODY_MS) => {
            let detail = format!("the request's body did not arrive within {} seconds", BODY_MS / 1_000);
            return Err(Problem::new(Code::BadRequest, detail));
        }
    };
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            Problem::new(Code::BodyTooLarge, format!("the request's body is above {limit} bytes"))
        } else {
            Problem::new(Code::BadRequest, "the request's body did not arrive whole")
        }
    })
}

/// `?name=value` of a request, percent-decoded.
fn query(request: &Request<Incoming>) -> Vec<(String, String)> {
    let text = request.uri().query().unwrap_or_default();
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn not_found(what: &str) -> Problem {
    Problem::new(Code::NotFound, format!("there is no {what} here")).with("retry", false)
}

/// The filter of `GET /v1/payments?state=…&before=…&limit=…`.
fn payment_filter(query: &[(String, String)]) -> Result<countersign_core::ledger::PaymentFilter, Problem> {
    use countersign_core::payment::State;
    let bad = |detail: String| Problem::new(Code::BadRequest, detail);
    let mut filter = countersign_core::ledger::PaymentFilter { limit: 100, ..Default::default() };
    for (name, value) in query {
        match name.as_str() {
            "state" => {
                let known = State::ALL.into_iter().filter(|s| s.public() == value);
                let before = filter.states.len();
                filter.states.extend(known);
                if filter.states.len() == before {
                    let names: Vec<_> = State::ALL.iter().map(|s| s.public()).collect();
                    return Err(bad(format!("state: one of {}", names.join(", "))));
                }
            }
            "before" | "cursor" => filter.before = Some(value.parse().map_err(|e| bad(format!("{name}: {e}")))?),
            "limit" => {
                filter.limit = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=500).contains(n))
                    .ok_or_else(|| bad("limit: 1 to 500".to_owned()))?
            }
            other => return Err(bad(format!("`{other}` is not a parameter here; state, before and limit are"))),
        }
    }
    Ok(filter)
}

/// A page of payments; `next` is the cursor of the following one.
fn page(payments: &[countersign_core::ledger::PaymentView], limit: u32, items: Vec<Value>) -> Value {
    let full = u32::try_from(payments.len()).unwrap_or(u32::MAX) >= limit;
    let next = payments.last().filter(|_| full).map(|p| p.id.to_string());
    serde_json::json!({"items": items, "next": next})
}
