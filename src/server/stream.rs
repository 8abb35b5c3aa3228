//! One stream: a request in, within the bound of its kind and of the server, and its replies out.
//! Every wait has a bound.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::time::{sleep, timeout};

use super::places::Activity;
use super::quota::Quota;
use super::room::Reservation;
use super::service::Service;
use crate::limits;
use crate::schedule::{ConnectionId, FrontEnd};
use crate::wire::message::{Reply, ReplyBody};
use crate::wire::{
    Bytes, FRAME_HEAD_BYTES_MAX, FrameError, FrameHead, RequestKind, StreamCode, encode_frame,
    parameters_frame, request_head,
};

/// The other end of a connection.
pub(super) struct Peer {
    pub(super) service: Arc<Service>,
    pub(super) connection: ConnectionId,
    /// Its front-end; where front-ends are not known, the connection is one of its own.
    pub(super) front_end: FrontEnd,
    pub(super) quota: Option<Arc<Quota>>,
    pub(super) activity: Arc<Activity>,
}

impl Peer {
    /// Pays for so many bytes with its quota and its share of the engines; waits for the quota.
    ///
    /// # Errors
    /// The quota allows it only after so long.
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

    /// Pays with its quota alone; an error says after how long it allows it. What engines do for it
    /// the schedule counts itself.
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
    /// Room that its bytes take.
    pub(super) reading: Reservation,
}

pub(super) enum Read {
    Whole(Request),
    /// There was no room for the rest of it.
    NoRoom(RequestKind),
}

/// Reads one frame, once its head is within bounds, and the end of the stream.
pub(super) async fn read_request(
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
    while let Some(bytes) = read_chunk(service, receive, limits::STREAM_CHUNK_BYTES).await? {
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

pub(super) struct Replies {
    send: SendStream,
    service: Arc<Service>,
    /// How long the peer may still make us wait.
    patience: Duration,
}

impl Replies {
    pub(super) fn new(send: SendStream, service: Arc<Service>) -> Self {
        let patience = service.bounds.stream_send_time_max;
        Self { send, service, patience }
    }

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
    pub(super) async fn finish(&mut self) -> Result<(), StreamEnd> {
        self.send.finish().map_err(|_| StreamEnd::Abandoned)?;
        match timeout(self.service.bounds.stream_write_timeout, self.send.stopped()).await {
            Ok(Ok(None)) => Ok(()),
            Ok(_) => Err(StreamEnd::Abandoned),
            Err(_) => Err(StreamEnd::Reset(StreamCode::Timeout)),
        }
    }

    pub(super) fn reset(&mut self, code: StreamCode) {
        // Fails when the stream has ended already, which is as good.
        let _ = self.send.reset(VarInt::from_u32(code.code()));
    }
}
