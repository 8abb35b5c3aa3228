//! The kernels in plain Rust, for every processor: the truth the fast ones are compared with.
//! Written so that the compiler finds vectors by itself (words times words, fixed-size inner loops,
//! no branches), and no further.

use std::ops::Range;

use super::EncryptedQuery;
use super::kernel::{
    BLOCK_SLOTS, Chunk, Kernels, Line, PackJob, PackSums, ScanJob, TERM_BYTES, pack_by_chunks,
    reduce_sums,
};
use super::words::{self, LINES, WordLine};

pub(super) struct Portable;

/// Rows and steps of 64 columns that are words at a time: 12 KB, in the first cache.
const STRIP_ROWS: usize = 8;
const STEPS: usize = 8;

/// Terms that are words at a time: 8 KB.
const CHUNK_TERMS: usize = 32;
/// Sums that a processor holds in registers.
const SLOTS: usize = 8;

impl Kernels for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }

    fn digit_block(&self, columns: usize) -> usize {
        columns.min(STEPS * 64)
    }

    fn split_digits(&self, queries: &[EncryptedQuery], columns: Range<usize>, digits: &mut [Line]) {
        words::split_digits(queries, columns, digits);
    }

    /// A block of the matrix is turned into words, then multiplied with all queries.
    fn scan(&self, job: &ScanJob<'_>, out: &mut [u32]) {
        job.check(self.digit_lines(job.queries), out);
        out.fill(0);
        let mut entries = [[[WordLine::ZERO; LINES]; STEPS]; STRIP_ROWS];
        let steps = job.columns / 64;
        for strip in (0..job.rows).step_by(STRIP_ROWS) {
            let rows = strip..job.rows.min(strip + STRIP_ROWS);
            for first in (0..steps).step_by(STEPS) {
                let count = STEPS.min(steps - first);
                for (row, entries) in rows.clone().zip(&mut entries) {
                    let begin = (job.first_row + row) * job.columns + first * 64;
                    words::spread(&job.matrix[begin..begin + count * 64], entries);
                }
                let digits = &job.digits[first * LINES * job.queries..];
                let digits = digits.chunks_exact(count * LINES).take(job.queries);
                for (query, digits) in digits.enumerate() {
                    let bias = words::bias(digits);
                    for (row, entries) in rows.clone().zip(&entries) {
                        let sum = &mut out[query * job.rows + row];
                        let all = dot(entries.as_flattened(), digits).wrapping_sub(bias);
                        *sum = sum.wrapping_add(all) & 0x00ff_ffff;
                    }
                }
            }
        }
    }

    /// A few terms of one pack are turned into words, then multiplied with all queries' keys.
    fn pack(&self, job: &PackJob<'_>, out: &mut [u32]) {
        job.check(out);
        let add = |chunk: &Chunk, sums: &mut PackSums<1>| {
            let (bytes, _) = job.tables[chunk.table..].as_chunks();
            let mut words = [[0; BLOCK_SLOTS]; CHUNK_TERMS];
            let words = &mut words[..chunk.terms];
            words.iter_mut().zip(bytes).for_each(|(words, term)| *words = unpack(term));
            let keys = job.keys.chunks_exact(job.key_words);
            for (sums, keys) in sums.0.as_flattened_mut().iter_mut().zip(keys) {
                add_products(sums, words, &keys[chunk.key..], chunk.key_step);
            }
        };
        pack_by_chunks::<1, CHUNK_TERMS>(job, out, add, |sums, out| {
            reduce_sums(sums, job.prime, out);
        });
    }
}

/// Products of words, added up modulo 2^32.
fn dot(entries: &[WordLine], digits: &[Line]) -> u32 {
    let lines = entries.iter().zip(digits).map(|(entries, digits)| {
        let words = digits.0.as_chunks().0.iter().map(|&word| i16::from_ne_bytes(word));
        let products = entries.0.iter().zip(words).map(|(&e, w)| i32::from(e) * i32::from(w));
        products.fold(0, i32::wrapping_add)
    });
    lines.fold(0, i32::wrapping_add) as u32
}

/// 32 residues of 3 bytes: all but the first are the upper bytes of 4.
#[inline(always)]
fn unpack(bytes: &[u8; TERM_BYTES]) -> [u64; BLOCK_SLOTS] {
    let mut words = [0; BLOCK_SLOTS];
    words[0] = u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]));
    for slot in 1..BLOCK_SLOTS {
        let [a, b, c, d] = *bytes[3 * slot - 1..].first_chunk().expect("this is a bug: 4 bytes");
        words[slot] = u64::from(u32::from_le_bytes([a, b, c, d]) >> 8);
    }
    words
}

/// Products of two values below 2^24; 2047 of them stay below 2^64 (a const assert in `limits`).
/// Term i of `chunk` is multiplied with the window of 32 keys at `i * step`.
fn add_products(
    sums: &mut [u64; BLOCK_SLOTS],
    chunk: &[[u64; BLOCK_SLOTS]],
    keys: &[u64],
    step: usize,
) {
    for (at, sums) in sums.as_chunks_mut::<SLOTS>().0.iter_mut().enumerate() {
        let slot = at * SLOTS;
        let mut local = *sums;
        for (term, words) in chunk.iter().enumerate() {
            let keys = &keys[term * step + slot..][..SLOTS];
            for ((sum, &word), &key) in local.iter_mut().zip(&words[slot..]).zip(keys) {
                // Written as a product of 32-bit halves: the form every vector unit has.
                *sum = sum.wrapping_add(u64::from(word as u32) * u64::from(key as u32));
            }
        }
        *sums = local;
    }
}
