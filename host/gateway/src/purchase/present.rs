//! From a permit to the seller's answer: sign, present, record.
//!
//! Nothing here decides. Whatever happens after a signature may exist, the payment stays held until
//! a receipt or the chain says what became of it.

use std::sync::Arc;

use countersign_core::evm::Signature65;
use countersign_core::id::PaymentId;
use countersign_core::ledger::{Answer, Evidence, LedgerError, PaymentFacts, PaymentView, Transition};
use countersign_core::payment::{Event, State};
use countersign_core::permit::{self, Permit, Represented, Sealed};
use countersign_core::seams::{SignError, Signer};
use countersign_core::x402::{Authorization, Receipt};
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use tracing::{Instrument, info_span};

use super::Purchase;
use super::answer::{Landing, Reply, Source, filter_headers, stream_paid};
use super::decide::Ready;
use super::earlier::already_settled;
use super::fetch::{Visit, header_pairs, request};
use crate::egress::{CallError, Connection, Route};
use crate::flights::Flight;
use crate::problem::{Code, Problem};
use crate::state::Gateway;
use crate::telemetry::{Open, Step, attributes};

/// A payment on its way, and the state it is in.
pub(super) struct Paying {
    pub(super) id: PaymentId,
    facts: PaymentFacts,
    pub(super) state: State,
    /// The transaction that the chain has proven, or a seller named earlier.
    proven: Option<String>,
    pub(super) flight: Flight,
}

/// An answer to a paid request.
pub(super) struct Answered {
    /// The seller's status, or what it would be over HTTP.
    pub(super) status: StatusCode,
    /// The seller's headers, filtered.
    pub(super) headers: HeaderMap,
    /// Its body.
    pub(super) body: Source,
    /// What it says of the payment.
    pub(super) receipt: Receipt,
}

/// How the paid call ended.
enum Outcome {
    /// A 2xx with a receipt that contradicts nothing we know; the transaction it names.
    Accepted(String),
    /// Anything else, and why: the money may or may not have moved.
    Ambiguous(String),
}

impl Purchase {
    /// Signs what was just committed and pays with it.
    pub(super) async fn sign_and_present(
        self,
        Ready { permit, facts, flight }: Ready,
        signer: &dyn Signer,
        visit: Visit,
    ) -> Result<Reply, Problem> {
        let id = permit.payment();
        let paying = Paying { id, facts, state: State::Signed, proven: None, flight };
        if let Some(scope) = self.gateway.stopped(&paying.facts).await {
            // The key was not used: this hold, and only this one, may be let go.
            let state = self.never_signed(id, "suspended before the key was used").await;
            return Err(suspended(&scope.to_string(), id, state));
        }
        let mut step = self.trace.step(Step::Sign);
        let sealed = match signer.sign(permit).instrument(info_span!("sign", payment = %id)).await {
            Ok(sealed) => sealed,
            Err(error) => {
                step.failed(Code::WalletUnavailable.code());
                return Err(self.not_signed(id, &error).await);
            }
        };
        drop(step);
        self.store_signature(id, *sealed.signature());
        let span = info_span!("present", payment = %id);
        self.present(sealed, visit.route, visit.connection, paying).instrument(span).await
    }

