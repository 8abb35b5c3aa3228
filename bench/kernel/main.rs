//! Times the CPU engines at the standard shape, beside what this machine could do at best.
//!
//! `cargo bench --bench kernel [-- [--quick] [--engine NAME] [--json PATH]]`: first the floors
//! (time to read the shard, peak rates of the multiply-adds), then every engine that is present,
//! thread count and batch, in rounds over all of them so that noise hits all alike; the best
//! counts. Then the client's work, memory, how soon a full queue refuses, what counting costs, and
//! answers from a shard that is not in the page cache. Threads are pinned. Without `--bench` (as
//! `cargo test` runs it) all of it happens once at a tiny shape.
//!
//! It checks no answers (`tests/engines.rs` does): the shard is noise of the right form. Read
//! next: `floors.rs`, `answers.rs`, `report.rs`.

mod answers;
mod client;
mod cold;
#[path = "../common/mod.rs"]
mod common;
mod counting;
mod floors;
mod inputs;
mod memory;
mod peaks;
mod pin;
mod refusal;
mod report;

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sotto::arith::{Isa, IsaName};
use sotto::params::{Shape, ShapeWishes};

use answers::Setting;
use client::Client;
use cold::Cold;
use common::noise::Noise;
use common::report::Head;
use floors::Floors;
use inputs::Store;
use refusal::Refusal;
use report::Report;

/// How much is run.
struct Plan {
    name: &'static str,
    records: u64,
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
}

const BATCHES: &[usize] = &[1, 2, 4, 8, 16, 32];
const STANDARD_RECORDS: u64 = 1 << 20;

const TEST: Plan = Plan {
    name: "test",
    records: 1 << 10,
    batches: &[1, 3],
    rounds_max: 1,
    budget: Duration::ZERO,
    portable_rounds: 1,
    cold_rounds: 1,
    refusals: 10,
    counts: 10,
    peak_loops: 1 << 10,
};
const QUICK: Plan = Plan {
    name: "quick",
    records: STANDARD_RECORDS,
    batches: BATCHES,
    rounds_max: 4,
    budget: Duration::from_secs(20),
    portable_rounds: 0,
    cold_rounds: 2,
    refusals: 10_000,
    counts: 1_000_000,
    peak_loops: 1 << 18,
};
const FULL: Plan = Plan {
    name: "full",
    records: STANDARD_RECORDS,
    batches: BATCHES,
    rounds_max: 40,
    budget: Duration::from_secs(300),
    portable_rounds: 1,
    cold_rounds: 3,
    refusals: 10_000,
    counts: 1_000_000,
    peak_loops: 1 << 18,
};

/// What the command line asks for.
struct Options {
    plan: Plan,
    /// All that are present, or one.
    engines: Vec<IsaName>,
    json: Option<PathBuf>,
}

/// Arguments of the test runner (names to filter by, its flags) are passed here too: without
/// `--bench` nothing is refused.
fn options(arguments: &[String]) -> Result<Options, String> {
    let engines: Vec<_> = Isa::all().into_iter().map(Isa::name).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if !has("--bench") || has("--test") {
        return Ok(Options { plan: TEST, engines, json: None });
    }
    let mut options = Options { plan: FULL, engines, json: None };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--bench" => {}
            "--quick" => options.plan = QUICK,
            "--engine" => {
                let name = rest.next().map_or("", String::as_str);
                let present: Vec<_> = options.engines.iter().map(|isa| isa.name()).collect();
                options.engines.retain(|engine| engine.name() == name);
                if options.engines.is_empty() {
                    return Err(format!("--engine: found {name:?}, expected one of {present:?}"));
                }
            }
            "--json" => {
                let path = rest.next().ok_or("--json wants the path of the file to write")?;
                options.json = Some(path.into());
            }
            other => {
                let expected = "--quick, --engine NAME or --json PATH";
                return Err(format!("found {other:?}, expected {expected}"));
            }
        }
    }
    Ok(options)
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

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Options { plan, engines, json } = options(&arguments)?;
    let json = json.map(|path| {
        File::create(&path).map_err(|error| format!("cannot write {}: {error}", path.display()))
    });
    let json = json.transpose()?; // before the work, not after it
    let cores = pin::cores();
    pin::pin_this_thread(&cores[..1]);
    let shape = Shape::for_records(plan.records, 120, ShapeWishes::default())?;
    let head = Head::new("kernel", plan.name, &arguments, &shape, &cores);
    let measured = measure(&plan, &engines, &shape, &cores)?;
    let mut report = Report::new(head, &shape, &measured);
    if plan.records == STANDARD_RECORDS {
        report.add_targets();
    }
    report.print();
    let text = serde_json::to_string_pretty(&report)?;
    json.map_or(Ok(()), |mut file| writeln!(file, "{text}"))?;
    Ok(())
}

fn measure(
    plan: &Plan,
    engines: &[IsaName],
    shape: &Shape,
    cores: &[usize],
) -> Result<Measured, Box<dyn Error>> {
    let mut noise = Noise::new();
    let store = Store::write(shape, &mut noise)?;
    let most = plan.batches.iter().max().copied().unwrap_or(1);
    let queries: Vec<_> = (0..most)
        .map(|_| {
            let bundle = noise.bundle(shape);
            noise.query(shape, bundle)
        })
        .collect();
    let fastest = *engines.last().ok_or("no engine")?;

    let database = store.open()?;
    let shard = database.shard(0).ok_or("the database has no shard")?.view();
    let mut floors = Floors::default();
    floors.measure(&shard, cores, plan.peak_loops);
    let memory_bytes = memory::growth(fastest, shard, &queries, cores.len())?;
    let mut settings = Setting::all(plan, engines, cores.len())?;
    pin::pin_engines(cores)?;
    let mut client = Client::new(shape, &mut noise);
    let begun = Instant::now();
    for round in 0..plan.rounds_max {
        if round > 0 && begun.elapsed() > plan.budget {
            break;
        }
        floors.measure(&shard, cores, plan.peak_loops);
        client.measure()?;
        for setting in settings.iter_mut().filter(|setting| round < setting.rounds) {
            setting.run(shard, &queries)?;
        }
    }
    let database = Arc::new(database);
    let refusal = refusal::measure(database.clone(), &queries[0], plan.refusals)?;
    let counting = counting::measure(plan.counts, cores.len());
    drop(database); // pages that are mapped cannot be dropped
    let cold = cold::measure(&store, &queries, fastest, cores, plan.cold_rounds)?;
    Ok(Measured { floors, settings, client, memory_bytes, refusal, counting, cold })
}
