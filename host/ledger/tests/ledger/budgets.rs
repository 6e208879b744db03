//! Holds: all or none, never over, and back to where they came from.

use std::sync::Arc;

use countersign_core::ledger::{Alert, BudgetRefusal, Commit, Committed, Grant, Ledger, LedgerError, Refusal};
use countersign_core::payment::{Event, State};
use countersign_core::verdict::{Hold, Unit, Window};

use crate::common::*;

fn day() -> Window {
    Window::Day(String::new())
}

#[test]
fn all_holds_are_placed_or_none() {
    let rig = Rig::new();
    let ledger = rig.open();
    let wide = hold("wide", Window::Lifetime, 100, 10);
    let narrow = hold("narrow", day(), 15, 10);
    granted(&ledger, commit(1, T0, &[wide.clone(), narrow.clone()]));
    let why = refused(&ledger, commit(2, T0, &[wide, narrow]));
    let expected = BudgetRefusal {
        owner: "host".into(),
        name: "narrow".into(),
        unit: Unit::Micros,
        window: Window::Day("UTC".into()),
        limit: 15,
        used: 10,
        wanted: 10,
    };
    assert_eq!(why, Refusal::Budget(Box::new(expected)));
    assert_eq!(used(&ledger, "wide", T0), (10, 0), "the hold that fitted was undone");
    assert_eq!(block(ledger.payment(payment_id(2))), Ok(None), "nothing was written");
    drop(ledger);
    rig.check();
}

#[test]
fn a_decision_may_not_hold_one_window_twice() {
    let rig = Rig::new();
    let ledger = rig.open();
    let once = hold("b", Window::Lifetime, 100, 10);
    let twice = block(ledger.commit(commit(1, T0, &[once.clone(), once])));
    assert!(matches!(twice, Err(LedgerError::Conflict(_))), "{twice:?}");
    let mut zero = commit(2, T0, &[hold("b", Window::Lifetime, 100, 10)]);
    zero.holds[0].amount = 0;
    assert!(matches!(block(ledger.commit(zero)), Err(LedgerError::Conflict(_))));
}

#[test]
fn what_is_released_or_settled_goes_back_to_the_window_of_the_decision() {
    let rig = Rig::new();
    let ledger = rig.open();
    let holds = [hold("d", day(), 100, 10)];
    granted(&ledger, commit(1, T0, &holds));
    granted(&ledger, commit(2, T0, &holds));
    let tomorrow = at(86_400);
    granted(&ledger, commit(3, tomorrow, &holds));
    assert_eq!(used(&ledger, "d", T0), (20, 0));
    step(&ledger, event(1, State::Signed, Event::Redeemed, tomorrow)).unwrap();
    step(&ledger, event(2, State::Signed, Event::SignerRefused, tomorrow)).unwrap();
    assert_eq!(used(&ledger, "d", T0), (0, 10), "yesterday's window");
    assert_eq!(used(&ledger, "d", tomorrow), (10, 0), "today's is untouched");
    drop(ledger);
    rig.check();
}

#[test]
fn a_lowered_limit_refuses_and_leaves_the_row_alone() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, T0, &[hold("b", Window::Lifetime, 100, 50)]));
    refused(&ledger, commit(2, T0, &[hold("b", Window::Lifetime, 40, 1)]));
    let view = &block(ledger.budgets(T0)).unwrap()[0];
    assert_eq!((view.limit, view.held), (100, 50), "a refusal states no limit");
    granted(&ledger, commit(3, T0, &[hold("b", Window::Lifetime, 60, 10)]));
    let view = &block(ledger.budgets(T0)).unwrap()[0];
    assert_eq!((view.limit, view.held), (60, 60), "lower, and it still fits");
    refused(&ledger, commit(4, T0, &[hold("b", Window::Lifetime, 60, 1)]));
    granted(&ledger, commit(5, T0, &[hold("b", Window::Lifetime, 61, 1)]));
}

#[test]
fn sixty_four_callers_never_overdraw_one_budget() {
    let rig = Rig::new();
    let ledger = Arc::new(rig.open());
    let (limit, amount) = (1_000_u64, 7_u64);
    let granted: u64 = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..64_u64)
            .map(|caller| {
                let ledger = Arc::clone(&ledger);
                scope.spawn(move || {
                    let tried = (0..8).map(|i| {
                        let holds = [
                            hold("shared", Window::Rolling(3_600), limit, amount),
                            hold("other", Window::Lifetime, 1 << 40, 1),
                        ];
                        put(&ledger, commit(caller * 8 + i, T0, &holds))
                    });
                    tried.filter(|done| matches!(done, Committed::Granted { .. })).count() as u64
                })
            })
            .collect();
        callers.into_iter().map(|c| c.join().unwrap()).sum()
    });
    assert_eq!(granted, limit / amount);
    assert_eq!(used(&ledger, "shared", T0), (granted * amount, 0));
    assert_eq!(used(&ledger, "other", T0), (granted, 0), "refused decisions left nothing in the other budget");
    drop(ledger);
    rig.check();
}

