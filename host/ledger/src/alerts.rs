//! Thresholds that were reached, until somebody was told of them. The row is written in the transaction that
//! latches the threshold, so neither a crash nor a receiver that is down loses one.

use countersign_core::budget::PlacedHold;
use countersign_core::id::PaymentId;
use countersign_core::ledger::{Alert, Attempt, KeptAlert, Told};
use countersign_core::time::Timestamp;
use countersign_core::verdict::Unit;
use rusqlite::{Connection, Row, params};

use crate::audit::cut;
use crate::sql::{Answer, Done, Fault, all, run};

/// Most alerts of one page.
const MOST: u32 = 1_000;

const COLUMNS: &str = "id,payment,budget,unit,threshold,used,lim,at,due,state,attempts,tried,outcome";

/// Writes down that a grant reached a threshold; due at once.
pub(crate) fn reached(
    conn: &Connection,
    payment: PaymentId,
    hold: &PlacedHold,
    alert: &Alert,
    at: Timestamp,
) -> Answer<()> {
    let unit = match hold.unit {
        Unit::Micros => 0_u8,
        Unit::Count => 1,
    };
    let sql = "INSERT INTO alert(payment,budget,unit,threshold,used,lim,at,due) VALUES(?1,?2,?3,?4,?5,?6,?7,?7)";
    let params = params![payment.as_bytes(), alert.budget, unit, alert.at, alert.used, hold.limit, at.as_millis()];
    run(conn, sql, params).map(drop)
}

/// Those to be told of now, oldest first.
pub(crate) fn due(conn: &Connection, at: Timestamp, limit: u32) -> Answer<Vec<KeptAlert>> {
    let sql = format!("SELECT {COLUMNS} FROM alert WHERE state=0 AND due<=?1 ORDER BY due,id LIMIT ?2");
    all(conn, &sql, (at.as_millis(), limit.min(MOST)), raw)?.into_iter().map(finish).collect()
}

/// Newest first.
pub(crate) fn list(conn: &Connection, before: Option<u64>, limit: u32) -> Answer<Vec<KeptAlert>> {
    let before = before.unwrap_or(u64::MAX >> 1).min(u64::MAX >> 1);
    let sql = format!("SELECT {COLUMNS} FROM alert WHERE id<?1 ORDER BY id DESC LIMIT ?2");
    all(conn, &sql, (before, limit.min(MOST)), raw)?.into_iter().map(finish).collect()
}

/// Which messages an attempt is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Queue {
    Alerts,
    Notices,
}

/// Remembers an attempt.
pub(crate) fn tried(conn: &Connection, queue: Queue, attempt: &Attempt) -> Answer<Done<()>> {
    let (state, due) = match attempt.told {
        Told::Not(due) => (0_u8, Some(due.as_millis())),
        Told::Delivered => (1, None),
        Told::GivenUp => (2, None),
    };
    let table = match queue {
        Queue::Alerts => "alert",
        Queue::Notices => "notice",
    };
    let sql = format!(
        "UPDATE {table} SET state=?2, due=coalesce(?3,due), attempts=attempts+1, tried=?4, outcome=?5
         WHERE id=?1 AND state=0"
    );
    let params = params![attempt.id, state, due, attempt.at.as_millis(), cut(&attempt.outcome)];
    match run(conn, &sql, params)? {
        0 => Err(Fault::conflict(format!("no {table} with this number waits"))),
        _ => Ok(Done::Keep(())),
    }
}

/// What the stored number of a message's state means.
pub(crate) fn told(state: u8, due: u64) -> Answer<Told> {
    Ok(match state {
        0 => Told::Not(Timestamp::from_millis(due)),
        1 => Told::Delivered,
        2 => Told::GivenUp,
        n => return Err(Fault::Broken(format!("no state of a message {n}"))),
    })
}

struct Raw {
    unit: u8,
    state: u8,
    due: u64,
    alert: KeptAlert,
}

fn raw(r: &Row<'_>) -> rusqlite::Result<Raw> {
    let tried: Option<u64> = r.get(11)?;
    let outcome: Option<String> = r.get(12)?;
    let alert = KeptAlert {
        id: r.get(0)?,
        payment: PaymentId::from_bytes(r.get(1)?),
        alert: Alert { budget: r.get(2)?, at: r.get(4)?, used: r.get(5)? },
        unit: Unit::Micros,
        limit: r.get(6)?,
        at: Timestamp::from_millis(r.get(7)?),
        told: Told::Delivered,
        attempts: r.get(10)?,
        last: tried.map(Timestamp::from_millis).zip(outcome),
    };
    Ok(Raw { unit: r.get(3)?, state: r.get(9)?, due: r.get(8)?, alert })
}

fn finish(raw: Raw) -> Answer<KeptAlert> {
    let unit = match raw.unit {
        0 => Unit::Micros,
        1 => Unit::Count,
        n => return Err(Fault::Broken(format!("no unit {n}"))),
    };
    let told = told(raw.state, raw.due)?;
    Ok(KeptAlert { unit, told, ..raw.alert })
}
