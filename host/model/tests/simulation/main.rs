//! Thousands of lives of the real ledger and the real reader of the chain, against what is true.
//!
//! Every life is decided by its seed. Lives share a store only to share its syncs: workspace, network,
//! budgets and payees are each life's own. `COUNTERSIGN_SEEDS` sets how many there are, and
//! `COUNTERSIGN_SEED` replays one and tells its story.

#[cfg(test)]
mod chance;
#[cfg(test)]
mod contended;
#[cfg(test)]
mod life;
#[cfg(test)]
mod purchase;
#[cfg(test)]
mod store;
#[cfg(test)]
mod together;

#[cfg(test)]
mod tests {
    use crate::life::Bug;
    use crate::store::{COHORT, Failure, live_together};

    /// How many lives, unless the environment says otherwise.
    const SEEDS: u64 = 10_000;

    fn number(variable: &str) -> Option<u64> {
        let text = std::env::vars().find(|(name, _)| name == variable)?.1;
        Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: expected a number")))
    }

    fn told(failure: &Failure) -> String {
        let Failure { seed, why, story } = failure;
        let story = story.join("\n");
        format!(
            "life {seed}: {why}\n{story}\nreplay it: COUNTERSIGN_SEED={seed} cargo test --release -p countersign-model --test simulation"
        )
    }

    #[test]
    fn no_life_loses_money() {
        if let Some(seed) = number("COUNTERSIGN_SEED") {
            let failures = live_together(seed / COHORT, None, Some(seed));
            let found: Vec<_> = failures.iter().map(told).collect();
            assert!(found.is_empty(), "{}", found.join("\n\n"));
            return;
        }
        let cohorts = number("COUNTERSIGN_SEEDS").unwrap_or(SEEDS).div_ceil(COHORT);
        // Two at a time: one waits for the disk while the other thinks.
        let failures: Vec<_> = std::thread::scope(|scope| {
            let run =
                |half: u64| move || (half..cohorts).step_by(2).flat_map(|c| live_together(c, None, None)).collect();
            let threads: Vec<std::thread::ScopedJoinHandle<'_, Vec<Failure>>> =
                (0..2).map(|half| scope.spawn(run(half))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let seeds: Vec<_> = failures.iter().map(|failure| failure.seed).collect();
        if let Some(first) = failures.iter().min_by_key(|failure| failure.story.len()) {
            panic!("{} of {} lives failed: {seeds:?}\n{}", seeds.len(), cohorts * COHORT, told(first));
        }
        println!("{} lives, none failed", cohorts * COHORT);
    }

    #[test]
    fn every_mistake_is_found() {
        for bug in Bug::ALL {
            let found = (0..8).find_map(|cohort| live_together(cohort, Some(bug), None).into_iter().next());
            let found = found.unwrap_or_else(|| panic!("{bug:?} was not found in {} lives", 8 * COHORT));
            println!("{bug:?}: life {}: {}", found.seed, found.why);
        }
    }
}
