//! An open device that answers calls, in submissions of some batches each.
//!
//! While the device computes one submission, the processor fills the next and hands out the answers
//! of the one before; each has buffers of its own, kept between calls. Submissions are done in
//! order, so that one may take over a shard's or a key bundle's place from the one before it.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wgpu::{Adapter, BindGroup, BufferUses, ComputePassDescriptor, SubmissionIndex};

use super::super::{
    Answer, Batch, EncryptedQuery, EngineError, GpuInfo, ShardView, StageTimes, check_sizes,
};
use super::batch::{Buffers, DIGITS, Plan, RESPONSES, Recorder, SUMS_AND_SCANNED, VECTORS};
use super::bundles::{Bundles, SLOT_BYTES, SLOTS};
use super::device::{Gpu, UPLOADED, WORK_BYTES};
use super::options::GpuOptions;
use super::pipelines::{Pipelines, bind};
use super::resident::{Held, Open, ShardKey, Store};
use super::staging::{Readback, STAGING_BUFFERS, STAGING_BYTES, Staging};
use crate::arith::ntt::Ntt;
use crate::arith::{Isa, Rings, inverse, pow};
use crate::limits::{BATCH_QUERIES_PER_SCAN_MAX, COLUMNS_MAX};
use crate::params::{D, HALF};

/// Submissions under way: one that is computed, one that waits for the device, one that is filled.
const SUBMISSIONS: usize = 3;
/// Bytes of input after which a submission gets no more batches: 160 queries to standard shards of
/// four packs, which an H200 computes for three times as long as they take to copy; 320 of eight.
const INPUT_BYTES: u64 = 8 << 20;
/// The same for the first submission of a call, which nothing overlaps; each further one has twice
/// the bytes of the one before.
const FIRST_INPUT_BYTES: u64 = 2 << 20;
/// Memory of a submission's batches, in bytes, unless one alone takes more: of standard shards
/// with four packs 300 queries.
const BUFFER_BYTES_MAX: u64 = 256 << 20;
// All submissions, the keys and two rings of staging buffers (the engine's, and that of the thread
// that uploads shards) fit the memory that is left for them.
const _: () = assert!(
    SUBMISSIONS as u64 * BUFFER_BYTES_MAX
        + 2 * STAGING_BUFFERS as u64 * STAGING_BYTES
        + SLOTS as u64 * SLOT_BYTES
        <= WORK_BYTES
);
/// Input of the largest batch, each query with a bundle of its own.
const BATCH_INPUT_BYTES_MAX: u64 =
    BATCH_QUERIES_PER_SCAN_MAX as u64 * (COLUMNS_MAX as u64 * 3 + SLOT_BYTES);
const _: () = assert!(INPUT_BYTES + BATCH_INPUT_BYTES_MAX <= STAGING_BYTES);

/// Products of one dispatch, about, so that no driver takes a slow device for one that hangs: twice
/// the scan of 32 queries for the standard shape, which takes an H200 0.3 ms.
const DISPATCH_PRODUCTS: u64 = 1 << 33;

/// A stage is measured over so much time at least, or so many repetitions.
const MEASURED_TIME: Duration = Duration::from_millis(5);
const REPEATS_MAX: u32 = 1 << 10;

pub(super) struct Opened {
    pub(super) gpu: Gpu,
    pub(super) pipelines: Pipelines,
    transform: BindGroup,
    staging: Staging,
    store: Arc<Store>,
    open: Arc<Open>,
    /// Memory for shards, in bytes.
    pub(super) budget: u64,
    pub(super) bundles: Bundles,
    submissions: [Submission; SUBMISSIONS],
    products_max: u64,
    binding_bytes: u64,
}

/// At most 32 queries for one shard.
struct Work<'a> {
    batch: usize,
    first_query: usize,
    queries: &'a [EncryptedQuery],
    shard: ShardView<'a>,
    key: ShardKey,
    plan: Plan,
}

#[derive(Default)]
struct Submission {
    batches: Vec<Buffers>,
    readback: Readback,
}

/// A submission whose answers were not handed out.
struct Pending {
    works: Range<usize>,
    bytes: u64,
    submission: SubmissionIndex,
}

