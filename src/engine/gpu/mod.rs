//! Answers on a GPU: the kernels of `shaders/`, through wgpu.
//!
//! Only queries and keys go to the device and only finished responses come back; shards are
//! brought up when they are asked for and stay while they fit ([`resident`]). A call is cut into
//! lanes, at most 32 queries for one shard each; as many lanes as fit make one submission. What is
//! not here: any answer by the processor, or which device is worth taking (`select.rs`).
//!
//! Read next: [`lane`] (what is dispatched), [`kernels`] (texts and tiles), then `shaders/`.

mod device;
mod faults;
mod kernels;
mod lane;
mod resident;
mod staging;
mod start;

use std::sync::Arc;
use std::time::Duration;

use wgpu::{BindGroup, ComputePassDescriptor};

use self::device::Gpu;
pub use self::faults::{Fault, Faults};
use self::kernels::Pipelines;
use self::lane::{Lane, Plan, Rates, Recorder};
use self::resident::{Held, Open, ShardKey, Store};
use self::staging::{Readback, STAGING_BYTES, Staging};
pub use self::start::{GpuEngine, GpuOptions};
use super::cpu::check_sizes;
use super::{Answer, Batch, EncryptedQuery, EngineError, GpuInfo, ShardView, StageTimes};
use crate::limits::ENGINE_CALL_QUERIES_MAX;

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
    readback: Readback,
    store: Arc<Store>,
    open: Arc<Open>,
    /// Memory for shards, in bytes.
    budget: u64,
    lanes: Vec<Lane>,
    rates: Rates,
    binding_bytes: u64,
    scratch: Vec<u32>,
}

/// At most 32 queries for one shard.
struct Work<'a> {
    batch: usize,
    /// Of its batch.
    first_query: usize,
    queries: &'a [EncryptedQuery],
    shard: ShardView<'a>,
    key: ShardKey,
    plan: Plan,
}

