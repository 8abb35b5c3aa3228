//! Failures, kept as tests: whatever goes wrong around a server, no look-up ends wrong, no admitted
//! query is lost and nothing panics. How long it took to come back is printed, never asserted.
//!
//! Small here; `SOTTO_FAILURES=full` does more of each, as bench/failures.sh does once for a
//! record. Lines that begin with `record: ` are what it keeps. Elsewhere: shard files that go away
//! or change (tests/epochs.rs), devices that fail in every way (tests/gpu_faults.rs; here only end
//! to end), a builder that is killed or has no room (tests/build.rs), single misdeeds of peers
//! (tests/serve).

#![allow(clippy::unwrap_used)]

mod certificates;
mod clock;
mod crowd;
#[cfg(feature = "gpu")]
mod devices;
#[path = "../harness/mod.rs"]
mod harness;
mod killed;
mod log;
mod network;
mod replicas;

use std::fmt;
use std::time::Instant;

use harness::load::panics;
use harness::until;
use sotto::server::Counters;
use sotto::wire::Status;

/// How many times as much is done for a record.
const FULL: u64 = 20;

/// What a test does so many times in CI, as often as is asked for.
fn times(small: u64) -> u64 {
    let full = std::env::var("SOTTO_FAILURES").is_ok_and(|wanted| wanted == "full");
    if full { small * FULL } else { small }
}

/// Says what was seen.
fn record(line: &str) {
    println!("record: {line}");
}

/// How long something took each time, for a record.
#[derive(Default)]
struct Took(Vec<u128>);

impl Took {
    fn since(&mut self, begun: Instant) {
        self.0.push(begun.elapsed().as_millis());
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let (median, longest) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
        write!(f, "{median} ms, at most {longest} ms, of {}", sorted.len())
    }
}

/// Waits until every query that was admitted has ended, once: nothing is lost, nothing is counted
/// twice. Nobody asks any more, and nothing has panicked.
async fn settled(counters: &Counters) {
    let ended = || {
        let replies = [Status::ResponseSuccess, Status::Deadline, Status::Device];
        let replied: u64 = replies.iter().map(|&status| counters.queries.get(status)).sum();
        replied + counters.queries_cancelled.get() + counters.queries_unclaimed.get()
    };
    until("every admitted query has ended", || counters.queries_admitted.get() == ended()).await;
    assert!(counters.queries_admitted.get() > 0, "nothing was asked");
    assert_eq!(panics(), 0, "threads of this process, perhaps of another test's server");
}
