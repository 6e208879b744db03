//! What the commit checks, what a denial leaves, and what policies are told.

use countersign_core::id::PaymentId;
use countersign_core::ledger::{
    Answer, Caps, Commit, Committed, Evidence, FactsQuery, Grant, Ledger, LedgerError, PaymentFilter, Refusal,
    SessionCaps, Suspension, SuspensionScope, Transition,
};
use countersign_core::money::Atomic;
use countersign_core::payment::{Event, State};
use countersign_core::time::Timestamp;
use countersign_core::verdict::Window;
use countersign_core::x402::Authorization;

use crate::common::*;

fn stop(scope: SuspensionScope) -> Suspension {
    Suspension { scope, by: "alice".into(), reason: "odd".into(), at: T0 }
}

#[test]
fn a_suspension_stops_exactly_what_it_covers() {
    let rig = Rig::new();
    let ledger = rig.open();
    use SuspensionScope::{Agent, All, Mandate, Vendor, Wallet};
    for (n, scope, covers) in [
        (1, All, true),
        (2, Agent("scout".into()), true),
        (3, Agent("other".into()), false),
        (4, Mandate("research".into()), true),
        (5, Wallet("research".into()), true),
        (6, Vendor("api.example.com".into()), true),
        (7, Vendor("example.com".into()), false),
    ] {
        block(ledger.suspend(stop(scope.clone()))).unwrap();
        let done = put(&ledger, commit(n, T0, &[]));
        let want = Committed::Refused(Refusal::Suspended(scope.to_string()));
        assert_eq!(done == want, covers, "{scope}: {done:?}");
        assert_eq!(block(ledger.suspensions()).unwrap().len(), 1);
        block(ledger.resume(scope, "alice".into(), T0)).unwrap();
    }
    assert_eq!(block(ledger.resume(All, "alice".into(), T0)), Err(LedgerError::NotFound));
    granted(&ledger, commit(1, T0, &[]));
}

#[test]
fn an_older_generation_is_stale() {
    let rig = Rig::new();
    let ledger = rig.open();
    block(ledger.require_generation(5)).unwrap();
    block(ledger.require_generation(3)).unwrap();
    assert_eq!(refused(&ledger, Commit { generation: 4, ..commit(1, T0, &[]) }), Refusal::Stale);
    granted(&ledger, Commit { generation: 5, ..commit(1, T0, &[]) });
    // A restart is no way to get an old judgement in.
    drop(ledger);
    let ledger = rig.open();
    assert_eq!(refused(&ledger, Commit { generation: 4, ..commit(2, T0, &[]) }), Refusal::Stale);
    granted(&ledger, Commit { generation: 5, ..commit(2, T0, &[]) });
}

#[test]
fn a_session_must_be_open() {
    let rig = Rig::new();
    let ledger = rig.open();
    let within = |n, moment| Commit { session: Some(session_id(1)), ..commit(n, moment, &[]) };
    assert_eq!(refused(&ledger, within(1, T0)), Refusal::Session, "there is none");
    block(ledger.open_session(session(1), SessionCaps::NONE)).unwrap();
    assert!(matches!(block(ledger.open_session(session(1), SessionCaps::NONE)), Err(LedgerError::Conflict(_))));
    granted(&ledger, within(1, T0));
    assert_eq!(refused(&ledger, within(2, at(3_600))), Refusal::Session, "it is over");
    let mut foreign = within(3, T0);
    foreign.key.agent = "other".into();
    foreign.facts.principal.agent = "other".into();
    assert_eq!(refused(&ledger, foreign), Refusal::Session, "it is another agent's");
    assert_eq!(block(ledger.session_by_token("token-1".into())).unwrap().unwrap(), session(1));
    block(ledger.close_session(session_id(1), "alice".into(), at(5))).unwrap();
    assert_eq!(refused(&ledger, within(4, at(6))), Refusal::Session, "it is closed");
    assert_eq!(block(ledger.sessions()).unwrap()[0].closed_at, Some(at(5)));
    assert_eq!(block(ledger.close_session(session_id(9), "a".into(), T0)), Err(LedgerError::NotFound));
}

