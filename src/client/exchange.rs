//! Moves a call's bytes: rounds of hints, bundles and queries until every look-up is finished.
//!
//! A round sends what is ready, collects what comes back undecoded, and asks [`super::retry`]
//! (through [`Call::settle`]) about every look-up that got no answer. Nothing here sees a secret
//! or a decoded value. Queries go out in [`super::sending`]. Read next: [`super::call`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::Client;
use super::call::{Attempt, Call, PreparedQuery, View, Wishes};
use super::error::{ClientError, LookupError, ParameterError};
use super::link::{Link, Traffic, bundle_frame};
use super::net::{End, Exchange, ask};
use super::outage::Unreachable;
use super::report::SentQuery;
use super::retry::{Action, Event, Failure, RequestKind, Via, action, backoff};
use super::sending::Hints;
use crate::limits;
use crate::wire::message::{
    Hint, HintRequest, Limits, PirParameterRequest, PirParameterResponse, PirRequest, ReplyBody,
    Request, RequestBody,
};
use crate::wire::{Bytes, PIR_SCHEME_SOTTO_2, PROTOCOL_VERSION, Status, encode_frame};

/// Bytes of a vector shown in a report.
const HEAD_BYTES: usize = 16;

/// What the server lets one connection do, within our own bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    queries_per_batch: usize,
    pub(super) in_flight: usize,
    bundles: usize,
}

impl Allowance {
    pub(super) fn new(limits: Option<&Limits>) -> Self {
        let within = |found: Option<u32>, max: u32| match found {
            None | Some(0) => 1,
            Some(found) => found.min(max) as usize,
        };
        let of = |field: fn(&Limits) -> u32| limits.map(field);
        Self {
            queries_per_batch: within(of(|l| l.queries_per_batch), limits::QUERIES_PER_FRAME_MAX),
            in_flight: within(of(|l| l.batches_in_flight), limits::FRAMES_IN_FLIGHT_WANTED),
            bundles: within(of(|l| l.bundles_per_connection), limits::BUNDLES_PER_CONNECTION),
        }
    }

    pub(super) fn frame_queries(&self, waiting: usize, query_bytes: usize) -> usize {
        let spread = waiting.div_ceil(self.in_flight).max(limits::FRAME_QUERIES_WANTED);
        let fitting = (limits::FRAME_BYTES_WANTED / query_bytes.max(1)).max(1);
        spread.min(fitting).min(self.queries_per_batch)
    }
}

/// What a round brought for the look-ups that got no answer.
pub(super) type Unanswered = Vec<(usize, Attempt)>;

impl Client {
    /// Runs a call until nothing of it waits, or its time is over.
    pub(super) async fn run(
        &mut self,
        mut call: Call,
        deadline: Instant,
    ) -> Result<Call, ClientError> {
        let longest = self.call_timeout;
        while let Some((at, wave)) = call.wave(self.allowance.bundles, Instant::now()) {
            let attempted = timeout_at(deadline, self.attempt(&mut call, at, wave)).await;
            let wishes = match attempted {
                Ok(Ok(wishes)) => wishes,
                Ok(Err(unreachable)) => {
                    call.give_up(|_| unreachable.clone().into());
                    break;
                }
                Err(_) => {
                    call.give_up(|_| LookupError::CallTimeout { after: longest });
                    break;
                }
            };
            self.go(wishes.via);
            if wishes.refresh {
                let Ok(refreshed) = timeout_at(deadline, self.refresh()).await else { continue };
                call = match refreshed {
                    Ok(view) => {
                        let rebased = super::compute(call, move |mut call, cancelled| {
                            call.rebase(view, cancelled).map(|()| call)
                        });
                        rebased.await??
                    }
                    // What was answered stays answered; these parameters must not be used at all.
                    Err(error @ ClientError::Parameters(_)) => return Err(error),
                    Err(ClientError::Unreachable { tried, last }) => {
                        call.give_up(|_| LookupError::Unreachable { tried, last: last.clone() });
                        call
                    }
                    Err(error) => {
                        let last = error.to_string();
                        call.give_up(|attempts| LookupError::Exhausted {
                            attempts,
                            last: last.clone(),
                        });
                        call
                    }
                };
            }
        }
        Ok(call)
    }

