//! From an answer to bytes, and whether they can be believed (docs/scheme.md, "Decoding"). Constant
//! time.

use zeroize::Zeroizing;

use super::coding::{lift_from_bits, unpack_bits};
use super::secret::{SecretError, wipe_stack};
use crate::arith::{Isa, Poly, Rings, SecretPoly, centered, mul, reduce, secret_poly, sub};
use crate::params::{Q, Shape, TRUSTED_PART};

/// Farthest a believed coefficient lies from a multiple of Q/256, times 256.
const TRUSTED_MAX: i32 = (TRUSTED_PART * (Q as f64) / 2.0) as i32;

/// The decoded bytes of all rows, or of one pack, and whether they can be believed. Secret.
pub struct Decoded {
    bytes: Zeroizing<Vec<u8>>,
    /// All ones, or zero.
    trusted: u32,
}

impl Decoded {
    /// One byte a row.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All ones when every coefficient lies near a multiple of Q/256; zero for a stale or forged
    /// hint, a changed matrix, a broken answer.
    pub fn trusted_mask(&self) -> u32 {
        self.trusted
    }
}

/// Decodes an answer of so many packs: a response a pack, and their packed hints in order. Not
/// public: only a [`super::Decoder`] decodes, and it cannot encrypt. `slots` is the secret
/// modulo Q.
pub(super) fn decode_rows(
    isa: Isa,
    slots: &Poly,
    shape: &Shape,
    packs: usize,
    response: &[Vec<u8>],
    hints: &[u8],
) -> Result<Decoded, SecretError> {
    let length = |what, found, expected| {
        if found == expected { Ok(()) } else { Err(SecretError::Length { what, found, expected }) }
    };
    length("hint", hints.len(), packs * shape.hint_bytes())?;
    length("response (packs)", response.len(), packs)?;
    for pack in response {
        length("response of a pack", pack.len(), shape.response_bytes())?;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(packs * shape.pack_rows()));
    let mut worst = 0;
    for (pack, hint) in response.iter().zip(hints.chunks_exact(shape.hint_bytes())) {
        let phase = phase(isa, slots, shape, pack, hint);
        for &value in &phase[..shape.pack_rows()] {
            // round(phase * 256 / Q) by (512 phase + Q) / 2Q; what is left says how far off it was.
            let scaled = u64::from(value) * 256;
            let off = centered::<Q>(reduce::<Q>(scaled));
            bytes.push(divide_by_q(scaled as i64 - i64::from(off)));
            worst = worst.max(off.abs());
        }
    }
    wipe_stack();
    let trusted = ((worst - TRUSTED_MAX - 1) >> 31) as u32;
    Ok(Decoded { bytes, trusted })
}

/// x / Q modulo 256 of a multiple of Q: times the inverse of Q modulo 2^64, which is exact.
fn divide_by_q(multiple: i64) -> u8 {
    const INVERSE: u64 = {
        let (mut inverse, mut step) = (1u64, 0);
        while step < 6 {
            // Newton: each step doubles the right bits.
            inverse = inverse.wrapping_mul(2u64.wrapping_sub((Q as u64).wrapping_mul(inverse)));
            step += 1;
        }
        inverse
    };
    (multiple as u64).wrapping_mul(INVERSE) as u8
}

/// lift(response) - lift(hint) * s modulo Q: the noisy plaintext of one pack.
pub(super) fn phase(isa: Isa, slots: &Poly, shape: &Shape, pack: &[u8], hint: &[u8]) -> SecretPoly {
    let rings = Rings::get(isa);
    let mut phase = secret_poly();
    for (to, bits) in phase.iter_mut().zip(unpack_bits(hint, shape.hint_bits())) {
        *to = lift_from_bits(bits, shape.hint_bits());
    }
    rings.q.forward(&mut phase);
    for (to, &s) in phase.iter_mut().zip(slots) {
        *to = mul::<Q>(*to, s);
    }
    rings.q.inverse(&mut phase);
    for (to, bits) in phase.iter_mut().zip(unpack_bits(pack, shape.response_bits())) {
        *to = sub::<Q>(lift_from_bits(bits, shape.response_bits()), *to);
    }
    phase
}
