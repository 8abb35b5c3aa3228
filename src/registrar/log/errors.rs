//! Why a log does not start, or does not publish.

use std::io;
use std::path::PathBuf;

use crate::https::HttpsError;
use crate::registrar::StoreError;
use crate::registrar::store::Failed;

use crate::discovery::log::LogError;

/// Why a log does not start, or does not publish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum ServeError {
    #[error("the log's key {}: {why}", .path.display())]
    Key { path: PathBuf, why: String },
    #[error("the configuration {}: {why}", .path.display())]
    Config { path: PathBuf, why: String },
    #[error("the file of callers {}: {why}", .path.display())]
    Callers { path: PathBuf, why: String },
    #[error("the server cannot be set up: {0}")]
    Server(HttpsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot use {}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "the database of the log has {found} entries, and {signed} were signed: it was restored \
         from an older copy. Restore a newer one; a log that goes on from here would fork, so it \
         signs nothing"
    )]
    Behind { found: u64, signed: u64 },
    #[error(
        "the tree in the log's database is not the one that was signed with {size} entries: the \
         database was changed, or belongs to another log. Restore it from a copy; this log signs \
         nothing"
    )]
    Differs { size: u64 },
}

impl From<Failed> for ServeError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Store(error) => Self::Store(error),
            Failed::Refused(problem) => Self::Store(StoreError::Query(problem.to_string())),
            Failed::Again => Self::Store(StoreError::Unavailable("a busy database".into())),
        }
    }
}