#[test]
fn one_live_attempt_per_purchase() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, T0, &[]));
    let again = |n: u64| Commit { key: key(1), ..commit(n, T0, &[]) };
    assert_eq!(refused(&ledger, again(2)), Refusal::Live(payment_id(1)));
    let mut denial = denial(3, T0);
    denial.key = key(1);
    assert!(matches!(block(ledger.deny(denial)), Err(LedgerError::Conflict(_))), "a denial does not hide it");
    step(&ledger, event(1, State::Signed, Event::SignerRefused, T0)).unwrap();
    granted(&ledger, again(2));
    step(&ledger, event(2, State::Signed, Event::Redeemed, T0)).unwrap();
    assert_eq!(refused(&ledger, again(4)), Refusal::Live(payment_id(2)), "what is settled is bought");
    let view = block(ledger.latest(key(1))).unwrap().unwrap();
    assert_eq!((view.id, view.attempt), (payment_id(2), 2));
    let mut elsewhere = again(5);
    elsewhere.key.workspace = "other".into();
    granted(&ledger, elsewhere);
    drop(ledger);
    rig.check();
}

#[test]
fn a_nonce_is_never_signed_for_twice_whatever_became_of_the_first() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, T0, &[]));
    let with = |n, change: &dyn Fn(&mut Authorization)| {
        let mut same = authorization(n, at(60));
        same.nonce = authorization(1, at(60)).nonce;
        change(&mut same);
        Commit { grant: Grant::Sign(same), ..commit(n, T0, &[]) }
    };
    let want = Refusal::Nonce(payment_id(1));
    assert_eq!(refused(&ledger, with(2, &|_| ())), want);
    let mut elsewhere = with(2, &|_| ());
    elsewhere.facts.network = "eip155:1".into();
    elsewhere.facts.asset = "0x1800000000000000000000000000000000000018".into();
    assert_eq!(refused(&ledger, elsewhere), want, "in another asset it would be another signature");
    block(ledger.transition(event(1, State::Signed, Event::SignerRefused, at(1)))).unwrap();
    assert_eq!(refused(&ledger, with(2, &|_| ())), want, "released");
    granted(&ledger, with(2, &|a| a.from = "0x90F79bf6EB2c4f870365E785982E1f101E93b906".parse().unwrap()));
    granted(&ledger, with(3, &|a| a.nonce[31] ^= 1));
    let foreign = Commit { grant: Grant::Sign(authorization(3, at(60))), ..commit(4, T0, &[]) };
    assert!(matches!(block(ledger.commit(foreign)), Err(LedgerError::Conflict(_))), "another payment's payload");
}

#[test]
fn unresolved_payments_are_capped_per_seller_payee_and_agent() {
    let caps = |seller, payee, agent| Caps {
        unresolved_per_seller: seller,
        unresolved_per_payee: payee,
        unresolved_per_agent: agent,
        reviews_per_agent: 9,
        unproven_after: None,
    };
    for (scope, caps) in [("seller", caps(2, 9, 9)), ("payee", caps(9, 2, 9)), ("agent", caps(9, 9, 2))] {
        let rig = Rig::new();
        let ledger = rig.open();
        let capped = |n, moment| Commit { caps, ..commit(n, moment, &[]) };
        granted(&ledger, capped(1, T0));
        granted(&ledger, capped(2, T0));
        granted(&ledger, capped(3, at(9)));
        step(&ledger, event(1, State::Signed, Event::Ambiguous, at(9))).unwrap();
        granted(&ledger, capped(4, at(9)));
        let want = Refusal::Unresolved { scope, count: 2 };
        assert_eq!(refused(&ledger, capped(5, at(10))), want, "one redeemable, one signed 10 s ago");
        // Another agent of the workspace shares the seller's and the payee's cap, not the agent's.
        let mut other = capped(6, at(10));
        other.key.agent = "other".into();
        other.facts.principal.agent = "other".into();
        assert_eq!(matches!(put(&ledger, other), Committed::Granted { .. }), scope == "agent", "{scope}");
        step(&ledger, event(2, State::Signed, Event::Receipt, at(10))).unwrap();
        granted(&ledger, capped(7, at(10)));
    }
}

