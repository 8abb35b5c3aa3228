//! The rule everything rests on, checked on recorded bytes: a (secret, seed, shard) encrypts one
//! selection once, ever. A scripted server answers with every status of docs/wire.md, "Retries",
//! loses streams and connections, changes epoch, ribbon seed, shape and shard count, forges hints;
//! the real client is driven through each, and then every byte it sent is looked at.

#![allow(clippy::unwrap_used)]

mod harness;
#[path = "once_only/hedging.rs"]
mod hedging;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use harness::fake::{Change, Database, Fake, Log, RECORDS_PER_SHARD, SEED, Trick, sendings, uids};
use harness::{Draw, seed};
use sotto::arith::{Isa, Rings, sub};
use sotto::client::{Client, ClientError, LookupError, OperatorKey, Options, Outcome, Pins};
use sotto::keyword::locate;
use sotto::limits;
use sotto::params::{Q, Shape};
use sotto::scheme::{KeyBundle, SecretPool, Selection, Sharing};
use sotto::wire::Status;

/// More shards than one secret serves.
const SHARDS: u32 = 20;
const RECORDS: usize = 300;

async fn started() -> Arc<Fake> {
    static DATABASE: std::sync::OnceLock<Arc<Database>> = std::sync::OnceLock::new();
    let database = DATABASE.get_or_init(|| Arc::new(Database::build(SHARDS, RECORDS)));
    Fake::start(database.clone())
}

async fn connected() -> (Arc<Fake>, Client) {
    let fake = started().await;
    let client = fake.connect().await.unwrap();
    (fake, client)
}

/// The shape of the scripted server's database.
fn shape() -> Shape {
    Shape::for_records(RECORDS_PER_SHARD, 24, Default::default()).unwrap()
}

/// Present and absent keys in turn.
fn keys(count: usize) -> Vec<String> {
    let key = |n| if n % 2 == 0 { format!("key-{n}") } else { format!("nobody-{n}") };
    (0..count).map(key).collect()
}

fn expected(key: &str) -> Outcome {
    match key.strip_prefix("key-") {
        Some(n) => Outcome::Found(format!("value {n}").into_bytes()),
        None => Outcome::Absent,
    }
}

/// Looks all up and expects the truth.
async fn look_up(client: &mut Client, keys: &[String]) {
    assert_eq!(answered(client, keys, |error| panic!("{error}")).await, keys.len());
}

/// The same, and checks what was sent for it.
async fn look_up_once_only(fake: &Fake, client: &mut Client, keys: &[String]) -> Log {
    look_up(client, keys).await;
    checked_log(fake)
}

/// Looks all up and counts those that are answered, each with the truth. The others are `failed`.
async fn answered(client: &mut Client, keys: &[String], failed: impl Fn(LookupError)) -> usize {
    let mut answered = 0;
    for (key, outcome) in keys.iter().zip(client.lookup(keys).await.unwrap()) {
        match outcome {
            Ok(outcome) => {
                assert!(outcome == expected(key), "{key}");
                answered += 1;
            }
            Err(error) => failed(error),
        }
    }
    answered
}

/// What came so far, checked.
fn checked_log(fake: &Fake) -> Log {
    let log = fake.take_log();
    check_once_only(&log);
    log
}

/// The rule, on everything a server was sent.
fn check_once_only(log: &Log) {
    let mut vectors: BTreeMap<(&str, u32), BTreeSet<&[u8]>> = BTreeMap::new();
    for query in &log.queries {
        let [vector] = &query.encrypted_vector[..] else { panic!("one vector a query") };
        vectors.entry((&query.uid, query.shard)).or_default().insert(vector);
    }
    let mut shards: BTreeMap<&str, usize> = BTreeMap::new();
    for ((uid, shard), distinct) in &vectors {
        assert_eq!(distinct.len(), 1, "two ciphertexts for shard {shard} under {uid}");
        *shards.entry(uid).or_default() += 1;
    }
    assert!(shards.values().all(|&count| count <= limits::QUERIES_PER_SECRET_MAX), "{shards:?}");
    let mut bundles: BTreeMap<&str, &[u8]> = BTreeMap::new();
    for (uid, bytes) in &log.bundles {
        assert_eq!(*bundles.entry(uid).or_insert(bytes), bytes, "two bundles under one name");
    }
    assert_eq!(log.too_early, 0, "a query before its bundle was answered with success");
    let sent: Vec<_> = vectors.iter().map(|((_, shard), v)| (*shard, v)).collect();
    for (at, (shard, vector)) in sent.iter().enumerate() {
        for (_, other) in sent[..at].iter().filter(|(other, _)| other == shard) {
            let (a, b) = (vector.first().unwrap(), other.first().unwrap());
            assert!(!same_secret(a, b), "two names, one secret: shard {shard} twice");
        }
    }
    let bundles: Vec<_> = bundles.values().collect();
    for (at, bundle) in bundles.iter().enumerate() {
        for other in &bundles[..at] {
            assert!(!same_bundle_secret(bundle, other), "two bundles of one secret");
        }
    }
}

