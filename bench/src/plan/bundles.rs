//! Key bundles: how many a device makes, and how many hosts each goes to.

use sotto::limits::QUERIES_PER_SECRET_MAX;

/// Shards that at least one of `lookups` goes to, of so many that are equally popular: the mean.
pub(super) fn distinct(lookups: f64, shards: f64) -> f64 {
    shards * -(lookups * (-1.0 / shards).ln_1p()).exp_m1()
}

/// Most look-ups that one shard gets of so many: about the mean.
///
/// Shards with at least i of them are `S P(X >= i)`, X binomial; where that is less than one it is
/// about the chance that there is such a shard, so the sum of the smaller of both over i is the
/// mean of the most.
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

/// Secrets, and so bundles, for so many look-ups made at once over so many shards: each serves
/// at most 16 distinct shards, and the i-th query to one shard uses another secret than those
/// before it. Whatever is more: all of them over 16, or as many as one shard gets.
pub(super) fn per_sync(lookups: f64, shards: f64) -> f64 {
    let full = (lookups / QUERIES_PER_SECRET_MAX as f64).ceil();
    full.max(most_to_one(lookups, shards))
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
    fn as_many_as_the_pool_draws() {
        let mut state = 7u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        for lookups in [1, 16, 50, 256, 500] {
            for shards in [1, 2, 10, 30, 64, 300, 10_000] {
                let runs = 200;
                let drawn: usize = (0..runs).map(|_| drawn(lookups, shards, &mut random)).sum();
                let drawn = drawn as f64 / f64::from(runs);
                let said = per_sync(lookups as f64, shards as f64);
                let off = said / drawn - 1.0;
                println!("{lookups} over {shards}: {said:.1}, drawn {drawn:.1}");
                assert!(off.abs() < 0.12, "{lookups} over {shards}: {said}, drawn {drawn}");
            }
        }
    }

    #[test]
    fn more_shards_never_take_more_bundles() {
        for lookups in [1.0, 20.0, 500.0, 5_000.0] {
            let mut before = f64::INFINITY;
            for shards in [1.0, 2.0, 3.0, 10.0, 100.0, 1_000.0, 65_000.0] {
                let bundles = per_sync(lookups, shards);
                assert!(bundles <= before && bundles >= (lookups / 16.0), "{lookups} {shards}");
                before = bundles;
            }
        }
    }
}
