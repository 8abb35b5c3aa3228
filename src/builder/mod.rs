//! From input files to a database: count, partition, check, build shard by shard, sign.
//!
//! Memory stays bounded whatever the input; a build killed at any moment goes on when it is
//! started again; the same records, seed and shape give the same bytes. The way of a build is in
//! [`run()`]. What this module does not do: know the command line (`commands/build.rs`) or the file
//! format ([`crate::shard`]).

use std::io;
use std::path::{Path, PathBuf};

use crate::limits;
use crate::params::{ShapeError, ShapeWishes};
use crate::scheme::{Seed, random_bytes};
use crate::shard::OpenError;
use crate::text;
use crate::wire::parameters::ParametersError;

pub mod check;
pub mod choose;
pub mod count;
mod csv;
mod directory;
pub mod input;
pub mod keys;
mod lines;
mod make;
pub mod partition;
pub mod plan;
pub mod progress;
mod renew;
mod rollback;
mod run;
pub mod sample;
pub mod source;
mod suspect;
mod work;

pub use check::Duplicates;
pub use input::{Input, InputFormat, LineErrors};
pub use plan::{BuildPlan, plan};
pub use progress::{Console, Progress, Silent};
pub use renew::{Renewed, renew};
pub use rollback::{RolledBack, rollback};
pub use run::{BuildReport, run};

/// The name of a database that is given none: the same on every machine, so that the same records
/// give the same bytes. An operator who signs several databases with one key names each.
pub const DATABASE_NAME_DEFAULT: &str = "main";

/// What happens to a database that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Its seed, shard count and shape are kept, and its shards whose records did not change.
    Keep,
    /// Its seed is kept; shard count and shape are chosen again.
    Reshape,
}

/// What happens to a build that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// It goes on, if the arguments and the input are the same.
    Continue,
    /// It is thrown away.
    Restart,
}

/// How many records of a database that is there may be missing in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shrinking {
    /// So many percent, 0 to 100.
    AtMostPercent(u8),
    /// All.
    Allowed,
}

/// Percent of the records that may be missing when no option says how many.
pub const SHRINK_PERCENT_DEFAULT: u8 = 5;

/// Everything a build is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOptions {
    /// Where the records are.
    pub input: Input,
    /// The database directory.
    pub out: PathBuf,
    /// Shards of the database.
    pub shards: Option<u32>,
    /// Records a shard, in place of a number of shards.
    pub records_per_shard: Option<u64>,
    /// Bytes of the value field; the longest value is one byte shorter.
    pub value_bytes: Option<u32>,
    /// Pack rows and packs.
    pub wishes: ShapeWishes,
    /// The database seed.
    pub seed: Option<Seed>,
    /// The database's name; that of the database that is there, or [`DATABASE_NAME_DEFAULT`].
    pub database: Option<String>,
    /// For how many days clients are to accept what is signed: 1 to
    /// [`limits::EXPIRES_DAYS_MAX`].
    pub expires_days: u32,
    /// File of the operator's key; [`keys::default_path`] when `None`.
    pub signing_key: Option<PathBuf>,
    /// Threads; all cores when `None`.
    pub jobs: Option<usize>,
    /// What happens to a database that is there already.
    pub existing: Existing,
    /// What happens to a build that was interrupted.
    pub interrupted: Interrupted,
    /// How many records may be missing.
    pub shrinking: Shrinking,
    /// Unix seconds to write down; the environment's SOURCE_DATE_EPOCH or the clock when `None`.
    pub created: Option<u64>,
}

