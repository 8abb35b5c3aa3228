//! The threads that compute: one for each engine, which takes work from the one schedule, and one
//! more for each device with a store, which uploads shards while the engine answers.
//!
//! Async code admits queries and gets outcomes on a channel; it never computes, and a worker never
//! waits for it. A worker sends each answer as soon as it exists. What a device fails at, by error
//! or by panic, goes back for the processor to answer, and the device is recreated before it takes
//! work again; what the processor fails at is answered as a failed device. Between calls each
//! engine runs its known-answer test now and then (`health`). [`crate::schedule`] decides which
//! work comes next, [`crate::placement`] who takes it, [`crate::engine`] computes it.

mod counters;
mod engine_thread;
mod health;
mod job;
mod queue;
#[cfg(test)]
mod tests;
mod upload_thread;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};

use crate::engine::{Engine, Probe};
use crate::placement::{Placement, Taker};
use crate::schedule::{Schedule, ScheduleBounds};

pub use counters::{Counter, Distribution, Sizes, Times, WorkCounters};
pub use health::{EngineKind, EngineReport, EngineState};
pub use job::{Content, Job, Outcome, Shards};
pub use queue::Queue;
pub(crate) use queue::closed_within;

use self::engine_thread::Worker;
use self::health::Health;
use self::queue::{QueueState, Shared, Wake};

/// The running threads. Dropping this closes the queue and waits for the call each is in.
pub struct Workers {
    queue: Queue,
    threads: Vec<JoinHandle<()>>,
    /// Dropped to end the threads.
    open: Option<Sender<Infallible>>,
}

impl Workers {
    /// Starts a thread for each engine, and one more for each that has a store. An engine with a
    /// store is a device, any other the processor. With `prove_every`, each engine runs its
    /// known-answer test at once and then again after each such time.
    ///
    /// # Errors
    /// The operating system starts no thread.
    pub fn start(
        engines: Vec<Box<dyn Engine>>,
        shards: Arc<dyn Shards>,
        bounds: ScheduleBounds,
        prove_every: Option<Duration>,
    ) -> std::io::Result<Self> {
        let mut stores = Vec::new();
        let mut workers = Vec::new();
        for engine in &engines {
            let taker = engine.store().map_or(Taker::Processor, |store| {
                stores.push(store);
                Taker::Device(stores.len() - 1)
            });
            workers.push((taker, engine.name(), Wake::new()));
        }
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
            proving: prove_every.map(|every| (Probe::default(), every)),
            counters: Arc::default(),
        });
        let queue = Queue { shared: shared.clone() };
        let mut workers = Self { queue, threads: Vec::new(), open: Some(open) };
        for (index, engine) in engines.into_iter().enumerate() {
            if let (Taker::Device(device), ref name, _) = shared.workers[index] {
                let (shared, name) = (shared.clone(), name.clone());
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

    /// Where queries are admitted.
    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// What the workers count; stays readable after they are gone.
    pub fn counters(&self) -> Arc<WorkCounters> {
        self.queue.shared.counters.clone()
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
