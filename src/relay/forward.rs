//! The way to the front-end and to key services: mutual TLS, and of a device's request the body
//! alone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};
use zeroize::Zeroizing;

use super::bucket::Kind;
use super::errors::{Peer, REQUEST_TYPE, Refusal, RelayError};
use crate::https::{Client, HttpsError, Response, Sample, client_certificate_expiry};
use crate::limits::{
    IDENTITY_FILE_BYTES_MAX, RELAY_EVALUATE_REPLY_BYTES_MAX, RELAY_KEY_SERVICE_FORWARDS_MAX,
    RELAY_LOOKUP_REPLY_BYTES_MAX,
};
use crate::shard::files::read_regular;

/// The body of a reply that was sealed.
pub(super) const REPLY_TYPE: &str = "message/ohttp-res";
/// What is said of a key that is not known any more (RFC 9458, section 5.3).
const PROBLEM_TYPE: &str = "application/problem+json";
const OLD_KEY: &str = "https://iana.org/assignments/http-problem-types#ohttp-key";
/// What is believed of a time that a peer asks to wait, in seconds.
const RETRY_AFTER_MAX: u64 = 86_400;
const RETRY_AFTER_DEFAULT: u64 = 1;

/// Where the front-end is, and the files by which both know each other.
#[derive(Debug, Clone)]
pub struct FrontEndFiles {
    /// Its address, such as `https://front-end.example:8443`.
    pub url: String,
    /// Authorities that sign its certificate, PEM.
    pub ca: PathBuf,
    /// The certificate that this relay shows there, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// How long a request and its reply may take.
    pub time: Duration,
}

/// Where sealed requests are opened: the front-end, or a provider's key service.
pub(super) struct Gateway {
    peer: Peer,
    /// Without a slash at the end.
    url: String,
    connector: Arc<Connector>,
    condition: Mutex<Condition>,
    /// Requests that may wait for it: one gateway that hangs leaves places for the others.
    places: Semaphore,
}

/// How this relay connects to others: certificates in files, which are read again.
pub(super) struct Connector {
    files: ConnectorFiles,
    connected: RwLock<Connected>,
}

/// The files of a [`Connector`].
pub(super) struct ConnectorFiles {
    pub(super) peer: Peer,
    pub(super) ca: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    pub(super) time: Duration,
}

/// What the files make.
#[derive(Clone)]
struct Connected {
    client: Client,
    /// When the certificate that this relay shows expires.
    certificate: Sample,
}

/// How a gateway was when it was last asked. The log has every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    NotAsked,
    Answering,
    Unreachable,
    Refusing,
}

/// What a device gets of a gateway's reply.
pub(super) struct Forwarded {
    pub(super) status: StatusCode,
    pub(super) content_type: HeaderValue,
    pub(super) body: Bytes,
}

/// Why there is none, and whether the gateway may have seen the request.
pub(super) struct NotForwarded {
    pub(super) refusal: Refusal,
    pub(super) never_sent: bool,
}

impl Connector {
    pub(super) fn new(files: ConnectorFiles) -> Result<Self, RelayError> {
        let connected = RwLock::new(connect(&files)?);
        Ok(Self { files, connected })
    }

    /// Reads certificates and the key again. Where they cannot be used, everything stays as it was.
    pub(super) fn reload(&self) -> Result<(), RelayError> {
        let connected = connect(&self.files)?;
        *self.connected.write().unwrap_or_else(PoisonError::into_inner) = connected;
        Ok(())
    }

    /// When the certificate that this relay shows expires.
    pub(super) fn certificate(&self) -> Sample {
        self.connected().certificate
    }

    fn client(&self) -> Client {
        self.connected().client
    }

