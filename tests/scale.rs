//! A thousand small shards: built, mapped, and queried at random over QUIC by four connections
//! at once. Every answer is checked.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Built, Draw, seed, serve};
use sotto::client::{Client, Options, Outcome};
use sotto::params::ShapeWishes;

const SHARDS: u32 = 1_000;
const RECORDS: u64 = 100 * SHARDS as u64;
const CONNECTIONS: u64 = 4;
const CALLS: u64 = 3;
const KEYS_PER_CALL: u64 = 300;

fn build() -> Built {
    let record = |n| (format!("key-{n}"), format!("value {n}").into_bytes());
    let records: Vec<_> = (0..RECORDS).map(record).collect();
    Built::with(&records, SHARDS, |options| {
        options.wishes = ShapeWishes { pack_rows: Some(128), packs: Some(1) };
    })
}

/// Random keys: three in four are there.
fn keys(draw: &mut Draw) -> Vec<String> {
    let key = |_| {
        let name = if draw.below(4) == 0 { "nobody" } else { "key" };
        format!("{name}-{}", draw.below(RECORDS))
    };
    (0..KEYS_PER_CALL).map(key).collect()
}

async fn connection(options: Options, seed: u64, number: u64) {
    let mut client = Client::connect(options).await.unwrap();
    let mut draw = Draw::new(seed, &format!("connection {number}"));
    let mut shards = std::collections::BTreeSet::new();
    for _ in 0..CALLS {
        let keys = keys(&mut draw);
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
async fn a_thousand_shards_answer_four_connections_at_once() {
    let seed = seed();
    let built = tokio::task::spawn_blocking(build).await.unwrap();
    let mut serving = serve(&built.db());
    assert_eq!(serving.database.shard_count(), SHARDS);
    let options = Options { records_per_shard_min: 50, ..serving.options(built.pins()) };
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        clients.spawn(connection(options.clone(), seed, number));
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    serving.leave();
    serving.left().await;
}
