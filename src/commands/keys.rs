//! `sotto keys serve`: hands out the key packages of a provider's
//! users. Standard output gets one line, `listening on ADDR:PORT`, when it is ready.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use sotto::registrar::keys::{Config, KeyService};

use super::log::LogFormat;
use super::running::{self, AdminArgs, reload_at_hangup, start_admin, told_to_leave};
use super::serve::{AdminAt, raise_file_limit};
use super::{Ended, out};

/// Hands out the key packages of a provider's users, each once.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Serve(Serve),
}

/// Answer users of this provider and relays of others over HTTPS
///
/// It reads certificates, keys of accounts, the directory and the list of relays again at SIGHUP.
#[derive(clap::Args)]
struct Serve {
    /// TOML file of the service.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Address of the operator's HTTP endpoints (/metrics, /readyz, /livez), or `off`. By default
    /// 127.0.0.1:9468, and none if that is taken.
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<AdminAt>,
    /// Allow an address that other machines reach: whoever does may read metrics.
    #[arg(long)]
    admin_anyone: bool,
    /// Form of the log.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Human)]
    log_format: LogFormat,
}

/// The port of the endpoints for the operator.
const ADMIN_PORT: u16 = 9468;

impl Args {
    /// The form of the log.
    pub(super) fn log_format(&self) -> LogFormat {
        let Command::Serve(args) = &self.command;
        args.log_format
    }
}

pub(crate) fn run(args: Args) -> Ended {
    let Command::Serve(args) = args.command;
    running::to_end(start(args))
}

async fn start(args: Serve) -> Ended {
    raise_file_limit();
    let admin = AdminArgs { at: args.admin, anyone: args.admin_anyone, port: ADMIN_PORT };
    let config = Config::read(&args.config)?;
    let clock = sotto::relay::system_clock();
    let service = KeyService::start(config, Some(args.config), Arc::new(move || clock())).await?;
    let control = service.control();
    tracing::info!("devices need the key {}", control.public_key());
    start_admin(admin, control.shown()).await?;
    let reloaded = control.clone();
    reload_at_hangup(move || reloaded.reload())?;
    let leave = told_to_leave()?;
    // Without this line a reader would wait for ever, so that a failure to write it is an error.
    out::unless_closed(out::say(format_args!("listening on {}", service.local_addr())))?;
    service.run(leave).await;
    tracing::info!("left");
    Ok(ExitCode::SUCCESS)
}
