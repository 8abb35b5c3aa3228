//! The seam between the driver and its kernels: what one instruction set has to provide.
//!
//! Two products, a change of layout and a rounding, over slices that the driver cuts; no threads,
//! no choice of batch or order beyond one job. Every implementation gives the same
//! numbers on every bit. Implementations: [`super::portable`], `super::avx512`; caller:
//! [`super::cpu`].

use crate::params::{D, HALF, P, Q};

/// Slots one pack job covers: the block of the table order (scheme.md, "Table order").
pub(super) const BLOCK_SLOTS: usize = 32;
/// Blocks of slots a polynomial has.
pub(super) const BLOCKS: usize = D / BLOCK_SLOTS;
/// Bytes of table one term takes in a block: 32 residues of 3 bytes.
pub(super) const TERM_BYTES: usize = BLOCK_SLOTS * 3;
/// Byte planes of a query coefficient.
pub(super) const PLANES: usize = 3;
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
    /// First row of the job.
    pub(super) first_row: usize,
    /// Rows of the job.
    pub(super) rows: usize,
    /// `[query][column / 64][plane]`, a line each.
    pub(super) planes: &'a [Line],
    /// Queries of the batch.
    pub(super) queries: usize,
}

impl ScanJob<'_> {
    /// Panics unless all slices have the sizes the numbers say; kernels rely on it.
    pub(super) fn check(&self, out: &[u32]) {
        let lines = self.queries * self.columns / 64 * PLANES;
        assert!(self.columns.is_multiple_of(64), "this is a bug: columns");
        assert!(self.matrix.len() >= (self.first_row + self.rows) * self.columns, "this is a bug");
        assert_eq!(self.planes.len(), lines, "this is a bug: planes");
        assert_eq!(out.len(), self.queries * self.rows, "this is a bug: scan output");
    }
}

/// A run of terms of a pack table whose key words are one window that slides by `step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where the first term's 32 key words begin, in the words of a query's keys.
    pub(super) start: usize,
    /// Words the window moves from one term to the next.
    pub(super) step: usize,
    /// Terms of the run.
    pub(super) terms: usize,
}

/// One block of 32 slots under one prime: all terms of all packs, times the keys of all queries.
pub(super) struct PackJob<'a> {
    /// All pack tables of the shard.
    pub(super) tables: &'a [u8],
    /// Bytes of one pack's table.
    pub(super) table_bytes: usize,
    /// Where the block begins in each pack's table.
    pub(super) block_at: usize,
    /// Packs of the shard.
    pub(super) packs: usize,
    /// The runs of terms, in table order.
    pub(super) segments: &'a [Segment],
    /// Key words of this prime, `[query][words]`, each below the prime.
    pub(super) keys: &'a [u64],
    /// Key words of one query.
    pub(super) key_words: usize,
    /// Queries of the batch.
    pub(super) queries: usize,
    /// The prime.
    pub(super) prime: u32,
}

impl PackJob<'_> {
    /// Terms of all runs.
    pub(super) fn terms(&self) -> usize {
        self.segments.iter().map(|segment| segment.terms).sum()
    }

    /// Panics unless all slices have the sizes the numbers say; kernels rely on it.
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
    /// "portable", "avx512": for the engine's name.
    fn name(&self) -> &'static str;

    /// Query bytes (3 a column, little-endian) to planes, `[column / 64][plane]`.
    fn split_planes(&self, vector: &[u8], planes: &mut [Line]);

    /// `out[query][row]` = row times query modulo 2^24.
    fn scan(&self, job: &ScanJob<'_>, out: &mut [u32]);

    /// `out[query][pack][slot]` = sum over terms of table times key, modulo the prime.
    fn pack(&self, job: &PackJob<'_>, out: &mut [u32]);

    /// The coefficients of one response, as [`round_coefficients`] defines them.
    fn round(&self, round: &Round<'_>, out: &mut [u32]);
}

/// What the coefficients of one response are made of; three slices of equal length.
pub(super) struct Round<'a> {
    /// Scanned values modulo 2^24.
    pub(super) scanned: &'a [u32],
    /// What the key switch left modulo Q, as coefficients.
    pub(super) mask_q: &'a [u32],
    /// The same modulo P.
    pub(super) mask_p: &'a [u32],
    /// Bits of a response coefficient, at most 13.
    pub(super) response_bits: u32,
}

/// From scanned values and key switch sums to response coefficients (scheme.md, "Online", 2):
/// body = round(scanned Q / 2^24), mask = round(sum / P), response = round((body - mask) 2^bits /
/// Q). The transform is linear, so dividing by P needs none of its own: with e the centred P
/// residue, mask = (mask_q - e) / P modulo Q, coefficient by coefficient.
///
/// Divisions are products with reciprocals and a correction, so that this text, compiled for a
/// wider instruction set, becomes vectors of that set.
#[inline(always)]
pub(super) fn round_coefficients(round: &Round<'_>, out: &mut [u32]) {
    const P_INVERSE: u64 = inverse_mod(P as u64, Q as u64);
    let (q, p, bits) = (u64::from(Q), u64::from(P), round.response_bits);
    let inputs = round.mask_q.iter().zip(round.mask_p).zip(round.scanned);
    for (out, ((&mask_q, &mask_p), &scanned)) in out.iter_mut().zip(inputs) {
        let (mask_q, mask_p, scanned) = (u64::from(mask_q), u64::from(mask_p), u64::from(scanned));
        // mask_q - e + multiples of Q: e = mask_p, or mask_p - P above P/2. Below 2^26.
        let lifted = if mask_p > p / 2 { p } else { 0 };
        let mask = barrett_q(barrett_q(mask_q + 2 * q - mask_p + lifted) * P_INVERSE);
        let body = (scanned * q + (1 << 23)) >> 24; // below Q for scanned below 2^24
        let rest = body + q - mask;
        let rest = rest.min(rest.wrapping_sub(q));
        *out = (div_2q((rest << (bits + 1)) + q) & ((1 << bits) - 1)) as u32;
    }
}

/// x modulo Q for x below 2^48.
#[inline(always)]
fn barrett_q(x: u64) -> u64 {
    const RECIPROCAL: u64 = (1 << 48) / Q as u64;
    let q = u64::from(Q);
    let rest = x - (((x >> 23) * RECIPROCAL) >> 25) * q; // the quotient is at most 2 too small
    let rest = rest.min(rest.wrapping_sub(q));
    rest.min(rest.wrapping_sub(q))
}

/// floor(x / 2Q) for x below 2^39.
#[inline(always)]
fn div_2q(x: u64) -> u64 {
    const RECIPROCAL: u64 = (1 << 48) / (2 * Q as u64);
    let quotient = ((x >> 24) * RECIPROCAL) >> 24; // at most 1 too small
    quotient + u64::from(x - quotient * 2 * u64::from(Q) >= 2 * u64::from(Q))
}

/// 1 / x modulo a prime below 2^32, by Fermat.
const fn inverse_mod(x: u64, prime: u64) -> u64 {
    let (mut power, mut exponent, mut result) = (x % prime, prime - 2, 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * power % prime;
        }
        power = power * power % prime;
        exponent >>= 1;
    }
    result
}

