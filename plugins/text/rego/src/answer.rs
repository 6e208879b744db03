//! Reading what the rules are. Anything that is not as documented is an error, and an error denies.

use countersign_sdk::{Hold, Money, Reason, ReviewTerms, SpendRequest, Unit};
use regorus::Value;
use rules_as_text::budget::Path;
use rules_as_text::hold::{Per, hold};
use rules_as_text::{Ruling, is_code};

use crate::module::Text;

/// The ruling of an answer to a request.
pub(crate) fn read(answer: &Value, request: &SpendRequest) -> Result<Ruling, String> {
    let mut ruling = Ruling::default();
    for allowed in rule(answer, "allow") {
        match allowed {
            Value::Bool(true) => ruling.allow(None),
            Value::Bool(false) => {}
            other => return Err(format!("`allow` is {}, not true or false", kind(other))),
        }
    }
    for fields in objects(answer, "deny")? {
        let mut fields = fields?;
        let reason = fields.reason()?;
        fields.finish()?;
        ruling.deny(reason);
    }
    for fields in objects(answer, "review")? {
        let mut fields = fields?;
        let (reason, terms) = (fields.reason()?, fields.terms()?);
        fields.finish()?;
        ruling.review(reason, terms);
    }
    for fields in objects(answer, "holds")? {
        ruling.hold(read_hold(fields?, request)?);
    }
    Ok(ruling)
}

/// The value of a rule, if there is the rule and it is defined.
fn rule<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    let values = match answer {
        Value::Object(rules) => rules.get(&Value::from(name)).and_then(|values| values.as_set().ok()),
        _ => None,
    };
    values.into_iter().flat_map(|values| values.iter_sorted())
}

/// The members of a rule that is a set of objects, in order.
fn objects<'a>(
    answer: &'a Value,
    name: &'static str,
) -> Result<impl Iterator<Item = Result<Fields<'a>, String>>, String> {
    let mut all = Vec::new();
    for value in rule(answer, name) {
        let set = value.as_set().map_err(|_| format!("`{name}` is {}, not a set: `{name} contains …`", kind(value)))?;
        all.extend(set.iter_sorted());
    }
    Ok(all.into_iter().map(move |value| Fields::new(name, value)))
}

/// An object whose members are all to be read.
struct Fields<'a> {
    rule: &'static str,
    members: Vec<(&'a str, &'a Value)>,
}

impl<'a> Fields<'a> {
    fn new(rule: &'static str, value: &'a Value) -> Result<Self, String> {
        let Value::Object(object) = value else {
            return Err(format!("`{rule}` has {} in it, not an object", kind(value)));
        };
        let member = |(key, value): (&'a Value, &'a Value)| match key {
            Value::String(key) => Ok((key.as_ref(), value)),
            other => Err(format!("`{rule}` has an object with {} as a key", kind(other))),
        };
        Ok(Self { rule, members: object.iter_sorted().map(member).collect::<Result<_, _>>()? })
    }

