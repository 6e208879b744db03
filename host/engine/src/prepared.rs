//! One module with one settings document: what instances are made from, and the instances that wait
//! ready-made. Policies of any set that are equal in both share it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::bindings::SpendPolicyPre;
use crate::compiled::Compiled;
use crate::guest::Guest;
use crate::runtime::{Configured, Runtime, Unready};

/// Linear memory that the ready instances of one policy may hold together. Guests that bring a
/// language along take tens of MiB each.
const READY_BYTES: usize = 64 << 20;
/// Kept even of the largest.
const LEAST_READY: usize = 2;

/// What the instances of a policy start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartedFrom {
    /// A snapshot taken after `configure`.
    Snapshot,
    /// The module: each instance is configured anew. Why there is no snapshot.
    Module(String),
    /// The module, until the snapshot is made.
    Preparing,
}

impl StartedFrom {
    /// `snapshot`, `module` or `preparing`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Module(_) => "module",
            Self::Preparing => "preparing",
        }
    }
}

/// What a policy is restored from, or why it is not.
pub(crate) type Snapshot = Result<SpendPolicyPre<Guest>, String>;

pub(crate) struct Prepared {
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) settings: Arc<str>,
    pub(crate) seed: [u8; 32],
    snapshot: OnceLock<Snapshot>,
    ready: Mutex<Vec<Configured>>,
    /// How many to keep ready at most; known once the first instance shows its size.
    target: usize,
    /// How many may be kept ready beside everybody else's.
    share: AtomicUsize,
    /// Instances could not be made; nobody tries ahead of time until one could.
    failing: AtomicBool,
    /// The last decision ended in a failure. Whoever asks a policy that traps or runs away pays for its
    /// instances; made ahead of time, everybody would.
    faulty: AtomicBool,
    /// All ready instances of the engine.
    total: Arc<AtomicUsize>,
}

impl Prepared {
    /// `first` is a configured instance, which nobody has asked anything yet; `ready` is the most to keep ready of this policy, `in_all` of all policies.
    pub(crate) fn new(
        compiled: Arc<Compiled>,
        settings: Arc<str>,
        seed: [u8; 32],
        first: Configured,
        ready: u32,
        (total, in_all): (Arc<AtomicUsize>, usize),
    ) -> Self {
        let size = first.store.data().memory.used().max(1);
        let most = ready as usize;
        let target = (READY_BYTES / size).clamp(LEAST_READY.min(most), most);
        let prepared = Self {
            compiled,
            settings,
            seed,
            snapshot: OnceLock::new(),
            ready: Mutex::new(Vec::new()),
            target,
            share: AtomicUsize::new(target),
            failing: AtomicBool::new(false),
            faulty: AtomicBool::new(false),
            total,
        };
        if target > 0 && prepared.total.load(Ordering::Relaxed) < in_all {
            prepared.add(first);
        }
        prepared
    }

    /// An instance made earlier, and whether more are wanted.
    pub(crate) fn take(&self) -> (Option<Configured>, bool) {
        let (one, left) = {
            let mut ready = self.lock();
            (ready.pop(), ready.len())
        };
        if one.is_some() {
            self.total.fetch_sub(1, Ordering::Relaxed);
        }
        // Nobody is woken for one that gets none ahead of time.
        (one, !self.faulty.load(Ordering::Relaxed) && left * 2 < self.wanted())
    }

    fn wanted(&self) -> usize {
        self.target.min(self.share.load(Ordering::Relaxed))
    }

    /// Whether a new instance must be configured, which may take long.
    pub(crate) fn is_slow(&self) -> bool {
        !matches!(self.snapshot.get(), Some(Ok(_)))
    }

    /// A new instance, now.
    pub(crate) fn make(&self, runtime: &Runtime) -> Result<Configured, Unready> {
        let made = match self.snapshot.get() {
            Some(Ok(pre)) => runtime.restored(pre, self.seed),
            _ => self.make_from_module(runtime),
        };
        self.failing.store(made.is_err(), Ordering::Relaxed);
        made
    }

    /// A new instance of the module's own bytes.
    pub(crate) fn make_from_module(&self, runtime: &Runtime) -> Result<Configured, Unready> {
        runtime.configured(&self.compiled, self.seed, &self.settings)
    }

    /// Whether another ready instance is wanted, when everybody may keep `share`.
    pub(crate) fn wants(&self, share: usize) -> bool {
        self.share.store(share, Ordering::Relaxed);
        !self.failing.load(Ordering::Relaxed)
            && !self.faulty.load(Ordering::Relaxed)
            && self.lock().len() < self.wanted()
    }

    /// A decision ended: with an answer, or with a failure.
    pub(crate) fn ended(&self, answered: bool) {
        // Written only when it changes: every thread that decides reads it.
        if self.faulty.load(Ordering::Relaxed) == answered {
            self.faulty.store(!answered, Ordering::Relaxed);
        }
    }

    /// No instance is made ahead of time until a decision could make one.
    pub(crate) fn give_up(&self) {
        self.failing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, one: Configured) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.lock().push(one);
    }

    /// How many instances wait.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn set_snapshot(&self, snapshot: Snapshot) {
        // It is set once, by the one job that makes it.
        drop(self.snapshot.set(snapshot));
    }

    pub(crate) fn started_from(&self) -> StartedFrom {
        match self.snapshot.get() {
            Some(Ok(_)) => StartedFrom::Snapshot,
            Some(Err(why)) => StartedFrom::Module(why.clone()),
            None => StartedFrom::Preparing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Configured>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let left = self.lock().len();
        self.total.fetch_sub(left, Ordering::Relaxed);
    }
}
