//! Connections to replicas: which key bundles went over one, whether its server is there, and how
//! the next one is made (docs/wire.md, "Hedging and lost servers").
//!
//! A server that dies says nothing, so a link over which nothing came for [`limits::SILENCE_MAX`]
//! (and two round trips) is closed. Every stream on it then ends at once, and the identical bytes
//! go to the next replica. Silence is counted in looks at what came, so a client that did not run
//! for a while does not take its own pause for the server's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, TransportConfig, VarInt};
use tokio::sync::OnceCell;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::error::ClientError;
use super::exchange::{ask, parameter_reply, parameter_request};
use super::options::{Options, Replica};
use super::retry::FailedAttempt;
use crate::limits;
use crate::params::Shape;
use crate::wire::{ALPN, Bytes, StreamCode};

/// How often within a keep-alive interval a link looks at what came.
const LOOKS: u32 = 4;

/// A bundle's name and its bytes.
pub(super) type Bundle = (String, Arc<[u8]>);

/// A connection to one replica.
pub(super) struct Link {
    pub(super) connection: Connection,
    /// Which replica of the client's list.
    pub(super) replica: usize,
    /// The bundles that the server has, and those on their way to it.
    bundles: Mutex<HashMap<String, Arc<OnceCell<()>>>>,
    watch: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.watch.abort(); // it has a handle of the connection, which would stay open
    }
}

impl Link {
    pub(super) fn new(connection: Connection, replica: usize) -> Self {
        let watch = tokio::spawn(watch(connection.clone())).abort_handle();
        Self { connection, replica, bundles: Mutex::default(), watch }
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Whether it was closed because nothing came.
    pub(super) fn fell_silent(&self) -> bool {
        self.connection.close_reason() == Some(ConnectionError::LocallyClosed)
    }

    /// Every stream on it ends.
    pub(super) fn close(&self) {
        self.connection.close(VarInt::from_u32(StreamCode::None.code()), b"");
    }

    /// Whether the server has said that it keeps this bundle.
    pub(super) fn has(&self, uid: &str) -> bool {
        lock(&self.bundles).get(uid).is_some_and(|known| known.initialized())
    }

    /// The server has said that it keeps this bundle.
    pub(super) fn keeps(&self, uid: &str) {
        let _ = self.entry(uid).set(()); // set already where a hedge brought it meanwhile
    }

    /// The server has said that it does not have this bundle.
    pub(super) fn forget(&self, uid: &str) {
        lock(&self.bundles).remove(uid);
    }

    fn entry(&self, uid: &str) -> Arc<OnceCell<()>> {
        let mut bundles = lock(&self.bundles);
        // Bundles of calls that are over are never asked for again.
        if bundles.len() >= limits::BUNDLES_REMEMBERED_MAX {
            bundles.clear();
        }
        bundles.entry(uid.to_owned()).or_default().clone()
    }

    /// Sends a bundle in its frame, unless the server has it. Its bytes go out once over a link
    /// however many wait for it, unless the server forgets it: then the identical bytes again.
    /// `count` is told the bytes of the request and of the reply.
    pub(super) async fn bring(
        &self,
        uid: &str,
        frame: Bytes,
        shape: Shape,
        wait: Duration,
        count: impl FnOnce(u64, u64),
    ) -> Result<(), FailedAttempt> {
        let entry = self.entry(uid);
        let kept = entry.get_or_try_init(|| async {
            let exchange = ask(&self.connection, frame, Some(shape), 1, wait).await;
            count(exchange.bytes_up, exchange.bytes_down);
            parameter_reply(exchange).map(drop)
        });
        kept.await.copied()
    }

    /// [`Link::bring`] for several at once; the first that fails ends it.
    pub(super) async fn bring_all(
        self: &Arc<Self>,
        bundles: Vec<Bundle>,
        shape: Shape,
        wait: Duration,
        count: impl Fn(u64, u64) + Clone + Send + 'static,
    ) -> Result<(), FailedAttempt> {
        let mut bringing = JoinSet::new();
        for (uid, bytes) in bundles {
            if !self.has(&uid) {
                let (link, count) = (self.clone(), count.clone());
                let frame = parameter_request(Some((&uid, bytes)));
                bringing.spawn(async move { link.bring(&uid, frame, shape, wait, count).await });
            }
        }
        while let Some(brought) = bringing.join_next().await {
            brought.expect("this is a bug: sending a bundle panicked")?;
        }
        Ok(())
    }
}

/// Closes a connection over which nothing comes any more.
async fn watch(connection: Connection) {
    let pause = limits::KEEP_ALIVE_INTERVAL / LOOKS;
    let mut looks = interval(pause);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut heard, mut silent) = (0, Duration::ZERO);
    while connection.close_reason().is_none() {
        looks.tick().await;
        let now = connection.stats().udp_rx.datagrams;
        silent = if now == heard { silent + pause } else { Duration::ZERO };
        heard = now;
        if silent > limits::SILENCE_MAX + 2 * connection.rtt() {
            let code = VarInt::from_u32(StreamCode::Timeout.code());
            connection.close(code, b"nothing was heard");
        }
    }
}

/// The connection to a replica, or the one that is being made.
type Cell = Arc<OnceCell<Arc<Link>>>;

/// Connects to replicas. There is one connection to each, which all calls share.
pub(super) struct Dialer {
    replicas: Vec<Replica>,
    /// By replica.
    links: Vec<Mutex<Cell>>,
    config: quinn::ClientConfig,
    timeout: Duration,
    /// For IPv4 and IPv6, each made when it is first needed.
    endpoints: [OnceCell<Endpoint>; 2],
}