    fn option(&mut self, key: &str) -> Option<&'a Value> {
        let at = self.members.iter().position(|(name, _)| *name == key)?;
        Some(self.members.swap_remove(at).1)
    }

    fn need(&mut self, key: &str) -> Result<&'a Value, String> {
        self.option(key).ok_or_else(|| format!("an object in `{}` has no `{key}`", self.rule))
    }

    fn not(&self, key: &str, wanted: &str, found: &Value) -> String {
        format!("`{key}` of an object in `{}` is {}, not {wanted}", self.rule, kind(found))
    }

    fn text(&self, key: &str, value: &'a Value) -> Result<&'a Text, String> {
        value.as_string().map_err(|_| self.not(key, "a string", value))
    }

    fn number(&self, key: &str, value: &Value) -> Result<u64, String> {
        value.as_u64().map_err(|_| self.not(key, "a whole number", value))
    }

    fn finish(self) -> Result<(), String> {
        match self.members.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!("an object in `{}` has an unknown key `{}`", self.rule, key.escape_debug())),
        }
    }

    fn reason(&mut self) -> Result<Reason, String> {
        let (code, message) = (self.need("code")?, self.need("message")?);
        let (code, message) = (self.text("code", code)?, self.text("message", message)?);
        if is_code(code) {
            return Ok(Reason::new(code.as_ref(), message.as_ref()));
        }
        Err(format!("the code `{}` in `{}` is not kebab-case, such as `above-limit`", code.escape_debug(), self.rule))
    }

    fn terms(&mut self) -> Result<Option<ReviewTerms>, String> {
        let (group, quorum, expires) = (self.option("group"), self.option("quorum"), self.option("expires_in_seconds"));
        if group.is_none() && quorum.is_none() && expires.is_none() {
            return Ok(None);
        }
        let number = |key: &str, value: Option<&Value>| value.map_or(Ok(0), |value| self.number(key, value));
        let quorum = u8::try_from(number("quorum", quorum)?).map_err(|_| "a quorum is at most 255".to_owned())?;
        let expires = number("expires_in_seconds", expires)?;
        let expires = u32::try_from(expires).map_err(|_| "`expires_in_seconds` is at most 4294967295".to_owned())?;
        let group = group.map(|group| self.text("group", group)).transpose()?;
        Ok(Some(ReviewTerms { group: group.map(|group| group.to_string()), quorum, expires_in_seconds: expires }))
    }
}

/// A hold, or the reason to deny; an error if it is not as documented.
fn read_hold(mut fields: Fields<'_>, request: &SpendRequest) -> Result<Result<Hold, Reason>, String> {
    let (budget, per, limit) = (fields.need("budget")?, fields.need("per")?, fields.need("limit")?);
    let (alert_at, review_at) = (fields.option("alert_at"), fields.option("review_at"));
    let zone = fields.option("timezone").map(|zone| fields.text("timezone", zone)).transpose()?;
    let unit = match fields.option("unit").map(|unit| fields.text("unit", unit)).transpose()?.map(|unit| &**unit) {
        None | Some("micros") => Unit::Micros,
        Some("count") => Unit::Count,
        Some(other) => return Err(format!("`{}` is no unit; allowed: `micros`, `count`", other.escape_debug())),
    };
    let per = match per {
        Value::String(name) => Per::named(name)?,
        seconds => Per::seconds(fields.number("per", seconds)?)?,
    };
    let window = per.window(zone.map(|zone| &**zone))?;
    let level = |key: &str, value: &Value| match (value, unit) {
        (Value::String(text), Unit::Micros) => Money::parse(text).map(Money::micros).map_err(|why| why.to_string()),
        _ => fields.number(key, value),
    };
    let limit = level("limit", limit)?;
    let alert_at = alert_at.map(|value| level("alert_at", value)).transpose()?;
    let review_at = review_at.map(|value| level("review_at", value)).transpose()?;
    let path = path(&fields, budget)?;
    fields.finish()?;
    let held = path.and_then(|path| hold(path, &window, unit, limit, request));
    Ok(held.map(|hold| Hold { alert_at, review_at, ..hold }))
}

/// Joined here and not in Rego, so that a step cannot contain a slash.
fn path(fields: &Fields<'_>, budget: &Value) -> Result<Result<String, Reason>, String> {
    let list = "a list of steps such as `[\"client\", input.principal.client]`";
    let steps = budget.as_array().map_err(|_| fields.not("budget", list, budget))?;
    let mut name = Vec::new();
    let mut texts = Vec::new();
    for step in steps.iter() {
        match step {
            Value::Null => texts.push(None),
            step => texts.push(Some(fields.text("budget", step)?)),
        }
        name.push(texts.last().and_then(|text| text.map(|text| &**text)).unwrap_or("null"));
    }
    if texts.is_empty() {
        return Err("a budget has no steps".to_owned());
    }
    let name = name.join("/");
    let mut path = Path::new(&name);
    for text in texts {
        if let Err(reason) = path.push(text.map(|text| &**text)) {
            return Ok(Err(reason));
        }
    }
    Ok(Ok(path.finish()))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Set(_) => "a set",
        Value::Object(_) => "an object",
        Value::Undefined => "undefined",
    }
}
