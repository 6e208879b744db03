//! Backtest: what recorded purchases would have come to under another policy, or another file.
//!
//! Reports verdicts, codes and sums. What a candidate says in words (messages, notes, logs) is dropped.

use std::sync::Arc;

use countersign_core::id::PaymentId;
use countersign_core::ledger::{Ledger, LedgerError, Past, PastDecision};
use countersign_core::money::Micros;
use countersign_core::seams::Judge;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Judgement, Verdict, Window};
use countersign_core::whatif::{Comparison, Fact, Outcome, Sum, Sums, WhatIf};
use countersign_engine::{Engine, PolicySet, PolicySpec, StageError};

use super::{PATIENCE_MS, Stream};
use crate::config::MandateConfig;
use crate::shadow::with_opinion;

/// Useful purchases that are listed one by one.
const MOST_LISTED: usize = 100;
const DAY_MS: u64 = 86_400_000;

/// What takes the place of what judged.
pub struct Candidate {
    set: PolicySet,
    place: Place,
}

enum Place {
    /// That of one policy.
    Policy(String),
    /// That of every policy: mandates and all.
    Everything(Vec<MandateConfig>),
}

/// A useful purchase that would not have been made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its payment.
    pub payment: PaymentId,
    /// Who bought it.
    pub agent: String,
    /// From whom.
    pub host: String,
    /// For how much.
    pub value: Micros,
    /// What it would have come to.
    pub to: Verdict,
}

/// What a backtest found.
#[derive(Clone, Debug, Default)]
pub struct Backtest {
    /// Facts beside hypotheses.
    pub seen: Comparison,
    /// Decisions in which the candidate has no say.
    pub not_concerned: u64,
    /// Decisions before the beginning that filled the counters.
    pub warmed: u64,
    /// Disagreements by agent.
    pub by_agent: Sums,
    /// Disagreements by seller.
    pub by_vendor: Sums,
    /// Purchases judged useful that would not simply have been made.
    pub lost: Sum,
    /// The first of them.
    pub lost_list: Vec<Lost>,
    /// Windows that were forgotten although they still counted.
    pub forgotten: u64,
}

impl Candidate {
    /// A policy in the place of the one of its name.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn policy(engine: &Arc<Engine>, spec: PolicySpec) -> Result<Self, StageError> {
        let place = Place::Policy(spec.name.clone());
        let set = engine.stage(0, &[PolicySpec { deadline_ms: PATIENCE_MS, ..spec }])?;
        Ok(Self { set, place })
    }

    /// A whole configuration's policies, under its mandates.
    ///
    /// # Errors
    /// When one cannot be loaded.
    pub fn everything(
        engine: &Arc<Engine>,
        specs: Vec<PolicySpec>,
        mandates: Vec<MandateConfig>,
    ) -> Result<Self, StageError> {
        let patient = |spec| PolicySpec { deadline_ms: PATIENCE_MS, ..spec };
        let specs: Vec<PolicySpec> = specs.into_iter().map(patient).collect();
        Ok(Self { set: engine.stage(0, &specs)?, place: Place::Everything(mandates) })
    }

    fn subject(&self) -> Option<String> {
        match &self.place {
            Place::Policy(name) => Some(name.clone()),
            Place::Everything(_) => None,
        }
    }

    /// The judgement with the candidate in it; none where it has no say.
    fn judge(&self, decision: &PastDecision) -> Option<Judgement> {
        let (request, recorded) = (&decision.record.request, &decision.record.judgement);
        match &self.place {
            // Without opinions the host refused before anybody was asked.
            _ if recorded.opinions.is_empty() => None,
            Place::Policy(name) => {
                recorded.opinions.iter().find(|o| o.policy == *name)?;
                let opinion = self.set.judge(std::slice::from_ref(name), request).opinions.into_iter().next()?;
                Some(with_opinion(recorded, opinion))
            }
            Place::Everything(mandates) => {
                let mandate = mandates.iter().find(|m| m.when.matches(&request.principal));
                let policies = mandate.map_or(&[][..], |m| m.policies.as_slice());
                Some(self.set.judge(policies, request))
            }
        }
    }
}

/// One window before `since`, so that budgets begin as full as they were: the widest window that the
/// candidate holds in the first decisions since then.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn warm_from(ledger: &dyn Ledger, candidate: &Candidate, since: Timestamp) -> Result<Timestamp, LedgerError> {
    let mut widest = 0;
    for decision in Stream::new(ledger, Past::since(since)).page().await? {
        let judgement = candidate.judge(&decision);
        let subject = candidate.subject();
        let opinions = judgement.iter().flat_map(|j| &j.opinions);
        let mine = opinions.filter(|o| subject.as_ref().is_none_or(|s| o.policy == *s));
        let holds = mine.filter_map(|o| o.outcome.as_ref().ok()).flat_map(|d| &d.holds);
        widest = holds.map(|h| width(&h.window)).fold(widest, u64::max);
    }
    Ok(since.minus_millis(widest))
}

fn width(window: &Window) -> u64 {
    match window {
        Window::Rolling(seconds) => u64::from(*seconds).saturating_mul(1_000),
        Window::Day(_) => DAY_MS,
        Window::Month(_) => DAY_MS.saturating_mul(31),
        Window::Lifetime => u64::MAX,
    }
}

/// Runs a candidate over everything recorded since `from`; what was before `since` only fills the
/// counters. `progress` is told of every page.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn backtest(
    ledger: &dyn Ledger,
    candidate: &Candidate,
    (from, since): (Timestamp, Timestamp),
    mut progress: impl FnMut(u64),
) -> Result<Backtest, LedgerError> {
    let mut found = Backtest::default();
    let mut whatif = WhatIf::new(candidate.subject());
    let mut stream = Stream::new(ledger, Past::since(from));
    loop {
        let page = stream.page().await?;
        if page.is_empty() {
            found.forgotten = whatif.forgotten();
            return Ok(found);
        }
        for decision in &page {
            found.one(candidate, &mut whatif, decision, since);
        }
        progress(u64::try_from(page.len()).unwrap_or(u64::MAX));
    }
}

impl Backtest {
    fn one(&mut self, candidate: &Candidate, whatif: &mut WhatIf, decision: &PastDecision, since: Timestamp) {
        let request = &decision.record.request;
        let counts = request.at >= since;
        let Some(judgement) = candidate.judge(decision) else {
            self.not_concerned = self.not_concerned.saturating_add(u64::from(counts));
            return;
        };
        let outcome = Outcome::of(&decision.record, decision.asked);
        let fact = Fact { at: request.at, outcome: &outcome, approved: decision.approved.as_deref() };
        let would = whatif.decide(&judgement, &fact);
        if !counts {
            self.warmed = self.warmed.saturating_add(1);
            return;
        }
        let (was, value) = (outcome.verdict(), request.payment.value);
        if !self.seen.add(was, &would, value.get()) {
            return;
        }
        self.by_agent.add(&request.principal.agent, value.get());
        self.by_vendor.add(&request.purchase.host, value.get());
        if was == Verdict::Allow && decision.useful == Some(true) {
            self.lost.add(value.get());
            if self.lost_list.len() < MOST_LISTED {
                self.lost_list.push(Lost {
                    payment: decision.payment,
                    agent: request.principal.agent.clone(),
                    host: request.purchase.host.clone(),
                    value,
                    to: would.verdict,
                });
            }
        }
    }
}
