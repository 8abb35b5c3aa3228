//! What a command found, as JSON and as a table for people.

#![allow(missing_docs, reason = "bench/README.md says what each field is; a test compares")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::ledger::{
    Counts, GOOD_SHARE_MIN, Intervals, LATE_SHARE_MAX, Measure, SILENT_SHARE_MAX, Window,
};
use super::search::{Limit, Verdict};
use crate::record::{Head, ShapeFacts};
use sotto::wire::PublicParameters;

/// Name and version of the JSON's form.
pub const SCHEMA: &str = "sotto-bench-load/2";

/// Everything a command found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    #[serde(flatten)]
    pub head: Head,
    pub seed: u64,
    pub server: ServerFacts,
    pub objective_ms: f64,
    pub trials: Vec<Trial>,
    pub limit: Option<Limit>,
}

/// The server's public parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    pub epoch: u64,
    pub shards: u32,
    #[serde(flatten)]
    pub shape: ShapeFacts,
}

impl ServerFacts {
    pub(super) fn of(parameters: &PublicParameters) -> Self {
        let shape = ShapeFacts::of(parameters.shape());
        Self { epoch: parameters.epoch(), shards: parameters.shard_count(), shape }
    }
}

/// Quantiles of a latency, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let max = histogram.max() as f64 / 1e3;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max }
    }
}

/// One window of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub begin_s: f64,
    pub planned: u64,
    pub answered: u64,
    pub good: u64,
    pub came: u64,
    pub late: u64,
    pub lag_max_ms: f64,
    pub latency_ms: Quantiles,
    pub from_send_ms: Quantiles,
}

/// One run at one rate.
#[derive(Debug, Serialize, Deserialize)]
pub struct Trial {
    pub rate: f64,
    pub invalid: Option<String>,
    pub within: bool,
    pub ended: String,
    pub seconds: f64,
    pub planned: u64,
    pub throughput: f64,
    pub goodput: f64,
    pub latency_ms: Quantiles,
    pub from_send_ms: Quantiles,
    pub intervals: Intervals,
    pub errors: BTreeMap<String, u64>,
    pub late_share: f64,
    pub lag_max_ms: f64,
    pub verified: Counts,
    pub prepared: Prepared,
    pub server: Option<ServerSide>,
    pub windows: Vec<Row>,
}

/// What a server's own metrics say of the time that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ServerSide {
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub answers: u64,
    pub passes: u64,
    pub batch_mean: f64,
    pub queue_ms: f64,
    pub scan_ms: f64,
    pub pack_ms: f64,
    pub send_ms: f64,
    pub answer_ms: f64,
    pub resident_memory_bytes: u64,
}

impl ServerSide {
    fn line(&self) -> String {
        let Self { batch_mean, queue_ms, scan_ms, pack_ms, send_ms, answer_ms, .. } = self;
        let cores = self.cpu_seconds / self.seconds.max(f64::MIN_POSITIVE);
        let cpu_ms = self.cpu_seconds * 1e3 / self.answers.max(1) as f64;
        format!(
            "server: {batch_mean:.1} queries a batch; ms a query: {queue_ms:.1} in the queue, \
             {scan_ms:.2} scan, {pack_ms:.2} pack, {send_ms:.2} sending, {answer_ms:.1} in all; \
             processor {cpu_ms:.2} ms an answer, {cores:.2} cores; {} MiB",
            self.resident_memory_bytes >> 20
        )
    }
}

/// What was made before a run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Prepared {
    pub queries: u64,
    pub bytes: u64,
    pub seconds: f64,
}

pub(super) struct TrialEnd {
    pub(super) ended: &'static str,
    pub(super) prepared: Prepared,
    pub(super) verified: Counts,
    pub(super) server: Option<ServerSide>,
}

