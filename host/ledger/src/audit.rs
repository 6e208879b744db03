//! The record: every write appends to one hash chain in the transaction that makes it true.
//!
//! `hash = SHA-256("countersign/record/v1" ‖ seq (8 bytes, big-endian) ‖ prev ‖ body)`, where body
//! is JSON with sorted keys and carries the record's own moment and kind. The first `prev` is zero.
//! A chain shows that nothing inside it was changed; that nothing was cut off its end, only a copy
//! of an earlier head kept elsewhere can show.

use countersign_core::time::Timestamp;
use rusqlite::Connection;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::sql::{Answer, Fault, one, run};

/// Foreign text longer than this is cut in a record, with its digest beside it.
pub(crate) const FOREIGN: usize = 256;
const DOMAIN: &[u8] = b"countersign/record/v1";

/// SHA-256 in lower-case hex.
pub(crate) fn digest_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Text of somebody else's, at most [`FOREIGN`] bytes of it; the digest says what was cut.
pub(crate) fn cut(text: &str) -> String {
    if text.len() <= FOREIGN {
        return text.to_owned();
    }
    let kept = text.get(..text.floor_char_boundary(FOREIGN)).unwrap_or_default();
    format!("{kept}… sha256:{}", digest_hex(text.as_bytes()))
}

/// Sorted keys whatever serde_json's map is, and long text cut.
fn canonical(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(cut(&text)),
        Value::Array(items) => items.into_iter().map(canonical).collect(),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries.into_iter().map(|(k, v)| (cut(&k), canonical(v))).collect::<Map<_, _>>().into()
        }
        plain => plain,
    }
}

/// What a record hashes to.
pub(crate) fn record_hash(seq: u64, prev: &[u8; 32], body: &str) -> [u8; 32] {
    Sha256::new_with_prefix(DOMAIN)
        .chain_update(seq.to_be_bytes())
        .chain_update(prev)
        .chain_update(body)
        .finalize()
        .into()
}

/// The number of the record that will be appended next.
pub(crate) fn next(conn: &Connection) -> Answer<u64> {
    let last: Option<u64> = one(conn, "SELECT max(seq) FROM audit", [], |r| r.get(0))?.flatten();
    Ok(last.unwrap_or(0).saturating_add(1))
}

/// Appends a record. `body` is an object; its `at` and `kind` are set here.
pub(crate) fn append(conn: &Connection, at: Timestamp, kind: &str, body: Value) -> Answer<()> {
    let Value::Object(mut map) = body else {
        return Err(Fault::Broken("a record is not an object".to_owned()));
    };
    map.insert("at".to_owned(), at.as_millis().into());
    map.insert("kind".to_owned(), kind.into());
    let body = canonical(Value::Object(map)).to_string();
    let last = one(conn, "SELECT seq,hash FROM audit ORDER BY seq DESC LIMIT 1", [], |r| {
        Ok((r.get::<_, u64>(0)?, r.get::<_, [u8; 32]>(1)?))
    })?;
    let (last, prev) = last.unwrap_or((0, [0; 32]));
    let seq = last.saturating_add(1);
    let hash = record_hash(seq, &prev, &body);
    run(
        conn,
        "INSERT INTO audit(seq,at,kind,body,prev,hash) VALUES(?1,?2,?3,?4,?5,?6)",
        (seq, at.as_millis(), kind, body, prev, hash),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character_with_its_digest() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(200);
        let short = cut(&long);
        assert!(short.starts_with(&"ä".repeat(128)) && !short.starts_with(&"ä".repeat(129)));
        assert!(short.ends_with(&digest_hex(long.as_bytes())));
    }

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let value: Value = serde_json::from_str(r#"{"b":{"z":1,"a":2},"a":[{"y":1,"x":2}]}"#).unwrap();
        assert_eq!(canonical(value).to_string(), r#"{"a":[{"x":2,"y":1}],"b":{"a":2,"z":1}}"#);
    }

    #[test]
    fn every_part_of_a_record_changes_its_hash() {
        let base = record_hash(1, &[0; 32], "{}");
        assert_ne!(base, record_hash(2, &[0; 32], "{}"));
        assert_ne!(base, record_hash(1, &[1; 32], "{}"));
        assert_ne!(base, record_hash(1, &[0; 32], "[]"));
    }
}
