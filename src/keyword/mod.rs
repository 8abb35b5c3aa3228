//! Where a key is, what it selects, and how its record is read out of an answer.
//!
//! A record is the sum, modulo 256, of a band of 128 columns over the rows of its group: tag, then
//! value field plus keystream. Source: SparsePIR (Patel, Seo, Yeo, USENIX Security 2023), ribbon
//! retrieval (Dillinger, Huebschle-Schneider, Sanders, Walzer, SEA 2022); scheme.md, "Keyword
//! layer". What depends on the key here is done in constant time. Making a matrix out of records
//! is [`solve`]'s.

#[cfg(feature = "server")]
mod lift;
#[cfg(feature = "server")]
pub mod solve;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::params::{BAND, Shape, TAG_BYTES};
use crate::scheme::{Decoded, Seed, Selection};

/// Ends a value in its field; zeros follow.
const END_OF_VALUE: u8 = 0x80;

/// The fixed place of a key in a database. Wiped when dropped: the identity tells the key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Place {
    /// Shard number: what the server sees.
    pub shard: u32,
    /// Group within the shard: secret.
    pub group: u32,
    /// What tells this key from others of the shard: secret.
    pub identity: [u8; 32],
}

/// Shard, group and identity of a key, by BLAKE3 keyed with the seed over `"k"|key`.
pub fn locate(seed: &Seed, key: &[u8], shard_count: u32, groups: u32) -> Place {
    let mut raw = Zeroizing::new([0; 48]);
    let mut hasher = Zeroizing::new(blake3::Hasher::new_keyed(seed));
    hasher.update(b"k").update(key);
    Zeroizing::new(hasher.finalize_xof()).fill(&mut raw[..]);
    place(&raw, shard_count, groups)
}

/// As [`locate`], without wiping on the way, for who builds and knows all keys.
#[cfg(feature = "server")]
pub fn locate_known(seed: &Seed, key: &[u8], shard_count: u32, groups: u32) -> Place {
    let mut raw = [0; 48];
    blake3::Hasher::new_keyed(seed).update(b"k").update(key).finalize_xof().fill(&mut raw);
    place(&raw, shard_count, groups)
}

fn place(raw: &[u8; 48], shard_count: u32, groups: u32) -> Place {
    let [shard, group] = [0, 8].map(|at| word(&raw[at..]));
    let mut identity = [0; 32];
    identity.copy_from_slice(&raw[16..]);
    Place { shard: scale(shard, shard_count), group: scale(group, groups), identity }
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("this is a bug: eight bytes a word"))
}

/// A uniform 64-bit value to one below `count`.
fn scale(uniform: u64, count: u32) -> u32 {
    ((u128::from(uniform) * u128::from(count)) >> 64) as u32
}

/// A key's band in its shard under one ribbon seed, and what unmasks its record. Wiped when
/// dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Band {
    start: u32,
    coeffs: u128,
    /// The record's tag, then the keystream over its value field.
    mask: Vec<u8>,
}

/// The band of an identity under one ribbon seed: BLAKE3 keyed with the identity, `"r"|seed`.
pub fn band(identity: &[u8; 32], ribbon_seed: u32, shape: &Shape) -> Band {
    let mut raw = Zeroizing::new(vec![0; BAND_BYTES + shape.record_bytes()]);
    let mut hasher = Zeroizing::new(blake3::Hasher::new_keyed(identity));
    hasher.update(b"r").update(&ribbon_seed.to_le_bytes());
    Zeroizing::new(hasher.finalize_xof()).fill(&mut raw);
    let (start, coeffs) = place_of_band(&raw, shape);
    Band { start, coeffs, mask: raw[BAND_BYTES..].to_vec() }
}

/// Bytes drawn for a band before those of its mask.
const BAND_BYTES: usize = 8 + BAND / 8;

/// Start and coefficients of a band from the first bytes drawn for it.
fn place_of_band(raw: &[u8], shape: &Shape) -> (u32, u128) {
    let start = scale(word(raw), (shape.columns() - BAND + 1) as u32);
    let coeffs = raw[8..].first_chunk().expect("this is a bug: sixteen bytes of coefficients");
    (start, u128::from_le_bytes(*coeffs) | 1)
}

impl Band {
    /// What a query for this band selects.
    pub fn selection(&self) -> Selection {
        Selection::new(self.start, self.coeffs)
    }
}

/// What a look-up ends in. No Debug: the value is somebody's contact.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The key is there, with this value.
    Found(Vec<u8>),
    /// The key is not in the database.
    Absent,
    /// The answer cannot be believed: a stale or forged hint, a changed matrix, a broken server.
    /// At most one more try, with a fresh secret, on the next regular schedule.
    Invalid,
}

/// Reads a record out of decoded rows. Up to the outcome itself, which the caller asked for, no
/// branch and no address depends on the group, the bytes or the tag.
pub fn extract(decoded: &Decoded, place: &Place, band: &Band, shape: &Shape) -> Outcome {
    let record_bytes = shape.record_bytes();
    let mut record = Zeroizing::new(vec![0u8; record_bytes]);
    for (group, bytes) in decoded.bytes().chunks_exact(record_bytes).enumerate() {
        let ours = all_ones_if_zero(group as u32 ^ place.group) as u8;
        for (to, &from) in record.iter_mut().zip(bytes) {
            *to |= from & ours;
        }
    }
    let (tag, field) = record.split_at_mut(TAG_BYTES);
    let difference = tag.iter().zip(&band.mask).fold(0, |all, (&a, &b)| all | u32::from(a ^ b));
    let mut length = 0u32; // of the value, when the field is well formed
    let mut well_formed = 0u32; // all ones once the end marker was the last byte not zero
    for (at, (byte, &key)) in field.iter_mut().zip(&band.mask[TAG_BYTES..]).enumerate() {
        *byte = byte.wrapping_sub(key);
        let zero = all_ones_if_zero(u32::from(*byte));
        let end = all_ones_if_zero(u32::from(*byte ^ END_OF_VALUE));
        length = (length & zero) | (at as u32 & !zero);
        well_formed = (well_formed & zero) | end;
    }
    let present = all_ones_if_zero(difference);
    let sound = decoded.trusted_mask() & (well_formed | !present);
    match (sound != 0, present != 0) {
        (false, _) => Outcome::Invalid,
        (true, false) => Outcome::Absent,
        (true, true) => Outcome::Found(field[..length as usize].to_vec()),
    }
}

/// All ones for zero, else zero; for values below 2^31.
#[inline(always)]
fn all_ones_if_zero(x: u32) -> u32 {
    ((x.wrapping_sub(1) & !x) as i32 >> 31) as u32
}
