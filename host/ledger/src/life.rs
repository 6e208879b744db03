//! A payment after its commit: transitions, presenting again, signature, delivery.
//!
//! Every change of state goes through the transition table, here and nowhere else.

use countersign_core::evm::Signature65;
use countersign_core::id::PaymentId;
use countersign_core::ledger::{
    Cancellation, Evidence, PaymentFacts, Refund, RefundSource, Reopened, SuspensionScope, Transition,
};
use countersign_core::money::Atomic;
use countersign_core::payment::{Effect, Event, Rule, State, transition as rule_of};
use countersign_core::time::Timestamp;
use countersign_core::x402::Authorization;
use rusqlite::Connection;
use serde_json::json;

use crate::admin;
use crate::approvals;
use crate::audit::{append, cut};
use crate::moves::Moves;
use crate::proof;
use crate::refunds;
use crate::sql::{Answer, Done, Fault, all, one, run};
use crate::tallies;
use crate::text::Text;
use crate::uses;
use crate::windows::{self, Close};

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
    network: String,
    amount: [u8; 32],
    redeemed: Option<[u8; 32]>,
    valid_before: Option<u64>,
    transaction: Option<String>,
    evidence: Option<String>,
}

/// The payment as it stands.
pub(crate) fn current(conn: &Connection, payment: PaymentId) -> Answer<Current> {
    let sql = "SELECT state,version,epoch,signature IS NOT NULL,workspace,agent,network,amount,redeemed,valid_before,
                 txhash,evidence FROM payment WHERE id=?1";
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
                network: r.get(6)?,
                amount: r.get(7)?,
                redeemed: r.get(8)?,
                valid_before: r.get(9)?,
                transaction: r.get(10)?,
                evidence: r.get(11)?,
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

/// A stored amount.
pub(crate) fn atomic(bytes: &[u8; 32]) -> Answer<Atomic> {
    Atomic::from_be_bytes32(bytes).ok_or_else(|| Fault::Broken("a stored amount is above 2^128".to_owned()))
}

/// A legal transition, or a conflict that says why it is none.
pub(crate) fn legal(from: State, event: Event) -> Answer<Rule> {
    rule_of(from, event)
        .ok_or_else(|| Fault::conflict(format!("a payment that is {} knows no {}", from.public(), event.name())))
}

/// What is written beside a payment's state.
struct Said {
    transaction: Option<String>,
    evidence: Option<String>,
    redeemed: Option<[u8; 32]>,
}

/// Moves a payment by compare-and-set and writes the step down. The holds are the caller's.
fn step(
    conn: &Connection,
    payment: PaymentId,
    (seen, rule): (&Current, Rule),
    said: &Said,
    (why, at): (&str, Timestamp),
) -> Answer<()> {
    let version = seen.version.saturating_add(1);
    let changed = run(
        conn,
        "UPDATE payment SET state=?3, version=?4, updated=?5, txhash=?7, evidence=?8, redeemed=?9
         WHERE id=?1 AND state=?2 AND version=?6",
        (
            payment.as_bytes(),
            rule.from.number(),
            rule.to.number(),
            version,
            at.as_millis(),
            seen.version,
            &said.transaction,
            &said.evidence,
            said.redeemed,
        ),
    )?;
    if changed != 1 {
        return Err(Fault::conflict("somebody else changed this payment first"));
    }
    record_step(conn, payment, version, rule.to, Some(rule.event), why, at)
}

/// Writes one entry of a payment's history.
pub(crate) fn record_step(
    conn: &Connection,
    payment: PaymentId,
    version: u64,
    to: State,
    event: Option<Event>,
    why: &str,
    at: Timestamp,
) -> Answer<()> {
    let sql = "INSERT INTO step(payment,n,at,state,event,why) VALUES(?1,?2,?3,?4,?5,?6)";
    let event = event.map(Event::name);
    run(conn, sql, (payment.as_bytes(), version, at.as_millis(), to.number(), event, cut(why))).map(drop)
}

/// Applies one row of the transition table with its effect on the holds.
pub(crate) fn apply(conn: &Connection, epoch: u64, t: &Transition) -> Answer<State> {
    let seen = current(conn, t.payment)?;
    if seen.state != t.from {
        return Err(Fault::conflict(format!("the payment is {}, not {}", seen.state.public(), t.from.public())));
    }
    let rule = legal(seen.state, t.event)?;
    let mut said = said(&seen, t)?;
    let mut moves = Moves::default();
    match t.event {
        Event::SignerRefused if seen.epoch != epoch || seen.signed => {
            return Err(Fault::conflict("a signature may exist; the hold stays"));
        }
        Event::Withdraw => approvals::lapse_of(conn, t.payment, t.at)?,
        Event::Unused => proof::of_non_use(t.evidence.as_deref(), seen.valid_before)?,
        Event::Dropped if refunds::booked(conn, t.payment)? => {
            return Err(Fault::conflict("something has come back: the dispute is redressed, not dropped"));
        }
        Event::Redressed if !refunds::booked(conn, t.payment)? => {
            return Err(Fault::conflict("nothing has come back: book the refund first, or drop the dispute"));
        }
        _ => {}
    }
    match rule.effect {
        Effect::Keep => {}
        Effect::Release => {
            windows::close(conn, &mut moves, t.payment, Close::Release)?;
            tallies::forget(conn, t.payment)?;
        }
        Effect::Settle => {
            let signed = atomic(&seen.amount)?;
            let redeemed = proof::of_redemption(t.evidence.as_deref(), signed)?;
            said.redeemed = Some(redeemed.to_be_bytes32());
            windows::close(conn, &mut moves, t.payment, Close::Settle { redeemed, signed })?;
            tallies::paid(conn, t.payment)?;
            uses::settled(conn, t.payment)?;
        }
        Effect::Refund => return Err(Fault::conflict("money that came back is booked with its amount and source")),
        Effect::Replace => return Err(Fault::conflict("only a commit replaces holds")),
    }
    step(conn, t.payment, (&seen, rule), &said, (&t.why, t.at))?;
    let body = json!({
        "payment": t.payment, "workspace": seen.workspace, "agent": seen.agent,
        "from": rule.from.number(), "to": rule.to.number(), "event": t.event, "why": t.why,
        "evidence": t.evidence, "version": seen.version.saturating_add(1), "budgets": moves.record(),
    });
    append(conn, t.at, "payment-changed", body)?;
    Ok(rule.to)
}

/// [`apply`] as a job.
pub(crate) fn transition(conn: &Connection, epoch: u64, t: &Transition) -> Answer<Done<State>> {
    apply(conn, epoch, t).map(Done::Keep)
}

/// Transaction and evidence after a transition. While a payment is open, the latest word replaces the one
/// before it; once something is proven, the proof stays, and a dispute only adds its document.
fn said(seen: &Current, t: &Transition) -> Answer<Said> {
    let said = t.evidence.as_deref().map(proof::cleaned);
    let transaction = match t.event {
        // What it said of a transaction is what turned out not to be.
        Event::Reorganised => None,
        // A cancellation's transaction is not one that settled.
        Event::Unused => seen.transaction.clone(),
        _ if t.from.is_spent() => seen.transaction.clone(),
        _ => said.as_ref().and_then(|e| e.transaction.clone()).or_else(|| seen.transaction.clone()),
    };
    let before: Option<Evidence> = seen.evidence.as_deref().map(serde_json::from_str).transpose()?;
    let evidence = match (t.from.is_spent(), t.event, said, before) {
        (true, _, Some(said), Some(proof)) => Some(Evidence { document: said.document.or(proof.document), ..proof }),
        (false, Event::Reorganised, said, _) => said,
        (_, _, Some(said), None) => Some(said),
        (false, _, Some(said), Some(_)) => Some(said),
        (_, _, None, before) => before,
    };
    let evidence = evidence.map(|e| serde_json::to_string(&e)).transpose()?;
    Ok(Said { transaction, evidence, redeemed: seen.redeemed })
}

/// Books money that came back, by the same table.
pub(crate) fn refund(conn: &Connection, r: &Refund) -> Answer<Done<State>> {
    let seen = current(conn, r.payment)?;
    let rule = legal(seen.state, Event::Refund)?;
    let redeemed = seen.redeemed.as_ref().ok_or_else(|| Fault::Broken("settled, but nothing redeemed".to_owned()))?;
    let redeemed = atomic(redeemed)?;
    let booked = refunds::book(conn, r, &seen.network, redeemed)?;
    let mut moves = Moves::default();
    if let Some(back) = booked.back_on_chain {
        windows::refund(conn, &mut moves, r.payment, (back, redeemed))?;
    }
    let said = Said { transaction: seen.transaction.clone(), evidence: seen.evidence.clone(), redeemed: seen.redeemed };
    let why = match &r.source {
        RefundSource::Chain { .. } => format!("{} came back", r.amount),
        RefundSource::Person { by, .. } => format!("{by} says that {} came back", r.amount),
    };
    step(conn, r.payment, (&seen, rule), &said, (&why, r.at))?;
    let body = json!({
        "payment": r.payment, "workspace": seen.workspace, "agent": seen.agent,
        "from": rule.from.number(), "to": rule.to.number(), "event": rule.event, "why": why,
        "refund": { "amount": r.amount, "network": seen.network, "source": booked.source },
        "version": seen.version.saturating_add(1), "budgets": moves.record(),
    });
    append(conn, r.at, "payment-changed", body)?;
    Ok(Done::Keep(rule.to))
}

/// What was signed by a process that has ended is assumed to be out there: by any but this one, of `epoch`, and those
/// `alive`.
pub(crate) fn recover(conn: &Connection, epoch: u64, alive: &[u64], at: Timestamp) -> Answer<u64> {
    let sql = "SELECT id,epoch FROM payment WHERE state=?1 ORDER BY id";
    let found = all(conn, sql, [State::Signed.number()], |r| Ok((r.get::<_, [u8; 16]>(0)?, r.get::<_, u64>(1)?)))?;
    let mut recovered = 0_u64;
    for (id, _) in found.into_iter().filter(|(_, of)| *of != epoch && !alive.contains(of)) {
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
///
/// From here on this writer, of `epoch`, may have signed it: whoever wrote the payload can no longer say that nobody did.
pub(crate) fn reopen(
    conn: &Connection,
    epoch: u64,
    payment: PaymentId,
    generation: u64,
    at: Timestamp,
) -> Answer<Done<Reopened>> {
    let sql = "SELECT state,facts,payload,signature,valid_before,delivered FROM payment WHERE id=?1";
    let row = one(conn, sql, [payment.as_bytes()], |r| {
        Ok((
            r.get::<_, u8>(0)?,
            r.get::<_, Text>(1)?,
            r.get::<_, Option<Text>>(2)?,
            r.get::<_, Option<[u8; 65]>>(3)?,
            r.get::<_, Option<u64>>(4)?,
            r.get::<_, bool>(5)?,
        ))
    })?;
    let (number, facts, payload, signature, valid_before, delivered) = row.ok_or_else(Fault::not_found)?;
    let state = state(number)?;
    let facts: PaymentFacts = serde_json::from_str(&facts.0)?;
    if let Some(scope) = suspended(conn, &facts)? {
        return Ok(Done::Undo(Reopened::Suspended(scope.to_string())));
    }
    if generation < admin::least_generation(conn)? {
        return Ok(Done::Undo(Reopened::Stale));
    }
    // A settled payment's nonce is used up: presenting it again can only fetch the answer. What the chain
    // contradicts is not shown to anybody again, nor what was given back.
    let open = match state {
        State::Signed | State::Redeemable | State::Seen => true,
        State::Settled | State::Disputed => !delivered,
        State::Denied | State::Review | State::Released | State::Refunded | State::Stuck => false,
    };
    let (true, Some(payload), Some(valid_before)) = (open, payload, valid_before) else {
        return Ok(Done::Undo(Reopened::NotOpen(state)));
    };
    if Timestamp::from_secs(valid_before) <= at.plus_millis(LEFT_TO_PRESENT) {
        return Ok(Done::Undo(Reopened::Expired));
    }
    let authorization = serde_json::from_str(&payload.0)?;
    let signature = signature.map(signature_of).transpose()?;
    if state == State::Signed {
        run(conn, "UPDATE payment SET epoch=?2 WHERE id=?1 AND epoch<>?2", (payment.as_bytes(), epoch))?;
    }
    append(conn, at, "represented", json!({ "payment": payment, "state": number, "signed": signature.is_some() }))?;
    Ok(Done::Keep(Reopened::Open { authorization, signature }))
}

/// Records that a payment's authorization is to be cancelled on the chain, and reads it. Nothing moves.
pub(crate) fn cancel(conn: &Connection, c: &Cancellation) -> Answer<Done<Box<Authorization>>> {
    let sql = "SELECT state,payload,valid_before FROM payment WHERE id=?1";
    let row = one(conn, sql, [c.payment.as_bytes()], |r| {
        Ok((r.get::<_, u8>(0)?, r.get::<_, Option<Text>>(1)?, r.get::<_, Option<u64>>(2)?))
    })?;
    let (number, payload, valid_before) = row.ok_or_else(Fault::not_found)?;
    let state = state(number)?;
    let (State::Redeemable | State::Seen | State::Stuck, Some(payload), Some(valid_before)) =
        (state, payload, valid_before)
    else {
        let detail =
            format!("a payment that is {} cannot be cancelled; unknown, accepted and stuck ones can", state.public());
        return Err(Fault::conflict(detail));
    };
    if Timestamp::from_secs(valid_before) <= c.at {
        return Err(Fault::conflict("nobody can redeem it any more: its validity is over".to_owned()));
    }
    let authorization: Box<Authorization> = serde_json::from_str(&payload.0)?;
    let body = json!({ "payment": c.payment, "state": number, "valid_before": valid_before, "by": c.by, "why": c.why });
    append(conn, c.at, "cancellation", body)?;
    Ok(Done::Keep(authorization))
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
