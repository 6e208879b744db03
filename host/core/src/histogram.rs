//! How often which value was seen, without a lock: written on the path of a purchase (two additions), read by
//! whoever asks. Durations are in microseconds.

use std::sync::atomic::{AtomicU64, Ordering};

/// Sixteen buckets per power of two: quantiles are right to about six percent.
const SUB_BITS: u32 = 4;
const SUBS: u64 = 16;
/// Up to 2^32, which in microseconds is more than an hour.
const BUCKETS: usize = 464;

/// Counts of values by size.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// A histogram at one moment, as those read it who draw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// For each bound asked for, how many values were below it.
    pub below: Vec<u64>,
    /// How many values there were.
    pub count: u64,
    /// What they add up to.
    pub sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&self, value: u64) {
        if let Some(bucket) = self.buckets.get(index(value)) {
            bucket.fetch_add(1, Ordering::Relaxed);
            self.sum.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).fold(0, u64::saturating_add)
    }

    /// The largest value of the bucket that `percent` of all recorded values do not pass; 0 before the first.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> u64 {
        let rank = self.count().saturating_mul(percent).div_ceil(100);
        let mut seen = 0_u64;
        for (bucket, last) in self.buckets.iter().zip(bounds()) {
            seen = seen.saturating_add(bucket.load(Ordering::Relaxed));
            if seen >= rank && seen > 0 {
                return last;
            }
        }
        0
    }

    /// How many values were below each of `limits`, ascending powers of two of at least 16: those are
    /// exact. Counts never pass [`Tally::count`], whatever is recorded meanwhile.
    #[must_use]
    pub fn tally(&self, limits: &[u64]) -> Tally {
        let mut tally = Tally { below: vec![0; limits.len()], count: 0, sum: self.sum.load(Ordering::Relaxed) };
        for (bucket, last) in self.buckets.iter().zip(bounds()) {
            let here = bucket.load(Ordering::Relaxed);
            tally.count = tally.count.saturating_add(here);
            for (below, _) in tally.below.iter_mut().zip(limits).filter(|(_, limit)| last < **limit) {
                *below = below.saturating_add(here);
            }
        }
        tally
    }
}

/// Values below sixteen have a bucket each; above, the top five bits choose one.
fn index(value: u64) -> usize {
    let top = value.checked_ilog2().unwrap_or(0);
    let bucket = match top.checked_sub(SUB_BITS) {
        None => value,
        Some(shift) => {
            let sub = value.checked_shr(shift).unwrap_or(0) & SUBS.saturating_sub(1);
            u64::from(shift).saturating_add(1).saturating_mul(SUBS).saturating_add(sub)
        }
    };
    usize::try_from(bucket).unwrap_or(usize::MAX).min(BUCKETS.saturating_sub(1))
}

/// The largest value of each bucket.
fn bounds() -> impl Iterator<Item = u64> {
    let small = 0..SUBS;
    let large = (0_u32..64).flat_map(|shift| {
        (1..=SUBS).map(move |sub| SUBS.saturating_add(sub).checked_shl(shift).unwrap_or(u64::MAX).saturating_sub(1))
    });
    small.chain(large)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upper_bound(index: usize) -> u64 {
        bounds().nth(index).unwrap()
    }

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
        let seen = Histogram::default();
        assert_eq!((seen.count(), seen.percentile(50)), (0, 0));
        (0..98).for_each(|_| seen.record(10));
        seen.record(1_000);
        seen.record(1_000);
        assert_eq!(seen.count(), 100);
        assert_eq!(seen.percentile(50), 10);
        assert!((1_000..1_070).contains(&seen.percentile(99)));
    }

    #[test]
    fn a_tally_is_exact_at_powers_of_two() {
        let seen = Histogram::default();
        for value in 0..2_000 {
            seen.record(value);
        }
        seen.record(1 << 40);
        let tally = seen.tally(&[16, 32, 1_024, 1 << 20]);
        assert_eq!(tally.below, [16, 32, 1_024, 2_000]);
        assert_eq!((tally.count, tally.sum), (2_001, 1_999_000 + (1 << 40)));
    }
}
