//! When a batch is due, and where randomness comes from. The time is an argument.
//!
//! A batch that was asked is due again at a time that is drawn uniformly from the second week
//! after it. Neither outcomes nor failures have a part in it. Of several whose time has come one
//! is asked, and the others are put off to times of their own: batches that are seen together, and
//! together again, are those of one device.

use crate::limits::{DUE_SECONDS_MAX, DUE_SECONDS_MIN, PUT_OFF_SECONDS_MAX};
use crate::scheme::{SecretError, random_bytes};

/// When a batch that was asked at `now` is due again.
pub(super) fn next_due(now: u64) -> Result<u64, SecretError> {
    let spread = DUE_SECONDS_MAX - DUE_SECONDS_MIN;
    Ok(now.saturating_add(DUE_SECONDS_MIN).saturating_add(below(spread)?))
}

/// When a batch is due that could have been asked at `now`, but not alone.
pub(super) fn put_off(now: u64) -> Result<u64, SecretError> {
    Ok(now.saturating_add(1).saturating_add(below(PUT_OFF_SECONDS_MAX)?))
}

/// Whether a batch is to be asked at `now`.
pub(super) fn is_due(due: u64, now: u64) -> bool {
    due <= now
}

/// A due time that no clock that is right could have given: the clock was ahead when it was drawn.
pub(super) fn is_too_late(due: u64, now: u64) -> bool {
    due > now.saturating_add(DUE_SECONDS_MAX)
}

/// A uniformly random number below `bound`, which is not 0.
pub(super) fn below(bound: u64) -> Result<u64, SecretError> {
    // The last, incomplete stretch of multiples would favour small numbers: draw again.
    let end = u64::MAX - u64::MAX % bound;
    loop {
        let bytes = random_bytes()?;
        let drawn = u64::from_le_bytes(*bytes.first_chunk().expect("this is a bug: 32 bytes"));
        if drawn < end {
            return Ok(drawn % bound);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn due_times_are_spread_over_the_second_week() {
        let now = 1_800_000_000;
        let mut days = [0_u32; 7];
        for _ in 0..7_000 {
            let due = next_due(now).unwrap();
            assert!((now + 7 * DAY..now + 14 * DAY).contains(&due), "{}", due - now);
            days[((due - now) / DAY - 7) as usize] += 1;
            assert!(!is_due(due, now + 7 * DAY - 1) && is_due(due, now + 14 * DAY));
            assert!(is_due(due, due) && !is_due(due, due - 1) && !is_too_late(due, now));
        }
        // 1 000 are expected on each day; six standard deviations are 176.
        assert!(days.iter().all(|&count| (820..1_180).contains(&count)), "{days:?}");
        assert!(is_too_late(now + 14 * DAY + 1, now) && !is_too_late(u64::MAX, u64::MAX));
    }

    #[test]
    fn a_batch_is_put_off_by_at_most_a_day() {
        let now = 1_800_000_000;
        let mut quarters = [0_u32; 4];
        for _ in 0..4_000 {
            let due = put_off(now).unwrap();
            assert!((now + 1..=now + DAY).contains(&due), "{}", due - now);
            quarters[((due - now - 1) / (DAY / 4)) as usize] += 1;
        }
        // 1 000 are expected in each; six standard deviations are 165.
        assert!(quarters.iter().all(|&count| (830..1_170).contains(&count)), "{quarters:?}");
    }

    #[test]
    fn every_number_below_a_bound_is_drawn() {
        let mut seen = [0_u32; 5];
        for _ in 0..2_000 {
            seen[below(5).unwrap() as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (280..520).contains(&count)), "{seen:?}");
        assert_eq!(below(1).unwrap(), 0);
    }
}
