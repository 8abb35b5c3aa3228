//! `sotto serve`: opens a database, selects engines, and answers until it is told to leave.
//!
//! Standard output gets one line, `listening on ADDR:PORT`, when the server is ready; everything
//! else goes to the log. The admin endpoints answer before that, and say how far the start is.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::value_parser;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use sotto::engine::{Residency, Selected, select_with};
use sotto::limits;
use sotto::params::Shape;
use sotto::server::{
    Admin, AdminCallers, AdminError, AdminState, Callers, FileWork, Identity, IdentityError,
    IdentityReloader, KnownCallers, Reloaded, Reloader, Server, ServerBounds, ServerOptions, Stage,
    machine_bytes,
};
use sotto::shard::{Database, HeldBy, OpenError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

use super::engine::EngineArgs;
use super::log::LogFormat;
use super::{Ended, out};

/// Serves a database over QUIC.
///
/// Every option may also be given in the environment (`--target-ms` is SOTTO_TARGET_MS; commas
/// separate several values) or in a TOML file (`target-ms = 1000`). A flag takes precedence over
/// the environment, and the environment over the file. `sotto config` prints the result.
// `check` compares options with each other: for clap, a value from a file is only a default.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// TOML file of options.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the database that `sotto build` made. Required.
    #[arg(long, value_name = "DIR")]
    pub(super) db: Option<PathBuf>,
    /// Which hosts have which shards (`sotto placement make`): this server opens and answers those
    /// of `--host`. Without it all of them.
    #[arg(long, value_name = "FILE")]
    pub(super) placement: Option<PathBuf>,
    /// The name of this host in the placement.
    #[arg(long, value_name = "NAME")]
    pub(super) host: Option<String>,
    /// UDP address to listen on; port 0 selects a free one. Required.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: Option<SocketAddr>,
    /// Certificate chain, beginning with the server's certificate. Required.
    #[arg(long, value_name = "PEM")]
    pub(super) cert: Option<PathBuf>,
    /// Private key of the certificate. Required.
    #[arg(long, value_name = "PEM")]
    pub(super) key: Option<PathBuf>,
    /// Authority that signs the certificates of front-ends. Without it only this machine is served.
    #[arg(long, value_name = "PEM")]
    pub(super) client_ca: Option<PathBuf>,
    /// List of the names in certificates that may call, lines of `NAME SHARE [MIB_PER_SECOND]`.
    /// Without it every certificate of the authority may.
    #[arg(long, value_name = "FILE")]
    pub(super) allow: Option<PathBuf>,
    /// Serve everyone who reaches the address, without certificates.
    #[arg(long)]
    pub(super) anyone_may_ask: bool,
    /// Memory for connections, key bundles, queues and answers; shards are not counted. By default
    /// half of the machine's memory, and no more than the server can use.
    #[arg(long, value_name = "MIB")]
    pub(super) memory: Option<u32>,
    /// Most connections at once. A front-end keeps one or a few; each takes its part of the memory.
    #[arg(long, value_name = "N", default_value_t = limits::CONNECTIONS_MAX as u32,
        value_parser = value_parser!(u32).range(1..=limits::CONNECTIONS_ASKED_MAX as i64))]
    pub(super) connections: u32,
    /// The longest time that an answer should take. While engines are busy, queries for one shard
    /// wait for each other for half of it; then the oldest goes first.
    #[arg(long, value_name = "MS", default_value_t = limits::LATENCY_TARGET.as_millis() as u64,
        value_parser = value_parser!(u64).range(1..=limits::LATENCY_TARGET_MAX.as_millis() as u64))]
    pub(super) target_ms: u64,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
    /// Address of the operator's HTTP endpoints (/status, /metrics, /readyz and others), or `off`.
    /// By default 127.0.0.1:9464, and none if that is taken.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) admin: Option<AdminAt>,
    /// Allow an address that other machines reach: whoever does may read metrics and shut the
    /// server down.
    #[arg(long)]
    pub(super) admin_anyone: bool,
    /// Host names that requests to these endpoints may have, besides localhost, this machine's name
    /// and IP addresses.
    #[arg(long, value_name = "NAME")]
    pub(super) admin_host: Vec<String>,
    /// Form of the log.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Human)]
    pub(super) log_format: LogFormat,
    /// How long queries of the previous epoch are answered after a new one was loaded.
    #[arg(long, value_name = "N", default_value_t = limits::OLD_EPOCH_TIME.as_secs(),
        value_parser = value_parser!(u64).range(..=limits::OLD_EPOCH_TIME_MAX.as_secs()))]
    pub(super) old_epoch_seconds: u64,
    /// Speed at which shards are read again in the background and compared with their digests; 0 is
    /// not at all.
    #[arg(long, value_name = "N", default_value_t = limits::SCRUB_MIB_PER_SECOND)]
    pub(super) scrub_mib_per_second: u32,
    /// Interval at which to look for a new manifest; 0 is only at SIGHUP.
    #[arg(long, value_name = "N", default_value_t = limits::WATCH_TIME.as_secs(),
        value_parser = value_parser!(u64).range(..=limits::WATCH_TIME_MAX.as_secs()))]
    pub(super) watch_seconds: u64,
}

