//! What a plan is made from besides records: what is wanted ([`Scenario`]), and what things cost
//! ([`Prices`]). Both are TOML files; bench/scenarios and deploy/prices.toml explain each key.

#![allow(
    missing_docs,
    reason = "bench/scenarios/mimi.toml and deploy/prices.toml say what each key is"
)]

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::PlanError;

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
    pub name: String,
    pub about: String,
    pub users: f64,
    pub lookups_per_user_day: f64,
    pub lookups_per_sync: f64,
    pub peak_over_mean: f64,
    pub records: f64,
    pub value_bytes: u32,
    pub records_per_shard: Vec<u64>,
    pub latency_ms: f64,
    pub replication: u32,
    pub failed_hosts: u32,
    pub utilisation_max: f64,
    pub epoch_hours: f64,
    pub changed_share: f64,
    pub epochs_in_memory: f64,
    pub hints: Hints,
    pub front_ends: f64,
    pub host: String,
    pub gpu_host: String,
}

/// A kind of host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    pub name: String,
    pub cores: u32,
    pub memory_gib: f64,
    pub reserved_memory_gib: f64,
    pub memory_gb_per_s: Option<f64>,
    pub network_gbit_per_s: f64,
    pub disk_gb: f64,
    pub core_hour: f64,
    pub gpus: u32,
    pub gpu_memory_gib: f64,
    pub gpu_reserved_memory_gib: f64,
    pub gpu_hour: f64,
}

/// What things cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    pub currency: String,
    pub about: String,
    pub egress_gb: f64,
    pub stored_gb_month: f64,
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

    /// Look-ups a second, over a day.
    pub(super) fn mean_rate(&self) -> f64 {
        self.users * self.lookups_per_user_day / 86_400.0
    }

    pub(super) fn check(&self) -> Result<(), PlanError> {
        let within = |key: &str, found: f64, least: f64, most: f64| {
            check(format!("scenario: {key}"), found, least, most)
        };
        within("users", self.users, 1.0, 1e11)?;
        within("lookups_per_user_day", self.lookups_per_user_day, 1e-6, 1e7)?;
        within("lookups_per_sync", self.lookups_per_sync, 1.0, 16_384.0)?;
        within("peak_over_mean", self.peak_over_mean, 1.0, 1e4)?;
        within("records", self.records, 1.0, 1e13)?;
        for &records in &self.records_per_shard {
            within("records_per_shard", records as f64, 1.0, 1e10)?;
        }
        let shapes = self.records_per_shard.len() as f64;
        within("records_per_shard: shapes", shapes, 1.0, 100.0)?;
        within("latency_ms", self.latency_ms, 1.0, 60_000.0)?;
        within("replication", self.replication.into(), 1.0, 100.0)?;
        within("failed_hosts", self.failed_hosts.into(), 0.0, 1e6)?;
        within("utilisation_max", self.utilisation_max, 0.01, 1.0)?;
        within("epoch_hours", self.epoch_hours, 0.01, 24.0 * 366.0)?;
        within("changed_share", self.changed_share, 0.0, 1.0)?;
        within("epochs_in_memory", self.epochs_in_memory, 1.0, 2.0)?;
        within("front_ends", self.front_ends, 0.0, 1e9)
    }
}

/// The prices that come with the program.
const SHIPPED: &str = include_str!("../../../deploy/prices.toml");

impl Prices {
    /// Reads them.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        read(path)
    }

    /// Those that come with the program: deploy/prices.toml.
    pub fn shipped() -> Result<Self, FileError> {
        parse(Path::new("deploy/prices.toml, as shipped"), SHIPPED)
    }

    pub(super) fn host(&self, key: &'static str, name: &str) -> Result<&Host, PlanError> {
        let found = self.hosts.iter().find(|host| host.name == name);
        found.ok_or_else(|| PlanError::NoHost {
            key,
            found: name.into(),
            known: self.hosts.iter().map(|host| &*host.name).collect::<Vec<_>>().join(", "),
        })
    }

    pub(super) fn check(&self) -> Result<(), PlanError> {
        check("prices: egress_gb".into(), self.egress_gb, 0.0, 1e6)?;
        check("prices: stored_gb_month".into(), self.stored_gb_month, 0.0, 1e6)?;
        self.hosts.iter().try_for_each(Host::check)
    }
}

impl Host {
    /// Bytes for shards: of its memory, or of that of all its GPUs.
    pub(super) fn shard_memory(&self) -> f64 {
        const GIB: f64 = (1u64 << 30) as f64;
        match self.gpus {
            0 => (self.memory_gib - self.reserved_memory_gib) * GIB,
            gpus => f64::from(gpus) * (self.gpu_memory_gib - self.gpu_reserved_memory_gib) * GIB,
        }
    }

    fn check(&self) -> Result<(), PlanError> {
        let within = |key: &str, found: f64, least: f64, most: f64| {
            check(format!("prices: hosts: {}: {key}", self.name), found, least, most)
        };
        within("cores", self.cores.into(), 1.0, 4096.0)?;
        within("memory_gib", self.memory_gib, 0.1, 1e6)?;
        within("reserved_memory_gib", self.reserved_memory_gib, 0.0, self.memory_gib)?;
        within("memory_gb_per_s", self.memory_gb_per_s.unwrap_or(1.0), 0.1, 1e6)?;
        within("network_gbit_per_s", self.network_gbit_per_s, 1e-3, 1e6)?;
        within("disk_gb", self.disk_gb, 0.1, 1e9)?;
        within("core_hour", self.core_hour, 0.0, 1e6)?;
        within("gpus", self.gpus.into(), 0.0, 64.0)?;
        within("gpu_memory_gib", self.gpu_memory_gib, 0.0, 1e5)?;
        let reserved = self.gpu_reserved_memory_gib;
        within("gpu_reserved_memory_gib", reserved, 0.0, self.gpu_memory_gib)?;
        within("gpu_hour", self.gpu_hour, 0.0, 1e6)
    }
}

fn check(key: String, found: f64, least: f64, most: f64) -> Result<(), PlanError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(PlanError::Value { key, found, expected: format!("{least} to {most}") })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = sotto::text::read(path);
    parse(path, &text.map_err(|source| FileError::Io { path: path.into(), source })?)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, FileError> {
    toml::from_str(text)
        .map_err(|source| FileError::Content { path: path.into(), source: Box::new(source) })
}
