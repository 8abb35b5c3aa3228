//! A server in a process of its own, and a client of it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sotto::client::{Client, OperatorKey, Options, Outcome, Pins, Replica};
use sotto::limits;
use sotto::server::certificates;
use sotto::shard::Database;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use super::place::{AS_SOTTO, Place, cannot, this_program};
use crate::Failed;
use crate::endpoint::{Endpoint, Reply};

/// How long a server may take to listen, to be ready, or to leave.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long its log may take to say where the admin endpoints are, once it listens.
const ADMIN_PATIENCE: Duration = Duration::from_secs(60);
/// How soon it is asked again whether it is ready.
const RETRY: Duration = Duration::from_millis(1);

/// What servers are started with: a database, and certificates of this machine.
pub(super) struct Site {
    db: PathBuf,
    folder: PathBuf,
    threads: usize,
    /// Its clients', but for the address.
    options: Options,
}

impl Site {
    pub(super) fn new(place: &Place) -> Result<Self, Failed> {
        let localhost = certificates::localhost().map_err(|error| error.to_string())?;
        for (name, pem) in
            [("server.pem", &localhost.server_pem), ("server.key", &localhost.server_key)]
        {
            let path = place.folder.join(name);
            fs::write(&path, pem).map_err(cannot("write", &path))?;
        }
        let database = Database::open(&place.db())?;
        let pins = Pins::operator(OperatorKey(*database.operator_key()));
        let nowhere = Replica::new(([0; 4], 0).into(), "localhost");
        let mut options = Options::new(nowhere, localhost.ca_pem.into_bytes(), pins);
        let least = u64::from(database.manifest().shard_records_min());
        options.records_per_shard_min = least.min(limits::RECORDS_PER_SHARD_ACCEPTED_MIN);
        let (db, folder) = (place.db(), place.folder.clone());
        Ok(Self { db, folder, threads: place.threads(), options })
    }

    pub(super) async fn start(&self) -> Result<Server, Failed> {
        let file = |flag: &str, path: PathBuf| -> [OsString; 2] { [flag.into(), path.into()] };
        let files = [
            file("--db", self.db.clone()),
            file("--cert", self.folder.join("server.pem")),
            file("--key", self.folder.join("server.key")),
        ];
        // Nothing reads files but what is measured.
        let words = format!(
            "{AS_SOTTO} serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --engine cpu --threads {} \
             --scrub-mib-per-second=0 --watch-seconds=0 --log-format=human",
            self.threads
        );
        let words = words.split(' ').map(OsString::from).chain(files.into_iter().flatten());
        let log = self.folder.join("server.log");
        let mut command = this_program(words)?;
        command.stderr(fs::File::create(&log).map_err(cannot("write", &log))?);
        let began = Instant::now();
        let mut child = command.spawn()?;
        let output = child.stdout.take().expect("this is a bug: standard output is a pipe");
        let mut output = BufReader::new(output).lines();
        let line = timeout(PATIENCE, output.next_line()).await;
        let listening = began.elapsed();
        let address = line.ok().and_then(Result::ok).flatten();
        let address = address.and_then(|line| line.strip_prefix("listening on ")?.parse().ok());
        let admin = if address.is_some() { admin(&log).await } else { None };
        let Some((address, admin)) = address.zip(admin) else {
            let _ = child.kill().await;
            return Err(format!("sotto serve does not serve: {}", last_line(&log)).into());
        };
        let mut options = self.options.clone();
        options.replicas = vec![Replica::new(address, "localhost")];
        Ok(Server { child, began, listening, admin, options, log, _output: output })
    }
}

/// A server that listens. Killed when dropped.
pub(super) struct Server {
    child: Child,
    pub(super) began: Instant,
    /// From then until it said that it listens.
    pub(super) listening: Duration,
    admin: Endpoint,
    pub(super) options: Options,
    log: PathBuf,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Server {
    pub(super) async fn ready(&self) -> Result<(), Failed> {
        let endpoint = self.admin.with_path("/readyz");
        let asked = timeout(PATIENCE, async {
            while !endpoint.ask("GET", PATIENCE).await.is_ok_and(|reply| reply.status == 200) {
                tokio::time::sleep(RETRY).await;
            }
        });
        asked.await.map_err(|_| self.failed("is not ready"))
    }

    pub(super) async fn reload(&self) -> Result<String, Failed> {
        let endpoint = self.admin.with_path("/reload");
        match endpoint.ask("POST", PATIENCE).await {
            Ok(Reply { status: 200, body }) => Ok(body),
            Ok(Reply { body, .. }) => {
                Err(format!("sotto serve refuses to reload: {}", body.trim()).into())
            }
            Err(_) => Err(self.failed("does not reload")),
        }
    }

    /// Looks one key up on this connection; its value must be this.
    pub(super) async fn find(client: &mut Client, key: &str, value: &str) -> Result<(), Failed> {
        let mut outcomes = client.lookup(&[key]).await?;
        let outcome = outcomes.pop().expect("this is a bug: a key without an outcome")?;
        if outcome == Outcome::Found(value.into()) {
            return Ok(());
        }
        let help = "This is a bug, or memory that fails; run again";
        Err(format!("the answer for {key} is not its record. {help}").into())
    }

    pub(super) async fn leave(mut self) -> Result<(), Failed> {
        let process = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        let signalled = process.map(|process| kill_process(process, Signal::TERM));
        match (signalled, timeout(PATIENCE, self.child.wait()).await) {
            (Some(Ok(())), Ok(Ok(status))) if status.success() => Ok(()),
            _ => Err(self.failed("does not leave as it should")),
        }
    }

    pub(super) fn process(&self) -> String {
        self.child.id().map_or("gone".into(), |id| id.to_string())
    }

    fn failed(&self, what: &str) -> Failed {
        format!("sotto serve {what}: {}", last_line(&self.log)).into()
    }
}

/// Where a server's log says that its admin endpoints are.
async fn admin(log: &Path) -> Option<Endpoint> {
    let begun = Instant::now();
    while begun.elapsed() < ADMIN_PATIENCE {
        let text = fs::read_to_string(log).unwrap_or_default();
        // A line that is not whole yet has no end.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let url = lines.filter_map(|line| line.split_once("admin endpoints are at ")).next();
        if let Some(endpoint) = url.and_then(|(_, url)| Endpoint::parse(url.trim()).ok()) {
            return Some(endpoint);
        }
        tokio::time::sleep(RETRY).await;
    }
    None
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or_default().to_owned()
}
