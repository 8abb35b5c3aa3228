//! `sotto-bench build`, `startup` and `reload`: what a database and a server cost beside answering.
//!
//! Real files in a folder that whoever calls gives and takes away, real processes of this program
//! ([`server`]), real look-ups, each compared with what was built. What it deliberately does not
//! do: put a server under load to its limit ([`super::load`]), measure engines alone.

mod build;
mod files;
mod reload;
mod server;
mod startup;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

pub use build::{Usage, build, build_once};
pub use reload::reload;
pub use startup::startup;

use crate::record::{Content, ShapeFacts, Spread};
use sotto::builder::{BuildError, BuildOptions, BuildReport, Input, Silent, run, sample};
use sotto::client::{ClientError, LookupError};
use sotto::shard::header::file_bytes;
use sotto::shard::{Database, OpenError};

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct OperationOptions {
    /// A folder with nothing in it, to work in.
    pub folder: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// Records of the database.
    pub records: u64,
    /// Its shards.
    pub shards: u32,
    /// Bytes of its value fields.
    pub value_bytes: u32,
    /// Threads that build or answer; all there are when `None`.
    pub threads: Option<u16>,
    /// How often each number is measured.
    pub runs: u32,
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// A file cannot be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A process of this program ended as it should not.
    #[error("{what}: {said}")]
    Process {
        /// Which.
        what: String,
        /// How it ended, and its last line.
        said: String,
    },
    /// The server could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A look-up failed.
    #[error("a look-up failed: {0}")]
    Lookup(#[from] LookupError),
    /// An answer is not what was built.
    #[error("an answer is wrong: {0}. This is a bug, or memory that fails; run again")]
    Wrong(String),
    /// Look-ups were lost by a reload.
    #[error(
        "{lost} of {lookups} look-ups during reloads had no right answer, expected all of them"
    )]
    Lost {
        /// How many.
        lost: u64,
        /// Of so many.
        lookups: u64,
    },
    /// The page cache is not as it should be.
    #[error("{0}")]
    PageCache(String),
    /// Work on a thread of its own was lost.
    #[error("this is a bug: a thread of the measurement panicked")]
    Thread,
}

/// Says of an [`io::Error`] what was being done to which path.
trait IoContext<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, OperationError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, doing: &'static str, path: &Path) -> Result<T, OperationError> {
        self.map_err(|source| OperationError::Io { doing, path: path.to_owned(), source })
    }
}

impl OperationOptions {
    fn input(&self) -> PathBuf {
        self.folder.join("records.csv")
    }

    fn db(&self) -> PathBuf {
        self.folder.join("db")
    }

    fn threads(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(all, usize::from)
    }

    /// Writes the records.
    fn write_input(&self) -> Result<(), OperationError> {
        let path = self.input();
        let file = std::fs::File::create(&path).context("write", &path)?;
        sample::write(self.records, file).context("write", &path)
    }

    /// Builds this input to the database, or to the next epoch of the one that is there.
    fn build(&self, input: &Path, seed: [u8; 32]) -> Result<BuildReport, BuildError> {
        let mut options = BuildOptions::new(Input::File(input.to_owned()), self.db());
        options.shards = Some(self.shards);
        options.value_bytes = Some(self.value_bytes);
        options.jobs = Some(self.threads());
        options.seed = Some(seed);
        run(&options, &Silent)
    }

    /// This program with these arguments, and nothing from the environment that it would read.
    fn command(&self, arguments: impl IntoIterator<Item = OsString>) -> Command {
        let mut command = Command::new(&self.program);
        let ours = std::env::vars_os().map(|(name, _)| name);
        ours.filter(|name| name.to_string_lossy().starts_with("SOTTO_")).for_each(|name| {
            command.env_remove(name);
        });
        command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
        command
    }
}

/// The first argument with which this program runs `sotto` with the arguments that follow. Servers
/// that are measured are processes of this program, so that what is measured is what it was
/// compiled with, and no other program needs to be there.
pub(crate) const AS_SOTTO: &str = "sotto";

/// The seed of a run's database: the same for the same number, so that runs of two days do the
/// same work. Never one for others.
fn seed(run: u32) -> [u8; 32] {
    blake3::derive_key("sotto-bench seed", &run.to_le_bytes())
}

fn content(database: &Database) -> Content {
    let shape = database.shape();
    Content {
        records: database.shards().iter().map(|shard| shard.header().records).sum(),
        shards: database.shard_count(),
        database_bytes: file_bytes(shape) * u64::from(database.shard_count()),
        shape: ShapeFacts::of(shape),
    }
}

/// Of at least one run.
fn spread(runs: impl IntoIterator<Item = f64>) -> Spread {
    Spread::of(runs).expect("this is a bug: no run was measured")
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OperationError> + Send + 'static,
) -> Result<T, OperationError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| OperationError::Thread)?
}
