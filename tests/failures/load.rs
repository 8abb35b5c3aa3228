//! Clients that look up keys all the time and check every outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sotto::client::{Client, Options, Outcome};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::harness::{Built, PATIENCE, Serving, record};
use super::panics;

pub(crate) const SHARDS: u32 = 3;
pub(crate) const RECORDS: u64 = 300;
/// Keys a call looks up: over all shards, under several secrets.
const KEYS: u64 = 12;

pub(crate) fn database() -> Built {
    Built::new(&(0..RECORDS).map(record).collect::<Vec<_>>(), SHARDS)
}

/// How a client reaches a server that runs in this process.
pub(crate) fn reach(built: &Built, serving: &Serving) -> Options {
    serving.options(built.pins())
}

/// Looks up a few keys, of which one is absent; every outcome is right.
pub(crate) async fn look_up(client: &mut Client, turn: u64) {
    let wanted: Vec<u64> = (0..KEYS).map(|key| (turn * 7 + key * 25) % RECORDS).collect();
    let mut keys: Vec<String> = wanted.iter().map(|&n| record(n).0).collect();
    keys.push(format!("nobody-{turn}"));
    let outcomes = client.lookup(&keys).await.unwrap_or_else(|error| panic!("a call: {error}"));
    for (at, outcome) in outcomes.into_iter().enumerate() {
        let expected =
            wanted.get(at).map_or(Outcome::Absent, |&n| Outcome::Found(record(n).1.clone()));
        let outcome = outcome.unwrap_or_else(|error| panic!("{}: {error}", keys[at]));
        assert!(outcome == expected, "{}: another outcome", keys[at]);
    }
}

/// Clients at work.
pub(crate) struct Load {
    leave: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    longest_us: Arc<AtomicU64>,
    clients: JoinSet<()>,
}

impl Load {
    /// Connects so many clients, and lets them look up.
    pub(crate) async fn start(options: &Options, clients: u64) -> Self {
        panics(); // counted from here on
        let mut load = Self {
            leave: Arc::default(),
            calls: Arc::default(),
            longest_us: Arc::default(),
            clients: JoinSet::new(),
        };
        for number in 0..clients {
            let mut client = Client::connect(options.clone()).await.unwrap();
            let leave = load.leave.clone();
            let (calls, longest_us) = (load.calls.clone(), load.longest_us.clone());
            load.clients.spawn(async move {
                for turn in 0.. {
                    if leave.load(Ordering::SeqCst) {
                        break;
                    }
                    let begun = Instant::now();
                    look_up(&mut client, number + turn * clients).await;
                    longest_us.fetch_max(begun.elapsed().as_micros() as u64, Ordering::SeqCst);
                    calls.fetch_add(1, Ordering::SeqCst);
                }
                drop(client.close().await);
            });
        }
        load
    }

    /// Waits until so many more calls have ended, all of them right, with patience for each.
    pub(crate) async fn more(&mut self, calls: u64) {
        let ended = self.calls.load(Ordering::SeqCst);
        for wanted in ended + 1..=ended + calls {
            self.wait_for(wanted).await;
        }
    }

    async fn wait_for(&mut self, wanted: u64) {
        let waiting = async {
            while self.calls.load(Ordering::SeqCst) < wanted {
                // A client ends by itself only by a panic, whose reason was printed.
                let look_again = tokio::time::sleep(Duration::from_millis(1));
                tokio::select! {
                    ended = self.clients.join_next() => ended.unwrap().unwrap(),
                    () = look_again => {}
                }
            }
        };
        timeout(PATIENCE, waiting).await.expect("look-ups do not go on");
    }

    /// Lets every call end, each of them right, and every client leave.
    pub(crate) async fn stop(mut self) -> Calls {
        self.leave.store(true, Ordering::SeqCst);
        while let Some(ended) = timeout(PATIENCE, self.clients.join_next()).await.unwrap() {
            ended.unwrap();
        }
        Calls {
            ended: self.calls.load(Ordering::SeqCst),
            longest: Duration::from_micros(self.longest_us.load(Ordering::SeqCst)),
        }
    }
}

/// Calls that ended, every look-up of them right.
pub(crate) struct Calls {
    pub(crate) ended: u64,
    longest: Duration,
}

impl std::fmt::Display for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let look_ups = self.ended * (KEYS + 1);
        let longest_ms = self.longest.as_millis();
        write!(f, "{look_ups} look-ups, 0 wrong, 0 lost; longest call {longest_ms} ms")
    }
}
