//! `sotto log`: an append-only log of what registrars vouched for and of the epochs of databases.
//!
//! `serve` prints one line to standard output, `listening on ADDR:PORT`, when it listens;
//! everything else goes to the log of the program.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sotto::discovery::log::proof::{OLD_PROOFS_BYTES_MAX, keep, old_proofs_path};
use sotto::discovery::log::{LogKey, Manifest, parameters_digest};
use sotto::https::Client;
use sotto::limits::log::REQUEST_TIME;
use sotto::registrar::log::check::{Source, check};
use sotto::registrar::log::client::{AppendError, LogClient};
use sotto::registrar::log::{Config, LogServer};
use sotto::shard::Manifest as DatabaseManifest;
use sotto::shard::files::{read_regular, write_atomically};
use sotto::shard::manifest::MANIFEST_NAME;

use super::log::LogFormat;
use super::running::{self, AdminArgs, reload_at_hangup, start_admin, told_to_leave};
use super::serve::{AdminAt, raise_file_limit};
use super::{Ended, out};

/// Keeps an append-only log of what registrars vouched for and of the epochs of databases.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Serve(Serve),
    Check(Check),
    Prove(Prove),
}

/// Append what registrars and operators of databases send, and give the log out
///
/// It reads certificates and the file of callers again at SIGHUP.
#[derive(clap::Args)]
struct Serve {
    /// TOML file of the log
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Address of the operator's HTTP endpoints (/metrics, /readyz, /livez), or `off`. By default
    /// 127.0.0.1:9469, and none if that is taken
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<AdminAt>,
    /// Allow an address that other machines reach: whoever does may read metrics
    #[arg(long)]
    admin_anyone: bool,
    /// Form of the log of the program
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Human)]
    log_format: LogFormat,
}

/// Follow a log as its auditors do: verify all that is new since the last time
///
/// A log that has shown two trees ends this with exit code 1 and prints both signed checkpoints.
#[derive(clap::Args)]
struct Check {
    /// Address of the log, or a folder of its files
    #[arg(long, value_name = "URL|DIR")]
    log: String,
    /// The log's key, as `sotto log serve` shows it: NAME+ID+KEY
    #[arg(long, value_name = "KEY")]
    key: String,
    /// File of what was verified before. It is made if it is missing
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Authorities that sign the certificate of the log
    #[arg(long, value_name = "PEM", default_value = "/etc/ssl/certs/ca-certificates.crt")]
    ca: PathBuf,
}

/// Have the newest epoch of a database logged, and write the proof that devices ask for
#[derive(clap::Args)]
struct Prove {
    /// Address of the log
    #[arg(long, value_name = "URL")]
    log: String,
    /// The database, a folder
    #[arg(long, value_name = "DIR")]
    db: PathBuf,
    /// File of the proof, for `proof` in the placement of front-ends
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Authorities that sign the certificate of the log
    #[arg(long, value_name = "PEM", default_value = "/etc/ssl/certs/ca-certificates.crt")]
    ca: PathBuf,
    /// Certificate by which the log knows the operator of the database
    #[arg(long, value_name = "PEM")]
    client_cert: PathBuf,
    /// Its private key
    #[arg(long, value_name = "PEM")]
    client_key: PathBuf,
}

/// The port of the endpoints for the operator.
const ADMIN_PORT: u16 = 9469;
/// How often a proof is asked for that is not there yet: the log makes it within seconds.
const PROOF_PAUSE: Duration = Duration::from_millis(200);
const PROOF_TRIES: u32 = 150;
const PEM_BYTES_MAX: u64 = 1 << 20;

impl Args {
    /// The form of the log of the program, where the command has one.
    pub(super) fn log_format(&self) -> LogFormat {
        match &self.command {
            Command::Serve(args) => args.log_format,
            Command::Check(_) | Command::Prove(_) => LogFormat::Human,
        }
    }
}

pub(crate) fn run(args: Args) -> Ended {
    running::to_end(async {
        match args.command {
            Command::Serve(args) => serve(args).await,
            Command::Check(args) => checked(args).await,
            Command::Prove(args) => proved(args).await,
        }
    })
}

