//! Clients that look up keys all the time, check every outcome, and reconnect again and again.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sotto::client::{Client, Options, Outcome};
use tokio::task::JoinSet;

use super::harness::record;
use super::operator::RECORDS;

/// Keys of one call.
const KEYS: u64 = 4;
/// Between two calls of one client.
const PAUSE: Duration = Duration::from_millis(100);
/// Calls after which a client leaves and another comes.
const CALLS: u64 = 5;

/// What became of what they asked.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) asked: u64,
    pub(crate) failed: u64,
    pub(crate) wrong: u64,
    pub(crate) connected: u64,
    pub(crate) refused: u64,
    longest_ms: u64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, failed, wrong, connected, refused, longest_ms } = self;
        write!(
            f,
            "{asked} look-ups, {wrong} wrong, {failed} failed; {connected} connections, {refused} \
             refused; longest call {longest_ms} ms"
        )
    }
}

pub(crate) struct Honest {
    seen: Arc<Mutex<Seen>>,
    clients: JoinSet<()>,
}

impl Honest {
    /// Starts clients that come and go until `leave` is set.
    pub(crate) fn start(options: &Options, clients: u64, leave: &Arc<AtomicBool>) -> Self {
        let mut honest = Self { seen: Arc::default(), clients: JoinSet::new() };
        for number in 0..clients {
            let (options, leave, seen) = (options.clone(), leave.clone(), honest.seen.clone());
            honest.clients.spawn(async move {
                let mut turn = number;
                while !leave.load(Ordering::SeqCst) {
                    come(&options, &seen, &mut turn).await;
                }
            });
        }
        honest
    }

    pub(crate) async fn left(mut self) -> Seen {
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// One client, from its coming to its leaving.
async fn come(options: &Options, seen: &Mutex<Seen>, turn: &mut u64) {
    let mut client = match Client::connect(options.clone()).await {
        Ok(client) => client,
        Err(error) => {
            println!("refused: {error}");
            seen.lock().unwrap().refused += 1;
            return;
        }
    };
    seen.lock().unwrap().connected += 1;
    for _ in 0..CALLS {
        *turn += 1;
        let begun = Instant::now();
        let [failed, wrong] = look_up(&mut client, *turn).await;
        let took_ms = begun.elapsed().as_millis() as u64;
        {
            let mut seen = seen.lock().unwrap();
            seen.asked += KEYS;
            seen.failed += failed;
            seen.wrong += wrong;
            seen.longest_ms = seen.longest_ms.max(took_ms);
        }
        tokio::time::sleep(PAUSE).await;
    }
    drop(client.close().await);
}

/// Looks up a few keys, of which the last is absent; how many failed, and how many were wrong.
async fn look_up(client: &mut Client, turn: u64) -> [u64; 2] {
    let wanted: Vec<u64> = (1..KEYS).map(|key| (turn * 7 + key * 251) % RECORDS).collect();
    let mut keys: Vec<String> = wanted.iter().map(|&n| record(n).0).collect();
    keys.push(format!("nobody-{turn}"));
    let outcomes = match client.lookup(&keys).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            println!("failed: {error}");
            return [KEYS, 0];
        }
    };
    let (mut failed, mut wrong) = (0, 0);
    for (at, outcome) in outcomes.into_iter().enumerate() {
        let expected = wanted.get(at).map_or(Outcome::Absent, |&n| Outcome::Found(record(n).1));
        match outcome {
            Ok(outcome) => wrong += u64::from(outcome != expected),
            Err(error) => {
                println!("failed: {error}");
                failed += 1;
            }
        }
    }
    [failed, wrong]
}
