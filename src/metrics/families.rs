//! Every counter and histogram: its name, what it says, where its number comes from; and the build.

use prometheus::proto::{
    Bucket, Counter as CounterValue, Gauge as GaugeValue, Histogram as HistogramValue, LabelPair,
    Metric, MetricFamily, MetricType,
};

use super::counters::{ByStatus, Counters};
use crate::wire::{Status, StreamCode};
use crate::worker::{Counter, Distribution, WorkCounters};

/// The commit that this program was built from, where the build knew it.
const COMMIT: &str = match option_env!("SOTTO_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Counters without labels that have the names of the fields they are read from.
macro_rules! table {
    ($families:ident: $of:ident { $($field:ident $help:literal)* }) => {
        $($families.counter(stringify!($field), $help, &$of.$field);)*
    };
}

/// Metrics of which each has a name, a sentence and its values.
pub struct Families(Vec<MetricFamily>);

impl Families {
    pub(super) fn of_counters(counters: &Counters, work: &WorkCounters) -> Self {
        let mut families = Self(Vec::new());
        families.of_queries(counters);
        families.of_connections(counters);
        families.of_work(work);
        families.of_database(counters);
        let labels = vec![label("version", env!("CARGO_PKG_VERSION")), label("commit", COMMIT)];
        let build = metric(MetricType::GAUGE, labels, 1.0);
        families.add(MetricType::GAUGE, "sotto_build_info", "Which program this is", vec![build]);
        families
    }

    pub(super) fn sorted(mut self) -> Vec<MetricFamily> {
        self.0.sort_by(|a, b| a.name().cmp(b.name()));
        self.0
    }

    fn of_queries(&mut self, counters: &Counters) {
        self.outcomes("queries", "Replies to queries", &counters.queries);
        self.outcomes("parameter_requests", "Replies to parameter requests", &counters.parameters);
        self.outcomes("hints", "Replies to hint requests, one a shard", &counters.hints);
        let help =
            "Frames of queries answered as a whole: unreadable, or no room while they arrived";
        self.outcomes("batches_refused", help, &counters.frames_refused);
        table!(self: counters {
            queries_admitted "Queries taken into the queue"
            queries_cancelled "Queries taken out of the queue because their stream ended"
            queries_unclaimed "Queries whose stream ended while an engine had them"
        });
        let reasons = [
            ("queue_full", &counters.refused_queue_full),
            ("front_end_full", &counters.refused_front_end_full),
            ("connection_full", &counters.refused_connection_full),
            ("too_late", &counters.refused_too_late),
            ("no_answer_room", &counters.refused_no_answer_room),
            ("quarantined", &counters.refused_quarantined),
        ];
        self.counters("refusals", "Queries that were not admitted, and why", "reason", reasons);
        let help = "From an admitted query's request being read until its reply was written";
        self.histogram("answer_seconds", help, counters.answer_time.read());
        let help = "From a reply's encoding until its stream had taken all of it";
        self.histogram("send_seconds", help, counters.send_time.read());
    }

    fn of_connections(&mut self, counters: &Counters) {
        table!(self: counters {
            connections "Connections whose handshake succeeded"
            handshakes_failed "Handshakes that did not succeed"
            handshakes_displaced "Handshakes that made room for others"
            handshakes_ignored "Handshakes left unanswered because many were given up lately"
            addresses_asked "Handshakes begun again to see that the peer's address is its own"
            streams "Request streams opened"
            streams_abandoned "Streams that the peer gave up"
            bundles "Key bundles received"
            bundles_evicted "Key bundles that made room for others"
            received_bytes "Bytes of requests taken from streams"
            sent_bytes "Bytes of replies given to streams"
        });
        let reasons = [
            ("full", &counters.connections_refused),
            ("front_end_full", &counters.front_end_connections_refused),
            ("not_allowed", &counters.callers_refused),
        ];
        let help = "Connections that were not served, and why";
        self.counters("connections_refused", help, "reason", reasons);
        let reasons = [
            ("displaced", &counters.connections_displaced),
            ("idle", &counters.connections_idle),
            ("certificate_expired", &counters.certificates_expired),
        ];
        let help = "Connections that the server ended, and why";
        self.counters("connections_ended", help, "reason", reasons);
        let codes =
            StreamCode::ALL.map(|code| (code.name(), counters.streams_reset.get(code) as f64));
        let name = "sotto_streams_reset_total";
        self.labelled(MetricType::COUNTER, name, "Streams reset", "code", codes);
    }

    fn of_work(&mut self, work: &WorkCounters) {
        let by = [
            ("processor", &work.answered_by_processor),
            ("processor_after_failure", &work.answered_by_processor_after_failure),
            ("device", &work.answered_by_device),
            ("device_after_upload", &work.answered_by_device_after_upload),
        ];
        self.counters("answers", "Queries answered, and by whom", "by", by);
        self.counter("device_renewals", "Devices recreated", &work.renewals);
        let help = "Attempts to recreate a device that failed";
        self.counter("device_renewals_failed", help, &work.renewals_failed);
        table!(self: work {
            device_failures "Calls at which a device failed"
            uploads "Shards uploaded to devices"
            uploads_failed "Shards that could not be uploaded"
        });
        let help = "From a query's admission until an engine took it";
        self.histogram("queue_seconds", help, work.queue_time.read());
        let help = "Scan of one call of the processor's engine, added up over its threads";
        self.histogram("scan_seconds", help, work.scan_time.read());
        let help = "Pack of one call of the processor's engine, added up over its threads";
        self.histogram("pack_seconds", help, work.pack_time.read());
        self.histogram(
            "upload_seconds",
            "Upload of one shard to a device",
            work.upload_time.read(),
        );
        let help = "Queries of one shard that an engine answered together";
        self.histogram("batch_queries", help, work.batch_queries.read());
    }

    fn of_database(&mut self, counters: &Counters) {
        let results = [
            ("changed", &counters.reloads_changed),
            ("unchanged", &counters.reloads_unchanged),
            ("refused", &counters.reloads_refused),
        ];
        let help = "Times the database was read again, and what came of it";
        self.counters("reloads", help, "result", results);
        table!(self: counters {
            scrub_bytes "Bytes of shards read to see that they are undamaged"
            scrub_problems "Damages found thereby"
        });
    }

    /// The set of outcomes is closed: docs/wire.md, "Status codes".
    fn outcomes(&mut self, name: &str, help: &str, by: &ByStatus) {
        let outcomes =
            Status::ALL.map(|status| (status.name().to_ascii_lowercase(), by.get(status) as f64));
        let name = format!("sotto_{name}_total");
        let outcomes = outcomes.iter().map(|(name, count)| (&**name, *count));
        self.labelled(MetricType::COUNTER, &name, help, "outcome", outcomes);
    }

    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: [(&str, &Counter); N],
    ) {
        let values = values.map(|(label, counter)| (label, counter.get() as f64));
        self.labelled(MetricType::COUNTER, &format!("sotto_{name}_total"), help, label, values);
    }

    fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        let counter = metric(MetricType::COUNTER, Vec::new(), counter.get() as f64);
        self.add(MetricType::COUNTER, &format!("sotto_{name}_total"), help, vec![counter]);
    }

    /// Processor time of the process, in seconds.
    pub fn process_cpu_seconds(&mut self, seconds: f64) {
        let help = "Processor time of the process, of all its threads";
        let counter = metric(MetricType::COUNTER, Vec::new(), seconds);
        self.add(MetricType::COUNTER, "process_cpu_seconds_total", help, vec![counter]);
    }

    /// A gauge by its full name; NaN where its value is not known.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let gauge = metric(MetricType::GAUGE, Vec::new(), value);
        self.add(MetricType::GAUGE, name, help, vec![gauge]);
    }

    /// A gauge with a value for each of a closed set of labels.
    pub fn gauges(&mut self, name: &str, help: &str, by: &str, values: &[(&str, f64)]) {
        self.labelled(MetricType::GAUGE, name, help, by, values.iter().copied());
    }

    fn labelled<'a>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        by: &str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) {
        let values = values.into_iter();
        let metrics = values.map(|(name, value)| metric(kind, vec![label(by, name)], value));
        self.add(kind, name, help, metrics.collect());
    }

    fn histogram(&mut self, name: &str, help: &str, seen: Distribution) {
        let mut value = HistogramValue::default();
        value.set_sample_count(seen.count);
        value.set_sample_sum(seen.sum);
        let buckets = seen.at_most.iter().map(|&(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        value.set_bucket(buckets.collect());
        let mut metric = Metric::default();
        metric.set_histogram(value);
        self.add(MetricType::HISTOGRAM, &format!("sotto_{name}"), help, vec![metric]);
    }

    fn add(&mut self, kind: MetricType, name: &str, help: &str, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}

fn metric(kind: MetricType, labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut metric = Metric::from_label(labels);
    if kind == MetricType::COUNTER {
        let mut counter = CounterValue::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = GaugeValue::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}
