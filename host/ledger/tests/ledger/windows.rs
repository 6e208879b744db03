//! Windows over time: changed in the configuration, over daylight saving, at the ends of months.

use std::sync::Arc;

use countersign_core::budget::PlacedHold;
use countersign_core::ledger::{Commit, Committed, Ledger, Refusal};
use countersign_core::payment::{Event, State};
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Hold, Unit, Window};
use countersign_ledger::SqliteLedger;

use crate::common::*;

fn buy(ledger: &SqliteLedger, n: u64, moment: Timestamp, hold: &Hold) -> Committed {
    put(ledger, Commit { holds: vec![of_policy(hold, moment)], ..commit(n, moment, &[]) })
}

fn bought(ledger: &SqliteLedger, n: u64, moment: Timestamp, hold: &Hold) {
    let done = buy(ledger, n, moment, hold);
    assert!(matches!(done, Committed::Granted { .. }), "{done:?}");
}

/// What a refused purchase found used already.
fn full(done: Committed) -> u64 {
    match done {
        Committed::Refused(Refusal::Budget(why)) => why.used,
        other => panic!("{other:?}"),
    }
}

fn day() -> Window {
    Window::Day(String::new())
}

#[test]
fn another_window_begins_with_what_was_bought_within_it() {
    let rig = Rig::new();
    let ledger = rig.open();
    let b = |window, amount| hold("b", window, 100, amount);
    bought(&ledger, 1, T0, &b(day(), 10)); // yesterday
    let now = at(86_400);
    bought(&ledger, 2, now, &b(day(), 20)); // released
    bought(&ledger, 3, now, &b(day(), 30)); // half redeemed
    bought(&ledger, 4, now, &b(day(), 7)); // open
    let mut other = hold("b", day(), 100, 50);
    other.unit = Unit::Count;
    bought(&ledger, 5, now, &other); // counts are no money
    bought(&ledger, 6, now, &hold("c", day(), 100, 50)); // another name
    step(&ledger, event(1, State::Signed, Event::Redeemed, now)).unwrap();
    step(&ledger, event(2, State::Signed, Event::SignerRefused, now)).unwrap();
    let half = countersign_core::ledger::Transition {
        evidence: Some(redemption(Some(500))),
        ..event(3, State::Signed, Event::Redeemed, now)
    };
    step(&ledger, half).unwrap();
    // Today: 15 spent, 7 open. Ever: 10 more.
    assert_eq!(full(buy(&ledger, 10, now, &b(Window::Rolling(3_600), 79))), 22);
    bought(&ledger, 11, now, &b(Window::Rolling(3_600), 78));
    assert_eq!(full(buy(&ledger, 12, now, &b(Window::Lifetime, 1))), 110);
    let wide = |amount| hold("b", Window::Lifetime, 1_000, amount);
    bought(&ledger, 13, now, &wide(1));
    let views = block(ledger.budgets(now)).unwrap();
    let of = |window: &Window| views.iter().find(|v| v.name == "b" && v.unit == Unit::Micros && v.window == *window);
    assert_eq!(of(&Window::Lifetime).map(|v| (v.held, v.spent)), Some((1, 110)));
    assert_eq!(of(&Window::Rolling(3_600)).map(|v| (v.held, v.spent)), Some((78, 22)));
    drop(ledger);
    rig.check();
    let sql =
        "SELECT count(*) FROM audit WHERE text(body) LIKE '%\"seeded\":22%' OR text(body) LIKE '%\"seeded\":110%'";
    assert_eq!(rig.raw().query_row(sql, [], |r| r.get::<_, u32>(0)).unwrap(), 2, "recorded");
}

#[test]
fn changing_a_window_to_and_fro_frees_nothing() {
    let rig = Rig::new();
    let ledger = rig.open();
    let b = |window, amount| hold("b", window, 100, amount);
    let hour = || Window::Rolling(3_600);
    bought(&ledger, 1, T0, &b(hour(), 40));
    bought(&ledger, 2, at(10), &b(day(), 40));
    assert_eq!(full(buy(&ledger, 3, at(20), &b(hour(), 40))), 80, "what the day counted meanwhile");
    bought(&ledger, 4, at(20), &b(hour(), 15));
    assert_eq!(full(buy(&ledger, 5, at(30), &b(day(), 6))), 95);
    bought(&ledger, 6, at(30), &b(day(), 5));
    // An hour and a bucket later, the hour has forgotten; the day has not.
    bought(&ledger, 7, at(3_700), &b(hour(), 100));
    assert_eq!(full(buy(&ledger, 8, at(3_700), &b(day(), 1))), 200, "full, and by how much is told");
    drop(ledger);
    rig.check();
}

#[test]
fn two_windows_of_one_name_held_together_count_each_purchase_once() {
    let rig = Rig::new();
    let ledger = rig.open();
    let both = |n, moment, amount| {
        let hour = of_policy(&hold("b", Window::Rolling(3_600), 100, amount), moment);
        let holds = vec![hour, of_policy(&hold("b", day(), 100, amount), moment)];
        granted(&ledger, Commit { holds, ..commit(n, moment, &[]) });
    };
    for n in 1..=9 {
        both(n, at(n), 10);
    }
    // A third window sees each purchase once, although two windows hold it.
    assert_eq!(full(buy(&ledger, 20, at(20), &hold("b", Window::Lifetime, 100, 11))), 90);
    both(10, at(20), 10);
    drop(ledger);
    rig.check();
}

