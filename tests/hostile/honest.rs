//! Clients that look up keys all the time, check every outcome, and reconnect again and again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sotto::client::{Client, Options, Outcome};
use tokio::task::JoinSet;

use super::harness::record;
use super::operator::{RECORDS, Served};

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

#[derive(Default)]
struct Counts {
    asked: AtomicU64,
    failed: AtomicU64,
    wrong: AtomicU64,
    connected: AtomicU64,
    refused: AtomicU64,
    longest_ms: AtomicU64,
}

pub(crate) struct Honest {
    leave: Arc<AtomicBool>,
    counts: Arc<Counts>,
    clients: JoinSet<()>,
}

impl Honest {
    pub(crate) async fn start(program: &Served, clients: u64) -> Self {
        let mut honest =
            Self { leave: Arc::default(), counts: Arc::default(), clients: JoinSet::new() };
        for number in 0..clients {
            let (options, leave, counts) =
                (program.options(), honest.leave.clone(), honest.counts.clone());
            honest.clients.spawn(async move {
                let mut turn = number;
                while !leave.load(Ordering::SeqCst) {
                    come(&options, &counts, &mut turn).await;
                }
            });
        }
        honest
    }

    pub(crate) async fn stop(mut self) -> Seen {
        self.leave.store(true, Ordering::SeqCst);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        let of = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Seen {
            asked: of(&self.counts.asked),
            failed: of(&self.counts.failed),
            wrong: of(&self.counts.wrong),
            connected: of(&self.counts.connected),
            refused: of(&self.counts.refused),
            longest_ms: of(&self.counts.longest_ms),
        }
    }
}

/// One client, from its coming to its leaving.
async fn come(options: &Options, counts: &Counts, turn: &mut u64) {
    let mut client = match Client::connect(options.clone()).await {
        Ok(client) => client,
        Err(error) => {
            println!("refused: {error}");
            counts.refused.fetch_add(1, Ordering::SeqCst);
            return;
        }
    };
    counts.connected.fetch_add(1, Ordering::SeqCst);
    for _ in 0..CALLS {
        *turn += 1;
        let begun = Instant::now();
        look_up(&mut client, counts, *turn).await;
        counts.longest_ms.fetch_max(begun.elapsed().as_millis() as u64, Ordering::SeqCst);
        tokio::time::sleep(PAUSE).await;
    }
    drop(client.close().await);
}

/// Looks up a few keys, of which the last is absent.
async fn look_up(client: &mut Client, counts: &Counts, turn: u64) {
    let wanted: Vec<u64> = (1..KEYS).map(|key| (turn * 7 + key * 251) % RECORDS).collect();
    let mut keys: Vec<String> = wanted.iter().map(|&n| record(n).0).collect();
    keys.push(format!("nobody-{turn}"));
    counts.asked.fetch_add(KEYS, Ordering::SeqCst);
    let outcomes = match client.lookup(&keys).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            println!("failed: {error}");
            counts.failed.fetch_add(KEYS, Ordering::SeqCst);
            return;
        }
    };
    for (at, outcome) in outcomes.into_iter().enumerate() {
        let expected =
            wanted.get(at).map_or(Outcome::Absent, |&n| Outcome::Found(record(n).1.clone()));
        match outcome {
            Ok(outcome) if outcome == expected => {}
            Ok(_) => drop(counts.wrong.fetch_add(1, Ordering::SeqCst)),
            Err(error) => {
                println!("failed: {error}");
                counts.failed.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}
