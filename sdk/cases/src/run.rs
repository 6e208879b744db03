//! Running cases on whatever can be configured and asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

use crate::answer::Decision;
use crate::document::{Case, Cases, Expected, ExpectedDecision};
use crate::property::Property;

/// A policy, whatever it runs on.
pub trait Subject {
    /// Hands it settings.
    ///
    /// # Errors
    /// What it finds wrong with them, or that it could not be run at all.
    fn configure(&self, settings: &Value) -> Result<Box<dyn Judge + '_>, Refusal>;
}

/// A policy that took its settings.
pub trait Judge {
    /// Asks it a whole request under the names of the WIT.
    ///
    /// # Errors
    /// The policy's own error, or how it failed.
    fn judge(&self, request: &Value) -> Result<Decision, String>;
}

/// Why a policy was not configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It found problems.
    Problems(Vec<Problem>),
    /// It did not get as far as saying so.
    Failed(String),
}

/// One problem with settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// JSON Pointer into the settings.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

/// What came of all cases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// In the order of the file, cases first.
    pub outcomes: Vec<Outcome>,
    /// How often each reason code was given, those that the file lists and nobody gave with 0.
    pub codes: BTreeMap<String, u64>,
    /// Listed in `codes`, given by no case.
    pub missing: Vec<String>,
    /// Given by a case, not listed in `codes`.
    pub unlisted: Vec<String>,
}

/// What came of one case or property.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Which of the two it is.
    pub kind: Kind,
    /// Requests it spoke of.
    pub requests: u64,
    /// None: as expected.
    pub failure: Option<Failure>,
}

/// Cases are one request, properties many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One request.
    Case,
    /// Many.
    Property,
}

/// How an answer was not the expected one.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The request, as a fragment over the ordinary one; for a property the smallest that was found.
    pub request: Value,
    /// What differs.
    pub differences: Vec<Difference>,
}

/// One part of an answer that is not as expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which part: `verdict`, `holds`, `problems`.
    pub part: String,
    /// What the file says.
    pub expected: Value,
    /// What was answered.
    pub got: Value,
}

impl Difference {
    fn new(part: &str, expected: impl Into<Value>, got: impl Into<Value>) -> Self {
        Self { part: part.to_owned(), expected: expected.into(), got: got.into() }
    }
}

impl Report {
    /// Whether everything came out as the file says.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures().next().is_none() && self.missing.is_empty() && self.unlisted.is_empty()
    }

    /// What did not, by name.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &Failure)> {
        self.outcomes.iter().filter_map(|o| Some((o.name.as_str(), o.failure.as_ref()?)))
    }
}

/// What failed, one line for each difference; for messages.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<String> = self.failures().map(|(name, failure)| format!("{name}: {failure}")).collect();
        if !self.missing.is_empty() {
            lines.push(format!("no case gives the codes {}", self.missing.join(", ")));
        }
        if !self.unlisted.is_empty() {
            lines.push(format!("`codes` does not list {}", self.unlisted.join(", ")));
        }
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |d: &Difference| format!("{}: expected {}, got {}", d.part, d.expected, d.got);
        let lines: Vec<String> = self.differences.iter().map(one).collect();
        write!(f, "{}; asked {}", lines.join("; "), self.request)
    }
}

/// What `evaluate` answered, or why it was never asked.
type Answer = Result<Result<Decision, String>, Difference>;

/// Counts the codes that are given.
#[derive(Default)]
struct Codes(BTreeMap<String, u64>);

impl Codes {
    fn see(&mut self, decision: &Decision) {
        for code in decision.codes() {
            let count = self.0.entry(code.to_owned()).or_default();
            *count = count.saturating_add(1);
        }
    }
}

impl Cases {
    /// Runs everything. `given` are the settings of cases that name none; with them, which codes are given
    /// depends on somebody else's settings, so that `codes` is not held against anybody.
    #[must_use]
    pub fn run(&self, subject: &dyn Subject, given: Option<&Value>) -> Report {
        let default = self.settings(given);
        let mut codes = Codes::default();
        let mut outcomes = Vec::new();
        for case in &self.cases {
            let configured = subject.configure(case.settings.as_ref().unwrap_or(&default));
            let differences = run_case(case, configured, &mut codes);
            let failure = (!differences.is_empty()).then(|| Failure { request: case.fragment.clone(), differences });
            outcomes.push(Outcome { name: case.name.clone(), kind: Kind::Case, requests: 1, failure });
        }
        for property in &self.properties {
            let configured = subject.configure(property.settings.as_ref().unwrap_or(&default));
            outcomes.push(run_property(property, configured, &mut codes));
        }
        let listed = self.codes.as_ref().filter(|_| given.is_none());
        Report::new(outcomes, codes.0, listed)
    }
}

