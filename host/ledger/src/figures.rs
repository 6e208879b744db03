//! What is open, counted.

use countersign_core::ledger::Figures;
use countersign_core::money::Micros;
use countersign_core::payment::State;
use countersign_core::time::Timestamp;
use rusqlite::Connection;

use crate::life;
use crate::sql::{Answer, Fault, all, one};

/// Each part walks an index over nothing but what is open.
pub(crate) fn figures(conn: &Connection, at: Timestamp) -> Answer<Figures> {
    let mut open = Vec::new();
    for state in State::ALL.into_iter().filter(|state| state.is_open() || *state == State::Review) {
        let sql = "SELECT state,count(*),sum(value) FROM payment WHERE state=?1 GROUP BY state";
        let row = one(conn, sql, [state.number()], |r| Ok((r.get::<_, u8>(0)?, r.get(1)?, r.get(2)?)))?;
        let (number, count, value): (u8, u64, u64) = row.unwrap_or((state.number(), 0, 0));
        let value = Micros::new(value).map_err(|e| Fault::Broken(e.to_string()))?;
        open.push((life::state(number)?, count, value));
    }
    let count = |sql: &str, parameter: u64| -> Answer<u64> {
        all(conn, sql, [parameter], |r| r.get(0)).map(|found| found.into_iter().next().unwrap_or(0))
    };
    Ok(Figures {
        open,
        approvals: count("SELECT count(*) FROM approval WHERE state=0 AND expires>?1", at.as_millis())?,
        sessions: count("SELECT count(*) FROM session WHERE closed IS NULL AND expires>?1", at.as_millis())?,
        alerts: count("SELECT count(*) FROM alert WHERE state=0 AND due>=?1", 0)?,
    })
}
