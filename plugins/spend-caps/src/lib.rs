//! Caps what is spent per payment, session, and agent per hour, day and month.
//!
//! - **Settings** ([`Settings`]): each cap is a decimal string in the reference currency; at least one
//!   is required. `timezone` (IANA, default UTC) says when days and months begin.
//! - **Verdict**: *allow* when content, provided the host can place the holds; else *deny*.
//! - **Holds**: one for every cap but `per-payment`, of the payment's value.
//!
//! | cap | budget | window |
//! |---|---|---|
//! | `per-session` | `session/<id>` | lifetime |
//! | `per-agent-hour` | `agent/<name>` | the last 3,600 seconds |
//! | `per-agent-day` | `agent/<name>` | calendar day |
//! | `per-agent-month` | `agent/<name>` | calendar month |
//!
//! | code | when |
//! |---|---|
//! | `above-per-payment` | the value is above `per-payment` |
//! | `no-session` | `per-session` is set and the agent is not in a session |
//! | `zero-value` | the payment is worth nothing, so no cap can apply to it |
//!
//! Only `per-payment` is compared here: it needs no memory. The other caps depend on what was spent
//! before, which only the host knows at the moment of signing, so its holds are the one arithmetic;
//! it refuses with `budget-exceeded` and names the budget.

use countersign_sdk::{
    Decision, Hold, Money, Policy, Problem, Reason, SpendRequest, Verdict, Window, ZoneName, budget_path, export_policy,
};
use serde::Deserialize;

const HOUR_SECONDS: u32 = 3_600;

/// The caps.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// One payment.
    pub per_payment: Option<Money>,
    /// All payments of a session.
    pub per_session: Option<Money>,
    /// An agent's payments in any 3,600 seconds.
    pub per_agent_hour: Option<Money>,
    /// An agent's payments of a calendar day.
    pub per_agent_day: Option<Money>,
    /// An agent's payments of a calendar month.
    pub per_agent_month: Option<Money>,
    /// IANA time zone of days and months; UTC if left out.
    pub timezone: Option<ZoneName>,
}

/// The configured policy.
#[derive(Debug)]
pub struct SpendCaps {
    per_payment: Option<Money>,
    per_session: Option<Money>,
    per_agent: Vec<(Window, Money)>,
}

impl Policy for SpendCaps {
    type Settings = Settings;
    const NAME: &'static str = "spend-caps";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Caps spending per payment, per session, and per agent by hour, day and month.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        let zone = settings.timezone.unwrap_or_default();
        let per_agent: Vec<(Window, Money)> = [
            (Window::rolling(HOUR_SECONDS), settings.per_agent_hour),
            (Window::day(&zone), settings.per_agent_day),
            (Window::month(&zone), settings.per_agent_month),
        ]
        .into_iter()
        .filter_map(|(window, limit)| limit.map(|limit| (window, limit)))
        .collect();
        let policy = Self { per_payment: settings.per_payment, per_session: settings.per_session, per_agent };
        if policy.per_payment.is_none() && policy.per_session.is_none() && policy.per_agent.is_empty() {
            return Err(vec![Problem::document(
                "set at least one of `per-payment`, `per-session`, `per-agent-hour`, `per-agent-day`, \
                 `per-agent-month`: without a cap everything would be allowed",
            )]);
        }
        Ok(policy)
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let value = request.value();
        let mut reasons = Vec::new();
        let mut holds = Vec::new();
        if value == Money::ZERO {
            reasons.push(Reason::new("zero-value", "the payment is worth nothing"));
        }
        if let Some(cap) = self.per_payment.filter(|cap| value > *cap) {
            reasons.push(Reason::new(
                "above-per-payment",
                format!("the payment of {value} is above the {cap} allowed for one payment"),
            ));
        }
        if let Some(cap) = self.per_session {
            match request.principal.session.as_deref().filter(|id| !id.is_empty()) {
                Some(id) => {
                    holds.push(Hold::micros(budget_path(["session", id]), Window::lifetime(), cap, value));
                }
                None => reasons
                    .push(Reason::new("no-session", "spending is capped per session and this payment belongs to none")),
            }
        }
        let agent = budget_path(["agent", &request.principal.agent]);
        holds.extend(
            self.per_agent.iter().map(|(window, cap)| Hold::micros(agent.as_str(), window.clone(), *cap, value)),
        );
        Ok(if reasons.is_empty() {
            Decision::allow().holds(holds)
        } else {
            Decision::new(Verdict::Deny).reasons(reasons)
        })
    }
}