    /// Presents the stored authorization of an open payment again: the same nonce, never a new one.
    pub(super) async fn represent(self, payment: PaymentView) -> Result<Reply, Problem> {
        let (id, state) = (payment.id, payment.state);
        self.trace.pays(id);
        self.trace.offered(&payment.facts);
        self.trace.say(&attributes::AGAIN, true);
        if self.call.elsewhere.is_some() {
            // No seller slows a repeat here, and each one is recorded.
            let (now, most) = (self.gateway.clock.now()?, self.snapshot.config.limits.purchases_per_agent_per_minute);
            if !self.gateway.rate.admit(&self.principal().agent, most, now) {
                let detail = "this agent asked for payments too often in the last minute";
                return Err(Problem::new(Code::RateLimited, detail));
            }
        }
        if let Some(why) = payment.authorization.as_ref().and_then(|a| self.call.cannot_carry(&a.offer)) {
            let detail = format!("the open payment of this purchase cannot be presented by this call: {why}");
            return Err(Problem::new(Code::PurchaseConflict, detail)
                .with("payment", id.to_string())
                .with("payment_state", state.public()));
        }
        let flight = self.gateway.flights.begin(id);
        if let Some(scope) = self.gateway.stopped(&payment.facts).await {
            return Err(suspended(&scope.to_string(), id, state));
        }
        // Whatever can fail without a signature comes before the payload is touched.
        let route = self.route(self.call.target.clone()).await?;
        route.carries_payments()?;
        if let Some(tool) = &self.call.tool {
            self.server(tool)?;
        }
        let (permit, stored) =
            match permit::represent(&*self.gateway.ledger, id, self.snapshot.generation, self.gateway.clock.now()?)
                .await?
            {
                Represented::Open { permit, signature } => (permit, signature),
                Represented::Suspended(what) => return Err(suspended(&what, id, state)),
                Represented::Stale => {
                    let detail = "who may act changed while this call waited; repeat it";
                    return Err(Problem::new(Code::Overloaded, detail).with("payment", id.to_string()));
                }
                Represented::NotOpen(now) if now.is_spent() => return Err(already_settled(&payment)),
                Represented::Expired if state.is_spent() => return Err(already_settled(&payment)),
                Represented::Expired | Represented::NotOpen(_) => return Err(unresolved(&payment)),
            };
        let sealed = match stored {
            Some(signature) => permit.seal(signature).map_err(|e| e.to_string()),
            None => self.sign_again(permit, &payment.facts).await,
        };
        let sealed = sealed.map_err(|error| {
            tracing::error!(payment = %id, error, "no usable signature for an open payment");
            unsigned().with("payment", id.to_string()).with("payment_state", state.public())
        })?;
        let paying = Paying { id, facts: payment.facts, state, proven: payment.transaction, flight };
        let span = info_span!("present", payment = %id, again = true);
        self.present(sealed, route, None, paying).instrument(span).await
    }

    /// The stored payload once more; a signature made before may be out there, so nothing is freed.
    async fn sign_again(&self, permit: Permit, facts: &PaymentFacts) -> Result<Sealed, String> {
        let signer = self.gateway.signers.get(&facts.wallet).ok_or_else(|| format!("no wallet `{}`", facts.wallet))?;
        let id = permit.payment();
        let _step = self.trace.step(Step::Sign);
        let sealed =
            signer.sign(permit).instrument(info_span!("sign", payment = %id)).await.map_err(|e| e.to_string())?;
        self.store_signature(id, *sealed.signature());
        Ok(sealed)
    }

    async fn not_signed(&self, id: PaymentId, error: &SignError) -> Problem {
        tracing::error!(payment = %id, %error, "no signature");
        let state = match error {
            SignError::Refused(_) => self.never_signed(id, "the wallet refused to sign").await,
            SignError::Uncertain(_) => {
                let why = "the wallet did not say whether it signed".to_owned();
                note(&self.gateway, id, State::Signed, Event::Ambiguous, why, None).await;
                State::Redeemable
            }
        };
        unsigned().with("payment", id.to_string()).with("payment_state", state.public())
    }

    /// Answers the state it is in then: the hold stays where another gateway may have signed it, or nothing can be written.
    async fn never_signed(&self, id: PaymentId, why: &str) -> State {
        note(&self.gateway, id, State::Signed, Event::SignerRefused, why.to_owned(), None).await;
        match self.gateway.ledger.payment(id).await {
            Ok(Some(payment)) => payment.state,
            Ok(None) | Err(_) => State::Redeemable,
        }
    }

    /// Off the path: presenting again prefers the stored bytes, and can do without them.
    fn store_signature(&self, id: PaymentId, signature: Signature65) {
        let gateway = Arc::clone(&self.gateway);
        tokio::spawn(async move {
            if let Err(error) = gateway.ledger.store_signature(id, signature).await {
                tracing::warn!(payment = %id, %error, "the signature could not be stored");
            }
        });
    }

    async fn present(
        self,
        sealed: Sealed,
        route: Route,
        connection: Option<Connection>,
        paying: Paying,
    ) -> Result<Reply, Problem> {
        if self.call.elsewhere.is_some() {
            return self.hand_out(&sealed, paying).await;
        }
        let mut step = self.trace.step(Step::Present);
        let sent = self.send(&sealed, &route, connection, &mut step).await;
        drop(step);
        match sent {
            Ok(answered) => self.settle(answered, paying).await,
            Err(error) => {
                let why = format!("no answer to the paid request: {error}");
                note(&self.gateway, paying.id, paying.state, Event::Ambiguous, why, None).await;
                self.gateway.chains.watch(&self.gateway, paying.id);
                let code = unanswered(&error);
                let detail = format!(
                    "{error}; repeat the call with this purchase_id: the same authorization is presented again"
                );
                Err(Problem::new(code, detail)
                    .with("payment", paying.id.to_string())
                    .with("payment_state", State::Redeemable.public()))
            }
        }
    }

