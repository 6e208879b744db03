//! A server that dies, freezes, or ends sessions under load: nothing that was answered is lost, everybody is answered,
//! and ledgers go on without being opened again.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use countersign_core::ledger::{Committed, Ledger, LedgerError};
use countersign_core::payment::State;
use countersign_core::verdict::Window;
use countersign_ledger::SqliteLedger;

use crate::backend::fresh;
use crate::common::*;
use crate::fleet::{Gateway, on, until, until_it_writes};
use crate::postgres::Postgres;
use crate::worker::{states, text};

/// Crashes of the server, unless the environment says otherwise.
const CRASHES: u64 = 6;
/// How often all sessions are ended.
const CUTS: u64 = 40;

/// Callers that buy without end until they are told to stop.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    next: AtomicU64,
    answered: Mutex<BTreeSet<u64>>,
    unknown: Mutex<BTreeSet<u64>>,
}

impl Load {
    fn buy(&self, ledger: &SqliteLedger) {
        while !self.stop.load(Ordering::SeqCst) {
            let n = self.next.fetch_add(1, Ordering::SeqCst);
            match block(ledger.commit(commit(n, T0, &[hold("b", Window::Lifetime, 1 << 40, 1)]))) {
                Ok(Committed::Granted { .. }) => drop(self.answered.lock().unwrap().insert(n)),
                Err(LedgerError::Unavailable(_)) => {
                    self.unknown.lock().unwrap().insert(n);
                    // As callers do that were told to try later.
                    thread::park_timeout(Duration::from_millis(20));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn answered(&self) -> usize {
        self.answered.lock().unwrap().len()
    }

    /// Waits until so many more are answered.
    fn more(&self, count: usize) {
        let before = self.answered();
        until("more is answered", || self.answered() >= before + count);
    }
}

/// Two gateways under load, while this happens.
fn under_load(what: impl FnOnce(&mut Postgres, &Load, &[SqliteLedger; 2])) {
    let mut postgres = Postgres::start();
    let name = fresh();
    postgres.create_database(&name);
    let database = on(&postgres, &name);
    let gateways = [(); 2].map(|()| Gateway::new());
    let ledgers = gateways.each_ref().map(|g| g.open(&database));
    let load = Load::default();
    thread::scope(|scope| {
        for caller in 0..6 {
            let (load, ledger) = (&load, &ledgers[caller % 2]);
            scope.spawn(move || load.buy(ledger));
        }
        // A failed expectation must not leave the callers at work for ever.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| what(&mut postgres, &load, &ledgers)));
        load.stop.store(true, Ordering::SeqCst);
        postgres.resume();
        if let Err(why) = done {
            std::panic::resume_unwind(why);
        }
    });
    ledgers.iter().for_each(until_it_writes);
    let (held, spent) = used(&ledgers[0], "b", T0);
    drop(ledgers);
    for gateway in &gateways {
        gateway.check(&database);
    }
    let found = states(&gateways[0].path);
    let (answered, unknown) = (load.answered.into_inner().unwrap(), load.unknown.into_inner().unwrap());
    let lost: Vec<_> = answered.iter().filter(|n| !found.contains_key(n)).collect();
    assert!(lost.is_empty(), "answered and lost: {lost:?}");
    let over = found.keys().filter(|n| !answered.contains(n)).count();
    assert!(found.keys().all(|n| answered.contains(n) || unknown.contains(n)));
    assert!(found.values().all(|s| [State::Signed, State::Redeemable].contains(s)));
    assert_eq!(held + spent, u64::try_from(found.len()).unwrap());
    println!("{} answered, {} unavailable, of which {over} were made", answered.len(), unknown.len());
}

#[test]
fn a_server_that_crashes_loses_nothing_that_was_answered() {
    let crashes = text("COUNTERSIGN_CRASHES").map_or(CRASHES, |n| n.parse().expect("COUNTERSIGN_CRASHES is a number"));
    under_load(|postgres, load, ledgers| {
        for _ in 0..crashes {
            load.more(60);
            postgres.kill();
            postgres.restart();
            ledgers.iter().for_each(until_it_writes);
        }
    });
}

#[test]
fn sessions_that_are_ended_at_any_moment_are_taken_up_again() {
    under_load(|postgres, load, ledgers| {
        for _ in 0..CUTS {
            load.more(7);
            postgres.disconnect();
        }
        ledgers.iter().for_each(until_it_writes);
    });
}

#[test]
fn a_frozen_server_leaves_nobody_waiting_and_is_taken_up_again() {
    under_load(|postgres, load, ledgers| {
        load.more(60);
        postgres.pause();
        // Everybody is answered while it is frozen: what was asked before and what is asked now.
        let (from, unknown) = (load.next.load(Ordering::SeqCst), || load.unknown.lock().unwrap().clone());
        until("everybody is told", || {
            let unknown = unknown();
            let answered = load.answered.lock().unwrap();
            (0..from).all(|n| unknown.contains(&n) || answered.contains(&n)) && unknown.len() > 6
        });
        for ledger in ledgers {
            let told = block(ledger.payment(payment_id(0)));
            assert!(matches!(told, Err(LedgerError::Unavailable(_))), "nothing old is served: {told:?}");
        }
        postgres.resume();
        ledgers.iter().for_each(until_it_writes);
        load.more(60);
    });
}
