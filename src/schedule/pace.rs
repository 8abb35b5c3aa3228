//! How fast queries go out while others wait, and how long a new one would wait.
//!
//! The measure is work handed out while something was left waiting: what engines really did. It is
//! unknown before the first such time and a while after the last; then nobody is refused for it.

use std::time::{Duration, Instant};

use super::fair::Load;

/// How long what was measured counts, in time during which queries waited.
const MEMORY: Duration = Duration::from_secs(1);
/// After so long without anything measured nothing is known.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<HandedOut>,
    /// Work measured, and the seconds it took; the older the less.
    scans: f64,
    seconds: f64,
    measured: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct HandedOut {
    at: Instant,
    scans: f64,
    /// Whether something has waited ever since.
    others_wait: bool,
}

impl Pace {
    /// This was handed out; whether something is left that waits.
    pub(super) fn handed_out(&mut self, now: Instant, load: Load, others_wait: bool) {
        if let Some(last) = self.last.filter(|last| last.others_wait) {
            let taken = now.saturating_duration_since(last.at).as_secs_f64();
            let kept = (-taken / MEMORY.as_secs_f64()).exp();
            self.scans = self.scans * kept + last.scans;
            self.seconds = self.seconds * kept + taken;
            self.measured = Some(now);
        }
        self.last = Some(HandedOut { at: now, scans: load.in_scans(), others_wait });
    }

    /// Nothing waits any more, and nothing was handed out for it.
    pub(super) fn nothing_waits(&mut self) {
        if let Some(last) = &mut self.last {
            last.others_wait = false;
        }
    }

    /// How long it takes until so much work is done, and before it the rest of what was handed out
    /// last; `None` where that is not known.
    pub(super) fn time_for(&self, now: Instant, load: Load) -> Option<Duration> {
        let measured = self.measured.filter(|_| self.scans > 0.0)?;
        let last = self.last?;
        if now.saturating_duration_since(measured.max(last.at)) > FORGOTTEN_AFTER {
            return None;
        }
        let seconds_a_scan = self.seconds / self.scans;
        let elapsed = now.saturating_duration_since(last.at).as_secs_f64();
        let under_way = (last.scans * seconds_a_scan - elapsed).max(0.0);
        Duration::try_from_secs_f64(under_way + load.in_scans() * seconds_a_scan).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// So many batches and no query.
    fn load(batches: usize) -> Load {
        Load { batches, queries: 0 }
    }

    #[test]
    fn the_pace_is_that_of_what_went_out_while_others_waited() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.time_for(start, load(1)), None);
        pace.handed_out(start, load(1), true);
        assert_eq!(pace.time_for(start, load(1)), None, "not yet measured");
        pace.handed_out(start + 10 * MS, load(2), true);
        pace.handed_out(start + 30 * MS, load(1), false);
        let ms = |at: u32, batches| {
            let time = pace.time_for(start + at * MS, load(batches)).unwrap();
            (time.as_secs_f64() * 1e3).round() as u32
        };
        // Ten milliseconds a batch, and those of the batch under way.
        assert_eq!([ms(30, 0), ms(30, 5), ms(34, 5), ms(99, 5)], [10, 60, 56, 50]);
    }

    #[test]
    fn a_new_pace_is_soon_known_and_an_old_one_forgotten() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        for (step, expected) in [(10, 10..=10), (40, 35..=40)] {
            for _ in 0..100 {
                pace.handed_out(now, load(1), true);
                now += step * MS;
            }
            pace.handed_out(now, load(1), true);
            let time = pace.time_for(now + step * MS, load(1)).unwrap().as_millis();
            assert!(expected.contains(&time), "{time}");
        }
        assert_eq!(pace.time_for(now + FORGOTTEN_AFTER + MS, load(1)), None);
    }
}
