//! The log of records: every write appends to it in the transaction that makes it true.
//!
//! What a record is, and what it hashes to, is `countersign-audit`'s; here it is stored, with the tree over
//! all of them. A log shows that nothing inside it was changed; that nothing was cut off its end, and that
//! it was not written anew, only a checkpoint that somebody else kept can show.

use std::str::FromStr as _;

use countersign_audit::note::{Checkpoint, text_of};
use countersign_audit::record;
use countersign_audit::tlog::{
    Hash, Node, Nodes, appended, leaf_hash, prove_consistency, prove_inclusion, root, stored_count, stored_index,
};
use countersign_core::digits::lower_hex;
use countersign_core::id::PaymentId;
use countersign_core::ledger::{KeptCheckpoint, TreeHead};
use countersign_core::time::Timestamp;
use rusqlite::Connection;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::sql::{Answer, Done, Fault, all, one, run};
use crate::text::{Packed, Text};

/// Lines of one page.
const MOST: u32 = 10_000;
/// Bytes after which a page ends early.
const MOST_BYTES: usize = 8 << 20;

/// Foreign text longer than this is cut in a record, with its digest beside it.
pub(crate) const FOREIGN: usize = 256;

/// SHA-256 in lower-case hex.
pub(crate) fn digest_hex(bytes: &[u8]) -> String {
    lower_hex(&Sha256::digest(bytes))
}

/// Text of somebody else's, at most [`FOREIGN`] bytes of it; the digest says what was cut.
pub(crate) fn cut(text: &str) -> String {
    if text.len() <= FOREIGN {
        return text.to_owned();
    }
    let kept = text.get(..text.floor_char_boundary(FOREIGN)).unwrap_or_default();
    format!("{kept}… sha256:{}", digest_hex(text.as_bytes()))
}

/// A record's text is cut where it is long, and its numbers are integers: what is not one becomes text.
fn trim(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > FOREIGN => *text = cut(text),
        Value::Number(number) if number.is_f64() => *value = Value::String(number.to_string()),
        Value::Array(items) => items.iter_mut().for_each(trim),
        Value::Object(map) => trim_all(map),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn trim_all(map: &mut Map<String, Value>) {
    map.values_mut().for_each(trim);
    if map.keys().any(|key| key.len() > FOREIGN) {
        *map = std::mem::take(map).into_iter().map(|(key, value)| (cut(&key), value)).collect();
    }
}

/// The tree over the records, as it is stored.
pub(crate) struct Tree<'a>(pub(crate) &'a Connection);

impl Nodes for Tree<'_> {
    type Error = Fault;

    fn node(&self, node: Node) -> Answer<Hash> {
        let found = if node.level == 0 {
            one(self.0, "SELECT leaf FROM audit WHERE seq=?1", [node.n.saturating_add(1)], |r| r.get(0))?
        } else {
            one(self.0, "SELECT hash FROM audit_node WHERE idx=?1", [stored_index(node)], |r| r.get(0))?
        };
        found.ok_or_else(|| Fault::Broken("a hash of the log's tree is missing".to_owned()))
    }
}

/// How many records there are.
fn size(conn: &Connection) -> Answer<u64> {
    let last: Option<u64> = one(conn, "SELECT max(seq) FROM audit", [], |r| r.get(0))?.flatten();
    Ok(last.unwrap_or(0))
}

/// The number of the record that will be appended next.
pub(crate) fn next(conn: &Connection) -> Answer<u64> {
    Ok(size(conn)?.saturating_add(1))
}

/// The payment that a record names as its own, as a column.
pub(crate) fn payment_of(named: &str) -> Option<[u8; 16]> {
    named.parse().ok().map(|payment: PaymentId| *payment.as_bytes())
}

/// Appends a record. `body` is an object; its number, link, moment and kind are set here.
pub(crate) fn append(conn: &Connection, at: Timestamp, kind: &str, body: Value) -> Answer<()> {
    let Value::Object(mut body) = body else {
        return Err(Fault::Broken("a record is not an object".to_owned()));
    };
    trim_all(&mut body);
    let last = one(conn, "SELECT seq,leaf FROM audit ORDER BY seq DESC LIMIT 1", [], |r| Ok((r.get(0)?, r.get(1)?)))?;
    let (size, prev): (u64, Hash) = last.unwrap_or((0, [0; 32]));
    let seq = size.saturating_add(1);
    let payment = body.get("payment").and_then(Value::as_str).and_then(payment_of);
    let line = record::write(seq, &prev, at.as_millis(), kind, body);
    let line = line.map_err(|e| Fault::conflict(format!("this cannot be recorded: {e}")))?;
    let leaf = leaf_hash(line.as_bytes());
    let sql = "INSERT INTO audit(seq,at,kind,payment,body,leaf) VALUES(?1,?2,?3,?4,?5,?6)";
    run(conn, sql, (seq, at.as_millis(), kind, payment, Packed::new(&line), leaf))?;
    let indexes = stored_count(size)..;
    // The first is the leaf, which is stored already.
    for (idx, hash) in indexes.zip(appended(&Tree(conn), size, leaf)?).skip(1) {
        run(conn, "INSERT INTO audit_node(idx,hash) VALUES(?1,?2)", (idx, hash))?;
    }
    Ok(())
}

