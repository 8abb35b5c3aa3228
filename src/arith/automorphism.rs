//! Automorphisms, which move the slots of a polynomial.

use crate::params::HALF;

/// What an automorphism does to slots: tau_{5^rotation}, then tau_-1 if the halves are swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Automorphism {
    /// Both halves move left by this much; below HALF.
    pub rotation: usize,
    /// The halves change places.
    pub conjugate: Halves,
}

/// Whether an automorphism keeps the two halves of the slots or swaps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Halves {
    Kept,
    /// tau_-1.
    Swapped,
}

impl Automorphism {
    /// tau_{5^rotation}.
    pub fn rotation(rotation: usize) -> Self {
        Self { rotation: rotation % HALF, conjugate: Halves::Kept }
    }

    /// The slot whose value lands in slot `slot`.
    #[inline(always)]
    pub fn source(self, slot: usize) -> usize {
        let half = match self.conjugate {
            Halves::Kept => slot & HALF,
            Halves::Swapped => (slot & HALF) ^ HALF,
        };
        half | ((slot + self.rotation) & (HALF - 1))
    }

    /// Applies it to a polynomial in slots: `out` and `slots` hold D values.
    pub fn apply(self, slots: &[u32], out: &mut [u32]) {
        let (first, second) = slots.split_at(HALF);
        let (first, second) = match self.conjugate {
            Halves::Kept => (first, second),
            Halves::Swapped => (second, first),
        };
        let (low, high) = out.split_at_mut(HALF);
        for (from, to) in [(first, low), (second, high)] {
            let (left, right) = from.split_at(self.rotation);
            to[..right.len()].copy_from_slice(right);
            to[right.len()..].copy_from_slice(left);
        }
    }
}
