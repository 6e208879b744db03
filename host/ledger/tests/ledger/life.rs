//! A payment after its commit, and what a crash leaves of it.

use countersign_core::ledger::{
    Denial, Evidence, Ledger, LedgerError, Reopened, Suspension, SuspensionScope, Transition,
};
use countersign_core::payment::{Effect, Event, State, transition};
use countersign_core::verdict::Window;

use crate::common::*;

/// Brings a fresh payment `n`, holding 10, to a state.
fn bring(ledger: &countersign_ledger::SqliteLedger, n: u64, to: State) {
    let holds = [hold("b", Window::Lifetime, 1 << 40, 10)];
    let then = |from, what| step(ledger, event(n, from, what, T0)).map(drop).unwrap();
    match to {
        State::Denied => drop(block(ledger.deny(Denial { fingerprint: fingerprint(n), ..denial(n, T0) })).unwrap()),
        State::Review => drop(reviewed(ledger, in_review(n, T0, &holds))),
        _ => granted(ledger, commit(n, T0, &holds)),
    }
    match to {
        State::Redeemable => then(State::Signed, Event::Ambiguous),
        State::Seen => then(State::Signed, Event::Receipt),
        State::Stuck => then(State::Signed, Event::Contradicted),
        State::Settled | State::Refunded | State::Disputed => then(State::Signed, Event::Redeemed),
        State::Released => then(State::Signed, Event::SignerRefused),
        State::Denied | State::Review | State::Signed => {}
    }
    match to {
        State::Refunded => drop(block(ledger.refund(said_back(n, 1, "r"))).unwrap()),
        State::Disputed => then(State::Settled, Event::Dispute),
        _ => {}
    }
    assert_eq!(state(ledger, n), to);
}

#[test]
fn every_state_takes_exactly_the_events_of_the_table() {
    let rig = Rig::new();
    let ledger = rig.open();
    let mut n = 0;
    for from in State::ALL {
        for what in Event::ALL {
            n += 1;
            bring(&ledger, n, from);
            if (from, what) == (State::Disputed, Event::Redressed) {
                block(ledger.refund(said_back(n, 1, "r"))).unwrap();
            }
            let before = used(&ledger, "b", T0);
            let done = match what {
                Event::Refund => block(ledger.refund(said_back(n, 1, "again"))),
                _ => step(&ledger, event(n, from, what, T0)),
            };
            let after = used(&ledger, "b", T0);
            // Resuming replaces holds, and only a commit brings fresh ones.
            match transition(from, what).filter(|_| what != Event::Resume) {
                Some(rule) => {
                    assert_eq!(done, Ok(rule.to), "{from:?} {what:?}");
                    assert_eq!(state(&ledger, n), rule.to);
                    let moved = match rule.effect {
                        // What a person says came back moves no counter.
                        Effect::Keep | Effect::Replace | Effect::Refund => (0, 0),
                        Effect::Release => (10, 0),
                        Effect::Settle => (10, 10),
                    };
                    assert_eq!((before.0 - after.0, after.1 - before.1), moved, "{from:?} {what:?}");
                }
                None => {
                    assert!(matches!(done, Err(LedgerError::Conflict(_))), "{from:?} {what:?}: {done:?}");
                    assert_eq!((state(&ledger, n), after), (from, before), "nothing was changed");
                }
            }
        }
    }
    drop(ledger);
    rig.check();
}

#[test]
fn a_state_seen_wrongly_changes_nothing() {
    let rig = Rig::new();
    let ledger = rig.open();
    bring(&ledger, 1, State::Redeemable);
    let late = step(&ledger, event(1, State::Signed, Event::Ambiguous, T0));
    assert!(matches!(late, Err(LedgerError::Conflict(_))));
    assert_eq!(step(&ledger, event(9, State::Signed, Event::Ambiguous, T0)), Err(LedgerError::NotFound));
}