#[test]
fn a_receipt_the_chain_does_not_bear_out_in_time_counts_as_unresolved() {
    let rig = Rig::new();
    let ledger = rig.open();
    let readable = Caps { unresolved_per_seller: 1, unproven_after: Some(10_000), ..NO_CAPS };
    granted(&ledger, commit(1, T0, &[]));
    step(&ledger, event(1, State::Signed, Event::Receipt, at(1))).unwrap();
    granted(&ledger, Commit { caps: readable, ..commit(2, at(9), &[]) });
    step(&ledger, event(2, State::Signed, Event::Receipt, at(9))).unwrap();
    let want = Refusal::Unresolved { scope: "seller", count: 1 };
    assert_eq!(refused(&ledger, Commit { caps: readable, ..commit(3, at(10), &[]) }), want);
    let unreadable = Caps { unproven_after: None, ..readable };
    granted(&ledger, Commit { caps: unreadable, ..commit(4, at(10), &[]) });
}

#[test]
fn open_reviews_are_capped_per_agent() {
    let rig = Rig::new();
    let ledger = rig.open();
    let caps = Caps { reviews_per_agent: 1, ..NO_CAPS };
    reviewed(&ledger, Commit { caps, ..in_review(1, T0, &[]) });
    assert_eq!(refused(&ledger, Commit { caps, ..in_review(2, T0, &[]) }), Refusal::Reviews(1));
    granted(&ledger, Commit { caps, ..commit(3, T0, &[]) });
    block(ledger.vote(cast(1, "alice", false, T0))).unwrap();
    reviewed(&ledger, Commit { caps, ..in_review(2, T0, &[]) });
}

#[test]
fn equal_denials_within_a_minute_are_one_row() {
    let rig = Rig::new();
    let ledger = rig.open();
    let deny = |d| block(ledger.deny(d)).unwrap();
    assert_eq!(deny(denial(1, T0)), payment_id(1));
    assert_eq!(deny(denial(2, at(30))), payment_id(1));
    assert_eq!(deny(denial(3, at(59))), payment_id(1));
    let view = block(ledger.payment(payment_id(1))).unwrap().unwrap();
    assert_eq!((view.repeats, view.state, view.updated_at), (3, State::Denied, at(59)));
    assert_eq!(view.refusal.as_deref(), Some("policy-denied"));
    assert_eq!(block(ledger.decisions(payment_id(1))).unwrap().len(), 1, "no decision of a repeat");
    assert_eq!(deny(denial(4, at(60))), payment_id(4), "a minute is over");
    let mut code = denial(5, at(60));
    code.code = "budget-exceeded".into();
    assert_eq!(deny(code), payment_id(5));
    let mut request = denial(6, at(60));
    request.fingerprint = fingerprint(6);
    assert_eq!(deny(request), payment_id(6));
    let mut agent = denial(7, at(60));
    agent.key.agent = "other".into();
    assert_eq!(deny(agent), payment_id(7));
}

#[test]
fn an_agents_words_are_cut_in_the_record() {
    let rig = Rig::new();
    let ledger = rig.open();
    let mut long = denial(1, T0);
    long.facts.claims.insert("purpose".into(), "x".repeat(10_000));
    long.facts.url = format!("https://api.example.com/{}", "y".repeat(10_000));
    block(ledger.deny(long)).unwrap();
    let facts = block(ledger.payment(payment_id(1))).unwrap().unwrap().facts;
    for text in [&facts.claims["purpose"], &facts.url] {
        assert!(text.len() < 400 && text.contains("sha256:"), "{text}");
    }
}

fn query(n: u64, moment: Timestamp) -> FactsQuery {
    FactsQuery { session: Some(session_id(1)), fingerprint: fingerprint(0), at: moment, ..facts_query(n) }
}

