//! The kernels for AVX2, and for AVX-512 without VNNI, IFMA and VBMI: one text, two widths.
//!
//! Floors for a standard shard (8 packs), per query. Scan: 13.5 M `vpmaddwd` and as many `vpaddd`
//! on 256 bits, half of each on 512 (three pairs for as many columns as a register has bytes, see
//! [`super::words`]). Pack: 16.8 M `vpmuludq` and as many `vpaddq`, for many queries 12.6 M
//! `vpmaddwd` and `vpaddd`. Reading matrix and tables is 345 MB a batch. An EPYC
//! guest (Zen 4, 2.9 GHz) makes 4.6 G pairs a second and reads 32 GB/s: scan 2.9 ms, pack 3.7 ms a
//! query, reading 10.6 ms a batch. So one query is bound by memory and three by arithmetic.
//!
//! Memory is read while it is multiplied only if it is asked for early: what is to come is
//! prefetched to the second cache 8 KB ahead, evenly. What the processor sees coming by itself, or
//! is told 1 KB ahead, makes the times of reading and multiplying add up (`bench/record`).

#![expect(clippy::needless_range_loop, reason = "indices name the registers of a tile")]

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use super::EncryptedQuery;
use super::avx_words::{
    PACKS_MAX, TableWords, WORDS_QUERIES, WordsTile, combine, key_lanes, spread, write_key_words,
};
use super::kernel::{
    BLOCK_SLOTS, CHUNK_TERMS, Chunk, DIGITS, KEY_PADDING, Kernels, KeyLayout, Line, PackJob,
    PackSums, Rounding, ScanJob, TERM_BYTES, pack_by_chunks, reduce_sums, round,
};
use super::vector::{AHEAD_FAR, AHEAD_NEAR, Vector};
use super::words::{self, LINES};
use crate::arith::Isa;

/// The kernels of one width, and the proof that the processor has what they use.
pub(super) struct Avx<V>(PhantomData<V>);

impl<V: Compiled> Avx<V> {
    /// Only where `isa` says so, and an `Isa` says so only where the processor has it.
    pub(super) fn new(isa: Isa) -> Option<Self> {
        (isa.name() == V::ISA).then_some(Self(PhantomData))
    }
}

impl<V: Compiled> Kernels for Avx<V> {
    fn name(&self) -> &'static str {
        V::ISA.name()
    }

    fn split_digits(&self, queries: &[EncryptedQuery], columns: Range<usize>, digits: &mut [Line]) {
        words::split_digits(queries, columns, digits);
    }

    fn scan(&self, job: &ScanJob<'_>, out: &mut [u32]) {
        job.check(self.digit_lines(job.queries), out);
        // SAFETY: `self` exists only where the processor has these instructions, and `check` has
        // compared the slices with the numbers.
        unsafe { V::scan(job, out) }
    }

    fn key_words(&self, layout: &KeyLayout, queries: usize) -> usize {
        match queries >= WORDS_FROM {
            true => key_lanes(layout) * DIGITS / 2,
            false => layout.words() + KEY_PADDING,
        }
    }

    fn write_keys<'k>(
        &self,
        layout: &KeyLayout,
        queries: usize,
        key: &dyn Fn(usize) -> &'k [u32],
        out: &mut [u64],
    ) {
        match queries >= WORDS_FROM {
            true => write_key_words(layout, key, bytemuck::cast_slice_mut(out)),
            false => KeyLayout::write(key, &mut out[..layout.words()]),
        }
    }

    fn pack(&self, job: &PackJob<'_>, out: &mut [u32]) {
        job.check(out);
        // SAFETY: as above.
        unsafe { V::pack(job, out) }
    }

    fn round(&self, rounding: &Rounding<'_>, out: &mut [u32]) {
        // SAFETY: `self` exists only where the processor has these instructions.
        unsafe { V::round(rounding, out) }
    }
}

// ---- the two widths ----------------------------------------------------------------------------

