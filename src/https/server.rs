//! The server: listens, makes TLS connections and has a router answer their requests.
//!
//! Each connection has a task. Its parts tell the connection's `State` what it waits for
//! (`tracked`), and once in a while those that have waited for their peer for too long are ended,
//! so that no request has a timer of its own. Which connection goes when there is one too many is
//! decided in `table`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::serve::Listener;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};
use tokio_rustls::TlsAcceptor;
use webpki::EndEntityCert;

use super::bounds::Bounds;
use super::counters::{Counters, count};
use super::errors::HttpsError;
use super::pem;
use super::phase::{Phase, State};
use super::table::{Entered, Place, Table};
use super::tracked::{Received, Sent, Tracked};
use crate::limits;
use crate::server::{Identity, KnownCallers};
use crate::shard::files::read_regular;

/// Who the server is, and whom it asks for certificates.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain, beginning with the server's, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authorities of clients, PEM. A client need not have a certificate, but one that it shows
    /// has to be theirs. Without a file nobody is asked for one.
    pub client_ca: Option<PathBuf>,
}

/// Who sent a request: an extension of every request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// The DNS names of its verified certificate, in lower case; none where it showed none.
    pub names: Vec<String>,
}

/// A server that listens. It answers once [`Server::run`] runs.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// Changes certificates while the server serves.
#[derive(Clone)]
pub struct Reloader(Arc<Shared>);

struct Shared {
    files: TlsFiles,
    bounds: Bounds,
    settings: RwLock<Settings>,
    counters: Arc<Counters>,
}

/// What connections begin with.
#[derive(Clone)]
struct Settings {
    tls: Arc<rustls::ServerConfig>,
    /// Rises with every change.
    number: u64,
}

impl Server {
    /// Reads the certificates and listens. Port 0 selects a free one. To be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// A file cannot be used, or the address is taken. A certificate that has expired, or is not
    /// valid yet, is logged and served all the same.
    pub async fn bind(
        address: SocketAddr,
        files: &TlsFiles,
        bounds: Bounds,
    ) -> Result<Self, HttpsError> {
        let (tls, expires) = read_tls(files, Time::MayBeWrong)?;
        let refused = |source| HttpsError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let settings = RwLock::new(Settings { tls, number: 0 });
        let counters = Arc::<Counters>::default();
        counters.set_certificate_expires(expires);
        let shared = Arc::new(Shared { files: files.clone(), bounds, settings, counters });
        Ok(Self { listener, address, shared })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What it counts; stays readable after the server has left.
    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// Changes certificates while it serves.
    pub fn reloader(&self) -> Reloader {
        Reloader(self.shared.clone())
    }

    /// Serves until `shutdown` is ready. Then idle connections end at once, and requests that were
    /// begun have [`limits::DRAIN_TIMEOUT`] to end.
    pub async fn run(self, router: Router, shutdown: impl Future<Output = ()> + Send + 'static) {
        let Self { mut listener, shared, .. } = self;
        let table = Table::new(shared.bounds);
        let (leave, leaving) = watch::channel(false);
        // Ends its tasks when it is dropped.
        let mut tasks = JoinSet::new();
        let mut sweep = interval(sweep_time(&shared.bounds));
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                // axum's own waits where the system has no more files.
                (stream, _) = Listener::accept(&mut listener) => {
                    count(&shared.counters.accepted);
                    let displaced = table.begin(|place| {
                        let (shared, router) = (shared.clone(), router.clone());
                        tasks.spawn(shared.serve(stream, router, leaving.clone(), place))
                    });
                    if displaced {
                        count(&shared.counters.handshakes_displaced);
                    }
                }
                Some(_) = tasks.join_next() => {}
                _ = sweep.tick() => shared.sweep(&table),
            }
        }
        drop(listener);
        leave.send_replace(true);
        let drained = timeout(limits::DRAIN_TIMEOUT, async {
            loop {
                tokio::select! {
                    ended = tasks.join_next() => if ended.is_none() { break },
                    _ = sweep.tick() => shared.sweep(&table),
                }
            }
        });
        if drained.await.is_err() {
            tracing::warn!("gave up on requests that did not end in time");
        }
    }
}

impl Reloader {
    /// Reads the certificate files again. Connections made before get no further request, so that
    /// a client whose authority was removed is not served any more.
    ///
    /// # Errors
    /// A file cannot be used, or the certificate is not valid at this time; everything stays as it
    /// was.
    pub fn reload(&self) -> Result<(), HttpsError> {
        let (tls, expires) = read_tls(&self.0.files, Time::HasToBeRight)?;
        let mut settings = self.0.settings.write().unwrap_or_else(PoisonError::into_inner);
        *settings = Settings { tls, number: settings.number + 1 };
        self.0.counters.set_certificate_expires(expires);
        Ok(())
    }
}

impl Shared {
    fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a connection with these settings, begun then, gets no further request.
    fn is_outdated(&self, settings: u64, begun: Instant) -> bool {
        settings != self.settings().number || begun.elapsed() >= limits::HTTPS_CONNECTION_TIME_MAX
    }

    fn sweep(&self, table: &Table) {
        let ended =
            table.sweep(Instant::now(), |settings, begun| self.is_outdated(settings, begun));
        for phase in ended {
            match phase {
                Phase::Idle => count(&self.counters.idle_ended),
                Phase::Head => count(&self.counters.heads_late),
                Phase::Body => count(&self.counters.bodies_late),
                Phase::Working | Phase::Sending | Phase::Flushing => {
                    count(&self.counters.replies_late);
                }
            }
        }
    }