    fn connected(&self) -> Connected {
        self.connected.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Gateway {
    /// The front-end of this relay.
    pub(super) fn front_end(files: FrontEndFiles) -> Result<Self, RelayError> {
        let FrontEndFiles { url, ca, cert, key, time } = files;
        let url = base("front-end", &url)?;
        let files = ConnectorFiles { peer: Peer::FrontEnd, ca, cert, key, time };
        let connector = Arc::new(Connector::new(files)?);
        // All requests that may wait at all may wait for the front-end.
        Ok(Self::new(Peer::FrontEnd, url, connector, Semaphore::MAX_PERMITS))
    }

    /// A key service, at an address of the directory.
    pub(super) fn key_service(url: &str, connector: &Arc<Connector>) -> Result<Self, RelayError> {
        let url = base("key service", url)?;
        let places = RELAY_KEY_SERVICE_FORWARDS_MAX;
        Ok(Self::new(Peer::KeyService, url, connector.clone(), places))
    }

    fn new(peer: Peer, url: String, connector: Arc<Connector>, places: usize) -> Self {
        let (condition, places) = (Mutex::new(Condition::NotAsked), Semaphore::new(places));
        Self { peer, url, connector, condition, places }
    }

    /// A place for a request, while one is free.
    pub(super) fn enter(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let overloaded = Refusal::Overloaded { why: self.peer.overloaded(), seconds: 1 };
        self.places.try_acquire().map_err(|_| overloaded)
    }

    /// The address of what is at a path there.
    pub(super) fn address(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Sends the body of a device's request, and nothing else of it.
    pub(super) async fn send(&self, kind: Kind, body: Bytes) -> Result<Forwarded, NotForwarded> {
        let headers = [("content-type", REQUEST_TYPE)];
        let max = match kind {
            Kind::Evaluate => RELAY_EVALUATE_REPLY_BYTES_MAX,
            Kind::Lookup => RELAY_LOOKUP_REPLY_BYTES_MAX,
        };
        let url = self.address("/gateway");
        let reply = self.connector.client().send(Method::POST, &url, &headers, body, max).await;
        self.note(&reply);
        match reply {
            Ok(reply) => read(self.peer, reply)
                .map_err(|refusal| NotForwarded { refusal, never_sent: false }),
            Err(error) => {
                let never_sent = error.never_sent();
                let refusal = match error {
                    HttpsError::Late { .. } if !never_sent => Refusal::Late(self.peer),
                    _ => out_of_reach(self.peer, never_sent),
                };
                Err(NotForwarded { refusal, never_sent })
            }
        }
    }

    /// Asks for a public file, unless it is the one with this tag.
    pub(super) async fn get(
        &self,
        path: &str,
        tag: Option<&str>,
        max: usize,
    ) -> Result<Response, HttpsError> {
        let headers: Vec<(&str, &str)> =
            tag.map(|tag| ("if-none-match", tag)).into_iter().collect();
        let url = self.address(path);
        let client = self.connector.client();
        let reply = client.send(Method::GET, &url, &headers, Bytes::new(), max).await;
        self.note(&reply);
        reply
    }

    /// How it was when it was last asked.
    pub(super) fn condition(&self) -> Condition {
        *self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, reply: &Result<Response, HttpsError>) {
        let now = match reply {
            Ok(reply) if reply.status == 403 => Condition::Refusing,
            Ok(_) => Condition::Answering,
            Err(_) => Condition::Unreachable,
        };
        let mut condition = self.condition.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *condition, now);
        drop(condition);
        let peer = self.peer;
        match reply {
            _ if before == now => {}
            Err(error) => tracing::warn!(%error, at = %self.url, "the {peer} does not answer"),
            Ok(_) if now == Condition::Refusing => tracing::error!(
                at = %self.url,
                "the {peer} refuses this relay: the name in the relay's certificate has to be in \
                 the {peer}'s list of relays"
            ),
            Ok(_) => tracing::info!(at = %self.url, "the {peer} answers"),
        }
    }
}

fn out_of_reach(peer: Peer, never_sent: bool) -> Refusal {
    let why = match never_sent {
        true => "cannot be reached; this request was not counted",
        false => "broke the connection",
    };
    Refusal::Peer { peer, why }
}

/// What a device gets of a reply: what is sealed, or that it has to fetch the keys again.
fn read(peer: Peer, reply: Response) -> Result<Forwarded, Refusal> {
    let is = |expected: &str| {
        let found = reply.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        found.is_some_and(|found| media_type(found).eq_ignore_ascii_case(expected))
    };
    let seconds = retry_after(&reply.headers);
    match reply.status {
        200 if is(REPLY_TYPE) => {
            let content_type = HeaderValue::from_static(REPLY_TYPE);
            Ok(Forwarded { status: StatusCode::OK, content_type, body: reply.body })
        }
        400 if is(PROBLEM_TYPE) && is_old_key(&reply.body) => {
            let content_type = HeaderValue::from_static(PROBLEM_TYPE);
            Ok(Forwarded { status: StatusCode::BAD_REQUEST, content_type, body: reply.body })
        }
        400 => Err(Refusal::Peer { peer, why: "cannot open this request" }),
        403 => Err(Refusal::Peer { peer, why: "does not know this relay" }),
        429 => Err(Refusal::RelayBound { peer, seconds }),
        503 => Err(Refusal::Overloaded { why: peer.overloaded(), seconds }),
        _ => Err(Refusal::Peer { peer, why: "gave a reply that no relay expects" }),
    }
}

fn is_old_key(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Problem {
        #[serde(rename = "type")]
        kind: String,
    }
    serde_json::from_slice::<Problem>(body).is_ok_and(|problem| problem.kind == OLD_KEY)
}

/// A content type without its parameters.
pub(super) fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or(value).trim()
}

fn retry_after(headers: &HeaderMap) -> u64 {
    let value = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    value.unwrap_or(RETRY_AFTER_DEFAULT).clamp(1, RETRY_AFTER_MAX)
}

/// An address to which paths are appended.
fn base(what: &'static str, url: &str) -> Result<String, RelayError> {
    let bad = || RelayError::Url { what, found: url.to_owned() };
    let base = url.trim_end_matches('/');
    let host = base.strip_prefix("https://").ok_or_else(bad)?;
    let wrong = |c: char| c.is_whitespace() || c.is_control() || "?#@".contains(c);
    if host.is_empty() || host.contains(wrong) { Err(bad()) } else { Ok(base.to_owned()) }
}

fn connect(files: &ConnectorFiles) -> Result<Connected, RelayError> {
    let (what, authority) = match files.peer {
        Peer::FrontEnd => ("front-end", "authority (--front-end-ca)"),
        Peer::KeyService => ("key services", "authority (--key-services-ca)"),
    };
    let ca = read_file(authority, &files.ca)?;
    let cert = read_file("certificate (--client-cert)", &files.cert)?;
    let key = Zeroizing::new(read_file("private key (--client-key)", &files.key)?);
    let client = Client::new(Some(&ca), Some((&cert, &key)), files.time)
        .map_err(|source| RelayError::Client { what, source })?;
    Ok(Connected { client, certificate: client_certificate_expiry(&cert, &key) })
}

/// Reads a small file of the operator.
pub(super) fn read_file(what: &'static str, path: &Path) -> Result<Vec<u8>, RelayError> {
    read_regular(path, IDENTITY_FILE_BYTES_MAX).map_err(|source| RelayError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })
}