/// How many records there are, and the root over them.
pub(crate) fn head(conn: &Connection) -> Answer<TreeHead> {
    let size = size(conn)?;
    Ok(TreeHead { size, root: root(&Tree(conn), size)? })
}

/// The records after one, as they were written.
pub(crate) fn records(conn: &Connection, after: u64, limit: u32) -> Answer<Vec<String>> {
    let mut statement = conn.prepare_cached("SELECT body FROM audit WHERE seq>?1 ORDER BY seq LIMIT ?2")?;
    let mut rows = statement.query((after, limit.min(MOST)))?;
    let (mut lines, mut bytes) = (Vec::new(), 0_usize);
    while let Some(r) = rows.next()? {
        let Text(line) = r.get(0)?;
        bytes = bytes.saturating_add(line.len());
        lines.push(line);
        if bytes >= MOST_BYTES {
            break;
        }
    }
    Ok(lines)
}

/// The numbers of the records that name a payment as theirs.
pub(crate) fn records_of(conn: &Connection, payment: PaymentId) -> Answer<Vec<u64>> {
    all(conn, "SELECT seq FROM audit WHERE payment=?1 ORDER BY seq", [payment.as_bytes()], |r| r.get(0))
}

/// That a record is in the tree of so many.
pub(crate) fn inclusion(conn: &Connection, seq: u64, of: u64) -> Answer<Vec<Hash>> {
    let index = seq.checked_sub(1).ok_or_else(Fault::not_found)?;
    if of > size(conn)? {
        return Err(Fault::not_found());
    }
    prove_inclusion(&Tree(conn), index, of)?.ok_or_else(Fault::not_found)
}

/// That one tree begins with another.
pub(crate) fn consistency(conn: &Connection, old: u64, new: u64) -> Answer<Vec<Hash>> {
    if new > size(conn)? {
        return Err(Fault::not_found());
    }
    prove_consistency(&Tree(conn), old, new)?.ok_or_else(Fault::not_found)
}

/// Whether a checkpoint was signed over this log; an error says why not.
pub(crate) fn is_of(conn: &Connection, at: u64, note: &str) -> Answer<()> {
    let told = |e: countersign_audit::note::NoteError| Fault::conflict(e.to_string());
    let checkpoint = Checkpoint::from_str(text_of(note).map_err(told)?).map_err(told)?;
    if checkpoint.size != at || at > size(conn)? {
        return Err(Fault::conflict("the checkpoint is of another size"));
    }
    if checkpoint.root == root(&Tree(conn), at)? {
        Ok(())
    } else {
        Err(Fault::conflict("the checkpoint is not of this log"))
    }
}

/// Keeps a checkpoint. The first of a size stays: whatever else is signed of it says the same.
pub(crate) fn keep(conn: &Connection, size: u64, note: &str) -> Answer<Done<()>> {
    is_of(conn, size, note)?;
    run(conn, "INSERT INTO checkpoint(size,note) VALUES(?1,?2) ON CONFLICT DO NOTHING", (size, note))?;
    Ok(Done::Keep(()))
}

/// Kept checkpoints, the largest first.
pub(crate) fn checkpoints(conn: &Connection, limit: u32) -> Answer<Vec<KeptCheckpoint>> {
    let sql = "SELECT size,note FROM checkpoint ORDER BY size DESC LIMIT ?1";
    all(conn, sql, [limit.min(MOST)], |r| Ok(KeptCheckpoint { size: r.get(0)?, note: r.get(1)? }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
    fn what_a_record_cannot_say_is_said_otherwise() {
        let mut trimmed = json!({ "a": [0.5, -1, u64::MAX], "k".repeat(300): true });
        trim(&mut trimmed);
        assert_eq!(trimmed["a"], json!(["0.5", -1, u64::MAX]));
        assert_eq!(trimmed[cut(&"k".repeat(300))], true);
    }
}
