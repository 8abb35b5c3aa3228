//! The harness under the path it had.

#[path = "../harness/mod.rs"]
mod all;

pub(crate) use all::*;
