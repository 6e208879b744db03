//! Extreme requests that the host could really ask, and what a policy makes of them.

use std::sync::Arc;

use countersign_core::seams::Judge;
use countersign_core::verdict::{Failure, FailureKind, Opinion};
use countersign_engine::cases::request;
use countersign_engine::{Engine, PolicySet, PolicySpec, StageError, Start};
use serde_json::{Map, Value, json};

/// Agents, clients and the like are at most this long; see the configuration's names.
const LONGEST_NAME: usize = 64;
const MOST: u64 = 1_000_000_000_000_000;
/// Both stand for the same module: what differs between them is the randomness they are given.
const NAMES: [&str; 2] = ["one", "other"];

/// The code of a policy whose answer is not a function of settings and request.
pub(super) const NOT_DETERMINISTIC: &str = "not-deterministic";

/// An extreme request.
struct Extreme {
    name: String,
    fragment: Value,
}

/// What a policy made of one of them.
pub(super) struct Answer {
    /// Which request.
    pub(super) name: String,
    /// The request as a fragment over the ordinary one.
    pub(super) fragment: Value,
    /// What is wrong with the answer.
    pub(super) fault: Option<Fault>,
    /// Instructions it used.
    pub(super) fuel: u64,
}

/// What is wrong with an answer.
pub(super) struct Fault {
    /// Stable code for programs.
    pub(super) code: &'static str,
    /// What happened.
    pub(super) message: String,
    /// What the author may do.
    pub(super) advice: &'static str,
}

/// Asks a policy everything extreme, over each of `bases`: what an early refusal would hide in one is
/// reached from another.
///
/// # Errors
/// If it cannot be staged.
pub(super) fn ask(engine: &Arc<Engine>, spec: &PolicySpec, bases: &[Value]) -> Result<Vec<Answer>, StageError> {
    let named = |name: &str| PolicySpec { name: name.to_owned(), claims: true, start: Start::Plain, ..spec.clone() };
    let set = engine.stage(0, &NAMES.map(named))?;
    let battery = battery();
    let over = |base: &Value| battery.iter().map(|extreme| answer(&set, extreme, base)).collect::<Vec<_>>();
    Ok(bases.iter().flat_map(over).collect())
}

fn answer(set: &PolicySet, extreme: &Extreme, base: &Value) -> Answer {
    let mut fragment = base.clone();
    overlay(&mut fragment, &extreme.fragment);
    let asked = match request(&fragment) {
        Ok(request) => set.judge(&NAMES.map(str::to_owned), &request).opinions,
        Err(_) => Vec::new(),
    };
    let (fault, fuel) = match asked.as_slice() {
        [one, other] => (fault(one, other), one.fuel.max(other.fuel)),
        _ => (None, 0),
    };
    Answer { name: extreme.name.clone(), fragment, fault, fuel }
}

/// Lays a fragment over another: members replace members, objects merge.
fn overlay(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(members), Value::Object(changes)) => {
            changes
                .iter()
                .for_each(|(key, change)| overlay(members.entry(key.as_str()).or_insert(Value::Null), change));
        }
        (under, over) => under.clone_from(over),
    }
}

fn fault(one: &Opinion, other: &Opinion) -> Option<Fault> {
    if let Err(failure) = &one.outcome {
        return Some(failed(failure));
    }
    if one.outcome == other.outcome {
        return None;
    }
    let says = |opinion: &Opinion| match &opinion.outcome {
        Ok(decision) => serde_json::to_string(decision).unwrap_or_default(),
        Err(failure) => failure.message.clone(),
    };
    Some(Fault {
        code: NOT_DETERMINISTIC,
        message: format!("two fresh instances answered one request in two ways: {} and {}", says(one), says(other)),
        advice: "its answer depends on randomness, often through the order of a hash map; sort, or use an ordered map",
    })
}

fn failed(failure: &Failure) -> Fault {
    let advice = match failure.kind {
        FailureKind::Trap => {
            "the gateway denies with `policy-trap`; look for an index, an unwrap or a sum that this breaks"
        }
        FailureKind::Timeout | FailureKind::Fuel => "bound the work by what the request holds",
        FailureKind::Oversize => "answer less: at most 64 reasons, 16 holds and 4 KiB in any one text",
        FailureKind::Error => "refuse with `deny` and a reason, so that people can be told why",
        FailureKind::Unavailable => "try again when the machine is less busy",
    };
    Fault { code: failure.kind.code(), message: failure.message.clone(), advice }
}

