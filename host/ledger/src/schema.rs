//! The tables, and the way from one version of them to the next. Forward only.

use rusqlite::Connection;

use crate::open::OpenError;

/// `CSGN`, so that `file(1)` and we ourselves can tell what a database is.
pub(crate) const APPLICATION_ID: i64 = 0x4353_474e;

/// Each entry leads from the version that is its index to the next one. Entries are never edited
/// once released.
pub(crate) const MIGRATIONS: [&str; 1] = [include_str!("schema_v1.sql")];

/// The version this build writes.
pub(crate) fn current() -> u64 {
    u64::try_from(MIGRATIONS.len()).unwrap_or(u64::MAX)
}

/// The stored version; 0 for an empty file.
pub(crate) fn version(conn: &Connection) -> Result<u64, OpenError> {
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    if tables == 0 {
        return Ok(0);
    }
    let id: i64 = conn.query_row("PRAGMA application_id", [], |r| r.get(0))?;
    if id != APPLICATION_ID {
        return Err(OpenError::NotALedger);
    }
    Ok(conn.query_row("SELECT v FROM meta WHERE k='schema'", [], |r| r.get(0))?)
}

/// Brings the store to [`current`], each step in a transaction of its own.
pub(crate) fn migrate(conn: &Connection) -> Result<(), OpenError> {
    let found = version(conn)?;
    if found > current() {
        return Err(OpenError::NewerSchema { found, known: current() });
    }
    for (from, sql) in (0_u64..).zip(MIGRATIONS) {
        if from < found {
            continue;
        }
        let tx = conn.unchecked_transaction()?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.execute(
            "INSERT INTO meta(k,v) VALUES('schema',?1) ON CONFLICT(k) DO UPDATE SET v=excluded.v",
            [from.saturating_add(1)],
        )?;
        tx.commit()?;
    }
    Ok(())
}
