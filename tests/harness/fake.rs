//! A scripted answer server for tests of the client: real QUIC, a real small database, and
//! whatever misbehaviour the script says. It records every bundle and every query it was sent.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use sotto::arith::Isa;
use sotto::client::{Client, ClientError, OperatorKey, Options, Pins, Replica};
use sotto::keyword::locate;
use sotto::keyword::solve::{Record, solve};
use sotto::params::Shape;
use sotto::scheme::{
    KeyBundle, Seed, ShardMasks, bundle_uid, hint_digest, pack_bits, reference, unpack_bits,
};
use sotto::server::certificates::{self, LocalCertificates};
use sotto::wire::message::{
    Hint, HintRequest, Limits, PirBatch, PirParameterRequest, PirParameterResponse, PirRequest,
    PirResponse, Reply, ReplyBody, Request, RequestBody,
};
use sotto::wire::{
    Lifetime, PIR_SCHEME_SOTTO_2, ParameterFields, PublicParameters, SigningKey, Status,
    encode_frame, sign,
};

use super::listen;

/// Records a shard the test databases are shaped for, and what their clients accept.
pub(crate) const RECORDS_PER_SHARD: u64 = 100;
const VALUE_LEN: u32 = 24;
pub(crate) const SEED: Seed = [9; 32];

/// A database, built by the scheme's own functions.
pub(crate) struct Database {
    pub(crate) shape: Shape,
    pub(crate) shard_count: u32,
    shards: Vec<Shard>,
}

struct Shard {
    matrix: Vec<u8>,
    tables: Vec<u8>,
    hints: Vec<u8>,
    ribbon_seed: u32,
}

impl Database {
    /// `records` keys over `shard_count` shards of one small pack each.
    pub(crate) fn build(shard_count: u32, records: usize) -> Self {
        let shape = Shape::for_records(RECORDS_PER_SHARD, VALUE_LEN, Default::default()).unwrap();
        let mut by_shard: Vec<Vec<Record>> = vec![Vec::new(); shard_count as usize];
        for n in 0..records {
            let (key, value) = (format!("key-{n}"), format!("value {n}").into_bytes());
            let place = locate(&SEED, key.as_bytes(), shard_count, shape.groups() as u32);
            let record = Record { group: place.group, identity: place.identity, value };
            by_shard[place.shard as usize].push(record);
        }
        let build = |(shard, records): (usize, &Vec<Record>)| {
            let shard = shard as u32;
            let solved = solve(Isa::detect(), &SEED, shard, &shape, records).unwrap();
            let masks = ShardMasks::new(Isa::detect(), &SEED, shard, &shape);
            let mut tables = vec![0; shape.packs() * shape.table_bytes()];
            let mut hints = vec![0; shape.packs() * shape.hint_bytes()];
            let rows = solved.matrix.chunks_exact(shape.pack_rows() * shape.columns());
            for ((rows, table), hint) in rows
                .zip(tables.chunks_exact_mut(shape.table_bytes()))
                .zip(hints.chunks_exact_mut(shape.hint_bytes()))
            {
                masks.build_pack(rows, table, hint);
            }
            Shard { matrix: solved.matrix, tables, hints, ribbon_seed: solved.ribbon_seed }
        };
        let shards = by_shard.iter().enumerate().map(build).collect();
        Self { shape, shard_count, shards }
    }

    /// The shard of a key.
    pub(crate) fn shard_of(&self, key: &str) -> u32 {
        locate(&SEED, key.as_bytes(), self.shard_count, self.shape.groups() as u32).shard
    }

    fn hint_digest(&self, shard: u32) -> [u8; 16] {
        hint_digest(self.shards[shard as usize].hints.chunks(self.shape.hint_bytes()))
    }

    fn answer(&self, shard: u32, vector: &[u8], bundle: &[u8]) -> Vec<Vec<u8>> {
        let bundle = KeyBundle::decode(bundle, &self.shape).expect("the client's bundle is valid");
        let Shard { matrix, tables, .. } = &self.shards[shard as usize];
        reference::answer(&self.shape, matrix, tables, vector, &bundle)
    }
}

