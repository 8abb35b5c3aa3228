//! Some queries for one shard on the device: their buffers, and the dispatches that answer them.
//!
//! A lane's buffers grow to the largest work it has seen and stay. Lanes write to buffers of their
//! own, so that the device need not wait for one to begin the next. The order of a submission is
//! copies, splits into digits, scans and packs of all lanes, then the finishes; between two of
//! these is one barrier.

use std::ops::Range;

use wgpu::{
    BindGroup, Buffer, BufferDescriptor, BufferTransition, BufferUsages, BufferUses,
    CommandEncoder, ComputePass, ComputePipeline,
};

use super::device::Gpu;
use super::kernels::{
    DEPTH, Job, Kernel, NARROW_QUERIES, Pipelines, SPLIT_TERMS, THREADS, WIDE_QUERIES, bind,
};
use super::resident::{Part, Resident};
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;
use crate::params::{D, HALF, Shape};

/// Workgroups a scan is split into at least, where it has the columns for it: 8 for each of some
/// 130 multiprocessors, of which 3 to 6 run at once.
const SCAN_WORKGROUPS: u32 = 1024;
/// Lanes of a submission that are counted on to share those workgroups.
const LANES_SIDE_BY_SIDE: usize = 8;
/// Blocks of 32 slots of both primes: workgroups a pack has at least.
const PACK_UNITS: u32 = (2 * D / 32) as u32;
/// Most workgroups along one dimension that every device takes.
const WORKGROUPS_MAX: u32 = 65_535;

/// Where a lane's buffers have the responses of either scan.
const RESPONSES: [usize; 2] = [4, 6];
/// For what a plan does not use: something to bind.
const BUFFER_BYTES_MIN: u64 = 256;

/// What a device takes for a unit of work, in nanoseconds: of one query alone, and of each of many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// One matrix entry times one query.
    pub(super) scan: [f64; 2],
    /// One table word times one key word.
    pub(super) pack: [f64; 2],
    /// One response.
    pub(super) finish: f64,
    /// What one dispatch may take.
    pub(super) dispatch_nanos: f64,
}

impl Rates {
    /// Nothing is cut.
    pub(super) const UNKNOWN: Self =
        Self { scan: [0.0; 2], pack: [0.0; 2], finish: 0.0, dispatch_nanos: f64::INFINITY };

    /// How many tiles one dispatch may have, each of so many units.
    fn tiles(&self, nanos: f64, units: u64) -> u32 {
        let tiles = self.dispatch_nanos / (nanos * units as f64).max(1e-9);
        (tiles as u32).clamp(1, WORKGROUPS_MAX)
    }
}

/// Which of two rates.
fn of(rates: [f64; 2], queries: u32) -> f64 {
    rates[usize::from(queries > NARROW_QUERIES)]
}

/// How some queries for a shape are laid out and cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct LanePlan {
    shape: Shape,
    job: Job,
    scans: [Scan; 2],
}

/// Queries of a lane that one scan takes, and how it splits columns.
#[derive(Debug, Clone, Copy)]
struct Scan {
    first: u32,
    count: u32,
    split_groups: u32,
    column_splits: u32,
}

/// Wide scans take queries by eights; up to four that are left go to a narrow one, which has little
/// more to do than to read the matrix again.
pub(super) fn scan_counts(queries: u32) -> [u32; 2] {
    let rest = queries % WIDE_QUERIES;
    let narrow = if rest <= NARROW_QUERIES { rest } else { 0 };
    [queries - narrow, narrow]
}

