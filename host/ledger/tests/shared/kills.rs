//! Gateways that are killed in the middle of their work: what they answered stays, nothing is over, and what they had
//! in flight is followed by whoever lives.

use countersign_core::ledger::Ledger;
use countersign_core::payment::State;

use crate::backend::server;
use crate::common::*;
use crate::fleet::{Dice, Gateway, database, until, until_it_writes};
use crate::worker::{SPAN, Told, Worker, expected, states, text};

/// Kills, unless the environment says otherwise.
const KILLS: u64 = 200;

#[test]
fn gateways_that_are_killed_lose_nothing_and_spend_nothing_twice() {
    let kills = text("COUNTERSIGN_KILLS").map_or(KILLS, |n| n.parse().expect("COUNTERSIGN_KILLS is a number"));
    let (name, database) = database();
    let url = server().url(&name);
    let witness = Gateway::new();
    let ledger = witness.open(&database);
    let mut told = Told::default();
    let mut dice = Dice::new(7);
    // Two at a time, of which one is killed and comes back: mostly on its copy, else as a new gateway.
    let mut seats = [Gateway::new(), Gateway::new()];
    let mut next = 0;
    let mut start = |gateway: &Gateway| {
        next += 1;
        Worker::start(&url, gateway.folder(), next * SPAN)
    };
    let mut workers = vec![start(&seats[0]), start(&seats[1])];
    for _ in 0..kills {
        let which = usize::try_from(dice.below(2)).unwrap();
        let worker = workers.remove(which);
        worker.hear(&mut told, "asks", 1 + dice.below(24));
        worker.kill(&mut told);
        // What was answered is everywhere, at once.
        if let Some(n) = told.of("granted").last() {
            assert_ne!(block(ledger.payment(payment_id(*n))).unwrap().map(|p| p.state), None, "purchase {n}");
        }
        if dice.below(4) == 0 {
            seats[which] = Gateway::new();
        }
        workers.insert(which, start(&seats[which]));
    }
    for worker in workers {
        worker.hear(&mut told, "asks", 5);
        worker.kill(&mut told);
    }
    // Nobody waits a minute here: they have been silent for long.
    let silent = "update countersign.writer set seen=seen-interval '2 minutes' where not ended and epoch<>";
    server().sql(&name, &format!("{silent}{}", ledger.epoch()));
    until("what the dead had in flight is redeemable", || {
        server().sql(&name, "select count(*) from countersign.payment where state=4") == "0"
    });
    assert_eq!(server().sql(&name, "select count(*) from countersign.writer where not ended"), "1");
    until_it_writes(&ledger);
    let (held, spent) = used(&ledger, "all", T0);
    drop(ledger);
    witness.check(&database);
    let found = states(&witness.path);
    let untold = told.judge(&found);
    assert_eq!(held + spent, expected(&found));
    assert!(found.values().all(|s| *s != State::Signed));
    assert!(told.count("refused") > 0 && told.count("granted") > 0);
    for seat in &seats {
        drop(seat.open(&database));
        seat.check(&database);
    }
    println!(
        "{kills} kills: {} asked, {} granted, {} refused, {untold} granted and not told, {} settled, {} released",
        told.count("asks"),
        told.count("granted"),
        told.count("refused"),
        told.count("settled"),
        told.count("released"),
    );
}

#[test]
fn what_a_killed_gateway_had_in_flight_is_redeemable_when_it_comes_back() {
    let (name, database) = database();
    let gateway = Gateway::new();
    let other = Gateway::new();
    let beside = other.open(&database);
    granted(&beside, commit(5, T0, &[]));
    let mut told = Told::default();
    let worker = Worker::start(&server().url(&name), gateway.folder(), SPAN);
    worker.hear(&mut told, "granted", 12);
    worker.kill(&mut told);
    let in_flight = |n: u64| told.of("granted").contains(&n) && !told.of("ends").contains(&n);
    let theirs: Vec<u64> = told.of("granted").into_iter().filter(|n| in_flight(*n)).collect();
    assert!(theirs.len() > 2);
    assert!(theirs.iter().all(|n| state(&beside, *n) == State::Signed), "nobody has missed it yet");
    let again = gateway.open(&database);
    assert!(theirs.iter().all(|n| state(&beside, *n) == State::Redeemable), "its own restart knows that it ended");
    assert_eq!(state(&again, 5), State::Signed, "what lives is left alone");
    drop((again, beside));
    gateway.check(&database);
}

#[test]
fn what_a_silent_gateway_had_in_flight_is_redeemable_for_the_others() {
    let (name, database) = database();
    let [gateway, other, third] = [(); 3].map(|()| Gateway::new());
    let beside = other.open(&database);
    let silent = gateway.open(&database);
    let lively = third.open(&database);
    granted(&lively, commit(3, T0, &[]));
    drop(lively);
    granted(&silent, commit(1, T0, &[]));
    granted(&beside, commit(2, T0, &[]));
    let mut told = Told::default();
    let worker = Worker::start(&server().url(&name), third.folder(), SPAN);
    worker.hear(&mut told, "granted", 8);
    worker.kill(&mut told);
    assert_eq!(state(&beside, 3), State::Redeemable, "the worker began on the same copy");
    server().sql(&name, "update countersign.writer set seen=seen-interval '2 minutes' where epoch=4");
    let theirs: Vec<u64> = told.of("granted").difference(&told.of("ends")).copied().collect();
    until("they are redeemable", || theirs.iter().all(|n| state(&beside, *n) == State::Redeemable));
    assert_eq!((state(&silent, 1), state(&silent, 2)), (State::Signed, State::Signed), "those live");
    let ended = "select string_agg(epoch::text,',' order by epoch) from countersign.writer where ended";
    assert_eq!(server().sql(&name, ended), "3,4");
}

#[test]
fn a_gateway_that_was_taken_for_ended_goes_on_in_a_new_epoch() {
    let (name, database) = database();
    let [gateway, other] = [(); 2].map(|()| Gateway::new());
    let (ledger, beside) = (gateway.open(&database), other.open(&database));
    granted(&ledger, commit(1, T0, &[]));
    let began = (ledger.epoch(), beside.epoch());
    server().sql(&name, "update countersign.writer set ended=true where epoch=1");
    until("its payment is followed", || state(&beside, 1) == State::Redeemable);
    granted(&ledger, commit(2, T0, &[]));
    assert_eq!((began, ledger.epoch(), beside.epoch()), ((1, 2), 3, 2));
    assert_eq!((state(&beside, 2), state(&ledger, 1)), (State::Signed, State::Redeemable));
    let theirs =
        format!("select epoch from countersign.payment where purchase='purchase-2' and epoch={}", ledger.epoch());
    assert_eq!(server().sql(&name, &theirs), ledger.epoch().to_string());
    drop((ledger, beside));
    gateway.check(&database);
}
