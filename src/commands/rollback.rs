//! `sotto rollback`: the content of the epoch before, as a new epoch.

use std::path::PathBuf;
use std::process::ExitCode;

use sotto::builder::{Console, rollback};
use sotto::limits;
use sotto::text::counted;

use super::{Ended, out};

/// Makes the content of the previous epoch a new epoch.
///
/// Reads every byte of it first. Running servers load the new epoch. A second rollback undoes the
/// first.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory of the database
    #[arg(long, value_name = "DIR")]
    db: PathBuf,
    /// The operator's signing key, Ed25519 as PKCS#8 PEM [default: DIR.signing-key.pem]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Days for which clients accept it
    #[arg(long, value_name = "DAYS", default_value_t = limits::EXPIRES_DAYS_DEFAULT)]
    expires_days: u32,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Ended {
    let done = rollback(&args.db, args.key.as_deref(), args.expires_days, &Console::new())?;
    out::report(format_args!(
        "{}: epoch {} has the content of epoch {} ({} changed)",
        args.db.display(),
        done.epoch,
        done.content_of,
        counted(done.changed as u64, "shard")
    ));
    Ok(ExitCode::SUCCESS)
}