impl LanePlan {
    /// For so many queries, beside so many other lanes.
    pub(super) fn new(shape: &Shape, queries: usize, lanes: usize, pipelines: &Pipelines) -> Self {
        let [wide, narrow] = scan_counts(queries as u32);
        let workgroups = SCAN_WORKGROUPS / (lanes.min(LANES_SIDE_BY_SIDE) as u32).max(1);
        let scans = [(0, wide), (wide, narrow)];
        let scans = scans.map(|queries| Scan::new(shape, queries, workgroups, pipelines));
        let job = Job {
            rows: shape.rows() as u32,
            packs: shape.packs() as u32,
            queries: queries as u32,
            pack_rows: shape.pack_rows() as u32,
            row_groups: (shape.columns() / 16) as u32,
            rotation_step: (HALF / shape.pack_rows()).max(1) as u32,
            term_splits: (shape.terms() as u32).div_ceil(SPLIT_TERMS),
            response_bits: shape.response_bits(),
            ..Job::default()
        };
        Self { shape: *shape, job, scans }
    }

    /// Says where in the pool each query's keys are.
    pub(super) fn set_keys(&mut self, slots: [u32; BATCH_QUERIES_PER_SCAN_MAX / 2]) {
        self.job.key_slots = slots;
    }

    /// The most queries that one lane takes: what one scan takes, and what its buffers can bind.
    pub(super) fn queries_max(shape: &Shape, pipelines: &Pipelines, binding: u64) -> usize {
        let fits = |queries: usize| {
            let plan = Self::new(shape, queries, 1, pipelines);
            plan.buffer_sizes().into_iter().all(|bytes| bytes <= binding)
        };
        let most = (1..=BATCH_QUERIES_PER_SCAN_MAX).rev().find(|&queries| fits(queries));
        most.unwrap_or(1)
    }

    /// Bytes of vectors, digits and sums; then, for each scan, of scanned values and responses.
    fn sizes(&self) -> [u64; 7] {
        let Job { packs, queries, term_splits, .. } = self.job;
        let polys = u64::from(queries) * u64::from(packs) * 2 * D as u64;
        let vectors = u64::from(queries) * 3 * self.shape.columns() as u64;
        let sums = u64::from(term_splits) * polys * 4;
        let [[a, b], [c, d]] = self.scans.map(|scan| scan.sizes(&self.shape));
        [vectors, vectors, sums, a, b, c, d]
    }

    /// Bytes of the lane it takes.
    pub(super) fn lane_bytes(&self) -> u64 {
        self.buffer_sizes().iter().sum()
    }

    /// Sizes of a lane's buffers, so that a few more bytes do not mean new ones.
    fn buffer_sizes(&self) -> [u64; 7] {
        self.sizes().map(|bytes| bytes.max(BUFFER_BYTES_MIN).next_power_of_two())
    }

    /// Bytes that go to the device, keys aside: the queries' vectors as they came.
    pub(super) fn input_bytes(&self) -> u64 {
        self.sizes()[0]
    }

    /// Bytes that come back, as `[query][pack]`.
    pub(super) fn response_bytes(&self) -> u64 {
        self.scans.iter().map(|scan| scan.sizes(&self.shape)[1]).sum()
    }

    /// Those that have queries, each with its index.
    fn scans(&self) -> impl Iterator<Item = (usize, &Scan)> {
        self.scans.iter().enumerate().filter(|(_, scan)| scan.count > 0)
    }
}

impl Scan {
    /// Of `count` queries from `first`, in about so many workgroups.
    fn new(
        shape: &Shape,
        (first, count): (u32, u32),
        workgroups: u32,
        pipelines: &Pipelines,
    ) -> Self {
        let (kernel, _) = pipelines.scan(count);
        let tiles = (shape.rows() as u32).div_ceil(kernel.tile_rows())
            * count.div_ceil(kernel.tile_queries());
        let row_groups = (shape.columns() / 16) as u32;
        let least_groups = match kernel {
            Kernel::ScanNarrow { .. } => THREADS,
            _ => 4 * DEPTH,
        };
        let most_splits = row_groups.div_ceil(least_groups);
        let splits = (workgroups / tiles.max(1)).clamp(1, most_splits);
        let split_groups = row_groups.div_ceil(splits).next_multiple_of(DEPTH);
        Self { first, count, split_groups, column_splits: row_groups.div_ceil(split_groups) }
    }

