//! A GPU's engine from its start to its renewal: opening the device, compiling and measuring the
//! kernels, giving a device up after an error.
//!
//! How queries are answered on a device that is open is not here but in the parent module.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use wgpu::{Adapter, BindGroup, BufferDescriptor, BufferUsages, ComputePassDescriptor};

use super::super::known_answer::{KNOWN_TO_GPUS, KNOWN_TO_SOFTWARE, prove};
use super::super::{
    Answer, Batch, CallBounds, EncryptedQuery, Engine, EngineError, GpuInfo, GpuKind, Integers,
    ShardStore, ShardView, StageTimes,
};
use super::Opened;
use super::bundles::{self, Bundles};
use super::device::{self, Gpu, WAIT_TIME};
use super::faults::{Fault, Faults};
use super::kernels::{self, Pipelines};
use super::lane::{Rates, Recorder};
use super::resident::Store;
use super::staging::Staging;
use crate::arith::ntt::Ntt;
use crate::arith::{Isa, Rings, inverse, pow};
use crate::limits::{BATCH_QUERIES_PER_SCAN_MAX, GPU_CALL_QUERIES_MAX};
use crate::params::{D, HALF, Shape};
use crate::scheme::KeyBundle;

/// What one dispatch is planned to take: half of what it may, for rates are those of other shapes.
const DISPATCH_TIME: Duration = Duration::from_millis(25);

/// Dispatches are measured over so much time at least, or so many of them.
const MEASURED_TIME: Duration = Duration::from_millis(5);
const REPEATS_MAX: u32 = 1 << 10;

/// How a GPU is used; the defaults are what its limits allow.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Device memory for shards, in bytes; nearly all that there is when absent, on a device with
    /// memory of its own.
    pub shard_bytes: Option<u64>,
    /// Largest piece of a shard in one binding: for tests of how shards are cut.
    pub binding_bytes: Option<u64>,
    /// How products of 24 bits are made; the faster of what the device has when absent.
    pub integers: Option<Integers>,
    /// What one dispatch is planned to take: for tests of how work is cut.
    pub dispatch_time: Option<Duration>,
    /// Key bundles the device keeps: for tests of how they make room.
    pub bundle_slots: Option<usize>,
    /// What goes wrong: for tests of failures.
    pub faults: Faults,
}

/// Answers on one GPU.
pub struct GpuEngine {
    info: GpuInfo,
    options: GpuOptions,
    store: Arc<Store>,
    /// None after an error.
    opened: Option<Opened>,
    /// Told when a device that was given up is gone.
    gone: Option<Receiver<()>>,
}

impl GpuEngine {
    /// Opens an adapter by its number in [`crate::engine::gpus`], compiles and measures kernels.
    pub fn new(index: usize, options: &GpuOptions) -> Result<Self, EngineError> {
        let (adapter, info) = adapter(index)?;
        let (options, store) = (options.clone(), Arc::new(Store::new()));
        let opened = Opened::new(&adapter, info.clone(), &options, &store)?;
        store.prove(opened.budget);
        Ok(Self { info, options, store, opened: Some(opened), gone: None })
    }

    /// What the device is.
    pub fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// Device time of one batch on a shard that is there (it is uploaded where it is not), by
    /// repeating each stage until it can be told from the submission around it; `prepare` is the
    /// split into digits, without the copies to the device. Dispatches are not cut. For
    /// benchmarks: nothing is added to [`Engine::stage_times`].
    pub fn time_stages(
        &mut self,
        shard: &ShardView<'_>,
        queries: &[EncryptedQuery],
    ) -> Result<StageTimes, EngineError> {
        let opened = self.opened.as_mut().ok_or_else(|| lost(&self.info))?;
        opened.time_stages(shard, queries)
    }

    /// Has the device prove itself: a real one with every kernel.
    pub(in crate::engine) fn prove(&mut self) -> Result<(), EngineError> {
        match self.info.kind {
            GpuKind::Real => prove(self, &KNOWN_TO_GPUS),
            GpuKind::Software => prove(self, &KNOWN_TO_SOFTWARE),
        }
    }

    /// Key bundles that went to the device since it was opened.
    pub fn bundles_uploaded(&self) -> u64 {
        self.opened.as_ref().map_or(0, |opened| opened.bundles.uploaded())
    }

    /// Shards uploaded so far.
    pub fn uploads(&self) -> u64 {
        self.store.uploads()
    }

