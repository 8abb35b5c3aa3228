//! Every metric: its name, what it says, where its number comes from.

use prometheus::proto::{
    Bucket, Counter as CounterValue, Gauge as GaugeValue, Histogram as HistogramValue, LabelPair,
    Metric, MetricFamily, MetricType,
};

use super::counters::{ByStatus, Counters, Gauges};
use crate::wire::{Status, StreamCode};
use crate::worker::{Counter, Distribution, WorkCounters};

/// The commit that this program was built from, where the build knew it.
const COMMIT: &str = match option_env!("SOTTO_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// A table of metrics without labels that have the names of the fields they are read from.
macro_rules! table {
    ($families:ident.$kind:ident: $of:ident { $($field:ident $help:literal)* }) => {
        $($families.$kind(stringify!($field), $help, table!(@$kind $of $field));)*
    };
    (@counter $of:ident $field:ident) => { &$of.$field };
    (@gauge $of:ident $field:ident) => { $of.$field as f64 };
    (@histogram $of:ident $field:ident) => { $of.$field.read() };
}

/// All of them.
pub(super) fn all(counters: &Counters, work: &WorkCounters, gauges: &Gauges) -> Vec<MetricFamily> {
    let mut families = Families(Vec::new());
    families.of_queries(counters);
    families.of_connections(counters);
    families.of_work(work);
    families.of_epochs(counters, gauges);
    families.of_state(gauges);
    families.0
}

struct Families(Vec<MetricFamily>);

impl Families {
    fn of_queries(&mut self, counters: &Counters) {
        self.outcomes("queries", "Replies to queries", &counters.queries);
        self.outcomes("parameter_requests", "Replies to parameter requests", &counters.parameters);
        self.outcomes("hints", "Replies to hint requests, one a shard", &counters.hints);
        let help =
            "Frames of queries answered as a whole: unreadable, or no room while they arrived";
        self.outcomes("batches_refused", help, &counters.frames_refused);
        table!(self.counter: counters {
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
        table!(self.counter: counters {
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
        self.labelled(MetricType::COUNTER, "streams_reset_total", "Streams reset", "code", codes);
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
        table!(self.counter: work {
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

    fn of_epochs(&mut self, counters: &Counters, gauges: &Gauges) {
        let results = [
            ("changed", &counters.reloads_changed),
            ("unchanged", &counters.reloads_unchanged),
            ("refused", &counters.reloads_refused),
        ];
        let help = "Times the database was read again, and what came of it";
        self.counters("reloads", help, "result", results);
        table!(self.counter: counters {
            scrub_bytes "Bytes of shards read to see that they are undamaged"
            scrub_problems "Damages found thereby"
        });
        table!(self.gauge: gauges {
            served_epoch "Epoch that is answered from"
            expected_epoch "Epoch on disk"
            database_created_timestamp_seconds "When the served epoch was signed, since 1970"
            database_expiry_timestamp_seconds "When clients refuse it, since 1970"
            quarantined_shards "Shards not served because their files are damaged"
            scrub_age_seconds "Time since every byte was last found undamaged, or since the start"
        });
    }

    fn of_state(&mut self, gauges: &Gauges) {
        table!(self.gauge: gauges {
            connections "Connections served now"
            streams "Request streams open now"
            bundles "Key bundles kept now"
            queued_queries "Queries that wait for an engine"
            queued_bytes "Memory they may take"
            shards "Shards of the database"
            resident_shards "Shards on devices, each device's"
            resident_bytes "Memory of devices that shards take"
            start_time_seconds "When the server was started, seconds since 1970"
        });
        let states = [("up", gauges.devices_up as f64), ("down", gauges.devices_down as f64)];
        self.labelled(MetricType::GAUGE, "devices", "Devices such as GPUs", "state", states);
        let help = "When the served certificate expires, seconds since 1970";
        let expiry = gauges.certificate_expiry_timestamp_seconds;
        let expiry = expiry.map_or(f64::NAN, |seconds| seconds as f64);
        self.gauge("certificate_expiry_timestamp_seconds", help, expiry);
        let help = "Memory that the process may have: the machine's or its control group's";
        let machine = gauges.machine_memory_bytes.map_or(f64::NAN, |bytes| bytes as f64);
        self.gauge("machine_memory_bytes", help, machine);
        let parts = |parts: &[(&'static str, u64)]| -> Vec<(&'static str, f64)> {
            parts.iter().map(|&(part, bytes)| (part, bytes as f64)).collect()
        };
        let help = "Most memory that connections and queues may take, by part";
        let budget = parts(&gauges.memory_budget_bytes);
        self.labelled(MetricType::GAUGE, "memory_budget_bytes", help, "part", budget);
        let help = "Memory of it that is taken, by part";
        let used = parts(&gauges.memory_used_bytes);
        self.labelled(MetricType::GAUGE, "memory_used_bytes", help, "part", used);
        let help = "Whether the server is leaving";
        self.gauge("draining", help, f64::from(gauges.draining));
        let help = "Whether the server should be sent queries";
        self.gauge("ready", help, f64::from(gauges.ready));
        self.process(gauges);
    }

    fn process(&mut self, gauges: &Gauges) {
        let help = "Processor time of the process, of all its threads";
        let counter = metric(MetricType::COUNTER, Vec::new(), gauges.process_cpu_seconds);
        self.named(MetricType::COUNTER, "process_cpu_seconds_total", help, vec![counter]);
        let help = "Memory of the process, with the pages of shards it looks at";
        let bytes = gauges.process_resident_memory_bytes as f64;
        let bytes = metric(MetricType::GAUGE, Vec::new(), bytes);
        self.named(MetricType::GAUGE, "process_resident_memory_bytes", help, vec![bytes]);
        let labels = vec![label("version", env!("CARGO_PKG_VERSION")), label("commit", COMMIT)];
        let program = metric(MetricType::GAUGE, labels, 1.0);
        self.named(MetricType::GAUGE, "sotto_build_info", "Which program this is", vec![program]);
    }

    /// The set of outcomes is closed: docs/wire.md, "Status codes".
    fn outcomes(&mut self, name: &str, help: &str, by: &ByStatus) {
        let outcomes =
            Status::ALL.map(|status| (status.name().to_ascii_lowercase(), by.get(status) as f64));
        let name = format!("{name}_total");
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
        self.labelled(MetricType::COUNTER, &format!("{name}_total"), help, label, values);
    }

    fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        let kind = MetricType::COUNTER;
        let metrics = vec![metric(kind, Vec::new(), counter.get() as f64)];
        self.named(kind, &format!("sotto_{name}_total"), help, metrics);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let kind = MetricType::GAUGE;
        self.named(kind, &format!("sotto_{name}"), help, vec![metric(kind, Vec::new(), value)]);
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
        self.named(kind, &format!("sotto_{name}"), help, metrics.collect());
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
        self.named(MetricType::HISTOGRAM, &format!("sotto_{name}"), help, vec![metric]);
    }

    fn named(&mut self, kind: MetricType, name: &str, help: &str, metrics: Vec<Metric>) {
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
