//! A leaky bucket: how much of one kind an account may ask for. Pure arithmetic; the time is an
//! argument, and nothing is stored here (see [`super::quotas`]).
//!
//! A bucket has a *level*. A request raises it, time lowers it, and a request that would raise it
//! above the burst is refused. Whoever asks all the time gets the burst once and then what a day
//! refills, to the last item: levels are counted in parts of an item, as many parts as a day has
//! minutes, so that a minute lowers a level by a whole number of parts and nothing is rounded.
//!
//! The clock has whole minutes. They suffice, and a file of buckets does not say to the second when
//! an account asked.

use std::fmt;
use std::str::FromStr;

use crate::limits::{QUOTA_ITEMS_MAX, RELAY_REQUEST_ITEMS};

/// Parts of an item in a level.
const PARTS: u32 = 24 * 60;
/// What a request adds to a level.
const REQUEST_PARTS: u32 = RELAY_REQUEST_ITEMS * PARTS;
/// A bucket that was last changed more than a day from now, in minutes, was changed under a clock
/// that was wrong. Waiting for that time would lock the account out.
const AHEAD_MINUTES_MAX: u32 = 24 * 60;
const _: () = assert!(QUOTA_ITEMS_MAX as u64 * PARTS as u64 <= u32::MAX as u64);

/// What an account asks for. It has a bucket for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Kind {
    Evaluate,
    Lookup,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Evaluate, Self::Lookup];

    /// Its name, in replies and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Evaluate => "evaluate",
            Self::Lookup => "lookup",
        }
    }
}

/// What a bucket allows: so many items at once, and so many more a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    burst: u32,
    refill_a_day: u32,
}

/// Why a text is no quota.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Names say it.
pub enum QuotaError {
    #[error(
        "a quota is written BURST,REFILL/day, such as 1024,128/day: so many at once, and so many \
         more a day"
    )]
    Form,
    #[error(
        "the {part} of a quota is {found}, expected {least} to {QUOTA_ITEMS_MAX}: a request counts \
         as {RELAY_REQUEST_ITEMS}"
    )]
    Range { part: &'static str, found: u32, least: u32 },
}

impl Quota {
    /// # Errors
    /// The burst is less than one request, a day refills nothing, or one of them is far too large.
    pub fn new(burst: u32, refill_a_day: u32) -> Result<Self, QuotaError> {
        let parts = [("burst", burst, RELAY_REQUEST_ITEMS), ("refill", refill_a_day, 1)];
        for (part, found, least) in parts {
            if !(least..=QUOTA_ITEMS_MAX).contains(&found) {
                return Err(QuotaError::Range { part, found, least });
            }
        }
        Ok(Self { burst, refill_a_day })
    }

    /// The bucket after one more request.
    ///
    /// # Errors
    /// It would overflow; so many minutes later it does not.
    pub fn take(&self, bucket: Bucket, minute: u32) -> Result<Bucket, u32> {
        let now = self.leak(bucket, minute);
        match (now.level + REQUEST_PARTS).checked_sub(self.capacity()) {
            None | Some(0) => Ok(Bucket { level: now.level + REQUEST_PARTS, ..now }),
            Some(above) => {
                // The bucket may be of a minute that has not come yet.
                let ahead = now.minute.saturating_sub(minute);
                Err(above.div_ceil(self.refill_a_day) + ahead)
            }
        }
    }

    /// The bucket without a request that was taken in the minute `taken`. What has leaked since may
    /// have been this request and is not given back: nobody gains by asking and giving back.
    pub fn give_back(&self, bucket: Bucket, taken: u32, minute: u32) -> Bucket {
        let now = self.leak(bucket, minute);
        let leaked = self.leaked_parts(minute.saturating_sub(taken));
        let back = REQUEST_PARTS.saturating_sub(leaked);
        Bucket { level: now.level.saturating_sub(back), ..now }
    }

    /// Whether the bucket is as good as new.
    pub fn is_empty(&self, bucket: Bucket, minute: u32) -> bool {
        self.leak(bucket, minute).level == 0
    }

    /// The bucket at this minute. A clock that was set back a little lowers no level twice.
    fn leak(&self, bucket: Bucket, minute: u32) -> Bucket {
        // It may be of another quota, or of a file that somebody wrote into.
        let level = bucket.level.min(self.capacity());
        match minute.checked_sub(bucket.minute) {
            Some(minutes) => {
                Bucket { level: level.saturating_sub(self.leaked_parts(minutes)), minute }
            }
            None if bucket.minute - minute > AHEAD_MINUTES_MAX => Bucket { level, minute },
            None => Bucket { level, minute: bucket.minute },
        }
    }

