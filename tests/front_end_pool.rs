//! The front-end's pool against answer servers: real ones, and scripted ones that misbehave.
#![allow(clippy::unwrap_used, missing_docs)]

mod harness;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use prost::Message;
use sotto::client::device::{DeviceBatch, Known, Progress};
use sotto::client::{OperatorKey, Outcome, Pins};
use sotto::discovery::directory::{Directory, RecordKey, Validity, draft};
use sotto::discovery::sealed::lookup::{
    LookupRequest, join, join_answers, split_answers, split_request,
};
use sotto::front_end::placement::{PlacedDatabase, PlacedServer, Placement};
use sotto::front_end::pool::{Pool, PoolError, PoolOptions, Refused};
use sotto::params::ShapeWishes;
use sotto::scheme::pack_digest;
use sotto::wire::message::{PirRequest, PirResponse, ReplyBody, Request, RequestBody};
use sotto::wire::{Bytes, Status, decode_reply, reply_head};
use zeroize::Zeroizing;

use harness::fake::{Change, Database, Fake, Log, Trick};
use harness::{Built, CROWD, PATIENCE, Serving, record, serve, until};

/// A directory with databases of these names and operators.
fn directory(databases: &[(&str, OperatorKey)]) -> Arc<Directory> {
    let root = SigningKey::from_bytes(&[1; 32]);
    let mut content = draft::new(1, vec![root.verifying_key().into()]).unwrap();
    for (n, (id, operator)) in databases.iter().enumerate() {
        let record_key = SigningKey::from_bytes(&[100 + n as u8; 32]).verifying_key();
        let operator = ed25519_dalek::VerifyingKey::from_bytes(&operator.0).unwrap();
        let validity = Validity { from: 1, until: 2 };
        let database = sotto::discovery::directory::Database {
            id: (*id).to_owned(),
            operator_key: operator.into(),
            record_keys: vec![RecordKey { index: 0, key: record_key.into(), validity }],
            blinding_key: None,
            log: None,
            prefixes: Vec::new(),
            region: "EU".into(),
            endpoints: Vec::new(),
        };
        draft::add_database(&mut content, database).unwrap();
    }
    content.version = 1;
    content.expires = UNIX_EPOCH.elapsed().unwrap().as_secs() + 86_400;
    let file = draft::sign(&content, &[root]).unwrap();
    Arc::new(draft::open_unpinned(file.as_bytes()).unwrap())
}

fn placement(id: &str, addresses: &[std::net::SocketAddr]) -> Placement {
    let server = |address: &std::net::SocketAddr| PlacedServer {
        address: address.to_string(),
        name: "localhost".into(),
        ..PlacedServer::default()
    };
    let servers = addresses.iter().map(server).collect();
    Placement {
        databases: vec![PlacedDatabase { id: id.into(), servers, ..PlacedDatabase::default() }],
    }
}

/// Options of a pool whose canaries come after the test.
fn options(ca_pem: &str) -> PoolOptions {
    PoolOptions {
        records_per_shard_min: CROWD,
        canary_mean: Duration::from_secs(3_600),
        ..PoolOptions::new(ca_pem.as_bytes().to_vec())
    }
}

/// A pool over scripted servers of one database.
async fn over(fakes: &[Arc<Fake>], change: impl FnOnce(&mut PoolOptions)) -> Arc<Pool> {
    let authorities: String = fakes.iter().map(|fake| fake.ca_pem()).collect();
    let mut options = options(&authorities);
    change(&mut options);
    let addresses: Vec<_> = fakes.iter().map(|fake| fake.address).collect();
    let directory = directory(&[("fake", fakes[0].operator_key())]);
    let pool = Pool::start(placement("fake", &addresses), directory, options).await.unwrap();
    assert!(pool.is_ready());
    pool
}

