//! Why a registrar does not start, or goes on with what it had when it was told to read files
//! again.

use std::io;
use std::path::PathBuf;

use crate::discovery::directory::DirectoryError;
use crate::https::HttpsError;

use crate::registrar::StoreError;
use crate::registrar::service::keys::KeysError;

/// Why a registrar does not start, or goes on with what it had when it was told to read files
/// again. No message contains a password, a number or a code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum RegistrarError {
    #[error("cannot read the {what} {}: {source}", .path.display())]
    Unreadable { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the configuration {}: {why}", .path.display())]
    Config { path: PathBuf, why: String },
    #[error("the configuration: {what}: found {found}, expected {expected}")]
    Setting { what: &'static str, found: String, expected: String },
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("the directory: {0}")]
    Directory(#[from] DirectoryError),
    #[error(
        "the directory gives the issuer {issuer} no key that is this one now; add the public key \
         {public} to it and have the roots sign it"
    )]
    NotInDirectory { issuer: String, public: String },
    #[error("the server for application providers cannot be set up: {0}")]
    Server(HttpsError),
    #[error("the connection to other discovery providers cannot be set up: {0}")]
    Client(HttpsError),
    #[error("the connection to the log cannot be set up: {0}")]
    Log(HttpsError),
    #[error("the channels cannot be set up: {0}")]
    Channels(String),
    #[error("the rules of what is sent: {0}")]
    Rules(String),
    #[error("the listener for receipts: {0}")]
    Receipts(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}