async fn serve(args: Serve) -> Ended {
    raise_file_limit();
    let admin = AdminArgs { at: args.admin, anyone: args.admin_anyone, port: ADMIN_PORT };
    let clock = sotto::relay::system_clock();
    let options = Config::read(&args.config)?.options(Arc::new(move || clock()));
    let log = LogServer::start(options).await?;
    let control = log.control();
    tracing::info!("devices and auditors need the key {}", log.key());
    start_admin(admin, control.shown()).await?;
    reload_at_hangup(move || control.reload())?;
    let leave = told_to_leave()?;
    // Without this line a reader would wait for ever, so that a failure to write it is an error.
    out::unless_closed(out::say(format_args!("listening on {}", log.local_addr())))?;
    log.run(leave).await;
    tracing::info!("left");
    Ok(ExitCode::SUCCESS)
}

async fn checked(args: Check) -> Ended {
    let key = LogKey::parse(&args.key)?;
    let source = if args.log.contains("://") {
        let ca = args.log.starts_with("https://").then(|| read(&args.ca)).transpose()?;
        let client = Client::with_plain(ca.as_deref(), REQUEST_TIME)?;
        Source::Web(client, args.log.trim_end_matches('/').to_owned())
    } else {
        Source::Folder(args.log.into())
    };
    match check(&source, &key, &args.state).await {
        Ok(found) => {
            let epochs = found.manifests.len();
            out::report(format_args!(
                "{} entries follow from the {} verified before; new: {} statements, {epochs} \
                 epochs, {} of padding",
                found.size, found.before, found.statements, found.padding
            ));
            for (database, epoch) in found.manifests {
                out::report(format_args!("  {database}, epoch {epoch}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if error.is_evidence() => {
            out::report(error);
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

async fn proved(args: Prove) -> Ended {
    let (ca, cert, key) = (read(&args.ca)?, read(&args.client_cert)?, read(&args.client_key)?);
    let client = Client::new(Some(&ca), Some((&cert, &key)), REQUEST_TIME)?;
    let log = LogClient::new(client, &args.log);
    let proved =
        prove(&log, &args.db).await.map_err(|error| error as Box<dyn std::error::Error>)?;
    let Proved { manifest, place, file } = proved;
    let epoch = manifest.epoch;
    write(&args.out, &file)?;
    // Devices that were away for longer than the newest proofs cover ask for older ones.
    let all = old_proofs_path(&args.out);
    let kept = match read_regular(&all, OLD_PROOFS_BYTES_MAX as u64 + 1) {
        Ok(kept) => kept,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(format!("cannot read {}: {error}", all.display()).into()),
    };
    let kept = keep(&kept, &file).map_err(|error| {
        format!(
            "{}: {error}; move it away, and devices that were away for long have to be told",
            all.display()
        )
    })?;
    write(&all, &kept)?;
    out::report(format_args!(
        "{}: epoch {epoch} of {} is entry {place}, {} bytes of proofs",
        args.out.display(),
        manifest.database,
        file.len()
    ));
    Ok(ExitCode::SUCCESS)
}

/// An epoch that is in a log.
pub(super) struct Proved {
    pub(super) manifest: Manifest,
    /// Its place among the entries.
    pub(super) place: u64,
    /// The proofs, as front-ends give them out.
    pub(super) file: Vec<u8>,
}

/// Has the newest epoch of a database logged, and waits for the proof.
pub(super) async fn prove(
    log: &LogClient,
    db: &Path,
) -> Result<Proved, Box<dyn std::error::Error + Send + Sync>> {
    let found = DatabaseManifest::read(&db.join(MANIFEST_NAME))?;
    let (digest, epoch) = (parameters_digest(&found.parameters.0), found.epoch);
    let manifest = Manifest { database: found.database, epoch, digest };
    let place = log.append_manifest(&manifest).await?;
    let mut tries = 0;
    loop {
        tries += 1;
        match log.proofs(&manifest.database, epoch).await {
            Err(AppendError::NoProof) if tries < PROOF_TRIES => {
                tokio::time::sleep(PROOF_PAUSE).await;
            }
            file => return Ok(Proved { manifest, place, file: file? }),
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    write_atomically(path, bytes)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_regular(path, PEM_BYTES_MAX)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}