/// Whether two vectors for one shard are under one secret: then the masks cancel, and what is
/// left of most columns is a small error and perhaps a selected bit (a multiple of 2^16).
fn same_secret(a: &[u8], b: &[u8]) -> bool {
    let value = |bytes: &[u8]| u32::from(bytes[0]) | u32::from(bytes[1]) << 8;
    let near = |(a, b): (&[u8], &[u8])| {
        let low = value(a).wrapping_sub(value(b)) as u16;
        low.wrapping_add(8) < 16
    };
    let columns = a.len().min(b.len()) / 3;
    a.chunks_exact(3).zip(b.chunks_exact(3)).filter(|&pair| near(pair)).count() > columns / 2
}

/// The same for key g of two bundles: what is left after the mask is the difference of two errors.
fn same_bundle_secret(a: &[u8], b: &[u8]) -> bool {
    let shape = shape();
    let [a, b] = [a, b].map(|bytes| KeyBundle::decode(bytes, &shape).unwrap());
    let mut difference = sotto::arith::zero_poly();
    for (to, (&a, &b)) in difference.iter_mut().zip(a.half(0, 0).iter().zip(b.half(0, 0))) {
        *to = sub::<Q>(a, b);
    }
    Rings::get(Isa::PORTABLE).q.inverse(&mut difference);
    let small = difference.iter().filter(|&&c| !(100..=Q - 100).contains(&c)).count();
    small > difference.len() / 2
}

#[test]
fn the_checks_can_fail() {
    let shape = shape();
    let one = || {
        let mut pool = SecretPool::new(SEED, shape);
        let query = pool.encrypt(&[(3, Selection::new(5, 77))], Sharing::Shared).unwrap()[0];
        (pool.vector(query).unwrap(), pool.bundle(query).unwrap().1)
    };
    let (a, bundle) = one();
    // A second encryption of another selection, as a broken client would make it: the difference
    // of the selections is added to the stored bytes, with a little noise.
    let mut b = a.to_vec();
    b[3 * 20 + 2] ^= 1;
    b[0] ^= 1;
    assert!(same_secret(&a, &b));
    let (c, other) = one();
    assert!(!same_secret(&a, &c));
    // The keys of these tests need more than one secret.
    let place = |key: &String| locate(&SEED, key.as_bytes(), SHARDS, shape.groups() as u32).shard;
    let shards: BTreeSet<u32> = keys(60).iter().map(place).collect();
    assert!(shards.len() > limits::QUERIES_PER_SECRET_MAX);
    assert!(same_bundle_secret(&bundle, &bundle) && !same_bundle_secret(&bundle, &other));
}

#[tokio::test]
async fn an_undisturbed_call_sends_everything_once_and_nothing_for_an_empty_key() {
    let (fake, mut client) = connected().await;
    let with_empty = [&keys(60)[..], &[String::new()]].concat();
    let empty = |error: LookupError| assert_eq!(error, LookupError::KeyEmpty);
    assert_eq!(answered(&mut client, &with_empty, empty).await, 60);
    let log = checked_log(&fake);
    assert_eq!(log.queries.len(), 60);
    assert!(sendings(&log).values().all(|&times| times == 1));
    assert_eq!(log.bundles.len(), uids(&log).len());
    // The second call draws new secrets, and needs no hint again.
    look_up(&mut client, &keys(60)).await;
    let second = fake.take_log();
    assert!(uids(&log).is_disjoint(&uids(&second)));
    assert!(second.hints.is_empty() && !log.hints.is_empty());
    let mut both = log;
    both.queries.extend(second.queries);
    both.bundles.extend(second.bundles);
    check_once_only(&both);
}

