//! `sotto verify`: reads every byte of a database and compares it with its digests.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use sotto::builder::progress::Stage;
use sotto::builder::{Console, Progress, Silent};
use sotto::shard::Database;
use sotto::shard::verify::{verify, verify_bytes};
use sotto::text::{bytes, counted, duration};

use super::{Ended, out};

/// Reads every byte of a database and compares digests. Exit code 0 means that it is intact, 1 that
/// something is damaged.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory of the database
    #[arg(value_name = "DIR")]
    db: PathBuf,
    /// Print only what is wrong
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(args: Args) -> Ended {
    let progress: &dyn Progress = if args.quiet { &Silent } else { &Console::default() };
    let begun = Instant::now();
    let database = match Database::open(&args.db) {
        Ok(database) => database,
        Err(error) => {
            out::complain(format_args!("error: {error}"));
            return Ok(ExitCode::FAILURE);
        }
    };
    progress.begin(Stage::Verifying, verify_bytes(&database));
    let problems = verify(&database, &|bytes| progress.advance(bytes));
    progress.end();
    for problem in &problems {
        out::complain(format_args!("error: {problem}"));
    }
    if !problems.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    if !args.quiet {
        out::report(format_args!(
            "{}: {}, {}, every byte matches what its operator signed, {}",
            args.db.display(),
            counted(database.shard_count().into(), "shard"),
            bytes(verify_bytes(&database)),
            duration(begun.elapsed())
        ));
    }
    Ok(ExitCode::SUCCESS)
}
