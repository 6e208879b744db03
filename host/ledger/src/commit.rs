//! The commit point: decisions, holds, payload and record in one transaction, or nothing.

use countersign_core::budget::PlacedHold;
use countersign_core::digits::lower_hex;
use countersign_core::id::{ApprovalId, DecisionId, PaymentId, SessionId};
use countersign_core::ledger::{
    Alert, Approval, ApprovalState, Caps, Commit, Committed, DecisionRecord, Grant, NewApproval, PaymentFacts,
    PurchaseKey, Refusal, Resume,
};
use countersign_core::payment::{Event, State};
use countersign_core::time::Timestamp;
use countersign_core::x402::Authorization;
use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::{Value, json};

use crate::admin;
use crate::alerts;
use crate::approvals;
use crate::audit::{self, append, cut, digest_hex};
use crate::clock;
use crate::life;
use crate::moves::Moves;
use crate::sessions;
use crate::sql::{Answer, Done, Fault, one, run};
use crate::tallies::{self, Counted};
use crate::text::Packed;
use crate::windows::{self, After, Placed};

/// A signed payment younger than this is merely in flight.
const IN_FLIGHT: u64 = 10_000;
/// What an approver is shown, and approves, when a budget asked for the review.
pub(crate) const BUDGET_REVIEW: (&str, &str) = ("host", "budget-review");

/// A commit with its documents already written out, so that the writer's thread only writes.
pub(crate) struct Prepared {
    commit: Commit,
    documents: Documents,
    payload: Option<Document>,
}

/// A document as it is stored, and the digest of its text, which is what a record says of it.
pub(crate) struct Document {
    stored: Packed,
    digest: String,
}

impl Document {
    fn write(document: &impl Serialize) -> Answer<Self> {
        let text = serde_json::to_string(document)?;
        Ok(Self { stored: Packed::new(&text), digest: digest_hex(text.as_bytes()) })
    }
}

/// Facts and decisions as they are stored.
pub(crate) struct Documents {
    facts: Document,
    decisions: Vec<Written>,
}

struct Written {
    request: Document,
    judgement: Document,
    verdict: String,
    reasons: Packed,
}

impl Documents {
    /// Writes facts and decisions out. Claims are the agent's words and are cut; what policies were
    /// asked is not, since it must be enough to ask again.
    pub(crate) fn write(facts: &PaymentFacts, decisions: &[DecisionRecord]) -> Answer<Self> {
        let mut facts = facts.clone();
        facts.claims = facts.claims.iter().map(|(k, v)| (cut(k), cut(v))).collect();
        let written = |d: &DecisionRecord| -> Answer<Written> {
            Ok(Written {
                request: Document::write(&d.request)?,
                judgement: Document::write(&d.judgement)?,
                verdict: d.verdict.to_string(),
                reasons: Packed::new(&serde_json::to_string(&d.reasons)?),
            })
        };
        Ok(Self { facts: Document::write(&facts)?, decisions: decisions.iter().map(written).collect::<Answer<_>>()? })
    }

    /// Stores the decisions, the first of them in place `first`; answers what the record `seq` says of them.
    pub(crate) fn store_decisions(
        &self,
        conn: &Connection,
        payment: PaymentId,
        decisions: &[DecisionRecord],
        (first, seq): (u64, u64),
    ) -> Answer<Value> {
        let mut records = Vec::new();
        for ((d, written), ord) in decisions.iter().zip(&self.decisions).zip(first..) {
            run(
                conn,
                "INSERT INTO decision(id,payment,ord,request,judgement,verdict,reasons,refusal,seq)
                 VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9)",
                params![
                    d.id.as_bytes(),
                    payment.as_bytes(),
                    ord,
                    written.request.stored,
                    written.judgement.stored,
                    written.verdict,
                    written.reasons,
                    d.refusal,
                    seq
                ],
            )?;
            records.push(json!({
                "id": d.id, "generation": d.judgement.generation, "verdict": written.verdict,
                "refusal": d.refusal, "request": written.request.digest,
                "judgement": written.judgement.digest,
            }));
        }
        Ok(Value::Array(records))
    }

    /// The facts as stored.
    pub(crate) fn facts(&self) -> &Document {
        &self.facts
    }
}

