//! What a policy answers: the decision of the WIT, in JSON under its names.

use serde::{Deserialize, Serialize};

/// A policy's opinion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Object.
    Deny,
    /// Ask people.
    Review,
    /// Approve.
    Allow,
    /// No opinion.
    Abstain,
}

/// What a budget counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Millionths of the reference currency.
    Micros,
    /// Things.
    Count,
}

/// The span a budget is limited over: `{"rolling": 3600}`, `{"day": "UTC"}`, `{"month": "UTC"}`, `"lifetime"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// The last n seconds.
    Rolling(u32),
    /// The calendar day in a time zone.
    Day(String),
    /// The calendar month in a time zone.
    Month(String),
    /// Since the budget was first used.
    Lifetime,
}

/// A reservation asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hold {
    /// A path such as `client/acme`.
    pub budget: String,
    /// What it counts.
    pub unit: Unit,
    /// Over which span.
    pub window: Window,
    /// The most the window may hold.
    pub limit: u64,
    /// What to reserve.
    pub amount: u64,
    /// Reaching this tells the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_at: Option<u64>,
    /// Reaching this turns an allow into a review.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review_at: Option<u64>,
}

/// Who must approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReviewTerms {
    /// Operator group.
    #[serde(default)]
    pub group: Option<String>,
    /// How many.
    pub quorum: u8,
    /// After how long silence is a no.
    pub expires_in_seconds: u32,
}

/// A name and a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    /// What it is called.
    pub name: String,
    /// What it says.
    pub value: String,
}

/// Something the host must do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obligation {
    /// Which.
    pub kind: String,
    /// With what.
    pub params: Vec<Attribute>,
}

/// Why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A policy's whole answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The opinion.
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Budgets to hold.
    pub holds: Vec<Hold>,
    /// Who must approve.
    pub review: Option<ReviewTerms>,
    /// Things the host must do.
    pub obligations: Vec<Obligation>,
    /// Recorded only; no case looks at them.
    pub notes: Vec<Attribute>,
}

impl Decision {
    /// The codes of all reasons, in order.
    #[must_use]
    pub fn codes(&self) -> Vec<&str> {
        self.reasons.iter().map(|reason| reason.code.as_str()).collect()
    }
}
