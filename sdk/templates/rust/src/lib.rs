//! Caps what each agent spends in a day.

use std::sync::OnceLock;

use countersign::policy::log::{Level, log};
use countersign::policy::types::{Decision, Description, Hold, Problem, Reason, SpendRequest, Unit, Verdict, Window};
use exports::countersign::policy::policy::Guest;
use serde_json::{Map, Value};

wit_bindgen::generate!({ path: "wit", world: "spend-policy" });

const KEY: &str = "per-agent-day";
const SETTINGS_SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "per-agent-day": { "type": "string", "description": "The most an agent may spend in a UTC day, such as 5.00." }
  },
  "required": ["per-agent-day"],
  "additionalProperties": false
}"#;

/// The limit in micros, millionths of the reference currency.
static PER_AGENT_DAY: OnceLock<u64> = OnceLock::new();

struct Policy;
export!(Policy);

impl Guest for Policy {
    fn describe() -> Description {
        Description {
            name: "{{name}}".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            summary: "Caps what each agent spends in a day.".to_owned(),
            settings_schema: SETTINGS_SCHEMA.to_owned(),
        }
    }

    fn configure(settings: String) -> Result<(), Vec<Problem>> {
        let problem = |path: String, message: &str| Problem { path, message: message.to_owned() };
        let Ok(settings) = serde_json::from_str::<Map<String, Value>>(&settings) else {
            return Err(vec![problem(String::new(), "expected an object")]);
        };
        let mut problems: Vec<_> =
            settings.keys().filter(|key| *key != KEY).map(|key| problem(below(key), "unknown key")).collect();
        match settings.get(KEY).and_then(Value::as_str).and_then(micros) {
            Some(limit) => drop(PER_AGENT_DAY.set(limit)),
            None => problems.push(problem(below(KEY), "required: an amount as a string such as \"5.00\"")),
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn evaluate(request: SpendRequest) -> Result<Decision, String> {
        let limit = *PER_AGENT_DAY.get().ok_or("not configured")?;
        if request.payment.value == 0 {
            return Ok(decision(Verdict::Deny, Some(("zero-value", "the payment is worth nothing")), vec![]));
        }
        let agent = &request.principal.agent;
        log(Level::Debug, &format!("charging {agent}"));
        // Not a comparison with what was spent: the host reserves this, or refuses the payment.
        let hold = Hold {
            budget: format!("agent/{agent}"),
            unit: Unit::Micros,
            window: Window::Day("UTC".to_owned()),
            limit,
            amount: request.payment.value,
            alert_at: None,
            review_at: None,
        };
        Ok(decision(Verdict::Allow, None, vec![hold]))
    }
}

fn decision(verdict: Verdict, reason: Option<(&str, &str)>, holds: Vec<Hold>) -> Decision {
    let reasons =
        reason.into_iter().map(|(code, message)| Reason { code: code.to_owned(), message: message.to_owned() });
    Decision { verdict, reasons: reasons.collect(), holds, review: None, obligations: vec![], notes: vec![] }
}

/// JSON Pointer, RFC 6901.
fn below(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// "5.00" is 5000000. Exact: digits, then at most a point and six digits, below 2^53 micros.
fn micros(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return None;
    }
    let micros: u64 = format!("{whole}{fraction:0<6}").parse().ok()?;
    (micros < 1 << 53).then_some(micros)
}