    async fn attempt(
        &mut self,
        call: &mut Call,
        at: Instant,
        wave: Vec<usize>,
    ) -> Result<Wishes, Unreachable> {
        sleep_until(at).await;
        self.reach().await?;
        self.report.rounds += 1;
        let unanswered = self.round(call, wave).await;
        let (now, replicas) = (Instant::now(), self.dialer.replica_count());
        let mut wishes = Wishes::default();
        for (index, attempt) in unanswered {
            wishes = wishes.and(call.settle(index, &attempt, replicas, now));
        }
        Ok(wishes)
    }

    async fn round(&mut self, call: &mut Call, wave: Vec<usize>) -> Unanswered {
        let mut unanswered = Vec::new();
        let before = std::time::Instant::now();
        let (ready, hints) = self.fetch_hints(call, wave, &mut unanswered).await;
        let hints_at = std::time::Instant::now();
        self.report.hint_time += hints_at - before;
        let ready = self.send_bundles(call, ready, &mut unanswered).await;
        let bundles_at = std::time::Instant::now();
        self.report.bundle_time += bundles_at - hints_at;
        self.send_queries(call, &ready, &hints, &mut unanswered).await;
        self.report.answer_time += bundles_at.elapsed();
        unanswered
    }

    /// Fetches the hints that are not held. Back come the look-ups whose hints are there, and the
    /// hints by shard: the cache is bounded and may be smaller than a wave.
    async fn fetch_hints(
        &mut self,
        call: &mut Call,
        wave: Vec<usize>,
        unanswered: &mut Unanswered,
    ) -> (Vec<usize>, Hints) {
        let view = call.view().clone();
        let shard_of = |call: &Call, index: usize| call.sending(index).map(|sending| sending.shard);
        let mut hints = HashMap::new();
        let mut missing = Vec::new();
        for &index in &wave {
            let Some(shard) = shard_of(call, index) else { continue };
            match self.hints.get(&view.digest(shard)) {
                Some(hint) => drop(hints.insert(shard, hint)),
                None => missing.push(shard),
            }
        }
        missing.sort_unstable();
        missing.dedup();
        let mut failed = HashMap::new();
        let requests = missing.chunks(limits::HINTS_PER_REQUEST_MAX as usize).map(|shards| {
            let epoch = view.parameters.epoch();
            let request = HintRequest { epoch, shards: shards.to_vec() };
            let frame = encode_frame(&Request::from(RequestBody::Hints(request)));
            (shards.to_vec(), frame.into(), shards.len())
        });
        for (shards, exchange) in self.gather(requests.collect(), &view).await {
            self.report.bytes_up += exchange.bytes_up;
            self.report.bytes_down += exchange.bytes_down;
            self.report.hint_bytes += exchange.bytes_down;
            self.take_hints(&view, shards, exchange, &mut hints, &mut failed);
        }
        let mut ready = Vec::new();
        for index in wave {
            let Some(shard) = shard_of(call, index) else { continue };
            match (hints.contains_key(&shard), failed.get(&shard)) {
                (true, _) => ready.push(index),
                (false, Some(Some((event, detail)))) => {
                    unanswered.push((index, lost(*event, detail)))
                }
                (false, Some(None)) => call.distrust(index),
                (false, None) => {} // not asked for: the next round does
            }
        }
        (ready, hints)
    }