#[test]
fn a_rolling_window_forgets_what_was_spent_but_not_what_is_open() {
    let rig = Rig::new();
    let ledger = rig.open();
    let holds = [hold("r", Window::Rolling(3_600), 100, 60)];
    granted(&ledger, commit(1, T0, &holds));
    step(&ledger, event(1, State::Signed, Event::Redeemed, T0)).unwrap();
    refused(&ledger, commit(2, at(3_599), &holds));
    assert_eq!(used(&ledger, "r", at(3_599)), (0, 60));
    // 3,600 s and a bucket of 12.5 s later it has left.
    assert_eq!(used(&ledger, "r", at(3_625)), (0, 0), "a listing needs no decision to see that");
    granted(&ledger, commit(3, at(3_625), &holds));
    // The clock of a row never goes back: an older moment does not see less.
    refused(&ledger, commit(4, at(3_625 - 300), &holds));
    drop(ledger);
    rig.check();
}

#[test]
fn a_clock_set_back_makes_no_free_room() {
    let rig = Rig::new();
    let ledger = rig.open();
    let holds = [hold("r", Window::Rolling(60), 100, 40)];
    granted(&ledger, commit(1, at(10_000), &holds));
    // Decided at a moment that has left the window already: it counts from the latest moment seen.
    let slow = at(9_700);
    granted(&ledger, commit(2, slow, &holds));
    step(&ledger, event(2, State::Signed, Event::Redeemed, slow)).unwrap();
    assert_eq!(used(&ledger, "r", slow), (40, 40));
    refused(&ledger, commit(3, slow, &holds));
    // Further back is no clock that drifts.
    let told = block(ledger.commit(commit(4, slow.minus_millis(1), &holds)));
    let Err(LedgerError::Unavailable(why)) = told else { panic!("{told:?}") };
    assert!(why.contains(&at(10_000).to_string()) && why.contains(&slow.minus_millis(1).to_string()), "{why}");
    // Not even what is written after it, nor another process, lets it back.
    step(&ledger, event(1, State::Signed, Event::Ambiguous, T0)).unwrap();
    drop(ledger);
    let ledger = rig.open_at(T0);
    let told = block(ledger.commit(commit(5, at(9_000), &holds)));
    assert!(matches!(told, Err(LedgerError::Unavailable(_))), "{told:?}");
    drop(ledger);
    rig.check();
}

#[test]
fn what_settles_after_its_bucket_left_is_spent_nowhere() {
    let rig = Rig::new();
    let ledger = rig.open();
    let holds = [hold("r", Window::Rolling(60), 100, 60)];
    // Valid for so long that it does not age.
    let mut long = commit(1, T0, &holds);
    long.grant = Grant::Sign(authorization(1, at(1_000_000)));
    granted(&ledger, long);
    refused(&ledger, commit(2, at(600), &holds));
    granted(&ledger, commit(3, at(600), &[hold("r", Window::Rolling(60), 100, 40)]));
    step(&ledger, event(1, State::Signed, Event::Redeemed, at(600))).unwrap();
    assert_eq!(used(&ledger, "r", at(600)), (40, 0));
    drop(ledger);
    rig.check();
}

#[test]
fn an_open_hold_ages_in_a_rolling_window_and_nowhere_else() {
    let rig = Rig::new();
    let ledger = rig.open();
    let one = |n, moment| {
        commit(n, moment, &[hold("r", Window::Rolling(3_600), 100, 60), hold("l", Window::Lifetime, 500, 60)])
    };
    granted(&ledger, one(1, T0));
    // Valid until 60 s, aged after 120 s: by then it counts as spent at its own moment.
    refused(&ledger, one(2, at(3_599)));
    let small = |n, moment| commit(n, moment, &[hold("r", Window::Rolling(3_600), 100, 1)]);
    granted(&ledger, small(3, at(120)));
    assert_eq!(used(&ledger, "r", at(120)), (61, 0), "not before its margin is over");
    granted(&ledger, small(4, at(121)));
    assert_eq!(used(&ledger, "r", at(121)), (2, 60));
    assert_eq!(state(&ledger, 1), State::Signed, "its state stays what it was");
    assert!(block(ledger.payment(payment_id(1))).unwrap().unwrap().holds[0].open);
    // An hour after the decision it leaves, although nothing was ever proven.
    granted(&ledger, one(5, at(3_625)));
    assert_eq!(used(&ledger, "l", at(3_625)), (120, 0), "a lifetime budget forgets nothing");
    // Proof that comes late changes no rolling counter twice.
    let before = used(&ledger, "r", at(3_625));
    step(&ledger, event(1, State::Signed, Event::Redeemed, at(3_625))).unwrap();
    assert_eq!(used(&ledger, "r", at(3_625)), before);
    assert_eq!(used(&ledger, "l", at(3_625)), (60, 60));
    drop(ledger);
    rig.check();
}