    /// Bytes of scanned values and responses.
    fn sizes(&self, shape: &Shape) -> [u64; 2] {
        let count = self.count as usize;
        let scanned = self.column_splits as usize * count * shape.rows() * 4;
        let responses = count * shape.packs() * shape.response_bytes();
        [scanned as u64, responses as u64]
    }

    /// The numbers of its dispatches.
    fn job(&self, plan: &LanePlan) -> Job {
        let &Self { first, count, split_groups, column_splits } = self;
        let (first_query, scan_queries) = (first, count);
        Job { first_query, scan_queries, split_groups, column_splits, ..plan.job }
    }
}

/// Buffers of a lane, in the order of [`LanePlan::sizes`]. What two scans of a lane write, or their
/// finishes, lies in buffers of its own: between two that write to one buffer would be a barrier.
struct Buffers {
    buffers: [Buffer; 7],
    split: BindGroup,
    pack: BindGroup,
    scans: [BindGroup; 2],
    finishes: [BindGroup; 2],
}

/// Buffers for one lane's work, kept between calls.
#[derive(Default)]
pub(super) struct Lane {
    made: Option<Buffers>,
}

impl Lane {
    /// Bytes of its buffers.
    pub(super) fn bytes(&self) -> u64 {
        self.made.as_ref().map_or(0, |made| made.buffers.iter().map(Buffer::size).sum())
    }

    /// Recreates the buffers if a plan needs larger ones.
    pub(super) fn grow(
        &mut self,
        gpu: &Gpu,
        pipelines: &Pipelines,
        keys: &Buffer,
        plan: &LanePlan,
    ) {
        let sizes = plan.buffer_sizes();
        let held = self.made.as_ref().map(|made| made.buffers.each_ref().map(Buffer::size));
        if held.is_some_and(|held| held.iter().zip(sizes).all(|(&held, needed)| held >= needed)) {
            return;
        }
        let held = held.unwrap_or_default();
        let (none, out) = (BufferUsages::empty(), BufferUsages::COPY_SRC);
        let usages = [BufferUsages::COPY_DST, none, none, none, out, none, out];
        let buffers: [_; 7] = std::array::from_fn(|at| {
            let size = held[at].max(sizes[at]);
            make(gpu, size, BufferUsages::STORAGE | usages[at])
        });
        let [vectors, digits, sums, scanned_a, responses_a, scanned_b, responses_b] = &buffers;
        let product = |read, written| bind(gpu, &pipelines.product, &[read, written]);
        let finish = |scanned, to| bind(gpu, &pipelines.finish, &[scanned, sums, to]);
        self.made = Some(Buffers {
            split: product(vectors, digits),
            pack: product(keys, sums),
            scans: [product(digits, scanned_a), product(digits, scanned_b)],
            finishes: [finish(scanned_a, responses_a), finish(scanned_b, responses_b)],
            buffers,
        });
    }

    fn made(&self) -> &Buffers {
        self.made.as_ref().expect("this is a bug: a lane without buffers is used")
    }

    /// Copies the queries' vectors in.
    pub(super) fn copy_in(
        &self,
        encoder: &mut CommandEncoder,
        from: &Buffer,
        at: u64,
        plan: &LanePlan,
    ) {
        let vectors = &self.made().buffers[0];
        encoder.copy_buffer_to_buffer(from, at, vectors, 0, plan.input_bytes());
    }

    /// Copies the responses out.
    pub(super) fn copy_out(
        &self,
        encoder: &mut CommandEncoder,
        to: &Buffer,
        at: u64,
        plan: &LanePlan,
    ) {
        let mut at = at;
        for (index, scan) in plan.scans() {
            let [_, bytes] = scan.sizes(&plan.shape);
            let responses = &self.made().buffers[RESPONSES[index]];
            encoder.copy_buffer_to_buffer(responses, 0, to, at, bytes);
            at += bytes;
        }
    }

