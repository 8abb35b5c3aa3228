//! What a server counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number for an exporter: name, help, labels and value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name, without the program's prefix.
    pub name: &'static str,
    /// One sentence for a person.
    pub help: &'static str,
    /// Names and values of labels, from closed sets.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

/// What a server counts; stays readable after it has left.
#[derive(Debug, Default)]
#[allow(missing_docs)] // `samples` says it.
pub struct Counters {
    pub accepted: AtomicU64,
    pub handshakes_displaced: AtomicU64,
    pub handshakes_failed: AtomicU64,
    pub connections_displaced: AtomicU64,
    pub connections_refused: AtomicU64,
    pub idle_ended: AtomicU64,
    pub heads_late: AtomicU64,
    pub bodies_late: AtomicU64,
    pub replies_late: AtomicU64,
    pub requests: AtomicU64,
    pub open: AtomicU64,
}

impl Counters {
    /// All numbers, for an exporter.
    pub fn samples(&self) -> Vec<Sample> {
        let ended = "https_connections_ended_total";
        let why = "Connections that the server ended, by reason.";
        let counted: [(&str, &str, Option<&str>, &AtomicU64); 11] = [
            ("https_accepted_total", "TCP connections accepted.", None, &self.accepted),
            ("https_requests_total", "Requests whose head arrived.", None, &self.requests),
            ("https_connections", "Connections open after their handshake.", None, &self.open),
            (ended, why, Some("handshake_displaced"), &self.handshakes_displaced),
            (ended, why, Some("handshake_failed"), &self.handshakes_failed),
            (ended, why, Some("displaced"), &self.connections_displaced),
            (ended, why, Some("refused"), &self.connections_refused),
            (ended, why, Some("idle"), &self.idle_ended),
            (ended, why, Some("slow_head"), &self.heads_late),
            (ended, why, Some("slow_body"), &self.bodies_late),
            (ended, why, Some("slow_reader"), &self.replies_late),
        ];
        let sample = |(name, help, reason, value): (_, _, Option<&str>, &AtomicU64)| Sample {
            name,
            help,
            labels: reason.map(|reason| ("reason", reason.to_owned())).into_iter().collect(),
            value: value.load(Ordering::Relaxed) as f64,
        };
        counted.into_iter().map(sample).collect()
    }
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
