//! Attacks on the program as it is shipped, all at once, beside clients that must be served: for a
//! minute, or for as long as `SOTTO_HOSTILE_SECONDS` says. All of it stays on this machine.
//!
//! The server has little memory and one thread. What it takes of the system's memory, what honest
//! clients are told and whether anything panicked is asserted; lines that begin with `record: ` are
//! what `bench/hostile.sh` keeps. Each attack alone is in `tests/serve/attacks.rs`; crowds in this
//! process, whose every query is accounted for, are in `tests/failures`.

#![allow(clippy::unwrap_used)]

mod attacks;
#[path = "../harness/mod.rs"]
mod harness;
mod honest;
mod operator;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use attacks::Done;
use harness::{seed, until};
use honest::Honest;
use operator::{Probed, Served};

/// What the server may take for its connections and queues, in MiB: less than what every attack
/// here would take of one without bounds.
const MEMORY_MIB: u64 = 256;
/// What else it may take: the engine's scratch, the runtime, what the allocator has not yet given
/// back, and QUIC's own books.
const BESIDES_MIB: u64 = 96;
/// Of what honest clients ask, so many parts in a hundred may fail; none may be wrong.
const FAILED_PERCENT_MAX: u64 = 5;

fn seconds() -> u64 {
    std::env::var("SOTTO_HOSTILE_SECONDS").map_or(60, |seconds| seconds.parse().unwrap())
}

fn record(line: &str) {
    println!("record: {line}");
}

/// The most memory that was seen, in MiB.
async fn watch(pid: u32, leave: Arc<AtomicBool>) -> u64 {
    let mut most = 0;
    while !leave.load(Ordering::SeqCst) {
        most = most.max(operator::anonymous_mib(pid));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attacks_take_nothing_from_others() {
    let (seconds, seed) = (seconds(), seed());
    let served = Arc::new(Served::start(MEMORY_MIB).await);
    let (admin, pid) = (served.admin, served.program.pid());
    let before = operator::anonymous_mib(pid);
    let leave = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(pid, leave.clone()));
    let honest = Honest::start(&served.place.options(&served.program), 2, &leave);
    let begun = Instant::now();
    let attacks: Vec<_> = attacks::ALL
        .into_iter()
        .map(|attack| (attack, tokio::spawn(attack.run(served.clone(), seed, leave.clone()))))
        .collect();
    let probing = tokio::spawn(operator::probe(admin, leave.clone()));
    while begun.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        served.assert_runs();
    }
    leave.store(true, Ordering::SeqCst);
    for (attack, running) in attacks {
        let Done { times, refused } = running.await.unwrap();
        record(&format!("{attack:?}: {times} times, refused a connection {refused} times"));
        assert!(times > 0, "{attack:?} was never done");
    }
    let seen = honest.left().await;
    record(&format!("honest clients beside them: {seen}"));
    for line in operator::refusals(admin).await {
        record(&line);
    }
    let Probed { asked, failed, longest_ms } = probing.await.unwrap();
    let probed = format!("{asked} of /livez, {failed} failed; longest {longest_ms} ms");
    record(&format!("probes beside them: {probed}"));
    let most = watching.await.unwrap();
    let given_back = || operator::anonymous_mib(pid) <= before + BESIDES_MIB;
    until("the memory is given back", given_back).await;
    let after = operator::anonymous_mib(pid);
    record(&format!("{seconds} s; memory: {before} MiB before, at most {most} MiB, {after} after"));
    Arc::into_inner(served).expect("no attack goes on").program.leave().await;
    assert!(most <= MEMORY_MIB + BESIDES_MIB, "{most} MiB");
    assert_eq!(seen.wrong, 0, "{seen}");
    assert!(seen.asked > 0 && seen.failed * 100 <= seen.asked * FAILED_PERCENT_MAX, "{seen}");
    // A minute sees ten connections or so: one that is too late says nothing of how many are.
    let refused_max = ((seen.connected + seen.refused) * FAILED_PERCENT_MAX / 100).max(1);
    assert!(seen.refused <= refused_max, "{seen}");
    assert!(asked > 0 && failed == 0, "{probed}");
}
