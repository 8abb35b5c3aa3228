//! When frames are due: an endless list of times, fixed by the seed before anything is sent.
//!
//! Nothing here knows how the server does: that is what makes a run open loop. Next:
//! [`super::run`].

use std::iter;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sotto::limits;

/// Numbers drawn from a seed: BLAKE3 keyed with it, one stream a label and number. Reproducible,
/// and so never for secrets.
pub(super) struct Draws(blake3::OutputReader);

impl Draws {
    pub(super) fn new(seed: u64, label: &str, number: u64) -> Self {
        let key = blake3::derive_key("sotto bench load", &seed.to_le_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        Self(hasher.update(&number.to_le_bytes()).update(label.as_bytes()).finalize_xof())
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }

    /// Uniform in (0, 1].
    pub(super) fn unit(&mut self) -> f64 {
        ((u64::from_le_bytes(self.bytes()) >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Uniform below `count`, but for one part in 2^32.
    pub(super) fn below(&mut self, count: usize) -> usize {
        ((u128::from(u64::from_le_bytes(self.bytes())) * count as u128) >> 64) as usize
    }
}

/// How frames arrive.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrivals {
    /// Independent of each other, as those of many users are.
    Poisson,
    /// At equal distances.
    Constant,
    /// So many at one moment; the moments are a Poisson process.
    Bursts(u32),
    /// As a trace says, again and again; faster or slower where another rate is asked for.
    Trace(Arc<Trace>),
}

impl Arrivals {
    /// `poisson`, `constant`, `bursts:N` or `trace:FILE`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "poisson" => Ok(Self::Poisson),
            None if text == "constant" => Ok(Self::Constant),
            Some(("bursts", n)) => match n.parse() {
                Ok(n) if n > 0 => Ok(Self::Bursts(n)),
                _ => Err(format!("bursts: found {n:?}, expected a number of frames from 1 on")),
            },
            Some(("trace", file)) => Ok(Self::Trace(Arc::new(Trace::read(Path::new(file))?))),
            _ => Err(format!("found {text:?}, expected poisson, constant, bursts:N or trace:FILE")),
        }
    }

    /// The rate they have of themselves, if they do.
    pub fn frames_per_second(&self) -> Option<f64> {
        match self {
            Self::Trace(trace) => Some(trace.frames_per_second()),
            _ => None,
        }
    }

    /// Times from the start on, never falling, without end: `frames_per_second` on average.
    pub(super) fn times(
        &self,
        frames_per_second: f64,
        mut draws: Draws,
    ) -> Box<dyn Iterator<Item = Duration> + Send> {
        let mean = 1.0 / frames_per_second;
        let poisson = move |mean: f64| {
            let mut at = 0.0;
            iter::repeat_with(move || {
                at -= mean * draws.unit().ln();
                at
            })
        };
        let seconds: Box<dyn Iterator<Item = f64> + Send> = match self {
            Self::Poisson => Box::new(poisson(mean)),
            Self::Constant => Box::new((0u64..).map(move |n| n as f64 * mean)),
            &Self::Bursts(n) => {
                let bursts = poisson(mean * f64::from(n));
                Box::new(bursts.flat_map(move |at| iter::repeat_n(at, n as usize)))
            }
            Self::Trace(trace) => {
                let (trace, stretch) = (trace.clone(), trace.frames_per_second() * mean);
                let rounds = (0u64..).flat_map(move |round| {
                    let trace = trace.clone();
                    let begin = round as f64 * trace.seconds;
                    (0..trace.times.len()).map(move |at| begin + trace.times[at])
                });
                Box::new(rounds.map(move |at| at * stretch))
            }
        };
        Box::new(seconds.map(|at| Duration::try_from_secs_f64(at).unwrap_or(Duration::MAX)))
    }
}

/// Times to replay, from a text file: one frame a line, seconds from any start, never falling.
/// Empty lines and lines from `#` on do not count. The first frame comes first again after the
/// last one, at the mean distance.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// From the first frame on.
    times: Vec<f64>,
    seconds: f64,
}

