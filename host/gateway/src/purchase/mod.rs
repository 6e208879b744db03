//! The one purchase flow.
//!
//! ```text
//! request → identify → mandate → fetch → 402 → offers → decide → hold → sign → present → settle → answer
//! ```
//!
//! Every door ends in [`buy`]. There is no other path to a signature. A call runs in a task of its
//! own: an agent that hangs up changes nothing about what is recorded.

mod answer;
mod call;
mod decide;
mod earlier;
mod fetch;
mod pass;
mod present;
mod quote;
mod sign;
mod terms;
mod tool;
mod watched;

use std::sync::Arc;

use countersign_core::id::{PaymentId, PurchaseId};
use countersign_core::ledger::{Fingerprint, PaymentView, PurchaseKey};
use countersign_core::payment::State;
use countersign_core::seams::Signer;
use countersign_core::spend::Principal;
use tokio::sync::OwnedMutexGuard;
use tracing::{Instrument, info_span};

pub use answer::{Body, Reply, full};
pub use call::{Beside, Call, MAX_BODY};
pub(crate) use fetch::before_payment;
pub use pass::{Streamed, pass};
pub use quote::quote;
pub use sign::MAX_ORDER;
pub(crate) use tool::server as mcp_server;

use crate::admission::Place;
use crate::config::{Config, Door, MandateConfig};
use crate::identity::{self, Caller};
use crate::problem::{Code, Problem};
use crate::state::{Gateway, Snapshot};
use crate::telemetry::{Ended, Step, Trace, What, attributes};
use decide::Decided;
use earlier::Earlier;
use fetch::Fetched;

/// One purchase under way: everything pinned at its start, and once more after people were waited for.
pub(crate) struct Purchase {
    gateway: Arc<Gateway>,
    snapshot: Arc<Snapshot>,
    caller: Caller,
    call: Call,
    key: PurchaseKey,
    fingerprint: Fingerprint,
    door: Door,
    trace: Trace,
    /// Held until the answer has been passed on.
    place: Arc<Place>,
    /// Held to the end of the call: one call per purchase.
    lock: Option<OwnedMutexGuard<()>>,
    /// Held to the end of the call, where the payment is handed out: one call per request.
    exclusive: Option<OwnedMutexGuard<()>>,
}

/// Makes one call for an agent and pays for it if it must and may. `snapshot` is the one that knows the
/// caller: a newer one might not. `place` is the call's among those under way.
///
/// # Errors
/// Everything the gateway itself refuses.
pub async fn buy(
    gateway: Arc<Gateway>,
    snapshot: Arc<Snapshot>,
    caller: Caller,
    call: Call,
    door: Door,
    place: Arc<Place>,
) -> Result<Reply, Problem> {
    let trace = Trace::begin(&gateway, What::Purchase, call.parent);
    let span = info_span!(
        "purchase",
        trace = trace.id(),
        agent = caller.principal.agent,
        session = caller.principal.session,
        purchase = tracing::field::Empty,
        payment = tracing::field::Empty,
        host = call.target.host(),
        door = door.as_str(),
    );
    let task = tokio::spawn(run(gateway, snapshot, caller, call, door, place, trace).instrument(span));
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a purchase task ended abnormally");
        Err(Problem::new(Code::Overloaded, "the purchase ended abnormally; repeat it with the same purchase_id"))
    })
}

async fn run(
    gateway: Arc<Gateway>,
    snapshot: Arc<Snapshot>,
    caller: Caller,
    call: Call,
    door: Door,
    place: Arc<Place>,
    trace: Trace,
) -> Result<Reply, Problem> {
    trace.about(&snapshot, &caller, &call, door);
    let outcome = Box::pin(bought(gateway, snapshot, caller, call, door, place, trace.clone())).await;
    let ended = outcome.as_ref().map_or_else(|problem| Ended::of(problem.code), Reply::ended);
    trace.ends(door, ended, outcome.as_ref().err());
    outcome
}

async fn bought(
    gateway: Arc<Gateway>,
    snapshot: Arc<Snapshot>,
    caller: Caller,
    call: Call,
    door: Door,
    place: Arc<Place>,
    trace: Trace,
) -> Result<Reply, Problem> {
    let step = trace.clone();
    let opened = Purchase::open(gateway, snapshot, caller, call, door, place, trace);
    let purchase = step.during(Step::Identify, opened.instrument(info_span!("identify"))).await?;
    let id = purchase.key.purchase.to_string();
    tracing::Span::current().record("purchase", &id);
    step.say(&attributes::PURCHASE, id.as_str());
    let outcome = Box::pin(purchase.proceed()).await;
    outcome.map(|reply| reply.with_purchase(&id)).map_err(|problem| problem.with_default("purchase", id))
}

