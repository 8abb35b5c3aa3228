//! What load tests have in common: work that begins at a steady rate, how long each piece took, and
//! how busy the processors were.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Duration, MissedTickBehavior, interval};

/// Seconds of a measurement.
const SECONDS: u32 = 20;

/// How much a load test does: the number in `SOTTO_LOAD`, or else so little that it takes no time.
pub(crate) fn load_size(tiny: usize) -> usize {
    std::env::var("SOTTO_LOAD").map_or(tiny, |load| load.parse().unwrap())
}

/// How many pieces of work a load test does, and how fast.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Pieces of work that begin in a second.
    pub(crate) rate: u32,
    pub(crate) count: u32,
}

impl Load {
    /// `SOTTO_LOAD` in a second, for [`SECONDS`]; by default `few` at this rate.
    pub(crate) fn or_few(few: u32, rate: u32) -> Self {
        match load_size(0) as u32 {
            0 => Self { rate, count: few },
            rate => Self { rate, count: rate * SECONDS },
        }
    }

    /// Begins a piece of work at each tick, whether or not earlier ones are done, and returns what
    /// all came to. Each is told when it was due: late ones begin at once, so that what the machine
    /// cannot do shows as a longer time. No more than `at_once` run: others wait for them, as for
    /// the connections of a client that opens no more.
    pub(crate) async fn run<F>(
        self,
        at_once: usize,
        mut begin: impl FnMut(u32, Instant) -> F,
    ) -> Vec<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let mut ticks = interval(Duration::from_secs(1) / self.rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (mut tasks, room) = (JoinSet::new(), Arc::new(Semaphore::new(at_once)));
        for index in 0..self.count {
            let due = ticks.tick().await.into_std();
            let (work, room) = (begin(index, due), room.clone());
            tasks.spawn(async move {
                let _place = room.acquire_owned().await;
                work.await
            });
        }
        tasks.join_all().await
    }
}

/// The seconds and the processor time since some moment.
pub(crate) struct Watch {
    begun: Instant,
    machine: [u64; 2],
    own: u64,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { begun: Instant::now(), machine: machine_ticks(), own: own_ticks() }
    }

    /// A line for a record: how many there were in a second, how long they took, what was busy.
    pub(crate) fn line(&self, what: &str, mut times: Vec<Duration>) -> String {
        let took = self.begun.elapsed().as_secs_f64();
        let [busy, all] = machine_ticks();
        let [busy, all] = [busy - self.machine[0], (all - self.machine[1]).max(1)];
        let own = own_ticks() - self.own;
        times.sort_unstable();
        let at = |per_mille: usize| {
            let place = (times.len() * per_mille / 1_000).min(times.len() - 1);
            times[place].as_secs_f64() * 1e3
        };
        format!(
            "{} {what} in {took:.1} s: {:.0} a second; milliseconds at 50%: {:.1}, 90%: {:.1}, \
             99%: {:.1}, 99.9%: {:.1}, all: {:.1}; processors {}% busy, this process {}%",
            times.len(),
            times.len() as f64 / took,
            at(500),
            at(900),
            at(990),
            at(999),
            at(1_000),
            100 * busy / all,
            100 * own / all,
        )
    }
}

/// Ticks of all processors: those in which they were busy, and all.
fn machine_ticks() -> [u64; 2] {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = first.split(' ').filter_map(|field| field.parse().ok()).collect();
    let all: u64 = fields.iter().take(8).sum();
    // Idle, and waiting for a disk.
    [all - fields.iter().skip(3).take(2).sum::<u64>(), all]
}

/// Ticks of this process.
fn own_ticks() -> u64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which is in brackets, the state is the first field.
    let (_, fields) = text.rsplit_once(')').unwrap_or_default();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}