/// What the server does with the next thing of a kind, instead of answering it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trick {
    /// Nothing special.
    Answer,
    /// Replies with a status.
    Say(Status),
    /// Forgets every bundle, then says KEY_MISSING.
    Forget,
    /// Publishes new parameters, then says EPOCH_GONE.
    Publish(Change),
    /// Says nothing and keeps the stream open.
    Silence,
    /// Resets the stream.
    Reset,
    /// Finishes the stream without a reply.
    Finish,
    /// Sends bytes that are no reply.
    Noise,
    /// Closes the connection.
    Close,
    /// Closes every connection and accepts none any more.
    Vanish,
    /// Answers with bytes of the right length and the wrong content.
    Scramble,
    /// Answers with a whole step more in every row: every record is absent, without any noise.
    Shift,
    /// Answers once the test says so ([`Fake::go`]).
    Wait,
}

/// How the parameters of the next epoch differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Only in the epoch.
    Epoch,
    /// In one shard's ribbon seed.
    RibbonSeed(u32),
    /// In the shape: one step wider.
    Wider,
    /// Twice the shards.
    Doubled,
    /// Another seed.
    Seed,
    /// One shard more.
    OneMore,
}

/// Everything the server was sent.
#[derive(Default)]
pub(crate) struct Log {
    /// Every bundle, with the name it was sent under.
    pub(crate) bundles: Vec<(String, Vec<u8>)>,
    /// Every query.
    pub(crate) queries: Vec<PirRequest>,
    /// Every hint request.
    pub(crate) hints: Vec<HintRequest>,
    /// Queries under a bundle whose success had not been answered.
    pub(crate) too_early: usize,
}

/// What is served now.
struct Published {
    parameters: PublicParameters,
    digests: Vec<u8>,
}

/// What the server does next, by kind of request.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) queries: VecDeque<Trick>,
    pub(crate) bundles: VecDeque<Trick>,
    pub(crate) hints: VecDeque<Trick>,
    pub(crate) parameters: VecDeque<Trick>,
    /// How long each reply is held back.
    pub(crate) trickle: Option<Duration>,
}

struct State {
    published: Published,
    /// Whether the next epoch is answered too.
    is_staged: bool,
    known: HashMap<String, Vec<u8>>,
    script: Script,
    log: Log,
    limits: Limits,
}

/// The server.
pub(crate) struct Fake {
    pub(crate) database: Arc<Database>,
    pub(crate) address: SocketAddr,
    signer: SigningKey,
    certificates: LocalCertificates,
    state: Mutex<State>,
    endpoint: quinn::Endpoint,
    /// One permit a query that came.
    pub(crate) arrived: tokio::sync::Semaphore,
    /// One permit a client that said good-bye.
    pub(crate) left: tokio::sync::Semaphore,
    /// One permit a [`Trick::Wait`] that may go on.
    pub(crate) go: tokio::sync::Semaphore,
}

impl Fake {
    pub(crate) fn start(database: Arc<Database>) -> Arc<Self> {
        let certificates = certificates::localhost().unwrap();
        let endpoint = listen::on_loopback(&certificates);
        let limits = Limits {
            queries_per_batch: 1024,
            batches_in_flight: 8,
            bundles_per_connection: 64,
            deadline_ms: 10_000,
        };
        let published = publish(&database, 1, Change::Epoch);
        let (known, script, log) = Default::default();
        let state = State { published, is_staged: false, known, script, log, limits };
        let fake = Arc::new(Self {
            address: endpoint.local_addr().unwrap(),
            signer: SigningKey::from_bytes(&[7; 32]),
            database,
            certificates,
            state: Mutex::new(state),
            endpoint,
            arrived: tokio::sync::Semaphore::new(0),
            left: tokio::sync::Semaphore::new(0),
            go: tokio::sync::Semaphore::new(0),
        });
        tokio::spawn(accept(fake.clone()));
        fake
    }

