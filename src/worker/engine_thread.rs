//! The thread of one engine: takes work, computes it, reports, and recreates the engine when it
//! failed.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{Content, Outcome, catch_panics};
use super::queue::{QueueState, Shared, Waiting, closed_within};
use crate::engine::{Answer, Batch, EncryptedQuery, Engine, StageTimes};
use crate::limits;
use crate::placement::{ShardDemand, Taker};
use crate::schedule::{Admitted, Route, ShardWork, Work};

/// A call that failed: what to say of it, and which queries have no answer.
struct Failed {
    why: String,
    unanswered: Vec<Admitted<Waiting>>,
}

enum Task {
    Compute(Work<Waiting>),
    /// Find out whether the device is alive.
    Check,
    /// Find out whether the engine still answers right.
    Prove,
    Leave,
}

pub(super) struct Worker {
    engine: Box<dyn Engine>,
    index: usize,
    shared: Arc<Shared>,
    /// Before the engine is recreated: none unless it failed since it last answered.
    pause: Duration,
}

/// The queries of one shard that a call computes.
struct ShardBatch {
    demand: ShardDemand,
    content: Arc<dyn Content>,
    queries: Vec<EncryptedQuery>,
    /// By query: where its answer goes; nothing once it went there.
    open: RefCell<Vec<Option<Admitted<Waiting>>>>,
}

impl Worker {
    pub(super) fn new(engine: Box<dyn Engine>, index: usize, shared: Arc<Shared>) -> Self {
        Self { engine, index, shared, pause: Duration::ZERO }
    }

    fn taker(&self) -> Taker {
        self.shared.workers[self.index].0
    }

    /// Until the queue is closed: takes work, computes it, reports; recreates a failed engine.
    pub(super) fn run(mut self) {
        loop {
            let computed = match self.next() {
                Task::Compute(work) => {
                    work.expired.into_iter().for_each(|late| late.job.end(Outcome::Deadline));
                    self.compute(work.shards)
                }
                Task::Check => catch_panics(|| self.engine.answer(&[], &mut |_, _, _| {}))
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
        shared.lock().health[self.index].busy_since = None;
        loop {
            if shared.is_closed() {
                return Task::Leave;
            }
            let mut state = shared.lock();
            let now = Instant::now();
            let QueueState { schedule, placement, suspects, health, .. } = &mut *state;
            let health = &mut health[self.index];
            if let Taker::Device(device) = taker
                && std::mem::take(&mut suspects[device])
            {
                health.busy_since = Some(now);
                return Task::Check;
            }
            let due = |every| health.asked.map_or(now, |asked| asked + every);
            let due = shared.proving.as_ref().map(|&(_, every)| due(every));
            if due.is_some_and(|due| due <= now) {
                health.busy_since = Some(now);
                return Task::Prove;
            }
            let work = schedule.next(now, bounds, |shard, route| match route {
                Route::Any => shared.may_take(placement, now, taker, shard),
                Route::Processor => taker == Taker::Processor,
            });
            if !work.shards.is_empty() || !work.expired.is_empty() {
                health.busy_since = Some(now);
                return Task::Compute(work);
            }
            let look_again = (schedule.queued() > 0).then_some(limits::LOOK_AGAIN_TIME);
            let patience = due.map(|due| due - now).into_iter().chain(look_again).min();
            drop(state);
            shared.wait(&shared.workers[self.index].2, patience);
        }
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
        health.asked = Some(Instant::now());
        let Err(why) = answered else {
            health.proven = health.asked;
            return Ok(());
        };
        let news = health.proven.take().is_some();
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

    fn compute(&mut self, work: Vec<ShardWork<Waiting>>) -> Result<(), Failed> {
        let (shared, taker, now) = (self.shared.clone(), self.taker(), Instant::now());
        let shard_batch = |ShardWork { shard, queries: taken }| {
            let content = shared.shards.content(shard).filter(|content| content.is_whole());
            let Some(content) = content else {
                taken.into_iter().for_each(|query| shared.end(query, Outcome::Quarantined));
                return None;
            };
            taken.iter().for_each(|query| shared.handed_out(now, query));
            let demand = ShardDemand::of(shard, &content.view());
            let queries = taken.iter().map(|taken| taken.query.item.job.query.clone()).collect();
            let open = RefCell::new(taken.into_iter().map(Some).collect());
            Some(ShardBatch { demand, content, queries, open })
        };
        let shards: Vec<ShardBatch> = work.into_iter().filter_map(shard_batch).collect();
        if shards.is_empty() {
            return Ok(());
        }
        for shard in &shards {
            let scans = shard.queries.chunks(limits::BATCH_QUERIES_PER_SCAN_MAX);
            scans.for_each(|scan| shared.counters.batch_queries.add(scan.len()));
        }
        let batches: Vec<_> = shards
            .iter()
            .map(|shard| Batch { shard: shard.content.view(), queries: &shard.queries })
            .collect();
        let mut done = |batch: usize, query: usize, answer: Answer| {
            let ShardBatch { content, open, .. } = &shards[batch];
            let Some(query) = open.borrow_mut()[query].take() else { return };
            match content.is_whole() {
                true => shared.answered(taker, query, answer),
                false => shared.end(query, Outcome::Quarantined),
            }
        };
        let (begun, before) = (Instant::now(), self.engine.stage_times());
        let called = catch_panics(|| self.engine.answer(&batches, &mut done));
        self.took(&shards, begun.elapsed(), before);
        let demands: Vec<ShardDemand> = shards.iter().map(|shard| shard.demand).collect();
        let unanswered: Vec<_> =
            shards.into_iter().flat_map(|shard| shard.open.into_inner()).flatten().collect();
        if let Err(why) = called {
            return Err(Failed { why, unanswered });
        }
        if !unanswered.is_empty() {
            let why = "it left queries unanswered: this is a bug".into();
            return Err(Failed { why, unanswered });
        }
        self.pause = Duration::ZERO;
        if taker == Taker::Processor {
            let now = Instant::now();
            shared.lock().placement.answered(now, &demands, now - begun);
        }
        Ok(())
    }

    fn took(&self, shards: &[ShardBatch], time: Duration, before: StageTimes) {
        let (counters, after) = (&self.shared.counters, self.engine.stage_times());
        if after != before {
            counters.scan_time.add(after.scan.saturating_sub(before.scan));
            counters.pack_time.add(after.pack.saturating_sub(before.pack));
        }
        tracing::debug!(
            engine = self.index,
            shards = shards.len(),
            queries = shards.iter().map(|shard| shard.queries.len()).sum::<usize>(),
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
            state.health[self.index].proven = None;
            shared.counters.device_failures.add(1);
        }
        let mut ended = Vec::new();
        for admitted in unanswered {
            if elsewhere && !admitted.query.item.job.outcomes.is_closed() {
                state.schedule.put_back(admitted);
            } else {
                ended.push(state.schedule.finished(admitted));
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
            if closed_within(&shared.closed, self.pause) {
                return ControlFlow::Break(());
            }
            let longer = (self.pause * 2).max(limits::RENEW_PAUSE_MIN);
            self.pause = longer.min(limits::RENEW_PAUSE_MAX);
            shared.lock().health[self.index].busy_since = Some(Instant::now());
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
            state.health[self.index].proven = Some(Instant::now());
            shared.counters.renewals.add(1);
            drop(state);
            tracing::info!(engine = self.engine.name(), "the device was recreated and answers");
            shared.wake(|_| true);
        }
        ControlFlow::Continue(())
    }
}
