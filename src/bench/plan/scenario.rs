//! What a plan is made from besides records: what is wanted ([`Scenario`]), and what things cost
//! ([`Prices`]). Both are TOML files; bench/scenarios and deploy/prices.toml explain each key.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Who fetches hints from the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hints {
    /// Front-ends, once an epoch each, and serve them to devices.
    FrontEnd,
    /// Each device, for the shards that it asks.
    Device,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// In a word or two.
    pub name: String,
    /// In a sentence or two, and where its numbers come from.
    pub about: String,
    /// Devices that look things up.
    pub users: f64,
    /// Look-ups of each, a day.
    pub lookups_per_user_day: f64,
    /// Look-ups that a device makes at once, under one pool of secrets.
    pub lookups_per_sync: f64,
    /// The busiest seconds' rate over the day's mean.
    pub peak_over_mean: f64,
    /// Records of the database.
    pub records: f64,
    /// Bytes of a value field: the longest value and one.
    pub value_bytes: u32,
    /// Records a shard: a plan for each.
    pub records_per_shard: Vec<u64>,
    /// 99% of the answers are to come within this.
    pub latency_ms: f64,
    /// Hosts that hold each shard.
    pub replication: u32,
    /// Hosts that may fail at the peak.
    pub failed_hosts: u32,
    /// Share of what hosts can do that is asked of them at the peak.
    pub utilisation_max: f64,
    /// Hours from one epoch to the next.
    pub epoch_hours: f64,
    /// Share of the shards that an epoch changes.
    pub changed_share: f64,
    /// Epochs that are in memory while one takes the other's place: 2, or 1 where a host is taken
    /// out of service for it.
    pub epochs_in_memory: f64,
    /// Who fetches hints.
    pub hints: Hints,
    /// Resolver front-ends.
    pub front_ends: f64,
    /// The kind of host, as prices name it.
    pub host: String,
    /// The kind of host with GPUs.
    pub gpu_host: String,
}

/// A kind of host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// As scenarios name it.
    pub name: String,
    /// Cores as the operating system counts them.
    pub cores: u32,
    /// Memory, in GiB.
    pub memory_gib: f64,
    /// Of which system, server and what it buffers take so much.
    pub reserved_memory_gib: f64,
    /// 10^9 bytes a second that all cores together read from memory; measured ones times cores
    /// when absent.
    pub memory_gb_per_s: Option<f64>,
    /// 10^9 bits a second of its network card, each way.
    pub network_gbit_per_s: f64,
    /// 10^9 bytes of its disks.
    pub disk_gb: f64,
    /// Of one core.
    pub core_hour: f64,
    /// GPUs; none on hosts without.
    pub gpus: u32,
    /// Memory of each, in GiB.
    pub gpu_memory_gib: f64,
    /// Of one GPU, beside the cores.
    pub gpu_hour: f64,
}

/// What things cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Such as USD.
    pub currency: String,
    /// Where they come from, and when.
    pub about: String,
    /// 10^9 bytes sent to devices.
    pub egress_gb: f64,
    /// 10^9 bytes stored for a month.
    pub stored_gb_month: f64,
    /// Kinds of hosts.
    pub hosts: Vec<Host>,
}

/// Why there is no scenario or no prices.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{}: {source}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Where not.
        source: Box<toml::de::Error>,
    },
}

impl Scenario {
    /// Reads one.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        read(path)
    }
}

impl Prices {
    /// Reads them.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        read(path)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| FileError::Io { path: path.into(), source })?;
    toml::from_str(&text)
        .map_err(|source| FileError::Content { path: path.into(), source: Box::new(source) })
}
