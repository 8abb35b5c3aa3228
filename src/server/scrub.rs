//! The thread that looks after what is served: reads every byte again at a bounded rate, has old
//! epochs forgotten, and reports what was taken out.
//!
//! It reads the maps, not the files: what is compared with the digests is what queries are answered
//! from, also of a file that was unlinked or whose name another has by now, and a failing disk or a
//! shortened file ends in the map's guard as it would for a query. Pages that only this thread
//! reads are the first that the system lets go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Service;
use crate::limits;
use crate::shard::verify::verify_map;

/// When every byte was last read.
pub(super) struct Scrubbed {
    started: Instant,
    /// When the last whole round began, in microseconds after that.
    round_us: AtomicU64,
}

impl Scrubbed {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), round_us: AtomicU64::new(0) }
    }

    /// Since the last whole round began, or since the start where there was none.
    pub(super) fn age(&self, now: Instant) -> Duration {
        let round = Duration::from_micros(self.round_us.load(Ordering::Relaxed));
        now.saturating_duration_since(self.started).saturating_sub(round)
    }

    fn round(&self, begun: Instant) {
        let since = begun.saturating_duration_since(self.started);
        self.round_us.store(since.as_micros() as u64, Ordering::Relaxed);
    }
}

/// The running thread. Dropping this ends it.
pub(super) struct Scrubber {
    leave: Arc<Leave>,
    thread: Option<JoinHandle<()>>,
}

/// Whether to leave, and what is told when that changes.
#[derive(Default)]
struct Leave {
    told: Mutex<bool>,
    changed: Condvar,
}

impl Leave {
    /// Waits until then; whether to go on.
    fn wait_until(&self, then: Instant) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let left = then.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(told, left, |told| !*told);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Scrubber {
    /// # Errors
    /// The operating system starts no thread.
    pub(super) fn start(service: &Arc<Service>) -> std::io::Result<Self> {
        let leave = Arc::<Leave>::default();
        let (service, told) = (service.clone(), leave.clone());
        let (next, begun, owed) = (0, Instant::now(), Duration::ZERO);
        let scrub = Scrub { service, leave: told, next, begun, owed };
        let thread =
            std::thread::Builder::new().name("sotto-scrub".into()).spawn(|| scrub.run())?;
        Ok(Self { leave, thread: Some(thread) })
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        *self.leave.told.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.leave.changed.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the scrub's thread had panicked: this is a bug");
        }
    }
}

struct Scrub {
    service: Arc<Service>,
    leave: Arc<Leave>,
    /// The next shard of the round.
    next: usize,
    /// When the round began.
    begun: Instant,
    /// Time to let pass for what was read.
    owed: Duration,
}

impl Scrub {
    fn run(mut self) {
        let idle = self.service.bounds.scrub_mib_per_second == 0;
        while if idle { self.rest(limits::SCRUB_PAUSE) } else { self.next_shard() } {}
    }

    /// Reads the next shard; whether to go on.
    fn next_shard(&mut self) -> bool {
        let database = self.service.epochs.database();
        let Some(shard) = database.shards().get(self.next).cloned() else {
            self.service.scrubbed.round(self.begun);
            (self.next, self.begun) = (0, Instant::now());
            let owed = std::mem::take(&mut self.owed);
            return self.rest(owed.max(limits::SCRUB_PAUSE));
        };
        // Not kept while one shard is read: its epoch may end.
        drop(database);
        self.next += 1;
        if shard.is_quarantined() {
            return true;
        }
        let mut going = true;
        let verified = verify_map(&shard, |bytes| {
            going = self.was_read(bytes);
            going
        });
        if let (true, Err(problem)) = (going, verified) {
            shard.quarantine();
            tracing::error!("shard file {} {problem}", shard.file_name());
        }
        going
    }

    /// So many bytes more were read; whether to go on.
    fn was_read(&mut self, bytes: u64) -> bool {
        self.service.counters.scrub_bytes.add(bytes);
        let rate = u64::from(self.service.bounds.scrub_mib_per_second) << 20;
        self.owed += Duration::from_secs_f64(bytes as f64 / rate as f64);
        if self.owed < limits::SCRUB_PAUSE_MIN {
            return true;
        }
        let owed = std::mem::take(&mut self.owed);
        self.rest(owed)
    }

    /// Looks after what is served, then waits; whether to go on.
    fn rest(&self, time: Duration) -> bool {
        let now = Instant::now();
        self.service.report_quarantined();
        self.service.forget_epochs(now);
        self.leave.wait_until(now + time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_that_of_the_last_whole_round_by_its_beginning() {
        let scrubbed = Scrubbed::new();
        let at = |second: u64| scrubbed.started + Duration::from_secs(second);
        assert_eq!(scrubbed.age(at(10)), Duration::from_secs(10));
        scrubbed.round(at(4));
        assert_eq!(scrubbed.age(at(10)), Duration::from_secs(6));
    }

    #[test]
    fn who_waits_is_woken_to_leave() {
        let leave = Arc::<Leave>::default();
        let far = Instant::now() + Duration::from_secs(3600);
        let other = leave.clone();
        let waiting = std::thread::spawn(move || other.wait_until(far));
        *leave.told.lock().unwrap() = true;
        leave.changed.notify_all();
        assert!(!waiting.join().unwrap());
        assert!(!leave.wait_until(far), "once told, nobody waits");
    }
}
