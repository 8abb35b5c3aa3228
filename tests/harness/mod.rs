//! What the tests share. A test program declares it with `mod harness;`, one in a folder of its own
//! with `#[path = "../harness/mod.rs"]` in front.
//!
//! - here: skipping, waiting, random numbers from a printed seed, the names of a test's records;
//! - [`program`]: the program `sotto`, run to its end or serving in the background;
//! - [`server`]: a server in this process; [`built`]: a small database made by the builder;
//!   [`load`]: clients that check every outcome;
//! - [`noise`]: databases of noise, written without the builder; [`host`]: a server of one, engines
//!   that a test controls, and the requests and replies of `wire`;
//! - [`peer`]: a peer that speaks raw QUIC; [`target`]: what one that misbehaves sends;
//!   [`http`]: requests to the admin endpoints;
//! - [`recorder`]: what crosses between client and server; [`relay`]: a bad network between them;
//!   [`fake`]: a scripted server;
//! - [`cases`]: shards with queries and the reference's answers, and the GPU that tests run on.

// Each test program uses a part of it.
#![allow(dead_code, unused_imports)]

pub(crate) mod built;
pub(crate) mod cases;
pub(crate) mod fake;
pub(crate) mod host;
pub(crate) mod http;
mod listen;
pub(crate) mod load;
pub(crate) mod noise;
pub(crate) mod peer;
pub(crate) mod program;
pub(crate) mod recorder;
pub(crate) mod relay;
pub(crate) mod server;
pub(crate) mod target;

pub(crate) use built::{Built, CROWD, options};
pub(crate) use recorder::{Crossing, Recorder};
pub(crate) use server::{Serving, Setting, known, serve};

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// A test that waits longer than this has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Says that the running test, or a part of it, cannot run here. The reason is printed, and
/// appended with the test's name to the file that SOTTO_TEST_SKIPS names, for `.ci/run` to count.
pub(crate) fn skip(reason: &str) {
    println!("skipped: {reason}");
    let Some(list) = std::env::var_os("SOTTO_TEST_SKIPS") else { return };
    // Cargo adds a hash to the name of a test program; a test's thread has the test's name.
    let program = std::env::current_exe().unwrap();
    let program = program.file_stem().unwrap().to_string_lossy();
    let program = program.rsplit_once('-').map_or(&*program, |(name, _)| name);
    let test = std::thread::current();
    let test = test.name().unwrap_or("main");
    let line = format!("{program}::{test}\t{}\n", reason.replace(['\t', '\n'], " "));
    let mut list = std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
    list.write_all(line.as_bytes()).unwrap();
}

/// Waits until a condition holds, such as one on what the server counts.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, waiting).await;
    ended.unwrap_or_else(|_| panic!("waited in vain for: {what}"));
}

/// The seed of a test's random numbers, printed. SOTTO_TEST_SEED repeats a run.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SOTTO_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
    println!("SOTTO_TEST_SEED={seed}");
    seed
}

/// Random numbers from a seed, for what need not be secret.
pub(crate) struct Draw(blake3::OutputReader);

impl Draw {
    pub(crate) fn new(seed: u64, label: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(label.as_bytes());
        Self(hasher.finalize_xof())
    }

    /// A number below `bound`; 0 where that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound.max(1)
    }

    pub(crate) fn bytes(&mut self, count: u64) -> Vec<u8> {
        let mut bytes = vec![0; count as usize];
        self.0.fill(&mut bytes);
        bytes
    }
}

/// A folder and everything below it.
pub(crate) fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while next < found.len() {
        if found[next].is_dir() {
            let inner = std::fs::read_dir(&found[next]).unwrap();
            found.extend(inner.map(|entry| entry.unwrap().path()));
        }
        next += 1;
    }
    found
}

/// Record `n` of a test's database: its key and its value.
pub(crate) fn record(n: u64) -> (String, Vec<u8>) {
    (format!("+155501{n:05}"), format!("value {n}").into_bytes())
}