/// Checks what the types cannot say, and writes the documents out.
pub(crate) fn prepare(commit: Commit) -> Answer<Prepared> {
    if commit.decisions.is_empty() {
        return Err(Fault::conflict("a commit without a decision"));
    }
    if commit.key.agent != commit.facts.principal.agent {
        return Err(Fault::conflict("the purchase is not the principal's"));
    }
    windows::check(&commit.holds)?;
    let payload = match &commit.grant {
        Grant::Sign(a) if a.payment == commit.payment => Some(Document::write(a)?),
        Grant::Sign(_) => return Err(Fault::conflict("the payload is another payment's")),
        Grant::Review(_) if commit.resume.is_some() => {
            return Err(Fault::conflict("a resumed purchase cannot be put into review again"));
        }
        Grant::Review(_) => None,
    };
    if commit.resume.is_some_and(|r| r.payment != commit.payment) {
        return Err(Fault::conflict("a resumed purchase keeps its payment"));
    }
    let documents = Documents::write(&commit.facts, &commit.decisions)?;
    Ok(Prepared { commit, documents, payload })
}

/// The job. Whatever is refused is undone as a whole.
pub(crate) fn commit(conn: &Connection, epoch: u64, p: &Prepared) -> Answer<Done<Committed>> {
    match decide(conn, epoch, p)? {
        Ok(committed) => Ok(Done::Keep(committed)),
        Err(refusal) => Ok(Done::Undo(Committed::Refused(refusal))),
    }
}

type Outcome<T> = Answer<Result<T, Refusal>>;

/// Passes a refusal on.
macro_rules! granted {
    ($e:expr) => {
        match $e? {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(refusal)),
        }
    };
}

fn decide(conn: &Connection, epoch: u64, p: &Prepared) -> Outcome<Committed> {
    let c = &p.commit;
    granted!(admit(conn, c));
    clock::check(conn, c.at)?;
    let resumed = match c.resume {
        Some(resume) => Some(granted!(resumable(conn, c, resume))),
        None => None,
    };
    granted!(within_caps(conn, c));
    if let Grant::Sign(a) = &c.grant {
        granted!(unused(conn, c, a));
    }
    let mut moves = Moves::default();
    if resumed.is_some() {
        tallies::forget(conn, c.payment)?;
        windows::withdraw_reserved(conn, &mut moves, c.payment)?;
    }
    let seq = audit::next(conn)?;
    let holds = granted!(place_all(conn, c, &mut moves, seq));
    let placed = Placement { holds, moves, seq };
    let reached = placed.holds.iter().any(|a| a.review.is_some());
    match (&c.grant, resumed) {
        (Grant::Sign(a), Some(resumed)) => {
            resume_signed(conn, epoch, p, a, &resumed)?;
            if resumed.shown.contains(&budget_review()) {
                latch_reviews(conn, c, &placed.holds)?;
            }
            signed(conn, p, a, &placed).map(Ok)
        }
        (Grant::Sign(_), None) if reached => {
            review(conn, epoch, p, &c.review_if_reached, vec![budget_review()], &placed)
        }
        (Grant::Sign(a), None) => {
            insert_payment(conn, &new_payment(p, epoch, Some(a), None)?)?;
            life::record_step(conn, c.payment, 0, State::Signed, None, "granted", c.at)?;
            signed(conn, p, a, &placed).map(Ok)
        }
        (Grant::Review(new), _) => {
            let mut shown = shown(c);
            if reached {
                shown.push(budget_review());
            }
            shown.sort();
            shown.dedup();
            review(conn, epoch, p, new, shown, &placed)
        }
    }
}

fn budget_review() -> (String, String) {
    (BUDGET_REVIEW.0.to_owned(), BUDGET_REVIEW.1.to_owned())
}

fn shown(c: &Commit) -> Vec<(String, String)> {
    let reasons = c.decisions.last().map(|d| d.reasons.as_slice()).unwrap_or_default();
    reasons.iter().map(|a| (a.policy.clone(), a.reason.code.clone())).collect()
}

