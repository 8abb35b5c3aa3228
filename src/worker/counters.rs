//! What workers count: plain numbers that only grow, none by shard or by query.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

/// Everything workers count. A device is an engine with a store, such as a GPU.
#[derive(Debug, Default)]
pub struct WorkCounters {
    /// Queries answered by the device that had their shard when they came.
    pub answered_by_device: Counter,
    /// Queries answered by a device whose shard was not there yet when they came.
    pub answered_by_device_after_upload: Counter,
    /// Queries answered by the processor because their shard was on no device that is up, or
    /// because it was sooner done than the upload.
    pub answered_by_processor: Counter,
    /// Queries answered by the processor because a device failed at them.
    pub answered_by_processor_after_failure: Counter,
    /// Shards brought up to devices.
    pub uploads: Counter,
    /// Shards that could not be brought up.
    pub uploads_failed: Counter,
    /// Calls at which a device failed.
    pub device_failures: Counter,
    /// Devices made anew.
    pub renewals: Counter,
    /// Attempts to make a device anew that failed.
    pub renewals_failed: Counter,
}
