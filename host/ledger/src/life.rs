//! A payment after its commit: transitions, presenting again, signature, delivery.
//!
//! Every change of state goes through the transition table, here and nowhere else.

use countersign_core::evm::Signature65;
use countersign_core::id::PaymentId;
use countersign_core::ledger::{Evidence, PaymentFacts, Reopened, SuspensionScope, Transition};
use countersign_core::payment::{Effect, Event, Rule, State, transition as rule_of};
use countersign_core::time::Timestamp;
use rusqlite::Connection;
use serde_json::json;

use crate::admin;
use crate::approvals;
use crate::audit::{append, cut};
use crate::sql::{Answer, Done, Fault, all, one, run};
use crate::tallies;
use crate::uses;
use crate::windows;

/// A payload that is valid for no longer than this is not presented again.
const LEFT_TO_PRESENT: u64 = 5_000;

/// What a change of state needs to know of its payment.
pub(crate) struct Current {
    pub(crate) state: State,
    pub(crate) version: u64,
    pub(crate) epoch: u64,
    pub(crate) signed: bool,
    pub(crate) workspace: String,
    pub(crate) agent: String,
}

/// The payment as it stands.
pub(crate) fn current(conn: &Connection, payment: PaymentId) -> Answer<Current> {
    let sql = "SELECT state,version,epoch,signature IS NOT NULL,workspace,agent FROM payment WHERE id=?1";
    let row = one(conn, sql, [payment.as_bytes()], |r| {
        Ok((
            r.get::<_, u8>(0)?,
            Current {
                state: State::Denied,
                version: r.get(1)?,
                epoch: r.get(2)?,
                signed: r.get(3)?,
                workspace: r.get(4)?,
                agent: r.get(5)?,
            },
        ))
    })?;
    let (number, row) = row.ok_or_else(Fault::not_found)?;
    Ok(Current { state: state(number)?, ..row })
}

/// A stored state.
pub(crate) fn state(number: u8) -> Answer<State> {
    State::from_number(number).ok_or_else(|| Fault::Broken(format!("no payment state {number}")))
}

/// A legal transition, or a conflict that says why it is none.
pub(crate) fn legal(from: State, event: Event) -> Answer<Rule> {
    rule_of(from, event)
        .ok_or_else(|| Fault::conflict(format!("a payment that is {} knows no {event:?}", from.public())))
}

/// Moves a payment by compare-and-set and writes the step down. The holds are the caller's.
pub(crate) fn step(
    conn: &Connection,
    payment: PaymentId,
    seen: &Current,
    rule: Rule,
    why: &str,
    at: Timestamp,
) -> Answer<()> {
    let version = seen.version.saturating_add(1);
    let changed = run(
        conn,
        "UPDATE payment SET state=?3, version=?4, updated=?5 WHERE id=?1 AND state=?2 AND version=?6",
        (payment.as_bytes(), rule.from.number(), rule.to.number(), version, at.as_millis(), seen.version),
    )?;
    if changed != 1 {
        return Err(Fault::conflict("somebody else changed this payment first"));
    }
    let event = event_name(rule.event);
    record_step(conn, payment, version, rule.to, Some(&event), why, at)
}

/// Writes one entry of a payment's history.
pub(crate) fn record_step(
    conn: &Connection,
    payment: PaymentId,
    version: u64,
    to: State,
    event: Option<&str>,
    why: &str,
    at: Timestamp,
) -> Answer<()> {
    let sql = "INSERT INTO step(payment,n,at,state,event,why) VALUES(?1,?2,?3,?4,?5,?6)";
    run(conn, sql, (payment.as_bytes(), version, at.as_millis(), to.number(), event, cut(why))).map(drop)
}

/// The stored name of an event.
pub(crate) fn event_name(event: Event) -> String {
    let name = match event {
        Event::Resume => "resume",
        Event::Withdraw => "withdraw",
        Event::SignerRefused => "signer-refused",
        Event::Ambiguous => "ambiguous",
        Event::Receipt => "receipt",
        Event::Redeemed => "redeemed",
    };
    name.to_owned()
}

/// Applies one row of the transition table with its effect on the holds.
pub(crate) fn apply(conn: &Connection, epoch: u64, t: &Transition) -> Answer<State> {
    let seen = current(conn, t.payment)?;
    if seen.state != t.from {
        return Err(Fault::conflict(format!("the payment is {}, not {}", seen.state.public(), t.from.public())));
    }
    let rule = legal(seen.state, t.event)?;
    if t.event == Event::SignerRefused && (seen.epoch != epoch || seen.signed) {
        return Err(Fault::conflict("a signature may exist; the hold stays"));
    }
    match rule.effect {
        Effect::Keep => {}
        Effect::Release => {
            windows::release(conn, t.payment)?;
            tallies::forget(conn, t.payment)?;
        }
        Effect::Settle => {
            windows::settle(conn, t.payment)?;
            tallies::paid(conn, t.payment)?;
            uses::settled(conn, t.payment)?;
        }
        Effect::Replace => return Err(Fault::conflict("only a commit replaces holds")),
    }
    if t.event == Event::Withdraw {
        approvals::lapse_of(conn, t.payment)?;
    }
    step(conn, t.payment, &seen, rule, &t.why, t.at)?;
    store_evidence(conn, t.payment, t.evidence.as_ref())?;
    let body = json!({
        "payment": t.payment, "workspace": seen.workspace, "agent": seen.agent,
        "from": rule.from.number(), "to": rule.to.number(), "event": t.event, "why": t.why,
        "evidence": t.evidence, "version": seen.version.saturating_add(1),
    });
    append(conn, t.at, "payment-changed", body)?;
    Ok(rule.to)
}

