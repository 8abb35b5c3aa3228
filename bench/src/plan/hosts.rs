//! Hosts of one kind as figures: what binds, batches, epochs, money.

use super::batch::State;
use super::figure::{A_SECOND, Basis, Figure, formula};
use super::outcome::{FrontEndPlan, HostPlan, Need, Point, Resource};
use super::scenario::{MONTH_DAYS, MONTH_HOURS};
use super::sizing::{Fleet, Hosts};
use crate::units::number;

const POINTS: u32 = 24;

/// What front-ends cost, as a part of everything.
fn cost(plan: &FrontEndPlan) -> Figure {
    Figure { name: "front-ends".into(), ..plan.cost_month.clone() }
}

impl Hosts<'_> {
    /// The plan; none when no number of such hosts is enough.
    pub(super) fn plan(&self) -> Option<HostPlan> {
        let least = self.least()?;
        let fleet = self.fleet(least as f64)?;
        let (host, scenario) = (self.host, self.scenario);
        let hosts = least + u64::from(scenario.failed_hosts);
        // What the hosts do when none has failed.
        let whole = self.fleet(hosts as f64)?;
        let needs = self.needs(&fleet);
        let (binds, most) = needs.first().map(|need| (need.resource, need.hosts.value))?;
        // What might bind in place of it, were it twice what is told.
        let near = needs.iter().filter(|need| 2.0 * need.hosts.value >= most);
        let basis =
            near.fold(Basis::default(), |all, need| all.and(&Basis::of_figure(&need.hosts)));
        let failed = scenario.failed_hosts;
        let how =
            format!("{least} for {} + {failed} in reserve, for those that may fail", binds.name());
        let (units, name) = if host.gpus > 0 { (host.gpus, "GPUs") } else { (host.cores, "cores") };
        let front_ends = self.front_ends(&whole);
        let mut costs = self.costs(&basis, hosts as f64);
        costs.extend(front_ends.iter().map(cost));
        let total: f64 = costs.iter().map(|cost| cost.value).sum();
        let sum: Vec<String> = costs.iter().map(|cost| number(cost.value)).collect();
        let sources = costs.iter().map(|cost| Basis::of(&cost.sources));
        let of_front_ends = front_ends.as_ref().map(|plan| Basis::of_figure(&plan.cost_month));
        let priced = sources.chain(of_front_ends).fold(basis.clone(), |all, one| all.and(&one));
        let currency = &*self.prices.currency;
        let millions = scenario.month_lookups() / 1e6;
        let curve = (1..=POINTS).map(|at| {
            let utilisation = f64::from(at) / f64::from(POINTS);
            let State { rate, batch, latency } = whole.at(whole.capacity.rate * utilisation);
            Point { rate, batch, latency_ms: latency * 1e3, utilisation }
        });
        Some(HostPlan {
            host: host.name.clone(),
            hosts: basis.figure("hosts", hosts as f64, "", how),
            units: basis.figure(
                name,
                hosts as f64 * f64::from(units),
                "",
                format!("{hosts} hosts * {units}"),
            ),
            reserve: failed.into(),
            binds,
            batch: self.batch(&whole),
            capacity: self.capacity(&whole),
            needs,
            cost_month: priced.figure("cost a month", total, currency, sum.join(" + ")),
            cost_million: priced.figure(
                "cost of a million look-ups",
                total / millions,
                currency,
                formula!("{} / {} million look-ups a month", total, millions),
            ),
            costs,
            front_ends,
            figures: self.figures(&whole),
            curve: curve.collect(),
        })
    }

    /// What the time of a host's engines stands on.
    pub(super) fn basis(&self) -> Basis {
        let rates =
            Basis::of(["scenario: users, lookups_per_user_day, peak_over_mean, latency_ms"]);
        let all = rates.and(&self.cost.basis);
        match &self.outside {
            Some(outside) => all.and(&outside.basis),
            None => all.guess(
                "no record of a server under load with --metrics: time beside batches (network, \
                 decrypting) counts as none",
            ),
        }
    }

    /// Hosts that each resource would take, the most first.
    fn needs(&self, fleet: &Fleet) -> Vec<Need> {
        let need = |(resource, share): (Resource, f64)| {
            let (basis, formula) = self.need(fleet, resource);
            let hosts = basis.figure(resource.name(), share * fleet.hosts, "hosts", formula);
            Need { resource, hosts }
        };
        let mut needs: Vec<_> = self.uses(fleet).into_iter().map(need).collect();
        needs.sort_by(|a, b| b.hosts.value.total_cmp(&a.hosts.value));
        needs
    }

    fn need(&self, fleet: &Fleet, resource: Resource) -> (Basis, String) {
        let (scenario, host) = (self.scenario, self.host);
        let (copies, most) = (f64::from(scenario.replication), scenario.utilisation_max);
        let State { rate, batch, .. } = fleet.capacity;
        let (peak, time) = (self.peak, fleet.engine.time(batch) * 1e3);
        let busy = formula!("{} a second at the peak / {} a second a host / {}", peak, rate, most);
        let basis = self.basis().with(["scenario: utilisation_max"]);
        match resource {
            Resource::Memory => (
                Basis::of([
                    "scenario: replication, epochs_in_memory, changed_share",
                    if host.gpus > 0 {
                        "prices: hosts.gpu_memory_gib, gpu_reserved_memory_gib, gpus"
                    } else {
                        "prices: hosts.memory_gib, reserved_memory_gib"
                    },
                    "shape: matrix_bytes, tables_bytes",
                ]),
                formula!(
                    "{} shards * {} copies * {} MB (epochs in memory: {}) / {} GB a host",
                    self.shards,
                    copies,
                    self.memory_a_shard() / 1e6,
                    scenario.epochs_in_memory,
                    host.shard_memory() / 1e9
                ),
            ),
            Resource::Arithmetic => {
                let cores = fleet.engine.core_time(batch) * 1e3;
                let formula = formula!("{busy} * {} ms of cores / {} ms a batch", cores, time);
                (basis.with(["prices: hosts.cores"]), formula)
            }
            Resource::Bandwidth => {
                let reading = fleet.engine.reading * 1e3;
                let how = formula!("{busy} * {} ms to read a shard / {} ms a batch", reading, time);
                (basis.and(&self.reading), how)
            }
            Resource::Network => (
                Basis::of([
                    "scenario: utilisation_max",
                    "prices: hosts.network_gbit_per_s",
                    "shape: query_bytes, bundle_bytes, answer_bytes",
                ]),
                formula!(
                    "{} a second * 8 * {} bytes / {} Gbit a second / {}",
                    peak,
                    fleet.bytes_in.max(fleet.bytes_out),
                    host.network_gbit_per_s,
                    most
                ),
            ),
            Resource::Disk => (
                Basis::of(["scenario: replication, changed_share", "prices: hosts.disk_gb"]),
                formula!(
                    "{} shards * {} copies * {} MB (three epochs) / {} GB a host",
                    self.shards,
                    copies,
                    self.disk_a_shard() / 1e6,
                    host.disk_gb
                ),
            ),
            Resource::Copies => (
                Basis::of(["scenario: replication"]),
                formula!("{} copies, each on another host", copies),
            ),
        }
    }

    fn batch(&self, fleet: &Fleet) -> Figure {
        let batch = fleet.at(fleet.rate).batch;
        let comes = formula!(
            "{} a second * {} ms a batch for one of {} shards",
            fleet.rate / fleet.engines,
            fleet.engine.time(batch) * 1e3,
            fleet.resident
        );
        let why = match batch > 1.0 {
            true => "as many as come while so many are computed",
            false => "one, for less than one comes while it is computed",
        };
        self.basis().figure("queries a batch at the peak", batch, "", format!("{why}: {comes}"))
    }

    fn capacity(&self, fleet: &Fleet) -> Figure {
        let State { rate, batch, latency } = fleet.capacity;
        let time = fleet.engine.time(batch);
        let engines = match fleet.engines > 1.0 {
            true => formula!("{} engines * ", fleet.engines),
            false => String::new(),
        };
        let how = &self.cost.how;
        let formula = formula!(
            "{engines}{} a batch / {} ms ({how}); the oldest waits {} ms and its batch",
            batch,
            time * 1e3,
            (latency - time) * 1e3
        );
        self.basis().figure("look-ups a second that a host can do", rate, A_SECOND, formula)
    }

    fn costs(&self, basis: &Basis, hosts: f64) -> Vec<Figure> {
        let (host, prices, scenario) = (self.host, self.prices, self.scenario);
        let currency = &*prices.currency;
        let hourly = |name: &str, key: &str, units: u32, price: f64| {
            let formula = formula!("{} hosts * {units} * {price} an hour * {MONTH_HOURS} h", hosts);
            let cost = hosts * f64::from(units) * price * MONTH_HOURS;
            basis.with([key]).figure(name, cost, currency, formula)
        };
        let mut costs =
            vec![hourly("cores", "prices: hosts.core_hour", host.cores, host.core_hour)];
        if host.gpus > 0 {
            costs.push(hourly("GPUs", "prices: hosts.gpu_hour", host.gpus, host.gpu_hour));
        }
        let egress = scenario.users * self.day.down * MONTH_DAYS / 1e9;
        let keys = ["scenario: users, lookups_per_user_day", "shape", "prices: egress_gb"];
        costs.push(Basis::of(keys).figure(
            "sent to devices",
            egress * prices.egress_gb,
            currency,
            formula!("{} GB a month * {}", egress, prices.egress_gb),
        ));
        let copies = f64::from(scenario.replication).max(hosts / self.shards);
        let stored = self.shards * copies * self.disk_a_shard() / 1e9;
        costs.push(basis.with(["prices: stored_gb_month"]).figure(
            "stored",
            stored * prices.stored_gb_month,
            currency,
            formula!("{} GB * {}", stored, prices.stored_gb_month),
        ));
        costs.push(self.store_cost());
        let epochs = MONTH_HOURS / scenario.epoch_hours;
        costs.extend(self.build_core_hours().map(|hours| {
            let price = self.build_host.core_hour;
            let basis = Basis::of_figure(&hours);
            basis.with(["scenario: epoch_hours", "prices: hosts.core_hour"]).figure(
                "building epochs",
                hours.value * epochs * price,
                currency,
                formula!("{} core-hours * {} epochs a month * {price}", hours.value, epochs),
            )
        }));
        costs
    }

    fn figures(&self, fleet: &Fleet) -> Vec<Figure> {
        let peak = fleet.at(fleet.rate);
        let (basis, time) = (self.basis(), fleet.engine.time(peak.batch));
        let mut figures = vec![
            basis.figure(
                "latency at the peak, about the median",
                peak.latency * 1e3,
                "ms",
                formula!(
                    "{} ms of waiting + {} ms a batch",
                    (peak.latency - time) * 1e3,
                    time * 1e3
                ),
            ),
            Basis::of(["scenario: replication, records"]).figure(
                "shards a host",
                fleet.resident,
                "",
                formula!(
                    "{} shards * {} copies / {} hosts",
                    self.shards,
                    fleet.copies,
                    fleet.hosts
                ),
            ),
        ];
        if let Some(outside) = &self.outside {
            let how = &outside.formula;
            figures.push(outside.basis.figure(
                "time of a look-up beside its batch",
                fleet.outside * 1e3,
                "core-ms",
                formula!("{how} * {} bytes in", fleet.bytes_in),
            ));
        }
        figures.extend(self.epochs(fleet));
        figures
    }
}
