//! Answers on a GPU: the kernels of `shaders/`, through wgpu.
//!
//! Only queries and keys go to the device and only finished responses come back; shards are
//! uploaded when they are asked for and stay while they fit ([`resident`]), key bundles while
//! they live ([`bundles`]). A call is cut into batches, at most 32 queries for one shard each;
//! some batches make a submission, and submissions overlap ([`opened`]).
//!
//! Read next: [`engine`] (how a device comes and goes), [`opened`], [`batch`] (what is
//! dispatched), [`kernels`] (texts and tiles), then `shaders/`.

mod batch;
mod bundles;
mod device;
mod engine;
mod kernels;
mod opened;
mod options;
mod pipelines;
mod resident;
mod staging;
#[cfg(test)]
mod tests;

pub(super) use self::device::infos;
pub use self::engine::GpuEngine;
pub use self::options::{Fault, Faults, GpuOptions};
