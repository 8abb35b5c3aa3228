//! What can be said of GPUs when none was measured: how many hold the shards, and what each would
//! have to do to be cheaper than cores. Never how fast one is.

use super::basis::{Basis, number};
use super::{GpuPlan, Host, HostPlan, Scenario};
use crate::bench::record::ShapeFacts;

pub(super) fn not_measured(
    scenario: &Scenario,
    gpu_host: &Host,
    host: &Host,
    shape: &ShapeFacts,
    shards: f64,
    peak: f64,
    cpu: &HostPlan,
) -> GpuPlan {
    let why = "no record of a real GPU was given, and none is guessed: `sotto bench kernel --gpu NAME` \
               measures one";
    let (gpus, memory) = (f64::from(gpu_host.gpus), gpu_host.shard_memory());
    if gpus == 0.0 {
        return GpuPlan::NotMeasured { why: why.into(), figures: Vec::new() };
    }
    let more = (scenario.epochs_in_memory - 1.0) * scenario.changed_share;
    let bytes = (shape.matrix_bytes + shape.tables_bytes) as f64 * (1.0 + more);
    let a_gpu = (memory / gpus / bytes).floor();
    let mut figures = Vec::new();
    let copies = f64::from(scenario.replication);
    let holding = (shards * copies / a_gpu).ceil();
    let holders = Basis::of([
        "scenario: replication, epochs_in_memory, changed_share",
        "prices: hosts.gpu_memory_gib, gpu_reserved_memory_gib",
        "shape: matrix_bytes, tables_bytes",
    ]);
    if a_gpu >= 1.0 {
        figures.push(holders.figure(
            "GPUs that hold the shards",
            holding,
            "GPUs",
            format!(
                "{} shards * {} copies / {} shards a GPU ({} MB each)",
                number(shards),
                number(copies),
                number(a_gpu),
                number(bytes / 1e6)
            ),
        ));
    }
    let an_hour = gpu_host.gpu_hour + gpu_host.core_hour * f64::from(gpu_host.cores) / gpus;
    let cores_an_hour = cpu.hosts.value * f64::from(host.cores) * host.core_hour;
    let affordable = cores_an_hour / an_hour;
    let cheaper = Basis::of(["prices: hosts.core_hour, gpu_hour, cores, gpus"]);
    let mut prices = cheaper.and(&Basis::of(&cpu.hosts.sources));
    if let Some(why) = &cpu.hosts.extrapolated {
        prices = prices.guess(why.clone());
    }
    figures.push(prices.figure(
        "GPUs that cost as much as the cores",
        affordable,
        "GPUs",
        format!(
            "{} hosts * {} cores * {} an hour / {} an hour of a GPU and its part of a host",
            number(cpu.hosts.value),
            host.cores,
            host.core_hour,
            number(an_hour)
        ),
    ));
    if affordable <= 0.0 {
        return GpuPlan::NotMeasured { why: why.into(), figures };
    }
    let most = scenario.utilisation_max;
    let verdict = if a_gpu < 1.0 {
        "; but no GPU holds a shard".to_owned()
    } else if affordable < holding {
        format!("; but the shards take {}: dearer at any speed", number(holding))
    } else {
        String::new()
    };
    figures.push(prices.and(&Basis::of(["scenario: peak_over_mean, utilisation_max"])).figure(
        "look-ups a second that a GPU must do to be cheaper than cores",
        peak / affordable / most,
        "1/s",
        format!(
            "{} at the peak / {} GPUs / {}{verdict}",
            number(peak),
            number(affordable),
            number(most)
        ),
    ));
    GpuPlan::NotMeasured { why: why.into(), figures }
}
