//! The thread that reads every byte of the served shards again at a bounded rate, has old epochs
//! forgotten, and reports quarantined shards.
//!
//! It reads the maps and not the files: what it compares with the digests is what queries are
//! answered from, also when the file was unlinked or replaced.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::service::Service;
use crate::limits;
use crate::shard::verify::verify_map;
use crate::worker::closed_within;

/// Dropping this ends the thread.
pub(super) struct Scrubber {
    open: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
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
    next: usize,
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
            let begun = &self.service.scrub_begun;
            *begun.lock().unwrap_or_else(PoisonError::into_inner) = self.begun;
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