#[test]
fn a_signer_cannot_refuse_once_a_signature_may_exist() {
    let rig = Rig::new();
    let ledger = rig.open();
    bring(&ledger, 1, State::Signed);
    block(ledger.store_signature(payment_id(1), signature(1))).unwrap();
    let refusal = step(&ledger, event(1, State::Signed, Event::SignerRefused, T0));
    assert!(matches!(refusal, Err(LedgerError::Conflict(_))), "{refusal:?}");
    assert_eq!(used(&ledger, "b", T0), (10, 0));
}

#[test]
fn a_signature_is_stored_once() {
    let rig = Rig::new();
    let ledger = rig.open();
    bring(&ledger, 1, State::Signed);
    bring(&ledger, 2, State::Review);
    let store = |n, s| block(ledger.store_signature(payment_id(n), signature(s)));
    assert_eq!(store(1, 1), Ok(()));
    assert_eq!(store(1, 1), Ok(()), "the same again is no other");
    assert!(matches!(store(1, 2), Err(LedgerError::Conflict(_))));
    assert!(matches!(store(2, 1), Err(LedgerError::Conflict(_))), "there is nothing to sign");
    assert_eq!(store(9, 1), Err(LedgerError::NotFound));
}

#[test]
fn what_was_in_flight_when_the_process_ended_is_out_there() {
    let rig = Rig::new();
    let ledger = rig.open();
    for (n, to) in [(1, State::Signed), (2, State::Seen), (3, State::Review)] {
        bring(&ledger, n, to);
    }
    assert_eq!(ledger.epoch(), 1);
    drop(ledger);
    let ledger = rig.open_at(at(100));
    assert_eq!(ledger.epoch(), 2);
    assert_eq!([1, 2, 3].map(|n| state(&ledger, n)), [State::Redeemable, State::Seen, State::Review]);
    let view = block(ledger.payment(payment_id(1))).unwrap().unwrap();
    let last = view.history.last().unwrap();
    assert!(last.why.contains("process ended") && last.at == at(100), "{last:?}");
    assert_eq!(used(&ledger, "b", T0), (30, 0), "nothing was freed");
    drop(ledger);
    rig.check();
}

#[test]
fn a_stored_payload_is_presented_again_and_recorded() {
    let rig = Rig::new();
    let ledger = rig.open();
    bring(&ledger, 1, State::Signed);
    let reopen = |n, moment| block(ledger.reopen(payment_id(n), 1, moment));
    let open = |signature| Reopened::Open { authorization: authorization(1, at(60)), signature };
    assert_eq!(reopen(1, T0), Ok(open(None)));
    block(ledger.store_signature(payment_id(1), signature(1))).unwrap();
    assert_eq!(reopen(1, at(54)), Ok(open(Some(signature(1)))));
    assert_eq!(reopen(1, at(55)), Ok(Reopened::Expired), "five seconds are too few");
    let stop = Suspension {
        scope: SuspensionScope::Wallet("research".into()),
        by: "alice".into(),
        reason: String::new(),
        at: T0,
    };
    block(ledger.suspend(stop)).unwrap();
    assert_eq!(reopen(1, T0), Ok(Reopened::Suspended("wallet research".into())));
    block(ledger.resume(SuspensionScope::Wallet("research".into()), "alice".into(), T0)).unwrap();
    bring(&ledger, 2, State::Review);
    bring(&ledger, 3, State::Released);
    bring(&ledger, 4, State::Settled);
    assert_eq!(reopen(2, T0), Ok(Reopened::NotOpen(State::Review)));
    assert_eq!(reopen(3, T0), Ok(Reopened::NotOpen(State::Released)));
    assert!(matches!(reopen(4, T0), Ok(Reopened::Open { .. })), "its answer never arrived");
    block(ledger.answered(payment_id(4), None, true, T0)).unwrap();
    assert_eq!(reopen(4, T0), Ok(Reopened::NotOpen(State::Settled)));
    assert_eq!(reopen(9, T0), Err(LedgerError::NotFound));
    drop(ledger);
    let kind = "SELECT count(*) FROM audit WHERE kind='represented'";
    let recorded: u32 = rig.raw().query_row(kind, [], |r| r.get(0)).unwrap();
    assert_eq!(recorded, 3, "each time it was opened, and only then");
}

