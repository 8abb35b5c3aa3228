//! `sotto front-end`: opens sealed requests that relays forward, and asks answer servers.
//!
//! Standard output gets one line, `listening on ADDR:PORT`, when it is ready; everything else goes
//! to the log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::value_parser;
use sotto::front_end::pool::PoolOptions;
use sotto::front_end::{FrontEnd, Options, canary, system_clock};
use sotto::https::{Bounds, TlsFiles};
use sotto::limits;
use sotto::shard::files::read_regular;

use super::log::LogFormat;
use super::running::{self, AdminArgs, reload_at_hangup, start_admin, told_to_leave};
use super::serve::{AdminAt, raise_file_limit};
use super::{Ended, out};

/// Opens sealed requests of devices, which relays forward, and asks answer servers for them.
///
/// It reads certificates, relays, the directory, routing filters and OHTTP keys again at SIGHUP.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// TOML file of options.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// TCP address for relays; port 0 selects a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Certificate chain that relays see, beginning with the front-end's own.
    #[arg(long, value_name = "PEM")]
    cert: PathBuf,
    /// Private key of the certificate.
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Authority that signs the certificates of relays.
    #[arg(long, value_name = "PEM")]
    relay_ca: PathBuf,
    /// Relays that may send requests, lines of `NAME EVALUATIONS_A_DAY LOOKUPS_A_DAY`, where the
    /// name is that of the relay's certificate.
    #[arg(long, value_name = "FILE")]
    relays: PathBuf,
    /// Folder of the keys that open requests. A key is made each week, given to devices for the
    /// week, and removed two days later. Processes of one front-end share the folder.
    #[arg(long, value_name = "DIR")]
    ohttp_keys: PathBuf,
    /// The front-end's long-term key (Ed25519, PKCS #8 in PEM), by which devices recognise those
    /// keys.
    #[arg(long, value_name = "PEM")]
    identity: PathBuf,
    /// The signed directory.
    #[arg(long, value_name = "FILE")]
    directory: PathBuf,
    /// Pins that the directory has to satisfy.
    #[arg(long, value_name = "FILE")]
    directory_pins: PathBuf,
    /// Databases and their answer servers (TOML).
    #[arg(long, value_name = "FILE")]
    placement: PathBuf,
    /// Blinding key of a database. Without it evaluations are passed on to the address in the
    /// placement. Who has this key can test guesses.
    #[arg(long, value_name = "ID=FILE")]
    blind_key: Vec<BlindKeyArg>,
    /// Authorities (PEM) that sign the certificates of answer servers.
    #[arg(long, value_name = "PEM")]
    ca: PathBuf,
    /// Authorities (PEM) that sign the certificates of front-ends that evaluate. By default those
    /// of --ca.
    #[arg(long, value_name = "PEM")]
    evaluate_ca: Option<PathBuf>,
    /// Certificate that this front-end shows to answer servers and other front-ends.
    #[arg(long, value_name = "PEM")]
    client_cert: Option<PathBuf>,
    /// Private key of that certificate.
    #[arg(long, value_name = "PEM")]
    client_key: Option<PathBuf>,
    /// The least number of records in a shard that is accepted. A look-up hides among them.
    #[arg(long, value_name = "N", default_value_t = limits::RECORDS_PER_SHARD_ACCEPTED_MIN)]
    accept_shard_records: u64,
    /// Look-up keys that are in databases, lines of `DATABASE KEY`: the front-end asks for them to
    /// find servers that answer wrong.
    #[arg(long, value_name = "FILE")]
    canaries: Option<PathBuf>,
    /// Mean time between two canaries of a database, in seconds.
    #[arg(long, value_name = "N", default_value_t = limits::CANARY_MEAN.as_secs(),
        value_parser = value_parser!(u64).range(1..=limits::CANARY_MEAN_MAX.as_secs()))]
    canary_seconds: u64,
    /// Memory for look-ups that wait for answers.
    #[arg(long, value_name = "MIB", default_value_t = (limits::POOL_MEMORY_BYTES >> 20) as u32,
        value_parser = value_parser!(u32).range(16..))]
    memory: u32,
    /// Memory for requests and replies of relays.
    #[arg(long, value_name = "MIB", default_value_t = (limits::FRONT_END_MEMORY_BYTES >> 20) as u32,
        value_parser = value_parser!(u32).range(16..))]
    request_memory: u32,
    /// Let devices name their contacts, and be the client of the answer servers for them. This
    /// front-end then knows every identifier that is asked for, and what was found. For browsers,
    /// and where devices trust their own provider.
    #[arg(long)]
    resolve: bool,
    /// Memory for what was said of contacts that devices name (--resolve).
    #[arg(long, value_name = "MIB", default_value_t = (limits::RESOLVE_CACHE_BYTES >> 20) as u32,
        value_parser = value_parser!(u32).range(1..))]
    resolve_memory: u32,
    /// Memory for hints of shards.
    #[arg(long, value_name = "MIB", default_value_t = (limits::POOL_HINT_BYTES >> 20) as u32,
        value_parser = value_parser!(u32).range(1..))]
    hint_memory: u32,
    /// Most connections of relays and of those who fetch public files.
    #[arg(long, value_name = "N", default_value_t = limits::FRONT_END_CONNECTIONS_MAX as u32,
        value_parser = value_parser!(u32).range(1..))]
    connections: u32,
    /// Address of the operator's HTTP endpoints (/metrics, /readyz, /livez), or `off`. By default
    /// 127.0.0.1:9466, and none if that is taken.
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<AdminAt>,
    /// Allow an address that other machines reach: whoever does may read metrics.
    #[arg(long)]
    admin_anyone: bool,
    /// Form of the log.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Human)]
    pub(super) log_format: LogFormat,
}

