//! Purchases that wait for people: expiry, and what they leave behind. Their words are `votes`.

use countersign_core::id::{ApprovalId, PaymentId};
use countersign_core::ledger::{Approval, ApprovalState, Channel, NewApproval, Transition, Vote};
use countersign_core::notice::{NoticeEvent, Proposal};
use countersign_core::payment::{Event, State};
use countersign_core::time::Timestamp;
use rusqlite::{Connection, Row};
use serde_json::json;

use crate::audit::{append, digest_hex};
use crate::life;
use crate::notices;
use crate::sql::{Answer, Done, Fault, all, one, run};

/// Approvals one listing answers.
const MOST_LISTED: u32 = 500;
/// Approvals one call lapses; the rest follow in the next.
const LAPSED_AT_ONCE: u32 = 1_000;

/// The stored number of a state.
pub(crate) const fn number(state: ApprovalState) -> u8 {
    match state {
        ApprovalState::Pending => 0,
        ApprovalState::Approved => 1,
        ApprovalState::Denied => 2,
        ApprovalState::Expired => 3,
        ApprovalState::Used => 4,
    }
}

fn state(number: u8) -> Answer<ApprovalState> {
    Ok(match number {
        0 => ApprovalState::Pending,
        1 => ApprovalState::Approved,
        2 => ApprovalState::Denied,
        3 => ApprovalState::Expired,
        4 => ApprovalState::Used,
        n => return Err(Fault::Broken(format!("no approval state {n}"))),
    })
}

/// Opens a review for a payment.
pub(crate) fn open(
    conn: &Connection,
    payment: PaymentId,
    new: &NewApproval,
    shown: &[(String, String)],
    at: Timestamp,
) -> Answer<Approval> {
    run(
        conn,
        "INSERT INTO approval(id,payment,state,frozen,shown,terms,created,expires) VALUES(?1,?2,0,?3,?4,?5,?6,?7)",
        (
            new.id.as_bytes(),
            payment.as_bytes(),
            &new.frozen,
            serde_json::to_string(shown)?,
            serde_json::to_string(&new.terms)?,
            at.as_millis(),
            new.expires_at.as_millis(),
        ),
    )?;
    let approval = find(conn, new.id)?.ok_or_else(Fault::not_found)?;
    notices::write(conn, NoticeEvent::Requested, approval.clone(), at)?;
    Ok(approval)
}

struct Stored {
    id: [u8; 16],
    payment: [u8; 16],
    state: u8,
    frozen: String,
    shown: String,
    terms: String,
    created: u64,
    expires: u64,
}

const COLUMNS: &str = "SELECT id,payment,state,frozen,shown,terms,created,expires FROM approval";

fn stored(r: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        id: r.get(0)?,
        payment: r.get(1)?,
        state: r.get(2)?,
        frozen: r.get(3)?,
        shown: r.get(4)?,
        terms: r.get(5)?,
        created: r.get(6)?,
        expires: r.get(7)?,
    })
}

fn with_votes(conn: &Connection, s: Stored) -> Answer<Approval> {
    let sql = "SELECT operator,approve,at,note,groups,channel,message FROM vote WHERE approval=?1 ORDER BY ord";
    let said = all(conn, sql, [s.id], |r| {
        let at = Timestamp::from_millis(r.get(2)?);
        let (groups, channel) = (Vec::new(), Channel::Api);
        let vote =
            Vote { operator: r.get(0)?, approve: r.get(1)?, at, note: r.get(3)?, groups, channel, message: r.get(6)? };
        Ok((vote, r.get::<_, String>(4)?, r.get::<_, String>(5)?))
    })?;
    let finish = |(vote, groups, channel): (Vote, String, String)| -> Answer<Vote> {
        let known = Channel::ALL.into_iter().find(|c| c.as_str() == channel);
        let channel = known.ok_or_else(|| Fault::Broken(format!("nobody speaks by `{channel}`")))?;
        Ok(Vote { groups: serde_json::from_str(&groups)?, channel, ..vote })
    };
    let votes = said.into_iter().map(finish).collect::<Answer<Vec<_>>>()?;
    Ok(Approval {
        id: ApprovalId::from_bytes(s.id),
        payment: PaymentId::from_bytes(s.payment),
        state: state(s.state)?,
        frozen: s.frozen,
        shown: serde_json::from_str(&s.shown)?,
        terms: serde_json::from_str(&s.terms)?,
        created_at: Timestamp::from_millis(s.created),
        expires_at: Timestamp::from_millis(s.expires),
        votes,
    })
}

