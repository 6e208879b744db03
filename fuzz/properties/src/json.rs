//! `core::json` and `audit::canon` against `serde_json`: they accept less, never more, and never something else.

use std::collections::BTreeSet;
use std::fmt;

use countersign_audit::canon;
use countersign_core::json::{Fault, Json, MAX_DEPTH, Value, canonical};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

const LIMIT: usize = 64 * 1024;

pub(crate) fn check(bytes: &[u8]) {
    let theirs = serde_json::from_slice::<serde_json::Value>(bytes);
    let ours = Json::parse(bytes, LIMIT);
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert!(distinct(bytes), "a repeated key was accepted");
            assert_eq!(ours.raw, std::str::from_utf8(bytes).unwrap().trim_matches([' ', '\t', '\n', '\r']));
            same(ours, theirs, 0);
            exact(ours, std::str::from_utf8(bytes).unwrap());
        }
        // Numbers stay text here; theirs have to fit a float.
        (Ok(_), Err(error)) => assert!(is_number(error), "accepted what is not JSON: {error}"),
        (Err(error), Ok(_)) => match error.fault {
            Fault::TooLarge => assert!(bytes.len() > LIMIT),
            Fault::TooDeep => assert!(depth(bytes) > MAX_DEPTH),
            Fault::DuplicateKey => assert!(!distinct(bytes)),
            Fault::NotUtf8 | Fault::Expected(_) => panic!("refused JSON: {error}"),
        },
        (Err(error), Err(_)) => assert!(error.at <= bytes.len().max(LIMIT)),
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(read) = canon::Json::parse(text)
    {
        let theirs = theirs.expect("canonical JSON is JSON");
        assert_eq!(canonical(&theirs), text, "another spelling was taken for canonical");
        assert_eq!(read.raw, text);
        assert!(text.len() > LIMIT || ours.is_ok(), "canonical JSON is strict JSON");
    }
}

/// Says the same, value by value.
fn same(ours: &Json<'_>, theirs: &serde_json::Value, depth: usize) {
    assert!(depth <= MAX_DEPTH, "nested deeper than is accepted");
    match (&ours.value, theirs) {
        (Value::Null, serde_json::Value::Null) => {}
        (Value::Bool(a), serde_json::Value::Bool(b)) => assert_eq!(a, b),
        (Value::Number(a), serde_json::Value::Number(b)) => {
            assert_eq!(serde_json::from_str::<serde_json::Number>(a).ok().as_ref(), Some(b));
            let plain = a.bytes().all(|b| b.is_ascii_digit());
            assert_eq!(ours.as_u64(), b.as_u64().filter(|_| plain));
        }
        (Value::String(a), serde_json::Value::String(b)) => assert_eq!(a.as_ref(), b),
        (Value::Array(a), serde_json::Value::Array(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| same(a, b, depth + 1));
        }
        (Value::Object(a), serde_json::Value::Object(b)) => {
            assert_eq!(a.len(), b.len());
            for (key, value) in a {
                same(value, &b[key.as_ref()], depth + 1);
            }
        }
        (ours, theirs) => panic!("{ours:?} is not {theirs:?}"),
    }
}

/// Every value is the slice it says it is, and reads the same on its own.
fn exact(json: &Json<'_>, text: &str) {
    assert_eq!(text.get(json.start..json.start + json.raw.len()), Some(json.raw));
    let again = Json::parse(json.raw.as_bytes(), LIMIT).expect("a part of what was accepted is accepted");
    assert_eq!(again.raw, json.raw);
    match &json.value {
        Value::Array(items) => items.iter().for_each(|item| exact(item, text)),
        Value::Object(members) => members.values().for_each(|member| exact(member, text)),
        scalar => assert_eq!(*scalar, again.value),
    }
}

/// How deep brackets nest outside of strings, in what is known to be JSON.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut most, mut string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match (string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => string = !string,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}') => depth -= 1,
            _ => {}
        }
        most = most.max(depth);
    }
    most
}

/// Whether no object in this JSON has a key twice, by another reader than ours.
pub(crate) fn distinct(bytes: &[u8]) -> bool {
    match serde_json::from_slice::<Distinct>(bytes) {
        Ok(found) => found.0,
        Err(error) => is_number(&error),
    }
}

/// What another reader makes of JSON that was accepted. None if it has a number that no float holds: ours keeps the text.
pub(crate) fn reread(bytes: &[u8]) -> Option<serde_json::Value> {
    let read = serde_json::from_slice(bytes);
    read.inspect_err(|error| assert!(is_number(error), "accepted what is not JSON: {error}")).ok()
}

fn is_number(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("number out of range")
}

struct Distinct(bool);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Keys)
    }
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = Distinct;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Distinct, E> {
        Ok(Distinct(true))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Distinct, E> {
        Ok(Distinct(true))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Distinct, E> {
        Ok(Distinct(true))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Distinct, E> {
        Ok(Distinct(true))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Distinct, E> {
        Ok(Distinct(true))
    }

    fn visit_str<E>(self, _: &str) -> Result<Distinct, E> {
        Ok(Distinct(true))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Distinct, A::Error> {
        let mut all = true;
        while let Some(Distinct(item)) = items.next_element()? {
            all &= item;
        }
        Ok(Distinct(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Distinct, A::Error> {
        let (mut all, mut keys) = (true, BTreeSet::new());
        while let Some((key, Distinct(member))) = members.next_entry::<String, Distinct>()? {
            all &= member & keys.insert(key);
        }
        Ok(Distinct(all))
    }
}
