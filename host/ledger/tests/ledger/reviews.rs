//! Purchases that wait for people.

use countersign_core::ledger::{ApprovalState, Cast, Commit, Grant, Ledger, LedgerError, NewApproval, Refusal, Resume};
use countersign_core::payment::{Event, State};
use countersign_core::verdict::{ReviewTerms, Window};
use countersign_ledger::SqliteLedger;

use crate::common::*;

fn some() -> [countersign_core::verdict::Hold; 1] {
    [hold("b", Window::Day(String::new()), 100, 10)]
}

fn with_terms(n: u64, terms: ReviewTerms) -> Commit {
    let new = NewApproval { terms, ..new_approval(n, T0) };
    Commit { grant: Grant::Review(new), ..commit(n, T0, &some()) }
}

fn terms(group: Option<&str>, quorum: u8) -> ReviewTerms {
    ReviewTerms { group: group.map(str::to_owned), quorum, expires_in_seconds: 3_600 }
}

fn approval_state(ledger: &SqliteLedger, n: u64) -> ApprovalState {
    block(ledger.approval(approval_id(n))).unwrap().unwrap().state
}

#[test]
fn an_approved_purchase_is_resumed_once() {
    let rig = Rig::new();
    let ledger = rig.open();
    let approval = reviewed(&ledger, in_review(1, T0, &some()));
    assert_eq!(approval.shown, [("caps".to_owned(), "said-so".to_owned())]);
    assert_eq!((approval.payment, approval.state), (payment_id(1), ApprovalState::Pending));
    assert_eq!(used(&ledger, "b", T0), (10, 0), "reserved while it waits");
    assert_eq!(refused(&ledger, resumed(1, T0, &some())), Refusal::Approval, "nobody said yes yet");
    let after = block(ledger.vote(cast(1, "alice", true, at(5)))).unwrap();
    assert_eq!((after.state, after.votes[0].operator.as_str()), (ApprovalState::Approved, "alice"));
    assert_eq!(refused(&ledger, resumed(1, at(3_600), &some())), Refusal::Approval, "too late");
    granted(&ledger, resumed(1, at(3_599), &some()));
    assert_eq!(approval_state(&ledger, 1), ApprovalState::Used);
    let view = block(ledger.payment(payment_id(1))).unwrap().unwrap();
    assert_eq!((view.state, view.attempt, view.holds.len()), (State::Signed, 1, 1));
    assert_eq!(view.authorization, Some(*authorization(1, at(3_659))));
    assert_eq!(view.decision.request.at, at(3_599), "the decision that counted is the last");
    let decisions: Vec<_> = block(ledger.decisions(payment_id(1))).unwrap().iter().map(|d| d.request.at).collect();
    assert_eq!(decisions, [T0, at(3_599)], "in the order they were made");
    assert_eq!(refused(&ledger, resumed(1, at(3_599), &some())), Refusal::Approval, "it was used");
    assert_eq!(used(&ledger, "b", T0), (10, 0));
    drop(ledger);
    rig.check();
}

#[test]
fn fresh_holds_replace_reserved_ones_or_nothing_changes() {
    let rig = Rig::new();
    let ledger = rig.open();
    let of = |amount| [hold("b", Window::Lifetime, 100, amount)];
    reviewed(&ledger, in_review(1, T0, &of(60)));
    block(ledger.vote(cast(1, "alice", true, T0))).unwrap();
    granted(&ledger, commit(2, T0, &of(40)));
    assert!(matches!(refused(&ledger, resumed(1, T0, &of(61))), Refusal::Budget(_)));
    assert_eq!(used(&ledger, "b", T0), (100, 0), "still reserved");
    assert_eq!((state(&ledger, 1), approval_state(&ledger, 1)), (State::Review, ApprovalState::Approved));
    granted(&ledger, resumed(1, T0, &of(60)));
    assert_eq!(used(&ledger, "b", T0), (100, 0), "its own reservation made room for it");
    drop(ledger);
    rig.check();
}

#[test]
fn resuming_dates_the_holds_anew() {
    let rig = Rig::new();
    let ledger = rig.open();
    let mut long = new_approval(1, T0);
    long.expires_at = at(200_000);
    reviewed(&ledger, Commit { grant: Grant::Review(long), ..commit(1, T0, &some()) });
    block(ledger.vote(cast(1, "alice", true, T0))).unwrap();
    granted(&ledger, resumed(1, at(86_400), &some()));
    assert_eq!(used(&ledger, "b", T0), (0, 0), "the day it was asked has its room back");
    assert_eq!(used(&ledger, "b", at(86_400)), (10, 0), "the day it is signed carries it");
    drop(ledger);
    rig.check();
}

#[test]
fn an_approval_belongs_to_one_payment() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in [1, 2] {
        reviewed(&ledger, in_review(n, T0, &some()));
    }
    block(ledger.vote(cast(1, "alice", true, T0))).unwrap();
    let resume = Some(Resume { payment: payment_id(2), approval: approval_id(1) });
    assert_eq!(refused(&ledger, Commit { resume, ..resumed(2, T0, &some()) }), Refusal::Approval);
    let other = Commit { fingerprint: fingerprint(99), ..resumed(1, T0, &some()) };
    assert_eq!(refused(&ledger, other), Refusal::Approval, "another request");
    let resume = Some(Resume { payment: payment_id(1), approval: approval_id(9) });
    assert_eq!(refused(&ledger, Commit { resume, ..resumed(1, T0, &some()) }), Refusal::Approval, "no such approval");
    let foreign = Commit { payment: payment_id(5), ..resumed(1, T0, &some()) };
    assert!(matches!(block(ledger.commit(foreign)), Err(LedgerError::Conflict(_))));
}

