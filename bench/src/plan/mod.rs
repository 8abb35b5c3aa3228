//! The capacity plan: from records and a scenario to hosts, batches, bytes and money. Pure: the
//! same records, scenario and prices make the same plan.
//!
//! - Rates (`scenario.rs`): the mean is users * look-ups a day / 86 400, the peak that times peak
//!   over mean.
//! - Shards: records / records a shard, rounded up; all sizes by [`Shape::for_records`].
//! - Bundles of a sync of k look-ups (`bundles.rs`): the larger of k / 16 and the most of k that
//!   one shard gets. Each goes to N (1 - (1 - 1/N)^q) of N hosts for its q queries, for a host
//!   that lacks it cannot answer.
//! - Time of a pass T(b) (`measured.rs`, `batch.rs`): cores * milliseconds a query * b of the
//!   kernel record, medians, on straight lines between the batches measured; and b times what
//!   queries take beside passes. Never less than reading the shard.
//! - Beside passes: processor time an answer of the load record, without what passes took; by
//!   bytes in.
//! - Another shape than was measured: scanning by the bytes of the matrix, packing by those of the
//!   tables, preparing by those of query and bundle, finishing by packs; marked as extrapolated.
//! - Batch at a rate L over S shards of a host: b = L T(b), or 1 where that is less. Queries wait
//!   for w = (b - 1)/b S T(b).
//! - Capacity of a host: the largest such L with w + T(b) <= 0.6 objective and b <= 32.
//! - Hosts (`sizing.rs`): the least N at which memory, cores, reading, network, disk and copies
//!   are enough, and those that may fail. Each shard has as many copies as asked, or N / shards
//!   where that is more: further copies would only make batches smaller.
//! - Memory of a shard: (matrix + tables) (1 + (epochs in memory - 1) * changed share).
//! - Costs of a month (`hosts.rs`): hosts * (cores * core-hour + GPUs * GPU-hour) * 730, bytes to
//!   devices, bytes stored, building epochs.
//!
//! # How far off it is
//!
//! The batch model beside the schedule itself in simulated time (`simulated.rs`): batches within
//! 8% at half and at seven tenths of the capacity it tells. That capacity kept 99% of the answers
//! within the objective up to 80% to 110% of it, from one shard to 10 000, as long as a pass of
//! one query takes at most a thirtieth of the objective; where it took a tenth and there were
//! several shards, up to 50% only, and the plan warns. So a `utilisation_max` of 0.7 is meant to
//! be kept.
//!
//! Beside what was measured (bench/record/2026-11-28-amd-epyc-2-cores-load, one core; the test
//! `as_measured` repeats it): for a standard shard whose engine has a core to itself the model
//! says 601 a second; 591 were found within the objective, and 624 answered at twice that rate.
//! With everything on that core 542 were found, which tells 0.19 ms beside the pass; with that the
//! model says 3150 a second for 64 shards of 2^16, each a sixteenth of the one measured; 3200 to
//! 3340 were found. The latency it tells is about the median; the 99th percentile was two to three
//! times that.
//!
//! # What it does not know
//!
//! Shards that are more popular than others (they batch better, but their hosts have more to do);
//! rates that change within seconds; headers of QUIC, UDP and IP (some 5% of the bytes); the time
//! that bytes are under way; who places shards on hosts and hands queries to them; what front-ends
//! cost. A front-end may ask any of a shard's hosts, so that bundles go to more hosts than they
//! would if it kept to some. More cores than were measured are taken to lose no more time than
//! those; a figure tells what it costs if they do.

mod basis;
mod batch;
mod bundles;
mod day;
mod figure;
mod gpu;
mod hosts;
mod measured;
mod scenario;
#[cfg(test)]
mod simulated;
mod sizing;
#[cfg(test)]
mod tests;
mod text;

pub use figure::*;
pub use scenario::*;
pub use text::Shown;

use basis::{Basis, formula, number};
use batch::Engine;
use day::Day;
use figure::A_SECOND;
use gpu::Unmeasured;
use hosts::Plans;
use measured::{Cost, Measured, reading};
use sizing::{Sizing, hints_a_second};

use crate::found::Found;
use crate::record::{Machine, ShapeFacts};
use sotto::limits;
use sotto::params::{Shape, ShapeError, ShapeWishes};

