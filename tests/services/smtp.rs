//! A mail server for tests: Debian's `python3-aiosmtpd`.

use std::path::Path;
use std::process::{Command, Stdio};

use super::child::{Talker, folder};
use super::postgres::said::there;

/// Debian's own: others do not see its packages.
const PYTHON: &str = "/usr/bin/python3";

/// A mail server that runs until it is dropped. What it can be told is in `smtp/smtp.py`.
pub(crate) struct MailServer(Talker);

impl std::ops::Deref for MailServer {
    type Target = Talker;

    fn deref(&self) -> &Talker {
        &self.0
    }
}

impl MailServer {
    /// Starts one that demands STARTTLS and a login, with a key and a certificate (PEM files);
    /// `None` where it is not installed.
    pub(crate) fn start(key: &Path, certificate: &Path) -> Option<Self> {
        Self::with(key, certificate, "starttls")
    }

    /// Starts one that has no TLS.
    pub(crate) fn start_plain(key: &Path, certificate: &Path) -> Option<Self> {
        Self::with(key, certificate, "plain")
    }

    fn with(key: &Path, certificate: &Path, mode: &str) -> Option<Self> {
        let mut import = Command::new(PYTHON);
        import.args(["-c", "import aiosmtpd"]).stderr(Stdio::null());
        let is_there = import.status().is_ok_and(|status| status.success());
        if !there("aiosmtpd", is_there, "apt-get install python3-aiosmtpd") {
            return None;
        }
        let mut command = Command::new(PYTHON);
        command.arg(folder().join("smtp/smtp.py")).args([key, certificate]).arg(mode);
        Some(Self(Talker::start(&mut command)))
    }

    /// `host:port`; the certificate is for `localhost`.
    pub(crate) fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }
}
