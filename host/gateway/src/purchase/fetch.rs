//! The call without payment, and the strict reading of a 402.

use std::sync::Arc;

use countersign_core::evm::Address;
use countersign_core::web::Target;
use countersign_core::x402::{Challenge, Offers, PaymentHeader, RailError};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::answer::{Body, Reply, filter_headers, full, stream};
use super::{Call, Purchase};
use crate::config::MandateConfig;
use crate::egress::{CallError, Connection, Route};
use crate::problem::{Code, Problem};
use crate::telemetry::{Open, Step, TRACEPARENT, attributes};

/// Largest 402 body read, in bytes.
const MAX_CHALLENGE: usize = 256 * 1024;

/// What came of the first call.
pub(super) enum Fetched {
    /// Not a 402: nothing to pay, nothing recorded.
    Free(Reply),
    /// A 402 whose offers can be read.
    Payable(Visit),
}

/// A seller who wants to be paid.
pub(super) struct Visit {
    /// Where it is.
    pub(super) route: Route,
    /// The connection the 402 came over, for the paid request; none where the agent sends that itself.
    pub(super) connection: Option<Connection>,
    /// What it offers.
    pub(super) offers: Offers,
}

impl Purchase {
    /// What the seller asks, or gives away.
    pub(super) async fn visit(&self, mandate: &MandateConfig, payer: Address) -> Result<Fetched, Problem> {
        match (&self.call.elsewhere, &self.call.tool) {
            (Some(elsewhere), _) => Ok(Fetched::Payable(self.terms(elsewhere, mandate, payer).await?)),
            (None, Some(tool)) => self.ask(tool, payer).await,
            (None, None) => self.fetch(payer).await,
        }
    }

    /// Calls the seller once without payment, through the guard.
    pub(super) async fn fetch(&self, payer: Address) -> Result<Fetched, Problem> {
        let mut step = self.trace.step(Step::Fetch);
        let fetched = self.call_unpaid(payer, &mut step).await;
        fetched.inspect_err(|problem| step.failed(problem.code.code()))
    }

    async fn call_unpaid(&self, payer: Address, step: &mut Open) -> Result<Fetched, Problem> {
        let route = self.route(self.call.target.clone()).await?;
        let dialer = &self.gateway.dialer;
        let mut connection = dialer.connect(&route).await.map_err(before_payment)?;
        let mut request = request(&self.call, None).map_err(|e| Problem::new(Code::BadRequest, e))?;
        self.tell_seller(&mut request, step);
        let response = dialer.send(&mut connection, request).await.map_err(before_payment)?;
        step.say(&attributes::STATUS, u64::from(response.status().as_u16()));
        if response.status() != StatusCode::PAYMENT_REQUIRED {
            return Ok(Fetched::Free(self.free(response)));
        }
        let offers = self.read_offers(response, payer).await?;
        Ok(Fetched::Payable(Visit { route, connection: Some(connection), offers }))
    }

    /// Tells a seller which trace its part belongs to, if the operator wants sellers to know.
    pub(super) fn tell_seller(&self, request: &mut Request<Body>, step: &Open) {
        if self.snapshot.config.telemetry.tell_sellers
            && let Ok(value) = HeaderValue::from_str(&step.traceparent().to_string())
        {
            request.headers_mut().insert(HeaderName::from_static(TRACEPARENT), value);
        }
    }

    /// Resolves and guards; nothing is sent.
    pub(super) async fn route(&self, target: Target) -> Result<Route, Problem> {
        let egress = &self.snapshot.config.egress;
        self.gateway.dialer.route(target, egress).await.map_err(before_payment)
    }

    pub(super) fn free(&self, response: Response<Incoming>) -> Reply {
        let (head, body) = response.into_parts();
        let body = stream(Arc::clone(&self.gateway), body, Arc::clone(&self.place));
        Reply { status: head.status, headers: filter_headers(&head.headers), body }
    }

    pub(super) async fn read_offers(&self, response: Response<Incoming>, payer: Address) -> Result<Offers, Problem> {
        let (head, mut body) = response.into_parts();
        let rail = &self.snapshot.rail;
        let headers = header_pairs(&head.headers);
        let misbehaved = |e: CallError| Problem::new(Code::SellerMisbehaved, format!("the 402 broke off: {e}"));
        // The body is drained even when it is not needed, so that the connection can be used again.
        let read = self.gateway.dialer.read(&mut body, MAX_CHALLENGE).await.map_err(misbehaved);
        let too_large = || Problem::new(Code::UnpayableOffer, format!("the 402's body is above {MAX_CHALLENGE} bytes"));
        let read = if !rail.needs_body(&headers) {
            Ok(None)
        } else if is_encoded(&head.headers) {
            let detail = "the 402's body is compressed, which was not asked for; it is not decompressed";
            Err(Problem::new(Code::UnpayableOffer, detail))
        } else {
            read.and_then(|bytes| bytes.ok_or_else(too_large)).map(Some)
        };
        let body = read.as_ref().ok().and_then(Option::as_deref);
        let challenge = Challenge { headers: &headers, body, request_sha256: self.call.body_sha256() };
        match (rail.offers(&challenge, payer), read) {
            // Where the headers make no offer, what keeps the body from being read is what is wrong.
            (Err(RailError::NotThisRail(_)), Err(problem)) => Err(problem),
            (offers, _) => offers.map_err(|e| unpayable(&e)),
        }
    }
}

/// Whether a body is not what it says but some encoding of it.
fn is_encoded(headers: &http::HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

pub(super) fn unpayable(error: &RailError) -> Problem {
    let reason = serde_json::json!([{"code": error.code(), "message": error.to_string()}]);
    Problem::new(Code::UnpayableOffer, error.to_string()).with("reasons", reason)
}

/// The request as it is sent, with or without a payment.
pub(super) fn request(call: &Call, payment: Option<&PaymentHeader>) -> Result<Request<Body>, String> {
    let mut request = Request::new(full(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = call.target.path_and_query().parse().map_err(|_| "url: the path cannot be sent".to_owned())?;
    let headers = request.headers_mut();
    for (name, value) in &call.headers {
        headers.append(name, value.clone());
    }
    let agent = HeaderValue::from_static(concat!("countersign/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(agent);
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    // Nothing here decompresses, so that no small answer becomes a large one.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let host =
        HeaderValue::from_str(&call.target.host_header()).map_err(|_| "url: the host cannot be sent".to_owned())?;
    headers.insert(HOST, host);
    if let Some(payment) = payment {
        let mut value =
            HeaderValue::from_str(&payment.value).map_err(|_| "the payment cannot be a header".to_owned())?;
        value.set_sensitive(true);
        // Never in the place of something the agent has sent: the seller would see another caller.
        if headers.insert(HeaderName::from_static(payment.name), value).is_some() {
            return Err(format!("the header `{}` that pays is the call's own already", payment.name));
        }
    }
    Ok(request)
}

/// Header names and values as the rail reads them.
pub(super) fn header_pairs(headers: &http::HeaderMap) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec())).collect()
}

pub(crate) fn before_payment(error: CallError) -> Problem {
    let code = match &error {
        CallError::Forbidden(_) => Code::EgressForbidden,
        CallError::Unreachable(_) => Code::SellerUnreachable,
        CallError::Broken(_) => Code::SellerMisbehaved,
    };
    Problem::new(code, error.to_string())
}