/// A pass longer than this share of the objective makes latencies uneven.
const LONG_PASS: f64 = 1.0 / 30.0;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No engine was measured.
    #[error(
        "found no record of an engine among {records} records: run `sotto-bench kernel` here, or \
         give what others measured (--record bench/record/...)"
    )]
    NoKernel {
        /// How many others.
        records: usize,
    },
    /// The engine's record is empty.
    #[error(
        "found a record of an engine without answers, or without the time to read a shard, \
         expected both: measure again (`sotto-bench kernel`)"
    )]
    NoAnswers,
    /// The scenario names a host that has no price.
    #[error("scenario: {key}: found {found:?}, expected one of the prices' hosts: {known}")]
    NoHost {
        /// In which key.
        key: &'static str,
        /// Which.
        found: String,
        /// Those there are.
        known: String,
    },
    /// A number that cannot be.
    #[error("{key}: found {found}, expected {expected}")]
    Value {
        /// Where.
        key: String,
        /// The number.
        found: f64,
        /// What it may be.
        expected: String,
    },
    /// There is no such shape.
    #[error("scenario: records_per_shard: {records}: {source}")]
    Shape {
        /// Records a shard.
        records: u64,
        /// Why not.
        source: ShapeError,
    },
    /// Nothing is left to plan.
    #[error("no shape can be served:\n{}", reasons.join("\n"))]
    Nothing {
        /// Why not, for each.
        reasons: Vec<String>,
    },
}

/// Makes a plan.
pub fn plan(scenario: &Scenario, prices: &Prices, records: &[Found]) -> Result<Plan, PlanError> {
    scenario.check()?;
    prices.check()?;
    let measured = Measured::of(records)?;
    let planner = Planner {
        scenario,
        prices,
        measured: &measured,
        host: prices.host("host", &scenario.host)?,
        gpu_host: prices.host("gpu_host", &scenario.gpu_host)?,
        peak: scenario.mean_rate() * scenario.peak_over_mean,
    };
    let mut shapes = Vec::new();
    let mut warnings = Vec::new();
    for &records in &scenario.records_per_shard {
        match planner.shape(records)? {
            Ok(shape) => shapes.push(shape),
            Err(why) => warnings.push(formula!("{} records a shard: {why}", records as f64)),
        }
    }
    let Some(first) = shapes.first() else {
        return Err(PlanError::Nothing { reasons: warnings });
    };
    warnings.extend(measured.missing(&first.shape));
    Ok(Plan {
        schema: SCHEMA.into(),
        scenario: scenario.clone(),
        prices: prices.clone(),
        records: measured.used(),
        demand: planner.demand(),
        shapes,
        warnings,
    })
}

/// Of records, those that a plan of this machine stands on: the newest of each kind and shape.
pub fn newest(records: Vec<Found>, machine: &Machine) -> Vec<Found> {
    measured::newest(records, machine)
}

struct Planner<'a> {
    scenario: &'a Scenario,
    prices: &'a Prices,
    measured: &'a Measured<'a>,
    host: &'a Host,
    gpu_host: &'a Host,
    /// Queries a second.
    peak: f64,
}

