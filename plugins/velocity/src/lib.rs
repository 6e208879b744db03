//! Limits how often is paid: payments of an agent and to a seller, repeats of one payment, and storms
//! of new sessions.
//!
//! - **Settings** ([`Settings`]): numbers of payments, at least one; `max-repeats` with the `action` to
//!   take beyond it. `timezone` (IANA, default UTC) says when days begin.
//! - **Verdict**: *deny*, or *review* with `action = "review"`, of too many repeats; else *abstain*. It
//!   never allows: combine it with a policy that does.
//! - **Holds**: one for every number but `max-repeats`, of one payment.
//!
//! | number | budget | window |
//! |---|---|---|
//! | `per-agent-minute` | `agent/<name>` | the last 60 seconds |
//! | `per-agent-hour` | `agent/<name>` | the last 3,600 seconds |
//! | `per-agent-day` | `agent/<name>` | calendar day |
//! | `per-seller-hour` | `seller/<host>`, or `payee/<account>` | the last 3,600 seconds |
//! | `sessions-per-agent-hour` | `agent/<name>/sessions` | the last 3,600 seconds |
//!
//! | code | when |
//! |---|---|
//! | `too-many-repeats` | the agent paid the same amount for the same call more than `max-repeats` times in the last ten minutes |
//!
//! A session counts when it begins to spend: with the first of its payments, and with each that is made
//! before one has been granted. The sellers of what only the agent describes are told apart by account:
//! it could name a new host every time. Too many payments are the host's refusal, `budget-exceeded`.

use std::num::NonZeroU32;

use countersign_sdk::{
    Action, Address, Decision, Hold, Policy, Problem, ReviewSettings, SpendRequest, Window, ZoneName, budget_path,
    export_policy,
};
use serde::Deserialize;

const MINUTE_SECONDS: u32 = 60;
const HOUR_SECONDS: u32 = 3_600;

/// How often may be paid.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// An agent's payments in any 60 seconds.
    pub per_agent_minute: Option<NonZeroU32>,
    /// An agent's payments in any 3,600 seconds.
    pub per_agent_hour: Option<NonZeroU32>,
    /// An agent's payments of a calendar day.
    pub per_agent_day: Option<NonZeroU32>,
    /// All payments to a seller in any 3,600 seconds.
    pub per_seller_hour: Option<NonZeroU32>,
    /// An agent's sessions that begin to spend in any 3,600 seconds.
    pub sessions_per_agent_hour: Option<NonZeroU32>,
    /// How often one payment may be repeated within ten minutes.
    pub max_repeats: Option<u32>,
    /// What to do about more repeats; refuse if left out.
    pub action: Option<Action>,
    /// IANA time zone of days; UTC if left out.
    pub timezone: Option<ZoneName>,
    /// The operator group that must approve; any approver if left out.
    pub group: Option<String>,
    /// How many must approve.
    pub quorum: Option<u8>,
    /// After how many seconds silence is a no.
    pub expires_in_seconds: Option<u32>,
}

/// The configured policy.
#[derive(Debug)]
pub struct Velocity {
    per_agent: Vec<(Window, NonZeroU32)>,
    per_seller_hour: Option<NonZeroU32>,
    sessions_per_agent_hour: Option<NonZeroU32>,
    repeats: Option<(u32, Action)>,
    review: ReviewSettings,
}

impl Policy for Velocity {
    type Settings = Settings;
    const NAME: &'static str = "velocity";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Limits how often is paid, how often a payment is repeated, and new sessions.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let zone = settings.timezone.unwrap_or_default();
        let per_agent: Vec<(Window, NonZeroU32)> = [
            (Window::rolling(MINUTE_SECONDS), settings.per_agent_minute),
            (Window::rolling(HOUR_SECONDS), settings.per_agent_hour),
            (Window::day(&zone), settings.per_agent_day),
        ]
        .into_iter()
        .filter_map(|(window, limit)| limit.map(|limit| (window, limit)))
        .collect();
        let limits = [settings.per_seller_hour, settings.sessions_per_agent_hour];
        if per_agent.is_empty() && limits.iter().all(Option::is_none) && settings.max_repeats.is_none() {
            problems.push(Problem::document(
                "set at least one of `per-agent-minute`, `per-agent-hour`, `per-agent-day`, `per-seller-hour`, \
                 `sessions-per-agent-hour`, `max-repeats`: without any nothing would be limited",
            ));
        }
        if settings.action.is_some() && settings.max_repeats.is_none() {
            problems.push(Problem::at("/action", "it is for repeats, and `max-repeats` is not set"));
        }
        let Settings { group, quorum, expires_in_seconds, .. } = settings;
        let policy = Self {
            per_agent,
            per_seller_hour: settings.per_seller_hour,
            sessions_per_agent_hour: settings.sessions_per_agent_hour,
            repeats: settings.max_repeats.map(|most| (most, settings.action.unwrap_or(Action::Deny))),
            review: ReviewSettings::check(group, quorum, expires_in_seconds, &mut problems),
        };
        if problems.is_empty() { Ok(policy) } else { Err(problems) }
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let repeats = request.history.repeats;
        let repeated = self.repeats.filter(|(most, _)| repeats > *most).map(|(most, action)| {
            let message = format!("the same payment was made {repeats} times in the last ten minutes; {most} may be");
            action.because("too-many-repeats", message)
        });
        Ok(self.review.decide(repeated.into_iter().collect()).holds(self.holds(request)))
    }
}

