//! One record: one line of canonical JSON.
//!
//! An object with at least `seq` (counted from 1), `prev` (the leaf hash of the record before it in
//! lower-case hex; 64 zeros in the first), `at` (when, in milliseconds since 1970) and `kind`. What else
//! it says is the kind's. Its leaf hash is [`leaf_hash`](crate::tlog::leaf_hash) of the line without its
//! newline.

use std::fmt;

use countersign_core::digits::lower_hex;
use countersign_core::json::canonical;
use serde_json::{Map, Value};

use crate::canon::{self, CanonError};
use crate::tlog::Hash;

/// The latest moment a record may bear: the end of the year 9999.
pub const MAX_AT: u64 = 253_402_300_799_999;

/// Why a line is no record, or a record cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Not canonical JSON.
    Canon(CanonError),
    /// A field is missing or not what it must be.
    Field(&'static str),
    /// The body has a field that is not the body's to set.
    Reserved(&'static str),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Canon(e) => fmt::Display::fmt(e, f),
            Self::Field(name) => write!(f, "a record's `{name}` is missing or not what it must be"),
            Self::Reserved(name) => write!(f, "a record's body may not say `{name}`"),
        }
    }
}

impl std::error::Error for RecordError {}

impl From<CanonError> for RecordError {
    fn from(e: CanonError) -> Self {
        Self::Canon(e)
    }
}

/// Writes the record `seq` with what `body` says.
///
/// # Errors
/// When the line would not be read again as it was meant: `body` says one of the four fields itself,
/// or has a number that is no integer, or is nested too deep.
pub fn write(seq: u64, prev: &Hash, at: u64, kind: &str, body: Map<String, Value>) -> Result<String, RecordError> {
    let mut record = body;
    let own = [("seq", seq.into()), ("prev", lower_hex(prev).into()), ("at", at.into()), ("kind", kind.into())];
    for (name, value) in own {
        if record.insert(name.to_owned(), value).is_some() {
            return Err(RecordError::Reserved(name));
        }
    }
    let line = canonical(&Value::Object(record));
    Record::parse(&line)?;
    Ok(line)
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number, from 1.
    pub seq: u64,
    /// The leaf hash of the record before it.
    pub prev: Hash,
    /// When, in milliseconds since 1970, by the gateway's clock.
    pub at: u64,
    /// What it is about.
    pub kind: &'a str,
    /// All of it.
    pub json: &'a canon::Json<'a>,
}

impl<'a> Record<'a> {
    /// Checks that a line is a record.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn parse(line: &str) -> Result<(), RecordError> {
        Record::of(&canon::Json::parse(line)?).map(drop)
    }

    /// The record that a line is, once it has been read as canonical JSON.
    ///
    /// # Errors
    /// [`RecordError::Field`].
    pub fn of(json: &'a canon::Json<'a>) -> Result<Self, RecordError> {
        let field = |name: &'static str| json.get(name).ok_or(RecordError::Field(name));
        let number = |name| field(name)?.as_u64().ok_or(RecordError::Field(name));
        Ok(Self {
            seq: Some(number("seq")?).filter(|seq| *seq > 0).ok_or(RecordError::Field("seq"))?,
            prev: field("prev")?.as_str().and_then(hash_of_hex).ok_or(RecordError::Field("prev"))?,
            at: Some(number("at")?).filter(|at| *at <= MAX_AT).ok_or(RecordError::Field("at"))?,
            kind: field("kind")?.as_str().filter(|kind| !kind.is_empty()).ok_or(RecordError::Field("kind"))?,
            json,
        })
    }
}

/// A hash in 64 lower-case hex digits.
pub(crate) fn hash_of_hex(text: &str) -> Option<Hash> {
    bytes_of_hex(text)
}

/// Exactly `N` bytes in lower-case hex.
pub(crate) fn bytes_of_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_record_is_one_sorted_line() {
        let line =
            write(7, &[0xab; 32], 1_700_000_000_000, "note", body(json!({ "z": [1, "ä\n"], "a": null }))).unwrap();
        let prev = "ab".repeat(32);
        let expected =
            format!(r#"{{"a":null,"at":1700000000000,"kind":"note","prev":"{prev}","seq":7,"z":[1,"ä\n"]}}"#);
        assert_eq!(line, expected);
        let json = canon::Json::parse(&line).unwrap();
        let record = Record::of(&json).unwrap();
        assert_eq!((record.seq, record.prev, record.at, record.kind), (7, [0xab; 32], 1_700_000_000_000, "note"));
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let written = |value| write(1, &[0; 32], 1, "note", body(value));
        assert_eq!(written(json!({ "seq": 1 })), Err(RecordError::Reserved("seq")));
        assert_eq!(written(json!({ "prev": 1 })), Err(RecordError::Reserved("prev")));
        assert!(matches!(written(json!({ "share": 0.5 })), Err(RecordError::Canon(_))));
        assert_eq!(write(0, &[0; 32], 1, "note", Map::new()), Err(RecordError::Field("seq")));
        assert_eq!(write(1, &[0; 32], MAX_AT + 1, "note", Map::new()), Err(RecordError::Field("at")));
        assert_eq!(write(1, &[0; 32], 1, "", Map::new()), Err(RecordError::Field("kind")));
    }

    #[test]
    fn fields_have_one_form() {
        let zeros = "0".repeat(64);
        for odd in [
            format!(r#"{{"at":1,"kind":"x","prev":"{zeros}"}}"#),
            format!(r#"{{"at":1,"kind":"x","prev":"{zeros}","seq":"1"}}"#),
            format!(r#"{{"at":-1,"kind":"x","prev":"{zeros}","seq":1}}"#),
            format!(r#"{{"at":1,"kind":null,"prev":"{zeros}","seq":1}}"#),
            format!(r#"{{"at":1,"kind":"x","prev":"{}","seq":1}}"#, "A".repeat(64)),
            format!(r#"{{"at":1,"kind":"x","prev":"{}","seq":1}}"#, "0".repeat(62)),
        ] {
            assert!(matches!(Record::parse(&odd), Err(RecordError::Field(_))), "{odd}");
        }
        assert!(matches!(Record::parse("[]"), Err(RecordError::Field(_))));
    }
}
