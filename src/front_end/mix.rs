//! Where queries of many devices meet: they are collected for a moment, put in random order and
//! sent to answer servers in frames of their own.
//!
//! An answer server sees which shards are asked together. So queries of all devices, of canaries
//! and those that are sent again wait here for each other, together with requests for hints, and
//! none of them goes out in any other way. A query that goes out again is the identical vector
//! under the identical key bundle; nonce and deadline are new each time. What happens after a
//! failure is the table of docs/wire.md ([`action`]); it depends on statuses and connections, for
//! nothing is decoded here. What could only be answered by another query goes back to the device as
//! a [`Refusal`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::bundles::Bundle;
use super::epochs::{Epoch, Epochs, HintDigest};
use super::hints::{Claim, Coming, Hint, Hints};
use super::pool_counters::DatabaseCounters;
use super::replicas::{Link, Server, Verdict};
use crate::client::frames::{Action, Event, FailedAttempt, Heard, Via, action};
use crate::limits;
use crate::scheme::{SecretError, random_bytes, random_permutation};
use crate::wire::message::{
    HintRequest, PirBatch, PirRequest, PirResponse, ReplyBody, Request, RequestBody,
};
use crate::wire::{Bytes, PIR_SCHEME_SOTTO_2, PROTOCOL_VERSION, Status, encode_frame};

/// A database with its servers, and the queue that leads to them.
pub(super) struct PooledDatabase {
    pub(super) id: String,
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) epochs: Arc<Epochs>,
    pub(super) hints: Arc<Hints>,
    pub(super) counters: DatabaseCounters,
    pub(super) mix_time: Duration,
    queue: mpsc::UnboundedSender<Item>,
}

/// The other end of a database's queue.
pub(super) type Queue = mpsc::UnboundedReceiver<Item>;

/// A query for one shard. It is content and has no Debug.
pub(super) struct Query {
    pub(super) shard: u32,
    /// The epoch that the device names.
    pub(super) epoch: Arc<Epoch>,
    pub(super) vector: Arc<[u8]>,
    pub(super) bundle: Arc<Bundle>,
    pub(super) deadline: Instant,
    /// The one server that may answer, for a canary that is asked of it alone.
    pub(super) only: Option<usize>,
    /// Memory that is taken for as long as this exists.
    pub(super) _room: Option<Arc<OwnedSemaphorePermit>>,
}

/// What a server answered, which fits its query by lengths, epoch and digest.
pub(super) struct Answer {
    pub(super) response: PirResponse,
    /// Which of the servers answered.
    pub(super) server: usize,
}

/// Why a query has no answer, as a device is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: Status,
    pub(super) retry_after: Duration,
    pub(super) detail: String,
}

impl Refusal {
    /// No server could answer for now.
    pub(super) fn for_now() -> Self {
        let (status, retry_after) = (Status::Overloaded, limits::POOL_RETRY_AFTER);
        Self { status, retry_after, detail: String::new() }
    }

    /// A status that needs no time and no detail.
    pub(super) fn of(status: Status) -> Self {
        Self { status, retry_after: Duration::ZERO, detail: String::new() }
    }
}

/// A hint that is held or comes.
pub(super) enum Needed {
    Held(Arc<Hint>),
    Coming(Coming),
}

impl Needed {
    /// The hint, if it comes by then.
    pub(super) async fn get(self, deadline: Instant) -> Option<Arc<Hint>> {
        match self {
            Self::Held(hint) => Some(hint),
            Self::Coming(coming) => timeout_at(deadline, coming).await.ok()?.ok(),
        }
    }
}

/// What waits to be sent.
pub(super) enum Item {
    Query(Box<Asked>),
    Hint(Fetching),
}

/// How often and where something was sent.
#[derive(Default)]
struct Tries {
    attempts: u32,
    /// Servers that are not to be asked while there is another.
    tried: Vec<usize>,
}

/// A query with whoever waits for its answer.
pub(super) struct Asked {
    query: Query,
    tries: Tries,
    reply: oneshot::Sender<Result<Answer, Refusal>>,
}

