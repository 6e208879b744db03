//! What a property says about requests (`when`) and about answers (`never`, `always`).

use serde::Deserialize;
use serde_json::Value;

use crate::answer::{Decision, Hold, Unit, Verdict, Window};
use crate::request::{self, Kind};

/// The values a condition accepts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    OneOf(Vec<Value>),
    Range(Range),
}

/// Numbers from `from` to `to`, both included; without an end where one is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Range {
    pub(crate) from: Option<u64>,
    pub(crate) to: Option<u64>,
}

impl Range {
    fn contains(&self, number: u64) -> bool {
        self.from.is_none_or(|from| from <= number) && self.to.is_none_or(|to| number <= to)
    }
}

impl Condition {
    /// Reads what may stand for the field at `path`: a value, a list of values, or `{from, to}`.
    pub(crate) fn read(path: &str, value: &Value) -> Result<Self, String> {
        let kind = field(path)?;
        match value {
            Value::Object(_) => {
                let range: Range =
                    serde_json::from_value(value.clone()).map_err(|e| format!("{}: {e}", request::place(path)))?;
                if range == Range::default() {
                    return Err(format!("{}: a range needs `from`, `to` or both", request::place(path)));
                }
                number_bound(path, kind, range.from.into_iter().chain(range.to))?;
                if let (Some(from), Some(to)) = (range.from, range.to)
                    && from > to
                {
                    return Err(format!("{}: the range ends before it begins", request::place(path)));
                }
                Ok(Self::Range(range))
            }
            Value::Array(choices) if choices.is_empty() => Err(format!(
                "{}: a list of no choices; for a field left empty write [[]], or null in JSON",
                request::place(path)
            )),
            Value::Array(choices) => choices
                .iter()
                .map(|choice| request::value_for(path, kind, choice))
                .collect::<Result<_, _>>()
                .map(Self::OneOf),
            other => request::value_for(path, kind, other).map(|value| Self::OneOf(vec![value])),
        }
    }

    pub(crate) fn accepts(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::OneOf(choices), Some(value)) => choices.contains(value),
            (Self::Range(range), Some(value)) => value.as_u64().is_some_and(|n| range.contains(n)),
            (_, None) => false,
        }
    }
}

/// The kind of a field, or that there is none.
pub(crate) fn field(path: &str) -> Result<Kind, String> {
    request::kind(path).ok_or_else(|| {
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let allowed = match request::allowed(parent) {
            keys if keys.is_empty() => request::allowed(""),
            keys => keys,
        };
        format!("there is no field `{path}` to a request; write a dotted path such as payment.value (here: {allowed})")
    })
}

fn number_bound(path: &str, kind: Kind, ends: impl Iterator<Item = u64>) -> Result<(), String> {
    let (Kind::Number(max) | Kind::OptionalNumber(max)) = kind else {
        return Err(format!("{}: not a number, so no range; give a list of values", request::place(path)));
    };
    match ends.max() {
        Some(end) if end > max => Err(format!("{}: the host never asks above {max}", request::place(path))),
        _ => Ok(()),
    }
}

/// What an answer must look like: everything that is written must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Pattern {
    /// One of these.
    verdict: Option<OneOrMore<Verdict>>,
    /// One of these codes is among the reasons.
    reason: Option<OneOrMore<String>>,
    /// One hold looks like this.
    hold: Option<HoldPattern>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct HoldPattern {
    /// Exactly, or everything that begins so with `*` at the end.
    budget: Option<String>,
    unit: Option<Unit>,
    window: Option<Window>,
    limit: Option<Ends>,
    amount: Option<Ends>,
}

/// A range whose ends are numbers or fields of the request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ends {
    from: Option<End>,
    to: Option<End>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum End {
    Number(u64),
    Field(String),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T: PartialEq> OneOrMore<T> {
    pub(crate) fn contains(&self, item: &T) -> bool {
        match self {
            Self::One(one) => one == item,
            Self::More(more) => more.contains(item),
        }
    }
}

impl Pattern {
    /// Reads a pattern and checks the fields it names.
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        let pattern: Self = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
        if pattern == Self::default() {
            return Err("says nothing about the answer; name `verdict`, `reason` or `hold`".to_owned());
        }
        let ends = pattern.hold.iter().flat_map(|hold| [&hold.limit, &hold.amount]).flatten();
        for end in ends.flat_map(|ends| [&ends.from, &ends.to]).flatten() {
            if let End::Field(path) = end {
                let kind = field(path)?;
                number_bound(path, kind, std::iter::empty())?;
            }
        }
        Ok(pattern)
    }

    /// Whether an answer to a request looks like this.
    pub(crate) fn fits(&self, decision: &Decision, request: &Value) -> bool {
        self.verdict.as_ref().is_none_or(|verdicts| verdicts.contains(&decision.verdict))
            && self.reason.as_ref().is_none_or(|codes| decision.reasons.iter().any(|r| codes.contains(&r.code)))
            && self.hold.as_ref().is_none_or(|hold| decision.holds.iter().any(|h| hold.fits(h, request)))
    }
}

impl HoldPattern {
    fn fits(&self, hold: &Hold, request: &Value) -> bool {
        self.budget.as_ref().is_none_or(|pattern| match pattern.strip_suffix('*') {
            Some(start) => hold.budget.starts_with(start),
            None => hold.budget == *pattern,
        }) && self.unit.is_none_or(|unit| unit == hold.unit)
            && self.window.as_ref().is_none_or(|window| *window == hold.window)
            && self.limit.as_ref().is_none_or(|ends| ends.contain(hold.limit, request))
            && self.amount.as_ref().is_none_or(|ends| ends.contain(hold.amount, request))
    }
}

impl Ends {
    fn contain(&self, number: u64, request: &Value) -> bool {
        self.from.as_ref().is_none_or(|end| end.of(request).is_some_and(|from| from <= number))
            && self.to.as_ref().is_none_or(|end| end.of(request).is_some_and(|to| number <= to))
    }
}

impl End {
    /// None where the request leaves the field empty: then nothing is within the range.
    fn of(&self, request: &Value) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Field(path) => request::get(request, path).and_then(Value::as_u64),
        }
    }
}
