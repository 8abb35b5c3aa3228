//! Front-ends: they take in a device's query, send it on, get all packs of the answer back, and
//! return one of them with its hint. What they compute is mostly encryption (TLS, HPKE, QUIC), so
//! that their cores are counted by bytes, at a rate that the scenario states until one is measured.

use super::figure::{Basis, Figure, formula};
use super::outcome::FrontEndPlan;
use super::scenario::{Asks, MONTH_HOURS};
use super::sizing::{Fleet, Hosts};

/// Bytes of a look-up at a front-end.
struct Moved {
    from_device: f64,
    to_device: f64,
    to_servers: f64,
    from_servers: f64,
    basis: Basis,
}

impl Moved {
    fn taken(&self) -> f64 {
        self.from_device + self.from_servers
    }

    fn sent(&self) -> f64 {
        self.to_device + self.to_servers
    }

    fn figures(&self) -> Vec<Figure> {
        let figure = |name: &str, value, how: &str| {
            self.basis.figure(format!("a look-up: {name}"), value, "bytes", how)
        };
        let bundles = "a query, and its part of key bundles, one for each host that they go to";
        vec![
            figure("from the device", self.from_device, "a query, and its part of key bundles"),
            figure("to the device", self.to_device, "one pack of the answer, and of hints"),
            figure("to the servers", self.to_servers, bundles),
            figure("from the servers", self.from_servers, "all packs, and its part of all hints"),
        ]
    }
}

impl Hosts<'_> {
    /// For the look-ups that these hosts answer; none where devices ask the hosts themselves.
    pub(super) fn front_ends(&self, fleet: &Fleet) -> Option<FrontEndPlan> {
        let scenario = self.scenario;
        if scenario.asks == Asks::Device {
            return None;
        }
        let keys = ["scenario: lookups_per_user_day, lookups_per_sync, asks, front_ends", "shape"];
        let moved = Moved {
            from_device: self.day.up / scenario.lookups_per_user_day,
            to_device: self.day.down / scenario.lookups_per_user_day,
            to_servers: fleet.bytes_in,
            from_servers: fleet.bytes_out,
            basis: self.basis().with(keys),
        };
        let mut figures = moved.figures();
        let [arithmetic, network] = self.front_end_needs(&moved, &mut figures);
        let binds = if network.value > arithmetic.value { &network } else { &arithmetic };
        let (least, failed) = (binds.value.ceil(), f64::from(scenario.failed_hosts));
        let hosts = Basis::of_figure(binds).with(["scenario: failed_hosts"]).figure(
            "hosts",
            least + failed,
            "",
            formula!("{} + {} in reserve, for those that may fail", least, failed),
        );
        figures.extend([arithmetic, network]);
        let costs = self.front_end_costs(&moved, &hosts, &mut figures);
        let sum = formula!("{} of hosts + {} of bytes", costs[0].value, costs[1].value);
        let both = Basis::of_figure(&costs[0]).and(&Basis::of_figure(&costs[1]));
        let total = costs[0].value + costs[1].value;
        let cost_month = both.figure("cost a month", total, &self.prices.currency, sum);
        figures.extend(costs);
        let host = self.front_end_host.name.clone();
        Some(FrontEndPlan { host, hosts, cost_month, figures })
    }

    /// Hosts that cores alone and the network alone would take; before, the time of a look-up.
    fn front_end_needs(&self, moved: &Moved, figures: &mut Vec<Figure>) -> [Figure; 2] {
        let (host, most) = (self.front_end_host, self.scenario.utilisation_max);
        let (rate, cores) = (self.scenario.front_end_mb_per_core_s, f64::from(host.cores));
        let all = moved.taken() + moved.sent();
        let by_cores = moved.basis.with(["scenario: front_end_mb_per_core_s"]).guess(
            "the bytes that a core of a front-end takes in and sends in a second (TLS, HPKE, QUIC) \
             are assumed, not measured",
        );
        figures.push(by_cores.figure(
            "time of a look-up",
            all / (rate * 1e3),
            "core-ms",
            formula!("{} bytes in and out / {} MB a second of a core", all, rate),
        ));
        let way = moved.taken().max(moved.sent());
        let gbit = host.network_gbit_per_s;
        [
            by_cores.with(["scenario: utilisation_max", "prices: hosts.cores"]).figure(
                "arithmetic",
                self.peak * all / (rate * 1e6) / cores / most,
                "hosts",
                formula!(
                    "{} a second at the peak * {} bytes / {} MB a second / {} cores / {}",
                    self.peak,
                    all,
                    rate,
                    cores,
                    most
                ),
            ),
            moved
                .basis
                .with(["scenario: utilisation_max", "prices: hosts.network_gbit_per_s"])
                .figure(
                    "network",
                    self.peak * way * 8.0 / (gbit * 1e9) / most,
                    "hosts",
                    formula!(
                        "{} a second at the peak * 8 * {} bytes / {} Gbit a second / {}",
                        self.peak,
                        way,
                        gbit,
                        most
                    ),
                ),
        ]
    }

    /// Of hosts and of the bytes between them and servers; before, these bytes.
    fn front_end_costs(
        &self,
        moved: &Moved,
        hosts: &Figure,
        figures: &mut Vec<Figure>,
    ) -> [Figure; 2] {
        let (host, prices) = (self.front_end_host, self.prices);
        let lookups = self.scenario.month_lookups();
        let between = (moved.to_servers + moved.from_servers) * lookups;
        let of_bytes = moved.basis.with(["scenario: users"]);
        figures.push(of_bytes.figure(
            "between front-ends and servers a month",
            between,
            "bytes",
            formula!(
                "{} million look-ups * ({} + {}) bytes",
                lookups / 1e6,
                moved.to_servers,
                moved.from_servers
            ),
        ));
        let currency = &*prices.currency;
        [
            Basis::of_figure(hosts).with(["prices: hosts.core_hour"]).figure(
                "hosts a month",
                hosts.value * f64::from(host.cores) * host.core_hour * MONTH_HOURS,
                currency,
                formula!(
                    "{} hosts * {} cores * {} an hour * {MONTH_HOURS} h",
                    hosts.value,
                    f64::from(host.cores),
                    host.core_hour
                ),
            ),
            of_bytes.with(["prices: inside_gb"]).figure(
                "bytes between a month",
                between / 1e9 * prices.inside_gb,
                currency,
                formula!("{} GB * {}", between / 1e9, prices.inside_gb),
            ),
        ]
    }
}