impl Velocity {
    fn holds(&self, request: &SpendRequest) -> Vec<Hold> {
        let one =
            |budget: String, window: Window, limit: NonZeroU32| Hold::count(budget, window, limit.get().into(), 1);
        let agent = request.principal.agent.as_str();
        let per_agent = self.per_agent.iter();
        let mut holds: Vec<Hold> =
            per_agent.map(|(window, limit)| one(budget_path(["agent", agent]), window.clone(), *limit)).collect();
        let hour = Window::rolling(HOUR_SECONDS);
        holds.extend(self.per_seller_hour.map(|limit| one(seller(request), hour.clone(), limit)));
        let begins = request.principal.session.is_some() && request.history.session.count == 0;
        let sessions = self.sessions_per_agent_hour.filter(|_| begins);
        holds.extend(sessions.map(|limit| one(budget_path(["agent", agent, "sessions"]), hour, limit)));
        holds
    }
}

/// Who is paid, by what is known to be true of them.
fn seller(request: &SpendRequest) -> String {
    let SpendRequest { purchase, seller, .. } = request;
    if purchase.observed {
        return budget_path(["seller", &seller.host]);
    }
    // One spelling, if it is one of ours.
    let account = Address::parse(&seller.pay_to).map_or_else(|_| seller.pay_to.clone(), |it| it.to_string());
    budget_path(["payee", &account])
}

export_policy!(Velocity);

#[cfg(test)]
mod tests {
    use countersign_sdk::testing::{Harness, assert_schema_agrees, json, problems, request, run_cases};

    use super::*;

    #[test]
    fn cases() {
        run_cases::<Velocity>(include_str!("../cases.json"));
    }

    #[test]
    fn schema() {
        assert_schema_agrees::<Velocity>();
    }

    #[test]
    fn one_repeat_more_is_too_many() {
        for most in [0, 1, 3] {
            let policy = Harness::<Velocity>::new(json!({ "max-repeats": most }));
            let repeated = |times| request().with(|request| request.history.repeats = times);
            policy.evaluate(&repeated(most)).assert_abstains().assert_no_holds();
            policy.evaluate(&repeated(most + 1)).assert_denies("too-many-repeats");
            policy.evaluate(&repeated(u32::MAX)).assert_denies("too-many-repeats");
        }
    }

    #[test]
    fn numbers_are_the_hosts_arithmetic() {
        // Far more was paid than may be: the hold cannot be placed, and nothing is compared here.
        let policy = Harness::<Velocity>::new(json!({ "per-agent-day": 1 }));
        let busy = request().with(|request| request.history.agent_day.count = 1_000);
        assert_eq!(policy.evaluate(&busy).assert_abstains().hold("agent/scout").limit, 1);
    }

    #[test]
    fn a_session_counts_until_a_payment_was_granted() {
        let policy = Harness::<Velocity>::new(json!({ "sessions-per-agent-hour": 2 }));
        let session = |count| request().session("s1").with(|request| request.history.session.count = count);
        assert_eq!(policy.evaluate(&session(0)).hold("agent/scout/sessions").amount, 1);
        policy.evaluate(&session(1)).assert_no_holds();
        policy.evaluate(&request()).assert_no_holds();
    }

    #[test]
    fn sellers_are_counted_over_all_agents() {
        let policy = Harness::<Velocity>::new(json!({ "per-seller-hour": 9 }));
        for agent in ["scout", "buyer"] {
            let outcome = policy.evaluate(&request().agent(agent).host("[::1]:8402"));
            assert_eq!(outcome.hold("seller/@5b::1@5d:8402").limit, 9);
        }
    }

    #[test]
    fn an_agent_cannot_spread_one_payee_over_many_hosts() {
        let policy = Harness::<Velocity>::new(json!({ "per-seller-hour": 9 }));
        let payee = "payee/0x209693bc6afc0c5328ba36faf03c514ef312287c";
        for account in ["0x209693bc6afc0c5328ba36faf03c514ef312287c", "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"] {
            for host in ["a.example", "b.example"] {
                let outcome = policy.evaluate(&request().unobserved().host(host).pay_to(account));
                assert_eq!(outcome.hold(payee).amount, 1);
            }
        }
    }

    #[test]
    fn no_agent_shares_a_budget_with_another_or_with_sessions() {
        let policy = Harness::<Velocity>::new(json!({ "per-agent-hour": 1, "sessions-per-agent-hour": 1 }));
        let mut budgets = std::collections::BTreeSet::new();
        let agents = ["scout", "sessions", "scout.sessions", "scout/sessions"];
        for agent in agents {
            for hold in policy.evaluate(&request().agent(agent).session("s1")).holds() {
                assert!(budgets.insert(hold.budget.clone()), "{}", hold.budget);
            }
        }
        assert_eq!(budgets.len(), 2 * agents.len());
    }

    #[test]
    fn every_problem_is_reported() {
        let found = problems::<Velocity>(json!({ "action": "review", "group": "", "expires-in-seconds": 86_401 }));
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["", "/action", "/group", "/expires-in-seconds"]);
    }
}
