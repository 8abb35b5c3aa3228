//! The key services of the providers in the directory, to which sealed requests for keys go.
//!
//! A device names the provider and asks inside the seal. So this relay learns whose service is
//! asked, but not for whom, and the key service learns for whom, but not which account asks until
//! the request says so. Addresses come from the signed directory alone: no device can have this
//! relay connect elsewhere.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::errors::{Peer, RelayError};
use super::forward::{Connector, ConnectorFiles, FrontEndFiles, Gateway};
use crate::discovery::directory::{Directory, Pins};
use crate::limits::{DIRECTORY_BYTES_MAX, PINS_BYTES_MAX};
use crate::shard::files::read_regular;

/// The files by which key services are found and trusted.
#[derive(Debug, Clone)]
pub struct KeyServiceFiles {
    /// The signed directory, which has their addresses.
    pub directory: PathBuf,
    /// Pins that it has to satisfy.
    pub pins: PathBuf,
    /// Authorities that sign their certificates, PEM.
    pub ca: PathBuf,
}

/// The key services.
pub(super) struct KeyServices {
    files: KeyServiceFiles,
    connector: Arc<Connector>,
    /// What the newest directory that was read demands of the next one.
    pins: Mutex<Pins>,
    gateways: RwLock<HashMap<String, Arc<Gateway>>>,
}

impl KeyServices {
    /// They see the same certificate of this relay as the front-end.
    pub(super) fn open(
        files: KeyServiceFiles,
        own: &FrontEndFiles,
        now: u64,
    ) -> Result<Self, RelayError> {
        let (cert, key) = (own.cert.clone(), own.key.clone());
        let (peer, ca, time) = (Peer::KeyService, files.ca.clone(), own.time);
        let connector = Arc::new(Connector::new(ConnectorFiles { peer, ca, cert, key, time })?);
        let pins = read(&files.pins, PINS_BYTES_MAX)?;
        let pins = Pins::from_json(&pins).map_err(|error| refused(&files.pins, &error))?;
        let opened = Self { files, connector, pins: Mutex::new(pins), gateways: RwLock::default() };
        opened.read_directory(now)?;
        Ok(opened)
    }

    /// Reads certificates and the directory again. What cannot be used stays as it was.
    pub(super) fn reload(&self, now: u64) -> Result<(), RelayError> {
        self.connector.reload()?;
        self.read_directory(now)
    }

    fn read_directory(&self, now: u64) -> Result<(), RelayError> {
        let path = &self.files.directory;
        let bytes = read(path, DIRECTORY_BYTES_MAX as u64)?;
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let directory =
            Directory::open(&bytes, &pins, now).map_err(|error| refused(path, &error))?;
        let mut gateways = HashMap::new();
        for provider in &directory.content().providers {
            let gateway = Gateway::key_service(&provider.keys_url, &self.connector)?;
            gateways.insert(provider.domain.clone(), Arc::new(gateway));
        }
        *pins = directory.pins();
        *self.gateways.write().unwrap_or_else(PoisonError::into_inner) = gateways;
        Ok(())
    }

    /// The key service of a provider.
    pub(super) fn of(&self, domain: &str) -> Option<Arc<Gateway>> {
        self.gateways.read().unwrap_or_else(PoisonError::into_inner).get(domain).cloned()
    }
}

fn read(path: &Path, max: u64) -> Result<Vec<u8>, RelayError> {
    let unreadable =
        |source| RelayError::Unreadable { what: "directory", path: path.to_owned(), source };
    let bytes = read_regular(path, max + 1).map_err(unreadable)?;
    match bytes.len() as u64 <= max {
        true => Ok(bytes),
        false => Err(refused(path, &format_args!("it has more than {max} bytes, which none has"))),
    }
}

fn refused(path: &Path, why: &dyn std::fmt::Display) -> RelayError {
    RelayError::Directory { path: path.to_owned(), why: why.to_string() }
}
