//! The tables of the ledger as the local copy has them: what a row is made of, and which of its values name it.
//!
//! The schema of SQLite is the one description; that of PostgreSQL is written by hand, with its own walls, and a test
//! compares the two.

use rusqlite::Connection;

use crate::sql::{Answer, Fault, all};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A signed number of 64 bits.
    Integer,
    /// Text.
    Text,
    /// Bytes.
    Blob,
    /// Any of them. PostgreSQL has no such column: there it is bytes, as [`super::delta`] writes a value.
    Any,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// In the order in which they were declared.
    pub(crate) columns: Vec<Column>,
    /// Which of the columns make the primary key, in its order.
    pub(crate) key: Vec<usize>,
}

/// What only a copy has: how far it follows.
pub(crate) const COPY: &str = "copy";

/// Written before the others, because what they say is checked against it; the rest follows by name.
const FIRST: [&str; 1] = ["step"];

impl Table {
    /// Names of all columns, with commas.
    pub(crate) fn names(&self) -> String {
        quoted(self.columns.iter())
    }

    /// The key's columns, in its order.
    pub(crate) fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().filter_map(|n| self.columns.get(*n))
    }

    /// Names of the key's columns, with commas.
    pub(crate) fn key_names(&self) -> String {
        quoted(self.key_columns())
    }

    /// `a=excluded.a,…` for what is not the key; nothing if there is nothing else.
    pub(crate) fn overwritten(&self) -> String {
        let rest = self.columns.iter().enumerate().filter(|(n, _)| !self.key.contains(n));
        let set = rest.map(|(_, c)| format!("\"{0}\"=excluded.\"{0}\"", c.name));
        set.collect::<Vec<_>>().join(",")
    }
}

fn quoted<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
    columns.map(|c| format!("\"{}\"", c.name)).collect::<Vec<_>>().join(",")
}

/// Every table that copies share, in the order in which their rows are written.
pub(crate) fn read(conn: &Connection) -> Answer<Vec<Table>> {
    let sql = "SELECT name FROM main.sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
               AND name<>?1 ORDER BY name";
    let names = all(conn, sql, [COPY], |r| r.get::<_, String>(0))?;
    let mut tables = names.into_iter().map(|name| table(conn, name)).collect::<Answer<Vec<_>>>()?;
    tables.sort_by_key(|t| !FIRST.contains(&t.name.as_str()));
    Ok(tables)
}

fn table(conn: &Connection, name: String) -> Answer<Table> {
    let sql = "SELECT name,type,pk FROM pragma_table_info(?1) ORDER BY cid";
    let rows =
        all(conn, sql, [&name], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get::<_, usize>(2)?)))?;
    let mut columns = Vec::with_capacity(rows.len());
    let mut key = Vec::new();
    for (n, (column, declared, place)) in rows.into_iter().enumerate() {
        let kind = match declared.as_str() {
            "INTEGER" => Kind::Integer,
            "TEXT" => Kind::Text,
            "BLOB" => Kind::Blob,
            "ANY" => Kind::Any,
            other => return Err(Fault::Broken(format!("{name}.{column} is of the unknown type {other}"))),
        };
        if place > 0 {
            key.push((place, n));
        }
        columns.push(Column { name: column, kind });
    }
    if key.is_empty() {
        return Err(Fault::Broken(format!("the table {name} has no primary key")));
    }
    key.sort_unstable();
    Ok(Table { name, columns, key: key.into_iter().map(|(_, n)| n).collect() })
}
