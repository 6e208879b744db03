//! Windows of a few concurrent calls on one budget, ordered without believing any record.
//!
//! `COUNTERSIGN_WINDOWS` says how many are made on the real ledger.

#[cfg(test)]
#[path = "../simulation/chance.rs"]
mod chance;
#[cfg(test)]
mod counter;
#[cfg(test)]
mod ledger;
#[cfg(test)]
#[expect(dead_code, reason = "made for the simulation")]
#[path = "../simulation/purchase.rs"]
mod purchase;
#[cfg(test)]
#[expect(dead_code, reason = "made for the simulation")]
#[path = "../simulation/together.rs"]
mod together;

#[cfg(test)]
mod tests {
    use countersign_model::linear::{Asked, Broken, Call, Told, order};

    use crate::chance::Chance;
    use crate::counter::{Bug, LIMIT, window};

    /// Every order of these calls, one by one: slow, and so plain that it can be believed.
    fn any_order(used: u64, left: &[Call]) -> bool {
        if left.iter().all(|call| call.answered.is_none()) {
            return true;
        }
        (0..left.len()).any(|n| {
            let (call, mut rest) = (left[n], left.to_vec());
            rest.remove(n);
            let too_early = rest.iter().any(|other| other.answered.is_some_and(|(moment, _)| moment < call.asked));
            let after = match (call.asks, call.answered.map(|(_, told)| told)) {
                (Asked::Take(amount), Some(Told::Full(quoted))) => {
                    (quoted == used && used + amount > LIMIT).then_some(used)
                }
                (Asked::Take(amount), _) => Some(used + amount).filter(|used| *used <= LIMIT),
                (Asked::Give(amount), Some(Told::Done) | None) => used.checked_sub(amount),
                (Asked::Give(_), Some(Told::Full(_))) => None,
            };
            !too_early && after.is_some_and(|used| any_order(used, &rest))
        })
    }

    #[test]
    fn true_windows_have_an_order() {
        for seed in 0..10_000 {
            let window = window(seed, 12, None);
            let found = order(LIMIT, 0, &window).unwrap_or_else(|why| panic!("window {seed}: {why}: {window:#?}"));
            let answered = |n: &usize| window[*n].answered.is_some();
            let all = window.iter().filter(|call| call.answered.is_some()).count();
            assert_eq!(found.iter().filter(|n| answered(n)).count(), all, "window {seed}: {found:?}");
        }
    }

    #[test]
    fn the_search_finds_what_trying_every_order_finds() {
        let (mut with, mut without) = (0, 0);
        for seed in 0..10_000 {
            let bugs = [None, Some(Bug::LostUpdate), Some(Bug::StaleRead), Some(Bug::DoubleGrant)];
            let mut calls = window(seed, 6, bugs[seed as usize % 4]);
            let mut chance = Chance::new(!seed);
            // Some of the answers are made up.
            for call in &mut calls {
                if let (Some((_, told)), true) = (&mut call.answered, chance.percent(5)) {
                    *told = if chance.percent(50) { Told::Done } else { Told::Full(chance.below(LIMIT + 1)) };
                }
            }
            let expected = any_order(0, &calls);
            assert_eq!(order(LIMIT, 0, &calls).is_ok(), expected, "window {seed}: {calls:#?}");
            if expected { with += 1 } else { without += 1 }
        }
        println!("{with} windows with an order, {without} without");
        assert!(with > 2_000 && without > 1_000, "{with} windows with an order, {without} without");
    }

    #[test]
    fn every_mistake_is_found() {
        for bug in [Bug::LostUpdate, Bug::StaleRead, Bug::DoubleGrant] {
            let found = (0..1_000).filter(|seed| order(LIMIT, 0, &window(*seed, 12, Some(bug))).is_err()).count();
            println!("{bug:?}: found in {found} of 1000 windows");
            // What nobody was told, nobody can find: often the callers see nothing of it.
            assert!(found > 200, "{bug:?} was found in {found} of 1000 windows only");
        }
    }

    #[test]
    fn too_many_calls_are_refused() {
        let call = Call { asks: Asked::Take(1), asked: 1, answered: Some((2, Told::Done)) };
        assert_eq!(order(LIMIT, 0, &[call; 13]), Err(Broken::TooMany(13)));
    }
}
