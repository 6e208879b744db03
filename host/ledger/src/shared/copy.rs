//! The local copy: what it notes of itself, which of its rows a batch changed, and how the changes of others get in.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::delta::{Bound, Delta, Hash, Position, Rows};
use super::tables::{COPY, Column, Table};
use crate::open::{self, OpenError};
use crate::sql::{Answer, Fault, one, run};

/// Opens a connection that may write to the copy. What it writes is durable in the shared database first, so the
/// copy itself is not synced: after a power cut it is an earlier state of the same ledger, and follows again.
pub(crate) fn writer(path: &Path) -> Result<Connection, OpenError> {
    let conn = open::writer(path)?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(conn)
}

/// Makes the note of how far this copy follows, and of its own random name. Nothing, if it is there.
pub(crate) fn name(conn: &Connection, base: Position, random: [u8; 16]) -> Answer<()> {
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {COPY}(n INTEGER PRIMARY KEY CHECK(n=1), name BLOB NOT NULL CHECK(length(name)=16),
         seq INTEGER NOT NULL, hash BLOB NOT NULL CHECK(length(hash)=32)) STRICT;"
    );
    conn.execute_batch(&sql)?;
    let sql = "INSERT INTO copy(n,name,seq,hash) VALUES(1,?1,?2,?3) ON CONFLICT DO NOTHING";
    run(conn, sql, (random, base.seq, base.hash))?;
    Ok(())
}

/// The copy's name, and how far it follows; nothing, if this is no copy.
pub(crate) fn noted(conn: &Connection) -> Answer<Option<([u8; 16], Position)>> {
    let sql = "SELECT 1 FROM main.sqlite_schema WHERE name=?1";
    if one(conn, sql, [COPY], |_| Ok(()))?.is_none() {
        return Ok(None);
    }
    one(conn, "SELECT name,seq,hash FROM copy", [], |r| {
        Ok((r.get(0)?, Position { seq: r.get(1)?, hash: r.get::<_, Hash>(2)? }))
    })
}

/// Notes how far the copy follows, in the transaction that takes it there.
pub(crate) fn note(conn: &Connection, at: Position) -> Answer<()> {
    run(conn, "UPDATE copy SET seq=?1, hash=?2", (at.seq, at.hash))?;
    Ok(())
}

/// Lets this connection remember which rows it changes. What a savepoint takes back is forgotten with it.
pub(crate) fn watch(conn: &Connection, tables: &[Table]) -> Answer<()> {
    for table in tables {
        let name = &table.name;
        let keys = table.key_names();
        let of = |row: &str| {
            let keys = table.key_columns().map(|c| format!("{row}.\"{}\"", c.name));
            keys.collect::<Vec<_>>().join(",")
        };
        // Not `INSERT OR IGNORE`: inside a trigger, the conflict clause of the statement that fired it counts instead.
        let put = |row: &str| {
            let same = table.key_columns().map(|c| format!("\"{0}\"={row}.\"{0}\"", c.name));
            let same = same.collect::<Vec<_>>().join(" AND ");
            format!(
                "INSERT INTO dirty_{name} SELECT {} WHERE NOT EXISTS(SELECT 1 FROM dirty_{name} WHERE {same});",
                of(row)
            )
        };
        conn.execute_batch(&format!(
            "CREATE TEMP TABLE dirty_{name}({keys}, PRIMARY KEY({keys})) WITHOUT ROWID;
             CREATE TEMP TRIGGER put_{name} AFTER INSERT ON main.\"{name}\" BEGIN {} END;
             CREATE TEMP TRIGGER set_{name} AFTER UPDATE ON main.\"{name}\" BEGIN {} {} END;
             CREATE TEMP TRIGGER cut_{name} AFTER DELETE ON main.\"{name}\" BEGIN {} END;",
            put("NEW"),
            put("OLD"),
            put("NEW"),
            put("OLD"),
        ))?;
    }
    Ok(())
}

/// What was changed since the last look, which is then forgotten.
pub(crate) fn changed(conn: &Connection, tables: &[Table]) -> Answer<Delta> {
    tables.iter().map(|table| rows(conn, table)).collect::<Answer<Vec<_>>>().map(Delta)
}

