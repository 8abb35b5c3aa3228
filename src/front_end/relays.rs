//! The relays that may send requests, and how many: a file of lines
//! `NAME EVALUATIONS_A_DAY LOOKUPS_A_DAY`, where the name is that of the relay's certificate.
//!
//! Each relay has two leaky buckets, in elements and in queries. They empty evenly over a day and
//! hold an hour's worth, so a relay that lies about its accounts gets no more than this. Every
//! request is counted, a repeated one again. After a restart the buckets are empty.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::https::Sample;
use crate::limits::{
    RELAY_A_DAY_MAX, RELAY_BURST_PARTS, RELAY_REQUEST_COUNT, RELAYS_BYTES_MAX, RELAYS_MAX,
};
use crate::shard::files::read_regular;

/// Seconds of a day. A bucket counts in this part of an element, so that it loses a whole number of
/// them a second.
const DAY: u64 = 86_400;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub(super) enum Kind {
    Evaluate,
    Lookup,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Evaluate, Self::Lookup];

    /// The value of a label.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Evaluate => "evaluate",
            Self::Lookup => "lookup",
        }
    }
}

/// Why a file of relays is refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum RelaysError {
    #[error("the file of relays {path} cannot be read: {error}")]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("the file of relays {path} has more than {RELAYS_BYTES_MAX} bytes, or is not text")]
    NoText { path: PathBuf },
    #[error("line {line} of the file of relays: {what}; expected {expected}")]
    Line { line: usize, what: String, expected: &'static str },
    #[error("the file of relays has more than {RELAYS_MAX} lines: use several front-ends")]
    TooMany,
}

/// Why a request is not taken from its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// No name of its certificate is in the file.
    Unknown,
    /// The bound is reached; there is room in so many seconds.
    Bound { seconds: u64 },
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    name: String,
    /// By [`Kind`].
    a_day: [u64; 2],
}

/// Reads a file of relays.
pub(super) fn read(path: &Path) -> Result<Vec<Line>, RelaysError> {
    let bytes = read_regular(path, RELAYS_BYTES_MAX + 1)
        .map_err(|error| RelaysError::Unreadable { path: path.to_owned(), error })?;
    let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= RELAYS_BYTES_MAX);
    parse(&text.ok_or_else(|| RelaysError::NoText { path: path.to_owned() })?)
}

fn parse(text: &str) -> Result<Vec<Line>, RelaysError> {
    let (mut lines, mut names) = (Vec::new(), HashSet::new());
    for (index, text) in text.lines().enumerate() {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let wrong = |what: String, expected| RelaysError::Line { line: index + 1, what, expected };
        let words: Vec<&str> = text.split_whitespace().collect();
        let [name, evaluations, lookups] = words[..] else {
            let expected = "NAME EVALUATIONS_A_DAY LOOKUPS_A_DAY";
            return Err(wrong(format!("{} words", words.len()), expected));
        };
        let name = name.to_ascii_lowercase();
        let number = |word: &str| {
            let digits = word.bytes().all(|byte| byte.is_ascii_digit());
            let number =
                word.parse().ok().filter(|&number: &u64| digits && number <= RELAY_A_DAY_MAX);
            number.ok_or_else(|| wrong(format!("{word:?}"), "a number up to 1000000000000"))
        };
        let a_day = [number(evaluations)?, number(lookups)?];
        if !is_dns_name(&name) {
            return Err(wrong(format!("the name {name:?}"), "the DNS name of a certificate"));
        }
        if !names.insert(name.clone()) {
            return Err(wrong(format!("{name} a second time"), "each relay once"));
        }
        if lines.len() == RELAYS_MAX {
            return Err(RelaysError::TooMany);
        }
        lines.push(Line { name, a_day });
    }
    Ok(lines)
}

fn is_dns_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=253).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('.')
}

/// A leaky bucket, in parts of an element ([`DAY`]).
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    level: u64,
    /// When it was that full.
    at: u64,
}

impl Bucket {
    fn take(&mut self, a_day: u64, now: u64) -> Result<(), u64> {
        if a_day == 0 {
            return Err(DAY);
        }
        self.leak(a_day, now);
        let more = RELAY_REQUEST_COUNT * DAY;
        let over = (self.level + more).saturating_sub(capacity(a_day));
        if over > 0 {
            return Err(over.div_ceil(a_day));
        }
        self.level += more;
        Ok(())
    }

    /// Loses what leaked until now. A clock that was set back loses nothing; it goes on from there.
    fn leak(&mut self, a_day: u64, now: u64) {
        let leaked = now.saturating_sub(self.at).saturating_mul(a_day);
        *self = Self { level: self.level.saturating_sub(leaked).min(capacity(a_day)), at: now };
    }
}

/// An hour's worth, and at least one request.
fn capacity(a_day: u64) -> u64 {
    (a_day / RELAY_BURST_PARTS).max(RELAY_REQUEST_COUNT) * DAY
}