    /// The authority of its certificate.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.certificates.ca_pem
    }

    pub(crate) fn operator_key(&self) -> OperatorKey {
        OperatorKey(self.signer.verifying_key().to_bytes())
    }

    /// Options for a client that knows `replicas` addresses of this server.
    pub(crate) fn options(&self, replicas: usize) -> Options {
        let replica = Replica::new(self.address, "localhost");
        let ca_pem = self.certificates.ca_pem.clone().into_bytes();
        let mut options =
            Options::new(replica.clone(), ca_pem, Pins::operator(self.operator_key()));
        options.replicas = vec![replica; replicas];
        options.records_per_shard_min = RECORDS_PER_SHARD;
        options
    }

    pub(crate) async fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(self.options(1)).await
    }

    /// Changes what comes next.
    pub(crate) fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.state.lock().unwrap().script);
    }

    pub(crate) fn limit(&self, change: impl FnOnce(&mut Limits)) {
        change(&mut self.state.lock().unwrap().limits);
    }

    /// Answers the next epoch, whose content is the same, before parameters name it.
    pub(crate) fn stage(&self) {
        self.state.lock().unwrap().is_staged = true;
    }

    pub(crate) fn publish(&self, change: Change) {
        let mut state = self.state.lock().unwrap();
        let epoch = state.published.parameters.epoch() + 1;
        state.published = publish(&self.database, epoch, change);
    }

    /// What came so far; begins a new log.
    pub(crate) fn take_log(&self) -> Log {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }
}

fn publish(database: &Database, epoch: u64, change: Change) -> Published {
    let mut ribbon_seeds: Vec<u32> = database.shards.iter().map(|s| s.ribbon_seed).collect();
    let mut digests: Vec<u8> =
        (0..database.shard_count).flat_map(|shard| database.hint_digest(shard)).collect();
    let (mut seed, mut shape) = (SEED, database.shape);
    match change {
        Change::Epoch => {}
        Change::RibbonSeed(shard) => {
            let changed = &mut ribbon_seeds[shard as usize];
            *changed = (*changed + 1 + epoch as u32) % 64;
        }
        Change::Wider => shape = shape.widened().unwrap(),
        Change::Doubled => {
            ribbon_seeds = ribbon_seeds.repeat(2);
            digests = digests.repeat(2);
        }
        Change::Seed => seed = [10; 32],
        Change::OneMore => {
            ribbon_seeds.push(0);
            digests.extend([0; 16]);
        }
    }
    let fields = ParameterFields {
        seed,
        epoch,
        shape,
        record_count: RECORDS_PER_SHARD * ribbon_seeds.len() as u64,
        ribbon_seeds,
        hint_digests_hash: *blake3::hash(&digests).as_bytes(),
        // For ever: what a client does about dates is tested with a real server.
        lifetime: Lifetime { created: 1_700_000_000, expires: u64::MAX },
        database: "fake".into(),
        shard_records_min: RECORDS_PER_SHARD as u32,
        content: [0; 32],
    };
    Published { parameters: PublicParameters::new(fields).unwrap(), digests }
}

async fn accept(fake: Arc<Fake>) {
    while let Some(incoming) = fake.endpoint.accept().await {
        let fake = fake.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((send, receive)) = connection.accept_bi().await {
                tokio::spawn(serve(fake.clone(), connection.clone(), send, receive));
            }
            if let quinn::ConnectionError::ApplicationClosed(_) = connection.closed().await {
                fake.left.add_permits(1);
            }
        });
    }
}

/// Replies to write, and what happens to the stream then.
struct Turn {
    replies: Vec<ReplyBody>,
    end: Trick,
}

