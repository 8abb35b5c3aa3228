//! The kernels for AVX2, and for AVX-512 without VNNI, IFMA and VBMI: one text, two widths.
//!
//! Floors for a standard shard of four packs, per query. Scan: 13.3 M `vpmaddwd` and as many
//! `vpaddd` on 256 bits, half of each on 512 (three pairs for as many columns as a register has
//! bytes, see [`super::words`]). Pack: 8.4 M `vpmuludq` and as many `vpaddq` on 256 bits, half of
//! each on 512. The machine they were written on (Intel, 3.9 GHz) has three vector units of 256
//! bits, or two of 512: 5.9 G and 3.9 G such pairs a second, so scan 2.3 and 1.7 ms, pack 1.4 and
//! 1.1 ms. Reading matrix and tables is 16 ms a batch, so tiles prefetch what comes next.

#![expect(clippy::needless_range_loop, reason = "indices name the registers of a tile")]

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use super::EncryptedQuery;
use super::kernel::{
    BLOCK_SLOTS, CHUNK_TERMS, Chunk, Kernels, Line, PackJob, PackSums, Rounding, ScanJob,
    TERM_BYTES, pack_by_chunks, reduce_sums, round,
};
use super::words::{self, LINES, LOW_LINES, WordLine};
use crate::arith::{Isa, IsaName};
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;

/// The kernels of one width, and the proof that the processor has what they use.
pub(super) struct Avx<V>(PhantomData<V>);

impl<V: Vector> Avx<V> {
    /// Only where `isa` says so, and an `Isa` says so only where the processor has it.
    pub(super) fn new(isa: Isa) -> Option<Self> {
        (isa.name() == V::ISA).then_some(Self(PhantomData))
    }
}

