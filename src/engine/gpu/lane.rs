//! Some queries for one shard on the device: their buffers, and the dispatches that answer them.
//!
//! A lane's buffers grow to the largest work it has seen and stay. Lanes write to buffers of their
//! own, so that the device need not wait for one to begin the next. The order of a submission is
//! copies, scans and packs of all lanes, then the finishes.

use std::ops::Range;

use wgpu::{
    BindGroup, Buffer, BufferDescriptor, BufferTransition, BufferUsages, BufferUses,
    CommandEncoder, ComputePass, ComputePipeline,
};

use super::super::EncryptedQuery;
use super::super::kernel::KeyLayout;
use super::device::Gpu;
use super::kernels::{DEPTH, Job, Kernel, NARROW_QUERIES, Pipelines, SPLIT_TERMS, THREADS, bind};
use super::resident::{Part, Resident};
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;
use crate::params::{D, HALF, Shape};

/// Workgroups a scan is split into at least, where it has the columns for it: 8 for each of some
/// 130 multiprocessors, of which 3 to 6 run at once.
const SCAN_WORKGROUPS: u32 = 1024;
/// Blocks of 32 slots of both primes: workgroups a pack has at least.
const PACK_UNITS: u32 = (2 * D / 32) as u32;
/// Most workgroups along one dimension that every device takes.
const WORKGROUPS_MAX: u32 = 65_535;
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
pub(super) struct Plan {
    shape: Shape,
    job: Job,
    key_words: usize,
}

impl Plan {
    pub(super) fn new(shape: &Shape, queries: usize, pipelines: &Pipelines) -> Self {
        let (kernel, _) = pipelines.scan(queries as u32);
        let tiles = (shape.rows() as u32).div_ceil(kernel.tile_rows())
            * (queries as u32).div_ceil(kernel.tile_queries());
        let row_groups = (shape.columns() / 16) as u32;
        let least_groups = match kernel {
            Kernel::ScanNarrow { .. } => THREADS,
            _ => 4 * DEPTH,
        };
        let most_splits = row_groups.div_ceil(least_groups);
        let splits = (SCAN_WORKGROUPS / tiles).clamp(1, most_splits);
        let split_groups = row_groups.div_ceil(splits).next_multiple_of(DEPTH);
        let job = Job {
            rows: shape.rows() as u32,
            packs: shape.packs() as u32,
            queries: queries as u32,
            pack_rows: shape.pack_rows() as u32,
            row_groups,
            split_groups,
            column_splits: row_groups.div_ceil(split_groups),
            rotation_step: (HALF / shape.pack_rows()).max(1) as u32,
            term_splits: (shape.terms() as u32).div_ceil(SPLIT_TERMS),
            response_bits: shape.response_bits(),
            ..Job::default()
        };
        Self { shape: *shape, job, key_words: (shape.keys() + 1) * D }
    }

    /// The most queries that one lane takes: what one scan takes, and what its buffers can bind.
    pub(super) fn queries_max(shape: &Shape, pipelines: &Pipelines, binding: u64) -> usize {
        let fits = |queries: usize| {
            let plan = Self::new(shape, queries, pipelines);
            plan.sizes().into_iter().all(|bytes| bytes.next_power_of_two() <= binding)
        };
        let most = (1..=BATCH_QUERIES_PER_SCAN_MAX).rev().find(|&queries| fits(queries));
        most.unwrap_or(1)
    }

    /// Bytes of digits, keys, scanned values, sums and responses.
    fn sizes(&self) -> [u64; 5] {
        let Job { rows, packs, queries, column_splits, term_splits, .. } = self.job;
        let queries = u64::from(queries);
        let polys = queries * u64::from(packs) * 2 * D as u64;
        [
            queries * 3 * self.shape.columns() as u64,
            queries * 2 * self.key_words as u64 * 4,
            queries * u64::from(column_splits) * u64::from(rows) * 4,
            u64::from(term_splits) * polys * 4,
            queries * u64::from(packs) * self.shape.response_bytes() as u64,
        ]
    }

