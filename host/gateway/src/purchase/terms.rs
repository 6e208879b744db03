//! The offers for a call that the agent makes itself: fetched by the host, selected by the agent's copy.
//!
//! Nothing of the agent's copy is signed or sent, unless the mandate says `unobserved`: then its copy is all
//! there is, and the policies are told so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use countersign_core::evm::Address;
use countersign_core::json::Json;
use countersign_core::x402::{Challenge, Offer, Offers};
use http::header::{EXPECT, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::Incoming;
use serde_json::Value;

use super::Purchase;
use super::answer::Body;
use super::fetch::{Visit, before_payment, request};
use super::sign::Elsewhere;
use crate::config::MandateConfig;
use crate::egress::{CallError, Connection, Route};
use crate::problem::{Code, Problem};

/// How long a seller may take to answer the head of a request whose body does not come, in milliseconds. Many say
/// `100 Continue` at once and 402 a moment later, so that says nothing.
const HEAD_ONLY_MS: u64 = 5_000;

/// A 402 as the agent says it was, where the rail looks for it.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
}

impl Copy {
    /// The terms as JSON: version 1 has them in the body, any other in the header.
    pub(super) fn of_terms(terms: &Json<'_>) -> Self {
        if terms.get("x402Version").and_then(Json::as_u64) == Some(1) {
            return Self { headers: Vec::new(), body: Some(terms.raw.as_bytes().to_vec()) };
        }
        Self::of_header(&BASE64.encode(terms.raw))
    }

    /// The value of the `PAYMENT-REQUIRED` header.
    pub(super) fn of_header(value: &str) -> Self {
        Self { headers: vec![("payment-required".to_owned(), value.as_bytes().to_vec())], body: None }
    }
}

impl Purchase {
    /// Where the call will go and what it may be paid with. Address and scheme are held to the same rules as if
    /// the host sent the payment there itself.
    pub(super) async fn terms(
        &self,
        elsewhere: &Elsewhere,
        mandate: &MandateConfig,
        payer: Address,
    ) -> Result<Visit, Problem> {
        let Copy { headers, body } = &elsewhere.copy;
        let challenge = Challenge { headers, body: body.as_deref(), request_sha256: self.call.body_sha256() };
        let said = self.snapshot.rail.offers(&challenge, payer).map_err(|e| {
            let detail = format!("the copy of the 402: {e}");
            Problem::new(Code::UnpayableOffer, detail)
                .with("reasons", serde_json::json!([{"code": e.code(), "message": e.to_string()}]))
        })?;
        let route = self.route(self.call.target.clone()).await?;
        route.carries_payments()?;
        if !self.call.observed(mandate) {
            return Ok(Visit { route, connection: None, offers: said });
        }
        let mut offers = self.look(elsewhere, &route, payer).await?;
        offers.offers.retain(|offer| said.offers.iter().any(|named| is_named(offer, named)));
        if offers.offers.is_empty() {
            let detail = "the seller does not make this offer: scheme, network, asset, payee, amount and extra must be \
                          those of one that it makes now; call it again and send what it answers";
            return Err(Problem::new(Code::UnpayableOffer, detail));
        }
        Ok(Visit { route, connection: None, offers })
    }

    /// Asks the seller for its offers, without doing anything that the agent has not asked for. A request that is
    /// safe is sent whole. Of one with a body only the head is, and the body never follows: a seller that charges
    /// for it says so, and one that would act on it cannot. What would act by being sent at all is not sent.
    async fn look(&self, elsewhere: &Elsewhere, route: &Route, payer: Address) -> Result<Offers, Problem> {
        let request = request(&self.call, None).map_err(|e| Problem::new(Code::BadRequest, e))?;
        let with_body = elsewhere.body_sha256.is_some();
        if !with_body && !self.call.method.is_safe() {
            return Err(unseen(format!(
                "to ask for the price of {} without a body would be to do it",
                self.call.method
            )));
        }
        let mut connection = self.gateway.dialer.connect(route).await.map_err(before_payment)?;
        // While it lives the request is not complete; its end breaks the connection off.
        let (_unsent, response) = if with_body {
            let (unsent, response) = self.ask_by_head(&mut connection, request).await?;
            (Some(unsent), response)
        } else {
            (None, self.gateway.dialer.send(&mut connection, request).await.map_err(before_payment)?)
        };
        if response.status() != StatusCode::PAYMENT_REQUIRED {
            let detail = format!("the seller answers {} and does not ask to be paid", response.status().as_u16());
            return Err(Problem::new(Code::UnpayableOffer, detail));
        }
        self.read_offers(response, payer).await
    }

    /// Sends the head of a request that announces a body. Who wants to see the body first is not waited for long.
    async fn ask_by_head(
        &self,
        connection: &mut Connection,
        mut request: Request<Body>,
    ) -> Result<(Unsent, Response<Incoming>), Problem> {
        let (unsent, body) = Channel::new(1);
        let unsent = Unsent(Some(unsent));
        *request.body_mut() = body.boxed_unsync();
        request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
        let dialer = &self.gateway.dialer;
        match dialer.within(HEAD_ONLY_MS, dialer.send(connection, request)).await {
            Some(answer) => Ok((unsent, answer.map_err(before_payment)?)),
            None => {
                let why =
                    format!("the seller does not say within {HEAD_ONLY_MS} ms, before it has the body, what it costs");
                Err(unseen(why))
            }
        }
    }
}

/// A body that never comes. Dropping it ends the request with an error, so that nobody takes it for complete.
struct Unsent(Option<http_body_util::channel::Sender<Bytes, CallError>>);

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            sender.abort(CallError::Broken("only the head was meant to be sent".to_owned()));
        }
    }
}

/// What the host must not find out by itself.
fn unseen(why: String) -> Problem {
    let detail = format!("{why}; buy it with POST /v1/fetch, or under a mandate with `unobserved = true`");
    Problem::new(Code::UnpayableOffer, detail)
}

/// Whether the agent's copy names this very offer.
fn is_named(offer: &Offer, named: &Offer) -> bool {
    offer.scheme == named.scheme
        && offer.network == named.network
        && offer.asset.address == named.asset.address
        && offer.pay_to == named.pay_to
        && offer.amount == named.amount
        && extra(offer) == extra(named)
}

/// The offer's `extra`; empty where there is none, as clients that read it into types print that.
fn extra(offer: &Offer) -> Option<Value> {
    let json: Value = serde_json::from_str(&offer.raw).ok()?;
    let members = json.get("extra").cloned().unwrap_or_default();
    Some(if members.is_null() { Value::Object(serde_json::Map::new()) } else { members })
}
