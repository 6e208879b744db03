//! Asks people about payments that are large, new or unusual; has no opinion on all others.
//!
//! - **Settings** ([`Settings`]): what needs a review (at least one), and who must approve.
//! - **Verdict**: *review* with every reason that applies, else *abstain*. It never allows: combine it
//!   with a policy that does.
//! - **Holds**: none.
//!
//! | code | when |
//! |---|---|
//! | `above-review-threshold` | the value is above `above` |
//! | `first-time-vendor` | the host was never paid before |
//! | `first-time-payee` | the account was never paid before |
//! | `payee-changed` | the host was last paid at a different account |
//! | `commitment-needs-review` | the signature binds the wallet in a way that `commitments` lists |
//!
//! What `group`, `quorum` and `expires-in-seconds` leave out is as the operator's `[approvals]` say.
//! Several policies' terms combine to the strictest.

use std::collections::BTreeSet;

use countersign_sdk::{
    Action, Commitment, Decision, Money, Objection, Policy, Problem, ReviewSettings, SpendRequest, export_policy,
};
use serde::Deserialize;

/// What needs a review, and whose.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Payments worth more than this.
    pub above: Option<Money>,
    /// Payments to a host that was never paid.
    #[serde(default)]
    pub first_time_vendor: bool,
    /// Payments to an account that was never paid.
    #[serde(default)]
    pub first_time_payee: bool,
    /// Payments to a host that was last paid at a different account.
    #[serde(default)]
    pub pay_to_changed: bool,
    /// Payments whose signature binds the wallet in one of these ways.
    pub commitments: Option<BTreeSet<Binding>>,
    /// The operator group that must approve; any approver if left out.
    pub group: Option<String>,
    /// How many must approve.
    pub quorum: Option<u8>,
    /// After how many seconds silence is a no.
    pub expires_in_seconds: Option<u32>,
}

/// How a signature binds the wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Binding {
    /// This amount, once.
    Fixed,
    /// At most this amount, once.
    Ceiling,
    /// An amount the seller can draw on.
    Deposit,
    /// A charge that repeats.
    Recurring,
}

impl Binding {
    const fn of(commitment: Commitment) -> Self {
        match commitment {
            Commitment::Fixed => Self::Fixed,
            Commitment::Ceiling => Self::Ceiling,
            Commitment::Deposit => Self::Deposit,
            Commitment::Recurring => Self::Recurring,
        }
    }

    const fn phrase(self) -> &'static str {
        match self {
            Self::Fixed => "a fixed amount",
            Self::Ceiling => "an amount up to a ceiling",
            Self::Deposit => "a deposit the seller can draw on",
            Self::Recurring => "a charge that repeats",
        }
    }
}

/// The configured policy.
#[derive(Debug)]
pub struct ReviewThreshold {
    settings: Settings,
    review: ReviewSettings,
}

impl Policy for ReviewThreshold {
    type Settings = Settings;
    const NAME: &'static str = "review-threshold";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Asks people about payments that are large, to somebody new, or of an unusual kind.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(mut settings: Settings) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: &str| problems.push(Problem::at(path, message));
        let commitments = settings.commitments.as_ref();
        if commitments.is_some_and(BTreeSet::is_empty) {
            problem("/commitments", "list at least one, or leave the key out");
        }
        let asks = settings.above.is_some()
            || settings.first_time_vendor
            || settings.first_time_payee
            || settings.pay_to_changed
            || commitments.is_some();
        if !asks {
            problem(
                "",
                "set at least one of `above`, `first-time-vendor`, `first-time-payee`, `pay-to-changed`, \
                 `commitments`: without any nothing would be reviewed",
            );
        }
        let (group, quorum, seconds) = (settings.group.take(), settings.quorum, settings.expires_in_seconds);
        let review = ReviewSettings::check(group, quorum, seconds, &mut problems);
        if problems.is_empty() { Ok(Self { settings, review }) } else { Err(problems) }
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        Ok(self.review.decide(self.objections(request)))
    }
}

