//! Between documents under the names of the WIT and core's values.

use countersign_cases as doc;
use countersign_core::spend::{Attribute, SpendRequest};
use countersign_core::verdict::{Decision, Hold, Unit, Verdict, Window};
use serde_json::{Map, Value};

/// The request that a fragment over the ordinary one comes to.
///
/// # Errors
/// Where and why it is no request.
pub fn request(fragment: &Value) -> Result<SpendRequest, String> {
    request_of(&doc::complete(doc::ordinary(), fragment)?)
}

/// A whole request.
pub(super) fn request_of(document: &Value) -> Result<SpendRequest, String> {
    serde_json::from_value(renamed(document)).map_err(|e| format!("request: {e}"))
}

/// `pay-to` as `pay_to`: the WIT's names as core's. Only field names are keys in a request.
fn renamed(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let one = |(key, value): (&String, &Value)| (key.replace('-', "_"), renamed(value));
            Value::Object(members.iter().map(one).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(renamed).collect()),
        other => other.clone(),
    }
}

/// An answer as cases look at it.
pub(super) fn decision(from: Decision) -> doc::Decision {
    doc::Decision {
        verdict: match from.verdict {
            Verdict::Deny => doc::Verdict::Deny,
            Verdict::Review => doc::Verdict::Review,
            Verdict::Allow => doc::Verdict::Allow,
            Verdict::Abstain => doc::Verdict::Abstain,
        },
        reasons: from.reasons.into_iter().map(|r| doc::Reason { code: r.code, message: r.message }).collect(),
        holds: from.holds.into_iter().map(hold).collect(),
        review: from.review.map(|r| doc::ReviewTerms {
            group: r.group,
            quorum: r.quorum,
            expires_in_seconds: r.expires_in_seconds,
        }),
        obligations: from
            .obligations
            .into_iter()
            .map(|o| doc::Obligation { kind: o.kind, params: attributes(o.params) })
            .collect(),
        notes: attributes(from.notes),
    }
}

fn hold(from: Hold) -> doc::Hold {
    doc::Hold {
        budget: from.budget,
        unit: match from.unit {
            Unit::Micros => doc::Unit::Micros,
            Unit::Count => doc::Unit::Count,
        },
        window: match from.window {
            Window::Rolling(seconds) => doc::Window::Rolling(seconds),
            Window::Day(zone) => doc::Window::Day(zone),
            Window::Month(zone) => doc::Window::Month(zone),
            Window::Lifetime => doc::Window::Lifetime,
        },
        limit: from.limit,
        amount: from.amount,
        alert_at: from.alert_at,
        review_at: from.review_at,
    }
}

fn attributes(from: Vec<Attribute>) -> Vec<doc::Attribute> {
    from.into_iter().map(|a| doc::Attribute { name: a.name, value: a.value }).collect()
}
