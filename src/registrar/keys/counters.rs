//! What a key service counts. Labels come from closed sets; none says who.

use crate::https::{Counter, Sample, labels};

labels! {
    /// What was asked for.
    Asked {
        User "user"
        Packages "packages"
        Decision "update_consent"
        Decisions "consents"
        Sealed "gateway"
        KeyMaterial "key_material"
        ClientList "client_list"
        Search "identifier_query"
        Question "request_consent"
        Other "other"
    }
}

labels! {
    /// How it ended.
    Outcome {
        Done "done"
        Refused "refused"
        Limited "limited"
        Unavailable "unavailable"
        Failed "failed"
    }
}

impl Outcome {
    pub(crate) fn of(status: u16) -> Self {
        match status {
            ..400 => Self::Done,
            429 => Self::Limited,
            503 => Self::Unavailable,
            400..500 => Self::Refused,
            _ => Self::Failed,
        }
    }
}

/// Names of the codes of a claim, in their order.
const CODES: [&str; 8] = [
    "success",
    "partial_success",
    "incompatible_protocol",
    "no_compatible_material",
    "user_unknown",
    "no_consent",
    "no_consent_for_this_room",
    "user_deleted",
];

/// Everything a key service counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: [[Counter; Outcome::ALL.len()]; Asked::ALL.len()],
    codes: [Counter; CODES.len()],
    pub(crate) packages: Counter,
    pub(crate) last_resorts: Counter,
    pub(crate) exhausted: Counter,
    pub(crate) stored: Counter,
    pub(crate) purged: Counter,
    pub(crate) purges_failed: Counter,
    pub(crate) reloads: Counter,
    pub(crate) reloads_failed: Counter,
}

impl Counters {
    pub(crate) fn request(&self, asked: Asked, status: u16) {
        self.requests[asked as usize][Outcome::of(status) as usize].add(1);
    }

    pub(crate) fn code(&self, code: crate::discovery::keys::mimi::KeyMaterialUserCode) {
        self.codes[code as usize].add(1);
    }

    /// All numbers, for an exporter.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let mut found = Vec::new();
        let mut add = |name, help, labels: &[(&'static str, &str)], counter: &Counter| {
            let labels = labels.iter().map(|&(label, value)| (label, value.to_owned())).collect();
            found.push(Sample { name, help, labels, value: counter.get() as f64 });
        };
        let (name, help) = ("keys_requests_total", "Requests, and how they ended.");
        for asked in Asked::ALL {
            for outcome in Outcome::ALL {
                let labels = [("asked", asked.name()), ("outcome", outcome.name())];
                add(name, help, &labels, &self.requests[asked as usize][outcome as usize]);
            }
        }
        for (code, counter) in CODES.iter().zip(&self.codes) {
            add("keys_claims_total", "Claims, by their code.", &[("code", code)], counter);
        }
        let rest = [
            ("keys_packages_given_total", "Key packages given out.", &self.packages),
            ("keys_last_resorts_given_total", "Times a last resort was given.", &self.last_resorts),
            ("keys_exhausted_total", "Clients without a package when asked.", &self.exhausted),
            ("keys_packages_stored_total", "Key packages that were sent here.", &self.stored),
            ("keys_packages_purged_total", "Key packages removed as expired.", &self.purged),
            ("keys_purges_failed_total", "Times removing failed.", &self.purges_failed),
            ("keys_reloads_total", "Times files were read again.", &self.reloads),
            ("keys_reloads_failed_total", "Times that failed.", &self.reloads_failed),
        ];
        for (name, help, counter) in rest {
            add(name, help, &[], counter);
        }
        found
    }
}
