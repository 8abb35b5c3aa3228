//! The answer server: it listens on QUIC, serves connections, and shuts down.
//!
//! Each connection and each request stream has a task, which moves bytes and computes nothing.
//! `stream` reads a frame within its bounds. `query` decodes it, refuses a query or submits it to
//! the schedule, and sends each answer as soon as [`crate::worker`] has computed it. `callers`
//! decides who may call, and `quota` how much a caller may have in a second. `epochs` holds the
//! databases that are served; `reload` brings new ones, and `scrub` reads them again. `admin` shows
//! the state (`status`) to the operator over HTTP.

mod admin;
mod bounds;
mod bundles;
mod callers;
mod certificate_check;
pub mod certificates;
mod connection;
mod epochs;
mod file_work;
mod machine;
mod places;
mod query;
mod quota;
mod reload;
mod reset;
mod room;
mod scrub;
mod service;
mod socket;
mod status;
mod stream;
mod tls;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use quinn::{Endpoint, Incoming, TokioRuntime, VarInt};
use tokio::time::{interval, timeout};

pub use crate::metrics::{ByCode, ByStatus, Counters};
pub use crate::worker::{Counter, WorkCounters};
pub use admin::{Admin, AdminCallers, AdminError, AdminState, Reading, Reload, Stage};
pub use bounds::{MemoryBudget, ServerBounds};
pub use callers::{AllowList, Callers, KnownCallers, ListedFrontEnd, NotAllowed};
pub use certificate_check::CertificateProblem;
pub use file_work::{FileWork, NotDone};
pub use machine::{kib_of, machine_bytes};
pub use reload::{EpochState, ReloadError, Reloaded, Reloader};
pub use socket::{SocketRoom, udp_socket};
pub use tls::{Identity, IdentityError};

use self::bounds::Windows;
use self::epochs::Epochs;
use self::places::Holder;
use self::scrub::Scrubber;
use self::service::{Service, unix_now};
use crate::engine::Engine;
use crate::limits;
use crate::scheme::SecretError;
use crate::shard::{Database, OpenError};
use crate::wire::StreamCode;
use crate::worker::Workers;

/// What a server is started with.
#[allow(missing_docs)] // Names and types say it.
pub struct ServerOptions {
    /// Port 0 picks one.
    pub listen: SocketAddr,
    pub identity: Identity,
    pub callers: Callers,
    /// One worker thread each.
    pub engines: Vec<Box<dyn Engine>>,
    pub bounds: ServerBounds,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum ServerError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(
        "{address} is not a loopback address, and callers are not known: give the authority of \
         their certificates (--client-ca), or let anyone ask (--anyone-may-ask)"
    )]
    NotLoopback { address: SocketAddr },
    #[error("cannot listen on {address} (UDP): {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Database(#[from] OpenError),
    #[error(transparent)]
    Random(#[from] SecretError),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// A server that listens. It answers once [`Server::run`] runs.
pub struct Server {
    endpoint: Endpoint,
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
        let expires = identity.expires();
        let (socket, room) = udp_socket(listen).map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        if room.receive.min(room.send) < limits::SOCKET_BYTES {
            tracing::info!(
                "the system keeps {} KiB of the UDP socket, {} are asked for: see `sotto doctor`",
                room.receive.min(room.send) >> 10,
                limits::SOCKET_BYTES >> 10
            );
        }
        let own = reset::endpoint(identity.secret(), address)?;
        let windows = Windows::new(database.shape(), bounds.windows_part);
        let config = identity.quic(callers.verifier(), &bounds, windows)?;
        let (with, runtime) = (Some(config.clone()), Arc::new(TokioRuntime));
        let endpoint = Endpoint::new(own, with, socket, runtime).map_err(refused)?;
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

    /// Changes certificates and callers while it serves.
    pub fn identity_reloader(&self) -> IdentityReloader {
        let (endpoint, config) = (self.endpoint.clone(), self.config.clone());
        IdentityReloader { endpoint, config, service: self.service.clone() }
    }

    /// Changes the database while it serves.
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
        let giving_back = tokio::spawn(give_back_memory());
        while let Some(incoming) = tokio::select! {
            () = &mut shutdown => None,
            incoming = self.endpoint.accept() => incoming,
        } {
            self.accept(incoming);
        }
        giving_back.abort();
        self.drain().await;
    }

    /// A peer first shows that its address is its own, with a token that it gets there. Until then
    /// it costs no memory, and is sent less than it sent (RFC 9000, section 8.1). Handshakes have
    /// places of their own, so that those who never end one take none from those who may call.
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
        let place = handshakes.enter(Holder::of(incoming.remote_address().ip()));
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
async fn give_back_memory() {
    let mut pace = interval(limits::GIVE_BACK_TIME);
    loop {
        pace.tick().await;
        // It looks at all free memory, some milliseconds a gigabyte.
        let _ = tokio::task::spawn_blocking(machine::give_back).await;
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
    /// New connections meet this identity and these callers.
    ///
    /// # Errors
    /// What is given cannot be used; everything stays as it was.
    pub fn change(&self, identity: Identity, callers: Callers) -> Result<(), ServerError> {
        let expires = identity.expires();
        let windows = Windows::new(&self.service.shape, self.service.bounds.windows_part);
        let mut config = self.config.clone();
        config.crypto = identity.quic(callers.verifier(), &self.service.bounds, windows)?.crypto;
        *self.service.callers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(callers);
        self.endpoint.set_server_config(Some(config));
        self.service.certificate_expires(expires);
        Ok(())
    }
}
