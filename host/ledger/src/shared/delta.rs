//! What one transaction changed: rows as they now are, and rows that are gone.
//!
//! As bytes, a change is a list of tables: its name, then how many rows follow, then each row as a tag (0 it is as
//! follows, 1 it is gone) and its values: all of its columns, or its key. Numbers are big-endian. Every copy reads these
//! bytes, so their meaning never changes; a new one would be a new version of the schema.

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use sha2::{Digest as _, Sha256};

use super::tables::Table;
use crate::sql::{Answer, Fault};

/// A digest of SHA-256.
pub(crate) type Hash = [u8; 32];

/// The changes of one table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rows {
    /// As they now are: a value for each column.
    pub(crate) put: Vec<Vec<Value>>,
    /// Gone: a value for each column of the key.
    pub(crate) gone: Vec<Vec<Value>>,
}

impl Rows {
    fn is_empty(&self) -> bool {
        self.put.is_empty() && self.gone.is_empty()
    }
}

/// The changes of one transaction: one entry for each table, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Delta(pub(crate) Vec<Rows>);

/// How far a copy follows: the number of the last change, and the hash over all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
}

impl Position {
    /// Where this change leads.
    pub(crate) fn after(&self, epoch: u64, body: &[u8]) -> Self {
        let seq = self.seq.saturating_add(1);
        let mut hash = Sha256::new();
        hash.update(self.hash);
        hash.update(seq.to_be_bytes());
        hash.update(epoch.to_be_bytes());
        hash.update(Sha256::digest(body));
        Self { seq, hash: hash.finalize().into() }
    }
}

const PUT: u8 = 0;
const GONE: u8 = 1;

impl Delta {
    /// Whether nothing changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(Rows::is_empty)
    }

    /// As bytes.
    pub(crate) fn write(&self, tables: &[Table]) -> Vec<u8> {
        let mut out = Vec::new();
        for (table, rows) in tables.iter().zip(&self.0).filter(|(_, rows)| !rows.is_empty()) {
            bytes(&mut out, table.name.as_bytes());
            let count = rows.put.len().saturating_add(rows.gone.len());
            out.extend(u64::try_from(count).unwrap_or(u64::MAX).to_be_bytes());
            for (tag, row) in rows.put.iter().map(|r| (PUT, r)).chain(rows.gone.iter().map(|r| (GONE, r))) {
                out.push(tag);
                for value in row {
                    write_value(&mut out, value);
                }
            }
        }
        out
    }

    /// The inverse of [`Delta::write`].
    pub(crate) fn read(tables: &[Table], body: &[u8]) -> Answer<Self> {
        let mut input = Input(body);
        let mut delta = Self(vec![Rows::default(); tables.len()]);
        while !input.0.is_empty() {
            let name = input.bytes()?;
            let found = tables.iter().zip(&mut delta.0).find(|(t, _)| t.name.as_bytes() == name);
            let (table, rows) = found.ok_or_else(|| broken("it names an unknown table"))?;
            for _ in 0..input.number()? {
                let (into, columns) = match input.byte()? {
                    PUT => (&mut rows.put, table.columns.len()),
                    GONE => (&mut rows.gone, table.key.len()),
                    _ => return Err(broken("a row is neither there nor gone")),
                };
                into.push((0..columns).map(|_| input.value()).collect::<Answer<_>>()?);
            }
        }
        Ok(delta)
    }
}

fn broken(why: &str) -> Fault {
    Fault::Broken(format!("a change of the shared ledger cannot be read: {why}"))
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
    out.extend(bytes);
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0),
        Value::Integer(n) => {
            out.push(1);
            out.extend(n.to_be_bytes());
        }
        Value::Text(text) => {
            out.push(2);
            bytes(out, text.as_bytes());
        }
        Value::Blob(blob) => {
            out.push(3);
            bytes(out, blob);
        }
        // No strict table has a column for it, and `meta` is given none.
        Value::Real(n) => {
            out.push(4);
            out.extend(n.to_bits().to_be_bytes());
        }
    }
}