    /// Sorts the replies to one hint request: kept, failed with an event, or (`None`) forged.
    fn take_hints(
        &mut self,
        view: &View,
        shards: Vec<u32>,
        exchange: Exchange,
        hints: &mut Hints,
        failed: &mut HashMap<u32, Option<(Event, String)>>,
    ) {
        // What the shards without a reply of their own are told.
        let mut rest = ended(&exchange.end);
        for reply in exchange.replies {
            let ReplyBody::Hint(Hint { shard, packs, response_status, detail, .. }) = reply else {
                continue;
            };
            let event = answered(response_status, 0);
            if action(RequestKind::Answer, event, 1, 1) != Action::Keep {
                rest = (event, describe(response_status, &detail));
                failed.insert(shard, Some(rest.clone()));
            } else if shards.contains(&shard) {
                match self.hints.keep(view.digest(shard), &packs) {
                    Some(hint) => {
                        self.report.hints += 1;
                        hints.insert(shard, hint);
                    }
                    None => drop(failed.insert(shard, None)),
                }
            }
        }
        for shard in shards {
            if !hints.contains_key(&shard) {
                failed.entry(shard).or_insert_with(|| Some(rest.clone()));
            }
        }
    }

    /// Sends the bundles this connection has not seen. Back come the look-ups whose bundle is
    /// known: only then is a query under it sent.
    async fn send_bundles(
        &mut self,
        call: &Call,
        wave: Vec<usize>,
        unanswered: &mut Unanswered,
    ) -> Vec<usize> {
        let Some(link) = self.link.clone() else { return Vec::new() };
        let mut users: HashMap<String, Vec<usize>> = HashMap::new();
        let mut missing = Vec::new();
        for &index in &wave {
            let (Some(sending), Some(bundle)) = (call.sending(index), call.bundle(index)) else {
                continue;
            };
            if link.has(&sending.uid) {
                continue;
            }
            let sharing = users.entry(sending.uid.clone()).or_default();
            if sharing.is_empty() {
                missing.push((sending.uid, bundle));
            }
            sharing.push(index);
        }
        let requests = missing.into_iter().map(|(uid, bundle)| {
            let frame = bundle_frame(&uid, bundle);
            (uid, frame, 1)
        });
        for (uid, exchange) in self.gather(requests.collect(), call.view()).await {
            self.count(Traffic::bundle(&exchange));
            let attempt = bundle_reply(exchange);
            if action(RequestKind::Parameters, attempt.event, 1, 1) == Action::Keep {
                link.keeps(&uid);
                continue;
            }
            for &index in users.get(&uid).into_iter().flatten() {
                unanswered.push((index, attempt.clone()));
            }
        }
        let known =
            |index: &usize| call.sending(*index).is_some_and(|sending| link.has(&sending.uid));
        wave.into_iter().filter(known).collect()
    }

