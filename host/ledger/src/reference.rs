//! The counters against a reference that keeps none: a list of every hold there ever was, from which what a
//! window holds and has spent is counted anew after each step.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::budget::{BudgetId, HOST, PlacedHold, Ring};
use countersign_core::money::Atomic;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Hold, Unit, Window};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rusqlite::Connection;

use crate::common::*;
use crate::moves::Moves;
use crate::sql::one;
use crate::windows::{self, Close, Placed};
use crate::{open, schema};
const LIMIT: u64 = 100;
const VALID: u64 = 60;

#[derive(Clone, Debug)]
enum Op {
    /// Buy: which holds (a set of [`holds`]), how much, and how far the clock is behind.
    Buy(u8, u64, u64),
    Redeem(usize, u64),
    Release(usize),
    Refund(usize, u64),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let buy = (1..128_u8, 1..60_u64, prop_oneof![3 => Just(0), 1 => 0..300_000_u64]);
    prop_oneof![
        5 => buy.prop_map(|(which, amount, behind)| Op::Buy(which, amount, behind)),
        2 => (any::<usize>(), 1..=10_u64).prop_map(|(which, part)| Op::Redeem(which, part)),
        1 => any::<usize>().prop_map(Op::Release),
        2 => (any::<usize>(), 1..=4_u64).prop_map(|(which, part)| Op::Refund(which, part)),
        2 => prop_oneof![0..2_000_u64, 0..100_000_u64, 0..5_000_000_u64, 0..90_000_000_u64].prop_map(Op::Pass),
    ]
}

/// The holds of a purchase: one budget of a policy's over one of several windows (two of them at once, if the
/// set says so), one of the host's, and one of counts.
fn holds(which: u8, amount: u64, at: Timestamp) -> Vec<PlacedHold> {
    let zone = || "Europe/Berlin".to_owned();
    let all = [
        ("caps", "a", Unit::Micros, Window::Rolling(60), amount),
        ("caps", "a", Unit::Micros, Window::Rolling(3_600), amount),
        ("caps", "a", Unit::Micros, Window::Day(zone()), amount / 2 + 1),
        ("caps", "a", Unit::Micros, Window::Lifetime, amount),
        (HOST, "h", Unit::Micros, Window::Month(zone()), amount),
        ("caps", "n", Unit::Count, Window::Rolling(3_600), 3),
        ("caps", "n", Unit::Count, Window::Day(zone()), 3),
    ];
    let chosen = all.into_iter().enumerate().filter(|(i, _)| which & (1 << i) != 0).map(|(_, hold)| hold);
    let placed = |(owner, name, unit, window, amount)| {
        let limit = if unit == Unit::Count { 18 } else { LIMIT };
        PlacedHold::place(owner, &Hold { unit, ..hold(name, window, limit, amount) }, at).unwrap()
    };
    chosen.map(placed).collect()
}

#[derive(Clone, Debug)]
struct Held {
    payment: u64,
    hold: PlacedHold,
    at: u64,
    bucket: u64,
    seq: u64,
    open: bool,
    aged: bool,
    settled: u64,
    refunded: u64,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    mark: u64,
    seq: u64,
    seeds: Vec<(u64, u64)>,
}

#[derive(Clone, Debug, Default)]
struct Reference {
    holds: Vec<Held>,
    windows: BTreeMap<(BudgetId, u64), Seen>,
    families: BTreeMap<(String, String, bool), BTreeSet<BudgetId>>,
    /// Of each payment: signed for, redeemed, and what came back.
    money: BTreeMap<u64, (u128, u128, u128)>,
}

fn family(hold: &PlacedHold) -> (String, String, bool) {
    (hold.owner.clone(), hold.name.clone(), hold.unit == Unit::Count)
}

fn ring(hold: &PlacedHold) -> Option<Ring> {
    windows::ring(&hold.window)
}

fn in_ring(ring: Option<Ring>, bucket: u64, mark: u64) -> bool {
    ring.is_none_or(|ring| ring.gone(Timestamp::from_millis(mark)).is_none_or(|gone| bucket > gone))
}

impl Reference {
    /// Held and spent of the window of this hold, from everything there is.
    fn counters(&self, like: &PlacedHold) -> (u64, u64) {
        let window = (like.budget(), like.win);
        let Some(seen) = self.windows.get(&window) else { return (0, 0) };
        let (mut held, mut spent) = (0, 0);
        for h in self.holds.iter().filter(|h| (h.hold.budget(), h.hold.win) == window) {
            match (h.open, h.aged) {
                (true, false) => held += h.hold.amount,
                (true, true) if in_ring(ring(like), h.bucket, seen.mark) => spent += h.hold.amount,
                (false, _) if in_ring(ring(like), h.bucket, seen.mark) => spent += h.settled - h.refunded,
                _ => {}
            }
        }
        let bucket = |at: u64| ring(like).map_or(0, |r| r.bucket(Timestamp::from_millis(at)));
        let seeds = seen.seeds.iter().filter(|(at, _)| in_ring(ring(like), bucket(*at), seen.mark));
        (held, spent + seeds.map(|(_, amount)| amount).sum::<u64>())
    }