/// [`apply`] as a job.
pub(crate) fn transition(conn: &Connection, epoch: u64, t: &Transition) -> Answer<Done<State>> {
    apply(conn, epoch, t).map(Done::Keep)
}

fn store_evidence(conn: &Connection, payment: PaymentId, evidence: Option<&Evidence>) -> Answer<()> {
    let Some(evidence) = evidence else { return Ok(()) };
    let sql = "UPDATE payment SET txhash=coalesce(?2,txhash), block=coalesce(?3,block) WHERE id=?1";
    let transaction = evidence.transaction.as_deref().map(cut);
    run(conn, sql, (payment.as_bytes(), transaction, evidence.block)).map(drop)
}

/// What was signed by a process that has ended is assumed to be out there.
pub(crate) fn recover(conn: &Connection, epoch: u64, at: Timestamp) -> Answer<u64> {
    let sql = "SELECT id FROM payment WHERE state=?1 AND epoch<?2";
    let ids = all(conn, sql, (State::Signed.number(), epoch), |r| r.get::<_, [u8; 16]>(0))?;
    let mut recovered = 0_u64;
    for id in ids {
        let t = Transition {
            payment: PaymentId::from_bytes(id),
            from: State::Signed,
            event: Event::Ambiguous,
            why: "the process ended while the payment was in flight".to_owned(),
            evidence: None,
            at,
        };
        apply(conn, epoch, &t)?;
        recovered = recovered.saturating_add(1);
    }
    Ok(recovered)
}

/// The first stop in force that covers these facts.
pub(crate) fn suspended(conn: &Connection, facts: &PaymentFacts) -> Answer<Option<SuspensionScope>> {
    let scopes = all(conn, "SELECT scope,name FROM suspension", [], |r| Ok((r.get(0)?, r.get(1)?)))?;
    for (scope, name) in scopes {
        let scope = admin::scope(scope, name)?;
        if scope.covers(facts) {
            return Ok(Some(scope));
        }
    }
    Ok(None)
}

/// Reads the stored payload of an open payment and records that it is being presented again.
pub(crate) fn reopen(conn: &Connection, payment: PaymentId, at: Timestamp) -> Answer<Done<Reopened>> {
    let sql = "SELECT state,facts,payload,signature,valid_before,delivered FROM payment WHERE id=?1";
    let row = one(conn, sql, [payment.as_bytes()], |r| {
        Ok((
            r.get::<_, u8>(0)?,
            r.get::<_, String>(1)?,
            r.get::<_, Option<String>>(2)?,
            r.get::<_, Option<[u8; 65]>>(3)?,
            r.get::<_, Option<u64>>(4)?,
            r.get::<_, bool>(5)?,
        ))
    })?;
    let (number, facts, payload, signature, valid_before, delivered) = row.ok_or_else(Fault::not_found)?;
    let state = state(number)?;
    let facts: PaymentFacts = serde_json::from_str(&facts)?;
    if let Some(scope) = suspended(conn, &facts)? {
        return Ok(Done::Undo(Reopened::Suspended(scope.to_string())));
    }
    // A settled payment's nonce is used up: presenting it again can only fetch the answer.
    let open =
        matches!(state, State::Signed | State::Redeemable | State::Seen) || (state == State::Settled && !delivered);
    let (true, Some(payload), Some(valid_before)) = (open, payload, valid_before) else {
        return Ok(Done::Undo(Reopened::NotOpen(state)));
    };
    if Timestamp::from_secs(valid_before) <= at.plus_millis(LEFT_TO_PRESENT) {
        return Ok(Done::Undo(Reopened::Expired));
    }
    let authorization = serde_json::from_str(&payload)?;
    let signature = signature.map(signature_of).transpose()?;
    append(conn, at, "represented", json!({ "payment": payment, "state": number, "signed": signature.is_some() }))?;
    Ok(Done::Keep(Reopened::Open { authorization, signature }))
}

fn signature_of(bytes: [u8; 65]) -> Answer<Signature65> {
    Signature65::new(bytes).map_err(|e| Fault::Broken(format!("a stored signature is damaged: {e}")))
}

/// Stores the signature beside its payload, once.
pub(crate) fn store_signature(conn: &Connection, payment: PaymentId, signature: Signature65) -> Answer<Done<()>> {
    let seen = current(conn, payment)?;
    if !seen.state.has_authorization() {
        return Err(Fault::conflict(format!("a payment that is {} has no payload", seen.state.public())));
    }
    let sql = "UPDATE payment SET signature=?2 WHERE id=?1 AND (signature IS NULL OR signature=?2)";
    match run(conn, sql, (payment.as_bytes(), signature.as_bytes()))? {
        1 => Ok(Done::Keep(())),
        _ => Err(Fault::conflict("another signature is stored already")),
    }
}

/// Notes that the seller's answer arrived, and whether it was a 2xx that reached the agent whole.
pub(crate) fn answered(conn: &Connection, payment: PaymentId, delivered: bool, at: Timestamp) -> Answer<Done<()>> {
    let seen = current(conn, payment)?;
    if !seen.state.has_authorization() {
        return Err(Fault::conflict(format!("nothing was paid for: the payment is {}", seen.state.public())));
    }
    let sql = "UPDATE payment SET delivered=1, updated=?2 WHERE id=?1 AND delivered=0";
    if delivered && run(conn, sql, (payment.as_bytes(), at.as_millis()))? == 1 {
        append(conn, at, "delivered", json!({ "payment": payment }))?;
    }
    Ok(Done::Keep(()))
}
