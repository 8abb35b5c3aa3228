//! The program, as its operator sees it: started, probed, looked at in /proc, told to leave.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sotto::builder::{self, BuildOptions, Input, Silent};
use sotto::client::{OperatorKey, Options, Pins};
use sotto::server::certificates::{self, LocalCertificates};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::harness::options;
use super::harness::peer::until;

pub(crate) const RECORDS: u64 = 1_000;
const SHARDS: u32 = 2;
/// Large hints: 8 packs of 2048 rows, some 50 KB a shard.
const PACKS: u32 = 8;
const PACK_ROWS: u32 = 2_048;
/// How long a probe may take: what asks probes gives up later.
const PROBE_TIME: Duration = Duration::from_secs(5);

pub(crate) fn record(n: u64) -> (String, Vec<u8>) {
    (format!("+155501{n:05}"), format!("value {n}").into_bytes())
}

/// A running server, with its database and certificates. Killed when dropped.
pub(crate) struct Program {
    folder: tempfile::TempDir,
    pub(crate) certificates: LocalCertificates,
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    said: Arc<Mutex<String>>,
    listener: Option<std::thread::JoinHandle<()>>,
    _output: BufReader<ChildStdout>,
}

impl Program {
    /// Builds a database and serves it within so much memory.
    pub(crate) async fn start(memory_mib: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.csv");
        let lines = (0..RECORDS).map(record);
        let lines =
            lines.map(|(key, value)| format!("{key},{}\n", String::from_utf8(value).unwrap()));
        std::fs::write(&path, "sii,value\n".to_owned() + &lines.collect::<String>()).unwrap();
        let mut options = BuildOptions::new(Input::File(path), folder.path().join("db"));
        (options.shards, options.value_bytes) = (Some(SHARDS), Some(24));
        options.wishes.packs = Some(PACKS);
        options.wishes.pack_rows = Some(PACK_ROWS);
        builder::run(&options, &Silent).unwrap_or_else(|error| panic!("{error}"));
        let certificates = certificates::localhost().unwrap();
        let files =
            [("server.pem", &certificates.server_pem), ("server.key", &certificates.server_key)];
        for (name, pem) in files {
            std::fs::write(folder.path().join(name), pem).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
        command.current_dir(folder.path());
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("SOTTO_")) {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--db", "db", "--cert", "server.pem", "--key", "server.key"]);
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--engine", "cpu"]);
        command.args(["--threads", "1", "--memory", &memory_mib.to_string()]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (stderr, told) = (child.stderr.take().unwrap(), said.clone());
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let mut told = told.lock().unwrap();
                told.push_str(&line.unwrap());
                told.push('\n');
            }
        });
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").map(str::parse);
        let Some(Ok(address)) = address else {
            let _ = output.read_to_string(&mut line);
            panic!("{line}{:?}: {}", child.wait(), said.lock().unwrap());
        };
        // They answer before it listens; its log may be a little behind.
        until("the log names the admin endpoints", || admin_of(&said.lock().unwrap()).is_some())
            .await;
        let admin = admin_of(&said.lock().unwrap()).unwrap();
        let listener = Some(listener);
        Self { folder, certificates, child, address, admin, said, listener, _output: output }
    }

    pub(crate) fn certificate(&self) -> std::path::PathBuf {
        self.folder.path().join("server.pem")
    }

    pub(crate) fn db(&self) -> std::path::PathBuf {
        self.folder.path().join("db")
    }

    pub(crate) fn options(&self) -> Options {
        let key = std::fs::read_to_string(self.db().join("operator.pub")).unwrap();
        let pins = Pins::operator(OperatorKey::from_text(&key).unwrap());
        options(self.address, &self.certificates.ca_pem, pins)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Whether it is there, and has not panicked.
    pub(crate) fn runs(&self) -> bool {
        let place = format!("/proc/{}/status", self.pid());
        std::path::Path::new(&place).exists() && !self.said().contains("panicked")
    }

    /// Asks it to leave. It does so in peace, and has not panicked.
    pub(crate) async fn leave(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let child = Mutex::new(&mut self.child);
        let ended = Mutex::new(None);
        until("the program leaves", || {
            *ended.lock().unwrap() = child.lock().unwrap().try_wait().unwrap();
            ended.lock().unwrap().is_some()
        })
        .await;
        let ended = ended.into_inner().unwrap().unwrap();
        self.listener.take().unwrap().join().unwrap();
        let said = self.said();
        assert!(ended.success() && !said.contains("panicked"), "{ended}: {said}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Gone already unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where its log says the admin endpoints are.
fn admin_of(said: &str) -> Option<SocketAddr> {
    said.split("http://").nth(1)?.split('/').next()?.parse().ok()
}

/// Memory of a process without the pages of its files, in MiB.
pub(crate) fn anonymous_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// What probes of the admin endpoints came to.
#[derive(Debug, Default, Clone)]
pub(crate) struct Probed {
    asked: u64,
    failed: u64,
    longest_ms: u64,
}

impl Probed {
    pub(crate) fn right(&self) -> bool {
        self.asked > 0 && self.failed == 0
    }
}

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, failed, longest_ms } = self;
        write!(f, "{asked} of /livez, {failed} failed; longest {longest_ms} ms")
    }
}

/// Probes once a second.
pub(crate) struct Probes(tokio::task::JoinHandle<Probed>);

impl Probes {
    pub(crate) fn start(program: &Program, leave: Arc<AtomicBool>) -> Self {
        let admin = program.admin;
        Self(tokio::spawn(async move {
            let mut probed = Probed::default();
            while !leave.load(Ordering::SeqCst) {
                let begun = Instant::now();
                probed.asked += 1;
                let alive = timeout(PROBE_TIME, livez(admin)).await.unwrap_or(false);
                probed.failed += u64::from(!alive);
                probed.longest_ms = probed.longest_ms.max(begun.elapsed().as_millis() as u64);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            probed
        }))
    }

    pub(crate) async fn stop(self) -> Probed {
        self.0.await.unwrap()
    }
}

/// What the server counted of refusals, resets and displacements, a line each.
pub(crate) async fn refusals(admin: SocketAddr) -> Vec<String> {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    let counted = |line: &&str| {
        let about = ["refused", "overloaded", "OVERLOADED", "displaced", "reset", "handshakes"];
        !line.starts_with('#') && !line.ends_with(" 0") && about.iter().any(|a| line.contains(a))
    };
    page.lines().filter(counted).map(str::to_owned).collect()
}

async fn livez(admin: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(admin).await else { return false };
    let request = format!("GET /livez HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).await.is_ok() && reply.starts_with(b"HTTP/1.1 200")
}
