//! The front-end's side towards answer servers: takes the queries of a device's sealed look-up, has
//! them answered among those of other devices, and gives back one pack of each answer.
//!
//! A query asks an answer server for all packs, so that the server does not learn which one the
//! device wants. The front-end keeps that one. Where the device wants a hint, the front-end adds
//! the pack's hint and the digests of all packs, so that the signed list still proves it. Look-ups
//! end by their deadlines. Nothing is decoded for a device: that needs its secrets.
//!
//! The way of a query: here, then [`super::mix`], with [`super::hints`] beside it.
//! [`super::replicas`] keeps the connections and [`super::canary`] looks after the servers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::bundles::Bundle;
use super::canary::{self, CanaryKey};
use super::epochs::{Epoch, Epochs};
use super::hints::{Hint, Hints};
use super::mix::{self, Answer, Needed, PooledDatabase, Query, Refusal};
use super::placement::{PlacedDatabase, Placement};
pub use super::pool_counters::Sample;
use super::replicas::{Connecting, Server, keep};
use crate::client::{OperatorKey, Options, Pins, PinsError, Replica};
use crate::discovery::directory::Directory;
use crate::discovery::sealed::lookup::LookupRequest;
use crate::limits;
use crate::params::Shape;
use crate::text;
use crate::wire::message::PirResponse;
use crate::wire::{Bytes, PROTOCOL_VERSION, Status, Uid, ValidQuery};

/// Bytes that a permit of the pool's memory stands for.
const PERMIT_BYTES: usize = 1 << 10;

/// How a pool connects and what it may hold. It has a private key and no Debug.
#[derive(Clone)]
pub struct PoolOptions {
    /// Certificates (PEM) of the authorities that may sign those of answer servers.
    pub ca_pem: Vec<u8>,
    /// Certificate chain and private key (PEM) of this front-end.
    pub identity_pem: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    /// Fewest records of a shard, by the signed number of the emptiest.
    pub records_per_shard_min: u64,
    /// Memory for look-ups in flight, in bytes.
    pub memory_bytes: u64,
    /// Memory for hints, in bytes.
    pub hint_bytes: usize,
    /// How long queries are collected.
    pub mix_time: Duration,
    /// How often each server's parameters are fetched.
    pub refresh_time: Duration,
    /// Mean time between two canaries of a database.
    pub canary_mean: Duration,
    /// Keys that must be found.
    pub canary_keys: Vec<CanaryKey>,
    /// By whose time parameters are fresh.
    pub clock: fn() -> SystemTime,
}

impl PoolOptions {
    /// Servers whose certificates these authorities signed; the bounds of [`limits`] for everything
    /// else.
    pub fn new(ca_pem: Vec<u8>) -> Self {
        Self {
            ca_pem,
            identity_pem: None,
            records_per_shard_min: limits::RECORDS_PER_SHARD_ACCEPTED_MIN,
            memory_bytes: limits::POOL_MEMORY_BYTES,
            hint_bytes: limits::POOL_HINT_BYTES,
            mix_time: limits::MIX_TIME,
            refresh_time: limits::POOL_REFRESH_TIME,
            canary_mean: limits::CANARY_MEAN,
            canary_keys: Vec::new(),
            clock: SystemTime::now,
        }
    }

    /// What the pool may hold, in a line for whoever starts it.
    fn budget(&self) -> String {
        let (memory, hints) = (self.memory_bytes, self.hint_bytes as u64);
        format!("look-ups in flight {}, hints {}", text::bytes(memory), text::bytes(hints))
    }
}

/// Why a pool does not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PoolError {
    #[error(
        "the directory has no database {id}, which the placement file names: correct the name, or \
         use a directory that has it"
    )]
    NotInDirectory { id: String },
    #[error("database {id} of the placement file: {error}")]
    Pins { id: String, error: PinsError },
    #[error("the file of canaries names database {id}, which the placement file does not have")]
    CanaryDatabase { id: String },
    #[error("the mean time between canaries is {found:?}, expected more than none and at most 1 h")]
    CanaryMean { found: Duration },
}

