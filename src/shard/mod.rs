//! Shard files and the manifest that names them: format 1, opening, verifying.
//!
//! A database is a directory: `manifest.json`, `operator.pub` and one file a shard below
//! `shards/`, named after its content and never modified in place. The file format is in
//! [`header`], and for people in `shards/README.md`. What this module does not do: make databases
//! ([`crate::build`]), answer queries ([`crate::engine`]).

mod cold;
pub mod database;
pub mod files;
pub mod header;
pub mod manifest;
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
