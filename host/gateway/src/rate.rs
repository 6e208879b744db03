//! How many decisions an agent may cause a minute.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use countersign_core::time::Timestamp;

/// Agents remembered before silent ones are forgotten.
const MANY: usize = 4_096;

/// Sliding minute per agent.
#[derive(Debug, Default)]
pub struct RateLimiter {
    seen: Mutex<BTreeMap<String, VecDeque<Timestamp>>>,
}

impl RateLimiter {
    /// Counts one decision of `agent`; false if it already had `limit` in the last minute.
    pub fn admit(&self, agent: &str, limit: u32, now: Timestamp) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MANY {
            // An issuer may know any number of agents: those that were silent for a minute count from nothing.
            seen.retain(|_, recent| recent.back().is_some_and(|at| now.since(*at) < 60_000));
        }
        let recent = seen.entry(agent.to_owned()).or_default();
        while recent.front().is_some_and(|at| now.since(*at) >= 60_000) {
            recent.pop_front();
        }
        let full = u32::try_from(recent.len()).unwrap_or(u32::MAX) >= limit;
        if !full {
            recent.push_back(now);
        }
        !full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_slides() {
        let limiter = RateLimiter::default();
        let at = |s: u64| Timestamp::from_secs(1_000_000 + s);
        assert!(limiter.admit("a", 2, at(0)) && limiter.admit("a", 2, at(30)));
        assert!(!limiter.admit("a", 2, at(59)));
        assert!(limiter.admit("b", 2, at(59)), "agents do not share");
        assert!(limiter.admit("a", 2, at(60)));
        assert!(!limiter.admit("a", 2, at(61)));
        for n in 0..MANY * 2 {
            assert!(limiter.admit(&n.to_string(), 2, at(62)));
        }
        assert!(!limiter.admit("a", 2, at(62)), "who is not silent is not forgotten");
        assert!(limiter.admit("a", 2, at(200)));
        assert_eq!(limiter.seen.lock().unwrap().len(), 1);
    }
}