/// Why a whole look-up is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Refused {
    #[error("there is no database of this name here")]
    NoDatabase,
    #[error("no answer server of this database is known to work; ask again in {after:?}")]
    NotReady { after: Duration },
    #[error("too many look-ups are in flight; ask again in {after:?}")]
    Overloaded { after: Duration },
}

/// Answer servers of all databases of a placement file. Dropping it ends what it does.
pub struct Pool {
    databases: HashMap<String, Arc<PooledDatabase>>,
    hints: Arc<Hints>,
    memory: Arc<Semaphore>,
    permits: usize,
    in_flight: AtomicUsize,
    /// Aborted when they are dropped.
    _tasks: Mutex<JoinSet<()>>,
}

impl Pool {
    /// Begins to connect to all servers, and waits until each was tried once. Those that do not
    /// answer are tried again for as long as the pool lives.
    ///
    /// # Errors
    /// What the placement file or the options say contradicts the directory.
    pub async fn start(
        placement: Placement,
        directory: Arc<Directory>,
        options: PoolOptions,
    ) -> Result<Arc<Self>, PoolError> {
        if options.canary_mean.is_zero() || options.canary_mean > limits::CANARY_MEAN_MAX {
            return Err(PoolError::CanaryMean { found: options.canary_mean });
        }
        let has = |id: &String| placement.databases.iter().any(|placed| placed.id == *id);
        if let Some((id, _)) = options.canary_keys.iter().find(|(id, _)| !has(id)) {
            return Err(PoolError::CanaryDatabase { id: id.clone() });
        }
        tracing::info!(budget = options.budget(), "the pool may hold this much");
        let hints = Arc::new(Hints::new(options.hint_bytes));
        let mut tasks = JoinSet::new();
        let mut databases = HashMap::new();
        for placed in placement.databases {
            let id = placed.id.clone();
            let pins = pins(&id, &directory)?;
            let database = begin(placed, pins, &options, &hints, &mut tasks);
            databases.insert(id, database);
        }
        let permits = (options.memory_bytes / PERMIT_BYTES as u64) as usize;
        let permits = permits.min(Semaphore::MAX_PERMITS);
        let pool = Self {
            databases,
            hints,
            memory: Arc::new(Semaphore::new(permits)),
            permits,
            in_flight: AtomicUsize::new(0),
            _tasks: Mutex::new(tasks),
        };
        let servers = pool.databases.values().flat_map(|database| &database.servers);
        for_each(servers, |server| async move { server.looked(1).await }).await;
        Ok(Arc::new(pool))
    }

    /// The shape of a database's newest epoch.
    pub fn shape(&self, database: &str) -> Option<Shape> {
        Some(*self.newest(database)?.parameters.shape())
    }

    /// The frame with a database's newest signed parameters: the same bytes for every device.
    pub fn parameters(&self, database: &str) -> Option<Bytes> {
        Some(self.newest(database)?.body.clone())
    }

    fn newest(&self, database: &str) -> Option<Arc<Epoch>> {
        self.databases.get(database)?.epochs.newest()
    }

    /// Whether each database has a server that works.
    pub fn is_ready(&self) -> bool {
        let works = |server: &Arc<Server>| !server.is_out() && server.link().is_some();
        self.databases.values().all(|database| database.servers.iter().any(works))
    }

