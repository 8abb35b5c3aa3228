//! From an eliminated group to its part of the matrix, bit by bit from the lowest.
//!
//! The rows of a group's matrix are independent: [`LANES`] of them are solved at once. Modulo 2 the
//! lanes of a column are one word, so each step of the elimination is one `xor`. Only the
//! residuals, "sum minus what the bits found so far sum to", are bytes. Their sums over a band go
//! by blocks of four columns (the method of four Russians): all 16 sums of a block are made once,
//! and a row adds one of each block. Rows are sorted by where their band starts, so that few blocks
//! are alive.

use super::echelon::Echelon;
use crate::arith::{Isa, Loops};
use crate::params::{BAND, Shape};

/// Matrix rows solved at once: the bits of a word.
const LANES: usize = u128::BITS as usize;
/// A byte a lane.
type Bytes = [u8; LANES];

/// Columns whose sums are in a table.
const BLOCK: usize = 4;
/// Blocks alive at once, a power of two: those of a band that starts anywhere in its first.
const ALIVE: usize = (BAND / BLOCK + 1).next_power_of_two();
const _: () = assert!(BAND == u128::BITS as usize);

/// Writes the solution over the fill in `rows`, the group's part of the matrix (record_bytes
/// x columns, row-major).
pub(super) fn solve_into(echelon: &Echelon<'_>, isa: Isa, rows: &mut [u8], shape: &Shape) {
    let mut from_right: Vec<usize> = (0..echelon.rows.len()).collect();
    from_right.sort_by_key(|&i| std::cmp::Reverse(echelon.rows[i].pivot));
    let (from_right, columns) = (&from_right[..], shape.columns());
    for (part, rows) in rows.chunks_mut(LANES * columns).enumerate() {
        isa.run(Lift { echelon, from_right, first: part * LANES, rows, columns });
    }
}

/// Up to [`LANES`] rows of a group, with their fill, to be solved.
struct Lift<'a> {
    echelon: &'a Echelon<'a>,
    /// Indices of the system's rows, by pivot, the rightmost first.
    from_right: &'a [usize],
    /// The byte of a record that the first of `rows` holds.
    first: usize,
    /// Part of the group's matrix, row-major.
    rows: &'a mut [u8],
    columns: usize,
}

impl Loops for Lift<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { echelon, from_right, first, rows, columns } = self;
        let mut residuals: Vec<Bytes> =
            (0..echelon.rows.len()).map(|i| sum(echelon, i, first, rows.len() / columns)).collect();
        // Undetermined columns hold their fill, whole; a determined one the bits found so far.
        let mut solution = vec![[0; LANES]; columns];
        transpose(rows, columns, &mut solution);
        let mut determined = vec![false; columns];
        for row in &echelon.rows {
            determined[row.pivot as usize] = true;
            solution[row.pivot as usize] = [0; LANES];
        }
        let mut sides = vec![0u128; echelon.rows.len()];
        let mut plane = vec![0u128; columns + BAND];
        let mut sums = vec![[[0; LANES]; 1 << BLOCK]; ALIVE];
        for bit in 0..u8::BITS {
            right_hand_sides(echelon, &residuals, bit, &mut sides);
            for (column, plane) in plane[..columns].iter_mut().enumerate() {
                *plane = if determined[column] { 0 } else { bits(&solution[column], bit) };
            }
            for &i in from_right {
                let (row, side) = (&echelon.rows[i], sides[i]);
                let pivot = row.pivot as usize;
                plane[pivot] = side ^ selected(&plane[pivot + 1..], row.reduced >> 1);
                set_bits(&mut solution[pivot], plane[pivot], bit);
            }
            if bit + 1 < u8::BITS {
                subtract_band_sums(echelon, &solution, bit, &mut sums, &mut residuals);
            }
        }
        transpose_back(&solution, columns, rows);
    }
}

/// `lanes` bytes from `first` of what row `i` sums to; zeros after them.
#[inline(always)]
fn sum(echelon: &Echelon<'_>, i: usize, first: usize, lanes: usize) -> Bytes {
    let record_bytes = echelon.sealed.len() / echelon.rows.len();
    let mut out = [0; LANES];
    let at = echelon.rows[i].record as usize * record_bytes + first;
    out[..lanes].copy_from_slice(&echelon.sealed[at..at + lanes]);
    out
}

/// Bit `bit` of all residuals, through the same elimination as their coefficients.
#[inline(always)]
fn right_hand_sides(echelon: &Echelon<'_>, residuals: &[Bytes], bit: u32, sides: &mut [u128]) {
    let mut from = 0;
    for (i, residual) in residuals.iter().enumerate() {
        let end = echelon.path_ends[i] as usize;
        let path = &echelon.path[from..end];
        sides[i] = path.iter().fold(bits(residual, bit), |side, &by| side ^ sides[by as usize]);
        from = end;
    }
}

