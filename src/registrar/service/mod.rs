//! The registrar: proves that a number or address is a person's before it vouches for it, for the
//! application providers of a discovery provider, and gives out what it vouched for as a feed.
//!
//! [`Registrar::start`] reads files and listens, [`Registrar::run`] answers. `http.rs` has the
//! routes, `shared.rs` what they share, `chores.rs` what happens by itself, `log.rs` what goes to
//! the log, `feed.rs` the files for those who build databases. No number, address, handle or code
//! is logged or counted.

mod callers;
mod chores;
mod config;
mod counters;
mod errors;
mod events;
pub mod feed;
mod health;
mod http;
mod keys;
mod log;
mod parts;
mod receipts;
mod recycling;
mod shared;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::discovery::directory::Pins;
use crate::https::{
    Counters as HttpsCounters, Readiness, Reloader, Sample, Server, Shown, TlsFiles,
};
use crate::registrar::channels::{Channels, Loopback, Provider};
use crate::registrar::fraud::Fraud;
use crate::registrar::registrations::{Purged, SharedDirectory};
use tokio::task::JoinSet;

pub use crate::relay::system_clock;
pub use config::{Ap, Config, Dp, Log as LogConfig};
pub use errors::RegistrarError;
pub use keys::{Keys, KeysError};

use self::callers::Callers;
use self::chores::{Database, ask_carrier, keep_up, tell_others, watch_database};
use self::counters::Outcome;
use self::events::Events;
use self::log::{Log, submit_all};
use self::parts::{open, parts, read_directory, rules};
use self::receipts::Receipts;
use self::recycling::Carrier;
use self::shared::Service;
use crate::registrar::Clock;
use crate::registrar::api::Channel;
use crate::registrar::settings::bounds;

/// A registrar that listens. It answers once [`Registrar::run`] runs.
pub struct Registrar {
    server: Server,
    receipts: Option<Receipts>,
    database: Database,
    control: Control,
}

/// What an operator asks of a registrar while it runs.
#[derive(Clone)]
pub struct Control(Arc<Controlled>);

struct Controlled {
    service: Arc<Service>,
    fraud: Fraud,
    directory: SharedDirectory,
    events: Arc<Events>,
    /// None where nothing is logged.
    log: Option<Arc<Log>>,
    carrier: Arc<Carrier>,
    reloader: Reloader,
    https: Arc<HttpsCounters>,
    /// Where the configuration is, and what it said at the start.
    path: PathBuf,
    config: Config,
    /// What the next version of the directory has to satisfy.
    pins: Mutex<Pins>,
    is_leaving: AtomicBool,
    /// Held while files are read, so that the newest are used in the end.
    reading: Mutex<()>,
}

impl Registrar {
    /// Reads the configuration and all files that it names, and listens. The database need not
    /// answer yet. `loopback`, where there is one, is the last gateway of every channel. To be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// A file cannot be used or contradicts another one, or an address is taken.
    pub async fn start(
        path: &Path,
        clock: Clock,
        loopback: Option<Loopback>,
    ) -> Result<Self, RegistrarError> {
        let config = Config::read(path)?;
        let (core_of, pins) = parts(&config, clock())?;
        let (fraud, directory) = (core_of.fraud.clone(), core_of.directory.clone());
        let events = Arc::new(Events::new(&config)?);
        let log = Log::new(&config)?.map(Arc::new);
        let carrier = Carrier::new(&config.fraud)
            .map_err(|error| RegistrarError::Rules(error.to_string()))?;
        let channels = Channels::new(&config.channels, &providers(&config), loopback)
            .map_err(|error| RegistrarError::Channels(error.to_string()))?;
        let tls = TlsFiles {
            cert: config.cert.clone(),
            key: config.key.clone(),
            client_ca: Some(config.client_ca.clone()),
        };
        let server = Server::bind(config.listen, &tls, bounds(config.connections)).await;
        let server = server.map_err(RegistrarError::Server)?;
        let receipts = match config.receipts {
            Some(address) => Some(Receipts::bind(address).await?),
            None => None,
        };
        let database = Database {
            url: config.database.clone(),
            connections: config.database_connections,
            parts: core_of,
        };
        let service = Arc::new(Service::new(channels, callers(&config), clock));
        let control = Control(Arc::new(Controlled {
            service,
            fraud,
            directory,
            events,
            log,
            carrier: Arc::new(carrier),
            reloader: server.reloader(),
            https: server.counters(),
            path: path.to_owned(),
            config,
            pins: Mutex::new(pins),
            is_leaving: AtomicBool::new(false),
            reading: Mutex::default(),
        }));
        Ok(Self { server, receipts, database, control })
    }

    /// Where application providers connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Where gateways report what became of messages, if they may.
    pub fn receipts_addr(&self) -> Option<SocketAddr> {
        self.receipts.as_ref().map(Receipts::local_addr)
    }

    /// To reload and to watch it.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Answers until `shutdown` is ready, then ends the requests that have begun and the messages
    /// that are on their way.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let Self { server, receipts, database, control } = self;
        let Controlled { service, events, log, carrier, .. } = &*control.0;
        let (service, events) = (service.clone(), events.clone());
        let (log, carrier) = (log.clone(), carrier.clone());
        // Ends its tasks when it is dropped.
        let mut chores = JoinSet::new();
        chores.spawn(watch_database(service.clone(), database));
        chores.spawn(keep_up(service.clone()));
        chores.spawn(tell_others(service.clone(), events));
        chores.spawn(ask_carrier(service.clone(), carrier));
        if let Some(log) = log {
            chores.spawn(submit_all(service.clone(), log));
        }
        if let Some(receipts) = receipts {
            chores.spawn(receipts.run(service.channels.clone()));
        }
        let leave = async move {
            shutdown.await;
            control.0.is_leaving.store(true, Ordering::Relaxed);
        };
        server.run(http::router(&service), leave).await;
        service.finish().await;
    }
}

