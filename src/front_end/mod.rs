//! The front-end: opens sealed requests that relays send it, and knows no account. It asks answer
//! servers for the look-ups in them, and evaluates or has others evaluate.
//!
//! [`FrontEnd::start`] reads files and listens, [`FrontEnd::run`] answers. A request goes through
//! `gateway.rs`: `relays.rs` says whose it is and whether its bound allows it, `keys.rs` has the
//! keys that open it, `evaluate.rs` evaluates, `pool.rs` has look-ups answered, `resolve.rs` looks
//! up itself where devices may name their contacts, `public.rs` has the files for everybody.
//! `room.rs` bounds memory and work. [`Control`] reloads files and shows numbers to an operator.
//! Nothing of a request is logged.

mod bundles;
mod cache;
pub mod canary;
mod counters;
mod epochs;
mod errors;
mod evaluate;
mod filters;
mod gateway;
mod hints;
pub mod keys;
mod mix;
mod own;
pub mod placement;
pub mod pool;
mod pool_counters;
mod public;
mod relays;
mod replicas;
mod resolve;
mod room;
mod rounds;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

pub use errors::FrontEndError;
pub use gateway::Clock;
pub use relays::RelaysError;

use self::counters::{Counters, count};
use self::evaluate::Evaluator;
use self::gateway::Service;
use self::keys::Keys;
use self::placement::Placement;
use self::pool::{Pool, PoolOptions};
use self::public::{Files, read_filters, read_proofs};
use self::relays::Relays;
use self::resolve::{Resolving, Shared};
use self::room::{Compute, Room};
use crate::builder::keys::load;
use crate::discovery::blind::BlindKey;
use crate::discovery::directory::{Directory, Pins};
use crate::discovery::jws::base64url;
use crate::https::{
    Bounds, Client, Counters as HttpsCounters, Readiness, Reloader, Sample, Server, Shown,
    TlsFiles, client_certificate_expiry,
};
use crate::limits;
use crate::shard::files::read_regular;

/// What a front-end is started with. It has a private key and no Debug.
pub struct Options {
    /// Address for relays and everybody who fetches public files; port 0 selects a free one.
    pub listen: SocketAddr,
    /// The certificate that they see, and the authorities of relays.
    pub tls: TlsFiles,
    /// Connections of relays, and how long they may take.
    pub bounds: Bounds,
    /// Folder of the OHTTP keys; processes of one front-end share it.
    pub keys: PathBuf,
    /// The long-term Ed25519 key that signs their list, PKCS #8 in PEM.
    pub identity: PathBuf,
    /// File of relays.
    pub relays: PathBuf,
    /// File of the signed directory.
    pub directory: PathBuf,
    /// Pins that it has to satisfy.
    pub directory_pins: PathBuf,
    /// Placement file.
    pub placement: PathBuf,
    /// Blinding keys by database.
    pub blind_keys: Vec<(String, PathBuf)>,
    /// Authorities (PEM) of other front-ends that evaluate; those of answer servers if not given.
    pub evaluate_ca: Option<PathBuf>,
    /// How answer servers are asked. Its certificate is shown to other front-ends, too.
    pub pool: PoolOptions,
    /// Memory for requests and replies of relays.
    pub memory_bytes: usize,
    /// Memory for what was found for devices that name their contacts; none where they may not.
    pub resolve_bytes: Option<usize>,
    /// Unix seconds.
    pub clock: Clock,
}

/// The clock of this machine.
pub fn system_clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// A front-end that listens. It answers once [`FrontEnd::run`] runs.
pub struct FrontEnd {
    server: Server,
    control: Control,
}

/// What an operator asks of a front-end while it runs.
#[derive(Clone)]
pub struct Control(Arc<Controlled>);

struct Controlled {
    service: Arc<Service>,
    reloader: Reloader,
    https: Arc<HttpsCounters>,
    relays: PathBuf,
    directory: PathBuf,
    placement: Placement,
    /// What the next version of the directory has to satisfy.
    pins: Mutex<Pins>,
    directory_expires: AtomicU64,
    identity: [u8; 32],
    /// When the certificate expires that answer servers see, if there is one.
    client_certificate: Option<Sample>,
    is_leaving: AtomicBool,
    /// Held while files are read, so that the newest are used in the end.
    reading: Mutex<()>,
}

