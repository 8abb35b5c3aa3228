//! The kernels for AVX2, and for AVX-512 without VNNI, IFMA and VBMI: one text, two widths.
//!
//! Floors for a standard shard (8 packs), per query. Scan: 13.5 M `vpmaddwd` and as many `vpaddd`
//! on 256 bits, half of each on 512 (three pairs for as many columns as a register has bytes, see
//! [`super::words`]). Pack: 16.8 M `vpmuludq` and as many `vpaddq`. Reading matrix and tables is 345 MB a batch. An EPYC
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
use super::kernel::{
    BLOCK_SLOTS, CHUNK_TERMS, Chunk, Kernels, Line, PackJob, PackSums, Rounding, ScanJob,
    TERM_BYTES, pack_by_chunks, reduce_sums, round,
};
use super::words::{self, LINES};
use crate::arith::{Isa, IsaName};

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
    /// Slots that [`Vector::unpack`] unpacks: one or two registers of 64-bit lanes.
    const SLOTS: usize;
    /// How many times that a pack tile has, of one query and of more.
    const UNITS: [usize; 2];

    unsafe fn zero() -> Self;
    /// The lowest sign bit of each pair of bytes.
    unsafe fn sign() -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    /// Lanes of 32 bits.
    unsafe fn add_32(self, other: Self) -> Self;
    /// Words up by 8 bits.
    unsafe fn words_up(self) -> Self;
    /// Signed words down by 8 bits.
    unsafe fn words_down(self) -> Self;
    /// Every bit.
    unsafe fn xor(self, other: Self) -> Self;
    /// Lanes of 64 bits.
    unsafe fn add_64(self, other: Self) -> Self;
    /// Products of signed words, added in pairs to lanes of 32 bits.
    unsafe fn multiply_words(self, other: Self) -> Self;
    /// Products of the low halves of lanes of 64 bits.
    unsafe fn multiply_low(self, other: Self) -> Self;
    /// What [`Vector::unpack`] needs at slot `slot`.
    unsafe fn unpack_index(slot: usize) -> [Self; 2];
    /// The residues of a term from slot `slot` as low halves of the 64-bit lanes of `out`, one
    /// register for each [`Vector::BYTES`] / 8 slots. Upper halves are anything.
    unsafe fn unpack(term: *const u8, slot: usize, index: &[Self; 2], out: &mut [Self]);

    unsafe fn scan(job: &ScanJob<'_>, out: &mut [u32]);
    unsafe fn pack(job: &PackJob<'_>, out: &mut [u32]);
    unsafe fn round(rounding: &Rounding<'_>, out: &mut [u32]);
    unsafe fn scan_tile<const ROWS: usize, const QUERIES: usize>(tile: &ScanTile);
    unsafe fn pack_tile<const PACKS: usize, const QUERIES: usize>(tile: &PackTile<Self>);
}

/// A register's operations, and the kernels compiled for its instruction set.
macro_rules! vector {
    ($register:ty, $isa:ident, $features:literal, $slots:literal slots in tiles of
     $lone:literal or $few:literal, $load:ident, $store:ident,
     $($name:ident($($this:ident)? $(, $other:ident)?) = $intrinsic:expr,)* {$($unpack:tt)*}) => {
        impl Vector for $register {
            const ISA: IsaName = IsaName::$isa;
            const BYTES: usize = size_of::<$register>();
            const SLOTS: usize = $slots;
            const UNITS: [usize; 2] = [$lone, $few];

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
                unsafe { scan::<Self>(job, out) }
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
            unsafe fn scan_tile<const ROWS: usize, const QUERIES: usize>(tile: &ScanTile) {
                // SAFETY: as above.
                unsafe { tile.run::<Self, ROWS, QUERIES>() }
            }

            #[target_feature(enable = $features)]
            unsafe fn pack_tile<const PACKS: usize, const QUERIES: usize>(tile: &PackTile<Self>) {
                const VECTORS: usize = $slots * 8 / size_of::<$register>();
                // SAFETY: as above.
                unsafe {
                    match QUERIES {
                        1 => tile.run::<PACKS, QUERIES, $lone, VECTORS>(),
                        _ => tile.run::<PACKS, QUERIES, $few, VECTORS>(),
                    }
                }
            }
        }
    };
}

/// The queries in tiles of nearly equal size: first and count of each.
fn query_tiles(queries: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = queries.div_ceil(most);
    (0..tiles).map(move |tile| {
        let first = tile * queries / tiles;
        (first, (tile + 1) * queries / tiles - first)
    })
}

vector! {
    __m256i, Avx2, "avx2", 4 slots in tiles of 4 or 2,
    _mm256_loadu_si256, _mm256_storeu_si256,
    zero() = _mm256_setzero_si256,
    sign() = || _mm256_set1_epi16(0x80),
    add_32(self, other) = _mm256_add_epi32,
    words_up(self) = _mm256_slli_epi16::<8>,
    words_down(self) = _mm256_srai_epi16::<8>,
    xor(self, other) = _mm256_xor_si256,
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
    __m512i, Avx512Bw, "avx512f,avx512bw,avx512dq,avx512vl", 16 slots in tiles of 2 or 1,
    _mm512_loadu_si512, _mm512_storeu_si512,
    zero() = _mm512_setzero_si512,
    sign() = || _mm512_set1_epi16(0x80),
    add_32(self, other) = _mm512_add_epi32,
    words_up(self) = _mm512_slli_epi16::<8>,
    words_down(self) = _mm512_srai_epi16::<8>,
    xor(self, other) = _mm512_xor_si512,
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

/// How far ahead of what is multiplied memory is read, to the first cache and to the second. The
/// first is within what the processor has in flight; the second is what keeps memory busy.
const AHEAD_NEAR: usize = 1024;
const AHEAD_FAR: usize = 8192;

/// Queries of a tile, at most. On 256 bits two rows make six sums then; more are slower.
const SCAN_QUERIES: usize = 3;

/// Plan: whole rows, a few at a time, each from its own run of the job's rows, so that memory is
/// read in few long runs. Queries follow each other, three at a time, while the rows are in the
/// first cache; their digits come from the second.
///
/// # Safety
/// [`Vector::ISA`]; `job` is checked.
#[inline(always)]
unsafe fn scan<V: Vector>(job: &ScanJob<'_>, out: &mut [u32]) {
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

/// Packs of a tile, at most: they share the key words.
const PACKS_MAX: usize = 2;
/// Queries of a tile, at most: they share the unpacked tables.
const PACK_QUERIES: usize = 3;

/// All sums of a job's block of slots.
type Sums = PackSums<PACKS_MAX>;

/// Adds the products of a chunk, all queries, tile by tile. On 256 bits a tile of one query has 16
/// slots of two packs, one of two or three 8 slots: 8 to 12 sums, fed by one `vpshufb` for each
/// register of a table. The first query's tiles prefetch, each an equal part of what is to come.
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
    for (query, queries) in query_tiles(job.queries, PACK_QUERIES) {
        let slots = V::SLOTS * V::UNITS[usize::from(queries > 1)];
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
                    (2, 1) => V::pack_tile::<2, 1>(&tile),
                    (2, 2) => V::pack_tile::<2, 2>(&tile),
                    (2, 3) => V::pack_tile::<2, 3>(&tile),
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
