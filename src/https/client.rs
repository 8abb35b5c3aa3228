//! The client: one request, one reply of bounded length, within a time. It follows no redirect and
//! tries nothing again that may have arrived and is more than a GET.
//!
//! Connections are kept for the next request to the same server. An idle one that the server has
//! closed meanwhile costs nothing: the request goes over another. A server may close one just when
//! a request comes, as after it has read its certificates again: then only a GET goes over another.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{HOST, HeaderName};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::errors::HttpsError;
use super::pem;
use crate::limits;

/// Sends requests. Clones share their connections.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    tls: Option<Arc<rustls::ClientConfig>>,
    plain: Plain,
    timeout: Duration,
    /// By server; the one that was used last is the last.
    idle: Mutex<HashMap<Origin, Vec<Idle>>>,
}

/// Whether `http://` is spoken too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
    Refused,
    Allowed,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Origin {
    is_tls: bool,
    host: String,
    port: u16,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

/// A whole reply.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Names say it.
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A reply whose body is still to be read, with [`Reply::chunk`].
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    /// The connection, given back at the end of the body.
    sender: Option<SendRequest<Full<Bytes>>>,
    origin: Origin,
    client: Arc<Shared>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Client {
    /// A client that believes servers with a certificate of these authorities (PEM, such as the
    /// system's bundle), and shows a certificate of its own where it has one: a chain and its
    /// private key, both PEM. A request with its reply takes at most `timeout`.
    ///
    /// # Errors
    /// No authority is given, or a text is not what it should be.
    pub fn new(
        ca_pem: Option<&[u8]>,
        identity: Option<(&[u8], &[u8])>,
        timeout: Duration,
    ) -> Result<Self, HttpsError> {
        let tls = tls(ca_pem.ok_or(HttpsError::NoAuthority)?, identity)?;
        Ok(Self::of(Some(tls), Plain::Refused, timeout))
    }

    /// The same for what is verified by other means: it also speaks `http://`, and needs
    /// authorities only for `https://`.
    pub fn with_plain(ca_pem: Option<&[u8]>, timeout: Duration) -> Result<Self, HttpsError> {
        let tls = ca_pem.map(|pem| tls(pem, None)).transpose()?;
        Ok(Self::of(tls, Plain::Allowed, timeout))
    }

    fn of(tls: Option<Arc<rustls::ClientConfig>>, plain: Plain, timeout: Duration) -> Self {
        Self(Arc::new(Shared { tls, plain, timeout, idle: Mutex::default() }))
    }

    /// Sends a request and reads its reply, whatever its status; a redirect is a reply like any
    /// other.
    ///
    /// # Errors
    /// There is no whole reply, or its body has more than `reply_bytes_max` bytes.
    /// [`HttpsError::never_sent`] says whether the request may have arrived.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        reply_bytes_max: usize,
    ) -> Result<Response, HttpsError> {
        let (origin, request) = self.0.request(method, url, headers, body)?;
        let sent = AtomicBool::new(false);
        let whole = async {
            let mut reply = self.0.clone().open(&origin, request, &sent).await?;
            let body = reply.read(reply_bytes_max).await?;
            Ok(Response { status: reply.status, headers: reply.headers, body })
        };
        self.0.within(&origin, &sent, whole).await
    }

    /// The same for a body that is read in parts, each of which may take as long as a whole reply
    /// otherwise does.
    pub async fn open(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, HttpsError> {
        let (origin, request) = self.0.request(method, url, headers, body)?;
        let sent = AtomicBool::new(false);
        let opened = self.0.clone().open(&origin, request, &sent);
        self.0.within(&origin, &sent, opened).await
    }
}

impl Reply {
    /// The next part of the body; none at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpsError> {
        let (client, origin, sent) =
            (self.client.clone(), self.origin.clone(), AtomicBool::new(true));
        client.within(&origin, &sent, self.next()).await
    }

    async fn next(&mut self) -> Result<Option<Bytes>, HttpsError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| {
                let origin = self.origin.to_string();
                HttpsError::Broken { origin, source, sent: true }
            })?;
            // What is no data are trailers.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        if let Some(sender) = self.sender.take() {
            self.client.keep(&self.origin, sender);
        }
        Ok(None)
    }

    async fn read(&mut self, max: usize) -> Result<Bytes, HttpsError> {
        let too_long = |origin: &Origin| {
            let origin = origin.to_string();
            Err(HttpsError::ReplyTooLong { origin, max })
        };
        let announced = self.body.size_hint().lower();
        if announced > max as u64 {
            return too_long(&self.origin);
        }
        let mut whole = Vec::with_capacity(announced as usize);
        while let Some(data) = self.next().await? {
            if whole.len() + data.len() > max {
                return too_long(&self.origin);
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.into())
    }
}

impl Shared {
    /// Ends what takes too long.
    async fn within<T>(
        &self,
        origin: &Origin,
        sent: &AtomicBool,
        work: impl Future<Output = Result<T, HttpsError>>,
    ) -> Result<T, HttpsError> {
        let late = |_| {
            let sent = sent.load(Ordering::Relaxed);
            HttpsError::Late { origin: origin.to_string(), after: self.timeout, sent }
        };
        timeout(self.timeout, work).await.map_err(late)?
    }

    fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(Origin, Request<Full<Bytes>>), HttpsError> {
        let bad = |detail: &str| HttpsError::Url { detail: detail.to_owned() };
        let uri: Uri = url.parse().map_err(|_| bad("it is no URL"))?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => match self.plain {
                Plain::Allowed => false,
                Plain::Refused => return Err(bad("it is http://, which everybody can read")),
            },
            _ => return Err(bad("it does not begin with https://")),
        };
        if is_tls && self.tls.is_none() {
            return Err(HttpsError::NoAuthority);
        }
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it names a user"));
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        // An address of version 6 is in brackets.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| bad("its path cannot be sent"))?;
        let host_value = HeaderValue::from_str(authority.as_str());
        request.headers_mut().insert(HOST, host_value.map_err(|_| bad("its host cannot be sent"))?);
        for (name, value) in headers {
            let bad = |what: &str| HttpsError::Header { detail: format!("{what} of {name:?}") };
            let value = HeaderValue::from_str(value).map_err(|_| bad("the value"))?;
            let name = HeaderName::try_from(*name).map_err(|_| bad("the name"))?;
            request.headers_mut().append(name, value);
        }
        Ok((Origin { is_tls, host, port }, request))
    }

    /// Sends a request over a connection that is kept, or a new one; the reply's head.
    async fn open(
        self: Arc<Self>,
        origin: &Origin,
        mut request: Request<Full<Bytes>>,
        sent: &AtomicBool,
    ) -> Result<Reply, HttpsError> {
        loop {
            let kept = self.take(origin);
            let is_new = kept.is_none();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect(origin).await?,
            };
            let broken = |source, sent| {
                let origin = origin.to_string();
                HttpsError::Broken { origin, source, sent }
            };
            match sender.ready().await {
                Ok(()) => {}
                Err(source) if is_new => return Err(broken(source, false)),
                Err(_) => continue,
            }
            sent.store(true, Ordering::Relaxed);
            let again = (!is_new && request.method() == Method::GET).then(|| request.clone());
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let (status, headers) = (head.status.as_u16(), head.headers);
                    let (sender, origin) = (Some(sender), origin.clone());
                    return Ok(Reply { status, headers, body, sender, origin, client: self });
                }
                Err(mut error) => match (error.take_message(), again) {
                    // Nothing of it was sent.
                    (Some(unsent), _) if !is_new => {
                        sent.store(false, Ordering::Relaxed);
                        request = unsent;
                    }
                    (None, Some(again)) => request = again,
                    (unsent, _) => return Err(broken(error.into_error(), unsent.is_none())),
                },
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<Origin, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that was kept.
    fn take(&self, origin: &Origin) -> Option<SendRequest<Full<Bytes>>> {
        let (mut all, now) = (self.idle(), Instant::now());
        for idle in all.values_mut() {
            idle.retain(|idle| {
                let is_old = now.duration_since(idle.since) >= limits::HTTPS_CLIENT_IDLE_TIME;
                !is_old && !idle.sender.is_closed()
            });
        }
        all.retain(|_, idle| !idle.is_empty());
        Some(all.get_mut(origin)?.pop()?.sender)
    }

    fn keep(&self, origin: &Origin, sender: SendRequest<Full<Bytes>>) {
        let mut all = self.idle();
        let idle = all.entry(origin.clone()).or_default();
        if idle.len() >= limits::HTTPS_CLIENT_IDLE_MAX {
            idle.remove(0);
        }
        idle.push(Idle { sender, since: Instant::now() });
    }

    async fn connect(&self, origin: &Origin) -> Result<SendRequest<Full<Bytes>>, HttpsError> {
        let no_connection = |source| HttpsError::Connect { origin: origin.to_string(), source };
        let stream = reach(origin).await.map_err(no_connection)?;
        // Only slower where this fails.
        let _ = stream.set_nodelay(true);
        let Some(tls) = self.tls.clone().filter(|_| origin.is_tls) else {
            return speak(origin, stream).await;
        };
        let no_tls = |source| HttpsError::Handshake { origin: origin.to_string(), source };
        let name = ServerName::try_from(origin.host.clone())
            .map_err(|_| HttpsError::Url { detail: "its host is no name or address".into() })?;
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(no_tls)?;
        speak(origin, stream).await
    }
}

/// Connects to the first address of a host that lets it.
async fn reach(origin: &Origin) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in lookup_host((&*origin.host, origin.port)).await? {
        match timeout(limits::HTTPS_CONNECT_TIME, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

/// Begins HTTP on a connection. Its task ends when the connection does, or when nobody holds what
/// is returned.
async fn speak<S>(origin: &Origin, stream: S) -> Result<SendRequest<Full<Bytes>>, HttpsError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.max_buf_size(4 * limits::HTTPS_HEAD_BYTES_MAX);
    let begun = http.handshake(TokioIo::new(stream)).await;
    let (sender, connection) = begun.map_err(|source| {
        let origin = origin.to_string();
        HttpsError::Broken { origin, source, sent: false }
    })?;
    tokio::spawn(async {
        // Whoever waits for a reply gets the error too.
        let _ = connection.await;
    });
    Ok(sender)
}

fn tls(
    ca_pem: &[u8],
    identity: Option<(&[u8], &[u8])>,
) -> Result<Arc<rustls::ClientConfig>, HttpsError> {
    let roots = pem::authorities(ca_pem)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(HttpsError::Unusable)?
        .with_root_certificates(roots);
    let mut tls = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let (chain, key) = (pem::certificates("certificate", chain)?, pem::private_key(key)?);
            builder.with_client_auth_cert(chain, key).map_err(HttpsError::Unusable)?
        }
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A ticket would show that two connections are of the same device.
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(tls))
}