#[test]
fn evidence_stays_when_later_news_brings_none() {
    let rig = Rig::new();
    let ledger = rig.open();
    bring(&ledger, 1, State::Signed);
    let view = || block(ledger.payment(payment_id(1))).unwrap().unwrap();
    let receipt = Box::new(Evidence { transaction: Some("0xaa".into()), ..Evidence::default() });
    step(&ledger, Transition { evidence: Some(receipt.clone()), ..event(1, State::Signed, Event::Receipt, T0) })
        .unwrap();
    assert_eq!(view().evidence, Some(receipt.clone()));
    step(&ledger, event(1, State::Seen, Event::Receipt, T0)).unwrap();
    assert_eq!((view().transaction.as_deref(), view().evidence), (Some("0xaa"), Some(receipt)));
    let other = Box::new(Evidence { block: Some(9), ..Evidence::default() });
    step(&ledger, Transition { evidence: Some(other.clone()), ..event(1, State::Seen, Event::Receipt, T0) }).unwrap();
    assert_eq!((view().transaction.as_deref(), view().evidence), (Some("0xaa"), Some(other)));
    step(&ledger, event(1, State::Seen, Event::Reorganised, T0)).unwrap();
    assert_eq!((view().transaction, view().evidence), (None, None), "that transaction is no more");
    step(&ledger, event(1, State::Redeemable, Event::Redeemed, T0)).unwrap();
    assert_eq!((view().transaction, view().evidence), (Some(hash(0xaa)), Some(redemption(None))));
    let file =
        Box::new(Evidence { document: Some("ab".repeat(32)), transaction: Some(hash(1)), ..Evidence::default() });
    step(&ledger, Transition { evidence: Some(file), ..event(1, State::Settled, Event::Dispute, T0) }).unwrap();
    let proof = Evidence { document: Some("ab".repeat(32)), ..*redemption(None) };
    assert_eq!((view().transaction, view().evidence), (Some(hash(0xaa)), Some(Box::new(proof))), "a proof stays");
}

#[test]
fn the_file_itself_refuses_what_must_not_be() {
    let rig = Rig::new();
    let ledger = rig.open();
    bring(&ledger, 1, State::Signed);
    bring(&ledger, 2, State::Settled);
    bring(&ledger, 3, State::Review);
    drop(ledger);
    let raw = rig.raw();
    let id = |n| hex::encode(payment_id(n).as_bytes());
    for (sql, says) in [
        (format!("UPDATE payment SET payload=x'00' WHERE id=x'{}'", id(1)), "written once"),
        (format!("UPDATE payment SET nonce=zeroblob(32) WHERE id=x'{}'", id(1)), "written once"),
        (format!("UPDATE payment SET state=5 WHERE id=x'{}'", id(2)), "no such step"),
        (format!("UPDATE payment SET state=8 WHERE id=x'{}'", id(2)), "no such step"),
        (format!("UPDATE payment SET redeemed=zeroblob(32) WHERE id=x'{}'", id(2)), "written once"),
        (format!("UPDATE payment SET state=7 WHERE id=x'{}'", id(1)), "CHECK"),
        (format!("UPDATE payment SET state=4 WHERE id=x'{}'", id(3)), "CHECK"),
        (format!("DELETE FROM payment WHERE id=x'{}'", id(1)), "not deleted"),
        ("UPDATE budget_window SET lim=1".to_owned(), "CHECK"),
        ("UPDATE budget_window SET held=-1".to_owned(), "CHECK"),
        ("UPDATE budget_window SET mark=-1".to_owned(), "never goes back"),
        ("UPDATE hold SET amount=0".to_owned(), "CHECK"),
        ("UPDATE audit SET body=x'00'".to_owned(), "not changed"),
        ("DELETE FROM audit".to_owned(), "not deleted"),
    ] {
        let refusal = raw.execute_batch(&sql).unwrap_err().to_string();
        assert!(refusal.contains(says), "{sql}: {refusal}");
    }
}
