//! `sotto demo`: a private look-up from beginning to end, on this machine, in one command.
//!
//! It makes sample records, builds a database of them, serves it on loopback over QUIC, looks keys
//! up in one call, and shows what the client asked, what the server saw and what came back. It
//! measures what it prints and compares every answer with the sample; a wrong one makes the exit
//! code 2. Its folder is removed at the end unless `--keep` names one. `--discovery` shows what
//! records mean and how a phone can trust them ([`discovery`]), `--federated` how a phone asks
//! through a relay and a front-end, `--registration` how people come into the records.

mod discovery;
#[cfg(feature = "front-end")]
mod federated;
mod lookups;
#[cfg(feature = "front-end")]
mod parties;
#[cfg(feature = "registration")]
mod registration;
mod stage;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::folder::Folder;
use super::out::{self, Ended};
pub(crate) use stage::Args;
use stage::Error;

pub(crate) fn run(args: Args) -> Ended {
    #[cfg(not(feature = "front-end"))]
    if args.federated {
        return with_feature("front-end");
    }
    #[cfg(not(feature = "registration"))]
    if args.registration {
        return with_feature("registration");
    }
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
            #[cfg(feature = "registration")]
            if args.registration {
                return registration::show(&args, &path).await;
            }
            #[cfg(feature = "front-end")]
            if args.federated {
                return federated::show(&args, &path).await;
            }
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

/// The first demo does not wait until a relay, a front-end or a registrar is compiled. So what
/// `cargo run` made has cargo make the rest, and run the same command again.
#[cfg(not(feature = "registration"))]
fn with_feature(feature: &str) -> Ended {
    let run = ["run", "--release", "--features", feature, "--"];
    let (Some(cargo), Some(folder)) =
        (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR"))
    else {
        let again: Vec<String> = std::env::args().skip(1).collect();
        let command = format!("cargo {} {}", run.join(" "), again.join(" "));
        return Err(
            format!("this program was built without the feature {feature}: {command}").into()
        );
    };
    let mut again = std::process::Command::new(cargo);
    again.args(run).args(std::env::args_os().skip(1)).current_dir(folder);
    let status = again.status()?;
    Ok(ExitCode::from(status.code().and_then(|code| code.try_into().ok()).unwrap_or(2)))
}
