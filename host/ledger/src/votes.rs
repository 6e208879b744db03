//! What people say about purchases that wait for them. Everything that makes a word count is looked at in the
//! transaction that counts it.

use countersign_core::ledger::{Approval, ApprovalState, Cast, LedgerError, Quoted};
use countersign_core::notice::NoticeEvent;
use rusqlite::{Connection, params};
use serde_json::json;

use crate::approvals::{expire, find, turn, withdraw};
use crate::audit::{append, cut};
use crate::notices;
use crate::sql::{Answer, Done, Fault, one, run};
use crate::tallies;

fn forbidden(why: impl Into<String>) -> Fault {
    Fault::Told(LedgerError::Forbidden(why.into()))
}

/// Counts a word. The inner result is what the caller is told although something was written: a
/// word that comes too late lapses the approval.
pub(crate) fn vote(conn: &Connection, epoch: u64, cast: &Cast) -> Answer<Done<Result<Approval, Fault>>> {
    let approval = find(conn, cast.approval)?.ok_or_else(Fault::not_found)?;
    if let Some(quoted) = &cast.quoted {
        as_quoted(conn, &approval, cast, quoted)?;
    }
    if approval.state != ApprovalState::Pending {
        return Err(Fault::conflict(format!("the approval is {:?} already", approval.state).to_lowercase()));
    }
    if approval.expires_at <= cast.at {
        expire(conn, epoch, &approval, cast.at)?;
        return Ok(Done::Keep(Err(Fault::conflict("the approval has expired"))));
    }
    uninvolved(conn, &approval, cast)?;
    if !approval.terms.hears(&cast.groups) {
        return Err(forbidden(format!("only operators of {} may decide this", approval.terms.named())));
    }
    let is_they = |operator: &String| *operator == cast.operator || cast.selves.contains(operator);
    if let Some(earlier) = approval.votes.iter().find(|v| is_they(&v.operator)) {
        let who = if earlier.operator == cast.operator { "this operator" } else { "this person" };
        return Err(Fault::conflict(format!("{who} has spoken already")));
    }
    count(conn, &approval, cast)?;
    let spoken = find(conn, cast.approval)?.ok_or_else(Fault::not_found)?;
    let decided = if cast.approve {
        let yes = spoken.votes.iter().filter(|v| v.approve).map(|v| v.groups.as_slice());
        let enough = spoken.terms.missing(yes).nothing();
        if enough {
            turn(conn, approval.id, ApprovalState::Pending, ApprovalState::Approved)?;
            tallies::approved(conn, approval.payment, cast.at)?;
        }
        enough
    } else {
        turn(conn, approval.id, ApprovalState::Pending, ApprovalState::Denied)?;
        withdraw(conn, epoch, approval.payment, &format!("denied by {}", cast.operator), cast.at)?;
        true
    };
    let after = find(conn, cast.approval)?.ok_or_else(Fault::not_found)?;
    if decided {
        notices::write(conn, NoticeEvent::Decided, after.clone(), cast.at)?;
    }
    Ok(Done::Keep(Ok(after)))
}

/// A message is about exactly this purchase, and counts once.
fn as_quoted(conn: &Connection, approval: &Approval, cast: &Cast, quoted: &Quoted) -> Answer<()> {
    let sql = "SELECT 1 FROM vote WHERE operator=?1 AND message=?2";
    if one(conn, sql, (&cast.operator, &quoted.message), |_| Ok(()))?.is_some() {
        return Err(Fault::conflict("this message was counted already"));
    }
    if quoted.frozen != approval.frozen {
        return Err(Fault::conflict("the digest is not that of the purchase that waits"));
    }
    if quoted.expires_at != approval.expires_at.to_string() {
        return Err(Fault::conflict("expires_at is not when this approval expires"));
    }
    Ok(())
}

/// Nobody who is in the purchase's own chain decides about it.
fn uninvolved(conn: &Connection, approval: &Approval, cast: &Cast) -> Answer<()> {
    let facts = notices::facts(conn, approval.payment)?;
    if let Some(user) = facts.principal.user.filter(|user| cast.users.contains(user)) {
        return Err(forbidden(format!(
            "the purchase is for user `{user}`, who is this operator: somebody else decides"
        )));
    }
    let sql = "SELECT s.opener FROM payment p JOIN session s ON s.id=p.session WHERE p.id=?1";
    let opener: Option<String> = one(conn, sql, [approval.payment.as_bytes()], |r| r.get(0))?;
    match opener.filter(|opener| *opener == cast.operator || cast.selves.contains(opener)) {
        Some(_) => Err(forbidden("this operator opened the session of the purchase: somebody else decides")),
        None => Ok(()),
    }
}

fn count(conn: &Connection, approval: &Approval, cast: &Cast) -> Answer<()> {
    let message = cast.quoted.as_ref().map(|quoted| &quoted.message);
    run(
        conn,
        "INSERT INTO vote(approval,operator,ord,approve,at,note,groups,channel,message)
         VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9)",
        params![
            cast.approval.as_bytes(),
            cast.operator,
            approval.votes.len(),
            cast.approve,
            cast.at.as_millis(),
            cut(&cast.note),
            serde_json::to_string(&cast.groups)?,
            cast.channel.as_str(),
            message,
        ],
    )?;
    let body = json!({
        "approval": cast.approval, "payment": approval.payment, "operator": cast.operator,
        "approve": cast.approve, "note": cast.note, "frozen": approval.frozen, "terms": approval.terms,
        "groups": cast.groups, "channel": cast.channel, "message": message,
    });
    append(conn, cast.at, "approval-vote", body).map(drop)
}
