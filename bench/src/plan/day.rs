//! A day of a device and of the provider: key bundles, bytes, epochs.

use sotto::limits::QUERIES_PER_SECRET_MAX;

use super::figure::{Basis, Figure, formula};
use super::scenario::{Asks, Scenario};
use crate::record::ShapeFacts;

/// Mean number of shards that at least one of `lookups` goes to, of so many equally popular ones.
pub(super) fn distinct(lookups: f64, shards: f64) -> f64 {
    shards * -(lookups * (-1.0 / shards).ln_1p()).exp_m1()
}

/// About the mean of the most look-ups that one shard gets of so many.
///
/// The mean number of shards with at least i of them is `S P(X >= i)`, X binomial; where that is
/// less than one it is about the chance that there is such a shard. So the sum of the smaller of
/// both over i is the mean of the most.
fn most_to_one(lookups: f64, shards: f64) -> f64 {
    if shards <= 1.0 {
        return lookups;
    }
    let (trials, odds) = (lookups.round(), -(shards - 1.0).ln());
    // Logarithms: with many look-ups over few shards the first terms are smaller than any number.
    let mut ln_term = trials * (-1.0 / shards).ln_1p();
    let (mut below, mut most) = (0.0, 0.0);
    for i in 0..trials as u64 {
        below += ln_term.exp();
        let at_least = shards * (1.0 - below).max(0.0);
        if i as f64 > trials / shards && at_least < 1e-9 {
            break;
        }
        most += at_least.min(1.0);
        let i = i as f64;
        ln_term += ((trials - i) / (i + 1.0)).ln() + odds;
    }
    most.max(1.0)
}

/// Bundles for so many look-ups made at once: a secret encrypts at most 16 queries, and one for
/// each shard. So it takes all of them over 16, or as many as one shard gets, whichever is more.
fn per_sync(lookups: f64, shards: f64) -> f64 {
    let full = (lookups / QUERIES_PER_SECRET_MAX as f64).ceil();
    full.max(most_to_one(lookups, shards))
}

/// What a device does in a day, with one shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Day {
    bundles: f64,
    bundles_a_sync: f64,
    pub(super) queries_a_bundle: f64,
    pub(super) up: f64,
    pub(super) down: f64,
    /// Hints fetched: of shards, or of single packs from a front-end.
    pub(super) hints: f64,
    /// Bytes of one of them, and of an answer: of all packs, or of one from a front-end.
    pub(super) hint_bytes: f64,
    answer_bytes: f64,
}

impl Day {
    pub(super) fn new(scenario: &Scenario, shape: &ShapeFacts, shards: f64) -> Self {
        let lookups = scenario.lookups_per_user_day;
        let bundles_a_sync = per_sync(scenario.lookups_per_sync, shards);
        let bundles = lookups / scenario.lookups_per_sync * bundles_a_sync;
        let epochs = 24.0 / scenario.epoch_hours;
        // Of what a device gets, a shard has so many parts.
        let parts = match scenario.asks {
            Asks::FrontEnd => f64::from(shape.packs),
            Asks::Device => 1.0,
        };
        let hints = distinct(lookups / epochs, shards * parts) * scenario.changed_share * epochs;
        let (hint_bytes, answer_bytes) =
            (shape.hints_bytes as f64 / parts, shape.answer_bytes as f64 / parts);
        Self {
            bundles,
            bundles_a_sync,
            queries_a_bundle: scenario.lookups_per_sync / bundles_a_sync,
            up: lookups * shape.query_bytes as f64 + bundles * shape.bundle_bytes as f64,
            down: lookups * answer_bytes + hints * hint_bytes,
            hints,
            hint_bytes,
            answer_bytes,
        }
    }

