//! What policies answer, and how the answers combine.
//!
//! `deny > review > allow > abstain`. The combination is *allow* only if at least one policy
//! allowed, none denied or asked for review, and none failed. A failure of any kind is a deny with
//! its own code. Monitor-mode policies are recorded and count for nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spend::Attribute;

/// A policy's opinion, strongest first, so that combining is taking the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Object; nothing overrides it.
    Deny,
    /// Ask people.
    Review,
    /// Approve, provided every hold can be placed.
    Allow,
    /// No opinion; holds and obligations still count.
    Abstain,
}

impl Verdict {
    /// Every verdict, strongest first.
    pub const ALL: [Self; 4] = [Self::Deny, Self::Review, Self::Allow, Self::Abstain];

    /// `deny`, `review`, `allow` or `abstain`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Review => "review",
            Self::Allow => "allow",
            Self::Abstain => "abstain",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why. `code` is stable kebab-case for programs, `message` is for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable kebab-case.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Reason {
    /// A reason from its two parts.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

/// Who must approve a review.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewTerms {
    /// Operator group; none: any approver.
    pub group: Option<String>,
    /// How many approvers. Zero means "the configured number".
    pub quorum: u8,
    /// How long the review stays open. Zero means "the configured time".
    pub expires_in_seconds: u32,
}

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Millionths of the reference currency.
    Micros,
    /// Things.
    Count,
}

/// The span of time a budget is limited over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "of")]
pub enum Window {
    /// The last n seconds.
    Rolling(u32),
    /// The calendar day in an IANA zone; empty for UTC.
    Day(String),
    /// The calendar month in an IANA zone; empty for UTC.
    Month(String),
    /// Since the budget was first used.
    Lifetime,
}

/// "Reserve `amount` in `budget`, if that keeps the window at or under `limit`."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// A path such as `client/acme`, not yet prefixed with the policy's name.
    pub budget: String,
    /// What it counts.
    pub unit: Unit,
    /// Over which span.
    pub window: Window,
    /// The most the window may hold.
    pub limit: u64,
    /// What to reserve.
    pub amount: u64,
    /// Reaching this tells the operator, once per window.
    pub alert_at: Option<u64>,
    /// Reaching this turns an allow into a review.
    pub review_at: Option<u64>,
}

/// Something the host must do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obligation {
    /// Which; an unknown kind turns the decision into a deny.
    pub kind: String,
    /// With what.
    pub params: Vec<Attribute>,
}

/// One policy's whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The opinion.
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Budgets to hold.
    pub holds: Vec<Hold>,
    /// Only read when the verdict is review.
    pub review: Option<ReviewTerms>,
    /// Things the host must do.
    pub obligations: Vec<Obligation>,
    /// Recorded, never interpreted.
    pub notes: Vec<Attribute>,
}

/// How a policy failed. Each is a deny; each keeps its own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// It trapped.
    Trap,
    /// It passed its wall-clock deadline. Not replayable.
    Timeout,
    /// It used up its instructions. Replayable.
    Fuel,
    /// It answered with an error, or with something outside the contract.
    Error,
    /// It answered more than the host accepts.
    Oversize,
    /// It is named by a mandate and is not there, or failed to load at first start.
    Unavailable,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Trap, Self::Timeout, Self::Fuel, Self::Error, Self::Oversize, Self::Unavailable];

    /// The reason code agents and records see.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Trap => "policy-trap",
            Self::Timeout => "policy-timeout",
            Self::Fuel => "policy-fuel",
            Self::Error => "policy-error",
            Self::Oversize => "policy-oversize",
            Self::Unavailable => "policy-unavailable",
        }
    }
}

/// A failure with its story. The message is for the record and the operator, not for agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which kind.
    pub kind: FailureKind,
    /// What happened.
    pub message: String,
}

/// Whether a policy's answer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It counts.
    #[default]
    Enforce,
    /// It is recorded as what it would have been, and takes no holds.
    Monitor,
}

/// A line a policy wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// Untrusted text.
    pub message: String,
}

/// One policy's part in a judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opinion {
    /// The configured name of the policy.
    pub policy: String,
    /// The version its module describes itself as.
    pub version: String,
    /// SHA-256 of the module's bytes, lower-case hex.
    pub module_sha256: String,
    /// SHA-256 of the settings document as `configure` received it, lower-case hex.
    pub settings_sha256: String,
    /// Whether it counts.
    pub mode: Mode,
    /// Whether it was shown the request's claims.
    pub claims: bool,
    /// The answer, or how it failed.
    pub outcome: Result<Decision, Failure>,
    /// What it logged.
    pub log: Vec<LogLine>,
    /// Instructions it used, in fuel units.
    pub fuel: u64,
    /// Wall-clock microseconds it took; for people, never for replay.
    pub micros: u64,
}

