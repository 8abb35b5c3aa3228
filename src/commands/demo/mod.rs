//! `sotto demo`: a private look-up from beginning to end, on this machine, in one command.
//!
//! It makes sample records, builds a database of them, serves it on loopback over QUIC, looks keys
//! up in one call, and shows what the client asked, what the server saw and what came back. It
//! measures what it prints and compares every answer with the sample; a wrong one makes the exit
//! code 2. Its folder is removed at the end unless `--keep` names one. `--discovery` shows what
//! records mean and how a phone can trust them ([`discovery`]).

mod discovery;
mod lookups;
mod stage;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::folder::Folder;
use super::out::{self, Ended};
pub(crate) use stage::Args;
use stage::Error;

pub(crate) fn run(args: Args) -> Ended {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = match &args.keep {
        Some(path) => Folder::kept(path)?,
        None => Folder::temporary(&std::env::temp_dir(), "demo")?,
    };
    let path = folder.path().to_owned();
    let ended: Result<ExitCode, Error> = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shown = async {
            match args.discovery {
                true => discovery::show(&args, &path).await,
                false => lookups::show(&args, &path).await,
            }
        };
        tokio::select! {
            shown = shown => shown,
            _ = interrupt.recv() => Ok(ExitCode::from(out::INTERRUPTED)),
            _ = terminate.recv() => Ok(ExitCode::from(out::INTERRUPTED)),
        }
    });
    // A build that was interrupted writes until the process ends, so the folder is removed last.
    runtime.shutdown_background();
    drop(folder);
    ended.map_err(|error| error as _)
}
