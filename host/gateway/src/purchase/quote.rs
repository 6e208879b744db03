//! `POST /v1/quote`: what a purchase would cost and what would be decided, without buying.
//!
//! The seller is asked once, without payment, and the policies judge as they would: they cannot tell.
//! Nothing is held, nothing is signed, and the answer promises nothing: budgets and prices move.

use std::sync::Arc;

use countersign_core::budget::{BudgetId, HOST, PlacedHold};
use countersign_core::evm::Address;
use countersign_core::id::PurchaseId;
use countersign_core::ledger::{BudgetRefusal, BudgetView, Note, PurchaseKey};
use countersign_core::seams::Judge;
use countersign_core::verdict::{Attributed, Verdict, combine};
use serde_json::{Value, json};
use tracing::{Instrument, info_span};

use super::decide::{Candidate, MAX_CANDIDATES};
use super::fetch::{Fetched, Visit};
use super::{Call, Purchase};
use crate::admission::Place;
use crate::clock::random;
use crate::config::{Door, MandateConfig};
use crate::identity::Caller;
use crate::problem::{Code, Problem};
use crate::state::{Gateway, Snapshot};
use crate::telemetry::{Ended, Step, Trace, What};
use crate::views::{self, Viewer};

/// Longest path a quote's record carries, in bytes.
const MAX_PATH: usize = 256;

/// What would be decided about one offer.
struct Appraisal {
    price: Value,
    verdict: Verdict,
    reasons: Vec<Value>,
    budgets: Vec<Value>,
}

impl Appraisal {
    fn view(self) -> Value {
        json!({"price": self.price, "verdict": self.verdict, "reasons": self.reasons, "budgets": self.budgets})
    }
}

/// What a purchase would cost and what would be decided about it.
///
/// # Errors
/// What is wrong with the call, or keeps the gateway from judging now. What a purchase would be refused
/// for is no error but the verdict `deny`.
pub async fn quote(
    gateway: Arc<Gateway>,
    snapshot: Arc<Snapshot>,
    caller: Caller,
    call: Call,
    door: Door,
    place: Arc<Place>,
) -> Result<Value, Problem> {
    let now = gateway.clock.now()?;
    let agent = caller.principal.agent.clone();
    if !gateway.rate.admit(&agent, snapshot.config.limits.purchases_per_agent_per_minute, now) {
        return Err(Problem::new(Code::RateLimited, "this agent caused too many decisions in the last minute"));
    }
    let purchase = match &call.purchase {
        Some(id) => id.clone(),
        None => PurchaseId::mint(now, random(&*gateway.clock)?),
    };
    let workspace = caller.principal.workspace.clone().unwrap_or_default();
    let key = PurchaseKey { workspace, agent: agent.clone(), purchase };
    let trace = Trace::begin(&gateway, What::Quote, call.parent);
    trace.about(&snapshot, &caller, &call, door);
    let span = info_span!("quote", trace = trace.id(), agent, host = call.target.host(), door = door.as_str());
    let fingerprint = call.fingerprint(&gateway.key);
    // No lock: a quote neither joins a purchase nor keeps one waiting.
    let (lock, exclusive) = (None, None);
    let purchase = Purchase { gateway, snapshot, caller, call, key, fingerprint, door, trace, place, lock, exclusive };
    // A task of its own, so that whoever hangs up does not choose what is recorded.
    let quoted = async move {
        let trace = purchase.trace.clone();
        let quoted = Box::pin(purchase.quoted()).await;
        if let Err(problem) = &quoted {
            trace.concludes(Ended::of(problem.code), Some(problem));
        }
        quoted
    };
    let task = tokio::spawn(quoted.instrument(span));
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a quote's task ended abnormally");
        Err(Problem::new(Code::Overloaded, "the quote ended abnormally; nothing was signed"))
    })
}

