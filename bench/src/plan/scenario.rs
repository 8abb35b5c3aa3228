//! What a plan is made from besides records: what is wanted ([`Scenario`]), and what things cost
//! ([`Prices`]). Both are TOML files.

#![allow(
    missing_docs,
    reason = "bench/scenarios/mimi.toml and deploy/prices.toml say what each key is"
)]

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sotto::limits;

/// Who asks the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asks {
    /// Front-ends, each of which fetches all hints once an epoch. A device gets one pack of an
    /// answer, with its hint.
    FrontEnd,
    /// Each device: it gets all packs, and fetches the hints of the shards that it asks.
    Device,
}

pub(super) const MONTH_HOURS: f64 = 730.0;
pub(super) const MONTH_DAYS: f64 = MONTH_HOURS / 24.0;

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
    #[serde(default)]
    pub packs: Option<u32>,
    pub latency_ms: f64,
    pub replication: u32,
    pub failed_hosts: u32,
    pub utilisation_max: f64,
    pub epoch_hours: f64,
    pub changed_share: f64,
    pub epochs_in_memory: f64,
    /// Of an epoch, when left out.
    #[serde(default)]
    pub build_hours: Option<f64>,
    #[serde(default = "shuffle_us_per_record")]
    pub shuffle_us_per_record: f64,
    /// The kind of host that serves, when left out.
    #[serde(default)]
    pub build_host: Option<String>,
    pub asks: Asks,
    pub front_ends: f64,
    pub front_end_mb_per_core_s: f64,
    pub front_end_host: String,
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
    pub inside_gb: f64,
    pub stored_gb_month: f64,
    #[serde(default)]
    pub store_gb_month: f64,
    #[serde(default)]
    pub store_writes_thousand: f64,
    #[serde(default)]
    pub store_reads_thousand: f64,
    pub hosts: Vec<Host>,
}

/// Locating, shuffling and sorting a record in Spark (docs/scale.md), in microseconds of a core.
fn shuffle_us_per_record() -> f64 {
    5.5
}

impl Scenario {
    pub fn read(path: &Path) -> Result<Self, String> {
        read(path)
    }

    /// Look-ups of a month.
    pub(super) fn month_lookups(&self) -> f64 {
        self.users * self.lookups_per_user_day * MONTH_DAYS
    }

    /// Hours within which an epoch is to be built.
    pub(super) fn build_within(&self) -> f64 {
        self.build_hours.unwrap_or(self.epoch_hours)
    }

    pub(super) fn mean_rate(&self) -> f64 {
        self.users * self.lookups_per_user_day / 86_400.0
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let records = self.records_per_shard.iter();
        let records = records.map(|&records| ("records_per_shard", records as f64, 1.0, 1e10));
        let others = [
            ("users", self.users, 1.0, 1e11),
            ("lookups_per_user_day", self.lookups_per_user_day, 1e-6, 1e7),
            ("lookups_per_sync", self.lookups_per_sync, 1.0, 16_384.0),
            ("peak_over_mean", self.peak_over_mean, 1.0, 1e4),
            ("records", self.records, 1.0, 1e13),
            ("records_per_shard: shapes", self.records_per_shard.len() as f64, 1.0, 100.0),
            ("latency_ms", self.latency_ms, 1.0, 60_000.0),
            ("replication", self.replication.into(), 1.0, 100.0),
            ("failed_hosts", self.failed_hosts.into(), 0.0, 1e6),
            ("utilisation_max", self.utilisation_max, 0.01, 1.0),
            ("epoch_hours", self.epoch_hours, 0.01, 24.0 * 366.0),
            ("changed_share", self.changed_share, 0.0, 1.0),
            ("epochs_in_memory", self.epochs_in_memory, 1.0, 2.0),
            ("build_hours", self.build_within(), 0.01, self.epoch_hours),
            ("shuffle_us_per_record", self.shuffle_us_per_record, 0.0, 1e6),
            ("packs", self.packs.unwrap_or(1).into(), 1.0, limits::PACKS_MAX.into()),
            ("front_ends", self.front_ends, 0.0, 1e9),
            ("front_end_mb_per_core_s", self.front_end_mb_per_core_s, 0.1, 1e6),
        ];
        check("scenario", records.chain(others))
    }
}

impl Prices {
    pub fn read(path: &Path) -> Result<Self, String> {
        read(path)
    }

    /// Those that come with the program: deploy/prices.toml.
    pub fn shipped() -> Result<Self, String> {
        parse(Path::new("deploy/prices.toml"), include_str!("../../../deploy/prices.toml"))
    }

    pub(super) fn host(&self, key: &str, name: &str) -> Result<&Host, String> {
        let found = self.hosts.iter().find(|host| host.name == name);
        found.ok_or_else(|| {
            let known: Vec<&str> = self.hosts.iter().map(|host| &*host.name).collect();
            let expected = format!("expected one of the prices' hosts: {}", known.join(", "));
            format!("scenario: {key}: found {name:?}, {expected}")
        })
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let own = [
            ("egress_gb", self.egress_gb, 0.0, 1e6),
            ("inside_gb", self.inside_gb, 0.0, 1e6),
            ("stored_gb_month", self.stored_gb_month, 0.0, 1e6),
            ("store_gb_month", self.store_gb_month, 0.0, 1e6),
            ("store_writes_thousand", self.store_writes_thousand, 0.0, 1e6),
            ("store_reads_thousand", self.store_reads_thousand, 0.0, 1e6),
        ];
        check("prices", own)?;
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

    fn check(&self) -> Result<(), String> {
        let all = [
            ("cores", self.cores.into(), 1.0, 4096.0),
            ("memory_gib", self.memory_gib, 0.1, 1e6),
            ("reserved_memory_gib", self.reserved_memory_gib, 0.0, self.memory_gib),
            ("memory_gb_per_s", self.memory_gb_per_s.unwrap_or(1.0), 0.1, 1e6),
            ("network_gbit_per_s", self.network_gbit_per_s, 1e-3, 1e6),
            ("disk_gb", self.disk_gb, 0.1, 1e9),
            ("core_hour", self.core_hour, 0.0, 1e6),
            ("gpus", self.gpus.into(), 0.0, 64.0),
            ("gpu_memory_gib", self.gpu_memory_gib, 0.0, 1e5),
            ("gpu_reserved_memory_gib", self.gpu_reserved_memory_gib, 0.0, self.gpu_memory_gib),
            ("gpu_hour", self.gpu_hour, 0.0, 1e6),
        ];
        check(&format!("prices: hosts: {}", self.name), all)
    }
}

/// Each key with what was found, the least and the most that it may be.
fn check<'a>(
    of: &str,
    all: impl IntoIterator<Item = (&'a str, f64, f64, f64)>,
) -> Result<(), String> {
    let wrong = |entry: &(&str, f64, f64, f64)| !(entry.2..=entry.3).contains(&entry.1);
    match all.into_iter().find(wrong) {
        None => Ok(()),
        Some((key, found, least, most)) => {
            Err(format!("{of}: {key}: found {found}, expected {least} to {most}"))
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    parse(path, &sotto::text::read(path).map_err(|why| format!("{}: {why}", path.display()))?)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|why| format!("{}: {why}", path.display()))
}
