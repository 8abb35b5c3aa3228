//! The kernels for AVX-512 with VNNI, IFMA and VBMI.
//!
//! Floors on one core of the machine they were written on (both instructions twice a cycle, 7.5 G
//! a second; memory 15 GB/s), for a standard shard of four packs, per query: scan 6.6 M `vpdpbusd`,
//! 0.89 ms; pack 4.2 M `vpmadd52luq`, 0.56 ms; reading matrix and tables 16 ms a batch. So one
//! query is bound by memory and sixteen by arithmetic, and the kernels must keep both going at
//! once: each prefetches what the next job reads while it multiplies.

#![expect(clippy::needless_range_loop, reason = "indices name the registers of a tile")]

use std::arch::x86_64::*;
use std::ops::Range;

use super::EncryptedQuery;
use super::kernel::{
    BLOCK_SLOTS, CHUNK_PACKS, CHUNK_TERMS, Chunk, DIGITS, Kernels, Line, PackJob, PackSums,
    Rounding, ScanJob, TERM_BYTES, pack_by_chunks, round,
};
use crate::arith::Isa;
use crate::limits;

/// Proof that the processor has what these kernels use.
pub(super) struct Avx512(());

impl Avx512 {
    /// Only where `isa` says AVX-512, and an `Isa` says so only where the processor has it.
    pub(super) fn new(isa: Isa) -> Option<Self> {
        isa.has_avx512().then_some(Self(()))
    }
}

impl Kernels for Avx512 {
    fn name(&self) -> &'static str {
        "avx512"
    }

    fn digit_block(&self, _columns: usize) -> usize {
        BLOCK_STEPS * 64
    }

    fn split_digits(&self, queries: &[EncryptedQuery], columns: Range<usize>, digits: &mut [Line]) {
        // SAFETY: `self` exists only where the processor has these instructions.
        unsafe { split_digits(queries, columns, digits) }
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

    fn round(&self, rounding: &Rounding<'_>, out: &mut [u32]) {
        // SAFETY: `self` exists only where the processor has these instructions.
        unsafe { round_wide(rounding, out) }
    }
}

/// The shared function, compiled for wide registers.
#[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
fn round_wide(rounding: &Rounding<'_>, out: &mut [u32]) {
    round(rounding, out);
}

// ---- query digits ------------------------------------------------------------------------------

/// `[pair of queries][column / 64][query of the pair][digit]`
#[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
fn split_digits(queries: &[EncryptedQuery], columns: Range<usize>, lines: &mut [Line]) {
    let places = DigitPlaces::new();
    let (mut steps, _) = lines.as_chunks_mut();
    for pair in queries.chunks(2) {
        for column in columns.clone().step_by(64) {
            for query in pair {
                let Some(step) = steps.split_off_first_mut() else { return };
                places.split_digits(&query.vector[column * 3..][..192], step);
            }
        }
    }
}

/// Which bytes of 64 columns go to which digit.
pub(super) struct DigitPlaces {
    index: [[u8; 64]; DIGITS],
    /// Those that come from the last 64 of the 192 bytes.
    last: [u64; DIGITS],
}

impl DigitPlaces {
    pub(super) fn new() -> Self {
        let mut places = Self { index: [[0; 64]; DIGITS], last: [0; DIGITS] };
        for digit in 0..DIGITS {
            for (column, place) in places.index[digit].iter_mut().enumerate() {
                let byte = 3 * column + digit;
                *place = (byte % 128) as u8;
                places.last[digit] |= u64::from(byte >= 128) << column;
            }
        }
        places
    }

