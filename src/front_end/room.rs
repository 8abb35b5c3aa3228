//! What requests share: memory for their bodies, and processors for their work.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use axum::body::Bytes;

/// A unit of the memory for bodies.
const UNIT: usize = 1 << 10;

/// Memory for bodies of requests and replies.
pub(super) struct Room {
    units: Arc<Semaphore>,
    all: usize,
}

/// Memory that a body takes, until this is dropped.
pub(super) struct Taken(OwnedSemaphorePermit);

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        let all = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(all)), all }
    }

    /// Memory of this size; none while others have it.
    pub(super) fn take(&self, bytes: usize) -> Option<Taken> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        self.units.clone().try_acquire_many_owned(units).ok().map(Taken)
    }

    pub(super) fn used_bytes(&self) -> usize {
        (self.all - self.units.available_permits()) * UNIT
    }
}

impl Taken {
    /// Adds memory that was taken for the same request.
    pub(super) fn add(&mut self, more: Self) {
        self.0.merge(more.0);
    }

    /// A body that keeps the memory until whoever reads it has it all.
    pub(super) fn hold(self, body: Vec<u8>) -> Bytes {
        Bytes::from_owner(Held { body, _taken: self })
    }
}

struct Held {
    body: Vec<u8>,
    _taken: Taken,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Runs what computes on threads of its own, at most as many at once as there are processors.
#[derive(Clone)]
pub(super) struct Compute(Arc<Semaphore>);

impl Compute {
    pub(super) fn new() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(processors)))
    }

    /// The result of `work`; none if it panicked. Work that has begun is finished even if nobody
    /// waits for it any more, and occupies its processor until then.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let processor = self.0.clone().acquire_owned().await.ok()?;
        let run = move || {
            let _processor = processor;
            work()
        };
        spawn_blocking(run).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_held_until_the_body_is_gone() {
        let room = Room::new(10 << 10);
        let mut taken = room.take(4_000).unwrap();
        assert_eq!(room.used_bytes(), 4 << 10);
        assert!(room.take(7 << 10).is_none());
        taken.add(room.take(6 << 10).unwrap());
        assert!(room.take(1).is_none());
        let body = taken.hold(vec![1, 2, 3]);
        let part = body.slice(1..);
        drop(body);
        assert!(room.take(1).is_none());
        drop(part);
        assert_eq!(room.used_bytes(), 0);
    }

    #[tokio::test]
    async fn work_runs_and_a_panic_takes_nothing_with_it() {
        let compute = Compute::new();
        for _ in 0..100 {
            assert!(compute.run(|| panic!("in a test")).await.map(|()| 0).is_none());
        }
        assert_eq!(compute.run(|| 7).await, Some(7));
    }
}
