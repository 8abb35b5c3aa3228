//! What was planned in one run, what came of it and when, window by window. A query belongs to the
//! window it was planned in, and its latency counts from then: a server that stalls shows in all
//! that was planned meanwhile. Only throughput goes by when answers come.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use sotto::limits;

/// Windows at least before an interval is believed.
pub(super) const WINDOWS_MIN: usize = 5;
/// Half of a 95% confidence interval, as a share of the mean, that ends a run.
pub(super) const INTERVAL_WANTED: f64 = 0.05;
/// Share of queries that may be sent later than the bound before a run is invalid.
pub(super) const LATE_SHARE_MAX: f64 = 0.01;
/// Share of queries that a server may leave without any reply before a run is invalid.
pub(super) const SILENT_SHARE_MAX: f64 = 0.01;
/// How the classes of errors begin where the server is gone or says nothing.
pub(super) const CONNECTION_CLASS: &str = "connection: ";
pub(super) const TIME_OUT_CLASS: &str = "time-out: ";
/// Share of queries that must be answered within the objective: the 99 of a p99.
pub(super) const GOOD_SHARE_MIN: f64 = 0.99;
/// Longest time the histograms tell from others, in microseconds.
const LONGEST_US: u64 = 120_000_000;

#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    pub(super) window: Duration,
    pub(super) warm_up: usize,
    pub(super) objective: Duration,
    /// A frame that begins to be sent later than this after its time is late.
    pub(super) lag_max: Duration,
}

/// What came of the answers that are decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Decoded, and as they must be.
    pub right: u64,
    /// Decoded to something else, or no answers to their queries.
    pub wrong: u64,
    /// Not decoded, because decoding could not keep up.
    pub skipped: u64,
}

/// What became of the queries planned in one window.
pub(super) struct Window {
    pub(super) planned: u64,
    pub(super) good: u64,
    /// Sent too late by the generator, or not at all.
    pub(super) late: u64,
    pub(super) lag_max: Duration,
    /// Microseconds, from the planned time.
    pub(super) latency: Histogram<u64>,
    /// Microseconds, from when the stream was open.
    pub(super) from_send: Histogram<u64>,
    pub(super) errors: BTreeMap<String, u64>,
    /// Answers that came in this window, whenever planned; of those, the good ones.
    pub(super) came: u64,
    pub(super) came_good: u64,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("this is a bug: bounds of a histogram")
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            planned: 0,
            good: 0,
            late: 0,
            lag_max: Duration::ZERO,
            latency: histogram(),
            from_send: histogram(),
            errors: BTreeMap::new(),
            came: 0,
            came_good: 0,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        let add = |to: &mut Histogram<u64>, from: &Histogram<u64>| {
            to.add(from).expect("this is a bug: histograms of one form");
        };
        add(&mut self.latency, &other.latency);
        add(&mut self.from_send, &other.from_send);
        self.planned += other.planned;
        self.good += other.good;
        self.late += other.late;
        self.came += other.came;
        self.came_good += other.came_good;
        self.lag_max = self.lag_max.max(other.lag_max);
        for (class, &queries) in &other.errors {
            self.failed(class, queries);
        }
    }

    fn is_finished(&self) -> bool {
        self.latency.len() + self.errors.values().sum::<u64>() == self.planned
    }

    pub(super) fn p99_us(&self) -> f64 {
        self.latency.value_at_quantile(0.99) as f64
    }

    /// Queries of which the server said nothing.
    pub(super) fn silent(&self) -> u64 {
        // A bundle that was not acknowledged says so in the client's own words.
        let words =
            [CONNECTION_CLASS, TIME_OUT_CLASS, "connection lost", "no connection", "no answer"];
        let silent = |class: &str| words.iter().any(|words| class.contains(words));
        self.errors.iter().filter(|(class, _)| silent(class)).map(|(_, queries)| queries).sum()
    }

    fn failed(&mut self, class: &str, queries: u64) {
        let room = self.errors.len() < limits::LOAD_ERROR_CLASSES_MAX;
        let class = if room || self.errors.contains_key(class) { class } else { "other" };
        *self.errors.entry(class.to_owned()).or_default() += queries;
    }
}

/// Times are from `begin` on.
pub(super) struct Ledger {
    pub(super) begin: Instant,
    pub(super) measure: Measure,
    windows: Mutex<Vec<Window>>,
    verified: Mutex<Counts>,
}