    /// The paid request: to the origin that was approved, at the address that was resolved, on the
    /// connection the 402 came over if that still works.
    async fn send(
        &self,
        sealed: &Sealed,
        route: &Route,
        connection: Option<Connection>,
        step: &mut Open,
    ) -> Result<Answered, CallError> {
        let answered = match &self.call.tool {
            Some(tool) => self.call_tool_paid(tool, sealed, route).await,
            None => {
                let response = self.call_paid(sealed, route, connection, step).await;
                response.map(|response| self.read_answer(sealed.authorization(), response))
            }
        };
        match &answered {
            Ok(answered) => step.say(&attributes::STATUS, u64::from(answered.status.as_u16())),
            Err(error) => step.failed(unanswered(error).code()),
        }
        answered
    }

    async fn call_paid(
        &self,
        sealed: &Sealed,
        route: &Route,
        connection: Option<Connection>,
        step: &Open,
    ) -> Result<Response<Incoming>, CallError> {
        let broken = |e: String| CallError::Unreachable(e);
        let header = self
            .snapshot
            .rail
            .present(sealed.authorization(), sealed.signature())
            .map_err(|e| broken(e.to_string()))?;
        let mut request = request(&self.call, Some(&header)).map_err(broken)?;
        self.tell_seller(&mut request, step);
        let mut connection = match Connection::still_open(connection).await {
            Some(open) => open,
            None => self.gateway.dialer.connect(route).await?,
        };
        self.gateway.dialer.send(&mut connection, request).await
    }

    fn read_answer(&self, authorization: &Authorization, response: Response<Incoming>) -> Answered {
        let (head, body) = response.into_parts();
        let receipt = self.snapshot.rail.receipt(authorization, head.status.as_u16(), &header_pairs(&head.headers));
        Answered { status: head.status, headers: filter_headers(&head.headers), body: Source::Wire(body), receipt }
    }

    /// Records what the answer means, passes it on.
    async fn settle(self, answered: Answered, paying: Paying) -> Result<Reply, Problem> {
        let Answered { status, headers, body, receipt } = answered;
        let (event, why, evidence, state) = match judge_answer(status, receipt) {
            Outcome::Accepted(transaction) => {
                let evidence = Box::new(Evidence { transaction: Some(transaction), ..Evidence::default() });
                (Event::Receipt, "the seller's receipt".to_owned(), Some(evidence), State::Seen)
            }
            Outcome::Ambiguous(why) => (Event::Ambiguous, why, None, State::Redeemable),
        };
        // A receipt already stored is not forgotten because a second answer lacks one.
        let stays = paying.state.is_spent() || matches!(paying.state, State::Seen | State::Stuck);
        let state = if stays { paying.state } else { state };
        let said = evidence.as_ref().and_then(|e| e.transaction.clone());
        let Paying { id, facts, state: from, proven, flight } = paying;
        // Beside what the chain has proven, a seller's word for the transaction counts for nothing.
        let transaction = if from.is_spent() { proven } else { said };
        self.trace.say(&attributes::STATE, state.public());
        self.trace.say(&attributes::STATUS, u64::from(status.as_u16()));
        if let Some(transaction) = &transaction {
            self.trace.say(&attributes::TRANSACTION, transaction.as_str());
        }
        tracing::info!(payment = %id, state = state.public(), status = status.as_u16(), why, "answered");
        let gateway = Arc::clone(&self.gateway);
        let trace = self.trace.clone();
        let recorded = async move {
            let _step = trace.step(Step::Settle);
            note(&gateway, id, from, event, why, evidence).await;
            gateway.chains.watch(&gateway, id);
        }
        .instrument(info_span!("settle", payment = %id));
        if status == StatusCode::PAYMENT_REQUIRED {
            recorded.await;
            if state.is_spent() {
                let detail = "the chain proves this purchase paid, and the seller answers it with another 402";
                return Err(Problem::new(Code::AlreadySettled, detail)
                    .with("payment", id.to_string())
                    .with("payment_state", state.public())
                    .with("retry", false));
            }
            let detail = "the seller answered the payment with another 402; what was signed is still held and may still be redeemed";
            return Err(Problem::new(Code::PaymentRefused, detail)
                .with("payment", id.to_string())
                .with("payment_state", state.public()));
        }
        let mut reply = Reply::paid(status, headers, id, &facts, state, &self.snapshot.config.gateway.currency);
        if let Some(transaction) = &transaction {
            reply.set("countersign-transaction", transaction);
        }
        let responses = &self.snapshot.config.responses;
        let keep = status.is_success() && responses.keep_ms > 0;
        let landing = Landing {
            payment: id,
            keep: keep.then(|| kept(status, &reply.headers)),
            max_bytes: usize::try_from(responses.max_bytes).unwrap_or(usize::MAX),
            success: status.is_success(),
            flight,
            lock: self.lock,
            place: self.place,
            step: self.trace.step(Step::Answer),
        };
        reply.body = stream_paid(self.gateway, body, landing, recorded);
        Ok(reply)
    }
}