    /// Brings a window to a moment, as a placement does: what is due ages, and other windows' history counts.
    fn visit(&mut self, hold: &PlacedHold, at: u64, seq: u64) -> u64 {
        let budget = hold.budget();
        let window = (budget, hold.win);
        self.families.entry(family(hold)).or_default().insert(budget);
        let seen = self.windows.entry(window).or_default();
        let now = at.max(seen.mark);
        let (known, ring) = (seen.seq, ring(hold));
        (seen.mark, seen.seq) = (if ring.is_some() { now } else { 0 }, seq);
        for h in self.holds.iter_mut().filter(|h| ring.is_some() && h.open && h.hold.budget() == budget) {
            h.aged |= due(h) < now;
        }
        let from = match ring {
            Some(ring) => ring.gone(Timestamp::from_millis(now)).map_or(0, |gone| gone + 1),
            None => hold.win,
        };
        let own: BTreeSet<u64> = self.holds.iter().filter(|h| h.hold.budget() == budget).map(|h| h.payment).collect();
        let mut missing = BTreeMap::<u64, (u64, u64)>::new();
        for h in &self.holds {
            let sibling = family(&h.hold) == family(hold) && h.hold.budget() != budget;
            if sibling && h.seq > known && h.at >= from && !own.contains(&h.payment) {
                let counts = if h.open { h.hold.amount } else { h.settled - h.refunded };
                let entry = missing.entry(h.payment).or_insert((h.at, 0));
                entry.1 = entry.1.max(counts);
            }
        }
        let seeds = missing.into_values().filter(|(_, amount)| *amount > 0);
        self.windows.entry(window).or_default().seeds.extend(seeds);
        now
    }

    /// Places every hold, or answers that they do not fit.
    fn buy(&self, n: u64, wanted: &[PlacedHold], at: u64, seq: u64) -> Option<Self> {
        let mut after = self.clone();
        let mut placed = Vec::new();
        for hold in wanted {
            let now = after.visit(hold, at, seq);
            let (held, spent) = after.counters(hold);
            if held + spent + hold.amount > hold.limit {
                return None;
            }
            let bucket = ring(hold).map_or(0, |r| r.bucket(Timestamp::from_millis(now)));
            let (hold, open, aged, settled, refunded) = (hold.clone(), true, false, 0, 0);
            placed.push(Held { payment: n, hold, at, bucket, seq, open, aged, settled, refunded });
        }
        after.holds.extend(placed);
        Some(after)
    }

    fn close(&mut self, n: u64, part: Option<(u128, u128)>) {
        for h in self.holds.iter_mut().filter(|h| h.payment == n) {
            h.open = false;
            h.settled = match part {
                None => 0,
                Some(_) if h.hold.unit == Unit::Count => h.hold.amount,
                Some((part, whole)) => u64::try_from((u128::from(h.hold.amount) * part).div_ceil(whole)).unwrap(),
            };
        }
    }

    fn refund(&mut self, n: u64) {
        let (_, redeemed, back) = self.money[&n];
        for h in self.holds.iter_mut().filter(|h| h.payment == n) {
            let mark = self.windows[&(h.hold.budget(), h.hold.win)].mark;
            if h.hold.owner != HOST && h.hold.unit == Unit::Micros && in_ring(ring(&h.hold), h.bucket, mark) {
                h.refunded = u64::try_from(u128::from(h.settled) * back / redeemed).unwrap();
            }
        }
    }

    fn payments(&self, open: bool) -> Vec<u64> {
        let all: BTreeSet<u64> = self.holds.iter().filter(|h| h.open == open).map(|h| h.payment).collect();
        all.into_iter().filter(|n| open || self.money[n].1 > 0).collect()
    }
}

fn due(h: &Held) -> u64 {
    Timestamp::from_secs(valid_until(h.at)).as_millis() + windows::AGEING_MARGIN
}

fn valid_until(at: u64) -> u64 {
    at / 1_000 + VALID
}

