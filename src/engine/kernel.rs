//! What an instruction set provides ([`Kernels`]), and what its kernels share. A kernel works on
//! slices that its caller, [`super::cpu`], cuts. All give the same numbers on every bit.

use std::ops::Range;

use super::EncryptedQuery;
use crate::arith::{Automorphism, Halves, P_INVERSE, centered, from_signed, mul, reduce, sub};
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;
use crate::params::{D, HALF, P, PACK_ROWS_MIN, Q, Shape};
use crate::scheme::{KeyName, Term, terms};

/// Slots one pack job covers: the block of the table order (docs/scheme.md, "Pack tables and
/// hints").
pub(super) const BLOCK_SLOTS: usize = 32;
/// Blocks of slots a polynomial has.
pub(super) const BLOCKS: usize = D / BLOCK_SLOTS;
/// Bytes of table one term takes in a block: 32 residues of 3 bytes.
pub(super) const TERM_BYTES: usize = BLOCK_SLOTS * 3;
/// Rows of one scan job: enough work (10 to 50 us a query at the standard shape) to be worth
/// handing to a thread, and every pack size is a multiple.
pub(super) const JOB_ROWS: usize = 128;
const _: () = assert!((PACK_ROWS_MIN as usize).is_multiple_of(JOB_ROWS));
/// Digits of a column, a byte each: 64 columns of a query are a line for each digit.
pub(super) const DIGITS: usize = 3;
/// The two primes, in table order.
pub(super) const PRIMES: [u32; 2] = [Q, P];

/// 64 bytes on a cache line: one register of matrix columns.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u8; 64]);

/// Some rows of a matrix times all queries of a batch.
pub(super) struct ScanJob<'a> {
    /// The whole matrix, row-major signed bytes: rows after the job's are worth prefetching.
    pub(super) matrix: &'a [u8],
    /// Bytes of a row, a multiple of 64.
    pub(super) columns: usize,
    pub(super) first_row: usize,
    /// Rows of the job, at most [`JOB_ROWS`].
    pub(super) rows: usize,
    /// `[block of columns]`, what [`Kernels::split_digits`] made of each.
    pub(super) digits: &'a [Line],
    pub(super) queries: usize,
}

impl ScanJob<'_> {
    /// Panics unless the slices have the sizes that the numbers say, with `digit_lines`
    /// ([`Kernels::digit_lines`]) for 64 columns. Kernels rely on it.
    pub(super) fn check(&self, digit_lines: usize, out: &[u32]) {
        let lines = self.columns / 64 * digit_lines;
        assert!(self.columns.is_multiple_of(64), "this is a bug: columns");
        assert!(self.rows <= JOB_ROWS, "this is a bug: rows");
        assert!(self.matrix.len() >= (self.first_row + self.rows) * self.columns, "this is a bug");
        assert_eq!(self.digits.len(), lines, "this is a bug: digits");
        assert_eq!(out.len(), self.queries * self.rows, "this is a bug: scan output");
    }
}

/// A run of terms of a pack table whose key words are one window that slides by `step`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    /// Where the first term's 32 key words begin, in the words of a query's keys.
    pub(super) start: usize,
    /// Words the window moves from one term to the next.
    pub(super) step: usize,
    pub(super) terms: usize,
}

/// One block of 32 slots under one prime: all terms of all packs, times the keys of all queries.
pub(super) struct PackJob<'a> {
    pub(super) tables: &'a [u8],
    pub(super) table_bytes: usize,
    /// Where the block begins in each pack's table.
    pub(super) block_at: usize,
    pub(super) packs: usize,
    /// The runs of terms, in table order.
    pub(super) segments: &'a [Segment],
    /// Keys of this prime, `[query][words]`, as [`Kernels::write_keys`] wrote them.
    pub(super) keys: &'a [u64],
    pub(super) key_words: usize,
    pub(super) queries: usize,
    pub(super) prime: u32,
}

