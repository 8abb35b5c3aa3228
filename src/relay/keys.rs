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
        let pins = read("pins", &files.pins, PINS_BYTES_MAX)?;
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
        let bytes = read("directory", path, DIRECTORY_BYTES_MAX as u64)?;
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let directory =
            Directory::open(&bytes, &pins, now).map_err(|error| refused(path, &error))?;
        let mut gateways = HashMap::new();
        for provider in &directory.content().providers {
            // One address that cannot be used keeps nobody from the others.
            match Gateway::key_service(&provider.keys_url, &self.connector) {
                Ok(gateway) => {
                    gateways.insert(provider.domain.clone(), Arc::new(gateway));
                }
                Err(error) => tracing::warn!(%error, "a provider's key service is left out"),
            }
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

fn read(what: &'static str, path: &Path, max: u64) -> Result<Vec<u8>, RelayError> {
    let unreadable = |source| RelayError::Unreadable { what, path: path.to_owned(), source };
    let bytes = read_regular(path, max + 1).map_err(unreadable)?;
    match bytes.len() as u64 <= max {
        true => Ok(bytes),
        false => Err(refused(path, &format_args!("it has more than {max} bytes, which none has"))),
    }
}

fn refused(path: &Path, why: &dyn std::fmt::Display) -> RelayError {
    RelayError::Directory { path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::super::counters::{Asked, Outcome};
    use super::super::tests::{
        SEALED, SECRET_NAME, Setting, Way, error_of, is_error, start_with, write_directory,
    };
    use super::*;

    #[tokio::test]
    async fn requests_for_keys_go_to_the_key_service_of_the_provider_that_is_named() {
        let world =
            start_with(Setting { key_services: true, evaluate: "48,16/day", ..Setting::default() })
                .await;
        // What was not sent is not counted.
        *world.way.lock().unwrap() = Way::Closed;
        let response = world.ask("/keys/b.example", SECRET_NAME, b"sealed for b").await;
        is_error(&response, 502, "key_service");
        assert!(error_of(&response)["detail"].as_str().unwrap().starts_with("the key service"));
        *world.way.lock().unwrap() = Way::Open;
        let response = world.ask("/keys/b.example", SECRET_NAME, b"sealed for b").await;
        assert_eq!((response.status, &response.body[..]), (200, &b"sealed"[..]));
        let seen = world.front_end.seen();
        let [seen] = &seen[..] else { panic!("{} requests", seen.len()) };
        assert_eq!((&seen.method, &*seen.uri), (&Method::POST, "/gateway"));
        assert_eq!(seen.names, ["client.localhost"]);
        assert_eq!(seen.body, "sealed for b");
        assert!(!seen.headers.contains_key("authorization"));
        // Its keys, which everybody gets.
        world.front_end.then(200, &[("content-type", "application/jwt")], b"its keys");
        for _ in 0..2 {
            let response = world.get("/keys/b.example/ohttp-keys", &[]).await;
            assert_eq!((response.status, &response.body[..]), (200, &b"its keys"[..]));
        }
        let seen = world.front_end.seen();
        assert_eq!(seen.iter().map(|seen| &*seen.uri).collect::<Vec<_>>(), ["/ohttp-keys"]);
        // Nobody can have the relay ask elsewhere, or without an account.
        for path in ["/keys/c.example", "/keys/localhost", "/keys/b.example%2Fx", "/keys/B.example"]
        {
            is_error(&world.ask(path, "a", b"sealed").await, 404, "no_key_service");
            is_error(&world.get(&format!("{path}/ohttp-keys"), &[]).await, 404, "no_key_service");
        }
        is_error(&world.post("/keys/b.example", &[SEALED], b"sealed").await, 401, "account");
        is_error(&world.ask("/keys/b.example", "a", &[0; 4_097]).await, 413, "too_long");
        assert!(world.front_end.seen().is_empty());
        // What it says is told as its own, and requests count as evaluations.
        world.front_end.then(403, &[], b"");
        is_error(&world.ask("/keys/b.example", SECRET_NAME, b"sealed").await, 502, "key_service");
        assert_eq!(world.ask("/evaluate", SECRET_NAME, b"sealed").await.status, 200);
        let response = world.ask("/keys/b.example", SECRET_NAME, b"sealed").await;
        is_error(&response, 429, "quota");
        assert_eq!(error_of(&response)["kind"], "evaluate");
        assert_eq!(world.ask("/lookup", SECRET_NAME, b"sealed").await.status, 200);
        assert_eq!(world.count(Asked::Keys, Outcome::Answered), 1);
        assert_eq!(world.count(Asked::Keys, Outcome::KeyService), 2);
        // A newer directory has others; what cannot be used changes nothing.
        write_directory(&world.folder, 2, &[("c.example", "1"), ("d.example", "1/x?y#z")]);
        world.control.reload().unwrap();
        is_error(&world.ask("/keys/d.example", "a", b"sealed").await, 404, "no_key_service");
        is_error(&world.ask("/keys/b.example", "a", b"sealed").await, 404, "no_key_service");
        is_error(&world.ask("/keys/c.example", "a", b"sealed").await, 502, "key_service");
        write_directory(&world.folder, 1, &[("b.example", "1")]);
        let wrong = world.control.reload().unwrap_err();
        assert!(wrong.contains("directory.json"), "{wrong}");
        is_error(&world.ask("/keys/b.example", "a", b"sealed").await, 404, "no_key_service");
    }

    #[tokio::test]
    async fn a_key_service_that_hangs_leaves_places_for_the_front_end() {
        let setting = Setting { key_services: true, forwards: 2, ..Setting::default() };
        let world = Arc::new(start_with(setting).await);
        world.front_end.then_wait();
        let asked = world.clone();
        let waits = tokio::spawn(async move { asked.ask("/keys/b.example", "a", b"sealed").await });
        world.front_end.waiting.notified().await;
        is_error(&world.ask("/keys/b.example", "b", b"sealed").await, 503, "overloaded");
        assert_eq!(world.ask("/evaluate", "b", b"sealed").await.status, 200);
        world.front_end.go_on.notify_one();
        assert_eq!(waits.await.unwrap().status, 200);
    }
}