#[test]
fn a_resumed_purchase_is_held_in_the_window_of_its_signature() {
    let rig = Rig::new();
    let ledger = rig.open();
    let holds = [hold("d", day(), 100, 10), hold("r", Window::Rolling(3_600), 100, 10)];
    reviewed(&ledger, in_review(1, at(57_000), &holds));
    block(ledger.vote(cast(1, "alice", true, at(57_100)))).unwrap();
    let tomorrow = at(58_000);
    granted(&ledger, resumed(1, tomorrow, &holds));
    // Midnight was at 57,600.
    assert_eq!((used(&ledger, "d", at(57_000)), used(&ledger, "d", tomorrow)), ((0, 0), (10, 0)));
    let view = block(ledger.payment(payment_id(1))).unwrap().unwrap();
    let fresh: Vec<PlacedHold> = holds.iter().map(|h| placed(h, tomorrow)).collect();
    assert_eq!(view.holds.iter().map(|h| h.hold.clone()).collect::<Vec<_>>(), fresh);
    drop(ledger);
    let raw = rig.raw();
    let dated = "SELECT count(*) FROM hold WHERE at=?1 AND (bucket IS NULL OR bucket>?2)";
    let since = at(57_900).as_millis();
    let found: u32 = raw.query_row(dated, (tomorrow.as_millis(), since), |r| r.get(0)).unwrap();
    assert_eq!(found, 2, "both count from the moment of the signature");
    rig.check();
}

#[test]
fn two_payments_racing_one_threshold_tell_it_once() {
    for _ in 0..8 {
        let rig = Rig::new();
        let ledger = Arc::new(rig.open());
        granted(&ledger, commit(1, T0, &[hold("w", day(), 1_000, 75)]));
        let told: usize = std::thread::scope(|scope| {
            let racers: Vec<_> = (2..10_u64)
                .map(|n| {
                    let ledger = Arc::clone(&ledger);
                    scope.spawn(move || {
                        let watched = Hold { alert_at: Some(80), ..hold("w", day(), 1_000, 10) };
                        match put(&ledger, commit(n, T0, &[watched])) {
                            Committed::Granted { alerts } => alerts.len(),
                            other => panic!("{other:?}"),
                        }
                    })
                })
                .collect();
            racers.into_iter().map(|r| r.join().unwrap()).sum()
        });
        assert_eq!(told, 1);
    }
}

#[test]
fn a_refund_rearms_no_calendar_threshold() {
    let rig = Rig::new();
    let ledger = rig.open();
    let watched = |window| Hold { alert_at: Some(80), ..hold("w", window, 100, 90) };
    for (window, again) in [(day(), 0), (Window::Month(String::new()), 0), (Window::Rolling(3_600), 1)] {
        let told =
            |n: u64| match buy(&ledger, n, T0, &Hold { budget: format!("{window:?}"), ..watched(window.clone()) }) {
                Committed::Granted { alerts } => alerts.len(),
                other => panic!("{other:?}"),
            };
        let n = 10 * (1 + u64::try_from(format!("{window:?}").len()).unwrap());
        assert_eq!(told(n), 1);
        step(&ledger, event(n, State::Signed, Event::Redeemed, T0)).unwrap();
        block(ledger.refund(came_back(n, 1_000, n))).unwrap();
        assert_eq!(told(n + 1), again, "{window:?}");
    }
}

/// A window's start is exact to the millisecond: full before it, empty from it on.
#[test]
fn calendar_windows_turn_at_their_zones_midnight() {
    let cases = [
        (Window::Day("Europe/Berlin".into()), "2027-03-28", 1_806_188_400_000, 23), // clocks go forward
        (Window::Day("Europe/Berlin".into()), "2027-10-31", 1_824_933_600_000, 25), // and back
        (Window::Day("UTC".into()), "2028-02-29", 1_835_395_200_000, 24),           // a leap day
        (Window::Month("UTC".into()), "2028-02-01", 1_832_976_000_000, 29 * 24),
        (Window::Month("America/New_York".into()), "2027-11-01", 1_825_041_600_000, 30 * 24 + 1),
    ];
    for (window, name, start, hours) in cases {
        let rig = Rig::new();
        let (start, end) = (Timestamp::from_millis(start), Timestamp::from_millis(start + hours * 3_600_000));
        let ledger = rig.open_at(start.minus_millis(1));
        let whole = hold("b", window, 100, 100);
        bought(&ledger, 1, start.minus_millis(1), &whole);
        bought(&ledger, 2, start, &whole);
        assert_eq!(full(buy(&ledger, 3, end.minus_millis(1), &whole)), 100, "{name}: still the same window");
        bought(&ledger, 4, end, &whole);
        drop(ledger);
        rig.check();
    }
}

/// A refusal undoes the upkeep of its window, so it must rest on all of it.
#[test]
fn a_window_is_brought_up_to_date_before_it_refuses() {
    let rig = Rig::new();
    let ledger = rig.open();
    let busy = |amount| [hold("busy", Window::Rolling(3_600), 2_000, amount)];
    for n in 1..=1_500 {
        granted(&ledger, commit(n, T0, &busy(1)));
    }
    // None of them can be redeemed any more, and all have left the window.
    granted(&ledger, commit(2_000, at(20_000), &busy(1_900)));
    rig.check();
}
