//! The kernels for AArch64 with the dot product of bytes (`sdot`: Armv8.2 and later servers).
//!
//! Floors, standard shard of four packs, per query: scan 26.5 M `sdot` (141.6 M multiply-adds on
//! three digits, 16 at once); pack 16.8 M `umlal` (33.5 M products of 24 bits, two at once). A
//! clock takes 4 and 2 of them on Neoverse V2 (Arm's Software Optimization Guide, document 109898,
//! table 3-15), 2 and 1 on Neoverse N2 (LLVM's AArch64SchedNeoverseN2.td): 15.0 M clocks a query,
//! or 30.1 M.
//!
//! Written and tested under emulation, never timed: there was no such machine. Sizes are for the
//! 64 KB first cache of these processors, and prefetching is left to them.

#![expect(clippy::needless_range_loop, reason = "indices name the registers of a tile")]

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::EncryptedQuery;
use super::kernel::{
    BLOCK_SLOTS, CHUNK_PACKS, CHUNK_TERMS, Chunk, DIGITS, Kernels, Line, PackJob, PackSums,
    ScanJob, TERM_BYTES, pack_by_chunks, reduce_sums,
};
use crate::arith::{Isa, IsaName};

/// Proof that the processor has what these kernels use.
pub(super) struct Neon(());

impl Neon {
    /// Only where `isa` says NEON, and an `Isa` says so only where the processor has it.
    pub(super) fn new(isa: Isa) -> Option<Self> {
        (isa.name() == IsaName::Neon).then_some(Self(()))
    }
}

impl Kernels for Neon {
    fn name(&self) -> &'static str {
        "neon"
    }

    fn split_digits(&self, queries: &[EncryptedQuery], columns: Range<usize>, digits: &mut [Line]) {
        let lines = columns.len() / 64 * DIGITS;
        for (query, digits) in queries.iter().zip(digits.chunks_exact_mut(lines)) {
            let vector = &query.vector[columns.start * 3..columns.end * 3];
            assert_eq!(vector.len(), digits.len() * 64, "this is a bug: query length");
            // SAFETY: `self` exists only where the processor has these instructions.
            unsafe { split_digits(vector, digits) }
        }
    }

    fn scan(&self, job: &ScanJob<'_>, out: &mut [u32]) {
        job.check(self.digit_lines(job.queries), out);
        // SAFETY: `self` exists only where the processor has these instructions, and `check` has
        // compared the slices with the numbers.
        unsafe { scan(job, out) }
    }

    fn pack(&self, job: &PackJob<'_>, out: &mut [u32]) {
        job.check(out);
        // SAFETY: as above.
        unsafe { pack(job, out) }
    }
}

// ---- query digits ------------------------------------------------------------------------------

/// Columns of a register.
const COLUMNS: usize = 16;

/// `sdot` wants signed bytes on both sides: v = d0 + 2^8 d1 + 2^16 d2 modulo 2^24 with digits in
/// -128..128. A digit of 128 or more is taken down by 256, and the next one up by one; the last
/// carry is a multiple of 2^24. Layout: `[column / 16][digit][16 columns]`.
#[target_feature(enable = "neon,dotprod")]
fn split_digits(vector: &[u8], digits: &mut [Line]) {
    const BYTES: usize = COLUMNS * DIGITS;
    let lines = digits.as_mut_ptr().cast::<u8>();
    for (index, bytes) in vector.chunks_exact(BYTES).enumerate() {
        // SAFETY: 48 bytes are three registers, and there are as many bytes of digits as of query.
        unsafe {
            let uint8x16x3_t(low, mid, high) = vld3q_u8(bytes.as_ptr());
            let carry = vcgtq_u8(low, vdupq_n_u8(127)); // minus one in each lane that carries
            let d1 = vsubq_u8(mid, carry);
            let carry = vcgtq_u8(mid, vaddq_u8(vdupq_n_u8(127), carry));
            let d2 = vsubq_u8(high, carry);
            let out = lines.add(index * BYTES);
            vst1q_u8_x3(out, uint8x16x3_t(low, d1, d2));
        }
    }
}

// ---- scan --------------------------------------------------------------------------------------

/// Rows that share one stay of the query digits in the first cache.
const STRIP_ROWS: usize = 16;
/// Steps of 64 columns in a block: 16 rows and the digits of two queries over 32 steps are 45 KB.
const STEPS_MAX: usize = 32;

/// Plan: strips of 16 rows; within a strip blocks of columns; within a block the queries in pairs,
/// each pair against tiles of 4 rows. A tile is 4 rows x 2 queries x 3 digits = 24 accumulators,
/// fed by 10 loads for 24 `sdot`. A lone query takes tiles of 8 rows.
#[target_feature(enable = "neon,dotprod")]
fn scan(job: &ScanJob<'_>, out: &mut [u32]) {
    assert!(job.rows.is_multiple_of(STRIP_ROWS), "this is a bug: rows of a scan job");
    let steps = job.columns / 64;
    let block_steps = steps.div_ceil(steps.div_ceil(STEPS_MAX));
    out.fill(0);
    for strip in (0..job.rows).step_by(STRIP_ROWS) {
        for first in (0..steps).step_by(block_steps) {
            let count = block_steps.min(steps - first);
            scan_block(job, strip, first, count, out);
        }
    }
    out.iter_mut().for_each(|sum| *sum &= 0x00ff_ffff);
}