/// Stops, generation, session, and that the purchase has no other live attempt.
fn admit(conn: &Connection, c: &Commit) -> Outcome<()> {
    if let Some(scope) = life::suspended(conn, &c.facts)? {
        return Ok(Err(Refusal::Suspended(scope.to_string())));
    }
    if c.generation < admin::least_generation(conn)? {
        return Ok(Err(Refusal::Stale));
    }
    if let Some(session) = c.session
        && !sessions::is_open(conn, session, &c.key.agent, c.at)?
    {
        return Ok(Err(Refusal::Session));
    }
    match live(conn, &c.key)? {
        Some(live) if c.resume.is_none_or(|r| r.payment != live) => Ok(Err(Refusal::Live(live))),
        _ => match handed_out(conn, c)? {
            Some(open) => Ok(Err(Refusal::Live(open))),
            None => Ok(Ok(())),
        },
    }
}

/// For a payment that is handed out to its agent: the open one of the very same request. Nothing that comes back would
/// tell a second purchase from a repeat, at whichever gateway it is asked for.
fn handed_out(conn: &Connection, c: &Commit) -> Answer<Option<PaymentId>> {
    let facts = c.decisions.last().map(|d| d.request.facts.as_slice()).unwrap_or_default();
    if !facts.iter().any(|fact| fact.name == "door" && fact.value == "sign") {
        return Ok(None);
    }
    let sql = "SELECT id FROM payment WHERE workspace=?1 AND agent=?2 AND fingerprint=?3 AND id<>?4
               AND (state=2 OR (delivered=0 AND (state=4 OR state=5 OR state=6 OR state=7 OR state=10 OR state=11)))
               AND (state=4 OR state=5 OR state=6 OR state=11) LIMIT 1";
    let params = (&c.key.workspace, &c.key.agent, c.fingerprint.0, c.payment.as_bytes());
    one(conn, sql, params, |r| r.get(0).map(PaymentId::from_bytes))
}

/// The attempt of a purchase that is neither denied nor released.
pub(crate) fn live(conn: &Connection, key: &PurchaseKey) -> Answer<Option<PaymentId>> {
    let sql = "SELECT id FROM payment WHERE workspace=?1 AND agent=?2 AND purchase=?3 AND state NOT IN (1,8)";
    let params = (&key.workspace, &key.agent, key.purchase.as_str());
    one(conn, sql, params, |r| r.get(0).map(PaymentId::from_bytes))
}

/// Counts what is unresolved, by a column: ranges of one index, each read no further than the cap. What is merely in
/// flight is not even looked at.
macro_rules! unresolved {
    (@of $column:literal, $more:literal) => {
        concat!(
            "(SELECT count(*) FROM (SELECT 1 FROM payment WHERE workspace=?1 AND ",
            $column,
            "=?2 AND ",
            $more,
            " LIMIT ?4))"
        )
    };
    ($column:literal) => {
        concat!(
            "SELECT ",
            unresolved!(@of $column, "state=5"),
            "+",
            unresolved!(@of $column, "state=11"),
            "+",
            unresolved!(@of $column, "state=4 AND signed<=?3"),
            "+",
            unresolved!(@of $column, "state=6 AND signed<=?5")
        )
    };
}

/// Counted workspace-wide at the seller and at the payee: a seller that never redeems must not get
/// round its cap by serving many agents.
fn within_caps(conn: &Connection, c: &Commit) -> Outcome<()> {
    let old = c.at.minus_millis(IN_FLIGHT).as_millis();
    let (workspace, facts) = (&c.key.workspace, &c.facts);
    // Where a chain can be read, a receipt it does not bear out in time is as good as none.
    let unproven = c.caps.unproven_after.map(|after| c.at.minus_millis(after).as_millis());
    let caps: Caps = c.caps;
    for (scope, sql, who, cap) in [
        ("seller", unresolved!("host"), &facts.host, caps.unresolved_per_seller),
        ("payee", unresolved!("pay_to"), &facts.pay_to, caps.unresolved_per_payee),
        ("agent", unresolved!("agent"), &c.key.agent, caps.unresolved_per_agent),
    ] {
        let count = one(conn, sql, (workspace, who, old, cap, unproven), |r| r.get(0))?.unwrap_or(0);
        if count >= cap {
            return Ok(Err(Refusal::Unresolved { scope, count }));
        }
    }
    Ok(Ok(()))
}

