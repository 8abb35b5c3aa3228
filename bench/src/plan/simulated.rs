//! The model of [`super::batch`] beside the schedule itself, in simulated time: Poisson arrivals,
//! one engine, shards that are equally popular.

use std::time::{Duration, Instant};

use super::batch::{Curve, Engine};
use sotto::engine::CallBounds;
use sotto::limits;
use sotto::schedule::{Admitted, Arrival, ConnectionId, FrontEnd, Schedule, ScheduleBounds};

/// What came of a simulated rate.
#[derive(Debug)]
struct Seen {
    good: f64,
    batch: f64,
    median: f64,
    p99: f64,
}

fn simulate(engine: &Engine, shards: u64, objective: f64, rate: f64, queries: usize) -> Seen {
    let start = Instant::now();
    let target = Duration::from_secs_f64(objective);
    let bounds = ScheduleBounds { latency_target: target, ..ScheduleBounds::default() };
    let calls = CallBounds { shards_max: 1, queries_max: limits::BATCH_QUERIES_PER_SCAN_MAX };
    let mut schedule = Schedule::new(bounds);
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 33
    };
    let mut busy: Option<(Instant, Vec<Admitted<Instant>>)> = None;
    let mut now;
    let mut due = start;
    let (mut asked, mut passes, mut latencies) = (0, 0, Vec::new());
    // The first fifth is warming up.
    let from = queries / 5;
    while asked < queries {
        if let Some((done, _)) = &busy
            && *done <= due
        {
            let (done, batch) = busy.take().unwrap();
            now = done;
            for query in batch {
                let arrived = schedule.finished(query);
                if asked > from {
                    latencies.push((now - arrived).as_secs_f64());
                }
            }
            passes += usize::from(asked > from);
        } else {
            now = due;
            let uniform = (random() as f64 + 0.5) / (1u64 << 31) as f64;
            due = now + Duration::from_secs_f64(-uniform.ln() / rate);
            let arrival = Arrival {
                connection: ConnectionId(asked as u64 % 16),
                front_end: FrontEnd { number: asked as u64 % 16, share: 1 },
                shard: (random() % shards) as u32,
                scan_bytes: 170 << 20,
                bytes: 80_000,
                deadline: now + limits::DEADLINE_DEFAULT,
                item: now,
            };
            asked += 1;
            drop(schedule.admit(now, arrival));
        }
        if busy.is_none() {
            let queries = schedule.next(now, calls, |_, _| true).shards.pop();
            busy = queries.map(|work| {
                let time = engine.time(work.queries.len() as f64);
                (now + Duration::from_secs_f64(time), work.queries)
            });
        }
    }
    latencies.sort_unstable_by(f64::total_cmp);
    let good = latencies.iter().filter(|&&latency| latency <= objective).count();
    Seen {
        good: good as f64 / (queries - from) as f64,
        batch: latencies.len() as f64 / f64::max(passes as f64, 1.0),
        median: latencies[latencies.len() / 2],
        p99: latencies[latencies.len() * 99 / 100],
    }
}

#[test]
fn batches_and_limits_are_those_of_the_schedule() {
    // Seconds of a pass and of each of its queries, shards, objective: the kernels' numbers for a
    // standard shard of four packs and for a sixteenth of it, from one shard to so many that no
    // batch is left.
    let cases = [
        (0.007, 0.0016, 1, 0.5),
        (0.013, 0.001, 8, 0.5),
        (0.013, 0.001, 64, 1.0),
        (0.013, 0.001, 1000, 0.5),
        (0.0007, 0.00015, 64, 0.5),
        (0.0007, 0.00015, 1000, 0.5),
        (0.05, 0.005, 1, 0.5),
        (0.002, 0.0005, 100, 1.0),
    ];
    for (pass, query, shards, objective) in cases {
        let curve = Curve::of([(1.0, pass + query), (32.0, pass + 32.0 * query)]).unwrap();
        let engine = Engine { batch: curve, cores: 1.0, outside: 0.0, reading: 0.0 };
        let most = engine.capacity(shards as f64, objective).unwrap();
        for of_it in [0.5, 0.7, 1.4] {
            let rate = of_it * most.rate;
            let said = engine.at(shards as f64, rate);
            let queries = (rate * 60.0).clamp(4_000.0, 40_000.0) as usize;
            let seen = simulate(&engine, shards, objective, rate, queries);
            println!(
                "{pass} s and {query} s a query, {shards} shards, {objective} s: {of_it} of {:.0} \
                 a second: {said:.3?}; {:.3} in time, {:.2} a batch, median {:.3} s, p99 {:.3} s",
                most.rate, seen.good, seen.batch, seen.median, seen.p99
            );
            assert_eq!(seen.good >= 0.99, of_it < 1.0, "{seen:?}");
            if of_it < 1.0 {
                let off = said.batch / seen.batch - 1.0;
                assert!(off.abs() < 0.08, "{off}: {said:?}, {seen:?}");
                assert!(seen.p99 < objective, "{seen:?}");
            }
        }
    }
}
