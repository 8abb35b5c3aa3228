//! The threads that compute: one an engine, each takes work from the one schedule, and beside each
//! device with a store one more that brings shards up while the engine answers.
//!
//! Async code admits queries and gets outcomes on a channel; it never computes and a worker never
//! waits for it. A worker answers each query as soon as its answer exists. What a device fails at,
//! by error or by panic, goes back for the processor to answer, and the device is recreated before
//! it takes work again; what the processor fails at is answered as a failed device. Between calls
//! each engine runs its known-answer test now and then (`health`). Which work comes next is
//! [`crate::schedule`]'s to decide, who takes it [`crate::placement`]'s, how it is computed
//! [`crate::engine`]'s.

mod counters;
mod health;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use crate::engine::{
    Answer, Batch, EncryptedQuery, Engine, EngineError, Probe, Residency, ShardStore, ShardView,
    StageTimes,
};
use crate::limits;
use crate::placement::{Placement, ShardDemand, Taker};
use crate::schedule::{
    Admitted, Arrival, FrontEnd, Overloaded, Route, Schedule, ScheduleBounds, ShardWork, Ticket,
    Work,
};
use crate::shard::{Database, Shard};

pub use counters::{Counter, Distribution, Sizes, Times, WorkCounters};
pub use health::{EngineKind, EngineReport, EngineState};

use self::health::Health;

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

/// A job in the schedule.
struct Waiting {
    job: Job,
    /// Who would have taken it when it came.
    first: Option<Taker>,
}

struct QueueState {
    schedule: Schedule<Waiting>,
    placement: Placement,
    /// By device: whether its worker is to find out if it is alive.
    suspects: Vec<bool>,
    /// By engine.
    health: Vec<Health>,
    closed: bool,
}

struct Shared {
    state: Mutex<QueueState>,
    shards: Arc<dyn Shards>,
    /// By device.
    stores: Vec<Arc<dyn ShardStore>>,
    /// By engine: who it is, and what its worker waits on. Where queries wait, no worker waits for
    /// longer than [`limits::LOOK_AGAIN_TIME`].
    workers: Vec<(Taker, Condvar)>,
    /// By engine.
    names: Vec<String>,
    /// What engines are asked now and then, and how often.
    proving: Option<(Probe, Duration)>,
    /// By device: what its uploading thread waits on.
    uploaders: Vec<Condvar>,
    counters: Arc<WorkCounters>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // Nothing panics while the lock is held but for our own bugs; the state is whole anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A shard, and whether its home has it; `None` where there is no such shard.
    fn find(&self, placement: &Placement, shard: u32) -> Option<(ShardDemand, Residency)> {
        let content = self.shards.content(shard)?;
        let view = content.view();
        let bytes = (view.matrix.len() + view.tables.len()) as u64;
        let home = placement.home(shard);
        let residency = home.map_or(Residency::Never, |home| self.stores[home].residency(&view));
        Some((ShardDemand { shard, bytes }, residency))
    }

    /// Whether this worker may take queries of this shard now.
    fn may_take(&self, placement: &Placement, now: Instant, taker: Taker, shard: u32) -> bool {
        let found = self.find(placement, shard);
        found.is_none_or(|(asked, residency)| placement.taker(now, asked, residency) == Some(taker))
    }

    fn wake(&self, wanted: impl Fn(Taker) -> bool) {
        let wanted = self.workers.iter().filter(|(taker, _)| wanted(*taker));
        wanted.for_each(|(_, work)| work.notify_all());
    }

    /// Ends queries that were handed out. Their place is free before their connection can know of
    /// the outcome, so that who asks again on it is not refused.
    fn end(&self, query: Admitted<Waiting>, outcome: Outcome) {
        let waiting = self.lock().schedule.finished(query);
        waiting.job.end(outcome);
    }

    /// Takes note of how long a query waited, the first time it is handed out.
    fn handed_out(&self, now: Instant, query: &Admitted<Waiting>) {
        if query.route == Route::Any {
            let waited = now.saturating_duration_since(query.arrived);
            self.counters.queue_time.add(waited);
        }
    }

