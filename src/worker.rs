//! The threads that compute: one an engine, each takes work from the one schedule.
//!
//! Async code admits queries and gets outcomes on a channel; it never computes and a worker never
//! waits for it. A worker answers each query as soon as its answer exists. What an engine fails at,
//! by error or by panic, is answered as a failed device; the thread goes on. Which work comes next
//! is [`crate::schedule`]'s to decide, how it is computed [`crate::engine`]'s.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use crate::engine::{Answer, Batch, EncryptedQuery, Engine};
use crate::limits;
use crate::schedule::{Arrival, Overloaded, Owner, Schedule, ScheduleBounds, ShardWork, Ticket};
use crate::shard::{Database, ShardView};

/// Where workers find the content of shards.
pub trait Shards: Send + Sync {
    /// What an engine reads of this shard; `None` where there is none.
    fn view(&self, shard: u32) -> Option<ShardView<'_>>;
}

impl Shards for Database {
    fn view(&self, shard: u32) -> Option<ShardView<'_>> {
        self.shard(shard).map(|shard| shard.view())
    }
}

/// What became of one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// One response a pack.
    Answered(Answer),
    /// Its deadline passed before it was computed.
    Deadline,
    /// The engine gave no answer.
    Device,
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

struct State {
    schedule: Schedule<Job>,
    closed: bool,
}

struct Shared {
    state: Mutex<State>,
    work_or_close: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held but for our own bugs; the state is whole anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a query that was handed out. Its place is free before its owner can know of the
    /// outcome, so that who asks again on it is not refused.
    fn end(&self, (owner, job): (Owner, Job), outcome: Outcome) {
        self.lock().schedule.finished(owner);
        job.end(outcome);
    }
}

/// The way in: admits queries and cancels them. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

impl Queue {
    /// Admits a query; its outcome comes on its channel unless it is cancelled.
    pub fn admit(&self, now: Instant, arrival: Arrival<Job>) -> Result<Ticket, Overloaded<Job>> {
        let admitted = self.shared.lock().schedule.admit(now, arrival);
        self.shared.work_or_close.notify_one();
        admitted
    }

    /// Takes queries out that nobody waits for; says how many were still waiting.
    pub fn cancel(&self, tickets: &[Ticket]) -> usize {
        let mut state = self.shared.lock();
        tickets.iter().filter(|&&ticket| state.schedule.cancel(ticket).is_some()).count()
    }

    /// Queries waiting.
    pub fn queued(&self) -> usize {
        self.shared.lock().schedule.queued()
    }
}

/// The running threads. Dropping this closes the queue and waits for the call each is in.
pub struct Workers {
    queue: Queue,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts one thread an engine.
    ///
    /// # Errors
    /// The operating system starts no thread.
    pub fn start(
        engines: Vec<Box<dyn Engine>>,
        shards: Arc<dyn Shards>,
        bounds: ScheduleBounds,
    ) -> std::io::Result<Self> {
        let state = Mutex::new(State { schedule: Schedule::new(bounds), closed: false });
        let shared = Arc::new(Shared { state, work_or_close: Condvar::new() });
        let mut workers = Self { queue: Queue { shared }, threads: Vec::new() };
        for (index, engine) in engines.into_iter().enumerate() {
            let (shared, shards) = (workers.queue.shared.clone(), shards.clone());
            let name = format!("sotto-engine-{index}");
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || work(engine, shards.as_ref(), &shared))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// The way in.
    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue.shared.lock().closed = true;
        self.queue.shared.work_or_close.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an engine's thread had panicked: this is a bug");
            }
        }
    }
}

/// The loop of one thread: until the queue is closed, take work, compute it, report.
fn work(mut engine: Box<dyn Engine>, shards: &dyn Shards, shared: &Shared) {
    loop {
        let mut state = shared.lock();
        while !state.closed && state.schedule.queued() == 0 {
            state = shared.work_or_close.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return;
        }
        let work = state.schedule.next(Instant::now(), limits::ENGINE_CALL_QUERIES_MAX);
        drop(state);
        work.expired.into_iter().for_each(|job| job.end(Outcome::Deadline));
        if work.shards.is_empty() {
            continue;
        }
        compute(engine.as_mut(), shards, work.shards, shared);
    }
}