    async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        router: Router,
        mut leaving: watch::Receiver<bool>,
        place: Place,
    ) {
        let Settings { tls, number } = self.settings();
        // Only slower where this fails.
        let _ = stream.set_nodelay(true);
        let limit = |tls: &mut rustls::ServerConnection| {
            tls.set_buffer_limit(Some(limits::HTTPS_TLS_BYTES_MAX));
        };
        let handshake = TlsAcceptor::from(tls).accept_with(stream, limit);
        let stream = tokio::select! {
            made = timeout(self.bounds.handshake_time, handshake) => match made {
                Ok(Ok(stream)) => stream,
                // The peer's doing.
                _ => return count(&self.counters.handshakes_failed),
            },
            _ = leaving.wait_for(|&leaving| leaving) => return,
        };
        let begun = Instant::now();
        let state = Arc::new(State::new(begun));
        match place.open(&state, number, begun) {
            Entered::Free => {}
            Entered::Displaced => count(&self.counters.connections_displaced),
            Entered::Refused => return count(&self.counters.connections_refused),
        }
        let _open = OpenCount::new(&self.counters.open);
        let peer = PeerInfo { names: names(stream.get_ref().1.peer_certificates()) };
        let connection = Arc::new(Connection {
            shared: self.clone(),
            router: TowerToHyperService::new(router),
            state: state.clone(),
            peer,
            settings: number,
            begun,
        });
        let service = service_fn(move |request| connection.clone().answer(request));
        let io = TokioIo::new(Tracked { stream, state });
        let mut http = http1::Builder::new();
        // The sweep ends slow ones.
        http.header_read_timeout(None).max_buf_size(limits::HTTPS_HEAD_BYTES_MAX);
        let mut served = pin!(http.serve_connection(io, service));
        tokio::select! {
            // What went wrong is the peer's doing.
            _ = served.as_mut() => return,
            _ = leaving.wait_for(|&leaving| leaving) => {}
        }
        served.as_mut().graceful_shutdown();
        let _ = served.await;
    }
}

/// What the requests of a connection share.
struct Connection {
    shared: Arc<Shared>,
    router: TowerToHyperService<Router>,
    state: Arc<State>,
    peer: PeerInfo,
    settings: u64,
    begun: Instant,
}

impl Connection {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Sent>, Infallible> {
        count(&self.shared.counters.requests);
        self.state.asked(Instant::now());
        if request.body().is_end_stream() {
            self.state.received(Instant::now());
        }
        let mut request = request.map(|body| Received { body, state: self.state.clone() });
        request.extensions_mut().insert(self.peer.clone());
        let mut response = self.router.call(request).await?;
        if self.shared.is_outdated(self.settings, self.begun) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.state.answering(Instant::now());
        Ok(response.map(|body| Sent { body, state: self.state.clone() }))
    }
}

/// One of the open connections, in their counter.
struct OpenCount<'a>(&'a AtomicU64);

impl<'a> OpenCount<'a> {
    fn new(open: &'a AtomicU64) -> Self {
        count(open);
        Self(open)
    }
}

impl Drop for OpenCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often connections are looked at: a fourth of the shortest time that one may wait.
fn sweep_time(bounds: &Bounds) -> Duration {
    let shortest = bounds.head_time.min(bounds.idle_time).min(bounds.body_time);
    (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
}

/// The DNS names of a certificate that TLS has verified.
fn names(chain: Option<&[CertificateDer<'_>]>) -> Vec<String> {
    let parsed = chain.and_then(|chain| EndEntityCert::try_from(chain.first()?).ok());
    parsed.map_or_else(Vec::new, |certificate| {
        certificate.valid_dns_names().map(str::to_ascii_lowercase).collect()
    })
}

/// Whether a certificate that is not valid at this time is an error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Time {
    MayBeWrong,
    HasToBeRight,
}

/// What the files say, and when the certificate expires, in Unix seconds.
fn read_tls(
    files: &TlsFiles,
    time: Time,
) -> Result<(Arc<rustls::ServerConfig>, Option<i64>), HttpsError> {
    let in_file = |error| HttpsError::Files(Box::new(error));
    let identity = Identity::from_pem_files(&files.cert, &files.key).map_err(in_file)?;
    match identity.check(SystemTime::now()) {
        Ok(()) => {}
        Err(error) if time == Time::MayBeWrong && error.is_about_time() => {
            tracing::error!("{}: {error}", files.cert.display());
        }
        Err(error) => return Err(in_file(error)),
    }
    let read = |path: &PathBuf| {
        read_regular(path, limits::IDENTITY_FILE_BYTES_MAX)
            .map_err(|error| HttpsError::Files(Box::new(error)))
    };
    let chain = pem::certificates("certificate", &read(&files.cert)?)?;
    let key = pem::private_key(&zeroize::Zeroizing::new(read(&files.key)?))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match &files.client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(path) => {
            // Names what is wrong with them.
            KnownCallers::from_files(path, None).map_err(in_file)?;
            let roots = Arc::new(pem::authorities(&read(path)?)?);
            WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|error| HttpsError::Files(Box::new(error)))?
        }
    };
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(HttpsError::Unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(HttpsError::Unusable)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Nobody resumes a session: a client's certificate is verified in every handshake, and a
    // ticket would show that two connections are of the same device.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    Ok((Arc::new(tls), identity.expires()))
}
