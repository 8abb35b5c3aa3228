//! The options of all operations, the folder they work in, and what they share.

use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::value_parser;
use sotto::builder::{BuildError, BuildOptions, BuildReport, Input, Silent, run, sample};
use sotto::limits;
use sotto::shard::Database;
use sotto::shard::header::file_bytes;
use tokio::process::Command;

use crate::Failed;
use crate::record::{Content, ShapeFacts, Spread};

/// Most records that are made up: a hundred gigabytes of text.
const RECORDS_MAX: u64 = 1 << 30;

/// The first argument with which this program runs `sotto` with the arguments that follow: a server
/// that is measured is a process of this program, and no other needs to be there.
pub(crate) const AS_SOTTO: &str = "sotto";

/// A database of made-up records, and how often something is measured.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct OperationOptions {
    /// Records of the database.
    #[arg(long, value_name = "N", default_value_t = 1 << 20,
        value_parser = value_parser!(u64).range(1..=RECORDS_MAX))]
    records: u64,
    /// Shards they are spread over.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = value_parser!(u32).range(1..=i64::from(limits::SHARDS_MAX)))]
    pub(super) shards: u32,
    /// Bytes of the value field.
    #[arg(long, value_name = "N", default_value_t = 120,
        value_parser = value_parser!(u32).range(1..=i64::from(limits::VALUE_BYTES_MAX)))]
    value_bytes: u32,
    /// How often each number is measured.
    #[arg(long, value_name = "N", default_value_t = 5,
        value_parser = value_parser!(u32).range(1..=1000))]
    pub(super) runs: u32,
    /// Threads that build or answer; as many as there are cores when absent.
    #[arg(long, value_name = "N", value_parser = value_parser!(u16)
        .range(1..=limits::THREADS_MAX as i64))]
    threads: Option<u16>,
}

#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) options: OperationOptions,
    /// With nothing in it at first.
    pub(crate) folder: PathBuf,
}

impl Place {
    pub(super) fn input(&self) -> PathBuf {
        self.folder.join("records.csv")
    }

    pub(super) fn db(&self) -> PathBuf {
        self.folder.join("db")
    }

    pub(super) fn threads(&self) -> usize {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        self.options.threads.map_or_else(all, usize::from)
    }

    pub(super) fn write_input(&self) -> Result<(), Failed> {
        let path = self.input();
        let file = File::create(&path).map_err(cannot("write", &path))?;
        sample::write(self.options.records, file).map_err(cannot("write", &path))
    }

    /// Builds this input to the database, or to the next epoch of the one that is there.
    pub(super) fn build(&self, input: &Path, seed: [u8; 32]) -> Result<BuildReport, BuildError> {
        let mut options = BuildOptions::new(Input::File(input.to_owned()), self.db());
        options.shards = Some(self.options.shards);
        options.value_bytes = Some(self.options.value_bytes);
        options.jobs = Some(self.threads());
        options.seed = Some(seed);
        run(&options, &Silent)
    }

    pub(super) fn content(&self) -> Result<Content, Failed> {
        let database = Database::open(&self.db())?;
        let shape = database.shape();
        Ok(Content {
            records: database.shards().map(|shard| shard.header().records).sum(),
            shards: database.shard_count(),
            database_bytes: file_bytes(shape) * u64::from(database.shard_count()),
            shape: ShapeFacts::of(shape),
        })
    }

    /// Runs `work` on a thread where it may block.
    pub(super) async fn blocking<T: Send + 'static, E: Into<Failed> + Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Failed> {
        let place = self.clone();
        tokio::task::spawn_blocking(move || work(&place)).await?.map_err(Into::into)
    }
}

/// This program with these arguments, and nothing from the environment that it would read.
pub(super) fn this_program(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let ours = std::env::vars_os().map(|(name, _)| name);
    ours.filter(|name| name.to_string_lossy().starts_with("SOTTO_")).for_each(|name| {
        command.env_remove(name);
    });
    command.args(arguments.into_iter().map(Into::into)).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Says of an error what was being done to which path.
pub(super) fn cannot<E: Error>(doing: &str, path: &Path) -> impl FnOnce(E) -> Failed {
    move |error| format!("cannot {doing} {}: {error}", path.display()).into()
}

/// The seed of a run's database: the same for the same number, so that all runs do the same work.
pub(super) fn seed(run: u32) -> [u8; 32] {
    blake3::derive_key("sotto-bench seed", &run.to_le_bytes())
}

pub(super) fn spread(runs: impl IntoIterator<Item = f64>) -> Spread {
    Spread::of(runs).expect("this is a bug: no run was measured")
}
