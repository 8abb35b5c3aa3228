//! From a scenario, prices and records to a plan.

use sotto::limits;
use sotto::params::{Shape, ShapeWishes};

use super::batch::Engine;
use super::day::Day;
use super::figure::{A_SECOND, Basis, Figure, formula};
use super::measured::{Cost, Measured};
use super::outcome::{GpuPlan, PacksPlan, Plan, SCHEMA, ShapePlan, Used};
use super::packs::SIDE_BY_SIDE;
use super::scenario::{Host, Prices, Scenario};
use super::sizing::Hosts;
use crate::found::Found;
use crate::record::ShapeFacts;

/// A batch of one query that takes longer than this share of the objective makes latencies uneven.
const LONG_BATCH: f64 = 1.0 / 30.0;

/// Makes a plan.
pub fn plan(scenario: &Scenario, prices: &Prices, records: &[Found]) -> Result<Plan, String> {
    scenario.check()?;
    prices.check()?;
    let measured = Measured::of(records)?;
    let planner = Planner {
        scenario,
        prices,
        measured: &measured,
        host: prices.host("host", &scenario.host)?,
        gpu_host: prices.host("gpu_host", &scenario.gpu_host)?,
        front_end_host: prices.host("front_end_host", &scenario.front_end_host)?,
        build_host: match &scenario.build_host {
            Some(name) => prices.host("build_host", name)?,
            None => prices.host("host", &scenario.host)?,
        },
        peak: scenario.mean_rate() * scenario.peak_over_mean,
    };
    let (mut shapes, mut warnings) = (Vec::new(), Vec::new());
    for &records in &scenario.records_per_shard {
        match planner.shape(records)? {
            Ok(shape) => shapes.push(shape),
            Err(why) => warnings.push(formula!("{} records a shard: {why}", records as f64)),
        }
    }
    let Some(first) = shapes.first() else {
        return Err(format!("no shape can be served:\n{}", warnings.join("\n")));
    };
    if measured.outside(1.0).is_none() {
        warnings.push(
            "no record of a server under load with its own metrics (`sotto-bench load --metrics`): \
             what queries take beside batches (network, decrypting) counts as nothing"
                .into(),
        );
    }
    if measured.build(&first.shape).is_none() {
        let what = "no record of building (`sotto-bench build`): building epochs is not in the \
                    costs";
        warnings.push(what.into());
    }
    let demand = planner.demand();
    let groups = shapes.iter().flat_map(ShapePlan::groups).flat_map(|(_, figures)| figures);
    let sources: Vec<&String> = groups.flat_map(|figure| &figure.sources).collect();
    let is_used = |found: &&Found| {
        let start = format!("{}: ", found.path.display());
        sources.iter().any(|source| source.starts_with(&start))
    };
    let records = records.iter().filter(is_used).map(used).collect();
    let (scenario, prices) = (scenario.clone(), prices.clone());
    Ok(Plan { schema: SCHEMA.into(), scenario, prices, records, demand, shapes, warnings })
}

fn used(found: &Found) -> Used {
    let head = found.record.head();
    Used {
        path: found.path.display().to_string(),
        kind: found.record.kind().into(),
        machine: head.machine.name(),
        date: head.date.clone(),
        commit: head.commit.clone(),
    }
}

struct Planner<'a> {
    scenario: &'a Scenario,
    prices: &'a Prices,
    measured: &'a Measured<'a>,
    host: &'a Host,
    gpu_host: &'a Host,
    front_end_host: &'a Host,
    build_host: &'a Host,
    peak: f64,
}

