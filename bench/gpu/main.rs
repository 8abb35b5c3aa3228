//! Measures a GPU beside what it could do at best, in one run.
//!
//! `cargo bench --bench gpu [-- [--gpu INDEX|NAME] [--quick] [--json PATH]]`: the device, its
//! floors (reading, multiply-adds), stages and whole answers batch by batch for a shard that is on
//! it, uploads, then random queries over 64 such shards through the server's queue, of which a
//! thousand are compared with the processor's answers. The standard shard; `--quick` takes small
//! ones, for a processor that plays a GPU, which is measured only when named. Without `--bench` (as
//! `cargo test` runs it) all of it happens once, tiny, on the device that SOTTO_TEST_GPU names or a
//! real one, or not at all.
//!
//! Read next: `floors.rs`, `work.rs` (what a share is of), `answers.rs`, `traffic.rs`, `report.rs`.

mod answers;
#[path = "../common/mod.rs"]
mod common;
mod floors;
mod probe;
mod report;
mod shards;
mod traffic;
mod uploads;
mod work;

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sotto::engine::{Engine as _, GpuChoice, GpuEngine, GpuInfo, GpuKind, GpuOptions, gpus};
use sotto::params::{Shape, ShapeError, ShapeWishes};

use common::noise::Noise;
use common::report::Head;
use floors::Floors;
use probe::Probe;
use report::{Device, Report, Row};
use shards::Pool;
use uploads::PASSING;

/// How much is run.
struct Plan {
    name: &'static str,
    shape: fn() -> Result<Shape, ShapeError>,
    batches: &'static [usize],
    /// Memory that is read for the floor: far more than any cache.
    read_bytes: u64,
    /// Workgroups that multiply.
    floor_groups: u32,
    /// A floor's kernels run so long at least, so many times.
    floor_time: Duration,
    floor_tries: usize,
    stage_tries: usize,
    /// Calls of one kind.
    answers_time: Duration,
    /// Batches of one call at most.
    call_batches: usize,
    /// Shards that stay on the device, if it holds so many.
    shards: usize,
    upload_time: Duration,
    upload_batch: usize,
    outstanding: &'static [usize],
    traffic_time: Duration,
    /// Answers compared with the processor's.
    checked: usize,
}

const STANDARD_RECORDS: u64 = 1 << 20;

const FULL: Plan = Plan {
    name: "full",
    shape: || Shape::for_records(STANDARD_RECORDS, 120, ShapeWishes::default()),
    batches: &[1, 2, 4, 8, 16, 32, 64],
    read_bytes: 4 << 30,
    floor_groups: 1 << 13,
    floor_time: Duration::from_millis(20),
    floor_tries: 8,
    stage_tries: 3,
    answers_time: Duration::from_millis(500),
    call_batches: 64,
    shards: 64,
    upload_time: Duration::from_secs(2),
    upload_batch: 8,
    outstanding: &[1, 64, 512, 2048],
    traffic_time: Duration::from_secs(4),
    checked: 1000,
};
const QUICK: Plan = Plan {
    name: "quick",
    shape: || Shape::new(120, 128, 4, 2048),
    read_bytes: 64 << 20,
    floor_groups: 1 << 4,
    floor_time: Duration::from_millis(5),
    floor_tries: 2,
    stage_tries: 1,
    answers_time: Duration::from_millis(100),
    call_batches: 4,
    shards: 8,
    upload_time: Duration::from_millis(200),
    upload_batch: 2,
    outstanding: &[1, 16, 64],
    traffic_time: Duration::from_millis(500),
    ..FULL
};
const TEST: Plan = Plan {
    name: "test",
    shape: || Shape::new(120, 128, 1, 192),
    batches: &[1, 3],
    floor_time: Duration::ZERO,
    floor_tries: 1,
    answers_time: Duration::ZERO,
    call_batches: 2,
    shards: 3,
    upload_time: Duration::ZERO,
    outstanding: &[4],
    traffic_time: Duration::ZERO,
    checked: 20,
    ..QUICK
};

/// What the command line asks for.
struct Options {
    plan: Plan,
    gpu: Option<GpuChoice>,
    json: Option<PathBuf>,
}