/// How a query's key words of one prime lie in memory: `[g half A twice][g half B twice][h]`, so
/// that a rotated window of 32 never wraps.
#[derive(Debug, Clone)]
pub(super) struct KeyLayout {
    keys: usize,
    length: usize,
    stride: usize,
}

impl KeyLayout {
    /// For packs of `pack_rows` rows (scheme.md, "A shard": which automorphisms a pack sums over).
    pub(super) fn new(pack_rows: usize, keys: usize) -> Self {
        let length = pack_rows.min(HALF);
        Self { keys, length, stride: HALF / length }
    }

    /// Words of one prime's keys of a query.
    pub(super) fn words(&self) -> usize {
        2 * D + (self.keys - 1) * D
    }

    /// Writes one prime's keys of a query; `halves` are g and, if there is one, h, in slots.
    pub(super) fn write<'k>(&self, key: impl Fn(usize) -> &'k [u32], out: &mut [u64]) {
        let (g, h) = out.split_at_mut(2 * D);
        for (half, twice) in key(0).chunks_exact(HALF).zip(g.chunks_exact_mut(2 * HALF)) {
            for copy in twice.chunks_exact_mut(HALF) {
                copy.iter_mut().zip(half).for_each(|(to, &from)| *to = from.into());
            }
        }
        if self.keys > 1 {
            h.iter_mut().zip(key(1)).for_each(|(to, &from)| *to = from.into());
        }
    }

    /// The runs of terms of slot block `block`, in table order: by rotation, then conjugated, then
    /// the switch by key h.
    pub(super) fn segments(&self, block: usize) -> Vec<Segment> {
        let (half, offset) = (block * BLOCK_SLOTS / HALF, block * BLOCK_SLOTS % HALF);
        let run = |half: usize| Segment {
            start: half * 2 * HALF + offset,
            step: self.stride,
            terms: self.length - 1,
        };
        let mut segments = vec![run(half)];
        if self.keys > 1 {
            segments.push(run(1 - half));
            segments.push(Segment { start: 2 * D + block * BLOCK_SLOTS, step: 0, terms: 1 });
        }
        segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reciprocals_divide_exactly() {
        let q = u64::from(Q);
        let near = |x: u64| [x.saturating_sub(1), x, x + 1];
        let edges = (0..2047u64).flat_map(|i| near(i * q).into_iter().chain(near((q - i) * q)));
        let spread = (0..100_000u64).map(|i| i * ((1 << 48) / 100_003));
        for x in edges.chain(spread).filter(|&x| x < 1 << 48) {
            assert_eq!(barrett_q(x), x % q, "{x}");
        }
        let edges = (0..1u64 << 14).flat_map(|i| near(i * 2 * q));
        let spread = (0..100_000u64).map(|i| i * ((1 << 39) / 100_003));
        for x in edges.chain(spread).filter(|&x| x < 1 << 39) {
            assert_eq!(div_2q(x), x / (2 * q), "{x}");
        }
        assert_eq!(inverse_mod(P.into(), q) * u64::from(P) % q, 1);
    }

    #[test]
    fn windows_cover_every_term_and_stay_inside() {
        for pack_rows in [128, 256, 512, 1024, 2048] {
            let layout = KeyLayout::new(pack_rows, if pack_rows == D { 2 } else { 1 });
            for block in 0..BLOCKS {
                let segments = layout.segments(block);
                let terms: usize = segments.iter().map(|run| run.terms).sum();
                assert_eq!(terms, pack_rows - 1);
                for run in segments {
                    let end = run.start + (run.terms - 1) * run.step + BLOCK_SLOTS;
                    assert!(end <= layout.words(), "{pack_rows} {block} {run:?}");
                }
            }
        }
    }
}