/// One value by itself, for columns that hold any.
pub(crate) fn one_value(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write_value(&mut out, value);
    out
}

/// The inverse of [`one_value`].
pub(crate) fn read_value(bytes: &[u8]) -> Answer<Value> {
    let mut input = Input(bytes);
    let value = input.value()?;
    if input.0.is_empty() { Ok(value) } else { Err(broken("a value has a tail")) }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Answer<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| broken("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn eight(&mut self) -> Answer<[u8; 8]> {
        self.take(8)?.try_into().map_err(|_| broken("it ends early"))
    }

    fn byte(&mut self) -> Answer<u8> {
        self.take(1)?.first().copied().ok_or_else(|| broken("it ends early"))
    }

    fn number(&mut self) -> Answer<u64> {
        self.eight().map(u64::from_be_bytes)
    }

    fn bytes(&mut self) -> Answer<&'a [u8]> {
        let count = usize::try_from(self.number()?).map_err(|_| broken("it ends early"))?;
        self.take(count)
    }

    fn value(&mut self) -> Answer<Value> {
        Ok(match self.byte()? {
            0 => Value::Null,
            1 => Value::Integer(i64::from_be_bytes(self.eight()?)),
            2 => Value::Text(String::from_utf8(self.bytes()?.to_vec()).map_err(|_| broken("text is not UTF-8"))?),
            3 => Value::Blob(self.bytes()?.to_vec()),
            4 => Value::Real(f64::from_bits(self.number()?)),
            _ => return Err(broken("a value is of no known kind")),
        })
    }
}

/// Binds a borrowed value.
pub(crate) struct Bound<'a>(pub(crate) &'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::from(self.0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tables::{Column, Kind};
    use super::*;

    fn tables() -> Vec<Table> {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind };
        let table = |name: &str, key: Vec<usize>| Table {
            name: name.to_owned(),
            columns: vec![column("a", Kind::Integer), column("b", Kind::Text), column("c", Kind::Blob)],
            key,
        };
        vec![table("one", vec![0]), table("two", vec![1, 0])]
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            any::<String>().prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Blob),
        ]
    }

    fn rows(key: usize) -> impl Strategy<Value = Rows> {
        let row = |len| proptest::collection::vec(proptest::collection::vec(value(), len), 0..4);
        (row(3), row(key)).prop_map(|(put, gone)| Rows { put, gone })
    }

    proptest! {
        #[test]
        fn a_change_is_read_as_it_was_written(one in rows(1), two in rows(2)) {
            let delta = Delta(vec![one, two]);
            let body = delta.write(&tables());
            prop_assert_eq!(Delta::read(&tables(), &body).unwrap(), delta.clone());
            prop_assert_eq!(body.is_empty(), delta.is_empty());
            // Cut anywhere, it is either refused or a change with less in it; never something else.
            for end in 0..body.len() {
                if let Ok(less) = Delta::read(&tables(), &body[..end]) {
                    prop_assert_eq!(less.write(&tables()), &body[..end]);
                }
            }
        }

        #[test]
        fn no_bytes_are_too_strange_to_refuse(body in any::<Vec<u8>>()) {
            let _read_or_refused = Delta::read(&tables(), &body);
        }

        #[test]
        fn a_value_is_read_as_it_was_written(v in value()) {
            prop_assert_eq!(read_value(&one_value(&v)).unwrap(), v);
        }
    }

    #[test]
    fn every_part_of_a_change_moves_the_hash() {
        let start = Position { seq: 4, hash: [1; 32] };
        let next = start.after(2, b"body");
        assert_eq!(next.seq, 5);
        assert_eq!(start.after(2, b"body"), next);
        for other in [
            start.after(3, b"body"),
            start.after(2, b"Body"),
            Position { seq: 5, ..start }.after(2, b"body"),
            Position { hash: [2; 32], ..start }.after(2, b"body"),
        ] {
            assert_ne!(other.hash, next.hash);
        }
    }
}