    /// Splits 192 bytes, 64 columns, into a line for each digit. It takes 1% of a scan.
    #[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
    pub(super) fn split_digits(&self, bytes: &[u8], lines: &mut [Line; DIGITS]) {
        assert_eq!(bytes.len(), 64 * DIGITS, "this is a bug: bytes of 64 columns");
        // SAFETY: 192 bytes are three unaligned loads of 64, a line is one aligned store.
        unsafe {
            let [a, b, c] = [0, 64, 128].map(|at| _mm512_loadu_epi8(bytes.as_ptr().add(at).cast()));
            for (digit, line) in lines.iter_mut().enumerate() {
                let places = _mm512_loadu_epi8(self.index[digit].as_ptr().cast());
                let front = _mm512_permutex2var_epi8(a, places, b);
                let all = _mm512_mask_permutexvar_epi8(front, self.last[digit], places, c);
                _mm512_store_si512(line.0.as_mut_ptr().cast(), all);
            }
        }
    }
}

// ---- scan --------------------------------------------------------------------------------------

/// Rows that share one stay of the query digits in the first cache.
const STRIP_ROWS: usize = 16;
/// Steps of 64 columns before a tile of accumulators is put down: 16 rows and the digits of two
/// queries over 18 steps are 25 KB, within the first cache of every processor that has these
/// instructions. Even: a tile takes steps in twos.
const BLOCK_STEPS: usize = 18;

/// Lines that each of the two tiles of a lone query prefetches in two steps: half of the next
/// block, straight to the first cache, where there is room beside the digits of one query.
const LONE_AHEAD: usize = 16;

/// Accumulators of one strip of rows: 16 lanes for each query and row.
#[repr(C, align(64))]
struct ScanSums([[[u32; 16]; STRIP_ROWS]; limits::BATCH_QUERIES_PER_SCAN_MAX]);

/// Plan: strips of 16 rows; within a strip blocks of columns; within a block the queries in pairs,
/// each pair against tiles of 4 rows. A tile is 4 rows x 2 queries x 3 digits = 24 accumulators,
/// fed by 10 loads for 24 `vpdpbusd`. A lone query takes tiles of 8 rows.
#[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
fn scan(job: &ScanJob<'_>, out: &mut [u32]) {
    assert!(job.rows.is_multiple_of(STRIP_ROWS), "this is a bug: rows of a scan job");
    let steps = job.columns / 64;
    let mut sums = ScanSums([[[0; 16]; STRIP_ROWS]; limits::BATCH_QUERIES_PER_SCAN_MAX]);
    for strip in (0..job.rows).step_by(STRIP_ROWS) {
        sums.0[..job.queries].fill([[0; 16]; STRIP_ROWS]);
        for first in (0..steps).step_by(BLOCK_STEPS) {
            let count = BLOCK_STEPS.min(steps - first);
            scan_block(job, job.first_row + strip, first, count, &mut sums);
        }
        for (query, sums) in sums.0[..job.queries].iter().enumerate() {
            let at = query * job.rows + strip;
            sum_lanes(sums, &mut out[at..at + STRIP_ROWS]);
        }
    }
}

