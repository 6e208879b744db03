//! One configured policy and what it answers.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::settings;
use crate::slot::Slot;
use crate::{Decision, Hold, Policy, Problem, Reason, ReviewTerms, SpendRequest, Verdict, Window};

/// What the host accepts in one decision.
const MAX_HOLDS: usize = 16;
const MAX_HOLD_AMOUNT: u64 = 1_000_000_000_000_000;
const MAX_HOLD_LIMIT: u64 = 4_000_000_000_000_000_000;
const MAX_SCHEMA_BYTES: usize = 64 * 1024;

/// A policy configured the way the component would be.
#[derive(Debug)]
pub struct Harness<P> {
    slot: Slot<P>,
}

impl<P: Policy> Harness<P> {
    /// Configures the policy.
    ///
    /// # Panics
    /// If the settings have problems. Use [`problems`] to look at those.
    #[must_use]
    #[track_caller]
    pub fn new(settings: Value) -> Self {
        match Self::try_new(&settings) {
            Ok(harness) => harness,
            Err(problems) => panic!("{} refuses {settings}: {}", P::NAME, list(&problems)),
        }
    }

    /// Configures the policy.
    ///
    /// # Errors
    /// The problems with the settings.
    pub fn try_new(settings: &Value) -> Result<Self, Vec<Problem>> {
        let slot = Slot::new();
        slot.configure(&settings.to_string())?;
        Ok(Self { slot })
    }

    /// Judges a request, twice, and checks what the host would check about the answer.
    ///
    /// # Panics
    /// If the two answers differ or the host would refuse them as malformed.
    #[must_use]
    #[track_caller]
    pub fn evaluate(&self, request: &impl AsRef<SpendRequest>) -> Outcome {
        let request = request.as_ref();
        let answer = self.slot.evaluate(request);
        assert!(
            answer == self.slot.evaluate(request),
            "{} is not a pure function: it answered one request in two ways",
            P::NAME
        );
        if let Ok(decision) = &answer {
            let faults = faults(decision);
            assert!(faults.is_empty(), "the host would refuse this decision of {}: {}", P::NAME, faults.join("; "));
        }
        Outcome { answer }
    }
}

/// The problems a policy has with some settings; empty if it has none.
#[must_use]
pub fn problems<P: Policy>(settings: Value) -> Vec<Problem> {
    Harness::<P>::try_new(&settings).err().unwrap_or_default()
}

/// The settings schema is a closed 2020-12 schema of an object that names exactly the keys the
/// settings type knows, and describes each.
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn assert_schema_agrees<P: Policy>() {
    let text = P::settings_schema();
    assert!(text.len() <= MAX_SCHEMA_BYTES, "the schema is longer than 64 KiB");
    let schema: Value = match serde_json::from_str(text) {
        Ok(schema) => schema,
        Err(error) => panic!("the schema is not JSON: {error}"),
    };
    let says = |key: &str, value: Value| {
        assert!(schema.get(key) == Some(&value), "the schema must say \"{key}\": {value}");
    };
    says("$schema", "https://json-schema.org/draft/2020-12/schema".into());
    says("type", "object".into());
    says("additionalProperties", false.into());
    let properties = schema.get("properties").and_then(Value::as_object);
    let described: BTreeSet<&str> = properties
        .into_iter()
        .flatten()
        .map(|(key, property)| {
            assert!(property.get("description").is_some(), "`{key}` has no description in the schema");
            key.as_str()
        })
        .collect();
    // A key that nobody has: the refusal lists those that exist.
    let probe = serde_json::json!({ "\u{0}": null });
    let known: BTreeSet<&str> = match settings::from_value::<P::Settings>(&probe) {
        Ok(_) => BTreeSet::new(),
        Err(misfit) => misfit.allowed.iter().copied().collect(),
    };
    assert_eq!(described, known, "the schema's keys (left) are not those of the settings type (right)");
}

/// What a policy answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    answer: Result<Decision, String>,
}

impl Outcome {
    /// The decision.
    ///
    /// # Panics
    /// If the policy answered with an error.
    #[must_use]
    #[track_caller]
    pub fn decision(&self) -> &Decision {
        match &self.answer {
            Ok(decision) => decision,
            Err(error) => panic!("evaluate failed: {error}"),
        }
    }

