//! The log as a service: it appends what registrars and operators of databases send it, and shows
//! everybody that it only ever appended.
//!
//! The database is the truth (`tree.rs`); an entry is acknowledged once it is stored there. What
//! the world reads are static files (`publish.rs`): tiles, bundles, checkpoint and proofs of
//! epochs, which this service gives out (`service.rs`) and any web server can. [`check`] follows a
//! log as its auditors do; [`client`] is the registrar's and the operators' side. What devices
//! check is in `discovery::log`.

mod callers;
pub mod check;
pub mod client;
mod config;
mod counters;
mod errors;
mod publish;
mod service;
mod tree;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::https::{
    Bounds, Counters as HttpsCounters, Readiness, Reloader, Sample, Server, Shown, TlsFiles,
};
use crate::registrar::{Clock, Store};
use crate::shard::files::open_to_others;
use ed25519_dalek::SigningKey;

use self::callers::read_callers;
pub use self::callers::{Allowed, Callers};
pub use self::config::Config;
use self::counters::Counters;
pub use self::errors::ServeError;
pub use self::publish::{Publisher, Step};
use self::service::Service;
pub use self::service::{NewEntries, NewEntry, Stored};
pub use self::tree::MIGRATIONS;
use crate::discovery::log::LogKey;
use crate::limits::log::PUBLISH_RETRY_TIME;

/// What a log is started with.
pub struct Options {
    /// Address; port 0 selects a free one.
    pub listen: SocketAddr,
    /// The server's certificate, and the authorities of callers.
    pub tls: TlsFiles,
    /// The log's name: the origin of its checkpoints.
    pub name: String,
    /// Its key: PKCS#8 PEM, mode 0600.
    pub key: PathBuf,
    /// Who may append what: a TOML file.
    pub callers: PathBuf,
    /// Its database: `postgres://…` or `sqlite:FILE`. No other service may have tables in it.
    pub store: String,
    /// Connections to the database.
    pub connections: u32,
    /// Folder of the static files. It is made if it is missing.
    pub folder: PathBuf,
    /// Time between two checkpoints, at least.
    pub publish_time: Duration,
    /// Connections of callers and readers, and how long they may take.
    pub bounds: Bounds,
    /// The time.
    pub clock: Clock,
    /// Called between the steps of the work, by tests that end the process there.
    pub at_step: fn(Step),
}

/// A log that listens. It answers once [`LogServer::run`] runs.
pub struct LogServer {
    server: Server,
    service: Arc<Service>,
    publisher: Publisher,
    control: Control,
    publish_time: Duration,
}

/// What an operator asks of a log while it runs.
#[derive(Clone)]
pub struct Control(Arc<Controlled>);

struct Controlled {
    service: Arc<Service>,
    reloader: Reloader,
    https: Arc<HttpsCounters>,
    callers: PathBuf,
    /// Whether the newest entries could be published the last time.
    publishes: AtomicBool,
    is_leaving: AtomicBool,
    /// Held while files are read, so that the newest are used in the end.
    reading: Mutex<()>,
}

impl LogServer {
    /// Reads all files, publishes what is stored and not published yet, and listens. To be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// A file or the database cannot be used, the address is taken, or the published checkpoint has
    /// more than the database or something else: then nothing is signed.
    pub async fn start(options: Options) -> Result<Self, ServeError> {
        let Options { listen, tls, folder, clock, at_step, .. } = options;
        let key = read_key(&options.key)?;
        let log = LogKey::new(&options.name, &key.verifying_key().to_bytes())?;
        let callers = read_callers(&options.callers)?;
        let store = Store::open(&options.store, options.connections, MIGRATIONS).await?;
        let counters = Arc::<Counters>::default();
        let mut publisher =
            Publisher::open(store.clone(), folder.clone(), log.clone(), key, at_step).await?;
        publisher.publish().await?;
        counters.set_published(publisher.published());
        let server =
            Server::bind(listen, &tls, options.bounds).await.map_err(ServeError::Server)?;
        let service = Arc::new(Service::new(store, folder, log, callers, counters, clock, at_step));
        let control = Control(Arc::new(Controlled {
            service: service.clone(),
            reloader: server.reloader(),
            https: server.counters(),
            callers: options.callers,
            publishes: AtomicBool::new(true),
            is_leaving: AtomicBool::new(false),
            reading: Mutex::default(),
        }));
        let publish_time = options.publish_time;
        Ok(Self { server, service, publisher, control, publish_time })
    }

