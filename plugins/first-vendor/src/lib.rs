//! Asks people about a first purchase from a vendor or a first payment to an account, or refuses it.
//!
//! - **Settings** ([`Settings`]): `vendor` and `payee` say what must be known (both, if left out),
//!   `above` from what value on it matters, `known` and `known-payees` what counts as known from the
//!   start, `new-per-agent-day` how many first purchases an agent may make in a day.
//! - **Verdict**: *review*, or *deny* with `action = "deny"`, with every reason that applies; else
//!   *abstain*. It never allows: combine it with a policy that does.
//! - **Holds**: with `new-per-agent-day`, for every first purchase, one of `agent/<name>/new-vendors`.
//!
//! | code | when |
//! |---|---|
//! | `first-time-vendor` | the host was never paid and is not in `known` |
//! | `first-time-payee` | the account was never paid and is not in `known-payees` |
//!
//! A known host does not make its account known: a vendor whose account is taken over is caught here.
//! Where only the agent says what is bought, the host is its word; such a purchase is from a known
//! vendor if it pays a known account. What was paid is learnt from settled payments only, so a second
//! purchase made before the first has settled is a first purchase too, and counts as one.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use countersign_sdk::{
    Action, Address, Decision, Hold, HostPattern, Money, Objection, Policy, Problem, ReviewSettings, SpendRequest,
    Window, ZoneName, budget_path, export_policy,
};
use serde::Deserialize;

/// What is new, and what to do about it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Whether a host that was never paid is new.
    #[serde(default = "yes")]
    pub vendor: bool,
    /// Whether an account that was never paid is new.
    #[serde(default = "yes")]
    pub payee: bool,
    /// Payments worth more than this; all if left out.
    pub above: Option<Money>,
    /// Hosts that count as known.
    #[serde(default)]
    pub known: Vec<HostPattern>,
    /// Accounts that count as known.
    #[serde(default)]
    pub known_payees: BTreeSet<Address>,
    /// How many first purchases an agent may make in a calendar day.
    pub new_per_agent_day: Option<NonZeroU32>,
    /// IANA time zone of days; UTC if left out.
    pub timezone: Option<ZoneName>,
    /// What to do about a first purchase; ask people if left out.
    pub action: Option<Action>,
    /// The operator group that must approve; any approver if left out.
    pub group: Option<String>,
    /// How many must approve.
    pub quorum: Option<u8>,
    /// After how many seconds silence is a no.
    pub expires_in_seconds: Option<u32>,
}

const fn yes() -> bool {
    true
}

/// The configured policy.
#[derive(Debug)]
pub struct FirstVendor {
    vendor: bool,
    payee: bool,
    above: Option<Money>,
    known: Vec<HostPattern>,
    known_payees: BTreeSet<Address>,
    new_per_day: Option<(Window, NonZeroU32)>,
    action: Action,
    review: ReviewSettings,
}

impl Policy for FirstVendor {
    type Settings = Settings;
    const NAME: &'static str = "first-vendor";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Asks people about a first purchase from a vendor or to an account, or refuses it.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let Settings { vendor, payee, above, known, known_payees, group, quorum, expires_in_seconds, .. } = settings;
        let mut problem = |path: &str, message: &str| problems.push(Problem::at(path, message));
        if !vendor && !payee {
            problem("", "one of `vendor` and `payee` must be true: without any nothing would be new");
        }
        if !vendor && !known.is_empty() {
            problem("/known", "`vendor` is false, so no host is asked about");
        }
        if !payee && !known_payees.is_empty() {
            problem("/known-payees", "`payee` is false, so no account is asked about");
        }
        let action = settings.action.unwrap_or(Action::Review);
        if action == Action::Deny && settings.new_per_agent_day.is_some() {
            problem("/new-per-agent-day", "with `action` deny there is no first purchase to count");
        }
        let day = Window::day(&settings.timezone.unwrap_or_default());
        let new_per_day = settings.new_per_agent_day.map(|limit| (day, limit));
        let review = ReviewSettings::check(group, quorum, expires_in_seconds, &mut problems);
        let policy = Self { vendor, payee, above, known, known_payees, new_per_day, action, review };
        if problems.is_empty() { Ok(policy) } else { Err(problems) }
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let objections = self.objections(request);
        let first = !objections.is_empty();
        let decision = self.review.decide(objections);
        let counted = self.new_per_day.as_ref().filter(|_| first).map(|(day, limit)| {
            let budget = budget_path(["agent", &request.principal.agent, "new-vendors"]);
            Hold::count(budget, day.clone(), limit.get().into(), 1)
        });
        Ok(decision.holds(counted))
    }
}