impl Opened {
    /// Opens an adapter and compiles the kernels.
    pub(super) fn new(
        adapter: &Adapter,
        info: GpuInfo,
        options: &GpuOptions,
        store: &Arc<Store>,
    ) -> Result<Self, EngineError> {
        let binding_bytes = info.binding_bytes_max;
        let part_bytes = options.binding_bytes.map_or(binding_bytes, |b| b.min(binding_bytes));
        let gpu = Gpu::open(adapter, info, &options.faults)?;
        let budget = options.shard_bytes.unwrap_or_else(|| gpu.budget());
        let pipelines = Pipelines::new(&gpu)?;
        Ok(Self {
            transform: transform(&gpu, &pipelines)?,
            staging: Staging::new(&gpu)?,
            open: store.open(&gpu, &pipelines.part, part_bytes),
            budget,
            store: Arc::clone(store),
            bundles: Bundles::new(&gpu, options.bundle_slots.unwrap_or(SLOTS))?,
            submissions: Default::default(),
            products_max: options.dispatch_products.unwrap_or(DISPATCH_PRODUCTS),
            binding_bytes,
            gpu,
            pipelines,
        })
    }

    /// Answers every query of every batch, as [`super::super::Engine::answer`] says.
    pub(super) fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        check_sizes(batches)?;
        let cuts = |batch: &Batch<'_>| batch.queries.len().div_ceil(BATCH_QUERIES_PER_SCAN_MAX);
        let count = batches.iter().map(cuts).sum();
        let mut works = Vec::new();
        for (batch, &Batch { shard, queries }) in batches.iter().enumerate() {
            let most = Plan::queries_max(shard.shape, self.binding_bytes);
            let key = self.store.key(&shard);
            for (cut, queries) in queries.chunks(most).enumerate() {
                let (first_query, plan) =
                    (cut * most, Plan::new(shard.shape, queries.len(), count));
                works.push(Work { batch, first_query, queries, shard, key, plan });
            }
        }
        self.answer_works(&mut works, done)
    }

    /// Answers all works. After an error the device is given up, and with it what is under way.
    fn answer_works(
        &mut self,
        works: &mut [Work<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        self.gpu.checked(|| Ok(()))?; // also asked for by a call without queries
        let (mut first, mut submitted) = (0, 0);
        let mut under_way = VecDeque::with_capacity(SUBMISSIONS);
        loop {
            if first < works.len() && under_way.len() < SUBMISSIONS {
                let (end, held) = self.fill(submitted, first, works)?;
                // The largest first, so that buffers have about the same sizes each time.
                works[first..end].sort_by_key(|work| Reverse(work.queries.len()));
                let pending = self.submit(submitted % SUBMISSIONS, first..end, works, &held)?;
                under_way.push_back((submitted % SUBMISSIONS, pending));
                (first, submitted) = (end, submitted + 1);
            } else if let Some((index, pending)) = under_way.pop_front() {
                self.hand_out(index, pending, works, done)?;
            } else {
                return Ok(());
            }
        }
    }

    /// Finds a place on the device for what the works from `first` on read, until the submission
    /// has enough of them; returns where the next one begins. Shards are held until the
    /// submission, which is done before whatever takes their place.
    fn fill(
        &mut self,
        submitted: usize,
        first: usize,
        works: &mut [Work<'_>],
    ) -> Result<(usize, Held), EngineError> {
        let bytes_max = INPUT_BYTES.min(FIRST_INPUT_BYTES << submitted.min(8));
        let mut held = Held::new(&self.store, &self.open);
        let (mut bytes, mut buffer_bytes, mut queries) = (0, 0, 0);
        for (index, work) in works.iter_mut().enumerate().skip(first) {
            queries += work.queries.len();
            buffer_bytes += work.plan.buffer_bytes();
            let fits = bytes + self.bundles.fresh_bytes() < bytes_max
                && buffer_bytes <= BUFFER_BYTES_MAX
                && queries <= self.bundles.queries_max()
                && held.fits(work.key, work.shard.shape);
            if index > first && !fits {
                return Ok((index, held));
            }
            held.add(&mut self.staging, work.key, &work.shard)?;
            work.plan.set_keys(self.bundles.place(work.queries));
            bytes += work.plan.input_bytes();
        }
        Ok((works.len(), held))
    }

    /// Submits works whose shards and bundles have places.
    fn submit(
        &mut self,
        index: usize,
        range: Range<usize>,
        works: &[Work<'_>],
        held: &Held,
    ) -> Result<Pending, EngineError> {
        let works = &works[range.clone()];
        let Self { gpu, pipelines, transform, staging, bundles, submissions, .. } = self;
        let Submission { batches, readback } = &mut submissions[index];
        let bytes: u64 = works.iter().map(|work| work.plan.response_bytes()).sum();
        let back = gpu.checked(|| {
            grow(batches, works, gpu, pipelines, bundles);
            Ok(readback.buffer(gpu, bytes))
        })?;
        let batches = &batches[..works.len()];
        let both = || batches.iter().zip(works);
        let uses = |which, state| batches.iter().flat_map(move |batch| batch.uses(which, state));
        let fill = |write: &mut dyn FnMut(u64, &[u8])| {
            let mut at = 0;
            let mut next = |bytes: &[u8]| {
                write(at, bytes);
                at += bytes.len() as u64;
            };
            works.iter().flat_map(|work| work.queries).for_each(|query| next(&query.vector));
            bundles.write(next);
        };
        let read = BufferUses::STORAGE_READ_ONLY;
        let products_max = self.products_max;
        let submission = staging.send(gpu, fill, |encoder, from| {
            let mut at = 0;
            for (batch, work) in both() {
                batch.copy_in(encoder, from, at, &work.plan);
                at += work.plan.input_bytes();
            }
            bundles.copy_in(encoder, from, at);
            let inputs = uses(VECTORS, read).chain([bundles.before_pack()]);
            encoder.transition_resources(inputs, std::iter::empty());
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
            let mut recorder = Recorder { pass: &mut pass, pipelines, products_max };
            both().for_each(|(batch, work)| batch.split_digits(&mut recorder, &work.plan));
            recorder.pass.transition_resources(uses(DIGITS, read), std::iter::empty());
            for (batch, work) in both() {
                let shard = held.get(work.key);
                batch.scan(&mut recorder, &work.plan, shard);
                batch.pack(&mut recorder, &work.plan, shard);
            }
            recorder.pass.transition_resources(uses(SUMS_AND_SCANNED, read), std::iter::empty());
            both().for_each(|(batch, work)| batch.finish(&mut recorder, &work.plan, transform));
            drop(pass);
            let copied = uses(RESPONSES, BufferUses::COPY_SRC);
            encoder.transition_resources(copied, std::iter::empty());
            let mut at = 0;
            for (batch, work) in both() {
                batch.copy_out(encoder, &back, at, &work.plan);
                at += work.plan.response_bytes();
            }
        })?;
        bundles.sent();
        Ok(Pending { works: range, bytes, submission })
    }

    /// Waits for a submission and hands out its answers.
    fn hand_out(
        &mut self,
        index: usize,
        pending: Pending,
        works: &[Work<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        let Pending { works: range, bytes, submission } = pending;
        let readback = &mut self.submissions[index].readback;
        readback.read(&self.gpu, bytes, submission, |mut bytes| {
            for work in &works[range] {
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

    /// See [`super::GpuEngine::time_stages`].
    pub(super) fn time_stages(
        &mut self,
        shard: &ShardView<'_>,
        queries: &[EncryptedQuery],
    ) -> Result<StageTimes, EngineError> {
        check_sizes(&[Batch { shard: *shard, queries }])?;
        let most = Plan::queries_max(shard.shape, self.binding_bytes);
        let mut total = StageTimes::default();
        for queries in queries.chunks(most) {
            let key = self.store.key(shard);
            let mut held = Held::new(&self.store, &self.open);
            held.add(&mut self.staging, key, shard)?;
            // One whole answer makes the batch's buffers, fills them and places its keys.
            let plan = Plan::new(shard.shape, queries.len(), 1);
            let mut works = [Work { batch: 0, first_query: 0, queries, shard: *shard, key, plan }];
            self.answer_works(&mut works, &mut |_, _, _| {})?;
            let (plan, shard) = (&works[0].plan, held.get(key));
            let batch = &self.submissions[0].batches[0];
            total.prepare += self.time(|recorder| batch.split_digits(recorder, plan))?;
            total.scan += self.time(|recorder| batch.scan(recorder, plan, shard))?;
            total.pack += self.time(|recorder| batch.pack(recorder, plan, shard))?;
            total.finish += self.time(|recorder| batch.finish(recorder, plan, &self.transform))?;
        }
        Ok(total)
    }

    /// The time of what is recorded, repeated until it takes long enough.
    fn time(&self, record: impl Fn(&mut Recorder<'_, '_>)) -> Result<Duration, EngineError> {
        let (pipelines, products_max) = (&self.pipelines, self.products_max);
        let mut repeats = 1;
        loop {
            let start = Instant::now();
            let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
            let mut recorder = Recorder { pass: &mut pass, pipelines, products_max };
            (0..repeats).for_each(|_| record(&mut recorder));
            drop(pass);
            let submission = self.gpu.checked(|| Ok(self.gpu.submit(encoder)))?;
            self.gpu.wait(submission)?;
            let taken = start.elapsed();
            if taken >= MEASURED_TIME || repeats >= REPEATS_MAX {
                return Ok(taken / repeats);
            }
            repeats *= 4;
        }
    }
}

/// Makes buffers as large as the works need; recreates all of them if together they would be too
/// large.
fn grow(
    batches: &mut Vec<Buffers>,
    works: &[Work<'_>],
    gpu: &Gpu,
    pipelines: &Pipelines,
    bundles: &Bundles,
) {
    let own = |batches: &[Buffers], at: usize| batches.get(at).map_or([0; 7], Buffers::sizes);
    let needed = |batches: &[Buffers], at: usize| {
        let needed = works.get(at).map_or([0; 7], |work| work.plan.buffer_sizes());
        let own = own(batches, at);
        std::array::from_fn::<_, 7, _>(|buffer| own[buffer].max(needed[buffer]))
    };
    let all = (0..batches.len().max(works.len())).flat_map(|at| needed(batches, at));
    if all.sum::<u64>() > BUFFER_BYTES_MAX {
        batches.clear();
    }
    for at in 0..works.len() {
        let sizes = needed(batches, at);
        if sizes != own(batches, at) {
            let made = Buffers::new(gpu, pipelines, &bundles.pool, sizes);
            match batches.get_mut(at) {
                Some(batch) => *batch = made,
                None => batches.push(made),
            }
        }
    }
}

/// The finish's tables: twiddles of both primes, then where each slot starts.
fn transform(gpu: &Gpu, pipelines: &Pipelines) -> Result<BindGroup, EngineError> {
    let rings = Rings::get(Isa::PORTABLE);
    let mut words = twiddles(rings.q);
    words.extend(twiddles(rings.p));
    words.extend(slot_places());
    gpu.checked(|| {
        let buffer = gpu.buffer("transform", size_of_val(&words[..]) as u64, UPLOADED);
        gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&words));
        Ok(bind(gpu, &pipelines.part, &[&buffer]))
    })
}

/// The factor of each group of butterflies, from slots to coefficients, in heap order (1, then 2
/// and 3, ...); in the unused first place 1 / D.
fn twiddles<const M: u32>(ring: Ntt<M>) -> Vec<u32> {
    let root = inverse::<M>(ring.psi());
    let power = |index: usize| pow::<M>(root, bit_reversed(index) as u64);
    std::iter::once(inverse::<M>(D as u32)).chain((1..D).map(power)).collect()
}

/// Where slot k lies before the first layer: arith/ntt.rs without its transposition.
fn slot_places() -> impl Iterator<Item = u32> {
    let exponents = std::iter::successors(Some(1), |e| Some(e * 5 % (2 * D))).take(HALF);
    let mirrored = exponents.clone().map(|e| 2 * D - e);
    exponents.chain(mirrored).map(|e| bit_reversed((e - 1) / 2) as u32)
}

fn bit_reversed(index: usize) -> usize {
    index.reverse_bits() >> (usize::BITS - D.trailing_zeros())
}