fn battery() -> Vec<Extreme> {
    let long = "x".repeat(1024);
    let name = "n".repeat(LONGEST_NAME);
    let unicode = "\u{202e}ÿ\u{0}\t\"'\\{}%s\u{301}日本語🦀\u{10ffff}";
    let attributes = |count: usize, name: &str, value: &str| {
        (0..count).map(|i| json!({ "name": format!("{name}{i}"), "value": value })).collect::<Vec<_>>()
    };
    let words = |text: &str| {
        json!({
            "purchase": { "description": text, "media-type": text, "category": text, "path": format!("/{text}") },
            "claims": [{ "name": text, "value": text }],
            "facts": [{ "name": text, "value": text }],
        })
    };
    let host = ["a", "b", "c", "d"].map(|label| label.repeat(62)).join(".");
    let tally = json!({ "count": u32::MAX, "value": MOST });
    let extreme = |name: &str, fragment: Value| Extreme { name: name.to_owned(), fragment };
    let mut battery = vec![
        extreme("an ordinary request", json!({})),
        extreme("every option empty, every list empty", nothing()),
        extreme("everybody with the longest name", everything(&name)),
        extreme("1 KiB in every text that others write", words(&long)),
        extreme("unicode, control and direction characters in every text that others write", words(unicode)),
        extreme("every text that others write empty", words("")),
        extreme("the largest amount", json!({ "payment": { "value": MOST, "valid-for-seconds": u32::MAX } })),
        extreme(
            "the largest amount of an asset with 18 decimals",
            json!({ "payment": { "value": MOST, "asset-decimals": 18 } }),
        ),
        extreme(
            "an amount of 38 digits and a small value",
            json!({ "payment": { "value": 1, "amount": "9".repeat(38) } }),
        ),
        extreme("an amount of zero", json!({ "payment": { "value": 0, "valid-for-seconds": 0 } })),
        extreme("an amount of one millionth", json!({ "payment": { "value": 1 } })),
        extreme(
            "every counter at its end",
            json!({
                "seller": { "judged": u32::MAX, "useful": u32::MAX, "last-price": MOST },
                "history": {
                    "agent-hour": tally, "agent-day": tally, "session": tally,
                    "seller-day": tally, "seller-lifetime": tally, "repeats": u32::MAX,
                },
            }),
        ),
        extreme("64 roles", json!({ "principal": { "roles": vec![name.clone(); 64] } })),
        extreme(
            "64 claims and 64 facts",
            json!({ "claims": attributes(64, "claim", &long), "facts": attributes(64, "fact", &long) }),
        ),
        extreme(
            "one claim and one fact 64 times",
            json!({
                "claims": vec![json!({ "name": "purpose", "value": unicode }); 64],
                "facts": vec![json!({ "name": "data-class", "value": "" }); 64],
            }),
        ),
        extreme(
            "the first moment there is",
            json!({ "at": 0, "seller": { "host-first-paid": 0, "pay-to-first-paid": 0 } }),
        ),
        extreme("the last moment there is", json!({ "at": 253_402_207_200_000_u64 })),
        extreme(
            "a seller first paid in the future",
            json!({ "at": 1, "seller": { "host-first-paid": 2, "pay-to-first-paid": 2 } }),
        ),
        extreme("a host that is an address, with a port", json!({ "purchase": { "host": "[2001:db8::1]:65535" } })),
        extreme("a host as long as hosts may be", json!({ "purchase": { "host": host } })),
        extreme("a path with tricks", json!({ "purchase": { "path": "//a/%2e%2e/%2F..;/\\..%00" } })),
        extreme("a method nobody knows", json!({ "purchase": { "method": "X".repeat(64) } })),
        extreme("only the agent says what is bought", json!({ "purchase": { "observed": false } })),
        extreme("a charge that repeats", json!({ "payment": { "commitment": "recurring" } })),
        extreme(
            "a rail, network and asset nobody knows",
            json!({
                "payment": { "rail": "mpp", "scheme": &long, "network": &long, "asset": &long, "asset-symbol": unicode },
                "seller": { "pay-to": &long },
            }),
        ),
    ];
    battery.extend(empty_one_by_one());
    battery
}

/// Each option and each list empty on its own.
fn empty_one_by_one() -> impl Iterator<Item = Extreme> {
    let nothing = nothing();
    let sections = nothing.as_object().into_iter().flatten().map(|(name, part)| (name.clone(), part.clone()));
    let alone: Vec<(String, Value)> = sections
        .flat_map(|(section, part)| match part {
            Value::Object(fields) => fields
                .into_iter()
                .map(|(field, empty)| {
                    let mut inner = Map::new();
                    inner.insert(field.clone(), empty);
                    (format!("{section}.{field}"), json!({ section.as_str(): inner }))
                })
                .collect(),
            empty => vec![(section.clone(), json!({ section.as_str(): empty }))],
        })
        .collect();
    alone.into_iter().map(|(path, fragment)| Extreme { name: format!("{path} empty"), fragment })
}

fn nothing() -> Value {
    json!({
        "principal": {
            "user": null, "workspace": null, "roles": [], "session": null,
            "client": null, "project": null, "task": null,
        },
        "purchase": {
            "query-digest": null, "body-digest": null, "description": null, "media-type": null, "category": null,
        },
        "seller": { "host-first-paid": null, "pay-to-first-paid": null, "last-price": null },
        "claims": [],
        "facts": [],
    })
}

/// Every option filled.
pub(super) fn everything(name: &str) -> Value {
    json!({
        "principal": {
            "agent": name, "user": name, "workspace": name, "roles": [name],
            "session": format!("ses_{}", "0".repeat(32)), "client": name, "project": name, "task": name,
        },
        "purchase": {
            "query-digest": "d".repeat(64), "body-digest": "d".repeat(64),
            "description": "d", "media-type": "application/json", "category": "c",
        },
        "payment": { "wallet": name },
        "claims": [{ "name": "purpose", "value": "p" }],
        "facts": [{ "name": "data-class", "value": "pii" }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_extreme_is_a_request() {
        for base in [json!({}), everything("acme")] {
            for extreme in battery() {
                let mut fragment = base.clone();
                overlay(&mut fragment, &extreme.fragment);
                request(&fragment).unwrap_or_else(|e| panic!("{}: {e}", extreme.name));
            }
        }
        let names: Vec<String> = battery().into_iter().map(|extreme| extreme.name).collect();
        for alone in ["principal.roles empty", "seller.last-price empty", "facts empty"] {
            assert!(names.iter().any(|name| name == alone), "{alone}");
        }
    }
}