impl FrontEnd {
    /// Reads all files, connects to answer servers, and listens. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// A file cannot be used or contradicts another one, or the address is taken.
    pub async fn start(options: Options) -> Result<Self, FrontEndError> {
        let now = (options.clock)();
        let directory_bytes =
            read(DIRECTORY, &options.directory, limits::DIRECTORY_BYTES_MAX as u64)?;
        let pins = read("file of pins", &options.directory_pins, limits::PINS_BYTES_MAX)?;
        let directory = Directory::open(&directory_bytes, &Pins::from_json(&pins)?, now)?;
        let placement = Placement::read(&options.placement)?;
        let relays = Relays::new(relays::read(&options.relays)?);
        let identity = read_identity(&options.identity)?;
        let identity_public = identity.verifying_key().to_bytes();
        let keys = Arc::new(Keys::open(options.keys.clone(), identity, now)?);
        let (compute, counters) = (Compute::new(), Arc::<Counters>::default());
        let evaluator = Arc::new(Evaluator::new(
            read_blind_keys(&options.blind_keys)?,
            &placement,
            &directory,
            client_of_evaluators(&options)?,
            compute.clone(),
            counters.clone(),
        )?);
        let filters = read_filters(&placement, options.resolve_bytes.is_some())?;
        let files = Files::new(directory_bytes.into(), filters, read_proofs(&placement)?);
        let server = Server::bind(options.listen, &options.tls, options.bounds).await;
        let server = server.map_err(FrontEndError::Server)?;
        let (pins, expires) = (directory.pins(), directory.content().expires);
        let shown = options.pool.identity_pem.as_ref();
        let client_certificate = shown.map(|(cert, key)| client_certificate_expiry(cert, key));
        let directory = Arc::new(directory);
        let pool = Pool::start(placement.clone(), directory.clone(), options.pool).await?;
        let shared = Shared {
            directory,
            pool: pool.clone(),
            evaluator: evaluator.clone(),
            compute: compute.clone(),
            counters: counters.clone(),
        };
        let resolving = options.resolve_bytes;
        let resolving = resolving.map(|bytes| Resolving::start(&placement, bytes, shared));
        let service = Arc::new(Service {
            relays,
            keys,
            pool,
            databases: placement.databases.iter().map(|placed| placed.id.clone()).collect(),
            evaluator,
            resolving: resolving.transpose()?,
            files,
            compute,
            room: Room::new(options.memory_bytes),
            counters,
            clock: options.clock,
        });
        let control = Control(Arc::new(Controlled {
            service,
            reloader: server.reloader(),
            https: server.counters(),
            relays: options.relays,
            directory: options.directory,
            placement,
            pins: Mutex::new(pins),
            directory_expires: AtomicU64::new(expires),
            identity: identity_public,
            client_certificate,
            is_leaving: AtomicBool::new(false),
            reading: Mutex::default(),
        }));
        Ok(Self { server, control })
    }

    /// Where relays connect.
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
        let router = control.0.service.router();
        let turning = tokio::spawn(turn_keys(control.0.service.clone()));
        let leave = async move {
            shutdown.await;
            control.0.is_leaving.store(true, Ordering::Relaxed);
        };
        server.run(router, leave).await;
        turning.abort();
    }
}

impl Control {
    /// The long-term public key, in base64url: devices need it to accept OHTTP keys.
    pub fn public_key(&self) -> String {
        base64url(&self.0.identity)
    }

