//! Where a key is, what it selects, and how records become a matrix: stub, being written.
pub mod solve;
use crate::params::Shape;
use crate::scheme::{Decoded, Seed, Selection};

/// The fixed place of a key in a database.
pub struct Place {
    /// Shard number: what the server sees.
    pub shard: u32,
    /// Group within the shard: secret.
    pub group: u32,
    /// What tells this key from others of the shard: secret.
    pub identity: [u8; 32],
}

/// Shard, group and identity of a key (`"k"|identifier` under the seed).
pub fn locate(seed: &Seed, key: &[u8], shard_count: u32, groups: u32) -> Place {
    let _ = (seed, key, shard_count, groups);
    todo!()
}

/// A key's band in its shard under one ribbon seed, with what unmasks its record.
pub struct Band {
    /// First column of the band.
    pub start: u32,
    /// Bit j selects column start + j; bit 0 is set.
    pub coeffs: u128,
    /// The record's tag.
    pub tag: [u8; 8],
    /// What is added to the value field.
    pub keystream: Vec<u8>,
}

/// The band of an identity under one ribbon seed.
pub fn band(identity: &[u8; 32], ribbon_seed: u32, shape: &Shape) -> Band {
    let _ = (identity, ribbon_seed, shape);
    todo!()
}

impl Band {
    /// What a query for this band selects.
    pub fn selection(&self) -> Selection {
        Selection::new(self.start, self.coeffs)
    }
}

/// What a look-up ends in.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The key is there, with this value.
    Found(Vec<u8>),
    /// The key is not in the database.
    Absent,
    /// The answer cannot be believed: a stale or forged hint, a changed matrix, a broken server.
    Invalid,
}

/// Reads a record out of decoded rows.
pub fn extract(decoded: &Decoded, place: &Place, band: &Band, shape: &Shape) -> Outcome {
    let _ = (decoded, place, band, shape);
    todo!()
}
