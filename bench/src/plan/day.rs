//! A day of a device and of the provider: bundles, bytes, epochs.

use super::basis::{Basis, formula};
use super::bundles::{distinct, per_sync};
use super::{Figure, Hints, Scenario};
use crate::record::ShapeFacts;
use sotto::limits::QUERIES_PER_SECRET_MAX;

/// What a device does in a day, with one shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Day {
    pub(super) syncs: f64,
    pub(super) bundles_a_sync: f64,
    pub(super) queries_a_bundle: f64,
    pub(super) up: f64,
    pub(super) down: f64,
    pub(super) hints: f64,
}

impl Day {
    pub(super) fn new(scenario: &Scenario, shape: &ShapeFacts, shards: f64) -> Self {
        let lookups = scenario.lookups_per_user_day;
        let syncs = lookups / scenario.lookups_per_sync;
        let bundles_a_sync = per_sync(scenario.lookups_per_sync, shards);
        let epochs = 24.0 / scenario.epoch_hours;
        let asked = distinct(lookups / epochs, shards);
        let hints = asked * scenario.changed_share * epochs;
        let bundles = syncs * bundles_a_sync * shape.bundle_bytes as f64;
        Self {
            syncs,
            bundles_a_sync,
            queries_a_bundle: scenario.lookups_per_sync / bundles_a_sync,
            up: lookups * shape.query_bytes as f64 + bundles,
            down: lookups * shape.answer_bytes as f64 + hints * shape.hints_bytes as f64,
            hints,
        }
    }

    /// Of one device.
    pub(super) fn device(
        &self,
        scenario: &Scenario,
        shape: &ShapeFacts,
        shards: f64,
    ) -> Vec<Figure> {
        let basis = Basis::of([
            "scenario: lookups_per_user_day, lookups_per_sync",
            "shape: query_bytes, bundle_bytes, answer_bytes, hints_bytes",
        ]);
        let (lookups, sync) = (scenario.lookups_per_user_day, scenario.lookups_per_sync);
        let bundles = self.syncs * self.bundles_a_sync;
        let epochs = 24.0 / scenario.epoch_hours;
        let bytes = |count: f64, each: usize| formula!("{} * {} bytes", count, each as f64);
        let hint_basis = basis.and(&Basis::of(["scenario: epoch_hours, changed_share"]));
        vec![
            basis.figure(
                formula!("key bundles of a sync of {}", sync),
                self.bundles_a_sync,
                "",
                why_so_many(sync, shards, self.bundles_a_sync),
            ),
            basis.figure(
                "bundles a day",
                bundles,
                "",
                formula!("{} look-ups / {} a sync * {}", lookups, sync, self.bundles_a_sync),
            ),
            basis.figure(
                "up a day: queries",
                lookups * shape.query_bytes as f64,
                "bytes",
                bytes(lookups, shape.query_bytes),
            ),
            basis.figure(
                "up a day: bundles",
                bundles * shape.bundle_bytes as f64,
                "bytes",
                bytes(bundles, shape.bundle_bytes),
            ),
            basis.figure(
                "down a day: answers",
                lookups * shape.answer_bytes as f64,
                "bytes",
                bytes(lookups, shape.answer_bytes),
            ),
            hint_basis.figure(
                "down a day: hints",
                self.hints * shape.hints_bytes as f64,
                "bytes",
                formula!(
                    "{} shards asked an epoch * {} of them changed * {} epochs * {} bytes",
                    distinct(lookups / epochs, shards),
                    scenario.changed_share,
                    epochs,
                    shape.hints_bytes as f64
                ),
            ),
        ]
    }

    /// Of all devices together, and the database.
    pub(super) fn provider(
        &self,
        scenario: &Scenario,
        shape: &ShapeFacts,
        shards: f64,
    ) -> Vec<Figure> {
        let basis = Basis::of(["scenario: users, lookups_per_user_day", "shape"]);
        let users = scenario.users;
        let all = |what: &str, of_one: f64| {
            basis.figure(
                format!("{what} a day"),
                users * of_one,
                "bytes",
                formula!("{} devices * {} MB", users, of_one / 1e6),
            )
        };
        let shard = shape.shard_bytes() as f64;
        let records = Basis::of(["scenario: records, records_per_shard", "shape"]);
        let bundles = self.syncs * self.bundles_a_sync;
        let mut figures = vec![
            records.figure(
                "database",
                shards * shard,
                "bytes",
                formula!("{} shards * {} MB", shards, shard / 1e6),
            ),
            basis.figure(
                "bundles a day",
                users * bundles,
                "",
                formula!("{} devices * {}", users, bundles),
            ),
            all("from devices", self.up),
            all("to devices", self.down),
        ];
        if scenario.hints == Hints::FrontEnd {
            let epochs = 24.0 / scenario.epoch_hours;
            let changed = shards * scenario.changed_share;
            figures.push(
                Basis::of(["scenario: front_ends, epoch_hours, changed_share", "shape"]).figure(
                    "hints to front-ends a day",
                    scenario.front_ends * epochs * changed * shape.hints_bytes as f64,
                    "bytes",
                    formula!(
                        "{} front-ends * {} epochs * {} changed shards * {} bytes",
                        scenario.front_ends,
                        epochs,
                        changed,
                        shape.hints_bytes as f64
                    ),
                ),
            );
        }
        figures
    }
}

/// What decides how many key bundles so many look-ups take.
fn why_so_many(lookups: f64, shards: f64, bundles: f64) -> String {
    let most = QUERIES_PER_SECRET_MAX;
    if shards <= 1.0 {
        return formula!(
            "{} look-ups to one shard: the secret of a bundle encrypts one query for a shard, so \
             that each look-up takes a bundle of its own",
            lookups
        );
    }
    if bundles <= (lookups / most as f64).ceil() {
        return formula!("{} look-ups / {most}, the most that one bundle serves", lookups);
    }
    formula!(
        "as many as the look-ups, of {}, that go to the most popular of {} shards: the secret of a \
         bundle encrypts one query for a shard",
        lookups,
        shards
    )
}