/// What the store says of every window the case has touched, and what the moves so far say of them.
fn agrees(conn: &Connection, reference: &Reference, told: &Told) -> Result<(), TestCaseError> {
    let windows: BTreeMap<_, _> = reference.holds.iter().map(|h| ((h.hold.budget(), h.hold.win), &h.hold)).collect();
    for ((budget, win), hold) in windows {
        let sql = "SELECT held,spent FROM budget_window WHERE budget=?1 AND win=?2";
        let row: (u64, u64) =
            one(conn, sql, (budget.as_bytes(), win), |r| Ok((r.get(0)?, r.get(1)?))).unwrap().unwrap();
        prop_assert_eq!(row, reference.counters(hold), "{:?}", hold);
        prop_assert_eq!(Some(&row), told.get(&(hex::encode(budget.as_bytes()), win)), "{:?}", hold);
    }
    Ok(())
}

fn run(conn: &Connection, ops: &[Op]) -> Result<(), TestCaseError> {
    let (mut reference, mut told, mut now) = (Reference::default(), Told::new(), T0.as_millis());
    for (n, op) in (1_u64..).zip(ops) {
        let mut moves = Moves::default();
        match op {
            Op::Pass(millis) => now += millis,
            Op::Buy(which, amount, behind) => {
                let at = Timestamp::from_millis(now - behind);
                let wanted = holds(*which, *amount, at);
                conn.execute_batch("SAVEPOINT buy").unwrap();
                let mut placed = Vec::new();
                for hold in &wanted {
                    match windows::place(conn, &mut moves, hold, at, (false, n)).unwrap() {
                        Placed::Fits(after) => placed.push(after),
                        Placed::Refused(_) => break,
                    }
                }
                let expected = reference.buy(n, &wanted, at.as_millis(), n);
                prop_assert_eq!(placed.len() == wanted.len(), expected.is_some(), "{:?} at {}", wanted, now);
                match expected {
                    Some(after) => {
                        for (ord, (hold, window)) in wanted.iter().zip(&placed).enumerate() {
                            let until = Some(valid_until(at.as_millis()));
                            windows::store_hold(conn, payment_id(n), (ord, hold), window, until, (at, n)).unwrap();
                        }
                        reference = after;
                        reference.money.insert(n, (u128::from(*amount) * 7, 0, 0));
                    }
                    None => {
                        conn.execute_batch("ROLLBACK TO buy").unwrap();
                        moves = Moves::default();
                    }
                }
                conn.execute_batch("RELEASE buy").unwrap();
            }
            Op::Redeem(which, _) | Op::Release(which) => {
                let open = reference.payments(true);
                let Some(n) = open.get(which % open.len().max(1)).copied() else { continue };
                let signed = reference.money[&n].0;
                let redeemed = match op {
                    Op::Redeem(_, tenths) => Some((signed * u128::from(*tenths)).div_ceil(10)),
                    _ => None,
                };
                let how = redeemed.map_or(Close::Release, |redeemed| Close::Settle {
                    redeemed: Atomic::new(redeemed),
                    signed: Atomic::new(signed),
                });
                windows::close(conn, &mut moves, payment_id(n), how).unwrap();
                reference.close(n, redeemed.map(|part| (part, signed)));
                reference.money.insert(n, (signed, redeemed.unwrap_or(0), 0));
            }
            Op::Refund(which, part) => {
                let settled = reference.payments(false);
                let Some(n) = settled.get(which % settled.len().max(1)).copied() else { continue };
                let (signed, redeemed, back) = reference.money[&n];
                let back = (back + redeemed.div_ceil(u128::from(*part))).min(redeemed);
                reference.money.insert(n, (signed, redeemed, back));
                let share = (Atomic::new(back), Atomic::new(redeemed));
                windows::refund(conn, &mut moves, payment_id(n), share).unwrap();
                reference.refund(n);
            }
        }
        follow(&mut told, &moves.record());
        agrees(conn, &reference, &told)?;
    }
    Ok(())
}

#[test]
fn ten_thousand_lives_of_budgets_agree_with_a_list_of_everything() {
    let folder = tempfile::tempdir().unwrap();
    let conn = open::writer(&folder.path().join("x.db")).unwrap();
    schema::migrate(&conn).unwrap();
    // The windows are the subject; payments and everything beside them would only be weight.
    conn.execute_batch("PRAGMA foreign_keys=OFF; BEGIN").unwrap();
    let config = Config { cases: 10_000, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let done = TestRunner::new(config).run(&prop::collection::vec(op(), 1..32), |ops| {
        conn.execute_batch("SAVEPOINT life").unwrap();
        let agreed = run(&conn, &ops);
        conn.execute_batch("ROLLBACK TO life; RELEASE life").unwrap();
        agreed
    });
    if let Err(why) = done {
        panic!("{why}");
    }
}
