//! A budget for each client: who may spend, and how much in a day and in a month.
//!
//! The same policy is beside this one in four other languages; `../conformance.json` says what all of them answer. It
//! reads its settings by hand, where a Rust policy would rather declare a type and let the SDK read them, because all
//! five report every problem at once, in the same words.

use std::collections::BTreeMap;

use countersign_sdk::{Decision, Hold, Money, Policy, Problem, SpendRequest, Verdict, Window, export_policy, log};
use serde_json::{Map, Value};

const LONGEST_NAME: usize = 100;

const NOT_AN_OBJECT: &str = "expected an object";
const UNKNOWN_KEY: &str = "unknown key";
const REQUIRED: &str = "is required";
const NO_CLIENTS: &str = "list at least one client";
const NO_CAPS: &str = "set per-day, per-month or both";
const NOT_A_NAME: &str = "a client is named by 1 to 100 letters, digits and . _ @ : -";
const NOT_MONEY: &str = "write an amount as a string such as \"1.00\": digits, then at most a point and six digits, \
                         below 9007199254.740992";

/// What one client may cost.
struct Caps {
    day: Option<Money>,
    month: Option<Money>,
}

/// The configured policy.
pub struct ClientBudget {
    clients: BTreeMap<String, Caps>,
    review_above: Option<Money>,
}

impl Policy for ClientBudget {
    type Settings = Value;
    const NAME: &'static str = "client-budget-rust";
    const VERSION: &'static str = "0.1.0";
    const SUMMARY: &'static str = "Caps what is spent for each client in a day and in a month.";

    fn settings_schema() -> &'static str {
        include_str!("../../settings.schema.json")
    }

    fn configure(settings: Value) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::default();
        let policy = reader.settings(&settings);
        reader.problems.sort_by(|a, b| (&a.path, &a.message).cmp(&(&b.path, &b.message)));
        if reader.problems.is_empty() { Ok(policy) } else { Err(reader.problems) }
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let Some(client) = &request.principal.client else {
            return Ok(Decision::deny("no-client", "spending must be for a client"));
        };
        let Some(caps) = self.clients.get(client) else {
            return Ok(Decision::deny("client-without-budget", format!("client `{client}` has no budget")));
        };
        let value = request.value();
        if value == Money::ZERO {
            return Ok(Decision::deny("zero-value", "the payment is worth nothing"));
        }
        log::debug(format!("charging client `{client}`"));
        let hold = |window, limit| Hold::micros(format!("client/{client}"), window, limit, value);
        let day = caps.day.map(|limit| hold(Window::day("UTC"), limit));
        let month = caps.month.map(|limit| hold(Window::month("UTC"), limit));
        Ok(self.verdict(value).holds(day.into_iter().chain(month)))
    }
}

impl ClientBudget {
    fn verdict(&self, value: Money) -> Decision {
        match self.review_above {
            // Quorum and expiry 0: as the operator configured.
            Some(above) if value > above => Decision::new(Verdict::Review)
                .because("above-review-threshold", format!("the payment of {value} is above {above}"))
                .quorum(0)
                .expires_in(0),
            _ => Decision::allow(),
        }
    }
}

/// Reads the settings and collects what is wrong with them.
#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn settings(&mut self, settings: &Value) -> ClientBudget {
        let mut policy = ClientBudget { clients: BTreeMap::new(), review_above: None };
        let Some(members) = self.object("", settings) else {
            return policy;
        };
        self.unknown("", members, &["clients", "review-above"]);
        match members.get("clients") {
            Some(clients) => policy.clients = self.clients(clients),
            None => self.problem("/clients", REQUIRED),
        }
        policy.review_above = self.money("", members, "review-above");
        policy
    }

    fn clients(&mut self, value: &Value) -> BTreeMap<String, Caps> {
        let Some(clients) = self.object("/clients", value) else {
            return BTreeMap::new();
        };
        if clients.is_empty() {
            self.problem("/clients", NO_CLIENTS);
        }
        clients.iter().map(|(name, caps)| (name.clone(), self.client(name, caps))).collect()
    }

    fn client(&mut self, name: &str, value: &Value) -> Caps {
        let path = below("/clients", name);
        if !is_name(name) {
            self.problem(&path, NOT_A_NAME);
        }
        let Some(members) = self.object(&path, value) else {
            return Caps { day: None, month: None };
        };
        self.unknown(&path, members, &["per-day", "per-month"]);
        if !members.contains_key("per-day") && !members.contains_key("per-month") {
            self.problem(&path, NO_CAPS);
        }
        Caps { day: self.money(&path, members, "per-day"), month: self.money(&path, members, "per-month") }
    }

    fn money(&mut self, path: &str, members: &Map<String, Value>, key: &str) -> Option<Money> {
        let value = members.get(key)?;
        let money = value.as_str().and_then(|text| Money::parse(text).ok());
        if money.is_none() {
            self.problem(&below(path, key), NOT_MONEY);
        }
        money
    }

    fn object<'v>(&mut self, path: &str, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let members = value.as_object();
        if members.is_none() {
            self.problem(path, NOT_AN_OBJECT);
        }
        members
    }

    fn unknown(&mut self, path: &str, members: &Map<String, Value>, known: &[&str]) {
        for key in members.keys().filter(|key| !known.contains(&key.as_str())) {
            self.problem(&below(path, key), UNKNOWN_KEY);
        }
    }

    fn problem(&mut self, path: &str, message: &str) {
        self.problems.push(Problem::at(path, message));
    }
}

/// JSON Pointer, RFC 6901.
fn below(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// What the host accepts as part of a budget's name.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@:-".contains(&byte);
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(allowed)
}

export_policy!(ClientBudget);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conformance() {
        countersign_sdk::testing::run_cases::<ClientBudget>(include_str!("../../conformance.json"));
    }
}
