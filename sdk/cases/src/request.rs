//! The request that cases start from, and fragments over it.

use serde_json::{Map, Value, json};

/// What a field may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Id,
    PurchaseId,
    Bool,
    /// A whole number up to this.
    Number(u64),
    /// Decimal digits in a string.
    Digits,
    Commitment,
    Texts,
    Attributes,
    OptionalText,
    OptionalNumber(u64),
}

/// The host's own bounds: what it could never ask, no case needs to ask.
const MICROS: u64 = 1_000_000_000_000_000;
const TIME: u64 = 253_402_207_200_000;
const COUNT: u64 = u32::MAX as u64;

/// Every field of `spend-request`.
const FIELDS: &[(&str, Kind)] = &[
    ("id", Kind::Id),
    ("purchase-id", Kind::PurchaseId),
    ("at", Kind::Number(TIME)),
    ("principal.agent", Kind::Text),
    ("principal.user", Kind::OptionalText),
    ("principal.workspace", Kind::OptionalText),
    ("principal.roles", Kind::Texts),
    ("principal.session", Kind::OptionalText),
    ("principal.client", Kind::OptionalText),
    ("principal.project", Kind::OptionalText),
    ("principal.task", Kind::OptionalText),
    ("purchase.method", Kind::Text),
    ("purchase.url", Kind::Text),
    ("purchase.host", Kind::Text),
    ("purchase.path", Kind::Text),
    ("purchase.query-digest", Kind::OptionalText),
    ("purchase.body-digest", Kind::OptionalText),
    ("purchase.observed", Kind::Bool),
    ("purchase.description", Kind::OptionalText),
    ("purchase.media-type", Kind::OptionalText),
    ("purchase.category", Kind::OptionalText),
    ("seller.host", Kind::Text),
    ("seller.pay-to", Kind::Text),
    ("seller.host-first-paid", Kind::OptionalNumber(TIME)),
    ("seller.pay-to-first-paid", Kind::OptionalNumber(TIME)),
    ("seller.pay-to-changed", Kind::Bool),
    ("seller.last-price", Kind::OptionalNumber(MICROS)),
    ("seller.judged", Kind::Number(COUNT)),
    ("seller.useful", Kind::Number(COUNT)),
    ("payment.rail", Kind::Text),
    ("payment.scheme", Kind::Text),
    ("payment.commitment", Kind::Commitment),
    ("payment.network", Kind::Text),
    ("payment.asset", Kind::Text),
    ("payment.asset-symbol", Kind::Text),
    ("payment.asset-decimals", Kind::Number(u8::MAX as u64)),
    ("payment.amount", Kind::Digits),
    ("payment.value", Kind::Number(MICROS)),
    ("payment.valid-for-seconds", Kind::Number(COUNT)),
    ("payment.wallet", Kind::Text),
    ("history.agent-hour.count", Kind::Number(COUNT)),
    ("history.agent-hour.value", Kind::Number(MICROS)),
    ("history.agent-day.count", Kind::Number(COUNT)),
    ("history.agent-day.value", Kind::Number(MICROS)),
    ("history.session.count", Kind::Number(COUNT)),
    ("history.session.value", Kind::Number(MICROS)),
    ("history.seller-day.count", Kind::Number(COUNT)),
    ("history.seller-day.value", Kind::Number(MICROS)),
    ("history.seller-lifetime.count", Kind::Number(COUNT)),
    ("history.seller-lifetime.value", Kind::Number(MICROS)),
    ("history.repeats", Kind::Number(COUNT)),
    ("claims", Kind::Attributes),
    ("facts", Kind::Attributes),
];