/// That no payment of this payer has this nonce, on whichever network and in whichever asset. A challenge decides the
/// nonce of what is signed for it, and a seller may show the same one twice.
fn unused(conn: &Connection, c: &Commit, a: &Authorization) -> Outcome<()> {
    let sql = "SELECT id FROM payment WHERE payer=?1 AND nonce=?2 AND id<>?3";
    let params = (a.from.as_bytes(), a.nonce, c.payment.as_bytes());
    let used = one(conn, sql, params, |r| r.get(0).map(PaymentId::from_bytes))?;
    Ok(used.map_or(Ok(()), |payment| Err(Refusal::Nonce(payment))))
}

fn open_reviews(conn: &Connection, c: &Commit) -> Answer<u32> {
    let sql = "SELECT count(*) FROM payment WHERE workspace=?1 AND agent=?2 AND state=2 AND id<>?3";
    let params = (&c.key.workspace, &c.key.agent, c.payment.as_bytes());
    Ok(one(conn, sql, params, |r| r.get(0))?.unwrap_or(0))
}

struct Resumed {
    approval: ApprovalId,
    shown: Vec<(String, String)>,
}

/// The approval must be approved, in time, and of this payment, which must still be in review.
fn resumable(conn: &Connection, c: &Commit, resume: Resume) -> Outcome<Resumed> {
    let Some(approval) = approvals::find(conn, resume.approval)? else {
        return Ok(Err(Refusal::Approval));
    };
    let good = approval.state == ApprovalState::Approved && approval.expires_at > c.at;
    let sql = "SELECT 1 FROM payment WHERE id=?1 AND state=?2 AND approval=?3
               AND workspace=?4 AND agent=?5 AND purchase=?6 AND fingerprint=?7";
    let params = params![
        resume.payment.as_bytes(),
        State::Review.number(),
        resume.approval.as_bytes(),
        c.key.workspace,
        c.key.agent,
        c.key.purchase.as_str(),
        c.fingerprint.0
    ];
    let waiting = one(conn, sql, params, |_| Ok(()))?.is_some();
    if good && waiting {
        Ok(Ok(Resumed { approval: approval.id, shown: approval.shown }))
    } else {
        Ok(Err(Refusal::Approval))
    }
}

/// What a commit placed, and what that moved.
struct Placement {
    holds: Vec<After>,
    moves: Moves,
    /// The record that vouches for it.
    seq: u64,
}

fn place_all(conn: &Connection, c: &Commit, moves: &mut Moves, seq: u64) -> Outcome<Vec<After>> {
    let mut placed = Vec::with_capacity(c.holds.len());
    for hold in &c.holds {
        match windows::place(conn, moves, hold, c.at, (c.resume.is_some(), seq))? {
            Placed::Fits(after) => placed.push(after),
            Placed::Refused(why) => return Ok(Err(Refusal::Budget(why))),
        }
    }
    Ok(Ok(placed))
}

/// People were shown that these thresholds are passed, and let it: they are not asked again in this
/// window. A review that is merely open, or was denied, lets nobody past.
fn latch_reviews(conn: &Connection, c: &Commit, placed: &[After]) -> Answer<()> {
    for (hold, after) in c.holds.iter().zip(placed) {
        if let Some(threshold) = after.review {
            windows::latch_review(conn, after.budget, hold.win, threshold)?;
        }
    }
    Ok(())
}

/// Latches and reports the thresholds that this grant reached.
fn alert(conn: &Connection, c: &Commit, placed: &[After]) -> Answer<Committed> {
    let mut alerts = Vec::new();
    for (hold, after) in c.holds.iter().zip(placed) {
        if let Some(at) = after.alert {
            windows::latch_alert(conn, after.budget, hold.win, at)?;
            let alert = Alert { budget: PlacedHold::label(hold), at, used: after.used };
            alerts::reached(conn, c.payment, hold, &alert, c.at)?;
            alerts.push(alert);
        }
    }
    Ok(Committed::Granted { alerts })
}