/// A hint that is to be fetched. When this is dropped, whoever waits is told that it does not come.
pub(super) struct Fetching {
    hints: Arc<Hints>,
    digest: HintDigest,
    shard: u32,
    epoch: Arc<Epoch>,
    deadline: Instant,
    tries: Tries,
    is_over: bool,
}

impl Fetching {
    fn keep(mut self, hint: Hint) {
        self.is_over = true;
        self.hints.keep(self.digest, hint);
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if !self.is_over {
            self.hints.fail(self.digest);
        }
    }
}

/// What goes to one server at once, in random order.
#[derive(Default)]
struct Load {
    queries: Vec<Asked>,
    /// By epoch.
    hints: BTreeMap<u64, Vec<Fetching>>,
}

impl PooledDatabase {
    pub(super) fn new(
        id: String,
        servers: Vec<Arc<Server>>,
        epochs: Arc<Epochs>,
        hints: Arc<Hints>,
        mix_time: Duration,
    ) -> (Arc<Self>, Queue) {
        // What devices may have in the queue is bounded by the pool's memory.
        let (queue, items) = mpsc::unbounded_channel();
        let counters = DatabaseCounters::default();
        (Arc::new(Self { id, servers, epochs, hints, counters, mix_time, queue }), items)
    }

    /// Asks a query. When the receiver is dropped before the query goes out, it does not go out.
    pub(super) fn ask(&self, query: Query) -> oneshot::Receiver<Result<Answer, Refusal>> {
        let (reply, answer) = oneshot::channel();
        self.put(Item::Query(Box::new(Asked { query, tries: Tries::default(), reply })));
        answer
    }

    /// The hint of a shard; fetched where it is not held and not on its way. None where there is no
    /// such shard.
    pub(super) fn hint(&self, epoch: &Arc<Epoch>, shard: u32) -> Option<Needed> {
        let digest = epoch.digest(shard)?;
        Some(match self.hints.claim(digest) {
            Claim::Held(hint) => Needed::Held(hint),
            Claim::Wait(coming) => Needed::Coming(coming),
            Claim::Fetch(coming) => {
                self.put(Item::Hint(Fetching {
                    hints: self.hints.clone(),
                    digest,
                    shard,
                    epoch: epoch.clone(),
                    deadline: Instant::now() + limits::DEADLINE_DEFAULT,
                    tries: Tries::default(),
                    is_over: false,
                }));
                Needed::Coming(coming)
            }
        })
    }

    fn put(&self, item: Item) {
        // The queue is gone when the pool is: then nobody waits either.
        let _ = self.queue.send(item);
    }

    fn put_later(self: &Arc<Self>, item: Item, wait: Duration) {
        if wait.is_zero() {
            return self.put(item);
        }
        let database = self.clone();
        tokio::spawn(async move {
            sleep(wait).await;
            database.put(item);
        });
    }

    /// The server that is asked for a shard: the preferred one of those that are healthy, have the
    /// shard and show the epoch, but were not tried. Where none shows it, one may answer it
    /// already.
    fn choose(
        &self,
        shard: u32,
        epoch: u64,
        only: Option<usize>,
        tries: &mut Tries,
    ) -> Option<(usize, Arc<Link>)> {
        let mut able: Vec<_> = self.able(shard, only).collect();
        if able.iter().any(|(_, link)| link.epoch >= epoch) {
            able.retain(|(_, link)| link.epoch >= epoch);
        }
        if able.iter().all(|(at, _)| tries.tried.contains(at)) {
            tries.tried.clear();
        }
        let new = able.into_iter().filter(|(at, _)| !tries.tried.contains(at));
        new.max_by_key(|(at, _)| self.servers[*at].place.score(&self.id, shard))
    }

    fn able(&self, shard: u32, only: Option<usize>) -> impl Iterator<Item = (usize, Arc<Link>)> {
        self.servers.iter().enumerate().filter_map(move |(at, server)| {
            let may = only.map_or_else(|| !server.is_out(), |only| only == at);
            let link = server.link()?;
            (may && server.place.holds(shard)).then_some((at, link))
        })
    }

    /// How many servers have a shard, whether or not they are healthy now.
    fn replicas(&self, shard: u32, only: Option<usize>) -> usize {
        let has = |server: &&Arc<Server>| !server.is_out() && server.place.holds(shard);
        if only.is_some() { 1 } else { self.servers.iter().filter(has).count() }
    }

