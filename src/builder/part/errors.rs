//! Why a part of a build was not done. Each message says what was found and what to do.

use std::io;

use crate::builder::errors::BuildError;
use crate::builder::input::LineErrors;
use crate::text::counted;
use crate::wire::parameters::ParametersError;

/// Why a part of a build was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names say it.
pub enum PartError {
    #[error(
        "shard {shard} has too many records for {columns} columns: it needs a wider shape. Make \
         another spec (`sotto part spec --of SPEC --wider`) and encode every shard by it"
    )]
    WiderShape { shard: u32, columns: usize },
    #[error(
        "shard {shard} has a row that is too noisy for responses of {bits} bits: it needs more. \
         Make another spec (`sotto part spec --of SPEC --more-bits`) and encode every shard by it"
    )]
    MoreBits { shard: u32, bits: u32 },
    #[error(
        "{} of other shards than {shard} by this spec:{}\nWhat locates keys has another seed or \
         number of shards than the spec, or another function",
        counted(.found.count, "record"), .found.named("record")
    )]
    Misplaced { shard: u32, found: LineErrors },
    #[error(
        "{} of shard {shard} repeat a key:{}\nA key has one value",
        counted(.found.count, "record"), .found.named("record")
    )]
    Repeated { shard: u32, found: LineErrors },
    #[error("the spec cannot be used: {problem}")]
    Spec { problem: String },
    #[error("shard {shard}: the database has shards 0 to {}", .shard_count - 1)]
    NoSuchShard { shard: u32, shard_count: u32 },
    #[error("{} of the records cannot be used:{lines}", counted(.lines.count, "line"))]
    Lines { lines: LineErrors },
    #[error("line {line} of the records: {problem}")]
    Unreadable { line: u64, problem: String },
    #[error("line {line} is no key: {problem}")]
    Key { line: u64, problem: String },
    #[error("line {line} of the entries: {problem}")]
    Entry { line: u64, problem: String },
    #[error(
        "the entries of {} are missing: {first}. Encode what is missing and give all entries \
         together", counted(*.count as u64, "shard")
    )]
    Missing { count: usize, first: String },
    #[error(
        "the spec has another {what} than the database that is there ({found}, expected \
         {expected}): make it with `sotto part spec --previous`"
    )]
    OtherDatabase { what: &'static str, found: String, expected: String },
    #[error("cannot read: {source}")]
    Read { source: io::Error },
    #[error("cannot write: {source}")]
    Write { source: io::Error },
    #[error("the public parameters cannot be made: {0}")]
    Parameters(#[from] ParametersError),
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl PartError {
    /// The exit code of `sotto part`, for what starts it: whether to make another spec (10, 11) or
    /// to look at what groups the records (12). Anything else is 2.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::WiderShape { .. } => 10,
            Self::MoreBits { .. } => 11,
            Self::Misplaced { .. } | Self::Repeated { .. } => 12,
            _ => 2,
        }
    }
}