/// What a payment is made of, whatever becomes of it.
pub(crate) struct NewPayment<'a> {
    pub(crate) id: PaymentId,
    pub(crate) key: &'a PurchaseKey,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) session: Option<SessionId>,
    pub(crate) facts: &'a PaymentFacts,
    pub(crate) documents: &'a Documents,
    pub(crate) decision: DecisionId,
    pub(crate) state: State,
    pub(crate) epoch: u64,
    pub(crate) payload: Option<(&'a Authorization, &'a Document)>,
    pub(crate) approval: Option<ApprovalId>,
    pub(crate) refusal: Option<&'a str>,
    pub(crate) at: Timestamp,
}

fn new_payment<'a>(
    p: &'a Prepared,
    epoch: u64,
    authorization: Option<&'a Authorization>,
    approval: Option<ApprovalId>,
) -> Answer<NewPayment<'a>> {
    let c = &p.commit;
    let payload = authorization.zip(p.payload.as_ref());
    Ok(NewPayment {
        id: c.payment,
        key: &c.key,
        fingerprint: c.fingerprint.0,
        session: c.session,
        facts: &c.facts,
        documents: &p.documents,
        decision: last(c)?.id,
        state: if payload.is_some() { State::Signed } else { State::Review },
        epoch,
        payload,
        approval,
        refusal: None,
        at: c.at,
    })
}

fn last(c: &Commit) -> Answer<&DecisionRecord> {
    c.decisions.last().ok_or_else(|| Fault::conflict("a commit without a decision"))
}

/// Inserts the row of a new payment.
pub(crate) fn insert_payment(conn: &Connection, n: &NewPayment<'_>) -> Answer<()> {
    let (authorization, payload) = n.payload.unzip();
    let f = n.facts;
    run(
        conn,
        "INSERT INTO payment(id,workspace,agent,purchase,attempt,fingerprint,session,method,host,path,pay_to,
           network,asset,amount,value,payer,nonce,valid_before,payload,state,epoch,signed,counted,facts,decision,
           approval,refusal,repeats,created,updated)
         VALUES(?1,?2,?3,?4,
           (SELECT coalesce(max(attempt),0)+1 FROM payment WHERE workspace=?2 AND agent=?3 AND purchase=?4),
           ?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24,?25,?26,?27,?22,?22)",
        params![
            n.id.as_bytes(),
            n.key.workspace,
            n.key.agent,
            n.key.purchase.as_str(),
            n.fingerprint,
            n.session.map(|s| *s.as_bytes()),
            f.method,
            f.host,
            f.path,
            f.pay_to,
            f.network,
            f.asset,
            f.amount.to_be_bytes32(),
            f.value.get(),
            authorization.map(|a| *a.from.as_bytes()),
            authorization.map(|a| a.nonce),
            authorization.map(|a| a.valid_before),
            payload.map(|payload| &payload.stored),
            n.state.number(),
            n.epoch,
            authorization.map(|_| n.at.as_millis()),
            n.at.as_millis(),
            n.documents.facts().stored,
            n.decision.as_bytes(),
            n.approval.map(|a| *a.as_bytes()),
            n.refusal,
            u8::from(n.refusal.is_some()),
        ],
    )
    .map(drop)
}

/// Review → Signed: the payload is written with the state that needs it, in one statement.
fn resume_signed(conn: &Connection, epoch: u64, p: &Prepared, a: &Authorization, resumed: &Resumed) -> Answer<()> {
    let c = &p.commit;
    let seen = life::current(conn, c.payment)?;
    let rule = life::legal(seen.state, Event::Resume)?;
    approvals::turn(conn, resumed.approval, ApprovalState::Approved, ApprovalState::Used)?;
    let version = seen.version.saturating_add(1);
    let changed = run(
        conn,
        "UPDATE payment SET state=?3, version=?4, payer=?5, nonce=?6, valid_before=?7, payload=?8, epoch=?9,
           signed=?10, counted=?10, updated=?10, decision=?11, facts=?12, value=?13
         WHERE id=?1 AND state=?2 AND version=?14",
        params![
            c.payment.as_bytes(),
            rule.from.number(),
            rule.to.number(),
            version,
            a.from.as_bytes(),
            a.nonce,
            a.valid_before,
            p.payload.as_ref().map(|payload| &payload.stored),
            epoch,
            c.at.as_millis(),
            last(c)?.id.as_bytes(),
            p.documents.facts().stored,
            c.facts.value.get(),
            seen.version
        ],
    )?;
    if changed != 1 {
        return Err(Fault::conflict("somebody else changed this payment first"));
    }
    life::record_step(conn, c.payment, version, rule.to, Some(Event::Resume), "approved", c.at)
}