/// The kernels compiled for a register's instruction set.
///
/// # Safety of all functions
/// As of [`Vector`]'s; jobs are checked.
pub(super) trait Compiled: Vector {
    /// How many times [`Vector::SLOTS`] a pack tile of so many queries has.
    fn units(queries: usize) -> usize;

    unsafe fn scan(job: &ScanJob<'_>, out: &mut [u32]);
    unsafe fn pack(job: &PackJob<'_>, out: &mut [u32]);
    unsafe fn round(rounding: &Rounding<'_>, out: &mut [u32]);
    unsafe fn scan_tile<const ROWS: usize, const QUERIES: usize>(tile: &ScanTile);
    unsafe fn pack_tile<const PACKS: usize, const QUERIES: usize>(tile: &PackTile<Self>);
    unsafe fn spread<const PACKS: usize>(job: &PackJob<'_>, chunk: &Chunk, words: &mut TableWords);
    unsafe fn words_tile<const PACKS: usize, const QUERIES: usize>(tile: &mut WordsTile<'_>);
}

macro_rules! compiled {
    ($register:ty, $features:literal, pack tiles of $lone:literal or $few:literal) => {
        impl Compiled for $register {
            fn units(queries: usize) -> usize {
                match queries {
                    1 => $lone,
                    2..4 => $few,
                    _ => 1,
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn scan(job: &ScanJob<'_>, out: &mut [u32]) {
                // SAFETY: as above.
                unsafe { scan::<Self>(job, out) }
            }

            #[target_feature(enable = $features)]
            unsafe fn pack(job: &PackJob<'_>, out: &mut [u32]) {
                if job.queries >= WORDS_FROM {
                    // SAFETY: as above.
                    return unsafe { pack_words::<Self>(job, out) };
                }
                // SAFETY: as above.
                let indices = unsafe { [0, Self::SLOTS].map(|slot| Self::unpack_index(slot)) };
                // SAFETY: as above; `pack_by_chunks` says where a chunk's terms and windows lie.
                let add = |chunk: &Chunk, sums: &mut Sums| unsafe {
                    add_chunk(job, chunk, &indices, sums);
                };
                pack_by_chunks::<PACKS_MAX, CHUNK_TERMS>(job, out, add, |sums, out| {
                    reduce_sums(sums, job.prime, out);
                });
            }

            #[target_feature(enable = $features)]
            unsafe fn round(rounding: &Rounding<'_>, out: &mut [u32]) {
                round(rounding, out);
            }

            #[target_feature(enable = $features)]
            unsafe fn scan_tile<const ROWS: usize, const QUERIES: usize>(tile: &ScanTile) {
                // SAFETY: as above.
                unsafe { tile.run::<Self, ROWS, QUERIES>() }
            }

            #[target_feature(enable = $features)]
            unsafe fn pack_tile<const PACKS: usize, const QUERIES: usize>(tile: &PackTile<Self>) {
                const VECTORS: usize = <$register as Vector>::SLOTS * 8 / size_of::<$register>();
                // SAFETY: as above.
                unsafe {
                    match QUERIES {
                        1 => tile.run::<PACKS, QUERIES, $lone, VECTORS>(),
                        2..4 => tile.run::<PACKS, QUERIES, $few, VECTORS>(),
                        _ => tile.run::<PACKS, QUERIES, 1, VECTORS>(),
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn spread<const PACKS: usize>(
                job: &PackJob<'_>,
                chunk: &Chunk,
                words: &mut TableWords,
            ) {
                // SAFETY: as above.
                unsafe { spread::<Self, PACKS>(job, chunk, words) }
            }

            #[target_feature(enable = $features)]
            unsafe fn words_tile<const PACKS: usize, const QUERIES: usize>(
                tile: &mut WordsTile<'_>,
            ) {
                // SAFETY: as above.
                unsafe { tile.run::<Self, PACKS, QUERIES>() }
            }
        }
    };
}

compiled!(__m256i, "avx2", pack tiles of 4 or 2);
compiled!(__m512i, "avx512f,avx512bw,avx512dq,avx512vl", pack tiles of 2 or 1);

/// The queries in tiles of nearly equal size: first and count of each.
fn query_tiles(queries: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = queries.div_ceil(most);
    (0..tiles).map(move |tile| {
        let first = tile * queries / tiles;
        (first, (tile + 1) * queries / tiles - first)
    })
}

// ---- scan --------------------------------------------------------------------------------------

/// Queries of a tile, at most. On 256 bits two rows make six sums then; more are slower.
const SCAN_QUERIES: usize = 3;

/// Plan: whole rows, a few at a time, each from its own run of the job's rows, so that memory is
/// read in few long runs. Queries follow each other, three at a time, while the rows are in the
/// first cache; their digits come from the second.
///
/// # Safety
/// [`Vector::ISA`]; `job` is checked.
#[inline(always)]
unsafe fn scan<V: Compiled>(job: &ScanJob<'_>, out: &mut [u32]) {
    let runs = if job.queries == 1 || V::BYTES == 64 { 4 } else { 2 };
    assert!(job.rows.is_multiple_of(runs), "this is a bug: rows of a scan job");
    let (run_rows, query_lines) = (job.rows / runs, job.columns / 64 * LINES);
    for row in 0..run_rows {
        for (query, queries) in query_tiles(job.queries, SCAN_QUERIES) {
            let tile = ScanTile {
                columns: job.columns,
                rows: job.matrix[(job.first_row + row) * job.columns..].as_ptr(),
                run_rows,
                digits: job.digits[query * query_lines..].as_ptr(),
                query_lines,
                prefetch: query == 0,
                run_ends: row + 1 == run_rows,
                out: out[query * job.rows + row..].as_mut_ptr(),
            };
            // SAFETY: the caller's promise; `ScanJob::check`: this row of every run is in the
            // matrix, and `queries` queries from `query` have digits and places for all rows.
            unsafe {
                match (runs, queries) {
                    (2, 1) => V::scan_tile::<2, 1>(&tile),
                    (2, 2) => V::scan_tile::<2, 2>(&tile),
                    (2, 3) => V::scan_tile::<2, 3>(&tile),
                    (4, 1) => V::scan_tile::<4, 1>(&tile),
                    (4, 2) => V::scan_tile::<4, 2>(&tile),
                    (4, 3) => V::scan_tile::<4, 3>(&tile),
                    _ => unreachable!("this is a bug: {runs} rows, {queries} queries of a tile"),
                }
            }
        }
    }
    for (out, digits) in out.chunks_exact_mut(job.rows).zip(job.digits.chunks_exact(query_lines)) {
        let bias = words::bias(digits);
        out.iter_mut().for_each(|sum| *sum = sum.wrapping_sub(bias) & 0x00ff_ffff);
    }
}

/// A row of each run of a job, and some queries.
pub(super) struct ScanTile {
    /// Bytes of a row.
    columns: usize,
    /// The first run's; `run_rows` rows on, the next run's.
    rows: *const u8,
    run_rows: usize,
    /// The first query's; `query_lines` on, the next query's.
    digits: *const Line,
    query_lines: usize,
    /// Whether this tile is the first that reads these rows.
    prefetch: bool,
    /// Whether they are the last rows of their runs.
    run_ends: bool,
    /// Of the first query, for the first run's row; `run_rows` on, the next run's.
    out: *mut u32,
}

impl ScanTile {
    /// Puts the sums of products modulo 2^32.
    ///
    /// # Safety
    /// [`Vector::ISA`]; ROWS runs, QUERIES queries and their places are there.
    #[inline(always)]
    unsafe fn run<V: Vector, const ROWS: usize, const QUERIES: usize>(&self) {
        let run = self.run_rows * self.columns;
        // SAFETY: the caller's promise.
        unsafe {
            let sign = V::sign();
            let mut acc = [[V::zero(); ROWS]; QUERIES];
            for at in (0..self.columns).step_by(64) {
                if self.prefetch {
                    // A run of the job that follows begins where the next run of this one ends.
                    let ends = self.run_ends && at + AHEAD_FAR >= self.columns;
                    let far = if ends { AHEAD_FAR + (ROWS - 1) * run } else { AHEAD_FAR };
                    for row in 0..ROWS {
                        let line = self.rows.wrapping_add(row * run + at);
                        _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(AHEAD_NEAR).cast());
                        _mm_prefetch::<_MM_HINT_T1>(line.wrapping_add(far).cast());
                    }
                }
                for half in (0..64).step_by(V::BYTES) {
                    let lines = self.digits.add(at / 64 * LINES).cast::<u8>().add(half);
                    let mut entries = [V::zero(); ROWS];
                    for row in 0..ROWS {
                        entries[row] = V::load(self.rows.add(row * run + at + half));
                    }
                    let mut factors = [V::zero(); ROWS];
                    for row in 0..ROWS {
                        factors[row] = entries[row].words_up();
                    }
                    self.add_line(&factors, lines, &mut acc);
                    for row in 0..ROWS {
                        factors[row] = entries[row].words_down();
                    }
                    self.add_line(&factors, lines.add(64), &mut acc);
                    for row in 0..ROWS {
                        factors[row] = entries[row].xor(sign);
                    }
                    self.add_line(&factors, lines.add(128), &mut acc);
                }
            }
            for query in 0..QUERIES {
                for row in 0..ROWS {
                    let mut lanes = [0u32; 16];
                    acc[query][row].store(lanes.as_mut_ptr().cast());
                    let sum = lanes.into_iter().fold(0, u32::wrapping_add);
                    *self.out.add((query * ROWS + row) * self.run_rows) = sum;
                }
            }
        }
    }

    /// Adds the products of a register of factors of every row and of a line of every query.
    ///
    /// # Safety
    /// As [`ScanTile::run`], for these lines.
    #[inline(always)]
    unsafe fn add_line<V: Vector, const ROWS: usize, const QUERIES: usize>(
        &self,
        factors: &[V; ROWS],
        line: *const u8,
        acc: &mut [[V; ROWS]; QUERIES],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            for query in 0..QUERIES {
                let words = V::load(line.add(query * self.query_lines * size_of::<Line>()));
                for row in 0..ROWS {
                    acc[query][row] = acc[query][row].add_32(factors[row].multiply_words(words));
                }
            }
        }
    }
}

// ---- pack --------------------------------------------------------------------------------------

/// Queries of a tile, at most: they share the unpacked tables.
const PACK_QUERIES: usize = 4;

/// All sums of a job's block of slots.
type Sums = PackSums<PACKS_MAX>;

/// Adds the products of a chunk, all queries, tile by tile. On 256 bits a tile of one query has 16
/// slots of two packs, one of two or three 8 slots, one of four 4 slots: 8 to 12 sums, fed by one
/// `vpshufb` for each register of a table. The first query's tiles prefetch, each an equal part of
/// what is to come.
///
/// # Safety
/// [`Vector::ISA`]; the chunk's tables and windows are there.
#[inline(always)]
unsafe fn add_chunk<V: Compiled>(
    job: &PackJob<'_>,
    chunk: &Chunk,
    indices: &[[V; 2]; 2],
    sums: &mut Sums,
) {
    for (query, queries) in query_tiles(job.queries, PACK_QUERIES) {
        let slots = V::SLOTS * V::units(queries);
        for slot in (0..BLOCK_SLOTS).step_by(slots) {
            let tile = PackTile {
                slot,
                indices: *indices,
                terms: chunk.terms,
                table: job.tables[chunk.table..].as_ptr(),
                table_bytes: job.table_bytes,
                keys: job.keys[query * job.key_words + chunk.key + slot..].as_ptr(),
                key_words: job.key_words,
                key_step: chunk.key_step,
                prefetch: query == 0,
                ahead: job.tables.as_ptr().wrapping_add(chunk.ahead + slot * 3 * chunk.terms),
                sums: sums.0[query..query + queries].as_mut_ptr(),
            };
            // SAFETY: the caller's promise.
            unsafe {
                match (chunk.packs, queries) {
                    (1, 1) => V::pack_tile::<1, 1>(&tile),
                    (1, 2) => V::pack_tile::<1, 2>(&tile),
                    (1, 3) => V::pack_tile::<1, 3>(&tile),
                    (1, 4) => V::pack_tile::<1, 4>(&tile),
                    (2, 1) => V::pack_tile::<2, 1>(&tile),
                    (2, 2) => V::pack_tile::<2, 2>(&tile),
                    (2, 3) => V::pack_tile::<2, 3>(&tile),
                    (2, 4) => V::pack_tile::<2, 4>(&tile),
                    (packs, _) => unreachable!("this is a bug: {packs} packs, {queries} queries"),
                }
            }
        }
    }
}

/// Some slots of a chunk of terms, of some packs and queries.
pub(super) struct PackTile<V> {
    /// First slot, in the block.
    slot: usize,
    /// For even and for odd units of [`Vector::SLOTS`] slots.
    indices: [[V; 2]; 2],
    terms: usize,
    /// The first pack's.
    table: *const u8,
    table_bytes: usize,
    /// The first query's, at the first slot.
    keys: *const u64,
    key_words: usize,
    key_step: usize,
    /// Whether this tile is the first that reads these slots.
    prefetch: bool,
    /// This tile's part of what is to come, in the first pack's table.
    ahead: *const u8,
    /// The first query's.
    sums: *mut [[u64; BLOCK_SLOTS]; PACKS_MAX],
}

impl<V: Vector> PackTile<V> {
    /// Adds the products to `sums`, one a query.
    ///
    /// # Safety
    /// [`Vector::ISA`]; PACKS packs, QUERIES queries and their sums are there, for UNITS times
    /// [`Vector::SLOTS`] slots, which are VECTORS registers each.
    #[inline(always)]
    unsafe fn run<
        const PACKS: usize,
        const QUERIES: usize,
        const UNITS: usize,
        const VECTORS: usize,
    >(
        &self,
    ) {
        let part_bytes = UNITS * V::SLOTS * 3;
        // SAFETY: the caller's promise.
        unsafe {
            let mut acc = [[[[V::zero(); VECTORS]; UNITS]; PACKS]; QUERIES];
            for term in 0..self.terms {
                if self.prefetch {
                    for pack in 0..PACKS {
                        let part = self.ahead.wrapping_add(pack * self.table_bytes);
                        for at in (0..part_bytes).step_by(TERM_BYTES / 2) {
                            let line = part.wrapping_add(term * part_bytes + at);
                            _mm_prefetch::<_MM_HINT_T1>(line.cast());
                        }
                    }
                }
                let keys = self.keys.add(term * self.key_step);
                for unit in 0..UNITS {
                    let slot = self.slot + unit * V::SLOTS;
                    let index = &self.indices[slot / V::SLOTS % 2];
                    let mut tables = [[V::zero(); VECTORS]; PACKS];
                    for pack in 0..PACKS {
                        let from = self.table.add(pack * self.table_bytes + term * TERM_BYTES);
                        V::unpack(from, slot, index, &mut tables[pack]);
                    }
                    for query in 0..QUERIES {
                        for v in 0..VECTORS {
                            let from = keys.add(query * self.key_words + unit * V::SLOTS);
                            let keys = V::load(from.cast::<u8>().add(v * V::BYTES));
                            for pack in 0..PACKS {
                                let sum = &mut acc[query][pack][unit][v];
                                *sum = sum.add_64(tables[pack][v].multiply_low(keys));
                            }
                        }
                    }
                }
            }
            for query in 0..QUERIES {
                for pack in 0..PACKS {
                    let sums = self.sums.add(query).cast::<[u64; BLOCK_SLOTS]>().add(pack);
                    let sums = sums.cast::<u64>().add(self.slot).cast::<u8>();
                    for (at, acc) in acc[query][pack].as_flattened().iter().enumerate() {
                        let sum = sums.add(at * V::BYTES);
                        acc.add_64(V::load(sum)).store(sum);
                    }
                }
            }
        }
    }
}

// ---- pack for many queries ---------------------------------------------------------------------

/// Queries from which on words are multiplied: see `avx_words.rs`.
const WORDS_FROM: usize = 6;

/// A whole job: chunk by chunk, a table becomes words, then group by group of its slots all
/// queries follow each other, whose keys stay in the first cache.
///
/// # Safety
/// [`Vector::ISA`]; `job` is checked.
#[inline(always)]
unsafe fn pack_words<V: Compiled>(job: &PackJob<'_>, out: &mut [u32]) {
    let lanes = job.key_words * 2 / DIGITS;
    for run in job.segments {
        let end = run.start + (run.terms - 1) * run.step + BLOCK_SLOTS;
        assert!(end <= lanes, "this is a bug: key window");
    }
    let mut words = TableWords::ZERO;
    let mut digit_sums = [[[Line([0; 64]); PACKS_MAX]; WORDS_QUERIES]; DIGITS];
    let add = |chunk: &Chunk, sums: &mut Sums| {
        // SAFETY: the caller's promise; `pack_by_chunks` says where a chunk's terms and windows
        // lie.
        unsafe {
            match chunk.packs {
                1 => V::spread::<1>(job, chunk, &mut words),
                _ => V::spread::<2>(job, chunk, &mut words),
            }
            for slot in (0..BLOCK_SLOTS).step_by(V::BYTES / 4) {
                for (query, queries) in query_tiles(job.queries, WORDS_QUERIES) {
                    let keys: &[u32] = bytemuck::cast_slice(&job.keys[query * job.key_words..]);
                    let mut tile = WordsTile {
                        words: &words,
                        slot,
                        terms: chunk.terms,
                        keys: keys[chunk.key + slot..].as_ptr(),
                        lanes,
                        key_step: chunk.key_step,
                        digit: 0,
                        sums: &mut digit_sums,
                    };
                    for digit in 0..DIGITS {
                        tile.digit = digit;
                        match (chunk.packs, queries) {
                            (1, 3) => V::words_tile::<1, 3>(&mut tile),
                            (1, 4) => V::words_tile::<1, 4>(&mut tile),
                            (2, 3) => V::words_tile::<2, 3>(&mut tile),
                            (2, 4) => V::words_tile::<2, 4>(&mut tile),
                            (packs, _) => unreachable!("this is a bug: {packs}, {queries}"),
                        }
                    }
                    for (at, sums) in sums.0[query..query + queries].iter_mut().enumerate() {
                        for (pack, sums) in sums[..chunk.packs].iter_mut().enumerate() {
                            let digits = digit_sums.each_ref().map(|digit| &digit[at][pack]);
                            combine::<V>(digits, slot, sums);
                        }
                    }
                }
            }
        }
    };
    pack_by_chunks::<PACKS_MAX, CHUNK_TERMS>(job, out, add, |sums, out| {
        reduce_sums(sums, job.prime, out);
        // Of each register's slots the even ones came first.
        for out in out.chunks_exact_mut(V::BYTES / 4) {
            let mut mixed = [0; BLOCK_SLOTS];
            mixed[..out.len()].copy_from_slice(out);
            let (even, odd) = mixed[..out.len()].split_at(out.len() / 2);
            for (out, (&even, &odd)) in out.as_chunks_mut().0.iter_mut().zip(even.iter().zip(odd)) {
                *out = [even, odd];
            }
        }
    });
}
