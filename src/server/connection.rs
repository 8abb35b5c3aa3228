//! One task a connection, one a stream: who may be here, for how long, and what ends them.
//!
//! A stream brings one request, which `stream` reads and `query` answers. What goes wrong on a
//! stream ends that stream alone.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use quinn::{Connection, ConnectionError, Incoming, RecvStream, VarInt};
use tokio::sync::oneshot;
use tokio::time::{timeout, timeout_at};

use super::callers::{FrontEndConnection, Shown};
use super::places::{Activity, ConnectionPlace, Holder, UnfinishedPlace};
use super::query;
use super::service::Service;
use super::stream::{Peer, Read, Replies, StreamEnd, read_request};
use crate::schedule::{ConnectionId, FrontEnd};
use crate::wire::StreamCode;
use crate::worker::Counter;

/// With the place of its handshake, and what is ready when that was displaced.
pub(super) async fn serve(
    service: Arc<Service>,
    incoming: Incoming,
    (place, mut displaced): (UnfinishedPlace<Holder>, oneshot::Receiver<()>),
) {
    let shaken = tokio::select! {
        shaken = timeout(service.bounds.handshake_timeout, incoming) => shaken,
        Ok(()) = &mut displaced => {
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
    let shown = service.callers().shown(&connection);
    // At once: the handshake may have begun when the certificate was valid.
    let mut check_at = Instant::now();
    loop {
        let look_at = match look(&peer, shown.as_ref(), &mut check_at) {
            Ok(look_at) => look_at,
            Err((counter, code, reason)) => {
                counter.add(1);
                return close(&connection, code, reason);
            }
        };
        let Ok(opened) = timeout_at(look_at.into(), connection.accept_bi()).await else { continue };
        let Ok((send, receive)) = opened else { return };
        let open = OpenStream::new(service.clone());
        let replies = Replies::new(send, service.clone());
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
        Some((place, made_room)) => {
            service.counters.connections_displaced.add(u64::from(made_room));
            Some(place)
        }
        None => {
            service.counters.connections_refused.add(1);
            close(connection, StreamCode::ExcessiveLoad, "too many connections");
            None
        }
    }
}

/// When to look again, or why the connection ends: a peer that keeps it alive, or opens streams,
/// and asks nothing on them is idle. Its certificate is checked again from time to time.
fn look<'a>(
    Peer { service, activity, .. }: &'a Peer,
    shown: Option<&Shown>,
    check_at: &mut Instant,
) -> Result<Instant, (&'a Counter, StreamCode, &'a str)> {
    let (now, Service { bounds, counters, .. }) = (Instant::now(), &**service);
    let idle_at = activity.quiet_since().unwrap_or(now) + bounds.idle_timeout;
    if idle_at <= now {
        return Err((&counters.connections_idle, StreamCode::None, "idle"));
    }
    let Some(shown) = shown else { return Ok(idle_at) };
    if *check_at <= now {
        if !shown.is_valid(SystemTime::now()) {
            let reason = "the certificate is not valid any more";
            return Err((&counters.certificates_expired, StreamCode::NotAllowed, reason));
        }
        *check_at = now + bounds.certificate_check_time;
    }
    Ok(idle_at.min(*check_at))
}

fn close(connection: &Connection, code: StreamCode, reason: &str) {
    connection.close(VarInt::from_u32(code.code()), reason.as_bytes());
}

/// A place for the connection among its front-end's, or it is closed with the reason.
fn admit(service: &Service, connection: &Connection) -> Result<Option<FrontEndConnection>, ()> {
    let front_end = service.callers().front_end(connection).map_err(|not_allowed| {
        service.counters.callers_refused.add(1);
        tracing::info!(%not_allowed, "a connection was refused");
        close(connection, StreamCode::NotAllowed, "the certificate names nobody who may call");
    })?;
    let Some(front_end) = front_end else { return Ok(None) };
    let most = service.bounds.connections_per_front_end_max;
    let (number, scan_bytes) = (service.next_number(), service.scan_bytes());
    let place = service.connected.enter(&front_end, most, number, scan_bytes);
    place.map(Some).ok_or_else(|| {
        service.counters.front_end_connections_refused.add(1);
        close(connection, StreamCode::ExcessiveLoad, "too many connections of this front-end");
    })
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

fn stop(receive: &mut RecvStream, code: StreamCode) {
    // Fails when the stream has ended already, which is as good.
    let _ = receive.stop(VarInt::from_u32(code.code()));
}
