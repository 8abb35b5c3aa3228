//! One request and its replies, on a QUIC stream of its own: makes the messages, moves the bytes
//! and says what came of them. What to do about a failure is decided in [`super::retry`].
//!
//! A stream that is dropped, timed out or cancelled is reset, so that the server takes its queries
//! out of the queue.

use std::fmt::Display;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt, WriteError};
use rustls::AlertDescription;
use tokio::time::{Instant, sleep, timeout};

use super::call::PreparedQuery;
use super::retry::{Event, FailedAttempt};
use crate::params::Shape;
use crate::wire::message::{
    PirParameterRequest, PirParameterResponse, PirRequest, ReplyBody, Request, RequestBody,
};
use crate::wire::{
    Bytes, FRAME_HEAD_BYTES_MAX, PIR_SCHEME_SOTTO_2, PROTOCOL_VERSION, Status, StreamCode,
    decode_reply, encode_frame, reply_head,
};

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

/// The frame of a request.
pub(super) fn frame(body: RequestBody) -> Bytes {
    encode_frame(&Request::from(body)).into()
}

/// The frame that asks for the parameters and the hint digests or, with a key bundle and its name,
/// asks the server to keep the bundle.
pub(super) fn parameter_request(bundle: Option<(&str, Arc<[u8]>)>) -> Bytes {
    let want_hint_digests = bundle.is_none();
    let (uid, public_key) = bundle.map_or_else(Default::default, |(uid, bytes)| {
        (uid.to_owned(), vec![Bytes::from_owner(bytes)])
    });
    frame(RequestBody::Parameters(PirParameterRequest {
        protocol_version: PROTOCOL_VERSION,
        nonce: "0".into(),
        uid,
        pir_scheme: PIR_SCHEME_SOTTO_2,
        public_key,
        want_hint_digests,
    }))
}

/// The reply to [`parameter_request`], if it says success.
pub(super) fn parameter_reply(exchange: Exchange) -> Result<PirParameterResponse, FailedAttempt> {
    let Some(ReplyBody::Parameters(reply)) = exchange.replies.into_iter().next() else {
        return Err(exchange.end);
    };
    let status = reply.response_status;
    if status == Status::SchemeMatched.code() {
        return Ok(reply);
    }
    let mut refused = refused(status, reply.retry_after_ms, &reply.detail);
    if status == Status::SchemeSuggested.code() {
        refused.detail = format!(
            "it speaks pir_scheme {}, this client {PIR_SCHEME_SOTTO_2}: bring both to the newer \
             version",
            reply.pir_scheme
        );
    }
    Err(refused)
}

/// A query as it goes out. Absent and present keys make the same request: no field depends on
/// more than the shard, the epoch and the encrypted bytes.
pub(super) fn query(nonce: usize, sending: PreparedQuery, deadline_ms: u32) -> PirRequest {
    PirRequest {
        protocol_version: PROTOCOL_VERSION,
        nonce: nonce.to_string(),
        uid: sending.uid,
        pir_scheme: PIR_SCHEME_SOTTO_2,
        shard: sending.shard,
        encrypted_vector: vec![Bytes::from_owner(sending.vector)],
        epoch: sending.epoch,
        want_hint: false,
        deadline_ms,
        pack: 0,
    }
}

/// A reply with another status than success.
pub(super) fn refused(status: i32, retry_after_ms: u32, detail: &str) -> FailedAttempt {
    let retry_after = Duration::from_millis(retry_after_ms.into());
    let (status, name) = match Status::try_from(status) {
        Ok(status) => (status, status.name().to_owned()),
        // A status of a later version.
        Err(unknown) => (Status::ResponseFailure, unknown.to_string()),
    };
    // What a peer writes is cut to a line's length and shown without control characters.
    let detail: String = detail.chars().filter(|c| !c.is_control()).take(200).collect();
    let detail = if detail.is_empty() { name } else { format!("{name} ({detail})") };
    FailedAttempt { event: Event::Refused { status, retry_after }, detail }
}