async fn serve(
    fake: Arc<Fake>,
    connection: quinn::Connection,
    mut send: quinn::SendStream,
    mut receive: quinn::RecvStream,
) {
    let Ok(bytes) = receive.read_to_end(64 << 20).await else { return };
    let request = Request::decode_length_delimited(&bytes[..]).expect("the client's frame");
    let Turn { replies, end } = match request.body.expect("a request") {
        RequestBody::Parameters(request) => fake.parameters(request),
        RequestBody::Batch(batch) => fake.batch(batch),
        RequestBody::Hints(request) => fake.hints(request),
    };
    if end == Trick::Wait {
        fake.go.acquire().await.expect("the test says so").forget();
    }
    let trickle = fake.state.lock().unwrap().script.trickle;
    for reply in replies {
        if let Some(pause) = trickle {
            tokio::time::sleep(pause).await;
        }
        if send.write_all(&encode_frame(&Reply::from(reply))).await.is_err() {
            return;
        }
    }
    match end {
        Trick::Silence => drop(connection.closed().await), // keeps the stream
        Trick::Reset => drop(send.reset(1u32.into())),
        Trick::Close => connection.close(1u32.into(), b""),
        Trick::Vanish => fake.endpoint.close(1u32.into(), b""),
        Trick::Noise => {
            let _ = send.write_all(&[0xff; 300]).await;
            let _ = send.finish();
        }
        _ => drop(send.finish()),
    }
    let _ = send.stopped().await;
}

/// Whether a trick ends the stream instead of replying.
fn ends_stream(trick: Trick) -> bool {
    use Trick::{Close, Finish, Noise, Reset, Silence, Vanish};
    matches!(trick, Silence | Reset | Finish | Noise | Close | Vanish)
}

impl Fake {
    fn parameters(&self, request: PirParameterRequest) -> Turn {
        let mut state = self.state.lock().unwrap();
        let bundle = request.public_key.first().map(|bytes| bytes.to_vec());
        let trick = match &bundle {
            Some(_) => state.script.bundles.pop_front(),
            None => state.script.parameters.pop_front(),
        };
        let trick = trick.unwrap_or(Trick::Answer);
        if let Some(bytes) = bundle {
            state.log.bundles.push((request.uid.clone(), bytes.clone()));
            assert_eq!(bundle_uid(&bytes), request.uid, "the uid is the content's name");
            if trick == Trick::Answer {
                state.known.insert(request.uid.clone(), bytes);
            }
        }
        if ends_stream(trick) {
            return Turn { replies: Vec::new(), end: trick };
        }
        let status = match trick {
            Trick::Say(status) => status,
            _ => Status::SchemeMatched,
        };
        let parameters = state.published.parameters.encode();
        let digests = if request.want_hint_digests { &state.published.digests[..] } else { &[] };
        let reply = PirParameterResponse {
            protocol_version: 1,
            nonce: request.nonce,
            uid: request.uid,
            response_status: status.code(),
            pir_scheme: match status {
                Status::SchemeSuggested => 16,
                _ => PIR_SCHEME_SOTTO_2,
            },
            signature: sign(&self.signer, &parameters).to_vec().into(),
            parameters: parameters.into(),
            hint_digests: digests.to_vec().into(),
            limits: Some(state.limits),
            retry_after_ms: 0,
            detail: "the script says so".into(),
            operator_key: self.operator_key().0.to_vec().into(),
        };
        Turn { replies: vec![ReplyBody::Parameters(reply)], end: Trick::Answer }
    }

    fn hints(&self, request: HintRequest) -> Turn {
        let mut state = self.state.lock().unwrap();
        state.log.hints.push(request.clone());
        let epoch = state.published.parameters.epoch();
        let mut replies = Vec::new();
        for shard in request.shards {
            let trick = state.script.hints.pop_front().unwrap_or(Trick::Answer);
            if ends_stream(trick) {
                return Turn { replies, end: trick };
            }
            let status = match trick {
                _ if !state.answers(request.epoch) => Status::EpochGone,
                Trick::Say(status) => status,
                _ => Status::ResponseSuccess,
            };
            let held = shard % self.database.shard_count;
            let mut hints = self.database.shards[held as usize].hints.clone();
            let digest = self.database.hint_digest(held).to_vec();
            if trick == Trick::Scramble {
                hints[100] ^= 1; // and the digest it claims stays the signed one
            }
            let mut packs = Vec::new();
            if status == Status::ResponseSuccess {
                let chunks = hints.chunks(self.database.shape.hint_bytes());
                packs = chunks.map(<[u8]>::to_vec).collect();
            }
            let (response_status, detail) = (status.code(), String::new());
            let is_answered = status == Status::ResponseSuccess;
            let epoch = if is_answered { request.epoch } else { epoch };
            let hint = Hint { shard, epoch, packs, digest, response_status, detail };
            replies.push(ReplyBody::Hint(hint));
        }
        Turn { replies, end: Trick::Answer }
    }

