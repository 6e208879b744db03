//! What a receiver is told of approvals: written in the transaction of what it tells of, as alerts are.

use countersign_core::id::PaymentId;
use countersign_core::ledger::{Approval, PaymentFacts, Told};
use countersign_core::notice::{Notice, NoticeEvent};
use countersign_core::time::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use crate::alerts::told;
use crate::sql::{Answer, Fault, all, one, run};
use crate::text::Text;

/// Most notices of one page.
const MOST: u32 = 1_000;

const COLUMNS: &str = "id,event,body,at,due,state,attempts,tried,outcome";

/// What a notice says.
#[derive(Serialize, Deserialize)]
struct Body {
    approval: Approval,
    facts: PaymentFacts,
}

const fn number(event: NoticeEvent) -> u8 {
    match event {
        NoticeEvent::Requested => 0,
        NoticeEvent::Decided => 1,
        NoticeEvent::Expired => 2,
    }
}

/// What is known of a payment from its first moment.
pub(crate) fn facts(conn: &Connection, payment: PaymentId) -> Answer<PaymentFacts> {
    let found: Option<Text> = one(conn, "SELECT facts FROM payment WHERE id=?1", [payment.as_bytes()], |r| r.get(0))?;
    Ok(serde_json::from_str(&found.ok_or_else(Fault::not_found)?.0)?)
}

/// Writes down that something happened to an approval; due at once.
pub(crate) fn write(conn: &Connection, event: NoticeEvent, approval: Approval, at: Timestamp) -> Answer<()> {
    let facts = facts(conn, approval.payment)?;
    let id = *approval.id.as_bytes();
    let body = serde_json::to_string(&Body { approval, facts })?;
    let sql = "INSERT INTO notice(approval,event,body,at,due) VALUES(?1,?2,?3,?4,?4)";
    run(conn, sql, params![id, number(event), body, at.as_millis()]).map(drop)
}

/// Those to be told of now, oldest first.
pub(crate) fn due(conn: &Connection, at: Timestamp, limit: u32) -> Answer<Vec<Notice>> {
    let sql = format!("SELECT {COLUMNS} FROM notice WHERE state=0 AND due<=?1 ORDER BY due,id LIMIT ?2");
    all(conn, &sql, (at.as_millis(), limit.min(MOST)), raw)?.into_iter().map(finish).collect()
}

/// Newest first.
pub(crate) fn list(conn: &Connection, before: Option<u64>, limit: u32) -> Answer<Vec<Notice>> {
    let before = before.unwrap_or(u64::MAX >> 1).min(u64::MAX >> 1);
    let sql = format!("SELECT {COLUMNS} FROM notice WHERE id<?1 ORDER BY id DESC LIMIT ?2");
    all(conn, &sql, (before, limit.min(MOST)), raw)?.into_iter().map(finish).collect()
}

struct Raw {
    id: u64,
    event: u8,
    body: String,
    at: u64,
    due: u64,
    state: u8,
    attempts: u32,
    last: Option<(Timestamp, String)>,
}

fn raw(r: &Row<'_>) -> rusqlite::Result<Raw> {
    let tried: Option<u64> = r.get(7)?;
    let outcome: Option<String> = r.get(8)?;
    Ok(Raw {
        id: r.get(0)?,
        event: r.get(1)?,
        body: r.get(2)?,
        at: r.get(3)?,
        due: r.get(4)?,
        state: r.get(5)?,
        attempts: r.get(6)?,
        last: tried.map(Timestamp::from_millis).zip(outcome),
    })
}

fn finish(raw: Raw) -> Answer<Notice> {
    let told: Told = told(raw.state, raw.due)?;
    let event = NoticeEvent::ALL.into_iter().find(|event| number(*event) == raw.event);
    let event = event.ok_or_else(|| Fault::Broken(format!("no event of an approval {}", raw.event)))?;
    let Body { approval, facts } = serde_json::from_str(&raw.body)?;
    let at = Timestamp::from_millis(raw.at);
    Ok(Notice { id: raw.id, event, approval, facts, at, told, attempts: raw.attempts, last: raw.last })
}
