//! Stub.

pub mod certificates;
