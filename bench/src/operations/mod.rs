//! `sotto-bench build`, `startup` and `reload`: what a database and a server cost beside answering.
//!
//! Real files in a temporary folder, real processes of this program ([`server`]), and real
//! look-ups, each compared with what was built. These commands do not put a server under load to
//! its limit ([`super::load`]) and do not measure engines alone.

mod build;
mod files;
mod place;
mod reload;
mod server;
mod startup;

pub(crate) use build::{build, build_once};
pub(crate) use files::{disk_bytes, drop_pages, memory_bytes};
pub(crate) use place::{AS_SOTTO, OperationOptions, Place};
pub(crate) use reload::reload;
pub(crate) use startup::startup;
