//! `GET /metrics`: for operators who may look, or for everybody on this machine if the configuration says so.

use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;

use super::Answer;
use super::admin::{Admin, Operator};
use crate::config::OperatorRole;
use crate::identity::bearer;
use crate::problem::Problem;
use crate::purchase::full;
use crate::state::Gateway;
use crate::telemetry::{gather, text};

/// The page.
pub(super) async fn page(admin: &Admin, request: &Request<Incoming>) -> Result<Answer, Problem> {
    let gateway = &admin.gateway;
    if !is_open(gateway, request) {
        Operator::of(gateway, bearer(request.headers()))?.need(OperatorRole::Viewer)?;
    }
    let mut response = Response::new(full(text::page(&gather(gateway).await)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(text::CONTENT_TYPE));
    Ok(response)
}

/// Whether it needs no token: nobody reaches the listener but this machine, and it was called by its own
/// address. A page in a browser, whose name resolves to it, was not.
fn is_open(gateway: &Gateway, request: &Request<Incoming>) -> bool {
    let [_, admin] = gateway.listeners;
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = [admin.to_string(), format!("localhost:{}", admin.port())];
    gateway.live.load().config.telemetry.open_metrics
        && admin.ip().to_canonical().is_loopback()
        && own.iter().any(|own| host.eq_ignore_ascii_case(own))
}
