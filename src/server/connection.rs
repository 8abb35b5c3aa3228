//! Bytes in and out: one task a connection, one a stream, every wait bounded.
//!
//! A stream brings one request frame, which is read here within its kind's bound and the server's;
//! `query` answers it. What goes wrong on a stream ends that stream alone.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use quinn::{
    Connection, ConnectionError, Incoming, ReadError, RecvStream, SendStream, VarInt, WriteError,
};
use tokio::time::{sleep, timeout, timeout_at};

use super::callers::{FrontEndConnection, Shown};
use super::places::{Activity, ConnectionPlace, Entered, HandshakePlace, Holder};
use super::quota::Quota;
use super::room::Reservation;
use super::{Service, query};
use crate::schedule::{ConnectionId, FrontEnd};
use crate::wire::message::{Reply, ReplyBody};
use crate::wire::{
    Bytes, FRAME_HEAD_BYTES_MAX, FrameError, FrameHead, RequestKind, StreamCode, encode_frame,
    parameters_frame, request_head,
};

/// Most bytes taken from a stream at once.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Who asks on a connection: as long as one of its streams is served.
pub(super) struct Peer {
    service: Arc<Service>,
    pub(super) connection: ConnectionId,
    /// Its front-end; where front-ends are not known, the connection is one of its own.
    pub(super) front_end: FrontEnd,
    quota: Option<Arc<Quota>>,
    /// What it asks keeps its place.
    pub(super) activity: Arc<Activity>,
}

impl Peer {
    /// Pays for so many bytes with its quota and its share of the engines; waits for the quota.
    ///
    /// # Errors
    /// The quota allows it only later than that: after so long.
    pub(super) async fn pay(&self, bytes: usize, patience: Duration) -> Result<(), Duration> {
        let until = Instant::now() + patience;
        while let Err(after) = self.pay_now(bytes) {
            if Instant::now() + after > until {
                return Err(after);
            }
            sleep(after).await;
        }
        self.service.queue.charge(self.front_end, bytes as u64);
        Ok(())
    }

    /// Pays with its quota alone; what engines do for it the schedule counts itself.
    ///
    /// # Errors
    /// When the quota allows it.
    pub(super) fn pay_now(&self, bytes: usize) -> Result<(), Duration> {
        self.quota.as_ref().map_or(Ok(()), |quota| quota.take(bytes))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.service.bundles().leave(self.connection);
    }
}

/// Why a stream ends before all its replies are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// The peer reset or stopped it, or its connection is gone.
    Abandoned,
    /// We reset it.
    Reset(StreamCode),
}

impl From<FrameError> for StreamEnd {
    fn from(error: FrameError) -> Self {
        StreamEnd::Reset(error.stream_code())
    }
}

/// A request as read from its stream, not yet decoded.
pub(super) struct Request {
    pub(super) head: FrameHead<RequestKind>,
    pub(super) body: Bytes,
    /// Gives its bytes back to the server's bound on reading when it is dropped.
    pub(super) reading: Reservation,
}

/// What reading a stream came to.
enum Read {
    Whole(Request),
    /// There was no room for the rest of it.
    NoRoom(RequestKind),
}