impl Ledger {
    pub(super) fn new(begin: Instant, measure: Measure) -> Self {
        Self { begin, measure, windows: Mutex::default(), verified: Mutex::default() }
    }

    pub(super) fn verified(&self) -> MutexGuard<'_, Counts> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn window(&self, at: Duration, change: impl FnOnce(&mut Window)) {
        let index = (at.as_nanos() / self.measure.window.as_nanos()) as usize;
        let mut windows = self.lock();
        while windows.len() <= index {
            windows.push(Window::new());
        }
        change(&mut windows[index]);
    }

    pub(super) fn planned(&self, at: Duration, queries: u64) {
        self.window(at, |window| window.planned += queries);
    }

    pub(super) fn begun(&self, at: Duration, queries: u64, now: Instant) {
        let lag = (now - self.begin).saturating_sub(at);
        self.window(at, |window| {
            window.lag_max = window.lag_max.max(lag);
            window.late += if lag > self.measure.lag_max { queries } else { 0 };
        });
    }

    /// Queries whose time passed without one being there to send.
    pub(super) fn never_sent(&self, at: Duration, queries: u64) {
        self.window(at, |window| {
            window.late += queries;
            window.failed("not sent: no query was prepared in time", queries);
        });
    }

    pub(super) fn answered(&self, at: Duration, sent: Instant, now: Instant) {
        let came = now - self.begin;
        let latency = came.saturating_sub(at);
        let good = u64::from(latency <= self.measure.objective);
        self.window(at, |window| {
            window.good += good;
            window.latency.saturating_record(micros(latency));
            window.from_send.saturating_record(micros(now - sent));
        });
        self.window(came, |window| {
            window.came += 1;
            window.came_good += good;
        });
    }

    pub(super) fn failed(&self, at: Duration, class: &str, queries: u64) {
        self.window(at, |window| window.failed(class, queries));
    }

    /// Whether the windows that are over by `until`, and all of whose queries are finished, say
    /// p99 and throughput well enough.
    pub(super) fn settled(&self, until: Duration) -> bool {
        let windows = self.lock();
        let closed = (until.as_nanos() / self.measure.window.as_nanos()) as usize;
        let measured = windows.iter().take(closed).skip(self.measure.warm_up);
        let measured: Vec<&Window> = measured.take_while(|window| window.is_finished()).collect();
        measured.len() >= WINDOWS_MIN && Intervals::of(&measured).are_narrow()
    }

    /// The windows that count: those after warming up that were over by `until`.
    pub(super) fn close(&self, until: Duration) -> Vec<Window> {
        let mut windows = std::mem::take(&mut *self.lock());
        windows.truncate((until.as_nanos() / self.measure.window.as_nanos()) as usize);
        windows.drain(..self.measure.warm_up.min(windows.len()));
        windows
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

/// Half of the 95% confidence intervals over windows, as shares of the means.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Intervals {
    /// Of the windows' 99th percentiles of latency.
    pub p99: Option<f64>,
    /// Of the windows' answers.
    pub throughput: Option<f64>,
}

impl Intervals {
    pub(super) fn of(windows: &[&Window]) -> Self {
        let of = |value: fn(&Window) -> f64| {
            half_interval(&windows.iter().map(|window| value(window)).collect::<Vec<_>>())
        };
        Self { p99: of(Window::p99_us), throughput: of(|window| window.came as f64) }
    }

    /// Whether both are as narrow as wanted.
    pub fn are_narrow(&self) -> bool {
        let narrow = |share: Option<f64>| share.is_some_and(|share| share <= INTERVAL_WANTED);
        narrow(self.p99) && narrow(self.throughput)
    }
}

