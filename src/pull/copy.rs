//! What is copied, where to, and what came of it.

use std::num::NonZeroU64;
use std::path::PathBuf;

use crate::client::OperatorKey;

/// What is copied, and where to.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of the directory: `manifest.json` and `shards/` are below it.
    pub url: String,
    /// The directory of the copy. It is created.
    pub db: PathBuf,
    /// Who has to have signed the manifest.
    pub operator_key: OperatorKey,
    /// Most bytes a second of all downloads together.
    pub bytes_per_second: Option<NonZeroU64>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many files are missing, and so many bytes of them.
    #[allow(missing_docs)]
    Missing { files: u64, bytes: u64 },
    /// So many bytes more came.
    Got(u64),
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Pulled {
    pub epoch: u64,
    pub shards: u32,
    /// Files that were downloaded, and bytes of files that came.
    pub files: u64,
    pub bytes: u64,
    /// Files that nothing names any more and that were removed.
    pub removed: u64,
    /// Whether a running server has to be started again: it does not load another shape or number
    /// of shards by itself.
    pub restart: bool,
}