    /// What the split reads. Given for all lanes at once, as those below: then there is one barrier
    /// where every lane would have had its own, and waited for the lane before.
    pub(super) fn before_split(&self) -> BufferTransition<&Buffer> {
        let [vectors, ..] = &self.made().buffers;
        BufferTransition { buffer: vectors, state: BufferUses::STORAGE_READ_ONLY }
    }

    /// What the scan reads.
    pub(super) fn before_scan(&self) -> BufferTransition<&Buffer> {
        let [_, digits, ..] = &self.made().buffers;
        BufferTransition { buffer: digits, state: BufferUses::STORAGE_READ_ONLY }
    }

    /// What the finish reads.
    pub(super) fn before_finish(&self) -> [BufferTransition<&Buffer>; 3] {
        let [_, _, sums, scanned_a, _, scanned_b, _] = &self.made().buffers;
        [sums, scanned_a, scanned_b]
            .map(|buffer| BufferTransition { buffer, state: BufferUses::STORAGE_READ_ONLY })
    }

    /// What is copied out.
    pub(super) fn before_copy_out(&self) -> [BufferTransition<&Buffer>; 2] {
        RESPONSES.map(|at| {
            let buffer = &self.made().buffers[at];
            BufferTransition { buffer, state: BufferUses::COPY_SRC }
        })
    }

    /// Vectors to digits.
    pub(super) fn split(&self, recorder: &mut Recorder<'_, '_>, plan: &LanePlan) {
        let (_, pipeline) = recorder.pipelines.split();
        recorder.pass.set_pipeline(pipeline);
        recorder.pass.set_bind_group(0, &self.made().split, &[]);
        let x = (4 * plan.job.row_groups).div_ceil(THREADS);
        recorder.dispatch(plan.job, None, [x, 1], 0..plan.job.queries, plan.job.queries);
    }

    /// Matrix times queries.
    pub(super) fn scan(&self, recorder: &mut Recorder<'_, '_>, plan: &LanePlan, shard: &Resident) {
        for (index, scan) in plan.scans() {
            let (kernel, pipeline) = recorder.pipelines.scan(scan.count);
            let tile_rows = kernel.tile_rows();
            let of_tile = u64::from(tile_rows * scan.count) * plan.shape.columns() as u64;
            let tiles = recorder.rates.tiles(of(recorder.rates.scan, scan.count), of_tile);
            let x = scan.count.div_ceil(kernel.tile_queries());
            recorder.select(pipeline, &self.made().scans[index]);
            for part in &shard.matrix {
                let all = 0..part.count.div_ceil(tile_rows);
                let job = scan.job(plan);
                recorder.dispatch(job, Some(part), [x, job.column_splits], all, tiles);
            }
        }
    }

    /// Tables times keys.
    pub(super) fn pack(&self, recorder: &mut Recorder<'_, '_>, plan: &LanePlan, shard: &Resident) {
        let (kernel, pipeline) = recorder.pipelines.pack(&plan.job);
        let x = plan.job.queries.div_ceil(kernel.tile_queries());
        recorder.select(pipeline, &self.made().pack);
        for part in &shard.tables {
            let terms = plan.shape.terms().min(SPLIT_TERMS as usize) as u64;
            let of_unit = terms * 32 * u64::from(part.count) * u64::from(plan.job.queries);
            let units = recorder.rates.tiles(of(recorder.rates.pack, plan.job.queries), of_unit);
            let y = part.count.div_ceil(kernel.tile_rows());
            let all = 0..PACK_UNITS * plan.job.term_splits;
            recorder.dispatch(plan.job, Some(part), [x, y], all, units);
        }
    }

