//! [`harness::program`] under the name it had, and the program with a standard output of one's own.

#![allow(dead_code, unused_imports)]

#[path = "../harness/mod.rs"]
mod harness;

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};

pub(crate) use harness::program::*;

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
