//! Decisions as they were recorded, a page at a time, each checked against the record that vouches
//! for it.

use countersign_audit::tlog::leaf_hash;
use countersign_core::id::{DecisionId, PaymentId};
use countersign_core::ledger::{DecisionRecord, Past, PastDecision, PaymentFacts};
use rusqlite::{Connection, Row};
use serde_json::Value;

use crate::audit::digest_hex;
use crate::sql::{Answer, Fault, all, one};
use crate::text::Text;

/// Decisions of one page.
const MOST: u32 = 1_000;

struct Stored {
    id: [u8; 16],
    payment: [u8; 16],
    request: Text,
    judgement: Text,
    verdict: String,
    reasons: Text,
    refusal: Option<String>,
    seq: u64,
    facts: Text,
    approval: Option<[u8; 16]>,
    latest: bool,
    signed: bool,
    shown: Option<String>,
    useful: Option<bool>,
}

fn stored(r: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        id: r.get(0)?,
        payment: r.get(1)?,
        request: r.get(2)?,
        judgement: r.get(3)?,
        verdict: r.get(4)?,
        reasons: r.get(5)?,
        refusal: r.get(6)?,
        seq: r.get(7)?,
        facts: r.get(8)?,
        approval: r.get(9)?,
        latest: r.get(10)?,
        signed: r.get(11)?,
        shown: r.get(12)?,
        useful: r.get(13)?,
    })
}

const COLUMNS: &str = "SELECT d.id,d.payment,d.request,d.judgement,d.verdict,d.reasons,d.refusal,d.seq,p.facts,
    p.approval,p.decision=d.id,p.payload IS NOT NULL,a.shown,
    (SELECT u.useful FROM use_report u WHERE u.payment=p.id ORDER BY u.reporter DESC LIMIT 1)
  FROM decision d JOIN payment p ON p.id=d.payment LEFT JOIN approval a ON a.id=p.approval";

/// One page.
pub(crate) fn read(conn: &Connection, which: Past, limit: u32) -> Answer<Vec<PastDecision>> {
    let (condition, id): (&str, [u8; 16]) = match which {
        Past::After(id) => ("d.id>?1 ORDER BY d.id", *id.as_bytes()),
        Past::One(id) => ("d.id=?1", *id.as_bytes()),
        Past::Payment(id) => ("d.payment=?1 ORDER BY d.id", *id.as_bytes()),
    };
    let sql = format!("{COLUMNS} WHERE {condition} LIMIT ?2");
    let page = all(conn, &sql, (id, limit.min(MOST)), stored)?;
    page.into_iter().map(|s| past(conn, s)).collect()
}

/// How many there are.
pub(crate) fn count(conn: &Connection, which: Past) -> Answer<u64> {
    let (condition, id): (&str, [u8; 16]) = match which {
        Past::After(id) => ("id>?1", *id.as_bytes()),
        Past::One(id) => ("id=?1", *id.as_bytes()),
        Past::Payment(id) => ("payment=?1", *id.as_bytes()),
    };
    let sql = format!("SELECT count(*) FROM decision WHERE {condition}");
    Ok(one(conn, &sql, [id], |r| r.get(0))?.unwrap_or(0))
}

fn past(conn: &Connection, s: Stored) -> Answer<PastDecision> {
    let id = DecisionId::from_bytes(s.id);
    let damage = damage(conn, id, &s)?;
    let broken = |e: serde_json::Error| Fault::Broken(format!("the stored decision {id} does not parse: {e}"));
    let facts: PaymentFacts = serde_json::from_str(&s.facts.0).map_err(broken)?;
    let record = DecisionRecord {
        id,
        request: serde_json::from_str(&s.request.0).map_err(broken)?,
        judgement: serde_json::from_str(&s.judgement.0).map_err(broken)?,
        verdict: serde_json::from_value(s.verdict.into()).map_err(broken)?,
        reasons: serde_json::from_str(&s.reasons.0).map_err(broken)?,
        refusal: s.refusal,
    };
    // A payment that was asked about has the decision that asked, and the one that carried on.
    let carried_on = s.latest && s.signed;
    let reviewed = s.approval.is_some() && record.refusal.is_none();
    let shown = s.shown.map(|shown| serde_json::from_str(&shown)).transpose().map_err(broken)?;
    Ok(PastDecision {
        record,
        payment: PaymentId::from_bytes(s.payment),
        mandate: facts.mandate,
        asked: reviewed && !carried_on,
        approved: shown.filter(|_| reviewed && carried_on),
        useful: s.useful.filter(|_| s.latest),
        damage,
    })
}

/// The record carries the digests of what was asked and answered, and is itself part of the log.
fn damage(conn: &Connection, id: DecisionId, s: &Stored) -> Answer<Option<String>> {
    let said = |what: &str| Ok(Some(what.to_owned()));
    let sql = "SELECT body,leaf FROM audit WHERE seq=?1";
    let found = one(conn, sql, [s.seq], |r| Ok((r.get::<_, Text>(0)?, r.get::<_, [u8; 32]>(1)?)))?;
    let Some((Text(body), leaf)) = found else { return said("the record that vouches for it is missing") };
    if leaf_hash(body.as_bytes()) != leaf {
        return said("the record that vouches for it was changed");
    }
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let entries = body.get("decisions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let named = id.to_string();
    let is = |entry: &Value, key: &str, value: &str| entry.get(key).and_then(Value::as_str) == Some(value);
    let Some(entry) = entries.iter().find(|e| is(e, "id", &named)) else {
        return said("the record that vouches for it does not name it");
    };
    if !is(entry, "request", &digest_hex(s.request.0.as_bytes())) {
        return said("its request is not the one that was recorded");
    }
    if !is(entry, "judgement", &digest_hex(s.judgement.0.as_bytes())) {
        return said("its judgement is not the one that was recorded");
    }
    if !is(entry, "verdict", &s.verdict) || entry.get("refusal").and_then(Value::as_str) != s.refusal.as_deref() {
        return said("its verdict is not the one that was recorded");
    }
    Ok(None)
}
