//! What moves money after a payment was signed: proofs, refunds, disputes, finality.

use std::collections::BTreeSet;

use countersign_core::ledger::{
    Commit, Evidence, FactsQuery, Finalized, Ledger, LedgerError, PaymentFilter, PaymentView, Refund, RefundSource,
    Reopened, Transition,
};
use countersign_core::money::Atomic;
use countersign_core::payment::{Event, State, TRANSITIONS};
use countersign_core::verdict::{Hold, Unit, Window};
use countersign_ledger::SqliteLedger;

use crate::common::*;

/// A payment of 1,000 units with a hold of a policy's (10), of counts (3) and of the host's own (10), each in a
/// budget of its own kind of window.
fn three(n: u64) -> Commit {
    let count = Hold { unit: Unit::Count, ..hold("count", Window::Rolling(3_600), 100, 3) };
    let policy = hold("policy", Window::Rolling(3_600), 1_000, 10);
    let mut c = commit(n, T0, &[hold("host", Window::Day(String::new()), 1_000, 10)]);
    c.holds.extend([of_policy(&policy, T0), of_policy(&count, T0)]);
    c
}

fn view(ledger: &SqliteLedger, n: u64) -> PaymentView {
    block(ledger.payment(payment_id(n))).unwrap().unwrap()
}

/// (spent, refunded) of the three holds: host, policy, count.
fn holds(ledger: &SqliteLedger, n: u64) -> Vec<(u64, u64)> {
    view(ledger, n).holds.iter().map(|h| (h.spent, h.refunded)).collect()
}

fn with(t: Transition, evidence: Option<Box<Evidence>>) -> Transition {
    Transition { evidence, ..t }
}

fn conflict<T: std::fmt::Debug>(done: Result<T, LedgerError>, says: &str) {
    match done {
        Err(LedgerError::Conflict(why)) => assert!(why.contains(says), "{why}"),
        other => panic!("{other:?}, not a conflict about `{says}`"),
    }
}

#[test]
fn the_file_knows_the_same_steps_as_the_table() {
    let rig = Rig::new();
    drop(rig.open());
    let raw = rig.raw();
    let sql = "SELECT sql FROM sqlite_schema WHERE name='payment_step'";
    let trigger: String = raw.query_row(sql, [], |r| r.get(0)).unwrap();
    let list = trigger.split("NOT IN").nth(1).unwrap().split(['(', ')']).nth(1).unwrap();
    let file: Vec<u32> = list.split(',').map(|n| n.trim().parse().unwrap()).collect();
    let number = |from: State, to: State| u32::from(from.number()) * 100 + u32::from(to.number());
    let steps = TRANSITIONS.iter().filter(|r| r.from != r.to).map(|r| number(r.from, r.to));
    let table: BTreeSet<u32> = steps.collect();
    assert_eq!(file, table.into_iter().collect::<Vec<_>>());
    let sql = "SELECT sql FROM sqlite_schema WHERE name='payment'";
    let payment: String = raw.query_row(sql, [], |r| r.get(0)).unwrap();
    let payment = payment.split_whitespace().collect::<Vec<_>>().join(" ");
    let listed = |which: fn(State) -> bool| {
        let states = State::ALL.into_iter().filter(|s| which(*s)).map(|s| format!("state={}", s.number()));
        states.collect::<Vec<_>>().join(" OR ")
    };
    for check in [
        format!("CHECK( {})", listed(|_| true)),
        format!("CHECK(payload IS NOT NULL OR NOT ({}))", listed(State::has_authorization)),
        format!("({})=(redeemed", listed(State::is_spent)),
    ] {
        assert!(payment.contains(&check), "{check}");
    }
    let open: u32 = raw
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type='index' AND sql LIKE ?1",
            [format!("%WHERE {}", listed(State::is_open))],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(open, 3, "seller, payee and agent are capped by every open payment");
}