/// One block of columns of one strip of rows, all queries.
#[target_feature(enable = "neon,dotprod")]
fn scan_block(job: &ScanJob<'_>, strip: usize, first: usize, count: usize, out: &mut [u32]) {
    let steps = job.columns / 64;
    let matrix = job.matrix[(job.first_row + strip) * job.columns + first * 64..].as_ptr();
    let block = Block { matrix, stride: job.columns, count };
    let digits = |query: usize| job.digits[(query * steps + first) * DIGITS..].as_ptr().cast();
    for query in (0..job.queries).step_by(2) {
        let at = query * job.rows + strip;
        // SAFETY: `ScanJob::check`: STRIP_ROWS rows lie in the matrix from `first_row + strip`,
        // `count` steps from `first` end with the row, and every query has digits for them.
        unsafe {
            if query + 1 == job.queries {
                for row in (0..STRIP_ROWS).step_by(8) {
                    let [sums] = block.tile::<8, 1>([digits(query)], row);
                    add(&mut out[at + row..], &sums);
                }
                continue;
            }
            for row in (0..STRIP_ROWS).step_by(4) {
                let [a, b] = block.tile::<4, 2>([digits(query), digits(query + 1)], row);
                add(&mut out[at + row..], &a);
                add(&mut out[at + job.rows + row..], &b);
            }
        }
    }
}

fn add(out: &mut [u32], sums: &[u32]) {
    out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = out.wrapping_add(sum));
}

/// `count` steps of 64 columns of a strip of rows.
struct Block {
    matrix: *const u8,
    stride: usize,
    count: usize,
}

impl Block {
    /// ROWS rows from `row` times QUERIES queries, modulo 2^32. Not inlined: the loop needs the
    /// registers to itself.
    ///
    /// # Safety
    /// The block's rows, and DIGITS * `count` lines of each query, are readable.
    #[inline(never)]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn tile<const ROWS: usize, const QUERIES: usize>(
        &self,
        digits: [*const i8; QUERIES],
        row: usize,
    ) -> [[u32; ROWS]; QUERIES] {
        let matrix = self.matrix.wrapping_add(row * self.stride).cast::<i8>();
        let mut acc = [[[vdupq_n_s32(0); DIGITS]; ROWS]; QUERIES];
        for step in 0..self.count {
            for part in 0..64 / COLUMNS {
                let column = step * 64 + part * COLUMNS;
                // SAFETY: the caller's promise.
                unsafe {
                    let mut factors = [[vdupq_n_s8(0); DIGITS]; QUERIES];
                    for query in 0..QUERIES {
                        for digit in 0..DIGITS {
                            let at = column * DIGITS + digit * COLUMNS;
                            factors[query][digit] = vld1q_s8(digits[query].add(at));
                        }
                    }
                    for row in 0..ROWS {
                        let entries = vld1q_s8(matrix.add(row * self.stride + column));
                        for query in 0..QUERIES {
                            for digit in 0..DIGITS {
                                let sum = &mut acc[query][row][digit];
                                *sum = dot(*sum, entries, factors[query][digit]);
                            }
                        }
                    }
                }
            }
        }
        acc.map(|rows| {
            rows.map(|sums| {
                let [low, mid, high] = sums.map(|sum| vreinterpretq_u32_s32(sum));
                let upper = vaddq_u32(mid, vshlq_n_u32::<8>(high));
                vaddvq_u32(vaddq_u32(low, vshlq_n_u32::<8>(upper)))
            })
        })
    }
}

/// Four products of signed bytes added to each lane, modulo 2^32. The intrinsic, `vdotq_s32`, is
/// not stable in Rust 1.95.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: works on registers only.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

// ---- pack --------------------------------------------------------------------------------------

/// Slots of a register.
const SLOTS: usize = 4;
/// All sums of a job's block of slots.
type Sums = PackSums<CHUNK_PACKS>;

/// Within a chunk tiles of 2 queries x 4 packs x 4 slots = 16 accumulators: 4 loads and `tbl` of
/// tables, 4 loads and 2 `uzp1` of keys for 16 `umlal`, which then bind: they have half as many
/// units as the rest. Fewer packs take more slots instead.
#[target_feature(enable = "neon,dotprod")]
fn pack(job: &PackJob<'_>, out: &mut [u32]) {
    // SAFETY: `pack_by_chunks` says where a chunk's terms and windows lie.
    let add = |chunk: &Chunk, sums: &mut Sums| unsafe {
        let tiles = ChunkTiles { job, chunk, table: job.tables[chunk.table..].as_ptr() };
        match chunk.packs {
            4 => tiles.all::<4, 1>(sums),
            2 => tiles.all::<2, 2>(sums),
            _ => tiles.all::<1, 4>(sums),
        }
    };
    pack_by_chunks::<CHUNK_PACKS, CHUNK_TERMS>(job, out, add, |sums, out| {
        reduce_sums(sums, job.prime, out);
    });
}

