//! An upload too large to be sent twice: it is passed on once, and nothing can be paid for it.

use std::sync::Arc;

use countersign_core::id::PurchaseId;
use countersign_core::ledger::PurchaseKey;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderValue};
use tokio::sync::oneshot;
use tracing::{Instrument, info_span};

use super::answer::{Body, Reply};
use super::fetch::{before_payment, request};
use super::{Call, Purchase};
use crate::admission::Place;
use crate::config::Door;
use crate::identity::Caller;
use crate::problem::{Code, Problem};
use crate::state::{Gateway, Snapshot};
use crate::telemetry::{Ended, Trace, What};

/// A body on its way from an agent to a seller.
pub struct Streamed {
    /// The body.
    pub body: Body,
    /// How long it is, if the agent said.
    pub length: Option<u64>,
    /// Ends when all of it was taken, or it broke off.
    pub uploaded: oneshot::Receiver<()>,
}

/// Passes a call on whose body streams. A seller who wants to be paid for it is not: the body is gone.
///
/// # Errors
/// Everything the gateway itself refuses; `body-too-large` for a 402.
pub async fn pass(
    gateway: Arc<Gateway>,
    snapshot: Arc<Snapshot>,
    caller: Caller,
    call: Call,
    door: Door,
    upload: Streamed,
    place: Arc<Place>,
) -> Result<Reply, Problem> {
    let purchase = match call.purchase.clone() {
        Some(id) => id,
        None => PurchaseId::mint(gateway.clock.now()?, crate::clock::random(&*gateway.clock)?),
    };
    let (agent, host, id) = (caller.principal.agent.clone(), call.target.host(), purchase.to_string());
    let trace = Trace::begin(&gateway, What::Upload, call.parent);
    trace.about(&snapshot, &caller, &call, door);
    let span = info_span!("upload", trace = trace.id(), agent, purchase = id, host, door = door.as_str());
    let workspace = caller.principal.workspace.clone().unwrap_or_default();
    let key = PurchaseKey { workspace, agent, purchase };
    let fingerprint = call.fingerprint(&gateway.key);
    let (lock, exclusive) = (None, None);
    let purchase = Purchase { gateway, snapshot, caller, call, key, fingerprint, door, trace, place, lock, exclusive };
    let trace = purchase.trace.clone();
    let outcome = Box::pin(purchase.pass(upload)).instrument(span).await;
    let ended = outcome.as_ref().map_or_else(|problem| Ended::of(problem.code), Reply::ended);
    trace.ends(door, ended, outcome.as_ref().err());
    outcome.map(|reply| reply.with_purchase(&id)).map_err(|problem| problem.with_default("purchase", id))
}

impl Purchase {
    async fn pass(self, upload: Streamed) -> Result<Reply, Problem> {
        self.mandate()?;
        if self.gateway.ledger.latest(self.key.clone()).await?.is_some() {
            let detail = "an earlier call with this purchase_id was another request: this body is too large for one";
            return Err(Problem::new(Code::PurchaseConflict, detail));
        }
        let route = self.route(self.call.target.clone()).await?;
        let dialer = &self.gateway.dialer;
        let mut connection = dialer.connect(&route).await.map_err(before_payment)?;
        let request = request(&self.call, None).map_err(|e| Problem::new(Code::BadRequest, e))?;
        let mut request = request.map(|_| upload.body);
        if let Some(length) = upload.length {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let uploaded = async {
            // The other end is dropped, never used.
            let _ = upload.uploaded.await;
        };
        let response = dialer.send_while(&mut connection, request, uploaded).await.map_err(before_payment)?;
        if response.status() == StatusCode::PAYMENT_REQUIRED {
            let most = self.snapshot.config.proxy.max_replay_body;
            let detail = format!(
                "the seller wants to be paid, and a body above {most} bytes cannot be sent again with the payment; \
                 nothing was signed. Send a smaller body, or let the operator raise proxy.max-replay-body"
            );
            return Err(Problem::new(Code::BodyTooLarge, detail).with("retry", false));
        }
        Ok(self.free(response))
    }
}