    pub(super) fn device(
        &self,
        scenario: &Scenario,
        shape: &ShapeFacts,
        shards: f64,
    ) -> Vec<Figure> {
        let basis = Basis::of([
            "scenario: lookups_per_user_day, lookups_per_sync, asks",
            "shape: query_bytes, bundle_bytes, answer_bytes, hints_bytes",
        ]);
        let (lookups, sync) = (scenario.lookups_per_user_day, scenario.lookups_per_sync);
        let epochs = 24.0 / scenario.epoch_hours;
        let bytes = |name, count: f64, each: f64| {
            basis.figure(name, count * each, "bytes", formula!("{} * {} bytes", count, each))
        };
        let name = formula!("key bundles of a sync of {}", sync);
        let (what, parts) = match scenario.asks {
            Asks::FrontEnd => ("packs", shards * f64::from(shape.packs)),
            Asks::Device => ("shards", shards),
        };
        let why = why_so_many(sync, shards, self.bundles_a_sync);
        vec![
            basis.figure(name, self.bundles_a_sync, "", why),
            basis.figure(
                "bundles a day",
                self.bundles,
                "",
                formula!("{} look-ups / {} a sync * {}", lookups, sync, self.bundles_a_sync),
            ),
            bytes("up a day: queries", lookups, shape.query_bytes as f64),
            bytes("up a day: bundles", self.bundles, shape.bundle_bytes as f64),
            bytes("down a day: answers", lookups, self.answer_bytes),
            basis.with(["scenario: epoch_hours, changed_share"]).figure(
                "down a day: hints",
                self.hints * self.hint_bytes,
                "bytes",
                formula!(
                    "{} {what} asked an epoch * {} of them changed * {} epochs * {} bytes",
                    distinct(lookups / epochs, parts),
                    scenario.changed_share,
                    epochs,
                    self.hint_bytes
                ),
            ),
        ]
    }

    /// Figures of all devices together, and of the database.
    pub(super) fn provider(
        &self,
        scenario: &Scenario,
        shape: &ShapeFacts,
        shards: f64,
    ) -> Vec<Figure> {
        let basis = Basis::of(["scenario: users, lookups_per_user_day", "shape"]);
        let users = scenario.users;
        let all = |name, of_one: f64| {
            let formula = formula!("{} devices * {} MB", users, of_one / 1e6);
            basis.figure(name, users * of_one, "bytes", formula)
        };
        let shard = shape.shard_bytes() as f64;
        let mut figures = vec![
            Basis::of(["scenario: records, records_per_shard", "shape"]).figure(
                "database",
                shards * shard,
                "bytes",
                formula!("{} shards * {} MB", shards, shard / 1e6),
            ),
            basis.figure(
                "bundles a day",
                users * self.bundles,
                "",
                formula!("{} devices * {}", users, self.bundles),
            ),
            all("from devices a day", self.up),
            all("to devices a day", self.down),
        ];
        if scenario.asks == Asks::FrontEnd {
            let epochs = 24.0 / scenario.epoch_hours;
            let changed = shards * scenario.changed_share;
            let hint = shape.hints_bytes as f64;
            let keys = ["scenario: front_ends, epoch_hours, changed_share", "shape"];
            figures.push(Basis::of(keys).figure(
                "hints to front-ends a day",
                scenario.front_ends * epochs * changed * hint,
                "bytes",
                formula!(
                    "{} front-ends * {} epochs * {} changed shards * {} bytes",
                    scenario.front_ends,
                    epochs,
                    changed,
                    hint
                ),
            ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_design() {
        assert_eq!(per_sync(500.0, 10_000.0), 32.0);
        assert_eq!(per_sync(500.0, 1.0), 500.0);
        assert_eq!(per_sync(1.0, 10_000.0), 1.0);
        assert!((per_sync(16.0, 1e9) - 1.0).abs() < 1e-6);
        assert_eq!(distinct(1.0, 7.0), 1.0);
        assert!((distinct(500.0, 10_000.0) - 487.73).abs() < 0.01);
        assert!((distinct(1e6, 10.0) - 10.0).abs() < 1e-9);
    }

    /// The rule of [`sotto::scheme::SecretPool`]: the first secret that has not seen the shard and
    /// is not full.
    fn drawn(lookups: usize, shards: u64, random: &mut impl FnMut() -> u64) -> usize {
        let mut secrets: Vec<Vec<u64>> = Vec::new();
        for _ in 0..lookups {
            let shard = random() % shards;
            let fits = |seen: &&mut Vec<u64>| {
                seen.len() < QUERIES_PER_SECRET_MAX && !seen.contains(&shard)
            };
            match secrets.iter_mut().find(fits) {
                Some(seen) => seen.push(shard),
                None => secrets.push(vec![shard]),
            }
        }
        secrets.len()
    }

    #[test]
    fn bundles_are_as_many_as_the_pool_draws_and_no_more_for_more_shards() {
        let mut state = 7u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        for lookups in [1, 16, 50, 256, 500] {
            let mut before = f64::INFINITY;
            for shards in [1, 2, 10, 30, 64, 300, 10_000] {
                let drawn: usize = (0..200).map(|_| drawn(lookups, shards, &mut random)).sum();
                let drawn = drawn as f64 / 200.0;
                let said = per_sync(lookups as f64, shards as f64);
                let off = said / drawn - 1.0;
                assert!(off.abs() < 0.12, "{lookups} over {shards}: {said}, drawn {drawn}");
                assert!(said <= before, "{lookups} over {shards}");
                before = said;
            }
        }
    }
}
