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
    use countersign_core::payment::Event;

    use crate::life::Bug;
    use crate::store::{COHORT, Failure, Lived, live_together};

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

    /// What must happen in so many lives, for them to show anything.
    fn everything() -> Vec<String> {
        let steps = ["commit", "store-signature", "answered", "vote", "represent", "finalized", "payment"];
        let events = Event::ALL.map(Event::name);
        let dying = steps.iter().chain(events.iter().filter(|event| {
            // By a vote, in a commit; or rarely looked for.
            !matches!(**event, "resume" | "withdraw" | "reorganised" | "contradicted" | "dropped" | "redressed")
        }));
        let deaths = dying.flat_map(|what| [format!("dies before {what}"), format!("dies in the middle of {what}")]);
        let found = ["redeemed", "redeemed in part", "expired", "cancelled", "gone", "contradictory", "unclear"];
        let found = found.iter().map(|what| format!("found {what}"));
        let rest = [
            "grant",
            "review",
            "another attempt",
            "presented again",
            "refused by the budget",
            "refused as live",
            "refund known already",
            "clock set back",
            "conflict",
            "blocks undone",
            "found, to be confirmed",
        ];
        let rest = rest.iter().chain(&events).map(|what| (*what).to_owned());
        deaths.chain(found).chain(rest).collect()
    }

    #[test]
    fn no_life_loses_money() {
        if let Some(seed) = number("COUNTERSIGN_SEED") {
            let lived = live_together(seed / COHORT, None, Some(seed));
            let found: Vec<_> = lived.failures.iter().map(told).collect();
            assert!(found.is_empty(), "{}", found.join("\n\n"));
            return;
        }
        let cohorts = number("COUNTERSIGN_SEEDS").unwrap_or(SEEDS).div_ceil(COHORT);
        // Two at a time: one waits for the disk while the other thinks.
        let lived = std::thread::scope(|scope| {
            let run = |half: u64| {
                let lives = (half..cohorts).step_by(2).map(|cohort| live_together(cohort, None, None));
                lives.fold(Lived::default(), Lived::and)
            };
            let threads: Vec<_> = (0..2).map(|half| scope.spawn(move || run(half))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).fold(Lived::default(), Lived::and)
        });
        println!("{} lives: {:#?}", cohorts * COHORT, lived.tally);
        if let Some(first) = lived.failures.first() {
            let seeds: Vec<_> = lived.failures.iter().map(|failure| failure.seed).collect();
            panic!("{} of {} lives failed: {seeds:?}\n{}", seeds.len(), cohorts * COHORT, told(first));
        }
        if cohorts * COHORT >= SEEDS {
            let never: Vec<_> = everything().into_iter().filter(|what| !lived.tally.contains_key(what)).collect();
            assert!(never.is_empty(), "these never happened: {never:#?}");
        }
    }

    #[test]
    fn every_mistake_is_found() {
        for bug in Bug::ALL {
            let found = (0..8).find_map(|cohort| live_together(cohort, Some(bug), None).failures.into_iter().next());
            let found = found.unwrap_or_else(|| panic!("{bug:?} was not found in {} lives", 8 * COHORT));
            println!("{bug:?}: life {}: {}", found.seed, found.why);
        }
    }
}