#[test]
fn histories_count_what_is_not_denied_or_released() {
    let rig = Rig::new();
    let ledger = rig.open();
    block(ledger.open_session(session(1), SessionCaps::NONE)).unwrap();
    let buy = |n, moment, session| Commit { fingerprint: fingerprint(0), session, ..commit(n, moment, &[]) };
    granted(&ledger, buy(1, T0, None));
    granted(&ledger, buy(2, at(3_000), Some(session_id(1))));
    granted(&ledger, buy(3, at(3_000), None));
    step(&ledger, event(3, State::Signed, Event::SignerRefused, at(3_000))).unwrap();
    block(ledger.deny(denial(4, at(3_000)))).unwrap();
    let counts = |moment| {
        let h = block(ledger.facts(query(9, moment))).unwrap().history;
        let tallies = [h.agent_hour, h.agent_day, h.session, h.seller_day, h.seller_lifetime];
        assert!(tallies.iter().all(|t| t.value.get() == u64::from(t.count) * 1_000), "{tallies:?}");
        (tallies.map(|t| t.count), h.repeats)
    };
    assert_eq!(counts(at(3_000)), ([2, 2, 1, 2, 2], 1));
    assert_eq!(counts(at(3_700)), ([1, 2, 1, 2, 2], 0), "the first is more than an hour old");
    assert_eq!(counts(at(86_400 + 100)), ([0, 1, 1, 1, 2], 0));
    // The purchase that asks does not count itself.
    let own = block(ledger.facts(query(2, at(3_000)))).unwrap().history;
    assert_eq!((own.agent_hour.count, own.session.count, own.repeats), (1, 0, 0));
    let mut amount = query(9, at(3_000));
    amount.amount = Atomic::new(2);
    assert_eq!(block(ledger.facts(amount)).unwrap().history.repeats, 0);
}

#[test]
fn a_seller_is_known_by_what_settled() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, at(10), &[]));
    let seller = |q| block(ledger.facts(q)).unwrap().seller;
    assert_eq!(seller(query(9, at(20))).host_first_paid, None, "nothing is proven yet");
    step(&ledger, event(1, State::Signed, Event::Redeemed, at(20))).unwrap();
    let known = seller(query(9, at(30)));
    assert_eq!((known.host_first_paid, known.pay_to_first_paid), (Some(at(10)), Some(at(10))));
    assert_eq!((known.last_price, known.pay_to_changed), (Some(micros(1_000)), false));
    let mut elsewhere = query(9, at(30));
    elsewhere.pay_to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".into();
    elsewhere.path = "/other".into();
    let other = seller(elsewhere);
    assert!(other.pay_to_changed);
    assert_eq!((other.pay_to_first_paid, other.last_price), (None, None));
    let mut workspace = query(9, at(30));
    workspace.key.workspace = "other".into();
    assert_eq!(seller(workspace).host_first_paid, None);
}

#[test]
fn a_repeat_must_join_what_is_not_finished() {
    let rig = Rig::new();
    let ledger = rig.open();
    let same = |n, moment| Commit { fingerprint: fingerprint(0), ..commit(n, moment, &[]) };
    let open = || -> Vec<PaymentId> {
        let found = block(ledger.unfinished("lab".into(), "scout".into(), fingerprint(0))).unwrap();
        found.into_iter().map(|p| p.id).collect()
    };
    assert_eq!(open(), []);
    granted(&ledger, same(1, T0));
    granted(&ledger, same(2, T0));
    reviewed(&ledger, Commit { grant: Grant::Review(new_approval(3, T0)), ..same(3, T0) });
    assert_eq!(open(), [payment_id(3), payment_id(2), payment_id(1)], "newest first");
    block(ledger.answered(payment_id(1), None, false, at(1))).unwrap();
    assert_eq!(open().len(), 3, "an answer that was not delivered leaves it open");
    block(ledger.answered(payment_id(1), None, true, at(1))).unwrap();
    block(ledger.vote(cast(3, "alice", false, at(1)))).unwrap();
    step(&ledger, event(2, State::Signed, Event::Receipt, at(2))).unwrap();
    assert_eq!(open(), [payment_id(2)], "accepted, and its answer was not delivered");
    block(ledger.budgets(at(86_400))).unwrap();
    assert_eq!(open(), [payment_id(2)]);
    block(ledger.budgets(at(86_401))).unwrap();
    assert_eq!(open(), [], "a day later an accepted one is left alone");
    granted(&ledger, same(4, T0));
    assert_eq!(open(), [payment_id(4)], "one that may be unredeemed is joined whatever its age");
}