#[test]
fn a_denial_gives_the_reservation_back() {
    let rig = Rig::new();
    let ledger = rig.open();
    reviewed(&ledger, in_review(1, T0, &some()));
    let after = block(ledger.vote(cast(1, "bob", false, at(5)))).unwrap();
    assert_eq!(after.state, ApprovalState::Denied);
    assert_eq!((state(&ledger, 1), used(&ledger, "b", T0)), (State::Released, (0, 0)));
    assert_eq!(refused(&ledger, resumed(1, at(6), &some())), Refusal::Approval);
    let late = block(ledger.vote(cast(1, "alice", true, at(6))));
    assert!(matches!(late, Err(LedgerError::Conflict(_))), "{late:?}");
    drop(ledger);
    rig.check();
}

#[test]
fn a_quorum_counts_operators_not_words() {
    let rig = Rig::new();
    let ledger = rig.open();
    reviewed(&ledger, with_terms(1, terms(None, 2)));
    let vote = |who| block(ledger.vote(cast(1, who, true, T0)));
    assert_eq!(vote("zoe").unwrap().state, ApprovalState::Pending);
    assert!(matches!(vote("zoe"), Err(LedgerError::Conflict(_))));
    let after = vote("bob").unwrap();
    assert_eq!(after.state, ApprovalState::Approved);
    let voters: Vec<_> = after.votes.iter().map(|v| v.operator.as_str()).collect();
    assert_eq!(voters, ["zoe", "bob"], "in the order they spoke");
    assert!(matches!(vote("carol"), Err(LedgerError::Conflict(_))));
    let missing = block(ledger.vote(cast(9, "alice", true, T0)));
    assert_eq!(missing, Err(LedgerError::NotFound));
}

#[test]
fn a_group_is_asked_and_two_groups_ask_nobody() {
    let rig = Rig::new();
    let ledger = rig.open();
    reviewed(&ledger, with_terms(1, terms(Some("finance"), 1)));
    reviewed(&ledger, with_terms(2, terms(Some("finance+legal"), 1)));
    let vote = |n, groups: &[&str]| {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        block(ledger.vote(Cast { groups, ..cast(n, "alice", true, T0) }))
    };
    assert!(matches!(vote(1, &["legal"]), Err(LedgerError::Conflict(_))));
    assert_eq!(vote(1, &["legal", "finance"]).unwrap().state, ApprovalState::Approved);
    assert!(matches!(vote(2, &["finance", "legal", "finance+legal"]), Err(LedgerError::Conflict(_))));
}

#[test]
fn time_that_runs_out_is_a_denial() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in [1, 2, 3] {
        reviewed(&ledger, in_review(n, T0, &some()));
    }
    block(ledger.vote(cast(2, "alice", true, T0))).unwrap();
    assert_eq!(block(ledger.expire_approvals(at(3_599))), Ok(0));
    let late = block(ledger.vote(cast(1, "alice", true, at(3_600))));
    assert!(matches!(late, Err(LedgerError::Conflict(_))), "{late:?}");
    assert_eq!((approval_state(&ledger, 1), state(&ledger, 1)), (ApprovalState::Expired, State::Released));
    assert_eq!(block(ledger.approvals(true)).unwrap().len(), 1);
    assert_eq!(block(ledger.expire_approvals(at(3_600))), Ok(2), "approved but unused lapses too");
    assert_eq!(used(&ledger, "b", T0), (0, 0));
    assert_eq!(block(ledger.approvals(true)).unwrap(), []);
    let all = block(ledger.approvals(false)).unwrap();
    assert_eq!(all.iter().map(|a| a.id).collect::<Vec<_>>(), [3, 2, 1].map(approval_id));
    drop(ledger);
    rig.check();
}

#[test]
fn a_withdrawn_purchase_takes_its_approval_with_it() {
    let rig = Rig::new();
    let ledger = rig.open();
    reviewed(&ledger, in_review(1, T0, &some()));
    block(ledger.vote(cast(1, "alice", true, T0))).unwrap();
    step(&ledger, event(1, State::Review, Event::Withdraw, T0)).unwrap();
    assert_eq!(approval_state(&ledger, 1), ApprovalState::Expired);
    assert_eq!(refused(&ledger, resumed(1, T0, &some())), Refusal::Approval);
    assert_eq!(block(ledger.expire_approvals(at(9_999))), Ok(0));
    drop(ledger);
    rig.check();
}

#[test]
fn a_stop_holds_an_approved_purchase_too() {
    use countersign_core::ledger::{Suspension, SuspensionScope};
    let rig = Rig::new();
    let ledger = rig.open();
    reviewed(&ledger, in_review(1, T0, &some()));
    block(ledger.vote(cast(1, "alice", true, T0))).unwrap();
    let stop = Suspension { scope: SuspensionScope::All, by: "bob".into(), reason: String::new(), at: T0 };
    block(ledger.suspend(stop)).unwrap();
    assert_eq!(refused(&ledger, resumed(1, T0, &some())), Refusal::Suspended("all".into()));
    assert_eq!(used(&ledger, "b", T0), (10, 0));
}
