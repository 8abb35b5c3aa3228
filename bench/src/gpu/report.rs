//! The run as it is written down: parts of a record for machines, tables for people, targets beside
//! both. A share is what the device would have taken at best (`work.rs`) over what was taken.

use std::time::Duration;

use crate::record::{GpuAnswer, GpuDevice, GpuFloors, Target};
use sotto::engine::{GpuInfo, GpuKind};
use sotto::params::Shape;

use super::answers::Answers;
use super::probe::Probe;
use super::shards::shape;
use super::work::{Floor, StageFloors};
use crate::common::Effort;
use crate::common::report::{median, rounded, spread, target, targets_text};

pub(super) fn device(info: &GpuInfo, probe: &Probe) -> GpuDevice {
    let limits = &probe.limits;
    GpuDevice {
        name: info.name.clone(),
        driver: info.driver.clone(),
        software: info.kind == GpuKind::Software,
        binding_bytes_max: limits.max_storage_buffer_binding_size,
        buffer_bytes_max: limits.max_buffer_size,
        workgroup_bytes_max: limits.max_compute_workgroup_storage_size,
        workgroup_threads_max: limits.max_compute_invocations_per_workgroup,
        subgroup_sizes: probe.subgroup_sizes,
        integers_64_bits: true, // or it would not be used
        features: format!("{:?}", probe.features),
    }
}

pub(super) fn device_text(device: &GpuDevice) -> String {
    let mut text = String::new();
    if device.software {
        text += "NOT MEASURED ON A GPU: a processor plays this one. The numbers show that the\n\
                 measurement runs, and nothing else.\n";
    }
    text + &format!(
        "device {}, driver {}; its limits stand in the record",
        device.name, device.driver
    )
}

/// One batch size; nothing where there was no call.
pub(super) fn answer(answers: &Answers, shape: &Shape, floors: &GpuFloors) -> Option<GpuAnswer> {
    let Answers { batch, stages, alone, streamed } = answers;
    let floor = StageFloors::new(shape, *batch, floors);
    let whole = floor.whole();
    let a_query = |time: Duration| time.as_secs_f64() * 1e6 / *batch as f64;
    let us = |time: Duration| rounded(a_query(time));
    let (one, many) = (alone.iter().min().copied()?, streamed.iter().min().copied()?);
    let middle = median(alone.iter().copied())?;
    let stage = |floor: Floor, time: Duration| share(floor.time(), time);
    let of = |floor: Duration, time: Duration| share(floor, time).unwrap_or_default();
    Some(GpuAnswer {
        batch: *batch,
        alone_us: spread(alone.iter().map(|&time| a_query(time)))?,
        streamed_us: spread(streamed.iter().map(|&time| a_query(time)))?,
        prepare_us: us(stages.prepare),
        scan_us: us(stages.scan),
        pack_us: us(stages.pack),
        finish_us: us(stages.finish),
        floor_us: us(whole.time()),
        alone_share: of(whole.time(), one),
        streamed_share: of(whole.time(), many),
        prepare_share: stage(floor.prepare, stages.prepare),
        scan_share: stage(floor.scan, stages.scan),
        pack_share: stage(floor.pack, stages.pack),
        finish_share: stage(floor.finish, stages.finish),
        reading_alone: [one, middle].map(|time| of(floor.shard_reading(), time)),
        multiplying_alone: [one, middle].map(|time| of(whole.multiplying, time)),
        multiplying_streamed: of(whole.multiplying, many),
    })
}

/// None of what was not measured.
fn share(floor: Duration, time: Duration) -> Option<f64> {
    (time > Duration::ZERO).then(|| rounded(floor.as_secs_f64() / time.as_secs_f64()))
}

/// Those of docs/design.md, "Targets": none where a processor plays the GPU or the shard is not the
/// standard one.
pub(super) fn targets(
    effort: Effort,
    device: &GpuDevice,
    found: &Shape,
    answers: &[GpuAnswer],
) -> Vec<Target> {
    let standard = shape(Effort::Full).is_ok_and(|standard| standard == *found);
    if effort != Effort::Full || device.software || !standard {
        return Vec::new();
    }
    let row = |batch| answers.iter().find(|row| row.batch == batch);
    let (one, full) = (row(1), row(32));
    let reading = |at: usize| one.map(|row| row.reading_alone[at]);
    let multiplying = |at: usize| full.map(|row| row.multiplying_alone[at]);
    let streamed = full.map(|row| row.multiplying_streamed);
    let rates = full.map(|row| row.streamed_us);
    let (best, middle) =
        (rates.map(|spread| 1e6 / spread.best), rates.map(|spread| 1e6 / spread.median));
    vec![
        target("batch 1 alone: share of read bandwidth", 0.5.., reading(0), reading(1)),
        target("batch 32 alone: share of integer floor", 0.4.., multiplying(0), multiplying(1)),
        target("batch 32 streamed: the same, aim", 0.6.., streamed, None),
        target("batch 32 streamed: queries a second, aim", 6e4.., best, middle),
    ]
}

pub(super) fn targets_said(targets: &[Target]) -> String {
    if targets.is_empty() {
        return "\ntargets are for an H200 and the standard shard: not judged here".into();
    }
    targets_text("targets are for an NVIDIA H200", targets)
}