impl Args {
    /// Refuses options that contradict each other, whatever layers they come from.
    pub(super) fn check(&self) -> Result<(), String> {
        let wrong = match (&self.client_ca, &self.allow, self.anyone_may_ask) {
            (Some(_), _, true) => "anyone-may-ask and client-ca contradict each other",
            (None, Some(_), _) => "allow needs client-ca: names are those of certificates",
            _ if self.placement.is_some() != self.host.is_some() => {
                "placement and host need each other: a placement has the shards of each host"
            }
            _ => return Ok(()),
        };
        Err(format!("{wrong}; `sotto config` says where each option comes from"))
    }

    /// Whose shards are opened; all of them where nothing is said.
    pub(super) fn held_by(&self) -> Option<HeldBy> {
        let both = self.placement.clone().zip(self.host.clone());
        both.map(|(placement, host)| HeldBy { placement, host })
    }
}

/// The value of a required option.
fn needed<T>(value: Option<T>, key: &str) -> Result<T, String> {
    let places = format!("--{key}, SOTTO_{}, or `{key} = ...`", key.to_uppercase());
    value.ok_or_else(|| format!("{key} is not set: give {places} in a --config file"))
}

/// Where the operator's endpoints are.
#[derive(Debug, Clone, Copy)]
pub(super) enum AdminAt {
    Off,
    Address(SocketAddr),
}

impl FromStr for AdminAt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address = text.parse().map(Self::Address);
        address.map_err(|_| "expected an address with a port, such as 127.0.0.1:9464, or off")
    }
}

/// The default: the port that exporters of telemetry use.
const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Files a process has open besides those it opens and closes at start.
pub(super) const OTHER_FILES: u64 = 1_024;

pub(crate) fn run(args: Args) -> Ended {
    args.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the network's threads: {error}"))?;
    let ended = runtime.block_on(start(args));
    // This does not wait for file work that hangs.
    runtime.shutdown_background();
    ended
}

async fn start(args: Args) -> Ended {
    let held_by = args.held_by();
    let (directory, listen) = (needed(args.db, "db")?, needed(args.listen, "listen")?);
    raise_file_limit();
    if let Some(file) = &args.config {
        tracing::info!("options are also read from {}", file.display());
    }
    let identity_files = IdentityFiles {
        cert: needed(args.cert, "cert")?,
        key: needed(args.key, "key")?,
        client_ca: args.client_ca,
        allow: args.allow,
        unknown: if args.anyone_may_ask { Callers::Anyone } else { Callers::Loopback },
    };
    let files = FileWork::default();
    let (identity, callers) = identity_files.read_at_start(&files).await?;
    if let Callers::Anyone = callers {
        tracing::warn!("ANYONE WHO REACHES {listen} MAY ASK: callers are not known");
    }
    let admin_state = Arc::new(AdminState::default());
    let reach = if args.admin_anyone { AdminCallers::Anyone } else { AdminCallers::Loopback };
    start_admin(args.admin, reach, args.admin_host, &admin_state).await?;
    let (folder, opening) = (directory.clone(), admin_state.clone());
    let opened = || u64::from(admin_state.opening.progress().0);
    let open = move || Database::open_held(&folder, held_by, &opening.opening);
    let database = files.run("opening the database", opened, open).await?;
    let database = database.map_err(|error| explain(&error))?;
    admin_state.enter(Stage::Proving);
    let selected = select_with(&args.engine.options())?;
    log_engines(&selected, &database);
    tracing::info!(
        held = database.held().len(),
        shards = database.shard_count(),
        epoch = database.epoch(),
        "opened {}",
        directory.display()
    );
    let mut bounds = bounds(args.memory, args.connections, database.shape())?;
    bounds.schedule.latency_target = Duration::from_millis(args.target_ms);
    bounds.old_epoch_time = Duration::from_secs(args.old_epoch_seconds);
    bounds.scrub_mib_per_second = args.scrub_mib_per_second;
    bounds.prove_every = Some(limits::PROVE_EVERY);
    tracing::info!("memory is at most {}", bounds.memory(database.shape()));
    let engines = selected.engines;
    let options = ServerOptions { listen, identity, callers, engines, bounds };
    let watch = Duration::from_secs(args.watch_seconds);
    serve(options, Arc::new(database), identity_files, admin_state, watch).await
}