fn judge_answer(status: StatusCode, receipt: Receipt) -> Outcome {
    match receipt {
        Receipt::Valid { transaction, .. } if status.is_success() => Outcome::Accepted(transaction),
        Receipt::Valid { .. } => Outcome::Ambiguous(format!("status {} with a receipt", status.as_u16())),
        Receipt::Absent => Outcome::Ambiguous(format!("status {} without a receipt", status.as_u16())),
        Receipt::Invalid { code, .. } => {
            Outcome::Ambiguous(format!("status {} with a receipt that is {code}", status.as_u16()))
        }
        Receipt::Failed { error_reason, .. } => Outcome::Ambiguous(format!(
            "status {}; the seller says the settlement failed: {error_reason}",
            status.as_u16()
        )),
    }
}

fn kept(status: StatusCode, headers: &HeaderMap) -> Answer {
    let text = |v: &http::HeaderValue| v.to_str().ok().map(str::to_owned);
    // Ours are told anew each time; what stood in for the seller's own headers is kept.
    let own =
        |n: &http::HeaderName| n.as_str().starts_with("countersign-") && !n.as_str().starts_with("countersign-seller-");
    let headers = headers.iter().filter(|(n, _)| !own(n)).filter_map(|(n, v)| Some((n.to_string(), text(v)?)));
    Answer { status: status.as_u16(), headers: headers.collect(), body: Vec::new() }
}

/// Applies a transition; what cannot be written now is found again by recovery.
pub(super) async fn note(
    gateway: &Gateway,
    payment: PaymentId,
    from: State,
    event: Event,
    why: String,
    evidence: Option<Box<Evidence>>,
) {
    let at = match gateway.clock.now() {
        Ok(at) => at,
        Err(error) => {
            tracing::error!(%payment, %error, "an outcome could not be recorded; the hold stays");
            return;
        }
    };
    let transition = Transition { payment, from, event, why, evidence, at };
    let again = (from == State::Signed && event != Event::SignerRefused)
        .then(|| Transition { from: State::Redeemable, ..transition.clone() });
    let mut noted = gateway.ledger.transition(transition).await;
    if let (Err(LedgerError::Conflict(_)), Some(again)) = (&noted, again) {
        // This process was taken for ended meanwhile, and what it had signed for being out there.
        noted = gateway.ledger.transition(again).await;
    }
    match noted {
        Ok(_) => {}
        Err(LedgerError::Conflict(why)) => tracing::debug!(%payment, why, "somebody else was first"),
        Err(error) => tracing::error!(%payment, %error, "an outcome could not be recorded; the hold stays"),
    }
}

/// What no answer to a paid request is to the agent.
const fn unanswered(error: &CallError) -> Code {
    match error {
        CallError::Broken(_) => Code::OutcomeUnknown,
        CallError::Unreachable(_) | CallError::Forbidden(_) => Code::SellerUnreachable,
    }
}

fn unsigned() -> Problem {
    Problem::new(Code::WalletUnavailable, "the wallet did not sign")
}

fn suspended(what: &str, payment: PaymentId, state: State) -> Problem {
    Problem::new(Code::Suspended, format!("an operator suspended {what}"))
        .with("payment", payment.to_string())
        .with("payment_state", state.public())
}

pub(super) fn unresolved(payment: &PaymentView) -> Problem {
    let detail =
        "an earlier payment of this purchase is unresolved, can no longer be presented, and must not be signed again";
    Problem::new(Code::PaymentUnknown, detail)
        .with("payment", payment.id.to_string())
        .with("payment_state", payment.state.public())
        .with("retry", false)
}