#[tokio::test]
async fn every_status_that_passes_brings_identical_bytes() {
    let fake = started().await;
    let keys = keys(24);
    let passes = |status: &Status| status.code() >= 16 && *status != Status::Malformed;
    for status in Status::ALL.into_iter().filter(passes) {
        let mut client = Client::connect(fake.options(2)).await.unwrap();
        fake.script(|script| script.queries = [Trick::Say(status); 7].into());
        let log = look_up_once_only(&fake, &mut client, &keys).await;
        // 7 went out twice, none three times: 24 look-ups, 31 queries.
        assert_eq!((sendings(&log).len(), log.queries.len()), (24, 31), "{status:?}");
    }
    for status in [Status::Overloaded, Status::Quota, Status::Draining, Status::Device] {
        let mut client = Client::connect(fake.options(2)).await.unwrap();
        fake.script(|script| {
            script.bundles.push_back(Trick::Say(status));
            script.hints.push_back(Trick::Say(status));
        });
        let log = look_up_once_only(&fake, &mut client, &keys).await;
        assert_eq!(log.queries.len(), 24, "{status:?}");
        assert!(log.bundles.len() > uids(&log).len(), "{status:?}");
    }
}

#[tokio::test]
async fn a_forgotten_bundle_is_sent_again_byte_for_byte() {
    let (fake, mut client) = connected().await;
    let keys = keys(24);
    fake.script(|script| script.queries.push_back(Trick::Forget));
    look_up(&mut client, &keys).await;
    let log = fake.take_log();
    let times = |uid: &String| log.bundles.iter().filter(|(name, _)| name == uid).count();
    assert!(uids(&log).iter().all(|uid| times(uid) == 2));
    // What came between the loss and the second bundle was early through no fault of the client.
    let log = Log { too_early: 0, ..log };
    check_once_only(&log);
}

#[tokio::test]
async fn lost_streams_lost_connections_and_silence_bring_identical_bytes() {
    let fake = started().await;
    let keys = keys(40);
    for trick in [Trick::Reset, Trick::Finish, Trick::Noise, Trick::Close, Trick::Silence] {
        for replicas in [1, 2] {
            let answer_timeout = match trick {
                Trick::Silence => Duration::from_secs(1), // what is waited for here
                _ => limits::ANSWER_TIMEOUT,
            };
            let options = Options { answer_timeout, ..fake.options(replicas) };
            let mut client = Client::connect(options).await.unwrap();
            fake.script(|script| {
                script.hints.extend([Trick::Answer, trick]);
                script.bundles.extend([Trick::Answer, trick]);
                script.queries.extend([Trick::Answer, trick, Trick::Answer, Trick::Answer, trick]);
            });
            let log = look_up_once_only(&fake, &mut client, &keys).await;
            assert_eq!(sendings(&log).len(), 40, "{trick:?}");
            assert!(sendings(&log).values().any(|&times| times > 1), "{trick:?}");
        }
    }
}

/// Secrets that were drawn again, by comparing the shards asked under two epochs.
fn fresh(log: &Log) -> HashMap<u32, usize> {
    let old: BTreeSet<_> =
        log.queries.iter().filter(|q| q.epoch == 1).map(|q| (&q.uid, q.shard)).collect();
    let mut fresh = HashMap::new();
    for query in log.queries.iter().filter(|query| query.epoch == 2) {
        if !old.contains(&(&query.uid, query.shard)) {
            *fresh.entry(query.shard).or_default() += 1;
        }
    }
    fresh
}

#[tokio::test]
async fn a_new_ribbon_seed_draws_a_new_secret_for_that_shard_alone() {
    let (fake, mut client) = connected().await;
    let keys = keys(60);
    let shard = fake.database.shard_of(&keys[4]);
    let there = keys.iter().filter(|key| fake.database.shard_of(key) == shard).count();
    fake.script(|script| script.queries.push_back(Trick::Publish(Change::RibbonSeed(shard))));
    let outcomes = client.lookup(&keys).await.unwrap();
    for (key, outcome) in keys.iter().zip(outcomes) {
        // The shard's content did not change with the published seed: its keys are not there.
        let moved = fake.database.shard_of(key) == shard;
        let expected = if moved { Outcome::Absent } else { expected(key) };
        assert!(outcome.unwrap() == expected, "{key}");
    }
    let log = checked_log(&fake);
    assert_eq!(fresh(&log), HashMap::from([(shard, there)]));
    // A bundle of its own for each.
    let bundles: BTreeSet<_> = log.bundles.iter().map(|(uid, _)| uid).collect();
    let before: BTreeSet<_> = log.queries.iter().filter(|q| q.epoch == 1).map(|q| &q.uid).collect();
    assert_eq!(bundles.len(), before.len() + there);
}

