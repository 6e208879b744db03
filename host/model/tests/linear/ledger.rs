//! Windows of the real ledger: callers on several threads, many budgets at a time, so that they share its syncs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::evm::hex32;
use countersign_core::ledger::{Committed, Evidence, Ledger, Refusal, Transition};
use countersign_core::money::Atomic;
use countersign_core::payment::{Event, State};
use countersign_core::time::Timestamp;
use countersign_ledger::{Options, SqliteLedger, check_integrity};
use countersign_model::linear::{Asked, Call, Told, order};

use crate::chance::Chance;
use crate::purchase::{LIMIT, Wish};
use crate::together::all;

/// Windows, unless the environment says otherwise.
const WINDOWS: u64 = 10_000;
/// Windows at a time.
const TOGETHER: u64 = 250;
/// Windows of one store.
const STORE: u64 = 1_000;
/// One caller of each window on each; six of them and two calls each are at most twelve.
const THREADS: u64 = 6;
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// The callers' clock: it only rises.
static MOMENT: AtomicU64 = AtomicU64::new(1);

fn moment() -> u64 {
    MOMENT.fetch_add(1, Ordering::SeqCst)
}

/// One caller and its two calls: it takes, and gives back; or, if there was no room, tries once more.
async fn call(ledger: &SqliteLedger, window: u64, caller: u64, calls: &Mutex<Vec<Call>>) {
    let mut chance = Chance::new(window * THREADS + caller);
    for turn in 0..2 {
        let n = caller * 2 + turn;
        let amount = chance.between(800, 2_500);
        let wish = Wish { seed: window, n, purchase: n, amount, at: START, valid_seconds: 60 };
        let asked = moment();
        let told = match ledger.commit(wish.commit(START)).await.unwrap() {
            Committed::Granted { .. } => Told::Done,
            Committed::Refused(Refusal::Budget(refusal)) => Told::Full(refusal.used),
            other => panic!("{other:?}"),
        };
        calls.lock().unwrap().push(Call { asks: Asked::Take(amount), asked, answered: Some((moment(), told)) });
        if turn > 0 {
            return;
        }
        if told != Told::Done || chance.percent(20) {
            continue;
        }
        let payment = wish.payment();
        let (event, evidence, given) = if chance.percent(70) {
            (Event::SignerRefused, None, amount)
        } else {
            let redeemed = chance.between(1, 400);
            let evidence = Evidence {
                transaction: Some(hex32::print(&[1; 32])),
                block: Some(1),
                block_hash: Some(hex32::print(&[2; 32])),
                block_time: Some(1),
                redeemed: Some(Atomic::new(redeemed.into())),
                ..Evidence::default()
            };
            (Event::Redeemed, Some(Box::new(evidence)), amount - redeemed)
        };
        let why = event.name().to_owned();
        let asked = moment();
        ledger.transition(Transition { payment, from: State::Signed, event, why, evidence, at: START }).await.unwrap();
        calls.lock().unwrap().push(Call { asks: Asked::Give(given), asked, answered: Some((moment(), Told::Done)) });
        return;
    }
}

/// The calls of windows from `first` on, made at the same time.
fn together(ledger: &SqliteLedger, first: u64) -> Vec<Vec<Call>> {
    let windows: Vec<Mutex<Vec<Call>>> = (0..TOGETHER).map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        for caller in 0..THREADS {
            let windows = &windows;
            scope.spawn(move || {
                let callers = windows.iter().zip(first..);
                all(callers.map(|(calls, window)| Box::pin(call(ledger, window, caller, calls)) as _));
            });
        }
    });
    windows.into_iter().map(|calls| calls.into_inner().unwrap()).collect()
}

#[test]
fn the_ledgers_windows_have_an_order() {
    let wanted = std::env::vars().find(|(name, _)| name == "COUNTERSIGN_WINDOWS");
    let wanted = wanted.map_or(WINDOWS, |(_, number)| number.parse().expect("COUNTERSIGN_WINDOWS is a number"));
    let (mut seen, mut full, mut overlapping) = (0, 0, 0);
    // The same windows with one answer changed; now and then another order explains that too.
    let (mut lies, mut found) = (0_u64, 0_u64);
    for store in 0..wanted.div_ceil(STORE) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let ledger = SqliteLedger::open(&path, Options::new([7; 32], [9; 16]), START).unwrap();
        for first in (store * STORE..wanted.min((store + 1) * STORE)).step_by(TOGETHER as usize) {
            for (calls, window) in together(&ledger, first).into_iter().zip(first..) {
                if let Err(why) = order(LIMIT, 0, &calls) {
                    panic!(
                        "window {window}: {why}\n{calls:#?}\nwhat the threads do differs from run to run: the calls above are all there is"
                    );
                }
                let mut lie = calls.clone();
                let quotes = lie.iter_mut().filter_map(|call| call.answered.as_mut());
                if let Some((_, Told::Full(used))) = quotes.into_iter().find(|(_, told)| *told != Told::Done) {
                    *used += 1;
                    lies += 1;
                    found += u64::from(order(LIMIT, 0, &lie).is_err());
                }
                seen += calls.len();
                full += calls.iter().filter(|call| matches!(call.answered, Some((_, Told::Full(_))))).count();
                let overlaps = |call: &&Call| {
                    let ended = call.answered.map_or(0, |(moment, _)| moment);
                    calls.iter().any(|other| other.asked > call.asked && other.asked < ended)
                };
                overlapping += calls.iter().filter(overlaps).count();
            }
        }
        drop(ledger);
        let integrity = check_integrity(&path).unwrap();
        assert!(integrity.is_sound(), "{integrity:#?}");
    }
    println!("{wanted} windows, {seen} calls: {full} found the budget full, {overlapping} overlapped a later one");
    println!("{found} of {lies} windows with one answer changed have no order");
    assert!(found * 100 > lies * 98, "only {found} of {lies} windows with one answer changed were found");
    assert!(full * 20 > seen, "the budgets were hardly ever full: {full} of {seen} calls");
    assert!(overlapping * 2 > seen, "only {overlapping} of {seen} calls overlapped a later one");
}
