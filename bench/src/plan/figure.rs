//! What a plan says: figures, each with its formula and where its numbers came from.

use serde::{Deserialize, Serialize};

use super::{Prices, Scenario};
use crate::record::ShapeFacts;

/// Name and version of [`Plan`]'s form.
pub const SCHEMA: &str = "sotto-bench-plan/1";

/// The unit of a rate, as programs read it.
pub(super) const A_SECOND: &str = "1/s";

/// A number and how it came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is, in a few words.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what; empty for a plain number.
    pub unit: String,
    /// The formula, with the numbers put in.
    pub formula: String,
    /// Where those came from: a record's path and field, `scenario: key`, `prices: key`, `shape`.
    pub sources: Vec<String>,
    /// Why it is no more than a guess from what was measured elsewhere; none where it is not.
    pub extrapolated: Option<String>,
}

/// What there may be too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// Memory for the shards: of the host, or of its GPUs.
    Memory,
    /// Time of cores or GPUs, spent on multiplying and on everything that is not reading shards.
    Arithmetic,
    /// Time of cores or GPUs, spent on reading shards: the host's memory gives no more bytes.
    Bandwidth,
    /// Bytes through the network card.
    Network,
    /// Bytes on disk.
    Disk,
    /// Nothing of all this: so many copies of each shard are wanted, each on another host.
    Copies,
}

impl Resource {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Arithmetic => "arithmetic",
            Self::Bandwidth => "memory bandwidth",
            Self::Network => "network",
            Self::Disk => "disk",
            Self::Copies => "copies",
        }
    }
}

/// Hosts that a resource alone would take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Need {
    /// Which.
    pub resource: Resource,
    /// Hosts, not rounded, without those that may fail.
    pub hosts: Figure,
}

/// Hosts of one kind for one shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    /// The kind of host, as prices name it.
    pub host: String,
    /// Hosts, with those that may fail.
    pub hosts: Figure,
    /// Cores of all hosts; GPUs on hosts with GPUs.
    pub units: Figure,
    /// Of the hosts, those in reserve for others that fail.
    #[serde(default)]
    pub reserve: u64,
    /// What decides how many.
    pub binds: Resource,
    /// What each resource takes, most first.
    pub needs: Vec<Need>,
    /// Queries a pass at the peak rate.
    pub batch: Figure,
    /// Queries a second that one host can do within the objective.
    pub capacity: Figure,
    /// Of everything, a month.
    pub cost_month: Figure,
    /// Of everything, a million look-ups.
    pub cost_million: Figure,
    /// What the month's cost is made of.
    pub costs: Vec<Figure>,
    /// Everything else.
    pub figures: Vec<Figure>,
    /// Queries a pass and busy engines at some rates, for one host as the plan has it.
    pub curve: Vec<Point>,
}

/// One host at one rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Queries a second.
    pub rate: f64,
    /// Queries a pass.
    pub batch: f64,
    /// How long a query waits and is computed, about; milliseconds.
    pub latency_ms: f64,
    /// Of the rate at which the objective is just met.
    pub utilisation: f64,
}

/// Hosts with GPUs: as measured, or what can be said without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum GpuPlan {
    /// From a record of a real GPU.
    Measured(Box<HostPlan>),
    /// No number of a GPU's speed is there, so none is told.
    NotMeasured {
        /// What would be needed.
        why: String,
        /// GPUs that hold the shards, and what each would have to do to be cheaper than cores.
        figures: Vec<Figure>,
    },
}

/// Everything about one shape of shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShapePlan {
    /// The shape; `records_per_shard` is the most it is meant for, a little over the scenario's.
    pub shape: ShapeFacts,
    /// Shards of the database.
    pub shards: u64,
    /// Bundles and bytes of a device, a day.
    pub device: Vec<Figure>,
    /// Bundles and bytes of the provider, a day; database; epochs.
    pub provider: Vec<Figure>,
    /// Hosts without GPUs.
    pub cpu: HostPlan,
    /// Hosts with GPUs.
    pub gpu: GpuPlan,
    /// What a planner should know before believing it.
    pub warnings: Vec<String>,
}

/// A record that a plan stands on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// Its file.
    pub path: String,
    /// `kernel`, `gpu`, `load`, `build`, `startup` or `reload`.
    pub kind: String,
    /// Where it was measured.
    pub machine: String,
    /// When.
    pub date: Option<String>,
    /// At which commit.
    pub commit: Option<String>,
}

/// A capacity plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Of [`SCHEMA`].
    pub schema: String,
    /// What is wanted.
    pub scenario: Scenario,
    /// What things cost.
    pub prices: Prices,
    /// The records used.
    pub records: Vec<Used>,
    /// What is asked of all hosts: rates.
    pub demand: Vec<Figure>,
    /// By shape, in the scenario's order.
    pub shapes: Vec<ShapePlan>,
    /// What a planner should know before believing any of it.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The shapes from the smallest to the largest, for who reads them side by side.
    pub fn by_size(&self) -> Vec<&ShapePlan> {
        let mut shapes: Vec<_> = self.shapes.iter().collect();
        shapes.sort_by_key(|shape| shape.shape.records_per_shard);
        shapes
    }
}

impl Figure {
    /// Its unit as a person says it.
    pub(crate) fn unit_in_words(&self) -> &str {
        if self.unit == A_SECOND { "a second" } else { &self.unit }
    }
}
