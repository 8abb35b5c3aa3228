//! Where a key is, what it selects, and how its record is read out of an answer.
//!
//! A record is the sum, modulo 256, of a band of 128 columns over the rows of its group: tag, then
//! value field plus keystream. The tag binds the field to the key. Source: SparsePIR (Patel, Seo,
//! Yeo, USENIX Security 2023), ribbon retrieval (Dillinger, Huebschle-Schneider, Sanders, Walzer,
//! SEA 2022); docs/scheme.md, "Keyword layer" and "The record tag". What depends on the key here is
//! done in constant time. Making a matrix out of records is [`solve`]'s.

#[cfg(feature = "server")]
mod echelon;
#[cfg(feature = "server")]
mod lift;
#[cfg(feature = "server")]
pub mod solve;
#[cfg(all(test, feature = "server"))]
mod tests;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::params::{BAND, Shape, TAG_BYTES};
use crate::scheme::{Decoded, Seed, Selection};

/// Ends a value in its field; zeros follow.
const END_OF_VALUE: u8 = 0x80;

/// The fixed place of a key in a database. The server sees the shard; group and identity are secret
/// and wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
#[allow(missing_docs)] // Names say it.
pub struct Location {
    pub shard: u32,
    pub group: u32,
    pub identity: [u8; 32],
}

impl Location {
    /// The pack of the record, from 0 on; `None` where a record may straddle packs.
    pub fn pack(&self, shape: &Shape) -> Option<u32> {
        // The groups of a pack are a power of two, as its rows are: no division by a secret.
        let groups = shape.groups_per_pack()?;
        Some(self.group >> groups.trailing_zeros())
    }
}

/// Shard, group and identity of a key, by BLAKE3 keyed with the seed over `"k"|key`.
pub fn locate(seed: &Seed, key: &[u8], shard_count: u32, groups: u32) -> Location {
    let mut raw = Zeroizing::new([0; 48]);
    let mut hasher = Zeroizing::new(blake3::Hasher::new_keyed(seed));
    hasher.update(b"k").update(key);
    Zeroizing::new(hasher.finalize_xof()).fill(&mut raw[..]);
    place(&raw, shard_count, groups)
}

/// As [`locate`], without wiping on the way, for who builds and knows all keys.
#[cfg(feature = "server")]
pub fn locate_known(seed: &Seed, key: &[u8], shard_count: u32, groups: u32) -> Location {
    let mut raw = [0; 48];
    blake3::Hasher::new_keyed(seed).update(b"k").update(key).finalize_xof().fill(&mut raw);
    place(&raw, shard_count, groups)
}

fn place(raw: &[u8; 48], shard_count: u32, groups: u32) -> Location {
    let [shard, group] = [0, 8].map(|at| word(&raw[at..]));
    let mut identity = [0; 32];
    identity.copy_from_slice(&raw[16..]);
    Location { shard: scale(shard, shard_count), group: scale(group, groups), identity }
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("this is a bug: eight bytes a word"))
}

/// A uniform 64-bit value to one below `count`.
fn scale(uniform: u64, count: u32) -> u32 {
    ((u128::from(uniform) * u128::from(count)) >> 64) as u32
}

/// What a query for an identity selects under one ribbon seed.
pub fn band(identity: &[u8; 32], ribbon_seed: u32, shape: &Shape) -> Selection {
    let mut raw = Zeroizing::new([0; BAND_BYTES]);
    let mut keyed = Zeroizing::new(blake3::Hasher::new_keyed(identity));
    draw(&mut keyed, b'r', &ribbon_seed.to_le_bytes(), &mut raw[..]);
    let (start, coeffs) = place_of_band(&raw[..], shape);
    Selection::within(shape.columns(), start, coeffs)
}

/// Fills `out` from BLAKE3, keyed with an identity, over a label and `data`: `'r'` with a ribbon
/// seed gives a band, `'t'` with a field its tag, `'s'` with a tag the keystream over the field.
/// Its time depends on the lengths alone.
fn draw(keyed: &mut blake3::Hasher, label: u8, data: &[u8], out: &mut [u8]) {
    keyed.reset().update(&[label]).update(data);
    Zeroizing::new(keyed.finalize_xof()).fill(out);
}

const BAND_BYTES: usize = 8 + BAND / 8;

/// Start and coefficients of a band from the bytes drawn for it.
fn place_of_band(raw: &[u8], shape: &Shape) -> (u32, u128) {
    let start = scale(word(raw), (shape.columns() - BAND + 1) as u32);
    let coeffs = raw[8..].first_chunk().expect("this is a bug: sixteen bytes of coefficients");
    (start, u128::from_le_bytes(*coeffs) | 1)
}

