//! How many sessions may be opened, and for how much.

use countersign_core::ledger::{Ledger, Opening, Session, SessionCap, SessionCaps};
use countersign_core::time::Timestamp;

use crate::common::*;

const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// A session opened at this second, by somebody for somebody.
fn opened(n: u64, second: u64, by: &str, agent: &str) -> Session {
    Session {
        created_at: at(second),
        expires_at: at(second + 2 * HOUR),
        opened_by: by.into(),
        agent: agent.into(),
        ..session(n)
    }
}

fn frees(opening: Opening) -> Option<(String, Option<Timestamp>)> {
    match opening {
        Opening::Opened => None,
        Opening::Refused(SessionCap { what, frees_at }) => Some((what, frees_at)),
    }
}

#[test]
fn sessions_an_hour_are_counted_for_whoever_opens_them_and_for_whom() {
    let rig = Rig::new();
    let ledger = rig.open();
    let caps = SessionCaps { opener_hour: 3, agent_hour: 2, ..SessionCaps::NONE };
    let open = |session: Session| frees(block(ledger.open_session(session, caps)).unwrap());
    assert_eq!(open(opened(1, 0, "alice", "scout")), None);
    assert_eq!(open(opened(2, 100, "alice", "scout")), None);
    let full = |what: &str, second| Some((what.to_owned(), Some(at(second))));
    assert_eq!(open(opened(3, 200, "bob", "scout")), full("2 sessions an hour for agent `scout`", HOUR));
    assert_eq!(open(opened(3, 200, "alice", "other")), None);
    assert_eq!(open(opened(4, 300, "alice", "third")), full("3 sessions an hour by operator `alice`", HOUR));
    // Closing gives no number back.
    block(ledger.close_session(session_id(1), "alice".into(), at(400))).unwrap();
    assert_eq!(open(opened(4, HOUR - 1, "alice", "third")), full("3 sessions an hour by operator `alice`", HOUR));
    assert_eq!(open(opened(4, HOUR, "alice", "third")), None);
    assert_eq!(open(opened(5, HOUR, "alice", "third")), full("3 sessions an hour by operator `alice`", HOUR + 100));
    assert_eq!(block(ledger.sessions()).unwrap().len(), 4, "what was refused left nothing");
    let none = SessionCaps { opener_hour: 0, ..SessionCaps::NONE };
    assert!(matches!(block(ledger.open_session(opened(9, 9 * HOUR, "x", "y"), none)), Ok(Opening::Refused(_))));
}

#[test]
fn the_limits_of_sessions_come_to_no_more_than_they_may() {
    let rig = Rig::new();
    let ledger = rig.open();
    // Each has a limit of five.
    let caps = SessionCaps { open: Some(micros(12_000_000)), day: Some(micros(20_000_000)), ..SessionCaps::NONE };
    let open = |session: Session, caps| frees(block(ledger.open_session(session, caps)).unwrap());
    let full = |what: &str, second| Some((what.to_owned(), Some(at(second))));
    assert_eq!(open(opened(1, 0, "alice", "scout"), caps), None);
    assert_eq!(open(opened(2, 100, "bob", "scout"), caps), None);
    assert_eq!(open(opened(3, 200, "bob", "scout"), caps), full("12 in open sessions", 2 * HOUR));
    block(ledger.close_session(session_id(2), "bob".into(), at(300))).unwrap();
    assert_eq!(open(opened(3, 300, "bob", "scout"), caps), None, "what was closed is open no more");
    assert_eq!(open(opened(4, 2 * HOUR, "bob", "scout"), caps), None, "nor is what is over");
    assert_eq!(
        open(opened(5, 9 * HOUR, "bob", "scout"), caps),
        full("20 in sessions opened in a day", DAY),
        "a day forgets nothing"
    );
    assert_eq!(open(opened(5, DAY, "bob", "scout"), caps), None);

    // The same of one operator; others are not counted.
    let own = SessionCaps { opener_open: Some(micros(5_000_000)), ..SessionCaps::NONE };
    assert_eq!(open(opened(6, DAY, "carol", "scout"), own), None);
    assert_eq!(
        open(opened(7, DAY, "carol", "scout"), own),
        full("5 in open sessions by operator `carol`", DAY + 2 * HOUR)
    );
    let own = SessionCaps { opener_day: Some(micros(9_000_000)), ..SessionCaps::NONE };
    let what = "9 in sessions opened in a day by operator `carol`";
    assert_eq!(open(opened(7, 2 * DAY - 1, "carol", "scout"), own), full(what, 2 * DAY));
    let larger = SessionCaps { day: Some(micros(4_999_999)), ..SessionCaps::NONE };
    let what = "4.999999 in sessions opened in a day".to_owned();
    assert_eq!(open(opened(8, 9 * DAY, "dave", "scout"), larger), Some((what, None)), "it would never fit");
}

#[test]
fn callers_at_once_open_no_more_than_they_may() {
    let rig = Rig::new();
    let ledger = rig.open();
    let caps = SessionCaps { day: Some(micros(35_000_000)), ..SessionCaps::NONE };
    let granted = std::thread::scope(|scope| {
        let open = |n| {
            let ledger = &ledger;
            scope.spawn(move || block(ledger.open_session(opened(n, 0, "alice", "scout"), caps)).unwrap())
        };
        let calls: Vec<_> = (1..=32).map(open).collect();
        calls.into_iter().map(|call| call.join().unwrap()).filter(|o| *o == Opening::Opened).count()
    });
    assert_eq!(granted, 7);
}