    /// Bytes that go to the device.
    pub(super) fn input_bytes(&self) -> u64 {
        let [digits, keys, ..] = self.sizes();
        digits + keys
    }

    /// Bytes that come back, as `[query][pack]`.
    pub(super) fn response_bytes(&self) -> u64 {
        self.sizes()[4]
    }

    /// Writes the digits and keys of the queries.
    pub(super) fn write_inputs(
        &self,
        queries: &[EncryptedQuery],
        scratch: &mut Vec<u32>,
        write: &mut dyn FnMut(&[u8]),
    ) {
        for query in queries {
            scratch.clear();
            split_digits(&query.vector, scratch);
            write(bytemuck::cast_slice(scratch));
        }
        let layout = KeyLayout::new(&self.shape);
        assert_eq!(layout.words(), self.key_words, "this is a bug: key words");
        scratch.clear();
        scratch.resize(self.key_words, 0);
        for query in queries {
            for prime in 0..2 {
                layout.write(|key| query.bundle.half(key, prime), scratch);
                write(bytemuck::cast_slice(scratch));
            }
        }
    }
}

/// A query's columns (3 bytes each, little-endian) to three planes of balanced digits, four columns
/// a word: x = d0 + 2^8 d1 + 2^16 d2 modulo 2^24. Half a base added to the lower two digits makes
/// the carries; taken away again without carry it leaves signed bytes.
fn split_digits(vector: &[u8], planes: &mut Vec<u32>) {
    let (columns, _) = vector.as_chunks::<12>();
    for digit in 0..3 {
        planes.extend(columns.iter().map(|four| {
            u32::from_le_bytes(std::array::from_fn(|column| {
                let [a, b, c] = std::array::from_fn(|i| four[3 * column + i]);
                let balanced = (u32::from_le_bytes([a, b, c, 0]) + 0x8080) ^ 0x8080;
                balanced.to_le_bytes()[digit]
            }))
        }));
    }
}

/// Buffers of a lane, in the order of [`Plan::sizes`].
struct Buffers {
    buffers: [Buffer; 5],
    scan: BindGroup,
    pack: BindGroup,
    finish: BindGroup,
}

/// Buffers for one lane's work, kept between calls.
#[derive(Default)]
pub(super) struct Lane {
    made: Option<Buffers>,
}

impl Lane {
    /// Makes the buffers anew if a plan needs larger ones.
    pub(super) fn grow(&mut self, gpu: &Gpu, pipelines: &Pipelines, plan: &Plan) {
        let sizes = plan.sizes();
        let held = self.made.as_ref().map(|made| made.buffers.each_ref().map(Buffer::size));
        if held.is_some_and(|held| held.iter().zip(sizes).all(|(&held, needed)| held >= needed)) {
            return;
        }
        let held = held.unwrap_or_default();
        let usages = [
            BufferUsages::COPY_DST,
            BufferUsages::COPY_DST,
            BufferUsages::empty(),
            BufferUsages::empty(),
            BufferUsages::COPY_SRC,
        ];
        let buffers = std::array::from_fn(|at| {
            let size = held[at].max(sizes[at]).next_power_of_two();
            make(gpu, size, BufferUsages::STORAGE | usages[at])
        });
        let [digits, keys, scanned, sums, responses] = &buffers;
        self.made = Some(Buffers {
            scan: bind(gpu, &pipelines.product, &[digits, scanned]),
            pack: bind(gpu, &pipelines.product, &[keys, sums]),
            finish: bind(gpu, &pipelines.finish, &[scanned, sums, responses]),
            buffers,
        });
    }

    fn made(&self) -> &Buffers {
        self.made.as_ref().expect("this is a bug: a lane without buffers is used")
    }

    /// Copies what [`Plan::write_inputs`] wrote.
    pub(super) fn copy_in(
        &self,
        encoder: &mut CommandEncoder,
        from: &Buffer,
        at: u64,
        plan: &Plan,
    ) {
        let [digits, keys, ..] = &self.made().buffers;
        let [digit_bytes, key_bytes, ..] = plan.sizes();
        encoder.copy_buffer_to_buffer(from, at, digits, 0, digit_bytes);
        encoder.copy_buffer_to_buffer(from, at + digit_bytes, keys, 0, key_bytes);
    }

