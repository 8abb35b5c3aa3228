//! What each request is answered with: docs/wire.md, "A look-up from start to end" and "Status
//! codes".

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::epochs::{Absent, Found};
use super::room::Reservation;
use super::service::Service;
use super::stream::{Peer, Replies, Request, StreamEnd};
use crate::engine::EncryptedQuery;
use crate::limits;
use crate::schedule::{Arrival, Full, Ticket};
use crate::shard::Shard;
use crate::wire::message::{Hint, Limits, PirParameterResponse, PirResponse, ReplyBody};
use crate::wire::{
    Asker, Bytes, Malformed, PIR_SCHEME_SOTTO_2, PROTOCOL_VERSION, RequestKind, Status, StreamCode,
    Uid, ValidQueries, ValidQuery, decode_hints, decode_parameters,
};
use crate::worker::{Job, Outcome, Queue};

const QUARANTINED: &str = "this server's file of the shard is damaged: ask another";

pub(super) async fn answer(
    service: &Arc<Service>,
    peer: &Peer,
    request: Request,
    replies: &mut Replies,
) -> Result<(), StreamEnd> {
    match request.head.kind {
        RequestKind::Parameters => {
            let reply = parameters(service, peer, request).await;
            replies.send(ReplyBody::Parameters(reply)).await
        }
        RequestKind::Queries => queries(service, peer, request, replies).await,
        RequestKind::Hints => hints(service, peer, request, replies).await,
    }
}

/// The one reply to a request for which there was no room while it arrived.
pub(super) async fn no_room(
    service: &Service,
    kind: RequestKind,
    replies: &mut Replies,
) -> Result<(), StreamEnd> {
    let status = Status::Overloaded;
    let retry_after_ms = limits::RETRY_AFTER_MAX.as_millis() as u32;
    let reply = match kind {
        RequestKind::Parameters => {
            service.counters.parameters.add(status);
            let reply = parameters_reply(String::new(), status);
            ReplyBody::Parameters(PirParameterResponse { retry_after_ms, ..reply })
        }
        RequestKind::Queries => {
            service.counters.frames_refused.add(status);
            let whole = PirResponse { retry_after_ms, ..whole_frame_reply(service, status) };
            ReplyBody::Answer(whole)
        }
        RequestKind::Hints => ReplyBody::Hint(hint_reply(service, 0, status)),
    };
    replies.send(reply).await
}

fn parameters_reply(nonce: String, status: Status) -> PirParameterResponse {
    PirParameterResponse {
        protocol_version: PROTOCOL_VERSION,
        nonce,
        response_status: status.code(),
        pir_scheme: PIR_SCHEME_SOTTO_2,
        ..Default::default()
    }
}

async fn parameters(service: &Service, peer: &Peer, request: Request) -> PirParameterResponse {
    let reply = decide_parameters(service, peer, request.body).await;
    let status = Status::try_from(reply.response_status);
    service.counters.parameters.add(status.expect("this is a bug: a status of our own"));
    reply
}

async fn decide_parameters(service: &Service, peer: &Peer, body: Bytes) -> PirParameterResponse {
    let request = match decode_parameters(body, &service.shape) {
        Ok(request) => request,
        Err((nonce, malformed)) => {
            let detail = malformed.to_string();
            return PirParameterResponse { detail, ..parameters_reply(nonce, Status::Malformed) };
        }
    };
    let _answering = peer.activity.asked();
    if service.draining() {
        return parameters_reply(request.nonce, Status::Draining);
    }
    if request.pir_scheme != PIR_SCHEME_SOTTO_2 {
        return parameters_reply(request.nonce, Status::SchemeSuggested);
    }
    let published = service.epochs.published();
    let digests =
        if request.want_hint_digests { published.hint_digests.clone() } else { Bytes::new() };
    let brought_or_sent = match &request.bundle {
        Some(_) => service.shape.bundle_bytes(),
        None => published.parameters.len(),
    };
    if let Err(after) = peer.pay(brought_or_sent + digests.len(), limits::QUOTA_WAIT_MAX).await {
        let retry_after_ms = after.as_millis() as u32;
        let refused = parameters_reply(request.nonce, Status::Quota);
        return PirParameterResponse { retry_after_ms, ..refused };
    }
    let mut reply = PirParameterResponse {
        limits: Some(limits_message()),
        hint_digests: digests,
        ..parameters_reply(request.nonce, Status::SchemeMatched)
    };
    match request.bundle {
        // Whoever brings a bundle made it from the parameters: they are not sent again.
        Some((uid, bundle)) => {
            service.keep_bundle(peer.connection, uid, bundle);
            reply.uid = uid.to_string();
        }
        None => {
            reply.parameters = published.parameters;
            reply.signature = published.signature;
            reply.operator_key = published.operator_key;
        }
    }
    reply
}