fn rows(conn: &Connection, table: &Table) -> Answer<Rows> {
    let name = &table.name;
    let mut rows = Rows::default();
    if one(conn, &format!("SELECT 1 FROM dirty_{name} LIMIT 1"), [], |_| Ok(()))?.is_none() {
        return Ok(rows);
    }
    let list = |of: &str, columns: &mut dyn Iterator<Item = &Column>| {
        columns.map(|c| format!("{of}.\"{}\"", c.name)).collect::<Vec<_>>().join(",")
    };
    let same = table.key_columns().map(|c| format!("t.\"{0}\"=d.\"{0}\"", c.name)).collect::<Vec<_>>().join(" AND ");
    // The key of what is dirty, then the row, which is missing where the first column of its key is.
    let sql = format!(
        "SELECT {},{} FROM dirty_{name} d LEFT JOIN main.\"{name}\" t ON {same}",
        list("d", &mut table.key_columns()),
        list("t", &mut table.columns.iter()),
    );
    let keys = table.key.len();
    let first = table.key.first().copied().unwrap_or(0).saturating_add(keys);
    let mut statement = conn.prepare_cached(&sql)?;
    let mut found = statement.query([])?;
    while let Some(r) = found.next()? {
        let values = |from: usize, count: usize| {
            (from..from.saturating_add(count)).map(|n| r.get::<_, Value>(n)).collect::<Result<Vec<_>, _>>()
        };
        if r.get_ref(first)? == rusqlite::types::ValueRef::Null {
            rows.gone.push(values(0, keys)?);
        } else {
            rows.put.push(values(keys, table.columns.len())?);
        }
    }
    run(conn, &format!("DELETE FROM dirty_{name}"), [])?;
    if name == "payment" {
        rows.put.sort_by_key(|row| is_live(table, row));
    }
    Ok(rows)
}

/// A purchase has one live payment at most: what ended must be written before what took its place.
fn is_live(payment: &Table, row: &[Value]) -> bool {
    let state = payment.columns.iter().position(|c| c.name == "state").and_then(|n| row.get(n));
    !matches!(state, Some(Value::Integer(1 | 8)))
}

/// A connection that takes over what others wrote: what their triggers and keys allowed is not judged again.
pub(crate) fn applier(path: &Path) -> Result<Connection, OpenError> {
    let conn = writer(path)?;
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    Ok(conn)
}

/// Takes changes over, all of them or none.
pub(crate) fn apply(conn: &Connection, tables: &[Table], deltas: &[Delta], to: Position) -> Answer<()> {
    let tx = conn.unchecked_transaction()?;
    for delta in deltas {
        for (table, rows) in tables.iter().zip(&delta.0) {
            remove(&tx, table, &rows.gone)?;
            put(&tx, table, &rows.put)?;
        }
    }
    note(&tx, to)?;
    tx.commit()?;
    Ok(())
}

fn remove(conn: &Connection, table: &Table, gone: &[Vec<Value>]) -> Answer<()> {
    if gone.is_empty() {
        return Ok(());
    }
    let same = (1..).zip(table.key_columns()).map(|(n, c)| format!("\"{}\"=?{n}", c.name));
    let sql = format!("DELETE FROM \"{}\" WHERE {}", table.name, same.collect::<Vec<_>>().join(" AND "));
    let mut statement = conn.prepare_cached(&sql)?;
    for key in gone {
        statement.execute(params_from_iter(key.iter().map(Bound)))?;
    }
    Ok(())
}

/// Writes rows as they are now.
pub(crate) fn put(conn: &Connection, table: &Table, rows: &[Vec<Value>]) -> Answer<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let places = (1..=table.columns.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(",");
    let set = table.overwritten();
    let conflict = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {set}") };
    let sql = format!(
        "INSERT INTO \"{}\"({}) VALUES({places}) ON CONFLICT({}) DO {conflict}",
        table.name,
        table.names(),
        table.key_names()
    );
    let mut statement = conn.prepare_cached(&sql)?;
    for row in rows {
        if let Err(e) = statement.execute(params_from_iter(row.iter().map(Bound))) {
            let fault = Fault::Sql(e);
            return Err(if fault.is_passing() {
                fault
            } else {
                let why = fault.told();
                Fault::Broken(format!("the local copy does not take what was written to {}: {why}", table.name))
            });
        }
    }
    Ok(())
}
