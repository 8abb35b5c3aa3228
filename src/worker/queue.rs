//! The queue: the schedule, the placement and the health of the engines under one lock; who may
//! admit and cancel queries, and how threads wait for work.
//!
//! Threads sleep on channels: one carries a wake-up to each thread, and one is closed when all have
//! to end.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, after, bounded, never, select};

use super::counters::WorkCounters;
use super::health::{EngineKind, EngineReport, EngineState, Health};
use super::job::{Job, Outcome, Shards};
use crate::engine::{Answer, Probe, Residency, ShardStore};
use crate::placement::{Placement, ShardDemand, Taker};
use crate::schedule::{Admitted, Arrival, FrontEnd, Overloaded, Route, Schedule, Ticket};

pub(super) struct Waiting {
    pub(super) job: Job,
    /// Who would have taken it when it came.
    pub(super) first: Option<Taker>,
}

pub(super) struct QueueState {
    pub(super) schedule: Schedule<Waiting>,
    pub(super) placement: Placement,
    /// By device: whether its worker has to find out if it is alive.
    pub(super) suspects: Vec<bool>,
    /// By engine.
    pub(super) health: Vec<Health>,
}

/// Wakes one thread. A wake-up that comes while the thread is awake makes its next wait return at
/// once; further ones add nothing.
pub(super) struct Wake(Sender<()>, Receiver<()>);

impl Wake {
    pub(super) fn new() -> Self {
        let (sender, receiver) = bounded(1);
        Self(sender, receiver)
    }

    pub(super) fn wake(&self) {
        // Full: a wake-up is there already.
        let _ = self.0.try_send(());
    }
}

pub(super) struct Shared {
    pub(super) state: Mutex<QueueState>,
    /// Disconnected when all threads have to end.
    pub(super) closed: Receiver<Infallible>,
    pub(super) shards: Arc<dyn Shards>,
    /// By device.
    pub(super) stores: Vec<Arc<dyn ShardStore>>,
    /// By engine: who it is, its name, and what wakes its worker. Where queries wait, no worker
    /// waits for longer than [`limits::LOOK_AGAIN_TIME`](crate::limits::LOOK_AGAIN_TIME).
    pub(super) workers: Vec<(Taker, String, Wake)>,
    pub(super) proving: Option<(Probe, Duration)>,
    pub(super) uploaders: Vec<Wake>,
    pub(super) counters: Arc<WorkCounters>,
}

/// Waits for a time; whether the thread has to end, in which case it returns at once. The sender is
/// dropped to end a thread; nothing is ever sent.
pub(crate) fn closed_within(closed: &Receiver<Infallible>, time: Duration) -> bool {
    !matches!(closed.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

impl Shared {
    pub(super) fn is_closed(&self) -> bool {
        closed_within(&self.closed, Duration::ZERO)
    }

    /// Waits until the thread is woken, until all have to end, or for a time at most.
    pub(super) fn wait(&self, wake: &Wake, patience: Option<Duration>) {
        let late = patience.map_or_else(never, after);
        select! {
            recv(wake.1) -> _ => {}
            recv(self.closed) -> _ => {}
            recv(late) -> _ => {}
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, QueueState> {
        // Nothing panics while the lock is held but for our own bugs; the state is whole anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A shard, and whether its home has it; `None` where there is no such shard.
    pub(super) fn find(
        &self,
        placement: &Placement,
        shard: u32,
    ) -> Option<(ShardDemand, Residency)> {
        let content = self.shards.content(shard)?;
        let view = content.view();
        let home = placement.home(shard);
        let residency = home.map_or(Residency::Never, |home| self.stores[home].residency(&view));
        Some((ShardDemand::of(shard, &view), residency))
    }

    /// Whether this worker may take queries of this shard now.
    pub(super) fn may_take(
        &self,
        placement: &Placement,
        now: Instant,
        taker: Taker,
        shard: u32,
    ) -> bool {
        let found = self.find(placement, shard);
        found.is_none_or(|(asked, residency)| placement.taker(now, asked, residency) == Some(taker))
    }

    pub(super) fn wake(&self, wanted: impl Fn(Taker) -> bool) {
        let wanted = self.workers.iter().filter(|(taker, ..)| wanted(*taker));
        wanted.for_each(|(.., work)| work.wake());
    }

    /// Ends queries that were handed out. Their place is free before their connection can know of
    /// the outcome, so that who asks again on it is not refused.
    pub(super) fn end(&self, admitted: Admitted<Waiting>, outcome: Outcome) {
        let waiting = self.lock().schedule.finished(admitted);
        waiting.job.end(outcome);
    }

    /// Takes note of how long a query waited, the first time it is handed out.
    pub(super) fn handed_out(&self, now: Instant, admitted: &Admitted<Waiting>) {
        if admitted.route == Route::Any {
            let waited = now.saturating_duration_since(admitted.arrived);
            self.counters.queue_time.add(waited);
        }
    }

    pub(super) fn answered(&self, taker: Taker, admitted: Admitted<Waiting>, answer: Answer) {
        let counters = &self.counters;
        let counter = match (taker, admitted.route, admitted.query.item.first) {
            (Taker::Device(_), _, Some(Taker::Device(_))) => &counters.answered_by_device,
            (Taker::Device(_), ..) => &counters.answered_by_device_after_upload,
            (_, Route::Any, _) => &counters.answered_by_processor,
            (_, Route::Processor, _) => &counters.answered_by_processor_after_failure,
        };
        counter.add(1);
        self.end(admitted, Outcome::Answered(answer));
    }
}

/// The way in: admits queries and cancels them. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    pub(super) shared: Arc<Shared>,
}

impl Queue {
    /// Admits a query; its outcome comes on its channel unless it is cancelled.
    pub fn submit(&self, now: Instant, arrival: Arrival<Job>) -> Result<Ticket, Overloaded> {
        let mut state = self.shared.lock();
        let QueueState { schedule, placement, .. } = &mut *state;
        let mut first = None;
        if let Some((asked, residency)) = self.shared.find(placement, arrival.shard) {
            if let Some(device) = placement.wants_upload(now, asked, residency) {
                self.shared.uploaders[device].wake();
            }
            first = placement.taker(now, asked, residency);
        }
        let nobody_looks = schedule.queued() == 0;
        let admitted = schedule.admit(now, arrival.map(|job| Waiting { job, first }));
        drop(state);
        self.shared.wake(|taker| nobody_looks || first == Some(taker));
        admitted
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
        let report = |((taker, name, _), health): (&(Taker, String, Wake), &Health)| {
            let (kind, up) = match *taker {
                Taker::Processor => (EngineKind::Processor, true),
                Taker::Device(device) => {
                    (EngineKind::Device(held[device]), state.placement.is_up(device))
                }
            };
            let state = if up { EngineState::Up } else { EngineState::Down };
            let [busy, proven] = [health.busy_since, health.proven]
                .map(|then| then.map(|then| now.saturating_duration_since(then)));
            EngineReport { name: name.clone(), kind, state, busy, proven }
        };
        shared.workers.iter().zip(&state.health).map(report).collect()
    }

    /// Some shards may be gone: nothing is remembered of those.
    pub fn forget_gone(&self) {
        let shards = &self.shared.shards;
        self.shared.lock().placement.forget(|shard| shards.content(shard).is_none());
    }
}
