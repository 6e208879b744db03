//! Payments and budgets as others see them.

use countersign_core::budget::{PlacedHold, Ring};
use countersign_core::id::{ApprovalId, DecisionId, PaymentId, PurchaseId, SessionId};
use countersign_core::ledger::{
    BudgetView, DecisionRecord, Fingerprint, HoldView, PaymentFilter, PaymentView, PurchaseKey, Step,
};
use countersign_core::payment::State;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Hold, Window};
use rusqlite::{Connection, Row};

use crate::life;
use crate::refunds;
use crate::sql::{Answer, Fault, all, one};
use crate::text::Text;
use crate::uses;
use crate::windows;

/// Payments one listing answers.
const MOST_LISTED: u32 = 500;
/// Windows one listing answers.
const MOST_BUDGETS: u32 = 10_000;
/// Payments that a repeat is shown.
const MOST_JOINED: u32 = 32;
/// How long an accepted or settled payment without a delivered answer is joined by a repeat.
const JOINED: u64 = 24 * 3_600_000;

struct Stored {
    id: [u8; 16],
    workspace: String,
    agent: String,
    purchase: String,
    attempt: u32,
    state: u8,
    facts: Text,
    fingerprint: [u8; 32],
    session: Option<[u8; 16]>,
    decision: [u8; 16],
    refusal: Option<String>,
    repeats: u32,
    payload: Option<Text>,
    approval: Option<[u8; 16]>,
    transaction: Option<String>,
    evidence: Option<String>,
    delivered: bool,
    created: u64,
    updated: u64,
}

fn stored(r: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        id: r.get(0)?,
        workspace: r.get(1)?,
        agent: r.get(2)?,
        purchase: r.get(3)?,
        attempt: r.get(4)?,
        state: r.get(5)?,
        facts: r.get(6)?,
        fingerprint: r.get(7)?,
        session: r.get(8)?,
        decision: r.get(9)?,
        refusal: r.get(10)?,
        repeats: r.get(11)?,
        payload: r.get(12)?,
        approval: r.get(13)?,
        transaction: r.get(14)?,
        evidence: r.get(15)?,
        delivered: r.get(16)?,
        created: r.get(17)?,
        updated: r.get(18)?,
    })
}

/// One payment.
pub(crate) fn payment(conn: &Connection, id: PaymentId) -> Answer<Option<PaymentView>> {
    let sql = "SELECT id,workspace,agent,purchase,attempt,state,facts,fingerprint,session,decision,refusal,repeats,
                 payload,approval,txhash,evidence,delivered,created,updated FROM payment WHERE id=?1";
    let found = one(conn, sql, [id.as_bytes()], stored)?;
    found.map(|s| view(conn, s)).transpose()
}

fn view(conn: &Connection, s: Stored) -> Answer<PaymentView> {
    let id = PaymentId::from_bytes(s.id);
    let purchase = PurchaseId::parse(&s.purchase).map_err(|e| Fault::Broken(e.to_string()))?;
    Ok(PaymentView {
        id,
        key: PurchaseKey { workspace: s.workspace, agent: s.agent, purchase },
        attempt: s.attempt,
        state: life::state(s.state)?,
        facts: serde_json::from_str(&s.facts.0)?,
        fingerprint: Fingerprint(s.fingerprint),
        session: s.session.map(SessionId::from_bytes),
        decision: decision(conn, s.decision)?,
        refusal: s.refusal,
        repeats: s.repeats,
        holds: holds(conn, id)?,
        authorization: s.payload.map(|p| serde_json::from_str(&p.0)).transpose()?,
        approval: s.approval.map(ApprovalId::from_bytes),
        transaction: s.transaction,
        evidence: s.evidence.map(|e| serde_json::from_str(&e)).transpose()?,
        refunds: refunds::of(conn, id)?,
        delivered: s.delivered,
        uses: uses::of(conn, id)?,
        created_at: Timestamp::from_millis(s.created),
        updated_at: Timestamp::from_millis(s.updated),
        history: history(conn, id)?,
    })
}

fn decision(conn: &Connection, id: [u8; 16]) -> Answer<DecisionRecord> {
    let sql = "SELECT request,judgement,verdict,reasons,refusal FROM decision WHERE id=?1";
    type Row = (Text, Text, String, Text, Option<String>);
    let found: Option<Row> = one(conn, sql, [id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))?;
    let missing = || Fault::Broken("a payment without its decision".to_owned());
    let (request, judgement, verdict, reasons, refusal) = found.ok_or_else(missing)?;
    Ok(DecisionRecord {
        id: DecisionId::from_bytes(id),
        request: serde_json::from_str(&request.0)?,
        judgement: serde_json::from_str(&judgement.0)?,
        verdict: serde_json::from_value(verdict.into())?,
        reasons: serde_json::from_str(&reasons.0)?,
        refusal,
    })
}

