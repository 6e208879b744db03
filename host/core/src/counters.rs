//! Budgets that nothing real reads: the counter set of monitor mode, shadows and backtests.
//!
//! The windows are those of the ledger ([`PlacedHold`], [`Ring`]); only the life of a hold is
//! simpler: it counts as spent from the moment of its decision, and is never given back.

use std::collections::BTreeMap;

use crate::budget::{BudgetId, PlacedHold, Ring, resets_at};
use crate::ledger::BudgetRefusal;
use crate::time::Timestamp;
use crate::verdict::Window;

/// What a placement found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Every hold fits.
    Fits {
        /// A hold reached its `review-at`, and nobody has approved going past it in this window.
        review: bool,
    },
    /// The first hold that does not fit.
    Refused(Box<BudgetRefusal>),
}

/// A set of counters, in bounded memory.
#[derive(Clone, Debug)]
pub struct Counters {
    windows: BTreeMap<(BudgetId, u64), Counter>,
    most: usize,
    forgotten: u64,
}

#[derive(Clone, Debug)]
struct Counter {
    ring: Option<Ring>,
    /// Everything in `buckets`; for other windows than rolling ones, everything.
    used: u64,
    buckets: BTreeMap<u64, u64>,
    /// The latest moment seen: the clock of a window never goes back.
    mark: Timestamp,
    /// When a calendar window is over.
    until: Option<Timestamp>,
    /// The `review-at` that people let somebody pass.
    latched: Option<u64>,
}

impl Counters {
    /// Windows of a usual set.
    pub const MOST: usize = 50_000;

    /// An empty set of at most `most` windows.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { windows: BTreeMap::new(), most, forgotten: 0 }
    }

    /// Windows that were dropped to stay within bounds although they still counted. Where there are
    /// any, a budget may seem to have more room than it has.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Whether every hold would fit at `at`. Counts nothing.
    #[must_use]
    pub fn check(&self, holds: &[PlacedHold], at: Timestamp) -> Placement {
        let mut review = false;
        for hold in holds {
            let (used, latched) = match self.windows.get(&(hold.budget(), hold.win)) {
                Some(counter) => counter.standing(at),
                None => (0, None),
            };
            let after = used.saturating_add(hold.amount);
            if after > hold.limit {
                return Placement::Refused(Box::new(refusal(hold, used)));
            }
            review |= hold.review_at.is_some_and(|t| after >= t && latched.is_none_or(|l| t > l));
        }
        Placement::Fits { review }
    }

    /// Counts every hold, or none if one does not fit. `approved`: people were shown that a threshold
    /// is passed and let it, so nobody is asked again in this window.
    pub fn place(&mut self, holds: &[PlacedHold], at: Timestamp, approved: bool) -> Placement {
        let found = self.check(holds, at);
        if let Placement::Fits { .. } = found {
            for hold in holds {
                self.add(hold, at, approved);
            }
        }
        found
    }

    fn add(&mut self, hold: &PlacedHold, at: Timestamp, approved: bool) {
        let key = (hold.budget(), hold.win);
        if !self.windows.contains_key(&key) {
            self.make_room(at);
        }
        let counter = self.windows.entry(key).or_insert_with(|| Counter::new(hold, at));
        counter.add(hold, at, approved);
    }

    fn make_room(&mut self, at: Timestamp) {
        if self.windows.len() < self.most {
            return;
        }
        self.windows.retain(|_, counter| counter.counts(at));
        // Still full: the longest unused eighth goes, so that this walk is rare.
        let mut marks: Vec<Timestamp> = self.windows.values().map(|c| c.mark).collect();
        marks.sort_unstable();
        let Some(full) = self.windows.len().checked_sub(self.most) else { return };
        let goes = full.saturating_add(self.most.div_ceil(8));
        let mut left = goes;
        if let Some(cut) = marks.get(goes.saturating_sub(1)).copied() {
            self.windows.retain(|_, counter| {
                let drop = left > 0 && counter.mark <= cut;
                left = left.saturating_sub(usize::from(drop));
                !drop
            });
        } else {
            self.windows.clear();
        }
        self.forgotten = self.forgotten.saturating_add(u64::try_from(goes).unwrap_or(u64::MAX));
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new(Self::MOST)
    }
}

