//! The relay: knows the accounts of devices and sees sealed requests, of which it forwards the
//! body alone to a front-end, or to the key service of a provider. It does not open them, and the
//! front-end knows no account.
//!
//! [`Relay::start`] reads files and listens, [`Relay::run`] answers. A request goes through
//! `service.rs`: `accounts.rs` says whose it is (`introspect.rs` asks a service), `quotas.rs` what
//! the account may still ask (`bucket.rs` has the arithmetic), `forward.rs` sends it on; `keys.rs`
//! finds key services. Public files are in `public.rs`. No account, token or address is logged or
//! counted by name.

mod accounts;
mod bucket;
mod counters;
mod errors;
mod forward;
mod introspect;
mod keys;
mod public;
mod quotas;
mod service;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

pub use bucket::{Kind, Quota, QuotaError};
pub use errors::{AccountError, RelayError, StateError};
pub use forward::FrontEndFiles;
pub use keys::KeyServiceFiles;
pub use quotas::Clock;

use self::accounts::Accounts;
pub(crate) use self::accounts::Jwks;
#[cfg(feature = "registration")]
pub(crate) use self::accounts::bearer;
use self::counters::{Counters, Done};
use self::forward::{Condition, Gateway, read_file};
use self::introspect::Introspection;
#[cfg(feature = "registration")]
pub(crate) use self::introspect::object;
use self::keys::KeyServices;
use self::quotas::Quotas;
use self::service::{Parts, Service};
use crate::https::{
    Bounds, Client, Counters as HttpsCounters, Readiness, Reloader, Sample, Server, Shown, TlsFiles,
};
use crate::limits;

/// How accounts of devices are recognised.
#[derive(Debug, Clone)]
pub enum AccountsFrom {
    /// By JWTs (EdDSA) that keys of this file verify, a JWK set; for this audience, if one is
    /// given.
    Jwks {
        /// The file.
        file: PathBuf,
        /// Whom tokens have to be for.
        audience: Option<String>,
    },
    /// By asking a service about each token (RFC 7662).
    Introspection {
        /// Its address.
        url: String,
        /// Authorities that sign its certificate, PEM.
        ca: PathBuf,
        /// A file with the value of the `Authorization` header that the service wants.
        authorization: Option<PathBuf>,
    },
}

/// What a relay is started with.
pub struct Options {
    /// Address for devices; port 0 selects a free one.
    pub listen: SocketAddr,
    /// The certificate that devices see.
    pub tls: TlsFiles,
    /// The front-end, and how both know each other.
    pub front_end: FrontEndFiles,
    /// How key services of providers are found; none where no request for keys is forwarded.
    pub key_services: Option<KeyServiceFiles>,
    /// Whose requests are forwarded.
    pub accounts: AccountsFrom,
    /// How many new identifiers an account may have evaluated.
    pub evaluate: Quota,
    /// How many look-ups an account may make.
    pub lookup: Quota,
    /// Folder of the quotas and of the relay's key.
    pub state: PathBuf,
    /// Memory for bodies on their way.
    pub memory_bytes: usize,
    /// Requests that may wait for the front-end at once.
    pub forwards: usize,
    /// Connections of devices, and how long they may take.
    pub bounds: Bounds,
    /// The time, in Unix seconds.
    pub clock: Clock,
}

/// The clock of this machine.
pub fn system_clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// A relay that listens. It answers once [`Relay::run`] runs.
pub struct Relay {
    server: Server,
    service: Arc<Service>,
    control: Control,
    writer: JoinHandle<()>,
    stop: Sender<()>,
}

/// What an operator asks of a relay while it runs.
#[derive(Clone)]
pub struct Control(Arc<Controlled>);

struct Controlled {
    service: Arc<Service>,
    reloader: Reloader,
    https: Arc<HttpsCounters>,
    /// Whether what has changed could be written the last time.
    writes: Arc<AtomicBool>,
    is_leaving: AtomicBool,
    /// Held while files are read, so that the newest are used in the end.
    reading: Mutex<()>,
}

impl Relay {
    /// Reads all files and listens. To be called within a tokio runtime.
    ///
    /// # Errors
    /// A file cannot be used, or the address is taken.
    pub async fn start(options: Options) -> Result<Self, RelayError> {
        let Options { listen, tls, front_end, accounts, state, clock, .. } = options;
        let counters = Arc::<Counters>::default();
        let accounts = open_accounts(accounts, &counters)?;
        let key_services =
            options.key_services.map(|files| KeyServices::open(files, &front_end, clock()));
        let key_services = key_services.transpose()?;
        let front_end = Gateway::front_end(front_end)?;
        let server =
            Server::bind(listen, &tls, options.bounds).await.map_err(RelayError::Server)?;
        let quotas = [options.evaluate, options.lookup];
        let quotas = Arc::new(Quotas::open(&state, quotas, clock.clone())?);
        let writes = Arc::new(AtomicBool::new(true));
        let (stop, stopped) = channel();
        let writer = {
            let (quotas, counters, writes) = (quotas.clone(), counters.clone(), writes.clone());
            let work = move || write_quotas(&quotas, &counters, &writes, &stopped);
            let named = std::thread::Builder::new().name("quotas".into());
            named.spawn(work).map_err(|source| StateError::Io { path: state, source })?
        };
        let parts = Parts { accounts, quotas, front_end, key_services, counters, clock };
        let service = Arc::new(Service::new(parts, options.memory_bytes, options.forwards));
        let (reloader, https) = (server.reloader(), server.counters());
        let control = Control(Arc::new(Controlled {
            service: service.clone(),
            reloader,
            https,
            writes,
            is_leaving: AtomicBool::new(false),
            reading: Mutex::default(),
        }));
        Ok(Self { server, service, control, writer, stop })
    }

