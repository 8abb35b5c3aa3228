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
        let service = service.clone();
        let scrub = move || run(&service, &closed);
        let thread = std::thread::Builder::new().name("sotto-scrub".into()).spawn(scrub)?;
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

/// Until `closed` is disconnected.
fn run(service: &Service, closed: &Receiver<Infallible>) {
    // Looks after what is served, then waits; whether to go on.
    let rest = |time| {
        service.report_quarantined();
        service.forget_epochs(Instant::now());
        !closed_within(closed, time)
    };
    match f64::from(service.bounds.scrub_mib_per_second) * f64::from(1 << 20) {
        0.0 => while rest(limits::SCRUB_PAUSE) {},
        bytes_per_second => while read_all(service, bytes_per_second, rest) {},
    }
}

/// Reads every shard once; whether to go on.
fn read_all(service: &Service, bytes_per_second: f64, rest: impl Fn(Duration) -> bool) -> bool {
    // The database is not kept while a shard is read: its epoch may end.
    let shard_at = |index: usize| service.epochs.database().shards().nth(index).cloned();
    // Time to let pass for what was read.
    let (begun, mut owed) = (Instant::now(), Duration::ZERO);
    for shard in (0..).map_while(shard_at).filter(|shard| !shard.is_quarantined()) {
        let mut going = true;
        let verified = verify_map(&shard, |bytes| {
            service.counters.scrub_bytes.add(bytes);
            owed += Duration::from_secs_f64(bytes as f64 / bytes_per_second);
            if owed >= limits::SCRUB_PAUSE_MIN {
                going = rest(std::mem::take(&mut owed));
            }
            going
        });
        if !going {
            return false;
        }
        if let Err(problem) = verified {
            shard.quarantine();
            tracing::error!("shard file {} {problem}", shard.file_name());
        }
    }
    *service.scrub_begun.lock().unwrap_or_else(PoisonError::into_inner) = begun;
    rest(owed.max(limits::SCRUB_PAUSE))
}
