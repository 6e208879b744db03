//! What became of what was bought, and what people approved: the facts policies are told.

use countersign_core::ledger::{Approved, Facts, FactsQuery, Ledger, LedgerError, Reporter, Use, UseReport};
use countersign_core::payment::{Event, State};
use countersign_ledger::SqliteLedger;

use crate::common::*;

fn query(n: u64) -> FactsQuery {
    FactsQuery { fingerprint: fingerprint(0), at: at(1_000), ..facts_query(n) }
}

fn known(ledger: &SqliteLedger) -> Facts {
    block(ledger.facts(query(99))).unwrap()
}

/// (judged, useful) by people, then by agents.
fn judged(ledger: &SqliteLedger) -> [u32; 4] {
    let f = known(ledger);
    [f.seller.judged, f.seller.useful, f.agent_judged, f.agent_useful]
}

fn says(reporter: Reporter, used: Use) -> UseReport {
    let by = if reporter == Reporter::Agent { "scout" } else { "alice" };
    UseReport { reporter, by: by.into(), used, note: None, artifact: None, at: at(100) }
}

fn report(ledger: &SqliteLedger, n: u64, report: UseReport) -> Result<(), LedgerError> {
    block(ledger.report_use(payment_id(n), report))
}

fn settle(ledger: &SqliteLedger, n: u64) {
    step(ledger, event(n, State::Signed, Event::Redeemed, at(50))).unwrap();
}

#[test]
fn rule_15_seller_facts_count_only_settled_purchases_of_the_same_workspace() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in 1..=3 {
        granted(&ledger, commit(n, at(n), &[]));
        report(&ledger, n, says(Reporter::Person, Use::Cited)).unwrap();
    }
    let nothing = known(&ledger).seller;
    assert_eq!((nothing.host_first_paid, nothing.last_price, nothing.judged), (None, None, 0), "nothing is proven yet");
    settle(&ledger, 1);
    let one = known(&ledger).seller;
    assert_eq!((one.host_first_paid, one.last_price, one.judged), (Some(at(1)), Some(micros(1_000)), 1));
    step(&ledger, event(2, State::Signed, Event::SignerRefused, at(50))).unwrap();
    step(&ledger, event(3, State::Signed, Event::Receipt, at(50))).unwrap();
    assert_eq!(known(&ledger).seller, one, "a seller's receipt proves nothing");
    let mut elsewhere = query(99);
    elsewhere.key.workspace = "other".into();
    let other = block(ledger.facts(elsewhere)).unwrap().seller;
    assert_eq!((other.host_first_paid, other.pay_to_first_paid, other.last_price, other.judged), (None, None, None, 0));
}

#[test]
fn rule_15_agents_and_people_judge_apart_and_a_second_word_replaces_the_first() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in 1..=2 {
        granted(&ledger, commit(n, at(n), &[]));
    }
    settle(&ledger, 1);
    report(&ledger, 1, says(Reporter::Agent, Use::Used)).unwrap();
    assert_eq!(judged(&ledger), [0, 0, 1, 1], "an agent's praise is not a person's");
    report(&ledger, 1, says(Reporter::Person, Use::Wrong)).unwrap();
    assert_eq!(judged(&ledger), [1, 0, 1, 1]);
    report(&ledger, 1, says(Reporter::Person, Use::Partly)).unwrap();
    assert_eq!(judged(&ledger), [1, 1, 1, 1]);
    report(&ledger, 1, says(Reporter::Agent, Use::Unused)).unwrap();
    assert_eq!(judged(&ledger), [1, 1, 1, 0]);
    // Said before it was proven: it counts from the proof on, with the last word.
    report(&ledger, 2, says(Reporter::Agent, Use::Unused)).unwrap();
    report(&ledger, 2, says(Reporter::Agent, Use::Cited)).unwrap();
    assert_eq!(judged(&ledger), [1, 1, 1, 0]);
    settle(&ledger, 2);
    assert_eq!(judged(&ledger), [1, 1, 2, 1]);
    drop(ledger);
    rig.check();
}

