//! How much one front-end may have in a second: a token bucket of bytes.
//!
//! A query counts as a whole scan of its shard, also when other queries share the scan: what a
//! front-end may ask must not depend on what others ask. Hints, parameters, hint digests and key
//! bundles count as their bytes. The schedule, not the quota, divides the time of a busy server.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};

use crate::limits;

type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A bucket fills by one part a microsecond: what the quota gives in that is its smallest amount.
const PARTS_PER_SECOND: u32 = 1_000_000;

/// One front-end's bucket. It holds a second's bytes, one query at least.
pub(super) struct Quota<C: Clock = MonotonicClock> {
    bucket: Bucket<C>,
    clock: C,
    bytes_per_second: f64,
    /// In parts.
    burst: NonZeroU32,
}

impl Quota {
    /// So many MiB a second, where a query counts as a scan of so many bytes.
    pub(super) fn new(mib_per_second: NonZeroU32, scan_bytes: usize) -> Self {
        Self::with_clock(mib_per_second, scan_bytes, MonotonicClock)
    }
}

impl<C: Clock + Clone> Quota<C> {
    fn with_clock(mib_per_second: NonZeroU32, scan_bytes: usize, clock: C) -> Self {
        let bytes_per_second = f64::from(mib_per_second.get()) * f64::from(1 << 20);
        let at_once = bytes_per_second * limits::QUOTA_BURST.as_secs_f64();
        let burst = parts(at_once.max(scan_bytes as f64), bytes_per_second);
        let quota = governor::Quota::with_period(Duration::from_secs(1) / PARTS_PER_SECOND)
            .expect("this is a bug: a period of zero")
            .allow_burst(burst);
        let bucket = RateLimiter::direct_with_clock(quota, clock.clone());
        Self { bucket, clock, bytes_per_second, burst }
    }

    /// Takes so many bytes, or says when they are there. More than the bucket holds is had for all
    /// that it holds.
    pub(super) fn take(&self, bytes: usize) -> Result<(), Duration> {
        let wanted = parts(bytes as f64, self.bytes_per_second).min(self.burst);
        let taken = self.bucket.check_n(wanted);
        taken.expect("this is a bug: more than the bucket holds").map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            wait.clamp(limits::RETRY_AFTER_MIN, limits::RETRY_AFTER_MAX)
        })
    }
}

/// Bytes as parts, at least one; as many as can be counted where they are more.
fn parts(bytes: f64, bytes_per_second: f64) -> NonZeroU32 {
    let parts = bytes * f64::from(PARTS_PER_SECOND) / bytes_per_second;
    NonZeroU32::new(parts.ceil() as u32).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    type Clocked = (Quota<FakeRelativeClock>, FakeRelativeClock);

    fn quota(mib_per_second: u32, scan_bytes: usize) -> Clocked {
        let clock = FakeRelativeClock::default();
        let rate = NonZeroU32::new(mib_per_second).unwrap();
        (Quota::with_clock(rate, scan_bytes, clock.clone()), clock)
    }

    fn taken(quota: &Quota<FakeRelativeClock>, bytes: usize) -> usize {
        (0..10_000).take_while(|_| quota.take(bytes).is_ok()).count()
    }

    #[test]
    fn so_many_scans_a_second() {
        let (quota, clock) = quota(1600, 160 << 20);
        assert_eq!(taken(&quota, 160 << 20), 10, "a second's at once");
        assert_eq!(quota.take(160 << 20), Err(Duration::from_millis(100)));
        clock.advance(Duration::from_millis(350));
        assert_eq!(taken(&quota, 160 << 20), 3);
        assert_eq!(quota.take(160 << 20), Err(limits::RETRY_AFTER_MIN));
        clock.advance(Duration::from_secs(60));
        assert_eq!(taken(&quota, 160 << 20), 10, "no more is saved up");
    }

    #[test]
    fn less_than_one_a_second_and_very_many() {
        let (slow, clock) = quota(1, 60 << 20);
        assert_eq!((taken(&slow, 60 << 20), slow.take(1)), (1, Err(limits::RETRY_AFTER_MIN)));
        assert_eq!(slow.take(60 << 20), Err(limits::RETRY_AFTER_MAX));
        clock.advance(Duration::from_secs(59));
        assert_eq!(taken(&slow, 60 << 20), 0);
        clock.advance(Duration::from_secs(1));
        assert_eq!(taken(&slow, 60 << 20), 1);
        let (fast, _) = quota(u32::MAX, 1);
        assert_eq!(taken(&fast, 1), 10_000);
        assert_eq!(taken(&quota(1, 0).0, 0), 10_000);
    }

    #[test]
    fn bytes_of_every_kind_come_out_of_one_bucket() {
        let (quota, clock) = quota(1, 100);
        assert_eq!(taken(&quota, 100 << 10), 10, "ten replies of 100 KiB");
        assert!(quota.take(100 << 10).is_err() && quota.take(20 << 10).is_ok());
        clock.advance(Duration::from_secs(1));
        // More than there can be costs all there is.
        assert_eq!((taken(&quota, 5 << 20), quota.take(1).is_err()), (1, true));
        clock.advance(Duration::from_millis(500));
        assert!(quota.take(512 << 10).is_ok() && quota.take(1 << 10).is_err());
        let (large, _) = self::quota(1, usize::MAX);
        assert_eq!(taken(&large, usize::MAX), 1);
    }
}