    /// Gives the device up, on a thread of its own: nobody knows how long a broken one takes.
    fn close(&mut self) {
        let bytes = self.store.bytes();
        if bytes > 0 && self.opened.as_ref().is_some_and(|opened| opened.gpu.is_full()) {
            // Or it would be full again soon: there is less than was found or given. Where there
            // were no shards, fewer of them do not help, and less than one shard is none.
            let one = self.store.largest();
            self.options.shard_bytes = Some(device::beside_work(bytes).max(one));
        }
        let old = (self.opened.take(), self.store.close());
        let (tell, gone) = channel();
        let dropping = std::thread::Builder::new().name("sotto-gpu-close".into());
        let dropped = dropping.spawn(move || {
            drop(old);
            let _ = tell.send(()); // nobody listens to the last one
        });
        drop(dropped); // without a thread it was dropped here
        self.gone = Some(gone);
    }

    /// Recreates the device, and has it prove itself.
    fn reopen(&mut self) -> Result<(), EngineError> {
        if self.options.faults.happens(Fault::NotRenewed) {
            return Err(EngineError::Device(format!(
                "{}: not renewed, for a test",
                self.info.name
            )));
        }
        // Numbers change when a device falls off the bus: it is known by its place.
        let same = |found: &GpuInfo| (&found.name, &found.bus) == (&self.info.name, &self.info.bus);
        let mut found: Vec<_> = device::adapters();
        found.retain(|(_, info)| same(info));
        found.sort_by_key(|(_, info)| info.index.abs_diff(self.info.index));
        let Some((adapter, info)) = found.into_iter().next() else {
            let message = format!("{}: it is not there any more", self.info.name);
            return Err(EngineError::Device(message));
        };
        let opened = Opened::new(&adapter, info, &self.options, &self.store)?;
        let budget = opened.budget;
        self.opened = Some(opened);
        self.prove()?;
        self.store.prove(budget);
        Ok(())
    }
}

impl Drop for GpuEngine {
    fn drop(&mut self) {
        // Others may keep the store.
        drop(self.store.close());
    }
}

impl Engine for GpuEngine {
    fn name(&self) -> String {
        let Some(opened) = &self.opened else { return format!("gpu {}, lost", self.info.name) };
        let integers = match opened.pipelines.long_integers {
            Integers::Wide => "64-bit integers",
            Integers::Halves => "32-bit integers",
        };
        let budget = self.store.budget() >> 20;
        format!("gpu {}, {integers}, {budget} MiB for shards", self.info.name)
    }

    fn call_bounds(&self) -> CallBounds {
        CallBounds { shards_max: GPU_CALL_QUERIES_MAX, queries_max: GPU_CALL_QUERIES_MAX }
    }

    fn store(&self) -> Option<Arc<dyn ShardStore>> {
        Some(Arc::clone(&self.store) as Arc<dyn ShardStore>)
    }

    fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError> {
        let opened = self.opened.as_mut().ok_or_else(|| lost(&self.info))?;
        let answered = match batches {
            [] => opened.gpu.probe(),
            _ => opened.answer(batches, done),
        };
        if matches!(answered, Err(EngineError::Device(_))) {
            self.close();
        }
        answered
    }

    fn renew(&mut self) -> Result<(), EngineError> {
        if self.opened.is_some() {
            self.close();
        }
        // Its memory is wanted back; a device that hangs is left behind.
        if let Some(gone) = self.gone.take() {
            let _ = gone.recv_timeout(WAIT_TIME);
        }
        self.reopen().inspect_err(|_| self.close())
    }
}

fn lost(info: &GpuInfo) -> EngineError {
    EngineError::Device(format!("{}: given up after an error, not renewed yet", info.name))
}

/// An adapter by its number.
fn adapter(index: usize) -> Result<(Adapter, GpuInfo), EngineError> {
    let found = device::adapters().into_iter().nth(index);
    found.ok_or_else(|| EngineError::Device(format!("there is no GPU {index}")))
}

impl Opened {
    /// Opens an adapter, compiles and measures.
    fn new(
        adapter: &Adapter,
        info: GpuInfo,
        options: &GpuOptions,
        store: &Arc<Store>,
    ) -> Result<Self, EngineError> {
        let integers = match (options.integers, info.integers) {
            (Some(integers), _) => vec![integers],
            (None, Integers::Wide) => vec![Integers::Wide, Integers::Halves],
            (None, Integers::Halves) => vec![Integers::Halves],
        };
        let device_bytes = info.binding_bytes_max;
        let binding_bytes = options.binding_bytes.map_or(device_bytes, |b| b.min(device_bytes));
        let gpu = Gpu::open(adapter, info, &options.faults)?;
        let budget = options.shard_bytes.unwrap_or_else(|| gpu.budget());
        let pipelines = Pipelines::new(&gpu, &integers)?;
        let mut opened = Self {
            transform: transform(&gpu, &pipelines)?,
            staging: Staging::new(&gpu)?,
            open: store.open(&gpu, &pipelines.part, binding_bytes),
            budget,
            store: Arc::clone(store),
            bundles: Bundles::new(&gpu, options.bundle_slots.unwrap_or(bundles::SLOTS))?,
            rounds: Default::default(),
            rates: Rates::UNKNOWN,
            binding_bytes: device_bytes,
            gpu,
            pipelines,
        };
        opened.measure(&integers)?;
        let dispatch_time = options.dispatch_time.unwrap_or(DISPATCH_TIME);
        opened.rates.dispatch_nanos = dispatch_time.as_nanos() as f64;
        Ok(opened)
    }

