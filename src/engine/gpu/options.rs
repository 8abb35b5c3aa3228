//! How a GPU is used, and failures that tests order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a GPU is used; the defaults are what its limits allow.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)] // Names say it.
pub struct GpuOptions {
    /// Device memory for shards, in bytes. By default nearly all on a device with memory of its
    /// own.
    pub shard_bytes: Option<u64>,
    /// Largest piece of a shard in one binding, in bytes: for tests of how shards are cut.
    pub binding_bytes: Option<u64>,
    /// Products of one dispatch, about: for tests of how work is cut.
    pub dispatch_products: Option<u64>,
    /// Key bundles that the device keeps: for tests of how they make room.
    pub bundle_slots: Option<usize>,
    pub faults: Faults,
}

/// A fault that a test can cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Fault {
    /// The device goes away before a submission.
    LostAtSubmission,
    /// The device goes away before answers are read back.
    LostAtReadBack,
    OutOfMemory,
    NotRenewed,
}

/// Failures on order, for tests; clones are the same. None happens unless it was armed. As little
/// as possible is pretended: the device is really destroyed, and a buffer is really refused.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<[AtomicU64; 4]>);

impl Faults {
    /// Has a fault happen once, at the `count`-th occasion from now, of which the next is 1;
    /// [`Fault::NotRenewed`] at each of the next `count`. With 0 it does not happen.
    pub fn arm(&self, fault: Fault, count: u64) {
        self.0[fault as usize].store(count, Ordering::SeqCst);
    }

    /// Occasions until an armed fault happens; 0 once it has happened.
    pub fn left(&self, fault: Fault) -> u64 {
        self.0[fault as usize].load(Ordering::SeqCst)
    }

    /// Counts an occasion; whether the fault happens at it.
    pub(super) fn happens(&self, fault: Fault) -> bool {
        let next = |left: u64| left.checked_sub(1);
        let before = self.0[fault as usize].fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        before.is_ok_and(|left| left == 1 || fault == Fault::NotRenewed)
    }
}
