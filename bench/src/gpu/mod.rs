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

use std::sync::Arc;

use crate::Failed;
use crate::record::{GPU_SCHEMA, Gpu, Head, ShapeFacts};
use sotto::commands::out::report as say;
use sotto::engine::{Engine as _, GpuChoice, GpuEngine, GpuInfo, GpuKind, GpuOptions, gpus};
use sotto::params::Shape;

use crate::common::{Effort, Noise};
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

/// Measures one thing after the other, and says what each found, for a run may be cut short.
pub(crate) fn measure(effort: Effort, info: &GpuInfo, shape: &Shape) -> Result<Gpu, Failed> {
    if info.kind == GpuKind::Software && effort == Effort::Full {
        return Err("a processor plays this GPU: full sizes would take hours, add --quick".into());
    }
    let head = Head::new(GPU_SCHEMA);
    let probe = Probe::open(info.index)?;
    let device = report::device(info, &probe);
    say(format_args!("device {}, driver {}", device.name, device.driver));
    let floors = floors::measure(&probe, effort)?;
    say(format_args!("{floors:?}"));
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
    let store = engine.store().ok_or("this is a bug: a GPU without a store")?;
    let filled = uploads::fill(store.as_ref(), &pool, wanted)?;
    answers::warm_up(&mut engine, &pool, &queries, effort)?;
    let mut answers = Vec::new();
    for &batch in answers::batches(effort) {
        let found = answers::measure(&mut engine, &pool, &queries, (batch, filled.0), effort)?;
        let answer = report::answer(&found, shape, &floors).ok_or("this is a bug: no calls")?;
        say(format_args!("{answer:?}"));
        answers.push(answer);
    }
    let uploads = uploads::measure(&mut engine, &store, &pool, &queries, filled, effort)?;
    say(format_args!("{uploads:?}"));
    drop(store);
    let traffic = traffic::measure(engine, &pool, queries, (filled.0, noise), (effort, checked))?;
    let targets = report::targets(effort, &device, shape, &answers);
    let (effort, shape, engine) = (effort.name().into(), ShapeFacts::of(shape), name);
    Ok(Gpu { head, effort, shape, device, engine, floors, answers, uploads, traffic, targets })
}
