//! What `sotto-bench kernel` finds: of a processor ([`Kernel`]) or of a GPU ([`Gpu`]).
//!
//! Times of an answer are a query's: the batch's over its size. A share is what the machine could
//! have taken at best over what was taken.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Head, ShapeFacts, Spread};

/// Name and version of [`Kernel`]'s form.
pub const KERNEL_SCHEMA: &str = "sotto-bench-kernel/1";
/// Name and version of [`Gpu`]'s form.
pub const GPU_SCHEMA: &str = "sotto-bench-gpu/1";

/// Answers of the processor's engines beside what the machine could do at best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// Of [`KERNEL_SCHEMA`].
    #[serde(flatten)]
    pub head: Head,
    /// `full`, `quick` or `test`.
    pub effort: String,
    /// Processors, one a thread: one of each core first, then the cores' others.
    pub pinned_to: Vec<usize>,
    /// The shards', noise in the right form: one, or, where caches might hold it, so many that they
    /// do not, asked in turn.
    pub shape: ShapeFacts,
    /// What no engine can beat.
    pub floors: Floors,
    /// Every engine, number of threads and batch size.
    pub answers: Vec<Answer>,
    /// A client's work on one core.
    pub client: ClientWork,
    /// What the fastest engine and the largest batch take beyond shard and queries.
    pub batch_memory_bytes: Option<u64>,
    /// Saying no at a full queue.
    pub refusal: Refusal,
    /// Nanoseconds to count one query, on all cores at once.
    pub counting_ns_per_query: f64,
    /// A shard that is not in the page cache.
    pub cold: Vec<Cold>,
    /// What was asked for, where it was for this shape.
    pub targets: Vec<Target>,
}

/// Floors, the best of everything tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Floors {
    /// Reading every byte of the shard once, by number of threads.
    pub read: Vec<Read>,
    /// Multiply-adds in registers on one core, 10^9 a second; a name with two instructions counts
    /// pairs.
    pub peaks_g_per_s: BTreeMap<String, f64>,
    /// By engine: what it multiplies with, and how often a query; scan and pack.
    pub work: BTreeMap<String, Vec<Work>>,
}

/// Reading the shard once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// So many, each a part of it.
    pub threads: usize,
    /// The best of all ways.
    pub ms: f64,
    /// 10^9 bytes a second.
    pub gb_per_s: f64,
    /// The way.
    pub how: String,
}

/// The multiply-adds of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// `scan` or `pack`.
    pub stage: String,
    /// With which.
    pub instruction: String,
    /// How many a query.
    pub millions_a_query: f64,
    /// At the peak on one core.
    pub floor_ms: Option<f64>,
}

/// One engine, number of threads and batch size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Instruction set.
    pub engine: String,
    /// Pinned, one a core.
    pub threads: usize,
    /// Queries of one call.
    pub batch: usize,
    /// A query's part of the whole call.
    pub ms_per_query: Spread,
    /// Of the best run, as are the next: time of all threads over their number.
    pub scan_ms: f64,
    /// Multiplying with the tables.
    pub pack_ms: f64,
    /// Queries and keys in the form the kernels read.
    pub prepare_ms: f64,
    /// From the last sums to the response's bytes.
    pub finish_ms: f64,
    /// Handing out work and waiting.
    pub other_ms: f64,
    /// The larger of reading the shard and of multiplying at the peak.
    pub floor_ms: Option<f64>,
    /// That over the best.
    pub whole_share: Option<f64>,
    /// The scan's multiplying over its time.
    pub scan_share: Option<f64>,
    /// The pack's.
    pub pack_share: Option<f64>,
    /// The batch's best time over reading the shard once with as many threads.
    pub times_reading: f64,
}

/// The best times, one core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientWork {
    /// A secret with its key bundle.
    pub key_bundle_ms: f64,
    /// A query.
    pub encrypt_ms: f64,
    /// A record.
    pub decode_ms: f64,
}

/// From a query's frame decoded to its refusal encoded, at a full queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Queries waiting.
    pub queued: usize,
    /// Half were faster.
    pub ms_median: f64,
    /// The slowest.
    pub ms_worst: f64,
}

/// The shard's pages dropped from the page cache before each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cold {
    /// An answer, or a plain sequential read.
    pub what: String,
    /// None for the read, as the next two.
    pub engine: Option<String>,
    /// Of the engine.
    pub threads: Option<usize>,
    /// Queries.
    pub batch: Option<usize>,
    /// Of the whole read or batch.
    pub ms: Spread,
    /// What the process then had the disk read.
    pub disk_bytes: Option<u64>,
    /// Best over best.
    pub times_plain_read: f64,
}

/// A number that was asked for, and what was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Which.
    pub what: String,
    /// At least or at most.
    pub wanted: String,
    /// The best of the run, which decides.
    pub measured: Option<f64>,
    /// The same of the medians, for whole answers.
    pub median: Option<f64>,
    /// Whether it is as wanted.
    pub met: Option<bool>,
}

