//! Rules written in Cedar.
//!
//! - **Settings** ([`Settings`]): `policy`, Cedar policies for the schema in `schema.cedarschema`; `holds`.
//! - **Verdict**: a `forbid` that applies *denies*, or, with `@review`, *reviews*; else a `permit` that applies
//!   *allows*; else *abstain*. Deny is stronger than review.
//! - **Holds**: those of `holds` whose `when`, a Cedar expression, is true.
//!
//! | annotation | of | meaning |
//! |---|---|---|
//! | `@id("…")` | any | what messages call it |
//! | `@code("…")`, `@message("…")` | any | the reason |
//! | `@review("finance")` | forbid | ask this group, or with `""` any approver, instead of denying |
//! | `@quorum("2")`, `@expires_in_seconds("3600")` | forbid with `@review` | how many, and after how long silence is a no |
//!
//! | code | when |
//! |---|---|
//! | as annotated, else `forbidden-by-rule` | a forbid applies |
//! | `rule-error` | a policy, or a hold's `when`, could not be evaluated |
//! | `hold-scope-missing` | what fills a budget's path is not set |
//! | `hold-scope-unusable` | what fills a budget's path cannot be a step of one |
//! | `zero-value` | money is to be held for a payment that is worth nothing |
//! | `review-groups-differ` | forbids that apply ask two groups |
//!
//! Cedar itself skips a policy that it cannot evaluate. Here that is a deny: a forbid must not vanish.

mod notes;
mod policies;
mod scope;
mod world;

use cedar_policy::{Authorizer, Decision as Answer, Effect, PolicySet};
use countersign_sdk::{Decision, Policy, Problem, Reason, SpendRequest, export_policy};
use notes::Noted;
use rules_as_text::hold::{self, HoldRule, HoldSettings};
use rules_as_text::{FORBIDDEN, Ruling, full_request, text};
use scope::Scope;
use serde::Deserialize;
use world::World;

/// The text and the holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Cedar policies.
    pub policy: String,
    /// What is reserved, whatever the policies say.
    #[serde(default)]
    pub holds: Vec<HoldSettings>,
}

/// The configured policy.
#[derive(Debug)]
pub struct Cedar {
    authorizer: Authorizer,
    world: World,
    policies: PolicySet,
    /// In the order of the text.
    noted: Vec<Noted>,
    holds: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    label: String,
    /// One policy that permits if the hold applies.
    when: Option<PolicySet>,
    rule: HoldRule<Scope>,
}

impl Policy for Cedar {
    type Settings = Settings;
    const NAME: &'static str = "cedar";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Judges by policies written in Cedar, and places holds.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        let checker = policies::Checker::new().map_err(|problem| vec![problem])?;
        let mut problems: Vec<Problem> = text::few("/holds", settings.holds.len()).err().into_iter().collect();
        let read = checker.policies(&settings.policy).map_err(|found| problems.extend(found)).ok();
        let mut holds = Vec::new();
        for (index, hold) in settings.holds.iter().take(text::MAX_RULES).enumerate() {
            match read_hold(&checker, index, hold) {
                Ok(hold) => holds.push(hold),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() {
            problems = hold::clashes(&holds.iter().map(|held| &held.rule).collect::<Vec<_>>());
        }
        let (Some((policies, noted)), Ok(world), true) = (read, World::new(), problems.is_empty()) else {
            return Err(problems);
        };
        let policy = Self { authorizer: Authorizer::new(), world, policies, noted, holds };
        // Leaves whatever is made on first use made. What comes out does not matter: types are checked.
        policy.evaluate(&full_request()).map_err(|why| vec![Problem::document(why)])?;
        Ok(policy)
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let (asked, entities) = self.world.of(request)?;
        let mut ruling = Ruling::default();
        let answer = self.authorizer.is_authorized(&asked, &self.policies, &entities);
        self.say(&answer, &mut ruling);
        for held in &self.holds {
            let applies = held.when.as_ref().map(|when| self.authorizer.is_authorized(&asked, when, &entities));
            match applies {
                Some(answer) if answer.diagnostics().errors().next().is_some() => {
                    let why = answer.diagnostics().errors().map(policies::cause).collect::<Vec<_>>().join("; ");
                    ruling.fail(&held.label, &why);
                }
                Some(answer) if answer.decision() == Answer::Deny => {}
                _ => ruling.hold(held.hold(request)),
            }
        }
        Ok(ruling.decide())
    }
}

impl Cedar {
    /// In the order of the text: Cedar's own is none.
    fn say(&self, answer: &cedar_policy::Response, ruling: &mut Ruling) {
        let diagnostics = answer.diagnostics();
        for noted in &self.noted {
            for error in diagnostics.errors().filter(|error| policies::id(error) == &noted.id) {
                ruling.fail(&noted.label, &policies::cause(error));
            }
            if !diagnostics.reason().any(|id| *id == noted.id) {
                continue;
            }
            let reason =
                || noted.reason.clone().unwrap_or_else(|| Reason::new(FORBIDDEN, format!("{} applies", noted.label)));
            match (noted.effect, &noted.review) {
                (Effect::Permit, _) => ruling.allow(noted.reason.clone()),
                (Effect::Forbid, None) => ruling.deny(reason()),
                (Effect::Forbid, Some(terms)) => ruling.review(reason(), terms.clone()),
            }
        }
    }
}

impl Held {
    fn hold(&self, request: &SpendRequest) -> Result<countersign_sdk::Hold, Reason> {
        self.rule.hold(self.rule.budget.fill(|scope| Ok(scope.of(request)))?, request)
    }
}

fn read_hold(checker: &policies::Checker, index: usize, settings: &HoldSettings) -> Result<Held, Vec<Problem>> {
    let path = format!("/holds/{index}");
    let mut problems = Vec::new();
    let when = settings.when.as_ref().map(|when| checker.condition(&format!("{path}/when"), when)).transpose();
    let when = when.map_err(|found| problems.extend(found)).ok();
    let rule = HoldRule::new(&path, settings, Scope::read).map_err(|found| problems.extend(found)).ok();
    match (when, rule) {
        (Some(when), Some(rule)) => Ok(Held { label: format!("hold {index} on `{}`", settings.budget), when, rule }),
        _ => Err(problems),
    }
}

export_policy!(Cedar);

#[cfg(test)]
mod tests;