/// The answers of every policy of a mandate, on one pinned set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The policy set's generation.
    pub generation: u64,
    /// In the mandate's order.
    pub opinions: Vec<Opinion>,
}

/// A reason with the policy that gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributed {
    /// The configured name of the policy, or `host`.
    pub policy: String,
    /// What it said.
    pub reason: Reason,
}

/// A hold with the policy that asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyHold {
    /// The configured name of the policy.
    pub policy: String,
    /// What it asked for.
    pub hold: Hold,
}

/// The one answer that comes of many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Combined {
    /// Deny, review or allow; never abstain.
    pub verdict: Verdict,
    /// Reasons of the policies that decided it.
    pub reasons: Vec<Attributed>,
    /// Holds of every enforcing policy, in order; empty on a deny.
    pub holds: Vec<PolicyHold>,
    /// What each policy that asks demands; only on a review. See [`crate::terms`].
    pub review: Option<Vec<ReviewTerms>>,
}

/// The code of a decision in which nobody objected and nobody allowed.
pub const NO_POLICY_ALLOWED: &str = "no-policy-allowed";

/// Combines the opinions of one judgement. Order never changes the verdict.
#[must_use]
pub fn combine(judgement: &Judgement) -> Combined {
    let enforcing = || judgement.opinions.iter().filter(|o| o.mode == Mode::Enforce);
    let verdict = enforcing().map(effective).min().unwrap_or(Verdict::Abstain);
    let reasons: Vec<Attributed> = enforcing().filter(|o| effective(o) == verdict).flat_map(reasons_of).collect();
    match verdict {
        Verdict::Deny => Combined { verdict, reasons, holds: Vec::new(), review: None },
        Verdict::Abstain => {
            let why = Reason::new(NO_POLICY_ALLOWED, "no policy of the mandate allowed this purchase");
            let reasons = vec![Attributed { policy: "host".to_owned(), reason: why }];
            Combined { verdict: Verdict::Deny, reasons, holds: Vec::new(), review: None }
        }
        Verdict::Review | Verdict::Allow => {
            let holds = enforcing().flat_map(holds_of).collect();
            let review = (verdict == Verdict::Review).then(|| demands(enforcing()));
            Combined { verdict, reasons, holds, review }
        }
    }
}

/// A resumed purchase: what people approved counts as allowed, everything else is as strict as
/// before. `approved` lists the (policy, reason code) pairs the approver was shown.
///
/// A policy that still only abstains does not allow; the review itself stands for the allow.
#[must_use]
pub fn combine_approved(judgement: &Judgement, approved: &[(String, String)]) -> Combined {
    let combined = combine(judgement);
    if combined.verdict != Verdict::Review {
        return combined;
    }
    let shown = |a: &Attributed| approved.iter().any(|(p, c)| *p == a.policy && *c == a.reason.code);
    if combined.reasons.iter().all(shown) {
        return Combined { verdict: Verdict::Allow, review: None, ..combined };
    }
    combined
}

fn effective(opinion: &Opinion) -> Verdict {
    opinion.outcome.as_ref().map_or(Verdict::Deny, |d| {
        // No obligation kinds exist yet, so every one is unknown.
        if d.obligations.is_empty() { d.verdict } else { Verdict::Deny }
    })
}

fn reasons_of(opinion: &Opinion) -> Vec<Attributed> {
    let from = |reason: Reason| Attributed { policy: opinion.policy.clone(), reason };
    match &opinion.outcome {
        Err(failure) => vec![from(Reason::new(failure.kind.code(), failure.message.clone()))],
        Ok(decision) => match decision.obligations.first() {
            Some(unknown) => {
                let message = format!("the host knows no obligation of kind `{}`", unknown.kind);
                vec![from(Reason::new("unknown-obligation", message))]
            }
            None if decision.reasons.is_empty() && decision.verdict <= Verdict::Review => {
                vec![from(Reason::new("unstated", "the policy gave no reason"))]
            }
            None => decision.reasons.iter().cloned().map(from).collect(),
        },
    }
}

fn holds_of(opinion: &Opinion) -> Vec<PolicyHold> {
    let Ok(decision) = &opinion.outcome else {
        return Vec::new();
    };
    let with_name = |hold: &Hold| PolicyHold { policy: opinion.policy.clone(), hold: hold.clone() };
    decision.holds.iter().map(with_name).collect()
}

