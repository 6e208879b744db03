//! Several gateways on one database: what one of them was answered binds the others.

use std::future::poll_fn;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread;

use countersign_core::ledger::{
    ApprovalState, Commit, Committed, Finalized, Fut, Grant, Ledger, LedgerError, Refusal, Reopened, Suspension,
    SuspensionScope,
};
use countersign_core::payment::{Event, State};
use countersign_core::verdict::{Hold, Window};
use countersign_ledger::{Database, SqliteLedger};

use crate::common::*;
use crate::fleet::{Dice, Gateway, database};
use crate::linear::{Asked, Call, Told, order};

/// Three gateways on a database of their own.
struct Three {
    database: Database,
    gateways: [Gateway; 3],
    ledgers: [SqliteLedger; 3],
}

impl Three {
    fn new() -> Self {
        let (_, database) = database();
        let gateways = [(); 3].map(|()| Gateway::new());
        // They begin together on a database in which nothing is.
        let opened = thread::scope(|scope| {
            gateways.each_ref().map(|g| scope.spawn(|| g.open(&database))).map(|opening| opening.join().unwrap())
        });
        Self { database, gateways, ledgers: opened }
    }

    /// All of them do it at the same time.
    fn together<T: Send>(&self, job: impl Fn(u64, &SqliteLedger) -> T + Sync) -> Vec<T> {
        let job = &job;
        thread::scope(|scope| {
            let jobs: Vec<_> = (0..).zip(&self.ledgers).map(|(n, l)| scope.spawn(move || job(n, l))).collect();
            jobs.into_iter().map(|job| job.join().unwrap()).collect()
        })
    }

    fn end(self) {
        drop(self.ledgers);
        for gateway in &self.gateways {
            gateway.check(&self.database);
        }
    }
}

fn lifetime(limit: u64, amount: u64) -> [Hold; 1] {
    [hold("b", Window::Lifetime, limit, amount)]
}