impl Purchase {
    /// Names the purchase: the agent's id, or the one it must join, or a new one.
    async fn open(
        gateway: Arc<Gateway>,
        snapshot: Arc<Snapshot>,
        caller: Caller,
        call: Call,
        door: Door,
        place: Arc<Place>,
        trace: Trace,
    ) -> Result<Self, Problem> {
        let fingerprint = call.fingerprint(&gateway.key);
        let workspace = caller.principal.workspace.clone().unwrap_or_default();
        let agent = caller.principal.agent.clone();
        let exclusive = match &call.elsewhere {
            Some(_) => Some(exclusive(&gateway, &workspace, &agent, fingerprint).await?),
            None => None,
        };
        let open = unresolved(&gateway, &workspace, &agent, fingerprint).await?;
        let purchase = match (&call.purchase, open) {
            (Some(id), Some(open)) if open.key.purchase != *id => return Err(joins_another(&open)),
            (Some(id), _) => id.clone(),
            (None, Some(open)) => open.key.purchase,
            (None, None) => {
                let now = gateway.clock.now()?;
                PurchaseId::mint(now, crate::clock::random(&*gateway.clock)?)
            }
        };
        let key = PurchaseKey { workspace, agent, purchase };
        let lock = Some(gateway.flights.lock(&key).await.ok_or_else(crowded)?);
        Ok(Self { gateway, snapshot, caller, call, key, fingerprint, door, trace, place, lock, exclusive })
    }

    async fn proceed(mut self) -> Result<Reply, Problem> {
        let step = self.trace.step(Step::Mandate);
        let mut mandate = info_span!("mandate").in_scope(|| self.mandate().cloned())?;
        drop(step);
        self.trace.under(&mandate);
        let mut signer = self.signer(&mandate)?;
        let latest = self.gateway.ledger.latest(self.key.clone()).await?;
        let resumption = match self.earlier(latest).await? {
            Earlier::Answer(reply) => return Ok(*reply),
            Earlier::Represent(payment) => return Box::pin(self.represent(*payment)).await,
            Earlier::Resume(resumption) => {
                (mandate, signer) = self.pin_again().await?;
                Some(resumption)
            }
            Earlier::Nothing => None,
        };
        let payer = signer.address();
        let visit = match self.visit(&mandate, payer).instrument(info_span!("fetch")).await? {
            Fetched::Free(reply) => return Ok(reply),
            Fetched::Payable(visit) => visit,
        };
        let (decided, visit) = match self.decide(&mandate, &visit, payer, resumption).await? {
            Decided::Wait(approval) => {
                let Some(approved) = self.wait_for(&approval).await? else {
                    return Err(self.approval_required(&approval));
                };
                (mandate, signer) = self.pin_again().await?;
                let payer = signer.address();
                // The approved purchase is made anew, from a fresh 402.
                let visit = match self.visit(&mandate, payer).instrument(info_span!("fetch")).await? {
                    Fetched::Free(reply) => return Ok(reply),
                    Fetched::Payable(visit) => visit,
                };
                (self.decide(&mandate, &visit, payer, Some(approved)).await?, visit)
            }
            decided => (decided, visit),
        };
        match decided {
            Decided::Pay(granted) => Box::pin(self.sign_and_present(*granted, &*signer, visit)).await,
            Decided::Wait(approval) => Err(self.approval_required(&approval)),
        }
    }

    /// Caller, mandate and policies as they are now: people may have taken long to speak, and what was
    /// removed or tightened meanwhile holds for what they approved too.
    async fn pin_again(&mut self) -> Result<(MandateConfig, Arc<dyn Signer>), Problem> {
        let snapshot = self.gateway.live.load_full();
        let now = self.gateway.clock.now()?;
        let caller = identity::again(&self.caller, &self.gateway, &snapshot.config, now).await?;
        let same = |p: &Principal| {
            (p.workspace.as_deref().unwrap_or_default(), &p.agent) == (&*self.key.workspace, &self.key.agent)
        };
        if !same(&caller.principal) || caller.session != self.caller.session || !caller.is_for(&self.caller.principal) {
            let detail = "the token names somebody else than when this purchase began; nothing was signed";
            return Err(Problem::new(Code::PurchaseConflict, detail));
        }
        (self.snapshot, self.caller) = (snapshot, caller);
        let mandate = self.mandate()?.clone();
        self.trace.under(&mandate);
        self.trace.say(&attributes::GENERATION, self.snapshot.generation);
        let signer = self.signer(&mandate)?;
        Ok((mandate, signer))
    }

