//! Times the CPU engines at one shape, beside what this machine could do at best.
//!
//! Floors and engines are measured in rounds, so that noise hits all alike; then the client's work,
//! memory, refusals, counting, and answers from a shard that is not in the page cache. Threads are
//! pinned. Shards are noise, and no answer is checked here (`tests/engines.rs` does that).

mod answers;
mod client;
mod cold;
mod counting;
mod floors;
mod inputs;
mod peaks;
mod pin;
mod refusal;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Failed;
use crate::record::{Head, KERNEL_SCHEMA, Kernel};
use sotto::arith::IsaName;
use sotto::commands::out::report as say;
use sotto::params::Shape;

use crate::common::{Effort, Noise};
use answers::Setting;
use client::Client;
use floors::Floors;
use inputs::Store;
use pin::Cores;
use report::Measured;

/// Measures these engines, slowest first, with shards in an empty folder on a disk.
pub(crate) fn measure(
    folder: &Path,
    effort: Effort,
    engines: &[IsaName],
    shape: &Shape,
) -> Result<Kernel, Failed> {
    let head = Head::new(KERNEL_SCHEMA);
    let cores = Cores::new();
    pin::pin_this_thread(&cores.cpus[..1]);
    let budget = Duration::from_secs(effort.pick(300, 20, 0));
    say(format_args!("pinned to {:?}; new rounds begin for {budget:?}", cores.cpus));
    let mut noise = Noise::new();
    let store = Store::write(folder, shape, &mut noise, effort)?;
    let measured = run(effort, budget, engines, shape, &cores, (store, noise))?;
    Ok(report::record(head, effort, shape, &cores, measured))
}

fn run(
    effort: Effort,
    budget: Duration,
    engines: &[IsaName],
    shape: &Shape,
    cores: &Cores,
    (store, mut noise): (Store, Noise),
) -> Result<Measured, Failed> {
    let most = answers::batches(effort).last().copied().unwrap_or(1);
    let query = |_| {
        let bundle = noise.bundle(shape);
        noise.query(shape, bundle)
    };
    let queries: Vec<_> = (0..most).map(query).collect();
    let fastest = *engines.last().ok_or("no engine")?;

    let database = Arc::new(store.open()?);
    let shards: Vec<_> = database.shards().map(|shard| shard.view()).collect();
    // Times a multiply-add is repeated to measure its peak.
    let peak_loops = effort.pick(1 << 18, 1 << 18, 1 << 10);
    let mut floors = Floors::default();
    floors.measure(&shards, cores, peak_loops);
    let memory_bytes = answers::memory_growth(fastest, shards[0], &queries, cores.cpus.len())?;
    let mut settings = Setting::all(effort, engines, cores)?;
    pin::pin_engines(&cores.cpus)?;
    let mut client = Client::new(shape, &mut noise);
    let begun = Instant::now();
    for round in 0..answers::rounds_max(effort) {
        if round > 0 && begun.elapsed() > budget {
            break;
        }
        floors.measure(&shards, cores, peak_loops);
        client.measure()?;
        for setting in settings.iter_mut().filter(|setting| round < setting.rounds) {
            setting.run(&shards, &queries)?;
        }
    }
    drop(shards);
    let refusals = effort.pick(10_000, 10_000, 10);
    let refusal = refusal::measure(database.clone(), &queries[0], refusals)?;
    let counting = counting::measure(effort.pick(1_000_000, 1_000_000, 10), &cores.cpus);
    drop(database); // pages that are mapped cannot be dropped
    let cold = cold::measure(&store, &queries, fastest, cores, effort.pick(3, 2, 1))?;
    let client = client.record();
    Ok(Measured { floors, settings, client, memory_bytes, refusal, counting, cold })
}
