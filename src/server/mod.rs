//! The answer server: QUIC listener, connections, sessions, shutdown.
//!
//! One task a connection, one a request stream; they move bytes and never compute. The way of a
//! query: `connection` reads a frame within its bounds, `query` decodes it once, decides whether
//! it may be computed and admits it to the schedule, [`crate::worker`] computes it, and `query`
//! sends each answer as soon as it exists. What is refused is refused by a typed reply
//! (docs/wire.md, "Status codes") or by a stream error, and counted ([`Counters`]). Who may call is
//! `callers`' to say. What one of them may ask in a second is `quota`'s. Which database is served,
//! and which beside it, is `epochs`'; new ones come by `reload`, and `scrub` looks after them. What
//! it is like now (`status`) is shown to the operator by `admin`, over HTTP.

mod admin;
mod bundles;
mod callers;
mod certificate_check;
pub mod certificates;
mod connection;
mod epochs;
mod file_work;
mod memory;
mod places;
mod query;
mod quota;
mod reload;
mod reset;
mod room;
mod scrub;
mod socket;
mod status;
mod tls;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use quinn::{Endpoint, Incoming, TokioRuntime, VarInt};
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, timeout};

pub use crate::metrics::{ByCode, ByStatus, Counters};
pub use crate::worker::{Counter, WorkCounters};
pub use admin::{Admin, AdminCallers, AdminError, AdminState, Reading, Reload, Stage};
pub use callers::{AllowList, Callers, KnownCallers, ListedFrontEnd, NotAllowed};
pub use certificate_check::{CertificateProblem, Validity};
pub use file_work::{FileWork, NotDone};
pub use memory::kib_of;
pub use memory::{MemoryBudget, machine_bytes};
pub use reload::{EpochState, ReloadError, Reloaded, Reloader};
pub use socket::{SocketRoom, udp_socket};
pub use tls::{Identity, IdentityError};

use self::bundles::{Bundles, MadeRoom};
use self::callers::Connected;
use self::epochs::Epochs;
use self::memory::Windows;
use self::places::{Connections, Handshakes};
use self::room::Room;
use self::scrub::{Scrubbed, Scrubber};
use crate::engine::Engine;
use crate::limits;
use crate::params::Shape;
use crate::schedule::{ConnectionId, ScheduleBounds};
use crate::scheme::KeyBundle;
use crate::shard::guard::quarantined_total;
use crate::shard::{Database, OpenError};
use crate::wire::{StreamCode, Uid};
use crate::worker::{Queue, Workers};

/// The bounds one server runs under. The defaults are [`limits`]; tests make them small.
#[derive(Debug, Clone)]
pub struct ServerBounds {
    /// Most connections at once.
    pub connections_max: usize,
    /// Most handshakes at once.
    pub handshakes_max: usize,
    /// Most connections of one known front-end at once, or of one network where none is known.
    pub connections_per_front_end_max: usize,
    /// Most request streams at once, all connections together.
    pub streams_max: usize,
    /// How much of the windows that a shape asks for a connection has: 0 the least, 1 all.
    pub windows_part: f64,
    /// Bytes of requests being read, all connections together.
    pub read_bytes_max: usize,
    /// Bytes of key bundles kept, as received.
    pub bundle_cache_bytes: usize,
    /// What waits for an engine.
    pub schedule: ScheduleBounds,
    /// Bytes of answers, from when their queries are taken in until they are sent, and of other
    /// replies that wait to be sent.
    pub answer_bytes_max: usize,
    /// How long a request may take to arrive.
    pub stream_read_timeout: Duration,
    /// How long a peer may leave one reply unread.
    pub stream_write_timeout: Duration,
    /// How long a peer may hold up the replies of one stream, all waits together.
    pub stream_send_time_max: Duration,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How often the certificates of open connections are checked again.
    pub certificate_check_time: Duration,
    /// How long a connection may be silent.
    pub idle_timeout: Duration,
    /// How long shutdown waits for what is in flight.
    pub drain_timeout: Duration,
    /// How often each engine runs its known-answer test; never when absent, and whether it is right
    /// is then not known.
    pub prove_every: Option<Duration>,
    /// How long queries of an epoch are answered after the next one came.
    pub old_epoch_time: Duration,
    /// How fast shards are read again and compared with their digests; 0 is not at all.
    pub scrub_mib_per_second: u32,
    /// How long a file system may hang before what is read from it is given up.
    pub file_patience: Duration,
}

