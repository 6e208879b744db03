//! The kill switch as the signer sees it: in memory, so that it works while the store cannot
//! write; the ledger checks its own durable copy inside every commit. With a shared ledger, what other gateways
//! ordered or lifted is taken over from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use countersign_core::ledger::{PaymentFacts, Suspension, SuspensionScope};

/// Suspensions in force.
#[derive(Debug, Default)]
pub struct Stops {
    in_force: RwLock<InForce>,
}

#[derive(Debug, Default)]
struct InForce {
    stops: BTreeMap<SuspensionScope, Suspension>,
    /// Those that the ledger has, as far as is known. The others hold in this process only.
    told: BTreeSet<SuspensionScope>,
    /// Counts changes: what was read before one says nothing after it.
    changes: u64,
}

impl Stops {
    /// Starts from what the ledger has.
    #[must_use]
    pub fn new(suspensions: Vec<Suspension>) -> Self {
        let stops = Self::default();
        stops.take_over(0, suspensions);
        stops
    }

    /// Takes effect at once, in this process.
    pub fn add(&self, suspension: Suspension) {
        let mut in_force = self.write();
        in_force.changes = in_force.changes.saturating_add(1);
        in_force.told.remove(&suspension.scope);
        in_force.stops.insert(suspension.scope.clone(), suspension);
    }

    /// The ledger has it: from now on, whoever lifts it there lifts it here.
    pub fn told(&self, scope: &SuspensionScope) {
        let mut in_force = self.write();
        in_force.changes = in_force.changes.saturating_add(1);
        if in_force.stops.contains_key(scope) {
            in_force.told.insert(scope.clone());
        }
    }

    /// Lifts one.
    pub fn remove(&self, scope: &SuspensionScope) {
        let mut in_force = self.write();
        in_force.changes = in_force.changes.saturating_add(1);
        in_force.told.remove(scope);
        in_force.stops.remove(scope);
    }

    /// How often something changed here: to be asked before the ledger is.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).changes
    }

    /// Takes over what the ledger has, unless something changed here since `changes` was asked. What holds only in
    /// this process stays.
    pub fn take_over(&self, changes: u64, suspensions: Vec<Suspension>) {
        let mut in_force = self.write();
        if in_force.changes != changes {
            return;
        }
        let told = std::mem::take(&mut in_force.told);
        in_force.stops.retain(|scope, _| !told.contains(scope));
        for suspension in suspensions {
            in_force.told.insert(suspension.scope.clone());
            in_force.stops.insert(suspension.scope.clone(), suspension);
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, InForce> {
        self.in_force.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every one.
    #[must_use]
    pub fn list(&self) -> Vec<Suspension> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).stops.values().cloned().collect()
    }

    /// What stops a payment with these facts, if anything does.
    #[must_use]
    pub fn covering(&self, facts: &PaymentFacts) -> Option<SuspensionScope> {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        in_force.stops.keys().find(|scope| scope.covers(facts)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::time::Timestamp;

    use super::*;

    fn stop(agent: &str) -> Suspension {
        let scope = SuspensionScope::Agent(agent.to_owned());
        Suspension { scope, by: "alice".to_owned(), reason: String::new(), at: Timestamp::default() }
    }

    fn names(stops: &Stops) -> Vec<String> {
        stops.list().into_iter().map(|s| s.scope.to_string()).collect()
    }

    #[test]
    fn what_others_lift_is_lifted_and_what_only_this_process_knows_stays() {
        let stops = Stops::new(vec![stop("a")]);
        stops.add(stop("b"));
        stops.take_over(stops.changes(), vec![stop("c")]);
        assert_eq!(names(&stops), ["agent b", "agent c"]);
        stops.told(&stop("b").scope);
        stops.take_over(stops.changes(), vec![]);
        assert!(names(&stops).is_empty(), "the ledger had both, and has them no more");
    }

    #[test]
    fn what_was_read_before_a_change_here_does_not_undo_it() {
        let stops = Stops::new(vec![]);
        let before = stops.changes();
        stops.add(stop("a"));
        stops.told(&stop("a").scope);
        stops.take_over(before, vec![]);
        assert_eq!(stops.list().len(), 1);
    }
}