impl ReviewThreshold {
    fn objections(&self, request: &SpendRequest) -> Vec<Objection> {
        let SpendRequest { seller, payment, .. } = request;
        let settings = &self.settings;
        let mut found = Vec::new();
        let mut ask = |code: &str, message: String| found.push(Action::Review.because(code, message));
        let value = request.value();
        if let Some(above) = settings.above.filter(|above| value > *above) {
            ask("above-review-threshold", format!("the payment of {value} is above {above}"));
        }
        if settings.first_time_vendor && seller.host_first_paid.is_none() {
            ask("first-time-vendor", format!("{} was never paid before", seller.host));
        }
        if settings.first_time_payee && seller.pay_to_first_paid.is_none() {
            ask("first-time-payee", format!("the account {} was never paid before", seller.pay_to));
        }
        if settings.pay_to_changed && seller.pay_to_changed {
            ask(
                "payee-changed",
                format!("{} was last paid at a different account than {}", seller.host, seller.pay_to),
            );
        }
        let binding = Binding::of(payment.commitment);
        if settings.commitments.as_ref().is_some_and(|listed| listed.contains(&binding)) {
            ask("commitment-needs-review", format!("the signature commits to {}", binding.phrase()));
        }
        found
    }
}

export_policy!(ReviewThreshold);

#[cfg(test)]
mod tests {
    use countersign_sdk::testing::{Harness, assert_schema_agrees, json, problems, request, run_cases};

    use super::*;

    #[test]
    fn cases() {
        run_cases::<ReviewThreshold>(include_str!("../cases.json"));
    }

    #[test]
    fn schema() {
        assert_schema_agrees::<ReviewThreshold>();
    }

    #[test]
    fn above_is_above() {
        let policy = Harness::<ReviewThreshold>::new(json!({ "above": "1.00" }));
        policy.evaluate(&request().value("1.00")).assert_abstains().assert_no_holds();
        policy.evaluate(&request().value("1.000001")).assert_reviews("above-review-threshold");
        let all = Harness::<ReviewThreshold>::new(json!({ "above": "0" }));
        all.evaluate(&request().value("0.000001")).assert_reviews("above-review-threshold");
    }

    #[test]
    fn a_switch_that_is_off_does_not_ask() {
        let policy = Harness::<ReviewThreshold>::new(json!({ "above": "1.00", "first-time-vendor": false }));
        let unusual =
            request().first_time_vendor().first_time_payee().pay_to_changed().commitment(Commitment::Recurring);
        policy.evaluate(&unusual).assert_abstains();
    }

    #[test]
    fn every_commitment_can_be_listed() {
        let policy =
            Harness::<ReviewThreshold>::new(json!({ "commitments": ["fixed", "ceiling", "deposit", "recurring"] }));
        for commitment in [Commitment::Fixed, Commitment::Ceiling, Commitment::Deposit, Commitment::Recurring] {
            policy.evaluate(&request().commitment(commitment)).assert_reviews("commitment-needs-review");
        }
    }

    #[test]
    fn terms_are_said_only_when_set() {
        let silent = Harness::<ReviewThreshold>::new(json!({ "above": "0" }));
        assert_eq!(silent.evaluate(&request()).decision().review, None);
        let group_only = Harness::<ReviewThreshold>::new(json!({ "above": "0", "group": "finance" }));
        let outcome = group_only.evaluate(&request());
        assert_eq!(outcome.review_terms().group.as_deref(), Some("finance"));
        assert_eq!(outcome.review_terms().quorum, 0, "as configured");
    }

    #[test]
    fn every_problem_is_reported() {
        let found = problems::<ReviewThreshold>(json!({
            "commitments": [], "group": " ", "quorum": 0, "expires-in-seconds": 86_401
        }));
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["/commitments", "/group", "/quorum", "/expires-in-seconds"]);
    }
}
