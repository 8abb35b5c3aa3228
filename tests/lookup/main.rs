//! The client against the real server on a small built database: found, absent, INVALID; `sotto
//! lookup` and `sotto demo` as programs.

#![allow(clippy::unwrap_used)]

#[cfg(feature = "client")]
mod device;
mod gpus;
#[path = "../harness/mod.rs"]
mod harness;
mod program;

use harness::{Built, record, serve};
use sotto::client::{Client, OperatorKey, Options, Outcome, Pins};

/// Text, bytes, the empty value and the longest one.
fn records() -> Vec<(String, Vec<u8>)> {
    let mut records: Vec<(String, Vec<u8>)> = (0..297).map(record).collect();
    records.push(("empty".into(), Vec::new()));
    records.push(("longest".into(), vec![b'x'; 23]));
    records.push(("bytes".into(), vec![0xff, 0x00, 0x80, 0x00]));
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_found_and_nothing_else() {
    let built = Built::new(&records(), 3);
    let serving = serve(&built.db());
    let mut client = Client::connect(serving.options(built.pins())).await.unwrap();

    let records = records();
    let mut keys: Vec<String> = records.iter().map(|(key, _)| key.clone()).collect();
    keys.extend((0..100).map(|n| format!("nobody-{n}")));
    keys.push("+15550100000 ".into()); // keys are compared byte by byte
    let outcomes = client.lookup(&keys).await.unwrap();
    for (at, (key, outcome)) in keys.iter().zip(outcomes).enumerate() {
        let outcome = outcome.unwrap_or_else(|error| panic!("{key}: {error}"));
        match (records.get(at), outcome) {
            (Some((_, value)), Outcome::Found(found)) => assert_eq!(&found, value, "{key}"),
            (None, Outcome::Absent) => {}
            _ => panic!("{key}: another outcome"),
        }
    }
    assert!(client.lookup::<&str>(&[]).await.unwrap().is_empty());
    let long = client.lookup(&["k".repeat(2_000), "empty".into()]).await.unwrap();
    assert!(long[0].is_err() && matches!(&long[1], Ok(Outcome::Found(value)) if value.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_matrix_other_than_the_signed_one_is_invalid() {
    let built = Built::new(&records(), 2);
    built.spoil();
    let serving = serve(&built.db());
    let mut client = Client::connect(serving.options(built.pins())).await.unwrap();
    let keys = ["empty", "longest", "nobody-1", "nobody-2"];
    for outcome in client.lookup(&keys).await.unwrap() {
        assert!(matches!(outcome, Ok(Outcome::Invalid)));
    }
    assert_eq!(client.last_call().rounds, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_trusted_for_its_signature_and_its_crowd() {
    let built = Built::new(&records(), 3);
    let serving = serve(&built.db());
    let options = |pins| serving.options(pins);
    let first = Client::connect(options(Pins::first_use())).await.unwrap();
    assert_eq!(first.operator_key(), built.operator_key());
    let pins = first.close().await;
    Client::connect(options(pins.clone())).await.unwrap();

    // As the records fell, not as the shape is meant for.
    let database = sotto::shard::Database::open(&built.db()).unwrap();
    let least = database.manifest().shards.iter().map(|shard| shard.records).min().unwrap();
    let exactly = Options { records_per_shard_min: least, ..options(pins) };
    Client::connect(exactly).await.unwrap();
    let more = Options { records_per_shard_min: least + 1, ..options(built.pins()) };
    let stranger = sotto::server::certificates::localhost().unwrap().ca_pem.into_bytes();
    let emptiest = format!("the emptiest shard has {least} records, expected at least");
    let refused = [
        (options(Pins::operator(OperatorKey([1; 32]))), "expected the pinned"),
        (more, &*emptiest),
        (Options { ca_pem: stranger, ..options(Pins::first_use()) }, "no connection to"),
    ];
    for (options, said) in refused {
        let error = Client::connect(options).await.err().expect("a refusal").to_string();
        assert!(error.contains(said), "{error}");
    }
}
