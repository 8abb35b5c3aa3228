//! How many hosts: the least number at which nothing is asked more than it can do.

use super::batch::{Engine, State};
use super::day::{Day, distinct};
use super::figure::Basis;
use super::measured::{Cost, Known};
use super::outcome::Resource;
use super::scenario::{Asks, Host, Prices, Scenario};
use crate::record::ShapeFacts;

/// More hosts than this are none that anybody has.
const HOSTS_MAX: u64 = 100_000_000;

/// What is asked of all hosts of one kind, what one of them can do, and what both stand on.
pub(super) struct Hosts<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) prices: &'a Prices,
    pub(super) host: &'a Host,
    pub(super) front_end_host: &'a Host,
    pub(super) build_host: &'a Host,
    pub(super) shape: &'a ShapeFacts,
    pub(super) shards: f64,
    pub(super) peak: f64,
    pub(super) day: Day,
    pub(super) cost: &'a Cost,
    /// An engine of a host, without what queries take outside; what says how fast it reads.
    pub(super) engine: Engine,
    pub(super) reading: Basis,
    /// Core-seconds that a query takes beside its batch, for each byte that it brings.
    pub(super) outside: Option<Known>,
    /// Core-seconds of building a shard.
    pub(super) build: Option<Known>,
}

pub(super) struct Fleet {
    pub(super) hosts: f64,
    pub(super) copies: f64,
    pub(super) resident: f64,
    /// Engines of a host that have a shard.
    pub(super) engines: f64,
    pub(super) rate: f64,
    /// Of one host, that the objective allows; batch and latency there.
    pub(super) capacity: State,
    pub(super) engine: Engine,
    /// Bytes that a query brings to a host, with its part of bundles, and that it takes along.
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
    pub(super) outside: f64,
}

impl Fleet {
    pub(super) fn at(&self, rate: f64) -> State {
        let one = self.engine.at(self.resident / self.engines, rate / self.engines);
        State { rate, ..one }
    }
}

impl Hosts<'_> {
    /// Engines of a host: its processor, or its GPUs.
    pub(super) fn engines(&self) -> f64 {
        f64::from(self.host.gpus.max(1))
    }

    /// So many hosts; none when no batch is within the objective, however many there are.
    pub(super) fn fleet(&self, hosts: f64) -> Option<Fleet> {
        let copies = f64::from(self.scenario.replication).max(hosts / self.shards).min(hosts);
        let resident = self.shards * copies / hosts;
        let engines = self.engines().min(resident.max(1.0));
        // A bundle goes to every host that one of its queries goes to.
        let bundle_share = distinct(self.day.queries_a_bundle, hosts) / self.day.queries_a_bundle;
        let bundle = self.shape.bundle_bytes as f64 * bundle_share;
        let bytes_in = self.shape.query_bytes as f64 + bundle;
        let outside = self.outside.as_ref().map_or(0.0, |outside| outside.value) * bytes_in;
        // Beside GPUs it is the cores' time, not the engines'.
        let shared = if self.host.gpus == 0 { outside } else { 0.0 };
        let engine = Engine { outside: shared, ..self.engine.clone() };
        let one = engine.capacity(resident / engines, self.scenario.latency_ms / 1e3)?;
        Some(Fleet {
            hosts,
            copies,
            resident,
            engines,
            rate: self.peak / hosts,
            capacity: State { rate: one.rate * engines, ..one },
            engine,
            bytes_in,
            bytes_out: self.shape.answer_bytes as f64 + self.hints_a_second() / self.peak,
            outside,
        })
    }

    /// Bytes of a shard in memory, those of the epoch that takes its place included.
    pub(super) fn memory_a_shard(&self) -> f64 {
        let more = (self.scenario.epochs_in_memory - 1.0) * self.scenario.changed_share;
        self.shape.scan_bytes() as f64 * (1.0 + more)
    }

    /// Bytes of a shard on disk: files of the epoch before stay until the next, whose files are
    /// there before it is announced.
    pub(super) fn disk_a_shard(&self) -> f64 {
        self.shape.shard_bytes() as f64 * (1.0 + 2.0 * self.scenario.changed_share)
    }

    /// Shards of the fullest of so many hosts: `sotto placement make` gives none more than the mean
    /// and one.
    pub(super) fn fullest(&self, hosts: f64) -> f64 {
        let mean = self.shards * f64::from(self.scenario.replication) / hosts;
        (mean.ceil() + 1.0).min(self.shards)
    }

    /// Bytes of hints that all hosts send in a second of the peak.
    fn hints_a_second(&self) -> f64 {
        let (scenario, hint) = (self.scenario, self.shape.hints_bytes as f64);
        match scenario.asks {
            Asks::FrontEnd => {
                let epoch = scenario.epoch_hours * 3600.0;
                scenario.front_ends * self.shards * scenario.changed_share * hint / epoch
            }
            Asks::Device => {
                let day = scenario.users * self.day.hints * hint;
                day / 86_400.0 * scenario.peak_over_mean
            }
        }
    }

    /// What a fleet is asked of each resource, over what it may be: at most 1 where it is enough.
    pub(super) fn uses(&self, fleet: &Fleet) -> [(Resource, f64); 6] {
        let most = self.scenario.utilisation_max;
        let copies = f64::from(self.scenario.replication);
        let held = self.shards * copies / fleet.hosts;
        let busy = fleet.rate / fleet.capacity.rate / most;
        let batch = fleet.capacity.batch;
        let time = fleet.engine.time(batch);
        let engines = busy * fleet.engine.core_time(batch) / time;
        // Beside GPUs the cores have only the rest to do.
        let cores = fleet.rate * fleet.outside / f64::from(self.host.cores) / most;
        let arithmetic = if self.host.gpus == 0 { engines } else { engines.max(cores) };
        let wire = fleet.rate * fleet.bytes_in.max(fleet.bytes_out) * 8.0;
        [
            (Resource::Memory, held * self.memory_a_shard() / self.host.shard_memory()),
            (Resource::Arithmetic, arithmetic),
            (Resource::Bandwidth, busy * fleet.engine.reading / time),
            (Resource::Network, wire / (self.host.network_gbit_per_s * 1e9) / most),
            (Resource::Disk, held * self.disk_a_shard() / (self.host.disk_gb * 1e9)),
            (Resource::Copies, copies / fleet.hosts),
        ]
    }

    fn is_enough(&self, hosts: u64) -> bool {
        let whole = self.memory_a_shard() <= self.host.shard_memory() / self.engines();
        let enough = |fleet: Fleet| self.uses(&fleet).iter().all(|(_, share)| *share <= 1.0);
        let fullest = self.fullest(hosts as f64);
        let fits = fullest * self.memory_a_shard() <= self.host.shard_memory()
            && fullest * self.disk_a_shard() <= self.host.disk_gb * 1e9;
        whole && fits && self.fleet(hosts as f64).is_some_and(enough)
    }

    /// The least number of hosts that are enough, without those that may fail; none when no number
    /// is.
    pub(super) fn least(&self) -> Option<u64> {
        let mut high = u64::from(self.scenario.replication.max(1));
        while !self.is_enough(high) {
            high *= 2;
            if high > HOSTS_MAX {
                return None;
            }
        }
        let mut low = high / 2;
        while high - low > 1 {
            let middle = low.midpoint(high);
            *(if self.is_enough(middle) { &mut high } else { &mut low }) = middle;
        }
        Some(high)
    }
}