    fn batch(&self, batch: PirBatch) -> Turn {
        let mut replies = Vec::new();
        let mut end = Trick::Answer;
        for query in batch.requests {
            let mut state = self.state.lock().unwrap();
            state.log.queries.push(query.clone());
            self.arrived.add_permits(1);
            let trick = state.script.queries.pop_front().unwrap_or(Trick::Answer);
            if ends_stream(trick) {
                return Turn { replies, end: trick };
            }
            if trick == Trick::Wait {
                end = trick;
            }
            let status = state.status_of(&self.database, &query, trick);
            let parameters = &state.published.parameters;
            let shard = query.shard % self.database.shard_count;
            let mut answer = PirResponse {
                protocol_version: 1,
                nonce: query.nonce.clone(),
                uid: query.uid.clone(),
                response_status: status.code(),
                epoch: match status {
                    Status::ResponseSuccess => query.epoch,
                    _ => parameters.epoch(),
                },
                hint_digest: self.database.hint_digest(shard).to_vec(),
                detail: "the script says so".into(),
                ..Default::default()
            };
            let bundle = state.known.get(&query.uid).cloned();
            let same_shape = *parameters.shape() == self.database.shape;
            drop(state);
            if status == Status::ResponseSuccess {
                let shape = &self.database.shape;
                answer.encrypted_response = if trick == Trick::Scramble || !same_shape {
                    vec![vec![0xa5; shape.response_bytes()]; shape.packs()]
                } else {
                    let bundle = bundle.expect("known, by the status");
                    self.database.answer(shard, &query.encrypted_vector[0], &bundle)
                };
                if trick == Trick::Shift {
                    answer.encrypted_response.iter_mut().for_each(|pack| shift(pack, shape));
                }
            }
            replies.push(ReplyBody::Answer(answer));
        }
        Turn { replies, end }
    }
}

/// Adds a whole step to every row of a pack, which adds one to every byte.
fn shift(pack: &mut [u8], shape: &Shape) {
    let bits = shape.response_bits();
    let shifted = |value: u32| (value + (1 << (bits - 8))) & ((1 << bits) - 1);
    let values: Vec<u32> = unpack_bits(pack, bits).take(shape.pack_rows()).map(shifted).collect();
    pack_bits(values.into_iter(), bits, pack);
}

impl State {
    fn answers(&self, epoch: u64) -> bool {
        let published = self.published.parameters.epoch();
        epoch == published || self.is_staged && epoch == published + 1
    }

    fn status_of(&mut self, database: &Database, query: &PirRequest, trick: Trick) -> Status {
        if !self.known.contains_key(&query.uid) {
            self.log.too_early += 1;
        }
        match trick {
            Trick::Say(status) => return status,
            Trick::Forget => self.known.clear(),
            Trick::Publish(change) => {
                let epoch = self.published.parameters.epoch() + 1;
                self.published = publish(database, epoch, change);
            }
            _ => {}
        }
        if !self.answers(query.epoch) {
            return Status::EpochGone;
        }
        match self.known.contains_key(&query.uid) {
            true => Status::ResponseSuccess,
            false => Status::KeyMissing,
        }
    }
}

/// What a test may know of the queries of a log: uid and shard, and how often each was sent.
pub(crate) fn sendings(log: &Log) -> HashMap<(String, u32), usize> {
    let mut sendings = HashMap::new();
    for query in &log.queries {
        *sendings.entry((query.uid.clone(), query.shard)).or_default() += 1;
    }
    sendings
}

/// The distinct uids of a log's queries.
pub(crate) fn uids(log: &Log) -> HashSet<String> {
    log.queries.iter().map(|query| query.uid.clone()).collect()
}