/// An ordinary request: agent `scout` in workspace `research`, without a session, is about to buy
/// `GET https://api.example.com/v1/quote` for 0.05 in USDC on Base Sepolia, by x402 `exact`, from a
/// seller paid before at the same address. All counters are zero.
#[must_use]
pub fn ordinary() -> Value {
    let nothing = json!({ "count": 0, "value": 0 });
    let thirty_days_before = 1_765_886_400_000_u64;
    json!({
        "id": "dec_019bc186de0070008000000000000001",
        "purchase-id": "purchase-1",
        "at": 1_768_478_400_000_u64,
        "principal": {
            "agent": "scout", "user": null, "workspace": "research", "roles": ["analyst"],
            "session": null, "client": null, "project": null, "task": null,
        },
        "purchase": {
            "method": "GET", "url": "https://api.example.com/v1/quote", "host": "api.example.com", "path": "/v1/quote",
            "query-digest": null, "body-digest": null, "observed": true,
            "description": null, "media-type": null, "category": null,
        },
        "seller": {
            "host": "api.example.com", "pay-to": "0x209693bc6afc0c5328ba36faf03c514ef312287c",
            "host-first-paid": thirty_days_before, "pay-to-first-paid": thirty_days_before, "pay-to-changed": false,
            "last-price": 50_000, "judged": 0, "useful": 0,
        },
        "payment": {
            "rail": "x402", "scheme": "exact", "commitment": "fixed", "network": "eip155:84532",
            "asset": "0x036cbd53842c5426634e7929541ec2318f3dcf7e", "asset-symbol": "USDC", "asset-decimals": 6,
            "amount": "50000", "value": 50_000, "valid-for-seconds": 60, "wallet": "research",
        },
        "history": {
            "agent-hour": nothing, "agent-day": nothing, "session": nothing,
            "seller-day": nothing, "seller-lifetime": nothing, "repeats": 0,
        },
        "claims": [],
        "facts": [],
    })
}

/// The request that comes of `base`, a whole request, and a fragment over it: members replace members,
/// objects merge, `null` (or `[]`, for TOML has no null) empties an option. Fields that follow others
/// (the url and the seller's host, the atomic amount) follow unless the fragment names them.
///
/// # Errors
/// Where and why the result would not be a request: `request/payment/vlaue: unknown key …`.
pub fn complete(base: Value, fragment: &Value) -> Result<Value, String> {
    let mut request = base;
    apply(&mut request, fragment, "")?;
    let says = |pointer: &str| fragment.pointer(pointer).is_some();
    if says("/purchase/host") && !says("/seller/host") {
        let host = request.pointer("/purchase/host").cloned().unwrap_or_default();
        put(&mut request, "/seller/host", host);
    }
    if (says("/purchase/host") || says("/purchase/path")) && !says("/purchase/url") {
        let url = url_of(&request);
        put(&mut request, "/purchase/url", url.into());
    }
    if says("/payment/value") && !says("/payment/amount") {
        let amount = amount_of(&request);
        put(&mut request, "/payment/amount", amount.into());
    }
    Ok(request)
}

/// The kind of the field at a dotted path; none if there is no such field.
pub(crate) fn kind(path: &str) -> Option<Kind> {
    FIELDS.iter().find(|(field, _)| *field == path).map(|(_, kind)| *kind)
}

/// The value at a dotted path.
pub(crate) fn get<'v>(request: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(request, |value, step| value.get(step))
}

/// Sets the value at a dotted path of a fragment.
pub(crate) fn set(fragment: &mut Value, path: &str, value: Value) {
    let mut at = fragment;
    for step in path.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(members) = at else { return };
        at = members.entry(step).or_insert(Value::Null);
    }
    *at = value;
}

