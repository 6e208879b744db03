//! The checker of budget histories believes true ones, and finds every mistake put into one.

#[cfg(test)]
mod tests {
    use countersign_model::history::{Answer, Broken, Call, Entry, Record, check};

    struct Chance(u64);

    impl Chance {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % end
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Bug {
        /// Two holds read the same counters, and the later write wins.
        LostUpdate,
        /// A hold is granted without looking at the limit.
        Unchecked,
        /// A batch is numbered backwards, long after its callers went on.
        Renumbered,
        /// An acknowledged call has no record.
        Dropped,
        /// A record is written twice, under two numbers.
        Twice,
        /// A refusal reads counters that were never there.
        WrongRefusal,
        /// A refusal reads counters of long ago.
        StaleRefusal,
        /// A refund leaves what is spent twice.
        DoubleRefund,
    }

    const LIMIT: u64 = 100;

    /// Some callers, one budget; the counter decides in the middle of each call. Every call overlaps others.
    fn history(seed: u64, length: u64, bug: Option<Bug>) -> (Vec<Record>, Vec<Call>) {
        let mut chance = Chance(seed);
        let row = ("b".to_owned(), 0);
        let (mut records, mut calls, mut waiting) = (Vec::new(), Vec::new(), Vec::<(u64, Call)>::new());
        let (mut held, mut spent, mut moment, mut was) = (Vec::<u64>::new(), Vec::<u64>::new(), 0_u64, Vec::new());
        let at = length / 2 + chance.below(length / 4);
        let mut due = bug.is_some();
        for n in 0..length {
            moment += 1;
            let name = format!("call {n}");
            let asked = moment;
            moment += 1 + chance.below(3);
            let (sum_held, sum_spent): (u64, u64) = (held.iter().sum(), spent.iter().sum());
            was.push(sum_held + sum_spent);
            let mut entry = Entry { budget: "b".into(), limit: LIMIT, ..Entry::default() };
            let mut now = due && n >= at;
            let answer = match chance.below(4) {
                0 | 1 => {
                    let amount = 1 + chance.below(40);
                    let fits = sum_held + sum_spent + amount <= LIMIT;
                    if fits || (now && bug == Some(Bug::Unchecked)) {
                        now &= !fits || bug != Some(Bug::Unchecked);
                        held.push(amount);
                        entry.hold = amount;
                        Answer::Done
                    } else {
                        let used = match bug {
                            Some(Bug::WrongRefusal) if now => sum_held + sum_spent + 1_000,
                            Some(Bug::StaleRefusal) if now => match was
                                .iter()
                                .find(|w| **w + amount > LIMIT && !was[was.len().saturating_sub(50)..].contains(w))
                            {
                                Some(old) => *old,
                                None => {
                                    now = false;
                                    sum_held + sum_spent
                                }
                            },
                            _ => sum_held + sum_spent,
                        };
                        now &= matches!(bug, Some(Bug::WrongRefusal | Bug::StaleRefusal));
                        due &= !now;
                        Answer::Refused { row: row.clone(), used, wanted: amount, limit: LIMIT }
                    }
                }
                2 if !held.is_empty() => {
                    entry.release = held.swap_remove(chance.below(held.len() as u64) as usize);
                    if chance.below(2) == 0 {
                        entry.spend = 1 + chance.below(entry.release);
                        spent.push(entry.spend);
                    }
                    now &= bug != Some(Bug::Unchecked);
                    Answer::Done
                }
                _ if !spent.is_empty() => {
                    entry.refund = spent.swap_remove(chance.below(spent.len() as u64) as usize);
                    Answer::Done
                }
                _ => continue,
            };
            if answer == Answer::Done {
                (entry.held, entry.spent) = (held.iter().sum(), spent.iter().sum());
                let seq = records.len() as u64 * 2 + 2;
                let mut record = Record { seq, call: name.clone(), entries: vec![entry.clone()] };
                let mut twin = None;
                match bug {
                    Some(Bug::LostUpdate) if now && entry.hold > 0 => {
                        record.entries[0].held = sum_held;
                        held.pop();
                        due = false;
                    }
                    Some(Bug::Unchecked) if now && entry.hold > 0 => due = false,
                    Some(Bug::Dropped) if now => due = false,
                    Some(Bug::Twice) if now => {
                        twin = Some(Record { seq: seq + 1, ..record.clone() });
                        due = false;
                    }
                    Some(Bug::DoubleRefund) if now && entry.refund > 0 && sum_spent >= 2 * entry.refund => {
                        record.entries[0].spent = sum_spent - 2 * entry.refund;
                        due = false;
                    }
                    _ => {}
                }
                if !(bug == Some(Bug::Dropped) && now) {
                    records.push(record);
                }
                records.extend(twin);
            }
            // The answer takes a while; others are asked meanwhile.
            waiting.push((moment + 1 + chance.below(6), Call { name, asked, answered: Some((0, answer)) }));
            waiting.retain_mut(|(answered, call)| {
                let over = *answered <= moment;
                if over {
                    call.answered.as_mut().unwrap().0 = *answered;
                    calls.push(call.clone());
                }
                !over
            });
        }
        for (answered, mut call) in waiting {
            call.answered.as_mut().unwrap().0 = answered;
            calls.push(call);
        }
        if bug == Some(Bug::Renumbered) {
            // The two halves of the order change places: the arithmetic of each still holds by itself.
            let half = records.len() / 2;
            let (seq, other) = (records[half].seq, records[half + 8].seq);
            let (first, second) = (records[half].call.clone(), records[half + 8].call.clone());
            for record in &mut records {
                if record.seq == seq {
                    record.call = second.clone();
                } else if record.seq == other {
                    record.call = first.clone();
                }
            }
        }
        (records, calls)
    }