#[tokio::test]
async fn a_new_epoch_keeps_the_bytes_and_a_new_shape_or_shard_count_draws_new_secrets_for_all() {
    let changes = [
        (Change::Epoch, 0, SHARDS),
        (Change::Wider, 40, SHARDS),
        (Change::Doubled, 40, 2 * SHARDS),
    ];
    for (change, drawn, shard_count) in changes {
        let (fake, mut client) = connected().await;
        let keys = keys(40);
        fake.script(|script| script.queries.push_back(Trick::Publish(change)));
        let outcomes = client.lookup(&keys).await.unwrap();
        for (key, outcome) in keys.iter().zip(outcomes).filter(|_| change == Change::Epoch) {
            assert!(outcome.unwrap() == expected(key), "{key}");
        }
        let log = checked_log(&fake);
        let epochs: BTreeSet<u64> = log.queries.iter().map(|query| query.epoch).collect();
        assert_eq!(epochs, BTreeSet::from([1, 2]), "{change:?}");
        assert_eq!(
            (sendings(&log).len(), fresh(&log).values().sum::<usize>()),
            (40 + drawn, drawn)
        );
        assert_eq!((client.pins().epoch(), client.pins().shard_count()), (2, shard_count));
    }
}

#[tokio::test]
async fn parameters_that_would_single_out_end_the_call_undecoded() {
    let fake = started().await;
    let refused = [
        (Change::Seed, "another seed than before"),
        (Change::OneMore, "has 21 shards, expected 20"),
    ];
    for (change, said) in refused {
        let mut client = fake.connect().await.unwrap();
        fake.take_log();
        fake.script(|script| script.queries.push_back(Trick::Publish(change)));
        let error = client.lookup(&keys(40)).await.err().expect("a refusal");
        assert!(matches!(error, ClientError::Parameters(_)) && error.to_string().contains(said));
        let log = checked_log(&fake);
        assert!(log.queries.iter().all(|query| query.epoch == log.queries[0].epoch));
        fake.publish(Change::Epoch); // as it was, for the next one
    }
}

#[tokio::test]
async fn a_server_of_the_first_scheme_is_told_by_its_number() {
    let fake = started().await;
    fake.script(|script| script.parameters.push_back(Trick::Say(Status::SchemeSuggested)));
    let error = fake.connect().await.err().expect("a refusal").to_string();
    assert!(error.contains("pir_scheme 16, this client 17"), "{error}");
}

/// One look-up of many is called malformed or cannot be decoded. Neither is tried again.
#[tokio::test]
async fn malformed_and_invalid_are_not_tried_again() {
    let (fake, mut client) = connected().await;
    let keys = keys(16);
    for trick in [Trick::Say(Status::Malformed), Trick::Scramble] {
        fake.script(|script| script.queries.push_back(trick));
        let outcomes = client.lookup(&keys).await.unwrap();
        let wrong: Vec<_> = keys
            .iter()
            .zip(outcomes)
            .filter_map(|(key, outcome)| match outcome {
                Ok(outcome) if outcome == expected(key) => None,
                wrong => Some(wrong),
            })
            .collect();
        match &wrong[..] {
            [Ok(Outcome::Invalid)] => assert_eq!(trick, Trick::Scramble),
            [Err(LookupError::Malformed { detail })] => {
                assert!(detail.contains("the script says so"), "{detail}");
            }
            wrong => panic!("{} wrong outcomes", wrong.len()),
        }
        let log = checked_log(&fake);
        assert!(sendings(&log).values().all(|&times| times == 1));
    }
}

#[tokio::test]
async fn a_forged_hint_stops_its_look_ups_before_a_query_is_sent() {
    let (fake, mut client) = connected().await;
    let keys = keys(40);
    fake.script(|script| script.hints.push_back(Trick::Scramble));
    let outcomes = client.lookup(&keys).await.unwrap();
    let log = checked_log(&fake);
    let forged = log.hints[0].shards[0];
    for (key, outcome) in keys.iter().zip(outcomes) {
        match (fake.database.shard_of(key) == forged, outcome) {
            (true, Err(error)) => assert_eq!(error, LookupError::HintForged),
            (false, Ok(outcome)) => assert!(outcome == expected(key), "{key}"),
            _ => panic!("{key}: another outcome"),
        }
    }
    assert!(log.queries.iter().all(|query| query.shard != forged));
    // The true hint is believed the next time.
    look_up(&mut client, &keys).await;
}