    /// Answers the queries of a look-up, in their order. A query that has no answer has another
    /// status than success in its place, of which docs/wire.md says what the device does.
    ///
    /// # Errors
    /// The whole look-up is refused.
    pub async fn lookup(
        &self,
        database: &str,
        request: LookupRequest,
    ) -> Result<Vec<PirResponse>, Refused> {
        let database = self.databases.get(database).ok_or(Refused::NoDatabase)?;
        let after = limits::POOL_RETRY_AFTER;
        let newest = database.epochs.newest().ok_or(Refused::NotReady { after })?;
        let bytes = request_bytes(&request, newest.parameters.shape());
        let Some(room) = self.room(bytes) else {
            database.counters.lookups_refused.add(1);
            return Err(Refused::Overloaded { after });
        };
        database.counters.lookups.add(1);
        let _counted = InFlight::begin(&self.in_flight);
        if request.queries.iter().any(|query| query.epoch > newest.parameters.epoch()) {
            // Another front-end has seen an epoch that is not known here yet.
            for_each(&database.servers, |server| async move { server.refresh().await }).await;
        }
        let LookupRequest { bundles, queries } = request;
        let bundle = |(uid, bytes)| (uid, Arc::new(Bundle::new(uid, bytes)));
        let bundles: HashMap<Uid, Arc<Bundle>> = bundles.into_iter().map(bundle).collect();
        let begin = |query| Begun::new(database, query, &bundles, &room);
        let begun: Vec<Begun> = queries.into_iter().map(begin).collect();
        let mut answers = Vec::with_capacity(begun.len());
        for begun in begun {
            answers.push(begun.end(database).await);
        }
        let succeeds =
            |answer: &&PirResponse| answer.response_status == Status::ResponseSuccess.code();
        let answered = answers.iter().filter(succeeds).count();
        database.counters.answered.add(answered as u64);
        database.counters.refused.add((answers.len() - answered) as u64);
        Ok(answers)
    }

    /// A database, for look-ups of the front-end's own.
    pub(super) fn database(&self, id: &str) -> Option<&Arc<PooledDatabase>> {
        self.databases.get(id)
    }

    /// Room for one query of the front-end's own, and for the key bundle that it may need.
    ///
    /// # Errors
    /// There is no such database, no server has shown what it is like, or there is no room.
    pub(super) fn own_room(&self, id: &str) -> Result<Arc<OwnedSemaphorePermit>, Refused> {
        let database = self.databases.get(id).ok_or(Refused::NoDatabase)?;
        let after = limits::POOL_RETRY_AFTER;
        let newest = database.epochs.newest().ok_or(Refused::NotReady { after })?;
        let shape = newest.parameters.shape();
        let answer = shape.packs() * (shape.response_bytes() + 2 * shape.hint_bytes());
        let query = 2 * (shape.query_bytes() + shape.bundle_bytes()) + limits::QUERY_STATE_BYTES;
        self.room(query + answer).ok_or(Refused::Overloaded { after })
    }

    /// Room for a look-up; none while too many are in flight.
    fn room(&self, bytes: usize) -> Option<Arc<OwnedSemaphorePermit>> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).ok()?;
        self.memory.clone().try_acquire_many_owned(permits).map(Arc::new).ok()
    }

    /// Everything that is counted, with the present state.
    pub fn counters(&self) -> Vec<Sample> {
        let sample = |name, help, labels, value| Sample { name, help, labels, value };
        let (hints, hint_bytes) = self.hints.size();
        let used = (self.permits - self.memory.available_permits()) * PERMIT_BYTES;
        let mut samples = vec![
            sample("sotto_pool_hints", "Hints held.", vec![], hints as u64),
            sample("sotto_pool_hint_bytes", "Bytes of hints held.", vec![], hint_bytes as u64),
            sample(
                "sotto_pool_memory_bytes",
                "Memory that look-ups in flight may take now.",
                vec![],
                used as u64,
            ),
            sample(
                "sotto_pool_lookups_in_flight",
                "Look-ups that wait for answers.",
                vec![],
                self.in_flight.load(Ordering::Relaxed) as u64,
            ),
        ];
        for database in self.databases.values() {
            let labels = vec![("database", database.id.clone())];
            samples.extend(database.counters.samples(&labels));
            let newest = database.epochs.newest_number();
            samples.push(sample(
                "sotto_pool_epoch",
                "The newest epoch that devices are given; 0 before there is one.",
                labels.clone(),
                newest,
            ));
            if let Some(epoch) = database.epochs.newest() {
                let help = "When the parameters that devices are given expire, in unix seconds.";
                let expires = epoch.parameters.lifetime().expires;
                let name = "sotto_pool_parameters_expire_seconds";
                samples.push(sample(name, help, labels.clone(), expires));
            }
            for server in &database.servers {
                let mut labels = labels.clone();
                labels.push(("server", server.place.address.clone()));
                samples.extend(server.counters.samples(&labels));
                let healthy = u64::from(server.link().is_some());
                let help = "Whether an answer server is healthy.";
                samples.push(sample("sotto_pool_server_healthy", help, labels.clone(), healthy));
                let out = u64::from(server.is_out());
                let help = "Whether canaries took an answer server out.";
                samples.push(sample("sotto_pool_server_taken_out", help, labels, out));
            }
        }
        samples.sort_by_key(|sample| sample.name); // stable: a family stays together
        samples
    }
}

