//! Words of 16 bits for kernels whose multiplication is that of words, two products added
//! (`pmaddwd` and its like): [`super::portable`], `avx.rs`.
//!
//! Three products for two columns, not the four that two digits of 12 bits a column would take.
//! With entries a, b of a row and values x, y of a query, modulo 2^24:
//!
//! ```text
//! y = y_low + 2^16 y_high                    y_low a signed word, y_high a byte
//! x = x_low + 2^8 y_high + 2^16 x_high       x_low a signed word, x_high a byte
//! a x + b y = a x_low + b y_low + 2^8 (a + 2^8 b) (y_high + 2^8 x_high)
//! ```
//!
//! The last product is needed modulo 2^16 only, so its factors wrap around to words. 64 columns are
//! two low lines (a, b of 32 pairs of columns; in a query x_low, y_low) and a high line (a + 2^8 b;
//! y_high + 2^8 x_high).

use std::ops::Range;

use super::EncryptedQuery;
use super::kernel::Line;

/// Low lines of 64 columns.
pub(super) const LOW_LINES: usize = 2;
/// Lines of 64 columns.
pub(super) const LINES: usize = LOW_LINES + 1;

/// 32 words on a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct WordLine(pub(super) [i16; 32]);

impl WordLine {
    pub(super) const ZERO: Self = Self([0; 32]);
}

/// Splits the queries' columns of a block into lines, `[query][low lines, high lines]`.
#[inline(always)]
pub(super) fn split_digits(queries: &[EncryptedQuery], columns: Range<usize>, digits: &mut [Line]) {
    let lines = columns.len() / 64 * LINES;
    for (query, digits) in queries.iter().zip(digits.chunks_exact_mut(lines)) {
        split_query_digits(&query.vector[columns.start * 3..columns.end * 3], digits);
    }
}

#[inline(always)]
fn split_query_digits(vector: &[u8], digits: &mut [Line]) {
    let (low, high) = digits.split_at_mut(digits.len() / LINES * LOW_LINES);
    let lines = low.as_chunks_mut().0.iter_mut().zip(high);
    for (bytes, ([xs, ys], highs)) in vector.chunks_exact(64 * 3).zip(lines) {
        for (pair, &[x0, x1, x2, y0, y1, y2]) in bytes.as_chunks::<6>().0.iter().enumerate() {
            let y = u32::from_le_bytes([y0, y1, y2, 0]);
            let y_high = (y + 0x8000) >> 16 & 0xff;
            let x = u32::from_le_bytes([x0, x1, x2, 0]).wrapping_sub(y_high << 8);
            let x_high = x.wrapping_add(0x8000) >> 16 & 0xff;
            for (line, word) in [(&mut *xs, x), (&mut *ys, y), (&mut *highs, y_high | x_high << 8)]
            {
                line.0[2 * pair..2 * pair + 2].copy_from_slice(&(word as u16).to_ne_bytes());
            }
        }
    }
}

/// Columns of a row to low lines and high lines.
#[inline(always)]
pub(super) fn spread(row: &[u8], low: &mut [WordLine], high: &mut [WordLine]) {
    let lines = low.as_chunks_mut().0.iter_mut().zip(high);
    for (entries, ([a, b], both)) in row.as_chunks::<64>().0.iter().zip(lines) {
        for (pair, &entries) in entries.as_chunks::<2>().0.iter().enumerate() {
            let word = i16::from_le_bytes(entries);
            a.0[pair] = word << 8 >> 8;
            b.0[pair] = word >> 8;
            both.0[pair] = a.0[pair].wrapping_add(b.0[pair] << 8);
        }
    }
}