/// Everything a signed payment has beside its row.
fn signed(conn: &Connection, p: &Prepared, a: &Authorization, placed: &Placement) -> Answer<Committed> {
    let c = &p.commit;
    let mut record = beside(conn, p, placed, Some(a.valid_before))?;
    if let Some(map) = record.as_object_mut() {
        map.insert("payload".to_owned(), json!(p.payload.as_ref().map(|payload| &payload.digest)));
        map.insert("nonce".to_owned(), lower_hex(&a.nonce).into());
        map.insert("payer".to_owned(), a.from.to_string().into());
        map.insert("valid_before".to_owned(), a.valid_before.into());
        map.insert("approval".to_owned(), json!(c.resume.map(|r| r.approval)));
    }
    append(conn, c.at, "payment-signed", record)?;
    alert(conn, c, &placed.holds)
}

/// Puts the purchase before people, its holds reserved.
fn review(
    conn: &Connection,
    epoch: u64,
    p: &Prepared,
    new: &NewApproval,
    shown: Vec<(String, String)>,
    placed: &Placement,
) -> Outcome<Committed> {
    let c = &p.commit;
    let count = open_reviews(conn, c)?;
    if count >= c.caps.reviews_per_agent {
        return Ok(Err(Refusal::Reviews(count)));
    }
    insert_payment(conn, &new_payment(p, epoch, None, Some(new.id))?)?;
    life::record_step(conn, c.payment, 0, State::Review, None, "waits for people", c.at)?;
    let approval: Approval = approvals::open(conn, c.payment, new, &shown, c.at)?;
    let mut record = beside(conn, p, placed, None)?;
    if let Some(map) = record.as_object_mut() {
        map.insert(
            "approval".to_owned(),
            json!({ "id": new.id, "frozen": new.frozen, "terms": new.terms,
            "expires_at": new.expires_at, "shown": shown }),
        );
    }
    append(conn, c.at, "payment-review", record)?;
    Ok(Ok(Committed::Review(approval)))
}

/// The place of a payment's next decision.
fn next_decision(conn: &Connection, payment: PaymentId) -> Answer<u64> {
    let sql = "SELECT coalesce(max(ord)+1,0) FROM decision WHERE payment=?1";
    Ok(one(conn, sql, [payment.as_bytes()], |r| r.get(0))?.unwrap_or(0))
}

/// Holds, decisions and figures; answers the record's common part.
fn beside(conn: &Connection, p: &Prepared, placed: &Placement, valid_before: Option<u64>) -> Answer<Value> {
    let c = &p.commit;
    for (ord, (hold, after)) in c.holds.iter().zip(&placed.holds).enumerate() {
        windows::store_hold(conn, c.payment, (ord, hold), after, valid_before, (c.at, placed.seq))?;
    }
    let first = if c.resume.is_some() { next_decision(conn, c.payment)? } else { 0 };
    let decisions = p.documents.store_decisions(conn, c.payment, &c.decisions, (first, placed.seq))?;
    let counted = match c.resume {
        Some(_) => Counted::read(conn, c.payment)?,
        None => Counted::new(c),
    };
    tallies::count(conn, &counted)?;
    let f = &c.facts;
    Ok(json!({
        "payment": c.payment, "workspace": c.key.workspace, "agent": c.key.agent, "purchase": c.key.purchase,
        "session": c.session, "fingerprint": lower_hex(&c.fingerprint.0), "mandate": f.mandate, "wallet": f.wallet,
        "method": f.method, "host": f.host, "path": f.path, "pay_to": f.pay_to, "rail": f.rail,
        "scheme": f.scheme, "network": f.network, "asset": f.asset, "amount": f.amount, "value": f.value,
        "offer": f.offer_sha256, "generation": c.generation,
        "facts": p.documents.facts().digest, "decisions": decisions,
        "budgets": placed.moves.record(),
    }))
}