export_policy!(SpendCaps);

#[cfg(test)]
mod tests {
    use countersign_sdk::testing::{Harness, assert_schema_agrees, json, problems, request, run_cases};

    use super::*;

    #[test]
    fn cases() {
        run_cases::<SpendCaps>(include_str!("../cases.json"));
    }

    #[test]
    fn schema() {
        assert_schema_agrees::<SpendCaps>();
    }

    #[test]
    fn one_micro_above_is_above() {
        let policy = Harness::<SpendCaps>::new(json!({ "per-payment": "1.00" }));
        policy.evaluate(&request().value("0.000001")).assert_allows();
        policy.evaluate(&request().value("1.000000")).assert_allows();
        let outcome = policy.evaluate(&request().value("1.000001"));
        let reason = outcome.assert_denies("above-per-payment").assert_no_holds().reason("above-per-payment");
        assert_eq!(reason.unwrap().message, "the payment of 1.000001 is above the 1.00 allowed for one payment");
    }

    #[test]
    fn other_caps_are_the_hosts_arithmetic() {
        // Far above every cap: allowed, with holds that cannot be placed.
        let policy = Harness::<SpendCaps>::new(json!({ "per-agent-day": "1.00", "per-session": "0.00" }));
        let outcome = policy.evaluate(&request().session("s1").value("500"));
        outcome.assert_allows();
        assert_eq!(outcome.hold("session/s1").limit, 0);
        assert_eq!(outcome.hold("agent/scout").amount, 500_000_000);
    }

    #[test]
    fn every_scope_has_its_own_budget() {
        let policy = Harness::<SpendCaps>::new(json!({ "per-agent-day": "1.00", "per-session": "1.00" }));
        for (agent, session) in [("scout", "s1"), ("scout", "s2"), ("buyer", "s1")] {
            let outcome = policy.evaluate(&request().agent(agent).session(session));
            assert_eq!(outcome.hold(&format!("session/{session}")).window, Window::lifetime());
            assert_eq!(outcome.hold(&format!("agent/{agent}")).window, Window::day("UTC"));
        }
    }

    #[test]
    fn an_agents_windows_share_a_budget() {
        let policy = Harness::<SpendCaps>::new(json!({
            "per-agent-hour": "5.00", "per-agent-day": "20.00", "per-agent-month": "200.00", "timezone": "Europe/Berlin"
        }));
        let outcome = policy.evaluate(&request());
        for (window, limit) in [
            (Window::rolling(3600), 5_000_000),
            (Window::day("Europe/Berlin"), 20_000_000),
            (Window::month("Europe/Berlin"), 200_000_000),
        ] {
            assert_eq!(outcome.hold_in("agent/scout", &window).limit, limit);
        }
    }

    #[test]
    fn a_session_without_a_name_is_none() {
        let policy = Harness::<SpendCaps>::new(json!({ "per-session": "1.00" }));
        policy.evaluate(&request().session("")).assert_codes(&["no-session"]);
    }

    #[test]
    fn zones() {
        for zone in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "America/Port-au-Prince"] {
            let found = problems::<SpendCaps>(json!({ "per-payment": "1", "timezone": zone }));
            assert_eq!(found, [], "{zone}");
        }
        for zone in ["", "+02:00", "Europe/", "/Berlin", "Europe//Berlin", "Mars Base", "../etc/passwd"] {
            let found = problems::<SpendCaps>(json!({ "per-payment": "1", "timezone": zone }));
            assert_eq!(found.len(), 1, "{zone}");
            assert_eq!(found[0].path, "/timezone");
        }
    }
}