impl PackJob<'_> {
    pub(super) fn terms(&self) -> usize {
        self.segments.iter().map(|segment| segment.terms).sum()
    }

    /// Panics unless the slices have the sizes that the numbers say. Kernels rely on it.
    pub(super) fn check(&self, out: &[u32]) {
        let end = self.block_at + self.terms() * TERM_BYTES;
        assert!(self.packs > 0 && end <= self.table_bytes, "this is a bug: block of a table");
        assert!(self.packs * self.table_bytes <= self.tables.len(), "this is a bug: tables");
        assert_eq!(self.keys.len(), self.queries * self.key_words, "this is a bug: keys");
        for run in self.segments {
            assert!(run.terms > 0, "this is a bug: empty run");
            let last = run.start + (run.terms - 1) * run.step;
            assert!(last + BLOCK_SLOTS <= self.key_words, "this is a bug: key window");
        }
        let words = self.queries * self.packs * BLOCK_SLOTS;
        assert_eq!(out.len(), words, "this is a bug: pack output");
    }
}

/// What one instruction set provides.
pub(super) trait Kernels: Send + Sync {
    /// "portable", "avx512", ...: for the engine's name.
    fn name(&self) -> &'static str;

    /// Lines that 64 columns of so many queries take: [`DIGITS`] a query for a full batch.
    fn digit_lines(&self, queries: usize) -> usize {
        queries * DIGITS
    }

    /// Columns of a row whose digits lie together, all queries of them: a multiple of 64.
    fn digit_block(&self, columns: usize) -> usize {
        columns
    }

    /// Splits the queries' columns (3 bytes each, little-endian) of one block into the digits that
    /// `scan` multiplies with. Only `scan` knows their order.
    fn split_digits(&self, queries: &[EncryptedQuery], columns: Range<usize>, digits: &mut [Line]);

    /// Words that the keys of one query under one prime take, where so many queries are packed
    /// together: at most [`KEY_WORDS_MAX`].
    fn key_words(&self, layout: &KeyLayout, _queries: usize) -> usize {
        layout.words() + KEY_PADDING
    }

    /// Writes one prime's keys of a query (see [`KeyLayout::write`]) as `pack` wants them.
    fn write_keys<'k>(
        &self,
        layout: &KeyLayout,
        _queries: usize,
        key: &dyn Fn(usize) -> &'k [u32],
        out: &mut [u64],
    ) {
        KeyLayout::write(key, &mut out[..layout.words()]);
    }

    /// `out[query][row]` = row times query modulo 2^24.
    fn scan(&self, job: &ScanJob<'_>, out: &mut [u32]);

    /// `out[query][pack][slot]` = sum over terms of table times key, modulo the prime.
    fn pack(&self, job: &PackJob<'_>, out: &mut [u32]);

    /// The coefficients of one response, as the function [`round`] computes them.
    fn round(&self, rounding: &Rounding<'_>, out: &mut [u32]) {
        round(rounding, out);
    }
}

/// What the coefficients of one response are made of; three slices of equal length.
pub(super) struct Rounding<'a> {
    /// Scanned values modulo 2^24.
    pub(super) scanned: &'a [u32],
    /// What the key switch left modulo Q, as coefficients.
    pub(super) mask_q: &'a [u32],
    /// The same modulo P.
    pub(super) mask_p: &'a [u32],
    /// Bits of a response coefficient, at most 13.
    pub(super) response_bits: u32,
}

/// From scanned values and key switch sums to response coefficients (docs/scheme.md, "Answer"):
/// body = round(scanned Q / 2^24), mask = round(sum / P), response = round((body - mask) 2^bits /
/// Q). The transform is linear, so dividing by P needs none of its own: with e the centred P
/// residue, mask = (mask_q - e) / P modulo Q, coefficient by coefficient.
///
/// There is no division, so that the compiler makes vectors of it for every instruction set.
#[inline(always)]
pub(super) fn round(rounding: &Rounding<'_>, out: &mut [u32]) {
    let (q, bits) = (u64::from(Q), rounding.response_bits);
    let inputs = rounding.mask_q.iter().zip(rounding.mask_p).zip(rounding.scanned);
    for (out, ((&mask_q, &mask_p), &scanned)) in out.iter_mut().zip(inputs) {
        let e = from_signed::<Q>(centered::<P>(mask_p));
        let mask = mul::<Q>(sub::<Q>(mask_q, e), P_INVERSE);
        let body = (u64::from(scanned) * q + (1 << 23)) >> 24; // below Q for scanned below 2^24
        let rest = u64::from(sub::<Q>(body as u32, mask));
        *out = (div_2q((rest << (bits + 1)) + q) & ((1 << bits) - 1)) as u32;
    }
}