    /// After how long something goes out again whose attempt failed; none where it does not.
    fn retry(
        &self,
        failed: &FailedAttempt,
        tries: &mut Tries,
        at: usize,
        link: &Link,
        replicas: usize,
    ) -> Option<Duration> {
        tries.attempts += 1;
        let (via, wait) = match action(failed, tries.attempts, replicas.max(1)) {
            Action::Resend { via, wait } => (via, wait),
            // The only one that has the shard will come to the epoch.
            Action::Refresh { .. } if failed.event == Event::Behind => {
                (Via::Same, limits::POOL_LOOK_AGAIN_TIME)
            }
            _ => return None,
        };
        match via {
            Via::Same => {}
            Via::Reconnect => self.servers[at].give_up(&link.traffic),
            Via::Replica if replicas > 1 => tries.tried.push(at),
            Via::Replica => self.servers[at].give_up(&link.traffic),
        }
        self.counters.retries.add(1);
        Some(wait)
    }

    /// A query's attempt failed: it goes out again, or its device is told why not.
    fn settle(self: &Arc<Self>, mut asked: Asked, failed: FailedAttempt, at: usize, link: &Link) {
        let Query { shard, only, deadline, .. } = asked.query;
        let replicas = self.replicas(shard, only);
        if let Some(wait) = self.retry(&failed, &mut asked.tries, at, link, replicas)
            && Instant::now() + wait < deadline
        {
            return self.put_later(Item::Query(Box::new(asked)), wait);
        }
        let refusal = refusal(&failed);
        if refusal.status != Status::EpochGone {
            let _ = asked.reply.send(Err(refusal));
            return;
        }
        // The device will ask for parameters: they are to be the newest by then.
        let server = self.servers[at].clone();
        tokio::spawn(async move {
            server.refresh().await;
            let _ = asked.reply.send(Err(refusal));
        });
    }

    fn settle_hint(
        self: &Arc<Self>,
        mut fetching: Fetching,
        failed: &FailedAttempt,
        at: usize,
        link: &Link,
    ) {
        let replicas = self.replicas(fetching.shard, None);
        if let Some(wait) = self.retry(failed, &mut fetching.tries, at, link, replicas)
            && Instant::now() + wait < fetching.deadline
        {
            self.put_later(Item::Hint(fetching), wait);
        }
    }
}

/// Collects what is asked and sends it out, for as long as the pool lives.
pub(super) async fn mix(database: Arc<PooledDatabase>, mut queue: Queue) {
    while let Some(first) = queue.recv().await {
        let until = Instant::now() + database.mix_time;
        let mut items = vec![first];
        while items.len() < limits::MIX_QUERIES_MAX {
            let Ok(Some(item)) = timeout_at(until, queue.recv()).await else { break };
            items.push(item);
        }
        database.counters.mixed.add(1);
        match random_permutation(items.len()) {
            Ok(order) => send_out(&database, items, &order),
            // Dropped: whoever waits is told to ask again.
            Err(error) => tracing::error!(%error, "queries cannot be put in random order"),
        }
    }
}

/// Groups what was collected by the servers that are asked, in this order.
fn send_out(database: &Arc<PooledDatabase>, items: Vec<Item>, order: &[usize]) {
    let mut items: Vec<Option<Item>> = items.into_iter().map(Some).collect();
    let mut loads: HashMap<usize, (Arc<Link>, Load)> = HashMap::new();
    let now = Instant::now();
    for &next in order {
        let Some(item) = items[next].take() else { continue };
        match item {
            Item::Query(mut asked) => {
                let query = &asked.query;
                if asked.reply.is_closed() {
                    continue;
                }
                if query.deadline <= now {
                    let _ = asked.reply.send(Err(Refusal::for_now()));
                    continue;
                }
                let (shard, epoch) = (query.shard, query.epoch.parameters.epoch());
                match database.choose(shard, epoch, query.only, &mut asked.tries) {
                    Some((at, link)) => {
                        let (_, load) = loads.entry(at).or_insert((link, Load::default()));
                        load.queries.push(*asked);
                    }
                    None => database.put_later(Item::Query(asked), limits::POOL_LOOK_AGAIN_TIME),
                }
            }
            Item::Hint(mut fetching) => {
                if fetching.deadline <= now {
                    continue;
                }
                let epoch = fetching.epoch.parameters.epoch();
                match database.choose(fetching.shard, epoch, None, &mut fetching.tries) {
                    Some((at, link)) => {
                        let (_, load) = loads.entry(at).or_insert((link, Load::default()));
                        load.hints.entry(epoch).or_default().push(fetching);
                    }
                    None => database.put_later(Item::Hint(fetching), limits::POOL_LOOK_AGAIN_TIME),
                }
            }
        }
    }
    for (at, (link, load)) in loads {
        send_load(database, at, &link, load);
    }
}

