//! Why there is no database. Each message says what was found, what was expected and what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::input::{Input, LineErrors};
use crate::params::ShapeError;
use crate::scheme::SecretError;
use crate::shard::OpenError;
use crate::text::{bytes, counted};
use crate::wire::parameters::ParametersError;

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names say it.
pub enum BuildError {
    #[error("cannot read {name}: {source}")]
    Read { name: String, source: io::Error },
    #[error("{name}, line {line}: {problem}")]
    Unreadable { name: String, line: u64, problem: String },
    #[error(
        "{} of {name} cannot be used:{errors}\nNothing was built.",
        counted(.errors.count, "line")
    )]
    Lines { name: String, errors: LineErrors },
    #[error("{name} has no records")]
    NoRecords { name: String },
    #[error(
        "{} of {name} repeat a key:{duplicates}\nA key has one value. Nothing was built.",
        counted(.duplicates.count, "line")
    )]
    Duplicates { name: String, duplicates: LineErrors },
    #[error("{0}")]
    Option(String),
    #[error("no shape fits: {0}")]
    Shape(#[from] ShapeError),
    #[error(
        "the input has {after} records, the database that is there has {before}: more than \
         {percent}% are missing, as in an export that was cut. Nothing was written. If they are to \
         go, give --allow-shrink (or --shrink-percent)"
    )]
    Shrinks { before: u64, after: u64, percent: u8 },
    #[error(
        "the database that is there keeps its shape: {problem}. Leave the options out, or give \
         --reshape to rebuild every shard (clients must then accept the new shape)"
    )]
    KeptShape { problem: String },
    #[error(
        "shard {shard} does not fit the shape of the database any more: {problem}. Give --reshape \
         to choose a new shape and rebuild every shard (`sotto inspect` says how many records \
         a shape has room for)"
    )]
    Outgrown { shard: u32, problem: &'static str },
    #[error(
        "shard {shard} found no ribbon seed, not even with {columns} columns: use more shards \
         (--shards)"
    )]
    Unsolvable { shard: u32, columns: usize },
    #[error("shard {shard} has a row too noisy for any response size: use more shards (--shards)")]
    TooNoisy { shard: u32 },
    #[error(
        "shard {shard} was built wrongly and is not kept: {problem}. This is a bug, or memory that \
         fails; run again, and report it if it stays"
    )]
    SelfCheck { shard: u32, problem: String },
    #[error("cannot {doing} {}: {source}{}", .path.display(), advice(.doing, .source))]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "not enough room in {}: {} needed, {} free. Make room, or choose another --out",
        .path.display(), bytes(*.needed), bytes(*.found)
    )]
    DiskSpace { path: PathBuf, found: u64, needed: u64 },
    #[error("another `sotto build` is at work in {}", .path.display())]
    Locked { path: PathBuf },
    #[error("{} was not written by this version: run again with --restart", .path.display())]
    ForeignWork { path: PathBuf },
    #[error(
        "{} holds a build that was interrupted, with other arguments: {differences}. Give the same \
         arguments to go on with it, or --restart to throw it away", .path.display()
    )]
    OtherArguments { path: PathBuf, differences: String },
    #[error(
        "{} changed since the build was interrupted: run again with --restart", .path.display()
    )]
    InputChanged { path: PathBuf },
    #[error("the database that is there is not usable: {0}. Move it away to build a new one")]
    Existing(#[source] OpenError),
    #[error("{} is not a signing key (Ed25519, PKCS#8 PEM): {problem}", .path.display())]
    SigningKey { path: PathBuf, problem: String },
    #[error(
        "the database that is there was signed with another key than {}, and its clients pin that \
         one: give the right --signing-key, or build in another directory", .path.display()
    )]
    OtherOperator { path: PathBuf },
    #[error("{} cannot be {what}, nothing was changed: {problem}", .path.display())]
    NotResigned { path: PathBuf, what: &'static str, problem: String },
    #[error("the public parameters cannot be made: {0}")]
    Parameters(#[from] ParametersError),
    #[error("{0}")]
    Randomness(#[from] SecretError),
    #[error("cannot start threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// What to do about a failed write or read.
fn advice(doing: &str, error: &io::Error) -> &'static str {
    let is_reading = ["read", "open", "look into", "lock"].contains(&doing);
    match error.kind() {
        io::ErrorKind::PermissionDenied if is_reading => {
            ". Have whoever owns it allow reading, or run this as its owner"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ". What was finished is kept: make room and run the same command again, or remove the \
             directory's `work` folder to give up"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            ". Choose a place that can be written (--out, --signing-key)"
        }
        _ => "",
    }
}

impl Input {
    pub(super) fn unreadable(&self, source: io::Error) -> BuildError {
        BuildError::Read { name: self.name(), source }
    }
}

/// Says of an [`io::Error`] what was being done to which path.
pub(super) trait IoContext<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, BuildError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, BuildError> {
        self.map_err(|source| BuildError::Io { doing, path: path.to_owned(), source })
    }
}
