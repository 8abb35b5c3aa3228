//! Clients that look up keys all the time and check every outcome.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use sotto::client::{Client, LookupError, Options, Outcome};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Built, PATIENCE, Serving, record};

/// The database that [`Load::start`] looks up in.
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

/// A few keys, of which one is absent.
fn keys(turn: u64) -> Vec<String> {
    let present = (0..KEYS).map(|key| record((turn * 7 + key * 25) % RECORDS).0);
    present.chain([format!("nobody-{turn}")]).collect()
}

/// What is there is found and nothing else; no look-up fails.
pub(crate) fn check(key: &str, outcome: Looked) {
    let outcome = outcome.unwrap_or_else(|error| panic!("{key}: {error}"));
    let number = key.strip_prefix("+155501").and_then(|number| number.parse().ok());
    let there = number.filter(|&number| number < RECORDS);
    let expected = there.map_or(Outcome::Absent, |number| Outcome::Found(record(number).1));
    assert!(outcome == expected, "{key}: another outcome");
}

/// Looks up a few keys; every outcome is right.
pub(crate) async fn look_up(client: &mut Client, turn: u64) {
    call(client, &keys(turn), &check).await;
}

/// Looks these keys up, and checks each outcome.
pub(crate) async fn call(client: &mut Client, keys: &[String], check: &impl Fn(&str, Looked)) {
    let outcomes = client.lookup(keys).await.unwrap_or_else(|error| panic!("a call: {error}"));
    keys.iter().zip(outcomes).for_each(|(key, outcome)| check(key, outcome));
}

pub(crate) type Looked = Result<Outcome, LookupError>;

/// Panics of this process, those that a task or a thread caught included. Not those of the tests'
/// own threads, which have their names: one that fails is no reason for others to.
pub(crate) fn panics() -> u64 {
    static COUNTED: AtomicU64 = AtomicU64::new(0);
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !std::thread::current().name().is_some_and(|name| name.contains("::")) {
                COUNTED.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }));
    });
    COUNTED.load(Ordering::SeqCst)
}

/// Clients at work.
pub(crate) struct Load {
    leave: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    longest_us: Arc<AtomicU64>,
    clients: JoinSet<()>,
    /// Of one call.
    keys: u64,
}

impl Load {
    /// Connects so many clients to a server of [`database`], and lets them look up.
    pub(crate) async fn start(options: &Options, clients: u64) -> Self {
        Self::with(options, clients, keys, check).await
    }

    /// The same with the keys of each turn, and what is checked of each outcome.
    pub(crate) async fn with(
        options: &Options,
        clients: u64,
        keys: impl Fn(u64) -> Vec<String> + Clone + Send + 'static,
        check: impl Fn(&str, Looked) + Clone + Send + Sync + 'static,
    ) -> Self {
        panics(); // counted from here on
        let mut load = Self {
            leave: Arc::default(),
            calls: Arc::default(),
            longest_us: Arc::default(),
            clients: JoinSet::new(),
            keys: keys(0).len() as u64,
        };
        for number in 0..clients {
            let mut client = Client::connect(options.clone()).await.unwrap();
            let leave = load.leave.clone();
            let (calls, longest_us) = (load.calls.clone(), load.longest_us.clone());
            let (keys, check) = (keys.clone(), check.clone());
            load.clients.spawn(async move {
                for turn in 0.. {
                    if leave.load(Ordering::SeqCst) {
                        break;
                    }
                    let begun = Instant::now();
                    call(&mut client, &keys(number + turn * clients), &check).await;
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
            keys: self.keys,
            longest: Duration::from_micros(self.longest_us.load(Ordering::SeqCst)),
        }
    }
}

/// Calls that ended, every look-up of them right.
pub(crate) struct Calls {
    pub(crate) ended: u64,
    keys: u64,
    longest: Duration,
}

impl std::fmt::Display for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let look_ups = self.ended * self.keys;
        let longest_ms = self.longest.as_millis();
        write!(f, "{look_ups} look-ups, 0 wrong, 0 lost; longest call {longest_ms} ms")
    }
}
