//! Purchases that nobody granted.

use countersign_core::digits::lower_hex;
use countersign_core::id::{PaymentId, SessionId};
use countersign_core::ledger::{Denial, PaymentFacts};
use countersign_core::payment::State;
use rusqlite::Connection;
use serde_json::json;

use crate::audit::{self, append, cut};
use crate::commit::{Documents, NewPayment, insert_payment, live};
use crate::life;
use crate::sql::{Answer, Done, Fault, one, run};

/// Equal denials within this long of the first are one row with a count.
const COLLAPSE: u64 = 60_000;

/// A denial with its documents written out.
pub(crate) struct Prepared {
    denial: Denial,
    facts: PaymentFacts,
    documents: Documents,
}

/// Writes the documents out. A denied purchase costs an agent nothing, so its words are cut
/// everywhere but in what policies were asked, which must be enough to ask again.
pub(crate) fn prepare(denial: Denial) -> Answer<Prepared> {
    if denial.decisions.is_empty() {
        return Err(Fault::conflict("a denial without a decision"));
    }
    let mut facts = denial.facts.clone();
    for text in [&mut facts.url, &mut facts.path, &mut facts.host, &mut facts.method, &mut facts.pay_to] {
        *text = cut(text);
    }
    let documents = Documents::write(&facts, &denial.decisions)?;
    Ok(Prepared { denial, facts, documents })
}

/// The job; answers the row's payment.
pub(crate) fn deny(conn: &Connection, epoch: u64, p: &Prepared) -> Answer<Done<PaymentId>> {
    let d = &p.denial;
    if let Some(same) = repeated(conn, d)? {
        let sql = "UPDATE payment SET repeats=repeats+1, updated=max(updated,?2) WHERE id=?1";
        run(conn, sql, (same.as_bytes(), d.at.as_millis()))?;
        return Ok(Done::Keep(same));
    }
    // A denial must not come to stand in front of an attempt that may still be redeemed.
    if let Some(live) = live(conn, &d.key)? {
        return Err(Fault::conflict(format!("the purchase has a live attempt: {live}")));
    }
    let decision = d.decisions.first().ok_or_else(|| Fault::conflict("a denial without a decision"))?;
    insert_payment(
        conn,
        &NewPayment {
            id: d.payment,
            key: &d.key,
            fingerprint: d.fingerprint.0,
            session: session(d),
            facts: &p.facts,
            documents: &p.documents,
            decision: decision.id,
            state: State::Denied,
            epoch,
            payload: None,
            approval: None,
            refusal: Some(&d.code),
            at: d.at,
        },
    )?;
    life::record_step(conn, d.payment, 0, State::Denied, None, &d.code, d.at)?;
    let decisions = p.documents.store_decisions(conn, d.payment, &d.decisions, (0, audit::next(conn)?))?;
    let f = &p.facts;
    let body = json!({
        "payment": d.payment, "workspace": d.key.workspace, "agent": d.key.agent, "purchase": d.key.purchase,
        "fingerprint": lower_hex(&d.fingerprint.0), "code": d.code, "mandate": f.mandate, "method": f.method,
        "host": f.host, "path": f.path, "pay_to": f.pay_to, "rail": f.rail, "scheme": f.scheme,
        "amount": f.amount, "value": f.value, "decisions": decisions,
    });
    append(conn, d.at, "payment-denied", body)?;
    Ok(Done::Keep(d.payment))
}

/// A session sees its own denials, and only those.
fn session(d: &Denial) -> Option<SessionId> {
    d.facts.principal.session.as_deref()?.parse().ok()
}

fn repeated(conn: &Connection, d: &Denial) -> Answer<Option<PaymentId>> {
    let sql = "SELECT id FROM payment WHERE workspace=?1 AND agent=?2 AND fingerprint=?3 AND state=1
                 AND created>?4 AND refusal=?5 AND session IS ?6 ORDER BY created DESC LIMIT 1";
    let since = d.at.minus_millis(COLLAPSE).as_millis();
    let session = session(d).map(|s| *s.as_bytes());
    let params = (&d.key.workspace, &d.key.agent, d.fingerprint.0, since, &d.code, session);
    one(conn, sql, params, |r| r.get(0).map(PaymentId::from_bytes))
}