impl BuildOptions {
    /// Everything by rule.
    pub fn new(input: Input, out: PathBuf) -> Self {
        Self {
            input,
            out,
            shards: None,
            records_per_shard: None,
            value_bytes: None,
            wishes: ShapeWishes::default(),
            seed: None,
            database: None,
            expires_days: limits::EXPIRES_DAYS_DEFAULT,
            signing_key: None,
            jobs: None,
            existing: Existing::Keep,
            interrupted: Interrupted::Continue,
            shrinking: Shrinking::AtMostPercent(SHRINK_PERCENT_DEFAULT),
            created: None,
        }
    }
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The input cannot be read.
    #[error("cannot read {name}: {source}")]
    Read {
        /// The input.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The rest of the input cannot be understood.
    #[error("{name}, line {line}: {problem}")]
    Unreadable {
        /// The input.
        name: String,
        /// The line.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// Some lines are wrong.
    #[error("{} of {name} cannot be used:{errors}\nNothing was built.", lines(.errors.count))]
    Lines {
        /// The input.
        name: String,
        /// Which, and how many.
        errors: LineErrors,
    },
    /// There is nothing to build from.
    #[error("{name} has no records")]
    NoRecords {
        /// The input.
        name: String,
    },
    /// Some keys are there more than once.
    #[error(
        "{} of {name} repeat a key:{duplicates}\nA key has one value. Nothing was built.",
        lines(.duplicates.count)
    )]
    Duplicates {
        /// The input.
        name: String,
        /// Which, and how many.
        duplicates: Duplicates,
    },
    /// Options that make no sense.
    #[error("{problem}")]
    Option {
        /// What is wrong.
        problem: String,
    },
    /// No shape for these records.
    #[error("no shape fits: {0}")]
    Shape(#[from] ShapeError),
    /// The input has much fewer records than the database.
    #[error(
        "the input has {after} records, the database that is there has {before}: more than \
         {percent}% are missing, as in an export that was cut. Nothing was written. If they are to \
         go, give --allow-shrink (or --shrink-percent)"
    )]
    Shrinks {
        /// Records of the database.
        before: u64,
        /// Records of the input.
        after: u64,
        /// Percent that may be missing.
        percent: u8,
    },
    /// The options ask for another shape than the database has.
    #[error(
        "the database that is there keeps its shape: {problem}. Leave the options out, or give \
         --reshape to rebuild every shard (clients must then accept the new shape)"
    )]
    KeptShape {
        /// Where they differ.
        problem: String,
    },
    /// The records do not fit the shape of the database.
    #[error(
        "shard {shard} does not fit the shape of the database any more: {problem}. Give --reshape \
         to choose a new shape and rebuild every shard (`sotto inspect` says how many records \
         a shape has room for)"
    )]
    Outgrown {
        /// Which shard.
        shard: u32,
        /// Why.
        problem: &'static str,
    },
    /// No shape within reach can be solved.
    #[error(
        "shard {shard} found no ribbon seed, not even with {columns} columns: use fewer records a \
         shard (--shards or --records-per-shard)"
    )]
    Unsolvable {
        /// Which shard.
        shard: u32,
        /// Columns tried last.
        columns: usize,
    },
    /// A row is too noisy at the largest response.
    #[error(
        "shard {shard} has a row too noisy for any response size: use fewer records a shard \
         (--shards or --records-per-shard)"
    )]
    TooNoisy {
        /// Which shard.
        shard: u32,
    },
    /// A built shard does not answer rightly.
    #[error(
        "shard {shard} was built wrongly and is not kept: {problem}. This is a bug, or memory that \
         fails; run again, and report it if it stays"
    )]
    SelfCheck {
        /// Which shard.
        shard: u32,
        /// What went wrong.
        problem: String,
    },
    /// Something on disk cannot be read or written.
    #[error("cannot {doing} {}: {source}{}", .path.display(), advice(.doing, .source))]
    Io {
        /// The verb.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not enough room.
    #[error(
        "not enough room in {}: {} needed, {} free. Make room, or choose another --out",
        .path.display(), text::bytes(*.needed), text::bytes(*.found)
    )]
    DiskSpace {
        /// Where.
        path: PathBuf,
        /// Bytes free.
        found: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// Somebody else builds here.
    #[error("another `sotto build` is at work in {}", .path.display())]
    Locked {
        /// Where.
        path: PathBuf,
    },
    /// The work folder is not one of this version.
    #[error("{} was not written by this version: run again with --restart", .path.display())]
    ForeignWork {
        /// The work file.
        path: PathBuf,
    },
    /// The interrupted build had other arguments.
    #[error(
        "{} holds a build that was interrupted, with other arguments: {differences}. Give the same \
         arguments to go on with it, or --restart to throw it away", .path.display()
    )]
    OtherArguments {
        /// The work folder.
        path: PathBuf,
        /// Where they differ.
        differences: String,
    },
    /// The interrupted build had another input.
    #[error(
        "{} changed since the build was interrupted: run again with --restart", .path.display()
    )]
    InputChanged {
        /// The input.
        path: PathBuf,
    },
    /// The database that is there cannot be opened.
    #[error("the database that is there is not usable: {0}. Move it away to build a new one")]
    Existing(#[source] OpenError),
    /// The signing key is none.
    #[error("{} is not a signing key (Ed25519, PKCS#8 PEM): {problem}", .path.display())]
    SigningKey {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The database was signed with another key.
    #[error(
        "the database that is there was signed with another key than {}, and its clients pin that \
         one: give the right --signing-key, or build in another directory", .path.display()
    )]
    OtherOperator {
        /// The key's file.
        path: PathBuf,
    },
    /// There is no database that can be signed again.
    #[error("{} cannot be signed again, nothing was changed: {problem}", .path.display())]
    NoRenewal {
        /// The database directory.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// There is no way back to the epoch before.
    #[error("{} cannot be rolled back, nothing was changed: {problem}", .path.display())]
    NoRollback {
        /// The database directory.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The manifest cannot be made.
    #[error("the public parameters cannot be made: {0}")]
    Parameters(#[from] ParametersError),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Randomness(String),
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(String),
}

fn lines(count: u64) -> String {
    if count == 1 { "1 line".into() } else { format!("{count} lines") }
}

/// What an [`BuildError::Io`] is doing when it does not write.
const READING: [&str; 4] = ["read", "open", "look into", "lock"];

/// What to do about a failed write or read.
fn advice(doing: &str, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied if READING.contains(&doing) => {
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

/// Says of an [`io::Error`] what was being done to which path.
trait IoContext<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, BuildError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, BuildError> {
        self.map_err(|source| BuildError::Io { doing, path: path.to_owned(), source })
    }
}

fn random() -> Result<[u8; 32], BuildError> {
    random_bytes().map_err(|error| BuildError::Randomness(error.to_string()))
}
