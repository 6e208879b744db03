//! Checking a store from outside: the chain, the counters, the states. Reads only.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use countersign_audit::canon::Json;
use countersign_audit::note::{Checkpoint, text_of};
use countersign_audit::record::Record;
use countersign_audit::tlog::{Frontier, Hash, leaf_hash, stored_count};
use countersign_core::budget::{HOST, Ring};
use countersign_core::id::PaymentId;
use countersign_core::ledger::{Refund, RefundSource};
use countersign_core::money::Atomic;
use countersign_core::payment::{State, TRANSITIONS};
use countersign_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};

use crate::audit::payment_of;
use crate::life::atomic;
use crate::open::{OpenError, reader};
use crate::refunds;
use crate::schema;
use crate::sql::{Answer, all};
use crate::text::Text;

/// A chain that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainReport {
    /// How many records.
    pub records: u64,
    /// The root over them. Kept elsewhere, it shows later that nothing was cut off or written anew.
    pub root: Hash,
}

/// Why a chain was not verified.
#[derive(Debug)]
pub enum ChainError {
    /// The store does not open or read.
    Open(OpenError),
    /// The chain is broken here.
    Broken {
        /// At this record.
        seq: u64,
        /// In this way.
        why: String,
    },
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(e) => fmt::Display::fmt(e, f),
            Self::Broken { seq, why } => write!(f, "record {seq}: {why}"),
        }
    }
}

impl std::error::Error for ChainError {}

impl<E: Into<OpenError>> From<E> for ChainError {
    fn from(e: E) -> Self {
        Self::Open(e.into())
    }
}

/// What is wrong with a store; nothing, if every list is empty.
#[derive(Debug, Default)]
pub struct Integrity {
    /// Windows that hold and spent more than their limit.
    pub over_limit: Vec<String>,
    /// Counters that are not the sum of their holds.
    pub counters: Vec<String>,
    /// Payments whose state, history, payload or holds do not belong together.
    pub states: Vec<String>,
    /// Where the chain of records breaks.
    pub chain: Vec<String>,
    /// What SQLite itself finds.
    pub file: Vec<String>,
}

impl Integrity {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        [&self.over_limit, &self.counters, &self.states, &self.chain, &self.file].iter().all(|l| l.is_empty())
    }
}

fn open(path: &Path) -> Result<Connection, OpenError> {
    let conn = reader(path)?;
    match schema::version(&conn)? {
        0 => Err(OpenError::NotALedger),
        found if found > schema::current() => Err(OpenError::NewerSchema { found, known: schema::current() }),
        found if found < schema::current() => Err(OpenError::OlderSchema(found)),
        _ => Ok(conn),
    }
}

/// Recomputes every record of the store at `path`.
///
/// # Errors
/// The first record that does not follow from the one before it.
pub fn verify_chain(path: &Path) -> Result<ChainReport, ChainError> {
    chain(&open(path)?)
}

type Row = (u64, u64, String, Option<[u8; 16]>, Text, Hash);

fn row(r: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?))
}