    fn answered(&self, taker: Taker, query: Admitted<Waiting>, answer: Answer) {
        let counters = &self.counters;
        let counter = match (taker, query.route, query.item.first) {
            (Taker::Device(_), _, Some(Taker::Device(_))) => &counters.answered_by_device,
            (Taker::Device(_), ..) => &counters.answered_by_device_after_upload,
            (Taker::Processor, Route::Any, _) => &counters.answered_by_processor,
            (Taker::Processor, Route::Processor, _) => {
                &counters.answered_by_processor_after_failure
            }
        };
        counter.add(1);
        self.end(query, Outcome::Answered(answer));
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
        let mut state = self.shared.lock();
        let QueueState { schedule, placement, .. } = &mut *state;
        let mut first = None;
        if let Some((asked, residency)) = self.shared.find(placement, arrival.shard) {
            if let Some(device) = placement.wants_upload(now, asked, residency) {
                self.shared.uploaders[device].notify_all();
            }
            first = placement.taker(now, asked, residency);
        }
        let nobody_looks = schedule.queued() == 0;
        let admitted = schedule.admit(now, arrival.map(|job| Waiting { job, first }));
        drop(state);
        self.shared.wake(|taker| nobody_looks || first == Some(taker));
        admitted.map_err(|overloaded| overloaded.map(|waiting| waiting.job))
    }

    /// Takes queries out that nobody waits for; says how many were still waiting.
    pub fn cancel(&self, tickets: &[Ticket]) -> usize {
        let mut state = self.shared.lock();
        tickets.iter().filter(|&&ticket| state.schedule.cancel(ticket).is_some()).count()
    }

    /// A caller was sent or brought so many bytes besides its queries and their answers.
    pub fn charge(&self, front_end: FrontEnd, bytes: u64) {
        self.shared.lock().schedule.charge(front_end, bytes);
    }

    /// Queries waiting.
    pub fn queued(&self) -> usize {
        self.shared.lock().schedule.queued()
    }

    /// Memory they may take, in bytes.
    pub fn queued_bytes(&self) -> usize {
        self.shared.lock().schedule.queued_bytes()
    }

    /// How the engines fare.
    pub fn engines(&self, now: Instant) -> Vec<EngineReport> {
        let shared = &*self.shared;
        let held: Vec<_> = shared.stores.iter().map(|store| store.held()).collect();
        let state = shared.lock();
        let engines = shared.workers.iter().zip(&shared.names).zip(&state.health);
        let report = |(((taker, _), name), health): ((&(Taker, _), &String), &Health)| {
            let (kind, up) = match *taker {
                Taker::Processor => (EngineKind::Processor, true),
                Taker::Device(device) => {
                    (EngineKind::Device(held[device]), state.placement.is_up(device))
                }
            };
            let state = if up { EngineState::Up } else { EngineState::Down };
            health.report(now, name.clone(), kind, state)
        };
        engines.map(report).collect()
    }

    /// What the workers count; stays readable after they are gone.
    pub fn counters(&self) -> Arc<WorkCounters> {
        self.shared.counters.clone()
    }

    /// Some shards may be gone: nothing is remembered of those.
    pub fn forget_gone(&self) {
        let shards = &self.shared.shards;
        self.shared.lock().placement.forget(|shard| shards.content(shard).is_none());
    }
}

/// The running threads. Dropping this closes the queue and waits for the call each is in.
pub struct Workers {
    queue: Queue,
    threads: Vec<JoinHandle<()>>,
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
            (taker, Condvar::new())
        });
        let workers: Vec<_> = workers.collect();
        let state = QueueState {
            schedule: Schedule::new(bounds),
            placement: Placement::new(stores.len(), workers.len() - stores.len()),
            suspects: vec![false; stores.len()],
            health: engines.iter().map(|_| Health::default()).collect(),
            closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            shards,
            uploaders: stores.iter().map(|_| Condvar::new()).collect(),
            stores,
            workers,
            names: engines.iter().map(|engine| engine.name()).collect(),
            proving: prove_every.map(|every| (Probe::new(), every)),
            counters: Arc::default(),
        });
        let mut workers = Self { queue: Queue { shared: shared.clone() }, threads: Vec::new() };
        for (index, engine) in engines.into_iter().enumerate() {
            if let (Taker::Device(device), _) = shared.workers[index] {
                let (shared, name) = (shared.clone(), engine.name());
                let thread = format!("sotto-upload-{device}");
                workers.spawn(thread, move || bring_up(&shared, device, &name))?;
            }
            let pause = Duration::ZERO;
            let worker = Worker { engine, index, shared: shared.clone(), pause };
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
        let shared = &self.queue.shared;
        shared.lock().closed = true;
        shared.wake(|_| true);
        shared.uploaders.iter().for_each(Condvar::notify_all);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an engine's thread had panicked: this is a bug");
            }
        }
    }
}