    #[test]
    fn true_histories_are_believed() {
        for seed in 0..2_000 {
            let (records, calls) = history(seed, 300, None);
            let checked = check(&records, &calls).unwrap_or_else(|e| panic!("history {seed}: {e}"));
            assert!(checked.refusals > 0 && checked.records > 100, "history {seed} shows too little: {checked:?}");
        }
    }

    #[test]
    fn a_long_history_is_checked() {
        let (records, calls) = history(1, 1_200_000, None);
        let checked = check(&records, &calls).unwrap();
        println!("{} calls: {checked:?}", calls.len());
        assert!(calls.len() > 1_000_000);
    }

    #[test]
    fn every_mistake_is_found() {
        let expected = |bug: Bug, broken: &Broken| match bug {
            Bug::LostUpdate | Bug::DoubleRefund => matches!(broken, Broken::Arithmetic(_)),
            Bug::Unchecked => matches!(broken, Broken::Over(_)),
            Bug::Renumbered => matches!(broken, Broken::Order(_)),
            Bug::Dropped | Bug::Twice => matches!(broken, Broken::Records(..)),
            Bug::WrongRefusal | Bug::StaleRefusal => matches!(broken, Broken::Refusal(_)),
        };
        let all = [
            Bug::LostUpdate,
            Bug::Unchecked,
            Bug::Renumbered,
            Bug::Dropped,
            Bug::Twice,
            Bug::WrongRefusal,
            Bug::StaleRefusal,
            Bug::DoubleRefund,
        ];
        for bug in all {
            let mut found = 0;
            for seed in 0..200 {
                let (records, calls) = history(seed, 400, Some(bug));
                if let Err(broken) = check(&records, &calls) {
                    assert!(expected(bug, &broken), "{bug:?} in history {seed} was taken for: {broken}");
                    found += 1;
                }
            }
            println!("{bug:?}: found in {found} of 200 histories");
            assert!(found > 150, "{bug:?} was found in {found} of 200 histories only");
        }
    }
}
