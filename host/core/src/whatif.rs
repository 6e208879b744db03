//! What a recorded decision would have been with another opinion in it.
//!
//! Monitor mode, shadows and backtests all ask this, on counters of their own. What the host refused
//! for reasons of its own (a price ceiling, an empty wallet, a stop) stays refused: no policy changes
//! that.

use std::collections::BTreeMap;

use crate::budget::{HOST, PlacedHold, check_set};
use crate::counters::{Counters, Placement};
use crate::ledger::{BudgetRefusal, DecisionRecord};
use crate::time::Timestamp;
use crate::verdict::{Attributed, Combined, Judgement, Verdict, combine, combine_approved};

/// What a decision came to in fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was paid, or would have been but for what came after.
    Allowed,
    /// A policy asked people.
    Asked,
    /// A budget asked people, although the policies allowed.
    AskedByBudget,
    /// A policy said no, failed, or nobody allowed.
    Refused,
    /// A budget of this owner had no room.
    NoRoom(String),
    /// The host refused whatever policies say.
    HostRefused,
}

impl Outcome {
    /// What a record says. `asked`: it led to a review.
    #[must_use]
    pub fn of(record: &DecisionRecord, asked: bool) -> Self {
        match record.refusal.as_deref() {
            None if asked && combine(&record.judgement).verdict == Verdict::Allow => Self::AskedByBudget,
            None if asked => Self::Asked,
            None => Self::Allowed,
            Some("policy-denied" | "no-policy-allowed") => Self::Refused,
            Some("budget-exceeded") => {
                Self::NoRoom(record.reasons.last().map_or(HOST, |r| r.policy.as_str()).to_owned())
            }
            Some(_) => Self::HostRefused,
        }
    }

    /// As one verdict.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Allowed => Verdict::Allow,
            Self::Asked | Self::AskedByBudget => Verdict::Review,
            Self::Refused | Self::NoRoom(_) | Self::HostRefused => Verdict::Deny,
        }
    }
}

/// A decision in fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact<'a> {
    /// When.
    pub at: Timestamp,
    /// What it came to.
    pub outcome: &'a Outcome,
    /// The (policy, reason code) pairs people had approved before it, if they had.
    pub approved: Option<&'a [(String, String)]>,
}

/// What it would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hypothesis {
    /// Deny, review or allow.
    pub verdict: Verdict,
    /// Who decided it, with codes only.
    pub codes: Vec<(String, String)>,
    /// The budget that had no room.
    pub no_room: Option<Box<BudgetRefusal>>,
}

/// Hypothetical decisions, one after the other in time.
#[derive(Clone, Debug)]
pub struct WhatIf {
    /// Whose holds are hypothetical; every policy's, if none. All others are as they were.
    subject: Option<String>,
    counters: Counters,
}

impl WhatIf {
    /// With empty counters.
    #[must_use]
    pub fn new(subject: Option<String>) -> Self {
        Self { subject, counters: Counters::default() }
    }

    /// Windows that were forgotten although they still counted.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.counters.forgotten()
    }

    /// The next decision, with `judgement` in place of the one that was made.
    pub fn decide(&mut self, judgement: &Judgement, fact: &Fact<'_>) -> Hypothesis {
        let plain = combine(judgement);
        let combined = match fact.approved {
            Some(approved) => combine_approved(judgement, approved),
            None => plain.clone(),
        };
        if combined.verdict == Verdict::Deny {
            return told(&combined, Verdict::Deny);
        }
        let stays = match fact.outcome {
            Outcome::HostRefused => true,
            Outcome::NoRoom(owner) => owner == HOST || !self.is_subject(owner),
            _ => false,
        };
        if stays {
            return host(Verdict::Deny, "host-refused");
        }
        let holds = match self.holds(&combined, fact.at) {
            Ok(holds) => holds,
            Err(policy) => return by(Verdict::Deny, &policy, "policy-error"),
        };
        let passed = fact.approved.is_some_and(|a| a.iter().any(|(p, c)| p == HOST && c == BUDGET_REVIEW));
        match self.counters.check(&holds, fact.at) {
            Placement::Refused(why) => {
                Hypothesis { no_room: Some(why.clone()), ..by(Verdict::Deny, &why.owner, "budget-exceeded") }
            }
            Placement::Fits { review } => {
                let asks = (review && !passed) || *fact.outcome == Outcome::AskedByBudget;
                let verdict = if asks { Verdict::Review } else { combined.verdict };
                // One purchase counts once: where people were asked first, when they had approved;
                // where this would not have asked them, when they would have been.
                let first = fact.approved.is_some() && !passed && plain.verdict == Verdict::Allow;
                if verdict == Verdict::Allow && !first {
                    self.counters.place(&holds, fact.at, passed);
                }
                if asks && combined.verdict == Verdict::Allow {
                    return host(verdict, BUDGET_REVIEW);
                }
                told(&combined, verdict)
            }
        }
    }

    fn is_subject(&self, policy: &str) -> bool {
        self.subject.as_deref().is_none_or(|s| s == policy)
    }

    fn holds(&self, combined: &Combined, at: Timestamp) -> Result<Vec<PlacedHold>, String> {
        let wanted = combined.holds.iter().filter(|h| self.is_subject(&h.policy));
        let place =
            |h: &crate::verdict::PolicyHold| PlacedHold::place(&h.policy, &h.hold, at).map_err(|_| h.policy.clone());
        let holds = wanted.map(place).collect::<Result<Vec<_>, _>>()?;
        check_set(&holds).map_err(|_| HOST.to_owned())?;
        Ok(holds)
    }
}

