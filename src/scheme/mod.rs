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
mod random;
pub mod reference;
mod secret;
#[cfg(feature = "server")]
mod tables;
mod terms;
#[cfg(test)]
mod tests;

pub use bundle::{BundleError, KeyBundle, bundle_uid};
pub use coding::{pack_bits, read_residue, round_to_bits, unpack_bits, write_residue};
pub use decode::Decoded;
pub use mask::Seed;
pub use pool::{Decoder, QueryId, SecretPool, Sharing};
#[cfg(test)]
pub(crate) use random::frozen;
pub use random::{random_bytes, random_permutation};
pub use secret::{SecretError, Selection};
#[cfg(feature = "server")]
pub use tables::ShardMasks;
pub use terms::{KeyName, Term, terms};

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

/// The digest of a shard's hint, of the digests of its packs one after the other.
pub fn hint_digest_of(pack_digests: &[u8]) -> [u8; 16] {
    first_half(blake3::hash(pack_digests).into())
}

fn first_half(hash: [u8; 32]) -> [u8; 16] {
    *hash.first_chunk().expect("this is a bug: a hash has 32 bytes")
}