impl<V: Vector> Kernels for Avx<V> {
    fn name(&self) -> &'static str {
        V::ISA.name()
    }

    fn digit_block(&self, columns: usize) -> usize {
        block_steps(columns) * 64
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

/// A register of one width, and the kernels compiled for it.
///
/// # Safety of all functions
/// The processor has the instruction set [`Vector::ISA`]. Pointers: a register's bytes are
/// readable, or writable, there, without alignment.
pub(super) trait Vector: Copy + Send + Sync {
    const ISA: IsaName;
    const BYTES: usize;
    /// Slots of a pack tile: one or two registers of 64-bit lanes.
    const SLOTS: usize;

    unsafe fn zero() -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    /// Lanes of 32 bits.
    unsafe fn add_32(self, other: Self) -> Self;
    /// Lanes of 32 bits up by 8.
    unsafe fn times_256(self) -> Self;
    /// Lanes of 64 bits.
    unsafe fn add_64(self, other: Self) -> Self;
    /// Products of signed words, added in pairs to lanes of 32 bits.
    unsafe fn multiply_words(self, other: Self) -> Self;
    /// Products of the low halves of lanes of 64 bits.
    unsafe fn multiply_low(self, other: Self) -> Self;
    /// What [`Vector::unpack`] needs for the tile at slot `slot`.
    unsafe fn unpack_index(slot: usize) -> [Self; 2];
    /// The residues of a term from slot `slot` as low halves of the 64-bit lanes of `out`, one
    /// register for each [`Vector::BYTES`] / 8 slots. Upper halves are anything.
    unsafe fn unpack(term: *const u8, slot: usize, index: &[Self; 2], out: &mut [Self]);

    unsafe fn scan(job: &ScanJob<'_>, out: &mut [u32]);
    unsafe fn pack(job: &PackJob<'_>, out: &mut [u32]);
    unsafe fn round(rounding: &Rounding<'_>, out: &mut [u32]);
    unsafe fn scan_tile<const QUERIES: usize>(tile: &ScanTile);
    unsafe fn pack_tile<const PACKS: usize, const QUERIES: usize>(tile: &PackTile<Self>);
}

/// A register's operations, and the kernels compiled for its instruction set.
macro_rules! vector {
    ($register:ty, $isa:ident, $features:literal, $slots:literal slots,
     scan tiles of $rows:literal rows, $load:ident, $store:ident,
     $($name:ident($($this:ident)? $(, $other:ident)?) = $intrinsic:expr,)* {$($unpack:tt)*}) => {
        impl Vector for $register {
            const ISA: IsaName = IsaName::$isa;
            const BYTES: usize = size_of::<$register>();
            const SLOTS: usize = $slots;

            $(
                #[inline(always)]
                unsafe fn $name($($this)? $(, $other: Self)?) -> Self {
                    // SAFETY: the caller's promise, here and below.
                    unsafe { $intrinsic($($this)? $(, $other)?) }
                }
            )*

            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: as above.
                unsafe { $load(from.cast()) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut u8) {
                // SAFETY: as above.
                unsafe { $store(to.cast(), self) }
            }

            $($unpack)*

            #[target_feature(enable = $features)]
            unsafe fn scan(job: &ScanJob<'_>, out: &mut [u32]) {
                // SAFETY: as above.
                unsafe { scan::<Self>(job, out, $rows) }
            }

            #[target_feature(enable = $features)]
            unsafe fn pack(job: &PackJob<'_>, out: &mut [u32]) {
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
            unsafe fn scan_tile<const QUERIES: usize>(tile: &ScanTile) {
                // SAFETY: as above.
                unsafe { tile.run::<Self, $rows, QUERIES>() }
            }

            #[target_feature(enable = $features)]
            unsafe fn pack_tile<const PACKS: usize, const QUERIES: usize>(tile: &PackTile<Self>) {
                // SAFETY: as above.
                unsafe { tile.run::<PACKS, QUERIES, { $slots * 8 / size_of::<Self>() }>() }
            }
        }
    };
}

/// `$body` with the number of queries as a constant.
macro_rules! by_queries {
    ($count:expr, $queries:ident => $body:expr) => {
        by_queries!(@ $count, $queries => $body, 1 2 3 4 5 6)
    };
    (@ $count:expr, $queries:ident => $body:expr, $($number:literal)*) => {
        match $count {
            $($number => {
                const $queries: usize = $number;
                $body
            })*
            _ => unreachable!("this is a bug: queries of a tile"),
        }
    };
}

/// Most queries of a tile: with 2 rows or packs 12 sums, with 4 rows 24.
const QUERIES_MAX: usize = 6;

/// The queries in tiles of nearly equal size: first and count of each.
fn query_tiles(queries: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = queries.div_ceil(QUERIES_MAX);
    (0..tiles).map(move |tile| {
        let first = tile * queries / tiles;
        (first, (tile + 1) * queries / tiles - first)
    })
}

vector! {
    __m256i, Avx2, "avx2", 4 slots, scan tiles of 2 rows,
    _mm256_loadu_si256, _mm256_storeu_si256,
    zero() = _mm256_setzero_si256,
    add_32(self, other) = _mm256_add_epi32,
    times_256(self) = _mm256_slli_epi32::<8>,
    add_64(self, other) = _mm256_add_epi64,
    multiply_words(self, other) = _mm256_madd_epi16,
    multiply_low(self, other) = _mm256_mul_epu32,
    {
    /// Both halves hold the same 16 bytes and take two residues each. Of 8 slots (24 bytes) the
    /// upper four are taken from the last 16 bytes, so that no load ends after the term.
    #[inline(always)]
    unsafe fn unpack_index(slot: usize) -> [Self; 2] {
        let begin = slot / 4 % 2 * 4;
        let places: [u8; 32] = std::array::from_fn(|byte| match byte % 8 {
            0..3 => (begin + byte / 8 * 3 + byte % 8) as u8,
            _ => 0x80,
        });
        // SAFETY: the caller's promise; the array is a register's bytes.
        unsafe { [Self::load(places.as_ptr()); 2] }
    }

    #[inline(always)]
    unsafe fn unpack(term: *const u8, slot: usize, index: &[Self; 2], out: &mut [Self]) {
        // SAFETY: the caller's promise; bytes 0..16 of 24, or 8..24.
        unsafe {
            let from = term.add(slot * 3 - slot / 4 % 2 * 4);
            let bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast()));
            out[0] = _mm256_shuffle_epi8(bytes, index[0]);
        }
    }
    }
}

vector! {
    __m512i, Avx512Bw, "avx512f,avx512bw,avx512dq,avx512vl", 16 slots, scan tiles of 4 rows,
    _mm512_loadu_si512, _mm512_storeu_si512,
    zero() = _mm512_setzero_si512,
    add_32(self, other) = _mm512_add_epi32,
    times_256(self) = _mm512_slli_epi32::<8>,
    add_64(self, other) = _mm512_add_epi64,
    multiply_words(self, other) = _mm512_madd_epi16,
    multiply_low(self, other) = _mm512_mul_epu32,
    {
    /// Two permutations for 16 residues: quarter i of the register gets the pairs of doublewords
    /// in which residues 2i, 2i + 1 and 8 + 2i, 9 + 2i begin, then their bytes; the first eight
    /// become low halves, the last eight upper halves. Slots 16.. are the last 48 of the 64 bytes
    /// from byte 32, so that no load ends after the term.
    #[inline(always)]
    unsafe fn unpack_index(slot: usize) -> [Self; 2] {
        let begin = slot / 16 * 16;
        let double_words: [u32; 16] = std::array::from_fn(|at| {
            let first = at / 4 * 6 + at / 2 % 2 * 24; // byte of the term part
            (begin / 4 + first / 4 + at % 2) as u32
        });
        let places: [u8; 64] = std::array::from_fn(|byte| {
            let first = byte / 16 * 6 % 4; // of the quarter's first residue in its double words
            let residue = byte % 16 / 8 * 3 + byte % 8 / 4 * 8;
            match byte % 4 {
                3 => 0x80,
                byte => (first + residue + byte) as u8,
            }
        });
        // SAFETY: the caller's promise; each array is a register's bytes.
        unsafe { [Self::load(double_words.as_ptr().cast()), Self::load(places.as_ptr())] }
    }

    #[inline(always)]
    unsafe fn unpack(term: *const u8, slot: usize, index: &[Self; 2], out: &mut [Self]) {
        // SAFETY: the caller's promise; bytes 0..64 of 96, or 32..96.
        unsafe {
            let bytes = Self::load(term.add(slot * 2));
            let pairs = _mm512_permutexvar_epi32(index[0], bytes);
            out[0] = _mm512_shuffle_epi8(pairs, index[1]);
            out[1] = _mm512_srli_epi64::<32>(out[0]);
        }
    }
    }
}

// ---- scan --------------------------------------------------------------------------------------

/// Rows that are spread to words together. The query digits stay in the first cache for all of
/// them.
const STRIP_ROWS: usize = 16;
/// Steps of 64 columns that are words at a time: 16 rows are 18 KB then, the digits of six queries
/// 7 KB.
const STEPS_MAX: usize = 6;

/// Steps of a block of columns: blocks are nearly equal.
fn block_steps(columns: usize) -> usize {
    let steps = columns / 64;
    steps.div_ceil(steps.div_ceil(STEPS_MAX))
}

/// Plan: strips of 16 rows; within a strip blocks of columns, turned into words once for all
/// queries; within a block tiles of rows x queries. On 256 bits a tile is 2 rows x 6 queries, 12
/// sums, fed by 8 loads for 12 `vpmaddwd`; on 512 bits 4 rows.
///
/// # Safety
/// [`Vector::ISA`]; `job` is checked.
#[inline(always)]
unsafe fn scan<V: Vector>(job: &ScanJob<'_>, out: &mut [u32], tile_rows: usize) {
    assert!(job.rows.is_multiple_of(STRIP_ROWS), "this is a bug: rows of a scan job");
    assert!(job.queries <= BATCH_QUERIES_PER_SCAN_MAX, "this is a bug: batch");
    let (steps, block_steps) = (job.columns / 64, block_steps(job.columns));
    let mut low = [[WordLine::ZERO; STEPS_MAX * LOW_LINES]; STRIP_ROWS];
    let mut high = [[WordLine::ZERO; STEPS_MAX]; STRIP_ROWS];
    let mut sums = [[Line([0; 64]); STRIP_ROWS]; BATCH_QUERIES_PER_SCAN_MAX];
    for strip in (0..job.rows).step_by(STRIP_ROWS) {
        sums[..job.queries].fill([Line([0; 64]); STRIP_ROWS]);
        for first in (0..steps).step_by(block_steps) {
            let count = block_steps.min(steps - first);
            let begin = (job.first_row + strip) * job.columns + first * 64;
            for (row, (low, high)) in low.iter_mut().zip(&mut high).enumerate() {
                let columns = &job.matrix[begin + row * job.columns..][..count * 64];
                words::spread(columns, low, high);
            }
            for (query, queries) in query_tiles(job.queries) {
                let digits = &job.digits[(first * job.queries + query * count) * LINES..];
                for row in (0..STRIP_ROWS).step_by(tile_rows) {
                    let next = begin + (STRIP_ROWS + row) * job.columns;
                    let tile = ScanTile {
                        row,
                        count,
                        low: low[row..].as_flattened().as_ptr(),
                        high: high[row..].as_flattened().as_ptr(),
                        digits: digits.as_ptr(),
                        next: job.matrix.as_ptr().wrapping_add(next),
                        next_stride: job.columns,
                        sums: sums[query..query + queries].as_mut_ptr(),
                    };
                    // SAFETY: the caller's promise; `ScanJob::check`: `queries` queries from
                    // `query` have digits for `count` steps from `first`.
                    unsafe { by_queries!(queries, QUERIES => V::scan_tile::<QUERIES>(&tile)) }
                }
            }
        }
        for (query, sums) in sums[..job.queries].iter().enumerate() {
            let out = &mut out[query * job.rows + strip..][..STRIP_ROWS];
            for (out, line) in out.iter_mut().zip(sums) {
                let lanes = line.0.as_chunks().0.iter().map(|&lane| u32::from_ne_bytes(lane));
                *out = lanes.fold(0, u32::wrapping_add) & 0x00ff_ffff;
            }
        }
    }
}

/// `count` steps of 64 columns of some rows of a strip and some queries.
pub(super) struct ScanTile {
    /// First row, in the strip.
    row: usize,
    count: usize,
    /// The first row's low lines; STEPS_MAX * LOW_LINES on, the next row's.
    low: *const WordLine,
    /// The first row's high lines; STEPS_MAX on, the next row's.
    high: *const WordLine,
    /// The first query's lines, then those of the queries after it.
    digits: *const Line,
    /// The same columns of the same rows of the next strip: for prefetching only.
    next: *const u8,
    next_stride: usize,
    /// The first query's.
    sums: *mut [Line; STRIP_ROWS],
}

impl ScanTile {
    /// Adds the products to lines `row`.. of `sums`, a line a row for each query: first those that
    /// count 256 times, then the others on top (see [`words`]).
    ///
    /// # Safety
    /// [`Vector::ISA`]; ROWS rows, QUERIES queries and their sums are there.
    #[inline(always)]
    unsafe fn run<V: Vector, const ROWS: usize, const QUERIES: usize>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut acc = [[V::zero(); ROWS]; QUERIES];
            let high_digits = self.digits.add(self.count * LOW_LINES);
            for step in 0..self.count {
                for row in 0..ROWS {
                    let line = self.next.wrapping_add(row * self.next_stride + step * 64);
                    _mm_prefetch::<_MM_HINT_T1>(line.cast());
                }
                let (entries, digits) = (self.high.add(step), high_digits.add(step));
                self.add_line(entries, STEPS_MAX, digits, &mut acc);
            }
            for acc in acc.as_flattened_mut() {
                *acc = acc.times_256();
            }
            for line in 0..self.count * LOW_LINES {
                let (entries, digits) = (self.low.add(line), self.digits.add(line));
                self.add_line(entries, STEPS_MAX * LOW_LINES, digits, &mut acc);
            }
            for query in 0..QUERIES {
                for row in 0..ROWS {
                    let sum = self.sums.add(query).cast::<Line>().add(self.row + row).cast::<u8>();
                    acc[query][row].add_32(V::load(sum)).store(sum);
                }
            }
        }
    }

    /// A line of every row, `stride` lines apart, times a line of every query.
    ///
    /// # Safety
    /// As [`ScanTile::run`], for these lines.
    #[inline(always)]
    unsafe fn add_line<V: Vector, const ROWS: usize, const QUERIES: usize>(
        &self,
        entries: *const WordLine,
        stride: usize,
        digits: *const Line,
        acc: &mut [[V; ROWS]; QUERIES],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            for at in (0..64).step_by(V::BYTES) {
                let mut rows = [V::zero(); ROWS];
                for row in 0..ROWS {
                    rows[row] = V::load(entries.add(row * stride).cast::<u8>().add(at));
                }
                for query in 0..QUERIES {
                    let from = digits.add(query * self.count * LINES).cast::<u8>();
                    let words = V::load(from.add(at));
                    for row in 0..ROWS {
                        acc[query][row] = acc[query][row].add_32(rows[row].multiply_words(words));
                    }
                }
            }
        }
    }
}

