//! The key service of a provider: hands out the key packages of its users, each once, and the lists
//! of their clients.
//!
//! [`KeyService::start`] reads files, opens the database and listens, [`KeyService::run`] answers.
//! Users send settings, key packages and decisions with a token of their account (`users.rs`).
//! Everybody else asks through the relay of their own provider, sealed to this service
//! (`gateway.rs`), so that their provider learns which provider they ask, not whom. `store.rs`
//! decides who gets what; `mimi.rs` has the messages of draft-ietf-mimi-protocol; `packages.rs` and
//! `clients.rs` say which packages and lists are accepted, here and on the device
//! ([`keys`](crate::discovery::keys)).
//!
//! No user, requester, token or identifier is logged or counted by name.

mod config;
mod counters;
mod errors;
mod files;
mod gateway;
mod routes;
mod shared;
pub mod store;
#[cfg(test)]
mod tests;
mod users;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::discovery::directory::{Directory, Pins};
use crate::discovery::jws::base64url;
use crate::https::{Counters as HttpsCounters, Readiness, Reloader, Sample, Server, Shown};
use crate::registrar::{Clock, Problem, Store};
use crate::relay::Jwks;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

pub use config::{Config, RelayEntry};
pub use errors::KeysError;
pub use users::{ConsentsShown, ShownClient, UserSettings, UserShown};

use self::files::{mac_key, read_file, read_identity};
use self::shared::Service;
use crate::front_end::keys::Keys as OhttpKeys;
use crate::limits::keys::{KEY_PURGE_TIME, KEY_REQUESTS_MAX};

/// A key service that listens. It answers once [`KeyService::run`] runs.
pub struct KeyService {
    server: Server,
    control: Control,
}

/// What an operator asks of a key service while it runs.
#[derive(Clone)]
pub struct Control(Arc<Controlled>);

struct Controlled {
    service: Arc<Service>,
    config: Config,
    /// The file of the configuration, for its list of relays; none where there is no file.
    path: Option<PathBuf>,
    reloader: Reloader,
    https: Arc<HttpsCounters>,
    pins: Mutex<Pins>,
    directory_expires: AtomicU64,
    /// Whether the database did what it was asked the last time.
    stores: AtomicBool,
    is_leaving: AtomicBool,
    /// Held while files are read, so that the newest are used in the end.
    reading: Mutex<()>,
}

impl KeyService {
    /// Reads all files, opens the database, and listens. `path` is the file of the configuration,
    /// which is read again for its relays. To be called within a tokio runtime.
    ///
    /// # Errors
    /// A file or the database cannot be used, or the address is taken.
    pub async fn start(
        config: Config,
        path: Option<PathBuf>,
        clock: Clock,
    ) -> Result<Self, KeysError> {
        let now = clock();
        let identity = read_identity(&config.identity)?;
        let public = identity.verifying_key().to_bytes();
        let ring = OhttpKeys::open(config.ohttp_keys.clone(), identity, now)?;
        let accounts = Jwks::open(config.accounts.clone(), config.audience.clone())?;
        let max = crate::limits::PINS_BYTES_MAX;
        let pins = Pins::from_json(&read_file("pins", &config.directory_pins, max)?)?;
        let directory = read_directory(&config, &pins, now)?;
        let store = Store::open(&config.database, config.connections, store::MIGRATIONS).await?;
        let server = Server::bind(config.listen, &config.tls(), Config::bounds()).await?;
        let (pins, expires) = (directory.pins(), directory.content().expires);
        let service = Arc::new(Service {
            store,
            domain: config.domain.clone(),
            accounts,
            relays: RwLock::new(config.relays()),
            ring,
            identity: public,
            directory: RwLock::new(Arc::new(directory)),
            mac_key: mac_key(&config.identifiers_key)?,
            claims_an_hour: config.claims_an_hour,
            queries_an_hour: config.queries_an_hour,
            queries: Mutex::default(),
            counters: counters::Counters::default(),
            clock,
            permits: Semaphore::new(KEY_REQUESTS_MAX),
        });
        let control = Control(Arc::new(Controlled {
            service,
            config,
            path,
            reloader: server.reloader(),
            https: server.counters(),
            pins: Mutex::new(pins),
            directory_expires: AtomicU64::new(expires),
            stores: AtomicBool::new(true),
            is_leaving: AtomicBool::new(false),
            reading: Mutex::default(),
        }));
        Ok(Self { server, control })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// To reload and to watch it.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Answers until `shutdown` is ready, then ends the requests that have begun.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let Self { server, control } = self;
        let router = routes::router(&control.0.service);
        let working = tokio::spawn(control.clone().work());
        let leave = async move {
            shutdown.await;
            control.0.is_leaving.store(true, Ordering::Relaxed);
        };
        server.run(router, leave).await;
        working.abort();
    }
}

fn read_directory(config: &Config, pins: &Pins, now: u64) -> Result<Directory, KeysError> {
    let max = crate::limits::DIRECTORY_BYTES_MAX as u64;
    let bytes = read_file("directory", &config.directory, max)?;
    Ok(Directory::open(&bytes, pins, now)?)
}

