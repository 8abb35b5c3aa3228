//! What `sotto-bench kernel` finds: of a processor ([`Kernel`]) or of a GPU ([`Gpu`]).
//!
//! Times of an answer are a query's: the batch's over its size. A share is what the machine could
//! have taken at best over what was taken.

#![allow(missing_docs, reason = "bench/README.md says what each field is; a test compares")]

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use serde::{Deserialize, Serialize};

use super::head::{Head, ShapeFacts, Spread, rounded};

pub const KERNEL_SCHEMA: &str = "sotto-bench-kernel/1";
pub const GPU_SCHEMA: &str = "sotto-bench-gpu/1";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    #[serde(flatten)]
    pub head: Head,
    pub effort: String,
    pub pinned_to: Vec<usize>,
    pub shape: ShapeFacts,
    pub floors: Floors,
    pub answers: Vec<Answer>,
    pub client: ClientWork,
    pub batch_memory_bytes: Option<u64>,
    pub refusal: Refusal,
    pub counting_ns_per_query: f64,
    pub cold: Vec<Cold>,
    pub targets: Vec<Target>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Floors {
    pub read: Vec<Read>,
    pub peaks_g_per_s: BTreeMap<String, f64>,
    pub work: BTreeMap<String, Vec<Work>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Read {
    pub threads: usize,
    pub ms: f64,
    pub gb_per_s: f64,
    pub how: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    pub stage: String,
    pub instruction: String,
    pub millions_a_query: f64,
    pub floor_ms: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub engine: String,
    pub threads: usize,
    pub batch: usize,
    pub ms_per_query: Spread,
    pub scan_ms: f64,
    pub pack_ms: f64,
    pub prepare_ms: f64,
    pub finish_ms: f64,
    pub other_ms: f64,
    pub floor_ms: Option<f64>,
    pub whole_share: Option<f64>,
    pub scan_share: Option<f64>,
    pub pack_share: Option<f64>,
    pub times_reading: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientWork {
    pub key_bundle_ms: f64,
    pub encrypt_ms: f64,
    pub decode_ms: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    pub queued: usize,
    pub ms_median: f64,
    pub ms_worst: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cold {
    pub what: String,
    pub engine: Option<String>,
    pub threads: Option<usize>,
    pub batch: Option<usize>,
    pub ms: Spread,
    pub disk_bytes: Option<u64>,
    pub times_plain_read: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub what: String,
    pub wanted: String,
    pub measured: Option<f64>,
    pub median: Option<f64>,
    pub met: Option<bool>,
}

impl Target {
    /// What is wanted is `least..` or `..=most`; the best decides.
    pub(crate) fn new(
        what: &str,
        wanted: impl RangeBounds<f64>,
        best: Option<f64>,
        median: Option<f64>,
    ) -> Self {
        let met = best.map(|best| wanted.contains(&best));
        let wanted = match (wanted.start_bound(), wanted.end_bound()) {
            (Bound::Included(least), _) => format!("at least {least}"),
            (_, Bound::Included(most)) => format!("at most {most}"),
            _ => "anything".into(),
        };
        let [measured, median] = [best, median].map(|number| number.map(rounded));
        Self { what: what.into(), wanted, measured, median, met }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    #[serde(flatten)]
    pub head: Head,
    pub effort: String,
    pub shape: ShapeFacts,
    pub device: GpuDevice,
    pub engine: String,
    pub floors: GpuFloors,
    pub answers: Vec<GpuAnswer>,
    pub uploads: GpuUploads,
    pub traffic: GpuTraffic,
    pub targets: Vec<Target>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuDevice {
    pub name: String,
    pub driver: String,
    pub software: bool,
    pub binding_bytes_max: u64,
    pub buffer_bytes_max: u64,
    pub workgroup_bytes_max: u32,
    pub workgroup_threads_max: u32,
    pub subgroup_sizes: [u32; 2],
    pub integers_64_bits: bool,
    pub features: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuFloors {
    pub read_gb_per_s: f64,
    pub read_bytes: u64,
    pub read_how: String,
    pub narrow_g_per_s: f64,
    pub wide_g_per_s: Option<f64>,
    pub dot_g_per_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuAnswer {
    pub batch: usize,
    pub alone_us: Spread,
    pub streamed_us: Spread,
    pub prepare_us: f64,
    pub scan_us: f64,
    pub pack_us: f64,
    pub finish_us: f64,
    pub floor_us: f64,
    pub alone_share: f64,
    pub streamed_share: f64,
    pub prepare_share: Option<f64>,
    pub scan_share: Option<f64>,
    pub pack_share: Option<f64>,
    pub finish_share: Option<f64>,
    pub reading_alone: [f64; 2],
    pub multiplying_alone: [f64; 2],
    pub multiplying_streamed: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuUploads {
    pub shards: usize,
    pub into_free_memory_gb_per_s: f64,
    pub in_place_of_others_gb_per_s: f64,
    pub while_answering_gb_per_s: f64,
    pub batch: usize,
    pub answers_per_s: f64,
    pub answers_per_s_while_uploading: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuTraffic {
    pub shards: usize,
    pub loops: Vec<GpuLoop>,
    pub waited_for_upload: u64,
    pub checked: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuLoop {
    pub outstanding: usize,
    pub queries_per_s: f64,
    pub median_ms: f64,
    pub p99_ms: f64,
}
