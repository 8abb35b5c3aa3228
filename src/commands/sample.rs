//! `sotto sample`: records for trying things out, as CSV on standard output.

use std::process::ExitCode;

use sotto::builder::sample;

use super::{Ended, out};

/// Prints sample records as CSV: telephone numbers reserved for fiction, then example addresses.
/// The same number of records gives the same records.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of records
    #[arg(long, value_name = "N")]
    records: u64,
}

pub(crate) fn run(args: Args) -> Ended {
    out::write(|out| sample::write(args.records, out))?;
    Ok(ExitCode::SUCCESS)
}
