//! The pack of `avx.rs` for many queries, which share the work of unpacking a table: words are
//! multiplied, as in the scan, and not lanes of 32 bits. A residue t and a key word k are two
//! digits of 12 bits each, and three products of digits take the place of one (Karatsuba), but an
//! instruction makes four times as many of them:
//!
//! ```text
//! t = low + 2^12 high, k as well; t k = low low + 2^12 middle + 2^24 high high
//! middle = (low + high) (low + high) - low low - high high
//! ```
//!
//! The two words of a lane are of one slot and of two terms that follow each other, whose products
//! the instruction adds. A key is three arrays of lanes: of low digits, of high ones, of their
//! sums. Lane i has those of word i and of the word that is in its place in the next window.

#![expect(clippy::needless_range_loop, reason = "indices name the registers of a tile")]

use std::arch::x86_64::*;

use super::kernel::{
    BLOCK_SLOTS, CHUNK_TERMS, Chunk, DIGITS, KEY_PADDING, KeyLayout, Line, PackJob, TERM_BYTES,
};
use super::vector::{AHEAD_NEAR, Vector};

/// Queries of a tile, at most: with two packs eight sums on 256 bits.
pub(super) const WORDS_QUERIES: usize = 4;
/// Packs of a chunk, at most.
pub(super) const PACKS_MAX: usize = 2;

/// Bits of a digit.
const DIGIT_BITS: u32 = 12;
// The sums of a chunk's products, with the largest residues, fit lanes of 32 bits.
const _: () = assert!(CHUNK_TERMS as u64 * (2 * ((1 << DIGIT_BITS) - 1u64)).pow(2) < 1 << 32);

/// Pairs of terms of a chunk, at most.
const PAIRS_MAX: usize = CHUNK_TERMS / 2;
/// Lanes of a slot in a chunk.
const SLOT_LANES: usize = PAIRS_MAX * PACKS_MAX * DIGITS;

/// A chunk of terms of some packs, `[register of slots][pair of terms][pack][digit][lane]`: a
/// register's slots are 6 KB on 256 bits.
#[repr(C, align(64))]
pub(super) struct TableWords([u32; SLOT_LANES * BLOCK_SLOTS]);

impl TableWords {
    pub(super) const ZERO: Self = Self([0; SLOT_LANES * BLOCK_SLOTS]);
}

/// Lanes of a digit of a key, with what keeps those of other digits from the same place of the
/// first cache.
pub(super) fn key_lanes(layout: &KeyLayout) -> usize {
    layout.words() + KEY_PADDING
}

/// A key's lanes, `[digit][lane]`.
pub(super) fn write_key_words<'k>(
    layout: &KeyLayout,
    key: &dyn Fn(usize) -> &'k [u32],
    lanes: &mut [u32],
) {
    let mut words = vec![0u32; layout.words()];
    KeyLayout::write(key, &mut words);
    // All runs of more than one term have the same step.
    let step = layout.segments(0).iter().map(|run| run.step).max().unwrap_or(0);
    let (low, high) = (|word: u32| word & ((1 << DIGIT_BITS) - 1), |word: u32| word >> DIGIT_BITS);
    let digits: [&dyn Fn(u32) -> u32; DIGITS] = [&low, &high, &|word| low(word) + high(word)];
    for (lanes, digit) in lanes.chunks_exact_mut(key_lanes(layout)).zip(digits) {
        // No lane without a next word is multiplied by a second term.
        let next = words[step..].iter().chain(std::iter::repeat(&0));
        for (lane, (&word, &next)) in lanes.iter_mut().zip(words.iter().zip(next)) {
            *lane = digit(word) | digit(next) << 16;
        }
    }
}

/// Turns a chunk of PACKS packs into words; prefetches what comes two chunks later.
///
/// # Safety
/// [`Vector::ISA`]; the chunk's tables are there.
#[inline(always)]
pub(super) unsafe fn spread<V: Vector, const PACKS: usize>(
    job: &PackJob<'_>,
    chunk: &Chunk,
    words: &mut TableWords,
) {
    let slots = V::BYTES / 4;
    let places: [u8; 64] = std::array::from_fn(|byte| match byte % 4 {
        3 => 0x80,
        at => (byte % 16 / 4 * 3 + at) as u8,
    });
    let lanes = |first: usize| -> [u32; 16] {
        std::array::from_fn(|lane| (first + lane / 4 * 3 + lane % 4) as u32)
    };
    // SAFETY: the caller's promise. Of two groups of slots the first is the first bytes of a
    // load, the second the last ones, so that no load ends after the term.
    unsafe {
        let places = V::load(places.as_ptr());
        let index = [0, V::BYTES / 16].map(|first| V::load(lanes(first).as_ptr().cast()));
        let lower = V::load([0x0fffu32; 16].as_ptr().cast());
        let upper = V::load([0x0fff_0000u32; 16].as_ptr().cast());
        let group = |term: *const u8, at: usize| {
            let begin = (at * slots * 3) - at % 2 * (V::BYTES - slots * 3);
            V::load(term.add(begin)).permute(index[at % 2]).shuffle(places)
        };
        for pair in 0..chunk.terms.div_ceil(2) {
            for pack in 0..PACKS {
                let at = pack * job.table_bytes + 2 * pair * TERM_BYTES;
                let next = job.tables.as_ptr().wrapping_add(chunk.ahead + at);
                let terms = job.tables.as_ptr().add(chunk.table + at);
                for line in (0..2 * TERM_BYTES).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line).cast());
                    _mm_prefetch::<_MM_HINT_T0>(terms.wrapping_add(AHEAD_NEAR + line).cast());
                }
                for at in 0..BLOCK_SLOTS / slots {
                    let first = group(terms, at);
                    let second = match 2 * pair + 1 < chunk.terms {
                        true => group(terms.add(TERM_BYTES), at),
                        false => V::zero(),
                    };
                    let lows = first.and(lower).or(second.up_16().and(upper));
                    let highs = first.down_12().or(second.up_4().and(upper));
                    let begin = (at * SLOT_LANES + (pair * PACKS_MAX + pack) * DIGITS) * slots;
                    let lanes = words.0[begin..begin + DIGITS * slots].chunks_exact_mut(slots);
                    for (lanes, digits) in lanes.zip([lows, highs, lows.add_32(highs)]) {
                        digits.store(lanes.as_mut_ptr().cast());
                    }
                }
            }
        }
    }
}