impl Trace {
    fn read(path: &Path) -> Result<Self, String> {
        let wrong = |reason: String| format!("trace {}: {reason}", path.display());
        let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if length > limits::TRACE_BYTES_MAX {
            let most = limits::TRACE_BYTES_MAX;
            return Err(wrong(format!("found {length} bytes, expected at most {most}")));
        }
        let text = sotto::text::read(path).map_err(|error| wrong(error.to_string()))?;
        Self::from_text(&text).map_err(wrong)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let mut times: Vec<f64> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let last = times.last().copied().unwrap_or(0.0);
            match line.parse::<f64>() {
                Ok(at) if at.is_finite() && at >= last => times.push(at),
                _ => {
                    let number = number + 1;
                    return Err(format!(
                        "line {number}: found {line:?}, expected seconds, {last} or later"
                    ));
                }
            }
        }
        let (Some(&first), Some(&last)) = (times.first(), times.last()) else {
            return Err("found no frame, expected at least two".into());
        };
        if last <= first {
            return Err("found no time between first and last frame, expected some".into());
        }
        let seconds = (last - first) * times.len() as f64 / (times.len() - 1) as f64;
        times.iter_mut().for_each(|at| *at -= first);
        Ok(Self { times, seconds })
    }

    /// The rate it was recorded at.
    pub fn frames_per_second(&self) -> f64 {
        self.times.len() as f64 / self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: &Arrivals, rate: f64, seed: u64, count: usize) -> Vec<f64> {
        let times = arrivals.times(rate, Draws::new(seed, "arrivals", 0));
        times.take(count).map(|at| at.as_secs_f64()).collect()
    }

    #[test]
    fn means_are_the_rate_and_times_never_fall() {
        let trace = Trace::from_text("0\n1\n1\n4").unwrap();
        let kinds = [
            Arrivals::Poisson,
            Arrivals::Constant,
            Arrivals::Bursts(8),
            Arrivals::Trace(Arc::new(trace)),
        ];
        for kind in kinds {
            let times = times(&kind, 250.0, 7, 100_000);
            assert!(times.is_sorted(), "{kind:?}");
            let rate = times.len() as f64 / times.last().unwrap();
            // Bursts of 8: 12 500 of them, so 1% is more than one standard deviation.
            assert!((rate / 250.0 - 1.0).abs() < 0.04, "{kind:?}: {rate}");
        }
    }

    #[test]
    fn poisson_gaps_spread_as_they_should_and_the_seed_fixes_them() {
        let of = |seed| times(&Arrivals::Poisson, 100.0, seed, 50_000);
        let once = of(1);
        assert_eq!(once, of(1));
        assert_ne!(once, of(2));
        let gaps: Vec<f64> = once.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "deviation is the mean");
        let constant = times(&Arrivals::Constant, 100.0, 1, 4);
        assert_eq!(constant, [0.0, 0.01, 0.02, 0.03]);
        let bursts = times(&Arrivals::Bursts(3), 100.0, 1, 300);
        assert!(bursts.chunks(3).all(|burst| burst[0] == burst[1] && burst[1] == burst[2]));
    }

    #[test]
    fn a_trace_is_replayed_again_and_again_at_the_rate_asked_for() {
        let trace = Trace::from_text("# recorded\n10.0\n10.5 # two\n10.5\n\n11.5\n").unwrap();
        assert_eq!(trace.frames_per_second(), 2.0);
        let trace = Arrivals::Trace(Arc::new(trace));
        assert_eq!(times(&trace, 2.0, 0, 6), [0.0, 0.5, 0.5, 1.5, 2.0, 2.5]);
        assert_eq!(times(&trace, 4.0, 9, 6), [0.0, 0.25, 0.25, 0.75, 1.0, 1.25]);
        for wrong in ["", "1", "1\n1", "1\n0.5", "one\n2", "-1\n2", "1\nNaN", "1\ninf"] {
            assert!(Trace::from_text(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_are_read() {
        assert_eq!(Arrivals::parse("poisson"), Ok(Arrivals::Poisson));
        assert_eq!(Arrivals::parse("constant"), Ok(Arrivals::Constant));
        assert_eq!(Arrivals::parse("bursts:16"), Ok(Arrivals::Bursts(16)));
        for wrong in ["", "bursts", "bursts:0", "bursts:x", "trace:/nowhere", "poisson:3"] {
            assert!(Arrivals::parse(wrong).is_err(), "{wrong:?}");
        }
        let mut draws = Draws::new(1, "below", 0);
        let mut counts = [0; 3];
        (0..3_000).for_each(|_| counts[draws.below(3)] += 1);
        assert!(counts.iter().all(|&count| count > 900), "{counts:?}");
    }
}
