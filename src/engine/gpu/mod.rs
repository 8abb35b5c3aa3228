//! Answers on a GPU: the kernels of `shaders/`, through wgpu.
//!
//! Only queries and keys go to the device and only finished responses come back; shards are
//! uploaded when they are asked for and stay while they fit ([`resident`]), key bundles while
//! they live ([`bundles`]). A call is cut into lanes, at most 32 queries for one shard each; some
//! lanes make a round, which is one submission, and rounds overlap ([`round`]). What is not here:
//! any answer by the processor, or which device is worth taking (`select.rs`).
//!
//! Read next: [`round`], [`lane`] (what is dispatched), [`kernels`] (texts and tiles), then
//! `shaders/`.

mod bundles;
mod device;
mod faults;
mod kernels;
mod lane;
mod resident;
mod round;
mod staging;
mod start;

use std::sync::Arc;
use std::time::Duration;

use wgpu::BindGroup;

use self::bundles::Bundles;
use self::device::Gpu;
pub use self::faults::{Fault, Faults};
use self::kernels::Pipelines;
use self::lane::{LanePlan, Rates};
use self::resident::{Held, Open, ShardKey, Store};
use self::round::{ROUNDS, Round, Work};
use self::staging::Staging;
pub use self::start::{GpuEngine, GpuOptions};
use super::{
    Answer, Batch, EncryptedQuery, EngineError, GpuInfo, ShardView, StageTimes, check_sizes,
};
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;

/// Every adapter there is.
pub(super) fn infos() -> Vec<GpuInfo> {
    device::adapters().into_iter().map(|(_, info)| info).collect()
}

/// An open device with all that answering takes.
struct Opened {
    gpu: Gpu,
    pipelines: Pipelines,
    transform: BindGroup,
    staging: Staging,
    store: Arc<Store>,
    open: Arc<Open>,
    /// Memory for shards, in bytes.
    budget: u64,
    bundles: Bundles,
    rounds: [Round; ROUNDS],
    rates: Rates,
    binding_bytes: u64,
}

impl Opened {
    /// Answers every query of every batch, as [`super::Engine::answer`] says.
    fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        check_sizes(batches)?;
        let cuts = |batch: &Batch<'_>| batch.queries.len().div_ceil(BATCH_QUERIES_PER_SCAN_MAX);
        let lanes = batches.iter().map(cuts).sum();
        let mut works = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            let shape = batch.shard.shape;
            let most = LanePlan::queries_max(shape, &self.pipelines, self.binding_bytes);
            let key = self.store.key(&batch.shard);
            for (cut, queries) in batch.queries.chunks(most).enumerate() {
                works.push(Work {
                    batch: index,
                    first_query: cut * most,
                    queries,
                    shard: batch.shard,
                    key,
                    plan: LanePlan::new(shape, queries.len(), lanes, &self.pipelines),
                });
            }
        }
        self.answer_works(&mut works, done)
    }

    /// Device time of one batch on a shard that is there (it is uploaded where it is not), by
    /// repeating each stage until it can be told from the submission around it.
    fn time_stages(
        &mut self,
        shard: &ShardView<'_>,
        queries: &[EncryptedQuery],
    ) -> Result<StageTimes, EngineError> {
        check_sizes(&[Batch { shard: *shard, queries }])?;
        let most = LanePlan::queries_max(shard.shape, &self.pipelines, self.binding_bytes);
        let mut total = StageTimes::default();
        for queries in queries.chunks(most) {
            let key = self.store.key(shard);
            let plan = LanePlan::new(shard.shape, queries.len(), 1, &self.pipelines);
            let of_stage = self.time_lane((key, shard), queries, &plan)?;
            total.prepare += of_stage.prepare;
            total.scan += of_stage.scan;
            total.pack += of_stage.pack;
            total.finish += of_stage.finish;
        }
        Ok(total)
    }

    /// Times of the stages of one lane, with the integers that are used.
    fn time_lane(
        &mut self,
        (key, shard): (ShardKey, &ShardView<'_>),
        queries: &[EncryptedQuery],
        plan: &LanePlan,
    ) -> Result<StageTimes, EngineError> {
        let mut held = Held::new(&self.store, &self.open);
        held.add(&mut self.staging, key, shard)?;
        // One whole answer makes the lane's buffers and fills them.
        let work = Work { batch: 0, first_query: 0, queries, shard: *shard, key, plan: *plan };
        let mut works = [work];
        self.answer_works(&mut works, &mut |_, _, _| {})?;
        let plan = &works[0].plan; // with the places of the keys
        let split = self.time(|this, recorder| this.rounds[0].lanes[0].split(recorder, plan))?;
        let scan = self.time(|this, recorder| {
            this.rounds[0].lanes[0].scan(recorder, plan, held.get(key));
        })?;
        let pack = self.time(|this, recorder| {
            this.rounds[0].lanes[0].pack(recorder, plan, held.get(key));
        })?;
        let finish = self.time(|this, recorder| {
            this.rounds[0].lanes[0].finish(recorder, plan, &this.transform);
        })?;
        let [prepare, scan, pack, finish] =
            [split, scan, pack, finish].map(|nanos| Duration::from_nanos(nanos as u64));
        Ok(StageTimes { prepare, scan, pack, finish })
    }
}

#[cfg(test)]
mod tests;
