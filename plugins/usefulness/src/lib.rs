//! Asks people about vendors whose purchases go unused, or refuses them.
//!
//! - **Settings** ([`Settings`]): `min-useful-percent` of the purchases that were judged must have been
//!   useful, once `min-judged` were. `count-agents` counts what agents judged beside what people did.
//! - **Verdict**: *review*, or *deny* with `action = "deny"`; else *abstain*. It never allows: combine
//!   it with a policy that does.
//! - **Holds**: none.
//!
//! | code | when |
//! |---|---|
//! | `vendor-rarely-useful` | at least `min-judged` purchases were judged, and less than `min-useful-percent` of them useful |
//!
//! People's judgements are `seller.judged` and `seller.useful`. Agents' are the facts `agent-judged` and
//! `agent-useful`, and not counted unless asked for: an agent that likes a vendor would vouch for it.

use std::num::NonZeroU32;

use countersign_sdk::{Action, Decision, Policy, Problem, ReviewSettings, SpendRequest, export_policy};
use serde::Deserialize;

/// How useful vendors must be.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// How many purchases must have been judged.
    pub min_judged: NonZeroU32,
    /// How many of a hundred of them must have been useful.
    pub min_useful_percent: u8,
    /// Whether agents' judgements count beside people's.
    #[serde(default)]
    pub count_agents: bool,
    /// What to do about a vendor that is less useful; ask people if left out.
    pub action: Option<Action>,
    /// The operator group that must approve; any approver if left out.
    pub group: Option<String>,
    /// How many must approve.
    pub quorum: Option<u8>,
    /// After how many seconds silence is a no.
    pub expires_in_seconds: Option<u32>,
}

/// The configured policy.
#[derive(Debug)]
pub struct Usefulness {
    min_judged: u64,
    min_useful_percent: u8,
    count_agents: bool,
    action: Action,
    review: ReviewSettings,
}

impl Policy for Usefulness {
    type Settings = Settings;
    const NAME: &'static str = "usefulness";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Asks people about vendors whose purchases go unused, or refuses them.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        if !(1..=100).contains(&settings.min_useful_percent) {
            problems.push(Problem::at("/min-useful-percent", "from 1 to 100"));
        }
        let Settings { group, quorum, expires_in_seconds, .. } = settings;
        let policy = Self {
            min_judged: settings.min_judged.get().into(),
            min_useful_percent: settings.min_useful_percent,
            count_agents: settings.count_agents,
            action: settings.action.unwrap_or(Action::Review),
            review: ReviewSettings::check(group, quorum, expires_in_seconds, &mut problems),
        };
        if problems.is_empty() { Ok(policy) } else { Err(problems) }
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let Judgements { judged, useful } = self.judgements(request)?;
        let rarely = judged >= self.min_judged
            && u128::from(useful) * 100 < u128::from(judged) * u128::from(self.min_useful_percent);
        let objection = rarely.then(|| {
            let host = &request.seller.host;
            let message = format!("{useful} of {judged} judged purchases from {host} were useful");
            self.action.because("vendor-rarely-useful", message)
        });
        Ok(self.review.decide(objection.into_iter().collect()))
    }
}

/// How many purchases were judged, and how many of them useful.
struct Judgements {
    judged: u64,
    useful: u64,
}

impl Judgements {
    /// More useful ones than judged ones would hide a vendor that is of no use.
    fn new(whose: &str, judged: u64, useful: u64) -> Result<Self, String> {
        if useful <= judged {
            return Ok(Self { judged, useful });
        }
        Err(format!("of {judged} purchases that {whose} judged, {useful} are said to be useful"))
    }
}

impl Usefulness {
    fn judgements(&self, request: &SpendRequest) -> Result<Judgements, String> {
        let people = Judgements::new("people", request.seller.judged.into(), request.seller.useful.into())?;
        if !self.count_agents {
            return Ok(people);
        }
        let figure = |name| Ok::<_, String>(request.figure(name)?.unwrap_or(0));
        let agents = Judgements::new("agents", figure("agent-judged")?, figure("agent-useful")?)?;
        Ok(Judgements {
            judged: people.judged.saturating_add(agents.judged),
            useful: people.useful.saturating_add(agents.useful),
        })
    }
}