impl Default for ServerBounds {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            handshakes_max: limits::HANDSHAKES_MAX,
            connections_per_front_end_max: limits::CONNECTIONS_PER_FRONT_END_MAX,
            streams_max: limits::STREAMS_MAX,
            windows_part: 1.0,
            read_bytes_max: limits::READ_BYTES_MAX,
            bundle_cache_bytes: limits::BUNDLE_CACHE_BYTES,
            schedule: ScheduleBounds::default(),
            answer_bytes_max: limits::ANSWER_BYTES_MAX,
            stream_read_timeout: limits::STREAM_READ_TIMEOUT,
            stream_write_timeout: limits::STREAM_WRITE_TIMEOUT,
            stream_send_time_max: limits::STREAM_SEND_TIME_MAX,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            certificate_check_time: limits::CERTIFICATE_CHECK_TIME,
            idle_timeout: limits::IDLE_TIMEOUT,
            drain_timeout: limits::DRAIN_TIMEOUT,
            prove_every: None,
            old_epoch_time: limits::OLD_EPOCH_TIME,
            scrub_mib_per_second: limits::SCRUB_MIB_PER_SECOND,
            file_patience: limits::FILE_PATIENCE,
        }
    }
}

/// What a server is started with.
pub struct ServerOptions {
    /// Where to listen; port 0 picks one.
    pub listen: SocketAddr,
    /// Certificate chain and key.
    pub identity: Identity,
    /// Who may call.
    pub callers: Callers,
    /// One worker thread each.
    pub engines: Vec<Box<dyn Engine>>,
    /// Bounds.
    pub bounds: ServerBounds,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Certificate or key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// An address that others reach, and nobody said who may call.
    #[error(
        "{address} is not a loopback address, and callers are not known: give the authority of \
         their certificates (--client-ca), or let anyone ask (--anyone-may-ask)"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (UDP): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database must not be served.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// No thread could be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Seconds since 1970 by this machine's clock: what a database's dates are compared with.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A server that listens. It answers once [`Server::run`] runs.
pub struct Server {
    endpoint: Endpoint,
    /// As it was at first.
    config: quinn::ServerConfig,
    address: SocketAddr,
    workers: Workers,
    scrubber: Scrubber,
    service: Arc<Service>,
}

impl Server {
    /// Listens and starts the engines' threads. To be called within a tokio runtime.
    ///
    /// # Errors
    /// Among others, the database has expired or is dated in the future: clients would refuse it.
    pub fn bind(options: ServerOptions, database: Arc<Database>) -> Result<Self, ServerError> {
        let ServerOptions { listen, identity, callers, engines, bounds } = options;
        let refused = |source| ServerError::Listen { address: listen, source };
        if matches!(callers, Callers::Loopback) && !listen.ip().is_loopback() {
            return Err(ServerError::NotLoopback { address: listen });
        }
        database.manifest().check_time(database.directory(), unix_now())?;
        let expires = identity.validity().map(|validity| validity.not_after);
        let (socket, room) = udp_socket(listen).map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        if room.receive.min(room.send) < limits::SOCKET_BYTES {
            tracing::info!(
                "the system keeps {} KiB of the UDP socket, {} are asked for: see `sotto doctor`",
                room.receive.min(room.send) >> 10,
                limits::SOCKET_BYTES >> 10
            );
        }
        let own = reset::endpoint(identity.secret(), address);
        let windows = Windows::new(database.shape(), bounds.windows_part);
        let config = identity.quic(&callers, &bounds, windows)?;
        let with = Some(config.clone());
        let endpoint = Endpoint::new(own, with, socket, Arc::new(TokioRuntime));
        let endpoint = endpoint.map_err(refused)?;
        let epochs = Arc::new(Epochs::new(database, bounds.old_epoch_time));
        let (shards, every) = (epochs.clone(), bounds.prove_every);
        let workers =
            Workers::start(engines, shards, bounds.schedule, every).map_err(ServerError::Thread)?;
        let service = Arc::new(Service::new(epochs, workers.queue(), callers, bounds));
        service.certificate_expires(expires);
        let scrubber = Scrubber::start(&service).map_err(ServerError::Thread)?;
        Ok(Self { endpoint, config, address, workers, scrubber, service })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What it counts; stays readable after the server has left.
    pub fn counters(&self) -> Arc<Counters> {
        self.service.counters.clone()
    }

    /// The way to change certificates and callers while it serves.
    pub fn identity_reloader(&self) -> IdentityReloader {
        let (endpoint, config) = (self.endpoint.clone(), self.config.clone());
        IdentityReloader { endpoint, config, service: self.service.clone() }
    }

    /// The way to change the database while it serves.
    pub fn reloader(&self) -> Reloader {
        Reloader(self.service.clone())
    }

    /// What its workers count: who answered, and how devices fare.
    pub fn work_counters(&self) -> Arc<WorkCounters> {
        self.workers.counters()
    }

    /// Serves until `shutdown` is ready; then finishes what is in flight, within the drain
    /// time-out, and leaves.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let giving_back = tokio::spawn(give_back_memory(self.service.clone()));
        loop {
            let incoming = tokio::select! {
                () = &mut shutdown => break,
                incoming = self.endpoint.accept() => incoming,
            };
            match incoming {
                Some(incoming) => self.accept(incoming),
                None => break,
            }
        }
        giving_back.abort();
        self.drain().await;
    }