#[test]
fn listings_are_newest_first_and_filtered() {
    let rig = Rig::new();
    let ledger = rig.open();
    block(ledger.open_session(session(1), SessionCaps::NONE)).unwrap();
    for n in 1..=6 {
        let session = (n % 2 == 0).then(|| session_id(1));
        granted(&ledger, Commit { session, ..commit(n, T0, &[hold("b", Window::Lifetime, 100, 1)]) });
    }
    for n in [2, 3] {
        step(&ledger, event(n, State::Signed, Event::Ambiguous, T0)).unwrap();
    }
    let evidence = Some(Box::new(Evidence { transaction: Some(hash(0xab)), ..Evidence::default() }));
    let receipt = Transition { evidence, ..event(4, State::Signed, Event::Receipt, T0) };
    step(&ledger, receipt).unwrap();
    let base = || PaymentFilter { limit: 100, ..PaymentFilter::default() };
    let list = |filter| -> Vec<u64> {
        let views = block(ledger.payments(filter)).unwrap();
        views.iter().map(|v| (1..=6).find(|n| payment_id(*n) == v.id).unwrap()).collect()
    };
    let owner = Some(("lab".to_owned(), "scout".to_owned()));
    assert_eq!(list(base()), [6, 5, 4, 3, 2, 1]);
    assert_eq!(list(PaymentFilter { limit: 2, before: Some(payment_id(4)), ..base() }), [3, 2]);
    assert_eq!(list(PaymentFilter { owner: owner.clone(), limit: 3, ..base() }), [6, 5, 4]);
    let unknown = vec![State::Redeemable];
    assert_eq!(list(PaymentFilter { owner: owner.clone(), states: unknown.clone(), ..base() }), [3, 2]);
    assert_eq!(list(PaymentFilter { session: Some(session_id(1)), ..base() }), [6, 4, 2]);
    assert_eq!(list(PaymentFilter { session: Some(session_id(1)), states: unknown, ..base() }), [2]);
    assert_eq!(list(PaymentFilter { owner: Some(("x".into(), "scout".into())), ..base() }), [0_u64; 0]);
    let view = block(ledger.payment(payment_id(4))).unwrap().unwrap();
    let asked = commit(4, T0, &[hold("b", Window::Lifetime, 100, 1)]);
    assert_eq!(view.transaction, Some(hash(0xab)));
    assert_eq!((view.facts, view.fingerprint, view.key), (asked.facts, asked.fingerprint, asked.key));
    assert_eq!((&view.decision, view.session), (&asked.decisions[0], Some(session_id(1))));
    assert_eq!(view.holds[0].hold, asked.holds[0]);
    assert_eq!(view.authorization, Some(*authorization(4, at(60))));
    assert_eq!(view.history.iter().map(|s| s.state).collect::<Vec<_>>(), [State::Signed, State::Seen]);
}

#[test]
fn whoever_reads_that_an_answer_was_delivered_finds_it() {
    let rig = Rig::new();
    let ledger = rig.open();
    let answer = Answer { status: 200, headers: Vec::new(), body: b"paid".to_vec() };
    for n in 1..=100 {
        granted(&ledger, commit(n, T0, &[]));
        std::thread::scope(|scope| {
            scope.spawn(|| block(ledger.answered(payment_id(n), Some(answer.clone()), true, T0)).unwrap());
            let delivered = || block(ledger.payment(payment_id(n))).unwrap().unwrap().delivered;
            while !delivered() {
                std::thread::yield_now();
            }
            assert_eq!(block(ledger.answer(payment_id(n))), Ok(Some(answer.clone())), "{n}");
        });
    }
}