#[test]
fn a_redemption_of_less_settles_that_part_and_gives_the_rest_back() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, three(1));
    let part = event(1, State::Signed, Event::Redeemed, T0);
    assert_eq!(step(&ledger, with(part, Some(redemption(Some(333))))), Ok(State::Settled));
    assert_eq!(used(&ledger, "host", T0), (0, 4), "3.33 of 10, rounded up");
    assert_eq!(used(&ledger, "policy", T0), (0, 4));
    assert_eq!(used(&ledger, "count", T0), (0, 3), "a purchase is a purchase");
    assert_eq!(holds(&ledger, 1), [(4, 0), (4, 0), (3, 0)]);
    assert_eq!(view(&ledger, 1).evidence, Some(redemption(Some(333))));
    drop(ledger);
    rig.check();
}

#[test]
fn what_has_aged_is_credited_by_what_was_not_redeemed() {
    for (proof, stays) in [(Some(redemption(Some(333))), 4), (None, 0)] {
        let rig = Rig::new();
        let ledger = rig.open();
        granted(&ledger, three(1));
        let mut small = three(2);
        small.at = at(200);
        small.holds.retain(|h| h.name == "policy");
        granted(&ledger, small);
        assert_eq!(used(&ledger, "policy", at(200)), (10, 10), "the first has aged");
        let what = if proof.is_some() { Event::Redeemed } else { Event::Unused };
        let t = event(1, State::Signed, what, at(200));
        step(&ledger, if proof.is_some() { with(t, proof) } else { t }).unwrap();
        assert_eq!(used(&ledger, "policy", at(200)), (10, stays));
        drop(ledger);
        rig.check();
    }
}

#[test]
fn no_money_moves_without_a_whole_proof() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in 1..=3 {
        granted(&ledger, three(n));
    }
    type Edit = fn(&mut Evidence);
    let strip = |edit: Edit| {
        let (mut redeemed, mut unused) = (redemption(None), non_use(at(60)));
        edit(&mut redeemed);
        edit(&mut unused);
        (Some(redeemed), Some(unused))
    };
    let cases: [(&str, Edit); 5] = [
        ("names its block", |e| e.block = None),
        ("names its block", |e| e.block_hash = None),
        ("names its block", |e| e.block_time = None),
        ("64 hex digits", |e| e.block_hash = Some("0xab".into())),
        ("64 hex digits", |e| e.transaction = Some("tx".into())),
    ];
    let redeem = |evidence| step(&ledger, with(event(1, State::Signed, Event::Redeemed, T0), evidence));
    let unused = |evidence| step(&ledger, with(event(1, State::Signed, Event::Unused, T0), evidence));
    for (says, edit) in cases {
        let (redeemed, not) = strip(edit);
        conflict(redeem(redeemed), says);
        conflict(unused(not), says);
    }
    conflict(redeem(None), "names its block");
    conflict(unused(None), "names its block");
    conflict(redeem(Some(non_use(at(60)))), "has a transaction");
    conflict(redeem(Some(redemption(Some(1_001)))), "contradicts what was signed");
    conflict(redeem(Some(redemption(Some(0)))), "contradicts what was signed");
    // Valid before 60 s: a block of second 59 may still be followed by a redemption.
    conflict(unused(Some(non_use(at(59)))), "could still be redeemed");
    assert_eq!((state(&ledger, 1), used(&ledger, "policy", T0)), (State::Signed, (30, 0)), "nothing was moved");
    assert_eq!(unused(Some(non_use(at(60)))), Ok(State::Released));
    // A cancellation ends it earlier.
    let cancelled = Evidence { transaction: Some(hash(0xcc)), ..*non_use(at(1)) };
    let t = with(event(2, State::Signed, Event::Unused, T0), Some(Box::new(cancelled)));
    assert_eq!(step(&ledger, t), Ok(State::Released));
    assert_eq!(view(&ledger, 2).transaction, None, "it settled nothing");
    assert_eq!(used(&ledger, "policy", T0), (10, 0));
    drop(ledger);
    rig.check();
}