#[derive(Clone, Default)]
struct Relay {
    a_day: [u64; 2],
    buckets: [Bucket; 2],
    counted: [u64; 2],
    refused: [u64; 2],
}

/// The relays, by name.
#[derive(Default)]
pub(super) struct Relays(Mutex<HashMap<String, Relay>>);

impl Relays {
    pub(super) fn new(lines: Vec<Line>) -> Self {
        let relays = Self::default();
        relays.replace(lines);
        relays
    }

    /// Puts the lines of a file that was read again in place. Relays that remain keep their levels.
    pub(super) fn replace(&self, lines: Vec<Line>) {
        let mut relays = self.relays();
        let mut old = std::mem::take(&mut *relays);
        *relays = lines
            .into_iter()
            .map(|Line { name, a_day }| {
                let relay = old.remove(&name).unwrap_or_default();
                (name, Relay { a_day, ..relay })
            })
            .collect();
    }

    fn relays(&self) -> MutexGuard<'_, HashMap<String, Relay>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a certificate with these names is a relay's.
    pub(super) fn knows(&self, names: &[String]) -> bool {
        let relays = self.relays();
        names.iter().any(|name| relays.contains_key(name))
    }

    /// Counts a request of these kinds at `now` (unix seconds) against the sender with these names,
    /// for all of them or for none.
    pub(super) fn take(&self, names: &[String], kinds: &[Kind], now: u64) -> Result<(), NotTaken> {
        let mut relays = self.relays();
        let name = names.iter().find(|name| relays.contains_key(*name));
        let relay = name.and_then(|name| relays.get_mut(name)).ok_or(NotTaken::Unknown)?;
        let mut buckets = relay.buckets;
        for kind in kinds.iter().map(|&kind| kind as usize) {
            if let Err(seconds) = buckets[kind].take(relay.a_day[kind], now) {
                relay.buckets[kind] = buckets[kind];
                relay.refused[kind] += 1;
                return Err(NotTaken::Bound { seconds });
            }
        }
        relay.buckets = buckets;
        kinds.iter().for_each(|&kind| relay.counted[kind as usize] += RELAY_REQUEST_COUNT);
        Ok(())
    }

    /// What was counted. The names are those of the operator's file.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let relays = self.relays();
        let mut names: Vec<&String> = relays.keys().collect();
        names.sort();
        type Number = (&'static str, &'static str, fn(&Relay) -> [u64; 2]);
        let numbers: [Number; 3] = [
            (
                "front_end_relay_counted_total",
                "Elements and queries of a relay that were counted.",
                |relay| relay.counted,
            ),
            ("front_end_relay_refused_total", "Requests of a relay beyond its bound.", |relay| {
                relay.refused
            }),
            (
                "front_end_relay_a_day",
                "Elements and queries that a relay may send in a day.",
                |relay| relay.a_day,
            ),
        ];
        let mut samples = Vec::new();
        for (name, help, value) in numbers {
            for relay in &names {
                for kind in Kind::ALL {
                    let labels =
                        vec![("relay", (*relay).clone()), ("kind", kind.name().to_owned())];
                    let value = value(&relays[*relay])[kind as usize] as f64;
                    samples.push(Sample { name, help, labels, value });
                }
            }
        }
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn names(name: &str) -> Vec<String> {
        vec!["other.example".to_owned(), name.to_owned()]
    }

    fn relays(text: &str) -> Relays {
        Relays::new(parse(text).unwrap_or_else(|error| panic!("{error}")))
    }

    /// How many requests are taken at one time.
    fn taken(relays: &Relays, kind: Kind, now: u64) -> u64 {
        (0..).find(|_| relays.take(&names("a.example"), &[kind], now).is_err()).unwrap()
    }