fn limits_message() -> Limits {
    Limits {
        queries_per_batch: limits::QUERIES_PER_FRAME_MAX,
        batches_in_flight: limits::FRAMES_IN_FLIGHT_MAX,
        bundles_per_connection: limits::BUNDLES_PER_CONNECTION,
        deadline_ms: limits::DEADLINE_DEFAULT.as_millis() as u32,
    }
}

struct Pending {
    nonce: String,
    uid: Uid,
    epoch: u64,
    /// Kept for as long as the query is in the schedule, which knows its slot only.
    shard: Arc<Shard>,
    want_hint: bool,
    since: Instant,
    /// Held until the answer is sent.
    _place: Reservation,
}

/// The queries of a stream that are in the queue; those left when the stream ends are taken out.
struct CancelOnDrop<'a> {
    service: &'a Service,
    queue: Queue,
    tickets: Vec<Ticket>,
    waiting: usize,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.waiting > 0 {
            let cancelled = self.queue.cancel(&self.tickets);
            let counters = &self.service.counters;
            counters.queries_cancelled.add(cancelled as u64);
            counters.queries_unclaimed.add((self.waiting - cancelled) as u64);
        }
    }
}

async fn queries(
    service: &Service,
    peer: &Peer,
    request: Request,
    replies: &mut Replies,
) -> Result<(), StreamEnd> {
    let now = Instant::now();
    let frame = match ValidQueries::decode(request.body, &service.shape, Asker::FrontEnd) {
        Ok(frame) => frame,
        Err(malformed) => {
            service.counters.frames_refused.add(Status::Malformed);
            let whole = malformed_reply(service, &malformed);
            return replies.send(ReplyBody::Answer(whole)).await;
        }
    };
    let _answering = peer.activity.asked();
    let state_bytes = (frame.requests.len() + frame.malformed.len()) * limits::QUERY_STATE_BYTES;
    let Some(_state) = service.answers.take(peer.front_end, state_bytes) else {
        // The peer may be slow to read the refusal: nothing of the frame is kept until then.
        drop((frame, request.reading));
        return no_room(service, RequestKind::Queries, replies).await;
    };
    let (outcomes, mut computed) = unbounded_channel();
    let queue = service.queue.clone();
    let mut admitted = CancelOnDrop { service, queue, tickets: Vec::new(), waiting: 0 };
    let mut pending: Vec<Option<Pending>> = Vec::new();
    let mut refused: Vec<PirResponse> = Vec::new();
    for (nonce, malformed) in frame.malformed {
        refused.push(PirResponse { nonce, ..malformed_reply(service, &malformed) });
    }
    for query in frame.requests {
        match refuse_or_submit(service, peer, now, query, pending.len(), &outcomes) {
            Ok((ticket, waiting)) => {
                admitted.tickets.push(ticket);
                admitted.waiting += 1;
                pending.push(Some(waiting));
            }
            Err(reply) => refused.push(*reply),
        }
    }
    drop((outcomes, request.reading));
    for reply in refused {
        send_answer(service, replies, reply).await?;
    }
    let abandoned = replies.abandoned();
    tokio::pin!(abandoned);
    while admitted.waiting > 0 {
        let outcome = tokio::select! {
            outcome = computed.recv() => outcome,
            () = &mut abandoned => return Err(StreamEnd::Abandoned),
        };
        // None: the workers are gone, and with them the queries.
        let (index, outcome) = outcome.ok_or(StreamEnd::Reset(StreamCode::Internal))?;
        admitted.waiting -= 1;
        let asked = pending[index].take().expect("this is a bug: two outcomes of one query");
        let reply = outcome_reply(service, &asked, outcome).await;
        send_answer(service, replies, reply).await?;
        service.counters.answer_time.add(asked.since.elapsed());
    }
    Ok(())
}

async fn send_answer(
    service: &Service,
    replies: &mut Replies,
    reply: PirResponse,
) -> Result<(), StreamEnd> {
    let status = Status::try_from(reply.response_status);
    service.counters.queries.add(status.expect("this is a bug: a status of our own"));
    replies.send(ReplyBody::Answer(reply)).await
}

