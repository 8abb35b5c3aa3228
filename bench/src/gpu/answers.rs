//! One batch for one shard that is on the device: its stages, the whole call, and the same in calls
//! of many batches, where a device that can do two things at once does.

use std::time::{Duration, Instant};

use sotto::engine::{Batch, EncryptedQuery, Engine, EngineError, GpuEngine, StageTimes};

use super::shards::Pool;
use crate::common::Effort;

/// Queries of a call of many batches.
const CALL_QUERIES: usize = 1024;
/// Batches of one.
const CALL_BATCHES: usize = 64;

/// Sizes of batches, the largest last.
pub(super) fn batches(effort: Effort) -> &'static [usize] {
    const ALL: &[usize] = &[1, 2, 4, 8, 16, 32, 64];
    effort.pick(ALL, ALL, &[1, 3])
}

/// Everything of one batch size.
pub(super) struct Answers {
    pub(super) batch: usize,
    /// Device time of the whole batch, the least seen of each stage.
    pub(super) stages: StageTimes,
    pub(super) alone: Vec<Duration>,
    /// Calls of many batches for different shards, time a batch.
    pub(super) streamed: Vec<Duration>,
}

/// Times a batch size, with shards 0, 1, .. that are on the device.
pub(super) fn measure(
    engine: &mut GpuEngine,
    pool: &Pool,
    queries: &[EncryptedQuery],
    (batch, shards): (usize, usize),
    effort: Effort,
) -> Result<Answers, EngineError> {
    let one = &queries[..batch];
    let mut stages: Option<StageTimes> = None;
    for _ in 0..effort.pick(3, 1, 1) {
        let found = engine.time_stages(&pool.shard(0), one)?;
        let best = stages.unwrap_or(found);
        stages = Some(StageTimes {
            prepare: found.prepare.min(best.prepare),
            scan: found.scan.min(best.scan),
            pack: found.pack.min(best.pack),
            finish: found.finish.min(best.finish),
        });
    }
    let alone = repeat(effort, || call(engine, pool, one, &[0]))?;
    let batches = (CALL_QUERIES / batch).min(effort.pick(CALL_BATCHES, 4, 2));
    let asked: Vec<usize> = (0..batches).map(|at| at % shards).collect();
    let streamed = repeat(effort, || Ok(call(engine, pool, one, &asked)? / batches as u32))?;
    Ok(Answers { batch, stages: stages.unwrap_or_default(), alone, streamed })
}

/// Keeps the device busy for a while: one that was idle runs slowly at first.
pub(super) fn warm_up(
    engine: &mut GpuEngine,
    pool: &Pool,
    queries: &[EncryptedQuery],
    effort: Effort,
) -> Result<(), EngineError> {
    let most = batches(effort).last().copied().unwrap_or(1);
    repeat(effort, || call(engine, pool, &queries[..most], &[0]))?;
    Ok(())
}

/// Once to warm up, then for a while, three times at least.
fn repeat(
    effort: Effort,
    mut once: impl FnMut() -> Result<Duration, EngineError>,
) -> Result<Vec<Duration>, EngineError> {
    once()?;
    let (least, begun) = (Duration::from_millis(effort.pick(500, 100, 0)), Instant::now());
    let mut times = Vec::new();
    while times.len() < 3 || begun.elapsed() < least {
        times.push(once()?);
    }
    Ok(times)
}

/// One call that asks the same queries of some shards.
pub(super) fn call(
    engine: &mut dyn Engine,
    pool: &Pool,
    queries: &[EncryptedQuery],
    shards: &[usize],
) -> Result<Duration, EngineError> {
    let batch = |&number: &usize| Batch { shard: pool.shard(number), queries };
    let batches: Vec<_> = shards.iter().map(batch).collect();
    let mut answers = 0;
    let start = Instant::now();
    engine.answer(&batches, &mut |_, _, _| answers += 1)?;
    let taken = start.elapsed();
    assert_eq!(answers, queries.len() * shards.len(), "this is a bug: answers");
    Ok(taken)
}