/// Arguments of the test runner (names to filter by, its flags) are passed here too: without
/// `--bench` nothing is refused.
fn options(arguments: &[String]) -> Result<Options, String> {
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let named = |text: &str| text.parse::<GpuChoice>().map_err(|error| format!("--gpu: {error}"));
    if !has("--bench") || has("--test") {
        let gpu = std::env::var("SOTTO_TEST_GPU").ok().map(|name| named(&name)).transpose()?;
        return Ok(Options { plan: TEST, gpu, json: None });
    }
    let mut options = Options { plan: FULL, gpu: None, json: None };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--bench" => {}
            "--quick" => options.plan = QUICK,
            "--gpu" => options.gpu = Some(named(value()?)?),
            "--json" => options.json = Some(value()?.into()),
            other => {
                let expected = "--gpu INDEX or NAME, --quick or --json PATH";
                return Err(format!("found {other:?}, expected {expected}"));
            }
        }
    }
    Ok(options)
}

/// The one that was named, or the first real one.
fn find(choice: Option<&GpuChoice>) -> Result<GpuInfo, String> {
    let mut all = gpus();
    let found = all.iter().position(|info| match choice {
        None => info.kind == GpuKind::Real && info.lacks.is_none(),
        Some(GpuChoice::Index(index)) => info.index == *index,
        Some(GpuChoice::Name(name)) => info.name.to_lowercase().contains(name.as_str()),
    });
    let names: Vec<_> = all.iter().map(|info| info.name.as_str()).collect();
    let wanted = choice.map_or("a real GPU".into(), ToString::to_string);
    let missing =
        format!("expected {wanted}, found {names:?} (a software one is to be named: --gpu)");
    found.map(|at| all.swap_remove(at)).ok_or(missing)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Options { plan, gpu, json } = options(&arguments)?;
    let info = match find(gpu.as_ref()) {
        Err(reason) if gpu.is_none() && plan.name == TEST.name => {
            println!("skipped: {reason}");
            return Ok(());
        }
        found => found?,
    };
    if info.kind == GpuKind::Software && plan.name == FULL.name {
        return Err("a processor plays this GPU: full sizes would take hours, add --quick".into());
    }
    let json = json.map(|path| {
        File::create(&path).map_err(|error| format!("cannot write {}: {error}", path.display()))
    });
    let json = json.transpose()?; // before the work, not after it
    let shape = (plan.shape)()?;
    let head = Head::new("gpu", plan.name, &arguments, &shape, &[]);
    let report = measure(&plan, head, &info, &shape)?;
    let text = serde_json::to_string_pretty(&report)?;
    json.map_or(Ok(()), |mut file| writeln!(file, "{text}"))?;
    Ok(())
}

/// Measures one thing after the other and prints each as soon as it is known.
fn measure(
    plan: &Plan,
    head: Head,
    info: &GpuInfo,
    shape: &Shape,
) -> Result<Report, Box<dyn Error>> {
    let probe = Probe::open(info.index)?;
    let device = Device::new(info, &probe);
    device.print();
    head.print();
    let floors = Floors::measure(&probe, plan)?;
    floors.print();
    drop(probe); // its memory is needed

    let mut noise = Noise::new();
    let pool = Arc::new(Pool::new(shape, &mut noise));
    let most = plan.batches.iter().max().copied().unwrap_or(1);
    let queries = shards::queries(shape, plan.checked.max(most), &mut noise);
    let budget = (plan.shards + PASSING) as u64 * pool.shard_bytes();
    let options = GpuOptions { shard_bytes: Some(budget), ..GpuOptions::default() };
    let mut engine = GpuEngine::new(info.index, &options)?;
    let name = engine.name();
    println!("engine {name}");
    let store = engine.store().ok_or("this is a bug: a GPU without a store")?;
    let filled = uploads::fill(store.as_ref(), &pool, plan.shards)?;
    Row::print_heading();
    let mut answers = Vec::new();
    for &batch in plan.batches {
        let found = answers::measure(&mut engine, &pool, &queries, (batch, filled.0), plan)?;
        let row = Row::new(&found, shape, &floors);
        row.print();
        answers.push(row);
    }
    let uploads = uploads::measure(&mut engine, &store, &pool, &queries, filled, plan)?;
    uploads.print();
    drop(store);
    let traffic = traffic::measure(engine, &pool, queries, (filled.0, noise), plan)?;
    traffic.print();
    let targets = Vec::new();
    let mut report =
        Report { head, device, engine: name, floors, answers, uploads, traffic, targets };
    if plan.name == FULL.name && !report.device.software {
        report.add_targets();
    }
    report.print_targets();
    Ok(report)
}