/// What is known beforehand of a database: its operator's key and its name.
fn pins(id: &str, directory: &Directory) -> Result<Pins, PoolError> {
    let not_there = || PoolError::NotInDirectory { id: id.to_owned() };
    let entry = directory.database(id).ok_or_else(not_there)?;
    let key = OperatorKey(entry.operator_key.verifying_key().to_bytes());
    let pins = Pins::operator(key).for_database(id);
    pins.map_err(|error| PoolError::Pins { id: id.to_owned(), error })
}

/// Starts what a database needs.
fn begin(
    placed: PlacedDatabase,
    pins: Pins,
    options: &PoolOptions,
    hints: &Arc<Hints>,
    tasks: &mut JoinSet<()>,
) -> Arc<PooledDatabase> {
    let PlacedDatabase { id, servers, .. } = placed;
    let epochs = Arc::new(Epochs::new(pins.clone()));
    // The address is each server's own.
    let nowhere = Replica { addresses: Vec::new(), server_name: String::new() };
    let identity = options.identity_pem.as_ref();
    let connecting = Arc::new(Connecting {
        options: Options {
            identity_pem: identity.map(|(chain, key)| (chain.clone(), key.to_vec())),
            records_per_shard_min: options.records_per_shard_min,
            clock: options.clock,
            ..Options::new(nowhere, options.ca_pem.clone(), pins)
        },
        refresh: options.refresh_time,
        retry: limits::POOL_RETRY_TIME,
    });
    let servers: Vec<_> = servers.into_iter().map(|place| Arc::new(Server::new(place))).collect();
    for server in &servers {
        tasks.spawn(keep(server.clone(), epochs.clone(), connecting.clone()));
    }
    let of_this = options.canary_keys.iter().filter(|(database, _)| *database == id);
    let present = of_this.map(|(_, key)| key.clone()).collect::<Vec<_>>();
    let (database, queue) =
        PooledDatabase::new(id, servers, epochs, hints.clone(), options.mix_time);
    tasks.spawn(mix::mix(database.clone(), queue));
    tasks.spawn(canary::run(database.clone(), Arc::new(present), options.canary_mean));
    database
}

/// Does the same for all these servers at once.
async fn for_each<'a, Work: Future<Output = ()> + Send + 'static>(
    servers: impl IntoIterator<Item = &'a Arc<Server>>,
    work: impl Fn(Arc<Server>) -> Work,
) {
    let mut working = JoinSet::new();
    for server in servers {
        working.spawn(work(server.clone()));
    }
    while working.join_next().await.is_some() {}
}

/// Memory that a look-up takes until it is answered: its queries and bundles, and all packs of its
/// answers with the hints that the device wants.
fn request_bytes(request: &LookupRequest, shape: &Shape) -> usize {
    let bundles: usize = request.bundles.iter().map(|(_, bytes)| 2 * bytes.len()).sum();
    let query = |query: &ValidQuery| {
        let hints = if query.want_hint { shape.packs() * shape.hint_bytes() } else { 0 };
        let answer = shape.packs() * shape.response_bytes() + hints;
        // The query once more in its frame.
        2 * query.vector.len() + answer + limits::QUERY_STATE_BYTES
    };
    bundles + request.queries.iter().map(query).sum::<usize>()
}

/// A look-up that is counted until this is dropped.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A device's query that is being answered.
struct Begun {
    nonce: String,
    uid: Uid,
    /// The pack that the device wants, from 1 on; 0 is all of them.
    pack: u32,
    hint: Option<Needed>,
    deadline: Instant,
    answer: ComingAnswer,
}

