//! Shard files and the manifest that names them: format 2, opening, verifying.
//!
//! A database is a directory: `manifest.json`, `operator.pub` and one file a shard below `shards/`,
//! named after its content and never modified in place (`shards/README.md`).

pub mod database;
mod errors;
pub mod files;
pub mod guard;
pub mod header;
mod held;
pub mod manifest;
#[cfg(test)]
pub(crate) mod noise;
mod sections;
pub mod verify;
mod view;
pub mod write;

pub use database::{Database, Opening, Shard};
pub use errors::{HeaderError, ManifestError, Mismatch, OpenError, ShardError};
pub use header::{HEADER_BYTES, Header, Section};
pub use held::{HeldBy, read_placement};
pub use manifest::{Manifest, ManifestHead, ShardEntry};
pub use sections::{verify_bytes, verify_file};
pub use view::{ContentId, ShardView};
