//! The thread that makes instances ahead of time and takes used ones apart, so that a decision pays
//! for neither. It only moves work: whatever it has not done, the decision does itself.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Store;

use crate::config::EngineError;
use crate::guest::Guest;
use crate::prepared::Prepared;
use crate::runtime::Runtime;

/// After work it naps this long before it looks again: waking it costs a decision more than the nap
/// costs anybody.
const NAP: Duration = Duration::from_millis(1);

const PARKED: u8 = 0;
const NAPPING: u8 = 1;
const WORKING: u8 = 2;

pub(crate) struct Janitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    runtime: Arc<Runtime>,
    prepared: Mutex<BTreeMap<[u8; 32], Weak<Prepared>>>,
    used: Mutex<Vec<Store<Guest>>>,
    /// All ready instances of the engine.
    ready: Arc<AtomicUsize>,
    state: AtomicU8,
    stop: AtomicBool,
}

impl Janitor {
    pub(crate) fn start(runtime: Arc<Runtime>) -> Result<Self, EngineError> {
        let shared = Arc::new(Shared {
            runtime,
            prepared: Mutex::default(),
            used: Mutex::default(),
            ready: Arc::default(),
            state: AtomicU8::new(WORKING),
            stop: AtomicBool::new(false),
        });
        let told = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("policy-janitor".to_owned())
            // At everybody's priority: it holds what decisions wait for, the list of ready instances and the kernel's lock of
            // the address space, and at a lower one it could be left holding them while every core is busy.
            .spawn(move || told.run())
            .map_err(|e| EngineError::Thread(e.to_string()))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The counter of ready instances that every [`Prepared`] shares, and its limit.
    pub(crate) fn room(&self) -> (Arc<AtomicUsize>, usize) {
        (Arc::clone(&self.shared.ready), self.shared.runtime.config.ready_in_all())
    }

    /// The policy that was prepared from the same, if one still is in use.
    pub(crate) fn find(&self, seed: &[u8; 32]) -> Option<Arc<Prepared>> {
        self.shared.registry().get(seed).and_then(Weak::upgrade)
    }

    /// Keeps instances of this policy ready for as long as somebody uses it. Answers the one that is looked
    /// after: this, or an equal one that another thread prepared meanwhile.
    pub(crate) fn look_after(&self, prepared: Arc<Prepared>) -> Arc<Prepared> {
        let kept = {
            let mut registry = self.shared.registry();
            registry.retain(|_, weak| weak.strong_count() > 0);
            let first = registry.get(&prepared.seed).and_then(Weak::upgrade);
            first.unwrap_or_else(|| {
                registry.insert(prepared.seed, Arc::downgrade(&prepared));
                prepared
            })
        };
        self.nudge(true);
        kept
    }

    /// Takes a used instance apart, later if there is room for that.
    pub(crate) fn discard(&self, store: Store<Guest>) {
        let most = self.shared.runtime.config.used();
        let full = {
            let mut used = self.shared.lock_used();
            if used.len() < most {
                used.push(store);
                used.len() * 2 > most
            } else {
                drop(used);
                drop(store);
                true
            }
        };
        self.nudge(full);
    }

    /// There is something to do; `soon` cuts its nap short.
    pub(crate) fn nudge(&self, soon: bool) {
        let state = self.shared.state.load(Ordering::Acquire);
        let wake = state == PARKED || (state == NAPPING && soon);
        if wake
            && self.shared.state.compare_exchange(state, WORKING, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }

    /// Waits until everybody has what they want, as far as that is possible; at most `patience`.
    pub(crate) fn settle(&self, patience: Duration) {
        let began = crate::engine::now();
        while crate::engine::now().saturating_duration_since(began) < patience && self.shared.has_work() {
            self.nudge(true);
            std::thread::park_timeout(Duration::from_micros(200));
        }
    }
}

impl Shared {
    fn run(&self) {
        while !self.stop.load(Ordering::Acquire) {
            if self.work() {
                self.state.store(NAPPING, Ordering::Release);
                std::thread::park_timeout(NAP);
                self.state.store(WORKING, Ordering::Release);
                continue;
            }
            self.state.store(PARKED, Ordering::Release);
            // Whoever came between the look and the store did not wake us.
            if !self.has_work() && !self.stop.load(Ordering::Acquire) {
                std::thread::park();
            }
            self.state.store(WORKING, Ordering::Release);
        }
    }

    /// Rounds until there is nothing more to do; whether there was anything. Each policy gets one instance a
    /// round: one that takes long to configure keeps nobody else waiting for more than that.
    fn work(&self) -> bool {
        let mut worked = false;
        loop {
            let (in_use, share) = self.in_use();
            let mut round = self.take_apart();
            for seed in in_use {
                round |= self.make_one(&seed, share);
                round |= self.take_apart();
            }
            if !round || self.stop.load(Ordering::Acquire) {
                return worked;
            }
            worked = true;
        }
    }

    fn take_apart(&self) -> bool {
        let used = std::mem::take(&mut *self.lock_used());
        let any = !used.is_empty();
        // wasmtime is not expected to panic; this thread must not end if it does.
        if catch_unwind(AssertUnwindSafe(|| drop(used))).is_err() {
            tracing::error!("the policy engine failed while taking instances apart");
        }
        any
    }

    fn make_one(&self, seed: &[u8; 32], share: usize) -> bool {
        let prepared = self.registry().get(seed).and_then(Weak::upgrade);
        // With nobody else holding it, it goes as soon as this does.
        let Some(prepared) = prepared.filter(|p| Arc::strong_count(p) > 1) else { return false };
        if !self.room() || !prepared.wants(share) || self.stop.load(Ordering::Acquire) {
            return false;
        }
        // Not tried again ahead of time if it fails; a decision that needs one says why.
        match catch_unwind(AssertUnwindSafe(|| prepared.make(&self.runtime))) {
            Ok(Ok(one)) => prepared.add(one),
            Ok(Err(_)) => {}
            Err(_) => prepared.give_up(),
        }
        true
    }

    fn has_work(&self) -> bool {
        let (in_use, share) = self.in_use();
        let wants = |seed: &[u8; 32]| {
            let prepared = self.registry().get(seed).and_then(Weak::upgrade);
            prepared.is_some_and(|p| Arc::strong_count(&p) > 1 && p.wants(share))
        };
        !self.lock_used().is_empty() || (self.room() && in_use.iter().any(wants))
    }

    fn room(&self) -> bool {
        self.ready.load(Ordering::Relaxed) < self.runtime.config.ready_in_all()
    }

    /// Every policy in use, and how many ready instances each may have.
    fn in_use(&self) -> (Vec<[u8; 32]>, usize) {
        let registry = self.registry();
        let in_use: Vec<_> =
            registry.iter().filter(|(_, weak)| weak.strong_count() > 0).map(|(seed, _)| *seed).collect();
        let share = self.runtime.config.ready_in_all() / in_use.len().max(1);
        (in_use, share.max(1))
    }

    fn registry(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Weak<Prepared>>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_used(&self) -> MutexGuard<'_, Vec<Store<Guest>>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It ends after the instance it is making, and runs nothing that can panic.
            drop(thread.join());
        }
    }
}
