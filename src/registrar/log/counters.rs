//! What a log counts: plain atomics, read when somebody asks. Labels come from closed sets.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::https::Sample;

/// How a request to append ended. The names are those of problems, and `stored`.
const OUTCOMES: [&str; 9] = [
    "stored",
    "caller",
    "malformed",
    "too_long",
    "idempotency_key",
    "other_manifest",
    "epoch_order",
    "full",
    "unavailable",
];

/// Everything a log counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: [AtomicU64; OUTCOMES.len()],
    other: AtomicU64,
    size: AtomicU64,
    published: AtomicU64,
    publish_failed: AtomicU64,
}

impl Counters {
    pub(super) fn request(&self, outcome: &str) {
        let counter = OUTCOMES.iter().position(|name| *name == outcome);
        let counter = counter.map_or(&self.other, |place| &self.requests[place]);
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_size(&self, size: u64) {
        self.size.fetch_max(size, Ordering::Relaxed);
    }

    pub(super) fn set_published(&self, size: u64) {
        self.set_size(size);
        self.published.store(size, Ordering::Relaxed);
    }

    pub(super) fn publish_failed(&self) {
        self.publish_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        let requests = OUTCOMES.iter().zip(&self.requests).chain([(&"internal", &self.other)]);
        let mut samples: Vec<Sample> = requests
            .map(|(outcome, counter)| Sample {
                name: "log_requests_total",
                help: "Requests to append entries, by how they ended.",
                labels: vec![("outcome", (*outcome).to_owned())],
                value: counter.load(Ordering::Relaxed) as f64,
            })
            .collect();
        let one = |name, help, counter: &AtomicU64| Sample {
            name,
            help,
            labels: Vec::new(),
            value: counter.load(Ordering::Relaxed) as f64,
        };
        samples.extend([
            one("log_entries", "Entries that are stored.", &self.size),
            one("log_published_entries", "Entries of the newest checkpoint.", &self.published),
            one(
                "log_publish_failed_total",
                "Times that entries could not be published.",
                &self.publish_failed,
            ),
        ]);
        samples
    }
}
