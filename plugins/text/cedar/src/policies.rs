//! Reading Cedar: parsed, checked against the schema, every problem at its place.

use std::str::FromStr;

use cedar_policy::{
    AuthorizationError, Policy, PolicyId, PolicySet, Schema, ValidationMode, ValidationWarning, Validator,
};
use countersign_sdk::Problem;
use miette::Diagnostic;
use rules_as_text::text;

use crate::notes::{self, Noted};

/// Where the text is in the settings.
const PATH: &str = "/policy";
/// How many operators one policy may have. Cedar walks a chain of them by recursion, as deep as it is long, and the
/// stack of a component is small.
const MAX_OPERATORS: usize = 64;
/// What makes a policy of an expression.
const BEFORE: &str = "permit (principal, action, resource) when {\n";
const AFTER: &str = "\n};";

/// Reads policies for the schema.
pub(crate) struct Checker(Validator);

impl Checker {
    pub(crate) fn new() -> Result<Self, Problem> {
        let schema = Schema::from_cedarschema_str(include_str!("../schema.cedarschema"));
        let (schema, _) = schema.map_err(|error| Problem::document(format!("the schema of this policy: {error}")))?;
        Ok(Self(Validator::new(schema)))
    }

    /// The policies of a text, with what they note.
    pub(crate) fn policies(&self, source: &str) -> Result<(PolicySet, Vec<Noted>), Vec<Problem>> {
        let whole = Source { path: PATH, text: source, before: 0 };
        whole.bounded().map_err(|problem| vec![problem])?;
        let policies = PolicySet::from_str(source).map_err(|errors| whole.problems(errors.iter()))?;
        if policies.num_of_templates() > 0 {
            let at = source.find("?principal").or_else(|| source.find("?resource")).unwrap_or_default();
            return Err(vec![text::problem_at(PATH, source, at, "a template has nobody to fill it in")]);
        }
        text::few(PATH, policies.num_of_policies()).map_err(|problem| vec![problem])?;
        if policies.is_empty() {
            return Err(vec![Problem::at(PATH, "there are no policies in this text")]);
        }
        let mut problems = self.validate(&whole, &policies);
        let mut noted = Vec::new();
        for policy in policies.policies() {
            match notes::read(policy) {
                Ok(one) => noted.push(one),
                Err((value, why)) => problems.push(text::problem_at(
                    PATH,
                    source,
                    source.find(&format!("\"{value}\"")).or_else(|| source.find(&value)).unwrap_or_default(),
                    &why,
                )),
            }
        }
        noted.sort_by_key(|one| one.position);
        if problems.is_empty() { Ok((policies, noted)) } else { Err(problems) }
    }

    /// An expression as a policy that permits if it is true.
    pub(crate) fn condition(&self, path: &str, source: &str) -> Result<PolicySet, Vec<Problem>> {
        let alone = Source { path, text: source, before: BEFORE.len() };
        alone.bounded().map_err(|problem| vec![problem])?;
        let policy = Policy::parse(Some(PolicyId::new("when")), format!("{BEFORE}{source}{AFTER}"));
        let policy = policy.map_err(|errors| alone.problems(errors.iter()))?;
        let policies =
            PolicySet::from_policies([policy]).map_err(|error| vec![Problem::at(path, error.to_string())])?;
        let problems = self.validate(&alone, &policies);
        if problems.is_empty() { Ok(policies) } else { Err(problems) }
    }

    fn validate(&self, source: &Source<'_>, policies: &PolicySet) -> Vec<Problem> {
        let result = self.0.validate(policies, ValidationMode::Strict);
        let mut problems = source.problems(result.validation_errors());
        // Others are matters of style; these are rules that do not do what they seem to.
        let odd = result.validation_warnings().filter(|warning| {
            matches!(
                warning,
                ValidationWarning::ImpossiblePolicy(_)
                    | ValidationWarning::BidiCharsInString(_)
                    | ValidationWarning::BidiCharsInIdentifier(_)
            )
        });
        problems.extend(source.problems(odd));
        problems
    }
}

/// A text in the settings, and how many bytes were put before it.
struct Source<'s> {
    path: &'s str,
    text: &'s str,
    before: usize,
}

impl Source<'_> {
    fn bounded(&self) -> Result<(), Problem> {
        text::bounded(self.path, self.text)?;
        text::shallow(self.path, self.text)?;
        match too_long(self.text) {
            None => Ok(()),
            Some(at) => {
                let why = format!(
                    "more than {MAX_OPERATORS} operators in one policy; split it, or ask a set: `[\"a\", \"b\"].contains(x)`"
                );
                Err(text::problem_at(self.path, self.text, at, &why))
            }
        }
    }

    fn problems<'e, D: Diagnostic + 'e>(&self, errors: impl Iterator<Item = &'e D>) -> Vec<Problem> {
        let one = |error: &'e D| {
            let label = error.labels().and_then(|mut labels| labels.next());
            let at = label.as_ref().map_or(0, |label| label.offset().saturating_sub(self.before));
            let mut message = error.to_string();
            for more in [label.and_then(|label| label.label().map(str::to_owned)), error.help().map(|h| h.to_string())]
            {
                message.extend(more.into_iter().flat_map(|more| [": ".to_owned(), more]));
            }
            text::problem_at(self.path, self.text, at, &message)
        };
        errors.take(16).map(one).collect()
    }
}

/// The policy that could not be evaluated.
pub(crate) fn id(error: &AuthorizationError) -> &PolicyId {
    let AuthorizationError::PolicyEvaluationError(error) = error;
    error.policy_id()
}

/// Why it could not.
pub(crate) fn cause(error: &AuthorizationError) -> String {
    let AuthorizationError::PolicyEvaluationError(error) = error;
    error.inner().to_string()
}

/// Where a policy first has too many operators, outside of strings and comments.
fn too_long(text: &str) -> Option<usize> {
    let mut count = 0_usize;
    let mut last = b' ';
    for (at, byte) in text::code(text) {
        match byte {
            b';' => count = 0,
            b'+' | b'*' | b'-' | b'!' => count += 1,
            b'&' | b'|' if last == byte => count += 1,
            // Of `if`, `then`, `else` each of the middle ones is one.
            b'n' if text.get(..=at).is_some_and(|before| before.ends_with("then")) => count += 1,
            _ => {}
        }
        if count > MAX_OPERATORS {
            return Some(at);
        }
        last = byte;
    }
    None
}