    /// A peer first shows that its address is its own, with a token that it gets there. Until then
    /// it costs no memory, and is sent less than it sent: RFC 9000, section 8.1, allows three times
    /// as much, which the first packets of a handshake and their repetitions exceed. Handshakes
    /// have places of their own, so that those who never end one take none from those who may call.
    fn accept(&self, incoming: Incoming) {
        let Service { connections, handshakes, bounds, counters, .. } = &*self.service;
        if incoming.may_retry() {
            counters.addresses_asked.add(1);
            // Fails only where no retry may be sent, which was just asked.
            let _ = incoming.retry();
            return;
        }
        if !connections.may_enter(Instant::now()) {
            return self.refuse(incoming);
        }
        let remembered = bounds.connections_max + bounds.handshakes_max + limits::CLOSING_MAX;
        if self.endpoint.open_connections() >= remembered {
            // It comes again by itself, when QUIC has forgotten some of those that were given up.
            counters.handshakes_ignored.add(1);
            return incoming.ignore();
        }
        let place = handshakes.enter(incoming.remote_address().ip());
        tokio::spawn(connection::serve(self.service.clone(), incoming, place));
    }

    fn refuse(&self, incoming: Incoming) {
        self.service.counters.connections_refused.add(1);
        incoming.refuse();
    }