/// The 16 lanes of each of 16 rows added up modulo 2^24: a transposition that adds as it goes.
#[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
fn sum_lanes(sums: &[[u32; 16]; STRIP_ROWS], out: &mut [u32]) {
    // SAFETY: 16 lanes of 4 bytes are a register.
    let rows: [_; STRIP_ROWS] =
        std::array::from_fn(|row| unsafe { _mm512_loadu_si512(sums[row].as_ptr().cast()) });
    let pairs: [_; 8] = std::array::from_fn(|i| {
        let (a, b) = (rows[2 * i], rows[2 * i + 1]);
        _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
    });
    let fours: [_; 4] = std::array::from_fn(|i| {
        let (a, b) = (pairs[2 * i], pairs[2 * i + 1]);
        _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
    });
    let quarters = |a, b| {
        let (even, odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        _mm512_add_epi32(even, odd)
    };
    let all = quarters(quarters(fours[0], fours[1]), quarters(fours[2], fours[3]));
    let all = _mm512_and_si512(all, _mm512_set1_epi32(0x00ff_ffff));
    assert_eq!(out.len(), STRIP_ROWS, "this is a bug: scan output");
    // SAFETY: `out` is 16 lanes of 4 bytes.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), all) };
}

/// One block of columns of one strip of rows, all queries. Meanwhile the same block of the next
/// strip is prefetched from memory, evenly over the tiles: the same few buffers bring lines from
/// memory and from the second cache, and a burst would hold up the loads of the tiles.
#[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
fn scan_block(job: &ScanJob<'_>, row: usize, first: usize, count: usize, sums: &mut ScanSums) {
    let matrix = job.matrix[row * job.columns + first * 64..].as_ptr();
    let block = Block { matrix, stride: job.columns, count };
    let mut lines = job.digits[first * job.queries * DIGITS..].as_ptr();
    let pairs = job.queries / 2;
    let tiles = pairs * (STRIP_ROWS / 4);
    let sharing = 1 << tiles.max(1).ilog2(); // the tiles that prefetch, a power of two
    for tile in 0..tiles {
        let (query, row) = (tile / 4 * 2, tile % 4 * 4);
        let near = lines.wrapping_add((8 + tile % 4) * count / 2 * DIGITS);
        let ahead = block.ahead(tile, sharing, near);
        let sums = &mut sums.0[query..query + 2];
        // SAFETY: `ScanJob::check`: STRIP_ROWS rows from `row` lie in the matrix, `count` steps
        // from `first` end with the row, and every query has digits for them.
        unsafe {
            match sharing {
                _ if tile >= sharing => block.tile::<4, 2, 0>(lines, row, ahead, sums),
                ..=4 => block.tile::<4, 2, 8>(lines, row, ahead, sums),
                5..=8 => block.tile::<4, 2, 4>(lines, row, ahead, sums),
                9..=16 => block.tile::<4, 2, 2>(lines, row, ahead, sums),
                _ => block.tile::<4, 2, 1>(lines, row, ahead, sums),
            }
        }
        if tile % 4 == 3 {
            lines = lines.wrapping_add(2 * count * DIGITS);
        }
    }
    if !job.queries.is_multiple_of(2) {
        for half in 0..2 {
            let ahead = block.ahead(half, 2, lines);
            let sums = &mut sums.0[2 * pairs..=2 * pairs];
            // SAFETY: as above.
            unsafe {
                match pairs {
                    0 => block.tile::<8, 1, LONE_AHEAD>(lines, half * 8, ahead, sums),
                    _ => block.tile::<8, 1, 0>(lines, half * 8, ahead, sums),
                }
            }
        }
    }
}

/// `count` steps of 64 columns of a strip of rows.
struct Block {
    matrix: *const u8,
    stride: usize,
    count: usize,
}

/// What a tile prefetches in two steps: of the next strip of rows, from memory to the second
/// cache, and of the digits that come next, from there to the first.
struct Ahead {
    rows: *const u8,
    advance: usize,
    digits: *const Line,
}

impl Block {
    /// Share `tile` of `sharing` of the same block of the next strip: whole rows, or an equal part
    /// of one.
    fn ahead(&self, tile: usize, sharing: usize, digits: *const Line) -> Ahead {
        let parts = (sharing / STRIP_ROWS).max(1);
        let row = STRIP_ROWS + tile * STRIP_ROWS / sharing;
        let begin = tile % parts * (self.count * 64 / parts);
        let rows = self.matrix.wrapping_add(row * self.stride + begin);
        Ahead { rows, advance: 128 / parts, digits }
    }

    /// ROWS rows from `row` times QUERIES queries, added to `sums`; prefetches AHEAD lines of rows
    /// in two steps. Not inlined: the loop needs the registers to itself.
    ///
    /// # Safety
    /// The block's rows, and DIGITS * QUERIES * `count` lines, are readable.
    #[inline(never)]
    #[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
    unsafe fn tile<const ROWS: usize, const QUERIES: usize, const AHEAD: usize>(
        &self,
        lines: *const Line,
        row: usize,
        ahead: Ahead,
        sums: &mut [[[u32; 16]; STRIP_ROWS]],
    ) {
        let matrix = self.matrix.wrapping_add(row * self.stride);
        let Ahead { mut rows, advance, mut digits } = ahead;
        let mut acc = [[[_mm512_setzero_si512(); DIGITS]; ROWS]; QUERIES];
        // SAFETY: the caller's promise, for steps below `count`.
        let mut step = |step: usize| unsafe {
            let load = |row: usize| matrix.add(row * self.stride + step * 64);
            let entries: [_; ROWS] = std::array::from_fn(|row| _mm512_loadu_epi8(load(row).cast()));
            for query in 0..QUERIES {
                for digit in 0..DIGITS {
                    let line = lines.add((step * QUERIES + query) * DIGITS + digit);
                    let line = _mm512_load_si512(line.cast());
                    for row in 0..ROWS {
                        let sum = &mut acc[query][row][digit];
                        *sum = _mm512_dpbusd_epi32(*sum, line, entries[row]);
                    }
                }
            }
        };
        for two in 0..self.count / 2 {
            for line in 0..AHEAD {
                let line = rows.wrapping_add(line / 2 * self.stride + line % 2 * 64);
                match AHEAD {
                    LONE_AHEAD => _mm_prefetch::<_MM_HINT_T0>(line.cast()),
                    _ => _mm_prefetch::<_MM_HINT_T1>(line.cast()),
                }
            }
            rows = rows.wrapping_add(advance);
            if QUERIES == 2 {
                for line in 0..DIGITS {
                    _mm_prefetch::<_MM_HINT_T0>(digits.wrapping_add(line).cast());
                }
                digits = digits.wrapping_add(DIGITS);
            }
            step(2 * two);
            step(2 * two + 1);
        }
        if !self.count.is_multiple_of(2) {
            step(self.count - 1);
        }
        for (acc, sums) in acc.iter().zip(sums) {
            for (&[low, mid, high], lanes) in acc.iter().zip(&mut sums[row..row + ROWS]) {
                let upper = _mm512_add_epi32(mid, _mm512_slli_epi32::<8>(high));
                let all = _mm512_add_epi32(low, _mm512_slli_epi32::<8>(upper));
                // SAFETY: 16 lanes of 4 bytes are a register.
                unsafe {
                    let lanes = lanes.as_mut_ptr().cast();
                    _mm512_storeu_si512(lanes, _mm512_add_epi32(all, _mm512_loadu_si512(lanes)));
                }
            }
        }
    }
}

// ---- pack --------------------------------------------------------------------------------------

/// How far ahead a tile that is alone with its chunk prefetches: found by trying.
const STREAM_BYTES: usize = 2048;
/// Registers of a block of slots, 8 words each.
const VECTORS: usize = BLOCK_SLOTS / 8;

/// All sums of a job's block of slots.
type Sums = PackSums<CHUNK_PACKS>;

/// Within a chunk tiles of queries x packs x vectors of 8 slots, at most 24 accumulators: 6 queries
/// x 4 packs x 1 vector take 4 `vpermb` and 10 loads for 24 `vpmadd52luq`.
#[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
fn pack(job: &PackJob<'_>, out: &mut [u32]) {
    // SAFETY: `pack_by_chunks` says where a chunk's terms and windows lie.
    let add = |chunk: &Chunk, sums: &mut Sums| unsafe {
        ChunkTiles { job, chunk, table: job.tables[chunk.table..].as_ptr() }.add(sums);
    };
    pack_by_chunks::<CHUNK_PACKS, CHUNK_TERMS>(job, out, add, |sums, out| {
        reduce(sums, job.prime, out);
    });
}

/// The tiles of a chunk.
struct ChunkTiles<'a> {
    job: &'a PackJob<'a>,
    chunk: &'a Chunk,
    table: *const u8,
}

