//! Residues modulo a prime, and polynomials of them.

use zeroize::Zeroizing;

use crate::params::D;

/// The larger prime of exact products ([`super::exact`]): 1 modulo 4096, below 2^31.
pub(super) const BIG0: u32 = 2_147_389_441;
/// The smaller one: 1 modulo 4096, below 2^31.
pub(super) const BIG1: u32 = 2_147_377_153;

/// One residue below the prime `M`, from any 64-bit value. `M = 2^BITS - c` with a small c, so
/// `x = high * 2^BITS + low` is congruent to `high * c + low`: four folds, then one subtraction.
/// No division, no branch: constant time. Source: pseudo-Mersenne reduction (Handbook of Applied
/// Cryptography, 14.3.4).
#[inline(always)]
pub const fn reduce<const M: u32>(x: u64) -> u32 {
    let bits = 32 - M.leading_zeros();
    let c = (1u64 << bits) - M as u64;
    let low = (1u64 << bits) - 1;
    let mut x = x;
    let mut fold = 0;
    while fold < const { folds(M) } {
        x = (x >> bits).wrapping_mul(c).wrapping_add(x & low);
        fold += 1;
    }
    reduce_once::<M>(x as u32)
}

/// How many folds bring any 64-bit value below 2M.
const fn folds(m: u32) -> u32 {
    let bits = 32 - m.leading_zeros();
    let c = (1u64 << bits) - m as u64;
    let (mut most, mut folds) = (u64::MAX, 0);
    while most >= 2 * m as u64 {
        most = (most >> bits) * c + ((1 << bits) - 1);
        folds += 1;
    }
    folds
}

/// `x mod M` for `x < 2M`.
#[inline(always)]
pub const fn reduce_once<const M: u32>(x: u32) -> u32 {
    let less = x.wrapping_sub(M);
    // The smaller of the two as unsigned numbers; a comparison of values compiles to `min`.
    if less < x { less } else { x }
}

/// `a + b mod M` of two residues.
#[inline(always)]
pub const fn add<const M: u32>(a: u32, b: u32) -> u32 {
    reduce_once::<M>(a.wrapping_add(b))
}

/// `a - b mod M` of two residues.
#[inline(always)]
pub const fn sub<const M: u32>(a: u32, b: u32) -> u32 {
    let d = a.wrapping_sub(b);
    let up = d.wrapping_add(M);
    if up < d { up } else { d }
}

/// `a * b mod M`.
#[inline(always)]
pub const fn mul<const M: u32>(a: u32, b: u32) -> u32 {
    reduce::<M>((a as u64).wrapping_mul(b as u64))
}

/// `base^exponent mod M`, of public values.
pub const fn pow<const M: u32>(base: u32, exponent: u64) -> u32 {
    let (mut base, mut exponent, mut result) = (base % M, exponent, 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = mul::<M>(result, base);
        }
        base = mul::<M>(base, base);
        exponent >>= 1;
    }
    result
}

/// The inverse of a public value modulo the prime `M`.
pub const fn inverse<const M: u32>(x: u32) -> u32 {
    pow::<M>(x, M as u64 - 2)
}

/// The residue of a signed value of small size (above `-M`, below `M`).
#[inline(always)]
pub const fn from_signed<const M: u32>(x: i32) -> u32 {
    (x as u32).wrapping_add(M & ((x >> 31) as u32))
}

/// The representative between -M/2 and M/2 of a residue.
#[inline(always)]
pub const fn centered<const M: u32>(x: u32) -> i32 {
    let above = ((M / 2).wrapping_sub(x) as i32) >> 31; // all ones when x > M/2
    (x.wrapping_sub(M & above as u32)) as i32
}

/// A polynomial of D values: coefficients, or slots.
pub type Poly = [u32; D];

/// A zero polynomial on the heap.
pub fn zero_poly() -> Box<Poly> {
    vec![0u32; D].into_boxed_slice().try_into().expect("this is a bug: D values make a Poly")
}

/// A polynomial that is wiped when dropped.
pub type SecretPoly = Box<Zeroizing<Poly>>;

/// A zero polynomial on the heap, wiped when dropped.
pub fn secret_poly() -> SecretPoly {
    Box::new(Zeroizing::new([0; D]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{P, Q};

    const EDGES: [u64; 8] = [0, 1, 1 << 24, 1 << 31, 1 << 48, 1 << 59, u64::MAX - 1, u64::MAX];

    fn check_prime<const M: u32>() {
        let m = u64::from(M);
        for x in EDGES.into_iter().chain([m - 1, m, m + 1, 2 * m - 1, 2 * m, m * m, (m - 1) * m]) {
            assert_eq!(u64::from(reduce::<M>(x)), x % m, "{x} mod {m}");
        }
        let some = [0, 1, 2, M / 2, M / 2 + 1, M - 2, M - 1];
        for a in some {
            for b in some {
                let (wide_a, wide_b) = (u64::from(a), u64::from(b));
                assert_eq!(u64::from(add::<M>(a, b)), (wide_a + wide_b) % m);
                assert_eq!(u64::from(sub::<M>(a, b)), (wide_a + m - wide_b) % m);
                assert_eq!(u64::from(mul::<M>(a, b)), wide_a * wide_b % m);
            }
            let c = i64::from(centered::<M>(a));
            assert!(2 * c.abs() < m as i64 && (c - i64::from(a)) % m as i64 == 0);
            assert_eq!(from_signed::<M>(centered::<M>(a)), a);
        }
        assert_eq!(mul::<M>(inverse::<M>(12_345), 12_345), 1);
    }

    #[test]
    fn arithmetic_is_right_at_the_edges_of_every_prime() {
        check_prime::<Q>();
        check_prime::<P>();
        check_prime::<BIG0>();
        check_prime::<BIG1>();
    }
}