/// Sums of products of one register's slots, `[digit][query][pack][lane]`: see [`WordsTile`].
pub(super) type DigitSums = [[[Line; PACKS_MAX]; WORDS_QUERIES]; DIGITS];

/// A register's slots of a chunk of terms, of some packs and queries.
pub(super) struct WordsTile<'a> {
    pub(super) words: &'a TableWords,
    /// First slot, in the block.
    pub(super) slot: usize,
    pub(super) terms: usize,
    /// The first query's low digits at the first slot; `lanes` on, its high ones, then their sums,
    /// then the next query's.
    pub(super) keys: *const u32,
    pub(super) lanes: usize,
    /// Lanes from one term to the next.
    pub(super) key_step: usize,
    /// Which products.
    pub(super) digit: usize,
    pub(super) sums: &'a mut DigitSums,
}

impl WordsTile<'_> {
    /// Puts the sums of one digit's products. Sums of other digits are in memory meanwhile: there
    /// are registers for one.
    ///
    /// # Safety
    /// [`Vector::ISA`]; PACKS packs and QUERIES queries are there.
    #[inline(always)]
    pub(super) unsafe fn run<V: Vector, const PACKS: usize, const QUERIES: usize>(&mut self) {
        let (digit, slots) = (self.digit, V::BYTES / 4);
        // SAFETY: the caller's promise.
        unsafe {
            let words = self.words.0.as_ptr().add(self.slot * SLOT_LANES + digit * slots);
            let keys = self.keys.add(digit * self.lanes);
            let mut acc = [[V::zero(); PACKS]; QUERIES];
            for pair in 0..self.terms.div_ceil(2) {
                let mut tables = [V::zero(); PACKS];
                for pack in 0..PACKS {
                    let lanes = (pair * PACKS_MAX + pack) * DIGITS * slots;
                    tables[pack] = V::load(words.add(lanes).cast());
                }
                for query in 0..QUERIES {
                    let lanes = query * DIGITS * self.lanes + 2 * pair * self.key_step;
                    let keys = V::load(keys.add(lanes).cast());
                    for pack in 0..PACKS {
                        let sum = &mut acc[query][pack];
                        *sum = sum.add_32(tables[pack].multiply_words(keys));
                    }
                }
            }
            for query in 0..QUERIES {
                for pack in 0..PACKS {
                    acc[query][pack].store(self.sums[digit][query][pack].0.as_mut_ptr());
                }
            }
        }
    }
}

/// Adds what the sums of digits are together to those of a query and pack, from slot `slot`: the
/// even slots first, then the odd ones.
///
/// # Safety
/// [`Vector::ISA`].
#[inline(always)]
pub(super) unsafe fn combine<V: Vector>(
    [low, high, both]: [&Line; DIGITS],
    slot: usize,
    sums: &mut [u64; BLOCK_SLOTS],
) {
    let sums = &mut sums[slot..slot + V::BYTES / 4];
    // SAFETY: the caller's promise; two registers of lanes of 64 bits.
    unsafe {
        // Powers of 2^12; the multiplication takes the lower halves of lanes of 64 bits.
        let power = |digit: u32| V::load([1u64 << (digit * DIGIT_BITS); 8].as_ptr().cast());
        let [low, high, both] = [low, high, both].map(|line| V::load(line.0.as_ptr()));
        let even = [low, both.sub_32(low.add_32(high)), high];
        let odd = even.map(|lanes| lanes.upper());
        for (lanes, sums) in [even, odd].iter().zip(sums.chunks_exact_mut(V::BYTES / 8)) {
            let mut all = V::load(sums.as_ptr().cast());
            for (digit, lanes) in lanes.iter().enumerate() {
                all = all.add_64(lanes.multiply_low(power(digit as u32)));
            }
            all.store(sums.as_mut_ptr().cast());
        }
    }
}
