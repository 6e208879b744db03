//! The latest moment the ledger has written, against which a clock that was set back shows.

use countersign_core::ledger::LedgerError;
use countersign_core::time::Timestamp;
use rusqlite::Connection;

use crate::sql::{Answer, Fault, one, run};

/// How far a purchase may lie before the latest moment: clocks are corrected, and calls overtake each
/// other. Milliseconds.
pub(crate) const SLACK: u64 = 5 * 60_000;
/// How far the noted moment may lie behind the latest purchase: noting each would cost a page a commit.
const NOTED_EVERY: u64 = 60_000;

/// The latest moment known to be written: that of the last record, or one noted before it.
pub(crate) fn latest(conn: &Connection) -> Answer<Timestamp> {
    read(conn).map(|(last, noted)| last.max(noted))
}

/// The moment of the last record, and the one that was noted.
fn read(conn: &Connection) -> Answer<(Timestamp, Timestamp)> {
    let sql = "SELECT (SELECT at FROM audit ORDER BY seq DESC LIMIT 1),(SELECT v FROM meta WHERE k='moment')";
    let moment = |at: Option<u64>| Timestamp::from_millis(at.unwrap_or(0));
    let found = one(conn, sql, [], |r| Ok((moment(r.get(0)?), moment(r.get(1)?))))?;
    Ok(found.unwrap_or_default())
}

/// Refuses a purchase whose moment lies further back than a sound clock explains: windows that are over
/// would be opened again by it. A jump ahead cannot be judged here; the caller has a monotonic clock.
pub(crate) fn check(conn: &Connection, at: Timestamp) -> Answer<()> {
    let (last, noted) = read(conn)?;
    let latest = last.max(noted);
    if at.plus_millis(SLACK) < latest {
        let why = format!(
            "this purchase is of {at}, but the ledger was written at {latest} already: the clock was set back; \
             correct it, or wait until it has caught up"
        );
        return Err(Fault::Told(LedgerError::Unavailable(why)));
    }
    if at > noted.plus_millis(NOTED_EVERY) {
        let sql = "INSERT INTO meta(k,v) VALUES('moment',?1) ON CONFLICT(k) DO UPDATE SET v=max(v,excluded.v)";
        run(conn, sql, [at.as_millis()])?;
    }
    Ok(())
}