fn log_engines(selected: &Selected, database: &Database) {
    selected.why_no_gpu.iter().for_each(|reason| tracing::info!("{reason}"));
    for engine in &selected.engines {
        tracing::info!("answers with {}", engine.name());
        let first = database.shards().next().map(|shard| shard.view());
        if let (Some(store), Some(first)) = (engine.store(), first)
            && store.residency(&first) == Residency::Never
        {
            tracing::warn!("this GPU lacks the memory for one shard: it answers nothing");
        }
    }
}

async fn start_admin(
    at: Option<AdminAt>,
    callers: AdminCallers,
    names: Vec<String>,
    admin_state: &Arc<AdminState>,
) -> Result<(), AdminError> {
    let address = match at {
        Some(AdminAt::Off) => return Ok(()),
        Some(AdminAt::Address(address)) => address,
        None => ADMIN_DEFAULT,
    };
    let admin = match Admin::bind(address, callers, admin_state.clone()).await {
        Ok(admin) => admin,
        // Nobody asked for this address, and a second server on a machine has to serve too.
        Err(error) if at.is_none() => {
            tracing::warn!("there are no admin endpoints: {error}; give them an address (--admin)");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let address = admin.local_addr();
    if callers == AdminCallers::Anyone && !address.ip().is_loopback() {
        tracing::warn!("ANYONE WHO REACHES {address} (TCP) MAY READ METRICS AND STOP THE SERVER");
    }
    tracing::info!("admin endpoints are at http://{address}/status");
    tokio::spawn(admin.named(names).run());
    Ok(())
}

/// The files that say who this server is and who may call.
#[derive(Clone)]
struct IdentityFiles {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    allow: Option<PathBuf>,
    /// Who may call where no authority is given.
    unknown: Callers,
}

impl IdentityFiles {
    fn read(&self) -> Result<(Identity, Callers), IdentityError> {
        let identity = Identity::from_pem_files(&self.cert, &self.key)?;
        let callers = match &self.client_ca {
            Some(ca) => Callers::Known(KnownCallers::from_files(ca, self.allow.as_deref())?),
            None => self.unknown.clone(),
        };
        Ok((identity, callers))
    }

    /// A server whose certificate no client accepts does not start. It does where that is only
    /// because of the time: the clock may be wrong, and clients go by theirs.
    async fn read_at_start(
        &self,
        files: &FileWork,
    ) -> Result<(Identity, Callers), Box<dyn std::error::Error>> {
        let own = self.clone();
        let read = files.run("reading certificates", || 0, move || own.read());
        let (identity, callers) = read.await??;
        match identity.check(SystemTime::now()) {
            Err(error) if error.is_about_time() => tracing::error!("{}", self.of_cert(&error)),
            checked => checked.map_err(|error| self.of_cert(&error))?,
        }
        Ok((identity, callers))
    }

    fn of_cert(&self, error: &IdentityError) -> String {
        format!("{}: {error}", self.cert.display())
    }

    /// Reads all files again; where one cannot be used, nothing changes.
    async fn reload(
        &self,
        files: &FileWork,
        identity_reloader: &IdentityReloader,
    ) -> Result<(), String> {
        let own = self.clone();
        let read = move || {
            let (identity, callers) = own.read().map_err(|error| error.to_string())?;
            identity.check(SystemTime::now()).map_err(|error| own.of_cert(&error))?;
            Ok((identity, callers))
        };
        let read = files.run("reading certificates and callers again", || 0, read).await;
        let read = read.unwrap_or_else(|not_done| Err(not_done.to_string()));
        let changed = read.and_then(|(identity, callers)| {
            identity_reloader.change(identity, callers).map_err(|error| error.to_string())
        });
        match &changed {
            Ok(()) => tracing::info!("certificates and callers were read again"),
            Err(error) => tracing::error!(%error, "certificates and callers stay as they were"),
        }
        changed
    }
}

/// What is read again at every SIGHUP, and when the operator asks for it at the admin endpoints:
/// certificates and callers, and the database. Where one cannot be used, it stays as it was.
struct Reloads {
    identity_files: IdentityFiles,
    identity_reloader: IdentityReloader,
    reloader: Reloader,
    files: FileWork,
    /// Held while certificates and callers are read, so that the newest are used in the end.
    one: Mutex<()>,
}

impl Reloads {
    /// Reads all of it. What became of each is in the log, too.
    async fn read(&self) -> Result<String, String> {
        let identity_files = async {
            let _one = self.one.lock().await;
            self.identity_files.reload(&self.files, &self.identity_reloader).await
        };
        // At the same time: their files may be on two file systems, of which one hangs.
        let (identity_files, database) = tokio::join!(identity_files, self.reloader.reload());
        let identity_files = match identity_files {
            Ok(()) => Ok("certificates and callers were read again".to_owned()),
            Err(error) => Err(format!("certificates and callers: {error}")),
        };
        let database = match database {
            Ok(Reloaded::Changed { epoch, .. }) => Ok(format!("epoch {epoch} is served now")),
            Ok(Reloaded::Unchanged { epoch }) => Ok(format!("epoch {epoch} is served as before")),
            Err(error) => Err(format!("the database: {error}")),
        };
        match (identity_files, database) {
            (Ok(one), Ok(two)) => Ok(format!("{one}; {two}")),
            (Ok(one) | Err(one), Ok(two) | Err(two)) => Err(format!("{one}; {two}")),
        }
    }

    fn watch(self, admin_state: &AdminState, mut hangup: Signal) {
        let reloads = Arc::new(self);
        let asked = reloads.clone();
        admin_state.on_reload(Box::new(move || {
            let reloads = asked.clone();
            Box::pin(async move { reloads.read().await })
        }));
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                // The log has the result.
                let _ = reloads.read().await;
            }
        });
    }
}

