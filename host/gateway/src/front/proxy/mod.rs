//! The forward proxy on the agents' listener: absolute-form requests, and `CONNECT`.
//!
//! What can be read (absolute-form, and TLS that is terminated here) becomes a `Call` and ends in the one
//! purchase flow. What cannot is carried blindly to where the dialer allows.

mod connect;
mod intercept;
mod request;
mod tunnel;
mod upload;

use std::sync::Arc;

use countersign_core::web::Target;
use countersign_wire::proxy as wire;
use http::header::{HeaderValue, PROXY_AUTHENTICATE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

pub(super) use connect::Next;
pub use tunnel::Tunnels;

use super::agent::who;
use super::tls::connected_as;
use super::{Answer, json};
use crate::config::Door;
use crate::problem::{Code, Problem};
use crate::purchase::{Reply, Streamed, buy, pass};
use crate::state::Gateway;
use upload::Upload;

/// What the purchase flow calls a seller's header that only this door gives back under its own name.
const RENAMED: &str = "countersign-seller-";

/// Whether a request is for the proxy, and not for the gateway itself.
pub(super) fn is_meant(request: &Request<Incoming>) -> bool {
    request.method() == Method::CONNECT || request.uri().authority().is_some()
}

/// Answers one request. What a `CONNECT` leads to is left in `next`, for when the connection is free.
pub(super) async fn handle(gateway: Arc<Gateway>, request: Request<Incoming>, next: &Next) -> Answer {
    let answered = if request.method() == Method::CONNECT {
        connect::open(&gateway, request, next).await
    } else {
        forward(Arc::clone(&gateway), request).await
    };
    answered.unwrap_or_else(|problem| refused(&gateway, &problem))
}

/// [`refuse`], counted.
fn refused(gateway: &Gateway, problem: &Problem) -> Answer {
    gateway.telemetry.metrics.refusal(Door::Proxy, problem.code);
    refuse(problem)
}

/// An absolute-form request.
async fn forward(gateway: Arc<Gateway>, request: Request<Incoming>) -> Result<Answer, Problem> {
    let token = token(request.headers())?;
    // Nobody reads what strangers send.
    let (snapshot, caller) = known(&gateway, &token).await?;
    connected_as(&request, &snapshot.config, &caller.principal.agent)?;
    let target = wire::absolute(&request.uri().to_string(), request.headers()).map_err(bad)?;
    exchange(gateway, &token, target, request).await
}

/// One request of a known agent to a seller, and the answer to it.
async fn exchange(
    gateway: Arc<Gateway>,
    token: &str,
    target: Target,
    request: Request<Incoming>,
) -> Result<Answer, Problem> {
    let place = {
        let (snapshot, caller) = known(&gateway, token).await?;
        gateway.admission.admit(&snapshot.config.limits, &caller.principal)?
    };
    let (head, body) = request.into_parts();
    let mut call = request::call(&head, target, token)?;
    let limit = gateway.live.load().config.proxy.max_replay_body;
    let upload = upload::read(&gateway, body, limit).await?;
    // An agent that was removed while its request arrived does not buy.
    let (snapshot, caller) = known(&gateway, token).await?;
    let reply = match upload {
        Upload::Whole(bytes) => {
            call.body = bytes;
            buy(gateway, snapshot, caller, call, Door::Proxy, place).await?
        }
        Upload::Larger(body, length) => {
            let longest = snapshot.config.proxy.longest_ms;
            let (body, uploaded) = upload::pump(&gateway, body, longest);
            pass(gateway, snapshot, caller, call, Door::Proxy, Streamed { body, length, uploaded }, place).await?
        }
    };
    answer(reply)
}

/// The seller's answer under its own names: whoever calls a proxy is an HTTP client and wants to be redirected,
/// to keep cookies and to be asked for credentials. Only a demand for payment is nobody's business but ours.
fn answer(reply: Reply) -> Result<Answer, Problem> {
    if reply.status.is_informational() {
        let detail = format!("the seller ended with status {}, which ends nothing", reply.status.as_u16());
        return Err(Problem::new(Code::SellerMisbehaved, detail));
    }
    let mut headers = HeaderMap::with_capacity(reply.headers.len());
    for (name, value) in &reply.headers {
        let own = name.as_str().strip_prefix(RENAMED).and_then(|own| own.parse::<HeaderName>().ok());
        let name = own.unwrap_or_else(|| name.clone());
        if name != WWW_AUTHENTICATE || !countersign_core::web::is_payment_authorization(value.as_bytes()) {
            headers.append(name, value.clone());
        }
    }
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn token(headers: &HeaderMap) -> Result<String, Problem> {
    wire::token(headers).ok_or_else(unauthenticated)
}

fn unauthenticated() -> Problem {
    let detail = "send `Proxy-Authorization: Basic` with an agent or session token as the password: \
                  http://agent:TOKEN@HOST:PORT as the proxy's URL";
    Problem::new(Code::Unauthenticated, detail)
}

/// Who calls, and the generation that knows them.
async fn known(
    gateway: &Gateway,
    token: &str,
) -> Result<(Arc<crate::state::Snapshot>, crate::identity::Caller), Problem> {
    let found = who(gateway, Some(token)).await;
    found.map_err(|problem| if problem.code == Code::Unauthenticated { unauthenticated() } else { problem })
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(Code::BadRequest, detail)
}

/// problem+json with the statuses of a proxy: its credentials are asked for with 407, and what waits for
/// people is refused, because no HTTP client takes 202 for "not yet".
fn refuse(problem: &Problem) -> Answer {
    let status = match problem.code {
        Code::Unauthenticated => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        Code::ApprovalRequired => StatusCode::FORBIDDEN,
        _ => return super::refuse(problem),
    };
    let mut body = problem.body();
    if let Some(body) = body.as_object_mut() {
        body.insert("status".into(), status.as_u16().into());
    }
    let mut response = super::refuse(problem);
    *response.body_mut() = json(status, &body).into_body();
    *response.status_mut() = status;
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        let challenge = HeaderValue::from_static("Basic realm=\"countersign\", charset=\"UTF-8\"");
        response.headers_mut().insert(PROXY_AUTHENTICATE, challenge);
    }
    response
}
