//! What workers count: plain numbers that only grow, none by shard or by query.
//!
//! Counting is one addition, measuring two, and nobody waits for anybody. Exporting them is
//! [`crate::metrics`]'.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that grows. A cache line for each was measured: counting one query became slower, for
/// what is counted together then lies apart.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts so many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

/// Upper bounds of times in microseconds.
const TIME_BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];
/// Upper bounds of how many queries a batch has.
const SIZE_BOUNDS: [u64; 7] = [1, 2, 4, 8, 16, 24, 32];

/// How many of the numbers that came were at most each of some bounds, and the sum of all.
#[derive(Debug)]
struct Histogram<const BOUNDS: usize> {
    bounds: &'static [u64; BOUNDS],
    /// So many are one of a bound's unit.
    bound_unit: u64,
    /// So many are one of what is read.
    unit: f64,
    /// At most the bound of the same place, more than the one before it.
    within: [Counter; BOUNDS],
    beyond: Counter,
    sum: Counter,
}

impl<const BOUNDS: usize> Histogram<BOUNDS> {
    fn new(bounds: &'static [u64; BOUNDS], bound_unit: u64, unit: f64) -> Self {
        let within = std::array::from_fn(|_| Counter::default());
        let (beyond, sum) = Default::default();
        Self { bounds, bound_unit, unit, within, beyond, sum }
    }

    fn add(&self, number: u64) {
        let at = self.bounds.partition_point(|&bound| bound * self.bound_unit < number);
        self.within.get(at).unwrap_or(&self.beyond).add(1);
        self.sum.add(number);
    }

    /// What has come so far.
    fn read(&self) -> Distribution {
        let mut count = 0;
        let bucket = |(&bound, within): (&u64, &Counter)| {
            count += within.get();
            ((bound * self.bound_unit) as f64 / self.unit, count)
        };
        let at_most = self.bounds.iter().zip(&self.within).map(bucket).collect();
        let count = count + self.beyond.get();
        Distribution { at_most, count, sum: self.sum.get() as f64 / self.unit }
    }
}

/// What a histogram has seen: each bound with how many were at most that, how many there were, and
/// their sum.
#[derive(Debug)]
#[allow(missing_docs)] // Names say it.
pub struct Distribution {
    pub at_most: Vec<(f64, u64)>,
    pub count: u64,
    pub sum: f64,
}

/// Times; they are read in seconds.
#[derive(Debug)]
pub struct Times(Histogram<{ TIME_BOUNDS.len() }>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new(&TIME_BOUNDS, 1_000, 1e9))
    }
}

impl Times {
    /// Takes note of one more.
    pub fn add(&self, time: Duration) {
        self.0.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// All so far.
    pub fn read(&self) -> Distribution {
        self.0.read()
    }
}

/// How many queries batches have.
#[derive(Debug)]
pub struct Sizes(Histogram<{ SIZE_BOUNDS.len() }>);

impl Default for Sizes {
    fn default() -> Self {
        Self(Histogram::new(&SIZE_BOUNDS, 1, 1.0))
    }
}

impl Sizes {
    /// Takes note of one more batch.
    pub fn add(&self, queries: usize) {
        self.0.add(queries as u64);
    }

    /// All so far.
    pub fn read(&self) -> Distribution {
        self.0.read()
    }
}

/// Everything workers count. A device is an engine with a store, such as a GPU.
#[derive(Debug, Default)]
#[allow(missing_docs)] // Names say it.
pub struct WorkCounters {
    pub answered_by_device: Counter,
    /// The shard was not there yet when they came.
    pub answered_by_device_after_upload: Counter,
    /// The shard was on no device that is up, or the processor was sooner done than the upload.
    pub answered_by_processor: Counter,
    pub answered_by_processor_after_failure: Counter,
    pub uploads: Counter,
    pub uploads_failed: Counter,
    /// Calls at which a device failed.
    pub device_failures: Counter,
    pub renewals: Counter,
    pub renewals_failed: Counter,
    /// From when a query was admitted until an engine took it, the first time.
    pub queue_time: Times,
    /// Of one call, added up over the engine's threads ([`crate::engine::StageTimes`]), like
    /// `pack_time`; empty for engines that keep no time.
    pub scan_time: Times,
    pub pack_time: Times,
    pub upload_time: Times,
    pub batch_queries: Sizes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fall_at_or_below_their_bounds() {
        let times = Times::default();
        let us = [0, 100, 101, 250, 1_000, 1_001, 10_000_000, 10_000_001, u64::MAX / 1_000];
        us.iter().for_each(|&us| times.add(Duration::from_micros(us)));
        let read = times.read();
        assert_eq!(read.at_most[..5], [(1e-4, 2), (2.5e-4, 4), (5e-4, 4), (1e-3, 5), (2.5e-3, 6)]);
        assert_eq!((read.at_most.len(), read.at_most[15], read.count), (16, (10.0, 7), 9));
        assert!(read.at_most.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{read:?}");
        let sizes = Sizes::default();
        (1..=33).for_each(|queries| sizes.add(queries));
        let read = sizes.read();
        let expected = [1, 2, 4, 8, 16, 24, 32].map(|bound| (f64::from(bound), bound as u64));
        assert_eq!((read.at_most, read.count, read.sum), (expected.into(), 33, 561.0));
    }
}
