//! `sotto registrar`: registers users of application providers, and gives out what it vouches for.
//!
//! `serve` prints one line to standard output, `listening on ADDR:PORT`, when it listens;
//! everything else goes to the log.

use std::path::PathBuf;
use std::process::ExitCode;

use sotto::registrar::service::{Config, Registrar, feed, init, purge, system_clock};

use super::log::LogFormat;
use super::running::{self, AdminArgs, reload_at_hangup, start_admin, told_to_leave};
use super::serve::{AdminAt, raise_file_limit};
use super::trusted::{directory, now};
use super::{Ended, out};

/// Registers users of application providers, and gives out what it vouches for.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Init(Init),
    Serve(Serve),
    Export(Export),
    Statements(Statements),
    Purge(Purge),
}

/// Make the secrets of a registrar, once, and print its public key for the directory
///
/// It makes the folder `keys` of the configuration, and the issuer's key where there is none.
/// Nothing is ever replaced: with other secrets a registrar does not find what it stored.
#[derive(clap::Args)]
struct Init {
    /// TOML file of the registrar
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Answer application providers over HTTPS
///
/// It reads certificates, the directory, application providers and rules again at SIGHUP. While the
/// database does not answer it puts requests off, and goes on when it does.
#[derive(clap::Args)]
struct Serve {
    /// TOML file of the registrar
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Address of the operator's HTTP endpoints (/metrics, /readyz, /livez), or `off`. By default
    /// 127.0.0.1:9467, and none if that is taken
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<AdminAt>,
    /// Allow an address that other machines reach: whoever does may read metrics
    #[arg(long)]
    admin_anyone: bool,
    /// Form of the log
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Human)]
    log_format: LogFormat,
}

/// Write the batches of the feed, one file each
///
/// What has been vouched for since the last batch becomes one more. The same batch is written byte
/// for byte again; a file that is there already has to be equal.
#[derive(clap::Args)]
struct Export {
    /// TOML file of the registrar
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The last batch that the reader has; 0 for none
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    since: u64,
    /// Folder of the files, feed-0000000001.jsonl and so on. It is made if it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Verify the feed of a registrar from its first batch on, and write the statements in force, for
/// `sotto records make`
#[derive(clap::Args)]
struct Statements {
    /// The signed directory
    #[arg(long, value_name = "FILE")]
    directory: PathBuf,
    /// Pins that the directory is checked with
    #[arg(long, value_name = "FILE")]
    pins: PathBuf,
    /// Domain of the registrar among the issuers of the directory
    #[arg(long, value_name = "DOMAIN")]
    issuer: String,
    /// Verify as of this time, in seconds since 1970 [default: now]
    #[arg(long, value_name = "TIME")]
    now: Option<u64>,
    /// File of the statements
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Folder of the feed
    #[arg(value_name = "FEED_DIR")]
    feed: PathBuf,
}

/// Erase what is not to be kept any longer, as `serve` does by itself
#[derive(clap::Args)]
struct Purge {
    /// TOML file of the registrar
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// The port of the endpoints for the operator.
const ADMIN_PORT: u16 = 9467;

impl Args {
    /// The form of the log, where the command has one.
    pub(super) fn log_format(&self) -> LogFormat {
        match &self.command {
            Command::Serve(args) => args.log_format,
            _ => LogFormat::Human,
        }
    }
}

pub(crate) fn run(args: Args) -> Ended {
    running::to_end(async {
        match args.command {
            Command::Init(args) => made(&args),
            Command::Serve(args) => serve(args).await,
            Command::Export(args) => export(args).await,
            Command::Statements(args) => statements(&args),
            Command::Purge(args) => purged(args).await,
        }
    })
}

fn made(args: &Init) -> Ended {
    out::report(init(&Config::read(&args.config)?)?);
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: Serve) -> Ended {
    raise_file_limit();
    let admin = AdminArgs { at: args.admin, anyone: args.admin_anyone, port: ADMIN_PORT };
    let registrar = Registrar::start(&args.config, system_clock(), None).await?;
    let control = registrar.control();
    start_admin(admin, control.shown()).await?;
    reload_at_hangup(move || control.reload())?;
    let leave = told_to_leave()?;
    // Without this line a reader would wait for ever, so that a failure to write it is an error.
    out::unless_closed(out::say(format_args!("listening on {}", registrar.local_addr())))?;
    registrar.run(leave).await;
    tracing::info!("left");
    Ok(ExitCode::SUCCESS)
}

async fn export(args: Export) -> Ended {
    let config = Config::read(&args.config)?;
    let written = feed::export(&config, args.since, &args.out, now()?).await?;
    let out = args.out.display();
    out::report(match written.last {
        None => format!("{out}: there is no batch after {}", args.since),
        Some(last) => format!(
            "{out}: batches up to {last}; {} written, {} were there",
            written.made, written.kept
        ),
    });
    Ok(ExitCode::SUCCESS)
}

fn statements(args: &Statements) -> Ended {
    let now = args.now.map_or_else(now, Ok)?;
    let directory = directory(&args.directory, &args.pins, now)?;
    let found = feed::statements(&args.feed, &directory, &args.issuer, &args.out)?;
    out::report(format_args!(
        "{}: {} statements of {} batches",
        args.out.display(),
        found.statements,
        found.batches
    ));
    Ok(ExitCode::SUCCESS)
}

async fn purged(args: Purge) -> Ended {
    let config = Config::read(&args.config)?;
    let purged = purge(&config, now()?).await?;
    out::report(format_args!(
        "erased: {} registrations, {} preferences, {} replies, {} times of codes, {} of what was \
         kept against replays",
        purged.registrations, purged.preferences, purged.replies, purged.siis, purged.tombstones
    ));
    Ok(ExitCode::SUCCESS)
}