/// Cuts a load into frames, each with a task of its own.
fn send_load(database: &Arc<PooledDatabase>, at: usize, link: &Arc<Link>, load: Load) {
    for (epoch, mut hints) in load.hints {
        while !hints.is_empty() {
            let rest = hints.split_off(hints.len().min(limits::POOL_HINTS_PER_REQUEST));
            let hints = std::mem::replace(&mut hints, rest);
            tokio::spawn(send_hints(database.clone(), at, link.clone(), epoch, hints));
        }
    }
    let mut queries = load.queries;
    while let Some(first) = queries.first() {
        let query_bytes = first.query.vector.len() + limits::FRAME_OVERHEAD_BYTES;
        let fitting = (limits::FRAME_BYTES_WANTED / query_bytes).max(1);
        let fitting = fitting.min(limits::QUERIES_PER_FRAME_MAX as usize);
        let rest = queries.split_off(queries.len().min(fitting));
        let queries = std::mem::replace(&mut queries, rest);
        tokio::spawn(send_queries(database.clone(), at, link.clone(), queries));
    }
}

/// Sends one frame of queries, its key bundles before it.
async fn send_queries(
    database: Arc<PooledDatabase>,
    at: usize,
    link: Arc<Link>,
    asked: Vec<Asked>,
) {
    let server = &database.servers[at];
    let Ok(_place) = link.traffic.frames_in_flight.acquire().await else { return };
    let asked = bring_bundles(&database, at, &link, asked).await;
    let Ok((frame, mut waiting)) = frame(asked) else { return };
    if waiting.is_empty() {
        return;
    }
    server.counters.frames.add(1);
    server.counters.queries.add(waiting.len() as u64);
    let (replies_max, mut failures) = (waiting.len(), Vec::new());
    let (mut whole, mut heard) = (None, false);
    let mut hear = |event: Heard| {
        let Heard::Reply(ReplyBody::Answer(answer), _) = event else { return };
        heard = true;
        if answer.nonce.is_empty() {
            whole = Some(refused(&answer));
            return;
        }
        let Some(asked) = waiting.remove(&answer.nonce) else { return };
        match checked(&asked.query, answer) {
            // Whoever left needs no answer.
            Ok(response) => drop(asked.reply.send(Ok(Answer { response, server: at }))),
            Err(failed) => {
                let is_none = failed.event == Event::StreamLost;
                server.counters.not_answers.add(u64::from(is_none));
                failures.push((asked, failed));
            }
        }
    };
    let end = link.sender.send(frame, &[], replies_max, &mut hear).await;
    if heard {
        server.heard();
    }
    if !heard || matches!(end.event, Event::ConnectionLost | Event::NotAllowed) {
        server.failed(&link.traffic, &end);
    }
    let end = whole.unwrap_or(end);
    failures.extend(waiting.into_values().map(|asked| (asked, end.clone())));
    for (asked, failed) in failures {
        if let Event::Refused { status: Status::KeyMissing, .. } = failed.event {
            link.traffic.bundles.forget(asked.query.bundle.uid);
        }
        database.settle(asked, failed, at, &link);
    }
}

