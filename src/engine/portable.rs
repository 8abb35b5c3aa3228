//! The kernels in plain Rust, for every processor: the truth the fast ones are compared with.
//!
//! Written so that the compiler finds vectors by itself (fixed-size inner loops, no branches), and
//! no further. Twin: `avx512.rs`. Called through [`super::kernel::Kernels`].

use std::ops::Range;

use super::EncryptedQuery;
use super::kernel::{
    BLOCK_SLOTS, Kernels, Line, PLANES, PackJob, Round, ScanJob, TERM_BYTES, round_coefficients,
};

/// Plain Rust.
pub(super) struct Portable;

impl Kernels for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }

    /// `[query][column / 64][plane]`
    fn split_digits(&self, queries: &[EncryptedQuery], columns: Range<usize>, digits: &mut [Line]) {
        let vectors = queries.iter().map(|query| &query.vector[columns.start * 3..columns.end * 3]);
        let steps = vectors.flat_map(|vector| vector.chunks_exact(64 * 3));
        for (bytes, lines) in steps.zip(digits.chunks_exact_mut(PLANES)) {
            for (column, bytes) in bytes.chunks_exact(3).enumerate() {
                for (line, &byte) in lines.iter_mut().zip(bytes) {
                    line.0[column] = byte;
                }
            }
        }
    }

    /// Every row is read once from memory and stays in the first cache for all queries.
    fn scan(&self, job: &ScanJob<'_>, out: &mut [u32]) {
        job.check(out);
        let lines = job.columns / 64 * PLANES;
        for row in 0..job.rows {
            let entries = &job.matrix[(job.first_row + row) * job.columns..][..job.columns];
            for (query, planes) in job.digits.chunks_exact(lines).enumerate() {
                out[query * job.rows + row] = dot(entries, planes);
            }
        }
    }

    /// A few terms of one pack are turned into words, then multiplied with all queries' keys.
    fn pack(&self, job: &PackJob<'_>, out: &mut [u32]) {
        job.check(out);
        let mut sums = vec![[0u64; BLOCK_SLOTS]; job.queries];
        for pack in 0..job.packs {
            sums.fill([0; BLOCK_SLOTS]);
            let mut table = &job.tables[pack * job.table_bytes + job.block_at..];
            for run in job.segments {
                for term in 0..run.terms {
                    let words = unpack_term(&table[..TERM_BYTES]);
                    table = &table[TERM_BYTES..];
                    let window = run.start + term * run.step;
                    for (sum, keys) in sums.iter_mut().zip(job.keys.chunks_exact(job.key_words)) {
                        add_products(sum, &words, &keys[window..window + BLOCK_SLOTS]);
                    }
                }
            }
            for (query, sum) in sums.iter().enumerate() {
                let at = (query * job.packs + pack) * BLOCK_SLOTS;
                for (out, sum) in out[at..at + BLOCK_SLOTS].iter_mut().zip(sum) {
                    *out = (sum % u64::from(job.prime)) as u32;
                }
            }
        }
    }

    fn round(&self, round: &Round<'_>, out: &mut [u32]) {
        round_coefficients(round, out);
    }
}

/// One row times one query modulo 2^24. Sums of one plane stay below 2^31 (a const assert in
/// `limits`); what the planes add up to wraps modulo 2^32, which 2^24 divides.
fn dot(entries: &[u8], planes: &[Line]) -> u32 {
    let mut sums = [0i32; PLANES];
    for (entries, lines) in entries.chunks_exact(64).zip(planes.chunks_exact(PLANES)) {
        for (sum, line) in sums.iter_mut().zip(lines) {
            let mut step = 0i32;
            for (&entry, &byte) in entries.iter().zip(&line.0) {
                step = step.wrapping_add(i32::from(entry as i8) * i32::from(byte));
            }
            *sum = sum.wrapping_add(step);
        }
    }
    let [low, mid, high] = sums.map(|sum| sum as u32);
    low.wrapping_add(mid << 8).wrapping_add(high << 16) & 0x00ff_ffff
}

/// 32 residues of 3 bytes.
fn unpack_term(bytes: &[u8]) -> [u64; BLOCK_SLOTS] {
    let mut words = [0; BLOCK_SLOTS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(3)) {
        *word = u64::from(bytes[0]) | u64::from(bytes[1]) << 8 | u64::from(bytes[2]) << 16;
    }
    words
}

/// Products of two values below 2^24; 2047 of them stay below 2^64 (a const assert in `limits`).
fn add_products(sums: &mut [u64; BLOCK_SLOTS], words: &[u64; BLOCK_SLOTS], keys: &[u64]) {
    for ((sum, &word), &key) in sums.iter_mut().zip(words).zip(keys) {
        // Written as a product of 32-bit halves: the form every vector unit has.
        let product = u64::from(word as u32) * u64::from(key as u32);
        *sum = sum.wrapping_add(product);
    }
}
