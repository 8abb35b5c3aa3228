//! What the front-end counts of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::https::Sample;

/// Makes an enum of outcomes and their labels.
macro_rules! outcomes {
    ($(#[$about:meta])* $name:ident { $($variant:ident = $text:literal;)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum $name {
            $($variant,)*
        }

        impl $name {
            pub(super) const ALL: [Self; [$($text),*].len()] = [$(Self::$variant),*];

            /// The value of a label, and the `error` of a refusal.
            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

outcomes! {
    /// What became of a request as the relay sees it.
    Outcome {
        Answered = "answered";
        OldKey = "ohttp_key";
        Unopened = "unopened";
        Malformed = "malformed";
        TooLong = "too_long";
        UnknownRelay = "relay";
        RelayBound = "relay_bound";
        Overloaded = "overloaded";
        NoDatabase = "database";
        NoPath = "path";
        WrongMethod = "method";
        Gone = "gone";
        Internal = "internal";
    }
}

outcomes! {
    /// What was asked for inside the seal.
    Asked {
        Evaluate = "evaluate";
        Lookup = "lookup";
        Resolve = "resolve";
        Public = "public";
        Other = "other";
    }
}

/// The statuses of replies inside the seal.
const STATUSES: [u16; 5] = [200, 400, 404, 405, 503];

/// Numbers that only rise.
#[derive(Default)]
pub(super) struct Counters {
    /// Of `/gateway`, by [`Outcome`].
    gateway: [AtomicU64; Outcome::ALL.len()],
    /// Of `/evaluate` in the clear, by [`Outcome`].
    evaluate: [AtomicU64; Outcome::ALL.len()],
    inside: [[AtomicU64; STATUSES.len()]; Asked::ALL.len()],
    files: AtomicU64,
    files_unchanged: AtomicU64,
    pub(super) evaluated: AtomicU64,
    pub(super) passed_on: AtomicU64,
    pub(super) passed_on_failed: AtomicU64,
    pub(super) reloads_failed: AtomicU64,
    pub(super) resolve_contacts: AtomicU64,
    pub(super) resolve_cached: AtomicU64,
    pub(super) resolve_filtered: AtomicU64,
    pub(super) resolve_queries: Arc<AtomicU64>,
    pub(super) resolve_failed: AtomicU64,
    pub(super) filters_refused: AtomicU64,
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn gateway(&self, outcome: Outcome) {
        count(&self.gateway[outcome as usize]);
    }

    pub(super) fn evaluate(&self, outcome: Outcome) {
        count(&self.evaluate[outcome as usize]);
    }

    /// A reply inside the seal. A status that is not listed is none that is given.
    pub(super) fn inside(&self, asked: Asked, status: u16) {
        if let Some(at) = STATUSES.iter().position(|&known| known == status) {
            count(&self.inside[asked as usize][at]);
        }
    }

    /// A file in the clear, or the news that it is unchanged.
    pub(super) fn file(&self, status: u16) {
        count(if status == 304 { &self.files_unchanged } else { &self.files });
    }

    /// All numbers, for an exporter.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let mut add = |name, help, labels: &[(&'static str, &str)], counter: &AtomicU64| {
            let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            let value = counter.load(Ordering::Relaxed) as f64;
            samples.push(Sample { name, help, labels, value });
        };
        for outcome in Outcome::ALL {
            let labels = [("outcome", outcome.name())];
            let help = "Sealed requests of relays, and what became of them.";
            add("front_end_requests_total", help, &labels, &self.gateway[outcome as usize]);
        }
        for outcome in Outcome::ALL {
            let labels = [("outcome", outcome.name())];
            let help = "Evaluations that other front-ends passed on, and what became of them.";
            add(
                "front_end_evaluate_requests_total",
                help,
                &labels,
                &self.evaluate[outcome as usize],
            );
        }
        for asked in Asked::ALL {
            for (at, status) in STATUSES.iter().enumerate() {
                let status = status.to_string();
                let labels = [("asked", asked.name()), ("status", &*status)];
                let help = "Replies inside the seal, by what was asked for.";
                add("front_end_inside_total", help, &labels, &self.inside[asked as usize][at]);
            }
        }
        let counters = [
            ("front_end_files_total", "Public files given in the clear.", &self.files),
            (
                "front_end_files_unchanged_total",
                "Public files that whoever asked already had.",
                &self.files_unchanged,
            ),
            (
                "front_end_evaluations_total",
                "Batches of 16 elements evaluated with an own blinding key.",
                &self.evaluated,
            ),
            (
                "front_end_evaluations_passed_on_total",
                "Batches of 16 elements that another front-end evaluated.",
                &self.passed_on,
            ),
            (
                "front_end_evaluations_failed_total",
                "Batches of 16 elements that another front-end did not evaluate.",
                &self.passed_on_failed,
            ),
            (
                "front_end_reloads_failed_total",
                "Files that could not be used when they were read again.",
                &self.reloads_failed,
            ),
        ];
        for (name, help, counter) in counters.into_iter().chain(self.resolving()) {
            add(name, help, &[], counter);
        }
        samples
    }

    /// Those of contacts that devices name. Nothing says how many of them were found.
    fn resolving(&self) -> [(&'static str, &'static str, &AtomicU64); 6] {
        [
            (
                "front_end_resolve_contacts_total",
                "Contacts that devices named, each database that covers them counted.",
                &self.resolve_contacts,
            ),
            (
                "front_end_resolve_cached_total",
                "Contacts that devices named of which the answer was held.",
                &self.resolve_cached,
            ),
            (
                "front_end_resolve_filtered_total",
                "Contacts that devices named and a routing filter ruled out.",
                &self.resolve_filtered,
            ),
            (
                "front_end_resolve_queries_total",
                "Queries for contacts that devices named.",
                &self.resolve_queries,
            ),
            (
                "front_end_resolve_failed_total",
                "Contacts that devices named and a database said nothing of.",
                &self.resolve_failed,
            ),
            (
                "front_end_filters_refused_total",
                "Routing filters that were not used when they were read again.",
                &self.filters_refused,
            ),
        ]
    }
}
