//! How numbers lie in bytes: residues in three bytes, coefficients by the bit; and the exact
//! rounding between a residue modulo Q and a few bits.

use crate::params::Q;

/// The residue in three bytes, little-endian.
#[inline(always)]
pub fn read_residue(bytes: &[u8; 3]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])
}

/// Three bytes of a value below 2^24, little-endian.
#[inline(always)]
pub fn write_residue(value: u32) -> [u8; 3] {
    debug_assert!(value < 1 << 24);
    let [a, b, c, _] = value.to_le_bytes();
    [a, b, c]
}

/// round(x * 2^bits / Q) modulo 2^bits, ties up. Public values (the division is not constant time).
#[inline(always)]
pub fn round_to_bits(x: u32, bits: u32) -> u32 {
    let rounded = ((u64::from(x) << (bits + 1)) + u64::from(Q)) / (2 * u64::from(Q));
    (rounded & ((1 << bits) - 1)) as u32
}

/// round(x * Q / 2^bits) modulo Q of a value below 2^bits.
#[inline(always)]
pub(crate) fn lift_from_bits(x: u32, bits: u32) -> u32 {
    let lifted = (u64::from(x) * 2 * u64::from(Q) + (1 << bits)) >> (bits + 1);
    crate::arith::reduce::<Q>(lifted)
}

/// Packs values of `bits` bits (at most 24) one after the other, the lowest bit first.
/// `out` holds exactly `values * bits / 8` bytes.
pub fn pack_bits(values: impl ExactSizeIterator<Item = u32>, bits: u32, out: &mut [u8]) {
    debug_assert_eq!(values.len() * bits as usize, out.len() * 8);
    let (mut held, mut held_bits) = (0u64, 0);
    let mut out = out.iter_mut();
    for value in values {
        held |= u64::from(value) << held_bits;
        held_bits += bits;
        while held_bits >= 8 {
            if let Some(byte) = out.next() {
                *byte = held as u8;
            }
            held >>= 8;
            held_bits -= 8;
        }
    }
}

/// The values that [`pack_bits`] packed.
pub fn unpack_bits(bytes: &[u8], bits: u32) -> impl Iterator<Item = u32> + '_ {
    let (mut held, mut held_bits) = (0u64, 0);
    let mut bytes = bytes.iter();
    std::iter::from_fn(move || {
        while held_bits < bits {
            held |= u64::from(*bytes.next()?) << held_bits;
            held_bits += 8;
        }
        let value = (held & ((1 << bits) - 1)) as u32;
        held >>= bits;
        held_bits -= bits;
        Some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_at_every_width() {
        for bits in [11, 12, 13, 17, 18, 19] {
            let values: Vec<u32> =
                (0..2048u32).map(|i| i.wrapping_mul(0x9e37_79b9) >> (32 - bits)).collect();
            let mut bytes = vec![0; 2048 * bits as usize / 8];
            pack_bits(values.iter().copied(), bits, &mut bytes);
            assert_eq!(unpack_bits(&bytes, bits).collect::<Vec<_>>(), values);
        }
    }

    #[test]
    fn rounding_there_and_back_is_within_half_a_step() {
        for bits in [11, 13, 17, 19] {
            for x in [0, 1, Q / 2, Q / 2 + 1, Q - 1, 12_345_678] {
                let back = lift_from_bits(round_to_bits(x, bits), bits);
                let off = (i64::from(back) - i64::from(x)).rem_euclid(i64::from(Q));
                let off = off.min(i64::from(Q) - off);
                assert!(off <= i64::from(Q) / (2 << bits) + 1, "{x} at {bits} bits: {off}");
            }
        }
    }
}