    /// New connections are refused, new requests answered DRAINING, until no stream is open.
    async fn drain(self) {
        self.service.draining.store(true, Ordering::Release);
        let mut streams = self.service.streams.subscribe();
        tracing::info!(streams = *streams.borrow(), "leaving: finishing what is in flight");
        let idle = timeout(self.service.bounds.drain_timeout, streams.wait_for(|&open| open == 0));
        tokio::pin!(idle);
        loop {
            tokio::select! {
                ended = &mut idle => {
                    if ended.is_err() {
                        tracing::warn!("gave up on streams that did not end in time");
                    }
                    break;
                }
                Some(incoming) = self.endpoint.accept() => self.refuse(incoming),
            }
        }
        self.endpoint.close(VarInt::from_u32(StreamCode::None.code()), b"draining");
        // Only so that peers get to know of it; those that are gone are not waited for.
        let _ = timeout(limits::CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
        let threads = (self.workers, self.scrubber);
        let ended = tokio::task::spawn_blocking(move || drop(threads));
        if timeout(limits::ENGINES_LEAVE_TIMEOUT, ended).await.is_err() {
            tracing::warn!("an engine does not end: it is left behind");
        }
    }
}

/// Has the allocator give back what a crowd has left.
async fn give_back_memory(service: Arc<Service>) {
    let mut pace = interval(limits::GIVE_BACK_TIME);
    let mut ended_before = 0;
    loop {
        pace.tick().await;
        let rooms = [&service.reading, &service.answers];
        let peak: usize = rooms.iter().map(|room| room.peak()).sum();
        let taken: usize = rooms.iter().map(|room| room.taken()).sum();
        let Service { counters, connections, .. } = &*service;
        let begun = [&counters.connections, &counters.handshakes_failed];
        let begun: u64 = begun.map(|counter| counter.get()).iter().sum();
        let ended = (begun + counters.handshakes_displaced.get())
            .saturating_sub(connections.count() as u64);
        let windows = ended.saturating_sub(ended_before) * limits::CONNECTION_STATE_BYTES;
        if peak.saturating_sub(taken) as u64 + windows >= limits::GIVE_BACK_BYTES as u64 {
            ended_before = ended;
            // It looks at all free memory, some milliseconds a gigabyte.
            let _ = tokio::task::spawn_blocking(memory::give_back).await;
        }
    }
}

/// Changes who the server is and who may call, for connections to come.
pub struct IdentityReloader {
    endpoint: Endpoint,
    /// As it was at first: with its key, tokens that peers have just been given stay good.
    config: quinn::ServerConfig,
    service: Arc<Service>,
}

impl IdentityReloader {
    /// New connections meet this identity and these callers; those there are stay as they are.
    ///
    /// # Errors
    /// What is given cannot be used; everything stays as it was.
    pub fn change(&self, identity: Identity, callers: Callers) -> Result<(), ServerError> {
        let expires = identity.validity().map(|validity| validity.not_after);
        let windows = Windows::new(&self.service.shape, self.service.bounds.windows_part);
        let mut config = self.config.clone();
        config.crypto = identity.quic(&callers, &self.service.bounds, windows)?.crypto;
        *self.service.callers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(callers);
        self.endpoint.set_server_config(Some(config));
        self.service.certificate_expires(expires);
        Ok(())
    }
}

/// What all connections share.
struct Service {
    epochs: Arc<Epochs>,
    /// Of every epoch.
    shape: Shape,
    /// Held by whoever reloads.
    reloading: tokio::sync::Mutex<()>,
    /// Reads files that may hang.
    files: FileWork,
    /// Free places for reading hints, which may hang too.
    hint_reads: Arc<Semaphore>,
    /// The last one was not read in time.
    hints_hang: AtomicBool,
    /// Why the last reload changed nothing.
    refused_reload: Mutex<Option<String>>,
    /// Memory that the process may have.
    machine_bytes: Option<u64>,
    /// Of the manifest that was read last.
    expected_epoch: AtomicU64,
    scrubbed: Scrubbed,
    /// Quarantined shards, when they were last reported.
    quarantined_reported: AtomicU64,
    queue: Queue,
    bundles: Mutex<Bundles>,
    counters: Arc<Counters>,
    bounds: ServerBounds,
    draining: AtomicBool,
    callers: RwLock<Arc<Callers>>,
    connected: Arc<Connected>,
    /// Places for connections.
    connections: Arc<Connections>,
    /// Places for handshakes.
    handshakes: Arc<Handshakes>,
    /// Room for streams, one each.
    open: Arc<Room>,
    /// Room for requests being read.
    reading: Arc<Room>,
    /// Room for answers, and for other replies that wait to be sent.
    answers: Arc<Room>,
    /// Streams open now.
    streams: watch::Sender<usize>,
    numbers: AtomicU64,
    /// When the served certificate expires, in seconds since 1970.
    certificate_expires: Mutex<Option<i64>>,
    started: (Instant, SystemTime),
}

impl Service {
    fn new(epochs: Arc<Epochs>, queue: Queue, callers: Callers, bounds: ServerBounds) -> Self {
        let (shape, epoch) = (*epochs.database().shape(), epochs.epoch());
        let bundles = bounds.bundle_cache_bytes / shape.bundle_bytes();
        let bundles = NonZeroUsize::new(bundles).unwrap_or(NonZeroUsize::MIN);
        // Whatever others hold, everyone can ask a small frame, and for the hint of a shard.
        let room = |all, wanted| Room::new(all, bounds.connections_max, wanted);
        let small_frame = limits::FRAME_QUERIES_WANTED;
        let query_bytes = shape.query_bytes() + limits::FRAME_OVERHEAD_BYTES;
        let answer_bytes = shape.packs() * shape.response_bytes() + limits::QUERY_STATE_BYTES;
        let hint_bytes = shape.packs() * shape.hint_bytes();
        Self {
            epochs,
            shape,
            reloading: tokio::sync::Mutex::default(),
            files: FileWork::new(bounds.file_patience),
            hint_reads: Arc::new(Semaphore::new(limits::HINT_READS_MAX)),
            hints_hang: AtomicBool::new(false),
            refused_reload: Mutex::default(),
            machine_bytes: machine_bytes(),
            expected_epoch: AtomicU64::new(epoch),
            scrubbed: Scrubbed::new(),
            quarantined_reported: AtomicU64::new(0),
            queue,
            bundles: Mutex::new(Bundles::new(bundles)),
            counters: Arc::default(),
            draining: AtomicBool::new(false),
            callers: RwLock::new(Arc::new(callers)),
            connected: Arc::default(),
            connections: Connections::new(
                bounds.connections_max,
                bounds.connections_per_front_end_max,
            ),
            handshakes: Handshakes::new(bounds.handshakes_max),
            open: room(bounds.streams_max, limits::FRAMES_IN_FLIGHT_WANTED as usize),
            reading: room(bounds.read_bytes_max, small_frame * query_bytes),
            answers: room(bounds.answer_bytes_max, hint_bytes.max(small_frame * answer_bytes)),
            streams: watch::Sender::new(0),
            numbers: AtomicU64::new(0),
            certificate_expires: Mutex::default(),
            started: (Instant::now(), SystemTime::now()),
            bounds,
        }
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn callers(&self) -> Arc<Callers> {
        self.callers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A number for a connection or a front-end, once.
    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// What a pass over a shard reads.
    fn scan_bytes(&self) -> usize {
        let shape = &self.shape;
        shape.matrix_bytes() + shape.packs() * shape.table_bytes()
    }

    fn certificate_expires(&self, at: Option<i64>) {
        *self.certificate_expires.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Says which shards were taken out since it was last asked. Not where it happens: a query may
    /// have found it, and nothing of queries is logged.
    fn report_quarantined(&self) {
        let total = quarantined_total();
        if self.quarantined_reported.swap(total, Ordering::Relaxed) == total {
            return;
        }
        for file in self.epochs.newly_quarantined() {
            self.counters.scrub_problems.add(1);
            tracing::error!(
                "shard file {file} is damaged, or was truncated while it was served: its queries \
                 are refused. Put the right file in its place and reload"
            );
        }
    }

    /// Lets go of epochs whose time is up.
    fn forget_epochs(&self, now: Instant) {
        if self.epochs.forget(now) {
            self.queue.forget_gone();
        }
    }

    fn bundles(&self) -> MutexGuard<'_, Bundles> {
        self.bundles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_bundle(&self, peer: ConnectionId, uid: Uid, bundle: KeyBundle) {
        self.counters.bundles.add(1);
        if self.bundles().keep(peer, uid, bundle) == MadeRoom::Yes {
            self.counters.bundles_evicted.add(1);
        }
    }
}
