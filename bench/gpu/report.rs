//! The run as it is written down: JSON for machines, tables for people, targets beside both.
//!
//! Microseconds of an answer are a query's: the batch's over its size. A share is what the device
//! would have taken at best (`work.rs`) over what was taken.

use std::time::Duration;

use serde::Serialize;
use sotto::engine::{GpuInfo, GpuKind, Integers};
use sotto::params::Shape;

use super::answers::Answers;
use super::floors::Floors;
use super::probe::Probe;
use super::traffic::Traffic;
use super::uploads::Uploads;
use super::work::{Floor, StageFloors};
use crate::common::report::{Head, Target, median, percent, rounded};

/// Everything a run found.
#[derive(Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) head: Head,
    pub(super) device: Device,
    pub(super) engine: String,
    pub(super) floors: Floors,
    pub(super) answers: Vec<Row>,
    pub(super) uploads: Uploads,
    pub(super) traffic: Traffic,
    /// None where a processor plays the GPU or the shard is not the standard one.
    pub(super) targets: Vec<Target>,
}

/// What is measured.
#[derive(Serialize)]
pub(super) struct Device {
    pub(super) name: String,
    driver: String,
    pub(super) software: bool,
    binding_bytes_max: u64,
    buffer_bytes_max: u64,
    workgroup_bytes_max: u32,
    workgroup_threads_max: u32,
    subgroup_sizes: [u32; 2],
    integers_64_bits: bool,
    features: String,
}

/// One batch size.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) batch: usize,
    calls: usize,
    /// A call of this batch alone: best and median.
    alone_us: f64,
    alone_us_median: f64,
    /// In calls of many batches: the best.
    streamed_us: f64,
    /// Device time of the stages.
    prepare_us: f64,
    scan_us: f64,
    pack_us: f64,
    finish_us: f64,
    /// The larger of reading and multiplying.
    floor_us: f64,
    alone_share: f64,
    streamed_share: f64,
    prepare_share: Option<f64>,
    scan_share: Option<f64>,
    pack_share: Option<f64>,
    finish_share: Option<f64>,
    /// Of the measured bandwidth, and of the measured multiply-adds; best and median.
    reading_alone: [f64; 2],
    multiplying_alone: [f64; 2],
    multiplying_streamed: f64,
}

impl Device {
    pub(super) fn new(info: &GpuInfo, probe: &Probe) -> Self {
        let limits = &probe.limits;
        Self {
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

    pub(super) fn print(&self) {
        if self.software {
            println!(
                "NOT MEASURED ON A GPU: a processor plays this one. The numbers show that the"
            );
            println!("measurement runs, and nothing else.");
        }
        println!("device {}, driver {}", self.name, self.driver);
        println!(
            "limits: {} MiB a binding, {} MiB a buffer, {} KiB and {} threads a workgroup, \
             subgroups of {:?}, 64-bit integers: {}",
            self.binding_bytes_max >> 20,
            self.buffer_bytes_max >> 20,
            self.workgroup_bytes_max >> 10,
            self.workgroup_threads_max,
            self.subgroup_sizes,
            self.integers_64_bits
        );
    }
}

impl Row {
    pub(super) fn new(answers: &Answers, shape: &Shape, floors: &Floors) -> Self {
        let Answers { batch, stages, alone, streamed } = answers;
        let floor = StageFloors::new(shape, *batch, floors);
        let whole = floor.whole();
        let us = |time: Duration| rounded(time.as_secs_f64() * 1e6 / *batch as f64);
        let best = |times: &[Duration]| times.iter().min().copied().unwrap_or_default();
        let (one, many) = (best(alone), best(streamed));
        let middle = median(alone.iter().copied()).unwrap_or_default();
        let stage = |floor: Floor, time: Duration| share(floor.time(), time);
        let of = |floor: Duration, time: Duration| share(floor, time).unwrap_or_default();
        Self {
            batch: *batch,
            calls: alone.len(),
            alone_us: us(one),
            alone_us_median: us(middle),
            streamed_us: us(many),
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
        }
    }

    pub(super) fn print_heading() {
        println!("\nmicroseconds a query, share of the floor");
        println!(
            "batch        alone           median     streamed           prepare        \
             scan            pack          finish"
        );
    }

    pub(super) fn print(&self) {
        let timed = |us: f64, share: Option<f64>| format!("{us:9.1} {:>5}", percent(share));
        println!(
            "{:5}  {}  {:9.1}  {}  {} {} {} {}",
            self.batch,
            timed(self.alone_us, Some(self.alone_share)),
            self.alone_us_median,
            timed(self.streamed_us, Some(self.streamed_share)),
            timed(self.prepare_us, self.prepare_share),
            timed(self.scan_us, self.scan_share),
            timed(self.pack_us, self.pack_share),
            timed(self.finish_us, self.finish_share),
        );
    }
}

/// None of what was not measured.
fn share(floor: Duration, time: Duration) -> Option<f64> {
    (time > Duration::ZERO).then(|| rounded(floor.as_secs_f64() / time.as_secs_f64()))
}

impl Report {
    /// Those of issue 4, for an H200.
    pub(super) fn add_targets(&mut self) {
        let row = |batch| self.answers.iter().find(|row| row.batch == batch);
        let (one, full) = (row(1), row(32));
        let per_s = |us: f64| 1e6 / us;
        self.targets = vec![
            Target::new(
                "batch 1 alone: share of read bandwidth",
                0.5..,
                one.map(|r| r.reading_alone[0]),
            )
            .with_median(one.map(|row| row.reading_alone[1])),
            Target::new(
                "batch 32 alone: share of integer floor",
                0.4..,
                full.map(|r| r.multiplying_alone[0]),
            )
            .with_median(full.map(|row| row.multiplying_alone[1])),
            Target::new(
                "batch 32 streamed: the same, aim",
                0.6..,
                full.map(|r| r.multiplying_streamed),
            ),
            Target::new(
                "batch 32 streamed: queries a second, aim",
                6e4..,
                full.map(|r| per_s(r.streamed_us)),
            ),
        ];
    }

    pub(super) fn print_targets(&self) {
        if self.targets.is_empty() {
            println!("\ntargets (issue 4) are for an H200 and the standard shard: not judged here");
        } else {
            Target::print_all("targets are for an NVIDIA H200", &self.targets);
        }
    }
}
