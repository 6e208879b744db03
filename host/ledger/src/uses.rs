//! What became of what was bought, as the agent says and as people say.
//!
//! Sellers are credited with judgements of settled purchases only, and the two kinds of judges are
//! counted apart. The figures of a seller change with the word, in its transaction, so that reading
//! them is one row.

use countersign_core::id::PaymentId;
use countersign_core::ledger::{Reporter, Use, UseReport};
use countersign_core::time::Timestamp;
use rusqlite::Connection;
use serde_json::json;

use crate::audit::{append, cut};
use crate::life;
use crate::sql::{Answer, Done, Fault, all, one, run};

/// How often one side may change its word on a payment: each change is a record that is kept.
const MOST_WORDS: u64 = 16;

const fn number(reporter: Reporter) -> u8 {
    match reporter {
        Reporter::Agent => 0,
        Reporter::Person => 1,
    }
}

/// Records a word; it replaces the last one of its kind.
pub(crate) fn report(conn: &Connection, payment: PaymentId, report: &UseReport) -> Answer<Done<()>> {
    let state = life::current(conn, payment)?.state;
    if !state.has_authorization() {
        return Err(Fault::conflict(format!("nothing was bought: the payment is {}", state.public())));
    }
    let kind = number(report.reporter);
    let cut_report = UseReport {
        note: report.note.as_deref().map(cut),
        artifact: report.artifact.as_deref().map(cut),
        ..report.clone()
    };
    let last = of(conn, payment)?.into_iter().find(|r| r.reporter == report.reporter);
    let before = last.as_ref().map(|r| r.used.is_useful());
    // Saying the same again changes nothing, and a loop must not fill the record.
    if last.is_some_and(|last| UseReport { at: report.at, ..last } == cut_report) {
        return Ok(Done::Undo(()));
    }
    let sql = "SELECT words FROM use_report WHERE payment=?1 AND reporter=?2";
    let words: Option<u64> = one(conn, sql, (payment.as_bytes(), kind), |r| r.get(0))?;
    if words.is_some_and(|words| words >= MOST_WORDS) {
        return Err(Fault::conflict(format!(
            "what became of this payment was said {MOST_WORDS} times; the last counts"
        )));
    }
    run(
        conn,
        "INSERT INTO use_report(payment,reporter,by,used,useful,note,artifact,at) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)
         ON CONFLICT DO UPDATE SET by=excluded.by, used=excluded.used, useful=excluded.useful,
           note=excluded.note, artifact=excluded.artifact, at=excluded.at, words=use_report.words+1",
        (
            payment.as_bytes(),
            kind,
            &report.by,
            report.used.as_str(),
            report.used.is_useful(),
            &cut_report.note,
            &cut_report.artifact,
            report.at.as_millis(),
        ),
    )?;
    if state.is_spent() {
        if let Some(useful) = before {
            credit(conn, payment, kind, useful, -1)?;
        }
        credit(conn, payment, kind, report.used.is_useful(), 1)?;
    }
    let body = json!({
        "payment": payment, "reporter": report.reporter, "by": report.by, "used": report.used,
        "note": report.note, "artifact": report.artifact,
    });
    append(conn, report.at, "use-reported", body)?;
    Ok(Done::Keep(()))
}

/// The payment has just been proven: what was said about it counts from now on.
pub(crate) fn settled(conn: &Connection, payment: PaymentId) -> Answer<()> {
    let sql = "SELECT reporter,useful FROM use_report WHERE payment=?1";
    for (kind, useful) in all(conn, sql, [payment.as_bytes()], |r| Ok((r.get(0)?, r.get(1)?)))? {
        credit(conn, payment, kind, useful, 1)?;
    }
    Ok(())
}

/// One judgement more or less. The seller's row is there: the payment has settled.
fn credit(conn: &Connection, payment: PaymentId, kind: u8, useful: bool, by: i8) -> Answer<()> {
    let (judged, praised) = if kind == 0 { ("agent_judged", "agent_useful") } else { ("judged", "useful") };
    let sql = format!(
        "UPDATE seller SET {judged}=max({judged}+?2,0), {praised}=max({praised}+?3,0)
         WHERE (workspace,host)=(SELECT workspace,host FROM payment WHERE id=?1)"
    );
    let praise = if useful { by } else { 0 };
    run(conn, &sql, (payment.as_bytes(), by, praise)).map(drop)
}

/// What was said about a payment, people first.
pub(crate) fn of(conn: &Connection, payment: PaymentId) -> Answer<Vec<UseReport>> {
    let sql = "SELECT reporter,by,used,note,artifact,at FROM use_report WHERE payment=?1 ORDER BY reporter DESC";
    type Row = (u8, String, String, Option<String>, Option<String>, u64);
    let rows: Vec<Row> = all(conn, sql, [payment.as_bytes()], |r| {
        Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?))
    })?;
    let read = |(kind, by, used, note, artifact, at): Row| {
        let reporter = if kind == 0 { Reporter::Agent } else { Reporter::Person };
        let used = Use::parse(&used).ok_or_else(|| Fault::Broken(format!("no use `{used}`")))?;
        Ok(UseReport { reporter, by, used, note, artifact, at: Timestamp::from_millis(at) })
    };
    rows.into_iter().map(read).collect()
}