// ---- pack --------------------------------------------------------------------------------------

/// Packs of a tile, at most. On 256 bits a tile is 6 queries x 2 packs x 4 slots, 12 sums, fed by 2
/// `vpshufb` and 8 loads for 12 `vpmuludq`; on 512 bits 16 slots, 24 sums, 6 instructions that
/// unpack and 14 loads for 24.
const PACKS_MAX: usize = 2;

/// All sums of a job's block of slots.
type Sums = PackSums<PACKS_MAX>;

/// Adds the products of a chunk, all queries, tile by tile.
///
/// # Safety
/// [`Vector::ISA`]; the chunk's tables and windows are there.
#[inline(always)]
unsafe fn add_chunk<V: Vector>(
    job: &PackJob<'_>,
    chunk: &Chunk,
    indices: &[[V; 2]; 2],
    sums: &mut Sums,
) {
    let part_bytes = TERM_BYTES * V::SLOTS / BLOCK_SLOTS;
    let next = chunk.table + chunk.terms * TERM_BYTES;
    for (query, queries) in query_tiles(job.queries) {
        for part in 0..BLOCK_SLOTS / V::SLOTS {
            let slot = part * V::SLOTS;
            let tile = PackTile {
                slot,
                index: indices[part % 2],
                terms: chunk.terms,
                table: job.tables[chunk.table..].as_ptr(),
                table_bytes: job.table_bytes,
                keys: job.keys[query * job.key_words + chunk.key + slot..].as_ptr(),
                key_words: job.key_words,
                key_step: chunk.key_step,
                next: job.tables.as_ptr().wrapping_add(next + part * chunk.terms * part_bytes),
                sums: sums.0[query..query + queries].as_mut_ptr(),
            };
            // SAFETY: the caller's promise.
            unsafe {
                match chunk.packs {
                    1 => by_queries!(queries, QUERIES => V::pack_tile::<1, QUERIES>(&tile)),
                    _ => by_queries!(queries, QUERIES => V::pack_tile::<2, QUERIES>(&tile)),
                }
            }
        }
    }
}

