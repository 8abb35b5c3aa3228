//! What both demos are made of: a database built of records, a server beside it, a client.

use std::fs;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto::builder::{self, BuildOptions, BuildReport, Console, Input, Progress, Silent};
use sotto::client::{Client, OperatorKey, Options, Pins, Replica};
use sotto::engine::select_with;
use sotto::limits;
use sotto::server::certificates::{self, LocalCertificates};
use sotto::server::{Callers, Counters, Identity, Server, ServerBounds, ServerOptions};
use sotto::shard::Database;
use sotto::text::{bytes, counted, duration, grouped};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::commands::engine::EngineArgs;
use crate::commands::folder::write_new;
use crate::commands::out::{Lost, say};

/// A slow machine without vector instructions still answers the batch within this.
const DEADLINE: Duration = limits::DEADLINE_MAX;
/// Memory of a GPU that the demo takes unless told otherwise, in bytes: a server may use the rest.
const GPU_BYTES: u64 = 1 << 30;

/// Shows a private look-up from beginning to end, on this machine.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of sample records.
    #[arg(long, value_name = "N", default_value_t = 20_000,
          value_parser = clap::value_parser!(u64).range(1..=limits::SAMPLE_RECORDS_MAX))]
    pub(super) records: u64,
    /// Number of shards.
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::SHARDS_MAX)))]
    pub(super) shards: u32,
    /// Keep sample, database and certificates in this directory, which must be new or empty.
    #[arg(long, value_name = "DIR")]
    pub(super) keep: Option<PathBuf>,
    /// Show how a phone finds its contacts: signed statements, sealed records, verified answers.
    #[arg(long)]
    pub(super) discovery: bool,
    /// Show how a phone asks two providers through a relay that knows the account and a front-end
    /// that knows the questions.
    #[arg(long, conflicts_with = "discovery")]
    pub(super) federated: bool,
    /// Show how people prove their numbers to a registrar, are found under them and written to, and
    /// are replaced by the next holder.
    #[arg(long, conflicts_with_all = ["discovery", "federated"])]
    pub(super) registration: bool,
    /// With --registration: keep everything in this PostgreSQL, `postgres://...`, in the schemas
    /// sotto_demo_registrar, _log and _keys, which are dropped and created first.
    #[arg(long, value_name = "URL", requires = "registration")]
    pub(super) postgres: Option<String>,
    /// With --registration: send text messages to this message centre, which speaks SMPP without
    /// TLS on this machine or a private network. Codes that it was given are read from standard
    /// input, one a line.
    #[arg(long, value_name = "HOST:PORT", requires = "registration")]
    pub(super) smpp: Option<String>,
    /// File of mode 0600 with the system_id at the message centre and, in a second line, the
    /// password. By default they are sotto and demo.
    #[arg(long, value_name = "FILE", requires = "smpp")]
    pub(super) smpp_credentials: Option<PathBuf>,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
}

pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Builds the database `db` of records in a file, and shows what it is.
pub(super) async fn build(
    args: &Args,
    folder: &Path,
    records: PathBuf,
    value_bytes: u32,
) -> Result<BuildReport, Error> {
    let mut options = BuildOptions::new(Input::File(records), folder.join("db"));
    options.shards = Some(args.shards);
    options.value_bytes = Some(value_bytes);
    options.signing_key = Some(folder.join("signing-key.pem"));
    let build = move || {
        let progress: &dyn Progress =
            if std::io::stderr().is_terminal() { &Console::default() } else { &Silent };
        builder::run(&options, progress)
    };
    let report = spawn_blocking(build).await??;
    let shape = &report.shape;
    let packs = counted(shape.packs() as u64, "pack");
    let columns = grouped(shape.columns() as u64);
    row("shape of a shard", &format!("{packs} of {} rows, {columns} columns", shape.pack_rows()))?;
    row("on disk", &bytes(report.bytes))?;
    let odds = -shape.log2_failure();
    row("a record fails", &format!("at most once in 2^{odds:.0} look-ups"))?;
    row("built and checked in", &duration(report.elapsed))?;
    Ok(report)
}

pub(super) fn row(name: &str, value: &str) -> Result<(), Lost> {
    say(format_args!("  {name:<22}{value}"))
}

/// Something that serves until it is ended.
pub(super) struct Running<Shown> {
    pub(super) address: SocketAddr,
    #[cfg_attr(not(feature = "front-end"), expect(dead_code, reason = "only one demo reads it"))]
    pub(super) shown: Shown,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Is ready when what runs has been told to end.
pub(super) type Told = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<Shown> Running<Shown> {
    /// Begins what runs until it is told to end.
    pub(super) fn start<F>(address: SocketAddr, shown: Shown, run: impl FnOnce(Told) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let told = Box::pin(async move {
            let _ = stopped.await;
        });
        Self { address, shown, stop, task: tokio::spawn(run(told)) }
    }

    /// Its address for whoever speaks HTTPS.
    #[cfg(feature = "front-end")]
    pub(super) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub(super) async fn end(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// A server that runs beside the demo's client.
pub(super) struct Serving {
    pub(super) running: Running<Arc<Counters>>,
    ca_pem: String,
}

impl Serving {
    pub(super) async fn start(args: &Args, folder: &Path) -> Result<Self, Error> {
        let made = certificates::localhost()?;
        write_new(&folder.join("ca.pem"), &made.ca_pem, 0o644)?;
        write_new(&folder.join("server.pem"), &made.server_pem, 0o644)?;
        write_new(&folder.join("server.key"), &made.server_key, 0o600)?;
        let (serving, names, opened) = Self::open(args, &folder.join("db"), &made).await?;
        row("listens on", &format!("{} (QUIC, TLS 1.3)", serving.running.address))?;
        names.iter().try_for_each(|name| row("answers with", name))?;
        row("database opened in", &duration(opened))?;
        Ok(serving)
    }

    /// Serves a database, and says with what and how long it took to open.
    pub(super) async fn open(
        args: &Args,
        db: &Path,
        made: &LocalCertificates,
    ) -> Result<(Self, Vec<String>, Duration), Error> {
        let begun = Instant::now();
        let database = Arc::new(Database::open(db)?);
        let opened = begun.elapsed();
        let mut options = args.engine.options();
        options.gpu_bytes.get_or_insert(GPU_BYTES);
        let engines = spawn_blocking(move || select_with(&options)).await??.engines;
        let names: Vec<String> = engines.iter().map(|engine| engine.name()).collect();
        let options = ServerOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            identity: Identity::from_pem(&made.server_pem, &made.server_key)?,
            callers: Callers::Loopback,
            engines,
            bounds: ServerBounds::default(),
        };
        let server = Server::bind(options, database)?;
        let (address, counters) = (server.local_addr(), server.counters());
        let running = Running::start(address, counters, |told| server.run(told));
        Ok((Self { running, ca_pem: made.ca_pem.clone() }, names, opened))
    }

    pub(super) async fn client(&self, folder: &Path, accepted: u64) -> Result<Client, Error> {
        let key = OperatorKey::from_text(&fs::read_to_string(folder.join("db/operator.pub"))?)?;
        let replica = Replica::new(self.running.address, "localhost");
        let ca_pem = self.ca_pem.clone().into_bytes();
        let mut options = Options::new(replica, ca_pem, Pins::operator(key));
        options.records_per_shard_min = accepted;
        options.deadline = DEADLINE;
        options.answer_timeout = DEADLINE + limits::ANSWER_TIMEOUT;
        Ok(Client::connect(options).await?)
    }

    pub(super) async fn end(self) {
        self.running.end().await;
    }
}