/// Computes one call's work and sends every outcome.
fn compute(
    engine: &mut dyn Engine,
    shards: &dyn Shards,
    work: Vec<ShardWork<Job>>,
    shared: &Shared,
) {
    let mut views = Vec::with_capacity(work.len());
    let mut queries: Vec<Vec<EncryptedQuery>> = Vec::with_capacity(work.len());
    let mut jobs: Vec<Vec<Option<(Owner, Job)>>> = Vec::with_capacity(work.len());
    for ShardWork { shard, queries: taken } in work {
        let Some(view) = shards.view(shard) else {
            taken.into_iter().for_each(|job| shared.end(job, Outcome::Device));
            continue;
        };
        views.push(view);
        queries.push(taken.iter().map(|(_, job)| job.query.clone()).collect());
        jobs.push(taken.into_iter().map(Some).collect());
    }
    if views.is_empty() {
        return;
    }
    let batches: Vec<Batch<'_>> =
        views.iter().zip(&queries).map(|(&shard, queries)| Batch { shard, queries }).collect();
    let mut done = |batch: usize, query: usize, answer: Answer| {
        if let Some(job) = jobs[batch][query].take() {
            shared.end(job, Outcome::Answered(answer));
        }
    };
    match catch_unwind(AssertUnwindSafe(|| engine.answer(&batches, &mut done))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(engine = engine.name(), %error, "no answers"),
        Err(_) => tracing::error!(engine = engine.name(), "the engine panicked: this is a bug"),
    }
    jobs.into_iter().flatten().flatten().for_each(|job| shared.end(job, Outcome::Device));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::engine::EngineError;
    use crate::params::Shape;
    use crate::scheme::KeyBundle;

    struct Empty(Shape);

    impl Shards for Empty {
        fn view(&self, shard: u32) -> Option<ShardView<'_>> {
            (shard < 100).then_some(ShardView {
                shape: &self.0,
                matrix: &[],
                tables: &[],
                content: None,
            })
        }
    }

    /// Answers with the query's first byte; says when it begins and waits to be let on.
    struct Scripted {
        began: std::sync::mpsc::Sender<usize>,
        go_on: std::sync::mpsc::Receiver<()>,
    }

    impl Engine for Scripted {
        fn name(&self) -> String {
            "scripted".into()
        }

        fn answer(
            &mut self,
            batches: &[Batch<'_>],
            done: &mut dyn FnMut(usize, usize, Answer),
        ) -> Result<(), EngineError> {
            self.began.send(batches.iter().map(|batch| batch.queries.len()).sum()).unwrap();
            self.go_on.recv().unwrap();
            for (at, batch) in batches.iter().enumerate() {
                for (index, query) in batch.queries.iter().enumerate() {
                    match query.vector[0] {
                        200 => return Err(EngineError::Device("scripted".into())),
                        201 => panic!("scripted"),
                        byte => done(at, index, vec![vec![byte]]),
                    }
                }
            }
            Ok(())
        }
    }

    struct Bench {
        workers: Workers,
        began: std::sync::mpsc::Receiver<usize>,
        go_on: std::sync::mpsc::Sender<()>,
        bundle: Arc<KeyBundle>,
        outcomes: UnboundedReceiver<(usize, Outcome)>,
        sender: UnboundedSender<(usize, Outcome)>,
    }

    fn bench() -> Bench {
        let shape = Shape::new(24, 128, 1, 192).unwrap();
        let (began_sender, began) = std::sync::mpsc::channel();
        let (go_on, go_on_receiver) = std::sync::mpsc::channel();
        let engine = Scripted { began: began_sender, go_on: go_on_receiver };
        let shards = Arc::new(Empty(shape));
        let workers =
            Workers::start(vec![Box::new(engine)], shards, ScheduleBounds::default()).unwrap();
        let zeros = vec![0; shape.bundle_bytes()];
        let bundle = Arc::new(KeyBundle::decode(&zeros, &shape).unwrap());
        let (sender, outcomes) = unbounded_channel();
        Bench { workers, began, go_on, bundle, outcomes, sender }
    }

    impl Bench {
        fn admit(&self, index: usize, shard: u32, byte: u8, wait: Duration) -> Ticket {
            let query = EncryptedQuery { vector: Arc::from([byte]), bundle: self.bundle.clone() };
            let item = Job { query, index, outcomes: self.sender.clone() };
            let now = Instant::now();
            let (owner, deadline) = (Owner(1), now + wait);
            let arrival = Arrival { owner, shard, bytes: 1, deadline, item };
            self.workers.queue().admit(now, arrival).map_err(|_| "overloaded").unwrap()
        }
    }

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn answers_come_back_and_a_failed_engine_fails_only_what_it_did_not_answer() {
        let mut bench = bench();
        bench.admit(0, 1, 5, LONG);
        assert_eq!(bench.began.recv().unwrap(), 1);
        // While the first is computed: an error, a panic, then work as before.
        for (index, byte) in [(1, 6), (2, 200), (3, 7)] {
            bench.admit(index, 2, byte, LONG);
        }
        bench.go_on.send(()).unwrap();
        assert_eq!(bench.outcomes.blocking_recv(), Some((0, Outcome::Answered(vec![vec![5]]))));
        assert_eq!(bench.began.recv().unwrap(), 3);
        bench.admit(4, 2, 201, LONG);
        bench.go_on.send(()).unwrap();
        assert_eq!(bench.outcomes.blocking_recv(), Some((1, Outcome::Answered(vec![vec![6]]))));
        assert_eq!(bench.outcomes.blocking_recv(), Some((2, Outcome::Device)));
        assert_eq!(bench.outcomes.blocking_recv(), Some((3, Outcome::Device)));
        assert_eq!(bench.began.recv().unwrap(), 1);
        bench.admit(5, 99, 8, LONG);
        bench.go_on.send(()).unwrap();
        assert_eq!(bench.outcomes.blocking_recv(), Some((4, Outcome::Device)));
        bench.go_on.send(()).unwrap();
        assert_eq!(bench.outcomes.blocking_recv(), Some((5, Outcome::Answered(vec![vec![8]]))));
        bench.admit(6, 100, 9, LONG); // no such shard, no call
        assert_eq!(bench.outcomes.blocking_recv(), Some((6, Outcome::Device)));
    }

    #[test]
    fn late_and_cancelled_queries_are_not_computed() {
        let mut bench = bench();
        bench.admit(0, 1, 5, LONG);
        assert_eq!(bench.began.recv().unwrap(), 1);
        bench.admit(1, 1, 201, Duration::ZERO);
        let ticket = bench.admit(2, 1, 201, LONG);
        bench.admit(3, 1, 6, LONG);
        assert_eq!(bench.workers.queue().cancel(&[ticket, ticket]), 1);
        bench.go_on.send(()).unwrap();
        assert_eq!(bench.outcomes.blocking_recv(), Some((0, Outcome::Answered(vec![vec![5]]))));
        assert_eq!(bench.outcomes.blocking_recv(), Some((1, Outcome::Deadline)));
        assert_eq!(bench.began.recv().unwrap(), 1);
        bench.go_on.send(()).unwrap();
        assert_eq!(bench.outcomes.blocking_recv(), Some((3, Outcome::Answered(vec![vec![6]]))));
    }
}