    /// Asks several things at once, as many as the server lets us have in flight. When the
    /// connection seems lost, what was not asked yet is not asked over it, and is missing in what
    /// comes back: it waits for the next round.
    async fn gather<T: Send + 'static>(
        &mut self,
        requests: Vec<(T, Bytes, usize)>,
        view: &View,
    ) -> Vec<(T, Exchange)> {
        let Some(link) = &self.link else { return Vec::new() };
        let (shape, wait) = (*view.parameters.shape(), self.answer_timeout);
        let mut asking = JoinSet::new(); // aborts what is left when the call is cancelled
        let mut answered = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter();
        let (mut heard, mut lost) = (false, None);
        loop {
            while lost.is_none() && asking.len() < self.allowance.in_flight {
                let Some((tag, frame, replies)) = requests.next() else { break };
                let link = link.clone();
                asking.spawn(async move {
                    (tag, ask(&link.connection, frame, Some(shape), replies, wait).await)
                });
            }
            let Some(done) = asking.join_next().await else { break };
            let (tag, exchange) = done.expect("this is a bug: asking a server panicked");
            heard |= !exchange.replies.is_empty() || matches!(exchange.end, End::NotAllowed(_));
            if !matches!(exchange.end, End::Finished | End::StreamLost(_)) {
                lost.get_or_insert_with(|| ended(&exchange.end).1);
            }
            answered.push((tag, exchange));
        }
        match lost {
            _ if heard => self.outage.heard(),
            Some(reason) => self.outage.silent(&reason, Instant::now()),
            None => {}
        }
        answered
    }

    /// Sees to it that there is a connection, and tries again until there is one or the outage has
    /// lasted too long. A try that finds no server is no attempt of a look-up: nothing went out.
    async fn reach(&mut self) -> Result<(), Unreachable> {
        let mut tries = 0;
        loop {
            let left = self.outage.left(Instant::now())?;
            let failed = match timeout(left, self.link()).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no address answered".to_owned(),
            };
            let now = Instant::now();
            self.outage.silent(&failed, now);
            tries += 1;
            sleep(backoff(tries).min(self.outage.left(now)?)).await;
        }
    }

    /// The connection in use; a new one where there is none.
    pub(super) async fn link(&mut self) -> Result<Arc<Link>, ClientError> {
        if let Some(link) = self.link.as_ref().filter(|link| link.is_open()) {
            return Ok(link.clone());
        }
        if let Some(silent) = self.link.take_if(|link| link.fell_silent()) {
            self.dialer.begin_with(silent.replica + 1);
        }
        let link = Arc::new(self.dialer.dial().await?);
        self.link = Some(link.clone());
        Ok(link)
    }

    /// Gives the connection up, unless the next bytes go over it too.
    pub(super) fn go(&mut self, via: Via) {
        let Some(link) = self.link.take_if(|_| via != Via::Same) else { return };
        self.dialer.begin_with(link.replica + usize::from(via == Via::Replica));
        if via == Via::Replica {
            let spare = std::mem::take(&mut self.spare);
            let other = spare.get().filter(|spare| spare.replica != link.replica);
            self.link = other.filter(|spare| spare.is_open()).cloned();
        }
        // Not while a frame that was hedged is left to its end on it.
        if Arc::strong_count(&link) == 1 {
            link.close();
        }
    }

    /// Fetches and checks parameters, with retries, and remembers what they pin.
    pub(super) async fn refresh(&mut self) -> Result<Arc<View>, ClientError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            self.reach().await?;
            let (reply, event, detail) = self.ask_parameters().await;
            let replicas = self.dialer.replica_count();
            let action = action(RequestKind::Parameters, event, attempts, replicas);
            let lagging = match (action, reply) {
                (Action::Keep, Some(reply)) => match self.accept(&reply) {
                    // This replica lags behind the others: the next one may not.
                    Err(error) if replicas > 1 && error.is_of_one_replica() => error.to_string(),
                    decided => return Ok(decided?),
                },
                (Action::Resend { via, wait }, _) => {
                    self.go(via);
                    sleep(wait).await;
                    continue;
                }
                (Action::Fail(Failure::NotAllowed), _) => {
                    return Err(ClientError::NotAllowed { reason: detail });
                }
                _ => return Err(ClientError::NoParameters { reason: detail }),
            };
            if attempts >= limits::ATTEMPTS_MAX {
                return Err(ClientError::NoParameters { reason: lagging });
            }
            self.go(Via::Replica);
            sleep(limits::RETRY_WAIT_MIN).await;
        }
    }

    async fn ask_parameters(&mut self) -> (Option<PirParameterResponse>, Event, String) {
        let link = match self.link().await {
            Ok(link) => link,
            Err(error) => return (None, Event::ConnectionLost, error.to_string()),
        };
        let request = Request::from(RequestBody::Parameters(parameter_request(None)));
        let frame = encode_frame(&request).into();
        let exchange = ask(&link.connection, frame, None, 1, self.answer_timeout).await;
        self.report.bytes_up += exchange.bytes_up;
        self.report.bytes_down += exchange.bytes_down;
        match &exchange.end {
            _ if !exchange.replies.is_empty() => self.outage.heard(),
            End::NotAllowed(_) => self.outage.heard(),
            End::TimedOut | End::ConnectionLost(_) => {
                self.outage.silent(&ended(&exchange.end).1, Instant::now());
            }
            _ => {}
        }
        parameter_reply(exchange)
    }

    fn accept(&mut self, reply: &PirParameterResponse) -> Result<Arc<View>, ParameterError> {
        let parameters = self.rules.accept(reply, self.now())?;
        self.allowance = Allowance::new(reply.limits.as_ref());
        let view = Arc::new(View { parameters, digests: reply.hint_digests.clone() });
        self.view = Some(view.clone());
        Ok(view)
    }
}