/// Admits a query, or says in the reply why not.
fn refuse_or_submit(
    service: &Service,
    peer: &Peer,
    now: Instant,
    query: ValidQuery,
    index: usize,
    outcomes: &UnboundedSender<(usize, Outcome)>,
) -> Result<(Ticket, Pending), Box<PirResponse>> {
    let refuse = |status| Box::new(query_reply(service, &query.nonce, query.uid, status));
    if service.draining() {
        return Err(refuse(Status::Draining));
    }
    let found = service.epochs.find(now, query.epoch, query.shard);
    let Found { shard, slot } = found.map_err(|absent| match absent {
        Absent::Epoch => refuse(Status::EpochGone),
        Absent::Shard => refuse(Status::ShardUnknown),
        Absent::Quarantined => Box::new(quarantined(service, *refuse(Status::ShardUnknown))),
    })?;
    let Some(bundle) = service.bundles().get(peer.connection, &query.uid) else {
        return Err(refuse(Status::KeyMissing));
    };
    let wait = |status, wait: Duration| {
        Box::new(PirResponse { retry_after_ms: wait.as_millis() as u32, ..*refuse(status) })
    };
    let shape = &service.shape;
    let hint_bytes = if query.want_hint { shape.packs() * shape.hint_bytes() } else { 0 };
    if let Err(after) = peer.pay_now(service.scan_bytes() + hint_bytes) {
        return Err(wait(Status::Quota, after));
    }
    let answer_bytes = shape.packs() * shape.response_bytes() + hint_bytes;
    let Some(place) = service.answers.take(peer.front_end, answer_bytes) else {
        service.counters.refused_no_answer_room.add(1);
        return Err(wait(Status::Overloaded, limits::RETRY_AFTER_MAX));
    };
    let encrypted = EncryptedQuery { vector: query.vector.clone(), bundle };
    let arrival = Arrival {
        connection: peer.connection,
        front_end: peer.front_end,
        shard: slot,
        scan_bytes: service.scan_bytes() as u64,
        // The bundle too: once it has left the cache, the queries that wait hold it alone.
        bytes: query.vector.len() + encrypted.bundle.held_bytes(),
        deadline: now + query.deadline,
        item: Job { query: encrypted, index, outcomes: outcomes.clone() },
    };
    match service.queue.submit(now, arrival) {
        Ok(ticket) => {
            service.counters.queries_admitted.add(1);
            if hint_bytes > 0 {
                service.queue.charge(peer.front_end, hint_bytes as u64);
            }
            let ValidQuery { nonce, uid, epoch, want_hint, .. } = query;
            let since = now;
            let pending = Pending { nonce, uid, epoch, shard, want_hint, since, _place: place };
            Ok((ticket, pending))
        }
        Err(overloaded) => {
            let counters = &service.counters;
            let counter = match overloaded.full {
                Full::Queue => &counters.refused_queue_full,
                Full::FrontEnd => &counters.refused_front_end_full,
                Full::Connection => &counters.refused_connection_full,
                Full::Time => &counters.refused_too_late,
            };
            counter.add(1);
            Err(wait(Status::Overloaded, overloaded.retry_after))
        }
    }
}

fn query_reply(service: &Service, nonce: &str, uid: Uid, status: Status) -> PirResponse {
    PirResponse {
        nonce: nonce.to_owned(),
        uid: uid.to_string(),
        ..whole_frame_reply(service, status)
    }
}

/// A reply with an empty nonce, to a frame of which no query was read.
fn whole_frame_reply(service: &Service, status: Status) -> PirResponse {
    PirResponse {
        protocol_version: PROTOCOL_VERSION,
        response_status: status.code(),
        epoch: service.epochs.epoch(),
        ..Default::default()
    }
}

fn malformed_reply(service: &Service, malformed: &Malformed) -> PirResponse {
    let detail = malformed.to_string();
    PirResponse { detail, ..whole_frame_reply(service, Status::Malformed) }
}

async fn outcome_reply(service: &Service, pending: &Pending, outcome: Outcome) -> PirResponse {
    let &Pending { ref nonce, uid, epoch, ref shard, want_hint, .. } = pending;
    let reply = |status| query_reply(service, nonce, uid, status);
    let answer = match outcome {
        Outcome::Answered(answer) => answer,
        Outcome::Deadline => return reply(Status::Deadline),
        Outcome::Device => return reply(Status::Device),
        Outcome::Quarantined => return quarantined(service, reply(Status::ShardUnknown)),
    };
    let hint = if want_hint { hint_packs(service, shard).await } else { Ok(Vec::new()) };
    match hint {
        Ok(hint) => PirResponse {
            encrypted_response: answer,
            epoch,
            hint,
            hint_digest: shard.hint_digest().to_vec(),
            ..reply(Status::ResponseSuccess)
        },
        Err(Status::ShardUnknown) => quarantined(service, reply(Status::ShardUnknown)),
        Err(status) => {
            let retry_after_ms = limits::RETRY_AFTER_MAX.as_millis() as u32;
            PirResponse { retry_after_ms, ..reply(status) }
        }
    }
}

fn quarantined(service: &Service, reply: PirResponse) -> PirResponse {
    service.counters.refused_quarantined.add(1);
    PirResponse { detail: QUARANTINED.to_owned(), ..reply }
}