/// Student's interval of a mean; its quantile by the Cornish-Fisher series, within 1% from 4
/// degrees of freedom on.
pub(crate) fn half_interval(values: &[f64]) -> Option<f64> {
    if values.len() < WINDOWS_MIN {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let freedom = count - 1.0;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / freedom;
    let quantile = 1.960 + 2.372 / freedom + 2.823 / freedom.powi(2) + 2.556 / freedom.powi(3);
    (mean > 0.0).then(|| quantile * (variance / count).sqrt() / mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn ledger(warm_up: usize) -> Ledger {
        let measure = Measure { window: 100 * MS, warm_up, objective: 50 * MS, lag_max: 5 * MS };
        Ledger::new(Instant::now(), measure)
    }

    fn ms(latency: &Histogram<u64>) -> (u64, u64) {
        ((latency.min() + 500) / 1_000, (latency.max() + 500) / 1_000)
    }

    #[test]
    fn a_stall_counts_for_all_that_was_planned_during_it() {
        let ledger = ledger(0);
        // One query every 10 ms; a server that answers nothing until 200 ms, then all at once.
        for n in 0..20 {
            ledger.planned(n * 10 * MS, 1);
            ledger.begun(n * 10 * MS, 1, ledger.begin + n * 10 * MS);
        }
        let end = ledger.begin + 200 * MS;
        (0..20).for_each(|n| ledger.answered(n * 10 * MS, end - MS, end));
        let windows = ledger.close(200 * MS);
        let [first, second] = &windows[..] else { panic!("two windows") };
        assert_eq!(ms(&first.latency), (110, 200));
        assert_eq!(ms(&second.latency), (10, 100));
        assert!(first.from_send.max() <= 1_000 && first.late == 0);
        assert_eq!((first.good, second.good, first.came, second.came), (0, 5, 0, 0));
    }

    #[test]
    fn what_goes_out_late_is_late_and_errors_have_classes() {
        let ledger = ledger(1);
        ledger.planned(Duration::ZERO, 7); // warming up
        ledger.planned(110 * MS, 4);
        ledger.begun(110 * MS, 2, ledger.begin + 114 * MS);
        ledger.begun(110 * MS, 2, ledger.begin + 116 * MS);
        ledger.planned(120 * MS, 3);
        ledger.never_sent(120 * MS, 3);
        ledger.failed(110 * MS, "OVERLOADED", 3);
        for n in 0..2 * limits::LOAD_ERROR_CLASSES_MAX {
            ledger.failed(110 * MS, &format!("class {n}"), 1);
        }
        ledger.planned(250 * MS, 1); // after the end
        let windows = ledger.close(200 * MS);
        let [window] = &windows[..] else { panic!("one window") };
        assert_eq!((window.planned, window.late, window.lag_max), (7, 5, 6 * MS));
        assert_eq!(window.errors["OVERLOADED"], 3);
        assert_eq!(window.errors.len(), limits::LOAD_ERROR_CLASSES_MAX + 1);
        let mut gone = Window::new();
        for class in [
            "connection: timed out",
            "time-out: no answer",
            "bundle: connection lost: timed out",
            "bundle: no answer in time",
            "bundle: no connection to 127.0.0.1:1: no answer within 5s",
        ] {
            gone.failed(class, 2);
        }
        for class in ["OVERLOADED", "stream: finished without an answer", "bundle: DEADLINE"] {
            gone.failed(class, 100);
        }
        assert_eq!(gone.silent(), 10);
        assert_eq!(window.errors["other"], limits::LOAD_ERROR_CLASSES_MAX as u64 + 2);
    }

    #[test]
    fn intervals_narrow_with_windows_and_widen_with_scatter() {
        assert_eq!(half_interval(&[1.0; 4]), None);
        assert_eq!(half_interval(&[3.0; 5]), Some(0.0));
        // Mean 10, deviation 1, 5 values: 2.776 / sqrt 5 / 10.
        let root = 2f64.sqrt();
        let five = [10.0, 10.0 - root, 10.0 + root, 10.0, 10.0];
        assert!((half_interval(&five).unwrap() - 0.12415).abs() < 1e-3);
        let ten: Vec<f64> = five.iter().chain(&five).copied().collect();
        assert!(half_interval(&ten).unwrap() < 0.07);

        let ledger = ledger(0);
        let settled = |latency: &dyn Fn(u32) -> Duration| {
            for n in 0..5 {
                let at = n * 100 * MS;
                ledger.planned(at, 1);
                ledger.answered(at, ledger.begin + at, ledger.begin + at + latency(n));
            }
            let settled = ledger.settled(500 * MS);
            ledger.close(500 * MS);
            settled
        };
        assert!(settled(&|_| 20 * MS));
        assert!(!settled(&|n| 20 * MS + n * 5 * MS));
        ledger.planned(Duration::ZERO, 1); // is not finished
        assert!(!settled(&|_| 20 * MS));
    }
}