/// Brings the bundles of queries to their server. Back come the queries whose bundles are there.
async fn bring_bundles(
    database: &Arc<PooledDatabase>,
    at: usize,
    link: &Arc<Link>,
    asked: Vec<Asked>,
) -> Vec<Asked> {
    let (mut names, mut bringing) = (HashSet::new(), JoinSet::new());
    for bundle in asked.iter().map(|asked| &asked.query.bundle) {
        if names.insert(bundle.uid) {
            let (server, link) = (database.servers[at].clone(), link.clone());
            let bundle = bundle.clone();
            bringing.spawn(async move { (bundle.uid, bring(&server, &link, &bundle).await) });
        }
    }
    let mut failures = HashMap::new();
    while let Some(brought) = bringing.join_next().await {
        let (uid, brought) = brought.expect("this is a bug: sending a bundle panicked");
        if let Err(failed) = brought {
            failures.insert(uid, failed);
        }
    }
    let mut ready = Vec::with_capacity(asked.len());
    for asked in asked {
        match failures.get(&asked.query.bundle.uid) {
            Some(failed) => database.settle(asked, failed.clone(), at, link),
            None => ready.push(asked),
        }
    }
    ready
}

async fn bring(server: &Server, link: &Link, bundle: &Bundle) -> Result<(), FailedAttempt> {
    let traffic = &link.traffic;
    let bring = || async {
        let _place = traffic.bundles_in_flight.acquire().await;
        server.counters.bundles.add(1);
        let mut kept = None;
        let mut hear = |event: Heard| {
            if let Heard::Reply(ReplyBody::Parameters(reply), _) = event {
                let success = reply.response_status == Status::SchemeMatched.code();
                let status = (reply.response_status, reply.retry_after_ms);
                kept =
                    Some(if success { Ok(()) } else { Err(refused_with(status, &reply.detail)) });
            }
        };
        let end = link.sender.send(bundle.frame.clone(), &[], 1, &mut hear).await;
        kept.unwrap_or_else(|| {
            server.failed(traffic, &end);
            Err(end)
        })
    };
    traffic.bundles.once(bundle.uid, bring).await
}

/// The frame of these queries, and the queries by the nonces that they have in it. Those of which
/// the time is over are left out, and their devices are told.
fn frame(asked: Vec<Asked>) -> Result<(Bytes, HashMap<String, Asked>), SecretError> {
    let mut nonces = blake3::Hasher::new_keyed(&random_bytes()?).finalize_xof();
    let now = Instant::now();
    let mut waiting = HashMap::with_capacity(asked.len());
    let mut requests = Vec::with_capacity(asked.len());
    for asked in asked {
        let query = &asked.query;
        let left = query.deadline.saturating_duration_since(now).as_millis() as u32;
        if left == 0 {
            let _ = asked.reply.send(Err(Refusal::of(Status::Deadline)));
            continue;
        }
        let mut nonce = [0; 8];
        nonces.fill(&mut nonce);
        let nonce = format!("{:016x}", u64::from_le_bytes(nonce));
        requests.push(PirRequest {
            protocol_version: PROTOCOL_VERSION,
            nonce: nonce.clone(),
            uid: query.bundle.uid.to_string(),
            pir_scheme: PIR_SCHEME_SOTTO_2,
            shard: query.shard,
            encrypted_vector: vec![Bytes::from_owner(query.vector.clone())],
            epoch: query.epoch.parameters.epoch(),
            want_hint: false,
            deadline_ms: left,
            pack: 0, // which pack the device wants is the front-end's to know alone
        });
        waiting.insert(nonce, asked);
    }
    let frame = encode_frame(&Request::from(RequestBody::Batch(PirBatch { requests })));
    Ok((frame.into(), waiting))
}