    /// Transforms, rounding, bits.
    pub(super) fn finish(
        &self,
        recorder: &mut Recorder<'_, '_>,
        plan: &LanePlan,
        tables: &BindGroup,
    ) {
        let (_, pipeline) = recorder.pipelines.finish();
        recorder.pass.set_pipeline(pipeline);
        recorder.pass.set_bind_group(0, tables, &[]);
        let at_once = recorder.rates.tiles(recorder.rates.finish, plan.job.packs.into());
        for (index, scan) in plan.scans() {
            recorder.pass.set_bind_group(1, &self.made().finishes[index], &[]);
            recorder.dispatch(scan.job(plan), None, [1, plan.job.packs], 0..scan.count, at_once);
        }
    }
}

fn make(gpu: &Gpu, size: u64, usage: BufferUsages) -> Buffer {
    gpu.buffer(&BufferDescriptor { label: Some("lane"), size, usage, mapped_at_creation: false })
}

/// Records dispatches, cut so that none takes too long.
pub(super) struct Recorder<'a, 'p> {
    pub(super) pass: &'a mut ComputePass<'p>,
    pub(super) pipelines: &'a Pipelines,
    pub(super) rates: Rates,
}

impl Recorder<'_, '_> {
    fn select(&mut self, pipeline: &ComputePipeline, lane: &BindGroup) {
        self.pass.set_pipeline(pipeline);
        self.pass.set_bind_group(1, lane, &[]);
    }

    /// Dispatches all tiles along z, at most so many at once.
    fn dispatch(
        &mut self,
        job: Job,
        part: Option<&Part>,
        [x, y]: [u32; 2],
        all: Range<u32>,
        at_once: u32,
    ) {
        let mut job = job;
        if let Some(part) = part {
            self.pass.set_bind_group(0, &part.bound, &[]);
            (job.part_first, job.part_count) = (part.first, part.count);
        }
        for first in all.clone().step_by(at_once as usize) {
            job.first_tile = first;
            self.pass.set_immediates(0, bytemuck::bytes_of(&job));
            self.pass.dispatch_workgroups(x, y, at_once.min(all.end - first));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The twin of shaders/split.wgsl: a query's columns to three planes of digits, four columns a
    /// word.
    fn split_digits(vector: &[u8]) -> [Vec<u32>; 3] {
        let mut planes: [Vec<u32>; 3] = Default::default();
        for four in vector.as_chunks::<12>().0 {
            let [x, y, z] =
                [0, 4, 8].map(|at| u32::from_le_bytes(std::array::from_fn(|i| four[at + i])));
            let columns = [x, x >> 24 | y << 8, y >> 16 | z << 16, z >> 8];
            let balanced = columns.map(|x| ((x & 0xff_ffff) + 0x8080) ^ 0x8080);
            for (digit, plane) in planes.iter_mut().enumerate() {
                plane.push(u32::from_le_bytes(balanced.map(|x| x.to_le_bytes()[digit])));
            }
        }
        planes
    }

    #[test]
    fn digits_are_balanced_and_add_up() {
        let edges = [0u32, 1, 0x7f, 0x80, 0x7f7f, 0x7f80, 0x8080, 0x7f_8080, 0xff_ffff, 0x80_0000];
        let bytes: Vec<u8> =
            edges.iter().flat_map(|x| x.to_le_bytes()[..3].to_vec()).chain([0; 6]).collect();
        let planes = split_digits(&bytes);
        let planes = planes.each_ref().map(|plane| bytemuck::cast_slice::<u32, u8>(plane));
        for (column, &x) in edges.iter().enumerate() {
            let digits = [0, 1, 2].map(|digit| i32::from(planes[digit][column] as i8));
            let sum = digits[0] + (digits[1] << 8) + (digits[2] << 16);
            assert_eq!(sum as u32 & 0xff_ffff, x, "{x:x}: {digits:?}");
        }
    }

    #[test]
    fn scans_leave_little_room_unused() {
        let expected = [(1, [0, 1]), (4, [0, 4]), (5, [5, 0]), (8, [8, 0]), (11, [8, 3])];
        for (queries, counts) in expected.into_iter().chain([(15, [15, 0]), (28, [24, 4])]) {
            assert_eq!(scan_counts(queries), counts, "{queries}");
        }
    }
}
