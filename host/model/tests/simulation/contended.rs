//! Many callers on one budget of the real ledger: what they saw is what one counter would have told them.
//!
//! `COUNTERSIGN_CALLS` says about how many calls they make.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::budget::BudgetId;
use countersign_core::evm::hex32;
use countersign_core::ledger::{BudgetRefusal, Committed, Evidence, Ledger, Refusal, Transition};
use countersign_core::money::Atomic;
use countersign_core::payment::{Event, State};
use countersign_core::time::Timestamp;
use countersign_ledger::text::unpack;
use countersign_ledger::{Options, SqliteLedger, check_integrity};
use countersign_model::history::{Answer, Call, Record, check, entries};

use crate::chance::Chance;
use crate::purchase::Wish;
use crate::together::all;

const THREADS: u64 = 8;
/// Callers of each thread.
const CALLERS: u64 = 8;
/// Calls, unless the environment says otherwise.
const CALLS: u64 = 10_000;
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// The callers' clock: it only rises.
static MOMENT: AtomicU64 = AtomicU64::new(1);

fn moment() -> u64 {
    MOMENT.fetch_add(1, Ordering::SeqCst)
}

fn refused(refusal: &BudgetRefusal) -> Answer {
    let budget = BudgetId::of(&refusal.owner, &refusal.name, refusal.unit, &refusal.window);
    // The only budget that is ever full is a lifetime's: its window has no start.
    let row = (hex::encode(budget.as_bytes()), 0);
    Answer::Refused { row, used: refusal.used, wanted: refusal.wanted, limit: refusal.limit }
}

async fn buy(ledger: &SqliteLedger, caller: u64, purchases: u64, calls: &Mutex<Vec<Call>>) {
    let mut chance = Chance::new(caller);
    for turn in 0..purchases {
        let n = caller * purchases + turn;
        let wish = Wish { seed: 1, n, purchase: n, amount: chance.between(60, 500), at: START, valid_seconds: 60 };
        let asked = moment();
        let done = ledger.commit(wish.commit(START)).await.unwrap();
        let answered = moment();
        let answer = match &done {
            Committed::Granted { .. } => Answer::Done,
            Committed::Refused(Refusal::Budget(refusal)) => refused(refusal),
            other => panic!("{other:?}"),
        };
        let granted = answer == Answer::Done;
        let name = format!("payment-signed {}", wish.payment());
        calls.lock().unwrap().push(Call { name, asked, answered: Some((answered, answer)) });
        if !granted {
            continue;
        }
        // Nearly all of it comes back, so that the budget stays between empty and full, however many calls there are.
        let (event, evidence) = if chance.percent(99) {
            (Event::SignerRefused, None)
        } else {
            let evidence = Evidence {
                transaction: Some(hex32::print(&[1; 32])),
                block: Some(1),
                block_hash: Some(hex32::print(&[2; 32])),
                block_time: Some(1),
                redeemed: Some(Atomic::new(1)),
                ..Evidence::default()
            };
            (Event::Redeemed, Some(Box::new(evidence)))
        };
        let payment = wish.payment();
        let why = event.name().to_owned();
        let asked = moment();
        ledger.transition(Transition { payment, from: State::Signed, event, why, evidence, at: START }).await.unwrap();
        let answered = moment();
        let name = format!("{} {payment}", event.name());
        calls.lock().unwrap().push(Call { name, asked, answered: Some((answered, Answer::Done)) });
    }
}

/// The records of a closed store, named by the calls that caused them.
fn records(path: &std::path::Path) -> Vec<Record> {
    let conn = rusqlite::Connection::open(path).unwrap();
    let mut statement = conn.prepare("SELECT seq,kind,body FROM audit ORDER BY seq").unwrap();
    let rows = statement.query_map([], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?, r.get::<_, Vec<u8>>(2)?)));
    rows.unwrap()
        .map(|row| {
            let (seq, kind, body) = row.unwrap();
            let body = unpack(&body).unwrap();
            let json: serde_json::Value = serde_json::from_str(&body).unwrap();
            let what = json["event"].as_str().unwrap_or(&kind);
            let call = json["payment"].as_str().map_or(String::new(), |payment| format!("{what} {payment}"));
            Record { seq: u64::try_from(seq).unwrap(), call, entries: entries(&body).unwrap() }
        })
        .collect()
}

/// Many callers, one budget; answers the history they made.
pub(crate) fn contended(wanted: u64) -> (Vec<Record>, Vec<Call>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let ledger = SqliteLedger::open(&path, Options::new([7; 32], [9; 16]), START).unwrap();
    let calls = Mutex::default();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (ledger, calls) = (&ledger, &calls);
            // Many purchases are refused, most others come back: seven are about ten calls.
            let purchases = (wanted * 7 / 10).div_ceil(THREADS * CALLERS);
            let callers = thread * CALLERS..(thread + 1) * CALLERS;
            scope.spawn(move || all(callers.map(|caller| Box::pin(buy(ledger, caller, purchases, calls)) as _)));
        }
    });
    drop(ledger);
    let integrity = check_integrity(&path).unwrap();
    assert!(integrity.is_sound(), "{integrity:#?}");
    (records(&path), calls.into_inner().unwrap())
}

#[test]
fn many_callers_see_one_counter() {
    let wanted = std::env::vars().find(|(name, _)| name == "COUNTERSIGN_CALLS");
    let wanted = wanted.map_or(CALLS, |(_, number)| number.parse().expect("COUNTERSIGN_CALLS is a number"));
    let (records, calls) = contended(wanted);
    let checked = check(&records, &calls).unwrap_or_else(|e| panic!("{e}"));
    println!("{} calls of {} callers: {checked:?}", calls.len(), THREADS * CALLERS);
    assert!(checked.refusals * 40 > calls.len(), "the budget was hardly ever full: {checked:?}");
    let mut asked: Vec<u64> = calls.iter().map(|call| call.asked).collect();
    asked.sort_unstable();
    let overlap = |call: &&Call| {
        let next = asked.get(asked.partition_point(|moment| *moment <= call.asked));
        let answered = call.answered.as_ref().map_or(0, |a| a.0);
        next.is_some_and(|next| *next < answered)
    };
    let overlapping = calls.iter().filter(overlap).count();
    assert!(overlapping * 2 > calls.len(), "only {overlapping} of {} calls overlapped others", calls.len());
}