/// What a server can compare of everything it was sent: all but ciphertexts and names of bundles,
/// whose lengths stay, and the order of a call's queries, which is random.
fn observed(log: &Log) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut queries = log.queries.clone();
    queries.sort_by_key(|query| query.shard);
    for query in &mut queries {
        query.nonce.clear();
        query.uid = "u".repeat(query.uid.len());
        query.encrypted_vector.iter_mut().for_each(|bytes| *bytes = vec![0; bytes.len()].into());
    }
    let bundles: Vec<_> = log.bundles.iter().map(|(uid, bytes)| (uid.len(), bytes.len())).collect();
    (queries, bundles, log.hints.clone())
}

/// A server decides what a look-up ends in, by shifting or scrambling its answer. What the client
/// sends in this call, in the next one and at its end is the same, whatever it was.
#[tokio::test(flavor = "multi_thread")]
async fn found_absent_and_invalid_change_nothing_that_is_sent() {
    let present: Vec<String> = (0..30).map(|n| format!("key-{n}")).collect();
    let fake = started().await;
    let mut candidates = (0..).map(|n| format!("nobody-{n}"));
    let absent_beside = |key: &String| {
        let wanted = fake.database.shard_of(key);
        candidates.find(|candidate| fake.database.shard_of(candidate) == wanted).unwrap()
    };
    let absent: Vec<String> = present.iter().map(absent_beside).collect();
    let mut runs = Vec::new();
    for (keys, trick) in [
        (&present, Trick::Answer),
        (&absent, Trick::Answer),
        (&present, Trick::Shift),
        (&absent, Trick::Shift),
        (&present, Trick::Scramble),
    ] {
        let mut client = fake.connect().await.unwrap();
        fake.take_log();
        fake.script(|script| script.queries = [trick; 30].into());
        for (key, outcome) in keys.iter().zip(client.lookup(keys).await.unwrap()) {
            let outcome = outcome.unwrap_or_else(|error| panic!("{key}: {error}"));
            let right = match trick {
                Trick::Shift => outcome == Outcome::Absent,
                Trick::Scramble => outcome == Outcome::Invalid,
                _ => outcome == expected(key),
            };
            assert!(right, "{key}: another outcome under {trick:?}");
        }
        let first = (observed(&fake.take_log()), client.last_call().rounds);
        look_up(&mut client, keys).await;
        let second = (observed(&fake.take_log()), client.last_call().rounds);
        drop(client.close().await);
        let left = tokio::time::timeout(limits::ANSWER_TIMEOUT, fake.left.acquire()).await;
        left.expect("the client says good-bye").unwrap().forget();
        assert!(fake.take_log().queries.is_empty());
        runs.push((trick, first, second));
    }
    for (trick, first, second) in &runs[1..] {
        assert_eq!((first, second), (&runs[0].1, &runs[0].2), "{trick:?}");
    }
    // The comparison can fail: one key fewer is seen.
    look_up(&mut fake.connect().await.unwrap(), &present[1..]).await;
    assert_ne!(observed(&fake.take_log()), runs[0].1.0);
}