/// The value of `--blind-key`.
#[derive(Debug, Clone)]
struct BlindKeyArg {
    database: String,
    file: PathBuf,
}

impl FromStr for BlindKeyArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((id, file)) if !id.is_empty() && !file.is_empty() => {
                Ok(Self { database: id.to_owned(), file: file.into() })
            }
            _ => Err("expected ID=FILE, the database and the file of its blinding key"),
        }
    }
}

/// The port of the endpoints for the operator.
const ADMIN_PORT: u16 = 9466;

pub(crate) fn run(args: Args) -> Ended {
    running::to_end(start(args))
}

async fn start(args: Args) -> Ended {
    raise_file_limit();
    if let Some(file) = &args.config {
        tracing::info!("options are also read from {}", file.display());
    }
    let admin = AdminArgs { at: args.admin, anyone: args.admin_anyone, port: ADMIN_PORT };
    let options = options(args)?;
    let front_end = FrontEnd::start(options).await?;
    let control = front_end.control();
    tracing::info!("devices recognise this front-end by the key {}", control.public_key());
    start_admin(admin, control.shown()).await?;
    reload_at_hangup(move || control.reload())?;
    let leave = told_to_leave()?;
    // Without this line a reader would wait for ever, so that a failure to write it is an error.
    out::unless_closed(out::say(format_args!("listening on {}", front_end.local_addr())))?;
    front_end.run(leave).await;
    tracing::info!("left");
    Ok(ExitCode::SUCCESS)
}

fn options(args: Args) -> Result<Options, Box<dyn std::error::Error>> {
    let mut pool = PoolOptions::new(read("the authority", &args.ca)?);
    match (&args.client_cert, &args.client_key) {
        (Some(cert), Some(key)) => {
            let (cert, key) = (read("the certificate", cert)?, read("the private key", key)?);
            pool.identity_pem = Some((cert, key.into()));
        }
        (None, None) => {}
        _ => return Err("client-cert and client-key go together: give both or none".into()),
    }
    pool.records_per_shard_min = args.accept_shard_records;
    pool.memory_bytes = u64::from(args.memory) << 20;
    pool.hint_bytes = (args.hint_memory as usize) << 20;
    pool.canary_mean = Duration::from_secs(args.canary_seconds);
    pool.canary_keys = args.canaries.as_deref().map_or(Ok(Vec::new()), canary::read)?;
    let blind_keys = args.blind_key.into_iter().map(|given| (given.database, given.file));
    Ok(Options {
        listen: args.listen,
        tls: TlsFiles { cert: args.cert, key: args.key, client_ca: Some(args.relay_ca) },
        bounds: Bounds {
            connections: args.connections as usize,
            handshakes: limits::FRONT_END_HANDSHAKES_MAX,
            handshake_time: limits::FRONT_END_HANDSHAKE_TIME,
            head_time: limits::FRONT_END_HEAD_TIME,
            idle_time: limits::FRONT_END_IDLE_TIME,
            body_time: limits::FRONT_END_BODY_TIME,
        },
        keys: args.ohttp_keys,
        identity: args.identity,
        relays: args.relays,
        directory: args.directory,
        directory_pins: args.directory_pins,
        placement: args.placement,
        blind_keys: blind_keys.collect(),
        evaluate_ca: args.evaluate_ca,
        pool,
        memory_bytes: (args.request_memory as usize) << 20,
        resolve_bytes: args.resolve.then_some((args.resolve_memory as usize) << 20),
        clock: system_clock(),
    })
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>, String> {
    read_regular(path, limits::IDENTITY_FILE_BYTES_MAX)
        .map_err(|error| format!("cannot read {what} {}: {error}", path.display()))
}
