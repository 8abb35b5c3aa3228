//! `sotto renew`: the same content, signed for longer, as a new epoch.

use std::path::PathBuf;
use std::process::ExitCode;

use sotto::builder::renew;
use sotto::limits;

use super::{Ended, out};

/// Signs a database again before it expires, without its records.
///
/// Clients refuse a database that has expired. Running servers load the new epoch; the shards stay
/// as they are.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory of the database
    #[arg(long, value_name = "DIR")]
    pub(super) db: PathBuf,
    /// The operator's signing key, Ed25519 as PKCS#8 PEM [default: DIR.signing-key.pem]
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
    /// Days for which clients accept it
    #[arg(long, value_name = "DAYS", default_value_t = limits::EXPIRES_DAYS_DEFAULT)]
    pub(super) expires_days: u32,
}

pub(crate) fn run(args: Args) -> Ended {
    let renewed = renew(&args.db, args.key.as_deref(), args.expires_days)?;
    out::report(format_args!(
        "{}: epoch {} has the same content, and clients accept it for {} days",
        args.db.display(),
        renewed.epoch,
        args.expires_days
    ));
    Ok(ExitCode::SUCCESS)
}