impl Begun {
    /// Asks the query, or refuses it where no server could answer it.
    fn new(
        database: &PooledDatabase,
        query: ValidQuery,
        bundles: &HashMap<Uid, Arc<Bundle>>,
        room: &Arc<OwnedSemaphorePermit>,
    ) -> Self {
        let ValidQuery { nonce, uid, shard, epoch, vector, pack, want_hint, deadline } = query;
        let deadline = Instant::now() + deadline;
        let asked = || {
            let known = database.epochs.get(epoch);
            let fits = |epoch: &Arc<Epoch>| {
                vector.len() == epoch.parameters.shape().query_bytes()
                    && pack as usize <= epoch.parameters.shape().packs()
            };
            let epoch = known.filter(fits).ok_or(Refusal::of(Status::EpochGone))?;
            if shard >= epoch.parameters.shard_count() {
                return Err(Refusal::of(Status::ShardUnknown));
            }
            let bundle = bundles.get(&uid).ok_or(Refusal::of(Status::KeyMissing))?.clone();
            let hint = want_hint.then(|| database.hint(&epoch, shard)).flatten();
            let room = Some(room.clone());
            let query = Query { shard, epoch, vector, bundle, deadline, only: None, _room: room };
            Ok((database.ask(query), hint))
        };
        let (answer, hint) = match asked() {
            Ok((answer, hint)) => (Ok(answer), hint),
            Err(refusal) => (Err(refusal), None),
        };
        Self { nonce, uid, pack, hint, deadline, answer }
    }

    /// The reply to the device.
    async fn end(self, database: &PooledDatabase) -> PirResponse {
        let Self { nonce, uid, pack, hint, deadline, answer } = self;
        let reply = PirResponse {
            protocol_version: PROTOCOL_VERSION,
            nonce,
            uid: uid.to_string(),
            ..Default::default()
        };
        let latest = deadline + limits::POOL_DEADLINE_GRACE;
        match wait(answer, hint, latest).await {
            Ok((response, hint)) => answered(reply, pack, response, hint.as_deref()),
            Err(Refusal { status, retry_after, detail }) => PirResponse {
                response_status: status.code(),
                epoch: database.epochs.newest_number(),
                retry_after_ms: retry_after.as_millis().try_into().unwrap_or(u32::MAX),
                detail,
                ..reply
            },
        }
    }
}

/// An answer that may still come.
type ComingAnswer = Result<oneshot::Receiver<Result<Answer, Refusal>>, Refusal>;

/// Waits for a server's answer and for the hint.
async fn wait(
    answer: ComingAnswer,
    hint: Option<Needed>,
    latest: Instant,
) -> Result<(PirResponse, Option<Arc<Hint>>), Refusal> {
    let answer = timeout_at(latest, answer?).await;
    let answer = answer.map_err(|_| Refusal::of(Status::Deadline))?;
    let Answer { response, .. } = answer.map_err(|_| Refusal::for_now())??;
    let Some(hint) = hint else { return Ok((response, None)) };
    let hint = hint.get(latest).await.ok_or_else(Refusal::for_now)?;
    Ok((response, Some(hint)))
}

/// The part of a server's answer and of the hint that the device wants.
fn answered(
    reply: PirResponse,
    pack: u32,
    response: PirResponse,
    hint: Option<&Hint>,
) -> PirResponse {
    let chosen = |packs: &[Vec<u8>]| match (pack as usize).checked_sub(1) {
        Some(pack) => vec![packs[pack].clone()],
        None => packs.to_vec(),
    };
    // Whoever has all packs of a hint makes the digests himself.
    let digests = hint.filter(|_| pack > 0).map(|hint| hint.pack_digests.clone());
    PirResponse {
        response_status: Status::ResponseSuccess.code(),
        epoch: response.epoch,
        encrypted_response: chosen(&response.encrypted_response),
        hint_digest: response.hint_digest,
        hint: hint.map(|hint| chosen(hint.packs())).unwrap_or_default(),
        pack_digests: digests.unwrap_or_default(),
        ..reply
    }
}