/// What every policy that asks for a review demands; one that says nothing leaves all of it open.
fn demands<'a>(opinions: impl Iterator<Item = &'a Opinion>) -> Vec<ReviewTerms> {
    let asking = opinions.filter(|o| effective(o) == Verdict::Review).filter_map(|o| o.outcome.as_ref().ok());
    asking.map(|decision| decision.review.clone().unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERDICTS: [Verdict; 4] = [Verdict::Deny, Verdict::Review, Verdict::Allow, Verdict::Abstain];

    fn opinion(policy: &str, outcome: Result<Decision, Failure>) -> Opinion {
        Opinion {
            policy: policy.into(),
            version: "1".into(),
            module_sha256: String::new(),
            settings_sha256: String::new(),
            mode: Mode::Enforce,
            claims: false,
            outcome,
            log: vec![],
            fuel: 0,
            micros: 0,
        }
    }

    fn says(verdict: Verdict) -> Decision {
        let reasons = vec![Reason::new(verdict.to_string(), "")];
        Decision { verdict, reasons, holds: vec![], review: None, obligations: vec![], notes: vec![] }
    }

    fn verdict_of(opinions: Vec<Opinion>) -> Verdict {
        combine(&Judgement { generation: 1, opinions }).verdict
    }

    #[test]
    fn every_triple_takes_the_strongest_and_order_never_matters() {
        for a in VERDICTS {
            for b in VERDICTS {
                for c in VERDICTS {
                    let strongest = a.min(b).min(c);
                    let want = if strongest == Verdict::Abstain { Verdict::Deny } else { strongest };
                    let orders = [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]];
                    for order in orders {
                        let opinions = order.iter().map(|v| opinion("p", Ok(says(*v)))).collect();
                        assert_eq!(verdict_of(opinions), want, "{order:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_configured_denies() {
        assert_eq!(verdict_of(vec![]), Verdict::Deny);
    }

    #[test]
    fn every_failure_denies_with_its_own_code() {
        let mut codes = Vec::new();
        for kind in FailureKind::ALL {
            let failed = opinion("bad", Err(Failure { kind, message: String::new() }));
            let opinions = vec![opinion("ok", Ok(says(Verdict::Allow))), failed];
            let combined = combine(&Judgement { generation: 1, opinions });
            assert_eq!(combined.verdict, Verdict::Deny);
            assert_eq!(combined.reasons[0].policy, "bad");
            assert!(!codes.contains(&combined.reasons[0].reason.code));
            codes.push(combined.reasons[0].reason.code.clone());
        }
    }

    #[test]
    fn an_unknown_obligation_denies() {
        let mut decision = says(Verdict::Allow);
        decision.obligations.push(Obligation { kind: "fly".into(), params: vec![] });
        let combined = combine(&Judgement { generation: 1, opinions: vec![opinion("p", Ok(decision))] });
        assert_eq!(combined.verdict, Verdict::Deny);
        assert_eq!(combined.reasons[0].reason.code, "unknown-obligation");
    }

    #[test]
    fn monitors_are_heard_and_not_counted() {
        let mut monitor = opinion("m", Ok(says(Verdict::Deny)));
        monitor.mode = Mode::Monitor;
        assert_eq!(verdict_of(vec![opinion("p", Ok(says(Verdict::Allow))), monitor.clone()]), Verdict::Allow);
        monitor.outcome = Ok(says(Verdict::Allow));
        assert_eq!(verdict_of(vec![monitor]), Verdict::Deny, "a monitor cannot allow either");
    }

    #[test]
    fn an_approval_covers_only_what_was_shown() {
        let ask = |code: &str| {
            let reasons = vec![Reason::new(code, "")];
            opinion("r", Ok(Decision { reasons, ..says(Verdict::Review) }))
        };
        let approved = [("r".to_owned(), "above".to_owned())];
        let judged = |o| combine_approved(&Judgement { generation: 1, opinions: vec![o] }, &approved).verdict;
        assert_eq!(judged(ask("above")), Verdict::Allow);
        assert_eq!(judged(ask("other")), Verdict::Review);
        assert_eq!(judged(opinion("r", Ok(says(Verdict::Deny)))), Verdict::Deny);
    }

    #[test]
    fn every_policy_that_asks_has_its_terms_kept() {
        let terms = |group: &str, quorum| ReviewTerms { group: Some(group.to_owned()), quorum, expires_in_seconds: 0 };
        let ask = |verdict, review| opinion("r", Ok(Decision { review, ..says(verdict) }));
        let mut monitor = ask(Verdict::Review, Some(terms("board", 9)));
        monitor.mode = Mode::Monitor;
        let opinions = vec![
            ask(Verdict::Review, Some(terms("finance", 2))),
            ask(Verdict::Abstain, Some(terms("nobody", 9))),
            monitor,
            ask(Verdict::Review, None),
            ask(Verdict::Review, Some(terms("legal", 0))),
        ];
        let asked = combine(&Judgement { generation: 1, opinions }).review.unwrap();
        assert_eq!(asked, [terms("finance", 2), ReviewTerms::default(), terms("legal", 0)]);
    }
}
