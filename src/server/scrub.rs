//! The thread that looks after what is served: reads every byte again at a bounded rate, has old
//! epochs forgotten, and reports what was taken out.
//!
//! It reads the maps, not the files: what is compared with the digests is what queries are answered
//! from, also of a file that was unlinked or whose name another has by now, and a failing disk or a
//! shortened file ends in the map's guard as it would for a query. Pages that only this thread
//! reads are the first that the system lets go.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::Service;
use crate::limits;
use crate::shard::verify::verify_map;
use crate::worker::closed_within;

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
    /// Dropped to end the thread.
    open: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
    /// # Errors
    /// The operating system starts no thread.
    pub(super) fn start(service: &Arc<Service>) -> std::io::Result<Self> {
        let (open, closed) = bounded(0);
        let (next, begun, owed) = (0, Instant::now(), Duration::ZERO);
        let scrub = Scrub { service: service.clone(), closed, next, begun, owed };
        let thread =
            std::thread::Builder::new().name("sotto-scrub".into()).spawn(|| scrub.run())?;
        Ok(Self { open: Some(open), thread: Some(thread) })
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.open = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the scrub's thread had panicked: this is a bug");
        }
    }
}

struct Scrub {
    service: Arc<Service>,
    /// Disconnected when the thread has to end.
    closed: Receiver<Infallible>,
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
        !closed_within(&self.closed, time)
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
    fn a_thread_that_waits_ends_at_once() {
        let (open, closed) = bounded(0);
        assert!(!closed_within(&closed, Duration::from_millis(1)));
        let long = Duration::from_secs(3_600);
        let waiting = std::thread::spawn(move || closed_within(&closed, long));
        drop(open);
        assert!(waiting.join().unwrap());
    }
}
