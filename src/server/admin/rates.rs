//! How much went on lately: ten seconds of samples, one a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::metrics::Counters;
use crate::wire::Status;
use crate::worker::Distribution;

const COVERED: Duration = Duration::from_secs(10);
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
        let all: u64 = Status::ALL.into_iter().map(|status| counters.queries.get(status)).sum();
        let answered = counters.queries.get(Status::ResponseSuccess);
        Self {
            at,
            answered,
            refused: all.saturating_sub(answered),
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

#[derive(Debug, Default)]
pub(super) struct Samples(VecDeque<Sample>);

impl Samples {
    pub(super) fn push(&mut self, sample: Sample) {
        let old = |oldest: &Sample| sample.at.saturating_duration_since(oldest.at) > COVERED;
        while self.0.front().is_some_and(old) {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// What went on from the oldest sample until `now`. None before there was time to tell.
    pub(super) fn rate(&self, now: &Sample) -> Option<Rate> {
        let then = self.0.front()?;
        let seconds = now.at.saturating_duration_since(then.at).as_secs_f64();
        let per_second = |of: fn(&Sample) -> u64| of(now).saturating_sub(of(then)) as f64 / seconds;
        let bound = |share| now.answer_time.bound_of(share, &then.answer_time);
        (seconds > 0.0).then(|| Rate {
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
    fn rates_are_of_the_last_ten_seconds_or_less() {
        let start = Instant::now();
        let (counters, mut samples) = (Counters::default(), Samples::default());
        assert_eq!(samples.rate(&Sample::take(start, &counters)), None);
        samples.push(Sample::take(start, &counters));
        assert_eq!(samples.rate(&Sample::take(start, &counters)), None, "no time passed");
        for second in 1..=30 {
            // Ten answers a second for 25 seconds, then one.
            let answers = if second <= 25 { 10 } else { 1 };
            (0..answers).for_each(|_| counters.queries.add(Status::ResponseSuccess));
            counters.queries.add(Status::Quota);
            counters.sent_bytes.add(1_000);
            counters.answer_time.add(Duration::from_millis(if second <= 25 { 2 } else { 2_000 }));
            samples.push(Sample::take(start + Duration::from_secs(second), &counters));
        }
        let now = Sample::take(start + Duration::from_secs(30), &counters);
        assert_eq!(samples.0.len(), 11);
        let expected = Rate {
            answered_per_second: 5.5,
            refused_per_second: 1.0,
            received_bytes_per_second: 0.0,
            sent_bytes_per_second: 1_000.0,
            seconds_median: Some(2.5e-3),
            seconds_p99: Some(2.5),
        };
        assert_eq!(samples.rate(&now), Some(expected));
    }
}