/// What the ledger says when a budget asks.
const BUDGET_REVIEW: &str = "budget-review";

fn told(combined: &Combined, verdict: Verdict) -> Hypothesis {
    let pair = |a: &Attributed| (a.policy.clone(), a.reason.code.clone());
    Hypothesis { verdict, codes: combined.reasons.iter().map(pair).collect(), no_room: None }
}

fn by(verdict: Verdict, policy: &str, code: &str) -> Hypothesis {
    Hypothesis { verdict, codes: vec![(policy.to_owned(), code.to_owned())], no_room: None }
}

fn host(verdict: Verdict, code: &str) -> Hypothesis {
    by(verdict, HOST, code)
}

/// How often, and how much money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Decisions.
    pub count: u64,
    /// Their value in micros.
    pub value: u64,
}

impl Sum {
    /// One more.
    pub fn add(&mut self, value: u64) {
        self.count = self.count.saturating_add(1);
        self.value = self.value.saturating_add(value);
    }
}

/// Sums by something foreign, at most [`Sums::MOST`] of them; what comes later is `(other)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(BTreeMap<String, Sum>);

impl Sums {
    /// Different names that are kept apart.
    pub const MOST: usize = 200;
    /// The name of everything else.
    pub const OTHER: &'static str = "(other)";

    /// One more of this name.
    pub fn add(&mut self, name: &str, value: u64) {
        let full = self.0.len() >= Self::MOST && !self.0.contains_key(name);
        let name = if full { Self::OTHER } else { name };
        self.0.entry(name.to_owned()).or_default().add(value);
    }

    /// One more of this reason code. What is not a plain code is a message in disguise.
    pub fn add_code(&mut self, code: &str, value: u64) {
        let plain = (1..=64).contains(&code.len())
            && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        self.add(if plain { code } else { Self::OTHER }, value);
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Sum)> {
        self.0.iter().map(|(name, sum)| (name.as_str(), *sum))
    }
}

/// One kind of disagreement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flip {
    /// All of it.
    pub all: Sum,
    /// By the reason codes of what would have been.
    pub codes: Sums,
}

/// Facts beside hypotheses: verdicts, codes and sums, nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Decisions compared.
    pub decisions: Sum,
    /// Decisions in which the hypothetical budgets had no room.
    pub would_refuse: Sum,
    /// Disagreements by what was and what would have been.
    pub flips: BTreeMap<(Verdict, Verdict), Flip>,
}

impl Comparison {
    /// Compares one; answers whether they disagree.
    pub fn add(&mut self, was: Verdict, would: &Hypothesis, value: u64) -> bool {
        self.decisions.add(value);
        if would.no_room.is_some() {
            self.would_refuse.add(value);
        }
        if was == would.verdict {
            return false;
        }
        let flip = self.flips.entry((was, would.verdict)).or_default();
        flip.all.add(value);
        for (_, code) in &would.codes {
            flip.codes.add_code(code, value);
        }
        true
    }

