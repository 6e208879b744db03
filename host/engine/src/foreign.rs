//! What guests say, without a guest that says it: for fuzzers.

use countersign_core::spend::Attribute;
use countersign_core::verdict::{Decision, Failure, Hold, Unit, Verdict, Window};
use serde_json::Value;

use crate::bindings::countersign::policy::types as wit;
use crate::{convert, schema, settings};

/// What becomes of an answer that says this. Whoever can say it, can also say what is against the contract.
///
/// # Errors
/// As for a guest's answer.
pub fn lifted(said: &Decision) -> Result<Decision, Failure> {
    let attribute = |a: &Attribute| wit::AttributeResult { name: a.name.clone(), value: a.value.clone() };
    convert::decision(wit::Decision {
        verdict: match said.verdict {
            Verdict::Deny => wit::Verdict::Deny,
            Verdict::Review => wit::Verdict::Review,
            Verdict::Allow => wit::Verdict::Allow,
            Verdict::Abstain => wit::Verdict::Abstain,
        },
        reasons: said
            .reasons
            .iter()
            .map(|r| wit::Reason { code: r.code.clone(), message: r.message.clone() })
            .collect(),
        holds: said.holds.iter().map(hold).collect(),
        review: said.review.as_ref().map(|r| wit::ReviewTerms {
            group: r.group.clone(),
            quorum: r.quorum,
            expires_in_seconds: r.expires_in_seconds,
        }),
        obligations: said
            .obligations
            .iter()
            .map(|o| wit::Obligation { kind: o.kind.clone(), params: o.params.iter().map(attribute).collect() })
            .collect(),
        notes: said.notes.iter().map(attribute).collect(),
    })
}

fn hold(said: &Hold) -> wit::Hold {
    wit::Hold {
        budget: said.budget.clone(),
        unit: match said.unit {
            Unit::Micros => wit::Unit::Micros,
            Unit::Count => wit::Unit::Count,
        },
        window: match &said.window {
            Window::Rolling(seconds) => wit::Window::Rolling(*seconds),
            Window::Day(zone) => wit::Window::Day(zone.clone()),
            Window::Month(zone) => wit::Window::Month(zone.clone()),
            Window::Lifetime => wit::Window::Lifetime,
        },
        limit: said.limit,
        amount: said.amount,
        alert_at: said.alert_at,
        review_at: said.review_at,
    }
}

/// Whether settings fit a policy's schema.
///
/// # Errors
/// The schema is none that this host checks, or takes too much work.
pub fn fits(schema: &Value, document: &Value) -> Result<bool, String> {
    let found = schema::validate(schema, document).map_err(|e| e.to_string())?;
    let checked = settings::check(document, &schema.to_string());
    debug_assert_eq!(checked.is_ok(), found.is_empty(), "the same question");
    Ok(found.is_empty())
}