/// More keys than are encrypted at once: the server sees the last query, its answer is taken and
/// the client has left, and all the while nobody could read an outcome. Nobody reads what the
/// program prints either, so that it would hang if it left after printing.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_prints_nothing_before_the_last_answer_and_its_leaving() {
    const COUNT: usize = limits::KEYS_PER_PART_MAX + 1;
    let fake = started().await;
    fake.script(|script| {
        script.queries = [Trick::Answer; 50].into();
        script.queries.resize(COUNT - 1, Trick::Scramble);
        script.queries.push_back(Trick::Wait);
    });
    let folder = tempfile::tempdir().unwrap();
    let [keys_from, ca] = ["keys.txt", "ca.pem"].map(|name| folder.path().join(name));
    std::fs::write(&keys_from, keys(COUNT).join("\n")).unwrap();
    std::fs::write(&ca, fake.ca_pem()).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sotto"));
    command.args(["lookup", "--server", &format!("localhost:{}", fake.address.port())]);
    command.args(["--operator-key", &fake.operator_key().to_string(), "--accept-shard-records"]);
    command.arg(RECORDS_PER_SHARD.to_string());
    command.arg("--ca").arg(&ca).arg("--keys-from").arg(&keys_from);
    // Each of these servers signs with one key and is another database to whom remembers it.
    command.arg("--no-pins").stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();

    let minute = Duration::from_secs(120);
    let all = tokio::time::timeout(minute, fake.arrived.acquire_many(COUNT as u32)).await;
    all.expect("the last query is sent").unwrap().forget();
    assert_eq!(rustix::io::ioctl_fionread(&stdout).unwrap(), 0, "printed before the last answer");
    fake.go.add_permits(1);
    let left = tokio::time::timeout(minute, fake.left.acquire()).await;
    left.expect("the program leaves before it prints").unwrap().forget();

    let mut printed = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut printed).await.unwrap();
    assert_eq!(printed.lines().count(), COUNT);
    let invalid = printed.lines().filter(|line| line.contains("\terror: ")).count();
    assert_eq!(invalid, COUNT - 51);
    assert_eq!(child.wait().await.unwrap().code(), Some(2));
    let log = fake.take_log();
    assert_eq!(log.queries.len(), COUNT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_part_that_ends_the_call_keeps_what_was_answered() {
    const PART: usize = limits::KEYS_PER_PART_MAX;
    let (fake, mut client) = connected().await;
    fake.script(|script| {
        script.queries = [Trick::Answer; 50].into();
        script.queries.resize(PART, Trick::Scramble);
        script.queries.push_back(Trick::Publish(Change::Seed));
    });
    let keys: Vec<String> = (0..PART + 2).map(|n| format!("nobody-{n}")).collect();
    let outcomes = client.lookup(&keys).await.unwrap();
    let (answered, ended) = outcomes.split_at(PART);
    for (wanted, count) in [(Outcome::Absent, 50), (Outcome::Invalid, PART - 50)] {
        let found = answered.iter().filter(|outcome| outcome.as_ref().ok() == Some(&wanted));
        assert_eq!(found.count(), count);
    }
    for outcome in ended {
        let Err(LookupError::Ended { reason }) = outcome else { panic!("not ended") };
        assert!(reason.contains("another seed"), "{reason}");
    }
    assert_eq!(client.last_call().queries.len(), PART);
}

#[tokio::test]
async fn attempts_end_with_identical_bytes_to_the_last() {
    let (fake, mut client) = connected().await;
    fake.script(|script| script.queries = [Trick::Say(Status::Quota); 100].into());
    let outcomes = client.lookup(&keys(2)).await.unwrap();
    for outcome in outcomes {
        let Err(LookupError::Exhausted { attempts, last }) = outcome else {
            panic!("not given up")
        };
        assert!(attempts == limits::ATTEMPTS_MAX && last.contains("QUOTA"), "{attempts}: {last}");
    }
    let log = checked_log(&fake);
    let times: Vec<usize> = sendings(&log).into_values().collect();
    assert_eq!(times, [limits::ATTEMPTS_MAX as usize; 2]);
}

#[tokio::test]
async fn many_look_ups_of_one_shard_go_in_waves_of_known_bundles() {
    let fake = started().await;
    let (mut client, keys) = in_waves(&fake, fake.options(1)).await;
    assert_eq!(keys.len(), 10);
    look_up(&mut client, &keys).await;
    assert_eq!(client.last_call().rounds, 4);
    let log = checked_log(&fake);
    assert_eq!((uids(&log).len(), log.queries.len()), (10, 10));
}

/// Ten keys of one shard, so that three bundles a connection take four waves.
async fn in_waves(fake: &Fake, options: Options) -> (Client, Vec<String>) {
    fake.limit(|limits| {
        limits.bundles_per_connection = 3;
        limits.batches_in_flight = 1;
        limits.queries_per_batch = 2;
    });
    let all = (0..RECORDS).map(|n| format!("key-{n}"));
    let keys = all.filter(|key| fake.database.shard_of(key) == 5).take(10).collect();
    (Client::connect(options).await.unwrap(), keys)
}

#[tokio::test]
async fn a_server_that_dies_ends_the_call_and_what_was_answered_is_decoded() {
    let fake = started().await;
    let options = Options {
        connect_timeout: Duration::from_millis(100),
        unreachable_max: Duration::from_millis(300),
        ..fake.options(1)
    };
    let (mut client, keys) = in_waves(&fake, options).await;
    fake.script(|script| {
        script.queries = [Trick::Answer; 3].into();
        script.queries.push_back(Trick::Vanish);
    });
    let answered = answered(&mut client, &keys, |error| match error {
        LookupError::Unreachable { tried, last } => {
            assert_eq!(tried, Duration::from_millis(300));
            assert!(!last.is_empty());
        }
        other => panic!("{other}"),
    });
    assert_eq!(answered.await, 3);
    // The third and fourth wave did not wait for themselves.
    assert_eq!(client.last_call().rounds, 2);
    check_once_only(&fake.take_log());
}

#[tokio::test]
async fn a_server_that_only_shakes_hands_ends_the_call_too() {
    let fake = started().await;
    let options = Options {
        answer_timeout: Duration::from_millis(50),
        unreachable_max: Duration::from_millis(120),
        ..fake.options(1)
    };
    let (mut client, keys) = in_waves(&fake, options).await;
    fake.script(|script| script.hints = [Trick::Silence; 1_000].into());
    for outcome in client.lookup(&keys).await.unwrap() {
        assert!(matches!(outcome, Err(LookupError::Unreachable { .. })));
    }
    assert!(client.last_call().rounds < limits::ATTEMPTS_MAX);
    // Heard again, it is as good as new.
    fake.script(|script| script.hints.clear());
    let options = fake.options(1);
    let (mut client, keys) = in_waves(&fake, options).await;
    look_up(&mut client, &keys).await;
}

#[tokio::test]
async fn queries_go_out_in_another_order_than_the_callers() {
    let fake = started().await;
    fake.limit(|limits| limits.batches_in_flight = 1); // then one batch has all
    let mut client = fake.connect().await.unwrap();
    let keys = keys(60);
    let asked: Vec<u32> = keys.iter().map(|key| fake.database.shard_of(key)).collect();
    let mut seen = BTreeSet::from([asked.clone()]);
    for _ in 0..3 {
        look_up(&mut client, &keys).await;
        let log = fake.take_log();
        assert_eq!(client.last_call().rounds, 1);
        let order: Vec<u32> = log.queries.iter().map(|query| query.shard).collect();
        let [mut same, mut sorted] = [&order, &asked].map(Vec::clone);
        same.sort_unstable();
        sorted.sort_unstable();
        assert_eq!(same, sorted);
        assert!(seen.insert(order), "an order seen before, or the caller's");
        let report: Vec<u32> = client.last_call().queries.iter().map(|query| query.shard).collect();
        assert_eq!(report, asked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_refuses_a_database_says_good_bye() {
    let fake = started().await;
    let other = Pins::operator(OperatorKey([1; 32]));
    let refusing = [
        Options { pins: other, ..fake.options(1) },
        Options { records_per_shard_min: 1 << 16, ..fake.options(1) },
    ];
    for options in refusing {
        // Like a program that ends at once: whatever still ran for the client ends with it.
        let program = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(Client::connect(options)).err().expect("a refusal")
        });
        let error = program.await.unwrap();
        assert!(matches!(error, ClientError::Parameters(_)), "{error}");
        let left = tokio::time::timeout(limits::ANSWER_TIMEOUT, fake.left.acquire()).await;
        left.expect("the server holds the connection for alive").unwrap().forget();
    }
}

#[tokio::test]
async fn whatever_happens_in_whatever_order() {
    let fake = started().await;
    let keys = keys(40);
    let mut random = Draw::new(seed(), "tricks");
    let mut draw = |below: usize| random.below(below as u64) as usize;
    let said = [Status::Overloaded, Status::EpochGone, Status::KeyMissing, Status::Device];
    let lost = [Trick::Reset, Trick::Finish, Trick::Close, Trick::Publish(Change::Epoch)];
    let passing = [said.map(Trick::Say), lost].concat();
    let mut client = Client::connect(fake.options(2)).await.unwrap();
    for _ in 0..10 {
        fake.script(|script| {
            script.queries.clear();
            for _ in 0..5 {
                let calm = draw(12);
                script.queries.extend(vec![Trick::Answer; calm]);
                script.queries.push_back(passing[draw(passing.len())]);
            }
            script.bundles = [Trick::Answer, passing[draw(7)]].into();
        });
        look_up(&mut client, &keys).await;
        check_once_only(&fake.take_log());
    }
}
