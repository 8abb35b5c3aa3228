//! Building a database from nothing, again and again, in a process of its own each time.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use sotto::builder::keys;
use sotto::commands::out::report;

use super::files::memory_bytes;
use super::place::{AS_SOTTO, Place, cannot, seed, spread, this_program};
use crate::Failed;
use crate::record::{BUILD_SCHEMA, Build, Head};

/// What a process took that built a database.
#[derive(Serialize, Deserialize)]
pub(crate) struct Usage {
    cpu_seconds: f64,
    peak_memory_bytes: u64,
}

/// What the process that [`build`] starts does: builds from the folder's input, and says what this
/// process took until then.
pub(crate) fn build_once(place: &Place, run: u32) -> Result<Usage, Failed> {
    place.build(&place.input(), seed(run))?;
    let cpu = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    let peak_memory_bytes = memory_bytes("self", "VmHWM:")?;
    Ok(Usage { cpu_seconds: cpu.as_secs_f64(), peak_memory_bytes })
}

/// Measures building and verifying. This process's own arguments with `--once FOLDER --run N` make
/// a process call [`build_once`] and print the [`Usage`] as JSON.
pub(crate) async fn build(place: Place) -> Result<Build, Failed> {
    let head = Head::new(BUILD_SCHEMA);
    place.blocking(Place::write_input).await?;
    let input = place.input();
    let input_bytes = input.metadata().map_err(cannot("read", &input))?.len();
    let (mut seconds, mut cpu, mut verify) = (Vec::new(), Vec::new(), Vec::new());
    let mut peak = 0;
    for run in 0..place.options.runs {
        remove_database(&place)?;
        let began = Instant::now();
        let own = std::env::args_os().skip(1);
        let once: [OsString; 4] =
            ["--once".into(), place.folder.clone().into(), "--run".into(), run.to_string().into()];
        let usage: Usage = serde_json::from_slice(&run_to_end(own.chain(once)).await?)?;
        let took = began.elapsed().as_secs_f64();
        let began = Instant::now();
        run_to_end([AS_SOTTO.into(), "verify".into(), place.db().into(), "--quiet".into()]).await?;
        let verified = began.elapsed().as_secs_f64();
        report(format_args!(
            "built in {took:.2} s, {:.2} s of processor time, {} MiB; verified in {verified:.2} s",
            usage.cpu_seconds,
            usage.peak_memory_bytes >> 20
        ));
        seconds.push(took);
        cpu.push(usage.cpu_seconds);
        verify.push(verified);
        peak = peak.max(usage.peak_memory_bytes);
    }
    Ok(Build {
        head,
        content: place.blocking(Place::content).await?,
        input_bytes,
        threads: place.threads(),
        seconds: spread(seconds),
        cpu_seconds: spread(cpu),
        peak_memory_bytes: peak,
        verify_seconds: spread(verify),
    })
}

/// With its key: the next run begins from nothing.
fn remove_database(place: &Place) -> Result<(), Failed> {
    let db = place.db();
    let key = keys::default_path(&db);
    for (path, removed) in [(&db, fs::remove_dir_all(&db)), (&key, fs::remove_file(&key))] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(cannot("remove", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Runs this program to its end; what it printed.
async fn run_to_end(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<u8>, Failed> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let output = this_program(&arguments)?.output().await?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let log = String::from_utf8_lossy(&output.stderr);
    let last = log.lines().last().unwrap_or_default();
    Err(format!("{arguments:?} ended {}, expected success: {last}", output.status).into())
}