impl Opened {
    /// Answers every query of every batch, as [`super::Engine::answer`] says.
    fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        check_sizes(batches)?;
        let mut works = Vec::new();
        for (index, batch) in batches.iter().enumerate() {
            let shape = batch.shard.shape;
            let most = Plan::queries_max(shape, &self.pipelines, self.binding_bytes);
            let key = self.store.key(&batch.shard);
            for (cut, queries) in batch.queries.chunks(most).enumerate() {
                works.push(Work {
                    batch: index,
                    first_query: cut * most,
                    queries,
                    shard: batch.shard,
                    key,
                    plan: Plan::new(shape, queries.len(), &self.pipelines),
                });
            }
        }
        let mut left = &works[..];
        while !left.is_empty() {
            left = self.round(left, done)?;
        }
        Ok(())
    }

    /// Device time of one batch on a shard that is there (it is brought up where it is not), by
    /// repeating each stage until it can be told from the submission around it. Dispatches are not
    /// cut. For benchmarks: nothing is added to [`Engine::stage_times`].
    fn time_stages(
        &mut self,
        shard: &ShardView<'_>,
        queries: &[EncryptedQuery],
    ) -> Result<StageTimes, EngineError> {
        check_sizes(&[Batch { shard: *shard, queries }])?;
        let most = Plan::queries_max(shard.shape, &self.pipelines, self.binding_bytes);
        let mut total = StageTimes::default();
        for queries in queries.chunks(most) {
            let key = self.store.key(shard);
            let plan = Plan::new(shard.shape, queries.len(), &self.pipelines);
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
        plan: &Plan,
    ) -> Result<StageTimes, EngineError> {
        let mut held = Held::new(&self.store, &self.open);
        held.add(&mut self.staging, key, shard)?;
        // One whole answer makes the lane's buffers and fills them.
        let work = Work { batch: 0, first_query: 0, queries, shard: *shard, key, plan: *plan };
        self.round(&[work], &mut |_, _, _| {})?;
        let scan = self.time(|this, recorder| {
            this.lanes[0].scan(recorder, plan, held.get(key));
        })?;
        let pack = self.time(|this, recorder| {
            this.lanes[0].pack(recorder, plan, held.get(key));
        })?;
        let finish = self.time(|this, recorder| {
            this.lanes[0].finish(recorder, plan, &this.transform);
        })?;
        let nanos = |nanos: f64| Duration::from_nanos(nanos as u64);
        Ok(StageTimes {
            prepare: Duration::ZERO,
            scan: nanos(scan),
            pack: nanos(pack),
            finish: nanos(finish),
        })
    }

    /// One submission for some of the work: as much as fits, at least the first.
    fn round<'w>(
        &mut self,
        works: &'w [Work<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<&'w [Work<'w>], EngineError> {
        let mut held = Held::new(&self.store, &self.open);
        let mut bytes = 0;
        let mut taken = 0;
        for work in works.iter().take(ENGINE_CALL_QUERIES_MAX) {
            bytes += work.plan.input_bytes();
            let fits = bytes <= STAGING_BYTES && held.fits(work.key, work.shard.shape);
            if taken > 0 && !fits {
                break;
            }
            held.add(&mut self.staging, work.key, &work.shard)?;
            taken += 1;
        }
        let (now, later) = works.split_at(taken);
        self.submit(now, &held, done)?;
        Ok(later)
    }

    /// Answers work whose shards are on the device.
    fn submit(
        &mut self,
        works: &[Work<'_>],
        held: &Held,
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        let Self { gpu, pipelines, staging, readback, lanes, rates, .. } = self;
        lanes.resize_with(lanes.len().max(works.len()), Lane::default);
        let bytes: u64 = works.iter().map(|work| work.plan.response_bytes()).sum();
        let made = gpu.checked(|| {
            let lanes = lanes.iter_mut().zip(works);
            lanes.for_each(|(lane, work)| lane.grow(gpu, pipelines, &work.plan));
            Ok(readback.buffer(gpu, bytes))
        });
        let back = made.inspect_err(|_| {
            // Which of them are good is not known.
            lanes.clear();
            *readback = Readback::new();
        })?;
        let (lanes, scratch, transform) = (&*lanes, &mut self.scratch, &self.transform);
        let both = || lanes.iter().zip(works);
        let fill = |write: &mut dyn FnMut(u64, &[u8])| {
            let mut at = 0;
            for work in works {
                work.plan.write_inputs(work.queries, scratch, &mut |bytes| {
                    write(at, bytes);
                    at += bytes.len() as u64;
                });
            }
        };
        let submission = staging.send(gpu, fill, |encoder, from| {
            let mut at = 0;
            for (lane, work) in both() {
                lane.copy_in(encoder, from, at, &work.plan);
                at += work.plan.input_bytes();
            }
            let used = || lanes.iter().take(works.len());
            let read = used().flat_map(Lane::before_products);
            encoder.transition_resources(read, std::iter::empty());
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
            let mut recorder = Recorder { pass: &mut pass, pipelines, rates: *rates };
            for (lane, work) in both() {
                let shard = held.get(work.key);
                lane.scan(&mut recorder, &work.plan, shard);
                lane.pack(&mut recorder, &work.plan, shard);
            }
            let read = used().flat_map(Lane::before_finish);
            recorder.pass.transition_resources(read, std::iter::empty());
            for (lane, work) in both() {
                lane.finish(&mut recorder, &work.plan, transform);
            }
            drop(pass);
            let copied = used().flat_map(Lane::before_copy_out);
            encoder.transition_resources(copied, std::iter::empty());
            let mut at = 0;
            for (lane, work) in both() {
                lane.copy_out(encoder, &back, at, &work.plan);
                at += work.plan.response_bytes();
            }
        })?;
        readback.read(gpu, bytes, submission, |mut bytes| {
            for work in works {
                let (own, rest) = bytes.split_at(work.plan.response_bytes() as usize);
                bytes = rest;
                let shape = work.shard.shape;
                let answers = own.chunks_exact(shape.packs() * shape.response_bytes());
                for (query, answer) in answers.enumerate() {
                    let packs = answer.chunks_exact(shape.response_bytes());
                    let answer = packs.map(<[u8]>::to_vec).collect();
                    done(work.batch, work.first_query + query, answer);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