/// Packs of a chunk and terms of a chunk in most kernels: the tables of four packs (24 KB) and the
/// key windows of a tile's queries stay in the first cache while the chunk is multiplied.
pub(super) const CHUNK_PACKS: usize = 4;
pub(super) const CHUNK_TERMS: usize = 64;

/// Words between the keys of queries: those of a chunk of terms and of a block of slots, rounded
/// up to a line. Without them the keys of all queries for a chunk would lie a multiple of 4 KB
/// apart, which is the same place of the first cache.
pub(super) const KEY_PADDING: usize = CHUNK_TERMS + BLOCK_SLOTS + 16;
/// Words of one query's keys under one prime, at most: three digits of 32 bits a word.
pub(super) const KEY_WORDS_MAX: usize = (3 * D + KEY_PADDING) * DIGITS / 2;

/// Sums of one block of slots, `[query][pack of the chunk][slot]`.
#[repr(C, align(64))]
pub(super) struct PackSums<const PACKS: usize>(
    pub(super) [[[u64; BLOCK_SLOTS]; PACKS]; BATCH_QUERIES_PER_SCAN_MAX],
);

/// Some terms of some packs' tables, whose key words are one sliding window.
pub(super) struct Chunk {
    /// A power of two.
    pub(super) packs: usize,
    /// Where the first pack's terms begin, in the tables.
    pub(super) table: usize,
    pub(super) terms: usize,
    /// Where, in the tables, the bytes lie that are wanted two chunks after these: worth
    /// prefetching. It may be beyond their end.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no prefetch there"))]
    pub(super) ahead: usize,
    /// Where the first term's window begins, in the words of a query's keys.
    pub(super) key: usize,
    /// Words the window moves from one term to the next.
    pub(super) key_step: usize,
}

/// A whole pack job: packs PACKS at a time (then fewer, a power of two), within those chunks of
/// TERMS terms. `add` adds the products of a chunk for all queries to the sums; `reduce` takes a
/// block's sums modulo the prime. [`PackJob::check`] has passed, so a chunk's terms lie within its
/// packs' tables and its windows within each query's key words.
#[inline(always)]
pub(super) fn pack_by_chunks<const PACKS: usize, const TERMS: usize>(
    job: &PackJob<'_>,
    out: &mut [u32],
    mut add: impl FnMut(&Chunk, &mut PackSums<PACKS>),
    reduce: impl Fn(&[u64; BLOCK_SLOTS], &mut [u32]),
) {
    let mut sums = PackSums([[[0; BLOCK_SLOTS]; PACKS]; BATCH_QUERIES_PER_SCAN_MAX]);
    let block_bytes = job.terms() * TERM_BYTES;
    let mut first = 0;
    while first < job.packs {
        let packs = 1 << PACKS.min(job.packs - first).ilog2();
        sums.0[..job.queries].fill([[0; BLOCK_SLOTS]; PACKS]);
        let begin_at = job.block_at + first * job.table_bytes;
        // After these packs' block the next packs' is read, after the last the next job's.
        let next_at = match first + packs < job.packs {
            true => begin_at + packs * job.table_bytes,
            false => job.block_at + block_bytes,
        };
        let mut at = 0;
        for run in job.segments {
            for begin in (0..run.terms).step_by(TERMS) {
                let (terms, key) = (TERMS.min(run.terms - begin), run.start + begin * run.step);
                let ahead = at + 2 * TERMS * TERM_BYTES;
                let chunk = Chunk {
                    packs,
                    table: begin_at + at,
                    terms,
                    ahead: match ahead.checked_sub(block_bytes) {
                        Some(beyond) => next_at + beyond,
                        None => begin_at + ahead,
                    },
                    key,
                    key_step: run.step,
                };
                add(&chunk, &mut sums);
                at += terms * TERM_BYTES;
            }
        }
        for (query, sums) in sums.0[..job.queries].iter().enumerate() {
            for (pack, sums) in sums[..packs].iter().enumerate() {
                let at = (query * job.packs + first + pack) * BLOCK_SLOTS;
                reduce(sums, &mut out[at..at + BLOCK_SLOTS]);
            }
        }
        first += packs;
    }
}