impl Purchase {
    async fn quoted(self) -> Result<Value, Problem> {
        match Box::pin(self.appraise()).await {
            Ok(appraisal) => Ok(appraisal.view()),
            Err(problem) if is_refusal(problem.code) => {
                let policy = problem.member("policy").cloned().unwrap_or_else(|| HOST.into());
                let reason = json!({"code": problem.code.code(), "message": problem.detail, "policy": policy});
                Ok(json!({"price": null, "verdict": Verdict::Deny, "reasons": [reason], "budgets": []}))
            }
            Err(problem) => Err(problem),
        }
    }

    async fn appraise(&self) -> Result<Appraisal, Problem> {
        let mandate = self.mandate()?.clone();
        let payer = self.signer(&mandate)?.address();
        let visit = match self.fetch(payer).instrument(info_span!("fetch")).await? {
            // The body is dropped: a quote buys nothing, what is free included.
            Fetched::Free(_) => {
                return Ok(Appraisal { price: Value::Null, verdict: Verdict::Allow, reasons: vec![], budgets: vec![] });
            }
            Fetched::Payable(visit) => visit,
        };
        self.cheapest(&mandate, &visit, payer).await
    }

    /// The first offer that would not be refused; else the first.
    async fn cheapest(&self, mandate: &MandateConfig, visit: &Visit, payer: Address) -> Result<Appraisal, Problem> {
        visit.route.carries_payments()?;
        let offers = self.payable(mandate, visit, self.gateway.clock.now()?)?;
        let mut first = None;
        for priced in offers.into_iter().take(MAX_CANDIDATES) {
            let candidate = self.describe(mandate, priced).await?;
            self.trace.offered(&candidate.facts);
            let appraisal = self.judged(mandate, payer, &candidate).await?;
            self.record_quote(&candidate, &appraisal).await?;
            if appraisal.verdict != Verdict::Deny {
                return Ok(appraisal);
            }
            first.get_or_insert(appraisal);
        }
        first.ok_or_else(|| Problem::new(Code::UnpayableOffer, "none of the seller's offers can be paid"))
    }

    async fn judged(
        &self,
        mandate: &MandateConfig,
        payer: Address,
        candidate: &Candidate,
    ) -> Result<Appraisal, Problem> {
        let price = self.price(candidate);
        let denied = |reasons| Appraisal { price: price.clone(), verdict: Verdict::Deny, reasons, budgets: vec![] };
        if let Some(refused) = self.too_dear(candidate) {
            return Ok(denied(vec![by_host(refused.problem.code.code(), &refused.problem.detail)]));
        }
        let turn = self.turn().await?;
        let mut step = self.trace.step(Step::Decide);
        let judgement = info_span!("decide", decision = %candidate.request.id).in_scope(|| {
            let (judge, policies, request): (&dyn Judge, _, _) =
                (&*self.snapshot, &mandate.policies, &candidate.request);
            tokio::task::block_in_place(|| judge.judge(policies, request))
        });
        drop(turn);
        step.judged(&judgement);
        drop(step);
        let combined = combine(&judgement);
        self.trace.judged(&combined);
        let mut reasons = self.tell(&combined.reasons);
        if combined.verdict == Verdict::Deny {
            return Ok(denied(reasons));
        }
        if let Some(scope) = self.gateway.stopped(&candidate.facts).await {
            return Ok(denied(vec![by_host(Code::Suspended.code(), &format!("an operator suspended {scope}"))]));
        }
        if let Some(refused) = self.not_covered(mandate, payer, candidate, &judgement).await {
            return Ok(denied(vec![by_host(refused.problem.code.code(), &refused.problem.detail)]));
        }
        let at = candidate.request.at;
        let holds = match self.place(candidate, &combined, at) {
            Ok(holds) => holds,
            Err((policy, why)) => {
                let reason = countersign_core::verdict::Reason::new("policy-error", why);
                return Ok(denied(self.tell(&[Attributed { policy, reason }])));
            }
        };
        let known = self.gateway.ledger.budgets(at).await?;
        let (mut verdict, mut budgets) = (combined.verdict, Vec::new());
        for hold in &holds {
            let used = used(&known, hold);
            budgets.extend(self.room(hold, used));
            if hold.amount > hold.limit.saturating_sub(used) {
                let refusal = BudgetRefusal {
                    owner: hold.owner.clone(),
                    name: hold.name.clone(),
                    unit: hold.unit,
                    window: hold.window.clone(),
                    limit: hold.limit,
                    used,
                    wanted: hold.amount,
                };
                let problem = self.budget_exceeded(&refusal);
                let reason = json!({"code": problem.code.code(), "message": problem.detail, "policy": hold.owner});
                return Ok(Appraisal { budgets, ..denied(vec![reason]) });
            }
            if hold.review_at.is_some_and(|at| used < at && used.saturating_add(hold.amount) >= at) {
                verdict = Verdict::Review;
                reasons.push(by_host("budget-review", "a budget asks people from this much on"));
            }
        }
        Ok(Appraisal { price, verdict, reasons, budgets })
    }

