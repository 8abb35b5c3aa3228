//! Why a database, a manifest or a shard file is refused. Each message says what was found, what
//! was expected and what to do.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use crate::hosts::HostsError;
use crate::limits;
use crate::params::ShapeError;
use crate::wire::parameters::{LifetimeError, ParametersError, SignatureError};

/// Why a database does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names say it.
pub enum OpenError {
    #[error(
        "{} is not a finished database: it has no manifest.json. If its build was interrupted, \
         run the same `sotto build` again", .directory.display()
    )]
    NoManifest { directory: PathBuf },
    #[error("cannot read {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "cannot map {}: {source}. A process may have vm.max_map_count maps (65530 unless raised), \
         and a database takes one a shard", .path.display()
    )]
    Map { path: PathBuf, source: io::Error },
    #[error("{} {source}", .path.display())]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("shard file {} {source}", .path.display())]
    Shard { path: PathBuf, source: ShardError },
    #[error("{}: {source}", .path.display())]
    Placement { path: PathBuf, source: HostsError },
}

impl OpenError {
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn shard<E: Into<ShardError>>(path: &Path) -> impl Fn(E) -> Self {
        move |source| Self::Shard { path: path.to_owned(), source: source.into() }
    }

    pub(super) fn placement(path: &Path) -> impl Fn(HostsError) -> Self {
        move |source| Self::Placement { path: path.to_owned(), source }
    }

    pub(super) fn manifest<E: Into<ManifestError>>(path: &Path) -> impl Fn(E) -> Self {
        move |source| Self::Manifest { path: path.to_owned(), source: source.into() }
    }
}

/// Why a shard file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names say it.
pub enum ShardError {
    #[error("has {found} bytes, expected {expected}: it is truncated or not this file")]
    Length { found: u64, expected: u64 },
    #[error("{0}")]
    Header(#[from] HeaderError),
    #[error("has {}, the manifest says {}: it is another shard's file", .0.found(), .0.expected)]
    Swapped(#[from] Mismatch),
    #[error(
        "has a {section} section that does not match its digest: \
         it is damaged. Copy it again, or delete it where the database is built and build again"
    )]
    Section { section: &'static str },
    #[error("has something after its {section} section in bytes that have to be zero")]
    Fill { section: &'static str },
}

/// Why the header of a shard file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names say it.
pub enum HeaderError {
    #[error("is not a shard file: it begins with {found:02x?}, expected {expected:02x?}")]
    Magic { found: [u8; 8], expected: [u8; 8] },
    #[error("has {}", other_format(*found, *expected))]
    Version { found: u32, expected: u32 },
    #[error(
        "has a header that does not match its digest: \
         the file is damaged. Copy it again, or build again where the database is built"
    )]
    Digest,
    #[error("has {} in its header, expected {}", .0.found(), .0.expected)]
    Field(#[from] Mismatch),
    #[error("has a header with something in bytes that have to be zero")]
    Zeros,
    #[error("has a shape that is refused: {0}")]
    Shape(#[from] ShapeError),
    #[error(
        "has a matrix row that fails once in 2^{:.1} records, expected at most once in 2^40: \
         build the database again", -log2_failure
    )]
    Noise { log2_failure: f64 },
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names say it.
pub enum ManifestError {
    #[error("is larger than {} bytes, which no manifest is", limits::MANIFEST_BYTES_MAX)]
    TooLarge,
    #[error("is not a manifest: {0}")]
    Json(#[from] serde_json::Error),
    #[error("has {}", other_format(*found, *expected))]
    Version { found: u32, expected: u32 },
    #[error("has a shape that is refused: {0}")]
    Shape(#[from] ShapeError),
    #[error("{0}")]
    Lifetime(#[from] LifetimeError),
    #[error("has an operator_key that is not an Ed25519 public key")]
    OperatorKey,
    #[error("was changed after it was signed: {0}")]
    Signature(#[from] SignatureError),
    #[error("cannot be believed: {0}")]
    Parameters(#[from] ParametersError),
    #[error("disagrees with itself: {0}")]
    Disagrees(#[from] Mismatch),
    #[error(
        "has {}, the database that is served has {}: it is another database. \
         To serve it, start the server again", .0.found(), .0.expected
    )]
    Other(Mismatch),
    #[error(
        "has epoch {found} and is not the manifest that is served with epoch {served}, expected a \
         later epoch: clients refuse an older one. `sotto rollback` makes old content a new epoch"
    )]
    NotNewer { found: u64, served: u64 },
}

/// A field that is not what it has to be.
#[derive(Debug, thiserror::Error)]
#[error("{what} is {found}, expected {expected}")]
pub struct Mismatch {
    what: String,
    found: String,
    expected: String,
}

impl Mismatch {
    fn found(&self) -> String {
        format!("{} {}", self.what, self.found)
    }
}

/// An error unless both are equal. Nothing is formatted where they are.
pub(super) fn same<T: PartialEq + Display>(
    what: impl Display,
    found: T,
    expected: T,
) -> Result<(), Mismatch> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (found.to_string(), expected.to_string());
    Err(Mismatch { what: what.to_string(), found, expected })
}

/// Why a file of another format is refused, and the way on.
fn other_format(found: u32, expected: u32) -> String {
    let why = match found {
        1 => "format 1 does not bind a value to its tag, so that a server can change it unnoticed",
        _ => "it was written by another version of the program",
    };
    format!(
        "format {found}, expected {expected}: {why}. Build the database again, in another \
         directory: --seed and --signing-key keep what its clients know it by"
    )
}
