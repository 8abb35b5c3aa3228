//! A capacity plan: what is asked, and what serves it, by shape of shards.

#![allow(missing_docs, reason = "bench/README.md says what each field is; a test compares")]

use serde::{Deserialize, Serialize};

use super::figure::Figure;
use super::scenario::{Prices, Scenario};
use crate::record::ShapeFacts;

pub(super) const SCHEMA: &str = "sotto-bench-plan/1";

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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Used {
    pub path: String,
    pub kind: String,
    pub machine: String,
    pub date: Option<String>,
    pub commit: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShapePlan {
    pub shape: ShapeFacts,
    pub shards: u64,
    pub device: Vec<Figure>,
    pub provider: Vec<Figure>,
    pub packs: Vec<PacksPlan>,
    pub cpu: HostPlan,
    pub gpu: GpuPlan,
    pub warnings: Vec<String>,
}

/// The same shards with so many packs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PacksPlan {
    pub shape: ShapeFacts,
    /// One by one as [`super::packs`] makes them; those of hosts are missing where no number of
    /// hosts is enough.
    pub figures: Vec<Figure>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrontEndPlan {
    pub host: String,
    pub hosts: Figure,
    pub cost_month: Figure,
    pub figures: Vec<Figure>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum GpuPlan {
    Measured(Box<HostPlan>),
    /// No GPU's speed was measured, so none is told; or none can serve the shape.
    NotMeasured {
        why: String,
    },
}

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
    /// Where devices ask front-ends.
    pub front_ends: Option<FrontEndPlan>,
    pub figures: Vec<Figure>,
    pub curve: Vec<Point>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    Memory,
    /// Time of cores or GPUs, spent on multiplying and on everything that is not reading shards.
    Arithmetic,
    /// Time of cores or GPUs, spent on reading shards: the host's memory gives no more bytes.
    Bandwidth,
    Network,
    Disk,
    /// Nothing of all this: so many copies of each shard are wanted, each on another host.
    Copies,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Need {
    pub resource: Resource,
    pub hosts: Figure,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub rate: f64,
    pub batch: f64,
    pub latency_ms: f64,
    pub utilisation: f64,
}

impl Resource {
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

impl Plan {
    /// The shapes from the smallest to the largest, for who reads them side by side.
    pub fn by_size(&self) -> Vec<&ShapePlan> {
        let mut shapes: Vec<_> = self.shapes.iter().collect();
        shapes.sort_by_key(|shape| shape.shape.records_per_shard);
        shapes
    }
}

/// Figures that are read together, and their title.
pub(crate) type Group<'a> = (String, Vec<&'a Figure>);

impl ShapePlan {
    /// All figures of the shape, in the order in which they are read.
    pub(crate) fn groups(&self) -> Vec<Group<'_>> {
        let mut groups = vec![
            ("a device".to_owned(), self.device.iter().collect()),
            ("the provider".to_owned(), self.provider.iter().collect()),
        ];
        let of_packs = |plan: &'_ PacksPlan| format!("packs: {}", plan.shape.packs);
        groups
            .extend(self.packs.iter().map(|plan| (of_packs(plan), plan.figures.iter().collect())));
        groups.extend(self.cpu.groups());
        if let GpuPlan::Measured(plan) = &self.gpu {
            groups.extend(plan.groups());
        }
        groups
    }
}

impl HostPlan {
    fn groups(&self) -> Vec<Group<'_>> {
        let main = [&self.hosts, &self.units, &self.capacity, &self.batch];
        let totals = [&self.cost_month, &self.cost_million];
        let mut groups = vec![
            (
                format!("hosts: {}; {} binds", self.host, self.binds.name()),
                main.into_iter().chain(&self.figures).collect(),
            ),
            (
                "hosts that each resource takes".to_owned(),
                self.needs.iter().map(|need| &need.hosts).collect(),
            ),
            ("costs".to_owned(), self.costs.iter().chain(totals).collect()),
        ];
        if let Some(FrontEndPlan { host, hosts, cost_month, figures }) = &self.front_ends {
            let all = [hosts].into_iter().chain(figures).chain([cost_month]).collect();
            groups.push((format!("front-ends: {host}"), all));
        }
        groups
    }
}
