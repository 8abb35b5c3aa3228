//! How large batches get, and what an engine does with them: one engine, so many shards, each as
//! popular as the others, a schedule as in [`sotto::schedule`].
//!
//! An engine that is free takes a query at once; one that is busy finds more of them when it comes
//! to the shard again. With `S` shards and a rate `L`, a shard whose first query waited for `w` has
//! a batch of `b = 1 + L/S w`; an engine that is always busy does `L = b / T(b)`, `T(b)` the time
//! of a batch. So a rate fixes the batch, and the batch fixes how long queries wait:
//! `w = (b - 1) S/L = (b - 1)/b S T(b)`. Longer waits make larger batches and more throughput,
//! until `w + T(b)` is what the schedule lets queries wait for an answer ([`TIMELY_SHARE`] of the
//! objective: what comes later is refused) or batches are full. `simulated.rs` compares this with
//! the schedule itself.

use sotto::limits::BATCH_QUERIES_PER_SCAN_MAX;
use sotto::schedule::TIMELY_SHARE;

/// Seconds of a batch by the number of its queries, on straight lines between points.
#[derive(Debug, Clone)]
pub(super) struct Curve {
    /// Queries and seconds, both rising.
    points: Vec<(f64, f64)>,
}

impl Curve {
    /// Of what was measured; none without a point. A larger batch that took less time than a
    /// smaller one (noise) counts as the smaller one.
    pub(super) fn of(points: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        let mut points: Vec<_> = points.into_iter().collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup_by_key(|point| point.0);
        for at in 1..points.len() {
            points[at].1 = points[at].1.max(points[at - 1].1);
        }
        (!points.is_empty()).then_some(Self { points })
    }

    /// The largest batch measured, or the largest that a server makes.
    pub(super) fn largest(&self) -> f64 {
        let last = self.points.last().map_or(1.0, |point| point.0);
        last.min(BATCH_QUERIES_PER_SCAN_MAX as f64)
    }

    /// Seconds; beyond the points as at the nearest.
    pub(super) fn at(&self, batch: f64) -> f64 {
        let after = self.points.partition_point(|point| point.0 < batch);
        match (self.points.get(after.wrapping_sub(1)), self.points.get(after)) {
            (Some(low), Some(high)) => {
                low.1 + (high.1 - low.1) * (batch - low.0) / (high.0 - low.0)
            }
            (Some(one), None) | (None, Some(one)) => one.1,
            (None, None) => 0.0,
        }
    }
}

/// An engine of a host: all its cores together, or a GPU.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    pub(super) batch: Curve,
    /// Cores, which share each batch.
    pub(super) cores: f64,
    /// Core-seconds that a query takes beside its batch.
    pub(super) outside: f64,
    /// Seconds in which a shard's bytes can be read at best; no batch is faster.
    pub(super) reading: f64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    pub(super) rate: f64,
    pub(super) batch: f64,
    /// Seconds from a batch's first query to its answer, about.
    pub(super) latency: f64,
}

impl Engine {
    /// Seconds of a batch, with its share of everything else.
    pub(super) fn time(&self, batch: f64) -> f64 {
        self.core_time(batch).max(self.reading)
    }

    /// Of these, what cores need.
    pub(super) fn core_time(&self, batch: f64) -> f64 {
        (self.batch.at(batch) + self.outside * batch) / self.cores
    }

    /// Always busy, batches of this size.
    fn busy(&self, shards: f64, batch: f64) -> State {
        let time = self.time(batch);
        let wait = (batch - 1.0) / batch * shards * time;
        State { rate: batch / time, batch, latency: wait + time }
    }

    /// The most that it does within an objective, in seconds; none where one batch is too long.
    pub(super) fn capacity(&self, shards: f64, objective: f64) -> Option<State> {
        let patience = TIMELY_SHARE * objective;
        let within = |batch| self.busy(shards, batch).latency <= patience;
        within(1.0).then(|| self.busy(shards, most(self.batch.largest(), within)))
    }

    pub(super) fn at(&self, shards: f64, rate: f64) -> State {
        let batch = most(self.batch.largest(), |batch| self.busy(shards, batch).rate <= rate);
        State { rate, ..self.busy(shards, batch) }
    }
}

/// The largest batch from 1 to `largest` for which something holds that holds for all below it; 1
/// where there is none.
fn most(largest: f64, holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (1.0, largest);
    if holds(high) {
        return high;
    }
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        *(if holds(middle) { &mut low } else { &mut high }) = middle;
    }
    low
}
