//! What measurements share: how much is measured, and noise in the form of queries and of what
//! shards hold.

use std::sync::Arc;
use std::time::Duration;

use sotto::engine::EncryptedQuery;
use sotto::params::{D, P, Q, Shape, ShapeError, ShapeWishes};
use sotto::scheme::KeyBundle;

use crate::record::rounded;

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    Full,
    Quick,
    Test,
}

impl Effort {
    pub(crate) fn name(self) -> &'static str {
        self.pick("full", "quick", "test")
    }

    pub(crate) fn pick<T>(self, full: T, quick: T, test: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
            Self::Test => test,
        }
    }
}

/// Records and value bytes of the standard shard.
pub(crate) const STANDARD: (u64, u32) = (1 << 20, 120);

#[cfg(feature = "gpu")]
pub(crate) fn standard_shape() -> Result<Shape, ShapeError> {
    Shape::for_records(STANDARD.0, STANDARD.1, ShapeWishes::default())
}

/// The shape that targets are for: the standard one.
pub(crate) fn target_shape() -> Result<Shape, ShapeError> {
    Shape::for_records(STANDARD.0, STANDARD.1, ShapeWishes::default())
}

pub(crate) fn ms(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3)
}

pub(crate) fn median<T: Ord + Copy>(all: impl Iterator<Item = T>) -> Option<T> {
    let mut all: Vec<_> = all.collect();
    all.sort();
    all.get(all.len() / 2).copied()
}

pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        bytes
            .chunks_mut(8)
            .for_each(|to| to.copy_from_slice(&self.word().to_le_bytes()[..to.len()]));
        bytes
    }

    /// Halves of residues modulo two primes in turn, 3 bytes each.
    pub(crate) fn residues(&mut self, count: usize, half: usize, primes: [u32; 2]) -> Vec<u8> {
        let mut bytes = self.bytes(3 * count);
        for (index, bytes) in bytes.chunks_exact_mut(3 * half).enumerate() {
            let prime = primes[index % 2];
            for residue in bytes.chunks_exact_mut(3) {
                let drawn = u32::from_le_bytes([residue[0], residue[1], residue[2], 0]);
                // The primes are just below 2^24: one subtraction is a reduction.
                let reduced = drawn.checked_sub(prime).unwrap_or(drawn);
                residue.copy_from_slice(&reduced.to_le_bytes()[..3]);
            }
        }
        bytes
    }

    pub(crate) fn bundle(&mut self, shape: &Shape) -> Arc<KeyBundle> {
        let bundle = self.residues(shape.bundle_bytes() / 3, D, [Q, P]);
        Arc::new(KeyBundle::decode(&bundle, shape).expect("residues are below their primes"))
    }

    pub(crate) fn query(&mut self, shape: &Shape, bundle: Arc<KeyBundle>) -> EncryptedQuery {
        EncryptedQuery { vector: self.bytes(shape.query_bytes()).into(), bundle }
    }
}
