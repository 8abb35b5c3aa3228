//! How much one front-end may have scanned in a second, whoever else asks: a token bucket.
//!
//! A query counts as a whole pass over its shard, whoever rides along: what a front-end may ask
//! must not depend on what others ask. Shares of a busy server are the schedule's, not this.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};

use crate::limits;

type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// One front-end's bucket. It holds what may be scanned in a second, one query at least.
pub(super) struct Quota<C: Clock = MonotonicClock> {
    bucket: Bucket<C>,
    clock: C,
}

impl Quota {
    /// So many MiB a second, each query a pass of so many bytes.
    pub(super) fn new(mib_per_second: NonZeroU32, pass_bytes: usize) -> Self {
        Self::with_clock(mib_per_second, pass_bytes, MonotonicClock)
    }
}

impl<C: Clock + Clone> Quota<C> {
    fn with_clock(mib_per_second: NonZeroU32, pass_bytes: usize, clock: C) -> Self {
        let bytes_per_second = f64::from(mib_per_second.get()) * f64::from(1 << 20);
        let period = Duration::from_secs_f64(pass_bytes.max(1) as f64 / bytes_per_second);
        let period = period.max(Duration::from_nanos(1));
        let queries = u32::try_from(limits::QUOTA_BURST.as_nanos() / period.as_nanos());
        let quota = governor::Quota::with_period(period)
            .expect("this is a bug: a period of zero")
            .allow_burst(NonZeroU32::new(queries.unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN));
        Self { bucket: RateLimiter::direct_with_clock(quota, clock.clone()), clock }
    }

    /// Takes one query's part, or says when there is one.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.bucket.check().map_err(|refused| {
            let wait = refused.wait_time_from(self.clock.now());
            wait.clamp(limits::RETRY_AFTER_MIN, limits::RETRY_AFTER_MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn quota(
        mib_per_second: u32,
        pass_bytes: usize,
    ) -> (Quota<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let rate = NonZeroU32::new(mib_per_second).unwrap();
        (Quota::with_clock(rate, pass_bytes, clock.clone()), clock)
    }

    fn taken(quota: &Quota<FakeRelativeClock>) -> usize {
        (0..10_000).take_while(|_| quota.take().is_ok()).count()
    }

    #[test]
    fn so_many_passes_a_second() {
        let (quota, clock) = quota(1600, 160 << 20);
        assert_eq!(taken(&quota), 10, "a second's at once");
        assert_eq!(quota.take(), Err(Duration::from_millis(100)));
        clock.advance(Duration::from_millis(350));
        assert_eq!(taken(&quota), 3);
        assert_eq!(quota.take(), Err(limits::RETRY_AFTER_MIN));
        clock.advance(Duration::from_secs(60));
        assert_eq!(taken(&quota), 10, "no more is saved up");
    }

    #[test]
    fn less_than_one_a_second_and_very_many() {
        let (slow, clock) = quota(1, 60 << 20);
        assert_eq!((taken(&slow), slow.take()), (1, Err(limits::RETRY_AFTER_MAX)));
        clock.advance(Duration::from_secs(59));
        assert_eq!(taken(&slow), 0);
        clock.advance(Duration::from_secs(1));
        assert_eq!(taken(&slow), 1);
        let (fast, _) = quota(u32::MAX, 1);
        assert_eq!(taken(&fast), 10_000);
        assert_eq!(taken(&quota(1, 0).0), 10_000);
    }
}
