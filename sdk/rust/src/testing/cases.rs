//! A policy's file of cases, run on native code.

use countersign_cases::{Cases, CasesError, Decision, Judge, Refusal, Report, Subject};
use serde_json::Value;

use super::harness::Harness;
use super::request::read;
use crate::Policy;

/// Runs the cases of a policy. The format is in `docs/policies.md`.
///
/// # Panics
/// If the file is not one of cases, or with everything that came out differently.
#[track_caller]
pub fn run_cases<P: Policy>(file: &str) {
    let report = match try_cases::<P>(file) {
        Ok(report) => report,
        Err(error) => panic!("not a file of cases: {error}"),
    };
    assert!(report.passed(), "cases of {} failed:\n{report}", P::NAME);
}

/// Runs the cases of a policy and tells what came of them.
///
/// # Errors
/// If the file is not one of cases.
pub fn try_cases<P: Policy>(file: &str) -> Result<Report, CasesError> {
    Ok(Cases::parse(file)?.run(&Native::<P>(std::marker::PhantomData), None))
}

struct Native<P>(std::marker::PhantomData<P>);

impl<P: Policy> Subject for Native<P> {
    fn configure(&self, settings: &Value) -> Result<Box<dyn Judge + '_>, Refusal> {
        let problem = |p: crate::Problem| countersign_cases::Problem { path: p.path, message: p.message };
        match Harness::<P>::try_new(settings) {
            Ok(harness) => Ok(Box::new(harness)),
            Err(problems) => Err(Refusal::Problems(problems.into_iter().map(problem).collect())),
        }
    }
}

impl<P: Policy> Judge for Harness<P> {
    fn judge(&self, request: &Value) -> Result<Decision, String> {
        let outcome = self.evaluate(&read(request)?);
        if let Some(error) = outcome.error() {
            return Err(format!("evaluate: {error}"));
        }
        let answer = serde_json::to_value(outcome.decision()).map_err(|error| error.to_string())?;
        serde_json::from_value(answer).map_err(|error| error.to_string())
    }
}
