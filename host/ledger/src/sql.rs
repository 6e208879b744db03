//! Small helpers over rusqlite: cached statements, and the one error type every job returns.

use countersign_core::ledger::LedgerError;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Params, Row};

/// Why a job failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The caller is told exactly this.
    Told(LedgerError),
    /// SQLite refused.
    Sql(rusqlite::Error),
    /// A stored or given value does not mean what it must: a bug, or a damaged store.
    Broken(String),
}

/// What a job returns.
pub(crate) type Answer<T> = Result<T, Fault>;

/// What becomes of a job's writes.
pub(crate) enum Done<T> {
    /// They are committed.
    Keep(T),
    /// They are undone; the caller still gets an answer.
    Undo(T),
}

impl From<rusqlite::Error> for Fault {
    fn from(e: rusqlite::Error) -> Self {
        Self::Sql(e)
    }
}

impl From<LedgerError> for Fault {
    fn from(e: LedgerError) -> Self {
        Self::Told(e)
    }
}

impl From<serde_json::Error> for Fault {
    fn from(e: serde_json::Error) -> Self {
        Self::Broken(format!("a stored document does not parse: {e}"))
    }
}

impl Fault {
    /// The caller lost a race, or asks for what cannot be.
    pub(crate) fn conflict(why: impl Into<String>) -> Self {
        Self::Told(LedgerError::Conflict(why.into()))
    }

    /// No such row.
    pub(crate) const fn not_found() -> Self {
        Self::Told(LedgerError::NotFound)
    }

    /// Whether the store itself is in doubt, so that nothing more may be written to it.
    pub(crate) fn is_fatal(&self) -> bool {
        let Self::Sql(e) = self else { return false };
        matches!(
            e.sqlite_error_code(),
            Some(
                ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::OutOfMemory
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
            )
        )
    }

    /// Whether it is only that somebody else has the file locked at this moment.
    pub(crate) fn is_passing(&self) -> bool {
        let Self::Sql(e) = self else { return false };
        matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }

    /// What the caller sees.
    pub(crate) fn told(self) -> LedgerError {
        match self {
            Self::Told(e) => e,
            Self::Sql(e) if is_duplicate(&e) => LedgerError::Conflict(e.to_string()),
            Self::Sql(e) => LedgerError::Unavailable(e.to_string()),
            Self::Broken(why) => LedgerError::Unavailable(why),
        }
    }
}

fn is_duplicate(e: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    e.sqlite_error()
        .is_some_and(|e| [SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE].contains(&e.extended_code))
}

/// Runs a statement; answers how many rows it changed.
pub(crate) fn run(conn: &Connection, sql: &str, params: impl Params) -> Answer<usize> {
    Ok(conn.prepare_cached(sql)?.execute(params)?)
}

/// The first row, if there is one.
pub(crate) fn one<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Answer<Option<T>> {
    Ok(conn.prepare_cached(sql)?.query_row(params, read).optional()?)
}

/// Every row.
pub(crate) fn all<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Answer<Vec<T>> {
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(params, read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A count, for fields of 32 bits.
pub(crate) fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
