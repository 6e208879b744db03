//! How often a policy was asked, what it answered, how long it took and what it needed, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::histogram::Histogram;
use countersign_core::verdict::{Decision, Failure, FailureKind, Verdict};

/// One policy's figures, on one set.
#[derive(Debug, Default)]
pub struct Stats {
    /// Microseconds of each decision it took part in.
    pub took: Histogram,
    verdicts: [AtomicU64; Verdict::ALL.len()],
    failures: [AtomicU64; FailureKind::ALL.len()],
    memory: AtomicU64,
}

impl Stats {
    pub(crate) fn record(&self, micros: u64, outcome: &Result<Decision, Failure>) {
        self.took.record(micros);
        let counter = match outcome {
            Ok(decision) => Verdict::ALL.iter().position(|v| *v == decision.verdict).and_then(|i| self.verdicts.get(i)),
            Err(failure) => FailureKind::ALL.iter().position(|k| *k == failure.kind).and_then(|i| self.failures.get(i)),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One decision had so many bytes of linear memory in the end, and so at most: memory never shrinks.
    pub(crate) fn used(&self, memory: usize) {
        let bytes = memory as u64;
        // Hardly ever written, so that threads which decide only share the reading.
        if self.memory.load(Ordering::Relaxed) < bytes {
            self.memory.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    /// The most linear memory that one decision had, in bytes, over all memories of its instance.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// How often it gave which answer: a verdict, or the code of a failure.
    pub fn answers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let verdicts = Verdict::ALL.iter().map(|v| v.as_str()).zip(&self.verdicts);
        let failures = FailureKind::ALL.iter().map(|k| k.code()).zip(&self.failures);
        verdicts.chain(failures).map(|(word, count)| (word, count.load(Ordering::Relaxed)))
    }
}