#[test]
fn what_came_back_on_the_chain_is_credited_where_it_was_spent() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, three(1));
    conflict(block(ledger.refund(came_back(1, 1, 0))), "knows no refund");
    step(&ledger, event(1, State::Signed, Event::Redeemed, T0)).unwrap();
    conflict(step(&ledger, event(1, State::Settled, Event::Refund, T0)), "its amount and source");
    conflict(block(ledger.refund(came_back(1, 0, 0))), "refund of nothing");
    conflict(block(ledger.refund(came_back(1, 1_001, 0))), "of 1000 redeemed");
    // Three times 333 of 1,000: 3.33, 6.66 and 9.99 of 10, rounded down in all.
    for (log, credited) in [(1, 3), (2, 6), (3, 9)] {
        assert_eq!(block(ledger.refund(came_back(1, 333, log))), Ok(State::Refunded));
        assert_eq!(holds(&ledger, 1), [(10, 0), (10, credited), (3, 0)]);
        assert_eq!(used(&ledger, "policy", T0), (0, 10 - credited));
    }
    conflict(block(ledger.refund(came_back(1, 2, 4))), "of 1000 redeemed");
    block(ledger.refund(came_back(1, 1, 4))).unwrap();
    assert_eq!(used(&ledger, "policy", T0), (0, 0));
    assert_eq!(used(&ledger, "host", T0), (0, 10), "the host's own wall stands");
    assert_eq!(used(&ledger, "count", T0), (0, 3), "it was a purchase all the same");
    let back: Vec<_> = view(&ledger, 1).refunds.iter().map(|r| r.amount.get()).collect();
    assert_eq!(back, [333, 333, 333, 1]);
    drop(ledger);
    rig.check();
}

#[test]
fn a_transfer_is_booked_once_for_ever_however_it_is_spelled() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in [1, 2] {
        granted(&ledger, three(n));
        step(&ledger, event(n, State::Signed, Event::Redeemed, T0)).unwrap();
    }
    block(ledger.refund(came_back(1, 100, 5))).unwrap();
    let upper = RefundSource::Chain { transaction: hash(0xbb).replace("bb", "BB"), log: 5, block: 9 };
    for n in [1, 2] {
        conflict(block(ledger.refund(came_back(n, 100, 5))), &payment_id(1).to_string());
        conflict(block(ledger.refund(Refund { source: upper.clone(), ..came_back(n, 1, 5) })), "booked already");
    }
    let odd = RefundSource::Chain { transaction: "0xbb".into(), log: 6, block: 9 };
    conflict(block(ledger.refund(Refund { source: odd, ..came_back(1, 1, 5) })), "64 hex digits");
    block(ledger.refund(said_back(1, 1, "ticket 7"))).unwrap();
    conflict(block(ledger.refund(said_back(1, 1, "ticket 7"))), "booked already");
    block(ledger.refund(said_back(2, 1, "ticket 7"))).unwrap();
    conflict(block(ledger.refund(said_back(2, 1, ""))), "names them");
    assert_eq!(block(ledger.refund(came_back(9, 1, 6))), Err(LedgerError::NotFound));
    drop(ledger);
    rig.check();
    for sql in ["UPDATE refund SET n=9", "DELETE FROM refund"] {
        assert!(rig.raw().execute_batch(sql).unwrap_err().to_string().contains("refunds are not"), "{sql}");
    }
}

#[test]
fn what_a_person_says_came_back_moves_no_counter_and_counts_to_the_whole() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, three(1));
    step(&ledger, with(event(1, State::Signed, Event::Redeemed, T0), Some(redemption(Some(500))))).unwrap();
    assert_eq!(block(ledger.refund(said_back(1, 400, "a"))), Ok(State::Refunded));
    assert_eq!(used(&ledger, "policy", T0), (0, 5));
    conflict(block(ledger.refund(came_back(1, 101, 1))), "of 500 redeemed");
    block(ledger.refund(came_back(1, 100, 1))).unwrap();
    assert_eq!(used(&ledger, "policy", T0), (0, 4), "a fifth of what was redeemed");
    let refunds = view(&ledger, 1).refunds;
    assert_eq!(refunds, [said_back(1, 400, "a"), came_back(1, 100, 1)]);
    drop(ledger);
    rig.check();
}

