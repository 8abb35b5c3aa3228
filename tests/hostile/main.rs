//! Attacks on the program as it is shipped, all at once, beside clients that must be served: for a
//! minute, or for as long as `SOTTO_HOSTILE_SECONDS` says. All of it stays on this machine.
//!
//! The server has little memory and one thread. What it takes of the system's memory, what honest
//! clients are told and whether anything panicked is asserted; lines that begin with `record: ` are
//! what `bench/hostile.sh` keeps. Each attack alone is in `tests/serve/attacks.rs`; crowds in this
//! process, whose every query is accounted for, are in `tests/failures`.

#![allow(clippy::unwrap_used)]

mod attacks;
#[allow(dead_code)] // other tests use the rest of it
#[path = "../lookup/harness.rs"]
mod harness;
mod honest;
mod operator;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use attacks::Target;
use harness::peer::until;
use honest::Honest;
use operator::Program;

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

/// Fixes what is random; printed, so that it can be asked for again.
fn seed() -> u64 {
    let given = std::env::var("SOTTO_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_nanos() as u64
    });
    println!("SOTTO_TEST_SEED={seed}");
    seed
}

/// Numbers from a seed, for what need not be secret.
struct Draw(blake3::OutputReader);

impl Draw {
    fn new(seed: u64, label: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(label.as_bytes());
        Self(hasher.finalize_xof())
    }

    fn below(&mut self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound.max(1)
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        let mut bytes = vec![0; count as usize];
        self.0.fill(&mut bytes);
        bytes
    }
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
    let program = Program::start(MEMORY_MIB).await;
    let target = Arc::new(Target::of(&program));
    let before = operator::anonymous_mib(program.pid());
    let leave = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(program.pid(), leave.clone()));
    let honest = Honest::start(&program, 2).await;
    let begun = Instant::now();
    let attacks: Vec<_> = attacks::ALL
        .into_iter()
        .map(|attack| (attack, tokio::spawn(attack.run(target.clone(), seed, leave.clone()))))
        .collect();
    let probes = operator::Probes::start(&program, leave.clone());
    while begun.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(program.runs(), "{}", program.said());
    }
    leave.store(true, Ordering::SeqCst);
    for (attack, running) in attacks {
        let done = running.await.unwrap();
        record(&format!("{attack:?}: {done}"));
        assert!(done.times > 0, "{attack:?} was never done");
    }
    let seen = honest.stop().await;
    record(&format!("honest clients beside them: {seen}"));
    for line in operator::refusals(program.admin).await {
        record(&line);
    }
    let probed = probes.stop().await;
    record(&format!("probes beside them: {probed}"));
    let most = watching.await.unwrap();
    let pid = program.pid();
    let given_back = || operator::anonymous_mib(pid) <= before + BESIDES_MIB;
    until("the memory is given back", given_back).await;
    let after = operator::anonymous_mib(pid);
    record(&format!("{seconds} s; memory: {before} MiB before, at most {most} MiB, {after} after"));
    program.leave().await;
    assert!(most <= MEMORY_MIB + BESIDES_MIB, "{most} MiB");
    assert_eq!(seen.wrong, 0, "{seen}");
    assert!(seen.asked > 0 && seen.failed * 100 <= seen.asked * FAILED_PERCENT_MAX, "{seen}");
    assert!(seen.refused * 100 <= (seen.connected + seen.refused) * FAILED_PERCENT_MAX, "{seen}");
    assert!(probed.right(), "{probed}");
}
