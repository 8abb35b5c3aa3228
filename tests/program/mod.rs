//! The program as an operator runs it, and a small database and certificates made by it.

#![allow(dead_code)]

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// `sotto` without what this process has in its environment for it, and without a state folder.
pub(crate) fn sotto(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("SOTTO_")) {
            command.env_remove(name);
        }
    }
    command.env_remove("XDG_STATE_HOME").env_remove("HOME");
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Exit code, standard output and standard error.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
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

/// The program as it serves [`Made`]'s database, until this is dropped.
pub(crate) struct Serving(Child, SocketAddr);

impl Serving {
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

impl Drop for Serving {
    fn drop(&mut self) {
        self.kill();
    }
}
