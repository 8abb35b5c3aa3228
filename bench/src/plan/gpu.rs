//! What can be said of GPUs when none was measured: how many hold the shards, and what each would
//! have to do to be cheaper than cores. Never how fast one is.

use super::basis::{Basis, formula, number};
use super::figure::A_SECOND;
use super::sizing::memory_a_shard;
use super::{Figure, GpuPlan, Host, HostPlan, Scenario};
use crate::record::ShapeFacts;

const WHY: &str = "no record of a real GPU was given, and none is guessed: `sotto-bench gpu \
                   NAME` measures one";

/// Hosts with GPUs beside hosts without, as planned.
pub(super) struct Unmeasured<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) gpu_host: &'a Host,
    pub(super) host: &'a Host,
    pub(super) shape: &'a ShapeFacts,
    pub(super) shards: f64,
    /// Queries a second.
    pub(super) peak: f64,
    pub(super) cpu: &'a HostPlan,
}

impl Unmeasured<'_> {
    pub(super) fn plan(&self) -> GpuPlan {
        let mut figures = Vec::new();
        if self.gpu_host.gpus > 0 {
            let holding = self.holding();
            figures.extend(holding.clone());
            figures.extend(self.cheaper(holding.map(|figure| figure.value)));
        }
        GpuPlan::NotMeasured { why: WHY.into(), figures }
    }

    /// GPUs that hold the shards; none where no GPU holds one.
    fn holding(&self) -> Option<Figure> {
        let bytes = memory_a_shard(self.scenario, self.shape);
        let a_gpu = (self.gpu_host.shard_memory() / f64::from(self.gpu_host.gpus) / bytes).floor();
        let copies = f64::from(self.scenario.replication);
        let basis = Basis::of([
            "scenario: replication, epochs_in_memory, changed_share",
            "prices: hosts.gpu_memory_gib, gpu_reserved_memory_gib",
            "shape: matrix_bytes, tables_bytes",
        ]);
        let formula = formula!(
            "{} shards * {} copies / {} shards a GPU ({} MB each)",
            self.shards,
            copies,
            a_gpu,
            bytes / 1e6
        );
        let gpus = (self.shards * copies / a_gpu).ceil().max(copies);
        (a_gpu >= 1.0).then(|| basis.figure("GPUs that hold the shards", gpus, "GPUs", formula))
    }

    /// What GPUs would have to do to cost less than the cores of the plan.
    fn cheaper(&self, holding: Option<f64>) -> Vec<Figure> {
        let (host, gpu_host, hosts) = (self.host, self.gpu_host, &self.cpu.hosts);
        let gpus = f64::from(gpu_host.gpus);
        let an_hour = gpu_host.gpu_hour + gpu_host.core_hour * f64::from(gpu_host.cores) / gpus;
        let cores_an_hour = hosts.value * f64::from(host.cores) * host.core_hour;
        if cores_an_hour <= 0.0 || an_hour <= 0.0 {
            return Vec::new();
        }
        let affordable = cores_an_hour / an_hour;
        let mut basis = Basis::of(["prices: hosts.core_hour, gpu_hour, cores, gpus"])
            .and(&Basis::of(&hosts.sources));
        if let Some(why) = &hosts.extrapolated {
            basis = basis.guess(why.clone());
        }
        let as_much = basis.figure(
            "GPUs that cost as much as the cores",
            affordable,
            "GPUs",
            format!(
                "{} hosts * {} cores * {} an hour / {} an hour of a GPU and its part of a host",
                number(hosts.value),
                host.cores,
                host.core_hour,
                number(an_hour)
            ),
        );
        let verdict = match holding {
            None => "; but no GPU holds a shard".to_owned(),
            Some(holding) if affordable < holding => {
                formula!("; but the shards take {}: dearer at any speed", holding)
            }
            Some(_) => String::new(),
        };
        let most = self.scenario.utilisation_max;
        let keys = Basis::of(["scenario: peak_over_mean, utilisation_max"]);
        let rate = basis.and(&keys).figure(
            "look-ups a second that a GPU must do to be cheaper than cores",
            self.peak / affordable / most,
            A_SECOND,
            formula!("{} at the peak / {} GPUs / {}{verdict}", self.peak, affordable, most),
        );
        vec![as_much, rate]
    }
}
