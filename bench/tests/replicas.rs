//! The load generator with two servers of one database, of which the first dies or is cut off: what
//! it had not answered goes to the other, and no query is lost.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/harness/mod.rs"]
mod harness;

use std::path::PathBuf;
use std::time::Duration;

use harness::program::Two;
use harness::relay::{FINE, Relay};
use harness::seed;
use sotto::client::Options;
use sotto_bench::load::{Arrivals, Goal, LoadOptions, Trial, load};
use tokio::time::sleep;

/// How much longer a query may take when a server is lost.
const LONGER: Duration = Duration::from_secs(2);

/// Says what was seen.
fn record(line: &str) {
    println!("record: {line}");
}

/// `sotto-bench load` with two servers, disturbed once.
async fn bench(client: Options, records: PathBuf, disturb: impl AsyncFnOnce()) -> Trial {
    const MS: Duration = Duration::from_millis(1);
    let options = LoadOptions {
        arrivals: Arrivals::Constant,
        records: Some(records),
        front_ends: 2,
        verify: 1.0,
        warm_up: 500 * MS,
        window: 500 * MS,
        time: 5_000 * MS,
        lag_max: Duration::MAX,
        ..LoadOptions::default()
    };
    let meanwhile = async {
        sleep(2_000 * MS).await;
        disturb().await;
    };
    let mut shown = |_: &Trial| {};
    let running = load(client, options, Goal::Rate(60.0), &mut shown);
    let (report, ()) = tokio::join!(running, meanwhile);
    report.unwrap().trials.remove(0)
}

fn check(trial: &Trial, what: &str) {
    assert!(trial.errors.is_empty(), "{what}: {:?}", trial.errors);
    let planned: u64 = trial.windows.iter().map(|row| row.planned).sum();
    assert!(planned > 100 && trial.verified.wrong == 0, "{}", trial.line());
    let longest = Duration::from_secs_f64(trial.latency_ms.max / 1e3);
    assert!(longest <= LONGER + LONGER / 4, "{what}: {longest:?}");
    record(&format!("{what}: {planned} queries, 0 lost, the longest {longest:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_generator_turns_to_the_other_as_well() {
    let mut two = Two::start();
    let path = two.place.built.path("records.jsonl");
    let options = two.options(two.addresses);
    let trial = bench(options, path.clone(), async || two.kill(0)).await;
    check(&trial, "bench load, the first of two servers killed (-9)");
    two.start_again(0);
    let relay = Relay::start(two.addresses[0], FINE, seed()).await;
    let options = two.options([relay.address, two.addresses[1]]);
    let trial = bench(options, path.clone(), async || relay.cut(true)).await;
    check(&trial, "bench load, the network to the first of two servers cut");
}
