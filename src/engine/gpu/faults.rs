//! Failures on order, for tests: what a device does only when it is broken or full.
//!
//! None happens unless it was armed, each once an arming. As little as possible is pretended: the
//! device is really destroyed, and buffers that were refused are really none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The device goes away before a submission.
    LostAtSubmission,
    /// The device goes away before answers are read back.
    LostAtReadBack,
    /// There is no memory for a buffer.
    OutOfMemory,
    /// The device cannot be recreated.
    NotRenewed,
}

/// Which failures are to come; clones are the same. For tests.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<[AtomicU64; 4]>);

impl Faults {
    /// Has a fault happen at the `count`-th occasion from now, of which the next is 1;
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
