//! The TOML file of a key service.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::https::{Bounds, TlsFiles};
use crate::limits;
use serde::Deserialize;

use crate::limits::keys::{KEY_CLAIMS_AN_HOUR, KEY_CONFIG_BYTES_MAX, KEY_QUERIES_AN_HOUR};
use crate::registrar::keys::errors::KeysError;
use crate::registrar::keys::files::read_file;

/// What a key service is started with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Address for relays and for users of this provider; port 0 selects a free one.
    pub listen: SocketAddr,
    /// Certificate chain, beginning with the service's own, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authorities of relays, PEM.
    pub client_ca: PathBuf,
    /// `postgres://…` or `sqlite:FILE`.
    pub database: String,
    /// Connections to PostgreSQL.
    #[serde(default = "connections")]
    pub connections: u32,
    /// The provider's domain: whose users' keys are here.
    pub domain: String,
    /// The JWK set that verifies users' tokens: the same as at the provider's relay. `sub` is the
    /// user's handle, or the whole SSI.
    pub accounts: PathBuf,
    /// Whom tokens have to be for. Without it every audience is accepted.
    #[serde(default)]
    pub audience: Option<String>,
    /// Folder of the OHTTP keys; processes of one service share it.
    pub ohttp_keys: PathBuf,
    /// The long-term Ed25519 key that signs their list, PKCS #8 in PEM.
    pub identity: PathBuf,
    /// The key under which identifiers and requesters are stored; made if it is missing.
    pub identifiers_key: PathBuf,
    /// File of the signed directory: it says whose mappings are believed.
    pub directory: PathBuf,
    /// Pins that it has to satisfy.
    pub directory_pins: PathBuf,
    /// Claims that a requester may make in an hour.
    #[serde(default = "claims_an_hour")]
    pub claims_an_hour: u32,
    /// Searches and questions for consent that a relay may pass on in an hour.
    #[serde(default = "queries_an_hour")]
    pub queries_an_hour: u32,
    /// Relays that may pass requests on.
    #[serde(default, rename = "relay")]
    pub relays: Vec<RelayEntry>,
}

/// A relay, and for whose users it speaks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayEntry {
    /// The DNS name in its certificate.
    pub name: String,
    /// Domains of the requesters that it passes on.
    pub domains: Vec<String>,
}

/// Domains of requesters, by the name of the relay.
pub(crate) type Relays = HashMap<String, Vec<String>>;

fn connections() -> u32 {
    16
}

fn claims_an_hour() -> u32 {
    KEY_CLAIMS_AN_HOUR
}

fn queries_an_hour() -> u32 {
    KEY_QUERIES_AN_HOUR
}

impl Config {
    /// Reads a file. Relative paths are relative to the file's folder.
    ///
    /// # Errors
    /// The file cannot be read, or says something else than is expected.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let bytes = read_file("configuration", path, KEY_CONFIG_BYTES_MAX)?;
        let wrong = |why: String| KeysError::Config { path: path.to_owned(), why };
        let text = String::from_utf8(bytes).map_err(|_| wrong("it is no text".to_owned()))?;
        // The error's own text quotes the file, which may hold a password.
        let mut config: Self =
            toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        config.check().map_err(wrong)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let Self { cert, key, client_ca, accounts, ohttp_keys, .. } = &mut config;
        for file in [cert, key, client_ca, accounts, ohttp_keys] {
            *file = folder.join(&*file);
        }
        let Self { identity, identifiers_key, directory, directory_pins, .. } = &mut config;
        for file in [identity, identifiers_key, directory, directory_pins] {
            *file = folder.join(&*file);
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.claims_an_hour == 0 || self.queries_an_hour == 0 || self.connections == 0 {
            return Err("a limit is 0: expected 1 or more".to_owned());
        }
        let names = self.relays.iter().map(|relay| relay.name.to_ascii_lowercase());
        let names: std::collections::HashSet<String> = names.collect();
        match names.len() == self.relays.len() && !names.contains("") {
            true => Ok(()),
            false => Err("a relay has no name, or that of another".to_owned()),
        }
    }

    pub(crate) fn relays(&self) -> Relays {
        let entry = |relay: &RelayEntry| (relay.name.to_ascii_lowercase(), relay.domains.clone());
        self.relays.iter().map(entry).collect()
    }

    pub(crate) fn tls(&self) -> TlsFiles {
        let client_ca = Some(self.client_ca.clone());
        TlsFiles { cert: self.cert.clone(), key: self.key.clone(), client_ca }
    }

    pub(crate) fn bounds() -> Bounds {
        Bounds {
            connections: limits::FRONT_END_CONNECTIONS_MAX,
            handshakes: limits::FRONT_END_HANDSHAKES_MAX,
            handshake_time: limits::FRONT_END_HANDSHAKE_TIME,
            head_time: limits::FRONT_END_HEAD_TIME,
            idle_time: limits::FRONT_END_IDLE_TIME,
            body_time: limits::FRONT_END_BODY_TIME,
        }
    }
}