impl Counter {
    fn new(hold: &PlacedHold, at: Timestamp) -> Self {
        let ring = match hold.window {
            Window::Rolling(seconds) => Some(Ring::new(seconds)),
            Window::Day(_) | Window::Month(_) | Window::Lifetime => None,
        };
        let until = resets_at(&hold.window, at).ok().flatten();
        Self { ring, used: 0, buckets: BTreeMap::new(), mark: at, until, latched: None }
    }

    /// What counts at `at`, and the threshold that is latched then.
    fn standing(&self, at: Timestamp) -> (u64, Option<u64>) {
        let Some(ring) = self.ring else { return (self.used, self.latched) };
        let gone = ring.gone(at.max(self.mark));
        let left: u64 = gone.map_or(0, |gone| self.buckets.range(..=gone).map(|(_, n)| *n).sum());
        let used = self.used.saturating_sub(left);
        // As in the ledger: a threshold counts again once use has fallen below nine tenths of it.
        let fallen = |l: &u64| u128::from(used).saturating_mul(10) < u128::from(*l).saturating_mul(9);
        (used, self.latched.filter(|l| !fallen(l)))
    }

    fn add(&mut self, hold: &PlacedHold, at: Timestamp, approved: bool) {
        let now = at.max(self.mark);
        (self.used, self.latched) = self.standing(now);
        self.mark = now;
        if let Some(ring) = self.ring {
            if let Some(gone) = ring.gone(now) {
                self.buckets = self.buckets.split_off(&gone.saturating_add(1));
            }
            let bucket = self.buckets.entry(ring.bucket(now)).or_default();
            *bucket = bucket.saturating_add(hold.amount);
        }
        self.used = self.used.saturating_add(hold.amount);
        if approved {
            let passed = hold.review_at.filter(|t| self.used >= *t);
            self.latched = self.latched.max(passed);
        }
    }

    /// Whether dropping it would change an answer.
    fn counts(&self, at: Timestamp) -> bool {
        match self.ring {
            Some(_) => self.standing(at).0 > 0,
            None => self.until.is_none_or(|until| until > at),
        }
    }
}