    #[test]
    fn a_file_has_a_line_for_each_relay() {
        let text = "# relays\n\nA.example 480000 960000 # ours\r\n  b.example\t0 16\n";
        let lines = parse(text).unwrap();
        let line = |name: &str, a_day| Line { name: name.to_owned(), a_day };
        assert_eq!(lines, [line("a.example", [480_000, 960_000]), line("b.example", [0, 16])]);
        assert!(parse("").unwrap().is_empty());
        assert!(parse("a.example 1000000000000 1").is_ok());
        let wrong = [
            "a.example 1",
            "a.example 1 2 3",
            "a.example 1 -2",
            "a.example +1 2",
            "a.example 1 2x",
            "a.example 1000000000001 2",
            "a.example 99999999999999999999 2",
            "a/b 1 2",
            ".a 1 2",
            "a.example 1 2\nA.EXAMPLE 1 2",
        ];
        for text in wrong {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, RelaysError::Line { .. }), "{text}: {error}");
        }
        let many: String = (0..=RELAYS_MAX).map(|at| format!("r{at}.example 1 1\n")).collect();
        assert!(matches!(parse(&many), Err(RelaysError::TooMany)));
    }

    #[test]
    fn files_that_cannot_be_read_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relays");
        assert!(matches!(read(&path), Err(RelaysError::Unreadable { .. })));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(matches!(read(&path), Err(RelaysError::NoText { .. })));
        std::fs::write(&path, vec![b' '; RELAYS_BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(RelaysError::NoText { .. })));
        std::fs::write(&path, "a.example 1 2").unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
    }

    #[test]
    fn only_relays_of_the_file_are_taken() {
        let relays = relays("a.example 480000 480000");
        assert!(relays.knows(&names("a.example")));
        for names in [names("b.example"), vec![]] {
            assert!(!relays.knows(&names));
            assert_eq!(relays.take(&names, &[Kind::Lookup], NOW), Err(NotTaken::Unknown));
        }
    }

    #[test]
    fn a_relay_gets_an_hours_worth_at_once_and_its_bound_over_a_day() {
        // 20 000 and 1 000 an hour: 1 250 and 62.5 requests of 16.
        let relays = relays("a.example 480000 24000");
        assert_eq!(taken(&relays, Kind::Evaluate, NOW), 1_250);
        assert_eq!(taken(&relays, Kind::Lookup, NOW), 62);
        let refused = |now| relays.take(&names("a.example"), &[Kind::Evaluate], now).unwrap_err();
        // 16 elements leak in 2.88 s.
        assert_eq!(refused(NOW), NotTaken::Bound { seconds: 3 });
        assert_eq!(refused(NOW + 2), NotTaken::Bound { seconds: 1 });
        assert!(relays.take(&names("a.example"), &[Kind::Evaluate], NOW + 3).is_ok());
        let day: u64 = (1..=DAY / 60).map(|at| taken(&relays, Kind::Evaluate, NOW + 60 * at)).sum();
        assert!((29_998..=30_000).contains(&day), "{day} requests in a day");
    }

    #[test]
    fn a_request_of_both_kinds_is_counted_for_both_or_for_none() {
        let relays = relays("a.example 384 768");
        let take = |kinds: &[Kind]| relays.take(&names("a.example"), kinds, NOW);
        assert!(take(&[Kind::Evaluate, Kind::Lookup]).is_ok());
        for kinds in [[Kind::Evaluate, Kind::Lookup], [Kind::Lookup, Kind::Evaluate]] {
            assert_eq!(take(&kinds), Err(NotTaken::Bound { seconds: 3_600 }));
        }
        assert_eq!(taken(&relays, Kind::Lookup, NOW), 1, "the refused ones took none of these");
    }

    #[test]
    fn a_small_bound_lets_one_request_through_and_none_lets_nothing() {
        let relays = relays("a.example 16 0");
        assert_eq!(taken(&relays, Kind::Evaluate, NOW), 1);
        assert_eq!(taken(&relays, Kind::Evaluate, NOW + DAY - 1), 0);
        assert_eq!(taken(&relays, Kind::Evaluate, NOW + DAY), 1);
        let refused = relays.take(&names("a.example"), &[Kind::Lookup], NOW);
        assert_eq!(refused, Err(NotTaken::Bound { seconds: DAY }));
    }

    #[test]
    fn a_clock_that_is_set_back_gives_nothing_and_takes_nothing_for_long() {
        let relays = relays("a.example 384 384");
        assert_eq!(taken(&relays, Kind::Lookup, NOW), 1);
        assert_eq!(taken(&relays, Kind::Lookup, NOW - 7_200), 0);
        // An hour after it was set back there is room for one again.
        assert_eq!(taken(&relays, Kind::Lookup, NOW - 3_600), 1);
        assert_eq!(taken(&relays, Kind::Lookup, u64::MAX), 1);
    }

    #[test]
    fn a_file_that_is_read_again_keeps_the_levels() {
        let relays = relays("a.example 384 384\nb.example 1 1");
        assert_eq!(taken(&relays, Kind::Lookup, NOW), 1);
        relays.replace(parse("a.example 768 768").unwrap());
        assert!(!relays.knows(&names("b.example")));
        assert_eq!(taken(&relays, Kind::Lookup, NOW), 1, "twice the bound, half of it used");
        let samples = relays.samples();
        let value = |name: &str, kind: &str| {
            let is_it = |sample: &&Sample| sample.name == name && sample.labels[1].1 == kind;
            samples.iter().find(is_it).unwrap().value
        };
        assert_eq!(value("front_end_relay_counted_total", "lookup"), 32.0);
        assert_eq!(value("front_end_relay_counted_total", "evaluate"), 0.0);
        assert_eq!(value("front_end_relay_refused_total", "lookup"), 2.0);
        assert_eq!(value("front_end_relay_a_day", "evaluate"), 768.0);
        assert_eq!(samples.len(), 6);
    }
}