/// What a tile prefetches of the chunk after its own, or of what follows its terms: tables from
/// `table`, `step` bytes a term from byte `begin` after the chunk's first.
struct NextChunk {
    table: usize,
    begin: usize,
    step: usize,
}

/// Calls `$tiles.tile` for all queries, `$most` at a time or a little fewer, $vectors of slots at a
/// time, with constant numbers. `$ahead`: tables that a tile prefetches.
macro_rules! tiles {
    ($tiles:ident, $sums:ident, packs $packs:literal, vectors $vectors:literal,
     ahead $ahead:literal, most $most:literal: $($count:literal)*) => {{
        let queries = $tiles.job.queries;
        let tiles = queries.div_ceil($most);
        let mut query = 0;
        for tile in 0..tiles {
            let count = (queries - query).div_ceil(tiles - tile);
            for vector in (0..VECTORS).step_by($vectors) {
                let share = (tile * VECTORS + vector) / $vectors;
                let next = $tiles.next($packs, $ahead, share, tiles * VECTORS / $vectors);
                // SAFETY: the caller's promise.
                unsafe {
                    match count {
                        $($count => $tiles.tile::<$packs, $count, $vectors, $ahead>(
                            query, vector, &next, $sums,
                        ),)*
                        _ => unreachable!("this is a bug: queries of a tile"),
                    }
                }
            }
            query += count;
        }
    }};
}

