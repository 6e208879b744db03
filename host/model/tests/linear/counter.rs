//! A counter of our own, right or wrong, and what its callers see of it.

use countersign_model::linear::{Asked, Call, Told};

use crate::chance::Chance;

pub(crate) const LIMIT: u64 = 100;
const CALLERS: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// What was read when a call was asked is what it goes on from: changes in between are lost.
    LostUpdate,
    /// Whether there is room is read from what was in use some changes before the call was asked.
    StaleRead,
    /// Two calls are granted the same room.
    DoubleGrant,
}

/// Where a caller is in its call.
#[derive(Clone, Copy)]
enum Stage {
    Idle,
    Asked { call: usize, read: u64 },
    Done { call: usize, told: Told },
}

/// A window of calls of a few callers. The counter begins at 0, and is asked in the middle of each call.
pub(crate) fn window(seed: u64, length: usize, bug: Option<Bug>) -> Vec<Call> {
    let mut chance = Chance::new(seed);
    let mut calls: Vec<Call> = Vec::new();
    let mut stages = [Stage::Idle; CALLERS];
    // What each caller may give back, and all that was ever in use, newest last.
    let mut owned: [Vec<u64>; CALLERS] = Default::default();
    let mut was = vec![0_u64];
    let mut moment = 0;
    let last_granted = &mut 0;
    while calls.len() < length || stages.iter().any(|stage| !matches!(stage, Stage::Idle)) {
        let caller = chance.index(CALLERS);
        moment += 1;
        let used = was[was.len() - 1];
        stages[caller] = match stages[caller] {
            Stage::Idle if calls.len() == length => Stage::Idle,
            Stage::Idle => {
                let gives = !owned[caller].is_empty() && chance.percent(40);
                let asks = if gives {
                    let index = chance.index(owned[caller].len());
                    Asked::Give(owned[caller].swap_remove(index))
                } else {
                    Asked::Take(chance.between(10, 60))
                };
                calls.push(Call { asks, asked: moment, answered: None });
                let read = match bug {
                    Some(Bug::StaleRead) => was[was.len().saturating_sub(4)],
                    _ => used,
                };
                Stage::Asked { call: calls.len() - 1, read }
            }
            Stage::Asked { call, read } => {
                let base = if bug == Some(Bug::LostUpdate) { read } else { used };
                let told = match calls[call].asks {
                    Asked::Take(amount) => {
                        let seen = match bug {
                            Some(Bug::StaleRead) => read,
                            Some(Bug::DoubleGrant) => used.saturating_sub(*last_granted),
                            _ => base,
                        };
                        if seen + amount <= LIMIT {
                            was.push(base + amount);
                            *last_granted = amount;
                            owned[caller].push(amount);
                            Told::Done
                        } else {
                            Told::Full(seen)
                        }
                    }
                    Asked::Give(amount) => {
                        was.push(base.saturating_sub(amount));
                        *last_granted = 0;
                        Told::Done
                    }
                };
                Stage::Done { call, told }
            }
            // Now and then an answer never comes.
            Stage::Done { call, told } => {
                calls[call].answered = (!chance.percent(3)).then_some((moment, told));
                Stage::Idle
            }
        };
    }
    calls
}
