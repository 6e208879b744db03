//! The kill switch as the signer sees it: in memory, so that it works while the store cannot
//! write; the ledger checks its own durable copy inside every commit.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use countersign_core::ledger::{PaymentFacts, Suspension, SuspensionScope};

/// Suspensions in force.
#[derive(Debug, Default)]
pub struct Stops {
    in_force: RwLock<BTreeMap<SuspensionScope, Suspension>>,
}

impl Stops {
    /// Starts from what the ledger has.
    #[must_use]
    pub fn new(suspensions: Vec<Suspension>) -> Self {
        let in_force = suspensions.into_iter().map(|s| (s.scope.clone(), s)).collect();
        Self { in_force: RwLock::new(in_force) }
    }

    /// Takes effect at once.
    pub fn add(&self, suspension: Suspension) {
        let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        in_force.insert(suspension.scope.clone(), suspension);
    }

    /// Lifts one.
    pub fn remove(&self, scope: &SuspensionScope) {
        self.in_force.write().unwrap_or_else(PoisonError::into_inner).remove(scope);
    }

    /// Every one.
    #[must_use]
    pub fn list(&self) -> Vec<Suspension> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What stops a payment with these facts, if anything does.
    #[must_use]
    pub fn covering(&self, facts: &PaymentFacts) -> Option<SuspensionScope> {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        in_force.keys().find(|scope| scope.covers(facts)).cloned()
    }
}