impl ChunkTiles<'_> {
    /// # Safety
    /// The chunk's tables and every query's windows are readable over the chunk.
    #[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
    unsafe fn add(&self, sums: &mut Sums) {
        match (self.chunk.packs, self.job.queries) {
            (4, 1) => tiles!(self, sums, packs 4, vectors 4, ahead 4, most 1: 1),
            (4, 2..=3) => tiles!(self, sums, packs 4, vectors 2, ahead 2, most 3: 2 3),
            (4, _) => tiles!(self, sums, packs 4, vectors 1, ahead 1, most 6: 2 3 4 5 6),
            (2, 1..=3) => tiles!(self, sums, packs 2, vectors 4, ahead 2, most 3: 1 2 3),
            (2, _) => tiles!(self, sums, packs 2, vectors 4, ahead 1, most 3: 2 3),
            _ => tiles!(self, sums, packs 1, vectors 4, ahead 1, most 6: 1 2 3 4 5 6),
        }
    }

    /// Share `share` of `shares` of the next chunk's tables: `ahead` tables of `packs` where that
    /// is enough, else equal parts of one.
    fn next(&self, packs: usize, ahead: usize, share: usize, shares: usize) -> NextChunk {
        let parts = (shares * ahead / packs).max(1); // parts of a table
        let (table, part) = (share * ahead % packs, share * ahead / packs);
        let step = TERM_BYTES / parts;
        // A tile alone with its chunk waits for memory: what it prefetches comes soon.
        let distance = if shares == 1 { STREAM_BYTES } else { CHUNK_TERMS * TERM_BYTES };
        NextChunk { table, begin: distance + part * step * self.chunk.terms, step }
    }

    /// QUERIES queries from `query`, PACKS packs, VECS vectors of slots from `vector`, added to
    /// `sums`; prefetches AHEAD tables. Not inlined: the loop needs the registers to itself.
    ///
    /// # Safety
    /// PACKS packs' tables and the windows of these queries are readable over the chunk.
    #[inline(never)]
    #[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
    unsafe fn tile<
        const PACKS: usize,
        const QUERIES: usize,
        const VECS: usize,
        const AHEAD: usize,
    >(
        &self,
        query: usize,
        vector: usize,
        next: &NextChunk,
        sums: &mut Sums,
    ) {
        let Self { job, chunk, table } = *self;
        let (table_bytes, key_words) = (job.table_bytes, job.key_words);
        let key = job.keys[query * key_words + chunk.key + vector * 8..].as_ptr();
        let index: [_; VECS] = std::array::from_fn(|v| word_index(vector + v));
        // A mask the compiler knows becomes an `and` of its own beside every `vpermb`.
        let word_bytes = std::hint::black_box(WORD_BYTES);
        let ahead = table.wrapping_add(next.table * table_bytes + next.begin);
        let mut acc = [[[_mm512_setzero_si512(); VECS]; PACKS]; QUERIES];
        for term in 0..chunk.terms {
            let bytes = table.wrapping_add(term * TERM_BYTES);
            for pack in 0..AHEAD {
                let line = ahead.wrapping_add(pack * table_bytes + term * next.step);
                for line in [line, line.wrapping_add(TERM_BYTES / 2)] {
                    match AHEAD == PACKS {
                        true => _mm_prefetch::<_MM_HINT_T0>(line.cast()),
                        false => _mm_prefetch::<_MM_HINT_T1>(line.cast()),
                    }
                }
            }
            // SAFETY: the caller's promise; the two loads of a term are its bytes 0..64, 32..96.
            unsafe {
                let mut tables = [[_mm512_setzero_si512(); VECS]; PACKS];
                for pack in 0..PACKS {
                    for v in 0..VECS {
                        let from = bytes.add(pack * table_bytes + (vector + v) / 2 * 32);
                        let load = _mm512_loadu_epi8(from.cast());
                        tables[pack][v] = _mm512_maskz_permutexvar_epi8(word_bytes, index[v], load);
                    }
                }
                for query in 0..QUERIES {
                    for v in 0..VECS {
                        let from = key.add(query * key_words + term * chunk.key_step + v * 8);
                        let key = _mm512_loadu_epi64(from.cast());
                        for pack in 0..PACKS {
                            let sum = &mut acc[query][pack][v];
                            *sum = _mm512_madd52lo_epu64(*sum, tables[pack][v], key);
                        }
                    }
                }
            }
        }
        for (acc, sums) in acc.iter().zip(&mut sums.0[query..query + QUERIES]) {
            for (acc, sums) in acc.iter().zip(sums) {
                for (&acc, sums) in acc.iter().zip(sums[vector * 8..].chunks_exact_mut(8)) {
                    // SAFETY: 8 words of 8 bytes are a register.
                    unsafe {
                        let sums = sums.as_mut_ptr().cast();
                        _mm512_storeu_epi64(sums, _mm512_add_epi64(acc, _mm512_loadu_epi64(sums)));
                    }
                }
            }
        }
    }
}

