//! A store, the lives that share it, and its crashes.

use std::collections::BTreeMap;
use std::path::Path;

use countersign_core::budget::HOST;
use countersign_core::ledger::{BudgetView, Ledger};
use countersign_core::time::Timestamp;
use countersign_core::verdict::Window;
use countersign_ledger::{Options, SqliteLedger, check_integrity};

use crate::chance::Chance;
use crate::life::{Bug, Life};
use crate::together::{all, block};

/// How many lives share a store.
pub(crate) const COHORT: u64 = 250;
/// Minutes of a life before it is brought to an end.
const MINUTES: u64 = 14;
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A life that went wrong.
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) why: String,
    /// What happened in it.
    pub(crate) story: Vec<String>,
}

/// What came of lives that shared a store.
#[derive(Default)]
pub(crate) struct Lived {
    pub(crate) failures: Vec<Failure>,
    /// How often what happened.
    pub(crate) tally: BTreeMap<String, u64>,
}

impl Lived {
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.failures.extend(other.failures);
        for (what, count) in other.tally {
            *self.tally.entry(what).or_default() += count;
        }
        self
    }
}

fn open(path: &Path, now: Timestamp) -> SqliteLedger {
    SqliteLedger::open(path, Options { readers: 1, ..Options::new([7; 32], [9; 16]) }, now).unwrap()
}

/// Lives through one store's time. With `only`, one of the lives tells its story, whatever becomes of it.
pub(crate) fn live_together(cohort: u64, bug: Option<Bug>, only: Option<u64>) -> Lived {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let mut chance = Chance::new(!cohort);
    let seeds = cohort * COHORT..(cohort + 1) * COHORT;
    let mut lives: Vec<_> = seeds.map(|seed| Life::new(seed, START, bug, only == Some(seed))).collect();
    let mut ledger = open(&path, START);
    let mut wrong = 0_i64;
    for minute in 0..MINUTES {
        let real = START.plus_millis(minute * 60_000);
        // Now and then somebody sets the clock, and sets it right again.
        wrong = match chance.below(100) {
            0 => 2 * 3_600_000,
            1 | 2 => -3_600_000,
            3..=30 => 0,
            _ => wrong,
        };
        let local = Timestamp::from_millis(real.as_millis().saturating_add_signed(wrong));
        let dies = chance.percent(20);
        all(lives.iter_mut().map(|life| Box::pin(life.minute(&ledger, local, real, dies)) as _));
        if dies {
            drop(ledger);
            ledger = open(&path, local);
        }
    }
    // The last validity is over after two hours of a wrong clock and five minutes; one node alone is read twice.
    for hour in 1..=4 {
        let real = START.plus_millis(MINUTES * 60_000 + hour * 3_600_000);
        let local = real.plus_millis(2 * 3_600_000);
        block(ledger.expire_approvals(local)).unwrap();
        all(lives.iter_mut().map(|life| Box::pin(life.end(&ledger, local, real, hour > 2)) as _));
    }
    let last = START.plus_millis(MINUTES * 60_000 + 9 * 3_600_000);
    let counters = counters(&block(ledger.budgets(last)).unwrap());
    all(lives.iter_mut().map(|life| Box::pin(life.judge(&ledger, &counters)) as _));
    all(lives.iter_mut().map(|life| Box::pin(life.spend_the_rest(&ledger, &counters)) as _));
    drop(ledger);
    let integrity = check_integrity(&path).unwrap();
    let mut tally = BTreeMap::new();
    for (what, count) in lives.iter().flat_map(|life| &life.tally) {
        *tally.entry(what.clone()).or_default() += count;
    }
    let mut failures: Vec<_> = lives
        .into_iter()
        .filter(|life| life.broken.is_some() || only == Some(life.seed))
        .filter_map(|life| {
            if life.tells {
                println!("{}", life.told.join("\n"));
            }
            life.broken.map(|why| Failure { seed: life.seed, why, story: life.told })
        })
        .collect();
    if !integrity.is_sound() {
        let why =
            format!("the store of lives {} to {} is not sound: {integrity:#?}", cohort * COHORT, (cohort + 1) * COHORT);
        failures.push(Failure { seed: cohort * COHORT, why, story: Vec::new() });
    }
    Lived { failures, tally }
}

/// Held and spent of every life's lifetime budget, by its owner; the host's own by its name.
fn counters(budgets: &[BudgetView]) -> BTreeMap<String, (u64, u64)> {
    let lifetime = budgets.iter().filter(|budget| budget.window == Window::Lifetime);
    let names = lifetime.map(|budget| {
        let name = if budget.owner == HOST { &budget.name } else { &budget.owner };
        (name.clone(), (budget.held, budget.spent))
    });
    names.collect()
}