/// What came back for one request, and the bytes of the frames that were sent and received.
pub(super) struct Exchange {
    pub(super) replies: Vec<ReplyBody>,
    pub(super) end: FailedAttempt,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
}

impl Exchange {
    /// Whether a server is there, even if it refuses this caller.
    pub(super) fn is_heard(&self) -> bool {
        !self.replies.is_empty() || self.end.event == Event::NotAllowed
    }

    /// Why the connection seems lost.
    pub(super) fn lost(&self) -> Option<&str> {
        (self.end.event != Event::StreamLost).then_some(self.end.detail.as_str())
    }
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

/// Sends a frame on a stream of its own and says of each thing that happens when it does. Returns
/// what the end of the exchange means for queries without a reply.
pub(super) async fn exchange(
    connection: &Connection,
    frame: Bytes,
    shape: Option<Shape>,
    replies_max: usize,
    wait: Duration,
    hear: &mut (dyn FnMut(Heard) + Send),
) -> FailedAttempt {
    let Err(failed) = converse(connection, frame, shape, replies_max, wait, hear).await else {
        let detail = "the server finished without an answer".into();
        return FailedAttempt { event: Event::StreamLost, detail };
    };
    let Some(reason) = connection.close_reason() else { return failed };
    if let Some(detail) = not_allowed(&reason) {
        return FailedAttempt { event: Event::NotAllowed, detail };
    }
    let reason = match reason {
        // Closed by the watch of its link: nobody else does so while it is asked over.
        ConnectionError::LocallyClosed => "nothing is heard from the server".into(),
        reason => reason.to_string(),
    };
    FailedAttempt { event: Event::ConnectionLost, detail: format!("connection lost: {reason}") }
}

fn timed_out() -> FailedAttempt {
    FailedAttempt { event: Event::TimedOut, detail: "no answer in time".into() }
}

fn stream_lost(reason: impl Display) -> FailedAttempt {
    FailedAttempt { event: Event::StreamLost, detail: format!("stream lost: {reason}") }
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
) -> Result<(), FailedAttempt> {
    let opened = timeout(wait, connection.open_bi()).await.map_err(|_| timed_out())?;
    let (send, receive) = opened.map_err(stream_lost)?;
    let mut stream = Stream { send, receive, held: Vec::new(), code: Some(StreamCode::Cancelled) };
    hear(Heard::Opened);
    let write = timeout(wait, stream.send.write_chunk(frame)).await;
    match write.map_err(|_| stream.timed_out())? {
        Ok(()) => stream.send.finish().map_err(stream_lost)?,
        // A server that refuses a frame stops it early; the reply says why.
        Err(WriteError::Stopped(_)) => {}
        Err(error) => return Err(stream_lost(error)),
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
                    let more = format!("more than the {replies_max} replies asked for");
                    return Err(stream.not_a_reply(more));
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
    fn timed_out(&mut self) -> FailedAttempt {
        self.code = Some(StreamCode::Timeout);
        timed_out()
    }

    /// The next reply and the bytes of its frame; none when the server has finished.
    async fn next(
        &mut self,
        shape: Option<&Shape>,
    ) -> Result<Option<(ReplyBody, usize)>, FailedAttempt> {
        let head = loop {
            if let Some(head) = reply_head(&self.held, shape).map_err(|e| self.not_a_reply(e))? {
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
        let reply = decode_reply(&head, frame, shape).map_err(|e| self.not_a_reply(e))?;
        let body = reply.body.ok_or_else(|| self.not_a_reply("an empty reply"))?;
        Ok(Some((body, head.frame_bytes)))
    }

    /// Reads at most `most` bytes; false at the end of the stream.
    async fn read(&mut self, most: usize) -> Result<bool, FailedAttempt> {
        let chunk = self.receive.read_chunk(most, true).await.map_err(stream_lost)?;
        let Some(chunk) = chunk else { return Ok(false) };
        self.held.extend_from_slice(&chunk.bytes);
        Ok(true)
    }

    fn not_a_reply(&mut self, what: impl Display) -> FailedAttempt {
        self.code = Some(StreamCode::Protocol);
        stream_lost(what)
    }
}
