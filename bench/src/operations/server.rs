//! A server in a process of its own, and a client of it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{AS_SOTTO, IoContext as _, OperationError, OperationOptions, files};
use crate::endpoint::{Endpoint, Method, Reply};
use sotto::client::{Client, OperatorKey, Options, Outcome, Pins, Replica};
use sotto::limits;
use sotto::server::certificates::{self, LocalCertificates};
use sotto::shard::Database;

/// How long a server may take to listen, to be ready, or to leave.
const PATIENCE: Duration = Duration::from_secs(600);
/// How soon it is asked again whether it is ready.
const GLANCE: Duration = Duration::from_millis(1);

/// What servers are started with: a database, and certificates of this machine.
pub(super) struct Site {
    options: OperationOptions,
    db: PathBuf,
    certificates: LocalCertificates,
    /// Whom its clients believe about it.
    operator_key: OperatorKey,
    /// Records a shard that its clients accept.
    crowd: u64,
}

impl Site {
    pub(super) fn new(options: &OperationOptions, db: &Path) -> Result<Self, OperationError> {
        let failed = |error: &dyn std::fmt::Display| OperationError::Process {
            what: "certificates for localhost".into(),
            said: error.to_string(),
        };
        let certificates = certificates::localhost().map_err(|error| failed(&error))?;
        for (name, pem) in
            [("server.pem", &certificates.server_pem), ("server.key", &certificates.server_key)]
        {
            let path = options.folder.join(name);
            fs::write(&path, pem).context("write", &path)?;
        }
        let database = Database::open(db)?;
        Ok(Self {
            options: options.clone(),
            db: db.to_owned(),
            certificates,
            operator_key: OperatorKey(*database.operator_key()),
            crowd: database.manifest().shard_records_min().into(),
        })
    }

    /// Starts a server of it and waits until it says that it listens.
    pub(super) async fn start(&self) -> Result<Server, OperationError> {
        let file = |name| self.options.folder.join(name).into_os_string();
        let arguments: [OsString; 19] = [
            AS_SOTTO.into(),
            "serve".into(),
            "--db".into(),
            self.db.clone().into(),
            "--listen".into(),
            "127.0.0.1:0".into(),
            "--admin".into(),
            "127.0.0.1:0".into(),
            "--cert".into(),
            file("server.pem"),
            "--key".into(),
            file("server.key"),
            "--engine".into(),
            "cpu".into(),
            "--threads".into(),
            self.options.threads().to_string().into(),
            // Nothing reads or takes up files but what is measured.
            "--scrub-mib-per-second=0".into(),
            "--watch-seconds=0".into(),
            "--log-format=human".into(),
        ];
        let mut command = self.options.command(arguments);
        let began = Instant::now();
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.context("run", &self.options.program)?;
        let log = Log::default();
        let (tell, admin) = oneshot::channel();
        let error = child.stderr.take().expect("this is a bug: standard error is a pipe");
        let reading = tokio::spawn(log.clone().read(error, tell));
        let output = child.stdout.take().expect("this is a bug: standard output is a pipe");
        let mut output = BufReader::new(output).lines();
        let line = timeout(PATIENCE, output.next_line()).await;
        let listening = began.elapsed();
        let address = line.ok().and_then(Result::ok).flatten();
        let address = address.and_then(|line| line.strip_prefix("listening on ")?.parse().ok());
        let (Some(address), Ok(admin)) = (address, admin.await) else {
            drop(child);
            let _ = reading.await;
            let said = log.last();
            return Err(OperationError::Process {
                what: "sotto serve does not serve".into(),
                said,
            });
        };
        let ca_pem = self.certificates.ca_pem.clone().into_bytes();
        let pins = Pins::operator(self.operator_key);
        let mut options = Options::new(Replica::new(address, "localhost"), ca_pem, pins);
        options.records_per_shard_min = self.crowd.min(limits::RECORDS_PER_SHARD_ACCEPTED_MIN);
        Ok(Server { child, began, listening, admin, options, log, _output: output })
    }
}

/// A server that listens. Killed when dropped.
pub(super) struct Server {
    child: Child,
    /// Just before its process was started.
    pub(super) began: Instant,
    /// From then until it said that it listens.
    pub(super) listening: Duration,
    admin: Endpoint,
    /// Its clients'.
    pub(super) options: Options,
    log: Log,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// Waits until it says that it is ready.
    pub(super) async fn ready(&self) -> Result<(), OperationError> {
        let endpoint = self.admin.with_path("/readyz");
        let asked = timeout(PATIENCE, async {
            while !matches!(
                endpoint.ask(Method::Get, PATIENCE).await,
                Ok(Reply { status: 200, .. })
            ) {
                tokio::time::sleep(GLANCE).await;
            }
        });
        asked.await.map_err(|_| self.failed("sotto serve is not ready"))
    }

    /// Has it read its database again; what it said.
    pub(super) async fn reload(&self) -> Result<String, OperationError> {
        let endpoint = self.admin.with_path("/reload");
        match endpoint.ask(Method::Post, PATIENCE).await {
            Ok(Reply { status: 200, body }) => Ok(body),
            Ok(Reply { body, .. }) => Err(OperationError::Process {
                what: "sotto serve refuses to reload".into(),
                said: body.trim().to_owned(),
            }),
            Err(_) => Err(self.failed("sotto serve does not reload")),
        }
    }

    /// Looks one key up on this connection; what it found must be this.
    pub(super) async fn find(
        client: &mut Client,
        key: &str,
        expected: &Outcome,
    ) -> Result<(), OperationError> {
        let mut outcomes = client.lookup(&[key]).await?;
        let outcome = outcomes.pop().expect("this is a bug: a key without an outcome")?;
        match &outcome == expected {
            true => Ok(()),
            false => Err(OperationError::Wrong(format!("that for {key} is not its record"))),
        }
    }

    /// Its own memory now, without files' pages.
    pub(super) fn own_memory_bytes(&self) -> Result<u64, OperationError> {
        files::memory_bytes(&self.process(), "RssAnon:")
    }

    /// Bytes that it had the disk read so far.
    pub(super) fn disk_bytes(&self) -> Result<u64, OperationError> {
        files::disk_bytes(&self.process())
    }

    /// Has it leave, and waits until it is gone.
    pub(super) async fn leave(mut self) -> Result<(), OperationError> {
        let process = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        let told = process.map(|process| kill_process(process, Signal::TERM));
        match (told, timeout(PATIENCE, self.child.wait()).await) {
            (Some(Ok(())), Ok(Ok(status))) if status.success() => Ok(()),
            _ => Err(self.failed("sotto serve does not leave as it should")),
        }
    }

    fn process(&self) -> String {
        self.child.id().map_or("gone".into(), |id| id.to_string())
    }

    fn failed(&self, what: &str) -> OperationError {
        OperationError::Process { what: what.into(), said: self.log.last() }
    }
}

/// The last line of a server's log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn last(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the log to its end, and tells where the admin endpoints are.
    async fn read(self, log: ChildStderr, tell: oneshot::Sender<Endpoint>) {
        let mut tell = Some(tell);
        let mut lines = BufReader::new(log).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(endpoint) = admin_of(&line)
                && let Some(tell) = tell.take()
            {
                let _ = tell.send(endpoint);
            }
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = line;
        }
    }
}

/// The endpoints that a line of a server's log names.
fn admin_of(line: &str) -> Option<Endpoint> {
    let (_, url) = line.split_once("admin endpoints are at ")?;
    Endpoint::parse(url.trim()).ok()
}
