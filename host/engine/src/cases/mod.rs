//! A policy's file of cases, run on the component.
//!
//! What a file says and what counts as a failure is `countersign_cases`, which the SDK runs on native
//! code. Here is what asks a component: staged once per settings document, from its own bytes, and a
//! fresh instance for each request, as in production.

mod convert;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use countersign_cases::{CasesError, Difference, Failure, Kind, Outcome, Problem, Question, Report};
use countersign_cases::{Judge, Refusal, Subject};
use countersign_core::json;
use countersign_core::seams::Judge as _;
use countersign_core::spend::SpendRequest;
use countersign_core::verdict::Mode;
use serde_json::Value;

pub use convert::request;

use crate::engine::now;
use crate::{Engine, PolicySet, PolicySpec, Stage, StageError, Start};

/// Cases judge answers, not speed: a busy machine must not fail them. Fuel still bounds them.
const DEADLINE_MS: u32 = 60_000;

/// The cases of one policy.
#[derive(Clone, Debug)]
pub struct Cases(countersign_cases::Cases);

impl Cases {
    /// Reads a file of cases, JSON or TOML.
    ///
    /// # Errors
    /// The first mistake, with the case it is in.
    pub fn parse(text: &str) -> Result<Self, CasesError> {
        countersign_cases::Cases::parse(text).map(Self)
    }

    /// Runs everything on the module of `spec`. Cases that name no settings run under those of `spec`.
    #[must_use]
    pub fn run(&self, engine: &Arc<Engine>, spec: &PolicySpec) -> Report {
        let given = serde_json::from_str(&spec.settings).unwrap_or_default();
        self.0.run(&Component::new(engine, spec, None), Some(&given))
    }

    /// Runs everything, as [`Cases::run`] does; what does not come to its turn within `time` fails.
    pub(crate) fn run_within(&self, time: Duration, engine: &Arc<Engine>, spec: &PolicySpec) -> Report {
        let given = serde_json::from_str(&spec.settings).unwrap_or_default();
        self.0.run(&Component::new(engine, spec, now().checked_add(time)), Some(&given))
    }

    /// Runs everything on a module; cases that name no settings run under the file's own.
    #[must_use]
    pub fn run_alone(&self, engine: &Arc<Engine>, spec: &PolicySpec) -> Report {
        self.0.run(&Component::new(engine, spec, None), None)
    }

    /// The settings of a case that names none: those given, else the file's.
    #[must_use]
    pub fn settings(&self, given: Option<&Value>) -> Value {
        self.0.settings(given)
    }

    /// What the cases ask.
    #[must_use]
    pub fn questions(&self, given: Option<&Value>) -> Vec<Question> {
        self.0.questions(given)
    }
}

/// A module that is staged under whatever settings a case has.
struct Component<'a> {
    engine: &'a Arc<Engine>,
    spec: &'a PolicySpec,
    until: Option<Instant>,
    /// What became of each settings document.
    staged: RefCell<BTreeMap<String, Result<Arc<PolicySet>, StageError>>>,
}

impl<'a> Component<'a> {
    fn new(engine: &'a Arc<Engine>, spec: &'a PolicySpec, until: Option<Instant>) -> Self {
        Self { engine, spec, until, staged: RefCell::default() }
    }

    fn stage(&self, settings: &Value) -> Result<Arc<PolicySet>, StageError> {
        let settings = json::canonical(settings);
        let stage = || {
            let spec = PolicySpec {
                settings: settings.clone(),
                mode: Mode::Enforce,
                deadline_ms: DEADLINE_MS,
                // A case says what the policy sees.
                claims: true,
                start: Start::Plain,
                cases: None,
                ..self.spec.clone()
            };
            self.engine.stage(0, &[spec]).map(Arc::new)
        };
        self.staged.borrow_mut().entry(settings.clone()).or_insert_with(stage).clone()
    }
}

impl Subject for Component<'_> {
    fn configure(&self, settings: &Value) -> Result<Box<dyn Judge + '_>, Refusal> {
        in_time(self.until).map_err(Refusal::Failed)?;
        match self.stage(settings) {
            Ok(set) => Ok(Box::new(Staged { set, name: self.spec.name.clone(), until: self.until })),
            Err(error) if error.stage == Stage::Settings => Err(Refusal::Problems(problems(&error.message))),
            Err(error) => Err(Refusal::Failed(error.to_string())),
        }
    }
}

struct Staged {
    set: Arc<PolicySet>,
    name: String,
    until: Option<Instant>,
}

fn in_time(until: Option<Instant>) -> Result<(), String> {
    if until.is_some_and(|until| now() > until) {
        return Err("all cases together took longer than the host waits".to_owned());
    }
    Ok(())
}

impl Judge for Staged {
    fn judge(&self, request: &Value) -> Result<countersign_cases::Decision, String> {
        in_time(self.until)?;
        let request: SpendRequest = convert::request_of(request)?;
        let judgement = self.set.judge(std::slice::from_ref(&self.name), &request);
        let opinion = judgement.opinions.into_iter().next().ok_or("the engine gave no opinion")?;
        opinion.outcome.map(convert::decision).map_err(|failure| failure.message)
    }
}

/// The problems in the text that staging makes of them: `/hosts/0: not a host; (whole document): …`.
fn problems(text: &str) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for part in text.split("; ") {
        let (path, message) = part.split_once(": ").unwrap_or((part, ""));
        match (path, problems.last_mut()) {
            (path, _) if path.starts_with('/') => {
                problems.push(Problem { path: path.to_owned(), message: message.to_owned() });
            }
            ("(whole document)", _) => problems.push(Problem { path: String::new(), message: message.to_owned() }),
            // A message with a semicolon in it goes on.
            (_, Some(last)) => last.message.push_str(&format!("; {part}")),
            (_, None) => problems.push(Problem { path: String::new(), message: part.to_owned() }),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_read_back_from_the_text_of_staging() {
        let paths = |text: &str| problems(text).into_iter().map(|p| p.path).collect::<Vec<_>>();
        assert_eq!(paths("/hosts/0: not a host; (whole document): `per-day` is required"), ["/hosts/0", ""]);
        assert_eq!(paths("/a: two things; both wrong: really; /b: c"), ["/a", "/b"]);
        assert_eq!(paths("the policy refused its settings and did not say why"), [""]);
    }
}