impl Planner<'_> {
    fn demand(&self) -> Vec<Figure> {
        let Scenario { users, lookups_per_user_day, peak_over_mean, .. } = *self.scenario;
        let mean = self.scenario.mean_rate();
        let basis = Basis::of(["scenario: users, lookups_per_user_day"]);
        let how = formula!("{} * {} / 86 400 s", users, lookups_per_user_day);
        vec![
            basis.figure("look-ups a second, the mean", mean, A_SECOND, how),
            basis.with(["scenario: peak_over_mean"]).figure(
                "look-ups a second, the peak",
                self.peak,
                A_SECOND,
                formula!("{} * {}", mean, peak_over_mean),
            ),
        ]
    }

    /// One shape's plan, or why hosts without GPUs cannot serve it.
    fn shape(&self, records: u64) -> Result<Result<ShapePlan, String>, String> {
        let scenario = self.scenario;
        let records = records.min(scenario.records as u64);
        let with = |packs| {
            let wishes = ShapeWishes { packs, ..ShapeWishes::default() };
            Shape::for_records(records, scenario.value_bytes, wishes)
                .map(|shape| ShapeFacts::of(&shape))
        };
        let shape = with(scenario.packs)
            .map_err(|why| format!("scenario: records_per_shard: {records}: {why}"))?;
        let shards = (scenario.records / records as f64).ceil();
        if shards > f64::from(limits::SHARDS_MAX) {
            let most = limits::SHARDS_MAX;
            let why = formula!("{} shards, more than the {most} that a database may have", shards);
            return Ok(Err(why));
        }
        let day = Day::new(scenario, &shape, shards);
        let cost = self.cost(&shape)?;
        let hosts = self.hosts(&shape, shards, day, self.host, &cost);
        let Some(cpu) = hosts.plan() else { return Ok(Err(cannot(&hosts))) };
        let mut warnings = Vec::new();
        let least = limits::RECORDS_PER_SHARD_ACCEPTED_MIN;
        if records < least {
            warnings.push(format!(
                "clients refuse shards of fewer than {least} records unless told otherwise: a \
                 look-up hides among those of its shard"
            ));
        }
        let batch = hosts.engine.time(1.0);
        if batch > LONG_BATCH * scenario.latency_ms / 1e3 && shards > 1.0 {
            warnings.push(formula!(
                "a batch of one query takes {} ms, of {} ms in which answers are to come: with few \
                 such batches in that time latencies are uneven, and up to half of the capacity \
                 told may be lost",
                batch * 1e3,
                scenario.latency_ms
            ));
        }
        let others = SIDE_BY_SIDE.into_iter().filter(|&packs| packs != shape.packs);
        let others = others.filter_map(|packs| with(Some(packs)).ok());
        let mut packs = vec![hosts.packs(Some(&cpu))];
        for other in others {
            packs.push(self.packs(&other, shards)?);
        }
        packs.sort_by_key(|plan| plan.shape.packs);
        let gpu = match self.measured.gpu(&shape) {
            None => Err("no record of a real GPU was given, and none is guessed".to_owned()),
            Some(cost) => {
                let hosts = self.hosts(&shape, shards, day, self.gpu_host, &cost);
                hosts.plan().ok_or_else(|| cannot(&hosts))
            }
        };
        let gpu = match gpu {
            Ok(plan) => GpuPlan::Measured(Box::new(plan)),
            Err(why) => GpuPlan::NotMeasured { why },
        };
        Ok(Ok(ShapePlan {
            device: day.device(scenario, &shape, shards),
            provider: day.provider(scenario, &shape, shards),
            gpu,
            shards: shards as u64,
            shape,
            packs,
            cpu,
            warnings,
        }))
    }

    fn cost(&self, shape: &ShapeFacts) -> Result<Cost, String> {
        let cost = self.measured.processor(shape, self.host.cores);
        Ok(cost.ok_or(
            "found a record of an engine without answers, or without the time to read a shard, \
             expected both: measure again (`sotto-bench kernel`)",
        )?)
    }

    /// The same shards with another number of packs.
    fn packs(&self, shape: &ShapeFacts, shards: f64) -> Result<PacksPlan, String> {
        let cost = self.cost(shape)?;
        let day = Day::new(self.scenario, shape, shards);
        let hosts = self.hosts(shape, shards, day, self.host, &cost);
        Ok(hosts.packs(hosts.plan().as_ref()))
    }

    fn hosts<'b>(
        &'b self,
        shape: &'b ShapeFacts,
        shards: f64,
        day: Day,
        host: &'b Host,
        cost: &'b Cost,
    ) -> Hosts<'b> {
        let bytes = shape.query_bytes as f64 + shape.bundle_bytes as f64 / day.queries_a_bundle;
        let (reading, reading_basis) = cost.reading(host, shape);
        let cores = if host.gpus > 0 { 1.0 } else { f64::from(host.cores) };
        let mut hosts = Hosts {
            scenario: self.scenario,
            prices: self.prices,
            host,
            front_end_host: self.front_end_host,
            build_host: self.build_host,
            shape,
            shards,
            peak: self.peak,
            day,
            cost,
            engine: Engine { batch: cost.batch.clone(), cores, outside: 0.0, reading },
            reading: reading_basis,
            outside: self.measured.outside(bytes),
            build: self.measured.build(shape),
        };
        // Over several hosts queries bring more; another record may be nearer then.
        if let Some(fleet) = hosts.least().and_then(|least| hosts.fleet(least as f64)) {
            hosts.outside = self.measured.outside(fleet.bytes_in);
        }
        hosts
    }
}

/// Why no number of hosts is enough.
fn cannot(hosts: &Hosts) -> String {
    let host = &hosts.host.name;
    let (shard, memory) = (hosts.memory_a_shard(), hosts.host.shard_memory() / hosts.engines());
    if shard > memory {
        return formula!(
            "a shard takes {} GB of memory, {host} has {} GB for shards",
            shard / 1e9,
            memory / 1e9
        );
    }
    formula!(
        "a batch of one query takes {} ms on {host}, answers are to come within {} ms: ask for \
         smaller shards, faster hosts or more time",
        hosts.engine.time(1.0) * 1e3,
        hosts.scenario.latency_ms
    )
}
