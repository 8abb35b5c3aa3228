//! The configuration of a log, a TOML file:
//!
//! ```toml
//! listen = "0.0.0.0:8445"
//! cert = "log.pem"                    # what callers and readers see
//! key = "log.key"
//! client-ca = "callers.pem"           # authorities of callers' certificates
//! callers = "log-callers.toml"        # who may append what
//! name = "log.example/1"              # the origin of its checkpoints
//! log-key = "log-key.pem"             # signs them, mode 0600
//! database = "sqlite:log.sqlite"      # or postgres://...
//! folder = "public"                   # of the static files
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Options, ServeError};
use crate::https::TlsFiles;
use crate::limits::log::PUBLISH_TIME;
use crate::limits::registrar::{
    SERVICE_CONFIG_BYTES_MAX, SERVICE_CONNECTIONS, SERVICE_DATABASE_CONNECTIONS,
};
use crate::registrar::Clock;
use crate::registrar::settings::{bounds, from_toml};
use crate::shard::files::read_text;

/// What the file says. It may have a password, and has no Debug.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[allow(missing_docs)] // The head of the module says it.
pub struct Config {
    pub listen: SocketAddr,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: PathBuf,
    pub callers: PathBuf,
    pub name: String,
    pub log_key: PathBuf,
    pub database: String,
    pub folder: PathBuf,
    /// Most connections to PostgreSQL.
    #[serde(default = "connections")]
    pub connections: u32,
}

fn connections() -> u32 {
    SERVICE_DATABASE_CONNECTIONS
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// It cannot be read, or what is wrong in it. No line of it is quoted.
    pub fn read(path: &Path) -> Result<Self, ServeError> {
        let wrong = |why: String| ServeError::Config { path: path.to_owned(), why };
        let text =
            read_text(path, SERVICE_CONFIG_BYTES_MAX).map_err(|error| wrong(error.to_string()))?;
        from_toml(&text).map_err(wrong)
    }

    /// What a log is started with.
    pub fn options(self, clock: Clock) -> Options {
        Options {
            listen: self.listen,
            tls: TlsFiles { cert: self.cert, key: self.key, client_ca: Some(self.client_ca) },
            name: self.name,
            key: self.log_key,
            callers: self.callers,
            store: self.database,
            connections: self.connections,
            folder: self.folder,
            publish_time: PUBLISH_TIME,
            bounds: bounds(SERVICE_CONNECTIONS),
            clock,
            at_step: |_| {},
        }
    }
}
