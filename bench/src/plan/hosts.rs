//! Hosts of one kind as figures: what binds, batches, epochs, money, and what a wrong assumption
//! costs.

use super::basis::{Basis, formula, number};
use super::batch::State;
use super::bundles::distinct;
use super::day::Day;
use super::figure::A_SECOND;
use super::measured::{Cost, Measured, Outside};
use super::sizing::{Fleet, Sizing};
use super::{Figure, HostPlan, Need, Point, Prices, Resource, Scenario};

/// Hours of a month.
const MONTH_HOURS: f64 = 730.0;
/// Days of a month.
const MONTH_DAYS: f64 = MONTH_HOURS / 24.0;
/// Points of a curve.
const POINTS: u32 = 24;

/// Hosts that are enough, with all that their figures stand on.
pub(super) struct Plans<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) prices: &'a Prices,
    pub(super) measured: &'a Measured<'a>,
    pub(super) sizing: Sizing<'a>,
    pub(super) cost: &'a Cost,
    /// How fast a shard can be read.
    pub(super) reading: Basis,
    /// Time of queries beside their passes.
    pub(super) outside: Option<Outside>,
    pub(super) day: Day,
}

impl Plans<'_> {
    /// The plan; none when no number of such hosts is enough.
    pub(super) fn plan(&self) -> Option<HostPlan> {
        let least = self.sizing.least()?;
        let (host, scenario) = (self.sizing.host, self.scenario);
        let fleet = self.sizing.fleet(least as f64)?;
        let hosts = least + u64::from(scenario.failed_hosts);
        // What the hosts do when none has failed.
        let whole = self.sizing.fleet(hosts as f64)?;
        let needs = self.needs(&fleet);
        let binds = needs.first()?.resource;
        // What might bind in place of it, were it half as much again as told.
        let near = needs.iter().filter(|need| 2.0 * need.hosts.value >= needs[0].hosts.value);
        let basis =
            near.fold(Basis::default(), |all, need| all.and(&self.needs_basis(need.resource)));
        let hosts_figure = basis.figure(
            "hosts",
            hosts as f64,
            "",
            format!(
                "{least} for {} + {} in reserve, for those that may fail",
                binds.name(),
                scenario.failed_hosts
            ),
        );
        let units = if host.gpus > 0 { host.gpus } else { host.cores };
        let units_figure = basis.figure(
            if host.gpus > 0 { "GPUs" } else { "cores" },
            hosts as f64 * f64::from(units),
            "",
            format!("{hosts} hosts * {units}"),
        );
        let costs = self.costs(&basis, hosts as f64);
        let total: f64 = costs.iter().map(|cost| cost.value).sum();
        let sum: Vec<String> = costs.iter().map(|cost| number(cost.value)).collect();
        let priced =
            costs.iter().fold(basis.clone(), |all, cost| all.and(&Basis::of(&cost.sources)));
        let currency = &*self.prices.currency;
        let cost_month = priced.figure("cost a month", total, currency, sum.join(" + "));
        let millions = scenario.users * scenario.lookups_per_user_day * MONTH_DAYS / 1e6;
        let cost_million = priced.figure(
            "cost of a million look-ups",
            total / millions,
            currency,
            formula!("{} / {} million look-ups a month", total, millions),
        );
        Some(HostPlan {
            host: host.name.clone(),
            hosts: hosts_figure,
            units: units_figure,
            reserve: u64::from(scenario.failed_hosts),
            binds,
            batch: self.batch("queries a pass at the peak", &whole, whole.rate),
            capacity: self.capacity(&whole),
            needs,
            cost_month,
            cost_million,
            costs,
            figures: self.figures(&whole, least),
            curve: self.curve(&whole),
        })
    }

    /// What the time of a host's engines stands on.
    fn basis(&self) -> Basis {
        let rates =
            Basis::of(["scenario: users, lookups_per_user_day, peak_over_mean, latency_ms"]);
        let all = rates.and(&self.cost.basis);
        match &self.outside {
            Some(outside) => all.and(&outside.basis),
            None => all.guess(
                "no record of a server under load with --metrics: time beside passes (network, \
                 decrypting) counts as none",
            ),
        }
    }

    fn needs_basis(&self, resource: Resource) -> Basis {
        let key = |key: &str| Basis::of([format!("scenario: {key}")]);
        let price = |key: &str| Basis::of([format!("prices: hosts.{key}")]);
        match resource {
            Resource::Memory => key("replication, epochs_in_memory, changed_share")
                .and(&price(if self.sizing.host.gpus > 0 {
                    "gpu_memory_gib, gpu_reserved_memory_gib, gpus"
                } else {
                    "memory_gib, reserved_memory_gib"
                }))
                .and(&Basis::of(["shape: matrix_bytes, tables_bytes"])),
            Resource::Arithmetic => self.basis().and(&key("utilisation_max")).and(&price("cores")),
            Resource::Bandwidth => self.basis().and(&self.reading).and(&key("utilisation_max")),
            Resource::Network => key("utilisation_max")
                .and(&price("network_gbit_per_s"))
                .and(&Basis::of(["shape: query_bytes, bundle_bytes, answer_bytes"])),
            Resource::Disk => key("replication, changed_share").and(&price("disk_gb")),
            Resource::Copies => key("replication"),
        }
    }

    fn needs(&self, fleet: &Fleet) -> Vec<Need> {
        let (scenario, host) = (self.scenario, self.sizing.host);
        let (copies, shards) = (f64::from(scenario.replication), self.sizing.shards);
        let most = number(scenario.utilisation_max);
        let pass = fleet.engine.pass_time(fleet.capacity.batch);
        let busy = formula!(
            "{} a second at the peak / {} a second a host / {most}",
            self.sizing.peak,
            fleet.capacity.rate
        );
        let bytes = |bytes: f64| number(bytes / 1e6);
        let formula = |resource: Resource| match resource {
            Resource::Memory => format!(
                "{} shards * {} copies * {} MB (epochs in memory: {}) / {} GB a host",
                number(shards),
                number(copies),
                bytes(self.sizing.memory_a_shard()),
                number(scenario.epochs_in_memory),
                number(self.sizing.shard_memory / 1e9)
            ),
            Resource::Arithmetic => formula!(
                "{busy} * {} ms of cores / {} ms a pass",
                fleet.engine.core_time(fleet.capacity.batch) * 1e3,
                pass * 1e3
            ),
            Resource::Bandwidth => formula!(
                "{busy} * {} ms to read a shard / {} ms a pass",
                fleet.engine.reading * 1e3,
                pass * 1e3
            ),
            Resource::Network => formula!(
                "{} a second * 8 * {} bytes / {} Gbit a second / {most}",
                self.sizing.peak,
                fleet.bytes_in.max(fleet.bytes_out),
                host.network_gbit_per_s
            ),
            Resource::Disk => format!(
                "{} shards * {} copies * {} MB (two epochs) / {} GB a host",
                number(shards),
                number(copies),
                bytes(self.sizing.disk_a_shard()),
                number(host.disk_gb)
            ),
            Resource::Copies => formula!("{} copies, each on another host", copies),
        };
        let mut needs: Vec<Need> = self
            .sizing
            .uses(fleet)
            .into_iter()
            .map(|(resource, share)| Need {
                resource,
                hosts: self.needs_basis(resource).figure(
                    resource.name(),
                    share * fleet.hosts,
                    "hosts",
                    formula(resource),
                ),
            })
            .collect();
        needs.sort_by(|a, b| b.hosts.value.total_cmp(&a.hosts.value));
        needs
    }

    fn batch(&self, name: &str, fleet: &Fleet, rate: f64) -> Figure {
        let state = self.sizing.at(fleet, rate);
        let (rate, pass) = (rate / fleet.engines, fleet.engine.pass_time(state.batch) * 1e3);
        let comes = formula!(
            "{} a second * {} ms a pass over one of {} shards",
            rate,
            pass,
            fleet.resident
        );
        let formula = if state.batch > 1.0 {
            format!("as many as come while so many are computed: {comes}")
        } else {
            format!("one, for less than one comes while it is computed: {comes}")
        };
        self.basis().figure(name, state.batch, "", formula)
    }

    fn capacity(&self, fleet: &Fleet) -> Figure {
        let State { rate, batch, latency } = fleet.capacity;
        let engines = if fleet.engines > 1.0 {
            formula!("{} engines * ", fleet.engines)
        } else {
            String::new()
        };
        self.basis().figure(
            "look-ups a second that a host can do",
            rate,
            A_SECOND,
            format!(
                "{engines}{} a pass / {} ms ({}); the oldest waits {} ms and its pass",
                number(batch),
                number(fleet.engine.pass_time(batch) * 1e3),
                self.cost.how,
                number((latency - fleet.engine.pass_time(batch)) * 1e3)
            ),
        )
    }

    fn costs(&self, basis: &Basis, hosts: f64) -> Vec<Figure> {
        let (host, prices, scenario) = (self.sizing.host, self.prices, self.scenario);
        let currency = &*prices.currency;
        let hourly = |name: &str, key: &str, units: u32, price: f64| {
            basis.and(&Basis::of([format!("prices: hosts.{key}")])).figure(
                name,
                hosts * f64::from(units) * price * MONTH_HOURS,
                currency,
                formula!("{} hosts * {units} * {price} an hour * {MONTH_HOURS} h", hosts),
            )
        };
        let mut costs = vec![hourly("cores", "core_hour", host.cores, host.core_hour)];
        if host.gpus > 0 {
            costs.push(hourly("GPUs", "gpu_hour", host.gpus, host.gpu_hour));
        }
        let egress = scenario.users * self.day.down * MONTH_DAYS / 1e9;
        let egress_basis = Basis::of(["scenario: users, lookups_per_user_day", "shape"])
            .and(&Basis::of(["prices: egress_gb"]));
        costs.push(egress_basis.figure(
            "sent to devices",
            egress * prices.egress_gb,
            currency,
            format!("{} GB a month * {}", number(egress), prices.egress_gb),
        ));
        let copies = f64::from(scenario.replication).max(hosts / self.sizing.shards);
        let stored = self.sizing.shards * copies * self.sizing.disk_a_shard() / 1e9;
        costs.push(basis.and(&Basis::of(["prices: stored_gb_month"])).figure(
            "stored",
            stored * prices.stored_gb_month,
            currency,
            format!("{} GB * {}", number(stored), prices.stored_gb_month),
        ));
        if let Some(build) = self.measured.build(self.sizing.shape) {
            let changed = self.sizing.shards * scenario.changed_share;
            let epochs = MONTH_HOURS / scenario.epoch_hours;
            let hours = changed * build.value / 3600.0 * epochs;
            let keys =
                Basis::of(["scenario: epoch_hours, changed_share", "prices: hosts.core_hour"]);
            costs.push(build.basis.and(&keys).figure(
                "building epochs",
                hours * host.core_hour,
                currency,
                format!(
                    "{} shards * {} core-seconds * {} epochs a month / 3600 * {} an hour",
                    number(changed),
                    number(build.value),
                    number(epochs),
                    host.core_hour
                ),
            ));
        }
        costs
    }

    fn figures(&self, fleet: &Fleet, least: u64) -> Vec<Figure> {
        let peak = self.sizing.at(fleet, fleet.rate);
        let basis = self.basis();
        let mut figures = vec![
            self.batch(
                "queries a pass at the mean rate",
                fleet,
                fleet.rate / self.scenario.peak_over_mean,
            ),
            basis.figure(
                "of what hosts can do, at the peak",
                fleet.rate / fleet.capacity.rate,
                "",
                formula!("{} a second / {}", fleet.rate, fleet.capacity.rate),
            ),
            basis.figure(
                "latency at the peak, about the median",
                peak.latency * 1e3,
                "ms",
                formula!(
                    "{} ms of waiting + {} ms a pass",
                    (peak.latency - fleet.engine.pass_time(peak.batch)) * 1e3,
                    fleet.engine.pass_time(peak.batch) * 1e3
                ),
            ),
            basis.and(&self.reading).figure(
                "a pass over reading its shard once, at the peak",
                fleet.engine.pass_time(peak.batch) / fleet.engine.reading,
                "",
                formula!(
                    "{} ms / {} ms",
                    fleet.engine.pass_time(peak.batch) * 1e3,
                    fleet.engine.reading * 1e3
                ),
            ),
            Basis::of(["scenario: replication, records"]).figure(
                "shards a host",
                fleet.resident,
                "",
                formula!(
                    "{} shards * {} copies / {} hosts",
                    self.sizing.shards,
                    fleet.copies,
                    fleet.hosts
                ),
            ),
            Basis::of(["shape", "scenario: lookups_per_sync"]).figure(
                "bytes a look-up brings to a host",
                fleet.bytes_in,
                "bytes",
                format!(
                    "{} a query + {} a bundle * {} hosts that its {} queries go to / {}",
                    self.sizing.shape.query_bytes,
                    self.sizing.shape.bundle_bytes,
                    number(distinct(self.sizing.queries_a_bundle, fleet.hosts)),
                    number(self.sizing.queries_a_bundle),
                    number(self.sizing.queries_a_bundle)
                ),
            ),
        ];
        if let Some(outside) = &self.outside {
            figures.push(outside.basis.figure(
                "time of a look-up beside its pass",
                fleet.outside * 1e3,
                "core-ms",
                format!("{} * {} bytes in", outside.formula, number(fleet.bytes_in)),
            ));
        }
        figures.extend(self.epochs(fleet));
        figures.extend(self.what_if(least));
        figures
    }

    /// New epochs and hosts that come back.
    fn epochs(&self, fleet: &Fleet) -> Vec<Figure> {
        let (scenario, host, shape) = (self.scenario, self.sizing.host, self.sizing.shape);
        let shard = shape.shard_bytes() as f64;
        let changed = fleet.resident * scenario.changed_share;
        let mut figures = vec![
            Basis::of(["scenario: changed_share", "prices: hosts.network_gbit_per_s", "shape"])
                .figure(
                    "bringing an epoch to a host, its network all for it",
                    changed * shard * 8.0 / (host.network_gbit_per_s * 1e9),
                    "s",
                    format!(
                        "{} shards * {} MB * 8 / {} Gbit a second",
                        number(changed),
                        number(shard / 1e6),
                        host.network_gbit_per_s
                    ),
                ),
        ];
        if let Some(build) = self.measured.build(shape) {
            let all = self.sizing.shards * scenario.changed_share;
            let hours = all * build.value / 3600.0;
            let keys = Basis::of(["scenario: changed_share, epoch_hours"]);
            figures.push(build.basis.and(&keys).figure(
                "building an epoch",
                hours,
                "core-hours",
                format!("{} shards * ({}) / 3600", number(all), build.formula),
            ));
            figures.push(build.basis.and(&keys).figure(
                "cores that build, to be done within an epoch",
                hours / scenario.epoch_hours,
                "",
                format!("{} core-hours / {} h", number(hours), scenario.epoch_hours),
            ));
        }
        if let Some((reload, slowest)) = self.measured.reload(changed) {
            figures.push(reload.basis.figure(
                "taking up an epoch on a host",
                reload.value,
                "s",
                format!(
                    "{}; the slowest look-up meanwhile took {} ms",
                    reload.formula,
                    number(slowest)
                ),
            ));
        }
        if let (Some(first), Some(disk)) = (self.measured.first_answer(), self.measured.disk(shape))
        {
            let resident = fleet.resident * shape.pass_bytes() as f64;
            figures.push(first.basis.and(&disk.basis).figure(
                "a host that starts cold: until all its shards are in memory",
                first.value + resident / disk.value,
                "s",
                format!(
                    "{} until the first answer + {} GB / ({})",
                    first.formula,
                    number(resident / 1e9),
                    disk.formula
                ),
            ));
        }
        figures
    }

    /// Hosts when something is not as assumed.
    fn what_if(&self, least: u64) -> Vec<Figure> {
        let failed = u64::from(self.scenario.failed_hosts);
        let mut figures = Vec::new();
        let mut say = |name: String, sizing: &Sizing, how: String| {
            if let Some(other) = sizing.least() {
                let basis = self.basis();
                let how = format!("{how}; {} as planned", least + failed);
                figures.push(basis.figure(name, (other + failed) as f64, "hosts", how));
            }
        };
        let mut twice = self.sizing.clone();
        twice.peak *= 2.0;
        say("if the peak is twice as high".into(), &twice, "peak_over_mean * 2".into());
        let mut slow = self.sizing.clone();
        slow.engine.cores /= 1.2;
        say("if passes take 20% longer".into(), &slow, "core time * 1.2".into());
        let cores = f64::from(self.sizing.host.cores);
        if let Some(loss) = self.cost.doubling.filter(|_| cores > self.cost.cores) {
            let times = loss.max(1.0).powf((cores / self.cost.cores).log2());
            let mut lossy = self.sizing.clone();
            lossy.engine.cores /= times;
            let how = format!(
                "core time * {} for each doubling from {} to {cores} cores",
                number(loss.max(1.0)),
                self.cost.cores
            );
            say("if each doubling of cores costs what the last did".into(), &lossy, how);
        }
        let mut scenario = self.scenario.clone();
        scenario.latency_ms /= 2.0;
        let hasty = Sizing { scenario: &scenario, ..self.sizing.clone() };
        say("if answers must come in half the time".into(), &hasty, "latency_ms / 2".into());
        let mut scenario = self.scenario.clone();
        scenario.epochs_in_memory = 3.0 - scenario.epochs_in_memory;
        let epochs = Sizing { scenario: &scenario, ..self.sizing.clone() };
        let how = format!("epochs_in_memory = {}", scenario.epochs_in_memory);
        say(format!("if epochs in memory are {}", scenario.epochs_in_memory), &epochs, how);
        let mut starved = self.sizing.clone();
        starved.engine.reading *= 2.0;
        say("if memory gives half the bytes a second".into(), &starved, "reading * 2".into());
        figures
    }

    fn curve(&self, fleet: &Fleet) -> Vec<Point> {
        let point = |at: u32| {
            let utilisation = f64::from(at) / f64::from(POINTS);
            let state = self.sizing.at(fleet, fleet.capacity.rate * utilisation);
            let latency_ms = state.latency * 1e3;
            Point { rate: state.rate, batch: state.batch, latency_ms, utilisation }
        };
        (1..=POINTS).map(point).collect()
    }
}
