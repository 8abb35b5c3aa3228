//! `sotto pull`: copies a database from a web server, as far as this machine lacks it.

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sotto::builder::progress::Stage;
use sotto::builder::{Console, Progress, Silent};
use sotto::https::Client;
use sotto::limits;
use sotto::pull::{Options, Step, pull};
use sotto::text::{bytes, counted};

use super::{Ended, out, running, trusted};

/// Copies a database from a web server: what this machine lacks of it, and verifies it.
///
/// Any web server will do that serves the files of a database directory; what it sends is believed
/// only as far as the operator signed it. A running `sotto serve` of the directory loads a new
/// epoch by itself. A run that was interrupted is gone on with by the next.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where `manifest.json` and `shards/` are, https:// or http://
    #[arg(value_name = "URL")]
    url: String,
    /// Directory of the copy; it is created
    #[arg(long, value_name = "DIR")]
    db: PathBuf,
    /// The operator's public key: `operator.pub`, from the operator and not from this URL
    #[arg(long, value_name = "FILE")]
    operator_key: PathBuf,
    /// Authorities that sign certificates of web servers [default: the system's]
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
    /// Most MiB a second
    #[arg(long, value_name = "N")]
    mib_per_second: Option<NonZeroU64>,
    /// Print only errors
    #[arg(long)]
    quiet: bool,
}

/// Where systems keep the authorities that they trust.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

pub(crate) fn run(args: Args) -> Ended {
    let operator_key = trusted::operator_key(&args.operator_key)?;
    let bytes_per_second = args.mib_per_second.map(|mib| mib.saturating_mul(MIB));
    let authorities = match &args.ca {
        Some(path) => Some(fs::read(path).map_err(|error| trusted::in_file(path, &error))?),
        None => SYSTEM_AUTHORITIES.iter().find_map(|path| fs::read(Path::new(path)).ok()),
    };
    let client = Client::with_plain(authorities.as_deref(), limits::PULL_SILENCE_MAX)?;
    let progress: &dyn Progress = if args.quiet { &Silent } else { &Console::default() };
    let told = |step| match step {
        Step::Missing { bytes, .. } => progress.begin(Stage::Downloading, bytes),
        Step::Got(bytes) => progress.advance(bytes),
    };
    let options = Options { url: args.url, db: args.db, operator_key, bytes_per_second };
    let pulled = running::runtime()?.block_on(pull(&client, &options, trusted::now()?, &told));
    progress.end();
    let pulled = pulled?;
    if !args.quiet {
        out::report(format_args!(
            "{}: epoch {}, {}, of which {} ({}) came and were verified",
            options.db.display(),
            pulled.epoch,
            counted(pulled.shards.into(), "shard"),
            counted(pulled.files, "file"),
            bytes(pulled.bytes)
        ));
    }
    if pulled.restart {
        out::complain(RESTART);
    }
    Ok(ExitCode::SUCCESS)
}

/// What is to be done after a copy got another shape.
pub(super) const RESTART: &str = "note: its shape or number of shards has changed: a server that \
                                  runs has to be started again to serve it";
const MIB: NonZeroU64 = NonZeroU64::new(1 << 20).expect("it is not zero");
