//! What a plan says: figures, each with its formula and where its numbers came from.

#![allow(missing_docs, reason = "bench/README.md says what each field is; a test compares")]

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
    pub name: String,
    pub value: f64,
    pub unit: String,
    pub formula: String,
    pub sources: Vec<String>,
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
    pub resource: Resource,
    pub hosts: Figure,
}

/// Hosts of one kind for one shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    pub host: String,
    pub hosts: Figure,
    pub units: Figure,
    #[serde(default)]
    pub reserve: u64,
    pub binds: Resource,
    pub needs: Vec<Need>,
    pub batch: Figure,
    pub capacity: Figure,
    pub cost_month: Figure,
    pub cost_million: Figure,
    pub costs: Vec<Figure>,
    pub figures: Vec<Figure>,
    pub curve: Vec<Point>,
}

/// One host at one rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub rate: f64,
    pub batch: f64,
    pub latency_ms: f64,
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
    pub shape: ShapeFacts,
    pub shards: u64,
    pub device: Vec<Figure>,
    pub provider: Vec<Figure>,
    pub cpu: HostPlan,
    pub gpu: GpuPlan,
    pub warnings: Vec<String>,
}

/// A record that a plan stands on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Used {
    pub path: String,
    pub kind: String,
    pub machine: String,
    pub date: Option<String>,
    pub commit: Option<String>,
}

/// A capacity plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub schema: String,
    pub scenario: Scenario,
    pub prices: Prices,
    pub records: Vec<Used>,
    pub demand: Vec<Figure>,
    pub shapes: Vec<ShapePlan>,
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

/// Figures that are read together.
pub struct Group<'a> {
    pub title: String,
    pub figures: Vec<&'a Figure>,
}

impl<'a> Group<'a> {
    fn new(title: impl Into<String>, figures: impl IntoIterator<Item = &'a Figure>) -> Self {
        Self { title: title.into(), figures: figures.into_iter().collect() }
    }
}

impl ShapePlan {
    /// All figures of the shape, in the order in which they are read.
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut groups =
            vec![Group::new("a device", &self.device), Group::new("the provider", &self.provider)];
        groups.extend(self.cpu.groups());
        match &self.gpu {
            GpuPlan::Measured(plan) => groups.extend(plan.groups()),
            GpuPlan::NotMeasured { why, figures } => {
                groups.push(Group::new(format!("hosts with GPUs: {why}"), figures));
            }
        }
        groups
    }
}

impl HostPlan {
    fn groups(&self) -> Vec<Group<'_>> {
        let main = [&self.hosts, &self.units, &self.capacity, &self.batch];
        let costs = self.costs.iter().chain([&self.cost_month, &self.cost_million]);
        let (what_if, more): (Vec<_>, Vec<_>) =
            self.figures.iter().partition(|figure| figure.name.starts_with("if "));
        vec![
            Group::new(format!("hosts: {}; {} binds", self.host, self.binds.name()), main),
            Group::new("hosts that each resource takes", self.needs.iter().map(|n| &n.hosts)),
            Group::new("costs", costs),
            Group::new("at work", more),
            Group::new("hosts when it is not as assumed", what_if),
        ]
    }
}