    /// All disagreements.
    #[must_use]
    pub fn disagreements(&self) -> Sum {
        let mut all = Sum::default();
        for flip in self.flips.values() {
            all.count = all.count.saturating_add(flip.all.count);
            all.value = all.value.saturating_add(flip.all.value);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Decision, Hold, Mode, Opinion, Reason, Unit, Window};

    fn judgement(policy: &str, verdict: Verdict, code: &str, holds: &[u64]) -> Judgement {
        let hold = |amount: &u64| Hold {
            budget: "b".into(),
            unit: Unit::Micros,
            window: Window::Lifetime,
            limit: 10,
            amount: *amount,
            alert_at: None,
            review_at: None,
        };
        let reasons = vec![Reason::new(code, "words")];
        let holds = holds.iter().map(hold).collect();
        let decision = Decision { verdict, reasons, holds, review: None, obligations: vec![], notes: vec![] };
        let opinion = Opinion {
            policy: policy.into(),
            version: String::new(),
            module_sha256: String::new(),
            settings_sha256: String::new(),
            mode: Mode::Enforce,
            claims: false,
            outcome: Ok(decision),
            log: vec![],
            fuel: 0,
            micros: 0,
        };
        Judgement { generation: 1, opinions: vec![opinion] }
    }

    fn decide(what: &mut WhatIf, judgement: &Judgement, outcome: Outcome) -> Verdict {
        what.decide(judgement, &Fact { at: Timestamp::from_secs(1), outcome: &outcome, approved: None }).verdict
    }

    #[test]
    fn holds_run_out_in_the_hypothesis_alone() {
        let mut what = WhatIf::new(Some("caps".into()));
        let spend = judgement("caps", Verdict::Allow, "ok", &[6]);
        assert_eq!(decide(&mut what, &spend, Outcome::Allowed), Verdict::Allow);
        let second =
            what.decide(&spend, &Fact { at: Timestamp::from_secs(2), outcome: &Outcome::Allowed, approved: None });
        assert_eq!((second.verdict, second.codes), (Verdict::Deny, vec![("caps".into(), "budget-exceeded".into())]));
        assert!(second.no_room.is_some());
        let mut other = WhatIf::new(Some("else".into()));
        for _ in 0..3 {
            assert_eq!(decide(&mut other, &spend, Outcome::Allowed), Verdict::Allow, "its holds are real ones");
        }
    }

    #[test]
    fn what_the_host_refused_stays_refused_and_takes_no_room() {
        let mut what = WhatIf::new(Some("caps".into()));
        let spend = judgement("caps", Verdict::Allow, "ok", &[6]);
        for outcome in [Outcome::HostRefused, Outcome::NoRoom("host".into()), Outcome::NoRoom("other".into())] {
            assert_eq!(decide(&mut what, &spend, outcome), Verdict::Deny);
        }
        assert_eq!(decide(&mut what, &spend, Outcome::NoRoom("caps".into())), Verdict::Allow, "its own budget");
        assert_eq!(decide(&mut what, &spend, Outcome::NoRoom("caps".into())), Verdict::Deny);
    }

    #[test]
    fn a_purchase_that_waited_counts_once() {
        let asks = judgement("caps", Verdict::Review, "large", &[6]);
        let shown = [("caps".to_owned(), "large".to_owned())];
        let mut what = WhatIf::new(None);
        let mut next = |judgement: &Judgement, outcome, approved| {
            what.decide(judgement, &Fact { at: Timestamp::from_secs(1), outcome: &outcome, approved }).verdict
        };
        assert_eq!(next(&asks, Outcome::Asked, None), Verdict::Review);
        assert_eq!(next(&asks, Outcome::Allowed, Some(&shown)), Verdict::Allow);
        assert_eq!(next(&asks, Outcome::Asked, None), Verdict::Deny, "6 of 10 are gone: no room for 6 more");

        // A candidate that does not ask has spent it the first time.
        let easy = judgement("caps", Verdict::Allow, "ok", &[4]);
        let mut what = WhatIf::new(None);
        let mut next = |outcome, approved| {
            what.decide(&easy, &Fact { at: Timestamp::from_secs(1), outcome: &outcome, approved }).verdict
        };
        assert_eq!(next(Outcome::Asked, None), Verdict::Allow);
        assert_eq!(next(Outcome::Allowed, Some(&shown)), Verdict::Allow);
        assert_eq!(next(Outcome::Asked, None), Verdict::Allow, "8 of 10");
        assert_eq!(next(Outcome::Asked, None), Verdict::Deny);
    }

    #[test]
    fn rule_25_a_comparison_keeps_verdicts_codes_and_sums_only() {
        let mut seen = Comparison::default();
        let deny = |code: &str| by(Verdict::Deny, "caps", code);
        assert!(seen.add(Verdict::Allow, &deny("too-dear"), 5));
        assert!(!seen.add(Verdict::Deny, &deny("too-dear"), 5));
        assert!(seen.add(Verdict::Allow, &deny("the client's name is Acme"), 7));
        for n in 0..1_000 {
            seen.add(Verdict::Allow, &deny(&format!("code-{n}")), 1);
        }
        let text = format!("{seen:?}");
        assert!(text.contains("too-dear") && !text.contains("Acme"), "{text}");
        assert_eq!(seen.disagreements(), Sum { count: 1_002, value: 1_012 });
        assert!(seen.flips.values().all(|f| f.codes.iter().count() <= Sums::MOST + 1));
    }
}
