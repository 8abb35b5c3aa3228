//! Why no records were made.

use std::io;
use std::path::{Path, PathBuf};

use super::super::filter::WriteError;
use crate::limits::RECORD_VALUE_BYTES_MIN;

/// Why no records were made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // Names say it.
pub enum MergeError {
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("no input: name the files of statements")]
    NoFiles,
    #[error("the directory has no database {0:?}: give the id of one of its databases")]
    NoDatabase(String),
    #[error(
        "the record key is none of the keys that the directory has for the database {database} at \
         this time: give the right one, or add it to the directory"
    )]
    RecordKey { database: String },
    #[error(
        "the blinding key is not the one that the directory has for the database {database}: give \
         the right one (a new one is a new database)"
    )]
    BlindingKey { database: String },
    #[error(
        "the directory has a blinding key for the database {database}: give it (--blind); records \
         that are not sealed are for databases without one"
    )]
    NotBlinded { database: String },
    #[error(
        "a filter is over blinded keys only: over readable ones anybody could try out identifiers; \
         leave the filter out (--filter), or give the blinding key (--blind)"
    )]
    FilterOfPlain,
    #[error(
        "the key that is to sign the filter is not the operator key that the directory has for the \
         database {database}: give the key that signs its parameters (--filter-key)"
    )]
    FilterKey { database: String },
    #[error("cannot make the filter {}: {source}", .path.display())]
    Filter { path: PathBuf, source: WriteError },
    #[error("the value field has {found} bytes, expected at least {RECORD_VALUE_BYTES_MIN}")]
    ValueBytes { found: usize },
    #[error("the time {0} is before 2020 or too late for records: set the clock")]
    Time(u64),
    #[error("another `sotto records make` is at work in {}", .path.display())]
    Locked { path: PathBuf },
    #[error(
        "{} is the work folder of another database or blinding key: give each its own (--work)",
        .path.display()
    )]
    OtherWork { path: PathBuf },
    #[error(
        "{} is damaged, or was written by another version: move the work folder away and wait a \
         minute",
        .path.display()
    )]
    Damaged { path: PathBuf },
    #[error(
        "records of this minute were made of other input: two texts under one key would give both \
         away; wait a minute and run it again"
    )]
    SameMinute,
    #[error(
        "records of a later minute were made already ({last}, now it is {now}): two texts under \
         one key would give both away; set the clock, or wait until then"
    )]
    OlderMinute { last: u64, now: u64 },
    #[error(
        "the last batch of {issuer} is number {found}, and number {expected} was accepted before: \
         give all batches of each issuer; withdrawals may be in the missing ones"
    )]
    BatchesMissing { issuer: String, found: u64, expected: u64 },
    #[error("{} changed while it was read: run it again", .path.display())]
    InputChanged { path: PathBuf },
}

/// Says of an [`io::Error`] what was being done to which path.
pub(super) trait IoContext<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, MergeError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, MergeError> {
        self.map_err(|source| MergeError::Io { doing, path: path.to_owned(), source })
    }
}