/// Every decision of a payment, in the order they were made.
pub(crate) fn decisions(conn: &Connection, payment: PaymentId) -> Answer<Vec<DecisionRecord>> {
    let sql = "SELECT id FROM decision WHERE payment=?1 ORDER BY ord";
    let ids = all(conn, sql, [payment.as_bytes()], |r| r.get(0))?;
    ids.into_iter().map(|id| decision(conn, id)).collect()
}

fn holds(conn: &Connection, payment: PaymentId) -> Answer<Vec<HoldView>> {
    let sql = "SELECT b.owner,b.name,b.unit,b.kind,b.zone,b.width,h.win,h.lim,h.amount,h.alert,h.review,h.open,
                 coalesce(h.settled,0),h.refunded
               FROM hold h JOIN budget b ON b.id=h.budget WHERE h.payment=?1 ORDER BY h.ord";
    struct Raw {
        unit: u8,
        kind: u8,
        zone: Option<String>,
        width: Option<u32>,
        view: HoldView,
    }
    let raw = all(conn, sql, [payment.as_bytes()], |r| {
        let hold = PlacedHold {
            owner: r.get(0)?,
            name: r.get(1)?,
            unit: countersign_core::verdict::Unit::Micros,
            window: Window::Lifetime,
            win: r.get(6)?,
            limit: r.get(7)?,
            amount: r.get(8)?,
            alert_at: r.get(9)?,
            review_at: r.get(10)?,
        };
        let view = HoldView { hold, open: r.get(11)?, spent: r.get(12)?, refunded: r.get(13)? };
        Ok(Raw { unit: r.get(2)?, kind: r.get(3)?, zone: r.get(4)?, width: r.get(5)?, view })
    })?;
    let finish = |raw: Raw| {
        let mut view = raw.view;
        (view.hold.unit, view.hold.window) = windows::parse(raw.unit, raw.kind, raw.zone, raw.width)?;
        Ok(view)
    };
    raw.into_iter().map(finish).collect()
}

fn history(conn: &Connection, payment: PaymentId) -> Answer<Vec<Step>> {
    let sql = "SELECT at,state,why FROM step WHERE payment=?1 ORDER BY n";
    let raw = all(conn, sql, [payment.as_bytes()], |r| Ok((r.get(0)?, r.get::<_, u8>(1)?, r.get::<_, String>(2)?)))?;
    let step = |(at, state, why)| Ok(Step { at: Timestamp::from_millis(at), state: life::state(state)?, why });
    raw.into_iter().map(step).collect()
}

fn of_id(conn: &Connection, id: Option<[u8; 16]>) -> Answer<Option<PaymentView>> {
    match id {
        Some(id) => payment(conn, PaymentId::from_bytes(id)),
        None => Ok(None),
    }
}

/// The latest attempt of a purchase.
pub(crate) fn latest(conn: &Connection, key: &PurchaseKey) -> Answer<Option<PaymentView>> {
    let sql = "SELECT id FROM payment WHERE workspace=?1 AND agent=?2 AND purchase=?3 ORDER BY attempt DESC LIMIT 1";
    of_id(conn, one(conn, sql, (&key.workspace, &key.agent, key.purchase.as_str()), |r| r.get(0))?)
}

/// Payments that a repeat of the same request may have to join, newest first. `now` is the latest moment this
/// ledger has been told of: without newer news, an old payment is still joined, never paid twice.
pub(crate) fn unfinished(
    conn: &Connection,
    (workspace, agent): (&str, &str),
    fingerprint: Fingerprint,
    now: Timestamp,
) -> Answer<Vec<PaymentView>> {
    let sql = "SELECT id FROM payment WHERE workspace=?1 AND agent=?2 AND fingerprint=?3
                 AND (state=2 OR (delivered=0 AND (state=4 OR state=5 OR state=6 OR state=7 OR state=10 OR state=11)))
                 AND (state=2 OR state=4 OR state=5 OR state=11 OR created>=?4) ORDER BY id DESC LIMIT ?5";
    let since = now.minus_millis(JOINED).as_millis();
    let ids = all(conn, sql, (workspace, agent, fingerprint.0, since, MOST_JOINED), |r| r.get(0))?;
    ids.into_iter().filter_map(|id| of_id(conn, Some(id)).transpose()).collect()
}