impl Trial {
    pub(super) fn new(rate: f64, measure: Measure, windows: &[Window], end: TrialEnd) -> Self {
        let mut all = Window::new();
        for window in windows {
            all.add(window);
        }
        let seconds = windows.len() as f64 * measure.window.as_secs_f64();
        let per_second = |count: u64| count as f64 / seconds.max(f64::MIN_POSITIVE);
        let late_share = all.late as f64 / all.planned.max(1) as f64;
        let good_share = all.good as f64 / all.planned.max(1) as f64;
        let lag_max_ms = all.lag_max.as_secs_f64() * 1e3;
        Self {
            rate,
            invalid: invalid(&all, measure, late_share),
            within: good_share >= GOOD_SHARE_MIN,
            ended: end.ended.into(),
            seconds,
            planned: all.planned,
            throughput: per_second(all.came),
            goodput: per_second(all.came_good),
            latency_ms: Quantiles::of(&all.latency),
            from_send_ms: Quantiles::of(&all.from_send),
            intervals: Intervals::of(&windows.iter().collect::<Vec<_>>()),
            errors: all.errors,
            late_share,
            lag_max_ms,
            verified: end.verified,
            prepared: end.prepared,
            server: end.server,
            windows: windows.iter().enumerate().map(|(at, w)| row(at, w, measure)).collect(),
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        match (&self.invalid, self.within) {
            (Some(_), _) => Verdict::Invalid,
            (None, true) => Verdict::Within,
            (None, false) => Verdict::Beyond,
        }
    }

    /// For a person, as soon as it is over.
    pub fn line(&self) -> String {
        let Self { rate, throughput, goodput, latency_ms, from_send_ms, .. } = self;
        let errors = self.errors.values().sum::<u64>() as f64 / self.planned.max(1) as f64;
        let share = |share: Option<f64>| match share {
            Some(share) => format!("{:.1}%", share * 1e2),
            None => "?".into(),
        };
        let mut line = format!(
            "{rate:>8.1} {throughput:>10.1} {goodput:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} \
             {:>6.2}% {:>6.2}% {:>6} {:>6}  {}: {}",
            latency_ms.p50,
            latency_ms.p99,
            latency_ms.p999,
            latency_ms.max,
            from_send_ms.p99,
            errors * 1e2,
            self.late_share * 1e2,
            share(self.intervals.p99),
            share(self.intervals.throughput),
            match (&self.invalid, self.within) {
                (Some(_), _) => "INVALID",
                (None, true) => "within",
                (None, false) => "beyond",
            },
            self.ended,
        );
        if let Some(reason) = &self.invalid {
            let _ = write!(line, "\n         INVALID: {reason}");
        }
        for (class, count) in &self.errors {
            let _ = write!(line, "\n         {count} x {class}");
        }
        if self.verified.wrong > 0 {
            let _ = write!(line, "\n         {} WRONG ANSWERS", self.verified.wrong);
        }
        if let Some(server) = &self.server {
            let _ = write!(line, "\n         {}", server.line());
        }
        line
    }
}

/// What stands above the lines of [`Trial::line`].
pub const HEADING: &str = "     offered   answered     good      p50      p99    p99.9      max \
     sent99 errors   late ci p99 ci thr\n     per s      per s    per s       ms       ms       \
     ms       ms       ms      %      %    +-     +-";

fn invalid(all: &Window, measure: Measure, late_share: f64) -> Option<String> {
    if all.planned == 0 {
        return Some("no query was planned in the time measured: give it more time".into());
    }
    let silent_share = all.silent() as f64 / all.planned as f64;
    if silent_share > SILENT_SHARE_MAX {
        return Some(format!(
            "of {:.1}% of the queries the server said nothing (at most {:.0}% may be so): it died, \
             or cannot be reached. Latencies are those of the others",
            silent_share * 1e2,
            SILENT_SHARE_MAX * 1e2,
        ));
    }
    (late_share > LATE_SHARE_MAX).then(|| {
        format!(
            "{:.1}% of the queries were sent more than {:?} after their time (at most {:.0}% may), \
             {:.1} ms at worst: the generator does not keep up. Give it processors of its own \
             (--cpus), or, where queries were not prepared in time, more memory (--memory)",
            late_share * 1e2,
            measure.lag_max,
            LATE_SHARE_MAX * 1e2,
            all.lag_max.as_secs_f64() * 1e3,
        )
    })
}

fn row(at: usize, window: &Window, measure: Measure) -> Row {
    Row {
        begin_s: at as f64 * measure.window.as_secs_f64(),
        planned: window.planned,
        answered: window.latency.len(),
        good: window.good,
        came: window.came,
        late: window.late,
        lag_max_ms: window.lag_max.as_secs_f64() * 1e3,
        latency_ms: Quantiles::of(&window.latency),
        from_send_ms: Quantiles::of(&window.from_send),
    }
}

impl Report {
    /// Whether nothing is wrong: every run valid, no wrong answer.
    pub fn is_sound(&self) -> bool {
        self.trials.iter().all(|trial| trial.invalid.is_none() && trial.verified.wrong == 0)
    }

    /// As JSON.
    pub fn write_json(&self, mut out: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        writeln!(out)
    }
}
