//! The metrics for Prometheus: reads counters that the other modules fill, and writes them in the
//! text format with the crate `prometheus`, which the user of this project chose.
//!
//! Nothing is counted here, and nothing costs anything until a scrape. Labels come from closed
//! sets: an outcome, a reason, a code; never from a query, a shard's number or an address. The
//! creator of a [`Metrics`] supplies the [`Gauges`]. Every name is in `families.rs`; a test
//! compares them with `tests/metrics.txt`.

mod counters;
mod families;

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};

pub use counters::{ByCode, ByStatus, Counters, Gauges};

use crate::worker::WorkCounters;

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
