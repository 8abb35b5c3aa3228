//! `sotto-bench load`: a load generator whose latencies a slow server cannot hide.
//!
//! Open loop: when queries are due is fixed before the first one is sent, and a latency counts
//! from then, so that a slow server cannot slow its own measurement down (no coordinated omission).
//! Each front-end is a [`sotto::client::Client`] with a connection of its own, whose trust is
//! checked as for any other. The queries are encrypted under fresh secrets, and each is sent once.
//!
//! It does not repeat what was refused, adapt to the server, or keep secrets from run to run.
//! A run goes through [`arrivals`] (when), [`prepare`] (what), [`run`] (sending), [`verify`]
//! (whether the answer was right), [`ledger`] (what was counted), [`search`] (the next rate) and
//! [`report`]. [`server_side`] reads the server's own metrics.

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
pub use ledger::{Counts, Intervals};
pub use options::{Goal, LoadOptions};
pub use report::{
    HEADING, Prepared, Quantiles, Report, Row, SCHEMA, ServerFacts, ServerSide, Trial,
};
pub use run::load;
pub(crate) use search::BEYOND;
pub use search::Limit;
