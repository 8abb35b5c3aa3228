//! Why a key service does not start, or goes on with what it had when it was told to read again.

use std::io;
use std::path::PathBuf;

use crate::discovery::directory::DirectoryError;
use crate::front_end::keys::KeysError as OhttpError;
use crate::https::HttpsError;
use crate::registrar::StoreError;
use crate::relay::RelayError;

/// Why a key service does not start, or goes on with what it had when it was told to read again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum KeysError {
    #[error("cannot read the {what} file {}: {source}", .path.display())]
    Unreadable { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the {what} file {} has more than {max} bytes, which none has", .path.display())]
    Long { what: &'static str, path: PathBuf, max: u64 },
    #[error(
        "the {what} file {} may be used by others than its owner (mode {mode:03o}): if nobody has \
         read it, use chmod go-rwx", .path.display()
    )]
    Open { what: &'static str, path: PathBuf, mode: u32 },
    #[error("the {what} file {} is none: {why}", .path.display())]
    Content { what: &'static str, path: PathBuf, why: String },
    #[error("the configuration {}: {why}", .path.display())]
    Config { path: PathBuf, why: String },
    #[error(transparent)]
    Accounts(#[from] RelayError),
    #[error("the directory cannot be used: {0}")]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Ohttp(#[from] OhttpError),
    #[error("the server cannot be set up: {0}")]
    Server(#[from] HttpsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}
