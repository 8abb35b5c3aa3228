//! `sotto sample`: records for trying things out, as CSV on standard output.

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use sotto::build::sample;

use super::Ended;

/// Prints sample records as CSV: numbers reserved for fiction, then example addresses. The same
/// for the same number of records.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many records
    #[arg(long, value_name = "N")]
    records: u64,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Ended {
    match sample::write(args.records, io::stdout().lock()) {
        // Whoever reads it, `head` for one, has had enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        outcome => Ok(outcome.map(|()| ExitCode::SUCCESS)?),
    }
}
