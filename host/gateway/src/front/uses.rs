//! `POST /v1/payments/{id}/use`, at both doors: what became of what was bought.

use bytes::Bytes;
use countersign_core::id::PaymentId;
use countersign_core::ledger::{PaymentView, Reporter, Use, UseReport};
use http::Request;
use hyper::body::Incoming;
use serde::Deserialize;

use super::admin::parse;
use super::{body, not_found};
use crate::problem::{Code, Problem};
use crate::state::Gateway;

/// Largest body of such a call, in bytes.
pub(super) const MAX_CALL: usize = 16 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    used: String,
    note: Option<String>,
    artifact: Option<String>,
}

/// The body of such a call.
pub(super) async fn read(gateway: &Gateway, request: Request<Incoming>) -> Result<Bytes, Problem> {
    body(gateway, request, MAX_CALL).await
}

/// Records the word of `by` on a payment that the caller may see; answers the payment as it is then.
pub(super) async fn report(
    gateway: &Gateway,
    payment: PaymentId,
    (reporter, by): (Reporter, &str),
    said: &[u8],
) -> Result<PaymentView, Problem> {
    let said: Said = parse(said)?;
    let used = Use::parse(&said.used).ok_or_else(|| {
        let words: Vec<&str> = Use::ALL.iter().map(|u| u.as_str()).collect();
        Problem::new(Code::BadRequest, format!("used: one of {}", words.join(", ")))
    })?;
    let at = gateway.clock.now()?;
    let report = UseReport { reporter, by: by.to_owned(), used, note: said.note, artifact: said.artifact, at };
    gateway.ledger.report_use(payment, report).await?;
    gateway.ledger.payment(payment).await?.ok_or_else(|| not_found("payment with this id"))
}