fn refusal(hold: &PlacedHold, used: u64) -> BudgetRefusal {
    BudgetRefusal {
        owner: hold.owner.clone(),
        name: hold.name.clone(),
        unit: hold.unit,
        window: hold.window.clone(),
        limit: hold.limit,
        used,
        wanted: hold.amount,
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test's own small numbers")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::verdict::{Hold, Unit};

    const T0: u64 = 1_795_000_000_000;

    fn placed(name: &str, window: &Window, limit: u64, amount: u64, at: Timestamp) -> PlacedHold {
        let (unit, review_at) = (Unit::Micros, None);
        let hold = Hold { budget: name.into(), unit, window: window.clone(), limit, amount, alert_at: None, review_at };
        PlacedHold::place("p", &hold, at).unwrap()
    }

    /// Every amount ever placed, and nothing else.
    fn naive(placed: &[(u64, u64)], window: &Window, now: u64, slack: u64) -> u64 {
        let day = |millis: u64| millis / 86_400_000;
        let month = |millis: u64| Timestamp::from_millis(millis).to_string().get(..7).map(str::to_owned);
        let counts = |(at, _): &&(u64, u64)| match window {
            Window::Lifetime => true,
            Window::Day(_) => day(*at) == day(now),
            Window::Month(_) => month(*at) == month(now),
            Window::Rolling(seconds) => now < at + u64::from(*seconds) * 1_000 + slack,
        };
        placed.iter().filter(counts).map(|(_, amount)| amount).sum()
    }

    fn agrees(window: &Window, steps: &[(u64, u64)]) -> Result<(), TestCaseError> {
        const LIMIT: u64 = 100;
        let slack = match window {
            Window::Rolling(seconds) => (u64::from(*seconds) * 1_000).div_ceil(288).max(1_000),
            _ => 0,
        };
        let (mut counters, mut model, mut now) = (Counters::default(), Vec::new(), T0);
        for (wait, amount) in steps {
            now += wait;
            let at = Timestamp::from_millis(now);
            let found = counters.place(&[placed("b", window, LIMIT, *amount, at)], at, false);
            if found == (Placement::Fits { review: false }) {
                prop_assert!(naive(&model, window, now, 0) + amount <= LIMIT, "{now}: {model:?}");
                model.push((now, *amount));
            } else {
                prop_assert!(naive(&model, window, now, slack) + amount > LIMIT, "{now}: {model:?}");
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn windows_agree_with_a_list_of_everything(
            hour in prop::collection::vec((0..900_000_u64, 1..60_u64), 1..60),
            short in prop::collection::vec((0..9_000_u64, 1..60_u64), 1..60),
            long in prop::collection::vec((0..30_000_000_u64, 1..20_u64), 1..120),
        ) {
            agrees(&Window::Rolling(3_600), &hour)?;
            agrees(&Window::Rolling(10), &short)?;
            agrees(&Window::Day(String::new()), &long)?;
            agrees(&Window::Month("UTC".into()), &long)?;
            agrees(&Window::Lifetime, &long)?;
        }
    }

    #[test]
    fn all_holds_or_none() {
        let (mut counters, at) = (Counters::default(), Timestamp::from_millis(T0));
        let one = |name: &str, limit| placed(name, &Window::Lifetime, limit, 6, at);
        let found = counters.place(&[one("wide", 10), one("narrow", 5)], at, false);
        let Placement::Refused(why) = found else { panic!("{found:?}") };
        assert_eq!((why.name.as_str(), why.used, why.limit, why.wanted), ("narrow", 0, 5, 6));
        assert_eq!(counters.place(&[one("wide", 10)], at, false), Placement::Fits { review: false });
        assert!(matches!(counters.place(&[one("wide", 10)], at, false), Placement::Refused(_)), "it counted the first");
    }

    #[test]
    fn a_threshold_asks_until_people_let_somebody_past() {
        let (mut counters, at) = (Counters::default(), Timestamp::from_millis(T0));
        let hour = Window::Rolling(3_600);
        let hold = |at| PlacedHold { review_at: Some(5), ..placed("b", &hour, 100, 6, at) };
        let review = |found: Placement| found == Placement::Fits { review: true };
        assert!(review(counters.check(&[hold(at)], at)));
        assert!(review(counters.place(&[hold(at)], at, false)));
        assert!(review(counters.place(&[hold(at)], at, true)), "the one that people approved");
        assert!(!review(counters.place(&[hold(at)], at, false)));
        let later = at.plus_millis(7_200_000);
        assert!(review(counters.check(&[hold(later)], later)), "the window has emptied");
    }

    #[test]
    fn memory_is_bounded_and_forgetting_is_told() {
        let mut counters = Counters::new(64);
        let at = |n: u64| Timestamp::from_millis(T0 + n);
        for n in 0..10_000 {
            let hold = placed(&format!("b{n}"), &Window::Rolling(1), 10, 1, at(n * 1_000));
            counters.place(&[hold], at(n * 1_000), false);
            assert!(counters.windows.len() <= 64);
        }
        assert_eq!(counters.forgotten(), 0, "what has left its window is no loss");
        for n in 0..1_000 {
            counters.place(&[placed(&format!("l{n}"), &Window::Lifetime, 10, 1, at(n))], at(n), false);
            assert!(counters.windows.len() <= 64);
        }
        assert!(counters.forgotten() > 900, "{}", counters.forgotten());
    }
}