impl Control {
    /// The long-term public key, in base64url: devices need it to accept OHTTP keys.
    pub fn public_key(&self) -> String {
        base64url(&self.0.service.identity)
    }

    /// Removes what has expired, and turns OHTTP keys, for as long as the service runs.
    async fn work(self) {
        let mut ticks = interval(KEY_PURGE_TIME);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let _ = self.purge().await;
            let service = self.0.service.clone();
            let turned = tokio::task::spawn_blocking(move || {
                let now = service.now();
                match service.ring.ring().is_current(now) {
                    true => Ok(()),
                    false => service.ring.refresh(now).map(drop),
                }
            });
            if let Ok(Err(error)) = turned.await {
                tracing::error!(%error, "there is no OHTTP key of this week");
            }
        }
    }

    /// Removes what has expired now: how many key packages.
    ///
    /// # Errors
    /// The database; the log says more.
    pub async fn purge(&self) -> Result<u64, Problem> {
        let Controlled { service, stores, .. } = &*self.0;
        let purged = store::purge(&service.store, service.now()).await;
        stores.store(purged.is_ok(), Ordering::Relaxed);
        match purged {
            Ok(packages) => {
                service.counters.purged.add(packages);
                Ok(packages)
            }
            Err(failed) => {
                service.counters.purges_failed.add(1);
                Err(failed.into())
            }
        }
    }

    /// Reads certificates, keys of accounts, the relays of the configuration, the directory and the
    /// folder of OHTTP keys again. What cannot be used stays as it was, and the others change all
    /// the same. Reads files.
    ///
    /// # Errors
    /// What could not be used, one line for each.
    pub fn reload(&self) -> Result<(), String> {
        let Controlled { service, reloader, reading, .. } = &*self.0;
        let _one = reading.lock().unwrap_or_else(PoisonError::into_inner);
        let read = [
            reloader.reload().map_err(KeysError::Server),
            service.accounts.reload().map_err(KeysError::Accounts),
            self.reload_relays(),
            self.reload_directory(),
            service.ring.refresh(service.now()).map(drop).map_err(KeysError::Ohttp),
        ];
        let wrong: Vec<String> =
            read.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        let counters = &service.counters;
        let counter = if wrong.is_empty() { &counters.reloads } else { &counters.reloads_failed };
        counter.add(1);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    fn reload_relays(&self) -> Result<(), KeysError> {
        let Some(path) = &self.0.path else { return Ok(()) };
        let relays = Config::read(path)?.relays();
        *self.0.service.relays.write().unwrap_or_else(PoisonError::into_inner) = relays;
        Ok(())
    }

    fn reload_directory(&self) -> Result<(), KeysError> {
        let Controlled { service, config, pins, directory_expires, .. } = &*self.0;
        let mut pins = pins.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = read_directory(config, &pins, service.now())?;
        *pins = directory.pins();
        directory_expires.store(directory.content().expires, Ordering::Relaxed);
        let mut held = service.directory.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(directory);
        Ok(())
    }

    /// What the operator's endpoints show.
    pub fn shown(&self) -> Shown {
        let (one, two) = (self.clone(), self.clone());
        Shown {
            readiness: Box::new(move || one.readiness()),
            samples: Box::new(move || two.samples()),
        }
    }

    /// Whether requests are to be sent here.
    pub fn readiness(&self) -> Readiness {
        let (service, mut found) = (&self.0.service, Readiness::default());
        let now = service.now();
        if self.0.is_leaving.load(Ordering::Relaxed) {
            found.missing.push("the key service is leaving".into());
        }
        if !self.0.stores.load(Ordering::Relaxed) {
            found.missing.push("the database did not answer: the log says why".into());
        }
        if !service.ring.ring().is_current(now) {
            found.missing.push("there is no OHTTP key of this week: the log says why".into());
        }
        if self.0.directory_expires.load(Ordering::Relaxed) <= now {
            found.notes.push("the directory has expired: no mapping is accepted".into());
        }
        if service.relays.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            found.notes.push("the configuration names no relay: nobody can ask".into());
        }
        found
    }

    /// Every number, for an exporter.
    pub fn samples(&self) -> Vec<Sample> {
        let Controlled { service, https, .. } = &*self.0;
        let mut samples = service.counters.samples();
        let gauge = |name, help, value| Sample { name, help, labels: Vec::new(), value };
        let current = f64::from(u8::from(service.ring.ring().is_current(service.now())));
        let help = "Whether devices are given the OHTTP key of this week.";
        samples.push(gauge("keys_ohttp_key_current", help, current));
        let expires = self.0.directory_expires.load(Ordering::Relaxed) as f64;
        let help = "When the directory expires, in seconds since 1970.";
        samples.push(gauge("keys_directory_expiry_timestamp_seconds", help, expires));
        let active = (KEY_REQUESTS_MAX - service.permits.available_permits()) as f64;
        samples.push(gauge("keys_requests_active", "Requests being answered.", active));
        samples.extend(https.samples());
        samples
    }
}
