//! What an epoch takes: building it, and bringing it to hosts through an object store
//! (docs/scale.md).

use sotto::limits::STORE_RANGE_BYTES;

use super::figure::{Basis, Figure, formula};
use super::scenario::MONTH_HOURS;
use super::sizing::{Fleet, Hosts};

impl Hosts<'_> {
    /// Core-hours of building an epoch: all records are located and sorted, and shards that changed
    /// are encoded.
    pub(super) fn build_core_hours(&self) -> Option<Figure> {
        let (build, scenario) = (self.build.as_ref()?, self.scenario);
        let changed = self.shards * scenario.changed_share;
        let shuffled = scenario.records * scenario.shuffle_us_per_record / 1e6;
        let how = &build.formula;
        let keys = ["scenario: records, changed_share, shuffle_us_per_record"];
        let basis = build.basis.with(keys);
        let basis = basis.guess("locating and sorting a record in Spark: docs/scale.md");
        Some(basis.figure(
            "core-hours of building an epoch",
            (changed * build.value + shuffled) / 3600.0,
            "",
            formula!(
                "({} shards * ({how}) + {} records * {} us) / 3600",
                changed,
                scenario.records,
                scenario.shuffle_us_per_record
            ),
        ))
    }

    /// Requests to the object store of an epoch: those that write, and those that read.
    fn store_requests(&self) -> [f64; 2] {
        let changed = self.shards * self.scenario.changed_share;
        let ranges = (self.shape.shard_bytes() as f64 / STORE_RANGE_BYTES as f64).ceil();
        // Manifest and announcement; `finish` reads the header of each shard.
        let copies = f64::from(self.scenario.replication);
        [changed + 2.0, self.shards + changed * copies * ranges]
    }

    pub(super) fn store_cost(&self) -> Figure {
        let (scenario, prices) = (self.scenario, self.prices);
        let [writes, reads] = self.store_requests();
        let epochs = MONTH_HOURS / scenario.epoch_hours;
        let stored = self.shards * self.disk_a_shard() / 1e9;
        let a_thousand =
            writes * prices.store_writes_thousand + reads * prices.store_reads_thousand;
        let keys = [
            "scenario: replication, changed_share, epoch_hours",
            "prices: store_gb_month, store_writes_thousand, store_reads_thousand",
        ];
        Basis::of(keys).figure(
            "object store",
            stored * prices.store_gb_month + epochs * a_thousand / 1e3,
            &prices.currency,
            formula!(
                "{} GB (three epochs) * {} + {} epochs a month * ({} writes * {} + {} reads * {}) \
                 / 1000",
                stored,
                prices.store_gb_month,
                epochs,
                writes,
                prices.store_writes_thousand,
                reads,
                prices.store_reads_thousand
            ),
        )
    }

    /// What comes to hosts from an object store with each epoch, and who builds it.
    pub(super) fn epochs(&self, fleet: &Fleet) -> Vec<Figure> {
        let (scenario, host) = (self.scenario, self.host);
        let fullest = self.fullest(fleet.hosts);
        let placed = Basis::of(["scenario: replication, records"]);
        let [writes, reads] = self.store_requests();
        let requests = Basis::of(["scenario: replication, changed_share", "shape: shard_bytes"]);
        let fetched = fullest * scenario.changed_share * self.shape.shard_bytes() as f64;
        let seconds = fetched * 8.0 / (host.network_gbit_per_s * 1e9);
        let mut figures = vec![
            placed.figure(
                "shards of the fullest host",
                fullest,
                "",
                formula!(
                    "{} shards * {} copies / {} hosts, rounded up, and one",
                    self.shards,
                    f64::from(scenario.replication),
                    fleet.hosts
                ),
            ),
            requests.figure(
                "requests to the object store that write, an epoch",
                writes,
                "",
                formula!("{} shards that changed + 2", self.shards * scenario.changed_share),
            ),
            requests.figure(
                "requests that read, an epoch",
                reads,
                "",
                formula!(
                    "{} headers + {} shards that changed * {} copies * ranges of {} MB",
                    self.shards,
                    self.shards * scenario.changed_share,
                    f64::from(scenario.replication),
                    STORE_RANGE_BYTES as f64 / 1e6
                ),
            ),
            requests.with(["prices: hosts.network_gbit_per_s"]).figure(
                "time in which the fullest host can fetch an epoch",
                seconds,
                "s",
                formula!("8 * {} GB / {} Gbit a second", fetched / 1e9, host.network_gbit_per_s),
            ),
        ];
        if let Some(hours) = self.build_core_hours() {
            let within = scenario.build_within();
            let cores = hours.value / within;
            let basis = Basis::of_figure(&hours).with(["scenario: build_hours", "prices: hosts"]);
            let builds = self.build_host;
            let name = &builds.name;
            figures.push(basis.figure(
                "cores that build, to be done in time",
                cores,
                "",
                formula!("{} core-hours / {} h", hours.value, within),
            ));
            figures.push(basis.figure(
                "hosts that build",
                (cores / f64::from(builds.cores)).ceil(),
                "",
                formula!("{} cores / {} of {name}, rounded up", cores, f64::from(builds.cores)),
            ));
            figures.push(hours);
        }
        figures
    }
}
