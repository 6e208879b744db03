//! Whether a store that was opened again has everything that somebody was told is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use countersign_audit::tlog::{Frontier, leaf_hash};
use countersign_core::ledger::{Committed, Ledger, Refusal};
use countersign_ledger::text::unpack;
use countersign_ledger::{SqliteLedger, check_integrity, verify_chain};
use rusqlite::Connection;
use rusqlite::types::Type;

use crate::together::block;
use crate::worker::{START, options, wish};

/// The number of a purchase that no worker makes.
const LAST: u64 = 1_000_000;

/// Opens the store, buys once more, closes it, and looks at everything. Answers how many things were said and are
/// there.
pub(crate) fn judge(store: &Path, said: &[String]) -> Result<usize, String> {
    let now = START.plus_millis(LAST * 100);
    let ledger = SqliteLedger::open(store, options(), now).map_err(|e| format!("it does not open: {e}"))?;
    let bought = block(ledger.commit(wish(LAST).commit(now)));
    drop(ledger);
    if !matches!(bought, Ok(Committed::Granted { .. } | Committed::Refused(Refusal::Budget(_)))) {
        return Err(format!("it does not sell: {bought:?}"));
    }
    let integrity = check_integrity(store).map_err(|e| e.to_string())?;
    if !integrity.is_sound() {
        return Err(format!("it is not sound: {integrity:#?}"));
    }
    verify_chain(store).map_err(|e| e.to_string())?;
    let known = Known::read(&Connection::open(store).unwrap()).map_err(|e| e.to_string())?;
    let mut happened: BTreeMap<&str, usize> = BTreeMap::new();
    let mut told = 0;
    for line in said {
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        let there = match what {
            "serving" | "closing" | "refused" | "full" => continue,
            "tree" => known.trees.contains(rest),
            "granted" => known.signed.contains(rest),
            "denied" => known.denied.contains(rest),
            "signature" => known.signatures.contains(rest),
            "delivered" => known.delivered.contains(rest),
            "came-back" => known.refunded.contains(rest),
            // Steps come in the order in which they were said; an opening in between may add its own.
            event => {
                let from = happened.entry(rest).or_default();
                let steps = known.steps.get(rest).map_or(&[][..], |steps| steps.get(*from..).unwrap_or(&[]));
                let found = steps.iter().position(|step| step == event);
                *from += found.map_or(0, |found| found + 1);
                found.is_some()
            }
        };
        if !there {
            return Err(format!("lost: `{line}` was said and is not there"));
        }
        told += 1;
    }
    Ok(told)
}

/// What a store says, by payments.
#[derive(Default)]
struct Known {
    signed: BTreeSet<String>,
    denied: BTreeSet<String>,
    signatures: BTreeSet<String>,
    delivered: BTreeSet<String>,
    refunded: BTreeSet<String>,
    steps: BTreeMap<String, Vec<String>>,
    /// Every tree there ever was, as the worker spells it.
    trees: BTreeSet<String>,
}

impl Known {
    fn read(conn: &Connection) -> rusqlite::Result<Self> {
        let ids = |sql: &str| -> rusqlite::Result<BTreeSet<String>> {
            let mut statement = conn.prepare(sql)?;
            statement.query_map([], |r| r.get(0))?.collect()
        };
        let mut known = Self {
            signed: ids("SELECT lower(hex(id)) FROM payment WHERE payload IS NOT NULL")?,
            denied: ids("SELECT lower(hex(id)) FROM payment WHERE state=1")?,
            signatures: ids("SELECT lower(hex(id)) FROM payment WHERE signature IS NOT NULL")?,
            delivered: ids("SELECT lower(hex(id)) FROM payment WHERE delivered=1")?,
            refunded: ids("SELECT lower(hex(payment)) FROM refund")?,
            ..Self::default()
        };
        let mut steps = conn.prepare("SELECT lower(hex(payment)),event FROM step WHERE n>0 ORDER BY payment,n")?;
        for row in steps.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))? {
            let (payment, event) = row?;
            known.steps.entry(payment).or_default().push(event);
        }
        let mut tree = Frontier::default();
        let mut records = conn.prepare("SELECT body FROM audit ORDER BY seq")?;
        for body in records.query_map([], |r| r.get::<_, Vec<u8>>(0))? {
            let body = unpack(&body?);
            let body = body.map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, Box::new(e)))?;
            tree.push(leaf_hash(body.as_bytes()));
            known.trees.insert(format!("{} {}", tree.size(), hex::encode(tree.root())));
        }
        Ok(known)
    }
}