impl Report {
    fn new(outcomes: Vec<Outcome>, mut codes: BTreeMap<String, u64>, listed: Option<&BTreeSet<String>>) -> Self {
        let (mut missing, mut unlisted) = (Vec::new(), Vec::new());
        if let Some(listed) = listed {
            let seen: BTreeSet<String> = codes.keys().cloned().collect();
            missing = listed.difference(&seen).cloned().collect();
            unlisted = seen.difference(listed).cloned().collect();
            codes.extend(missing.iter().map(|code| (code.clone(), 0)));
        }
        Self { outcomes, codes, missing, unlisted }
    }
}

fn run_case(case: &Case, configured: Result<Box<dyn Judge + '_>, Refusal>, codes: &mut Codes) -> Vec<Difference> {
    let mut answer = || -> Answer {
        let judge = configured.as_ref().map_err(unconfigured)?;
        let answer = judge.judge(&case.request);
        answer.iter().for_each(|decision| codes.see(decision));
        Ok(answer)
    };
    match &case.expect {
        Expected::Problems(paths) => settings_refused(paths, &configured),
        Expected::Error(part) => match answer() {
            Ok(Err(error)) if error.contains(part.as_str()) => Vec::new(),
            Ok(Err(error)) => vec![Difference::new("error", part.clone(), error)],
            Ok(Ok(decision)) => vec![Difference::new("error", part.clone(), whole(&decision))],
            Err(difference) => vec![difference],
        },
        Expected::Decision(expected) => match answer() {
            Ok(Ok(decision)) => differences(expected, &decision),
            Ok(Err(error)) => vec![Difference::new("answer", "a decision", error)],
            Err(difference) => vec![difference],
        },
    }
}

fn settings_refused(paths: &[String], configured: &Result<Box<dyn Judge + '_>, Refusal>) -> Vec<Difference> {
    let got = match configured {
        Err(Refusal::Problems(problems)) if problems.iter().map(|problem| &problem.path).eq(paths) => {
            return Vec::new();
        }
        Err(Refusal::Problems(problems)) => lines(problems),
        Err(Refusal::Failed(why)) => why.clone().into(),
        Ok(_) => "the settings were accepted".into(),
    };
    vec![Difference::new("problems", json!(paths), got)]
}

fn run_property(property: &Property, configured: Result<Box<dyn Judge + '_>, Refusal>, codes: &mut Codes) -> Outcome {
    let outcome = |requests, failure| Outcome { name: property.name.clone(), kind: Kind::Property, requests, failure };
    let failed = |request: &Value, difference| Failure { request: request.clone(), differences: vec![difference] };
    let judge = match configured {
        Ok(judge) => judge,
        Err(refusal) => return outcome(0, Some(failed(&property.base, unconfigured(&refusal)))),
    };
    let (requests, broken) = property.run(judge.as_ref(), &mut |decision| codes.see(decision));
    let failure = match broken {
        Some(found) => Some(failed(&found.fragment, Difference::new("answer", found.expected, found.got))),
        None if requests == 0 => {
            let difference = Difference::new("when", "some of the requests", "none of them: nothing was checked");
            Some(failed(&property.base, difference))
        }
        None => None,
    };
    outcome(requests, failure)
}

fn unconfigured(refusal: &Refusal) -> Difference {
    match refusal {
        Refusal::Problems(problems) => Difference::new("settings", "accepted", lines(problems)),
        Refusal::Failed(why) => Difference::new("settings", "accepted", why.clone()),
    }
}

fn lines(problems: &[Problem]) -> Value {
    problems.iter().map(|p| Value::from(format!("{}: {}", p.path, p.message))).collect()
}

fn whole(decision: &Decision) -> Value {
    serde_json::to_value(decision).unwrap_or_default()
}

/// Everything a case compares, and it compares exactly.
fn differences(expected: &ExpectedDecision, got: &Decision) -> Vec<Difference> {
    let codes: Vec<&str> = expected.reasons.iter().map(String::as_str).collect();
    let parts = [
        ("verdict", json!(expected.verdict), json!(got.verdict)),
        ("reasons", json!(codes), json!(got.codes())),
        ("holds", json!(expected.holds), json!(got.holds)),
        ("review", json!(expected.review), json!(got.review)),
        ("obligations", json!(expected.obligations), json!(got.obligations)),
    ];
    let different = parts.into_iter().filter(|(_, expected, got)| expected != got);
    different.map(|(part, expected, got)| Difference::new(part, expected, got)).collect()
}
