//! What others watch: alerts until somebody was told, and what is open, counted.

use countersign_core::ledger::{Attempt, Figures, KeptAlert, Ledger, LedgerError, SessionCaps, Told};
use countersign_core::payment::{Event, State};
use countersign_core::verdict::{Hold, Window};
use countersign_ledger::SqliteLedger;

use crate::common::*;

fn watched(amount: u64) -> Hold {
    Hold { alert_at: Some(80), ..hold("w", Window::Lifetime, 100, amount) }
}

fn due(ledger: &SqliteLedger, seconds: u64) -> Vec<KeptAlert> {
    block(ledger.alerts_due(at(seconds), 10)).unwrap()
}

fn tried(ledger: &SqliteLedger, alert: u64, told: Told, seconds: u64) -> Result<(), LedgerError> {
    block(ledger.alert_tried(Attempt { id: alert, told, outcome: "status 500".to_owned(), at: at(seconds) }))
}

#[test]
fn alerts_wait_until_somebody_was_told_whoever_dies_meanwhile() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, T0, &[watched(70)]));
    assert_eq!(due(&ledger, 0), []);
    granted(&ledger, commit(2, T0, &[watched(10)]));
    drop(ledger);
    let ledger = rig.open();
    let found = due(&ledger, 0);
    let [alert] = &found[..] else { panic!("{found:?}") };
    assert_eq!((alert.payment, alert.limit, alert.at), (payment_id(2), 100, T0));
    assert_eq!((alert.alert.at, alert.alert.used, alert.attempts, &alert.last), (80, 80, 0, &None));
    assert_eq!(alert.told, Told::Not(T0));

    tried(&ledger, alert.id, Told::Not(at(30)), 5).unwrap();
    assert_eq!(due(&ledger, 29), []);
    let again = due(&ledger, 30).remove(0);
    assert_eq!((again.attempts, again.last), (1, Some((at(5), "status 500".to_owned()))));
    tried(&ledger, alert.id, Told::Delivered, 31).unwrap();
    assert_eq!(due(&ledger, 1_000_000), []);
    let late = tried(&ledger, alert.id, Told::Not(at(40)), 32);
    assert!(matches!(late, Err(LedgerError::Conflict(_))), "{late:?}");
    assert!(tried(&ledger, 99, Told::Delivered, 32).is_err());
    let all = block(ledger.alerts(None, 10)).unwrap();
    assert_eq!((all.len(), all[0].told, all[0].attempts), (1, Told::Delivered, 2));
    assert_eq!(block(ledger.alerts(Some(alert.id), 10)), Ok(vec![]));
    drop(ledger);
    rig.check();
}

#[test]
fn alerts_of_refused_purchases_are_not_there() {
    let rig = Rig::new();
    let ledger = rig.open();
    granted(&ledger, commit(1, T0, &[watched(70)]));
    refused(&ledger, commit(2, T0, &[watched(20), hold("narrow", Window::Lifetime, 5, 10)]));
    assert_eq!(due(&ledger, 0), []);
}

#[test]
fn figures_count_what_is_open_and_nothing_else() {
    let rig = Rig::new();
    let ledger = rig.open();
    let figures = |seconds: u64| block(ledger.figures(at(seconds))).unwrap();
    let open = |figures: &Figures, state: State| {
        figures.open.iter().find(|(s, ..)| *s == state).map(|(_, count, value)| (*count, value.get())).unwrap()
    };
    let one = facts().value.get();
    granted(&ledger, commit(1, T0, &[watched(80)]));
    granted(&ledger, commit(2, T0, &[]));
    reviewed(&ledger, in_review(3, T0, &[]));
    block(ledger.deny(denial(4, T0))).unwrap();
    block(ledger.open_session(session(5), SessionCaps::NONE)).unwrap();
    let now = figures(0);
    assert_eq!(open(&now, State::Signed), (2, 2 * one));
    assert_eq!(open(&now, State::Review), (1, one));
    assert_eq!(open(&now, State::Redeemable), (0, 0));
    assert_eq!((now.approvals, now.sessions, now.alerts), (1, 1, 1));
    step(&ledger, event(2, State::Signed, Event::SignerRefused, T0)).unwrap();
    step(&ledger, event(1, State::Signed, Event::Ambiguous, T0)).unwrap();
    block(ledger.close_session(session_id(5), "alice".to_owned(), T0)).unwrap();
    let later = figures(86_400 * 40);
    assert_eq!((open(&later, State::Signed), open(&later, State::Redeemable)), ((0, 0), (1, one)));
    assert_eq!((later.approvals, later.sessions), (0, 0), "what has lapsed waits for nobody");
    assert!(later.open.iter().all(|(state, ..)| state.is_open() || *state == State::Review));
}

#[test]
fn the_writers_work_is_counted() {
    let rig = Rig::new();
    let ledger = rig.open();
    let work = ledger.work();
    let before = work.commits.count();
    granted(&ledger, commit(1, T0, &[]));
    granted(&ledger, commit(2, T0, &[]));
    assert_eq!((work.commits.count(), work.batches.count()), (before + 2, before + 2));
    // On a shared ledger what follows the others is a job, too, and may be waiting this very moment.
    let mut looks = std::iter::repeat_with(|| {
        std::thread::yield_now();
        work.waiting()
    });
    assert!(looks.by_ref().take(1_000_000).any(|waiting| waiting == 0), "somebody waits for ever");
}