/// Serves one connection until it ends.
pub(super) async fn serve(service: Arc<Service>, incoming: Incoming, mut place: HandshakePlace) {
    let shaken = tokio::select! {
        shaken = timeout(service.bounds.handshake_timeout, incoming) => shaken,
        () = place.displaced() => {
            service.counters.handshakes_displaced.add(1);
            return;
        }
    };
    let connection: Connection = match shaken.unwrap_or(Err(ConnectionError::TimedOut)) {
        Ok(connection) => connection,
        Err(error) => {
            service.counters.handshakes_failed.add(1);
            tracing::debug!(%error, "a handshake failed");
            return;
        }
    };
    let Ok(front_end) = admit(&service, &connection) else { return };
    let activity = Activity::new();
    let Some(_place) = enter(&service, &connection, front_end.as_ref(), &activity) else { return };
    drop(place);
    service.counters.connections.add(1);
    let number = service.next_number();
    let peer = Arc::new(Peer {
        service: service.clone(),
        connection: ConnectionId(number),
        front_end: front_end
            .as_ref()
            .map_or(FrontEnd { number, share: 1 }, |place| place.front_end),
        quota: front_end.as_ref().and_then(|place| place.quota.clone()),
        activity,
    });
    let mut watch = Watch::new(&service, &connection);
    loop {
        let look_at = match watch.look(&peer) {
            Ok(look_at) => look_at,
            Err(ended) => return end(&service, &connection, ended),
        };
        let Ok(opened) = timeout_at(look_at.into(), connection.accept_bi()).await else { continue };
        let Ok((send, receive)) = opened else { return };
        let open = OpenStream::new(service.clone());
        let patience = service.bounds.stream_send_time_max;
        let replies = Replies { send, service: service.clone(), patience };
        tokio::spawn(serve_stream(open, peer.clone(), replies, receive));
    }
}

/// A place for the connection, or it is closed with the reason.
fn enter(
    service: &Service,
    connection: &Connection,
    front_end: Option<&FrontEndConnection>,
    activity: &Arc<Activity>,
) -> Option<ConnectionPlace> {
    let holder = match front_end {
        Some(place) => Holder::FrontEnd(place.front_end.number),
        None => Holder::of(connection.remote_address().ip()),
    };
    let (now, handle) = (Instant::now(), Some(connection.clone()));
    match service.connections.enter(now, holder, activity.clone(), handle) {
        Entered::Yes(place) => Some(place),
        Entered::MadeRoom(place) => {
            service.counters.connections_displaced.add(1);
            Some(place)
        }
        Entered::No => {
            service.counters.connections_refused.add(1);
            let code = VarInt::from_u32(StreamCode::ExcessiveLoad.code());
            connection.close(code, b"too many connections");
            None
        }
    }
}

/// Why the server ends a connection that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Its certificate expired, or its authority's did.
    Certificate,
    /// It asks nothing.
    Idle,
}

/// Looks whether a connection may stay.
struct Watch {
    /// The peer's certificate, and when it is checked next.
    shown: Option<(Shown, Instant)>,
}

impl Watch {
    /// Its certificate is checked at once: the handshake may have begun when it was valid.
    fn new(service: &Service, connection: &Connection) -> Self {
        Self { shown: service.callers().shown(connection).map(|shown| (shown, Instant::now())) }
    }

    /// When to look again. Whoever keeps a connection alive, or opens streams, and asks nothing on
    /// them has its place taken by others.
    fn look(&mut self, peer: &Peer) -> Result<Instant, Ended> {
        let (now, bounds) = (Instant::now(), &peer.service.bounds);
        let idle_at = peer.activity.quiet_since().unwrap_or(now) + bounds.idle_timeout;
        if idle_at <= now {
            return Err(Ended::Idle);
        }
        let Some((shown, check_at)) = &mut self.shown else { return Ok(idle_at) };
        if *check_at <= now {
            if !shown.is_valid(SystemTime::now()) {
                return Err(Ended::Certificate);
            }
            *check_at = now + bounds.certificate_check_time;
        }
        Ok(idle_at.min(*check_at))
    }
}

fn end(service: &Service, connection: &Connection, ended: Ended) {
    let (counter, code, reason) = match ended {
        Ended::Certificate => (
            &service.counters.certificates_expired,
            StreamCode::NotAllowed,
            "the certificate is not valid any more",
        ),
        Ended::Idle => (&service.counters.connections_idle, StreamCode::None, "idle"),
    };
    counter.add(1);
    connection.close(VarInt::from_u32(code.code()), reason.as_bytes());
}

