//! Admission: at most `instances` policies at once, and a bounded wait for the next free place.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) struct Slots {
    places: Mutex<Places>,
    freed: Condvar,
}

struct Places {
    free: u32,
    /// Who waits for one. Telling nobody would be a call of the kernel for each decision.
    waiting: u32,
}

/// One place, given back when dropped.
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    pub(crate) fn new(count: u32) -> Self {
        Self { places: Mutex::new(Places { free: count, waiting: 0 }), freed: Condvar::new() }
    }

    /// A place, or none when none became free in time.
    pub(crate) fn acquire(&self, wait: Duration) -> Option<Slot<'_>> {
        let mut places = self.lock();
        if places.free == 0 {
            places.waiting = places.waiting.saturating_add(1);
            let none = |places: &mut Places| places.free == 0;
            (places, _) = self.freed.wait_timeout_while(places, wait, none).unwrap_or_else(PoisonError::into_inner);
            places.waiting = places.waiting.saturating_sub(1);
        }
        places.free = places.free.checked_sub(1)?;
        Some(Slot(self))
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut places = self.0.lock();
        places.free = places.free.saturating_add(1);
        let awaited = places.waiting > 0;
        drop(places);
        if awaited {
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_out_what_it_has_and_takes_it_back() {
        let slots = Slots::new(2);
        let a = slots.acquire(Duration::ZERO);
        let b = slots.acquire(Duration::ZERO);
        assert!(a.is_some() && b.is_some());
        assert!(slots.acquire(Duration::from_millis(1)).is_none());
        drop(a);
        assert!(slots.acquire(Duration::ZERO).is_some());
    }

    #[test]
    fn a_waiter_gets_the_place_that_becomes_free() {
        let slots = Slots::new(1);
        let held = slots.acquire(Duration::ZERO);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| slots.acquire(Duration::from_secs(60)).is_some());
            drop(held);
            assert!(waiter.join().unwrap());
        });
    }
}