/// A record as it is stored (docs/scheme.md, "The record tag"), into `out`: the tag binds the field
/// (value, 0x80, zeros) to the identity, and the keystream comes from the tag (a synthetic IV), so
/// that two fields of one identity never share a keystream. Not constant time, for who builds and
/// knows all records.
#[cfg(feature = "server")]
fn seal(identity: &[u8; 32], value: &[u8], out: &mut [u8]) {
    let mut keyed = blake3::Hasher::new_keyed(identity);
    let (tag, field) = out.split_at_mut(TAG_BYTES);
    field.fill(0);
    field[..value.len()].copy_from_slice(value);
    field[value.len()] = END_OF_VALUE;
    draw(&mut keyed, b't', field, tag);
    let mut keystream = vec![0; field.len()];
    draw(&mut keyed, b's', tag, &mut keystream);
    for (byte, key) in field.iter_mut().zip(keystream) {
        *byte = byte.wrapping_add(key);
    }
}

/// What a look-up ends in. No Debug: the value is somebody's contact.
///
/// Nothing that is sent later, and no time at which it is sent, may depend on which of the three it
/// is. A server that adds whole steps to the rows of one group makes exactly the records of that
/// group absent, without any noise; a client that then asks again, asks for something else or
/// answers later has told the server the group of its key, and whether the key exists.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The key is there, with this value.
    Found(Vec<u8>),
    /// The key is not in the database, or its record was changed on its way.
    Absent,
    /// The answer cannot be believed: a stale or forged hint, a changed matrix, a broken server.
    /// An honest answer is by chance once in 2^25 at the standard shape, once in 2^17 at the worst
    /// shape for records of 128 bytes, once in 2^14 at the worst shape allowed
    /// ([`Shape::log2_invalid`](crate::params::Shape::log2_invalid)).
    Invalid,
}

/// A record as it was read out of an answer, in constant time. What it is decides a branch only
/// in [`Extracted::outcome`], which is called when nothing is left to be sent. Wiped when dropped.
pub struct Extracted {
    /// Tag and unmasked field.
    record: Zeroizing<Vec<u8>>,
    /// Bytes of the value, when the record is present.
    length: u32,
    /// All ones when the answer can be believed, else zero.
    sound: u32,
    /// All ones when the tag is that of the field, else zero.
    present: u32,
}

impl Extracted {
    /// What the look-up ends in. Its time depends on that.
    pub fn outcome(&self) -> Outcome {
        match (self.sound != 0, self.present != 0) {
            (false, _) => Outcome::Invalid,
            (true, false) => Outcome::Absent,
            (true, true) => {
                Outcome::Found(self.record[TAG_BYTES..][..self.length as usize].to_vec())
            }
        }
    }
}

/// Reads a record out of the decoded rows of a whole answer. No branch and no address depends on
/// the group, the bytes, the tag, or whether the record is there.
pub fn extract(decoded: &Decoded, place: &Location, shape: &Shape) -> Extracted {
    extract_from(decoded, place, shape, 0)
}

/// The same out of the decoded rows of the record's [pack](Location::pack).
pub fn extract_of_pack(decoded: &Decoded, place: &Location, shape: &Shape) -> Option<Extracted> {
    let first_group = place.pack(shape)? * shape.groups_per_pack()? as u32;
    Some(extract_from(decoded, place, shape, first_group))
}

/// Rows begin with those of this group.
fn extract_from(decoded: &Decoded, place: &Location, shape: &Shape, first_group: u32) -> Extracted {
    let record_bytes = shape.record_bytes();
    let mut record = Zeroizing::new(vec![0u8; record_bytes]);
    for (group, bytes) in decoded.bytes().chunks_exact(record_bytes).enumerate() {
        let ours = all_ones_if_zero((first_group + group as u32) ^ place.group) as u8;
        for (to, &from) in record.iter_mut().zip(bytes) {
            *to |= from & ours;
        }
    }
    let (tag, field) = record.split_at_mut(TAG_BYTES);
    let mut keyed = Zeroizing::new(blake3::Hasher::new_keyed(&place.identity));
    let mut keystream = Zeroizing::new(vec![0; field.len()]);
    draw(&mut keyed, b's', tag, &mut keystream);
    let mut length = 0u32; // of the value, when the field is well formed
    let mut well_formed = 0u32; // all ones once the end marker was the last byte not zero
    for (at, (byte, &key)) in field.iter_mut().zip(&keystream[..]).enumerate() {
        *byte = byte.wrapping_sub(key);
        let zero = all_ones_if_zero(u32::from(*byte));
        let end = all_ones_if_zero(u32::from(*byte ^ END_OF_VALUE));
        length = (length & zero) | (at as u32 & !zero);
        well_formed = (well_formed & zero) | end;
    }
    let mut expected = Zeroizing::new([0; TAG_BYTES]);
    draw(&mut keyed, b't', field, &mut expected[..]);
    let difference = tag.iter().zip(&expected[..]).fold(0, |all, (&a, &b)| all | u32::from(a ^ b));
    let present = all_ones_if_zero(difference);
    let sound = decoded.trusted_mask() & (well_formed | !present);
    Extracted { record, length, sound, present }
}

/// All ones for zero, else zero; for values below 2^31. The black box keeps the compiler from
/// making a branch of what the mask is used for: it did, and read the bytes of one group alone.
#[inline(always)]
fn all_ones_if_zero(x: u32) -> u32 {
    std::hint::black_box(((x.wrapping_sub(1) & !x) as i32 >> 31) as u32)
}