/// A place for the connection among its front-end's, or it is closed with the reason.
fn admit(service: &Service, connection: &Connection) -> Result<Option<FrontEndConnection>, ()> {
    let close = |code: StreamCode, reason: &str| {
        connection.close(VarInt::from_u32(code.code()), reason.as_bytes());
    };
    let front_end = service.callers().front_end(connection).map_err(|not_allowed| {
        service.counters.callers_refused.add(1);
        tracing::info!(%not_allowed, "a connection was refused");
        close(StreamCode::NotAllowed, "the certificate names nobody who may call");
    })?;
    let Some(front_end) = front_end else { return Ok(None) };
    let most = service.bounds.connections_per_front_end_max;
    let (number, scan_bytes) = (service.next_number(), service.scan_bytes());
    let place = service.connected.enter(&front_end, most, number, scan_bytes);
    place.map(Some).ok_or_else(|| {
        service.counters.front_end_connections_refused.add(1);
        close(StreamCode::ExcessiveLoad, "too many connections of this front-end");
    })
}

/// Counts a stream as open for as long as it lives.
struct OpenStream(Arc<Service>);

impl OpenStream {
    fn new(service: Arc<Service>) -> Self {
        service.counters.streams.add(1);
        service.streams.send_modify(|open| *open += 1);
        Self(service)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.send_modify(|open| *open -= 1);
    }
}

async fn serve_stream(
    open: OpenStream,
    peer: Arc<Peer>,
    mut replies: Replies,
    mut receive: RecvStream,
) {
    let service = &open.0;
    let Some(_place) = service.open.take(peer.front_end, 1) else {
        stop(&mut receive, StreamCode::ExcessiveLoad);
        replies.reset(StreamCode::ExcessiveLoad);
        service.counters.streams_reset.add(StreamCode::ExcessiveLoad);
        return;
    };
    let limit = service.bounds.stream_read_timeout;
    let read = timeout(limit, read_request(service, peer.front_end, &mut receive)).await;
    let ended = match read.unwrap_or(Err(StreamEnd::Reset(StreamCode::Timeout))) {
        Ok(Read::Whole(request)) => query::answer(service, &peer, request, &mut replies).await,
        Ok(Read::NoRoom(kind)) => {
            stop(&mut receive, StreamCode::ExcessiveLoad);
            query::no_room(service, kind, &mut replies).await
        }
        Err(end) => Err(end),
    };
    let ended = match ended {
        Ok(()) => replies.finish().await,
        Err(end) => Err(end),
    };
    match ended {
        Ok(()) => {}
        Err(StreamEnd::Abandoned) => {
            replies.reset(StreamCode::Cancelled);
            service.counters.streams_abandoned.add(1);
        }
        Err(StreamEnd::Reset(code)) => {
            stop(&mut receive, code);
            replies.reset(code);
            service.counters.streams_reset.add(code);
        }
    }
}

fn stop(receive: &mut RecvStream, code: StreamCode) {
    // Fails when the stream has ended already, which is as good.
    let _ = receive.stop(VarInt::from_u32(code.code()));
}

/// Reads one frame and the end of the stream. Its bytes are kept only as they arrive, and only
/// once its head was found to be within bounds.
async fn read_request(
    service: &Service,
    front_end: FrontEnd,
    receive: &mut RecvStream,
) -> Result<Read, StreamEnd> {
    let mut held: Vec<u8> = Vec::new();
    let head = loop {
        if let Some(head) = request_head(&held, &service.shape)? {
            break head;
        }
        let wanted = FRAME_HEAD_BYTES_MAX.saturating_sub(held.len()).max(1);
        match read_chunk(service, receive, wanted).await? {
            Some(bytes) => held.extend_from_slice(&bytes),
            None => return Err(StreamEnd::Reset(StreamCode::Protocol)), // cut off
        }
    };
    let reading = service.reading.take(front_end, 0);
    let mut reading = reading.expect("this is a bug: no room for nothing");
    // One byte more than the frame has: to see its end, and that nothing follows it.
    while let Some(bytes) = read_chunk(service, receive, CHUNK_BYTES_MAX).await? {
        if held.len() + bytes.len() > head.frame_bytes {
            return Err(StreamEnd::Reset(StreamCode::Protocol));
        }
        if !reading.grow(bytes.len()) {
            return Ok(Read::NoRoom(head.kind));
        }
        held.extend_from_slice(&bytes);
    }
    let body = head.body(Bytes::from(held))?;
    Ok(Read::Whole(Request { head, body, reading }))
}

