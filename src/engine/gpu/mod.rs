//! Answers on a GPU: the kernels of `shaders/`, through wgpu.
//!
//! Only queries and keys go to the device and only finished responses come back; shards are
//! brought up when they are asked for and stay while they fit ([`resident`]). A call is cut into
//! lanes, at most 32 queries for one shard each; as many lanes as fit make one submission. What is
//! not here: any answer by the processor, or which device is worth taking (`select.rs`).
//!
//! Read next: [`lane`] (what is dispatched), [`kernels`] (texts and tiles), then `shaders/`.

mod device;
mod kernels;
mod lane;
mod resident;
mod staging;

use std::sync::Arc;
use std::time::{Duration, Instant};

use wgpu::{BindGroup, BufferDescriptor, BufferUsages, ComputePassDescriptor};

use self::device::Gpu;
use self::kernels::Pipelines;
use self::lane::{Lane, Plan, Rates, Recorder};
use self::resident::{Residents, ShardKey};
use self::staging::{Readback, STAGING_BYTES, Staging};
use super::cpu::check_sizes;
use super::{
    Answer, Batch, EncryptedQuery, Engine, EngineError, GpuInfo, Integers, ShardView, StageTimes,
};
use crate::arith::ntt::Ntt;
use crate::arith::{Isa, Rings, inverse, pow};
use crate::limits::{BATCH_QUERIES_PER_SCAN_MAX, ENGINE_CALL_QUERIES_MAX};
use crate::params::{D, HALF, Shape};
use crate::scheme::KeyBundle;

/// Memory for shards when no budget is given.
const BUDGET_BYTES: u64 = 4 << 30;
/// What one dispatch is planned to take: half of what it may, for rates are those of other shapes.
const DISPATCH_TIME: Duration = Duration::from_millis(25);

/// Dispatches are measured over so much time at least, or so many of them.
const MEASURED_TIME: Duration = Duration::from_millis(5);
const REPEATS_MAX: u32 = 1 << 10;

/// How a GPU is used; the defaults are what its limits allow.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Device memory for shards, in bytes.
    pub shard_bytes: Option<u64>,
    /// Largest piece of a shard in one binding: for tests of how shards are cut.
    pub binding_bytes: Option<u64>,
    /// How products of 24 bits are made; the faster of what the device has when absent.
    pub integers: Option<Integers>,
    /// What one dispatch is planned to take: for tests of how work is cut.
    pub dispatch_time: Option<Duration>,
}

/// Every adapter there is.
pub(super) fn infos() -> Vec<GpuInfo> {
    device::adapters().into_iter().map(|(_, info)| info).collect()
}

/// Answers on one GPU.
pub struct GpuEngine {
    gpu: Gpu,
    pipelines: Pipelines,
    transform: BindGroup,
    staging: Staging,
    readback: Readback,
    residents: Residents,
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

impl GpuEngine {
    /// Opens an adapter by its number in [`super::gpus`], compiles the kernels and measures them.
    pub fn new(index: usize, options: &GpuOptions) -> Result<Self, EngineError> {
        let found = device::adapters().into_iter().nth(index);
        let Some((adapter, info)) = found else {
            return Err(EngineError::Device(format!("there is no GPU {index}")));
        };
        let integers = match (options.integers, info.integers) {
            (Some(integers), _) => vec![integers],
            (None, Integers::Wide) => vec![Integers::Wide, Integers::Halves],
            (None, Integers::Halves) => vec![Integers::Halves],
        };
        let device_bytes = info.binding_bytes_max;
        let binding_bytes = options.binding_bytes.map_or(device_bytes, |b| b.min(device_bytes));
        let gpu = Gpu::open(&adapter, info)?;
        let pipelines = Pipelines::new(&gpu, &integers)?;
        let budget = options.shard_bytes.unwrap_or(BUDGET_BYTES);
        let mut engine = Self {
            transform: transform(&gpu, &pipelines)?,
            staging: Staging::new(&gpu)?,
            readback: Readback::new(),
            residents: Residents::new(budget, binding_bytes),
            lanes: Vec::new(),
            rates: Rates::UNKNOWN,
            scratch: Vec::new(),
            binding_bytes: device_bytes,
            gpu,
            pipelines,
        };
        engine.measure(&integers)?;
        let dispatch_time = options.dispatch_time.unwrap_or(DISPATCH_TIME);
        engine.rates.dispatch_nanos = dispatch_time.as_nanos() as f64;
        Ok(engine)
    }

    /// What the device is.
    pub fn info(&self) -> &GpuInfo {
        &self.gpu.info
    }

    /// Shards brought up so far.
    pub fn uploads(&self) -> u64 {
        self.residents.uploads()
    }