/// Recomputes all of it from the records' own bytes: links, hashes, tree, and what was signed of it.
fn chain(conn: &Connection) -> Result<ChainReport, ChainError> {
    let mut signed: BTreeMap<u64, String> =
        all(conn, "SELECT size,note FROM checkpoint", [], |r| Ok((r.get(0)?, r.get(1)?)))?.into_iter().collect();
    let mut statement = conn.prepare("SELECT seq,at,kind,payment,body,leaf FROM audit ORDER BY seq")?;
    let mut rows = statement.query([])?;
    let mut nodes = conn.prepare("SELECT hash FROM audit_node WHERE idx=?1")?;
    let mut tree = Frontier::default();
    let mut last: Hash = [0; 32];
    loop {
        let expected = tree.size().saturating_add(1);
        let broken = |why: &str| ChainError::Broken { seq: expected, why: why.to_owned() };
        if let Some(note) = signed.remove(&tree.size()) {
            let checkpoint = text_of(&note).and_then(str::parse::<Checkpoint>);
            if !checkpoint.is_ok_and(|c| (c.size, c.root) == (tree.size(), tree.root())) {
                return Err(broken("the checkpoint before it was signed over other records"));
            }
        }
        let Some(r) = rows.next()? else { break };
        let (seq, at, kind, payment, Text(body), leaf) = row(r).map_err(|e| broken(&e.to_string()))?;
        if seq != expected {
            return Err(broken("it is missing"));
        }
        let json = Json::parse(&body).map_err(|e| broken(&e.to_string()))?;
        let record = Record::of(&json).map_err(|e| broken(&e.to_string()))?;
        if record.prev != last {
            return Err(broken("it does not follow from the record before it"));
        }
        if leaf_hash(body.as_bytes()) != leaf {
            return Err(broken("its hash is not that of its content"));
        }
        let named = json.get("payment").and_then(Json::as_str).and_then(payment_of);
        if (record.seq, record.at, record.kind, named) != (seq, at, kind.as_str(), payment) {
            return Err(broken("its columns are not what its content says"));
        }
        let mut complete = Vec::new();
        tree.push_each(leaf, |idx, hash| complete.push((idx, *hash)));
        for (idx, hash) in complete {
            let stored: Option<Hash> =
                nodes.query_row([idx], |r| r.get(0)).optional().map_err(|e| broken(&e.to_string()))?;
            if stored != Some(hash) {
                return Err(broken("a hash of the tree above it is not what it must be"));
            }
        }
        last = leaf;
    }
    let end = |why: &str| ChainError::Broken { seq: tree.size().saturating_add(1), why: why.to_owned() };
    if !signed.is_empty() {
        return Err(end("it is missing: a checkpoint was signed over more records"));
    }
    let count: u64 = conn.query_row("SELECT count(*) FROM audit_node", [], |r| r.get(0))?;
    if count != stored_count(tree.size()).saturating_sub(tree.size()) {
        return Err(end("the tree has hashes of records that are not there"));
    }
    Ok(ChainReport { records: tree.size(), root: tree.root() })
}

/// Checks the store at `path`: limits, counters against holds, states against histories, the chain,
/// and the file.
///
/// # Errors
/// When the store does not open or read; what is wrong *in* it is in the answer.
pub fn check_integrity(path: &Path) -> Result<Integrity, OpenError> {
    let conn = open(path)?;
    let tx = conn.unchecked_transaction()?;
    let mut found = Integrity::default();
    if let Err(e) = chain(&tx) {
        found.chain.push(e.to_string());
    }
    counters(&tx, &mut found)?;
    buckets(&tx, &mut found)?;
    states(&tx, &mut found)?;
    settled(&tx, &mut found)?;
    refunded(&tx, &mut found)?;
    let file = all(&tx, "PRAGMA integrity_check", [], |r| r.get::<_, String>(0))?;
    found.file.extend(file.into_iter().filter(|line| line != "ok"));
    let keys = all(&tx, "PRAGMA foreign_key_check", [], |r| r.get::<_, String>(0))?;
    found.file.extend(keys.into_iter().map(|table| format!("{table}: a row points nowhere")));
    Ok(found)
}

fn counters(conn: &Connection, found: &mut Integrity) -> Answer<()> {
    let sql = "WITH h AS (SELECT budget,win,
                 sum(CASE WHEN open=1 AND aged=0 THEN amount ELSE 0 END) AS held,
                 sum(CASE WHEN open=0 THEN settled-refunded ELSE 0 END) AS spent FROM hold GROUP BY budget,win),
               s AS (SELECT budget,sum(spent) AS spent FROM bucket GROUP BY budget)
               SELECT b.owner||'/'||b.name,w.win,w.lim,w.held,w.spent,coalesce(h.held,0),
                 CASE WHEN b.kind=1 THEN coalesce(s.spent,0) ELSE coalesce(h.spent,0)+w.seeded END
               FROM budget_window w JOIN budget b ON b.id=w.budget
               LEFT JOIN h ON h.budget=w.budget AND h.win=w.win LEFT JOIN s ON s.budget=w.budget";
    type Row = (String, u64, u64, u64, u64, u64, u64);
    let rows: Vec<Row> =
        all(conn, sql, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?)))?;
    for (name, win, lim, held, spent, true_held, true_spent) in rows {
        if held.saturating_add(spent) > lim {
            found.over_limit.push(format!("{name} at {win}: {held} held and {spent} spent of {lim}"));
        }
        if (held, spent) != (true_held, true_spent) {
            found.counters.push(format!(
                "{name} at {win}: {held} held and {spent} spent; its holds say {true_held} and {true_spent}"
            ));
        }
    }
    Ok(())
}