    /// Where callers and readers connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// To reload and to watch it.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The log's name and key, as tools for notes write them.
    pub fn key(&self) -> LogKey {
        self.service.log.clone()
    }

    /// Answers until `shutdown` is ready, then ends the requests that have begun and publishes what
    /// they appended.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let Self { server, service, mut publisher, control, publish_time } = self;
        let leaving = control.clone();
        let leave = async move {
            shutdown.await;
            leaving.0.is_leaving.store(true, Ordering::Relaxed);
        };
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let publishing = tokio::spawn(async move {
            let mut ended = ended;
            loop {
                let is_last = tokio::select! {
                    _ = &mut ended => true,
                    () = control.0.service.appended.notified() => false,
                };
                let is_done = control.publish(&mut publisher).await;
                if is_last {
                    return;
                }
                if !is_done {
                    control.0.service.appended.notify_one();
                }
                let pause = if is_done { publish_time } else { PUBLISH_RETRY_TIME };
                tokio::select! {
                    _ = &mut ended => {
                        control.publish(&mut publisher).await;
                        return;
                    }
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
        server.run(service.router(), leave).await;
        drop(end);
        // A panic of the task was logged, and all that matters is that it has ended.
        let _ = publishing.await;
    }
}

impl Control {
    /// Publishes what is new. Says whether that was done.
    async fn publish(&self, publisher: &mut Publisher) -> bool {
        let counters = &self.0.service.counters;
        let published = publisher.publish().await;
        let is_done = published.is_ok();
        let before = self.0.publishes.swap(is_done, Ordering::Relaxed);
        counters.set_published(publisher.published());
        match published {
            Ok(()) if !before => tracing::info!("entries are published again"),
            Ok(()) => {}
            Err(error) => {
                counters.publish_failed();
                if before {
                    tracing::error!(%error, "entries are not published");
                }
            }
        }
        is_done
    }

    /// Reads certificates and the file of callers again. Where one cannot be used it stays as it
    /// was, and the other changes all the same. The log's key stays. Reads files.
    ///
    /// # Errors
    /// What could not be used, one line for each.
    pub fn reload(&self) -> Result<(), String> {
        let Controlled { service, reloader, callers, reading, .. } = &*self.0;
        let _one = reading.lock().unwrap_or_else(PoisonError::into_inner);
        let read = [
            reloader.reload().map_err(ServeError::Server),
            read_callers(callers).map(|callers| service.set_callers(callers)),
        ];
        let wrong: Vec<String> =
            read.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
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
        let mut found = Readiness::default();
        if self.0.is_leaving.load(Ordering::Relaxed) {
            found.missing.push("the log is leaving".into());
        }
        if !self.0.publishes.load(Ordering::Relaxed) {
            found.missing.push("entries cannot be published: the log says why".into());
        }
        found
    }

    /// Every number, for an exporter.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = self.0.service.counters.samples();
        samples.extend(self.0.https.samples());
        samples
    }
}

/// Reads the log's key.
fn read_key(path: &Path) -> Result<SigningKey, ServeError> {
    let wrong = |why: String| ServeError::Key { path: path.to_owned(), why };
    let found = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if let Some(mode) = open_to_others(&found) {
        let why = format!("others than its owner may use it (mode {mode:03o}); chmod 600 it");
        return Err(wrong(why));
    }
    let key = crate::builder::keys::load(path).map_err(|error| wrong(error.to_string()))?;
    key.ok_or_else(|| wrong("it is missing".into()))
}