    /// Reads certificates, relays, the directory, routing filters and the folder of OHTTP keys
    /// again. What cannot be used stays as it was, and the others change all the same. Placement,
    /// blinding keys and operators' keys are taken up at the next start. Reads files.
    ///
    /// # Errors
    /// What could not be used, one line for each.
    pub fn reload(&self) -> Result<(), String> {
        let Controlled { service, reloader, reading, .. } = &*self.0;
        let _one = reading.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (service.clock)();
        let read = [
            reloader.reload().map_err(FrontEndError::Server),
            relays::read(&self.0.relays)
                .map(|lines| service.relays.replace(lines))
                .map_err(Into::into),
            self.reload_files(now),
            service.keys.refresh(now).map(drop).map_err(Into::into),
        ];
        let refused = service.resolving.as_ref().map(|it| it.reload_filters(&self.0.placement));
        let wrong = read.into_iter().filter_map(Result::err).chain(refused.into_iter().flatten());
        let wrong: Vec<String> = wrong.map(|error| error.to_string()).collect();
        wrong.iter().for_each(|_| count(&service.counters.reloads_failed));
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// Directory, filters and proofs, all or none.
    fn reload_files(&self, now: u64) -> Result<(), FrontEndError> {
        let Controlled { service, placement, pins, .. } = &*self.0;
        let bytes = read(DIRECTORY, &self.0.directory, limits::DIRECTORY_BYTES_MAX as u64)?;
        let mut pins = pins.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = Directory::open(&bytes, &pins, now)?;
        let filters = read_filters(placement, service.resolving.is_some())?;
        service.files.replace(bytes.into(), filters, read_proofs(placement)?);
        *pins = directory.pins();
        self.0.directory_expires.store(directory.content().expires, Ordering::Relaxed);
        if let Some(resolving) = &service.resolving {
            resolving.replace_directory(Arc::new(directory));
        }
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
        let now = (service.clock)();
        if self.0.is_leaving.load(Ordering::Relaxed) {
            found.missing.push("the front-end is leaving".into());
        }
        if !service.pool.is_ready() {
            found.missing.push("a database has no answer server that works".into());
        }
        if !service.keys.ring().is_current(now) {
            found.missing.push("there is no OHTTP key of this week: the log says why".into());
        }
        if self.0.directory_expires.load(Ordering::Relaxed) <= now {
            found.missing.push("the directory has expired: give a newer one and reload".into());
        }
        let [own, others] = service.evaluator.databases();
        let without = service.databases.len().saturating_sub(own + others);
        if without > 0 {
            found.notes.push(format!("{without} databases have nobody who evaluates"));
        }
        found
    }

    /// Every number, for an exporter.
    pub fn samples(&self) -> Vec<Sample> {
        let Controlled { service, https, .. } = &*self.0;
        let mut samples = service.counters.samples();
        samples.extend(service.relays.samples());
        let gauge = |name, help, value| Sample { name, help, labels: Vec::new(), value };
        let used = service.room.used_bytes() as f64;
        let help = "Memory for requests and replies of relays that is in use.";
        samples.push(gauge("front_end_memory_bytes", help, used));
        let current = f64::from(u8::from(service.keys.ring().is_current((service.clock)())));
        let help = "Whether devices are given the OHTTP key of this week.";
        samples.push(gauge("front_end_ohttp_key_current", help, current));
        let expires = self.0.directory_expires.load(Ordering::Relaxed) as f64;
        let help = "When the directory expires, in unix seconds.";
        samples.push(gauge("front_end_directory_expires_seconds", help, expires));
        samples.extend(service.pool.counters().into_iter().map(of_pool));
        samples.extend(self.0.client_certificate.clone());
        samples.extend(service.resolving.iter().flat_map(|resolving| resolving.samples()));
        samples.extend(https.samples());
        samples
    }
}

const DIRECTORY: &str = "directory";

/// The pool names its numbers with the program's prefix, which the exporter adds.
fn of_pool(sample: pool::Sample) -> Sample {
    let pool::Sample { name, help, labels, value } = sample;
    let name = name.strip_prefix("sotto_").unwrap_or(name);
    Sample { name, help, labels, value: value as f64 }
}

/// Makes the key of each week in time, and removes those that have expired.
async fn turn_keys(service: Arc<Service>) {
    let mut interval = interval(limits::OHTTP_KEYS_LOOK_TIME);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_fine = true;
    loop {
        interval.tick().await;
        let (keys, now) = (service.keys.clone(), (service.clock)());
        let Ok(refreshed) = spawn_blocking(move || keys.refresh(now)).await else { continue };
        match &refreshed {
            Err(error) if was_fine => {
                tracing::error!(%error, "the OHTTP keys stay as they were");
            }
            Ok(_) if !was_fine => tracing::info!("the OHTTP keys are read again"),
            _ => {}
        }
        was_fine = refreshed.is_ok();
    }
}

fn read(what: &'static str, path: &Path, max: u64) -> Result<Vec<u8>, FrontEndError> {
    let unreadable = |error| FrontEndError::Unreadable { what, path: path.to_owned(), error };
    let bytes = read_regular(path, max + 1).map_err(unreadable)?;
    match bytes.len() as u64 <= max {
        true => Ok(bytes),
        false => Err(FrontEndError::File {
            what,
            path: path.to_owned(),
            found: format!("more than {max} bytes"),
            expected: "a smaller one",
        }),
    }
}

fn read_identity(path: &Path) -> Result<SigningKey, FrontEndError> {
    let refused = |found| FrontEndError::File {
        what: "front-end's key",
        path: path.to_owned(),
        found,
        expected: "an Ed25519 key, PKCS #8 in PEM (openssl genpkey -algorithm ed25519)",
    };
    let key = load(path).map_err(|error| refused(error.to_string()))?;
    key.ok_or_else(|| refused("no file".to_owned()))
}

fn read_blind_keys(
    files: &[(String, PathBuf)],
) -> Result<HashMap<String, BlindKey>, FrontEndError> {
    let mut keys = HashMap::new();
    for (id, path) in files {
        if keys.insert(id.clone(), BlindKey::read(path)?).is_some() {
            return Err(FrontEndError::Database {
                id: id.clone(),
                what: "there are two blinding keys for it",
                todo: "give one",
            });
        }
    }
    Ok(keys)
}

/// A client that shows this front-end's certificate; none where it has none.
fn client_of_evaluators(options: &Options) -> Result<Option<Client>, FrontEndError> {
    let Some((cert, key)) = &options.pool.identity_pem else { return Ok(None) };
    let ca = match &options.evaluate_ca {
        Some(path) => read("authority", path, limits::IDENTITY_FILE_BYTES_MAX)?,
        None => options.pool.ca_pem.clone(),
    };
    let client = Client::new(Some(&ca), Some((cert, key)), limits::EVALUATION_TIME);
    client.map(Some).map_err(FrontEndError::Client)
}