impl Dialer {
    pub(super) fn new(options: &Options) -> Result<Self, ClientError> {
        let tls = QuicClientConfig::try_from(options.tls(ALPN)?)
            .expect("this is a bug: TLS 1.3 without the suite QUIC starts with");
        let mut transport = TransportConfig::default();
        let idle = limits::IDLE_TIMEOUT.try_into();
        transport.max_idle_timeout(Some(idle.expect("this is a bug: idle time-out too long")));
        transport.keep_alive_interval(Some(limits::KEEP_ALIVE_INTERVAL));
        transport.initial_rtt(limits::FIRST_RTT);
        transport.max_concurrent_bidi_streams(0u32.into()).max_concurrent_uni_streams(0u32.into());
        // One frame after the other: the server times each from its first byte to its last.
        transport.send_fairness(false);
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport));
        Ok(Self {
            links: options.replicas.iter().map(|_| Mutex::default()).collect(),
            replicas: options.replicas.clone(),
            config,
            timeout: options.connect_timeout,
            endpoints: Default::default(),
        })
    }

    pub(super) fn replica_count(&self) -> usize {
        self.replicas.len()
    }

    /// Closes all connections, and waits until their peers know, but not long.
    pub(super) async fn close(&self) {
        for cell in &self.links {
            if let Some(link) = std::mem::take(&mut *lock(cell)).get() {
                link.close();
            }
        }
        let idle = async |endpoint: &OnceCell<Endpoint>| {
            if let Some(endpoint) = endpoint.get() {
                let _ = timeout(limits::CLOSE_TIMEOUT, endpoint.wait_idle()).await;
            }
        };
        let [v4, v6] = &self.endpoints;
        tokio::join!(idle(v4), idle(v6));
    }

    /// The connection to a replica, if it is open.
    pub(super) fn open(&self, replica: usize) -> Option<Arc<Link>> {
        lock(&self.links[replica]).get().filter(|link| link.is_open()).cloned()
    }

    /// Whether the connection to a replica was closed because nothing came. It is so once.
    pub(super) fn fell_silent(&self, replica: usize) -> bool {
        let mut cell = lock(&self.links[replica]);
        let is_silent = cell.get().is_some_and(|link| link.fell_silent());
        if is_silent {
            *cell = Cell::default();
        }
        is_silent
    }

    /// Gives a connection up: the next one to its replica is another.
    pub(super) fn give_up(&self, link: &Arc<Link>) {
        let mut cell = lock(&self.links[link.replica]);
        if !cell.get().is_some_and(|held| Arc::ptr_eq(held, link)) {
            return;
        }
        let given_up = std::mem::take(&mut *cell);
        drop(cell);
        // Not while a frame that was hedged is left to its end on it: here it is held twice.
        if Arc::strong_count(link) <= 2 {
            link.close();
        }
        drop(given_up);
    }

    /// The connection to a replica: the open one or a new one.
    pub(super) async fn link_to(self: Arc<Self>, replica: usize) -> Result<Arc<Link>, ClientError> {
        let cell = {
            let mut cell = lock(&self.links[replica]);
            if cell.get().is_some_and(|link| !link.is_open()) {
                *cell = Cell::default();
            }
            cell.clone()
        };
        let dial = async || {
            let addresses = self.replicas[replica].addresses.clone();
            let connect = |address| self.clone().connect(replica, address);
            first_that_works(addresses, connect).await.map(Arc::new)
        };
        cell.get_or_try_init(dial).await.cloned()
    }

    /// A connection to one of these replicas, in this order.
    pub(super) async fn first_of(
        self: Arc<Self>,
        replicas: Vec<usize>,
    ) -> Result<Arc<Link>, ClientError> {
        first_that_works(replicas, |replica| self.clone().link_to(replica)).await
    }

    async fn connect(
        self: Arc<Self>,
        replica: usize,
        address: SocketAddr,
    ) -> Result<Link, ClientError> {
        let refused = |reason| ClientError::Connect { address, reason };
        let (name, config) = (&self.replicas[replica].server_name, self.config.clone());
        let connecting = self.endpoint(address).await?.connect_with(config, address, name);
        let connecting = connecting.map_err(|error| refused(error.to_string()))?;
        match timeout(self.timeout, connecting).await {
            Ok(Ok(connection)) => Ok(Link::new(connection, replica)),
            Ok(Err(error)) => Err(refused(error.to_string())),
            Err(_) => Err(refused(format!("no answer within {:?}", self.timeout))),
        }
    }

    async fn endpoint(&self, to: SocketAddr) -> Result<&Endpoint, ClientError> {
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let version = usize::from(to.is_ipv6());
        let make = async || Endpoint::client((any[version], 0).into()).map_err(ClientError::Socket);
        self.endpoints[version].get_or_try_init(make).await
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tries one after the other: the next as soon as the one before it failed, or has kept us waiting
/// for [`limits::CONNECT_STAGGER`]. The first that works is taken, and the others are given up.
async fn first_that_works<A, T, F>(all: Vec<A>, begin: impl Fn(A) -> F) -> Result<T, ClientError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ClientError>> + Send + 'static,
{
    let (mut all, mut begun) = (all.into_iter(), JoinSet::new());
    let mut failed = ClientError::Option {
        what: "servers",
        found: "no address".into(),
        expected: "at least one",
    };
    loop {
        if let Some(next) = all.next() {
            begun.spawn(begin(next));
        }
        let more = all.len() > 0;
        tokio::select! {
            Some(ended) = begun.join_next() => {
                match ended.expect("this is a bug: connecting panicked") {
                    Ok(works) => return Ok(works),
                    Err(error) => failed = error,
                }
            }
            () = sleep(limits::CONNECT_STAGGER), if more && !begun.is_empty() => {}
            else => {}
        }
        if !more && begun.is_empty() {
            return Err(failed);
        }
    }
}
