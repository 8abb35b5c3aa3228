//! The terms of a pack: which automorphisms it sums over, and the order of its key switches.

use crate::arith::{Automorphism, Halves};
use crate::params::{D, HALF};

/// Which key of a bundle a term is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyName {
    /// Switches tau_{5^stride}(s) to s.
    G,
    /// Switches tau_-1(s) to s; packs of D rows only.
    H,
}

impl KeyName {
    /// Place of the key in a bundle.
    pub fn index(self) -> usize {
        self as usize
    }

    pub(super) fn label(self) -> u8 {
        match self {
            KeyName::G => b'g',
            KeyName::H => b'h',
        }
    }
}

/// One term of a pack: a slot of the table times the key's slot that the automorphism brings there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Term {
    pub key: KeyName,
    pub automorphism: Automorphism,
}

/// The automorphisms a pack of `size` rows sums over, walked down one key switch at a time:
/// the powers of 5^stride, and for D rows their conjugates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chains {
    pub(super) size: usize,
    pub(super) stride: usize,
    pub(super) length: usize,
}

impl Chains {
    pub(super) fn new(pack_rows: usize) -> Self {
        Self { size: pack_rows, stride: (HALF / pack_rows).max(1), length: pack_rows.min(HALF) }
    }

    pub(super) fn conjugates(self) -> &'static [Halves] {
        if self.size == D { &[Halves::Kept, Halves::Swapped] } else { &[Halves::Kept] }
    }

    pub(super) fn keys(self) -> &'static [KeyName] {
        if self.size == D { &[KeyName::G, KeyName::H] } else { &[KeyName::G] }
    }
}

/// The terms of a pack of `pack_rows` rows in storage order: the plain half by rotation, then the
/// conjugated half, then the switch by key h. One fewer than rows.
pub fn terms(pack_rows: usize) -> Vec<Term> {
    let chains = Chains::new(pack_rows);
    let mut terms = Vec::with_capacity(pack_rows - 1);
    for &conjugate in chains.conjugates() {
        for step in 0..chains.length - 1 {
            let automorphism = Automorphism { rotation: chains.stride * step, conjugate };
            terms.push(Term { key: KeyName::G, automorphism });
        }
    }
    if pack_rows == D {
        terms.push(Term { key: KeyName::H, automorphism: Automorphism::rotation(0) });
    }
    terms
}
