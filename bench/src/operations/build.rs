//! Building a database from nothing, again and again, in a process of its own each time.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{
    AS_SOTTO, IoContext as _, OperationError, OperationOptions, blocking, content, files, seed,
    spread,
};
use crate::record::{BUILD_SCHEMA, Build, Head};
use sotto::builder::keys;
use sotto::shard::Database;

/// What a process took that built a database.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time of all its threads.
    pub cpu_seconds: f64,
    /// The most memory it had.
    pub peak_memory_bytes: u64,
}

/// What the process that [`build`] starts does: builds from the folder's input, and says what this
/// process took until then.
pub fn build_once(options: &OperationOptions, run: u32) -> Result<Usage, OperationError> {
    options.build(&options.input(), seed(run))?;
    let cpu = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    let peak_memory_bytes = files::memory_bytes("self", "VmHWM:")?;
    Ok(Usage { cpu_seconds: cpu.as_secs_f64(), peak_memory_bytes })
}

/// Measures building and verifying. `arguments` have the program do [`build_once`] with these
/// options and print the [`Usage`] as JSON, for a run's number.
pub async fn build(
    options: &OperationOptions,
    arguments: &dyn Fn(u32) -> Vec<OsString>,
    shown: &mut dyn FnMut(&str),
) -> Result<Build, OperationError> {
    let head = Head::new(BUILD_SCHEMA);
    let own = options.clone();
    blocking(move || own.write_input()).await?;
    let input = options.input();
    let input_bytes = input.metadata().context("read", &input)?.len();
    let (mut seconds, mut cpu, mut verify) = (Vec::new(), Vec::new(), Vec::new());
    let mut peak = 0;
    for run in 0..options.runs {
        remove_database(options)?;
        let began = Instant::now();
        let usage: Usage = said(options, "sotto-bench build", arguments(run)).await?;
        let took = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let arguments = [AS_SOTTO.into(), "verify".into(), options.db().into(), "--quiet".into()];
        run_to_end(options, "sotto verify", arguments).await?;
        let verified = began.elapsed().as_secs_f64();
        shown(&format!(
            "built in {took:.2} s, {:.2} s of processor time, {} MiB; verified in {verified:.2} s",
            usage.cpu_seconds,
            usage.peak_memory_bytes >> 20
        ));
        seconds.push(took);
        cpu.push(usage.cpu_seconds);
        verify.push(verified);
        peak = peak.max(usage.peak_memory_bytes);
    }
    let db = options.db();
    let content = blocking(move || Ok(content(&Database::open(&db)?))).await?;
    Ok(Build {
        head,
        content,
        input_bytes,
        threads: options.threads(),
        seconds: spread(seconds),
        cpu_seconds: spread(cpu),
        peak_memory_bytes: peak,
        verify_seconds: spread(verify),
    })
}

/// With its key: the next run begins from nothing.
fn remove_database(options: &OperationOptions) -> Result<(), OperationError> {
    let db = options.db();
    let key = keys::default_path(&db);
    let gone = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(fs::remove_dir_all(&db)).context("remove", &db)?;
    gone(fs::remove_file(&key)).context("remove", &key)
}

/// What this program prints with these arguments, as JSON.
async fn said<T: serde::de::DeserializeOwned>(
    options: &OperationOptions,
    what: &str,
    arguments: Vec<OsString>,
) -> Result<T, OperationError> {
    let out = run_to_end(options, what, arguments).await?;
    serde_json::from_slice(&out).map_err(|error| OperationError::Process {
        what: what.into(),
        said: format!("found {error} in what it printed, expected what it took"),
    })
}

/// Runs this program to its end; what it printed.
async fn run_to_end(
    options: &OperationOptions,
    what: &str,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Vec<u8>, OperationError> {
    let mut command = options.command(arguments);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await;
    let output = output.context("run", &options.program)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let log = String::from_utf8_lossy(&output.stderr);
    let said = format!("{}: {}", output.status, log.lines().last().unwrap_or_default());
    Err(OperationError::Process { what: what.into(), said })
}