/// Sums of a pack job modulo its prime. There is no division, as in [`round`].
#[inline(always)]
pub(super) fn reduce_sums(sums: &[u64], prime: u32, out: &mut [u32]) {
    let pairs = out.iter_mut().zip(sums);
    match prime {
        Q => pairs.for_each(|(out, &sum)| *out = reduce::<Q>(sum)),
        P => pairs.for_each(|(out, &sum)| *out = reduce::<P>(sum)),
        _ => unreachable!("this is a bug: prime {prime}"),
    }
}

/// floor(x / 2Q) for x below 2^39.
#[inline(always)]
fn div_2q(x: u64) -> u64 {
    const RECIPROCAL: u64 = (1 << 48) / (2 * Q as u64);
    let quotient = ((x >> 24) * RECIPROCAL) >> 24; // at most 1 too small
    quotient + u64::from(x - quotient * 2 * u64::from(Q) >= 2 * u64::from(Q))
}

/// How a query's key words of one prime lie in memory, `[g half A twice][g half B twice][h]`, so
/// that a rotated window of 32 never wraps; and which windows the terms of a pack want.
pub(super) struct KeyLayout {
    keys: usize,
    runs: Vec<Run>,
}

/// Terms under one key whose rotations grow by `step` from zero.
struct Run {
    key: KeyName,
    conjugate: Halves,
    step: usize,
    terms: usize,
}

impl KeyLayout {
    pub(super) fn new(shape: &Shape) -> Self {
        let mut runs: Vec<Run> = Vec::with_capacity(3);
        for Term { key, automorphism: Automorphism { rotation, conjugate } } in
            terms(shape.pack_rows())
        {
            match runs.last_mut() {
                Some(run) if run.key == key && run.conjugate == conjugate => {
                    run.step = if run.terms == 1 { rotation } else { run.step };
                    assert_eq!(rotation, run.terms * run.step, "this is a bug: rotations");
                    run.terms += 1;
                }
                _ => {
                    assert_eq!(rotation, 0, "this is a bug: first rotation");
                    runs.push(Run { key, conjugate, step: 0, terms: 1 });
                }
            }
        }
        Self { keys: shape.keys(), runs }
    }

    /// Words of one prime's keys of a query.
    pub(super) fn words(&self) -> usize {
        2 * D + (self.keys - 1) * D
    }

    /// Writes one prime's keys of a query; `key` gives g (0) and, where there is room for it, h
    /// (1), in slots.
    pub(super) fn write<'k, W: From<u32>>(key: &dyn Fn(usize) -> &'k [u32], out: &mut [W]) {
        let (g, h) = out.split_at_mut(2 * D);
        for (half, twice) in key(0).chunks_exact(HALF).zip(g.chunks_exact_mut(2 * HALF)) {
            for copy in twice.chunks_exact_mut(HALF) {
                copy.iter_mut().zip(half).for_each(|(to, &from)| *to = from.into());
            }
        }
        if !h.is_empty() {
            h.iter_mut().zip(key(1)).for_each(|(to, &from)| *to = from.into());
        }
    }

    /// The runs of terms of slot block `block`, in table order.
    pub(super) fn segments(&self, block: usize) -> Vec<Segment> {
        let slot = block * BLOCK_SLOTS;
        let windows = self.runs.iter().map(|run| {
            let automorphism = Automorphism { rotation: 0, conjugate: run.conjugate };
            let source = automorphism.source(slot);
            let start = match run.key {
                KeyName::G => source / HALF * 2 * HALF + source % HALF,
                KeyName::H => 2 * D + source,
            };
            Segment { start, step: run.step, terms: run.terms }
        });
        windows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reciprocal_divides_exactly() {
        let q = u64::from(Q);
        let edges = (0..1u64 << 14).flat_map(|i| {
            let multiple = i * 2 * q;
            [multiple.saturating_sub(1), multiple, multiple + 1]
        });
        let spread = (0..100_000u64).map(|i| i * ((1 << 39) / 100_003));
        for x in edges.chain(spread).filter(|&x| x < 1 << 39) {
            assert_eq!(div_2q(x), x / (2 * q), "{x}");
        }
    }
}