/// A call that failed: what to say of it, and which queries of which shard have no answer.
struct Failed {
    why: String,
    unanswered: Vec<(u32, Admitted<Waiting>)>,
}

/// What a worker does next.
enum Task {
    Compute(Work<Waiting>),
    /// Find out whether the device is alive.
    Check,
    /// Find out whether the engine still answers right.
    Prove,
    Leave,
}

/// The thread of one engine.
struct Worker {
    engine: Box<dyn Engine>,
    index: usize,
    shared: Arc<Shared>,
    /// Before the engine is recreated: none unless it failed since it last answered.
    pause: Duration,
}

impl Worker {
    fn taker(&self) -> Taker {
        self.shared.workers[self.index].0
    }

    /// Until the queue is closed: takes work, computes it, reports; recreates a failed engine.
    fn run(mut self) {
        loop {
            let computed = match self.next() {
                Task::Compute(work) => {
                    work.expired.into_iter().for_each(|late| late.job.end(Outcome::Deadline));
                    self.compute(work.shards)
                }
                Task::Check => self
                    .call(&[], &mut |_, _, _| {})
                    .map_err(|why| Failed { why, unanswered: Vec::new() }),
                Task::Prove => self.prove(),
                Task::Leave => return,
            };
            if let Err(failed) = computed {
                self.failed(failed);
                if self.renew().is_break() {
                    return;
                }
            }
        }
    }

