//! How many calls may be under way: in all, and of one agent. Beyond that callers are told so at once, before their
//! bodies are read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_core::spend::Principal;

use crate::config::Limits;
use crate::problem::{Code, Problem};

/// Seconds after which a place may be free again.
const SOON: u32 = 1;

/// The calls that are under way.
#[derive(Debug, Default)]
pub struct Admission {
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u32,
    agents: BTreeMap<(String, String), u32>,
}

/// One call's place, free again when it is dropped: when the call has ended and its answer has been passed on.
#[derive(Debug)]
pub struct Place {
    agent: (String, String),
    taken: Arc<Mutex<Taken>>,
}

impl Admission {
    /// Takes a place for a call of somebody.
    ///
    /// # Errors
    /// `rate-limited` if this agent has as many as it may, `overloaded` if all are taken.
    pub fn admit(&self, limits: &Limits, who: &Principal) -> Result<Arc<Place>, Problem> {
        let agent = (who.workspace.clone().unwrap_or_default(), who.agent.clone());
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= limits.calls {
            return Err(Problem::new(Code::Overloaded, "too many calls are under way; nothing was signed"));
        }
        let own = taken.agents.get(&agent).copied().unwrap_or(0);
        if own >= limits.calls_per_agent {
            let detail = format!("{own} calls of this agent are under way, and no more may be at a time");
            let mut problem = Problem::new(Code::RateLimited, detail);
            problem.retry_after = Some(SOON);
            return Err(problem);
        }
        taken.all = taken.all.saturating_add(1);
        taken.agents.insert(agent.clone(), own.saturating_add(1));
        Ok(Arc::new(Place { agent, taken: Arc::clone(&self.taken) }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        let left = taken.agents.get(&self.agent).map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            taken.agents.remove(&self.agent);
        } else {
            taken.agents.insert(self.agent.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_for_each_agent_and_for_all() {
        let limits = Limits { calls: 3, calls_per_agent: 2, ..Limits::default() };
        let admission = Admission::default();
        let who = |agent: &str| Principal { agent: agent.into(), workspace: Some("w".into()), ..Principal::default() };
        let admit = |agent: &str| admission.admit(&limits, &who(agent)).map_err(|problem| problem.code);
        let (first, second) = (admit("a").unwrap(), admit("a").unwrap());
        assert_eq!(admit("a").unwrap_err(), Code::RateLimited);
        let elsewhere = Principal { agent: "a".into(), ..Principal::default() };
        let third = admission.admit(&limits, &elsewhere).unwrap();
        assert_eq!(admit("b").unwrap_err(), Code::Overloaded);
        drop(third);
        let also = Arc::clone(&first);
        drop(first);
        assert_eq!(admit("a").unwrap_err(), Code::RateLimited, "whoever still streams has its place");
        drop(also);
        let third = admit("a").unwrap();
        let fourth = admit("b").unwrap();
        assert_eq!(admit("b").unwrap_err(), Code::Overloaded);
        drop((second, third, fourth));
        let taken = admission.taken.lock().unwrap();
        assert_eq!((taken.all, taken.agents.len()), (0, 0), "nobody is remembered");
    }
}
