//! How many hosts: the least number at which nothing is asked more than it can do.

use super::batch::{Engine, State};
use super::bundles::distinct;
use super::{Hints, Host, Resource, Scenario};
use crate::record::ShapeFacts;

/// More hosts than this are none that anybody has.
const HOSTS_MAX: u64 = 100_000_000;

/// What is asked of all hosts of one kind, and what one of them can do.
#[derive(Debug, Clone)]
pub(super) struct Sizing<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) host: &'a Host,
    pub(super) shape: &'a ShapeFacts,
    pub(super) shards: f64,
    /// Queries a second.
    pub(super) peak: f64,
    /// An engine of a host, without what queries take outside.
    pub(super) engine: Engine,
    /// Engines of a host: 1, or its GPUs.
    pub(super) engines: f64,
    /// Memory for shards, all of a host's engines together.
    pub(super) shard_memory: f64,
    /// Core-seconds that a query takes beside its pass, for each byte that it brings.
    pub(super) outside_a_byte: f64,
    /// Queries a bundle serves.
    pub(super) queries_a_bundle: f64,
    /// Bytes of hints that all hosts send in a second of the peak.
    pub(super) hints_a_second: f64,
}

/// So many hosts, and what each of them does at a rate.
#[derive(Debug, Clone)]
pub(super) struct Fleet {
    pub(super) hosts: f64,
    /// Hosts that hold each shard.
    pub(super) copies: f64,
    /// Shards on a host.
    pub(super) resident: f64,
    /// Engines of a host that have a shard.
    pub(super) engines: f64,
    /// Queries a second, of one host.
    pub(super) rate: f64,
    /// Of one host, that the objective allows; batch and latency there.
    pub(super) capacity: State,
    pub(super) engine: Engine,
    /// Bytes that a query brings to a host, with its part of bundles.
    pub(super) bytes_in: f64,
    /// Bytes that it takes along.
    pub(super) bytes_out: f64,
    /// Core-seconds of a query beside its pass.
    pub(super) outside: f64,
}

impl Sizing<'_> {
    /// Whether a processor computes: then everything shares its cores.
    fn on_cores(&self) -> bool {
        self.host.gpus == 0
    }

    /// So many hosts; none when no pass is within the objective, however many there are.
    pub(super) fn fleet(&self, hosts: f64) -> Option<Fleet> {
        let copies = f64::from(self.scenario.replication).max(hosts / self.shards).min(hosts);
        let resident = self.shards * copies / hosts;
        let engines = self.engines.min(resident.max(1.0));
        // A bundle goes to every host that one of its queries goes to.
        let hosts_a_bundle = distinct(self.queries_a_bundle, hosts);
        let bundle_share = hosts_a_bundle / self.queries_a_bundle;
        let bytes_in =
            self.shape.query_bytes as f64 + self.shape.bundle_bytes as f64 * bundle_share;
        let outside = self.outside_a_byte * bytes_in;
        let mut engine = self.engine.clone();
        if self.on_cores() {
            engine.outside = outside;
        }
        let one = engine.capacity(resident / engines, self.objective())?;
        let capacity = State { rate: one.rate * engines, ..one };
        let bytes_out = self.shape.answer_bytes as f64 + self.hints_a_second / self.peak;
        let rate = self.peak / hosts;
        Some(Fleet {
            hosts,
            copies,
            resident,
            engines,
            rate,
            capacity,
            engine,
            bytes_in,
            bytes_out,
            outside,
        })
    }

    fn objective(&self) -> f64 {
        self.scenario.latency_ms / 1e3
    }

    /// One host of a fleet at a rate.
    pub(super) fn at(&self, fleet: &Fleet, rate: f64) -> State {
        let one = fleet.engine.at(fleet.resident / fleet.engines, rate / fleet.engines);
        State { rate, ..one }
    }

    /// Bytes of a shard in memory, those of the epoch that takes its place included.
    pub(super) fn memory_a_shard(&self) -> f64 {
        memory_a_shard(self.scenario, self.shape)
    }

    /// Bytes of a shard on disk: files of the epoch before stay until the next.
    pub(super) fn disk_a_shard(&self) -> f64 {
        let shape = self.shape;
        let bytes = shape.shard_bytes() as f64;
        bytes * (1.0 + self.scenario.changed_share)
    }

    /// What a fleet is asked of each resource, over what it may be: at most 1 where it is enough.
    pub(super) fn uses(&self, fleet: &Fleet) -> [(Resource, f64); 6] {
        let most = self.scenario.utilisation_max;
        let copies = f64::from(self.scenario.replication);
        let held = self.shards * copies / fleet.hosts;
        let busy = fleet.rate / fleet.capacity.rate / most;
        let batch = fleet.capacity.batch;
        let pass = fleet.engine.pass_time(batch);
        let cores = fleet.engine.core_time(batch) / pass;
        let reading = fleet.engine.reading / pass;
        // Beside GPUs the cores have only the rest to do.
        let beside = fleet.rate * fleet.outside / f64::from(self.host.cores) / most;
        let arithmetic = if self.on_cores() { busy * cores } else { (busy * cores).max(beside) };
        let wire = fleet.rate * fleet.bytes_in.max(fleet.bytes_out) * 8.0;
        [
            (Resource::Memory, held * self.memory_a_shard() / self.shard_memory),
            (Resource::Arithmetic, arithmetic),
            (Resource::Bandwidth, busy * reading),
            (Resource::Network, wire / (self.host.network_gbit_per_s * 1e9) / most),
            (Resource::Disk, held * self.disk_a_shard() / (self.host.disk_gb * 1e9)),
            (Resource::Copies, copies / fleet.hosts),
        ]
    }

    fn is_enough(&self, hosts: u64) -> Option<bool> {
        let fleet = self.fleet(hosts as f64)?;
        let whole = self.memory_a_shard() <= self.shard_memory / self.engines;
        let enough = self.uses(&fleet).iter().all(|(_, share)| *share <= 1.0);
        Some(whole && enough)
    }

    /// The least number of hosts that are enough, without those that may fail; none when no number
    /// is.
    pub(super) fn least(&self) -> Option<u64> {
        let mut high = u64::from(self.scenario.replication.max(1));
        while !self.is_enough(high).unwrap_or(false) {
            high *= 2;
            if high > HOSTS_MAX {
                return None;
            }
        }
        let mut low = high / 2;
        while high - low > 1 {
            let middle = low.midpoint(high);
            if self.is_enough(middle).unwrap_or(false) { high = middle } else { low = middle }
        }
        Some(high)
    }
}

/// Bytes of a shard in memory, those of the epoch that takes its place included.
pub(super) fn memory_a_shard(scenario: &Scenario, shape: &ShapeFacts) -> f64 {
    let more = (scenario.epochs_in_memory - 1.0) * scenario.changed_share;
    shape.pass_bytes() as f64 * (1.0 + more)
}

/// Bytes of hints that the servers send in a second of the peak; those that devices fetch are so
/// many a day of each.
pub(super) fn hints_a_second(
    scenario: &Scenario,
    shape: &ShapeFacts,
    shards: f64,
    hints_a_device_day: f64,
) -> f64 {
    let hint = shape.hints_bytes as f64;
    match scenario.hints {
        Hints::FrontEnd => {
            let epoch = scenario.epoch_hours * 3600.0;
            scenario.front_ends * shards * scenario.changed_share * hint / epoch
        }
        Hints::Device => {
            let day = scenario.users * hints_a_device_day * hint;
            day / 86_400.0 * scenario.peak_over_mean
        }
    }
}
