//! The numbers for Prometheus: reads plain counters that the others fill, and says them in its text
//! format.
//!
//! Nothing is counted here, nothing costs anything until somebody asks. Labels come from closed
//! sets: an outcome, a reason, a code; never from a query, a shard's number or an address. What
//! else there is at the moment ([`Gauges`]) is asked of whoever makes a [`Metrics`]. Every name is
//! in `families.rs`; a test compares them with a list that dashboards and alerts rely on.

mod counters;
mod families;

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};

pub use counters::{ByCode, ByStatus, Counters};

use crate::worker::WorkCounters;

/// What a server is like at a moment.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Connections that are served.
    pub connections: usize,
    /// Request streams open.
    pub streams: usize,
    /// Key bundles kept.
    pub bundles: usize,
    /// Queries that wait for an engine.
    pub queued_queries: usize,
    /// Memory they may take.
    pub queued_bytes: usize,
    /// Shards of the database.
    pub shards: u32,
    /// Of these, on devices; one that two devices have counts twice.
    pub resident_shards: usize,
    /// Memory of devices they take.
    pub resident_bytes: u64,
    /// Devices that take queries.
    pub devices_up: usize,
    /// Devices that failed and are not yet recreated.
    pub devices_down: usize,
    /// About the database.
    pub epochs: Epochs,
    /// When the served certificate expires, in seconds since 1970; none where it does not say.
    pub certificate_expiry_timestamp_seconds: Option<i64>,
    /// The bounds of memory, by part.
    pub memory_budget_bytes: Vec<(&'static str, u64)>,
    /// What is taken of it, by part.
    pub memory_used_bytes: Vec<(&'static str, u64)>,
    /// Memory that the process may have, by machine and control group; none where nobody says.
    pub machine_memory_bytes: Option<u64>,
    /// Whether it is leaving.
    pub draining: bool,
    /// Whether it should be sent queries.
    pub ready: bool,
    /// When it was started, in seconds since 1970.
    pub start_time_seconds: f64,
    /// Processor time of the process so far, of all its threads, in user and system.
    pub process_cpu_seconds: f64,
    /// Memory of the process, shards in the page cache that it looks at included.
    pub process_resident_memory_bytes: u64,
}

/// Which content is served, and in what state it is.
#[derive(Debug, Clone, Default)]
pub struct Epochs {
    /// The epoch that queries are answered from.
    pub served: u64,
    /// The epoch on disk, as far as it was looked at.
    pub expected: u64,
    /// When the served epoch was signed, in seconds since 1970.
    pub created_timestamp_seconds: u64,
    /// When clients refuse it, in seconds since 1970.
    pub expiry_timestamp_seconds: u64,
    /// Shards that are not served: their files are damaged.
    pub quarantined_shards: usize,
    /// Seconds since every byte was last found undamaged, or since the server was started.
    pub scrub_age_seconds: f64,
}

/// All numbers of one server.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Reads these counters, and asks for the rest each time.
    pub fn new(
        counters: Arc<Counters>,
        work: Arc<WorkCounters>,
        gauges: impl Fn() -> Gauges + Send + Sync + 'static,
    ) -> Self {
        let mut numbers = Numbers { counters, work, gauges: Box::new(gauges), described: vec![] };
        numbers.described = numbers.collect().iter().map(describe).collect();
        let registry = Registry::new();
        let registered = registry.register(Box::new(numbers));
        registered.expect("this is a bug: two metrics of one name");
        Self { registry }
    }

    /// As Prometheus reads them.
    pub fn text(&self) -> String {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        text.expect("this is a bug: a metric that cannot be written down")
    }

    /// What [`Metrics::text`] is.
    pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;
}

fn describe(family: &MetricFamily) -> Desc {
    let labels = family.get_metric().first().map(|metric| metric.get_label());
    let labels = labels.unwrap_or_default().iter().map(|label| label.name().to_owned()).collect();
    let (name, help) = (family.name().to_owned(), family.help().to_owned());
    Desc::new(name, help, labels, HashMap::new()).expect("this is a bug: a metric's name")
}

/// The counters, as the registry wants to read them.
struct Numbers {
    counters: Arc<Counters>,
    work: Arc<WorkCounters>,
    gauges: Box<dyn Fn() -> Gauges + Send + Sync>,
    described: Vec<Desc>,
}

impl Collector for Numbers {
    fn desc(&self) -> Vec<&Desc> {
        self.described.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        families::all(&self.counters, &self.work, &(self.gauges)())
    }
}
