//! What one write moves in the counters, as its record tells it.
//!
//! One entry per budget and window, with the counters after it, so that a reader of the records alone
//! can follow every budget: `held' = held + hold − release − aged` and
//! `spent' = spent + spend + aged-spent + seeded − left − refund`.

use std::collections::BTreeMap;

use countersign_core::budget::BudgetId;
use countersign_core::digits::lower_hex;
use serde_json::{Map, Value};

use crate::sql::{Answer, Fault};

/// Moves of one window; each is an amount.
#[derive(Clone, Copy, Default)]
pub(crate) struct Move {
    /// Newly reserved.
    pub(crate) hold: u64,
    /// Left what is held: released, or settled.
    pub(crate) release: u64,
    /// Spent.
    pub(crate) spend: u64,
    /// Left what is spent, because it came back or was never redeemed.
    pub(crate) refund: u64,
    /// Left what is held because of its age.
    pub(crate) aged: u64,
    /// Of that, what counts as spent.
    pub(crate) aged_spent: u64,
    /// Left what is spent because of its age.
    pub(crate) left: u64,
    /// Taken over from another window into what is spent.
    pub(crate) seeded: u64,
    /// The amount of the hold that was closed, if one was.
    pub(crate) amount: Option<u64>,
}

impl Move {
    /// By how much `held` and `spent` change. No sum of a window passes 4.001e18, so these fit.
    fn deltas(&self) -> Answer<(i64, i64)> {
        let delta = |more: [u64; 3], less: [u64; 2]| {
            let sum = |parts: &[u64]| parts.iter().try_fold(0_i64, |sum, n| sum.checked_add(i64::try_from(*n).ok()?));
            sum(&more)?.checked_sub(sum(&less)?)
        };
        let held = delta([self.hold, 0, 0], [self.release, self.aged]);
        let spent = delta([self.spend, self.aged_spent, self.seeded], [self.left, self.refund]);
        held.zip(spent).ok_or_else(|| Fault::Broken("a window moves by more than a window holds".to_owned()))
    }

    /// `held` and `spent` after it; neither goes below nothing.
    pub(crate) fn after(&self, (held, spent): (u64, u64)) -> Answer<(u64, u64)> {
        let (more_held, more_spent) = self.deltas()?;
        let after = held.checked_add_signed(more_held).zip(spent.checked_add_signed(more_spent));
        after.ok_or_else(|| Fault::Broken("a window holds or has spent less than is taken from it".to_owned()))
    }

    fn plus(self, other: Self) -> Self {
        Self {
            hold: self.hold.saturating_add(other.hold),
            release: self.release.saturating_add(other.release),
            spend: self.spend.saturating_add(other.spend),
            refund: self.refund.saturating_add(other.refund),
            aged: self.aged.saturating_add(other.aged),
            aged_spent: self.aged_spent.saturating_add(other.aged_spent),
            left: self.left.saturating_add(other.left),
            seeded: self.seeded.saturating_add(other.seeded),
            amount: other.amount.or(self.amount),
        }
    }

    fn parts(&self) -> [(&'static str, u64); 8] {
        [
            ("hold", self.hold),
            ("release", self.release),
            ("spend", self.spend),
            ("refund", self.refund),
            ("aged", self.aged),
            ("aged-spent", self.aged_spent),
            ("left", self.left),
            ("seeded", self.seeded),
        ]
    }
}

struct Entry {
    label: String,
    moved: Move,
    /// Held, spent and limit afterwards.
    after: (u64, u64, u64),
}

/// Everything a write moves, by budget and window.
#[derive(Default)]
pub(crate) struct Moves(BTreeMap<(BudgetId, u64), Entry>);

impl Moves {
    /// Adds what was just moved; `after` is held, spent and limit as they now stand.
    pub(crate) fn add(
        &mut self,
        window: (BudgetId, u64),
        label: impl FnOnce() -> String,
        moved: Move,
        after: (u64, u64, u64),
    ) {
        let fresh = || Entry { label: label(), moved: Move::default(), after };
        let entry = self.0.entry(window).or_insert_with(fresh);
        entry.moved = entry.moved.plus(moved);
        entry.after = after;
    }

    /// As the record tells it.
    pub(crate) fn record(&self) -> Value {
        let entry = |((budget, win), e): (&(BudgetId, u64), &Entry)| {
            let (held, spent, limit) = e.after;
            let mut map = Map::new();
            map.insert("budget".to_owned(), lower_hex(budget.as_bytes()).into());
            map.insert("label".to_owned(), e.label.as_str().into());
            map.insert("win".to_owned(), (*win).into());
            map.insert("limit".to_owned(), limit.into());
            map.insert("held".to_owned(), held.into());
            map.insert("spent".to_owned(), spent.into());
            if let Some(amount) = e.moved.amount {
                map.insert("amount".to_owned(), amount.into());
            }
            let moved = e.moved.parts().into_iter().filter(|(_, amount)| *amount > 0);
            map.extend(moved.map(|(name, amount)| (name.to_owned(), amount.into())));
            Value::Object(map)
        };
        self.0.iter().map(entry).collect()
    }
}
