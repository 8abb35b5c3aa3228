//! The run as it is written down: parts of a record for machines, tables for people, targets beside
//! both. A share is what the device would have taken at best (`work.rs`) over what was taken.

use std::fmt::Write as _;
use std::time::Duration;

use crate::record::{GpuAnswer, GpuDevice, GpuFloors, GpuLoop, GpuTraffic, GpuUploads, Target};
use sotto::engine::{GpuInfo, GpuKind, Integers};
use sotto::params::Shape;

use super::answers::Answers;
use super::probe::Probe;
use super::uploads::PASSING;
use super::work::{Floor, StageFloors};
use super::{Effort, shape};
use crate::common::report::{median, percent, rounded, spread, target, targets_text};

pub(super) const ANSWERS_HEADING: &str = "\nmicroseconds a query, share of the floor\n\
    batch        alone           median     streamed           prepare        scan            \
    pack          finish";

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
        integers_64_bits: info.integers == Integers::Wide,
        features: format!("{:?}", probe.features),
    }
}

pub(super) fn device_text(device: &GpuDevice) -> String {
    let mut text = String::new();
    if device.software {
        text += "NOT MEASURED ON A GPU: a processor plays this one. The numbers show that the\n\
                 measurement runs, and nothing else.\n";
    }
    let _ = write!(
        text,
        "device {}, driver {}\nlimits: {} MiB a binding, {} MiB a buffer, {} KiB and {} threads a \
         workgroup, subgroups of {:?}, 64-bit integers: {}",
        device.name,
        device.driver,
        device.binding_bytes_max >> 20,
        device.buffer_bytes_max >> 20,
        device.workgroup_bytes_max >> 10,
        device.workgroup_threads_max,
        device.subgroup_sizes,
        device.integers_64_bits
    );
    text
}

pub(super) fn floors_text(floors: &GpuFloors) -> String {
    let wide = match floors.wide_g_per_s {
        Some(rate) => format!("{rate:.1} G/s"),
        None => "the device has no 64-bit integers".into(),
    };
    format!(
        "read: {:.1} GB/s over {} MiB ({})\nu32 multiply-add: {:.1} G/s\n\
         u64 widening multiply-add: {wide}\ndot4I8Packed and add: {:.1} G/s",
        floors.read_gb_per_s,
        floors.read_bytes >> 20,
        floors.read_how,
        floors.narrow_g_per_s,
        floors.dot_g_per_s
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

/// A line below [`ANSWERS_HEADING`].
pub(super) fn answer_text(answer: &GpuAnswer) -> String {
    let timed = |us: f64, share: Option<f64>| format!("{us:9.1} {:>5}", percent(share));
    format!(
        "{:5}  {}  {:9.1}  {}  {} {} {} {}",
        answer.batch,
        timed(answer.alone_us.best, Some(answer.alone_share)),
        answer.alone_us.median,
        timed(answer.streamed_us.best, Some(answer.streamed_share)),
        timed(answer.prepare_us, answer.prepare_share),
        timed(answer.scan_us, answer.scan_share),
        timed(answer.pack_us, answer.pack_share),
        timed(answer.finish_us, answer.finish_share),
    )
}

pub(super) fn uploads_text(uploads: &GpuUploads) -> String {
    format!(
        "\nuploads, {} shards that stay and {PASSING} that pass\ninto free memory: {:.2} GB/s\n\
         in place of others: {:.2} GB/s\nthe same while answers go on: {:.2} GB/s\n\
         answers a second, batches of {}: {:.0} undisturbed, {:.0} while shards are brought up",
        uploads.shards,
        uploads.into_free_memory_gb_per_s,
        uploads.in_place_of_others_gb_per_s,
        uploads.while_answering_gb_per_s,
        uploads.batch,
        uploads.answers_per_s,
        uploads.answers_per_s_while_uploading
    )
}

pub(super) fn traffic_text(traffic: &GpuTraffic) -> String {
    let mut text = format!(
        "\nrandom queries over {} shards on the device, through the queue\n\
         outstanding   queries a second   median ms   99% within ms\n",
        traffic.shards
    );
    for GpuLoop { outstanding, queries_per_s, median_ms, p99_ms } in &traffic.loops {
        let _ = writeln!(
            text,
            "{outstanding:11}   {queries_per_s:16.0}   {median_ms:9.3}   {p99_ms:13.3}"
        );
    }
    if traffic.waited_for_upload > 0 {
        let _ = writeln!(text, "{} queries had to wait for their shard", traffic.waited_for_upload);
    }
    text + &format!(
        "{} answers to random queries equal the processor's on every bit",
        traffic.checked
    )
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