/// Checks one value for the field at `path`; an empty list for an option is `null`.
pub(crate) fn value_for(path: &str, kind: Kind, value: &Value) -> Result<Value, String> {
    let optional = matches!(kind, Kind::OptionalText | Kind::OptionalNumber(_));
    if optional && (value.is_null() || value.as_array().is_some_and(Vec::is_empty)) {
        return Ok(Value::Null);
    }
    let text = value.as_str();
    let (fits, expected) = match kind {
        Kind::Text => (text.is_some(), "a string".to_owned()),
        Kind::OptionalText => (text.is_some(), "a string or null".to_owned()),
        Kind::Id => (text.is_some_and(is_id), "`dec_` and 32 lower-case hex digits".to_owned()),
        Kind::PurchaseId => (text.is_some_and(is_purchase_id), "1 to 128 of [A-Za-z0-9_-]".to_owned()),
        Kind::Bool => (value.is_boolean(), "true or false".to_owned()),
        Kind::Number(max) => (value.as_u64().is_some_and(|n| n <= max), format!("a whole number from 0 to {max}")),
        Kind::OptionalNumber(max) => {
            (value.as_u64().is_some_and(|n| n <= max), format!("null or a whole number from 0 to {max}"))
        }
        Kind::Digits => (text.is_some_and(is_amount), "a string of up to 38 decimal digits".to_owned()),
        Kind::Commitment => (
            text.is_some_and(|t| ["fixed", "ceiling", "deposit", "recurring"].contains(&t)),
            "`fixed`, `ceiling`, `deposit` or `recurring`".to_owned(),
        ),
        Kind::Texts => {
            (value.as_array().is_some_and(|l| l.iter().all(Value::is_string)), "a list of strings".to_owned())
        }
        Kind::Attributes => {
            (value.as_array().is_some_and(|l| l.iter().all(is_attribute)), "a list of {name, value}".to_owned())
        }
    };
    if fits { Ok(value.clone()) } else { Err(format!("{}: expected {expected}, not {value}", place(path))) }
}

fn apply(target: &mut Value, fragment: &Value, path: &str) -> Result<(), String> {
    if let Some(kind) = kind(path) {
        *target = value_for(path, kind, fragment)?;
        return Ok(());
    }
    let Value::Object(changes) = fragment else {
        return Err(format!("{}: expected an object, not {fragment}", place(path)));
    };
    for (key, change) in changes {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match target.get_mut(key) {
            Some(member) => apply(member, change, &below)?,
            None => return Err(format!("{}: unknown key; allowed: {}", place(&below), allowed(path))),
        }
    }
    Ok(())
}

/// `payment.vlaue` as `request/payment/vlaue`.
pub(crate) fn place(path: &str) -> String {
    if path.is_empty() { "request".to_owned() } else { format!("request/{}", path.replace('.', "/")) }
}

/// The keys below a path.
pub(crate) fn allowed(path: &str) -> String {
    let mut keys: Vec<&str> = FIELDS
        .iter()
        .filter_map(|(field, _)| {
            let below = if path.is_empty() { field } else { field.strip_prefix(path)?.strip_prefix('.')? };
            below.split('.').next()
        })
        .collect();
    keys.dedup();
    keys.join(", ")
}

fn is_id(text: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.strip_prefix("dec_").is_some_and(|digits| digits.len() == 32 && digits.bytes().all(hex))
}