/// Scripted servers of one database, each of which is the preferred one of some shard.
fn fakes(count: usize) -> Vec<Arc<Fake>> {
    let database = Arc::new(Database::build(3, 60));
    loop {
        let fakes: Vec<_> = (0..count).map(|_| Fake::start(database.clone())).collect();
        let addresses: Vec<_> = fakes.iter().map(|fake| fake.address).collect();
        let servers = placement("fake", &addresses).databases.remove(0).servers;
        let preferred = |shard| (0..count).max_by_key(|&at| servers[at].score("fake", shard));
        let used: HashSet<_> = (0..3).map(preferred).collect();
        if used.len() == count {
            return fakes;
        }
    }
}

/// A device and its batch, which is sent as often as it takes.
struct Device {
    database: &'static str,
    known: Known,
    batch: DeviceBatch,
}

impl Device {
    fn new(pool: &Pool, database: &'static str, operator: OperatorKey, keys: &[String]) -> Self {
        assert_eq!(keys.len(), 16);
        let pins = Pins::operator(operator).for_database(database).unwrap();
        let mut known = Known::new(pins, 1);
        accept(&mut known, pool, database);
        let batch = encrypt(&known, keys);
        Self { database, known, batch }
    }

    /// A device of the scripted database, whose keys begin with this one.
    fn of(pool: &Pool, fake: &Fake, first: usize) -> Self {
        let keys: Vec<_> = (first..first + 16).map(|n| format!("key-{n}")).collect();
        Self::new(pool, "fake", fake.operator_key(), &keys)
    }

    /// The sealed request, as the gateway has it.
    fn request(&self, pool: &Pool) -> LookupRequest {
        let body = join(self.batch.bundles(), self.batch.batch());
        split_request(body.into(), &pool.shape(self.database).unwrap()).unwrap()
    }

    /// Answers as they cross to the device.
    async fn ask(&self, pool: &Pool) -> Vec<PirResponse> {
        let answers = pool.lookup(self.database, self.request(pool)).await.unwrap();
        let shape = pool.shape(self.database).unwrap();
        split_answers(join_answers(&answers).into(), &shape).unwrap()
    }

    /// Sends the batch until it is done, and says how often that was.
    async fn finish(&mut self, pool: &Pool) -> usize {
        for round in 1.. {
            let answers = self.ask(pool).await;
            match self.batch.take(answers) {
                Progress::Done => return round,
                Progress::Again { wait } => tokio::time::sleep(wait).await,
                Progress::Refresh { wait } => {
                    tokio::time::sleep(wait).await;
                    accept(&mut self.known, pool, self.database);
                    self.batch.renew(&self.known).unwrap();
                }
            }
        }
        unreachable!()
    }

    /// Keys `key-0` to `key-59` are in the scripted database.
    fn open_from(self, first: usize) {
        for (n, outcome) in (first..).zip(self.batch.open()) {
            match outcome.unwrap() {
                Outcome::Found(value) => assert_eq!(value, format!("value {n}").into_bytes()),
                Outcome::Absent => assert!(n >= 60, "key {n} is absent"),
                Outcome::Invalid => panic!("key {n} is invalid"),
            }
        }
    }
}

