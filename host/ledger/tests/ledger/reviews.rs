//! Purchases that wait for people.

use countersign_core::ledger::{
    ApprovalState, Attempt, Cast, Channel, Commit, Grant, Ledger, LedgerError, NewApproval, Quoted, Refusal, Resume,
    Session, SessionCaps, Told,
};
use countersign_core::notice::{Notice, NoticeEvent, Proposal};
use countersign_core::payment::{Event, State};
use countersign_core::terms::ApprovalTerms;
use countersign_core::verdict::{ReviewTerms, Window};
use countersign_ledger::SqliteLedger;

use crate::common::*;

fn some() -> [countersign_core::verdict::Hold; 1] {
    [hold("b", Window::Day(String::new()), 100, 10)]
}

fn with_terms(n: u64, asked: &[ReviewTerms]) -> Commit {
    let terms = ApprovalTerms::strictest(asked, &ApprovalTerms::of(1, 3_600));
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
    reviewed(&ledger, with_terms(1, &[terms(None, 2)]));
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

fn strings(of: &[&str]) -> Vec<String> {
    of.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn every_group_that_was_asked_for_must_say_yes() {
    let rig = Rig::new();
    let ledger = rig.open();
    let both = [terms(Some("finance"), 2), terms(Some("legal"), 1)];
    for n in [1, 2, 3] {
        reviewed(&ledger, with_terms(n, &both));
    }
    let vote = |n, who, approve, groups: &[&str]| {
        block(ledger.vote(Cast { groups: strings(groups), ..cast(n, who, approve, T0) }))
    };
    let state = |n, who, groups: &[&str]| vote(n, who, true, groups).unwrap().state;
    for stranger in [&[][..], &["board"]] {
        for approve in [true, false] {
            let told = vote(1, "eve", approve, stranger);
            let Err(LedgerError::Forbidden(why)) = told else { panic!("{told:?}") };
            assert!(why.contains("`finance` or `legal`"), "{why}");
        }
    }
    assert_eq!(state(1, "alice", &["finance"]), ApprovalState::Pending);
    assert_eq!(state(1, "bob", &["finance"]), ApprovalState::Pending, "enough people, and nobody of legal");
    assert_eq!(state(1, "carol", &["legal", "board"]), ApprovalState::Approved);
    let kept = block(ledger.approval(approval_id(1))).unwrap().unwrap();
    assert_eq!(kept.votes[2].groups, ["legal", "board"]);
    assert_eq!(state(2, "carol", &["legal"]), ApprovalState::Pending);
    assert_eq!(state(2, "alice", &["finance"]), ApprovalState::Pending, "two people, and one of two of finance");
    assert_eq!(state(2, "dave", &["finance", "legal"]), ApprovalState::Approved);
    assert_eq!(state(3, "alice", &["finance"]), ApprovalState::Pending);
    let denied = vote(3, "carol", false, &["legal"]).unwrap();
    assert_eq!(denied.state, ApprovalState::Denied, "one no of anybody who is asked is a no");
    drop(ledger);
    rig.check();
    let raw = rig.raw();
    let body = "SELECT json_extract(text(body),'$.groups'),json_extract(text(body),'$.terms.groups') FROM audit
                WHERE kind='approval-vote' ORDER BY seq LIMIT 1";
    let record: (String, String) = raw.query_row(body, [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    assert_eq!(record, (r#"["finance"]"#.to_owned(), r#"{"finance":2,"legal":1}"#.to_owned()));
}

#[test]
fn terms_of_before_there_were_several_groups_still_count() {
    let rig = Rig::new();
    let ledger = rig.open();
    reviewed(&ledger, in_review(1, T0, &some()));
    rig.raw()
        .execute(r#"UPDATE approval SET terms='{"group":"finance","quorum":1,"expires_in_seconds":3600}'"#, [])
        .unwrap();
    assert!(matches!(block(ledger.vote(cast(1, "eve", true, T0))), Err(LedgerError::Forbidden(_))));
    let voted = block(ledger.vote(Cast { groups: strings(&["finance"]), ..cast(1, "alice", true, T0) }));
    assert_eq!(voted.unwrap().state, ApprovalState::Approved);
}

#[test]
fn nobody_decides_about_their_own_purchase() {
    let rig = Rig::new();
    let ledger = rig.open();
    let session = Session { opened_by: "olga".into(), ..session(5) };
    block(ledger.open_session(session, SessionCaps::NONE)).unwrap();
    let mut asked = Commit { session: Some(session_id(5)), ..with_terms(1, &[terms(None, 2)]) };
    asked.facts.principal.user = Some("uma".into());
    reviewed(&ledger, asked);
    let word = |operator: &str, approve| cast(1, operator, approve, T0);
    let forbidden = |cast: Cast| {
        let told = block(ledger.vote(cast));
        assert!(matches!(told, Err(LedgerError::Forbidden(_))), "{told:?}");
    };
    for approve in [true, false] {
        forbidden(Cast { users: strings(&["una", "uma"]), ..word("alice", approve) });
        forbidden(word("olga", approve));
        forbidden(Cast { selves: strings(&["olga"]), ..word("olga-at-home", approve) });
    }
    assert_eq!(block(ledger.approval(approval_id(1))).unwrap().unwrap().votes, []);
    let users = strings(&["bob"]);
    block(ledger.vote(Cast { users: users.clone(), ..word("bob", true) })).unwrap();
    let again = block(ledger.vote(Cast { users, selves: strings(&["bob"]), ..word("bob-at-home", true) }));
    assert!(matches!(again, Err(LedgerError::Conflict(_))), "one person is not two: {again:?}");
    assert_eq!(block(ledger.vote(word("carol", true))).unwrap().state, ApprovalState::Approved);
    drop(ledger);
    rig.check();
}

#[test]
fn a_message_counts_once_and_only_for_what_it_quotes() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in [1, 2] {
        reviewed(&ledger, with_terms(n, &[terms(None, 2)]));
    }
    let quoted =
        |message: &str| Quoted { message: message.into(), frozen: "ab".repeat(32), expires_at: at(3_600).to_string() };
    let say = |n, operator: &str, quoted| {
        let cast = Cast { quoted: Some(quoted), channel: Channel::Webhook, ..cast(n, operator, true, T0) };
        block(ledger.vote(cast))
    };
    let conflict = |told: Result<_, LedgerError>, says: &str| {
        let Err(LedgerError::Conflict(why)) = told else { panic!("counted") };
        assert!(why.contains(says), "{why}");
    };
    conflict(say(1, "alice", Quoted { frozen: "cd".repeat(32), ..quoted("m1") }).map(drop), "digest");
    conflict(say(1, "alice", Quoted { expires_at: at(3_599).to_string(), ..quoted("m1") }).map(drop), "expires_at");
    let counted = say(1, "alice", quoted("m1")).unwrap();
    assert_eq!((counted.state, counted.votes[0].message.as_deref()), (ApprovalState::Pending, Some("m1")));
    assert_eq!(counted.votes[0].channel, Channel::Webhook);
    conflict(say(1, "alice", quoted("m1")).map(drop), "counted already");
    conflict(say(2, "alice", quoted("m1")).map(drop), "counted already");
    // Ids are each sender's own.
    assert_eq!(say(1, "bob", quoted("m1")).unwrap().state, ApprovalState::Approved);
    drop(ledger);
    rig.check();
}

#[test]
fn what_happens_to_an_approval_is_told_as_it_was() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in [1, 2, 3, 4] {
        reviewed(&ledger, in_review(n, T0, &some()));
    }
    block(ledger.vote(cast(1, "alice", true, at(1)))).unwrap();
    block(ledger.vote(cast(2, "alice", false, at(2)))).unwrap();
    step(&ledger, event(3, State::Review, Event::Withdraw, at(3))).unwrap();
    granted(&ledger, resumed(1, at(4), &some()));
    assert_eq!(block(ledger.expire_approvals(at(3_600))), Ok(1));
    drop(ledger);
    let ledger = rig.open();
    let due = |seconds| block(ledger.notices_due(at(seconds), 20)).unwrap();
    let brief = |n: &Notice| (n.event, n.approval.id, n.approval.state, n.approval.votes.len());
    let (asked, done, over) = (NoticeEvent::Requested, NoticeEvent::Decided, NoticeEvent::Expired);
    let mut expected: Vec<_> = [1, 2, 3, 4].map(|n| (asked, approval_id(n), ApprovalState::Pending, 0)).into();
    expected.extend([
        (done, approval_id(1), ApprovalState::Approved, 1),
        (done, approval_id(2), ApprovalState::Denied, 1),
        (over, approval_id(3), ApprovalState::Expired, 0),
        (over, approval_id(4), ApprovalState::Expired, 0),
    ]);
    let found = due(10_000);
    assert_eq!(found.iter().map(brief).collect::<Vec<_>>(), expected);
    assert_eq!((&found[0].facts, found[0].at, found[0].told), (&facts(), T0, Told::Not(T0)));

    let tried = |told, seconds| {
        block(ledger.notice_tried(Attempt { id: found[0].id, told, outcome: "status 500".into(), at: at(seconds) }))
    };
    tried(Told::Not(at(20_000)), 10_000).unwrap();
    assert_eq!(due(19_999).len(), 7);
    tried(Told::Delivered, 20_001).unwrap();
    assert!(matches!(tried(Told::GivenUp, 20_002), Err(LedgerError::Conflict(_))));
    let all = block(ledger.notices(None, 20)).unwrap();
    let (last, first) = (&all[0], &all[7]);
    assert_eq!((last.attempts, first.attempts, first.told), (0, 2, Told::Delivered));
    assert_eq!(first.last, Some((at(20_001), "status 500".to_owned())));
    assert_eq!(block(ledger.notices(Some(found[0].id + 1), 20)).unwrap().len(), 1);
    drop(ledger);
    rig.check();
}

#[test]
fn a_refused_purchase_tells_nobody_and_a_proposal_is_kept() {
    let rig = Rig::new();
    let ledger = rig.open();
    let narrow = hold("narrow", Window::Lifetime, 5, 10);
    refused(&ledger, Commit { grant: Grant::Review(new_approval(1, T0)), ..commit(1, T0, &[narrow]) });
    assert_eq!(block(ledger.notices(None, 20)), Ok(vec![]));
    reviewed(&ledger, in_review(2, T0, &some()));
    let proposal = |n, document: &str| Proposal {
        approval: approval_id(n),
        by: "alice".into(),
        document: document.into(),
        at: T0,
    };
    assert_eq!(block(ledger.propose(proposal(9, "{}"))), Err(LedgerError::NotFound));
    assert_eq!(block(ledger.proposal(approval_id(2))), Ok(None));
    for document in ["{}", r#"{"diff":"x"}"#] {
        block(ledger.propose(proposal(2, document))).unwrap();
        assert_eq!(block(ledger.proposal(approval_id(2))), Ok(Some(proposal(2, document))));
    }
    drop(ledger);
    rig.check();
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
