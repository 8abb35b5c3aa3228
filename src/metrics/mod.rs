//! The metrics for Prometheus, in the text format of the crate `prometheus`.
//!
//! Nothing is counted here, and nothing costs anything until a scrape. Labels come from closed
//! sets: an outcome, a reason, a code; never from a query, a shard's number or an address. Counters
//! are in `families.rs`; the server adds its gauges. A test compares all names with
//! `tests/metrics.txt`.

mod counters;
mod families;

use prometheus::TextEncoder;

pub use counters::{ByCode, ByStatus, Counters};
pub use families::Families;

use crate::worker::WorkCounters;

/// What [`text`] is.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Every metric, as Prometheus reads it; `add_gauges` adds what is not counted.
pub fn text(
    counters: &Counters,
    work: &WorkCounters,
    add_gauges: impl FnOnce(&mut Families),
) -> String {
    let mut families = Families::of_counters(counters, work);
    add_gauges(&mut families);
    let text = TextEncoder::new().encode_to_string(&families.sorted());
    text.expect("this is a bug: a metric that cannot be written down")
}