/// The tiles of a chunk.
struct ChunkTiles<'a> {
    job: &'a PackJob<'a>,
    chunk: &'a Chunk,
    table: *const u8,
}

impl ChunkTiles<'_> {
    /// All queries and slots, PACKS packs and VECS registers of slots at a time, PACKS * VECS = 4.
    ///
    /// # Safety
    /// PACKS packs' tables and every query's windows are readable over the chunk.
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn all<const PACKS: usize, const VECS: usize>(&self, sums: &mut Sums) {
        const { assert!(PACKS * VECS == 4) };
        for query in (0..self.job.queries).step_by(2) {
            for slot in (0..BLOCK_SLOTS).step_by(VECS * SLOTS) {
                // SAFETY: the caller's promise.
                unsafe {
                    match self.job.queries - query {
                        1 => self.tile::<PACKS, 1, VECS>(query, slot, sums),
                        _ => self.tile::<PACKS, 2, VECS>(query, slot, sums),
                    }
                }
            }
        }
    }

    /// QUERIES queries from `query`, PACKS packs, VECS registers of slots from `slot`, added to
    /// `sums`. Not inlined: the loop needs the registers to itself.
    ///
    /// # Safety
    /// PACKS packs' tables and the windows of these queries are readable over the chunk.
    #[inline(never)]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn tile<const PACKS: usize, const QUERIES: usize, const VECS: usize>(
        &self,
        query: usize,
        slot: usize,
        sums: &mut Sums,
    ) {
        let Self { job, chunk, table } = *self;
        let keys = job.keys[query * job.key_words + chunk.key + slot..].as_ptr();
        let places: [_; VECS] = std::array::from_fn(|v| places(slot + v * SLOTS));
        let mut acc = [[[[vdupq_n_u64(0); 2]; VECS]; PACKS]; QUERIES];
        for term in 0..chunk.terms {
            let bytes = table.wrapping_add(term * TERM_BYTES);
            for v in 0..VECS {
                // SAFETY: the caller's promise; `load_at` stays 16 bytes below the term's end.
                unsafe {
                    let from = bytes.add(load_at(slot + v * SLOTS));
                    let mut words = [vdupq_n_u32(0); PACKS];
                    for pack in 0..PACKS {
                        let load = vld1q_u8(from.add(pack * job.table_bytes));
                        words[pack] = vreinterpretq_u32_u8(vqtbl1q_u8(load, places[v]));
                    }
                    for query in 0..QUERIES {
                        let at = query * job.key_words + term * chunk.key_step + v * SLOTS;
                        let key: *const u32 = keys.add(at).cast();
                        let key = vuzp1q_u32(vld1q_u32(key), vld1q_u32(key.add(4)));
                        for pack in 0..PACKS {
                            let [low, high] = &mut acc[query][pack][v];
                            let word = words[pack];
                            *low = vmlal_u32(*low, vget_low_u32(word), vget_low_u32(key));
                            *high = vmlal_high_u32(*high, word, key);
                        }
                    }
                }
            }
        }
        for (acc, sums) in acc.iter().zip(&mut sums.0[query..query + QUERIES]) {
            for (acc, sums) in acc.iter().zip(sums) {
                let pairs = sums[slot..slot + VECS * SLOTS].chunks_exact_mut(2);
                for (&acc, pair) in acc.as_flattened().iter().zip(pairs) {
                    // SAFETY: two words of 8 bytes are a register.
                    unsafe {
                        let pair = pair.as_mut_ptr();
                        vst1q_u64(pair, vaddq_u64(acc, vld1q_u64(pair)));
                    }
                }
            }
        }
    }
}

/// Where in a term's bytes the 16 begin that hold slots `slot..slot + 4`: never beyond its end.
fn load_at(slot: usize) -> usize {
    (slot * 3).min(TERM_BYTES - 16)
}

/// Where the three bytes of each of four slots are in those 16; 255 makes a zero.
#[target_feature(enable = "neon,dotprod")]
fn places(slot: usize) -> uint8x16_t {
    let begin = slot * 3 - load_at(slot);
    let place = |byte: usize| if byte % 4 < 3 { begin + byte / 4 * 3 + byte % 4 } else { 255 };
    let places: [u8; 16] = std::array::from_fn(|byte| place(byte) as u8);
    // SAFETY: 16 bytes are a register.
    unsafe { vld1q_u8(places.as_ptr()) }
}
