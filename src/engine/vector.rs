//! A register of 256 or 512 bits and what the kernels of `avx.rs` and `avx_words.rs` do with it.

use std::arch::x86_64::*;

use crate::arith::IsaName;

/// How far ahead of what is multiplied memory is asked for, to the first cache and to the second.
/// The first is within what a processor has in flight; the second is what keeps memory busy.
pub(super) const AHEAD_NEAR: usize = 1024;
pub(super) const AHEAD_FAR: usize = 8192;

/// A register of one width.
///
/// # Safety of all functions
/// The processor has the instruction set [`Vector::ISA`]. Pointers: a register's bytes are
/// readable, or writable, there, without alignment.
pub(super) trait Vector: Copy + Send + Sync {
    const ISA: IsaName;
    const BYTES: usize;
    /// Slots that [`Vector::unpack`] unpacks: one or two registers of 64-bit lanes.
    const SLOTS: usize;

    unsafe fn zero() -> Self;
    /// The lowest sign bit of each pair of bytes.
    unsafe fn sign() -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    /// Lanes of 32 bits.
    unsafe fn add_32(self, other: Self) -> Self;
    unsafe fn sub_32(self, other: Self) -> Self;
    unsafe fn up_4(self) -> Self;
    unsafe fn up_16(self) -> Self;
    unsafe fn down_12(self) -> Self;
    /// Lanes of 32 bits, from where `index` says.
    unsafe fn permute(self, index: Self) -> Self;
    /// Bytes within each 16, from where `index` says; zero where it says 0x80.
    unsafe fn shuffle(self, index: Self) -> Self;
    /// Words up by 8 bits.
    unsafe fn words_up(self) -> Self;
    /// Signed words down by 8 bits.
    unsafe fn words_down(self) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn and(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    /// Lanes of 64 bits.
    unsafe fn add_64(self, other: Self) -> Self;
    /// Upper halves of lanes of 64 bits.
    unsafe fn upper(self) -> Self;
    /// Products of signed words, added in pairs to lanes of 32 bits.
    unsafe fn multiply_words(self, other: Self) -> Self;
    /// Products of the low halves of lanes of 64 bits.
    unsafe fn multiply_low(self, other: Self) -> Self;
    /// What [`Vector::unpack`] needs at slot `slot`.
    unsafe fn unpack_index(slot: usize) -> [Self; 2];
    /// The residues of a term from slot `slot` as low halves of the 64-bit lanes of `out`, one
    /// register for each [`Vector::BYTES`] / 8 slots. Upper halves are anything.
    unsafe fn unpack(term: *const u8, slot: usize, index: &[Self; 2], out: &mut [Self]);
}

/// A register's operations.
macro_rules! vector {
    ($register:ty, $isa:ident, $slots:literal slots, $load:ident, $store:ident,
     $($name:ident($($this:ident)? $(, $other:ident)?) = $intrinsic:expr,)* {$($unpack:tt)*}) => {
        impl Vector for $register {
            const ISA: IsaName = IsaName::$isa;
            const BYTES: usize = size_of::<$register>();
            const SLOTS: usize = $slots;

            $(
                #[inline(always)]
                unsafe fn $name($($this)? $(, $other: Self)?) -> Self {
                    // SAFETY: the caller's promise, here and below.
                    unsafe { $intrinsic($($this)? $(, $other)?) }
                }
            )*

            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: as above.
                unsafe { $load(from.cast()) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut u8) {
                // SAFETY: as above.
                unsafe { $store(to.cast(), self) }
            }

            $($unpack)*
        }
    };
}

vector! {
    __m256i, Avx2, 4 slots,
    _mm256_loadu_si256, _mm256_storeu_si256,
    zero() = _mm256_setzero_si256,
    sign() = || _mm256_set1_epi16(0x80),
    add_32(self, other) = _mm256_add_epi32,
    sub_32(self, other) = _mm256_sub_epi32,
    up_4(self) = _mm256_slli_epi32::<4>,
    up_16(self) = _mm256_slli_epi32::<16>,
    down_12(self) = _mm256_srli_epi32::<12>,
    permute(self, index) = _mm256_permutevar8x32_epi32,
    shuffle(self, index) = _mm256_shuffle_epi8,
    words_up(self) = _mm256_slli_epi16::<8>,
    words_down(self) = _mm256_srai_epi16::<8>,
    xor(self, other) = _mm256_xor_si256,
    and(self, other) = _mm256_and_si256,
    or(self, other) = _mm256_or_si256,
    add_64(self, other) = _mm256_add_epi64,
    upper(self) = _mm256_srli_epi64::<32>,
    multiply_words(self, other) = _mm256_madd_epi16,
    multiply_low(self, other) = _mm256_mul_epu32,
    {
    /// Both halves hold the same 16 bytes and take two residues each. Of 8 slots (24 bytes) the
    /// upper four are taken from the last 16 bytes, so that no load ends after the term.
    #[inline(always)]
    unsafe fn unpack_index(slot: usize) -> [Self; 2] {
        let begin = slot / 4 % 2 * 4;
        let places: [u8; 32] = std::array::from_fn(|byte| match byte % 8 {
            0..3 => (begin + byte / 8 * 3 + byte % 8) as u8,
            _ => 0x80,
        });
        // SAFETY: the caller's promise; the array is a register's bytes.
        unsafe { [Self::load(places.as_ptr()); 2] }
    }

    #[inline(always)]
    unsafe fn unpack(term: *const u8, slot: usize, index: &[Self; 2], out: &mut [Self]) {
        // SAFETY: the caller's promise; bytes 0..16 of 24, or 8..24.
        unsafe {
            let from = term.add(slot * 3 - slot / 4 % 2 * 4);
            let bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast()));
            out[0] = _mm256_shuffle_epi8(bytes, index[0]);
        }
    }
    }
}