impl Wishes {
    fn and(self, other: Self) -> Self {
        Self { refresh: self.refresh | other.refresh, via: self.via.max(other.via) }
    }
}

pub(super) fn lost(event: Event, detail: &dyn std::fmt::Display) -> Attempt {
    Attempt { asked: RequestKind::Answer, event, detail: detail.to_string() }
}

pub(super) fn answered(response_status: i32, retry_after_ms: u32) -> Event {
    let retry_after = Duration::from_millis(retry_after_ms.into());
    match Status::try_from(response_status) {
        Ok(status) => Event::Answered { status, retry_after },
        // A status of a later version: the draft's word for "failed".
        Err(_) => Event::Answered { status: Status::ResponseFailure, retry_after },
    }
}

pub(super) fn describe(response_status: i32, detail: &str) -> String {
    let name = match Status::try_from(response_status) {
        Ok(status) => status.name().to_owned(),
        Err(unknown) => unknown.to_string(),
    };
    // What a peer writes is cut to a line's length and shown without control characters.
    let detail: String = detail.chars().filter(|c| !c.is_control()).take(200).collect();
    if detail.is_empty() { name } else { format!("{name} ({detail})") }
}

/// What an exchange that ended like this means for requests without a reply.
pub(super) fn ended(end: &End) -> (Event, String) {
    match end {
        End::Finished => (Event::StreamLost, "the server finished without an answer".into()),
        End::TimedOut => (Event::TimedOut, "no answer in time".into()),
        End::StreamLost(reason) => (Event::StreamLost, format!("stream lost: {reason}")),
        End::ConnectionLost(reason) => {
            (Event::ConnectionLost, format!("connection lost: {reason}"))
        }
        End::NotAllowed(reason) => (Event::NotAllowed, reason.clone()),
    }
}

pub(super) fn parameter_request(bundle: Option<(&str, Arc<[u8]>)>) -> PirParameterRequest {
    let (uid, public_key, want_hint_digests) = match bundle {
        Some((uid, bytes)) => (uid.to_owned(), vec![Bytes::from_owner(bytes)], false),
        None => (String::new(), Vec::new(), true),
    };
    PirParameterRequest {
        protocol_version: PROTOCOL_VERSION,
        nonce: "0".into(),
        uid,
        pir_scheme: PIR_SCHEME_SOTTO_2,
        public_key,
        want_hint_digests,
    }
}

/// What came of asking a server to keep a bundle.
pub(super) fn bundle_reply(exchange: Exchange) -> Attempt {
    let (_, event, detail) = parameter_reply(exchange);
    Attempt { asked: RequestKind::Parameters, event, detail }
}

fn parameter_reply(exchange: Exchange) -> (Option<PirParameterResponse>, Event, String) {
    match exchange.replies.into_iter().next() {
        Some(ReplyBody::Parameters(reply)) => {
            let event = answered(reply.response_status, reply.retry_after_ms);
            let detail = match event {
                Event::Answered { status: Status::SchemeSuggested, .. } => format!(
                    "it speaks pir_scheme {}, this client {PIR_SCHEME_SOTTO_2}: bring both to the \
                     newer version",
                    reply.pir_scheme
                ),
                _ => describe(reply.response_status, &reply.detail),
            };
            (Some(reply), event, detail)
        }
        _ => {
            let (event, detail) = ended(&exchange.end);
            (None, event, detail)
        }
    }
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

pub(super) fn sent_query(sending: &PreparedQuery, response_bytes: usize) -> SentQuery {
    SentQuery {
        shard: sending.shard,
        uid: sending.uid.clone(),
        vector_bytes: sending.vector.len(),
        vector_head: sending.vector[..HEAD_BYTES.min(sending.vector.len())].to_vec(),
        response_bytes,
    }
}
