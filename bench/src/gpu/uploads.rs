//! How fast shards are uploaded: into free memory, in place of others, and while another thread
//! answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::record::GpuUploads;
use sotto::engine::{EncryptedQuery, GpuEngine, Residency, ShardStore};

use super::answers::call;
use super::shards::Pool;
use crate::Failed;
use crate::common::Effort;
use crate::record::rounded;

/// Shards that come and go beside those that stay.
pub(super) const PASSING: usize = 4;

/// Uploads the shards that stay, as many as are wanted and fit beside those that come and go.
/// Returns how many, and the rate in 10^9 bytes a second.
pub(super) fn fill(
    store: &dyn ShardStore,
    pool: &Pool,
    wanted: usize,
) -> Result<(usize, f64), Failed> {
    let mut up = 0;
    let start = Instant::now();
    while up < wanted + PASSING && store.residency(&pool.shard(up)) == Residency::Room {
        store.upload(&pool.shard(up))?;
        up += 1;
    }
    let rate = rate(pool, up, start);
    // Where memory ran out before the budget did, some made room again.
    let here = (0..up).filter(|&at| store.residency(&pool.shard(at)) == Residency::Here).count();
    if here <= PASSING {
        return Err(format!("the device holds {here} shards, expected more than {PASSING}").into());
    }
    Ok((here - PASSING, rate))
}

pub(super) fn measure(
    engine: &mut GpuEngine,
    store: &Arc<dyn ShardStore>,
    pool: &Pool,
    queries: &[EncryptedQuery],
    (shards, into_free_memory_gb_per_s): (usize, f64),
    effort: Effort,
) -> Result<GpuUploads, Failed> {
    let batch = effort.pick(8, 2, 2);
    let time = Duration::from_millis(effort.pick(2000, 200, 0));
    let asked: Vec<usize> = (0..shards).collect();
    let mut answer = |until: &dyn Fn(Instant) -> bool| {
        let (start, mut answers) = (Instant::now(), 0);
        while answers == 0 || !until(start) {
            call(engine, pool, &queries[..batch], &asked)?;
            answers += shards * batch;
        }
        Ok::<_, Failed>(rounded(answers as f64 / start.elapsed().as_secs_f64()))
    };
    let over = |start: Instant| start.elapsed() >= time;
    // Names that were never there.
    let mut next = shards + PASSING;
    let mut upload = || {
        let (start, mut up) = (Instant::now(), 0);
        while up < PASSING || !over(start) {
            store.upload(&pool.shard(next))?;
            (next, up) = (next + 1, up + 1);
        }
        Ok::<_, sotto::engine::EngineError>(rate(pool, up, start))
    };
    let in_place_of_others_gb_per_s = upload()?;
    // By now others are in the place of those that stay: one call uploads these again, and makes
    // them the last used, so that further uploads take the places of those that come and go.
    answer(&|_| true)?;
    let answers_per_s = answer(&over)?;
    let ended = AtomicBool::new(false);
    let (uploading, answering) = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let rate = upload();
            ended.store(true, Ordering::Release);
            rate
        });
        let answering = answer(&|_| ended.load(Ordering::Acquire));
        (thread.join().expect("the uploading thread ended"), answering)
    });
    Ok(GpuUploads {
        shards,
        into_free_memory_gb_per_s,
        in_place_of_others_gb_per_s,
        while_answering_gb_per_s: uploading?,
        batch,
        answers_per_s,
        answers_per_s_while_uploading: answering?,
    })
}

fn rate(pool: &Pool, shards: usize, start: Instant) -> f64 {
    rounded(shards as f64 * pool.shard_bytes() as f64 / start.elapsed().as_secs_f64() / 1e9)
}
