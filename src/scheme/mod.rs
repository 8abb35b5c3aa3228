//! The answer scheme: what a client encrypts, what a server computes, and why it comes out right.
//!
//! The page to read beside this is docs/scheme.md; [`reference`](mod@reference) holds a whole
//! answer in one file. Here is what both sides share: public masks from the seed, the order of
//! key-switch terms, the coding of residues. The client's side is [`secret`] and [`pool`], and the
//! rule they enforce: **a (secret, seed, shard) encrypts one selection vector once, ever.** The
//! server's tables are made in `tables`. Engines live elsewhere (`crate::engine`) and equal the
//! reference on every bit.

mod bundle;
mod coding;
mod decode;
mod hedge;
mod mask;
mod pool;
mod process;
pub mod reference;
mod secret;
#[cfg(feature = "server")]
mod tables;
#[cfg(test)]
mod tests;

pub use bundle::{BundleError, KeyBundle, bundle_uid};
pub use coding::{pack_bits, read_residue, round_to_bits, unpack_bits, write_residue};
pub use decode::Decoded;
pub use pool::{Decoder, QueryId, SecretPool, Sharing};
pub use secret::{SecretError, Selection};
#[cfg(feature = "server")]
pub use tables::ShardMasks;

use crate::arith::{Automorphism, Halves};
use crate::params::{D, HALF};

/// The database seed: public, 32 bytes, for the life of the database.
pub type Seed = [u8; 32];

/// The digest of a pack: first 16 bytes of BLAKE3 over its packed hint coefficients.
pub fn pack_digest(pack: &[u8]) -> [u8; 16] {
    first_half(blake3::hash(pack).into())
}

/// The digest of a shard's hint: first 16 bytes of [`hint_hash`].
pub fn hint_digest<'a>(packs: impl IntoIterator<Item = &'a [u8]>) -> [u8; 16] {
    first_half(hint_hash(packs))
}

/// BLAKE3 over the digests of a shard's packs in order. So one pack of a hint can be checked
/// beside the digests of the others.
pub fn hint_hash<'a>(packs: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for pack in packs {
        hasher.update(&pack_digest(pack));
    }
    hasher.finalize().into()
}

fn first_half(hash: [u8; 32]) -> [u8; 16] {
    *hash.first_chunk().expect("this is a bug: a hash has 32 bytes")
}

/// 32 bytes from the operating system's generator.
pub fn random_bytes() -> Result<[u8; 32], SecretError> {
    let mut bytes = [0; 32];
    fill_random(&mut bytes)?;
    Ok(bytes)
}

/// Fills bytes in place from the operating system's generator.
fn fill_random(bytes: &mut [u8]) -> Result<(), SecretError> {
    #[cfg(test)]
    if frozen::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes).map_err(|error| SecretError::NoRandomness(error.to_string()))
}

/// A generator that gives the same bytes every time, as one may in a virtual machine that is
/// started again from a snapshot. Compiled into the crate's own unit tests and nowhere else.
#[cfg(test)]
pub(crate) mod frozen {
    use std::cell::Cell;

    thread_local!(static BYTE: Cell<Option<u8>> = const { Cell::new(None) });

    /// Runs `work` while this thread's generator is frozen.
    pub(crate) fn while_frozen<T>(byte: u8, work: impl FnOnce() -> T) -> T {
        BYTE.set(Some(byte));
        let out = work();
        BYTE.set(None);
        out
    }

    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        if let Some(byte) = BYTE.get() {
            bytes.fill(byte);
        }
        BYTE.get().is_some()
    }
}

/// The numbers below `len` in uniformly random order, drawn from the operating system's generator
/// (Fisher-Yates).
pub fn random_permutation(len: usize) -> Result<Vec<usize>, SecretError> {
    let seed = zeroize::Zeroizing::new(random_bytes()?);
    Ok(shuffled(len, &seed))
}

fn shuffled(len: usize, seed: &[u8; 32]) -> Vec<usize> {
    let mut random = blake3::Hasher::new_keyed(seed).finalize_xof();
    let mut below = |bound: u64| loop {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        let drawn = u64::from_le_bytes(bytes);
        // The last, incomplete stretch of multiples would favour small numbers: draw again.
        if drawn < u64::MAX - u64::MAX % bound {
            return (drawn % bound) as usize;
        }
    };
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, below(last as u64 + 1));
    }
    order
}

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
        match self {
            KeyName::G => 0,
            KeyName::H => 1,
        }
    }
    fn label(self) -> u8 {
        match self {
            KeyName::G => b'g',
            KeyName::H => b'h',
        }
    }
}

/// One term of a pack: a slot of the table times the key's slot that the automorphism brings there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// The key.
    pub key: KeyName,
    /// How the key is rotated.
    pub automorphism: Automorphism,
}

/// The automorphisms a pack of `size` rows sums over, walked down one key switch at a time:
/// the powers of 5^stride, and for D rows their conjugates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chains {
    size: usize,
    stride: usize,
    length: usize,
}

impl Chains {
    pub(crate) fn new(pack_rows: usize) -> Self {
        Self { size: pack_rows, stride: (HALF / pack_rows).max(1), length: pack_rows.min(HALF) }
    }

    fn conjugates(self) -> &'static [Halves] {
        if self.size == D { &[Halves::Kept, Halves::Swapped] } else { &[Halves::Kept] }
    }

    fn keys(self) -> &'static [KeyName] {
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
