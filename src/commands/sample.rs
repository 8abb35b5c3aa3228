//! `sotto sample`: records for trying things out, as CSV on standard output, or a folder of signed
//! statements.

use std::path::PathBuf;
use std::process::ExitCode;

use sotto::builder::sample;
use sotto::discovery::blind::BlindKey;
use sotto::discovery::directory::RistrettoKey;
use sotto::discovery::sample::{self as statements, Options};

use super::trusted::now;
use super::{Ended, out};

/// Prints sample records as CSV: telephone numbers reserved for fiction, then example addresses.
/// The same number of records gives the same records.
///
/// With --statements it makes a folder instead: a directory, its keys, a file of signed statements
/// and two batches, of which some percent are to be refused.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of records
    #[arg(long, value_name = "N", required_unless_present = "statements")]
    records: Option<u64>,
    /// Number of statements
    #[arg(long, value_name = "N", conflicts_with = "records", requires = "out")]
    statements: Option<u64>,
    /// Folder of the statements, a new one
    #[arg(long, value_name = "DIR", requires = "statements")]
    out: Option<PathBuf>,
    /// Time of the statements, in seconds since 1970; the same gives the same files [default: now]
    #[arg(long, value_name = "TIME", requires = "statements")]
    now: Option<u64>,
    /// Blinding key whose public key the directory names [default: look-up keys are plain]
    #[arg(long, value_name = "FILE", requires = "statements")]
    blind: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Ended {
    let (Some(count), Some(folder)) = (args.statements, &args.out) else {
        out::write(|out| sample::write(args.records.unwrap_or_default(), out))?;
        return Ok(ExitCode::SUCCESS);
    };
    let blind = args.blind.as_deref().map(BlindKey::read).transpose()?;
    let options = Options {
        statements: count,
        now: args.now.map_or_else(now, Ok)?,
        blinding_key: blind.map(|key| RistrettoKey(key.public_key())),
    };
    let made = statements::write(&options, folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    out::report(format_args!(
        "{}: {} statements, {} of them to be refused, as of {}",
        folder.display(),
        made.statements,
        made.refused,
        options.now
    ));
    Ok(ExitCode::SUCCESS)
}
