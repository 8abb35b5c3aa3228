//! The walk to the highest rate within the objective: doubling, then bisecting. No IO, no clock.

/// Rates measured after the limit was found, as multiples of it.
pub(crate) const BEYOND: [f64; 2] = [1.2, 2.0];
/// Rates are told apart down to this ratio.
pub(crate) const RESOLUTION: f64 = 1.05;
/// Below this nothing is looked for.
const RATE_MIN: f64 = 0.1;

/// What a run at one rate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Within,
    Beyond,
    Invalid,
}

/// Where the walk ended.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Limit {
    /// Highest rate that was within the objective, in queries a second.
    pub rate: f64,
    /// Whether the next rate failed for the generator's sake: the server may do more.
    pub generator_bound: bool,
}

/// Walks from `rate` on; `try_rate` runs one and says how it went. None when no rate is within.
pub(super) async fn find<E>(
    mut rate: f64,
    mut try_rate: impl AsyncFnMut(f64) -> Result<Verdict, E>,
) -> Result<Option<Limit>, E> {
    let mut within = None;
    let mut beyond = None;
    while rate >= RATE_MIN {
        let mut verdict = try_rate(rate).await?;
        if verdict == Verdict::Invalid {
            // Once may be a moment of the machine's.
            verdict = try_rate(rate).await?;
        }
        match verdict {
            Verdict::Within => within = Some(rate),
            other => beyond = Some((rate, other == Verdict::Invalid)),
        }
        rate = match (within, beyond) {
            (None, _) => rate / 2.0,
            (Some(low), None) => 2.0 * low,
            (Some(low), Some((high, generator_bound))) => {
                if high / low <= RESOLUTION {
                    return Ok(Some(Limit { rate: low, generator_bound }));
                }
                (low * high).sqrt()
            }
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn walk(start: f64, judge: impl Fn(f64) -> Verdict) -> (Option<Limit>, Vec<f64>) {
        let mut tried = Vec::new();
        let found = find(start, async |rate| {
            tried.push(rate);
            Ok::<_, ()>(judge(rate))
        });
        let found = found.await.unwrap();
        (found, tried)
    }

    #[tokio::test]
    async fn the_limit_is_found_from_below_and_from_above() {
        for start in [1.0, 300.0, 313.0, 5_000.0] {
            let judge = |rate| if rate <= 313.0 { Verdict::Within } else { Verdict::Beyond };
            let (limit, tried) = walk(start, judge).await;
            let Limit { rate, generator_bound } = limit.unwrap();
            assert!(rate <= 313.0 && rate * RESOLUTION >= 313.0, "{start}: {rate}");
            assert!(!generator_bound && tried.len() < 17, "{tried:?}");
        }
    }

    #[tokio::test]
    async fn a_generator_at_its_end_is_said_and_a_dead_server_ends_the_walk() {
        let judge = |rate| if rate < 100.0 { Verdict::Within } else { Verdict::Invalid };
        assert!(walk(10.0, judge).await.0.unwrap().generator_bound);
        // What failed once for the generator's sake is tried again.
        let failed = std::cell::Cell::new(0);
        let judge = |rate| match rate {
            40.0 if failed.replace(failed.get() + 1) == 0 => Verdict::Invalid,
            rate if rate <= 100.0 => Verdict::Within,
            _ => Verdict::Beyond,
        };
        let (limit, _) = walk(10.0, judge).await;
        assert!(limit.unwrap().rate > 90.0 && !limit.unwrap().generator_bound);
        let (limit, tried) = walk(10.0, |_| Verdict::Beyond).await;
        assert!(limit.is_none() && tried.len() < 10);
    }
}
