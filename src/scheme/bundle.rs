//! A key bundle as the server holds it, and the name it goes by.

use super::coding::read_residue;
use crate::params::{D, P, Q, Shape};

/// A key bundle, checked: for each key in the order g, h: y modulo Q, then y modulo P, D slots
/// each. No Debug: bundles are query content and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBundle {
    words: Vec<u32>,
}

/// Why a key bundle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names say it.
pub enum BundleError {
    #[error("key bundle has {found} bytes, expected {expected} for this database's packs")]
    Length { found: usize, expected: usize },
    #[error("key bundle residue {index} is not below its prime, expected slots of Q, then of P")]
    Residue { index: usize },
}

impl KeyBundle {
    /// Bytes of the wire to residues; every one is checked.
    pub fn decode(bytes: &[u8], shape: &Shape) -> Result<Self, BundleError> {
        if bytes.len() != shape.bundle_bytes() {
            return Err(BundleError::Length { found: bytes.len(), expected: shape.bundle_bytes() });
        }
        let (residues, _) = bytes.as_chunks::<3>();
        let words: Vec<u32> = residues.iter().map(read_residue).collect();
        let prime = |index: usize| if (index / D).is_multiple_of(2) { Q } else { P };
        match words.iter().enumerate().find(|&(index, &word)| word >= prime(index)) {
            Some((index, _)) => Err(BundleError::Residue { index }),
            None => Ok(Self { words }),
        }
    }

    /// Keys it holds: one, or two for packs of D rows.
    pub fn keys(&self) -> usize {
        self.words.len() / (2 * D)
    }

    /// Bytes it takes in memory: more than on the wire.
    pub fn held_bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// Residues of key `key` (0: g, 1: h) modulo prime `prime` (0: Q, 1: P): D of them, in slots.
    pub fn half(&self, key: usize, prime: usize) -> &[u32] {
        &self.words[(key * 2 + prime) * D..][..D]
    }
}

/// The name of a bundle: the first 16 bytes of BLAKE3 over its bytes, in lower-case hex.
pub fn bundle_uid(bytes: &[u8]) -> String {
    let digest = blake3::hash(bytes).to_hex();
    digest[..32].to_owned()
}
