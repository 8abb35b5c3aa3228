//! The client's side of QUIC: connecting to replicas, and one request with its replies a stream.
//!
//! Moves bytes and says what happened to them; what to do about it is [`super::retry`]'s to say.
//! A stream that is dropped, timed out or cancelled is reset, so that the server takes its queries
//! out of the queue.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt,
    WriteError,
};
use rustls::AlertDescription;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::error::ClientError;
use super::link::Link;
use super::options::{Options, Replica};
use crate::limits;
use crate::params::Shape;
use crate::wire::message::ReplyBody;
use crate::wire::{ALPN, Bytes, FRAME_HEAD_BYTES_MAX, StreamCode, decode_reply, reply_head};

/// Where QUIC's error codes for alerts of TLS begin (RFC 9001, section 4.8).
const CRYPTO_ERRORS: u64 = 0x100;
/// Alerts by which a server refuses a client's certificate, or that there is none.
const ABOUT_CERTIFICATES: [AlertDescription; 9] = [
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
    // Of another authority with the name of the right one: its signature does not fit.
    AlertDescription::DecryptError,
    AlertDescription::CertificateRequired,
];

/// Connects to the first replica that answers, beginning with the current one.
pub(super) struct Dialer {
    replicas: Vec<Replica>,
    current: AtomicUsize,
    config: quinn::ClientConfig,
    timeout: Duration,
    endpoint_v4: Mutex<Option<Endpoint>>,
    endpoint_v6: Mutex<Option<Endpoint>>,
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
            replicas: options.replicas.clone(),
            current: AtomicUsize::new(0),
            config,
            timeout: options.connect_timeout,
            endpoint_v4: Mutex::default(),
            endpoint_v6: Mutex::default(),
        })
    }

    pub(super) fn replica_count(&self) -> usize {
        self.replicas.len()
    }

    /// The next [`Dialer::dial`] begins with this replica, counted around.
    pub(super) fn begin_with(&self, replica: usize) {
        self.current.store(replica % self.replicas.len(), Ordering::Relaxed);
    }

    /// Waits until the peers of closed connections know, but not long.
    pub(super) async fn close(&self) {
        let idle = async |endpoint: &Mutex<Option<Endpoint>>| {
            let endpoint = lock(endpoint).clone();
            if let Some(endpoint) = endpoint {
                let _ = timeout(limits::CLOSE_TIMEOUT, endpoint.wait_idle()).await;
            }
        };
        tokio::join!(idle(&self.endpoint_v4), idle(&self.endpoint_v6));
    }

    /// A connection to the current replica, or else to the next one that answers.
    pub(super) async fn dial(&self) -> Result<Link, ClientError> {
        let (first, count) = (self.current.load(Ordering::Relaxed), self.replicas.len());
        let link = self.dial_first_of((first..first + count).map(|at| at % count)).await?;
        self.begin_with(link.replica);
        Ok(link)
    }

    /// A connection to the next replica after this one that answers.
    pub(super) async fn dial_other_than(&self, replica: usize) -> Result<Link, ClientError> {
        let count = self.replicas.len();
        self.dial_first_of((replica + 1..replica + count).map(|at| at % count)).await
    }

    /// Tries every address in turn: the next one as soon as the one before it refused, or has kept
    /// us waiting for [`limits::CONNECT_STAGGER`]. The first connection is taken.
    async fn dial_first_of(
        &self,
        replicas: impl Iterator<Item = usize>,
    ) -> Result<Link, ClientError> {
        let addresses = |replica: usize| {
            self.replicas[replica].addresses.iter().map(move |&address| (replica, address))
        };
        let mut addresses = replicas.flat_map(addresses).collect::<VecDeque<_>>();
        let mut dialing = JoinSet::new(); // gives up those that are not needed
        let mut refused = None;
        loop {
            if let Some((replica, address)) = addresses.pop_front() {
                let name = &self.replicas[replica].server_name;
                match self.endpoint(address)?.connect_with(self.config.clone(), address, name) {
                    Ok(connecting) => {
                        let connected = timeout(self.timeout, connecting);
                        dialing.spawn(async move { (replica, address, connected.await) });
                    }
                    Err(error) => refused = Some(refusal(address, error.to_string())),
                }
            }
            let next = sleep(limits::CONNECT_STAGGER);
            tokio::select! {
                Some(dialed) = dialing.join_next() => {
                    let (replica, address, connected) =
                        dialed.expect("this is a bug: connecting panicked");
                    refused = Some(match connected {
                        Ok(Ok(connection)) => return Ok(Link::new(connection, replica)),
                        Ok(Err(error)) => refusal(address, error.to_string()),
                        Err(_) => refusal(address, format!("no answer within {:?}", self.timeout)),
                    });
                }
                () = next, if !addresses.is_empty() && !dialing.is_empty() => {}
                else => {}
            }
            if addresses.is_empty() && dialing.is_empty() {
                return Err(refused.expect("this is a bug: no address was tried"));
            }
        }
    }

    fn endpoint(&self, to: SocketAddr) -> Result<Endpoint, ClientError> {
        let (held, any) = match to {
            SocketAddr::V4(_) => (&self.endpoint_v4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            SocketAddr::V6(_) => (&self.endpoint_v6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        let mut held = lock(held);
        if let Some(endpoint) = &*held {
            return Ok(endpoint.clone());
        }
        let endpoint = Endpoint::client((any, 0).into()).map_err(ClientError::Socket)?;
        Ok(held.insert(endpoint).clone())
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refusal(address: SocketAddr, reason: String) -> ClientError {
    ClientError::Connect { address, reason }
}

/// How an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All expected replies came, and the server finished its side.
    Finished,
    /// The next reply did not come in time.
    TimedOut,
    /// The stream was reset, ended early, or carried what is no reply.
    StreamLost(String),
    /// The connection is gone.
    ConnectionLost(String),
    /// The server closed the connection because of who calls.
    NotAllowed(String),
}

/// One request and what came back.
pub(super) struct Exchange {
    /// The replies that came before the end, in order.
    pub(super) replies: Vec<ReplyBody>,
    /// How it ended.
    pub(super) end: End,
    /// Bytes of the request frame.
    pub(super) bytes_up: u64,
    /// Bytes of the reply frames.
    pub(super) bytes_down: u64,
}

/// Sends one request's frame on a stream of its own and collects at most `replies_max` replies;
/// each may take `wait`.
pub(super) async fn ask(
    connection: &Connection,
    frame: Bytes,
    shape: Option<Shape>,
    replies_max: usize,
    wait: Duration,
) -> Exchange {
    let bytes_up = frame.len() as u64;
    let (mut replies, mut bytes_down) = (Vec::new(), 0);
    let mut hear = |heard| {
        if let Heard::Reply(reply, bytes) = heard {
            replies.push(reply);
            bytes_down += bytes as u64;
        }
    };
    let end = exchange(connection, frame, shape, replies_max, wait, &mut hear).await;
    Exchange { replies, end, bytes_up, bytes_down }
}

/// What happens on the stream of a request, as it happens.
#[expect(clippy::large_enum_variant, reason = "handed on at once, never kept")]
pub enum Heard {
    /// It is open: the frame goes out now.
    Opened,
    /// The server has the whole frame.
    Arrived,
    /// A reply, and the bytes of its frame.
    Reply(ReplyBody, usize),
}

/// Sends a frame on a stream of its own and says of each thing that happens when it does.
pub(super) async fn exchange(
    connection: &Connection,
    frame: Bytes,
    shape: Option<Shape>,
    replies_max: usize,
    wait: Duration,
    hear: &mut (dyn FnMut(Heard) + Send),
) -> End {
    match converse(connection, frame, shape, replies_max, wait, hear).await {
        Ok(()) => End::Finished,
        Err(end) => match connection.close_reason() {
            // Closed by the watch of its link: nobody else does so while it is asked over.
            Some(ConnectionError::LocallyClosed) => {
                End::ConnectionLost("nothing is heard from the server".into())
            }
            Some(reason) => match not_allowed(&reason) {
                Some(why) => End::NotAllowed(why),
                None => End::ConnectionLost(reason.to_string()),
            },
            None => end,
        },
    }
}

/// Why the server does not serve this caller, if that is why it closed the connection. In TLS 1.3 a
/// client's certificate is checked after the client is connected.
fn not_allowed(reason: &ConnectionError) -> Option<String> {
    match reason {
        ConnectionError::ApplicationClosed(close)
            if close.error_code == VarInt::from_u32(StreamCode::NotAllowed.code()) =>
        {
            Some("it knows no name of this caller's certificate".into())
        }
        ConnectionError::ConnectionClosed(close) => {
            let alert = u64::from(close.error_code).checked_sub(CRYPTO_ERRORS)?;
            let alert = AlertDescription::from(u8::try_from(alert).ok()?);
            ABOUT_CERTIFICATES.contains(&alert).then(|| format!("TLS alert {alert:?}"))
        }
        _ => None,
    }
}

async fn converse(
    connection: &Connection,
    frame: Bytes,
    shape: Option<Shape>,
    replies_max: usize,
    wait: Duration,
    hear: &mut (dyn FnMut(Heard) + Send),
) -> Result<(), End> {
    let lost = |reason: String| End::StreamLost(reason);
    let opened = timeout(wait, connection.open_bi()).await.map_err(|_| End::TimedOut)?;
    let (send, receive) = opened.map_err(|error| lost(error.to_string()))?;
    let mut stream = Stream { send, receive, held: Vec::new(), code: Some(StreamCode::Cancelled) };
    hear(Heard::Opened);
    let write = timeout(wait, stream.send.write_chunk(frame)).await;
    match write.map_err(|_| stream.timed_out())? {
        Ok(()) => stream.send.finish().map_err(|error| lost(error.to_string()))?,
        // A server that refuses a frame stops it early; the reply says why.
        Err(WriteError::Stopped(_)) => {}
        Err(error) => return Err(lost(error.to_string())),
    }
    let mut arrival = pin!(stream.send.stopped());
    let (mut arrived, mut replies) = (false, 0);
    let mut late = pin!(sleep(wait));
    loop {
        tokio::select! {
            biased;
            next = stream.next(shape.as_ref()) => {
                let Some((reply, bytes)) = next? else { break };
                if replies == replies_max {
                    stream.code = Some(StreamCode::Protocol);
                    return Err(lost(format!("more than the {replies_max} replies asked for")));
                }
                replies += 1;
                late.as_mut().reset(Instant::now() + wait);
                hear(Heard::Reply(reply, bytes));
            }
            _ = &mut arrival, if !arrived => {
                arrived = true;
                hear(Heard::Arrived);
            }
            () = &mut late => return Err(stream.timed_out()),
        }
    }
    stream.code = None;
    Ok(())
}

/// Both sides of a request's stream; resets what is not finished when dropped.
struct Stream {
    send: SendStream,
    receive: RecvStream,
    /// Bytes read and not yet decoded.
    held: Vec<u8>,
    /// What to reset with; none when all is finished.
    code: Option<StreamCode>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(code) = self.code {
            let code = VarInt::from_u32(code.code());
            // Either side may be finished already; then there is nothing to reset.
            let _ = self.send.reset(code);
            let _ = self.receive.stop(code);
        }
    }
}

impl Stream {
    fn timed_out(&mut self) -> End {
        self.code = Some(StreamCode::Timeout);
        End::TimedOut
    }

    /// The next reply and the bytes of its frame; none when the server has finished.
    async fn next(&mut self, shape: Option<&Shape>) -> Result<Option<(ReplyBody, usize)>, End> {
        let head = loop {
            let head =
                reply_head(&self.held, shape).map_err(|e| self.not_a_reply(&e.to_string()))?;
            if let Some(head) = head {
                break head;
            }
            // No more than a head, so that a frame's bytes come only after its bound is checked.
            let wanted = FRAME_HEAD_BYTES_MAX.saturating_sub(self.held.len()).max(1);
            if !self.read(wanted).await? {
                if self.held.is_empty() {
                    return Ok(None);
                }
                return Err(self.not_a_reply("cut off in the head of a frame"));
            }
        };
        while self.held.len() < head.frame_bytes {
            if !self.read(head.frame_bytes - self.held.len()).await? {
                return Err(self.not_a_reply("cut off in a frame"));
            }
        }
        let rest = self.held.split_off(head.frame_bytes);
        let frame = Bytes::from(std::mem::replace(&mut self.held, rest));
        let reply =
            decode_reply(&head, frame, shape).map_err(|e| self.not_a_reply(&e.to_string()))?;
        let body = reply.body.ok_or_else(|| self.not_a_reply("an empty reply"))?;
        Ok(Some((body, head.frame_bytes)))
    }

    /// Reads at most `most` bytes; false at the end of the stream.
    async fn read(&mut self, most: usize) -> Result<bool, End> {
        match self.receive.read_chunk(most, true).await {
            Ok(Some(chunk)) => {
                self.held.extend_from_slice(&chunk.bytes);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => Err(End::StreamLost(error.to_string())),
        }
    }

    fn not_a_reply(&mut self, what: &str) -> End {
        self.code = Some(StreamCode::Protocol);
        End::StreamLost(what.to_owned())
    }
}