    fn price(&self, candidate: &Candidate) -> Value {
        let facts = &candidate.facts;
        json!({
            "amount": facts.value.to_string(),
            "currency": self.snapshot.config.gateway.currency,
            "asset": facts.asset_symbol,
            "network": facts.network,
        })
    }

    /// What is left of a budget, if it is the caller's own.
    fn room(&self, hold: &PlacedHold, used: u64) -> Option<Value> {
        let amount = |n| views::amount(n, hold.unit);
        Viewer::Agent(self.principal()).sees(&hold.name).then(|| {
            json!({
                "budget": hold.label(),
                "window": views::window(&hold.window),
                "unit": views::unit(hold.unit, &self.snapshot.config.gateway.currency),
                "limit": amount(hold.limit),
                "available": amount(hold.limit.saturating_sub(used)),
                "amount": amount(hold.amount),
            })
        })
    }

    /// That somebody asked is a record too: a quote is a way to find out what policies allow.
    async fn record_quote(&self, candidate: &Candidate, appraisal: &Appraisal) -> Result<(), Problem> {
        let facts = &candidate.facts;
        let code = |reason: &Value| json!({"policy": reason.get("policy"), "code": reason.get("code")});
        let body = json!({
            "decision": candidate.request.id,
            "workspace": self.key.workspace,
            "session": self.caller.session,
            "door": self.door.as_str(),
            "mandate": facts.mandate,
            "generation": self.snapshot.generation,
            "method": facts.method,
            "host": facts.host,
            "path": facts.path.get(..facts.path.floor_char_boundary(MAX_PATH)),
            "pay_to": facts.pay_to,
            "network": facts.network,
            "value": facts.value.to_string(),
            "verdict": appraisal.verdict,
            "reasons": appraisal.reasons.iter().map(code).collect::<Vec<_>>(),
        });
        let note = Note { kind: "quote", by: self.key.agent.clone(), body, at: candidate.request.at };
        Ok(self.gateway.ledger.note(note).await?)
    }
}

/// What a budget's window holds and has spent already.
fn used(known: &[BudgetView], hold: &PlacedHold) -> u64 {
    let budget = hold.budget();
    let same = |b: &&BudgetView| b.win == hold.win && BudgetId::of(&b.owner, &b.name, b.unit, &b.window) == budget;
    known.iter().find(same).map_or(0, |b| b.held.saturating_add(b.spent))
}

fn by_host(code: &str, message: &str) -> Value {
    json!({"code": code, "message": message, "policy": HOST})
}

/// Whether a purchase would be refused for good reasons, rather than not be looked at.
const fn is_refusal(code: Code) -> bool {
    !matches!(
        code,
        Code::BadRequest
            | Code::Unauthenticated
            | Code::SessionExpired
            | Code::RateLimited
            | Code::Overloaded
            | Code::LedgerUnavailable
            | Code::WalletUnavailable
    )
}
