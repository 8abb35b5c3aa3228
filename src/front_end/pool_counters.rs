//! What the pool counts, and under which names it is shown.

use crate::https::Counter;

/// One number of a family: its name, its help, its labels and its value. Names of counters end in
/// `_total`; all others are gauges. Labels come from the placement file and from closed sets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "said above")]
pub struct Sample {
    pub name: &'static str,
    pub help: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub value: u64,
}

/// Makes a struct of counters, and the list of its samples, from one table.
macro_rules! counters {
    ($(#[$about:meta])* $struct:ident { $($field:ident = $name:literal, $help:literal;)* }) => {
        $(#[$about])*
        #[derive(Default)]
        pub(super) struct $struct {
            $(pub(super) $field: Counter,)*
        }

        impl $struct {
            pub(super) fn samples(&self, labels: &[(&'static str, String)]) -> Vec<Sample> {
                let sample = |name, help, value| {
                    Sample { name, help, labels: labels.to_vec(), value }
                };
                vec![$(sample($name, $help, self.$field.get())),*]
            }
        }
    };
}

counters! {
    /// Of one database.
    DatabaseCounters {
        lookups = "sotto_pool_lookups_total", "Look-ups of devices, sixteen queries each.";
        lookups_refused = "sotto_pool_lookups_refused_total",
            "Look-ups that were refused because too many were in flight.";
        answered = "sotto_pool_queries_answered_total", "Queries of devices that were answered.";
        refused = "sotto_pool_queries_refused_total",
            "Queries of devices that were answered with another status than success.";
        mixed = "sotto_pool_mixes_total", "Times that collected queries went out in random order.";
        retries = "sotto_pool_retries_total", "Queries that were sent to a server again.";
        hints_fetched = "sotto_pool_hints_fetched_total", "Hints that came from servers.";
        canaries = "sotto_pool_canaries_total", "Canaries asked, sixteen queries each.";
        canaries_lost = "sotto_pool_canary_queries_lost_total",
            "Queries of canaries that got no answer to be judged.";
    }
}

counters! {
    /// Of one answer server of a database.
    ServerCounters {
        frames = "sotto_pool_frames_total", "Frames of queries sent to a server.";
        queries = "sotto_pool_queries_sent_total", "Queries sent to a server.";
        bundles = "sotto_pool_bundles_sent_total", "Key bundles sent to a server.";
        failures = "sotto_pool_failures_total",
            "Frames that a server left without an answer: time-outs, lost streams and connections.";
        not_answers = "sotto_pool_not_answers_total",
            "Answers and hints of a server that were none, by their lengths, epochs and digests.";
        canaries_right = "sotto_pool_canary_queries_right_total",
            "Queries of canaries that a server answered right.";
        canaries_failed = "sotto_pool_canary_queries_failed_total",
            "Queries of canaries that a server answered wrong.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_the_values_and_the_labels() {
        let counters = ServerCounters::default();
        counters.frames.add(3);
        counters.frames.add(4);
        let labels = [("database", "eu1".to_owned())];
        let samples = counters.samples(&labels);
        assert_eq!((samples[0].name, samples[0].value), ("sotto_pool_frames_total", 7));
        assert!(samples.iter().all(|sample| sample.labels == labels));
        assert!(samples[1..].iter().all(|sample| sample.value == 0));
    }
}
