//! What the load generator is to do, as the command line says it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::arrivals::Arrivals;
use crate::Failed;
use crate::endpoint::Endpoint;
use sotto::limits;

/// How queries are sent and measured.
#[derive(clap::Args, Debug, Clone)]
pub struct LoadOptions {
    /// How frames arrive: independently of each other, as from many users, or at equal distances.
    #[arg(long, value_name = "KIND", value_enum, default_value = "poisson")]
    pub arrivals: Arrivals,
    /// Fixes arrivals, shards and keys, never secrets; the time in seconds when absent.
    #[arg(long, value_name = "NUMBER", default_value_t = now(), hide_default_value = true)]
    pub seed: u64,
    /// Connections, each from a socket of its own.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub front_ends: usize,
    /// Queries a frame.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch: usize,
    /// Records of the database (the builder's input) to ask for; random keys that are not there
    /// when absent.
    #[arg(long, value_name = "FILE")]
    pub records: Option<PathBuf>,
    /// Share of the answers that are decoded and compared: `all`, or 0 to 1.
    #[arg(long, value_name = "SHARE", default_value = "0.05", value_parser = share)]
    pub verify: f64,
    /// The objective: 99% of the queries are to be answered within this.
    #[arg(long = "slo-p99", value_name = "TIME", default_value = "500ms", value_parser = time)]
    pub objective: Duration,
    /// Time at the beginning of a run that does not count.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub warm_up: Duration,
    /// Windows a run is cut into: it ends when over five or more of them the 95% confidence
    /// intervals of p99 and throughput are under 5%.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub window: Duration,
    /// Longest time a run is measured for.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub time: Duration,
    /// A query sent later than this after its time is late; a run with more than 1% is invalid.
    #[arg(long = "lag", value_name = "TIME", default_value = "5ms", value_parser = time)]
    pub lag_max: Duration,
    /// Memory for queries made and not yet answered.
    #[arg(long = "memory", value_name = "MIB", default_value = "1024", value_parser = mib)]
    pub memory_bytes: u64,
    /// Where the server says its metrics, such as http://127.0.0.1:9464/metrics: batch sizes, times
    /// and processor time of the time that is measured.
    #[arg(long, value_name = "URL", value_parser = Endpoint::parse)]
    pub metrics: Option<Endpoint>,
}

/// What is asked of a command; rates are in queries a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// One run at this rate.
    Rate(f64),
    /// The highest rate within the objective, looked for from this one on.
    Limit(f64),
}

impl Goal {
    /// The first rate that is tried.
    pub fn rate(self) -> f64 {
        let (Self::Rate(rate) | Self::Limit(rate)) = self;
        rate
    }
}

impl Default for LoadOptions {
    /// What an empty command line means.
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Empty {
            #[command(flatten)]
            options: LoadOptions,
        }
        <Empty as clap::Parser>::parse_from([""]).options
    }
}

impl LoadOptions {
    pub(super) fn check(&self, goal: Goal) -> Result<(), Failed> {
        let bounds = [
            ("rate", goal.rate(), 0.1, 1e7),
            ("front-ends", self.front_ends as f64, 1.0, limits::CONNECTIONS_MAX as f64),
            ("batch", self.batch as f64, 1.0, limits::QUERIES_PER_FRAME_MAX.into()),
            ("verify", self.verify, 0.0, 1.0),
            ("window, in seconds", self.window.as_secs_f64(), 0.05, 3600.0),
            ("warm-up, in seconds", self.warm_up.as_secs_f64(), 0.0, 3600.0),
            ("time, in seconds", self.time.as_secs_f64(), 0.05, 86_400.0),
        ];
        let wrong = bounds.iter().find(|(_, found, least, most)| !(least..=most).contains(&found));
        wrong.map_or(Ok(()), |(what, found, least, most)| {
            Err(format!("{what}: found {found}, expected {least} to {most}").into())
        })
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `500ms` or `2s`.
fn time(text: &str) -> Result<Duration, String> {
    let (number, scale) = match text.strip_suffix("ms") {
        Some(number) => (Some(number), 1e-3),
        None => (text.strip_suffix('s'), 1.0),
    };
    let seconds = number.and_then(|number| number.parse::<f64>().ok());
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds * scale).ok());
    time.ok_or_else(|| format!("found {text:?}, expected a time such as 500ms or 2.5s"))
}

/// `all`, or a share such as `5%` or `0.05`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 1e-2));
    let share = match text {
        "all" => Some(1.0),
        _ => number.parse::<f64>().ok().map(|number| number * scale),
    };
    let share = share.filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("found {text:?}, expected `all`, or a share such as 5% or 0.05"))
}

/// From MiB, 16 TiB at most.
fn mib(text: &str) -> Result<u64, String> {
    let found = text.parse().ok().filter(|mib| (1..=1 << 24).contains(mib));
    let bytes = found.map(|mib: u64| mib << 20);
    bytes.ok_or_else(|| format!("found {text:?}, expected 1 to {} MiB", 1 << 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_mistakes_are_said() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2.5s"), Ok(Duration::from_millis(2_500)));
        for wrong in ["", "5", "ms", "-1s", "1m", "infs", "NaNms"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        let shares = [("all", 1.0), ("0.25", 0.25), ("3%", 0.03), ("0", 0.0)];
        assert!(shares.iter().all(|(text, expected)| share(text) == Ok(*expected)));
        for wrong in ["", "%", "-1%", "101%", "NaN", "3 %", "2", "some"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        assert!(mib("0").is_err() && mib("16777217").is_err());
        assert_eq!(LoadOptions::default().memory_bytes, limits::LOAD_BYTES);
    }
}
