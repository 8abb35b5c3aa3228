//! The schedule under load in simulated time: one engine whose batch takes a time for the shard and
//! a time for each query, front-ends that ask at random times, some of them far too often.
//!
//! The engine's numbers are a core's with AMX for standard shards of four packs (bench/record):
//! 13 ms a batch and 1 ms a query, so 711 queries a second in full batches.

use super::*;
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;

const SHARD_TIME: Duration = Duration::from_millis(13);
const QUERY_TIME: Duration = Duration::from_millis(1);
const SHARDS: u64 = 8;
const CALL: CallBounds = CallBounds { shards_max: 1, queries_max: BATCH_QUERIES_PER_SCAN_MAX };

/// Queries a second when every batch is full.
fn capacity() -> f64 {
    let full = BATCH_QUERIES_PER_SCAN_MAX as u32;
    f64::from(full) / (SHARD_TIME + QUERY_TIME * full).as_secs_f64()
}

/// What one front-end does.
#[derive(Clone, Copy)]
struct Load {
    share: u32,
    queries_per_second: f64,
}

/// What became of it.
#[derive(Default)]
struct Seen {
    /// Answers in the time that counts.
    answered: usize,
    /// Of those that were asked for in it.
    latencies: Vec<Duration>,
    refused: usize,
    expired: usize,
}

/// A linear congruential generator.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }

    /// Exponential times between queries.
    fn wait(&mut self, queries_per_second: f64) -> Duration {
        let uniform = (self.below(1 << 31) as f64 + 0.5) / (1u64 << 31) as f64;
        Duration::from_secs_f64(-uniform.ln() / queries_per_second)
    }
}

/// Runs so many seconds of it, after five of warming up, over so many shards, each as popular as
/// the others.
fn simulate(shards: u64, loads: &[Load], seconds: u64) -> Vec<Seen> {
    let start = Instant::now();
    let (from, end) = (start + Duration::from_secs(5), start + Duration::from_secs(5 + seconds));
    let mut schedule: Schedule<(usize, Instant)> = Schedule::new(ScheduleBounds::default());
    let mut seen: Vec<Seen> = loads.iter().map(|_| Seen::default()).collect();
    let mut sources: Vec<Random> = (1..).take(loads.len()).map(Random).collect();
    let mut next: Vec<Instant> = loads.iter().map(|_| start).collect();
    // What the engine is busy with, and until when.
    let mut busy: Option<(Instant, Vec<_>)> = None;
    let mut now = start;
    while now < end {
        let (at, &due) = next.iter().enumerate().min_by_key(|(_, due)| **due).unwrap();
        if let Some((done, _)) = &busy
            && *done <= due
        {
            let (done, queries) = busy.take().unwrap();
            now = done;
            for query in queries {
                let (front_end, arrived) = schedule.finished(query);
                seen[front_end].answered += usize::from(now >= from);
                if arrived >= from {
                    seen[front_end].latencies.push(now - arrived);
                }
            }
        } else {
            now = due;
            let source = &mut sources[at];
            next[at] = now + source.wait(loads[at].queries_per_second);
            let arrival = Arrival {
                connection: ConnectionId(at as u64),
                front_end: FrontEnd { number: at as u64, share: loads[at].share },
                shard: source.below(shards) as u32,
                scan_bytes: 170 << 20,
                bytes: 80_000,
                deadline: now + limits::DEADLINE_DEFAULT,
                item: (at, now),
            };
            if schedule.admit(now, arrival).is_err() {
                seen[at].refused += 1;
            }
        }
        if busy.is_none() {
            let mut work = schedule.next(now, CALL, |_, _| true);
            work.expired.drain(..).for_each(|(front_end, _)| seen[front_end].expired += 1);
            busy = work.shards.pop().map(|ShardWork { queries, .. }| {
                (now + SHARD_TIME + QUERY_TIME * queries.len() as u32, queries)
            });
        }
    }
    seen
}

fn load(share: u32, of_capacity: f64) -> Load {
    Load { share, queries_per_second: capacity() * of_capacity }
}

#[test]
fn a_flood_hardly_changes_what_others_wait() {
    // All have the same share. One asks for its share, then for ten times as much; the others for a
    // part of theirs.
    for (front_ends, part) in
        [(2, 0.9), (2, 0.5), (2, 0.1), (4, 0.9), (4, 0.5), (20, 0.9), (20, 0.5)]
    {
        let share = 1.0 / front_ends as f64;
        let beside = |flood: f64| {
            let mut loads = vec![load(1, part * share); front_ends];
            loads[0] = load(1, flood * share);
            let mut seen = simulate(SHARDS, &loads, 120);
            let flooding = seen.remove(0).answered as f64 / 120.0;
            assert!(flooding > 0.94 * capacity() * share, "it has its share, not {flooding}");
            assert!(seen.iter().all(|seen| (seen.refused, seen.expired) == (0, 0)));
            let mut latencies: Vec<_> = seen.into_iter().flat_map(|seen| seen.latencies).collect();
            latencies.sort_unstable();
            latencies[latencies.len() * 99 / 100].as_secs_f64()
        };
        let (without, with) = (beside(1.0), beside(10.0));
        assert!(with < 1.2 * without, "{front_ends}, {part}: {without} s, then {with} s");
    }
}

#[test]
fn shares_are_kept_under_overload() {
    let seen = simulate(SHARDS, &[load(1, 10.0), load(3, 10.0)], 60);
    let [one, three] = [0, 1].map(|at| seen[at].answered as f64 / 60.0);
    assert!((three / one - 3.0).abs() < 0.1, "{one} and {three} queries a second");
    assert!(one + three > 0.98 * capacity(), "{one} and {three} of {}", capacity());
}

#[test]
fn one_alone_has_everything() {
    let seen = simulate(SHARDS, &[load(1, 10.0), load(1_000_000, 1e-6)], 60);
    let alone = seen[0].answered as f64 / 60.0;
    assert!(alone > 0.98 * capacity(), "{alone} of {}", capacity());
}

#[test]
fn under_overload_answers_still_come_in_time() {
    for (shards, front_ends) in [(1, 1), (1, 4), (8, 1), (8, 4), (64, 1), (64, 20)] {
        let goodput = |of_capacity: f64| {
            let loads = vec![load(1, of_capacity / front_ends as f64); front_ends];
            let seen = simulate(shards, &loads, 60);
            let latencies = seen.iter().flat_map(|seen| &seen.latencies);
            latencies.filter(|&&latency| latency <= limits::LATENCY_TARGET).count() as f64 / 60.0
        };
        let peak = [0.7, 0.8, 0.9, 1.0].map(goodput).into_iter().fold(0.0, f64::max);
        for beyond in [1.2, 2.0, 10.0] {
            let good = goodput(beyond);
            assert!(good > 0.9 * peak, "{shards}, {front_ends}, {beyond}: {good} of {peak}");
        }
    }
}