fn accept(known: &mut Known, pool: &Pool, database: &str) {
    let frame = pool.parameters(database).unwrap();
    let head = reply_head(&frame[..frame.len().min(11)], None).unwrap().unwrap();
    let Some(ReplyBody::Parameters(reply)) = decode_reply(&head, frame, None).unwrap().body else {
        panic!("another reply")
    };
    known.accept(&reply, UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
}

fn encrypt(known: &Known, keys: &[String]) -> DeviceBatch {
    let keys = keys.iter().map(|key| Zeroizing::new(key.clone().into_bytes()));
    DeviceBatch::encrypt(known, keys.collect()).unwrap()
}

/// The value of a sample; of all of that name where there are several.
fn sample(pool: &Pool, name: &str) -> u64 {
    let samples = pool.counters().into_iter().filter(|sample| sample.name == name);
    let values: Vec<u64> = samples.map(|sample| sample.value).collect();
    assert!(!values.is_empty(), "no sample {name}");
    values.iter().sum()
}

/// A sample of one server.
fn of_server(pool: &Pool, name: &str, fake: &Fake) -> u64 {
    let label = ("server", fake.address.to_string());
    let samples = pool.counters();
    let found = samples.iter().find(|s| s.name == name && s.labels.contains(&label));
    found.unwrap_or_else(|| panic!("no sample {name}")).value
}

/// Vectors by uid and shard. A second ciphertext under one of them is the one thing that must never
/// be sent.
fn vectors(logs: &[&Log]) -> HashMap<(String, u32), Bytes> {
    let mut vectors = HashMap::new();
    for query in logs.iter().flat_map(|log| &log.queries) {
        let [vector] = &query.encrypted_vector[..] else { panic!("not one vector") };
        let before = vectors.insert((query.uid.clone(), query.shard), vector.clone());
        assert!(before.is_none_or(|before| before == *vector), "a second ciphertext");
    }
    vectors
}

/// Bundles by uid, each the identical bytes at every sending.
fn bundles(logs: &[&Log]) -> HashSet<String> {
    let mut bundles = HashMap::new();
    for (uid, bytes) in logs.iter().flat_map(|log| &log.bundles) {
        let before = bundles.insert(uid.clone(), bytes.clone());
        assert!(before.is_none_or(|before| before == *bytes), "another bundle of this name");
    }
    bundles.into_keys().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pack_comes_back_right_and_proves_itself() {
    let records: Vec<_> = (0..240).map(record).collect();
    let wishes = ShapeWishes { pack_rows: Some(128), packs: Some(2) };
    let built = Built::with(&records, 4, |options| options.wishes = wishes);
    let serving: Serving = serve(&built.db());
    let directory = directory(&[("main", built.operator_key())]);
    let options = options(&serving.certificates.ca_pem);
    let placement = placement("main", &[serving.address]);
    let pool = Pool::start(placement, directory, options).await.unwrap();
    assert!(pool.is_ready());
    // Twelve that are there and four that are not.
    let keys: Vec<_> = (228..244).map(|n| record(n).0).collect();
    let mut device = Device::new(&pool, "main", built.operator_key(), &keys);
    let shape = pool.shape("main").unwrap();
    assert_eq!((shape.packs(), shape.groups_per_pack()), (2, Some(4)));
    let answers = device.ask(&pool).await;
    let request = device.request(&pool);
    for (query, answer) in request.queries.iter().zip(&answers) {
        assert_eq!(answer.response_status, Status::ResponseSuccess.code());
        assert!(query.pack == 1 || query.pack == 2);
        let ([pack], [hint]) = (&answer.encrypted_response[..], &answer.hint[..]) else {
            panic!("not one pack and its hint")
        };
        assert_eq!((pack.len(), hint.len()), (shape.response_bytes(), shape.hint_bytes()));
        let digests: Vec<_> = answer.pack_digests.chunks(16).collect();
        assert_eq!(digests.len(), 2);
        assert_eq!(digests[query.pack as usize - 1], pack_digest(hint));
        assert_eq!(blake3::hash(&answer.pack_digests).as_bytes()[..16], answer.hint_digest);
    }
    assert_eq!(device.batch.take(answers), Progress::Done);
    for (key, outcome) in keys.iter().zip(device.batch.open()) {
        let there = records.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone());
        match (outcome.unwrap(), there) {
            (Outcome::Found(value), Some(there)) => assert_eq!(value, there),
            (Outcome::Absent, None) => {}
            _ => panic!("another outcome than the records say"),
        }
    }
    // Without hints, and all packs of another pack number than the record's are still answered.
    let batch = encrypt(&device.known, &keys);
    assert!(requests(&batch).iter().all(|request| !request.want_hint));
    let body = join(batch.bundles(), batch.batch());
    let mut request = split_request(body.into(), &shape).unwrap();
    request.queries.iter_mut().for_each(|query| query.pack = 0);
    let answers = pool.lookup("main", request).await.unwrap();
    for answer in answers {
        let sizes = (answer.encrypted_response.len(), answer.hint.len(), answer.pack_digests.len());
        assert_eq!(sizes, (2, 0, 0));
    }
    assert_eq!(sample(&pool, "sotto_pool_queries_answered_total"), 32);
    assert!(sample(&pool, "sotto_pool_hints_fetched_total") <= 4);
    until("all memory is free", || sample(&pool, "sotto_pool_memory_bytes") == 0).await;
}

/// What a batch asks for, read from its frame.
fn requests(batch: &DeviceBatch) -> Vec<PirRequest> {
    let frame = Request::decode_length_delimited(batch.batch()).unwrap();
    let Some(RequestBody::Batch(batch)) = frame.body else { panic!("another frame") };
    batch.requests
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_dies_in_the_middle_loses_nothing() {
    let fakes = fakes(2);
    let pool = over(&fakes, |_| {}).await;
    let mut devices = Vec::new();
    for at in 0..4 {
        devices.push(Device::of(&pool, &fakes[0], 16 * at));
    }
    // It answers three queries of its shards and is gone.
    fakes[0].script(|script| {
        script.queries.extend([Trick::Answer, Trick::Answer, Trick::Answer, Trick::Vanish]);
    });
    let mut asking = tokio::task::JoinSet::new();
    for (at, mut device) in devices.into_iter().enumerate() {
        let pool = pool.clone();
        asking.spawn(async move {
            let rounds = device.finish(&pool).await;
            device.open_from(16 * at);
            rounds
        });
    }
    while let Some(rounds) = asking.join_next().await {
        assert_eq!(rounds.unwrap(), 1, "a device had to ask again");
    }
    let logs = [fakes[0].take_log(), fakes[1].take_log()];
    let logs: Vec<&Log> = logs.iter().collect();
    assert_eq!(vectors(&logs).len(), 64);
    assert_eq!(bundles(&logs).len(), 64);
    let nonces: HashSet<_> =
        logs.iter().flat_map(|log| &log.queries).map(|query| &query.nonce).collect();
    let sent: usize = logs.iter().map(|log| log.queries.len()).sum();
    assert!(nonces.len() == sent && sent > 64, "{sent} queries, {} nonces", nonces.len());
    assert_eq!(of_server(&pool, "sotto_pool_server_healthy", &fakes[0]), 0);
    assert!(pool.is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_bundle_is_brought_again_with_the_identical_query() {
    let fakes = fakes(1);
    let pool = over(&fakes, |_| {}).await;
    let mut device = Device::of(&pool, &fakes[0], 0);
    fakes[0].script(|script| script.queries.extend([Trick::Answer, Trick::Forget]));
    assert_eq!(device.finish(&pool).await, 1);
    device.open_from(0);
    let log = fakes[0].take_log();
    assert_eq!((vectors(&[&log]).len(), bundles(&[&log]).len()), (16, 16));
    assert!(log.bundles.len() > 16 && log.queries.len() > 16);
    // Those after the one that was forgotten found their bundles gone too.
    assert_eq!(log.too_early, log.bundles.len() - 16 - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_gone_is_the_devices_to_know() {
    let fakes = fakes(1);
    let pool = over(&fakes, |_| {}).await;
    let mut device = Device::of(&pool, &fakes[0], 0);
    fakes[0].script(|script| script.queries.extend([Trick::Publish(Change::Epoch)]));
    let answers = device.ask(&pool).await;
    for answer in &answers {
        assert_eq!(answer.response_status, Status::EpochGone.code());
        assert_eq!(answer.epoch, 2);
        assert!(answer.encrypted_response.is_empty() && answer.hint.is_empty());
    }
    let Progress::Refresh { .. } = device.batch.take(answers) else { panic!("no refresh") };
    accept(&mut device.known, &pool, "fake");
    assert_eq!(device.known.parameters().unwrap().epoch(), 2);
    device.batch.renew(&device.known).unwrap();
    assert_eq!(device.finish(&pool).await, 1);
    device.open_from(0);
    let log = fakes[0].take_log();
    assert_eq!((vectors(&[&log]).len(), bundles(&[&log]).len()), (16, 16));
    let epochs: HashSet<u64> = log.queries.iter().map(|query| query.epoch).collect();
    assert_eq!(epochs, HashSet::from([1, 2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lags_is_not_asked_for_an_epoch_that_it_lacks() {
    let fakes = fakes(2);
    fakes[1].publish(Change::Epoch);
    let pool = over(&fakes, |_| {}).await;
    let mut device = Device::of(&pool, &fakes[0], 0);
    assert_eq!(device.known.parameters().unwrap().epoch(), 2);
    assert_eq!(device.finish(&pool).await, 1);
    device.open_from(0);
    assert_eq!(fakes[0].take_log().queries.len(), 0);
    // And one that shows other parameters of the same epoch is not asked at all.
    fakes[0].publish(Change::RibbonSeed(0));
    let before = pool.parameters("fake");
    let mut device = Device::of(&pool, &fakes[0], 0);
    let mut request = device.request(&pool);
    // This looks for a newer epoch at every server.
    request.queries[0].epoch = 9;
    let answers = pool.lookup("fake", request).await.unwrap();
    assert_eq!(answers[0].response_status, Status::EpochGone.code());
    assert_eq!(of_server(&pool, "sotto_pool_server_healthy", &fakes[0]), 0);
    assert_eq!(device.finish(&pool).await, 1);
    device.open_from(0);
    assert_eq!(pool.parameters("fake"), before);
    assert_eq!(fakes[0].take_log().queries.len(), 0);
}

/// Two hosts that have different shards, of which one shows the next epoch.
async fn one_ahead() -> (Vec<Arc<Fake>>, Arc<Pool>) {
    let fakes = fakes(2);
    let mut placement = placement("fake", &[fakes[0].address, fakes[1].address]);
    placement.databases[0].servers[0].shards = Some("0".parse().unwrap());
    placement.databases[0].servers[1].shards = Some("1-2".parse().unwrap());
    fakes[0].publish(Change::Epoch);
    let authorities: String = fakes.iter().map(|fake| fake.ca_pem()).collect();
    let directory = directory(&[("fake", fakes[0].operator_key())]);
    let pool = Pool::start(placement, directory, options(&authorities)).await.unwrap();
    (fakes, pool)
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_asked_for_an_epoch_that_they_answer_before_they_show_it() {
    let (fakes, pool) = one_ahead().await;
    fakes[1].stage();
    let mut device = Device::of(&pool, &fakes[0], 0);
    assert_eq!(device.known.parameters().unwrap().epoch(), 2);
    assert_eq!(device.finish(&pool).await, 1);
    device.open_from(0);
    let asked = fakes[1].take_log().queries;
    assert!(!asked.is_empty() && asked.iter().all(|query| query.epoch == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_behind_is_waited_for_where_no_other_has_the_shard() {
    let (fakes, pool) = one_ahead().await;
    let mut device = Device::of(&pool, &fakes[0], 0);
    let comes = tokio::spawn({
        let behind = fakes[1].clone();
        async move {
            // It is asked, and says that it is behind.
            behind.arrived.acquire().await.unwrap().forget();
            behind.publish(Change::Epoch);
        }
    });
    assert_eq!(device.finish(&pool).await, 1);
    comes.await.unwrap();
    device.open_from(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_find_a_server_that_garbles_and_see_when_it_is_right_again() {
    let fakes = fakes(2);
    fakes[0].script(|script| script.queries.extend([Trick::Scramble; 5_000]));
    let pool = over(&fakes, |options| {
        options.canary_mean = Duration::from_millis(20);
        options.mix_time = Duration::from_millis(5);
    })
    .await;
    let out = |fake| of_server(&pool, "sotto_pool_server_taken_out", fake) == 1;
    until("the server that garbles is taken out", || out(&fakes[0])).await;
    assert!(!out(&fakes[1]) && pool.is_ready());
    let failed = "sotto_pool_canary_queries_failed_total";
    assert!(of_server(&pool, failed, &fakes[0]) >= 2);
    // A device is answered by the other one.
    let mut device = Device::of(&pool, &fakes[0], 0);
    assert_eq!(device.finish(&pool).await, 1);
    device.open_from(0);
    fakes[0].script(|script| script.queries.clear());
    until("the server is asked again", || !out(&fakes[0])).await;
    assert_eq!(of_server(&pool, failed, &fakes[1]), 0);
    let logs = [fakes[0].take_log(), fakes[1].take_log()];
    vectors(&[&logs[0], &logs[1]]);
    bundles(&[&logs[0], &logs[1]]);
    assert_eq!(logs[0].too_early + logs[1].too_early, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn known_keys_find_a_server_that_makes_records_absent() {
    let fakes = fakes(2);
    fakes[0].script(|script| script.queries.extend([Trick::Shift; 5_000]));
    let pool = over(&fakes, |options| {
        options.canary_mean = Duration::from_millis(20);
        options.mix_time = Duration::from_millis(5);
        let key = |n: u64| ("fake".to_owned(), Zeroizing::new(format!("key-{n}").into_bytes()));
        options.canary_keys = (0..20).map(key).collect();
    })
    .await;
    let out = |fake| of_server(&pool, "sotto_pool_server_taken_out", fake) == 1;
    until("the server that shifts is taken out", || out(&fakes[0])).await;
    assert!(!out(&fakes[1]));
    let right = "sotto_pool_canary_queries_right_total";
    until("the other one answers right", || of_server(&pool, right, &fakes[1]) > 20).await;
    assert_eq!(of_server(&pool, "sotto_pool_canary_queries_failed_total", &fakes[1]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_asked_for_their_own_shards_only() {
    let fakes = fakes(2);
    let mut placement = placement("fake", &[fakes[0].address, fakes[1].address]);
    placement.databases[0].servers[0].shards = Some("0".parse().unwrap());
    placement.databases[0].servers[1].shards = Some("1-2".parse().unwrap());
    let authorities: String = fakes.iter().map(|fake| fake.ca_pem()).collect();
    let directory = directory(&[("fake", fakes[0].operator_key())]);
    let pool = Pool::start(placement, directory, options(&authorities)).await.unwrap();
    let mut device = Device::of(&pool, &fakes[0], 0);
    assert_eq!(device.finish(&pool).await, 1);
    device.open_from(0);
    let logs = [fakes[0].take_log(), fakes[1].take_log()];
    assert!(logs[0].queries.iter().all(|query| query.shard == 0) && !logs[0].queries.is_empty());
    assert!(logs[1].queries.iter().all(|query| query.shard != 0) && !logs[1].queries.is_empty());
    assert_eq!(logs[0].queries.len() + logs[1].queries.len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_are_fetched_once_and_within_the_budget() {
    let fakes = fakes(1);
    let hint_bytes = fakes[0].database.shape.packs() * (fakes[0].database.shape.hint_bytes() + 16);
    for budget in [0, hint_bytes, 3 * hint_bytes] {
        let pool = over(&fakes, |options| options.hint_bytes = budget).await;
        let mut asking = tokio::task::JoinSet::new();
        for at in 0..5 {
            let mut device = Device::of(&pool, &fakes[0], at);
            let pool = pool.clone();
            asking.spawn(async move {
                assert_eq!(device.finish(&pool).await, 1);
                device.open_from(at);
            });
        }
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
        assert!(sample(&pool, "sotto_pool_hint_bytes") <= budget as u64);
        assert_eq!(sample(&pool, "sotto_pool_hints"), (budget / hint_bytes) as u64);
        let log = fakes[0].take_log();
        let shards: Vec<u32> =
            log.hints.iter().flat_map(|request| request.shards.clone()).collect();
        if budget == 3 * hint_bytes {
            assert_eq!(shards.len(), 3, "each hint once: {shards:?}");
        }
        let distinct: HashSet<u32> = shards.into_iter().collect();
        assert_eq!(distinct.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_hint_is_never_given_and_another_server_is_asked() {
    let fakes = fakes(2);
    for fake in &fakes {
        fake.script(|script| script.hints.extend([Trick::Scramble]));
    }
    let pool = over(&fakes, |_| {}).await;
    let mut device = Device::of(&pool, &fakes[0], 0);
    // Had a forged hint come, the device would have refused it.
    device.finish(&pool).await;
    device.open_from(0);
    assert!(sample(&pool, "sotto_pool_not_answers_total") >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_of_devices_are_mixed_under_nonces_of_their_own() {
    let fakes = fakes(1);
    let pool = over(&fakes, |options| options.mix_time = Duration::from_secs(1)).await;
    let mut devices = [Device::of(&pool, &fakes[0], 0), Device::of(&pool, &fakes[0], 16)];
    let asked: Vec<String> = devices
        .iter()
        .flat_map(|device| requests(&device.batch))
        .map(|request| request.uid)
        .collect();
    let [one, two] = &mut devices;
    let both = tokio::join!(one.finish(&pool), two.finish(&pool));
    assert_eq!(both, (1, 1));
    let log = fakes[0].take_log();
    let sent: Vec<String> = log.queries.iter().map(|query| query.uid.clone()).collect();
    assert_eq!(sent.iter().collect::<HashSet<_>>(), asked.iter().collect::<HashSet<_>>());
    assert_ne!(sent, asked, "the order is the devices'");
    // By chance all of one device are together once in 300 million.
    let of_first: Vec<bool> = sent.iter().map(|uid| asked[..16].contains(uid)).collect();
    let changes = of_first.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes > 1, "devices are apart: {of_first:?}");
    let nonces: HashSet<_> = log.queries.iter().map(|query| &query.nonce).collect();
    assert_eq!(nonces.len(), 32);
    for query in &log.queries {
        assert_eq!((query.nonce.len(), query.pack, query.want_hint), (16, 0, false));
        assert!((5_000..10_000).contains(&query.deadline_ms), "{}", query.deadline_ms);
    }
    for (at, device) in devices.into_iter().enumerate() {
        device.open_from(16 * at);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_end_a_look_up_and_who_left_is_not_asked_for() {
    let fakes = fakes(1);
    let pool = over(&fakes, |_| {}).await;
    let device = Device::of(&pool, &fakes[0], 0);
    fakes[0].script(|script| script.queries.extend([Trick::Silence]));
    let mut request = device.request(&pool);
    request.queries.iter_mut().for_each(|query| query.deadline = Duration::from_millis(300));
    let answers = tokio::time::timeout(PATIENCE, pool.lookup("fake", request)).await.unwrap();
    for answer in answers.unwrap() {
        assert_eq!(answer.response_status, Status::Deadline.code());
    }
    let log = fakes[0].take_log();
    assert!(log.queries.iter().all(|query| query.deadline_ms <= 300));
    // A device that leaves before its queries go out.
    let gone = Device::of(&pool, &fakes[0], 16);
    let mut leaving = Box::pin(pool.lookup("fake", gone.request(&pool)));
    assert!(poll_once(&mut leaving).await.is_none());
    drop(leaving);
    let mut device = Device::of(&pool, &fakes[0], 32);
    assert_eq!(device.finish(&pool).await, 1);
    assert_eq!(fakes[0].take_log().queries.len(), 16);
    assert_eq!(sample(&pool, "sotto_pool_lookups_in_flight"), 0);
}

/// Polls a future once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    use std::task::Poll;

    std::future::poll_fn(|context| match std::pin::Pin::new(&mut *future).poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_said_as_a_status_or_refused() {
    let fakes = fakes(1);
    let pool = over(&fakes, |_| {}).await;
    let device = Device::of(&pool, &fakes[0], 0);
    let mut request = device.request(&pool);
    request.queries[0].epoch = 0;
    request.queries[1].shard = 3;
    request.bundles.retain(|(uid, _)| *uid != request.queries[2].uid);
    let answers = pool.lookup("fake", request).await.unwrap();
    let statuses: Vec<i32> = answers[..4].iter().map(|answer| answer.response_status).collect();
    let expected =
        [Status::EpochGone, Status::ShardUnknown, Status::KeyMissing, Status::ResponseSuccess];
    assert_eq!(statuses, expected.map(Status::code));
    assert!(answers[..3].iter().all(|answer| answer.epoch == 1));
    // A defect of a device is its own: the others are answered.
    fakes[0].script(|script| script.queries.extend([Trick::Say(Status::Malformed)]));
    let answers = pool.lookup("fake", device.request(&pool)).await.unwrap();
    let malformed =
        answers.iter().filter(|answer| answer.response_status == Status::Malformed.code());
    assert_eq!(malformed.count(), 1);
    assert_eq!(pool.lookup("other", device.request(&pool)).await.err(), Some(Refused::NoDatabase));
    let small = over(&fakes, |options| options.memory_bytes = 20_000).await;
    let refused = small.lookup("fake", device.request(&small)).await.err();
    assert!(matches!(refused, Some(Refused::Overloaded { .. })), "{refused:?}");
    assert_eq!(sample(&small, "sotto_pool_lookups_refused_total"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_starts_without_servers_and_not_against_the_directory() {
    let fakes = fakes(1);
    let key = fakes[0].operator_key();
    let nowhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = nowhere.local_addr().unwrap();
    let start = |id: &str, options| {
        Pool::start(placement(id, &[address]), directory(&[("fake", key)]), options)
    };
    let options = options(fakes[0].ca_pem());
    let other = start("other", options.clone()).await.err();
    assert!(matches!(other, Some(PoolError::NotInDirectory { .. })));
    let canary_keys = vec![("other".to_owned(), Zeroizing::new(b"key".to_vec()))];
    let canaries = start("fake", PoolOptions { canary_keys, ..options.clone() }).await.err();
    assert!(matches!(canaries, Some(PoolError::CanaryDatabase { .. })));
    let canary_mean = Duration::ZERO;
    let mean = start("fake", PoolOptions { canary_mean, ..options.clone() }).await.err();
    assert!(matches!(mean, Some(PoolError::CanaryMean { .. })));
    let pool = start("fake", options).await.unwrap();
    assert!(!pool.is_ready() && pool.parameters("fake").is_none());
    let other = over(&fakes, |_| {}).await;
    let device = Device::of(&other, &fakes[0], 0);
    let refused = pool.lookup("fake", device.request(&other)).await.err();
    assert!(matches!(refused, Some(Refused::NotReady { .. })));
}

/// Another operator's key in the directory than the servers show.
#[tokio::test(flavor = "multi_thread")]
async fn servers_of_another_operator_are_not_asked() {
    let fakes = fakes(1);
    let directory = directory(&[(
        "fake",
        OperatorKey(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes()),
    )]);
    let options = options(fakes[0].ca_pem());
    let pool = Pool::start(placement("fake", &[fakes[0].address]), directory, options).await;
    let pool = pool.unwrap();
    assert!(!pool.is_ready() && pool.parameters("fake").is_none());
}
