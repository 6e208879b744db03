//! How often a policy was asked and how long it took, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Sixteen buckets per power of two: quantiles are right to about six percent.
const SUB_BITS: u32 = 4;
const SUBS: usize = 1 << SUB_BITS;
/// Up to 2^32 microseconds, which is more than an hour.
const BUCKETS: usize = SUBS * 29;

pub(crate) struct Stats {
    buckets: Box<[AtomicU64]>,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn record(&self, micros: u64) {
        if let Some(bucket) = self.buckets.get(index(micros)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }

    /// The largest value of the bucket that `percent` of all recorded values do not pass.
    pub(crate) fn percentile(&self, percent: u64) -> u64 {
        let rank = self.count().saturating_mul(percent).div_ceil(100);
        let mut seen = 0_u64;
        for (i, bucket) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(bucket.load(Ordering::Relaxed));
            if seen >= rank && seen > 0 {
                return upper_bound(i);
            }
        }
        0
    }
}

/// Values below sixteen have a bucket each; above, the top five bits choose one.
fn index(value: u64) -> usize {
    let top = value.checked_ilog2().unwrap_or(0);
    let Some(shift) = top.checked_sub(SUB_BITS) else {
        return value as usize;
    };
    let sub = (value >> shift) as usize & (SUBS - 1);
    (SUBS * (shift as usize + 1) + sub).min(BUCKETS - 1)
}

fn upper_bound(index: usize) -> u64 {
    match (index / SUBS).checked_sub(1) {
        None => index as u64,
        Some(shift) => (((SUBS + index % SUBS + 1) as u64) << shift) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_that_ends_close_above_it() {
        for value in (0..5_000).chain([65_535, 65_536, 1_000_003, u64::from(u32::MAX)]) {
            let bound = upper_bound(index(value));
            assert!(bound >= value, "{value} {bound}");
            assert!(bound - value <= value / 16, "{value} {bound}");
        }
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_of_a_known_distribution() {
        let stats = Stats::new();
        assert_eq!((stats.count(), stats.percentile(50)), (0, 0));
        (0..98).for_each(|_| stats.record(10));
        stats.record(1_000);
        stats.record(1_000);
        assert_eq!(stats.count(), 100);
        assert_eq!(stats.percentile(50), 10);
        assert!((1_000..1_070).contains(&stats.percentile(99)));
    }
}
