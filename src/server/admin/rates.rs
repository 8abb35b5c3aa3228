//! How much went on lately: a minute of samples, one a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::metrics::Counters;
use crate::wire::Status;
use crate::worker::Distribution;

/// What the page's longest rate covers.
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What was counted until some moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    at: Instant,
    answered: u64,
    refused: u64,
    received_bytes: u64,
    sent_bytes: u64,
    answer_time: Distribution,
}

impl Sample {
    pub(super) fn take(at: Instant, counters: &Counters) -> Self {
        let count = |answered: bool| {
            let wanted = move |status: &Status| (*status == Status::ResponseSuccess) == answered;
            let counted = Status::ALL.into_iter().filter(wanted);
            counted.map(|status| counters.queries.get(status)).sum()
        };
        Self {
            at,
            answered: count(true),
            refused: count(false),
            received_bytes: counters.received_bytes.get(),
            sent_bytes: counters.sent_bytes.get(),
            answer_time: counters.answer_time.read(),
        }
    }
}

/// What went on in some time.
#[derive(Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) answered_per_second: f64,
    pub(super) refused_per_second: f64,
    pub(super) received_bytes_per_second: f64,
    pub(super) sent_bytes_per_second: f64,
    /// Half of the replies took at most so many seconds, and 99 of 100; none without replies.
    pub(super) seconds_median: Option<f64>,
    pub(super) seconds_p99: Option<f64>,
}

/// The samples of the last minute.
#[derive(Debug, Default)]
pub(super) struct Samples(VecDeque<Sample>);

impl Samples {
    pub(super) fn push(&mut self, sample: Sample) {
        let old = |oldest: &Sample| sample.at.saturating_duration_since(oldest.at) > MINUTE;
        while self.0.front().is_some_and(old) {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// What went on until `now`, in so much time or since the first sample. None before there was
    /// time to tell.
    pub(super) fn rate(&self, now: &Sample, time: Duration) -> Option<Rate> {
        let since = |sample: &Sample| now.at.saturating_duration_since(sample.at);
        let then = self.0.iter().find(|sample| since(sample) <= time)?;
        let seconds = Some(since(then).as_secs_f64()).filter(|&seconds| seconds > 0.0)?;
        let per_second = |of: fn(&Sample) -> u64| of(now).saturating_sub(of(then)) as f64 / seconds;
        let bound = |share| now.answer_time.bound_of(share, &then.answer_time);
        Some(Rate {
            answered_per_second: per_second(|sample| sample.answered),
            refused_per_second: per_second(|sample| sample.refused),
            received_bytes_per_second: per_second(|sample| sample.received_bytes),
            sent_bytes_per_second: per_second(|sample| sample.sent_bytes),
            seconds_median: bound(0.5),
            seconds_p99: bound(0.99),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_asked_for_or_less() {
        let (start, counters, mut samples) =
            (Instant::now(), Counters::default(), Samples::default());
        let at = |second: u64| start + Duration::from_secs(second);
        assert_eq!(samples.rate(&Sample::take(start, &counters), MINUTE), None);
        samples.push(Sample::take(start, &counters));
        assert_eq!(samples.rate(&Sample::take(start, &counters), MINUTE), None, "no time passed");
        for second in 1..=100 {
            // Ten answers a second for half a minute, then one.
            let answers = if second <= 70 { 10 } else { 1 };
            (0..answers).for_each(|_| counters.queries.add(Status::ResponseSuccess));
            counters.queries.add(Status::Quota);
            counters.sent_bytes.add(1_000);
            counters.answer_time.add(Duration::from_millis(if second <= 70 { 2 } else { 2_000 }));
            samples.push(Sample::take(at(second), &counters));
        }
        let now = Sample::take(at(100), &counters);
        assert_eq!(samples.0.len(), 61);
        let ten = samples.rate(&now, Duration::from_secs(10)).unwrap();
        let expected = Rate {
            answered_per_second: 1.0,
            refused_per_second: 1.0,
            received_bytes_per_second: 0.0,
            sent_bytes_per_second: 1_000.0,
            seconds_median: Some(2.5),
            seconds_p99: Some(2.5),
        };
        assert_eq!(ten, expected);
        let minute = samples.rate(&now, MINUTE).unwrap();
        assert_eq!(minute.answered_per_second, (30.0 * 10.0 + 30.0) / 60.0);
        assert_eq!((minute.seconds_median, minute.seconds_p99), (Some(2.5e-3), Some(2.5)));
    }
}
