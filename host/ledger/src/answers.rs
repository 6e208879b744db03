//! Sellers' answers, kept so that a repeated call can be given them again.
//!
//! They live in a file of their own beside the store, with a quota: losing them loses no money, and
//! their bulk must never take room from what does. A damaged file is thrown away.

use std::path::Path;

use countersign_core::id::PaymentId;
use countersign_core::ledger::Answer as Kept;
use countersign_core::time::Timestamp;
use rusqlite::{Connection, OpenFlags};

use crate::open::{OpenError, beside, private_file};
use crate::readers::Readers;
use crate::sql::{Answer, all, one, run};

/// How much is kept, for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerOptions {
    /// Bytes of headers and bodies; the oldest make room. Zero keeps nothing.
    pub max_bytes: u64,
    /// Older ones are not given out, and are deleted. Zero keeps nothing.
    pub keep_millis: u64,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self { max_bytes: 256 << 20, keep_millis: 24 * 3_600_000 }
    }
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS answer(
  n INTEGER PRIMARY KEY, payment BLOB NOT NULL UNIQUE, at INTEGER NOT NULL,
  status INTEGER NOT NULL, headers TEXT NOT NULL, body BLOB NOT NULL, size INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS answer_at ON answer(at);
CREATE TABLE IF NOT EXISTS used(n INTEGER PRIMARY KEY CHECK(n=1), bytes INTEGER NOT NULL) STRICT;
INSERT INTO used(n,bytes) VALUES(1,0) ON CONFLICT DO NOTHING;
CREATE TRIGGER IF NOT EXISTS answer_in AFTER INSERT ON answer
  BEGIN UPDATE used SET bytes=bytes+NEW.size; END;
CREATE TRIGGER IF NOT EXISTS answer_out AFTER DELETE ON answer
  BEGIN UPDATE used SET bytes=bytes-OLD.size; END;
";

/// Opens the file beside the store, on a thread of its own.
pub(crate) fn start(store: &Path) -> Result<Readers, OpenError> {
    let path = beside(store, ".answers");
    let conn = match open(&path) {
        Ok(conn) => conn,
        Err(e) => {
            tracing::warn!(error = %e, "the kept answers are damaged and are thrown away");
            for suffix in ["", "-wal", "-shm"] {
                drop(std::fs::remove_file(beside(&path, suffix)));
            }
            open(&path)?
        }
    };
    Readers::over(vec![conn])
}

/// Opens it for reading only; none, if there is none.
pub(crate) fn start_read_only(store: &Path) -> Result<Option<Readers>, OpenError> {
    let path = beside(store, ".answers");
    if !path.exists() {
        return Ok(None);
    }
    Readers::start(&path, 1).map(Some)
}

fn open(path: &Path) -> Result<Connection, OpenError> {
    if !path.exists() {
        drop(private_file(path)?);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.execute_batch(SCHEMA)?;
    Ok(conn)
}

/// Keeps an answer, if it is not larger than everything that may be kept.
pub(crate) fn put(conn: &Connection, o: AnswerOptions, payment: PaymentId, kept: &Kept, at: Timestamp) -> Answer<()> {
    let headers = serde_json::to_string(&kept.headers)?;
    let size = headers.len().saturating_add(kept.body.len());
    if o.keep_millis == 0 || u64::try_from(size).map_or(true, |size| size > o.max_bytes) {
        return Ok(());
    }
    run(conn, "DELETE FROM answer WHERE payment=?1", [payment.as_bytes()])?;
    run(
        conn,
        "INSERT INTO answer(payment,at,status,headers,body,size) VALUES(?1,?2,?3,?4,?5,?6)",
        (payment.as_bytes(), at.as_millis(), kept.status, headers, &kept.body, size),
    )?;
    run(conn, "DELETE FROM answer WHERE at<?1", [at.minus_millis(o.keep_millis).as_millis()])?;
    while used(conn)? > o.max_bytes {
        let oldest = all(conn, "SELECT n FROM answer ORDER BY n LIMIT 1", [], |r| r.get::<_, i64>(0))?;
        let Some(n) = oldest.first() else { break };
        run(conn, "DELETE FROM answer WHERE n=?1", [n])?;
    }
    Ok(())
}

fn used(conn: &Connection) -> Answer<u64> {
    Ok(one(conn, "SELECT bytes FROM used", [], |r| r.get(0))?.unwrap_or(0))
}

/// A kept answer that is not too old at `now`.
pub(crate) fn get(conn: &Connection, o: AnswerOptions, payment: PaymentId, now: Timestamp) -> Answer<Option<Kept>> {
    let sql = "SELECT status,headers,body FROM answer WHERE payment=?1 AND at>=?2";
    let since = now.minus_millis(o.keep_millis).as_millis();
    let found = one(conn, sql, (payment.as_bytes(), since), |r| Ok((r.get(0)?, r.get::<_, String>(1)?, r.get(2)?)))?;
    let Some((status, headers, body)) = found else { return Ok(None) };
    Ok(Some(Kept { status, headers: serde_json::from_str(&headers)?, body }))
}
