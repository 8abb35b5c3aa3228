//! What `sotto-bench build`, `startup` and `reload` have in common: their options, and a folder
//! that goes when they end, however they end.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::numbers::{self, Number};
use crate::operations::{OperationError, OperationOptions};
use crate::record::{Content, Head};
use clap::value_parser;
use sotto::limits;
use sotto::text::{bytes, counted};
use tokio::signal::unix::{SignalKind, signal};

use super::{claim, large_folder, report};
use sotto::commands::Ended;
use sotto::commands::Folder;

/// Most records that are made up: a hundred gigabytes of text.
const RECORDS_MAX: u64 = 1 << 30;
/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// A database of made-up records, and how often something is measured.
#[derive(clap::Args, Clone)]
pub(super) struct OperationArgs {
    /// Records of the database.
    #[arg(long, value_name = "N", default_value_t = 1 << 20,
        value_parser = value_parser!(u64).range(1..=RECORDS_MAX))]
    pub(super) records: u64,
    /// Shards they are spread over.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = value_parser!(u32).range(1..=i64::from(limits::SHARDS_MAX)))]
    pub(super) shards: u32,
    /// Bytes of the value field.
    #[arg(long, value_name = "N", default_value_t = 120,
        value_parser = value_parser!(u32).range(1..=i64::from(limits::VALUE_BYTES_MAX)))]
    pub(super) value_bytes: u32,
    /// How often each number is measured.
    #[arg(long, value_name = "N", default_value_t = 5,
        value_parser = value_parser!(u32).range(1..=1000))]
    pub(super) runs: u32,
    /// Threads that build or answer; as many as there are cores when absent.
    #[arg(long, value_name = "N", value_parser = value_parser!(u16)
        .range(1..=limits::THREADS_MAX as i64))]
    pub(super) threads: Option<u16>,
    /// Where the record goes, its table beside it as .txt; into bench/record/<date>-<machine> when
    /// absent and the current folder has that, else into the current folder.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl OperationArgs {
    /// The same as the library takes it, to work in this folder.
    pub(super) fn options(&self, folder: &Path) -> std::io::Result<OperationOptions> {
        Ok(OperationOptions {
            folder: folder.to_owned(),
            program: std::env::current_exe()?,
            records: self.records,
            shards: self.shards,
            value_bytes: self.value_bytes,
            threads: self.threads,
            runs: self.runs,
        })
    }

    /// Runs `work` in a temporary folder until it ends or is interrupted, and keeps its record with
    /// what `table` says of it.
    pub(super) fn measure<R: serde::Serialize, W: Future<Output = Result<R, OperationError>>>(
        &self,
        kind: &str,
        work: impl FnOnce(OperationOptions) -> W,
        table: impl FnOnce(&R) -> String,
    ) -> Ended {
        let path = claim(kind, self.json.clone())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let folder = Folder::temporary(&large_folder(), &format!("bench-{kind}"))?;
        let options = self.options(folder.path())?;
        let ended = runtime.block_on(async {
            let (mut interrupt, mut terminate) =
                (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            Ok::<_, Box<dyn std::error::Error>>(tokio::select! {
                record = work(options) => Some(record?),
                _ = interrupt.recv() => None,
                _ = terminate.recv() => None,
            })
        });
        // What was interrupted may still write until the process ends: its folder goes last.
        runtime.shutdown_background();
        drop(folder);
        let Some(record) = ended? else { return Ok(ExitCode::from(INTERRUPTED)) };
        let table = table(&record);
        super::keep(&path, &record, &format!("{table}\n"))?;
        report(format_args!("\n{table}\nrecord: {}", path.display()));
        Ok(ExitCode::SUCCESS)
    }
}

/// What a run says as soon as it is over. A reader who goes away is no reason to lose the record.
pub(super) fn shown(line: &str) {
    report(line);
}

/// What was measured, for people: where, of what, and the numbers.
pub(super) fn table(
    head: &Head,
    content: &Content,
    threads: usize,
    numbers: Vec<Number>,
) -> String {
    let machine = &head.machine;
    let shape = &content.shape;
    format!(
        "{}, {} of {} processors; commit {}, {}\n{} records in {} of {} rows ({}) by {} columns, \
         {}; {}\n\n{}",
        machine.cpu.as_deref().unwrap_or("an unknown processor"),
        machine.cpus,
        machine.logical_cpus,
        head.commit.as_deref().unwrap_or("unknown"),
        head.date.as_deref().unwrap_or("undated"),
        content.records,
        counted(content.shards.into(), "shard"),
        shape.pack_rows * shape.packs,
        counted(shape.packs.into(), "pack"),
        shape.columns,
        bytes(content.database_bytes),
        counted(threads as u64, "thread"),
        numbers::table(&numbers).text().trim_end(),
    )
}
