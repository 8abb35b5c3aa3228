//! `sotto rollback`: the content of the epoch before, as a new epoch.

use std::process::ExitCode;

use sotto::builder::{Console, rollback};
use sotto::text::counted;

use super::{Ended, out, renew};

/// Makes the content of the previous epoch a new epoch.
///
/// Reads every byte of it first. Running servers load the new epoch. A second rollback undoes the
/// first.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    renewal: renew::Args,
}

pub(crate) fn run(args: Args) -> Ended {
    let renew::Args { db, key, expires_days } = args.renewal;
    let done = rollback(&db, key.as_deref(), expires_days, &Console::default())?;
    out::report(format_args!(
        "{}: epoch {} has the content of epoch {} ({} changed)",
        db.display(),
        done.epoch,
        done.content_of,
        counted(done.changed as u64, "shard")
    ));
    Ok(ExitCode::SUCCESS)
}