/// Answers of a GPU beside what it could do at best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Of [`GPU_SCHEMA`].
    #[serde(flatten)]
    pub head: Head,
    /// `full`, `quick` or `test`.
    pub effort: String,
    /// The shards', noise in the right form.
    pub shape: ShapeFacts,
    /// What was measured.
    pub device: GpuDevice,
    /// Its engine's name.
    pub engine: String,
    /// What no kernel can beat.
    pub floors: GpuFloors,
    /// Every batch size.
    pub answers: Vec<GpuAnswer>,
    /// Shards on their way up.
    pub uploads: GpuUploads,
    /// Random queries through the server's queue.
    pub traffic: GpuTraffic,
    /// What was asked for, of a real GPU at the standard shape.
    pub targets: Vec<Target>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuDevice {
    /// As its driver says.
    pub name: String,
    /// The driver.
    pub driver: String,
    /// Whether a processor plays it: then no number says anything about a GPU.
    pub software: bool,
    /// Most bytes of a binding.
    pub binding_bytes_max: u64,
    /// Most bytes of a buffer.
    pub buffer_bytes_max: u64,
    /// Memory that a workgroup shares.
    pub workgroup_bytes_max: u32,
    /// Most threads of a workgroup.
    pub workgroup_threads_max: u32,
    /// Least and most threads of a subgroup.
    pub subgroup_sizes: [u32; 2],
    /// Whether shaders have 64-bit integers.
    pub integers_64_bits: bool,
    /// All it offers.
    pub features: String,
}

/// Floors, by kernels of the benchmark's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuFloors {
    /// Reading memory: 10^9 bytes a second.
    pub read_gb_per_s: f64,
    /// Over so many.
    pub read_bytes: u64,
    /// Loads a thread and workgroups of the fastest way.
    pub read_how: String,
    /// 10^9 multiply-adds a second: u32 = u32 * u32 + u32.
    pub narrow_g_per_s: f64,
    /// u64 = u32 * u32 + u64; none without 64-bit integers.
    pub wide_g_per_s: Option<f64>,
    /// i32 = i32 + dot product of four bytes: one counts as one.
    pub dot_g_per_s: f64,
}

/// One batch size, for shards that are on the device, with their key bundles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuAnswer {
    /// Queries for one shard.
    pub batch: usize,
    /// A call of this batch alone, from the host and back, microseconds a query.
    pub alone_us: Spread,
    /// In calls of many batches for different shards.
    pub streamed_us: Spread,
    /// Device time of the stages, the best.
    pub prepare_us: f64,
    /// Multiplying with the matrix.
    pub scan_us: f64,
    /// Multiplying with the tables.
    pub pack_us: f64,
    /// From the sums to the response's bits.
    pub finish_us: f64,
    /// The larger of reading and multiplying.
    pub floor_us: f64,
    /// Of the best alone.
    pub alone_share: f64,
    /// Of the best streamed.
    pub streamed_share: f64,
    /// None where a stage takes no time of its own.
    pub prepare_share: Option<f64>,
    /// As before.
    pub scan_share: Option<f64>,
    /// As before.
    pub pack_share: Option<f64>,
    /// As before.
    pub finish_share: Option<f64>,
    /// Of the measured bandwidth, alone: best and median.
    pub reading_alone: [f64; 2],
    /// Of the measured multiply-adds, alone: best and median.
    pub multiplying_alone: [f64; 2],
    /// Of those, streamed: best.
    pub multiplying_streamed: f64,
}

/// Shards on their way to the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuUploads {
    /// Shards that stay on the device from here on.
    pub shards: usize,
    /// 10^9 bytes a second.
    pub into_free_memory_gb_per_s: f64,
    /// The same where another shard goes.
    pub in_place_of_others_gb_per_s: f64,
    /// The same while another thread answers.
    pub while_answering_gb_per_s: f64,
    /// Queries a batch of those answers.
    pub batch: usize,
    /// Undisturbed.
    pub answers_per_s: f64,
    /// While shards are brought up.
    pub answers_per_s_while_uploading: f64,
}

/// Random queries for shards that are on the device, through the server's queue and worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuTraffic {
    /// Those that are asked for.
    pub shards: usize,
    /// By number outstanding.
    pub loops: Vec<GpuLoop>,
    /// Queries whose shard had to come up first.
    pub waited_for_upload: u64,
    /// Queries whose answers equal the processor's.
    pub checked: usize,
}

/// So many queries outstanding at any time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuLoop {
    /// So many.
    pub outstanding: usize,
    /// Answered.
    pub queries_per_s: f64,
    /// From admission to the answer.
    pub median_ms: f64,
    /// 99% were faster.
    pub p99_ms: f64,
}