async fn read_chunk(
    service: &Service,
    receive: &mut RecvStream,
    most: usize,
) -> Result<Option<Bytes>, StreamEnd> {
    match receive.read_chunk(most, true).await {
        Ok(Some(chunk)) => {
            service.counters.received_bytes.add(chunk.bytes.len() as u64);
            Ok(Some(chunk.bytes))
        }
        Ok(None) => Ok(None),
        Err(ReadError::Reset(_) | ReadError::ConnectionLost(_)) => Err(StreamEnd::Abandoned),
        Err(_) => Err(StreamEnd::Reset(StreamCode::Internal)),
    }
}

/// The way back on one stream.
pub(super) struct Replies {
    send: SendStream,
    service: Arc<Service>,
    /// How long the peer may still make us wait.
    patience: Duration,
}

impl Replies {
    /// Sends one reply; a peer that does not read is given up after the write time-out, one that
    /// reads slowly when its replies have waited for it too long in sum.
    pub(super) async fn send(&mut self, body: ReplyBody) -> Result<(), StreamEnd> {
        let mut frame = match body {
            // Most of it is the same for all, and not copied.
            ReplyBody::Parameters(reply) => parameters_frame(reply),
            body => vec![Bytes::from(encode_frame(&Reply::from(body)))],
        };
        let counters = &self.service.counters;
        let bytes = frame.iter().map(|piece| piece.len() as u64).sum();
        let limit = self.service.bounds.stream_write_timeout.min(self.patience);
        let begun = Instant::now();
        let written = timeout(limit, self.send.write_all_chunks(&mut frame)).await;
        let taken = begun.elapsed();
        self.patience = self.patience.saturating_sub(taken);
        match written {
            Ok(Ok(())) => {
                counters.send_time.add(taken);
                counters.sent_bytes.add(bytes);
                Ok(())
            }
            Ok(Err(WriteError::Stopped(_) | WriteError::ConnectionLost(_))) => {
                Err(StreamEnd::Abandoned)
            }
            Ok(Err(_)) => Err(StreamEnd::Reset(StreamCode::Internal)),
            Err(_) => Err(StreamEnd::Reset(StreamCode::Timeout)),
        }
    }

    /// Room for a reply of so many bytes, until it is sent; none where others do not read theirs.
    pub(super) async fn room(&mut self, front_end: FrontEnd, bytes: usize) -> Option<Reservation> {
        let limit = self.service.bounds.stream_write_timeout.min(self.patience);
        let begun = Instant::now();
        let held = self.service.answers.wait(front_end, bytes, limit).await;
        self.patience = self.patience.saturating_sub(begun.elapsed());
        held
    }

    /// Ready when the peer does not want the replies any more, or is gone.
    pub(super) fn abandoned(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.send.stopped();
        async move {
            let _ = stopped.await;
        }
    }

    /// Ends the stream and waits until the peer has all of it: before that, leaving would lose it.
    async fn finish(&mut self) -> Result<(), StreamEnd> {
        self.send.finish().map_err(|_| StreamEnd::Abandoned)?;
        match timeout(self.service.bounds.stream_write_timeout, self.send.stopped()).await {
            Ok(Ok(None)) => Ok(()),
            Ok(_) => Err(StreamEnd::Abandoned),
            Err(_) => Err(StreamEnd::Reset(StreamCode::Timeout)),
        }
    }

    fn reset(&mut self, code: StreamCode) {
        // Fails when the stream has ended already, which is as good.
        let _ = self.send.reset(VarInt::from_u32(code.code()));
    }
}