#[test]
fn one_budget_is_never_overspent_by_three_gateways() {
    const LIMIT: u64 = 150;
    let three = Three::new();
    let open = Mutex::new(Vec::<(usize, u64, u64)>::new());
    let (back, granted) = (AtomicU64::new(0), AtomicU64::new(0));
    let refused = AtomicU64::new(0);
    thread::scope(|scope| {
        for caller in 0..12_u64 {
            let (three, open, back, granted, refused) = (&three, &open, &back, &granted, &refused);
            scope.spawn(move || {
                let mut dice = Dice::new(caller);
                for turn in 0..20 {
                    let which = usize::try_from(dice.below(3)).unwrap();
                    let (n, amount) = (caller * 100 + turn, 1 + dice.below(5));
                    match put(&three.ledgers[which], commit(n, T0, &lifetime(LIMIT, amount))) {
                        Committed::Granted { .. } => {
                            granted.fetch_add(amount, Ordering::SeqCst);
                            open.lock().unwrap().push((which, n, amount));
                        }
                        Committed::Refused(Refusal::Budget(why)) => {
                            assert!(why.used <= LIMIT && why.used + amount > LIMIT, "{why:?}");
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                        other => panic!("{other:?}"),
                    }
                    if dice.below(3) == 0 {
                        let taken = open.lock().unwrap().pop();
                        let Some((which, n, amount)) = taken else { continue };
                        // Only where it was granted is it known that no signature exists; a chain is read anywhere.
                        let (which, what) = match dice.below(2) {
                            0 => (which, Event::SignerRefused),
                            _ => ((which + 1) % 3, Event::Redeemed),
                        };
                        step(&three.ledgers[which], event(n, State::Signed, what, T0)).unwrap();
                        if what == Event::SignerRefused {
                            back.fetch_add(amount, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
    });
    let expected = granted.into_inner() - back.into_inner();
    for ledger in &three.ledgers {
        let (held, spent) = used(ledger, "b", T0);
        assert_eq!(held + spent, expected);
    }
    assert!(expected <= LIMIT && refused.into_inner() > 20, "{expected}");
    // What was given back last can be had again, to the last unit and no further.
    for (n, ledger) in (10_000..).zip(three.ledgers.iter().cycle()).take(usize::try_from(LIMIT - expected).unwrap()) {
        assert!(matches!(put(ledger, commit(n, T0, &lifetime(LIMIT, 1))), Committed::Granted { .. }), "{n}");
    }
    for (n, ledger) in (20_000..).zip(&three.ledgers) {
        assert!(matches!(put(ledger, commit(n, T0, &lifetime(LIMIT, 1))), Committed::Refused(_)), "{n}");
    }
    three.end();
}

#[test]
fn a_purchase_has_one_live_attempt_and_a_nonce_one_use_over_all_gateways() {
    let three = Three::new();
    for round in 0..25_u64 {
        let attempts = three.together(|gateway, ledger| {
            let n = round * 10 + gateway;
            put(ledger, Commit { key: key(round), ..commit(n, T0, &lifetime(1 << 40, 1)) })
        });
        let granted: Vec<_> = (0..).zip(&attempts).filter(|(_, a)| matches!(a, Committed::Granted { .. })).collect();
        let [(winner, _)] = granted[..] else { panic!("{attempts:?}") };
        let live = payment_id(round * 10 + winner);
        let told = attempts.iter().filter(|a| **a == Committed::Refused(Refusal::Live(live))).count();
        assert_eq!(told, 2, "{attempts:?}");

        let nonces = three.together(|gateway, ledger| {
            let n = 10_000 + round * 10 + gateway;
            let mut signed = authorization(20_000 + round, at(60));
            signed.payment = payment_id(n);
            block(ledger.commit(Commit { grant: Grant::Sign(signed), ..commit(n, T0, &lifetime(1 << 40, 1)) }))
        });
        assert_eq!(nonces.iter().filter(|n| matches!(n, Ok(Committed::Granted { .. }))).count(), 1, "{nonces:?}");
        let refused = |n: &&_| matches!(n, Ok(Committed::Refused(Refusal::Nonce(_))));
        assert_eq!(nonces.iter().filter(refused).count(), 2, "{nonces:?}");
    }
    three.end();
}

/// Asks for all of it before any of it is answered.
fn at_once(mut asked: Vec<Fut<'_, bool>>) -> Vec<bool> {
    let mut told: Vec<Option<bool>> = asked.iter().map(|_| None).collect();
    block(poll_fn(|cx| {
        for (ask, told) in asked.iter_mut().zip(&mut told).filter(|(_, told)| told.is_none()) {
            if let Poll::Ready(done) = ask.as_mut().poll(cx) {
                *told = Some(done);
            }
        }
        if told.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    }));
    told.into_iter().flatten().collect()
}

#[test]
fn an_attempt_may_take_the_place_of_another_in_one_turn() {
    let three = Three::new();
    let [a, b, _] = &three.ledgers;
    for round in 1..=20_u64 {
        // By its name the new one comes before the old one, as clocks that differ let it.
        let (old, new) = (round * 10 + 5, round * 10);
        let attempt = |n| Commit { key: key(round), ..commit(n, T0, &lifetime(1 << 40, 1)) };
        granted(a, attempt(old));
        // While the first is written, the others queue: they are one turn.
        let told = at_once(vec![
            Box::pin(async { a.expire_approvals(T0).await.is_ok() }),
            Box::pin(async { a.transition(event(old, State::Signed, Event::SignerRefused, T0)).await.is_ok() }),
            Box::pin(async { matches!(a.commit(attempt(new)).await, Ok(Committed::Granted { .. })) }),
        ]);
        assert_eq!(told, [true; 3], "round {round}");
        assert_eq!((state(b, old), state(b, new)), (State::Released, State::Signed));
    }
    three.end();
}

#[test]
fn a_stop_at_one_gateway_stops_the_others_at_once() {
    let three = Three::new();
    let [a, b, c] = &three.ledgers;
    for round in 0..10_u64 {
        let n = round * 10;
        let newest = |n| Commit { generation: 1_000, ..commit(n, T0, &lifetime(1 << 40, 1)) };
        granted(b, newest(n));
        let scope = SuspensionScope::Agent("scout".into());
        let stop = Suspension { scope: scope.clone(), by: "alice".into(), reason: "r".into(), at: T0 };
        block(a.suspend(stop)).unwrap();
        for (ledger, n) in [(b, n + 1), (c, n + 2)] {
            assert!(matches!(refused(ledger, newest(n)), Refusal::Suspended(_)));
            let again = block(ledger.reopen(payment_id(round * 10), 1_000, T0)).unwrap();
            assert!(matches!(again, Reopened::Suspended(_)), "{again:?}");
            assert_eq!(block(ledger.suspensions()).unwrap().len(), 1);
        }
        block(b.resume(scope, "bob".into(), T0)).unwrap();
        assert!(matches!(block(c.reopen(payment_id(n), 1_000, T0)).unwrap(), Reopened::Open { .. }));

        // A policy set that an operator withdrew grants nothing any more.
        block(c.require_generation(round + 2)).unwrap();
        for (ledger, n) in [(a, n + 3), (b, n + 4)] {
            let stale = Commit { generation: round + 1, ..commit(n, T0, &lifetime(1 << 40, 1)) };
            assert_eq!(refused(ledger, stale), Refusal::Stale);
            assert_eq!(block(ledger.reopen(payment_id(round * 10), round + 1, T0)), Ok(Reopened::Stale));
        }
        granted(a, Commit { generation: round + 2, ..commit(n + 5, T0, &lifetime(1 << 40, 1)) });
    }
    three.end();
}

#[test]
fn an_approval_given_at_one_gateway_is_used_once_at_another() {
    let three = Three::new();
    let [a, b, _] = &three.ledgers;
    for n in 1..=15 {
        reviewed(a, in_review(n, T0, &lifetime(1 << 40, 3)));
        assert_eq!(block(b.approvals(true)).unwrap().len(), 1);
        let votes = three.together(|gateway, ledger| block(ledger.vote(cast(n, &format!("o{gateway}"), true, T0))));
        assert!(votes.iter().any(Result::is_ok), "{votes:?}");
        let resumed = three.together(|_, ledger| block(ledger.commit(resumed(n, T0, &lifetime(1 << 40, 3)))));
        let granted = resumed.iter().filter(|r| matches!(r, Ok(Committed::Granted { .. }))).count();
        assert_eq!(granted, 1, "{resumed:?}");
        for ledger in &three.ledgers {
            assert_eq!(block(ledger.approval(approval_id(n))).unwrap().unwrap().state, ApprovalState::Used);
            assert_eq!(used(ledger, "b", T0), (n * 3, 0));
        }
    }
    three.end();
}

#[test]
fn what_comes_back_and_what_is_final_is_booked_once() {
    let three = Three::new();
    let [a, b, c] = &three.ledgers;
    for n in 1..=10 {
        let holds = vec![of_policy(&hold("b", Window::Lifetime, 1 << 40, 1_000), T0)];
        granted(a, Commit { holds, ..commit(n, T0, &[]) });
        step(b, event(n, State::Signed, Event::Redeemed, T0)).unwrap();
        let (_, before) = used(c, "b", T0);
        let booked = three.together(|_, ledger| block(ledger.refund(came_back(n, 400, n))));
        assert!(booked.contains(&Ok(State::Refunded)), "{booked:?}");
        for ledger in &three.ledgers {
            let view = block(ledger.payment(payment_id(n))).unwrap().unwrap();
            assert_eq!(view.state, State::Refunded, "{booked:?}");
            assert_eq!(used(ledger, "b", T0), (0, before - 400), "credited once");
        }
        let block_of = Finalized { network: "eip155:84532".into(), block: n, hash: hash(n), time: T0.as_secs() + n };
        let told = three.together(|_, ledger| block(ledger.finalized(block_of.clone(), at(n + 10))));
        assert!(told.iter().any(Result::is_ok), "{told:?}");
    }
    three.end();
}

#[test]
fn what_one_gateway_was_answered_every_other_sees() {
    let three = Three::new();
    let seen = AtomicU64::new(0);
    // Each gateway writes; what it was answered, the next one reads, while all of them go on.
    let checked: u64 = three
        .together(|gateway, ledger| {
            let mut checked = 0;
            for turn in 0..40 {
                let n = 1 + turn * 3 + gateway;
                granted(ledger, commit(n, T0, &lifetime(1 << 40, 1)));
                let least = seen.fetch_add(1, Ordering::SeqCst) + 1;
                let next = &three.ledgers[usize::try_from((gateway + 1) % 3).unwrap()];
                assert_eq!(state(next, n), State::Signed);
                let (held, _) = used(next, "b", T0);
                assert!(held >= least, "{held} after {least} were answered");
                step(next, event(n, State::Signed, Event::Receipt, T0)).unwrap();
                assert_eq!(state(ledger, n), State::Seen);
                checked += 1;
            }
            checked
        })
        .into_iter()
        .sum();
    assert_eq!((checked, used(&three.ledgers[2], "b", T0)), (120, (120, 0)));
    three.end();
}

/// The callers' clock: it only rises.
static MOMENT: AtomicU64 = AtomicU64::new(1);

fn moment() -> u64 {
    MOMENT.fetch_add(1, Ordering::SeqCst)
}

#[test]
fn what_callers_of_three_gateways_saw_has_an_order() {
    const LIMIT: u64 = 100;
    let three = Three::new();
    let (mut lies, mut found) = (0_u64, 0_u64);
    for window in 0..30_u64 {
        let calls = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for caller in 0..6_u64 {
                let (calls, three) = (&calls, &three);
                scope.spawn(move || {
                    let mut dice = Dice::new(window * 10 + caller);
                    let n = window * 100 + caller;
                    let amount = 20 + dice.below(40);
                    let budget = hold(&format!("w{window}"), Window::Lifetime, LIMIT, amount);
                    let ledger = &three.ledgers[usize::try_from(caller % 3).unwrap()];
                    let asked = moment();
                    let told = match put(ledger, commit(n, T0, &[budget])) {
                        Committed::Granted { .. } => Told::Done,
                        Committed::Refused(Refusal::Budget(why)) => Told::Full(why.used),
                        other => panic!("{other:?}"),
                    };
                    let call = Call { asks: Asked::Take(amount), asked, answered: Some((moment(), told)) };
                    calls.lock().unwrap().push(call);
                    if told == Told::Done && dice.below(2) == 0 {
                        let asked = moment();
                        step(ledger, event(n, State::Signed, Event::SignerRefused, T0)).unwrap();
                        let call = Call { asks: Asked::Give(amount), asked, answered: Some((moment(), Told::Done)) };
                        calls.lock().unwrap().push(call);
                    }
                });
            }
        });
        let mut calls = calls.into_inner().unwrap();
        order(LIMIT, 0, &calls).unwrap_or_else(|why| panic!("window {window}: {why}\n{calls:#?}"));
        // The same with one answer changed.
        let quotes = calls.iter_mut().filter_map(|call| call.answered.as_mut());
        if let Some((_, Told::Full(used))) = quotes.into_iter().find(|(_, told)| *told != Told::Done) {
            *used += 1;
            lies += 1;
            found += u64::from(order(LIMIT, 0, &calls).is_err());
        }
    }
    assert!(lies > 10 && found * 2 > lies, "{found} of {lies} lies were found");
    three.end();
}

#[test]
fn whoever_wrote_a_payload_cannot_free_it_once_another_may_have_signed_it() {
    let three = Three::new();
    let [a, b, c] = &three.ledgers;
    granted(a, commit(1, T0, &lifetime(9, 4)));
    let Reopened::Open { signature: None, .. } = block(b.reopen(payment_id(1), 1_000, T0)).unwrap() else {
        panic!("it is open and was never signed")
    };
    // What B signs now is not written down yet, and A's wallet refuses: nobody may say that there is no signature.
    for ledger in [a, c, b] {
        let refused = step(ledger, event(1, State::Signed, Event::SignerRefused, T0));
        if std::ptr::eq(ledger, b) {
            // B's own word would count, and its flow never gives it for what it reopened.
            assert_eq!(refused, Ok(State::Released));
        } else {
            assert!(matches!(refused, Err(LedgerError::Conflict(_))), "{refused:?}");
            assert_eq!(used(c, "b", T0), (4, 0));
        }
    }
    three.end();
}

#[test]
fn a_payment_handed_out_at_one_gateway_is_not_handed_out_twice_at_another() {
    let three = Three::new();
    let [a, b, _] = &three.ledgers;
    let handed_out = |n: u64| {
        let mut commit = commit(n, T0, &lifetime(90, 4));
        commit.fingerprint = fingerprint(7);
        let fact = countersign_core::spend::Attribute { name: "door".into(), value: "sign".into() };
        commit.decisions[0].request.facts.push(fact);
        commit
    };
    granted(a, handed_out(1));
    assert_eq!(refused(b, handed_out(2)), Refusal::Live(payment_id(1)));
    // Another request is another purchase, and one that ended is no obstacle.
    granted(b, Commit { fingerprint: fingerprint(8), ..handed_out(3) });
    step(a, event(1, State::Signed, Event::SignerRefused, T0)).unwrap();
    granted(b, handed_out(4));
    three.end();
}

#[test]
fn a_clock_that_is_ahead_of_the_servers_writes_nothing() {
    let (_, database) = database();
    let gateway = Gateway::new();
    // The tests' own time is ahead of the server's already.
    let refused = gateway.try_open(&database.clone().in_step(300_000)).unwrap_err();
    assert!(refused.to_string().contains("ahead of the database server's"), "{refused}");
    let ledger = gateway.open(&database);
    granted(&ledger, commit(1, T0, &lifetime(9, 4)));
    drop(ledger);
    gateway.check(&database);
}
