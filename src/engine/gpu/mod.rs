//! Answers on a GPU: the kernels of `shaders/`, through wgpu. Only queries and keys go to the
//! device and only responses come back; shards stay on it while they fit ([`resident`]), key
//! bundles while they live ([`bundles`]).
//!
//! Read next: [`engine`] (how a device comes and goes), [`opened`], [`batch`] (what is dispatched),
//! [`kernels`] (texts and tiles), then `shaders/`.

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