#[test]
fn a_refund_goes_to_the_window_of_the_decision_or_nowhere() {
    let rig = Rig::new();
    let ledger = rig.open();
    let day = hold("day", Window::Day(String::new()), 100, 10);
    let hour = hold("hour", Window::Rolling(3_600), 100, 10);
    let buy = |n, moment| {
        let holds = vec![of_policy(&day, moment), of_policy(&hour, moment)];
        granted(&ledger, Commit { holds, ..commit(n, moment, &[]) });
        step(&ledger, event(n, State::Signed, Event::Redeemed, moment)).unwrap();
    };
    buy(1, T0);
    buy(2, at(86_400));
    block(ledger.refund(came_back(1, 1_000, 1))).unwrap();
    assert_eq!(used(&ledger, "day", T0), (0, 0), "yesterday's");
    assert_eq!(used(&ledger, "day", at(86_400)), (0, 10), "not today's");
    assert_eq!(used(&ledger, "hour", at(86_400)), (0, 10), "it had left the hour, which gains nothing");
    assert_eq!(holds(&ledger, 1), [(10, 10), (10, 0)]);
    drop(ledger);
    rig.check();
}

#[test]
fn a_dispute_ends_as_its_refunds_say() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in [1, 2] {
        granted(&ledger, three(n));
        step(&ledger, event(n, State::Signed, Event::Redeemed, T0)).unwrap();
        step(&ledger, event(n, State::Settled, Event::Dispute, T0)).unwrap();
    }
    conflict(step(&ledger, event(1, State::Disputed, Event::Redressed, T0)), "nothing has come back");
    assert_eq!(step(&ledger, event(1, State::Disputed, Event::Dropped, T0)), Ok(State::Settled));
    assert_eq!(block(ledger.refund(came_back(2, 500, 1))), Ok(State::Disputed));
    assert_eq!(used(&ledger, "policy", T0), (0, 15), "credited although the dispute goes on");
    conflict(step(&ledger, event(2, State::Disputed, Event::Dropped, T0)), "something has come back");
    assert_eq!(step(&ledger, event(2, State::Disputed, Event::Redressed, T0)), Ok(State::Refunded));
    assert_eq!(step(&ledger, event(2, State::Refunded, Event::Dispute, T0)), Ok(State::Disputed));
    drop(ledger);
    rig.check();
}

#[test]
fn what_the_chain_contradicts_stays_held_capped_and_unshown() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, three(1));
    step(&ledger, event(1, State::Signed, Event::Contradicted, T0)).unwrap();
    assert_eq!(used(&ledger, "policy", T0), (10, 0));
    assert_eq!(block(ledger.reopen(payment_id(1), 1, T0)), Ok(Reopened::NotOpen(State::Stuck)));
    let mut second = three(2);
    second.caps.unresolved_per_payee = 1;
    let why = refused(&ledger, second);
    assert!(format!("{why:?}").contains("payee"), "{why:?}");
    let joined = block(ledger.unfinished("lab".into(), "scout".into(), fingerprint(1))).unwrap();
    assert_eq!(joined.len(), 1, "nobody buys it again beside it");
    assert_eq!(step(&ledger, event(1, State::Stuck, Event::Redeemed, at(3))), Ok(State::Settled));
    drop(ledger);
    rig.check();
}

#[test]
fn a_caller_of_an_old_generation_is_shown_nothing() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, three(1));
    block(ledger.require_generation(5)).unwrap();
    assert_eq!(block(ledger.reopen(payment_id(1), 4, T0)), Ok(Reopened::Stale));
    assert!(matches!(block(ledger.reopen(payment_id(1), 5, T0)), Ok(Reopened::Open { .. })));
    drop(ledger);
    let kind = "SELECT count(*) FROM audit WHERE kind='represented'";
    assert_eq!(rig.raw().query_row(kind, [], |r| r.get::<_, u32>(0)).unwrap(), 1);
}