vector! {
    __m512i, Avx512Bw, 16 slots,
    _mm512_loadu_si512, _mm512_storeu_si512,
    zero() = _mm512_setzero_si512,
    sign() = || _mm512_set1_epi16(0x80),
    add_32(self, other) = _mm512_add_epi32,
    sub_32(self, other) = _mm512_sub_epi32,
    up_4(self) = _mm512_slli_epi32::<4>,
    up_16(self) = _mm512_slli_epi32::<16>,
    down_12(self) = _mm512_srli_epi32::<12>,
    permute(self, index) = |lanes, index| _mm512_permutexvar_epi32(index, lanes),
    shuffle(self, index) = _mm512_shuffle_epi8,
    words_up(self) = _mm512_slli_epi16::<8>,
    words_down(self) = _mm512_srai_epi16::<8>,
    xor(self, other) = _mm512_xor_si512,
    and(self, other) = _mm512_and_si512,
    or(self, other) = _mm512_or_si512,
    add_64(self, other) = _mm512_add_epi64,
    upper(self) = _mm512_srli_epi64::<32>,
    multiply_words(self, other) = _mm512_madd_epi16,
    multiply_low(self, other) = _mm512_mul_epu32,
    {
    /// Two permutations for 16 residues: quarter i of the register gets the pairs of doublewords
    /// in which residues 2i, 2i + 1 and 8 + 2i, 9 + 2i begin, then their bytes; the first eight
    /// become low halves, the last eight upper halves. Slots 16.. are the last 48 of the 64 bytes
    /// from byte 32, so that no load ends after the term.
    #[inline(always)]
    unsafe fn unpack_index(slot: usize) -> [Self; 2] {
        let begin = slot / 16 * 16;
        let double_words: [u32; 16] = std::array::from_fn(|at| {
            let first = at / 4 * 6 + at / 2 % 2 * 24; // byte of the term part
            (begin / 4 + first / 4 + at % 2) as u32
        });
        let places: [u8; 64] = std::array::from_fn(|byte| {
            let first = byte / 16 * 6 % 4; // of the quarter's first residue in its double words
            let residue = byte % 16 / 8 * 3 + byte % 8 / 4 * 8;
            match byte % 4 {
                3 => 0x80,
                byte => (first + residue + byte) as u8,
            }
        });
        // SAFETY: the caller's promise; each array is a register's bytes.
        unsafe { [Self::load(double_words.as_ptr().cast()), Self::load(places.as_ptr())] }
    }

    #[inline(always)]
    unsafe fn unpack(term: *const u8, slot: usize, index: &[Self; 2], out: &mut [Self]) {
        // SAFETY: the caller's promise; bytes 0..64 of 96, or 32..96.
        unsafe {
            let bytes = Self::load(term.add(slot * 2));
            let pairs = _mm512_permutexvar_epi32(index[0], bytes);
            out[0] = _mm512_shuffle_epi8(pairs, index[1]);
            out[1] = _mm512_srli_epi64::<32>(out[0]);
        }
    }
    }
}
