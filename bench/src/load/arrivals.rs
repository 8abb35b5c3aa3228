//! When frames are due: an endless list of times, fixed by the seed before anything is sent.

use std::time::Duration;

/// Numbers drawn from a seed: BLAKE3 keyed with it, one stream for each label and number. They can
/// be drawn again, and so never serve as secrets.
pub(crate) struct Draws(blake3::OutputReader);

impl Draws {
    pub(crate) fn new(seed: u64, label: &str, number: u64) -> Self {
        let key = blake3::derive_key("sotto bench load", &seed.to_le_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        Self(hasher.update(&number.to_le_bytes()).update(label.as_bytes()).finalize_xof())
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }

    pub(crate) fn unit(&mut self) -> f64 {
        ((u64::from_le_bytes(self.bytes()) >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Uniform below `count`, but for one part in 2^32.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((u128::from(u64::from_le_bytes(self.bytes())) * count as u128) >> 64) as usize
    }
}

/// How frames arrive.
#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
pub enum Arrivals {
    /// Independent of each other, as those of many users are.
    Poisson,
    /// At equal distances.
    Constant,
}

impl Arrivals {
    /// Times from the start on, never falling, without end: `frames_per_second` on average.
    pub(super) fn times(
        self,
        frames_per_second: f64,
        mut draws: Draws,
    ) -> impl Iterator<Item = Duration> + Send {
        let mut frames = 0.0;
        (0u64..).map(move |number| {
            match self {
                Self::Poisson => frames -= draws.unit().ln(),
                Self::Constant => frames = number as f64,
            }
            Duration::try_from_secs_f64(frames / frames_per_second).unwrap_or(Duration::MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, seed: u64, count: usize) -> Vec<f64> {
        let times = arrivals.times(100.0, Draws::new(seed, "arrivals", 0));
        times.take(count).map(|at| at.as_secs_f64()).collect()
    }

    #[test]
    fn poisson_gaps_spread_as_they_should_and_the_seed_fixes_them() {
        let once = times(Arrivals::Poisson, 1, 50_000);
        assert_eq!(once, times(Arrivals::Poisson, 1, 50_000));
        assert_ne!(once, times(Arrivals::Poisson, 2, 50_000));
        assert!(once.is_sorted());
        let gaps: Vec<f64> = once.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((100.0 * mean - 1.0).abs() < 0.03, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "the deviation is the mean");
        assert_eq!(times(Arrivals::Constant, 1, 4), [0.0, 0.01, 0.02, 0.03]);
        let mut draws = Draws::new(1, "below", 0);
        let mut counts = [0; 3];
        (0..3_000).for_each(|_| counts[draws.below(3)] += 1);
        assert!(counts.iter().all(|&count| count > 900), "{counts:?}");
    }
}
