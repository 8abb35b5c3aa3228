//! Why a database is not copied.

use std::io;
use std::path::{Path, PathBuf};

use crate::https::HttpsError;
use crate::shard::{ManifestError, OpenError};
use crate::wire::parameters::LifetimeError;

/// Why a database is not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum PullError {
    #[error("the URL {url} is refused: expected that of a folder, without `?` and `#`")]
    Url { url: String },
    #[error(transparent)]
    Http(#[from] HttpsError),
    #[error(
        "the source answers {file} with HTTP status {status}, expected 200: the URL has to be that \
         of a database directory, whose files anybody may read"
    )]
    Status { file: String, status: u16 },
    #[error("the source's manifest.json {0}")]
    Manifest(#[from] ManifestError),
    #[error(
        "the source's manifest.json is signed with the key {found}, expected {expected}: it is \
         another operator's, or the key given is"
    )]
    Operator { found: String, expected: String },
    #[error("the source's manifest.json {0}")]
    Lifetime(#[from] LifetimeError),
    #[error(
        "the source has epoch {found}, the copy has {held}: the source is behind, or somebody \
         sends old content; the copy stays as it is"
    )]
    Older { found: u64, held: u64 },
    #[error(
        "the source has another content for epoch {epoch} than the copy, and one of them is not \
         what the operator published: ask the operator; to take the source's, copy it into \
         another directory"
    )]
    Forked { epoch: u64 },
    #[error(
        "the source has another database than the copy: its {what} differs. Copy it into another \
         directory"
    )]
    Other { what: &'static str },
    #[error(
        "the manifest of the copy cannot be used, so that nobody knows which epoch it has: {0}. \
         Remove it to copy whatever the source has"
    )]
    Held(OpenError),
    #[error(
        "another `sotto pull` or `sotto store fetch` copies into {}: wait until it has ended",
        .path.display()
    )]
    Busy { path: PathBuf },
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the source's file {file} has {found} bytes, expected {expected}: the source is damaged, \
         or changes files as it sends them"
    )]
    Length { file: String, found: u64, expected: u64 },
    #[error("the source answers a request for a part of {file} with {found}, expected {expected}")]
    Range { file: String, found: String, expected: String },
    #[error("the connection ended {missing} bytes before the end of {file}")]
    Short { file: String, missing: u64 },
    #[error(
        "the file {file} as the source sends it {problem}: it was downloaded twice, and is not \
         what its operator signed. Have the source verified (`sotto verify`)"
    )]
    Damaged { file: String, problem: String },
    #[error(
        "the source went on to another epoch {rounds} times during this run: run again when it \
         has settled"
    )]
    Restless { rounds: u32 },
}

impl PullError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    /// Whether the same request may succeed a little later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Short { .. } => true,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            Self::Http(error) => matches!(
                error,
                HttpsError::Connect { .. }
                    | HttpsError::Handshake { .. }
                    | HttpsError::Late { .. }
                    | HttpsError::Broken { .. }
            ),
            _ => false,
        }
    }
}