    /// Where devices connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// To reload and to watch it.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Answers until `shutdown` is ready, then ends the requests that have begun and writes quotas.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let Self { server, service, control, writer, stop } = self;
        let leave = async move {
            shutdown.await;
            control.0.is_leaving.store(true, Ordering::Relaxed);
        };
        server.run(service.router(), leave).await;
        drop(stop);
        // A panic of the thread was logged, and all that matters is that it has ended.
        let _ = tokio::task::spawn_blocking(|| writer.join()).await;
    }
}

impl Control {
    /// Reads certificates, keys and the keys that verify tokens again. Where one cannot be used it
    /// stays as it was, and the others change all the same. Reads files.
    ///
    /// # Errors
    /// What could not be used, one line for each.
    pub fn reload(&self) -> Result<(), String> {
        let Controlled { service, reloader, reading, .. } = &*self.0;
        let _one = reading.lock().unwrap_or_else(PoisonError::into_inner);
        let read = [
            reloader.reload().map_err(RelayError::Server),
            service.front_end.connector().reload(),
            service.key_services.as_ref().map_or(Ok(()), |keys| keys.reload((service.clock)())),
            service.accounts.reload(),
        ];
        let wrong: Vec<String> =
            read.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        service.counters.reload(if wrong.is_empty() { Done::Done } else { Done::Failed });
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
            found.missing.push("the relay is leaving".into());
        }
        if !self.0.writes.load(Ordering::Relaxed) {
            found.missing.push("quotas cannot be written: the log says why".into());
        }
        match self.0.service.front_end.condition() {
            Condition::NotAsked | Condition::Answering => {}
            Condition::Unreachable => found.notes.push("the front-end does not answer".into()),
            Condition::Refusing => found.notes.push("the front-end refuses this relay".into()),
        }
        found
    }

    /// Every number, for an exporter.
    pub fn samples(&self) -> Vec<Sample> {
        let Controlled { service, https, .. } = &*self.0;
        let mut samples = service.counters.samples();
        let gauge = |name, help, value| Sample { name, help, labels: Vec::new(), value };
        let waiting = service.waiting() as f64;
        samples.push(gauge("relay_waiting", "Requests that wait for the front-end.", waiting));
        let used = service.room_used() as f64;
        samples.push(gauge("relay_body_bytes", "Memory for bodies that is in use.", used));
        let accounts = service.quotas.accounts().map_or(f64::NAN, |accounts| accounts as f64);
        let help = "Accounts whose quotas are partly used, as last written.";
        samples.push(gauge("relay_accounts", help, accounts));
        samples.push(service.front_end.connector().certificate());
        samples.extend(https.samples());
        samples
    }
}

fn open_accounts(from: AccountsFrom, counters: &Arc<Counters>) -> Result<Accounts, RelayError> {
    let (url, ca, authorization) = match from {
        AccountsFrom::Jwks { file, audience } => {
            return Ok(Accounts::Jwks(Jwks::open(file, audience)?));
        }
        AccountsFrom::Introspection { url, ca, authorization } => (url, ca, authorization),
    };
    if !url.starts_with("https://") {
        return Err(RelayError::Url { what: "service that knows tokens", found: url });
    }
    let ca = read_file("authority (--introspect-ca)", &ca)?;
    let client = Client::new(Some(&ca), None, limits::INTROSPECTION_TIME)
        .map_err(|source| RelayError::Client { what: "service that knows tokens", source })?;
    let authorization = authorization.as_deref().map(read_authorization).transpose()?;
    let introspection = Introspection::new(client, url, authorization, counters.clone());
    Ok(Accounts::Introspection(introspection))
}

/// The value of a header: one line.
fn read_authorization(path: &Path) -> Result<Zeroizing<String>, RelayError> {
    let bytes = Zeroizing::new(read_file("authorization (--introspect-authorization)", path)?);
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    let is_line = !text.is_empty() && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let why = "expected one line of ASCII, the value of an Authorization header, such as Basic ...";
    match is_line && text.len() <= limits::ACCOUNT_TOKEN_BYTES_MAX {
        true => Ok(Zeroizing::new(text.to_owned())),
        false => Err(RelayError::Authorization { path: path.to_owned(), why }),
    }
}

/// Writes what has changed once a second, and once more when the relay ends.
fn write_quotas(quotas: &Quotas, counters: &Counters, writes: &AtomicBool, stopped: &Receiver<()>) {
    let mut swept: Option<Instant> = None;
    loop {
        let is_last =
            stopped.recv_timeout(limits::QUOTA_WRITE_TIME) != Err(RecvTimeoutError::Timeout);
        let is_due = swept.is_none_or(|swept| swept.elapsed() >= limits::QUOTA_SWEEP_TIME);
        let written = quotas.write().and_then(|written| {
            if is_due && !is_last {
                quotas.sweep()?;
                swept = Some(Instant::now());
            }
            Ok(written)
        });
        match written {
            Ok(false) => {}
            Ok(true) => counters.write(Done::Done),
            Err(_) => counters.write(Done::Failed),
        }
        let before = writes.swap(written.is_ok(), Ordering::Relaxed);
        match written {
            Err(error) if before => tracing::error!(%error, "quotas are not written"),
            Ok(_) if !before => tracing::info!("quotas are written again"),
            _ => {}
        }
        if is_last {
            return;
        }
    }
}
