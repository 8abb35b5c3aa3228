//! `sotto-bench`: measures sotto and plans hosts from what was measured.
//!
//! [`load`] puts a server under load; `kernel` and `gpu` measure engines beside what the machine
//! could do at best; `operations` measures building, starting and reloading. Each writes a
//! [`record`]; [`found`] reads records of every kind. [`plan`] makes a capacity plan of records and
//! a scenario, [`html`] draws both as a page, [`compare`] compares two records. [`observer`]
//! simulates what is linked by shard numbers. [`commands`] is the command line. bench/README.md
//! explains every figure.

pub mod record;

mod endpoint;
#[cfg(feature = "front-end")]
pub(crate) mod federation;
pub mod load;
pub(crate) mod operations;

pub mod found;
pub(crate) mod numbers;
pub(crate) mod table;
pub(crate) mod units;

pub mod plan;

pub(crate) mod compare;
pub mod html;
pub(crate) mod observer;

pub(crate) mod common;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
pub(crate) mod kernel;
pub(crate) mod summary;

pub mod commands;

pub use endpoint::Endpoint;

/// Why there is no record: what was found, what was expected and what to do.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;
