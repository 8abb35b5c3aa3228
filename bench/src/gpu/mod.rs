//! Measures a GPU beside what it could do at best: its floors, answers batch by batch for a shard
//! that is on it, uploads, then random queries over 64 such shards through the server's queue, of
//! which a thousand are compared with the processor's answers. A processor that plays a GPU is
//! measured only when named, and not in full. `work.rs` says what shares are of.

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

use crate::numbers;
use crate::record::{GPU_SCHEMA, Gpu, Head, ShapeFacts};
use sotto::engine::{Engine as _, GpuChoice, GpuEngine, GpuInfo, GpuKind, GpuOptions, gpus};
use sotto::params::Shape;

use crate::common::Effort;
use crate::common::noise::Noise;
use crate::common::report::{Printed, heading};
use probe::Probe;
use shards::Pool;
pub(crate) use shards::shape;
use uploads::PASSING;

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

/// Measures one thing after the other, and prints each as soon as it is known.
pub(crate) fn measure(
    effort: Effort,
    info: &GpuInfo,
    shape: &Shape,
    printed: &mut Printed,
) -> Result<Gpu, Box<dyn Error>> {
    let facts = ShapeFacts::of(shape);
    if info.kind == GpuKind::Software && effort == Effort::Full {
        return Err("a processor plays this GPU: full sizes would take hours, add --quick".into());
    }
    let head = Head::new(GPU_SCHEMA);
    let probe = Probe::open(info.index)?;
    let device = report::device(info, &probe);
    printed.say(report::device_text(&device));
    printed.say(heading(&head, &facts));
    let floors = floors::measure(&probe, effort)?;
    printed.numbers(&numbers::gpu_floors(&floors));
    drop(probe); // its memory is needed

    let mut noise = Noise::new();
    let pool = Arc::new(Pool::new(shape, &mut noise));
    // Answers compared with the processor's; more than the largest batch.
    let checked = effort.pick(1000, 1000, 20);
    let queries = shards::queries(shape, checked, &mut noise);
    // Shards that stay on the device, if it holds so many.
    let wanted = effort.pick(64, 8, 3);
    let budget = (wanted + PASSING) as u64 * pool.shard_bytes();
    let options = GpuOptions { shard_bytes: Some(budget), ..GpuOptions::default() };
    let mut engine = GpuEngine::new(info.index, &options)?;
    let name = engine.name();
    printed.say(format_args!("engine {name}"));
    let store = engine.store().ok_or("this is a bug: a GPU without a store")?;
    let filled = uploads::fill(store.as_ref(), &pool, wanted)?;
    let batches = answers::batches(effort);
    answers::warm_up(&mut engine, &pool, &queries, effort)?;
    let mut answers = Vec::new();
    for &batch in batches {
        let found = answers::measure(&mut engine, &pool, &queries, (batch, filled.0), effort)?;
        let answer = report::answer(&found, shape, &floors).ok_or("this is a bug: no calls")?;
        printed.numbers(&numbers::gpu_answer(&answer));
        answers.push(answer);
    }
    let uploads = uploads::measure(&mut engine, &store, &pool, &queries, filled, effort)?;
    printed.say(format_args!("{} shards stay, {PASSING} come and go", uploads.shards));
    printed.numbers(&numbers::gpu_uploads(&uploads));
    drop(store);
    let traffic = traffic::measure(engine, &pool, queries, (filled.0, noise), (effort, checked))?;
    printed.numbers(&numbers::gpu_traffic(&traffic));
    printed.say(format_args!("{} answers equal the processor's on every bit", traffic.checked));
    let targets = report::targets(effort, &device, shape, &answers);
    printed.say(report::targets_said(&targets));
    let effort = effort.name().into();
    let (engine, shape) = (name, facts);
    Ok(Gpu { head, effort, shape, device, engine, floors, answers, uploads, traffic, targets })
}
