//! `sotto-bench build`: what making a database takes. The work is [`crate::operations::build`]'s.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::numbers;

use super::operation::{OperationArgs, shown, table};
use super::say;
use sotto::commands::Ended;

/// Build a database of made-up records from nothing, several times: time, processor time, memory;
/// and verify every byte of it.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    operation: OperationArgs,
    /// Build this folder's records.csv once, and print what that took: the process measured.
    #[arg(long, value_name = "DIR", hide = true)]
    once: Option<PathBuf>,
    /// Its number.
    #[arg(long, value_name = "N", hide = true, default_value_t = 0)]
    run: u32,
}

pub(super) fn run(args: Args) -> Ended {
    let operation = &args.operation;
    if let Some(folder) = &args.once {
        let usage = crate::operations::build_once(&operation.options(folder)?, args.run)?;
        say(serde_json::to_string(&usage)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    operation.measure(
        "build",
        async |options| {
            let once = |run: u32| -> Vec<OsString> {
                let threads = options.threads.map(|threads| format!("--threads={threads}"));
                let words = [
                    "build".into(),
                    format!("--records={}", options.records),
                    format!("--shards={}", options.shards),
                    format!("--value-bytes={}", options.value_bytes),
                    format!("--run={run}"),
                    "--once".into(),
                ];
                let words = words.into_iter().map(OsString::from);
                let words = words.chain([options.folder.clone().into_os_string()]);
                words.chain(threads.map(OsString::from)).collect()
            };
            crate::operations::build(&options, &once, &mut shown).await
        },
        |record| table(&record.head, &record.content, record.threads, numbers::build(record)),
    )
}
