//! Measures a GPU beside what it could do at best, in one run.
//!
//! The device, its floors (reading, multiply-adds), stages and whole answers batch by batch for a
//! shard that is on it, uploads, then random queries over 64 such shards through the server's
//! queue, of which a thousand are compared with the processor's answers. A processor that plays a
//! GPU is measured only when named, and not in full.
//!
//! Read next: `floors.rs`, `work.rs` (what a share is of), `answers.rs`, `traffic.rs`, `report.rs`.

mod answers;
mod floors;
mod probe;
mod report;
mod shards;
mod traffic;
mod uploads;
mod work;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::numbers;
use crate::record::{GPU_SCHEMA, Gpu, Head, ShapeFacts};
use sotto::engine::{Engine as _, GpuChoice, GpuEngine, GpuInfo, GpuKind, GpuOptions, gpus};
use sotto::params::{Shape, ShapeError, ShapeWishes};

use super::common::Effort;
use super::common::noise::Noise;
use super::common::report::{Told, heading};
use probe::Probe;
use shards::Pool;
use uploads::PASSING;

/// How much is run.
struct Plan {
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

const FULL: Plan = Plan {
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

impl Plan {
    fn of(effort: Effort) -> &'static Self {
        match effort {
            Effort::Full => &FULL,
            Effort::Quick => &QUICK,
            Effort::Test => &TEST,
        }
    }
}

/// The shards' shape where none is asked for: the standard one, or what a processor that plays a
/// GPU gets done.
pub(crate) fn shape(effort: Effort) -> Result<Shape, ShapeError> {
    match effort {
        Effort::Full => Shape::for_records(1 << 20, 120, ShapeWishes::default()),
        Effort::Quick => Shape::new(120, 128, 4, 2048),
        Effort::Test => Shape::new(120, 128, 1, 192),
    }
}

/// The one that was named, or the first real one.
pub(crate) fn find(choice: Option<&GpuChoice>) -> Result<GpuInfo, String> {
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

/// Measures one thing after the other and tells each as soon as it is known.
pub(crate) fn measure(
    effort: Effort,
    info: &GpuInfo,
    shape: &Shape,
    told: &mut Told,
) -> Result<Gpu, Box<dyn Error>> {
    let (plan, facts) = (Plan::of(effort), ShapeFacts::of(shape));
    if info.kind == GpuKind::Software && effort == Effort::Full {
        return Err("a processor plays this GPU: full sizes would take hours, add --quick".into());
    }
    let head = Head::new(GPU_SCHEMA);
    let probe = Probe::open(info.index)?;
    let device = report::device(info, &probe);
    told.say(report::device_text(&device));
    told.say(heading(&head, &facts));
    let floors = floors::measure(&probe, plan)?;
    told.numbers(&numbers::gpu_floors(&floors));
    drop(probe); // its memory is needed

    let mut noise = Noise::new();
    let pool = Arc::new(Pool::new(shape, &mut noise));
    let most = plan.batches.iter().max().copied().unwrap_or(1);
    let queries = shards::queries(shape, plan.checked.max(most), &mut noise);
    let budget = (plan.shards + PASSING) as u64 * pool.shard_bytes();
    let options = GpuOptions { shard_bytes: Some(budget), ..GpuOptions::default() };
    let mut engine = GpuEngine::new(info.index, &options)?;
    let name = engine.name();
    told.say(format_args!("engine {name}"));
    let store = engine.store().ok_or("this is a bug: a GPU without a store")?;
    let filled = uploads::fill(store.as_ref(), &pool, plan.shards)?;
    answers::warm_up(&mut engine, &pool, &queries, plan)?;
    let mut answers = Vec::new();
    for &batch in plan.batches {
        let found = answers::measure(&mut engine, &pool, &queries, (batch, filled.0), plan)?;
        let answer = report::answer(&found, shape, &floors).ok_or("this is a bug: no calls")?;
        told.numbers(&numbers::gpu_answer(&answer));
        answers.push(answer);
    }
    let uploads = uploads::measure(&mut engine, &store, &pool, &queries, filled, plan)?;
    told.say(format_args!("{} shards stay and {PASSING} pass", uploads.shards));
    told.numbers(&numbers::gpu_uploads(&uploads));
    drop(store);
    let traffic = traffic::measure(engine, &pool, queries, (filled.0, noise), plan)?;
    told.numbers(&numbers::gpu_traffic(&traffic));
    told.say(format_args!("{} answers equal the processor's on every bit", traffic.checked));
    let targets = report::targets(effort, &device, shape, &answers);
    told.say(report::targets_said(&targets));
    let effort = effort.name().into();
    let (engine, shape) = (name, facts);
    Ok(Gpu { head, effort, shape, device, engine, floors, answers, uploads, traffic, targets })
}
