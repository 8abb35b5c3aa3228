//! Queries for random shards through the server's own schedule and worker: a closed loop, so many
//! outstanding at any time, each with a shard of its own choosing. And the check: answers of such
//! queries beside the processor's, bit for bit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::record::{GpuLoop, GpuTraffic};
use sotto::engine::{Answer, Batch, EncryptedQuery, EngineChoice, GpuEngine, IsaChoice, select};
use sotto::limits;
use sotto::schedule::{Arrival, ConnectionId, FrontEnd, ScheduleBounds};
use sotto::worker::{Job, Outcome, Queue, Workers};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::shards::{Pool, Windows, renew_bundles};
use crate::Failed;
use crate::common::{Effort, Noise, median, ms};
use crate::record::rounded;

/// The way in and back, and queries to send.
struct Loader {
    queue: Queue,
    sender: UnboundedSender<(usize, Outcome)>,
    outcomes: UnboundedReceiver<(usize, Outcome)>,
    queries: Vec<EncryptedQuery>,
    shards: usize,
    noise: Noise,
    /// When each was admitted, and which shard was asked: by number of the query.
    sent: Vec<(Instant, usize)>,
}

/// Answers random queries for the first shards of the pool, all of them on the engine's device.
pub(super) fn measure(
    engine: GpuEngine,
    pool: &Arc<Pool>,
    queries: Vec<EncryptedQuery>,
    (shards, noise): (usize, Noise),
    (effort, checked): (Effort, usize),
) -> Result<GpuTraffic, Failed> {
    let (windows, bounds) = (Arc::new(Windows(pool.clone())), ScheduleBounds::default());
    let workers = Workers::start(vec![Box::new(engine)], windows, bounds, None)?;
    let (sender, outcomes) = unbounded_channel();
    let queue = workers.queue();
    let sent = Vec::new();
    let mut loader = Loader { queue, sender, outcomes, queries, shards, noise, sent };
    let mut loops = Vec::new();
    let time = Duration::from_millis(effort.pick(4000, 500, 0));
    let outstanding: &[usize] = effort.pick(&[1, 64, 512, 2048], &[1, 16, 64], &[4]);
    for &outstanding in outstanding {
        loops.push(loader.run(outstanding, time)?);
    }
    let answers = loader.collect(checked)?;
    let waited_for_upload = workers.counters().answered_by_device_after_upload.get();
    drop(workers);
    let checked = check(pool, &loader, &answers)?;
    Ok(GpuTraffic { shards, loops, waited_for_upload, checked })
}

impl Loader {
    fn admit(&mut self) -> Result<(), Failed> {
        let number = self.sent.len();
        let at = number % self.queries.len();
        if at == 0 && number > 0 {
            renew_bundles(&mut self.queries);
        }
        let query = self.queries[at].clone();
        let shard = self.noise.word() as usize % self.shards;
        let now = Instant::now();
        self.sent.push((now, shard));
        let arrival = Arrival {
            connection: ConnectionId((number % 16) as u64),
            front_end: FrontEnd { number: (number % 16) as u64, share: 1 },
            shard: shard as u32,
            scan_bytes: 1,
            bytes: query.vector.len() + query.bundle.held_bytes(),
            deadline: now + limits::DEADLINE_MAX,
            item: Job { query, index: number, outcomes: self.sender.clone() },
        };
        self.queue.submit(now, arrival).map_err(|_| "the schedule refused a query: too many")?;
        Ok(())
    }

    fn receive(&mut self) -> Result<(usize, Answer), Failed> {
        match self.outcomes.blocking_recv().ok_or("this is a bug: the loader is a sender")? {
            (number, Outcome::Answered(answer)) => Ok((number, answer)),
            (_, outcome) => Err(format!("a query ended {outcome:?}, expected an answer").into()),
        }
    }

    /// A closed loop for a while; the first round of answers warms up.
    fn run(&mut self, outstanding: usize, time: Duration) -> Result<GpuLoop, Failed> {
        self.sent.clear();
        (0..outstanding).try_for_each(|_| self.admit())?;
        for _ in 0..outstanding {
            self.receive()?;
            self.admit()?;
        }
        let mut waited = Vec::new();
        let start = Instant::now();
        while waited.len() < outstanding || start.elapsed() < time {
            let (number, _) = self.receive()?;
            waited.push(self.sent[number].0.elapsed());
            self.admit()?;
        }
        let queries_per_s = rounded(waited.len() as f64 / start.elapsed().as_secs_f64());
        (0..outstanding).try_for_each(|_| self.receive().map(|_| ()))?;
        waited.sort();
        Ok(GpuLoop {
            outstanding,
            queries_per_s,
            median_ms: median(waited.iter().copied()).map_or(0.0, ms),
            p99_ms: ms(waited[waited.len() * 99 / 100]),
        })
    }

    fn collect(&mut self, count: usize) -> Result<Vec<Answer>, Failed> {
        self.sent.clear();
        (0..count).try_for_each(|_| self.admit())?;
        let mut answers = vec![Vec::new(); count];
        for _ in 0..count {
            let (number, answer) = self.receive()?;
            answers[number] = answer;
        }
        Ok(answers)
    }
}

/// How many answers equal the processor's: all, or an error.
fn check(pool: &Pool, loader: &Loader, answers: &[Answer]) -> Result<usize, Failed> {
    let mut processor = select(EngineChoice::Cpu, IsaChoice::Auto, None)?;
    let mut equal = 0;
    for shard in 0..loader.shards {
        let of_shard = loader.sent.iter().enumerate().filter(|(_, sent)| sent.1 == shard);
        let numbers: Vec<usize> = of_shard.map(|(number, _)| number).collect();
        let query = |&number: &usize| loader.queries[number % loader.queries.len()].clone();
        let queries: Vec<_> = numbers.iter().map(query).collect();
        let batch = Batch { shard: pool.shard(shard), queries: &queries };
        processor.answer(&[batch], &mut |_, query, answer| {
            equal += usize::from(answer == answers[numbers[query]]);
        })?;
    }
    if equal != answers.len() {
        let wrong = answers.len() - equal;
        return Err(
            format!("{wrong} of {} answers differ from the processor's", answers.len()).into()
        );
    }
    Ok(equal)
}
