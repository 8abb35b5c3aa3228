//! Two thousand small shards: built, mapped, and queried at random over QUIC by four connections
//! at once. Every answer is checked.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::sync::Arc;

use sotto::build::{self, BuildOptions, Input, Silent};
use sotto::client::{Client, OperatorKey, Options, Outcome, Pins, Replica};
use sotto::engine::{EngineOptions, select_with};
use sotto::params::ShapeWishes;
use sotto::server::{Callers, Identity, Server, ServerBounds, ServerOptions, certificates};
use sotto::shard::Database;

const SHARDS: u32 = 2_000;
const RECORDS: u64 = 100 * SHARDS as u64;
const CONNECTIONS: u64 = 4;
const CALLS: u64 = 3;
const KEYS_PER_CALL: u64 = 300;

fn build(folder: &std::path::Path) {
    let input = folder.join("records.csv");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&input).unwrap());
    writeln!(file, "sii,value").unwrap();
    for n in 0..RECORDS {
        writeln!(file, "key-{n},value {n}").unwrap();
    }
    file.into_inner().unwrap();
    let mut options = BuildOptions::new(Input::File(input), folder.join("db"));
    options.shards = Some(SHARDS);
    options.value_bytes = Some(24);
    options.wishes = ShapeWishes { pack_rows: Some(128), packs: Some(1) };
    let report = build::run(&options, &Silent).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((report.shard_count, report.records), (SHARDS, RECORDS));
}

/// Keys by BLAKE3 of a seed: three in four are there.
fn keys(seed: u64, connection: u64, call: u64) -> Vec<String> {
    let mut random = blake3::Hasher::new();
    for number in [seed, connection, call] {
        random.update(&number.to_le_bytes());
    }
    let mut random = random.finalize_xof();
    let key = |_| {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        let n = u64::from_le_bytes(bytes);
        let name = if n.is_multiple_of(4) { "nobody" } else { "key" };
        format!("{name}-{}", (n >> 8) % RECORDS)
    };
    (0..KEYS_PER_CALL).map(key).collect()
}

async fn connection(options: Options, seed: u64, number: u64) {
    let mut client = Client::connect(options).await.unwrap();
    let mut shards = std::collections::BTreeSet::new();
    for call in 0..CALLS {
        let keys = keys(seed, number, call);
        let outcomes = client.lookup(&keys).await.unwrap();
        for (key, outcome) in keys.iter().zip(outcomes) {
            let outcome = outcome.unwrap_or_else(|error| panic!("{key}: {error}"));
            let right = match key.strip_prefix("key-") {
                Some(n) => outcome == Outcome::Found(format!("value {n}").into_bytes()),
                None => outcome == Outcome::Absent,
            };
            assert!(right, "{key}: another outcome");
        }
        shards.extend(client.last_call().queries.iter().map(|query| query.shard));
    }
    assert!(shards.len() > 500, "{} shards were asked", shards.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_shards_answer_four_connections_at_once() {
    let seed = std::env::var("SOTTO_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 0x5ca1e);
    println!("SOTTO_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    tokio::task::spawn_blocking(move || build(&path)).await.unwrap();

    let database = Arc::new(Database::open(&folder.path().join("db")).unwrap());
    assert_eq!(database.shard_count(), SHARDS);
    let made = certificates::localhost().unwrap();
    let server_options = ServerOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        identity: Identity::from_pem(&made.server_pem, &made.server_key).unwrap(),
        callers: Callers::Loopback,
        engines: select_with(&EngineOptions::default()).unwrap().engines,
        bounds: ServerBounds::default(),
    };
    let server = Server::bind(server_options, database).unwrap();
    let replica = Replica::new(server.local_addr(), "localhost");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async move { drop(stopped.await) }));

    let key = std::fs::read_to_string(folder.path().join("db/operator.pub")).unwrap();
    let pins = Pins::operator(OperatorKey::from_text(&key).unwrap());
    let mut options = Options::new(replica, made.ca_pem.into_bytes(), pins);
    options.records_per_shard_min = 50;
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        clients.spawn(connection(options.clone(), seed, number));
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    stop.send(()).unwrap();
    running.await.unwrap();
}
