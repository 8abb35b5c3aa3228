//! The program as an operator runs it, and a small database and certificates made by it.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use sotto::client::{Options, Replica};
use sotto::server::certificates::{self, LocalCertificates};

use super::{Built, load, options, until};

/// Where the program is. Cargo tells the tests of its own package; those of others find it in the
/// folder that all are built into.
pub(crate) fn program() -> String {
    match option_env!("CARGO_BIN_EXE_sotto") {
        Some(path) => path.to_owned(),
        None => {
            let test = std::env::current_exe().unwrap();
            test.ancestors().nth(2).unwrap().join("sotto").to_str().unwrap().to_owned()
        }
    }
}

/// `sotto` without what this process has in its environment for it, and without a state folder.
pub(crate) fn sotto(arguments: &[&str]) -> Command {
    sotto_through(&[], arguments)
}

/// The same, started by another program, if there is one.
pub(crate) fn sotto_through(other: &[&str], arguments: &[&str]) -> Command {
    let program = program();
    let words = [other, &[&program], arguments].concat();
    let mut command = program_as(words[0], &words[1..]);
    command.env_remove("XDG_STATE_HOME").env_remove("HOME");
    command
}

/// A program without what this process has in its environment for `sotto`, and without input.
pub(crate) fn program_as(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("SOTTO_")) {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Exit code, standard output and standard error.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// Where standard output goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum To {
    /// A pipe whose reader has gone.
    Closed,
    /// A disk without room.
    Full,
}

impl To {
    pub(crate) const BOTH: [Self; 2] = [Self::Closed, Self::Full];

    pub(crate) fn stdio(self) -> Stdio {
        match self {
            Self::Closed => Stdio::from(std::io::pipe().unwrap().1),
            Self::Full => {
                Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap())
            }
        }
    }
}

/// Exit code and standard error.
pub(crate) fn ends(command: &mut Command, to: To) -> (i32, String) {
    let output = command.stdout(to.stdio()).stderr(Stdio::piped()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!error.contains("panicked"), "{command:?}: {error}");
    (output.status.code().unwrap(), error)
}

