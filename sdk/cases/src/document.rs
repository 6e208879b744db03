//! Reading a file of cases.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::answer::{Hold, Obligation, ReviewTerms, Verdict};
use crate::property::{Property, Rule, When, read_vary, samples};
use crate::request::{complete, ordinary};

/// Largest file.
const MAX_BYTES: usize = 4 << 20;
/// Most requests of one file: a gateway runs them all before a policy may serve.
const MAX_REQUESTS: u64 = 100_000;

/// The cases of one policy.
#[derive(Clone, Debug)]
pub struct Cases {
    /// For cases that name none, when nobody else gives any.
    pub(crate) settings: Option<Value>,
    /// Every code the policy may give, if the author lists them.
    pub(crate) codes: Option<BTreeSet<String>>,
    pub(crate) cases: Vec<Case>,
    pub(crate) properties: Vec<Property>,
}

/// One request and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) settings: Option<Value>,
    /// The fragment as it was written, and the request it comes to.
    pub(crate) fragment: Value,
    pub(crate) request: Value,
    pub(crate) expect: Expected,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expected {
    Decision(ExpectedDecision),
    /// Part of what `evaluate` answers as its error.
    Error(String),
    /// The paths of the problems `configure` answers.
    Problems(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExpectedDecision {
    pub(crate) verdict: Verdict,
    pub(crate) reasons: Vec<String>,
    pub(crate) holds: Vec<Hold>,
    pub(crate) review: Option<ReviewTerms>,
    pub(crate) obligations: Vec<Obligation>,
}

/// A request that some case asks, for tools that only want to ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The case's name.
    pub name: String,
    /// The settings it is asked under.
    pub settings: Value,
    /// The whole request.
    pub request: Value,
}

/// Why a file is not one of cases: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CasesError {
    /// Such as ``case `a day is held`, expect``; empty for the file as a whole.
    pub place: String,
    /// What is wrong there.
    pub message: String,
}

impl CasesError {
    fn new(place: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { place: place.into(), message: message.to_string() }
    }
}

impl fmt::Display for CasesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for CasesError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    settings: Option<Value>,
    codes: Option<BTreeSet<String>>,
    #[serde(default)]
    cases: Vec<Value>,
    #[serde(default)]
    properties: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseText {
    name: String,
    settings: Option<Value>,
    request: Option<Value>,
    expect: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    verdict: Option<Verdict>,
    #[serde(default)]
    reasons: Vec<String>,
    #[serde(default)]
    holds: Vec<Hold>,
    review: Option<ReviewTerms>,
    #[serde(default)]
    obligations: Vec<Obligation>,
    error: Option<String>,
    problems: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PropertyText {
    name: String,
    settings: Option<Value>,
    request: Option<Value>,
    vary: Value,
    samples: Option<u32>,
    when: Option<Value>,
    never: Option<Value>,
    always: Option<Value>,
}

impl Cases {
    /// Reads a file: JSON if it begins with `{`, else TOML.
    ///
    /// # Errors
    /// The first mistake, with the case it is in.
    pub fn parse(text: &str) -> Result<Self, CasesError> {
        if text.len() > MAX_BYTES {
            return Err(CasesError::new("", format!("{} bytes, at most {MAX_BYTES}", text.len())));
        }
        let document = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|e| CasesError::new("", format!("not JSON: {e}")))?
        } else {
            toml::from_str(text).map_err(|e| CasesError::new("", format!("not TOML: {e}")))?
        };
        let file: File = read("", document)?;
        let cases: Vec<Case> =
            file.cases.into_iter().enumerate().map(|(i, case)| read_case(i, case)).collect::<Result<_, _>>()?;
        let properties: Vec<Property> =
            file.properties.into_iter().enumerate().map(|(i, p)| read_property(i, p)).collect::<Result<_, _>>()?;
        if cases.is_empty() && properties.is_empty() {
            return Err(CasesError::new("", "a file of cases without a case; add one to `cases` or `properties`"));
        }
        let requests: u64 = properties.iter().map(|p| u64::from(p.samples)).sum();
        if requests > MAX_REQUESTS {
            let message = format!("{requests} samples over all properties, at most {MAX_REQUESTS}");
            return Err(CasesError::new("", message));
        }
        let mut names = BTreeSet::new();
        for name in cases.iter().map(|c| &c.name).chain(properties.iter().map(|p| &p.name)) {
            if !names.insert(name) {
                return Err(CasesError::new(format!("case `{name}`"), "another case has this name"));
            }
        }
        Ok(Self { settings: file.settings, codes: file.codes, cases, properties })
    }

    /// The settings a case without its own runs under: those given, else the file's, else none.
    #[must_use]
    pub fn settings(&self, given: Option<&Value>) -> Value {
        given.or(self.settings.as_ref()).cloned().unwrap_or_else(|| json!({}))
    }

    /// What the cases ask where they expect a decision.
    #[must_use]
    pub fn questions(&self, given: Option<&Value>) -> Vec<Question> {
        let asks = |case: &&Case| matches!(case.expect, Expected::Decision(_));
        let question = |case: &Case| Question {
            name: case.name.clone(),
            settings: case.settings.clone().unwrap_or_else(|| self.settings(given)),
            request: case.request.clone(),
        };
        self.cases.iter().filter(asks).map(question).collect()
    }
}