/// The three low bytes of each word.
const WORD_BYTES: __mmask64 = 0x0707_0707_0707_0707;

/// Where the bytes of vector `vector` of a term's slots are in the 64 bytes from
/// `vector / 2 * 32`.
#[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
fn word_index(vector: usize) -> __m512i {
    let begin = vector * 24 - vector / 2 * 32;
    let index: [u8; 64] = std::array::from_fn(|byte| (begin + byte / 8 * 3 + byte % 8) as u8);
    // SAFETY: 64 bytes are a register.
    unsafe { _mm512_loadu_epi8(index.as_ptr().cast()) }
}

/// Sums below 2^59 to residues: 2^32 folded once, then Barrett with a 52-bit product.
#[target_feature(enable = "avx512dq,avx512vl,avx512vnni,avx512ifma,avx512vbmi")]
fn reduce(sums: &[u64; BLOCK_SLOTS], prime: u32, out: &mut [u32]) {
    let modulus = _mm512_set1_epi64(prime.into());
    let fold = _mm512_set1_epi64((1i64 << 32) % i64::from(prime));
    let inverse = _mm512_set1_epi64((1i64 << 52) / i64::from(prime));
    let zero = _mm512_setzero_si512();
    for (words, out) in sums.chunks_exact(8).zip(out.chunks_exact_mut(8)) {
        // SAFETY: 8 words are a register, 8 residues are half of one.
        unsafe {
            let sum = _mm512_loadu_epi64(words.as_ptr().cast());
            let low = _mm512_and_si512(sum, _mm512_set1_epi64(0xffff_ffff));
            // below 2^27 * 2^24 + 2^32 < 2^52
            let sum = _mm512_madd52lo_epu64(low, _mm512_srli_epi64::<32>(sum), fold);
            let quotient = _mm512_madd52hi_epu64(zero, sum, inverse); // at most 1 too small
            let times = _mm512_madd52lo_epu64(zero, quotient, modulus);
            let rest = _mm512_sub_epi64(sum, times);
            let rest = _mm512_min_epu64(rest, _mm512_sub_epi64(rest, modulus));
            _mm256_storeu_epi32(out.as_mut_ptr().cast(), _mm512_cvtepi64_epi32(rest));
        }
    }
}
