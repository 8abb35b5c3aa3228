//! Words of 16 bits for kernels whose multiplication is that of words, two products added
//! (`pmaddwd` and its like): [`super::portable`], `avx.rs`.
//!
//! # Scan
//!
//! Three products for two columns, not the four that two digits of 12 bits a column would take.
//! With entries a, b of a row (signed bytes) and values x, y of a query, modulo 2^24:
//!
//! ```text
//! x = w + 2^8 x_high      y = y_low + 2^8 w      w, x_high and y_low signed words
//! a x + b y = (2^8 a) x_high + b y_low + (a + 2^8 b) w
//! ```
//!
//! The low byte of w is that of x; its upper byte is the one that leaves a word of y. A row's
//! factors cost one instruction each: the two bytes, read as a word, are shifted up or down by 8,
//! or their lowest sign bit is flipped, which gives a + 128 + 2^8 b, a word. What that adds, 128
//! times the sum of all w, is the same for every row: the query's [`bias`]. 64 columns are three
//! lines of 32 words, of a row (2^8 a; b; a + 128 + 2^8 b) and of a query (x_high; y_low; w).

use std::ops::Range;

use super::EncryptedQuery;
use super::kernel::{DIGITS, Line};

/// Lines of 64 columns.
pub(super) const LINES: usize = DIGITS;

/// 32 words on a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct WordLine(pub(super) [i16; 32]);

impl WordLine {
    pub(super) const ZERO: Self = Self([0; 32]);
}

/// Splits the queries' columns of a block into lines, `[query][64 columns][line]`.
#[inline(always)]
pub(super) fn split_digits(queries: &[EncryptedQuery], columns: Range<usize>, digits: &mut [Line]) {
    let lines = columns.len() / 64 * LINES;
    for (query, digits) in queries.iter().zip(digits.chunks_exact_mut(lines)) {
        let vector = query.vector[columns.start * 3..columns.end * 3].chunks_exact(64 * 3);
        vector.zip(digits.as_chunks_mut().0).for_each(|(bytes, lines)| split_step(bytes, lines));
    }
}

#[inline(always)]
fn split_step(bytes: &[u8], lines: &mut [Line; LINES]) {
    for (pair, &[x0, x1, x2, y0, y1, y2]) in bytes.as_chunks::<6>().0.iter().enumerate() {
        let x = u32::from_le_bytes([x0, x1, x2, 0]);
        let rest = u32::from_le_bytes([y0, y1, y2, 0]).wrapping_sub(u32::from(x0) << 8);
        let w = i16::from_le_bytes([x0, (rest.wrapping_add(0x8000) >> 16) as u8]);
        let x_high = x.wrapping_sub(w as u32) >> 8;
        for (line, word) in lines.iter_mut().zip([x_high as i16, rest as i16, w]) {
            line.0[2 * pair..2 * pair + 2].copy_from_slice(&word.to_ne_bytes());
        }
    }
}

/// What is to be subtracted, modulo 2^24, from the products of a row with these lines of a query.
#[inline(always)]
pub(super) fn bias(digits: &[Line]) -> u32 {
    let lines = digits.as_chunks::<LINES>().0.iter().map(|[_, _, w]| {
        let words = w.0.as_chunks().0.iter().map(|&word| i32::from(i16::from_ne_bytes(word)));
        words.fold(0, i32::wrapping_add)
    });
    (lines.fold(0, i32::wrapping_add) as u32) << 7
}

/// Columns of a row to lines.
#[inline(always)]
pub(super) fn spread(row: &[u8], lines: &mut [[WordLine; LINES]]) {
    for (entries, [a, b, both]) in row.as_chunks::<64>().0.iter().zip(lines) {
        for (pair, &entries) in entries.as_chunks::<2>().0.iter().enumerate() {
            let word = i16::from_le_bytes(entries);
            a.0[pair] = word << 8;
            b.0[pair] = word >> 8;
            both.0[pair] = word ^ 0x80;
        }
    }
}
