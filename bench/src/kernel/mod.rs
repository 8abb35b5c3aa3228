//! Times the CPU engines at one shape, beside what this machine could do at best.
//!
//! First the floors (time to read the shard, peak rates of the multiply-adds), then every engine
//! that is asked for, number of threads and batch, in rounds over all of them so that noise hits
//! all alike. Then the client's work, memory, how soon a full queue refuses, what counting costs,
//! and answers from a shard that is not in the page cache. Threads are pinned. Shards that caches
//! might hold are many, asked in turn, as a server's are.
//!
//! It checks no answers (`tests/engines.rs` does): shards are noise of the right form. Read next:
//! `floors.rs`, `answers.rs`, `report.rs`.

mod answers;
mod client;
mod cold;
mod counting;
mod floors;
mod inputs;
mod memory;
mod peaks;
mod pin;
mod refusal;
mod report;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::record::{Head, KERNEL_SCHEMA, Kernel, ShapeFacts};
use sotto::arith::IsaName;
use sotto::params::Shape;

use super::common::Effort;
use super::common::noise::Noise;
use super::common::report::{Told, heading};
use answers::Setting;
use client::Client;
use cold::Cold;
use floors::Floors;
use inputs::Store;
use pin::Cores;
use refusal::Refusal;

/// How much is run.
struct Plan {
    batches: &'static [usize],
    /// At most so many rounds, none begun after `budget`.
    rounds_max: usize,
    budget: Duration,
    /// Rounds of the portable engine, where it is not alone: slow, and no target names it.
    portable_rounds: usize,
    cold_rounds: usize,
    refusals: usize,
    /// Queries counted to know what counting costs.
    counts: u32,
    /// Times a multiply-add is repeated to measure its peak.
    peak_loops: u64,
    /// Shards are as many as have so many bytes: more than the caches of a core.
    database_bytes: u64,
}

const BATCHES: &[usize] = &[1, 2, 4, 8, 16, 32];
const DATABASE_BYTES: u64 = 256_000_000;

const TEST: Plan = Plan {
    batches: &[1, 3],
    rounds_max: 1,
    budget: Duration::ZERO,
    portable_rounds: 1,
    cold_rounds: 1,
    refusals: 10,
    counts: 10,
    peak_loops: 1 << 10,
    database_bytes: 1_000_000,
};
const QUICK: Plan = Plan {
    batches: BATCHES,
    rounds_max: 4,
    budget: Duration::from_secs(20),
    portable_rounds: 0,
    cold_rounds: 2,
    refusals: 10_000,
    counts: 1_000_000,
    peak_loops: 1 << 18,
    database_bytes: DATABASE_BYTES,
};
const FULL: Plan = Plan {
    batches: BATCHES,
    rounds_max: 40,
    budget: Duration::from_secs(300),
    portable_rounds: 1,
    cold_rounds: 3,
    refusals: 10_000,
    counts: 1_000_000,
    peak_loops: 1 << 18,
    database_bytes: DATABASE_BYTES,
};

impl Plan {
    fn of(effort: Effort) -> &'static Self {
        match effort {
            Effort::Full => &FULL,
            Effort::Quick => &QUICK,
            Effort::Test => &TEST,
        }
    }
}

/// Everything a run found.
struct Measured {
    floors: Floors,
    settings: Vec<Setting>,
    client: Client,
    memory_bytes: Option<u64>,
    refusal: Refusal,
    /// What counting one query takes.
    counting: Duration,
    cold: Vec<Cold>,
}

/// Measures these engines, slowest first, with shards in an empty folder on a disk; tells what it
/// finds.
pub(crate) fn measure(
    folder: &Path,
    effort: Effort,
    engines: &[IsaName],
    shape: &Shape,
    told: &mut Told,
) -> Result<Kernel, Box<dyn Error>> {
    let head = Head::new(KERNEL_SCHEMA);
    let cores = Cores::new();
    pin::pin_this_thread(&cores.cpus[..1]);
    told.say(heading(&head, &ShapeFacts::of(shape)));
    let plan = Plan::of(effort);
    let seconds = plan.budget.as_secs();
    told.say(format_args!("pinned to {:?}; new rounds begin for {seconds} s", cores.cpus));
    let mut noise = Noise::new();
    let store = Store::write(folder, shape, &mut noise, plan.database_bytes)?;
    let measured = run(plan, engines, shape, &cores, (store, noise))?;
    let record = report::record(head, effort, shape, &cores, &measured);
    told.say(report::text(&record));
    Ok(record)
}

fn run(
    plan: &Plan,
    engines: &[IsaName],
    shape: &Shape,
    cores: &Cores,
    (store, mut noise): (Store, Noise),
) -> Result<Measured, Box<dyn Error>> {
    let most = plan.batches.iter().max().copied().unwrap_or(1);
    let queries: Vec<_> = (0..most)
        .map(|_| {
            let bundle = noise.bundle(shape);
            noise.query(shape, bundle)
        })
        .collect();
    let fastest = *engines.last().ok_or("no engine")?;

    let database = Arc::new(store.open()?);
    let shards: Vec<_> = database.shards().iter().map(|shard| shard.view()).collect();
    let mut floors = Floors::default();
    floors.measure(&shards, cores, plan.peak_loops);
    let memory_bytes = memory::growth(fastest, shards[0], &queries, cores.cpus.len())?;
    let mut settings = Setting::all(plan, engines, cores)?;
    pin::pin_engines(&cores.cpus)?;
    let mut client = Client::new(shape, &mut noise);
    let begun = Instant::now();
    for round in 0..plan.rounds_max {
        if round > 0 && begun.elapsed() > plan.budget {
            break;
        }
        floors.measure(&shards, cores, plan.peak_loops);
        client.measure()?;
        for setting in settings.iter_mut().filter(|setting| round < setting.rounds) {
            setting.run(&shards, &queries)?;
        }
    }
    drop(shards);
    let refusal = refusal::measure(database.clone(), &queries[0], plan.refusals)?;
    let counting = counting::measure(plan.counts, &cores.cpus);
    drop(database); // pages that are mapped cannot be dropped
    let cold = cold::measure(&store, &queries, fastest, cores, plan.cold_rounds)?;
    Ok(Measured { floors, settings, client, memory_bytes, refusal, counting, cold })
}