    /// The error, if the policy answered with one.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.answer.as_ref().err().map(String::as_str)
    }

    /// The codes of all reasons, in order.
    #[must_use]
    #[track_caller]
    pub fn codes(&self) -> Vec<&str> {
        let reasons = &self.decision().reasons;
        reasons.iter().map(|reason| reason.code.as_str()).collect()
    }

    /// It allowed.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn assert_allows(&self) -> &Self {
        self.assert_verdict(Verdict::Allow)
    }

    /// It had no opinion.
    ///
    /// # Panics
    /// If it had one.
    #[track_caller]
    pub fn assert_abstains(&self) -> &Self {
        self.assert_verdict(Verdict::Abstain)
    }

    /// It denied, and `code` is among the reasons.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn assert_denies(&self, code: &str) -> &Self {
        self.assert_verdict(Verdict::Deny).assert_code(code)
    }

    /// It asked for a review, and `code` is among the reasons.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn assert_reviews(&self, code: &str) -> &Self {
        self.assert_verdict(Verdict::Review).assert_code(code)
    }

    /// These reasons and no others, in this order.
    ///
    /// # Panics
    /// If they are not.
    #[track_caller]
    pub fn assert_codes(&self, codes: &[&str]) -> &Self {
        assert_eq!(self.codes(), codes, "reason codes");
        self
    }

    /// It asked for no hold.
    ///
    /// # Panics
    /// If it did.
    #[track_caller]
    pub fn assert_no_holds(&self) -> &Self {
        assert_eq!(self.holds(), &[], "holds");
        self
    }

    /// All holds.
    #[must_use]
    #[track_caller]
    pub fn holds(&self) -> &[Hold] {
        &self.decision().holds
    }

    /// The only hold on a budget.
    ///
    /// # Panics
    /// If there is none, or more than one.
    #[must_use]
    #[track_caller]
    pub fn hold(&self, budget: &str) -> &Hold {
        let mut found = self.holds().iter().filter(|hold| hold.budget == budget);
        match (found.next(), found.next()) {
            (Some(hold), None) => hold,
            (None, _) => panic!("no hold on `{budget}` among {:?}", self.holds()),
            (Some(_), Some(_)) => panic!("several holds on `{budget}`; ask with its window: {:?}", self.holds()),
        }
    }

    /// The hold on a budget and window.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn hold_in(&self, budget: &str, window: &Window) -> &Hold {
        let found = |hold: &&Hold| hold.budget == budget && hold.window == *window;
        match self.holds().iter().find(found) {
            Some(hold) => hold,
            None => panic!("no hold on `{budget}` in {window:?} among {:?}", self.holds()),
        }
    }

    /// The reason with this code.
    #[must_use]
    #[track_caller]
    pub fn reason(&self, code: &str) -> Option<&Reason> {
        self.decision().reasons.iter().find(|reason| reason.code == code)
    }

    /// Who must approve.
    ///
    /// # Panics
    /// If the policy left that to the operator.
    #[must_use]
    #[track_caller]
    pub fn review_terms(&self) -> &ReviewTerms {
        match &self.decision().review {
            Some(terms) => terms,
            None => panic!("no review terms"),
        }
    }

    #[track_caller]
    fn assert_verdict(&self, verdict: Verdict) -> &Self {
        let decision = self.decision();
        assert!(decision.verdict == verdict, "expected {verdict:?}, got {:?} {:?}", decision.verdict, decision.reasons);
        self
    }

    #[track_caller]
    fn assert_code(&self, code: &str) -> &Self {
        assert!(self.reason(code).is_some(), "no reason `{code}` among {:?}", self.codes());
        self
    }
}

/// What the host would refuse as a policy error.
fn faults(decision: &Decision) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |fault: String| faults.push(fault);
    if decision.holds.len() > MAX_HOLDS {
        fault(format!("{} holds, at most {MAX_HOLDS} are taken", decision.holds.len()));
    }
    for (index, hold) in decision.holds.iter().enumerate() {
        let same = |other: &Hold| other.budget == hold.budget && other.window == hold.window;
        if decision.holds.iter().take(index).any(same) {
            fault(format!("two holds on `{}` in {:?}", hold.budget, hold.window));
        }
        if hold.amount == 0 || hold.amount > MAX_HOLD_AMOUNT {
            fault(format!("hold on `{}` of {}", hold.budget, hold.amount));
        }
        if hold.limit > MAX_HOLD_LIMIT {
            fault(format!("hold on `{}` with a limit of {}", hold.budget, hold.limit));
        }
        if hold.budget.is_empty() {
            fault("a hold without a budget".to_owned());
        }
    }
    for reason in &decision.reasons {
        if !is_kebab(&reason.code) {
            fault(format!("reason code `{}` is not kebab-case", reason.code));
        }
    }
    if matches!(decision.verdict, Verdict::Deny | Verdict::Review) && decision.reasons.is_empty() {
        fault("a deny or review without a reason".to_owned());
    }
    faults
}

fn is_kebab(code: &str) -> bool {
    code.starts_with(|first: char| first.is_ascii_lowercase())
        && !code.ends_with('-')
        && !code.contains("--")
        && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
    lines.join("; ")
}
