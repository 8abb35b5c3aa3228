//! Memory that all callers share, in bytes: requests that are read, answers, replies that wait.
//!
//! A caller may have as much as is left for others: one alone gets half, and however many take all
//! they can there is room for one more. Nothing here waits unless it is told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::schedule::Caller;

/// A bound on bytes, and who has how many of them.
pub(super) struct Room {
    state: Mutex<State>,
    /// Told whenever some are given back.
    freed: Notify,
}

struct State {
    all: usize,
    free: usize,
    /// By caller; none with nothing stays.
    held: HashMap<u64, usize>,
    /// Most that were taken since this was last asked for.
    peak: usize,
}

/// Bytes that are taken, given back when this is dropped.
pub(super) struct Held {
    room: Arc<Room>,
    caller: u64,
    bytes: usize,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        let state = State { all: bytes, free: bytes, held: HashMap::new(), peak: 0 };
        Arc::new(Self { state: Mutex::new(state), freed: Notify::new() })
    }

    /// So many bytes, unless that is more than would be left.
    pub(super) fn take(self: &Arc<Self>, caller: Caller, bytes: usize) -> Option<Held> {
        let mut held = Held { room: self.clone(), caller: caller.number, bytes: 0 };
        held.grow(bytes).then_some(held)
    }

    /// The same, as soon as there is room, within a time.
    pub(super) async fn wait(
        self: &Arc<Self>,
        caller: Caller,
        bytes: usize,
        patience: Duration,
    ) -> Option<Held> {
        let waiting = async {
            loop {
                let freed = self.freed.notified();
                tokio::pin!(freed);
                // From here on nothing that is given back is missed.
                freed.as_mut().enable();
                if let Some(held) = self.take(caller, bytes) {
                    return held;
                }
                freed.await;
            }
        };
        timeout(patience, waiting).await.ok()
    }

    /// Bytes that are taken.
    pub(super) fn taken(&self) -> usize {
        let state = self.lock();
        state.all - state.free
    }

    /// Most bytes that were taken at once since this was last called.
    pub(super) fn peak(&self) -> usize {
        let mut state = self.lock();
        let taken = state.all - state.free;
        std::mem::replace(&mut state.peak, taken)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Takes so many more, or says that there is no room for them.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let mut state = self.room.lock();
        let has = state.held.get(&self.caller).copied().unwrap_or(0);
        let Some(left) = state.free.checked_sub(bytes).filter(|&left| has + bytes <= left) else {
            return false;
        };
        state.free = left;
        state.peak = state.peak.max(state.all - left);
        if has + bytes > 0 {
            state.held.insert(self.caller, has + bytes);
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut state = self.room.lock();
        state.free += self.bytes;
        let has = state.held.get_mut(&self.caller).expect("this is a bug: more given than taken");
        *has -= self.bytes;
        if *has == 0 {
            state.held.remove(&self.caller);
        }
        drop(state);
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(number: u64) -> Caller {
        Caller { number, share: 1 }
    }

    #[test]
    fn one_alone_gets_half_and_there_is_room_for_one_more() {
        let room = Room::new(1_200);
        let take_all = |number: u64| {
            let taken: Vec<_> = std::iter::from_fn(|| room.take(caller(number), 1)).collect();
            (taken.len(), taken)
        };
        let (first, held) = take_all(0);
        assert_eq!(first, 600);
        let (second, others) = take_all(1);
        assert_eq!(second, 300);
        let (third, more) = take_all(2);
        assert_eq!((third, room.taken()), (150, 1_050));
        drop((others, more));
        assert_eq!((room.taken(), room.peak(), room.peak()), (600, 1_050, 600));
        drop(held);
        let state = room.lock();
        assert_eq!((state.free, state.held.len()), (1_200, 0));
    }

    #[test]
    fn what_does_not_fit_leaves_what_there_is() {
        let room = Room::new(100);
        assert!(room.take(caller(0), 51).is_none() && room.take(caller(0), usize::MAX).is_none());
        let mut held = room.take(caller(0), 0).unwrap();
        assert!(held.grow(30) && held.grow(20) && !held.grow(1));
        assert_eq!(room.taken(), 50);
        drop(held);
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test]
    async fn who_waits_is_told() {
        let room = Room::new(100);
        let held = room.take(caller(0), 50).unwrap();
        let soon = Duration::from_millis(1);
        assert!(room.wait(caller(0), 10, soon).await.is_none());
        let waiting = room.wait(caller(0), 10, Duration::from_secs(60));
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there was no room"),
            () = std::future::ready(()) => drop(held),
        }
        assert_eq!(waiting.await.unwrap().bytes, 10);
    }
}
