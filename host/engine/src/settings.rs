//! A settings document: that it is one, that it fits the policy's own schema, and what the policy
//! says is wrong with it.

use serde_json::Value;

use crate::bindings::countersign::policy::types;
use crate::failure::cut;
use crate::schema;
use crate::stage::{Problem, Stage};

/// Largest settings document.
const SETTINGS_BYTES: usize = 1 << 20;
/// Problems of one settings document that are reported.
const PROBLEMS: usize = 32;

/// Reads a document, within the host's limits.
pub(crate) fn read(settings: &str) -> Result<Value, Problem> {
    let problem = |message: String| Problem::new(Stage::Settings, message);
    if settings.len() > SETTINGS_BYTES {
        return Err(problem(format!("{} bytes, at most {SETTINGS_BYTES}", settings.len())));
    }
    serde_json::from_str(settings).map_err(|e| problem(format!("not a JSON document: {e}")))
}

/// Checks a document that the policy accepted against what the policy says of its settings: operators
/// and tools go by the schema, so a policy that takes what its schema forbids is not as described.
pub(crate) fn check(document: &Value, schema: &str) -> Result<(), Problem> {
    let schema: Value = serde_json::from_str(schema)
        .map_err(|e| Problem::new(Stage::Describe, format!("its settings schema is not JSON: {e}")))?;
    let found = schema::validate(&schema, document).map_err(|e| Problem::new(Stage::Describe, e.to_string()))?;
    if found.is_empty() {
        return Ok(());
    }
    Err(Problem::new(Stage::Settings, text(found.iter().map(|p| (p.path.as_str(), p.message.as_str())))))
}

/// What `configure` answered.
pub(crate) fn problems_text(problems: &[types::Problem]) -> String {
    if problems.is_empty() {
        return "the policy refused its settings and did not say why".to_owned();
    }
    text(problems.iter().map(|p| (p.path.as_str(), p.message.as_str())))
}

fn text<'a>(problems: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> String {
    let more = problems.len().saturating_sub(PROBLEMS);
    let one = |(path, message): (&str, &str)| {
        let path = if path.is_empty() { "(whole document)" } else { path };
        format!("{}: {}", cut(path, 200), cut(message, 500))
    };
    let mut lines: Vec<String> = problems.take(PROBLEMS).map(one).collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("; ")
}
