//! A batch on the device, at most 32 queries for one shard: its buffers, and the dispatches that
//! answer it.
//!
//! Buffers grow to the largest batch they have held and stay. A submission is the copies, splits
//! into digits, scans and packs of all its batches, then the finishes, with one barrier between two
//! of these.

use std::ops::Range;

use wgpu::{
    BindGroup, Buffer, BufferTransition, BufferUsages, BufferUses, CommandEncoder, ComputePass,
};

use super::device::Gpu;
use super::kernels::{DEPTH, Job, Kernel, NARROW_QUERIES, SPLIT_TERMS, THREADS, WIDE_QUERIES};
use super::pipelines::{Pipelines, bind};
use super::resident::{Part, Resident};
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;
use crate::params::{D, HALF, Shape};

/// Workgroups a scan is split into at least, where it has the columns for it: 8 for each of some
/// 130 multiprocessors, of which 3 to 6 run at once.
const SCAN_WORKGROUPS: u32 = 1024;
/// Batches of a submission that are counted on to share those workgroups.
const BATCHES_SIDE_BY_SIDE: usize = 8;
/// Blocks of 32 slots of both primes: workgroups a pack has at least.
const PACK_UNITS: u32 = (2 * D / 32) as u32;
/// For what a plan does not use: something to bind.
const BUFFER_BYTES_MIN: u64 = 256;

/// Buffers of a batch, in the order of [`Plan::sizes`]: numbers for [`Buffers::uses`].
pub(super) const VECTORS: &[usize] = &[0];
pub(super) const DIGITS: &[usize] = &[1];
pub(super) const SUMS_AND_SCANNED: &[usize] = &[2, 3, 5];
pub(super) const RESPONSES: &[usize] = &[4, 6];

/// How some queries for a shape are laid out and cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    shape: Shape,
    job: Job,
    scans: [Scan; 2],
}

/// Queries of a batch that one scan takes, and how it splits columns.
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