/// Payments, newest first. Owner and state are each an index; their combination is one read per
/// state, merged, so that no listing walks rows it does not show.
pub(crate) fn payments(conn: &Connection, filter: &PaymentFilter) -> Answer<Vec<PaymentView>> {
    let limit = filter.limit.min(MOST_LISTED);
    let before = filter.before.map_or([0xff; 16], |id| *id.as_bytes());
    let after = filter.after.map_or([0; 16], |id| *id.as_bytes());
    let order = if filter.after.is_some() { "ASC" } else { "DESC" };
    let payee = "(?5 IS NULL OR lower(pay_to)=lower(?5))";
    let id = |r: &Row<'_>| r.get::<_, [u8; 16]>(0);
    let mut ids = Vec::new();
    if let Some(session) = filter.session {
        // A session is bounded by its own number of payments and by the rate of denials.
        let sql = format!(
            "SELECT id,state,workspace,agent FROM payment WHERE session=?1 AND id<?2 AND id>?3 AND {payee} AND ?4>=0 ORDER BY id {order}"
        );
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query((session.as_bytes(), before, after, limit, &filter.pay_to))?;
        let limit = usize::try_from(limit).unwrap_or(0);
        while let Some(r) = rows.next()? {
            if ids.len() >= limit {
                break;
            }
            let state = life::state(r.get(1)?)?;
            let wanted = filter.states.is_empty() || filter.states.contains(&state);
            let own = match &filter.owner {
                Some((workspace, agent)) => r.get::<_, String>(2)? == *workspace && r.get::<_, String>(3)? == *agent,
                None => true,
            };
            if wanted && own {
                ids.push(r.get(0)?);
            }
        }
    } else {
        let states = if filter.states.is_empty() { State::ALL.to_vec() } else { filter.states.clone() };
        let range = format!("state=?1 AND id<?2 AND id>?3 AND {payee} ORDER BY id {order} LIMIT ?4");
        let owned = format!("SELECT id FROM payment WHERE workspace=?6 AND agent=?7 AND {range}");
        let any = format!("SELECT id FROM payment WHERE {range}");
        for state in states.into_iter().map(State::number) {
            let pay_to = &filter.pay_to;
            ids.extend(match &filter.owner {
                Some((workspace, agent)) => {
                    all(conn, &owned, (state, before, after, limit, pay_to, workspace, agent), id)?
                }
                None => all(conn, &any, (state, before, after, limit, pay_to), id)?,
            });
        }
        ids.sort_unstable_by(|a, b| if filter.after.is_some() { a.cmp(b) } else { b.cmp(a) });
        ids.dedup();
        ids.truncate(usize::try_from(limit).unwrap_or(0));
    }
    ids.into_iter().filter_map(|id| of_id(conn, Some(id)).transpose()).collect()
}

/// Windows that are current at `at`.
pub(crate) fn budgets(conn: &Connection, at: Timestamp) -> Answer<Vec<BudgetView>> {
    struct Raw {
        id: [u8; 16],
        owner: String,
        name: String,
        unit: u8,
        kind: u8,
        zone: Option<String>,
        width: Option<u32>,
    }
    let sql = "SELECT id,owner,name,unit,kind,zone,width FROM budget ORDER BY owner,name,id LIMIT ?1";
    let raw = all(conn, sql, [MOST_BUDGETS], |r| {
        Ok(Raw {
            id: r.get(0)?,
            owner: r.get(1)?,
            name: r.get(2)?,
            unit: r.get(3)?,
            kind: r.get(4)?,
            zone: r.get(5)?,
            width: r.get(6)?,
        })
    })?;
    let mut views = Vec::new();
    for b in raw {
        let (unit, window) = windows::parse(b.unit, b.kind, b.zone, b.width)?;
        let probe = Hold {
            budget: b.name.clone(),
            unit,
            window: window.clone(),
            limit: 0,
            amount: 1,
            alert_at: None,
            review_at: None,
        };
        let win = PlacedHold::place(&b.owner, &probe, at).map_err(|e| Fault::Broken(e.to_string()))?.win;
        let sql = "SELECT lim,held,spent,mark FROM budget_window WHERE budget=?1 AND win=?2";
        let found = one(conn, sql, (b.id, win), |r| {
            Ok((r.get::<_, u64>(0)?, r.get::<_, u64>(1)?, r.get::<_, u64>(2)?, r.get::<_, u64>(3)?))
        })?;
        let Some((limit, held, spent, mark)) = found else { continue };
        let left = match window {
            Window::Rolling(seconds) => left_since(conn, b.id, seconds, at.as_millis().max(mark))?,
            Window::Day(_) | Window::Month(_) | Window::Lifetime => 0,
        };
        let spent = spent.saturating_sub(left);
        views.push(BudgetView { owner: b.owner, name: b.name, unit, window, win, limit, held, spent });
    }
    Ok(views)
}

/// What has left a rolling window although no decision has evicted it yet.
fn left_since(conn: &Connection, budget: [u8; 16], seconds: u32, now: u64) -> Answer<u64> {
    let Some(cut) = Ring::new(seconds).gone(Timestamp::from_millis(now)) else { return Ok(0) };
    let sql = "SELECT coalesce(sum(spent),0) FROM bucket WHERE budget=?1 AND start<=?2";
    Ok(one(conn, sql, (budget, cut), |r| r.get(0))?.unwrap_or(0))
}
