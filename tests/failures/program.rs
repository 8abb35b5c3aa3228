//! The real program on a small database: started, told things, killed; its log is kept.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use sotto::client::{Options, Pins};
use sotto::server::certificates::{self, LocalCertificates};

use super::harness::peer::until;
use super::harness::{Built, options};
use super::load;

/// A folder with a database and certificates.
pub(crate) struct Place {
    pub(crate) built: Built,
    pub(crate) certificates: LocalCertificates,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place =
            Self { built: load::database(), certificates: certificates::localhost().unwrap() };
        place.show(&place.certificates);
        place
    }

    /// Makes these the server's certificates, for when it reads them.
    pub(crate) fn show(&self, certificates: &LocalCertificates) {
        let LocalCertificates { server_pem, server_key, .. } = certificates;
        for (name, pem) in [("server.pem", server_pem), ("server.key", server_key)] {
            std::fs::write(self.built.folder.path().join(name), pem).unwrap();
        }
    }

    /// `sotto serve`, to be started in this folder by another program or by none.
    pub(crate) fn command(&self, through: &[&str], listen: SocketAddr) -> Command {
        let program: [&OsStr; 1] = [env!("CARGO_BIN_EXE_sotto").as_ref()];
        let listen = listen.to_string();
        let arguments =
            ["serve", "--db", "db", "--cert", "server.pem", "--key", "server.key", "--listen"];
        let more = [&*listen, "--engine", "cpu", "--threads", "1", "--admin", "off"];
        let through = through.iter().map(AsRef::<OsStr>::as_ref);
        let mut words = through.chain(program);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(arguments).args(more).env_remove("SOTTO_LOG");
        command.current_dir(self.built.folder.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn options(&self, server: &Program) -> Options {
        let pins = Pins::operator(self.built.operator_key());
        options(server.address, &self.certificates.ca_pem, pins)
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
    _output: BufReader<ChildStdout>,
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
        Self { child, address, said, listener, _output: output }
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

    /// kill -9. Until then it has not panicked.
    pub(crate) fn kill(mut self) {
        assert!(!self.said().contains("panicked"), "{}", self.said());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to leave. It does so in peace, and has not panicked.
    pub(crate) async fn leave(mut self) -> String {
        self.signal(Signal::TERM);
        let ended = self.ended().await;
        if let Some(listener) = self.listener.take() {
            listener.join().unwrap();
        }
        let said = self.said();
        assert!(ended.success() && !said.contains("panicked"), "{ended}: {said}");
        said
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ends(mut self) -> ExitStatus {
        self.ended().await
    }

    async fn ended(&mut self) -> ExitStatus {
        let ended = Arc::new(Mutex::new(None));
        let child = Mutex::new(&mut self.child);
        until("the program leaves", || {
            let mut ended = ended.lock().unwrap();
            *ended = child.lock().unwrap().try_wait().unwrap();
            ended.is_some()
        })
        .await;
        let ended = *ended.lock().unwrap();
        ended.unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Gone already unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