    fn signer(&self, mandate: &MandateConfig) -> Result<Arc<dyn Signer>, Problem> {
        let found = self.gateway.signers.get(&mandate.wallet).cloned();
        found.ok_or_else(|| {
            let detail = format!("wallet `{}` was not there when the gateway started; restart it", mandate.wallet);
            Problem::new(Code::WalletUnavailable, detail)
        })
    }

    fn mandate(&self) -> Result<&MandateConfig, Problem> {
        mandate(&self.snapshot.config, &self.caller.principal, self.door)
    }

    fn principal(&self) -> &Principal {
        &self.caller.principal
    }

    fn fresh_payment(&self) -> Result<PaymentId, Problem> {
        let now = self.gateway.clock.now()?;
        Ok(PaymentId::new(now, crate::clock::random(&*self.gateway.clock)?))
    }
}

/// The mandate under which somebody may come through a door.
pub(crate) fn mandate<'a>(config: &'a Config, principal: &Principal, door: Door) -> Result<&'a MandateConfig, Problem> {
    let found = config.mandates.iter().find(|m| m.when.matches(principal));
    let mandate = found
        .ok_or_else(|| Problem::new(Code::NoMandate, format!("no [[mandate]] matches agent `{}`", principal.agent)))?;
    if mandate.require_session && principal.session.is_none() {
        let detail = format!("mandate `{}` requires a session token", mandate.name);
        return Err(Problem::new(Code::NoMandate, detail));
    }
    if !mandate.doors.contains(&door) {
        let detail = format!("mandate `{}` does not list the door `{}`", mandate.name, door.as_str());
        return Err(Problem::new(Code::NoMandate, detail));
    }
    Ok(mandate)
}

/// Waits until no equal request is at the remote signer. Calls that a gateway makes at the same time are purchases of their
/// own, because each ends with an answer; what is handed out ends with nothing that tells it from a repeat.
async fn exclusive(
    gateway: &Gateway,
    workspace: &str,
    agent: &str,
    fingerprint: Fingerprint,
) -> Result<OwnedMutexGuard<()>, Problem> {
    let named = PurchaseId::parse(&hex::encode(fingerprint.0));
    let purchase = named.map_err(|e| Problem::new(Code::BadRequest, e.to_string()))?;
    // No workspace is called so, and no purchase is locked by this name.
    let key = PurchaseKey { workspace: format!("\0{workspace}"), agent: agent.to_owned(), purchase };
    gateway.flights.lock(&key).await.ok_or_else(crowded)
}

fn crowded() -> Problem {
    Problem::new(Code::Overloaded, "too many calls wait for this purchase already")
}

/// The payment of this very request that is in review, or whose call ended without delivering a 2xx. What was
/// handed out ends when the chain has proven it: nobody here sees what it delivers.
async fn unresolved(
    gateway: &Gateway,
    workspace: &str,
    agent: &str,
    fingerprint: Fingerprint,
) -> Result<Option<PaymentView>, Problem> {
    let done = |p: &PaymentView| p.state.is_spent() && sign::was_handed_out(p);
    for seen in gateway.ledger.unfinished(workspace.to_owned(), agent.to_owned(), fingerprint).await? {
        if done(&seen) || gateway.flights.is_in_the_air(seen.id).await {
            continue;
        }
        // Its call may have ended since the list was read; a flight ends only when all is recorded.
        let now = gateway.ledger.payment(seen.id).await?;
        let open =
            |p: &PaymentView| p.state == State::Review || (p.state.has_authorization() && !p.delivered && !done(p));
        if let Some(payment) = now.filter(open) {
            return Ok(Some(payment));
        }
    }
    Ok(None)
}

/// The same request under another id: two live authorizations for one thing.
fn joins_another(open: &PaymentView) -> Problem {
    let detail = format!(
        "this very request is unresolved as purchase `{}`; repeat it with that purchase_id, or with none",
        open.key.purchase
    );
    Problem::new(Code::PaymentUnknown, detail)
        .with("purchase", open.key.purchase.as_str())
        .with("payment", open.id.to_string())
        .with("payment_state", open.state.public())
        .with("retry", false)
}
