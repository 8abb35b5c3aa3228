//! `sotto-bench load`: an open-loop load generator, whose latencies a slow server cannot hide.
//!
//! When queries are due is fixed before the first one is sent, and a latency counts from then (no
//! coordinated omission). Each front-end is a [`sotto::client::Client`] with a connection of its
//! own; each query is encrypted under a fresh secret and sent once. A run goes through [`arrivals`]
//! (when), [`prepare`] (what), [`run`] (sending), [`verify`] (whether the answer was right),
//! [`ledger`] (what was counted), [`search`] (the next rate), [`server_side`] (the server's own
//! metrics) and [`report`].

mod arrivals;
pub(crate) mod ledger;
mod options;
mod prepare;
pub(crate) mod report;
mod run;
pub(crate) mod search;
mod server_side;
mod verify;

pub use arrivals::Arrivals;
pub(crate) use arrivals::Draws;
pub use ledger::{Counts, Intervals};
pub(crate) use options::share;
pub use options::{Goal, LoadOptions};
pub use report::{
    HEADING, Prepared, Quantiles, Report, Row, SCHEMA, ServerFacts, ServerSide, Trial,
};
pub use run::load;
pub(crate) use search::BEYOND;
pub use search::Limit;
