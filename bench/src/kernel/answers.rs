//! Whole answers, timed: every instruction set here, by number of threads, batch by batch.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use sotto::arith::IsaName;
use sotto::engine::{
    Batch, EncryptedQuery, Engine, EngineChoice, EngineError, IsaChoice, SelectError, ShardView,
    select,
};

use super::pin::Cores;
use crate::Failed;
use crate::common::Effort;
use crate::operations::memory_bytes;

/// Sizes of batches, the largest last.
pub(super) fn batches(effort: Effort) -> &'static [usize] {
    const ALL: &[usize] = &[1, 2, 4, 8, 16, 32];
    effort.pick(ALL, ALL, &[1, 3])
}

pub(super) fn rounds_max(effort: Effort) -> usize {
    effort.pick(40, 4, 1)
}

pub(super) struct Setting {
    pub(super) isa: IsaName,
    pub(super) threads: usize,
    /// Rounds it takes part in.
    pub(super) rounds: usize,
    pub(super) series: Vec<Series>,
    engine: Box<dyn Engine>,
    next: usize,
}

pub(super) struct Series {
    pub(super) batch: usize,
    pub(super) runs: Vec<Run>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    pub(super) whole: Duration,
    /// Added up over threads, as are the others.
    pub(super) scan: Duration,
    pub(super) pack: Duration,
    pub(super) prepare: Duration,
    pub(super) finish: Duration,
}

pub(super) fn engine(isa: IsaName, threads: usize) -> Result<Box<dyn Engine>, SelectError> {
    select(EngineChoice::Cpu, IsaChoice::Only(isa), NonZeroUsize::new(threads))
}

pub(super) fn time(
    engine: &mut dyn Engine,
    shard: ShardView<'_>,
    queries: &[EncryptedQuery],
) -> Result<Run, EngineError> {
    let before = engine.stage_times();
    let mut answers = 0;
    let start = Instant::now();
    engine.answer(&[Batch { shard, queries }], &mut |_, _, _| answers += 1)?;
    let whole = start.elapsed();
    assert_eq!(answers, queries.len(), "this is a bug: answers");
    let after = engine.stage_times();
    Ok(Run {
        whole,
        scan: after.scan - before.scan,
        pack: after.pack - before.pack,
        prepare: after.prepare - before.prepare,
        finish: after.finish - before.finish,
    })
}

impl Setting {
    pub(super) fn all(
        effort: Effort,
        engines: &[IsaName],
        cores: &Cores,
    ) -> Result<Vec<Self>, SelectError> {
        let mut settings = Vec::new();
        for &isa in engines {
            // Slow, and no target names it.
            let portable = isa == IsaName::Portable && engines.len() > 1;
            let rounds = if portable { effort.pick(1, 0, 1) } else { rounds_max(effort) };
            for threads in cores.counts() {
                if rounds > 0 {
                    let engine = engine(isa, threads)?;
                    let batches = batches(effort).iter();
                    let series = batches.map(|&batch| Series { batch, runs: Vec::new() }).collect();
                    settings.push(Self { isa, threads, rounds, series, engine, next: 0 });
                }
            }
        }
        Ok(settings)
    }

    /// One round: every batch size, small ones some times more, each call for the next shard.
    pub(super) fn run(
        &mut self,
        shards: &[ShardView<'_>],
        queries: &[EncryptedQuery],
    ) -> Result<(), EngineError> {
        for series in &mut self.series {
            for _ in 0..if series.batch <= 4 { 3 } else { 2 } {
                let shard = shards[self.next % shards.len()];
                self.next += 1;
                let run = time(self.engine.as_mut(), shard, &queries[..series.batch])?;
                series.runs.push(run);
            }
        }
        Ok(())
    }
}

/// By how much the process grew at most, in bytes, between "no engine" and the end of a batch of
/// all `queries`; none where the system does not say.
pub(super) fn memory_growth(
    isa: IsaName,
    shard: ShardView<'_>,
    queries: &[EncryptedQuery],
    threads: usize,
) -> Result<Option<u64>, Failed> {
    let before = memory_bytes("self", "VmRSS:").ok();
    let mut engine = engine(isa, threads)?;
    // Forgets the peak: what the engine's self-check took and gave back is not the batch's.
    let forgotten = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    time(engine.as_mut(), shard, queries)?;
    time(engine.as_mut(), shard, queries)?;
    let peak = memory_bytes("self", "VmHWM:").ok().filter(|_| forgotten);
    Ok(before.zip(peak).map(|(before, peak)| peak.saturating_sub(before)))
}