impl Planner<'_> {
    fn demand(&self) -> Vec<Figure> {
        let Scenario { users, lookups_per_user_day, peak_over_mean, .. } = self.scenario;
        let mean = self.scenario.mean_rate();
        let basis = Basis::of(["scenario: users, lookups_per_user_day"]);
        vec![
            basis.figure(
                "look-ups a second, the mean",
                mean,
                A_SECOND,
                formula!("{} * {} / 86 400 s", *users, *lookups_per_user_day),
            ),
            basis.and(&Basis::of(["scenario: peak_over_mean"])).figure(
                "look-ups a second, the peak",
                self.peak,
                A_SECOND,
                formula!("{} * {}", mean, *peak_over_mean),
            ),
        ]
    }

    /// One shape's plan, or why hosts without GPUs cannot serve it.
    fn shape(&self, records: u64) -> Result<Result<ShapePlan, String>, PlanError> {
        let scenario = self.scenario;
        let records = records.min(scenario.records as u64);
        let shape = Shape::for_records(records, scenario.value_bytes, ShapeWishes::default())
            .map_err(|source| PlanError::Shape { records, source })?;
        let shape = ShapeFacts::of(&shape);
        let shards = (scenario.records / records as f64).ceil();
        if shards > f64::from(limits::SHARDS_MAX) {
            return Ok(Err(format!(
                "{} shards, more than the {} that a database may have",
                number(shards),
                limits::SHARDS_MAX
            )));
        }
        let day = Day::new(scenario, &shape, shards);
        let cost = self.measured.processor(&shape, self.host.cores);
        let cost = cost.ok_or(PlanError::NoAnswers)?;
        let plans = self.hosts(&shape, shards, day, self.host, &cost);
        let Some(cpu) = plans.plan() else { return Ok(Err(self.cannot(&plans.sizing))) };
        let mut warnings = Vec::new();
        if records < limits::RECORDS_PER_SHARD_ACCEPTED_MIN {
            warnings.push(format!(
                "clients refuse shards of fewer than {} records unless told otherwise: a look-up \
                 hides among those of its shard",
                limits::RECORDS_PER_SHARD_ACCEPTED_MIN
            ));
        }
        let pass = plans.sizing.engine.pass_time(1.0);
        if pass > LONG_PASS * scenario.latency_ms / 1e3 && shards > 1.0 {
            warnings.push(formula!(
                "a pass of one query takes {} ms, of {} ms in which answers are to come: with few \
                 such passes in that time latencies are uneven, and up to half of the capacity \
                 told may be lost",
                pass * 1e3,
                scenario.latency_ms
            ));
        }
        Ok(Ok(ShapePlan {
            device: day.device(scenario, &shape, shards),
            provider: day.provider(scenario, &shape, shards),
            gpu: self.gpu(&shape, shards, day, &cpu),
            shards: shards as u64,
            shape,
            cpu,
            warnings,
        }))
    }

    fn hosts<'b>(
        &'b self,
        shape: &'b ShapeFacts,
        shards: f64,
        day: Day,
        host: &'b Host,
        cost: &'b Cost,
    ) -> Plans<'b> {
        let on_gpus = host.gpus > 0;
        let bytes = shape.query_bytes as f64 + shape.bundle_bytes as f64 / day.queries_a_bundle;
        let mut outside = self.measured.outside(bytes);
        let (reading, reading_basis) = if on_gpus {
            (shape.pass_bytes() as f64 / (cost.read_gb_per_s * 1e9), cost.read.clone())
        } else {
            reading(cost, host, shape)
        };
        let mut sizing = Sizing {
            scenario: self.scenario,
            host,
            shape,
            shards,
            peak: self.peak,
            engine: Engine {
                pass: cost.pass.clone(),
                cores: if on_gpus { 1.0 } else { f64::from(host.cores) },
                outside: 0.0,
                reading,
            },
            engines: if on_gpus { f64::from(host.gpus) } else { 1.0 },
            shard_memory: host.shard_memory(),
            outside_a_byte: outside.as_ref().map_or(0.0, |outside| outside.a_byte),
            queries_a_bundle: day.queries_a_bundle,
            hints_a_second: hints_a_second(self.scenario, shape, shards, day.hints),
        };
        // Over several hosts queries bring more; another record may be nearer then.
        if let Some(fleet) = sizing.least().and_then(|hosts| sizing.fleet(hosts as f64)) {
            outside = self.measured.outside(fleet.bytes_in);
            sizing.outside_a_byte = outside.as_ref().map_or(0.0, |outside| outside.a_byte);
        }
        Plans {
            scenario: self.scenario,
            prices: self.prices,
            measured: self.measured,
            sizing,
            cost,
            reading: reading_basis,
            outside,
            day,
        }
    }

    fn gpu(&self, shape: &ShapeFacts, shards: f64, day: Day, cpu: &HostPlan) -> GpuPlan {
        if let Some(cost) = self.measured.gpu(shape) {
            let plans = self.hosts(shape, shards, day, self.gpu_host, &cost);
            return match plans.plan() {
                Some(plan) => GpuPlan::Measured(Box::new(plan)),
                None => {
                    GpuPlan::NotMeasured { why: self.cannot(&plans.sizing), figures: Vec::new() }
                }
            };
        }
        let (scenario, gpu_host, host, peak) = (self.scenario, self.gpu_host, self.host, self.peak);
        Unmeasured { scenario, gpu_host, host, shape, shards, peak, cpu }.plan()
    }

    /// Why no number of hosts is enough.
    fn cannot(&self, sizing: &Sizing) -> String {
        let (shard, memory) = (sizing.memory_a_shard(), sizing.shard_memory / sizing.engines);
        if shard > memory {
            return format!(
                "a shard takes {} GB of memory, {} has {} GB for shards",
                number(shard / 1e9),
                sizing.host.name,
                number(memory / 1e9)
            );
        }
        format!(
            "a pass of one query takes {} ms on {}, answers are to come within {} ms: ask for \
             smaller shards, faster hosts or more time",
            number(sizing.engine.pass_time(1.0) * 1e3),
            sizing.host.name,
            number(self.scenario.latency_ms)
        )
    }
}