fn is_purchase_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_amount(text: &str) -> bool {
    (1..=38).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_attribute(value: &Value) -> bool {
    let text = |key: &str| value.get(key).is_some_and(Value::is_string);
    text("name") && text("value") && value.as_object().is_some_and(|members| members.len() == 2)
}

fn put(request: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = request.pointer_mut(pointer) {
        *place = value;
    }
}

fn url_of(request: &Value) -> String {
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let scheme = text("/purchase/url").split_once("://").map_or("https", |(scheme, _)| scheme);
    format!("{scheme}://{}{}", text("/purchase/host"), text("/purchase/path"))
}

/// At a price of one, which is what the ordinary asset has.
fn amount_of(request: &Value) -> String {
    let number = |pointer: &str| request.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let micros = number("/payment/value").to_string();
    let zeros = usize::try_from(number("/payment/asset-decimals").saturating_sub(6)).unwrap_or(0);
    // What would not fit an amount is left at the value's digits: no asset has that many decimals.
    if micros == "0" || micros.len() + zeros > 38 { micros } else { format!("{micros}{}", "0".repeat(zeros)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_field_of_the_ordinary_request() {
        fn leaves(value: &Value, path: &str, out: &mut Vec<String>) {
            match (kind(path), value) {
                (Some(_), _) | (None, Value::Null) => out.push(path.to_owned()),
                (None, Value::Object(members)) => members.iter().for_each(|(key, value)| {
                    let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    leaves(value, &below, out);
                }),
                (None, other) => panic!("{path}: {other}"),
            }
        }
        let mut found = Vec::new();
        leaves(&ordinary(), "", &mut found);
        found.sort();
        let mut table: Vec<_> = FIELDS.iter().map(|(field, _)| (*field).to_owned()).collect();
        table.sort();
        assert_eq!(found, table);
        assert_eq!(complete(ordinary(), &ordinary()), Ok(ordinary()), "and its own values fit it");
    }

    #[test]
    fn what_follows_follows_unless_it_is_named() {
        let built = |fragment: Value| complete(ordinary(), &fragment).unwrap();
        let other = built(json!({ "purchase": { "host": "localhost:8402", "path": "/a" }, "payment": { "value": 1 } }));
        assert_eq!(get(&other, "purchase.url"), Some(&json!("https://localhost:8402/a")));
        assert_eq!(get(&other, "seller.host"), Some(&json!("localhost:8402")));
        assert_eq!(get(&other, "payment.amount"), Some(&json!("1")));
        let named = built(json!({
            "purchase": { "host": "a.example", "url": "http://b.example/" },
            "seller": { "host": "c.example" },
            "payment": { "value": 2, "amount": "3" },
        }));
        assert_eq!(get(&named, "purchase.url"), Some(&json!("http://b.example/")));
        assert_eq!(get(&named, "seller.host"), Some(&json!("c.example")));
        assert_eq!(get(&named, "payment.amount"), Some(&json!("3")));
        let finer = built(json!({ "payment": { "value": 5, "asset-decimals": 18 } }));
        assert_eq!(get(&finer, "payment.amount"), Some(&json!("5000000000000")));
    }

    #[test]
    fn null_and_the_empty_list_empty_an_option() {
        for nothing in [Value::Null, json!([])] {
            let built = complete(ordinary(), &json!({ "principal": { "workspace": nothing } })).unwrap();
            assert_eq!(get(&built, "principal.workspace"), Some(&Value::Null));
        }
        let roles = complete(ordinary(), &json!({ "principal": { "roles": [] } })).unwrap();
        assert_eq!(get(&roles, "principal.roles"), Some(&json!([])));
    }

    #[test]
    fn fragments_that_are_no_requests_are_refused_with_their_place() {
        let check = |fragment: Value, says: &str| {
            let error = complete(ordinary(), &fragment).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        };
        check(json!({ "paymnet": {} }), "request/paymnet: unknown key; allowed: id, purchase-id, at, principal,");
        check(json!({ "payment": { "vlaue": 1 } }), "request/payment/vlaue: unknown key; allowed: rail, scheme,");
        check(json!({ "payment": { "value": "1" } }), "request/payment/value: expected a whole number");
        check(json!({ "payment": { "value": 1_000_000_000_000_001_u64 } }), "request/payment/value: expected");
        check(json!({ "payment": { "value": 1.5 } }), "request/payment/value: expected");
        check(json!({ "payment": 1 }), "request/payment: expected an object, not 1");
        check(json!({ "payment": { "commitment": "maybe" } }), "request/payment/commitment: expected `fixed`");
        check(json!({ "history": { "agent-day": { "cuont": 1 } } }), "request/history/agent-day/cuont: unknown key");
        check(json!({ "principal": { "agent": null } }), "request/principal/agent: expected a string, not null");
        check(json!({ "principal": { "roles": [1] } }), "request/principal/roles: expected a list of strings");
        check(json!({ "facts": [{ "name": "a" }] }), "request/facts: expected a list of {name, value}");
        check(json!({ "id": "decision-1" }), "request/id: expected `dec_`");
        check(json!([]), "request: expected an object");
    }
}