    /// Device time of one batch on a shard that is there (it is brought up where it is not), by
    /// repeating each stage until it can be told from the submission around it. Dispatches are not
    /// cut. For benchmarks: nothing is added to [`Engine::stage_times`].
    pub fn time_stages(
        &mut self,
        shard: &ShardView<'_>,
        queries: &[EncryptedQuery],
    ) -> Result<StageTimes, EngineError> {
        check_sizes(&[Batch { shard: *shard, queries }])?;
        let most = Plan::queries_max(shard.shape, &self.pipelines, self.binding_bytes);
        let mut total = StageTimes::default();
        for queries in queries.chunks(most) {
            let key = self.residents.key(shard);
            let plan = Plan::new(shard.shape, queries.len(), &self.pipelines);
            let of_stage = self.time_lane((key, shard), queries, &plan)?;
            total.prepare += of_stage.prepare;
            total.scan += of_stage.scan;
            total.pack += of_stage.pack;
            total.finish += of_stage.finish;
            self.residents.forget(&[key]);
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
        // One whole answer makes the lane's buffers and fills them.
        let work = Work { batch: 0, first_query: 0, queries, shard: *shard, key, plan: *plan };
        self.round(&[work], &mut |_, _, _| {})?;
        if !self.residents.touch(key) {
            let Self { gpu, pipelines, staging, .. } = self;
            self.residents.upload(gpu, pipelines, staging, (key, shard), &[])?;
        }
        let scan = self.time(|this, recorder| {
            this.lanes[0].scan(recorder, plan, this.residents.get(key));
        })?;
        let pack = self.time(|this, recorder| {
            this.lanes[0].pack(recorder, plan, this.residents.get(key));
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
        let mut keys: Vec<ShardKey> = Vec::new();
        let mut bytes = 0;
        let mut taken = 0;
        for work in works.iter().take(ENGINE_CALL_QUERIES_MAX) {
            bytes += work.plan.input_bytes();
            let new = !keys.contains(&work.key);
            let fits = bytes <= STAGING_BYTES
                && (!new || self.residents.fits_beside(work.shard.shape, &keys));
            if taken > 0 && !fits {
                break;
            }
            if !self.residents.touch(work.key) {
                let Self { gpu, pipelines, staging, .. } = self;
                let shard = (work.key, &work.shard);
                self.residents.upload(gpu, pipelines, staging, shard, &keys)?;
            }
            if new {
                keys.push(work.key);
            }
            taken += 1;
        }
        let (now, later) = works.split_at(taken);
        self.submit(now, done)?;
        self.residents.forget(&keys);
        Ok(later)
    }

    /// Answers work whose shards are on the device.
    fn submit(
        &mut self,
        works: &[Work<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        let Self { gpu, pipelines, staging, readback, residents, lanes, rates, .. } = self;
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
                let shard = residents.get(work.key);
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

    /// Finds out what a unit of each stage takes here, one query alone and a full batch, on a small
    /// shard of zeros; and which of the integers are faster.
    fn measure(&mut self, integers: &[Integers]) -> Result<(), EngineError> {
        let shape = Shape::new(40, 128, 1, 8192).expect("this is a bug: measured shape");
        let (matrix, tables) = (vec![0; shape.matrix_bytes()], vec![0; shape.table_bytes()]);
        let shard = ShardView { shape: &shape, matrix: &matrix, tables: &tables, content: None };
        let bundle = KeyBundle::decode(&vec![0; shape.bundle_bytes()], &shape);
        let bundle = Arc::new(bundle.expect("this is a bug: measured bundle"));
        let query = EncryptedQuery { vector: vec![0; shape.query_bytes()].into(), bundle };
        let queries = vec![query; BATCH_QUERIES_PER_SCAN_MAX];
        let entries = shape.matrix_bytes() as f64;
        let products = (shape.terms() * 2 * D) as f64;
        for (at, count) in [1, queries.len()].into_iter().enumerate() {
            let queries = &queries[..count];
            let units = count as f64;
            let nanos = |time: Duration| time.as_nanos() as f64;
            let mut fastest = (f64::INFINITY, self.pipelines.integers);
            for &integers in integers {
                self.pipelines.integers = integers;
                let times = self.time_stages(&shard, queries)?;
                self.rates.scan[at] = nanos(times.scan) / (entries * units);
                self.rates.finish = nanos(times.finish) / units;
                let pack = nanos(times.pack);
                fastest = if pack < fastest.0 { (pack, integers) } else { fastest };
            }
            (self.rates.pack[at], self.pipelines.integers) =
                (fastest.0 / (products * units), fastest.1);
        }
        Ok(())
    }

    /// Nanoseconds of what is recorded, repeated until it takes long enough to be told from the
    /// submission around it.
    fn time(&mut self, record: impl Fn(&Self, &mut Recorder<'_, '_>)) -> Result<f64, EngineError> {
        let mut repeats = 1;
        loop {
            let start = Instant::now();
            let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
            for _ in 0..repeats {
                let rates = Rates::UNKNOWN;
                let pipelines = &self.pipelines;
                record(self, &mut Recorder { pass: &mut pass, pipelines, rates });
            }
            drop(pass);
            let submission = self.gpu.checked(|| Ok(self.gpu.queue.submit([encoder.finish()])))?;
            self.gpu.wait(submission)?;
            let taken = start.elapsed();
            if taken >= MEASURED_TIME || repeats >= REPEATS_MAX {
                return Ok(taken.as_nanos() as f64 / f64::from(repeats));
            }
            repeats *= 4;
        }
    }
}

impl Engine for GpuEngine {
    fn name(&self) -> String {
        let integers = match self.pipelines.integers {
            Integers::Wide => "64-bit integers",
            Integers::Halves => "32-bit integers",
        };
        format!("gpu {}, {integers}", self.gpu.info.name)
    }

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
            let key = self.residents.key(&batch.shard);
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
}

/// The finish's tables: twiddles of both primes, then where each slot starts.
fn transform(gpu: &Gpu, pipelines: &Pipelines) -> Result<BindGroup, EngineError> {
    let rings = Rings::get(Isa::PORTABLE);
    let mut words = twiddles(rings.q);
    words.extend(twiddles(rings.p));
    words.extend(slot_places());
    gpu.checked(|| {
        let buffer = gpu.device.create_buffer(&BufferDescriptor {
            label: Some("transform"),
            size: size_of_val(&words[..]) as u64,
            usage: BufferUsages::STORAGE | BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&words));
        Ok(kernels::bind(gpu, &pipelines.part, &[&buffer]))
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

#[cfg(test)]
mod tests;