#[test]
fn finality_never_goes_back_and_no_block_changes() {
    let rig = Rig::new();
    let ledger = rig.open();
    let block_of =
        |number, tag, time| Finalized { network: "eip155:8453".into(), block: number, hash: hash(tag), time };
    let tell = |f: Finalized| block(ledger.finalized(f, T0));
    assert_eq!(tell(block_of(10, 10, 100)), Ok(()));
    assert_eq!(tell(block_of(10, 10, 100)), Ok(()), "the same again");
    let upper = Finalized { hash: hash(10).replace("00a", "00A"), ..block_of(10, 10, 100) };
    assert_eq!(tell(upper), Ok(()), "however it is spelled");
    assert_eq!(tell(block_of(12, 12, 104)), Ok(()));
    conflict(tell(block_of(11, 11, 102)), "was final up to block 12");
    conflict(tell(block_of(11, 11, 110)), "was final up to block 12");
    conflict(tell(block_of(12, 99, 104)), "not to be believed");
    conflict(tell(block_of(12, 12, 105)), "not to be believed");
    conflict(tell(block_of(13, 13, 103)), "not to be believed");
    conflict(tell(Finalized { hash: "0x1".into(), ..block_of(20, 1, 200) }), "64 hex digits");
    assert_eq!(tell(Finalized { network: "eip155:1".into(), ..block_of(3, 3, 1) }), Ok(()), "another network's own");
    drop(ledger);
    let ledger = rig.open();
    conflict(block(ledger.finalized(block_of(11, 11, 102), T0)), "was final up to block 12");
    // What is remembered never goes back: an absurd answer must not be.
    conflict(block(ledger.finalized(block_of(13, 13, T0.as_secs() + 90_000), T0)), "a block of");
    drop(ledger);
    for sql in ["UPDATE finalized SET block=1", "UPDATE finalized SET hash='x'", "DELETE FROM finalized"] {
        assert!(rig.raw().execute_batch(sql).unwrap_err().to_string().contains("never goes back"), "{sql}");
    }
}

#[test]
fn figures_forget_what_was_never_redeemed_and_keep_what_was_refunded() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in 1..=3 {
        granted(&ledger, three(n));
    }
    step(&ledger, event(1, State::Signed, Event::Unused, T0)).unwrap();
    step(&ledger, event(2, State::Signed, Event::Redeemed, T0)).unwrap();
    block(ledger.refund(came_back(2, 1_000, 1))).unwrap();
    let f = facts();
    let query = FactsQuery {
        key: key(9),
        session: None,
        host: f.host,
        pay_to: f.pay_to,
        method: f.method,
        path: f.path,
        fingerprint: fingerprint(2),
        amount: Atomic::new(1_000),
        at: T0,
    };
    let facts = block(ledger.facts(query)).unwrap();
    for tally in [facts.history.agent_hour, facts.history.agent_day, facts.history.seller_lifetime] {
        assert_eq!((tally.count, tally.value), (2, micros(2_000)), "the second and the third");
    }
    assert_eq!(facts.history.repeats, 1, "the refunded one was bought");
    assert_eq!((facts.seller.host_first_paid, facts.seller.last_price), (Some(T0), Some(micros(1_000))));
    let listed =
        |states| block(ledger.payments(PaymentFilter { states, limit: 9, ..PaymentFilter::default() })).unwrap();
    assert_eq!(listed(vec![State::Refunded]).len(), 1);
}

#[test]
fn checking_finds_what_proofs_and_refunds_do_not_bear_out() {
    for damage in [
        "UPDATE hold SET refunded=refunded+1 WHERE refunded>0; UPDATE budget_window SET spent=spent-1 WHERE spent>1;
         UPDATE bucket SET spent=spent-1 WHERE spent>1",
        "UPDATE payment SET redeemed=(SELECT amount FROM refund) WHERE state=9",
        "UPDATE payment SET evidence=NULL WHERE state=9",
        "DELETE FROM refund",
        "UPDATE payment SET state=7 WHERE state=9; UPDATE step SET state=7 WHERE state=9",
        "UPDATE step SET event='receipt' WHERE event='redeemed'",
        "UPDATE hold SET settled=9 WHERE settled=10 AND refunded=0",
    ] {
        let rig = Rig::new();
        let ledger = rig.open();
        granted(&ledger, three(1));
        step(&ledger, event(1, State::Signed, Event::Redeemed, T0)).unwrap();
        block(ledger.refund(came_back(1, 500, 1))).unwrap();
        drop(ledger);
        rig.check();
        let raw = rig.raw();
        raw.execute_batch("PRAGMA ignore_check_constraints=ON; PRAGMA foreign_keys=OFF;").unwrap();
        for kind in ["payment_step", "payment_redeemed", "refund_kept", "refund_unchanged"] {
            raw.execute_batch(&format!("DROP TRIGGER {kind}")).unwrap();
        }
        raw.execute_batch(damage).unwrap();
        drop(raw);
        let found = countersign_ledger::check_integrity(&rig.path).unwrap();
        assert!(!found.states.is_empty(), "{damage}: {found:#?}");
    }
}