#[test]
fn a_word_is_recorded_once_and_only_about_what_was_bought() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, at(1), &[]));
    block(ledger.deny(denial(2, at(1)))).unwrap();
    reviewed(&ledger, in_review(3, at(1), &[]));
    assert!(matches!(report(&ledger, 2, says(Reporter::Agent, Use::Used)), Err(LedgerError::Conflict(_))));
    assert!(matches!(report(&ledger, 3, says(Reporter::Agent, Use::Used)), Err(LedgerError::Conflict(_))));
    assert_eq!(report(&ledger, 9, says(Reporter::Agent, Use::Used)), Err(LedgerError::NotFound));
    let records = || -> u64 {
        let sql = "SELECT count(*) FROM audit WHERE kind='use-reported'";
        rig.raw().query_row(sql, [], |r| r.get(0)).unwrap()
    };
    let long = UseReport { note: Some("n".repeat(1_000)), ..says(Reporter::Agent, Use::Cited) };
    report(&ledger, 1, long.clone()).unwrap();
    report(&ledger, 1, UseReport { at: at(200), ..long }).unwrap();
    assert_eq!(records(), 1, "the same word again is no news");
    report(&ledger, 1, says(Reporter::Agent, Use::Wrong)).unwrap();
    report(&ledger, 1, says(Reporter::Person, Use::Used)).unwrap();
    assert_eq!(records(), 3);
    let uses = block(ledger.payment(payment_id(1))).unwrap().unwrap().uses;
    assert_eq!(
        uses.iter().map(|u| (u.reporter, u.used)).collect::<Vec<_>>(),
        [(Reporter::Person, Use::Used), (Reporter::Agent, Use::Wrong)]
    );
    let note: String = rig
        .raw()
        .query_row("SELECT text(body) FROM audit WHERE kind='use-reported' ORDER BY seq LIMIT 1", [], |r| r.get(0))
        .unwrap();
    assert!(note.len() < 700 && note.contains("sha256:"), "{note}");
    drop(ledger);
    rig.check();
}

#[test]
fn rule_15_drift_is_measured_from_what_a_person_approved() {
    let rig = Rig::new();
    let ledger = rig.open();
    let approved = || known(&ledger).approved;
    granted(&ledger, commit(1, at(1), &[]));
    settle(&ledger, 1);
    assert_eq!(approved(), None, "paid is not approved");
    reviewed(&ledger, in_review(2, at(2), &[]));
    assert_eq!(approved(), None, "asked is not approved");
    block(ledger.vote(cast(2, "alice", false, at(3)))).unwrap();
    assert_eq!(approved(), None, "a no is none");
    reviewed(&ledger, in_review(3, at(4), &[]));
    block(ledger.vote(cast(3, "alice", true, at(5)))).unwrap();
    let first = Approved { pay_to: facts().pay_to, value: micros(1_000) };
    assert_eq!(approved(), Some(first.clone()));

    // Paid at another price and payee since, and the answer is the same.
    let mut dearer = commit(4, at(6), &[]);
    dearer.facts.value = micros(9_000);
    dearer.facts.pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".into();
    granted(&ledger, dearer);
    settle(&ledger, 4);
    assert_eq!(known(&ledger).seller.last_price, Some(micros(9_000)));
    assert_eq!(approved(), Some(first));

    let mut again = in_review(5, at(7), &[]);
    again.facts.value = micros(2_000);
    reviewed(&ledger, again);
    block(ledger.vote(cast(5, "alice", true, at(8)))).unwrap();
    assert_eq!(approved().unwrap().value, micros(2_000), "the last word counts");
    for change in [
        |q: &mut FactsQuery| q.path = "/other".into(),
        |q: &mut FactsQuery| q.method = "POST".into(),
        |q: &mut FactsQuery| q.host = "other.example".into(),
        |q: &mut FactsQuery| q.key.workspace = "other".into(),
    ] {
        let mut other = query(99);
        change(&mut other);
        assert_eq!(block(ledger.facts(other)).unwrap().approved, None);
    }
}

#[test]
fn a_word_is_changed_sixteen_times_at_most() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, at(1), &[]));
    let word = |n: u64| UseReport { note: Some(n.to_string()), ..says(Reporter::Agent, Use::Cited) };
    for n in 0..16 {
        report(&ledger, 1, word(n)).unwrap();
    }
    let again = report(&ledger, 1, word(16));
    assert!(matches!(again, Err(LedgerError::Conflict(_))), "{again:?}");
    // The last one again is no change, and the other side has its own.
    report(&ledger, 1, word(15)).unwrap();
    report(&ledger, 1, says(Reporter::Person, Use::Cited)).unwrap();
}
