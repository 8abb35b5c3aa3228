//! The threads that compute: one an engine, each takes work from the one schedule, and beside each
//! device with a store one more that uploads shards while the engine answers.
//!
//! Async code admits queries and gets outcomes on a channel; it never computes and a worker never
//! waits for it. A worker answers each query as soon as its answer exists. What a device fails at,
//! by error or by panic, goes back for the processor to answer, and the device is recreated before
//! it takes work again; what the processor fails at is answered as a failed device. Between calls
//! each engine runs its known-answer test now and then (`health`). Which work comes next is
//! [`crate::schedule`]'s to decide, who takes it [`crate::placement`]'s, how it is computed
//! [`crate::engine`]'s.

mod counters;
mod engine_thread;
mod health;
mod queue;
#[cfg(test)]
mod tests;
mod upload_thread;

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};
use tokio::sync::mpsc::UnboundedSender;

use crate::engine::{Answer, EncryptedQuery, Engine, EngineError, Probe, ShardView};
use crate::placement::{Placement, Taker};
use crate::schedule::{Schedule, ScheduleBounds};
use crate::shard::{Database, Shard};

pub use counters::{Counter, Distribution, Sizes, Times, WorkCounters};
pub use health::{EngineKind, EngineReport, EngineState};
pub use queue::Queue;
pub(crate) use queue::closed_within;

use self::engine_thread::Worker;
use self::health::Health;
use self::queue::{QueueState, Shared, Wake};

/// Where workers find the content of shards.
pub trait Shards: Send + Sync {
    /// What this shard contains, for as long as whoever asks needs it; `None` where there is none.
    fn content(&self, shard: u32) -> Option<Arc<dyn Content>>;
}

/// The content of one shard.
pub trait Content: Send + Sync {
    /// What an engine reads of it.
    fn view(&self) -> ShardView<'_>;

    /// Whether nothing that was read of it so far was lost: asked before an answer goes out.
    fn is_whole(&self) -> bool {
        true
    }
}

impl Shards for Database {
    fn content(&self, shard: u32) -> Option<Arc<dyn Content>> {
        self.shard(shard).map(|shard| shard.clone() as Arc<dyn Content>)
    }
}

impl Content for Shard {
    fn view(&self) -> ShardView<'_> {
        self.view()
    }

    fn is_whole(&self) -> bool {
        self.is_whole()
    }
}

/// What became of one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// One response a pack.
    Answered(Answer),
    /// Its deadline passed before it was computed.
    Deadline,
    /// No engine gave an answer.
    Device,
    /// Its shard is gone, or has lost what it contained.
    Quarantined,
}

/// One query as workers take it.
pub struct Job {
    /// What to compute.
    pub query: EncryptedQuery,
    /// The sender's number for it, given back with the outcome.
    pub index: usize,
    /// Where the outcome goes. Unbounded, so that a slow reader cannot hold up a worker: whoever
    /// admits bounds how many outcomes there can be.
    pub outcomes: UnboundedSender<(usize, Outcome)>,
}

impl Job {
    fn end(self, outcome: Outcome) {
        // The receiver is gone when its stream is: then nobody waits for this.
        let _ = self.outcomes.send((self.index, outcome));
    }
}

/// The running threads. Dropping this closes the queue and waits for the call each is in.
pub struct Workers {
    queue: Queue,
    threads: Vec<JoinHandle<()>>,
    /// Dropped to end the threads.
    open: Option<Sender<Infallible>>,
}

impl Workers {
    /// Starts one thread an engine, and one for each that has a store. An engine with a store is a
    /// device, any other the processor.
    ///
    /// # Errors
    /// The operating system starts no thread.
    pub fn start(
        engines: Vec<Box<dyn Engine>>,
        shards: Arc<dyn Shards>,
        bounds: ScheduleBounds,
    ) -> std::io::Result<Self> {
        Self::start_proving(engines, shards, bounds, None)
    }

    /// The same, and runs the known-answer test of each engine at once, and after so long again and
    /// again.
    ///
    /// # Errors
    /// The operating system starts no thread.
    pub fn start_proving(
        engines: Vec<Box<dyn Engine>>,
        shards: Arc<dyn Shards>,
        bounds: ScheduleBounds,
        prove_every: Option<Duration>,
    ) -> std::io::Result<Self> {
        let mut stores = Vec::new();
        let workers = engines.iter().map(|engine| {
            let taker = engine.store().map_or(Taker::Processor, |store| {
                stores.push(store);
                Taker::Device(stores.len() - 1)
            });
            (taker, Wake::new())
        });
        let workers: Vec<_> = workers.collect();
        let state = QueueState {
            schedule: Schedule::new(bounds),
            placement: Placement::new(stores.len(), workers.len() - stores.len()),
            suspects: vec![false; stores.len()],
            health: engines.iter().map(|_| Health::default()).collect(),
        };
        let (open, closed) = bounded(0);
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            closed,
            shards,
            uploaders: stores.iter().map(|_| Wake::new()).collect(),
            stores,
            workers,
            names: engines.iter().map(|engine| engine.name()).collect(),
            proving: prove_every.map(|every| (Probe::new(), every)),
            counters: Arc::default(),
        });
        let queue = Queue { shared: shared.clone() };
        let mut workers = Self { queue, threads: Vec::new(), open: Some(open) };
        for (index, engine) in engines.into_iter().enumerate() {
            if let (Taker::Device(device), _) = shared.workers[index] {
                let (shared, name) = (shared.clone(), engine.name());
                let thread = format!("sotto-upload-{device}");
                workers.spawn(thread, move || upload_thread::run(&shared, device, &name))?;
            }
            let worker = Worker::new(engine, index, shared.clone());
            workers.spawn(format!("sotto-engine-{index}"), move || worker.run())?;
        }
        Ok(workers)
    }

    fn spawn(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }

    /// The way in.
    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// What the workers count; stays readable after they are gone.
    pub fn counters(&self) -> Arc<WorkCounters> {
        self.queue.counters()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.open = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an engine's thread had panicked: this is a bug");
            }
        }
    }
}

/// Runs what may fail or panic; what to say of either.
fn catch_panics<T>(run: impl FnOnce() -> Result<T, EngineError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(ended) => ended.map_err(|error| error.to_string()),
        Err(_) => Err("it panicked: this is a bug".into()),
    }
}
