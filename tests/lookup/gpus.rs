//! The server with two GPUs: every look-up is right, and it is the GPUs that answer.

use std::time::Instant;

use sotto::client::{Client, Outcome};
use sotto::engine::{EngineOptions, select_with};

use super::harness::{Built, PATIENCE, Setting, skip};

const SHARDS: u32 = 5;
#[tokio::test(flavor = "multi_thread")]
async fn two_gpus_answer_what_was_brought_up_to_them() {
    let Ok(name) = std::env::var("SOTTO_TEST_GPU") else {
        skip("no GPU is named (SOTTO_TEST_GPU=llvmpipe takes a software one)");
        return;
    };
    let gpus = vec![name.parse().unwrap(); 2];
    let engines = select_with(&EngineOptions { gpus, ..EngineOptions::default() }).unwrap().engines;
    let names: Vec<String> = engines.iter().map(|engine| engine.name()).collect();
    assert!(names.len() == 3 && names[0].starts_with("cpu"), "{names:?}");
    let records = super::records();
    let built = Built::new(&records, SHARDS);
    let serving = Setting { engines, ..Setting::default() }.serve(&built.db());
    let mut client = Client::connect(serving.options(built.pins())).await.unwrap();
    let keys: Vec<&str> = records.iter().map(|(key, _)| &**key).chain(["nobody"]).collect();

    // Until all are there the processor answers, or queries wait; then nobody but the GPUs.
    let counters = &serving.work;
    let begun = Instant::now();
    let mut asked = 0;
    loop {
        let all_there = counters.uploads.get() == u64::from(SHARDS);
        let before = counters.answered_by_device.get();
        let outcomes = client.lookup(&keys).await.unwrap();
        for ((key, outcome), record) in keys.iter().zip(outcomes).zip(0..) {
            let right = match records.get(record) {
                Some((_, value)) => outcome.unwrap() == Outcome::Found(value.clone()),
                None => outcome.unwrap() == Outcome::Absent,
            };
            assert!(right, "{key}: another outcome");
        }
        asked += keys.len() as u64;
        if all_there {
            assert_eq!(counters.answered_by_device.get() - before, keys.len() as u64);
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{counters:?}");
    }
    let answered = [
        &counters.answered_by_device,
        &counters.answered_by_device_after_upload,
        &counters.answered_by_processor,
    ];
    assert_eq!(answered.map(|counter| counter.get()).iter().sum::<u64>(), asked);
    assert_eq!((counters.device_failures.get(), counters.uploads_failed.get()), (0, 0));
}
