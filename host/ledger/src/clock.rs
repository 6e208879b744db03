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
    let last = one(conn, "SELECT at FROM audit ORDER BY seq DESC LIMIT 1", [], |r| r.get(0))?.unwrap_or(0);
    Ok(Timestamp::from_millis(last).max(noted(conn)?))
}

fn noted(conn: &Connection) -> Answer<Timestamp> {
    let noted = one(conn, "SELECT v FROM meta WHERE k='moment'", [], |r| r.get(0))?;
    Ok(Timestamp::from_millis(noted.unwrap_or(0)))
}

/// Refuses a purchase whose moment lies further back than a sound clock explains: windows that are over
/// would be opened again by it. A jump ahead cannot be judged here; the caller has a monotonic clock.
pub(crate) fn check(conn: &Connection, at: Timestamp) -> Answer<()> {
    let latest = latest(conn)?;
    if at.plus_millis(SLACK) < latest {
        let why = format!(
            "this purchase is of {at}, but the ledger was written at {latest} already: the clock was set back; \
             correct it, or wait until it has caught up"
        );
        return Err(Fault::Told(LedgerError::Unavailable(why)));
    }
    if at > noted(conn)?.plus_millis(NOTED_EVERY) {
        let sql = "INSERT INTO meta(k,v) VALUES('moment',?1) ON CONFLICT(k) DO UPDATE SET v=max(v,excluded.v)";
        run(conn, sql, [at.as_millis()])?;
    }
    Ok(())
}