/// One approval.
pub(crate) fn find(conn: &Connection, id: ApprovalId) -> Answer<Option<Approval>> {
    let found = one(conn, &format!("{COLUMNS} WHERE id=?1"), [id.as_bytes()], stored)?;
    found.map(|s| with_votes(conn, s)).transpose()
}

/// Approvals, newest first.
pub(crate) fn list(conn: &Connection, pending: bool) -> Answer<Vec<Approval>> {
    let which = if pending { "WHERE state=0" } else { "" };
    let sql = format!("{COLUMNS} {which} ORDER BY id DESC LIMIT ?1");
    let found = all(conn, &sql, [MOST_LISTED], stored)?;
    found.into_iter().map(|s| with_votes(conn, s)).collect()
}

/// Moves an approval, if it is where the caller saw it.
pub(crate) fn turn(conn: &Connection, id: ApprovalId, from: ApprovalState, to: ApprovalState) -> Answer<()> {
    let sql = "UPDATE approval SET state=?3 WHERE id=?1 AND state=?2";
    match run(conn, sql, (id.as_bytes(), number(from), number(to)))? {
        1 => Ok(()),
        _ => Err(Fault::conflict("somebody else decided this approval first")),
    }
}

/// The purchase is withdrawn: whatever approval is still open for it is over.
pub(crate) fn lapse_of(conn: &Connection, payment: PaymentId, at: Timestamp) -> Answer<()> {
    let sql = format!("{COLUMNS} WHERE state IN (0,1) AND id=(SELECT approval FROM payment WHERE id=?1)");
    let Some(open) = one(conn, &sql, [payment.as_bytes()], stored)? else { return Ok(()) };
    over(conn, &with_votes(conn, open)?, at)
}

/// An open approval is over without having been used.
fn over(conn: &Connection, approval: &Approval, at: Timestamp) -> Answer<()> {
    turn(conn, approval.id, approval.state, ApprovalState::Expired)?;
    notices::write(conn, NoticeEvent::Expired, Approval { state: ApprovalState::Expired, ..approval.clone() }, at)
}

/// Lets go of a purchase in review.
pub(crate) fn withdraw(conn: &Connection, epoch: u64, payment: PaymentId, why: &str, at: Timestamp) -> Answer<()> {
    let t =
        Transition { payment, from: State::Review, event: Event::Withdraw, why: why.to_owned(), evidence: None, at };
    life::apply(conn, epoch, &t).map(drop)
}

/// Lapses an approval, and with it the purchase.
pub(crate) fn expire(conn: &Connection, epoch: u64, approval: &Approval, at: Timestamp) -> Answer<()> {
    over(conn, approval, at)?;
    append(conn, at, "approval-expired", json!({ "approval": approval.id, "payment": approval.payment }))?;
    withdraw(conn, epoch, approval.payment, "nobody approved in time", at)
}

/// Lapses what nobody answered, or nobody used, in time.
pub(crate) fn expire_all(conn: &Connection, epoch: u64, at: Timestamp) -> Answer<Done<u32>> {
    let sql =
        format!("{COLUMNS} INDEXED BY approval_expires WHERE state IN (0,1) AND expires<=?1 ORDER BY expires LIMIT ?2");
    let over = all(conn, &sql, (at.as_millis(), LAPSED_AT_ONCE), stored)?;
    let mut lapsed = 0_u32;
    for s in over {
        let approval = with_votes(conn, s)?;
        expire(conn, epoch, &approval, at)?;
        lapsed = lapsed.saturating_add(1);
    }
    Ok(Done::Keep(lapsed))
}

/// Keeps a proposed rule. The record has its digest.
pub(crate) fn propose(conn: &Connection, new: &Proposal) -> Answer<Done<()>> {
    let approval = find(conn, new.approval)?.ok_or_else(Fault::not_found)?;
    let sql = "INSERT INTO proposal(approval,by,document,at) VALUES(?1,?2,?3,?4)
               ON CONFLICT DO UPDATE SET by=excluded.by, document=excluded.document, at=excluded.at";
    run(conn, sql, (new.approval.as_bytes(), &new.by, &new.document, new.at.as_millis()))?;
    let body = json!({
        "approval": new.approval, "payment": approval.payment, "operator": new.by,
        "document": digest_hex(new.document.as_bytes()),
    });
    append(conn, new.at, "rule-proposed", body)?;
    Ok(Done::Keep(()))
}

/// The rule that was proposed.
pub(crate) fn proposal(conn: &Connection, approval: ApprovalId) -> Answer<Option<Proposal>> {
    one(conn, "SELECT by,document,at FROM proposal WHERE approval=?1", [approval.as_bytes()], |r| {
        let at = Timestamp::from_millis(r.get(2)?);
        Ok(Proposal { approval, by: r.get(0)?, document: r.get(1)?, at })
    })
}
