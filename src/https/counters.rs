//! What a server counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::server::Identity;

/// Defines an enum of which each variant has a name for labels.
macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($(#[$says:meta])* $variant:ident $text:literal)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$says])* $variant,)* }

        impl $name {
            pub(crate) const ALL: [Self; [$($text),*].len()] = [$(Self::$variant),*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}
pub(crate) use labels;

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
    /// When the served certificate expires, in Unix seconds; none where it is unreadable.
    pub certificate_expires: Mutex<Option<i64>>,
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
        let expires = *self.certificate_expires.lock().unwrap_or_else(PoisonError::into_inner);
        let certificate = certificate_expiry("server", expires);
        counted.into_iter().map(sample).chain([certificate]).collect()
    }

    pub(super) fn set_certificate_expires(&self, expires: Option<i64>) {
        *self.certificate_expires.lock().unwrap_or_else(PoisonError::into_inner) = expires;
    }
}

/// When the certificate (PEM) expires that a program shows to servers.
pub fn client_certificate_expiry(certificate: &[u8], key: &[u8]) -> Sample {
    let text = |pem| std::str::from_utf8(pem).ok();
    let identity = text(certificate).zip(text(key));
    let identity =
        identity.and_then(|(certificate, key)| Identity::from_pem(certificate, key).ok());
    certificate_expiry("client", identity.and_then(|identity| identity.expires()))
}

/// When the certificate expires that a program shows as a server or as a client.
fn certificate_expiry(role: &str, expires: Option<i64>) -> Sample {
    Sample {
        name: "certificate_expiry_timestamp_seconds",
        help: "When a certificate expires, seconds since 1970, by whom it is shown as.",
        labels: vec![("role", role.to_owned())],
        value: expires.map_or(f64::NAN, |seconds| seconds as f64),
    }
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
