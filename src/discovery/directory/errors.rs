//! Why a directory is refused.

use std::fmt;

use super::super::jws::JwsError;
use crate::limits::{DIRECTORY_BYTES_MAX, DIRECTORY_ROOTS_MAX};

/// Longest part of a message that quotes a directory, in characters: two lines.
const SHOWN_CHARS_MAX: usize = 200;

/// Why a directory is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Names say it.
pub enum DirectoryError {
    #[error("the directory has more than {DIRECTORY_BYTES_MAX} bytes, which none may have")]
    Long,
    #[error("the {what} is not JSON of the expected form: {problem}")]
    Json { what: &'static str, problem: String },
    #[error("the payload of the directory is not base64url in canonical form without padding")]
    Payload,
    #[error("the directory has {0} signatures, expected at most {DIRECTORY_ROOTS_MAX}")]
    Signatures(usize),
    #[error("signature {number} of the directory is refused: {why}")]
    Signature { number: usize, why: JwsError },
    #[error(
        "{found} of the root keys that are {whose} have signed the directory, expected at least \
         {expected}: it is forged, or it lacks signatures"
    )]
    Threshold { whose: Whose, found: usize, expected: u32 },
    #[error(
        "the directory has version {found}, and version {seen} was seen before: somebody serves an \
         old one; get the newest"
    )]
    RolledBack { found: u64, seen: u64 },
    #[error(
        "the directory has version {version} and another content than the one of that version that \
         was seen before: its roots have signed two; tell them, and trust neither"
    )]
    Forked { version: u64 },
    #[error(
        "the directory expired at {}, and it is {}: get a newer one, or set the clock",
        utc(*expires), utc(*now)
    )]
    Expired { expires: u64, now: u64 },
    #[error(
        "the directory expires at {}, more than 30 days after {}: it may not hold for so long, or \
         this clock is slow", utc(*expires), utc(*now)
    )]
    HoldsTooLong { expires: u64, now: u64 },
    #[error("{place} of the directory: {problem}")]
    Content { place: String, problem: String },
    #[error("the pins are refused: {0}")]
    Pins(String),
}

/// Whose root keys were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Whose {
    Pinned,
    Its,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pinned => "pinned here",
            Self::Its => "named in it",
        })
    }
}

/// A time for people, to the minute.
pub(super) fn utc(seconds: u64) -> String {
    // Days of eras of 400 years that begin on 1 March (Howard Hinnant, "chrono-compatible low-level
    // date algorithms").
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// So much of a text as a message shows.
pub(super) fn shown(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(SHOWN_CHARS_MAX) {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_for_people() {
        // By `date -u -d @SECONDS`.
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (1_796_000_000, "2026-11-30 00:53 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), text, "{seconds}");
        }
        assert!(utc(u64::MAX).ends_with("UTC"));
    }
}
