//! Public randomness: masks from the database seed. BLAKE3 keyed with the seed, in
//! extendable-output mode; labels are one ASCII letter, then u32 little-endian numbers
//! (docs/scheme.md, "Masks").

use super::terms::KeyName;
use crate::arith::{Poly, zero_poly};
use crate::params::D;

/// The database seed: public, 32 bytes, for the life of the database.
pub type Seed = [u8; 32];

pub(super) fn xof(key: &[u8; 32], label: &[u8]) -> blake3::OutputReader {
    blake3::Hasher::new_keyed(key).update(label).finalize_xof()
}

fn words(reader: &mut blake3::OutputReader, count: usize) -> impl Iterator<Item = u32> + use<> {
    let mut bytes = vec![0; 4 * count];
    reader.fill(&mut bytes);
    (0..count).map(move |i| {
        let word = bytes[4 * i..].first_chunk().expect("this is a bug: four bytes a word");
        u32::from_le_bytes(*word)
    })
}

/// Mask polynomial of one block of a shard's columns: D coefficients uniform modulo 2^32.
pub(crate) fn query_mask(seed: &Seed, shard: u32, block: u32) -> Vec<u32> {
    let label = [&b"a"[..], &shard.to_le_bytes(), &block.to_le_bytes()].concat();
    words(&mut xof(seed, &label), D).collect()
}

/// Mask of a bundle key for packs of `pack_rows` rows, modulo `M`, directly in slots: 24-bit
/// draws, dropped when not below the prime.
pub(crate) fn key_mask<const M: u32>(seed: &Seed, key: KeyName, pack_rows: usize) -> Box<Poly> {
    let size = pack_rows as u32;
    let label = [&[b'w', key.label()][..], &size.to_le_bytes(), &M.to_le_bytes()].concat();
    let draws = words(&mut xof(seed, &label), 2 * D).map(|draw| draw & 0xff_ffff);
    let mut mask = zero_poly();
    let mut kept = draws.filter(|&draw| draw < M);
    for value in mask.iter_mut() {
        *value = kept.next().expect("this is a bug: half of 2D draws were not below the prime");
    }
    mask
}