/// The sum modulo 2 of the words that `coeffs` selects; there are at least 128.
#[inline(always)]
fn selected(words: &[u128], coeffs: u128) -> u128 {
    let mut sum = [0; BLOCK];
    let (blocks, _) = words[..BAND].as_chunks::<{ 2 * BLOCK }>();
    for (words, pair) in blocks.iter().zip(coeffs.to_le_bytes()) {
        let masks = [pair & 15, pair >> 4].map(|half| &MASKS[usize::from(half)]);
        for (at, sum) in sum.iter_mut().enumerate() {
            *sum ^= (words[at] & masks[0][at]) ^ (words[BLOCK + at] & masks[1][at]);
        }
    }
    sum[0] ^ sum[1] ^ sum[2] ^ sum[3]
}

/// All ones for every bit that is set in the index.
const MASKS: [[u128; BLOCK]; 1 << BLOCK] = {
    let mut masks = [[0; BLOCK]; 1 << BLOCK];
    let mut index = 0;
    while index < masks.len() {
        let mut at = 0;
        while at < BLOCK {
            masks[index][at] = if index >> at & 1 == 1 { u128::MAX } else { 0 };
            at += 1;
        }
        index += 1;
    }
    masks
};

/// From every residual, what bit `bit` of its band's columns sums to.
#[inline(always)]
fn subtract_band_sums(
    echelon: &Echelon<'_>,
    solution: &[Bytes],
    bit: u32,
    sums: &mut [[Bytes; 1 << BLOCK]],
    residuals: &mut [Bytes],
) {
    let (blocks, _) = solution.as_chunks::<BLOCK>();
    let mut made = 0;
    for (row, residual) in echelon.rows.iter().zip(residuals) {
        let first = row.start as usize / BLOCK;
        let end = (first + BAND / BLOCK + 1).min(blocks.len());
        made = made.max(first);
        while made < end {
            sums_of_block(&blocks[made], bit, &mut sums[made % ALIVE]);
            made += 1;
        }
        let shift = row.start % BLOCK as u32;
        // One more block than a band that starts with its block has: of none of its columns then.
        let last = (row.coeffs >> 1 >> (u128::BITS - 1 - shift)) as usize;
        let mut rest = *residual;
        let mut subtract = |block: usize, columns: usize| {
            for (rest, &sum) in rest.iter_mut().zip(&sums[(first + block) % ALIVE][columns]) {
                *rest = rest.wrapping_sub(sum);
            }
        };
        for (pair, columns) in (row.coeffs << shift).to_le_bytes().into_iter().enumerate() {
            subtract(2 * pair, usize::from(columns & 15));
            subtract(2 * pair + 1, usize::from(columns >> 4));
        }
        subtract(BAND / BLOCK, last);
        *residual = rest;
    }
}

/// What bit `bit` of any of four columns sums to.
#[inline(always)]
fn sums_of_block(columns: &[Bytes; BLOCK], bit: u32, sums: &mut [Bytes; 1 << BLOCK]) {
    for (at, column) in columns.iter().enumerate() {
        let (without, with) = sums.split_at_mut(1 << at);
        for (with, without) in with.iter_mut().zip(without) {
            for ((with, &without), &byte) in with.iter_mut().zip(&*without).zip(column) {
                *with = without.wrapping_add(byte & 1 << bit);
            }
        }
    }
}

/// Bit `bit` of every lane.
#[inline(always)]
fn bits(lanes: &Bytes, bit: u32) -> u128 {
    let mut out = [0; LANES / 8];
    for (out, lanes) in out.iter_mut().zip(lanes.as_chunks::<8>().0) {
        // The lowest bits of eight bytes, gathered in the highest byte.
        let lowest = u64::from_le_bytes(*lanes) >> bit & 0x0101_0101_0101_0101;
        *out = (lowest.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
    }
    u128::from_le_bytes(out)
}

/// Sets bit `bit` of the lanes that `word` names; it was zero.
#[inline(always)]
fn set_bits(lanes: &mut Bytes, word: u128, bit: u32) {
    for (lanes, byte) in lanes.as_chunks_mut::<8>().0.iter_mut().zip(word.to_le_bytes()) {
        // Bit i of the byte alone in byte i, then moved to its lowest place.
        let apart = (u64::from(byte) * 0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
        let lowest = (apart + 0x7f7f_7f7f_7f7f_7f7f) >> 7 & 0x0101_0101_0101_0101;
        *lanes = (u64::from_le_bytes(*lanes) | lowest << bit).to_le_bytes();
    }
}

/// Row-major `rows` to columns one after the other, in tiles of a cache line.
#[inline(always)]
fn transpose(rows: &[u8], columns: usize, out: &mut [Bytes]) {
    for (tile, out) in out.chunks_mut(64).enumerate() {
        for (lane, row) in rows.chunks_exact(columns).enumerate() {
            for (out, &byte) in out.iter_mut().zip(&row[tile * 64..]) {
                out[lane] = byte;
            }
        }
    }
}

#[inline(always)]
fn transpose_back(solution: &[Bytes], columns: usize, rows: &mut [u8]) {
    for (tile, solution) in solution.chunks(64).enumerate() {
        for (lane, row) in rows.chunks_exact_mut(columns).enumerate() {
            for (byte, lanes) in row[tile * 64..].iter_mut().zip(solution) {
                *byte = lanes[lane];
            }
        }
    }
}
