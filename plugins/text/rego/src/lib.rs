//! Rules written in Rego.
//!
//! - **Settings** ([`Settings`]): `policy`, a module of `package countersign`.
//! - **Verdict**: any `deny` denies, else any `review` reviews, else `allow` allows, else *abstain*.
//! - **Holds**: those in `holds`.
//!
//! | rule | is | of |
//! |---|---|---|
//! | `allow` | true or false | |
//! | `deny contains …` | objects | `code`, `message` |
//! | `review contains …` | objects | `code`, `message`, and if wanted `group`, `quorum`, `expires_in_seconds` |
//! | `holds contains …` | objects | `budget` (a list of steps), `per`, `limit`, and if wanted `timezone`, `unit`, `alert_at`, `review_at` |
//!
//! | code | when |
//! |---|---|
//! | as the policy says | |
//! | `rule-error` | the policy could not be evaluated, or one of the four rules is not what the table says |
//! | `hold-scope-missing` | a step of a budget is null or empty |
//! | `hold-scope-unusable` | a step of a budget cannot be one |
//! | `zero-value` | money is to be held for a payment that is worth nothing |
//! | `review-groups-differ` | reviews that apply ask two groups |
//!
//! `input` is the request in snake_case. What is not set is `null`, so that a comparison with it is false or true
//! and never undefined: in Rego an undefined condition is a rule that silently does not apply.

mod answer;
mod module;

use countersign_sdk::{Decision, Policy, Problem, SpendRequest, export_policy};
use module::Module;
use rules_as_text::{Ruling, full_request, text};
use serde::Deserialize;

/// The text.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// A module of `package countersign`.
    pub policy: String,
}

/// The configured policy.
#[derive(Debug)]
pub struct Rego {
    module: Module,
}

impl Policy for Rego {
    type Settings = Settings;
    const NAME: &'static str = "rego";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Judges by rules and holds written in Rego.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        text::bounded(module::PATH, &settings.policy).map_err(|problem| vec![problem])?;
        let policy = Self { module: Module::compile(&settings.policy)? };
        // On a request that has everything: what is wrong with this answer is better said now. It also leaves
        // whatever is made on first use made.
        match policy.module.answer(&full_request()) {
            Ok(answer) => answer::read(&answer, &full_request()).map_err(|why| vec![Problem::at(module::PATH, why)])?,
            Err(failure) if failure.depends_on_values() => return Ok(policy),
            Err(failure) => return Err(vec![failure.problem(&settings.policy)]),
        };
        Ok(policy)
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let answer = self.module.answer(request).map_err(|failure| ("the policy", failure.to_string()));
        let ruling = answer.and_then(|answer| answer::read(&answer, request).map_err(|why| ("the answer", why)));
        Ok(ruling
            .unwrap_or_else(|(what, why)| {
                let mut ruling = Ruling::default();
                ruling.fail(what, &why);
                ruling
            })
            .decide())
    }
}

export_policy!(Rego);

#[cfg(test)]
mod tests;