export_policy!(Usefulness);

#[cfg(test)]
mod tests {
    use countersign_sdk::testing::{Harness, RequestBuilder, assert_schema_agrees, json, problems, request, run_cases};

    use super::*;

    #[test]
    fn cases() {
        run_cases::<Usefulness>(include_str!("../cases.json"));
    }

    #[test]
    fn schema() {
        assert_schema_agrees::<Usefulness>();
    }

    fn judged(judged: u32, useful: u32) -> RequestBuilder {
        request().with(|request| {
            request.seller.judged = judged;
            request.seller.useful = useful;
        })
    }

    #[test]
    fn one_judgement_decides() {
        let policy = Harness::<Usefulness>::new(json!({ "min-judged": 5, "min-useful-percent": 40 }));
        policy.evaluate(&judged(4, 0)).assert_abstains();
        policy.evaluate(&judged(5, 1)).assert_reviews("vendor-rarely-useful");
        policy.evaluate(&judged(5, 2)).assert_abstains();
        policy.evaluate(&judged(6, 2)).assert_reviews("vendor-rarely-useful");
        let all = Harness::<Usefulness>::new(json!({ "min-judged": 1, "min-useful-percent": 100 }));
        all.evaluate(&judged(u32::MAX, u32::MAX)).assert_abstains();
        all.evaluate(&judged(u32::MAX, u32::MAX - 1)).assert_reviews("vendor-rarely-useful");
    }

    #[test]
    fn agents_count_only_when_asked_for() {
        let vouched = judged(10, 0).fact("agent-judged", "90").fact("agent-useful", "90");
        let people = Harness::<Usefulness>::new(json!({ "min-judged": 5, "min-useful-percent": 50 }));
        people.evaluate(&vouched).assert_reviews("vendor-rarely-useful");
        let both = json!({ "min-judged": 5, "min-useful-percent": 50, "count-agents": true });
        let both = Harness::<Usefulness>::new(both);
        both.evaluate(&vouched).assert_abstains();
        both.evaluate(&judged(10, 0).claim("agent-judged", "90").claim("agent-useful", "90"))
            .assert_reviews("vendor-rarely-useful");
    }

    #[test]
    fn no_figures_overflow() {
        let both = json!({ "min-judged": 5, "min-useful-percent": 100, "count-agents": true });
        let both = Harness::<Usefulness>::new(both);
        let most = u64::MAX.to_string();
        both.evaluate(&judged(5, 5).fact("agent-judged", &most).fact("agent-useful", &most)).assert_abstains();
        both.evaluate(&judged(5, 0).fact("agent-judged", &most)).assert_reviews("vendor-rarely-useful");
    }

    #[test]
    fn figures_that_make_no_sense_are_errors() {
        let settings = |count_agents: bool| {
            Harness::<Usefulness>::new(
                json!({ "min-judged": 5, "min-useful-percent": 50, "count-agents": count_agents }),
            )
        };
        assert!(settings(false).evaluate(&judged(5, 6)).error().is_some());
        for (name, value) in [("agent-useful", "1"), ("agent-judged", "many"), ("agent-judged", "-1")] {
            let odd = judged(9, 9).fact(name, value);
            assert!(settings(true).evaluate(&odd).error().is_some(), "{name} {value}");
            settings(false).evaluate(&odd).assert_abstains();
        }
    }

    #[test]
    fn every_problem_is_reported() {
        for percent in [0, 101] {
            let found = problems::<Usefulness>(
                json!({ "min-judged": 1, "min-useful-percent": percent, "group": "", "quorum": 0 }),
            );
            let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
            assert_eq!(paths, ["/min-useful-percent", "/group", "/quorum"]);
        }
    }
}