/// As [`run`], of a program that must not keep this process' servers from answering it.
pub(crate) async fn run_beside(mut command: Command) -> (i32, String, String) {
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

fn make(arguments: &[&str]) -> String {
    let (code, out, err) = run(&mut sotto(arguments));
    assert_eq!(code, 0, "{arguments:?}: {err}");
    out
}

/// A key that [`Made`]'s database has, and its value.
pub(crate) const KNOWN: (&str, &str) = ("+12015550100", "hello");

/// A folder with `db` and `certs`.
pub(crate) struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    pub(crate) fn new() -> Self {
        let made = Self { folder: tempfile::tempdir().unwrap() };
        let records = made.text("records.csv");
        let lines = (101..400).map(|n| format!("+12015550{n},value {n}\n"));
        let header = format!("sii,value\n{},{}\n", KNOWN.0, KNOWN.1);
        std::fs::write(&records, header + &lines.collect::<String>()).unwrap();
        let shape = ["--shards", "2", "--value-bytes", "24"];
        make(&[&["build", "--input", &records, "--out", &made.text("db")], &shape[..]].concat());
        make(&["cert", "--out", &made.text("certs")]);
        made
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.text(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A folder with a database of the builder's and certificates, served by the program.
pub(crate) struct Place {
    pub(crate) built: Built,
    pub(crate) certificates: LocalCertificates,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::of(load::database())
    }

    pub(crate) fn of(built: Built) -> Self {
        let place = Self { built, certificates: certificates::localhost().unwrap() };
        place.show(&place.certificates);
        place
    }

    /// Makes these the server's certificates, for when it reads them.
    pub(crate) fn show(&self, certificates: &LocalCertificates) {
        let LocalCertificates { server_pem, server_key, .. } = certificates;
        for (name, pem) in [("server.pem", server_pem), ("server.key", server_key)] {
            std::fs::write(self.built.path(name), pem).unwrap();
        }
    }

    /// `sotto serve`, to be started in this folder by another program or by none.
    pub(crate) fn command(&self, through: &[&str], listen: SocketAddr) -> Command {
        self.command_with(through, listen, &["--admin", "off"])
    }

    pub(crate) fn command_with(
        &self,
        through: &[&str],
        listen: SocketAddr,
        more: &[&str],
    ) -> Command {
        let listen = listen.to_string();
        let files = ["serve", "--db", "db", "--cert", "server.pem", "--key", "server.key"];
        let usual = ["--listen", &listen, "--engine", "cpu", "--threads", "1"];
        let mut command = sotto_through(through, &[&files[..], &usual, more].concat());
        command.current_dir(self.built.folder.path());
        command
    }

    pub(crate) fn options(&self, server: &Program) -> Options {
        options(server.address, &self.certificates.ca_pem, self.built.pins())
    }
}

/// Any port of this machine.
pub(crate) fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// The program while it serves. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it and waits until it listens. Its log is kept unless the command sends it elsewhere.
    pub(crate) fn start(mut command: Command, log: Option<Stdio>) -> Self {
        command.stdout(Stdio::piped()).stderr(log.unwrap_or_else(Stdio::piped));
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let listener = child.stderr.take().map(|stderr| {
            let said = said.clone();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stderr);
                let mut line = String::new();
                while lines.read_line(&mut line).unwrap() > 0 {
                    said.lock().unwrap().push_str(&std::mem::take(&mut line));
                }
            })
        });
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").map(str::parse);
        let Some(Ok(address)) = address else {
            let mut rest = String::new();
            output.read_to_string(&mut rest).unwrap();
            let ended = child.wait().unwrap();
            panic!("{line}{rest}{ended}: {}", said.lock().unwrap());
        };
        Self { child, address, said, listener, output }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What its log says so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until its log says something that it had not said before.
    pub(crate) async fn says(&self, before: &str, words: &str) {
        until(words, || self.said()[before.len()..].contains(words)).await;
    }

    /// `kill -9`. Until then it has not panicked.
    pub(crate) fn kill(mut self) {
        assert!(!self.said().contains("panicked"), "{}", self.said());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal, and waits for the line of its log with these words that follows.
    pub(crate) async fn told(&self, signal: Signal, words: &str) -> String {
        let before = self.said().len();
        self.signal(signal);
        let line = || {
            let said = self.said();
            said[before..].lines().find(|line| line.contains(words)).map(str::to_owned)
        };
        until(words, || line().is_some()).await;
        line().unwrap()
    }

    /// Asks it to leave, and waits until it has.
    pub(crate) async fn leave(self) -> String {
        self.signal(Signal::TERM);
        self.left().await
    }

    /// Waits until it has left: with success, without a panic, and without another line on standard
    /// output. Its log comes back.
    pub(crate) async fn left(mut self) -> String {
        let ended = self.ended().await;
        if let Some(listener) = self.listener.take() {
            listener.join().unwrap();
        }
        let (said, mut rest) = (self.said(), String::new());
        self.output.read_to_string(&mut rest).unwrap();
        assert!(ended.success() && !said.contains("panicked"), "{ended}: {said}");
        assert_eq!(rest, "", "standard output has another line");
        said
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ends(mut self) -> ExitStatus {
        self.ended().await
    }

    async fn ended(&mut self) -> ExitStatus {
        let child = std::cell::RefCell::new(&mut self.child);
        until("the program leaves", || child.borrow_mut().try_wait().unwrap().is_some()).await;
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Gone already unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two programs that serve one database.
pub(crate) struct Two {
    pub(crate) place: Place,
    pub(crate) servers: [Option<Program>; 2],
    pub(crate) addresses: [SocketAddr; 2],
}

impl Two {
    pub(crate) fn start() -> Self {
        let place = Place::new();
        let servers = [(), ()].map(|()| Program::start(place.command(&[], any()), None));
        let addresses = [servers[0].address, servers[1].address];
        Self { place, servers: servers.map(Some), addresses }
    }

    pub(crate) fn options(&self, addresses: [SocketAddr; 2]) -> Options {
        let mut options = self.place.options(self.servers.iter().flatten().next().unwrap());
        options.replicas = addresses.map(|address| Replica::new(address, "localhost")).into();
        options
    }

    pub(crate) fn kill(&mut self, server: usize) {
        self.servers[server].take().unwrap().kill();
    }

    pub(crate) fn start_again(&mut self, server: usize) {
        let command = self.place.command(&[], self.addresses[server]);
        self.servers[server] = Some(Program::start(command, None));
    }
}

/// The program as it serves [`Made`]'s database until this is dropped, with a standard output that
/// the test chooses: [`Program`] reads it.
pub(crate) struct Background(Child, SocketAddr);

impl Background {
    pub(crate) fn start(made: &Made, more: &[&str], stdout: impl Into<Stdio>) -> Self {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listen = free.to_string();
        let mut serve = sotto(&["serve", "--admin", "off", "--engine", "cpu", "--listen", &listen]);
        serve.arg("--db").arg(made.path("db"));
        serve.arg("--cert").arg(made.path("certs/server.pem"));
        serve.arg("--key").arg(made.path("certs/server.key")).args(more);
        Self(serve.stdout(stdout).stderr(Stdio::null()).spawn().unwrap(), free)
    }

    pub(crate) fn port(&self) -> u16 {
        self.1.port()
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// `sotto lookup` of keys, as far as it is the same for everyone.
    pub(crate) fn lookup(&self, made: &Made, keys: &[&str]) -> Command {
        let server = format!("localhost:{}", self.port());
        let mut lookup = sotto(&["lookup", "--accept-shard-records", "1", "--server", &server]);
        lookup.arg("--ca").arg(made.path("certs/ca.pem"));
        lookup.arg("--operator-key").arg(made.path("db/operator.pub")).args(keys);
        lookup
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}
