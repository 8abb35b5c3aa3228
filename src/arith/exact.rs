//! Exact negacyclic products modulo 2^32, through two NTT primes below 2^31.
//!
//! A sum of products of a small signed polynomial (entries up to 128) with a 32-bit one has
//! coefficients below 2^53, far inside the product of the primes: the Chinese remainder is the
//! integer itself, and its low 32 bits are the answer.

use super::residue::{
    BIG0, BIG1, Poly, from_signed, inverse, mul, reduce, reduce_once, sub, zero_poly,
};
use super::rings::Rings;
use crate::params::D;

/// A polynomial transformed modulo both primes.
#[derive(Clone, zeroize::Zeroize)]
pub struct Pair {
    big0: Box<Poly>,
    big1: Box<Poly>,
}

impl Pair {
    #[inline(always)]
    fn of(rings: &Rings, values: impl Iterator<Item = i32> + Clone) -> Self {
        let mut pair = Self { big0: zero_poly(), big1: zero_poly() };
        for (to, from) in pair.big0.iter_mut().zip(values.clone()) {
            *to = from_signed::<BIG0>(from);
        }
        for (to, from) in pair.big1.iter_mut().zip(values) {
            *to = from_signed::<BIG1>(from);
        }
        rings.big0.forward(&mut pair.big0);
        rings.big1.forward(&mut pair.big1);
        pair
    }

    /// Of values modulo 2^32, taken between -2^31 and 2^31. Public values only.
    ///
    /// The primes lie a little below 2^31, so a value is first brought within one prime of zero.
    pub fn of_u32(rings: &Rings, values: &[u32]) -> Self {
        let mut pair = Self { big0: zero_poly(), big1: zero_poly() };
        for (to, &from) in pair.big0.iter_mut().zip(values) {
            *to = (from as i32).rem_euclid(BIG0 as i32) as u32;
        }
        for (to, &from) in pair.big1.iter_mut().zip(values) {
            *to = (from as i32).rem_euclid(BIG1 as i32) as u32;
        }
        rings.big0.forward(&mut pair.big0);
        rings.big1.forward(&mut pair.big1);
        pair
    }

    /// Of small signed values, at most D of them; constant time.
    pub fn of_small(rings: &Rings, values: &[i8]) -> Self {
        debug_assert!(values.len() <= D);
        Self::of(rings, values.iter().map(|&v| i32::from(v)))
    }

    /// Of `sum_i values[i] X^-i`, small signed values, at most D of them.
    #[inline(always)]
    pub fn of_small_reversed(rings: &Rings, values: &[u8]) -> Self {
        let mut reversed = [0; D];
        let after_first = values.iter().skip(1);
        for (to, &value) in reversed.iter_mut().rev().zip(after_first) {
            *to = -i32::from(value as i8);
        }
        reversed[0] = values.first().map_or(0, |&value| i32::from(value as i8));
        Self::of(rings, reversed.into_iter())
    }
}

/// A sum of products in the transformed domain.
pub struct Sum {
    big0: Box<[u64; D]>,
    big1: Box<[u64; D]>,
}

impl Default for Sum {
    fn default() -> Self {
        let zero = || -> Box<[u64; D]> {
            vec![0u64; D].into_boxed_slice().try_into().expect("this is a bug: D values")
        };
        Self { big0: zero(), big1: zero() }
    }
}

impl Sum {
    /// Adds `a * b`. Up to 1024 products fit: each is folded below 2^51.
    #[inline(always)]
    pub fn add_product(&mut self, a: &Pair, b: &Pair) {
        add_products::<BIG0>(&mut self.big0, &a.big0, &b.big0);
        add_products::<BIG1>(&mut self.big1, &a.big1, &b.big1);
    }

