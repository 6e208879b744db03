//! A policy's `cases.json`: what it answers, as data that other tools can run too.

use serde::Deserialize;
use serde_json::Value;

use super::harness::{Harness, Outcome, list};
use super::request::request;
use crate::settings;
use crate::{Hold, Obligation, Policy, ReviewTerms, Verdict};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Case {
    name: String,
    settings: Value,
    /// Over the ordinary request; see `RequestBuilder::merge`.
    #[serde(default)]
    request: Option<Value>,
    expect: Expect,
}

/// Exactly one of `verdict`, `error` and `problems`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Expect {
    verdict: Option<Verdict>,
    /// Reason codes: these, in this order.
    #[serde(default)]
    reasons: Vec<String>,
    /// These, in this order.
    #[serde(default)]
    holds: Vec<Hold>,
    review: Option<ReviewTerms>,
    #[serde(default)]
    obligations: Vec<Obligation>,
    /// Part of the error that `evaluate` answers.
    error: Option<String>,
    /// The paths of the problems that `configure` answers.
    problems: Option<Vec<String>>,
}

/// Runs the cases of a policy. The format is in `docs/policies.md`.
///
/// # Panics
/// If the file is not one of cases, or with every case that came out differently.
#[track_caller]
pub fn run_cases<P: Policy>(file: &str) {
    let cases = match settings::parse::<File>(file) {
        Ok(file) => file.cases,
        Err(problems) => panic!("not a file of cases: {}", list(&problems)),
    };
    assert!(!cases.is_empty(), "a file of cases without a case");
    let failures: Vec<String> =
        cases.iter().filter_map(|case| run::<P>(case).err().map(|why| format!("  {}: {why}", case.name))).collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases of {} failed:\n{}",
        failures.len(),
        cases.len(),
        P::NAME,
        failures.join("\n")
    );
}

fn run<P: Policy>(case: &Case) -> Result<(), String> {
    let expect = &case.expect;
    let asked = [expect.verdict.is_some(), expect.error.is_some(), expect.problems.is_some()];
    if asked.into_iter().filter(|asked| *asked).count() != 1 {
        return Err("expect one of `verdict`, `error`, `problems`".to_owned());
    }
    let harness = match (Harness::<P>::try_new(&case.settings), &expect.problems) {
        (Ok(harness), None) => harness,
        (Ok(_), Some(_)) => return Err("the settings were accepted".to_owned()),
        (Err(problems), None) => {
            return Err(format!("the settings were refused: {}", list(&problems)));
        }
        (Err(problems), Some(paths)) => {
            let found = problems.iter().map(|problem| &problem.path);
            return if found.eq(paths) { Ok(()) } else { Err(list(&problems)) };
        }
    };
    let request = match &case.request {
        Some(fragment) => request().merge(fragment)?,
        None => request(),
    };
    compare(expect, &harness.evaluate(&request))
}

fn compare(expect: &Expect, outcome: &Outcome) -> Result<(), String> {
    if let Some(error) = outcome.error() {
        let expected = expect.error.as_deref().is_some_and(|part| error.contains(part));
        return if expected { Ok(()) } else { Err(format!("evaluate failed: {error}")) };
    }
    let decision = outcome.decision();
    let same = expect.verdict == Some(decision.verdict)
        && expect.reasons == outcome.codes()
        && expect.holds == decision.holds
        && expect.review == decision.review
        && expect.obligations == decision.obligations;
    if same { Ok(()) } else { Err(format!("got {decision:?}")) }
}