/// Some slots of a chunk of terms, of some packs and queries.
pub(super) struct PackTile<V> {
    /// First slot, in the block.
    slot: usize,
    index: [V; 2],
    terms: usize,
    /// The first pack's.
    table: *const u8,
    table_bytes: usize,
    /// The first query's, at the first slot.
    keys: *const u64,
    key_words: usize,
    key_step: usize,
    /// This tile's share of the first pack's next chunk: for prefetching only.
    next: *const u8,
    /// The first query's.
    sums: *mut [[u64; BLOCK_SLOTS]; PACKS_MAX],
}

impl<V: Vector> PackTile<V> {
    /// Adds the products to `sums`, one a query.
    ///
    /// # Safety
    /// [`Vector::ISA`]; PACKS packs, QUERIES queries and their sums are there.
    #[inline(always)]
    unsafe fn run<const PACKS: usize, const QUERIES: usize, const VECTORS: usize>(&self) {
        let part_bytes = TERM_BYTES * V::SLOTS / BLOCK_SLOTS;
        // SAFETY: the caller's promise.
        unsafe {
            let mut acc = [[[V::zero(); VECTORS]; PACKS]; QUERIES];
            for term in 0..self.terms {
                let mut tables = [[V::zero(); VECTORS]; PACKS];
                for pack in 0..PACKS {
                    let next = self.next.wrapping_add(pack * self.table_bytes + term * part_bytes);
                    _mm_prefetch::<_MM_HINT_T1>(next.cast());
                    let from = self.table.add(pack * self.table_bytes + term * TERM_BYTES);
                    V::unpack(from, self.slot, &self.index, &mut tables[pack]);
                }
                for query in 0..QUERIES {
                    for v in 0..VECTORS {
                        let from = self.keys.add(query * self.key_words + term * self.key_step);
                        let keys = V::load(from.cast::<u8>().add(v * V::BYTES));
                        for pack in 0..PACKS {
                            let sum = &mut acc[query][pack][v];
                            *sum = sum.add_64(tables[pack][v].multiply_low(keys));
                        }
                    }
                }
            }
            for query in 0..QUERIES {
                for pack in 0..PACKS {
                    for v in 0..VECTORS {
                        let sum = self.sums.add(query).cast::<[u64; BLOCK_SLOTS]>().add(pack);
                        let sum = sum.cast::<u64>().add(self.slot).cast::<u8>().add(v * V::BYTES);
                        acc[query][pack][v].add_64(V::load(sum)).store(sum);
                    }
                }
            }
        }
    }
}
