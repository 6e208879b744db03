//! One history in two kinds of ledger leaves the same rows.

use countersign_core::ledger::{Ledger, LedgerError, SessionCaps, Suspension, SuspensionScope};
use countersign_core::payment::{Event, State};
use countersign_core::verdict::{Hold, Window};
use countersign_ledger::SqliteLedger;

use crate::backend::contents;
use crate::common::*;
use crate::fleet::{Dice, Gateway, database, unlocked};
use crate::worker::text;

/// Histories, unless the environment says otherwise.
const HISTORIES: u64 = 8;
const OPS: u64 = 90;

fn some_holds(dice: &mut Dice) -> Vec<Hold> {
    let windows = [
        Window::Lifetime,
        Window::Rolling(60),
        Window::Rolling(3_600),
        Window::Day("Europe/Berlin".into()),
        Window::Month("UTC".into()),
    ];
    let mut holds = Vec::new();
    for window in windows {
        if dice.below(3) == 0 {
            let name = if dice.below(2) == 0 { "a" } else { "b\0\u{1}ü" };
            holds.push(hold(name, window, 100, 1 + dice.below(40)));
        }
    }
    holds
}

/// One step of a history; answers what was said to it.
fn apply(ledger: &SqliteLedger, seed: u64, op: u64) -> String {
    let mut dice = Dice::new(seed * 1_000 + op);
    let moment = at(op * dice.below(400));
    let (n, some) = (op + 1, 1 + dice.below(op + 1));
    match dice.below(16) {
        0..=4 => said(block(ledger.commit(commit(n, moment, &some_holds(&mut dice))))),
        5 => said(block(ledger.commit(in_review(n, moment, &some_holds(&mut dice))))),
        6 => said(block(ledger.deny(denial(n, moment)))),
        7 => said(step(ledger, event(some, State::Signed, Event::Redeemed, moment))),
        8 => said(step(ledger, event(some, State::Signed, Event::SignerRefused, moment))),
        9 => said(step(ledger, event(some, State::Signed, Event::Ambiguous, moment))),
        10 => {
            said(block(ledger.refund(came_back(some, 10, op)))) + &said(block(ledger.refund(said_back(some, 5, "r"))))
        }
        11 => said(block(ledger.vote(cast(some, "alice", dice.below(3) > 0, moment)))),
        12 => said(block(ledger.commit(resumed(some, moment, &some_holds(&mut dice))))),
        13 => {
            said(block(ledger.expire_approvals(moment)))
                + &said(block(ledger.answered(payment_id(some), None, true, moment)))
        }
        14 => {
            said(block(ledger.open_session(session(n), SessionCaps::NONE)))
                + &said(block(ledger.remember(vec![vec![7; 9], vec![]])))
        }
        _ => {
            let scope = SuspensionScope::Vendor("v\0\u{1}".into());
            let stop = Suspension { scope: scope.clone(), by: "a".into(), reason: "\u{1}0\0".into(), at: moment };
            said(block(ledger.suspend(stop))) + &said(block(ledger.resume(scope, "b".into(), moment)))
        }
    }
}

fn said<T: std::fmt::Debug>(told: Result<T, LedgerError>) -> String {
    format!("{told:?};")
}

#[test]
fn one_history_leaves_the_same_rows_in_both_kinds_of_ledger() {
    let histories =
        text("COUNTERSIGN_HISTORIES").map_or(HISTORIES, |n| n.parse().expect("COUNTERSIGN_HISTORIES is a number"));
    let mut made = 0;
    for seed in 0..histories {
        let (_, database) = database();
        let gateway = Gateway::new();
        let alone = tempfile::tempdir().unwrap();
        let path = alone.path().join("ledger.db");
        // Opened more than once, so that epochs and what was in flight are compared too.
        for part in 0..3 {
            // Later than all that was: a gateway that shares its ledger begins no earlier than that.
            let now = at(part * OPS * 400);
            let one = unlocked(|| SqliteLedger::open(&path, Rig::options(), now)).unwrap();
            let shared = gateway.open_at(&database, now);
            for op in part * OPS / 3..(part + 1) * OPS / 3 {
                let [one, shared] = [&one, &shared].map(|ledger| apply(ledger, seed, op));
                assert_eq!(one, shared, "seed {seed}, step {op}");
                made += u64::from(one.contains("Ok"));
            }
        }
        let (ours, theirs) = (contents(&path), contents(&gateway.path));
        for (table, rows) in &ours {
            assert_eq!(rows, &theirs[table], "{table}, seed {seed}");
        }
        assert_eq!(ours.len(), theirs.len());
        gateway.check(&database);
    }
    assert!(made > histories * 25, "{made}");
}