impl FirstVendor {
    fn objections(&self, request: &SpendRequest) -> Vec<Objection> {
        let SpendRequest { seller, purchase, .. } = request;
        let mut found = Vec::new();
        if self.above.is_some_and(|above| request.value() <= above) {
            return found;
        }
        let payee_known =
            seller.pay_to_first_paid.is_some() || self.known_payees.iter().any(|payee| payee.matches(&seller.pay_to));
        let host_known = seller.host_first_paid.is_some() || self.known.iter().any(|host| host.matches(purchase));
        let vendor_known = if purchase.observed { host_known } else { payee_known };
        if self.vendor && !vendor_known {
            let message = format!("{} was never paid before", seller.host);
            found.push(self.action.because("first-time-vendor", message));
        }
        if self.payee && !payee_known {
            let message = format!("the account {} was never paid before", seller.pay_to);
            found.push(self.action.because("first-time-payee", message));
        }
        found
    }
}

export_policy!(FirstVendor);

#[cfg(test)]
mod tests {
    use countersign_sdk::testing::{Harness, assert_schema_agrees, json, problems, request, run_cases};

    use super::*;

    const PAYEE: &str = "0x209693bc6afc0c5328ba36faf03c514ef312287c";

    #[test]
    fn cases() {
        run_cases::<FirstVendor>(include_str!("../cases.json"));
    }

    #[test]
    fn schema() {
        assert_schema_agrees::<FirstVendor>();
    }

    #[test]
    fn above_is_above() {
        let policy = Harness::<FirstVendor>::new(json!({ "above": "0.05" }));
        let first = || request().first_time_vendor().first_time_payee();
        policy.evaluate(&first().micros(50_000)).assert_abstains();
        policy.evaluate(&first().micros(50_001)).assert_codes(&["first-time-vendor", "first-time-payee"]);
    }

    #[test]
    fn a_known_host_does_not_vouch_for_its_account() {
        let policy = Harness::<FirstVendor>::new(json!({ "known": ["api.example.com"] }));
        policy.evaluate(&request().first_time_vendor()).assert_abstains();
        policy.evaluate(&request().first_time_vendor().first_time_payee()).assert_codes(&["first-time-payee"]);
        policy
            .evaluate(&request().host("api.example.com.evil.test").first_time_vendor())
            .assert_reviews("first-time-vendor");
    }

    #[test]
    fn the_agents_word_makes_no_host_known() {
        let policy = Harness::<FirstVendor>::new(json!({ "known": ["api.example.com"], "known-payees": [PAYEE] }));
        let new = "0x0000000000000000000000000000000000000001";
        // The ledger knows the host it names, the settings too: only the account is known to be true.
        let unobserved = request().unobserved().pay_to(new).first_time_payee();
        policy.evaluate(&unobserved).assert_codes(&["first-time-vendor", "first-time-payee"]);
        policy.evaluate(&request().unobserved().host("new.example").first_time_vendor()).assert_abstains();
    }

    #[test]
    fn only_first_purchases_are_counted_one_each() {
        let policy = Harness::<FirstVendor>::new(json!({ "new-per-agent-day": 1, "timezone": "Asia/Tokyo" }));
        policy.evaluate(&request()).assert_abstains().assert_no_holds();
        let outcome = policy.evaluate(&request().agent("buyer").first_time_vendor().first_time_payee());
        let hold = outcome.hold("agent/buyer/new-vendors");
        assert_eq!((hold.limit, hold.amount), (1, 1));
        assert_eq!(hold.window, Window::day("Asia/Tokyo"));
        let silent = Harness::<FirstVendor>::new(json!({}));
        silent.evaluate(&request().first_time_vendor()).assert_reviews("first-time-vendor").assert_no_holds();
    }

    #[test]
    fn every_problem_is_reported() {
        let found = problems::<FirstVendor>(json!({
            "vendor": false, "payee": false, "known": ["a.example"], "known-payees": [PAYEE],
            "action": "deny", "new-per-agent-day": 1, "group": "", "quorum": 0, "expires-in-seconds": 0
        }));
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        let expected =
            ["", "/known", "/known-payees", "/new-per-agent-day", "/group", "/quorum", "/expires-in-seconds"];
        assert_eq!(paths, expected);
    }
}
