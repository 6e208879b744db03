//! What is in the air: one call per purchase at a time, and which payments are being recorded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use countersign_core::id::PaymentId;
use countersign_core::ledger::PurchaseKey;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

/// Calls of one purchase that may wait for each other: a caller that hangs up leaves its call behind.
const MOST_WAITING: usize = 64;

/// Locks per purchase and the payments whose calls are running.
#[derive(Debug, Default)]
pub struct Flights {
    locks: Mutex<BTreeMap<PurchaseKey, Weak<AsyncMutex<()>>>>,
    running: Arc<Mutex<BTreeMap<PaymentId, watch::Receiver<bool>>>>,
}

/// Held while a payment's call runs and until its end is recorded.
#[derive(Debug)]
pub struct Flight {
    payment: PaymentId,
    running: Arc<Mutex<BTreeMap<PaymentId, watch::Receiver<bool>>>>,
    /// Says whether it is landing; dropping the sender says that it has.
    landing: watch::Sender<bool>,
}

impl Flight {
    /// The agent is about to see the end of its answer; what is left is to record it.
    pub fn land(&self) {
        self.landing.send_replace(true);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.payment);
    }
}

impl Flights {
    /// Waits until no other call of this purchase runs; none, if too many wait for that already.
    pub async fn lock(&self, key: &PurchaseKey) -> Option<OwnedMutexGuard<()>> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            if locks.len() > 4_096 {
                locks.retain(|_, lock| lock.strong_count() > 0);
            }
            match locks.get(key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(AsyncMutex::new(()));
                    locks.insert(key.clone(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        // Each that waits has one, and so has the call that runs.
        if Arc::strong_count(&lock) > MOST_WAITING {
            return None;
        }
        Some(lock.lock_owned().await)
    }

    /// Marks a payment's call as running.
    #[must_use]
    pub fn begin(&self, payment: PaymentId) -> Flight {
        let (landing, running) = watch::channel(false);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(payment, running);
        Flight { payment, running: Arc::clone(&self.running), landing }
    }

    /// Whether a payment's call is running; waits for one that is only being recorded any more.
    pub async fn is_in_the_air(&self, payment: PaymentId) -> bool {
        let flight = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&payment).cloned();
        let landing = flight.as_ref().map(|f| *f.borrow());
        if landing == Some(true) {
            self.landed(payment).await;
        }
        landing == Some(false)
    }

    /// How many calls are running.
    #[must_use]
    pub fn count(&self) -> usize {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until a payment's call is over and recorded.
    pub async fn landed(&self, payment: PaymentId) {
        let flight = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&payment).cloned();
        if let Some(mut flight) = flight {
            // An error is the signal: the sender is gone.
            while flight.changed().await.is_ok() {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign_core::id::PurchaseId;
    use countersign_core::time::Timestamp;

    #[tokio::test]
    async fn a_landed_flight_wakes_its_waiters() {
        let flights = Arc::new(Flights::default());
        let id = PaymentId::new(Timestamp::from_secs(1), [0; 10]);
        flights.landed(id).await;
        let flight = flights.begin(id);
        assert!(flights.is_in_the_air(id).await);
        flight.land();
        let waiter = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { flights.landed(id).await }
        });
        drop(flight);
        waiter.await.unwrap();
        assert!(!flights.is_in_the_air(id).await);
    }

    #[tokio::test]
    async fn one_purchase_one_call() {
        let flights = Flights::default();
        let key = |p: &str| PurchaseKey {
            workspace: String::new(),
            agent: "a".into(),
            purchase: PurchaseId::parse(p).unwrap(),
        };
        let first = flights.lock(&key("p")).await;
        let _other = flights.lock(&key("q")).await;
        let second = tokio::time::timeout(std::time::Duration::from_millis(5), flights.lock(&key("p"))).await;
        assert!(second.is_err(), "the second call of one purchase must wait");
        drop(first);
        let _second = flights.lock(&key("p")).await;
    }

    #[tokio::test]
    async fn so_many_wait_and_no_more() {
        let flights = Arc::new(Flights::default());
        let key =
            PurchaseKey { workspace: String::new(), agent: "a".into(), purchase: PurchaseId::parse("p").unwrap() };
        let first = flights.lock(&key).await;
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..MOST_WAITING + 8 {
            let (flights, key) = (Arc::clone(&flights), key.clone());
            waiting.spawn(async move { flights.lock(&key).await.is_some() });
        }
        // Those beyond the limit are told at once, the others one after the other.
        for _ in 0..9 {
            assert!(!waiting.join_next().await.unwrap().unwrap());
        }
        drop(first);
        assert!(waiting.join_all().await.into_iter().all(|locked| locked));
    }
}