/// The hint of a shard, read on a blocking thread, for the disk may hang; only so many at once.
///
/// # Errors
/// SHARD_UNKNOWN where the file has lost it, OVERLOADED where it did not come in time.
async fn hint_packs(service: &Service, shard: &Arc<Shard>) -> Result<Vec<Vec<u8>>, Status> {
    let reading = async {
        let place = service.hint_reads.clone().acquire_owned().await;
        let (shard, hint_bytes) = (shard.clone(), service.shape.hint_bytes());
        let read = spawn_blocking(move || {
            let packs = shard.hints().chunks_exact(hint_bytes).map(<[u8]>::to_vec).collect();
            let is_whole = shard.is_whole();
            drop(place);
            is_whole.then_some(packs)
        });
        read.await.ok().flatten()
    };
    let read = timeout(limits::HINT_READ_TIME, reading).await;
    // Said when it begins, not for each that asks.
    if service.hints_hang.swap(read.is_err(), Ordering::Relaxed) != read.is_err() {
        match read {
            Ok(_) => tracing::info!("hints are read from the disk again"),
            Err(_) => tracing::error!(
                "a hint was not read within {} s: does the file system hang?",
                limits::HINT_READ_TIME.as_secs()
            ),
        }
    }
    read.map_err(|_| Status::Overloaded)?.ok_or(Status::ShardUnknown)
}

fn hint_reply(service: &Service, shard: u32, status: Status) -> Hint {
    service.counters.hints.add(status);
    let epoch = service.epochs.epoch();
    Hint { shard, epoch, response_status: status.code(), ..Default::default() }
}

async fn hints(
    service: &Service,
    peer: &Peer,
    request: Request,
    replies: &mut Replies,
) -> Result<(), StreamEnd> {
    // Its shards are remembered until the last is sent: their bytes stay counted.
    let Request { body, reading: _reading, .. } = request;
    let request = match decode_hints(body) {
        Ok(request) => request,
        Err(malformed) => {
            let detail = malformed.to_string();
            let reply = Hint { detail, ..hint_reply(service, 0, Status::Malformed) };
            return replies.send(ReplyBody::Hint(reply)).await;
        }
    };
    let _answering = peer.activity.asked();
    let mut patience = limits::QUOTA_WAIT_MAX;
    for shard in request.shards {
        let asked = HintAsked { epoch: request.epoch, shard, digest_only: request.digests_only };
        let (reply, _held) = decide_hint(service, peer, asked, &mut patience, replies).await;
        replies.send(ReplyBody::Hint(reply)).await?;
    }
    Ok(())
}

/// One shard of a request for hints.
#[derive(Clone, Copy)]
struct HintAsked {
    epoch: u64,
    shard: u32,
    /// Whether its digest is enough.
    digest_only: bool,
}

/// The reply for one shard, with the room that it takes until it is sent. Whose quota did not allow
/// one in time does not wait for the next.
async fn decide_hint(
    service: &Service,
    peer: &Peer,
    asked: HintAsked,
    patience: &mut Duration,
    replies: &mut Replies,
) -> (Hint, Option<Reservation>) {
    let HintAsked { epoch, shard: index, digest_only } = asked;
    let refused = |status| (hint_reply(service, index, status), None);
    let damaged = || {
        let reply = hint_reply(service, index, Status::ShardUnknown);
        (Hint { detail: QUARANTINED.to_owned(), ..reply }, None)
    };
    if service.draining() {
        return refused(Status::Draining);
    }
    let shard = match service.epochs.find(Instant::now(), epoch, index) {
        Ok(Found { shard, .. }) => shard,
        Err(Absent::Epoch) => return refused(Status::EpochGone),
        Err(Absent::Shard) => return refused(Status::ShardUnknown),
        Err(Absent::Quarantined) => return damaged(),
    };
    let digest = shard.hint_digest().to_vec();
    let bytes = match digest_only {
        true => digest.len(),
        false => service.shape.packs() * service.shape.hint_bytes(),
    };
    if peer.pay(bytes, *patience).await.is_err() {
        *patience = Duration::ZERO;
        return refused(Status::Quota);
    }
    let reply = |packs| {
        let reply = hint_reply(service, index, Status::ResponseSuccess);
        Hint { packs, digest, epoch, ..reply }
    };
    if digest_only {
        return (reply(Vec::new()), None);
    }
    let Some(held) = replies.room(peer.front_end, bytes).await else {
        return refused(Status::Overloaded);
    };
    let packs = match hint_packs(service, &shard).await {
        Ok(packs) => packs,
        Err(Status::ShardUnknown) => return damaged(),
        Err(status) => return refused(status),
    };
    (reply(packs), Some(held))
}