    /// The sum's coefficients modulo 2^32; the sum is zero again after.
    #[inline(always)]
    pub fn take(&mut self, rings: &Rings, out: &mut Poly) {
        let mut r1 = zero_poly();
        for (to, from) in out.iter_mut().zip(self.big0.iter_mut()) {
            *to = reduce::<BIG0>(std::mem::take(from));
        }
        for (to, from) in r1.iter_mut().zip(self.big1.iter_mut()) {
            *to = reduce::<BIG1>(std::mem::take(from));
        }
        rings.big0.inverse(out);
        rings.big1.inverse(&mut r1);
        const BIG0_INVERSE: u32 = inverse::<BIG1>(BIG0 % BIG1);
        const WRAP: u32 = (BIG0 as u64 * BIG1 as u64) as u32;
        for (x, &r1) in out.iter_mut().zip(r1.iter()) {
            let r0 = *x;
            // r0 < BIG0 < 2 * BIG1, and both primes differ by little.
            let t = mul::<BIG1>(sub::<BIG1>(r1, reduce_once::<BIG1>(r0)), BIG0_INVERSE);
            let negative = (((BIG1 / 2).wrapping_sub(t) as i32) >> 31) as u32;
            *x = r0.wrapping_add(BIG0.wrapping_mul(t)).wrapping_sub(WRAP & negative);
        }
        zeroize::Zeroize::zeroize(&mut r1[..]);
    }
}

/// Adds products of residues below 2^31, each folded once: 2^31 is a 17-bit number modulo either
/// prime, so a product below 2^62 becomes one below 2^49.
#[inline(always)]
fn add_products<const M: u32>(sum: &mut [u64; D], a: &Poly, b: &Poly) {
    const { assert!((1 << 31) - M < 1 << 17 && M < 1 << 31) };
    let fold = (1 << 31) - u64::from(M);
    for ((sum, &a), &b) in sum.iter_mut().zip(a).zip(b) {
        let product = u64::from(a).wrapping_mul(u64::from(b));
        let folded = (product >> 31).wrapping_mul(fold).wrapping_add(product & 0x7fff_ffff);
        *sum = sum.wrapping_add(folded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arith::Isa;

    /// Schoolbook product modulo X^D + 1 and 2^32 of one coefficient.
    fn coefficient(a: &[i8], b: &[u32], at: usize) -> u32 {
        a.iter().enumerate().fold(0u32, |sum, (i, &x)| {
            let (j, sign) = if i <= at { (at - i, 1) } else { (D + at - i, -1) };
            sum.wrapping_add(b[j].wrapping_mul((i32::from(x) * sign) as u32))
        })
    }

    #[test]
    fn sums_of_products_are_exact_at_the_edges() {
        let mut draws = blake3::Hasher::new().update(b"exact").finalize_xof();
        let mut draw = || {
            let mut raw = [0; 4];
            draws.fill(&mut raw);
            u32::from_le_bytes(raw)
        };
        let random: Vec<u32> = (0..D).map(|_| draw()).collect();
        let bytes: Vec<i8> = (0..D).map(|_| draw() as i8).collect();
        let heavy = vec![0x8000_0000u32; D];
        let light = vec![-128i8; D];
        for isa in Isa::all() {
            let rings = Rings::get(isa);
            let (mut sum, mut out) = (Sum::default(), crate::arith::zero_poly());
            for blocks in [1u32, 13] {
                for _ in 0..blocks - 1 {
                    sum.add_product(&Pair::of_small(&rings, &light), &Pair::of_u32(&rings, &heavy));
                }
                sum.add_product(&Pair::of_small(&rings, &bytes), &Pair::of_u32(&rings, &random));
                sum.take(&rings, &mut out);
                for at in [0, 1, 1000, D - 1] {
                    let expected = coefficient(&light, &heavy, at).wrapping_mul(blocks - 1);
                    let expected = expected.wrapping_add(coefficient(&bytes, &random, at));
                    assert_eq!(out[at], expected, "{blocks} blocks, coefficient {at}");
                }
            }
        }
    }
}