/// Serves; looks for a new manifest every `watch`, or never where that is zero.
async fn serve(
    options: ServerOptions,
    database: Arc<Database>,
    identity_files: IdentityFiles,
    admin_state: Arc<AdminState>,
    watch: Duration,
) -> Ended {
    let server = Server::bind(options, database)?;
    let (identity_reloader, reloader) = (server.identity_reloader(), server.reloader());
    let (files, one) = (FileWork::default(), Mutex::default());
    let reloads = Reloads { identity_files, identity_reloader, reloader, files, one };
    reloads.watch(&admin_state, signal(SignalKind::hangup())?);
    if !watch.is_zero() {
        tokio::spawn(server.reloader().watch(watch));
    }
    admin_state.watch(&server);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Without this line a reader would wait for ever, so that a failure to write it is an error.
    out::unless_closed(out::say(format_args!("listening on {}", server.local_addr())))?;
    let asked = admin_state.clone();
    let told_to_leave = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = asked.told_to_leave() => {}
        }
    };
    server.run(told_to_leave).await;
    tracing::info!("left");
    admin_state.replied().await;
    Ok(ExitCode::SUCCESS)
}

/// Bounds within the memory that was asked for, in MiB, or the default share of the machine's.
pub(super) fn bounds(
    asked: Option<u32>,
    connections: u32,
    shape: &Shape,
) -> Result<ServerBounds, String> {
    let machine = machine_bytes().unwrap_or(u64::MAX);
    let bytes = asked.map_or(machine / limits::MEMORY_SHARE_MAX, |mib| u64::from(mib) << 20);
    if bytes > machine {
        let (asked, machine) = (bytes >> 20, machine >> 20);
        return Err(format!(
            "--memory {asked}: this machine or its control group has {machine} MiB"
        ));
    }
    ServerBounds::within(bytes, shape, connections as usize).map_err(|least| {
        format!(
            "memory: {} MiB for {connections} connections and queues do not hold one full frame of \
             this database, {} MiB do: set --memory to at least that",
            bytes >> 20,
            least.div_ceil(1 << 20)
        )
    })
}

/// The error, and for a bound of the system which one it is and how to raise it.
pub(super) fn explain(error: &OpenError) -> String {
    let OpenError::Io { source, .. } = error else { return error.to_string() };
    match (source.kind(), Errno::from_io_error(source)) {
        (ErrorKind::PermissionDenied, _) => format!(
            "{error}: this process runs as user {}, which has to be able to read the database and \
             to enter the folders above it",
            geteuid().as_raw()
        ),
        (_, Some(Errno::MFILE)) => {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            format!("{error}: this process may have {limit} files open: raise it (ulimit -n)")
        }
        _ => error.to_string(),
    }
}

/// Raises the limit on open files as far as this process may.
pub(super) fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("the limit on open files cannot be raised: {error}");
    }
    let reached = getrlimit(Resource::Nofile).current;
    if let Some(files) = reached.filter(|&files| files < OTHER_FILES) {
        tracing::warn!("only {files} files may be open at once: raise it to {OTHER_FILES}");
    }
}