    /// Finds out what a unit of each stage takes here, one query alone and a full batch, on a small
    /// shard of zeros; and which of the integers are faster, for long packs on hardware by a shard
    /// that has them (a processor that plays a GPU would take seconds).
    fn measure(&mut self, integers: &[Integers]) -> Result<(), EngineError> {
        let small = Zeros::new(128, 1, 8192);
        let entries = small.shape.matrix_bytes() as f64;
        let products = (small.shape.terms() * 2 * D) as f64;
        for (at, count) in [1, BATCH_QUERIES_PER_SCAN_MAX].into_iter().enumerate() {
            let units = count as f64;
            let mut fastest = (f64::INFINITY, self.pipelines.integers);
            for &integers in integers {
                self.pipelines.integers = integers;
                let times = self.time_stages(&small.shard(), &small.queries(count))?;
                self.rates.scan[at] = nanos(times.scan) / (entries * units);
                self.rates.finish = nanos(times.finish) / units;
                let pack = nanos(times.pack);
                fastest = if pack < fastest.0 { (pack, integers) } else { fastest };
            }
            (self.rates.pack[at], self.pipelines.integers) =
                (fastest.0 / (products * units), fastest.1);
        }
        self.pipelines.long_integers = self.pipelines.integers;
        if self.gpu.info.kind == GpuKind::Real && integers.len() > 1 {
            let long = Zeros::new(HALF as u32, 2, 192);
            let queries = long.queries(BATCH_QUERIES_PER_SCAN_MAX);
            let mut fastest = (f64::INFINITY, self.pipelines.long_integers);
            for &integers in integers {
                self.pipelines.long_integers = integers;
                let pack = nanos(self.time_stages(&long.shard(), &queries)?.pack);
                fastest = if pack < fastest.0 { (pack, integers) } else { fastest };
            }
            self.pipelines.long_integers = fastest.1;
        }
        Ok(())
    }

    /// Nanoseconds of what is recorded, repeated until it takes long enough to be told from the
    /// submission around it.
    pub(super) fn time(
        &mut self,
        record: impl Fn(&Self, &mut Recorder<'_, '_>),
    ) -> Result<f64, EngineError> {
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
            let submission = self.gpu.checked(|| Ok(self.gpu.submit(encoder)))?;
            self.gpu.wait(submission)?;
            let taken = start.elapsed();
            if taken >= MEASURED_TIME || repeats >= REPEATS_MAX {
                return Ok(taken.as_nanos() as f64 / f64::from(repeats));
            }
            repeats *= 4;
        }
    }
}

fn nanos(time: Duration) -> f64 {
    time.as_nanos() as f64
}

/// A shard of zeros, and a query for it: what kernels are measured with.
struct Zeros {
    shape: Shape,
    matrix: Vec<u8>,
    tables: Vec<u8>,
    query: EncryptedQuery,
}

impl Zeros {
    fn new(pack_rows: u32, packs: u32, columns: u32) -> Self {
        let shape =
            Shape::new(40, pack_rows, packs, columns).expect("this is a bug: measured shape");
        let bundle = KeyBundle::decode(&vec![0; shape.bundle_bytes()], &shape);
        let bundle = Arc::new(bundle.expect("this is a bug: measured bundle"));
        let query = EncryptedQuery { vector: vec![0; shape.query_bytes()].into(), bundle };
        let matrix = vec![0; shape.matrix_bytes()];
        let tables = vec![0; shape.packs() * shape.table_bytes()];
        Self { shape, matrix, tables, query }
    }

    fn shard(&self) -> ShardView<'_> {
        let Self { shape, matrix, tables, .. } = self;
        ShardView { shape, matrix, tables, content: None }
    }

    fn queries(&self, count: usize) -> Vec<EncryptedQuery> {
        vec![self.query.clone(); count]
    }
}

/// The finish's tables: twiddles of both primes, then where each slot starts.
fn transform(gpu: &Gpu, pipelines: &Pipelines) -> Result<BindGroup, EngineError> {
    let rings = Rings::get(Isa::PORTABLE);
    let mut words = twiddles(rings.q);
    words.extend(twiddles(rings.p));
    words.extend(slot_places());
    gpu.checked(|| {
        let buffer = gpu.buffer(&BufferDescriptor {
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