/// Fetches hints of one epoch.
async fn send_hints(
    database: Arc<PooledDatabase>,
    at: usize,
    link: Arc<Link>,
    epoch: u64,
    fetching: Vec<Fetching>,
) {
    let server = &database.servers[at];
    let Ok(_place) = link.traffic.hints_in_flight.acquire().await else { return };
    let mut waiting: BTreeMap<u32, Fetching> = BTreeMap::new();
    let mut shards = Vec::with_capacity(fetching.len());
    for fetching in fetching {
        shards.push(fetching.shard);
        waiting.insert(fetching.shard, fetching);
    }
    let (replies_max, mut failures, mut heard) = (shards.len(), Vec::new(), false);
    let mut hear = |event: Heard| {
        let Heard::Reply(ReplyBody::Hint(reply), _) = event else { return };
        heard = true;
        let Some(fetching) = waiting.remove(&reply.shard) else { return };
        if reply.response_status != Status::ResponseSuccess.code() {
            let failed = refused_with((reply.response_status, 0), &reply.detail);
            failures.push((fetching, failed.of_epochs(epoch, reply.epoch)));
            return;
        }
        match Hint::verified(fetching.digest, reply.packs) {
            Some(hint) => {
                database.counters.hints_fetched.add(1);
                fetching.keep(hint);
            }
            None => {
                server.counters.not_answers.add(1);
                server.judge(Verdict::Wrong);
                let detail = "a hint that is not the signed one".into();
                // As of a server that does not answer: another one is asked at once.
                failures.push((fetching, FailedAttempt { event: Event::TimedOut, detail }));
            }
        }
    };
    let request =
        Request::from(RequestBody::Hints(HintRequest { epoch, shards, digests_only: false }));
    let frame = encode_frame(&request).into();
    let end = link.sender.send(frame, &[], replies_max, &mut hear).await;
    if heard {
        server.heard();
    }
    if !heard || matches!(end.event, Event::ConnectionLost | Event::NotAllowed) {
        server.failed(&link.traffic, &end);
    }
    failures.extend(waiting.into_values().map(|fetching| (fetching, end.clone())));
    for (fetching, failed) in failures {
        database.settle_hint(fetching, &failed, at, &link);
    }
}

/// A reply of the status success that fits its query in all that needs no secret.
fn checked(query: &Query, answer: PirResponse) -> Result<PirResponse, FailedAttempt> {
    if answer.response_status != Status::ResponseSuccess.code() {
        return Err(refused(&answer).of_epochs(query.epoch.parameters.epoch(), answer.epoch));
    }
    let (parameters, packs) = (&query.epoch.parameters, &answer.encrypted_response);
    let shape = parameters.shape();
    let fits = answer.epoch == parameters.epoch()
        && query.epoch.digest(query.shard).is_some_and(|signed| answer.hint_digest == signed)
        && packs.len() == shape.packs()
        && packs.iter().all(|pack| pack.len() == shape.response_bytes());
    if fits {
        return Ok(answer);
    }
    let detail = "the answer has another epoch, hint digest or length than expected".into();
    Err(FailedAttempt { event: Event::StreamLost, detail })
}

fn refused(answer: &PirResponse) -> FailedAttempt {
    refused_with((answer.response_status, answer.retry_after_ms), &answer.detail)
}

/// A reply of another status than success.
fn refused_with((status, retry_after_ms): (i32, u32), detail: &str) -> FailedAttempt {
    let retry_after = Duration::from_millis(retry_after_ms.into());
    // A status of a later version is a failure of the server.
    let status = Status::try_from(status).unwrap_or(Status::ResponseFailure);
    let detail = detail.chars().filter(|c| !c.is_control()).take(200).collect();
    FailedAttempt { event: Event::Refused { status, retry_after }, detail }
}

/// What the device is told of an attempt that is not repeated here.
fn refusal(failed: &FailedAttempt) -> Refusal {
    match failed.event {
        Event::Refused { status, retry_after } => {
            let is_malformed = status == Status::Malformed;
            let detail = if is_malformed { failed.detail.clone() } else { String::new() };
            Refusal { status, retry_after, detail }
        }
        _ => Refusal::for_now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_the_status_and_never_what_a_server_says_beside_it() {
        let told = |status: i32, detail: &str| refusal(&refused_with((status, 700), detail));
        let malformed = told(22, "uid: found\n5 bytes");
        assert_eq!(
            (malformed.status, &*malformed.detail),
            (Status::Malformed, "uid: found5 bytes")
        );
        let overloaded = told(16, "host 7 is busy");
        assert_eq!((overloaded.status, &*overloaded.detail), (Status::Overloaded, ""));
        assert_eq!(overloaded.retry_after, Duration::from_millis(700));
        assert_eq!(told(99, "").status, Status::ResponseFailure);
        for event in [Event::TimedOut, Event::StreamLost, Event::ConnectionLost, Event::NotAllowed]
        {
            let failed = FailedAttempt { event, detail: "10.0.0.7 is gone".into() };
            assert_eq!(refusal(&failed), Refusal::for_now());
        }
    }
}
