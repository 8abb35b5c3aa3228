//! What a relay counts: plain atomics, read when somebody asks. Labels come from closed sets; none
//! says which account, address or database.

use crate::https::{Counter, Sample, labels};

labels! {
    /// How a request of a device ended. Those of refusals are also the `error` of their replies.
    Outcome {
        Answered "answered"
        OldKey "ohttp_key"
        Account "account"
        TooLong "too_long"
        TooShort "too_short"
        ContentType "content_type"
        Quota "quota"
        RelayBound "relay_bound"
        FrontEnd "front_end"
        KeyService "key_service"
        NoKeyService "no_key_service"
        Overloaded "overloaded"
        Late "late"
        Gone "gone"
    }
}

labels! {
    /// What a device asked for. Requests to key services count as evaluations in quotas.
    Asked {
        Evaluate "evaluate"
        Lookup "lookup"
        Keys "keys"
    }
}

labels! {
    /// Where a public file came from.
    Public {
        Kept "kept"
        Fetched "fetched"
        Unchanged "unchanged"
        Missing "missing"
        Failed "failed"
    }
}

labels! {
    /// What is known of a token that was asked about.
    Introspected {
        Kept "kept"
        Active "active"
        Inactive "inactive"
        Failed "failed"
    }
}

labels! {
    /// What came of something that may fail.
    Done { Done "done" Failed "failed" }
}

/// Everything a relay counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: [[Counter; Outcome::ALL.len()]; Asked::ALL.len()],
    public: [Counter; Public::ALL.len()],
    introspected: [Counter; Introspected::ALL.len()],
    writes: [Counter; Done::ALL.len()],
    reloads: [Counter; Done::ALL.len()],
    /// Bytes of bodies that were forwarded, and that came back.
    pub(super) forwarded_bytes: Counter,
    pub(super) reply_bytes: Counter,
    /// Requests that were given back because the front-end or key service could not be reached.
    pub(super) given_back: Counter,
}

impl Counters {
    pub(super) fn request(&self, asked: Asked, outcome: Outcome) {
        self.requests[asked as usize][outcome as usize].add(1);
    }

    #[cfg(test)]
    pub(super) fn requests(&self, asked: Asked, outcome: Outcome) -> u64 {
        self.requests[asked as usize][outcome as usize].get()
    }

    pub(super) fn public(&self, from: Public) {
        self.public[from as usize].add(1);
    }

    pub(super) fn introspected(&self, answer: Introspected) {
        self.introspected[answer as usize].add(1);
    }

    pub(super) fn write(&self, done: Done) {
        self.writes[done as usize].add(1);
    }

    pub(super) fn reload(&self, done: Done) {
        self.reloads[done as usize].add(1);
    }

    /// All numbers, for an exporter.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut found = Vec::new();
        let mut add = |name, help, labels: &[(&'static str, &str)], counter: &Counter| {
            let labels = labels.iter().map(|&(label, value)| (label, value.to_owned())).collect();
            found.push(Sample { name, help, labels, value: counter.get() as f64 });
        };
        let name = "relay_requests_total";
        let help = "Requests of devices, and how they ended.";
        for asked in Asked::ALL {
            for outcome in Outcome::ALL {
                let labels = [("kind", asked.name()), ("outcome", outcome.name())];
                add(name, help, &labels, &self.requests[asked as usize][outcome as usize]);
            }
        }
        let (name, help) = ("relay_public_total", "Public files given out, and where from.");
        for from in Public::ALL {
            add(name, help, &[("from", from.name())], &self.public[from as usize]);
        }
        let name = "relay_introspections_total";
        let help = "Tokens that were asked about, and what was answered.";
        for answer in Introspected::ALL {
            let counter = &self.introspected[answer as usize];
            add(name, help, &[("answer", answer.name())], counter);
        }
        for done in Done::ALL {
            let labels = [("result", done.name())];
            let help = "Times that quotas were written, where there was something to write.";
            add("relay_quota_writes_total", help, &labels, &self.writes[done as usize]);
            let help = "Times that certificates and keys of accounts were read again.";
            add("relay_reloads_total", help, &labels, &self.reloads[done as usize]);
        }
        let help = "Bytes of bodies that were forwarded.";
        add("relay_forwarded_bytes_total", help, &[], &self.forwarded_bytes);
        let help = "Bytes of bodies that came back.";
        add("relay_reply_bytes_total", help, &[], &self.reply_bytes);
        let help = "Requests that were not counted after all: nobody was reached.";
        add("relay_given_back_total", help, &[], &self.given_back);
        found
    }
}
