//! Shard files and the manifest that names them: format 2, opening, verifying.
//!
//! A database is a directory: `manifest.json`, `operator.pub` and one file a shard below
//! `shards/`, named after its content and never modified in place. The file format is in
//! [`header`], and for people in `shards/README.md`; [`guard`] is about files that shrink. What
//! this module does not do: make databases ([`crate::builder`]), answer queries
//! ([`crate::engine`]).

mod cold;
pub mod database;
pub mod files;
pub mod guard;
pub mod header;
pub mod manifest;
#[cfg(test)]
pub(crate) mod noise;
pub mod verify;
pub mod write;

pub use database::{Database, OpenError, Opening, Shard, ShardError};
pub use header::{HEADER_BYTES, Header, HeaderError, Section};
pub use manifest::{Manifest, ManifestError, ManifestHead, ShardEntry};

use crate::params::Shape;

/// Names what a shard contains: views with equal names have equal bytes. Half of the header digest
/// (which commits to the whole file), so that a shard that a new epoch left as it was keeps its
/// name, and an engine what it holds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentId(pub [u8; 16]);

impl ContentId {
    /// Of the file with this header digest, opened when so many shards had been quarantined. What
    /// an engine holds of a quarantined one may be wrong: what is opened later has another name.
    fn of(header_digest: &[u8; 32], quarantined: u64) -> Self {
        let mut name = [0; 16];
        name.copy_from_slice(&header_digest[..16]);
        let word = &mut name[..8];
        word.iter_mut().zip(quarantined.to_le_bytes()).for_each(|(byte, more)| *byte ^= more);
        Self(name)
    }
}

/// What an engine reads of a shard.
#[derive(Debug, Clone, Copy)]
pub struct ShardView<'a> {
    /// Sizes.
    pub shape: &'a Shape,
    /// rows x columns signed bytes, row-major.
    pub matrix: &'a [u8],
    /// packs x table_bytes, one pack table after the other.
    pub tables: &'a [u8],
    /// Names the above; of a view without name an engine holds nothing after the call.
    pub content: Option<ContentId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_after_a_shard_was_quarantined_has_a_name_of_its_own() {
        let of = |digest: u8, quarantined| ContentId::of(&[digest; 32], quarantined);
        assert_eq!(of(7, 0), ContentId([7; 16]));
        let names = [of(7, 0), of(7, 1), of(7, 256), of(8, 0), of(8, 1)];
        let distinct: std::collections::HashSet<_> = names.into_iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
