//! Decisions read back, and checked against the record that vouches for them.

use countersign_core::id::DecisionId;
use countersign_core::ledger::{Ledger, Past, PastDecision, Reporter, Use, UseReport};
use countersign_core::verdict::Verdict;
use countersign_ledger::SqliteLedger;

use crate::common::*;

fn past(ledger: &SqliteLedger, which: Past) -> Vec<PastDecision> {
    block(ledger.past(which, 100)).unwrap()
}

fn ids(page: &[PastDecision]) -> Vec<DecisionId> {
    page.iter().map(|p| p.record.id).collect()
}

/// A purchase of which the decision's id carries its moment, as the gateway mints them.
fn timed(n: u64) -> countersign_core::ledger::Commit {
    let mut c = commit(n, at(n), &[]);
    let decision = &mut c.decisions[0];
    decision.id = DecisionId::new(at(n), [9; 10]);
    decision.request.id = decision.id;
    c
}

#[test]
fn decisions_are_read_from_a_moment_on_in_pages() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in 1..=9 {
        granted(&ledger, timed(n));
    }
    let since = Past::since(at(4));
    assert_eq!(block(ledger.past_count(since)).unwrap(), 6);
    let all = past(&ledger, since);
    assert_eq!(ids(&all), (4..=9).map(|n| DecisionId::new(at(n), [9; 10])).collect::<Vec<_>>());
    let first = block(ledger.past(since, 4)).unwrap();
    let rest = past(&ledger, Past::After(first[3].record.id));
    assert_eq!([ids(&first), ids(&rest)].concat(), ids(&all));
    assert_eq!(all[0].record, timed(4).decisions[0]);
    assert_eq!(ids(&past(&ledger, Past::One(all[2].record.id))), [all[2].record.id]);
    assert_eq!(ids(&past(&ledger, Past::Payment(payment_id(7)))), [DecisionId::new(at(7), [9; 10])]);
    assert!(all.iter().all(|p| p.damage.is_none() && !p.asked && p.approved.is_none()), "{all:?}");
}

#[test]
fn what_became_of_a_decision_is_told() {
    let rig = Rig::new();
    let ledger = rig.open();
    reviewed(&ledger, in_review(1, T0, &[]));
    let asked = past(&ledger, Past::Payment(payment_id(1)));
    assert!(asked[0].asked && asked[0].approved.is_none());
    block(ledger.vote(cast(1, "alice", true, at(5)))).unwrap();
    granted(&ledger, resumed(1, at(6), &[]));
    let both = past(&ledger, Past::Payment(payment_id(1)));
    let shown = vec![("caps".to_owned(), "said-so".to_owned())];
    assert_eq!(
        both.iter().map(|p| (p.asked, p.approved.clone())).collect::<Vec<_>>(),
        [(true, None), (false, Some(shown))]
    );
    block(ledger.deny(denial(2, T0))).unwrap();
    let denied = past(&ledger, Past::Payment(payment_id(2)));
    assert!(!denied[0].asked && denied[0].record.verdict == Verdict::Deny);

    let word = |reporter, used| {
        let report = UseReport { reporter, by: "x".into(), used, note: None, artifact: None, at: at(9) };
        block(ledger.report_use(payment_id(1), report)).unwrap();
        past(&ledger, Past::Payment(payment_id(1))).iter().map(|p| p.useful).collect::<Vec<_>>()
    };
    assert_eq!(word(Reporter::Agent, Use::Cited), [None, Some(true)], "of the decision that bought it");
    assert_eq!(word(Reporter::Person, Use::Unused), [None, Some(false)], "people have the last word");
}

#[test]
fn every_change_of_a_decision_is_seen() {
    let changes = [
        ("UPDATE decision SET request=stored(replace(text(request),'scout','snout'))", "its request"),
        ("UPDATE decision SET judgement=stored(replace(text(judgement),'1','2'))", "its judgement"),
        ("UPDATE decision SET verdict='review'", "its verdict"),
        ("UPDATE decision SET refusal='policy-denied'", "its verdict"),
        ("UPDATE decision SET seq=seq+100", "the record that vouches for it is missing"),
        ("UPDATE decision SET seq=seq-1", "does not name it"),
        (
            "DROP TRIGGER audit_unchanged; UPDATE audit SET body=stored(replace(text(body),'\"verdict\":\"allow\"','\"verdict\":\"deny\"'))",
            "was changed",
        ),
    ];
    for (sql, what) in changes {
        let rig = Rig::new();
        let ledger = rig.open();
        granted(&ledger, commit(1, T0, &[]));
        assert_eq!(past(&ledger, Past::Payment(payment_id(1)))[0].damage, None);
        drop(ledger);
        rig.raw().execute_batch(sql).unwrap();
        let ledger = rig.open();
        let damage = past(&ledger, Past::Payment(payment_id(1)))[0].damage.clone();
        assert!(damage.as_ref().is_some_and(|d| d.contains(what)), "{sql}: {damage:?}");
    }
}