fn buckets(conn: &Connection, found: &mut Integrity) -> Answer<()> {
    let sql = "SELECT budget,bucket,sum(CASE WHEN open=0 THEN settled-refunded WHEN aged=1 THEN amount ELSE 0 END)
               FROM hold WHERE bucket IS NOT NULL GROUP BY budget,bucket";
    let read = |r: &rusqlite::Row<'_>| Ok(((r.get::<_, [u8; 16]>(0)?, r.get::<_, u64>(1)?), r.get::<_, u64>(2)?));
    let true_ones: BTreeMap<_, _> = all(conn, sql, [], read)?.into_iter().collect();
    let stored: BTreeMap<_, _> =
        all(conn, "SELECT budget,start,spent-seeded FROM bucket", [], read)?.into_iter().collect();
    let sql = "SELECT b.id,b.width,w.mark FROM budget b JOIN budget_window w ON w.budget=b.id WHERE b.kind=1";
    let marks = all(conn, sql, [], |r| Ok((r.get::<_, [u8; 16]>(0)?, (r.get::<_, u32>(1)?, r.get::<_, u64>(2)?))))?;
    let marks: BTreeMap<_, _> = marks.into_iter().collect();
    let has_left = |budget: &[u8; 16], start: u64| {
        let (width, mark) = marks.get(budget)?;
        Ring::new(*width).gone(Timestamp::from_millis(*mark)).map(|gone| start <= gone)
    };
    for ((budget, start), spent) in &stored {
        let truly = true_ones.get(&(*budget, *start)).copied().unwrap_or(0);
        let name = hex::encode(budget);
        if truly != *spent {
            found.counters.push(format!("bucket {start} of {name}: {spent}; its holds say {truly}"));
        }
        if has_left(budget, *start) == Some(true) {
            found.counters.push(format!("bucket {start} of {name}: it has left the window and still counts"));
        }
    }
    for ((budget, start), spent) in true_ones {
        if spent > 0 && has_left(&budget, start) != Some(true) && !stored.contains_key(&(budget, start)) {
            found.counters.push(format!("bucket {start} of {}: missing; its holds say {spent}", hex::encode(budget)));
        }
    }
    Ok(())
}

/// What a settled or released hold came to must follow from what was redeemed.
fn settled(conn: &Connection, found: &mut Integrity) -> Answer<()> {
    let sql = "SELECT h.payment,h.amount,h.settled,b.unit,p.amount,p.redeemed,p.state
               FROM hold h JOIN payment p ON p.id=h.payment JOIN budget b ON b.id=h.budget WHERE h.open=0";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(r) = rows.next()? {
        let id: [u8; 16] = r.get(0)?;
        let (amount, settled): (u64, u64) = (r.get(1)?, r.get(2)?);
        let (counts, redeemed): (bool, Option<[u8; 32]>) = (r.get(3)?, r.get(5)?);
        let spent = State::from_number(r.get(6)?).is_some_and(State::is_spent);
        let due = match redeemed {
            Some(_) if spent && counts => amount,
            Some(redeemed) if spent => atomic(&redeemed)?.share_up(atomic(&r.get(4)?)?, amount),
            _ => 0,
        };
        if settled != due {
            let id = hex::encode(id);
            found.states.push(format!("pay_{id}: a hold of {amount} came to {settled}; what was redeemed says {due}"));
        }
    }
    Ok(())
}

