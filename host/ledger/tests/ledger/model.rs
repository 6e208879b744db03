//! Budgets against a model that knows no counters: a list of every hold there ever was.

use countersign_core::ledger::{Commit, Committed, Grant};
use countersign_core::payment::{Event, State};
use countersign_core::verdict::{Hold, Window};
use proptest::prelude::*;

use crate::common::*;

const LIMIT: u64 = 100;
/// Validity, and the margin after which an unproven payment counts as spent, in milliseconds.
const VALID: u64 = 60_000;
const MARGIN: u64 = 60_000;

#[derive(Clone, Debug)]
enum Op {
    Buy(u64),
    Settle(usize),
    Release(usize),
    Pass(u64),
}

fn op(jump: u64) -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..60_u64).prop_map(Op::Buy),
        2 => any::<usize>().prop_map(Op::Settle),
        1 => any::<usize>().prop_map(Op::Release),
        2 => (0..jump).prop_map(Op::Pass),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Spent,
    Gone,
}

#[derive(Clone, Debug)]
struct Held {
    n: u64,
    at: u64,
    amount: u64,
    fate: Fate,
}

/// What a window counts at `now`, in milliseconds since the start.
fn counted(holds: &[Held], window: &Window, now: u64, slack: u64) -> u64 {
    let counts = |h: &&Held| match (window, h.fate) {
        (_, Fate::Gone) => false,
        (Window::Lifetime, _) => true,
        (Window::Day(_) | Window::Month(_), _) => day(h.at) == day(now),
        // Open and not yet aged: it counts whatever its age. Else: by its age alone.
        (Window::Rolling(_), Fate::Open) if now <= ages_after(h.at) => true,
        (Window::Rolling(seconds), _) => now < h.at + u64::from(*seconds) * 1_000 + slack,
    };
    holds.iter().filter(counts).map(|h| h.amount).sum()
}

/// The last moment at which an open hold counts whatever its age. Moments are exact, but validity is in whole seconds.
fn ages_after(at: u64) -> u64 {
    (at + VALID) / 1_000 * 1_000 + MARGIN
}

fn day(millis: u64) -> u64 {
    (T0.as_millis() + millis) / 86_400_000
}

fn granule(window: &Window) -> u64 {
    match window {
        Window::Rolling(seconds) => (u64::from(*seconds) * 1_000).div_ceil(288).max(1_000),
        _ => 0,
    }
}

fn run(window: &Window, ops: &[Op]) -> Result<(), TestCaseError> {
    let rig = Rig::new();
    let ledger = rig.open();
    let (mut now, mut holds) = (0_u64, Vec::<Held>::new());
    for (n, op) in (1_u64..).zip(ops) {
        let moment = T0.plus_millis(now);
        match op {
            Op::Pass(millis) => now += millis,
            Op::Buy(amount) => {
                let grant = Grant::Sign(authorization(n, moment.plus_millis(VALID)));
                let hold = Hold { ..hold("b", window.clone(), LIMIT, *amount) };
                let done = put(&ledger, Commit { grant, ..commit(n, moment, &[hold]) });
                let exact = counted(&holds, window, now, 0) + amount;
                match done {
                    Committed::Granted { .. } => {
                        prop_assert!(exact <= LIMIT, "{exact} over at {now} after {holds:?}");
                        holds.push(Held { n, at: now, amount: *amount, fate: Fate::Open });
                    }
                    Committed::Refused(_) => {
                        let generous = counted(&holds, window, now, granule(window)) + amount;
                        prop_assert!(generous > LIMIT, "refused with {generous} at {now} after {holds:?}");
                    }
                    Committed::Review(_) => prop_assert!(false),
                }
            }
            Op::Settle(which) | Op::Release(which) => {
                let mut open: Vec<_> = holds.iter_mut().filter(|h| h.fate == Fate::Open).collect();
                if open.is_empty() {
                    continue;
                }
                let at = which % open.len();
                let (what, fate) = match op {
                    Op::Settle(_) => (Event::Redeemed, Fate::Spent),
                    _ => (Event::SignerRefused, Fate::Gone),
                };
                step(&ledger, event(open[at].n, State::Signed, what, moment)).unwrap();
                open[at].fate = fate;
            }
        }
    }
    drop(ledger);
    let found = countersign_ledger::check_integrity(&rig.path).unwrap();
    prop_assert!(found.is_sound(), "{found:#?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rolling_hour_agrees_with_the_model(ops in prop::collection::vec(op(900_000), 1..60)) {
        run(&Window::Rolling(3_600), &ops)?;
    }

    #[test]
    fn a_short_rolling_window_agrees_with_the_model(ops in prop::collection::vec(op(20_000), 1..60)) {
        run(&Window::Rolling(10), &ops)?;
    }

    #[test]
    fn a_day_agrees_with_the_model(ops in prop::collection::vec(op(20_000_000), 1..60)) {
        run(&Window::Day(String::new()), &ops)?;
    }

    #[test]
    fn a_lifetime_agrees_with_the_model(ops in prop::collection::vec(op(20_000_000), 1..60)) {
        run(&Window::Lifetime, &ops)?;
    }
}