/// A typed value, or what is wrong with it at `place`.
fn read<T: DeserializeOwned>(place: &str, value: Value) -> Result<T, CasesError> {
    serde_json::from_value(value).map_err(|e| CasesError::new(place, e))
}

/// What to call an entry before it is known to have a name.
fn place(kind: &str, index: usize, value: &Value) -> String {
    match value.get("name").and_then(Value::as_str) {
        Some(name) => format!("{kind} `{name}`"),
        None => format!("{kind} number {}", index.saturating_add(1)),
    }
}

fn read_case(index: usize, value: Value) -> Result<Case, CasesError> {
    let here = place("case", index, &value);
    let text: CaseText = read(&here, value)?;
    let fragment = text.request.unwrap_or_else(|| json!({}));
    let request = complete(ordinary(), &fragment).map_err(|e| CasesError::new(&here, e))?;
    let expect = read_expect(&format!("{here}, expect"), text.expect)?;
    Ok(Case { name: text.name, settings: text.settings, fragment, request, expect })
}

fn read_expect(here: &str, value: Value) -> Result<Expected, CasesError> {
    let expect: Expect = read(here, value)?;
    let decided = !expect.reasons.is_empty()
        || !expect.holds.is_empty()
        || !expect.obligations.is_empty()
        || expect.review.is_some();
    match (expect.verdict, expect.error, expect.problems) {
        (Some(verdict), None, None) => Ok(Expected::Decision(ExpectedDecision {
            verdict,
            reasons: expect.reasons,
            holds: expect.holds,
            review: expect.review,
            obligations: expect.obligations,
        })),
        (None, Some(error), None) if !decided => Ok(Expected::Error(error)),
        (None, None, Some(problems)) if !decided => Ok(Expected::Problems(problems)),
        _ => Err(CasesError::new(
            here,
            "expect one of `verdict` (with `reasons`, `holds`, `review`, `obligations`), `error` and `problems`",
        )),
    }
}

fn read_property(index: usize, value: Value) -> Result<Property, CasesError> {
    let here = place("property", index, &value);
    let text: PropertyText = read(&here, value)?;
    let at = |what: &'static str| {
        let place = format!("{here}, {what}");
        move |message: String| CasesError { place, message }
    };
    let base = text.request.unwrap_or_else(|| json!({}));
    complete(ordinary(), &base).map_err(at("request"))?;
    let vary = read_vary(&text.vary).map_err(at("vary"))?;
    let when = text.when.as_ref().map(When::read).transpose().map_err(at("when"))?.unwrap_or_default();
    let never = text.never.as_ref().map(Rule::read).transpose().map_err(at("never"))?;
    let always = text.always.as_ref().map(Rule::read).transpose().map_err(at("always"))?;
    if never.is_none() && always.is_none() {
        return Err(CasesError::new(here, "say what the answer is `never` or `always`"));
    }
    let samples = samples(text.samples).map_err(at("samples"))?;
    let (name, settings) = (text.name, text.settings);
    Ok(Property { name, settings, base, vary, samples, when, never, always })
}