#[test]
fn an_aged_hold_that_is_released_takes_its_spending_back() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, T0, &[hold("r", Window::Rolling(3_600), 100, 60)]));
    granted(&ledger, commit(2, at(200), &[hold("r", Window::Rolling(3_600), 100, 1)]));
    assert_eq!(used(&ledger, "r", at(200)), (1, 60));
    step(&ledger, event(1, State::Signed, Event::SignerRefused, at(200))).unwrap();
    assert_eq!(used(&ledger, "r", at(200)), (1, 0));
    drop(ledger);
    rig.check();
}

fn alerts(done: Committed) -> Vec<Alert> {
    match done {
        Committed::Granted { alerts } => alerts,
        other => panic!("{other:?}"),
    }
}

fn watched(window: Window, amount: u64) -> Hold {
    Hold { alert_at: Some(80), ..hold("w", window, 100, amount) }
}

#[test]
fn an_alert_is_told_once_per_window() {
    let rig = Rig::new();
    let ledger = rig.open();
    let told = |n, moment, amount| alerts(put(&ledger, commit(n, moment, &[watched(day(), amount)])));
    assert_eq!(told(1, T0, 79), []);
    assert_eq!(told(2, T0, 1), [Alert { budget: "w".into(), at: 80, used: 80 }]);
    assert_eq!(told(3, T0, 1), [], "latched");
    step(&ledger, event(1, State::Signed, Event::SignerRefused, T0)).unwrap();
    assert_eq!(told(4, T0, 79), [], "a calendar window does not re-arm");
    let mut higher = watched(day(), 9);
    higher.alert_at = Some(90);
    assert_eq!(alerts(put(&ledger, commit(6, T0, &[higher]))).len(), 1, "a higher threshold is another one");
    assert_eq!(told(5, at(86_400), 80).len(), 1, "tomorrow is another window");
}

#[test]
fn a_rolling_alert_rearms_below_nine_tenths() {
    for (stays, told_again) in [(72, 0), (71, 1)] {
        let rig = Rig::new();
        let ledger = rig.open();
        let told = |n, amount| alerts(put(&ledger, commit(n, T0, &[watched(Window::Rolling(60), amount)]))).len();
        assert_eq!(told(1, stays), 0);
        assert_eq!(told(2, 80 - stays), 1);
        step(&ledger, event(2, State::Signed, Event::SignerRefused, T0)).unwrap();
        assert_eq!(told(3, 80 - stays), told_again, "72 of 80 is exactly nine tenths: not below");
    }
}

#[test]
fn an_alert_of_a_refused_commit_is_not_lost() {
    let rig = Rig::new();
    let ledger = rig.open();
    let tight = hold("tight", Window::Lifetime, 1, 2);
    refused(&ledger, commit(1, T0, &[watched(day(), 90), tight]));
    assert_eq!(alerts(put(&ledger, commit(2, T0, &[watched(day(), 90)]))).len(), 1);
}

fn touchy(amount: u64) -> Hold {
    Hold { review_at: Some(80), ..hold("t", Window::Day(String::new()), 1_000, amount) }
}

#[test]
fn reaching_review_at_turns_a_grant_into_a_review() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, T0, &[touchy(79)]));
    let approval = reviewed(&ledger, commit(2, T0, &[touchy(1)]));
    assert_eq!(approval.shown, [("host".to_owned(), "budget-review".to_owned())]);
    let view = block(ledger.payment(payment_id(2))).unwrap().unwrap();
    assert_eq!((view.state, view.authorization.is_none(), view.holds[0].open), (State::Review, true, true));
    reviewed(&ledger, commit(3, T0, &[touchy(1)]));
    block(ledger.vote(cast(3, "alice", false, T0))).unwrap();
    reviewed(&ledger, commit(4, T0, &[touchy(1)]));
    // Approved: resuming counts review-at as allow, and the threshold is approved for this window.
    block(ledger.vote(cast(2, "alice", true, T0))).unwrap();
    granted(&ledger, resumed(2, at(10), &[touchy(1)]));
    granted(&ledger, commit(5, at(10), &[touchy(1)]));
    reviewed(&ledger, commit(6, at(86_400), &[touchy(90)]));
    drop(ledger);
    rig.check();
}

#[test]
fn a_review_that_nobody_was_shown_the_budget_in_approves_no_threshold() {
    let rig = Rig::new();
    let ledger = rig.open();
    reviewed(&ledger, in_review(1, T0, &[touchy(50)]));
    granted(&ledger, commit(2, T0, &[touchy(29)]));
    block(ledger.vote(cast(1, "alice", true, T0))).unwrap();
    granted(&ledger, resumed(1, T0, &[touchy(60)]));
    reviewed(&ledger, Commit { ..commit(3, T0, &[touchy(1)]) });
}