impl Plan {
    /// For so many queries, beside so many other batches.
    pub(super) fn new(shape: &Shape, queries: usize, batches: usize) -> Self {
        let [wide, narrow] = scan_counts(queries as u32);
        let workgroups = SCAN_WORKGROUPS / (batches.min(BATCHES_SIDE_BY_SIDE) as u32).max(1);
        let scans =
            [(0, wide), (wide, narrow)].map(|queries| Scan::new(shape, queries, workgroups));
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

    /// The most queries of a batch: what one scan takes, and what its buffers can bind.
    pub(super) fn queries_max(shape: &Shape, binding_bytes: u64) -> usize {
        let fits = |&queries: &usize| {
            let sizes = Self::new(shape, queries, 1).buffer_sizes();
            sizes.into_iter().all(|bytes| bytes <= binding_bytes)
        };
        (1..=BATCH_QUERIES_PER_SCAN_MAX).rev().find(fits).unwrap_or(1)
    }

    /// Bytes of vectors, digits and sums; then, for each scan, of scanned values and responses.
    fn sizes(&self) -> [u64; 7] {
        let Job { packs, queries, term_splits, .. } = self.job;
        let polys = u64::from(queries) * u64::from(packs) * 2 * D as u64;
        let sums = u64::from(term_splits) * polys * 4;
        let [[a, b], [c, d]] = self.scans.map(|scan| scan.sizes(&self.shape));
        [self.input_bytes(), self.input_bytes(), sums, a, b, c, d]
    }

    /// Sizes of its buffers, so that a few more bytes do not mean new ones.
    pub(super) fn buffer_sizes(&self) -> [u64; 7] {
        self.sizes().map(|bytes| bytes.max(BUFFER_BYTES_MIN).next_power_of_two())
    }

    pub(super) fn buffer_bytes(&self) -> u64 {
        self.buffer_sizes().iter().sum()
    }

    /// Bytes of the queries' vectors, which go to the device.
    pub(super) fn input_bytes(&self) -> u64 {
        u64::from(self.job.queries) * 3 * self.shape.columns() as u64
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
    fn new(shape: &Shape, (first, count): (u32, u32), workgroups: u32) -> Self {
        let kernel = Kernel::scan(count);
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

    fn job(&self, plan: &Plan) -> Job {
        let &Self { first, count, split_groups, column_splits } = self;
        let (first_query, scan_queries) = (first, count);
        Job { first_query, scan_queries, split_groups, column_splits, ..plan.job }
    }
}

/// Buffers of one batch, kept between calls. What two scans of a batch write, or their finishes,
/// lies in buffers of its own: between two that write to one buffer would be a barrier.
pub(super) struct Buffers {
    buffers: [Buffer; 7],
    split: BindGroup,
    pack: BindGroup,
    scans: [BindGroup; 2],
    finishes: [BindGroup; 2],
}

impl Buffers {
    pub(super) fn new(gpu: &Gpu, pipelines: &Pipelines, keys: &Buffer, sizes: [u64; 7]) -> Self {
        let (none, out) = (BufferUsages::empty(), BufferUsages::COPY_SRC);
        let usages = [BufferUsages::COPY_DST, none, none, none, out, none, out];
        let buffers: [_; 7] = std::array::from_fn(|at| {
            gpu.buffer("batch", sizes[at], BufferUsages::STORAGE | usages[at])
        });
        let [vectors, digits, sums, scanned_a, responses_a, scanned_b, responses_b] = &buffers;
        let product = |read, written| bind(gpu, &pipelines.product, &[read, written]);
        let finish = |scanned, to| bind(gpu, &pipelines.finish, &[scanned, sums, to]);
        Self {
            split: product(vectors, digits),
            pack: product(keys, sums),
            scans: [product(digits, scanned_a), product(digits, scanned_b)],
            finishes: [finish(scanned_a, responses_a), finish(scanned_b, responses_b)],
            buffers,
        }
    }

    pub(super) fn sizes(&self) -> [u64; 7] {
        self.buffers.each_ref().map(Buffer::size)
    }

    pub(super) fn copy_in(
        &self,
        encoder: &mut CommandEncoder,
        from: &Buffer,
        at: u64,
        plan: &Plan,
    ) {
        encoder.copy_buffer_to_buffer(from, at, &self.buffers[VECTORS[0]], 0, plan.input_bytes());
    }

    pub(super) fn copy_out(
        &self,
        encoder: &mut CommandEncoder,
        to: &Buffer,
        mut at: u64,
        plan: &Plan,
    ) {
        for (index, scan) in plan.scans() {
            let [_, bytes] = scan.sizes(&plan.shape);
            encoder.copy_buffer_to_buffer(&self.buffers[RESPONSES[index]], 0, to, at, bytes);
            at += bytes;
        }
    }

    /// That some buffers are used next in this way. Said of all batches at once, so that there is
    /// one barrier where every batch would have had its own, and waited for the one before.
    pub(super) fn uses(
        &self,
        which: &'static [usize],
        state: BufferUses,
    ) -> impl Iterator<Item = BufferTransition<&Buffer>> {
        which.iter().map(move |&at| BufferTransition { buffer: &self.buffers[at], state })
    }

    pub(super) fn split_digits(&self, recorder: &mut Recorder<'_, '_>, plan: &Plan) {
        recorder.pass.set_pipeline(recorder.pipelines.get(Kernel::SplitDigits));
        recorder.pass.set_bind_group(0, &self.split, &[]);
        let x = (4 * plan.job.row_groups).div_ceil(THREADS);
        recorder.dispatch(plan.job, None, [x, 1], 0..plan.job.queries, 0);
    }

    pub(super) fn scan(&self, recorder: &mut Recorder<'_, '_>, plan: &Plan, shard: &Resident) {
        for (index, scan) in plan.scans() {
            let kernel = Kernel::scan(scan.count);
            let tile_rows = kernel.tile_rows();
            let products = u64::from(tile_rows * scan.count) * plan.shape.columns() as u64;
            let x = scan.count.div_ceil(kernel.tile_queries());
            recorder.select(kernel, &self.scans[index]);
            for part in &shard.matrix {
                let tiles = 0..part.count.div_ceil(tile_rows);
                let job = scan.job(plan);
                recorder.dispatch(job, Some(part), [x, job.column_splits], tiles, products);
            }
        }
    }

    pub(super) fn pack(&self, recorder: &mut Recorder<'_, '_>, plan: &Plan, shard: &Resident) {
        let kernel = Kernel::pack((plan.job.packs, plan.job.pack_rows), plan.job.queries);
        let x = plan.job.queries.div_ceil(kernel.tile_queries());
        recorder.select(kernel, &self.pack);
        for part in &shard.tables {
            let terms = plan.shape.terms().min(SPLIT_TERMS as usize) as u64;
            let products = terms * 32 * u64::from(part.count) * u64::from(plan.job.queries);
            let y = part.count.div_ceil(kernel.tile_rows());
            let units = 0..PACK_UNITS * plan.job.term_splits;
            recorder.dispatch(plan.job, Some(part), [x, y], units, products);
        }
    }

    pub(super) fn finish(&self, recorder: &mut Recorder<'_, '_>, plan: &Plan, tables: &BindGroup) {
        recorder.pass.set_pipeline(recorder.pipelines.get(Kernel::Finish));
        recorder.pass.set_bind_group(0, tables, &[]);
        for (index, scan) in plan.scans() {
            recorder.pass.set_bind_group(1, &self.finishes[index], &[]);
            recorder.dispatch(scan.job(plan), None, [1, plan.job.packs], 0..scan.count, 0);
        }
    }
}

/// Records dispatches, cut so that none takes so long that a driver ends it.
pub(super) struct Recorder<'a, 'p> {
    pub(super) pass: &'a mut ComputePass<'p>,
    pub(super) pipelines: &'a Pipelines,
    /// Products of one dispatch, about.
    pub(super) products_max: u64,
}

impl Recorder<'_, '_> {
    fn select(&mut self, kernel: Kernel, buffers: &BindGroup) {
        self.pass.set_pipeline(self.pipelines.get(kernel));
        self.pass.set_bind_group(1, buffers, &[]);
    }

    /// Dispatches all tiles along z, each of so many products.
    fn dispatch(
        &mut self,
        mut job: Job,
        part: Option<&Part>,
        [x, y]: [u32; 2],
        tiles: Range<u32>,
        products: u64,
    ) {
        if let Some(part) = part {
            self.pass.set_bind_group(0, &part.bound, &[]);
            (job.part_first, job.part_count) = (part.first, part.count);
        }
        let at_once = (self.products_max / products.max(1)).clamp(1, tiles.end.into()) as u32;
        for first in tiles.clone().step_by(at_once as usize) {
            job.first_tile = first;
            self.pass.set_immediates(0, bytemuck::bytes_of(&job));
            self.pass.dispatch_workgroups(x, y, at_once.min(tiles.end - first));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::scan_counts;

    #[test]
    fn scans_leave_little_room_unused() {
        let expected = [(1, [0, 1]), (4, [0, 4]), (5, [5, 0]), (8, [8, 0]), (11, [8, 3])];
        for (queries, counts) in expected.into_iter().chain([(15, [15, 0]), (28, [24, 4])]) {
            assert_eq!(scan_counts(queries), counts, "{queries}");
        }
    }
}