impl Control {
    /// Reads the configuration, certificates and the directory again, and takes up application and
    /// other discovery providers, the address of the log, and rules. What cannot be used stays as
    /// it was, and the others change all the same. Reads files.
    ///
    /// # Errors
    /// What could not be used, one line for each.
    pub fn reload(&self) -> Result<(), String> {
        let Controlled { service, reloader, reading, .. } = &*self.0;
        let _one = reading.lock().unwrap_or_else(PoisonError::into_inner);
        let read = [
            reloader.reload().map_err(RegistrarError::Server),
            self.reload_directory(),
            self.reload_config(),
        ];
        let wrong: Vec<String> =
            read.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        let outcome = if wrong.is_empty() { Outcome::Done } else { Outcome::Failed };
        service.counters.reload(outcome);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    fn reload_directory(&self) -> Result<(), RegistrarError> {
        let Controlled { config, service, directory, .. } = &*self.0;
        let mut pins = self.0.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = read_directory(config, &pins, service.now())?;
        *pins = newer.pins();
        *directory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(newer);
        Ok(())
    }

    /// Providers and rules: all of them or none.
    fn reload_config(&self) -> Result<(), RegistrarError> {
        let Controlled { config, service, fraud, events, log, carrier, path, .. } = &*self.0;
        let newer = Config::read(path)?;
        config.same_process(&newer)?;
        let wrong = |error: &dyn std::fmt::Display| RegistrarError::Config {
            path: path.clone(),
            why: error.to_string(),
        };
        service.channels.replace_providers(&providers(&newer)).map_err(|error| wrong(&error))?;
        events.reload(&newer)?;
        if let Some(log) = log {
            log.reload(&newer)?;
        }
        carrier.reload(&newer.fraud).map_err(|error| wrong(&error))?;
        fraud.replace(newer.fraud.clone(), rules(&newer)).map_err(|error| wrong(&error))?;
        service.replace_callers(callers(&newer));
        Ok(())
    }

    /// Ends when the database answers, or does not.
    pub async fn until_database(&self, is_up: bool) {
        self.0.service.health.until(is_up).await;
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
        let service = &self.0.service;
        let mut found = Readiness::default();
        if self.0.is_leaving.load(Ordering::Relaxed) {
            found.missing.push("the registrar is leaving".into());
        }
        found.missing.extend(service.health.missing());
        if self.expires() <= service.now() {
            found.missing.push("the directory has expired: give a newer one and reload".into());
        }
        found.notes.extend(self.0.log.as_ref().and_then(|log| log.missing()));
        for (channel, name) in CHANNELS {
            let is_configured = !self.0.config.gateways(channel).is_empty();
            if is_configured && service.channels.is_up(channel).is_err() {
                found.notes.push(format!("no gateway for {name} works"));
            }
        }
        found
    }

    fn expires(&self) -> u64 {
        let directory = self.0.directory.read().unwrap_or_else(PoisonError::into_inner);
        directory.content().expires
    }

    /// Every number, for an exporter.
    pub fn samples(&self) -> Vec<Sample> {
        let Controlled { service, fraud, carrier, https, .. } = &*self.0;
        let mut samples = service.counters.samples();
        let gauge = |name, help, value| Sample { name, help, labels: Vec::new(), value };
        let is_up = f64::from(u8::from(service.health.is_up()));
        samples.push(gauge("registrar_database_up", "Whether the database answers.", is_up));
        let sending = service.sending() as f64;
        samples.push(gauge("registrar_sending", "Messages on their way.", sending));
        let help = "When the directory expires, in unix seconds.";
        samples.push(gauge("registrar_directory_expires_seconds", help, self.expires() as f64));
        for (channel, name) in CHANNELS {
            samples.push(Sample {
                name: "registrar_channel_up",
                help: "Whether a channel has a gateway that works.",
                labels: vec![("channel", name.to_owned())],
                value: f64::from(u8::from(service.channels.is_up(channel).is_ok())),
            });
        }
        samples.extend(service.channels.samples());
        samples.extend(fraud.samples());
        samples.extend(carrier.samples());
        samples.extend(https.samples());
        samples
    }
}

const CHANNELS: [(Channel, &str); 3] =
    [(Channel::Sms, "sms"), (Channel::Call, "call"), (Channel::Email, "email")];

fn callers(config: &Config) -> Callers {
    Callers {
        aps: config.aps.iter().map(|ap| ap.domain.clone()).collect(),
        dps: config.dps.iter().map(|dp| dp.domain.clone()).collect(),
    }
}

fn providers(config: &Config) -> Vec<Provider> {
    let provider = |ap: &Ap| Provider { domain: ap.domain.clone(), name: ap.name.clone() };
    config.aps.iter().map(provider).collect()
}

/// Makes the keys of a new registrar; its public key, for the directory.
///
/// # Errors
/// The folder of keys is there already, or cannot be written.
pub fn init(config: &Config) -> Result<String, RegistrarError> {
    Ok(Keys::create(&config.issuer_key, &config.keys)?.public_key())
}

/// Erases what is not to be kept any longer; what that was.
///
/// # Errors
/// The database does not answer.
pub async fn purge(config: &Config, now: u64) -> Result<Purged, RegistrarError> {
    Ok(open(config, now).await?.purge(now).await?)
}