    /// Copies the responses out.
    pub(super) fn copy_out(&self, encoder: &mut CommandEncoder, to: &Buffer, at: u64, plan: &Plan) {
        let responses = &self.made().buffers[4];
        encoder.copy_buffer_to_buffer(responses, 0, to, at, plan.response_bytes());
    }

    /// What scan and pack read. Given for all lanes at once, as the two below: then there is one
    /// barrier where every lane would have had its own, and waited for the lane before.
    pub(super) fn before_products(&self) -> [BufferTransition<&Buffer>; 2] {
        let [digits, keys, ..] = &self.made().buffers;
        [digits, keys]
            .map(|buffer| BufferTransition { buffer, state: BufferUses::STORAGE_READ_ONLY })
    }

    /// What the finish reads.
    pub(super) fn before_finish(&self) -> [BufferTransition<&Buffer>; 2] {
        let [_, _, scanned, sums, _] = &self.made().buffers;
        [scanned, sums]
            .map(|buffer| BufferTransition { buffer, state: BufferUses::STORAGE_READ_ONLY })
    }

    /// What is copied out.
    pub(super) fn before_copy_out(&self) -> [BufferTransition<&Buffer>; 1] {
        let [.., responses] = &self.made().buffers;
        [BufferTransition { buffer: responses, state: BufferUses::COPY_SRC }]
    }

    /// Matrix times queries.
    pub(super) fn scan(&self, recorder: &mut Recorder<'_, '_>, plan: &Plan, shard: &Resident) {
        let (kernel, pipeline) = recorder.pipelines.scan(plan.job.queries);
        let (tile_rows, tile_queries) = (kernel.tile_rows(), kernel.tile_queries());
        let of_tile = u64::from(tile_rows) * plan.shape.columns() as u64;
        let of_tile = of_tile * u64::from(plan.job.queries);
        let tiles = recorder.rates.tiles(of(recorder.rates.scan, plan.job.queries), of_tile);
        let x = plan.job.queries.div_ceil(tile_queries);
        let y = plan.job.column_splits;
        recorder.select(pipeline, &self.made().scan);
        for part in &shard.matrix {
            let all = 0..part.count.div_ceil(tile_rows);
            recorder.dispatch(plan.job, Some(part), [x, y], all, tiles);
        }
    }

    /// Tables times keys.
    pub(super) fn pack(&self, recorder: &mut Recorder<'_, '_>, plan: &Plan, shard: &Resident) {
        let (kernel, pipeline) = recorder.pipelines.pack(plan.job.packs, plan.job.queries);
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
    pub(super) fn finish(&self, recorder: &mut Recorder<'_, '_>, plan: &Plan, tables: &BindGroup) {
        let (_, pipeline) = recorder.pipelines.finish();
        recorder.select(pipeline, &self.made().finish);
        recorder.pass.set_bind_group(0, tables, &[]);
        let queries = recorder.rates.tiles(recorder.rates.finish, plan.job.packs.into());
        recorder.dispatch(plan.job, None, [1, plan.job.packs], 0..plan.job.queries, queries);
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

    #[test]
    fn digits_are_balanced_and_add_up() {
        let edges = [0u32, 1, 0x7f, 0x80, 0x7f7f, 0x7f80, 0x8080, 0x7f_8080, 0xff_ffff, 0x80_0000];
        let bytes: Vec<u8> =
            edges.iter().flat_map(|x| x.to_le_bytes()[..3].to_vec()).chain([0; 6]).collect();
        let mut planes = Vec::new();
        split_digits(&bytes, &mut planes);
        let planes: Vec<&[u8]> = bytemuck::cast_slice(&planes).chunks_exact(12).collect();
        for (column, &x) in edges.iter().enumerate() {
            let digits = [0, 1, 2].map(|digit| i32::from(planes[digit][column] as i8));
            let sum = digits[0] + (digits[1] << 8) + (digits[2] << 16);
            assert_eq!(sum as u32 & 0xff_ffff, x, "{x:x}: {digits:?}");
        }
    }
}