    /// What leaks in so many minutes.
    fn leaked_parts(&self, minutes: u32) -> u32 {
        self.refill_a_day.saturating_mul(minutes)
    }

    fn capacity(&self) -> u32 {
        self.burst * PARTS
    }
}

impl FromStr for Quota {
    type Err = QuotaError;

    fn from_str(text: &str) -> Result<Self, QuotaError> {
        let (burst, refill) = text.split_once(',').ok_or(QuotaError::Form)?;
        let refill = refill.strip_suffix("/day").ok_or(QuotaError::Form)?;
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().map_err(|_| QuotaError::Form),
            false => Err(QuotaError::Form),
        };
        Self::new(number(burst)?, number(refill)?)
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}/day", self.burst, self.refill_a_day)
    }
}

/// How full a bucket was in some minute. A new one is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    level: u32,
    /// Minutes since 1970.
    minute: u32,
}

impl Bucket {
    /// The bytes of a file.
    pub(super) fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.level.to_le_bytes());
        bytes[4..].copy_from_slice(&self.minute.to_le_bytes());
        bytes
    }

    /// Any eight bytes are a bucket: it is never fuller than its quota allows.
    pub(super) fn from_bytes(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Self { level: u32::from_le_bytes([a, b, c, d]), minute: u32::from_le_bytes([e, f, g, h]) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u32 = 29_600_000;
    const YEAR: u32 = 365 * PARTS;

    fn quota(burst: u32, refill_a_day: u32) -> Quota {
        Quota::new(burst, refill_a_day).unwrap()
    }

    /// The items of one who asks again and again in every minute.
    fn items_at_full_speed(quota: Quota, minutes: u32) -> u64 {
        let (mut bucket, mut items) = (Bucket::default(), 0);
        for minute in START..=START + minutes {
            while let Ok(next) = quota.take(bucket, minute) {
                (bucket, items) = (next, items + u64::from(RELAY_REQUEST_ITEMS));
            }
        }
        items
    }

    #[test]
    fn a_year_at_full_speed_gets_exactly_what_the_quota_says() {
        // Evaluations and look-ups by default, one whose requests fit nothing evenly, and one of
        // which a minute refills more than a request.
        for (burst, refill) in [(1_024, 128), (2_048, 512), (1_000, 77), (4_096, 100_000)] {
            let request = u64::from(RELAY_REQUEST_ITEMS);
            let allowed = u64::from(burst) + u64::from(refill) * 365;
            let items = items_at_full_speed(quota(burst, refill), YEAR);
            assert_eq!(items, allowed / request * request, "{burst},{refill}/day");
        }
        assert_eq!(items_at_full_speed(quota(1_024, 128), 0), 1_024);
    }

    #[test]
    fn a_refusal_says_when_to_come_again_and_not_a_minute_too_late() {
        let quota = quota(1_024, 128);
        let mut bucket = Bucket::default();
        for _ in 0..64 {
            bucket = quota.take(bucket, START).unwrap();
        }
        // 16 of 128 a day are three hours.
        assert_eq!(quota.take(bucket, START), Err(180));
        assert_eq!(quota.take(bucket, START + 179), Err(1));
        assert!(quota.take(bucket, START + 180).is_ok());
        assert!(!quota.is_empty(bucket, START + 8 * PARTS - 1));
        assert!(quota.is_empty(bucket, START + 8 * PARTS));
    }

    #[test]
    fn a_clock_that_is_wrong_gives_nothing_away_and_locks_nobody_out() {
        let quota = quota(32, 32);
        let mut bucket = quota.take(quota.take(Bucket::default(), START).unwrap(), START).unwrap();
        // An hour back: the bucket waits until its own time comes again.
        assert_eq!(quota.take(bucket, START - 60), Err(60 + 720));
        for minute in [START - 60, START, START - 60, START] {
            assert!(quota.take(bucket, minute).is_err());
            bucket = quota.give_back(bucket, minute, minute);
            bucket = quota.take(bucket, minute).unwrap();
        }
        // An hour ahead and back again: an hour of refill, once.
        let ahead = Bucket { level: 32 * PARTS, minute: START + 60 };
        assert_eq!(quota.take(ahead, START), Err(60 + 720));
        // Years ahead: from now on, and as full as it was.
        let far = Bucket { level: 32 * PARTS, minute: START + YEAR };
        assert_eq!(quota.take(far, START), Err(720));
        // A file that somebody wrote into is a full bucket at most.
        let wild = Bucket::from_bytes([0xff; 8]);
        assert_eq!(quota.take(wild, START), Err(720));
    }

    #[test]
    fn quotas_are_read_as_they_are_written() {
        for text in ["1024,128/day", "16,1/day", "1000000,1000000/day"] {
            assert_eq!(text.parse::<Quota>().unwrap().to_string(), text);
        }
        for text in ["", "1024", "1024,128", "1024/day", "1024,128/hour", "-1,1/day", "+16,1/day"] {
            assert_eq!(text.parse::<Quota>(), Err(QuotaError::Form), "{text}");
        }
        for text in ["16, 1/day", "16,/day", ",1/day", "99999999999,1/day", "1_6,1/day", "16,1/DAY"]
        {
            assert_eq!(text.parse::<Quota>(), Err(QuotaError::Form), "{text}");
        }
        for text in ["15,1/day", "16,0/day", "1000001,1/day", "16,1000001/day"] {
            let error = text.parse::<Quota>().unwrap_err();
            assert!(matches!(error, QuotaError::Range { .. }), "{text}: {error}");
        }
    }

    /// What happens to a bucket, one after the other.
    #[derive(Debug, Clone)]
    enum Step {
        Wait(u32),
        Take,
        /// Gives the oldest request back that was not given back yet.
        GiveBack,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0_u32..3_000).prop_map(Step::Wait),
            8 => Just(Step::Take),
            2 => Just(Step::GiveBack),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        /// Requests that were given back count for nothing; all others within any window are at
        /// most the burst and what the window refills.
        #[test]
        fn never_more_than_the_burst_and_the_refill_over_any_window(
            burst in RELAY_REQUEST_ITEMS..500,
            refill in 1_u32..2_000,
            steps in steps(),
        ) {
            let quota = quota(burst, refill);
            let (mut bucket, mut minute) = (Bucket::default(), START);
            let mut taken: Vec<(u32, bool)> = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(minutes) => minute += minutes,
                    Step::Take => if let Ok(next) = quota.take(bucket, minute) {
                        bucket = next;
                        taken.push((minute, true));
                    },
                    Step::GiveBack => if let Some((at, counts)) =
                        taken.iter_mut().find(|(_, counts)| *counts)
                    {
                        bucket = quota.give_back(bucket, *at, minute);
                        *counts = false;
                    },
                }
            }
            let taken: Vec<u32> =
                taken.into_iter().filter(|(_, counts)| *counts).map(|(minute, _)| minute).collect();
            for (first, from) in taken.iter().enumerate() {
                for (last, until) in taken.iter().enumerate().skip(first) {
                    let parts = (last - first + 1) as u64 * u64::from(REQUEST_PARTS);
                    let refilled = u64::from(refill) * u64::from(until - from);
                    prop_assert!(parts <= u64::from(burst) * u64::from(PARTS) + refilled);
                }
            }
        }

        /// A refusal names the first minute in which the same request is taken.
        #[test]
        fn who_comes_when_told_is_served(
            burst in RELAY_REQUEST_ITEMS..500,
            refill in 1_u32..2_000,
            level in any::<u32>(),
            later in 0_u32..3_000,
        ) {
            let quota = quota(burst, refill);
            let bucket = Bucket { level, minute: START };
            if let Err(wait) = quota.take(bucket, START + later) {
                prop_assert!(quota.take(bucket, START + later + wait).is_ok());
                prop_assert!(quota.take(bucket, START + later + wait - 1).is_err());
            }
        }

        #[test]
        fn any_bytes_are_a_bucket(bytes in any::<[u8; 8]>(), minute in any::<u32>()) {
            let quota = quota(1_024, 128);
            let bucket = Bucket::from_bytes(bytes);
            prop_assert_eq!(bucket.to_bytes(), bytes);
            let _ = (quota.take(bucket, minute), quota.give_back(bucket, minute, minute));
            // Nine days after its own time any bucket of this quota has leaked.
            let later = bucket.minute.checked_add(9 * PARTS);
            prop_assert!(later.is_none_or(|later| quota.is_empty(bucket, later)));
        }
    }
}