    fn next(&self) -> Task {
        let (shared, taker) = (&*self.shared, self.taker());
        let bounds = self.engine.call_bounds();
        let mut state = shared.lock();
        state.health[self.index].rests();
        loop {
            if state.closed {
                return Task::Leave;
            }
            let now = Instant::now();
            let QueueState { schedule, placement, suspects, health, .. } = &mut *state;
            let health = &mut health[self.index];
            if let Taker::Device(device) = taker
                && std::mem::take(&mut suspects[device])
            {
                health.begins(now);
                return Task::Check;
            }
            let due = shared.proving.as_ref().map(|&(_, every)| health.due(now, every));
            if due.is_some_and(|due| due <= now) {
                health.begins(now);
                return Task::Prove;
            }
            let work = schedule.next(now, bounds, |shard, route| match route {
                Route::Any => shared.may_take(placement, now, taker, shard),
                Route::Processor => taker == Taker::Processor,
            });
            if !work.shards.is_empty() || !work.expired.is_empty() {
                health.begins(now);
                return Task::Compute(work);
            }
            let until_due = due.map(|due| due - now);
            let patience = match schedule.queued() {
                0 => until_due,
                _ => until_due.or(Some(limits::LOOK_AGAIN_TIME)).min(Some(limits::LOOK_AGAIN_TIME)),
            };
            let work_or_close = &shared.workers[self.index].1;
            state = match patience {
                None => work_or_close.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = work_or_close.wait_timeout(state, patience);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Calls the engine; an error or a panic as what to say of it.
    fn call(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), String> {
        catch_panics(|| self.engine.answer(batches, done))
    }

    /// Runs the known-answer test of the engine. A device that fails at it is recreated; the
    /// processor goes on, for it may be all there is: [`EngineReport`] says that it is not to be
    /// trusted.
    fn prove(&mut self) -> Result<(), Failed> {
        let (shared, index) = (self.shared.clone(), self.index);
        let Some((probe, _)) = &shared.proving else { return Ok(()) };
        let answered = catch_panics(|| probe.ask(self.engine.as_mut()));
        let mut state = shared.lock();
        let health = &mut state.health[index];
        health.asked(Instant::now());
        let Err(why) = answered else {
            health.proven(Instant::now());
            return Ok(());
        };
        let news = health.was_proven();
        health.not_proven();
        drop(state);
        if self.taker() != Taker::Processor {
            return Err(Failed { why, unanswered: Vec::new() });
        }
        if news {
            let engine = self.engine.name();
            tracing::error!(
                engine,
                "the known-answer test failed, do not trust this engine: {why}"
            );
        }
        Ok(())
    }

    /// Computes one call's work and sends every answer.
    fn compute(&mut self, work: Vec<ShardWork<Waiting>>) -> Result<(), Failed> {
        let (shared, taker, now) = (self.shared.clone(), self.taker(), Instant::now());
        let mut asked = Vec::with_capacity(work.len());
        let mut contents = Vec::with_capacity(work.len());
        let mut queries: Vec<Vec<EncryptedQuery>> = Vec::with_capacity(work.len());
        let mut open: Vec<Vec<Option<Admitted<Waiting>>>> = Vec::with_capacity(work.len());
        for ShardWork { shard, queries: taken } in work {
            let content = shared.shards.content(shard).filter(|content| content.is_whole());
            let Some(content) = content else {
                taken.into_iter().for_each(|query| shared.end(query, Outcome::Quarantined));
                continue;
            };
            let view = content.view();
            taken.iter().for_each(|query| shared.handed_out(now, query));
            asked
                .push(ShardDemand { shard, bytes: (view.matrix.len() + view.tables.len()) as u64 });
            contents.push(content);
            queries.push(taken.iter().map(|query| query.item.job.query.clone()).collect());
            open.push(taken.into_iter().map(Some).collect());
        }
        if contents.is_empty() {
            return Ok(());
        }
        let batches = contents.iter().zip(&queries);
        let batches = batches.map(|(content, queries)| Batch { shard: content.view(), queries });
        let batches: Vec<_> = batches.collect();
        let passes = queries.iter().flat_map(|all| all.chunks(limits::BATCH_QUERIES_PER_SCAN_MAX));
        passes.for_each(|pass| shared.counters.batch_queries.add(pass.len()));
        let mut done = |batch: usize, query: usize, answer: Answer| {
            let Some(query) = open[batch][query].take() else { return };
            match contents[batch].is_whole() {
                true => shared.answered(taker, query, answer),
                false => shared.end(query, Outcome::Quarantined),
            }
        };
        let (begun, before) = (Instant::now(), self.engine.stage_times());
        let called = self.call(&batches, &mut done);
        self.took(&queries, begun.elapsed(), before);
        let unanswered = asked.iter().zip(open).flat_map(|(asked, queries)| {
            queries.into_iter().flatten().map(|query| (asked.shard, query))
        });
        let unanswered: Vec<_> = unanswered.collect();
        match called {
            Ok(()) if unanswered.is_empty() => {
                self.pause = Duration::ZERO;
                if taker == Taker::Processor {
                    let now = Instant::now();
                    shared.lock().placement.passed(now, &asked, now - begun);
                }
                Ok(())
            }
            Ok(()) => {
                let why = "it left queries unanswered: this is a bug".into();
                Err(Failed { why, unanswered })
            }
            Err(why) => Err(Failed { why, unanswered }),
        }
    }

    /// Takes note of where a call's time went.
    fn took(&self, queries: &[Vec<EncryptedQuery>], time: Duration, before: StageTimes) {
        let (counters, after) = (&self.shared.counters, self.engine.stage_times());
        if after != before {
            counters.scan_time.add(after.scan.saturating_sub(before.scan));
            counters.pack_time.add(after.pack.saturating_sub(before.pack));
        }
        tracing::debug!(
            engine = self.index,
            shards = queries.len(),
            queries = queries.iter().map(Vec::len).sum::<usize>(),
            ms = time.as_secs_f64() * 1e3,
            "a batch"
        );
    }

    /// Takes note that the engine failed. Where it is a device and there is a processor, its
    /// queries go there.
    fn failed(&mut self, Failed { why, unanswered }: Failed) {
        let (shared, taker, engine) = (&self.shared, self.taker(), self.engine.name());
        let mut state = shared.lock();
        let elsewhere = taker != Taker::Processor && state.placement.has_processor();
        if let Taker::Device(device) = taker {
            state.placement.down(device);
            state.health[self.index].not_proven();
            shared.counters.device_failures.add(1);
        }
        let mut ended = Vec::new();
        for (shard, query) in unanswered {
            if elsewhere && !query.item.job.outcomes.is_closed() {
                state.schedule.put_back(shard, query);
            } else {
                ended.push(state.schedule.finished(query));
            }
        }
        drop(state);
        if elsewhere {
            tracing::error!(engine, "the processor answers until this engine is back: {why}");
        } else {
            tracing::error!(engine, "queries are without answer: {why}");
        }
        shared.wake(|_| true);
        ended.into_iter().for_each(|waiting| waiting.job.end(Outcome::Device));
    }

    /// Recreates the engine, as often as it takes; a break when the queue is closed meanwhile.
    fn renew(&mut self) -> ControlFlow<()> {
        let (shared, taker) = (self.shared.clone(), self.taker());
        if taker == Taker::Processor {
            // Nothing else answers, and recreating it is nothing.
            self.pause = Duration::ZERO;
        }
        loop {
            let closed = &shared.workers[self.index].1;
            let waited = closed.wait_timeout_while(shared.lock(), self.pause, |s| !s.closed);
            if waited.unwrap_or_else(PoisonError::into_inner).0.closed {
                return ControlFlow::Break(());
            }
            let longer = (self.pause * 2).max(limits::RENEW_PAUSE_MIN);
            self.pause = longer.min(limits::RENEW_PAUSE_MAX);
            shared.lock().health[self.index].begins(Instant::now());
            let Err(why) = catch_panics(|| self.engine.renew()) else { break };
            shared.counters.renewals_failed.add(1);
            let (engine, pause) = (self.engine.name(), self.pause);
            tracing::warn!(engine, "cannot be recreated, is tried again in {pause:?}: {why}");
        }
        if let Taker::Device(device) = taker {
            let mut state = shared.lock();
            state.placement.up(device);
            state.suspects[device] = false;
            // It has just proven itself on more than the known-answer test.
            state.health[self.index].proven(Instant::now());
            shared.counters.renewals.add(1);
            drop(state);
            tracing::info!(engine = self.engine.name(), "the device was recreated and answers");
            shared.wake(|_| true);
        }
        ControlFlow::Continue(())
    }
}

/// The thread that brings shards up to one device, until the queue is closed.
fn bring_up(shared: &Shared, device: usize, engine: &str) {
    let mut state = shared.lock();
    while !state.closed {
        let Some(shard) = state.placement.begin_upload(Instant::now(), device) else {
            let waited = shared.uploaders[device].wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(state);
        let begun = Instant::now();
        let content = shared.shards.content(shard);
        let ended = content.map(|content| {
            catch_panics(|| shared.stores[device].upload(&content.view()))
                .map(|()| content.is_whole())
        });
        state = shared.lock();
        match ended {
            None | Some(Ok(false)) => state.placement.upload_dropped(device),
            Some(Ok(true)) => {
                state.placement.uploaded(Instant::now(), device);
                shared.counters.uploads.add(1);
                shared.counters.upload_time.add(begun.elapsed());
            }
            Some(Err(why)) => {
                state.placement.upload_failed(Instant::now(), device);
                state.suspects[device] = true;
                shared.counters.uploads_failed.add(1);
                tracing::warn!(engine, "a shard could not be uploaded: {why}");
            }
        }
        shared.wake(|_| true);
    }
}

/// Runs what may fail or panic; what to say of either.
fn catch_panics<T>(run: impl FnOnce() -> Result<T, EngineError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(ended) => ended.map_err(|error| error.to_string()),
        Err(_) => Err("it panicked: this is a bug".into()),
    }
}
