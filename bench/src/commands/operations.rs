//! `sotto-bench build`, `startup` and `reload`, in a folder that goes when they end, however they
//! end.

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use sotto::commands::out::{report, say};
use sotto::commands::{Ended, Folder};
use sotto::text::{bytes, counted};
use tokio::signal::unix::{SignalKind, signal};

use super::files::{claim, keep, large_folder};
use crate::Failed;
use crate::common::report::origin;
use crate::numbers::{self, Number};
use crate::operations::{self, OperationOptions, Place};
use crate::record::{Content, Head};

/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: OperationOptions,
    /// Where the record goes, its table beside it as .txt; into bench/record/<date>-<machine> when
    /// absent and the current folder has that, else into the current folder.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(super) struct BuildArgs {
    #[command(flatten)]
    args: Args,
    /// Build this folder's records.csv once, and print what that took: the process measured.
    #[arg(long, value_name = "DIR", hide = true)]
    once: Option<PathBuf>,
    /// Its number.
    #[arg(long, value_name = "N", hide = true, default_value_t = 0)]
    run: u32,
}

pub(super) fn build(BuildArgs { args, once, run }: BuildArgs) -> Ended {
    if let Some(folder) = once {
        let usage = operations::build_once(&Place { options: args.options, folder }, run);
        say(serde_json::to_string(&usage.map_err(plain)?)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    measure(args, "build", operations::build, |record| {
        table(&record.head, &record.content, record.threads, &numbers::build(record))
    })
}

pub(super) fn startup(args: Args) -> Ended {
    measure(args, "startup", operations::startup, |record| {
        table(&record.head, &record.content, record.threads, &numbers::startup(record))
    })
}

pub(super) fn reload(args: Args) -> Ended {
    measure(args, "reload", operations::reload, |record| {
        table(&record.head, &record.content, record.threads, &numbers::reload(record))
    })
}

fn plain(error: Failed) -> Box<dyn Error> {
    error
}

/// Runs `work` in a temporary folder until it ends or is interrupted, and keeps its record with
/// what `table` says of it.
fn measure<R: Serialize, W: Future<Output = Result<R, Failed>>>(
    Args { options, json }: Args,
    kind: &str,
    work: impl FnOnce(Place) -> W,
    table: impl FnOnce(&R) -> String,
) -> Ended {
    let path = claim(kind, json)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = Folder::temporary(&large_folder(), &format!("bench-{kind}"))?;
    let place = Place { options, folder: folder.path().to_owned() };
    let ended = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok::<_, Failed>(tokio::select! {
            record = work(place) => Some(record?),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        })
    });
    // What was interrupted may still write until the process ends: its folder goes last.
    runtime.shutdown_background();
    drop(folder);
    let Some(record) = ended.map_err(plain)? else { return Ok(ExitCode::from(INTERRUPTED)) };
    let table = table(&record);
    report(format_args!("\n{table}"));
    keep(&path, &record, &format!("{table}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// What was measured, for people: where, of what, and the numbers.
fn table(head: &Head, content: &Content, threads: usize, numbers: &[Number]) -> String {
    let shape = &content.shape;
    format!(
        "{}\n{} records in {} of {} rows ({}) by {} columns, \
         {}; {}\n\n{}",
        origin(head),
        content.records,
        counted(content.shards.into(), "shard"),
        shape.pack_rows * shape.packs,
        counted(shape.packs.into(), "pack"),
        shape.columns,
        bytes(content.database_bytes),
        counted(threads as u64, "thread"),
        numbers::table(numbers).text().trim_end(),
    )
}