/// Refunds must belong to their payment's state, and what was credited for them must follow from them.
fn refunded(conn: &Connection, found: &mut Integrity) -> Answer<()> {
    let sql = "SELECT id,state,redeemed,txhash IS NOT NULL AND evidence IS NOT NULL FROM payment p
               WHERE state IN (7,9,10) OR EXISTS(SELECT 1 FROM refund r WHERE r.payment=p.id)";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(r) = rows.next()? {
        let id: [u8; 16] = r.get(0)?;
        let state = State::from_number(r.get(1)?);
        let mut wrong = |why: &str| found.states.push(format!("pay_{}: {why}", hex::encode(id)));
        let Some(redeemed) = r.get::<_, Option<[u8; 32]>>(2)?.filter(|_| state.is_some_and(State::is_spent)) else {
            wrong("something came back of what was never proven redeemed");
            continue;
        };
        if !r.get::<_, bool>(3)? {
            wrong("its redemption is proven by nothing");
        }
        let redeemed = atomic(&redeemed)?;
        let refunds = refunds::of(conn, PaymentId::from_bytes(id))?;
        let sum = |chain_only: bool| {
            let counts = |r: &&Refund| !chain_only || matches!(r.source, RefundSource::Chain { .. });
            refunds.iter().filter(counts).fold(0_u128, |sum, r| sum.saturating_add(r.amount.get()))
        };
        if sum(false) > redeemed.get() {
            wrong("more came back than was redeemed");
        }
        let belongs = match state {
            Some(State::Settled) => refunds.is_empty(),
            Some(State::Refunded) => !refunds.is_empty(),
            _ => true,
        };
        if !belongs {
            wrong("its refunds do not belong to its state");
        }
        let sql = "SELECT h.settled,h.refunded,b.unit=0 AND b.owner<>?2 FROM hold h JOIN budget b ON b.id=h.budget
                   WHERE h.payment=?1 AND h.open=0";
        let holds =
            all(conn, sql, (id, HOST), |r| Ok((r.get::<_, u64>(0)?, r.get::<_, u64>(1)?, r.get::<_, bool>(2)?)))?;
        for (settled, credited, may) in holds {
            // In a rolling window it is less, once the spending has left.
            let most = if may { Atomic::new(sum(true)).share_down(redeemed, settled) } else { 0 };
            if credited > most {
                wrong(&format!("{credited} credited of {settled}; what came back allows {most}"));
            }
        }
    }
    Ok(())
}

fn states(conn: &Connection, found: &mut Integrity) -> Answer<()> {
    let sql = "SELECT p.id,p.state,p.version,p.payload IS NOT NULL,s.n,s.state,
                 (SELECT count(*) FROM hold h WHERE h.payment=p.id AND h.open=1),
                 (SELECT count(*) FROM hold h WHERE h.payment=p.id AND h.open=0),
                 (SELECT a.state FROM approval a WHERE a.id=p.approval), s.event
               FROM payment p LEFT JOIN step s ON s.payment=p.id ORDER BY p.id,s.n";
    let short = "SELECT id FROM payment p WHERE version IS NOT (SELECT max(n) FROM step s WHERE s.payment=p.id)";
    for id in all(conn, short, [], |r| r.get::<_, [u8; 16]>(0))? {
        found.states.push(format!("pay_{}: its history is not as long as its version", hex::encode(id)));
    }
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut last: Option<([u8; 16], State)> = None;
    while let Some(r) = rows.next()? {
        let id: [u8; 16] = r.get(0)?;
        let mut wrong = |why: &str| found.states.push(format!("pay_{}: {why}", hex::encode(id)));
        let (Some(state), Some(n), Some(step)) = (
            State::from_number(r.get(1)?),
            r.get::<_, Option<u64>>(4)?,
            r.get::<_, Option<u8>>(5)?.and_then(State::from_number),
        ) else {
            wrong("no such state, or no history");
            continue;
        };
        let before = last.filter(|(of, _)| *of == id).map(|(_, state)| state);
        let first = matches!(step, State::Denied | State::Review | State::Signed);
        let event: Option<String> = r.get(9)?;
        let legal = match (before, &event) {
            (None, event) => n == 0 && first && event.is_none(),
            (Some(from), Some(event)) => {
                TRANSITIONS.iter().any(|t| t.from == from && t.event.name() == event && t.to == step)
            }
            (Some(_), None) => false,
        };
        if !legal {
            wrong("its history takes a step that is not in the table");
        }
        last = Some((id, step));
        if n != r.get::<_, u64>(2)? {
            continue;
        }
        // The last step: everything else must belong to it.
        if step != state {
            wrong("its state is not where its history ends");
        }
        if state.has_authorization() != r.get::<_, bool>(3)? && state != State::Released {
            wrong("its payload does not belong to its state");
        }
        let holding = state == State::Review || state.is_open();
        let (open, closed): (u64, u64) = (r.get(6)?, r.get(7)?);
        if (holding && closed > 0) || (!holding && open > 0) {
            wrong("its holds do not belong to its state");
        }
        let waits = r.get::<_, Option<u8>>(8)?.is_some_and(|s| s <= 1);
        if waits != (state == State::Review) {
            wrong("its approval does not belong to its state");
        }
    }
    Ok(())
}
