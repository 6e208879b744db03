//! What a refusal of the gateway must look like, whichever it is.

use crate::http::Response;
use serde_json::Value;

/// Checks that `answer` is the gateway's own refusal with this status and code, in full shape, and returns its body.
#[track_caller]
pub fn refusal(answer: &Response, status: u16, code: &str) -> Value {
    assert_eq!(answer.status, status, "wanted {status} {code}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
    assert_eq!(answer.header("countersign-source"), Some("gateway"));
    let body = answer.json();
    let text = |name: &str| {
        let found = body.get(name).and_then(Value::as_str).unwrap_or_default();
        assert!(!found.is_empty(), "no {name}: {body}");
        found.to_owned()
    };
    assert_eq!(text("code"), code, "{body}");
    text("type");
    text("title");
    text("detail");
    assert_eq!(body.get("status").and_then(Value::as_u64), Some(u64::from(status)), "{body}");
    assert!(body.get("retry").is_some_and(Value::is_boolean), "no retry: {body}");
    if matches!(status, 429 | 503) {
        let seconds = body.get("retry_after").and_then(Value::as_u64);
        let header = answer.header("retry-after").and_then(|text| text.parse::<u64>().ok());
        assert!(header.is_some() && header == seconds, "Retry-After: {header:?}, {body}");
    }
    for reason in body.get("reasons").and_then(Value::as_array).into_iter().flatten() {
        let told = |name: &str| reason.get(name).is_some_and(Value::is_string);
        assert!(told("code") && told("message"), "{reason}");
    }
    for name in ["purchase", "payment", "decision", "policy", "budget", "payment_state"] {
        assert!(body.get(name).is_none_or(Value::is_string), "{name}: {body}");
    }
    if let Some(approval) = body.get("approval") {
        for name in ["id", "url", "expires_at"] {
            assert!(approval.get(name).is_some_and(Value::is_string), "{name}: {approval}");
        }
    }
    body
}

/// As [`refusal`], where the first reason must have this code.
#[track_caller]
pub fn refusal_because(answer: &Response, status: u16, code: &str, reason: &str) -> Value {
    let body = refusal(answer, status, code);
    assert_eq!(body.pointer("/reasons/0/code").and_then(Value::as_str), Some(reason), "{body}");
    body
}
