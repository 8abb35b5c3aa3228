//! The run as it is written down, and targets. A share is what the device would have taken at best
//! (`work.rs`) over what was taken.

use std::time::Duration;

use sotto::engine::{GpuInfo, GpuKind};
use sotto::params::Shape;

use super::answers::Answers;
use super::probe::Probe;
use super::work::{Floor, stages};
use crate::common::{Effort, median, target_shape};
use crate::record::{GpuAnswer, GpuDevice, GpuFloors, Spread, Target, rounded};

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

/// One batch size; nothing where there was no call.
pub(super) fn answer(answers: &Answers, shape: &Shape, floors: &GpuFloors) -> Option<GpuAnswer> {
    let Answers { batch, stages: taken, alone, streamed } = answers;
    let a_query = |time: Duration| time.as_secs_f64() * 1e6 / *batch as f64;
    let least = stages(shape, *batch, floors);
    let whole = Floor::sum(&least);
    let taken = [taken.prepare, taken.scan, taken.pack, taken.finish];
    let [prepare_us, scan_us, pack_us, finish_us] = taken.map(|time| rounded(a_query(time)));
    let [prepare_share, scan_share, pack_share, finish_share] =
        std::array::from_fn(|at| share(least[at].time(), taken[at]));
    let (one, many) = (alone.iter().min().copied()?, streamed.iter().min().copied()?);
    let middle = median(alone.iter().copied())?;
    let of = |floor: Duration, time: Duration| share(floor, time).unwrap_or_default();
    let shard_reading = least[1].reading + least[2].reading;
    Some(GpuAnswer {
        batch: *batch,
        alone_us: Spread::of(alone.iter().map(|&time| a_query(time)))?,
        streamed_us: Spread::of(streamed.iter().map(|&time| a_query(time)))?,
        prepare_us,
        scan_us,
        pack_us,
        finish_us,
        floor_us: rounded(a_query(whole.time())),
        alone_share: of(whole.time(), one),
        streamed_share: of(whole.time(), many),
        prepare_share,
        scan_share,
        pack_share,
        finish_share,
        reading_alone: [one, middle].map(|time| of(shard_reading, time)),
        multiplying_alone: [one, middle].map(|time| of(whole.multiplying, time)),
        multiplying_streamed: of(whole.multiplying, many),
    })
}

/// None of what was not measured.
fn share(floor: Duration, time: Duration) -> Option<f64> {
    (time > Duration::ZERO).then(|| rounded(floor.as_secs_f64() / time.as_secs_f64()))
}

/// Those of docs/design.md, "Targets": none where a processor plays the GPU or the shard has
/// another shape than they are for.
pub(super) fn targets(
    effort: Effort,
    device: &GpuDevice,
    found: &Shape,
    answers: &[GpuAnswer],
) -> Vec<Target> {
    let judged = target_shape().is_ok_and(|target| target == *found);
    if effort != Effort::Full || device.software || !judged {
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
        Target::new("batch 1 alone: share of read bandwidth", 0.5.., reading(0), reading(1)),
        Target::new(
            "batch 32 alone: share of integer floor",
            0.4..,
            multiplying(0),
            multiplying(1),
        ),
        Target::new("batch 32 streamed: the same, aim", 0.6.., streamed, None),
        Target::new("batch 32 streamed: queries a second, aim", 6e4.., best, middle),
    ]
}
