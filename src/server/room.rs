//! Memory that all front-ends share, in bytes: requests that are read, answers, replies that wait.
//!
//! Every front-end has a small share of its own that no other can take. Beyond it a front-end may
//! have as much as is left for the others: one alone gets half.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::schedule::FrontEnd;

pub(super) struct Room {
    state: Mutex<RoomState>,
    freed: Notify,
}

struct RoomState {
    all: usize,
    free: usize,
    /// What each front-end may always have.
    share: usize,
    /// All front-ends' shares together.
    shares: usize,
    /// What is taken of them.
    of_shares: usize,
    /// By front-end; none with nothing stays.
    held: HashMap<u64, usize>,
}

/// Bytes that are taken, given back when this is dropped.
pub(super) struct Reservation {
    room: Arc<Room>,
    front_end: u64,
    bytes: usize,
}

impl Room {
    /// So many bytes, of which each of so many front-ends may always have `wanted`, or less where
    /// their shares would be more than half of all.
    pub(super) fn new(bytes: usize, front_ends: usize, wanted: usize) -> Arc<Self> {
        let share = wanted.min(bytes / 2 / front_ends.max(1));
        let state = RoomState {
            all: bytes,
            free: bytes,
            share,
            shares: share * front_ends,
            of_shares: 0,
            held: HashMap::new(),
        };
        Arc::new(Self { state: Mutex::new(state), freed: Notify::new() })
    }

    /// So many bytes, unless they are more than a front-end may have.
    pub(super) fn take(self: &Arc<Self>, front_end: FrontEnd, bytes: usize) -> Option<Reservation> {
        let mut held = Reservation { room: self.clone(), front_end: front_end.number, bytes: 0 };
        held.grow(bytes).then_some(held)
    }

    /// The same, as soon as there is room, within a time.
    pub(super) async fn wait(
        self: &Arc<Self>,
        front_end: FrontEnd,
        bytes: usize,
        patience: Duration,
    ) -> Option<Reservation> {
        let waiting = async {
            loop {
                let freed = self.freed.notified();
                tokio::pin!(freed);
                // From here on nothing that is given back is missed.
                freed.as_mut().enable();
                if let Some(held) = self.take(front_end, bytes) {
                    return held;
                }
                freed.await;
            }
        };
        timeout(patience, waiting).await.ok()
    }

    pub(super) fn taken(&self) -> usize {
        let state = self.lock();
        state.all - state.free
    }

    fn lock(&self) -> MutexGuard<'_, RoomState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RoomState {
    fn take(&mut self, front_end: u64, bytes: usize) -> bool {
        let has = self.held.get(&front_end).copied().unwrap_or(0);
        let Some(left) = self.free.checked_sub(bytes) else { return false };
        let has_then = has + bytes;
        let of_shares = self.of_shares + has_then.min(self.share) - has.min(self.share);
        // Streams of connections that have just ended may still hold something: then there are more
        // front-ends than shares.
        let kept = self.shares.saturating_sub(of_shares);
        if has_then > self.share && (has_then > left || kept > left) {
            return false;
        }
        (self.free, self.of_shares) = (left, of_shares);
        if has_then > 0 {
            self.held.insert(front_end, has_then);
        }
        true
    }

    fn give_back(&mut self, front_end: u64, bytes: usize) {
        self.free += bytes;
        let has = self.held.get_mut(&front_end).expect("this is a bug: more given than taken");
        let had = *has;
        *has -= bytes;
        self.of_shares -= had.min(self.share) - (*has).min(self.share);
        if *has == 0 {
            self.held.remove(&front_end);
        }
    }
}

impl Reservation {
    /// Takes so many more; false where there is no room for them.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let taken = self.room.lock().take(self.front_end, bytes);
        self.bytes += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.lock().give_back(self.front_end, self.bytes);
            self.room.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front_end(number: u64) -> FrontEnd {
        FrontEnd { number, share: 1 }
    }

    /// As many single bytes as a front-end gets.
    fn take_all(room: &Arc<Room>, number: u64) -> Vec<Reservation> {
        std::iter::from_fn(|| room.take(front_end(number), 1)).collect()
    }

    #[test]
    fn one_alone_gets_half_and_there_is_room_for_one_more() {
        let room = Room::new(1_200, 0, 0);
        let [held, others, more] = [0, 1, 2].map(|number| take_all(&room, number));
        assert_eq!([held.len(), others.len(), more.len(), room.taken()], [600, 300, 150, 1_050]);
        drop((others, more));
        assert_eq!(room.taken(), 600);
        drop(held);
        let state = room.lock();
        assert_eq!((state.free, state.held.len()), (1_200, 0));
    }

    #[test]
    fn nobody_takes_the_share_of_another() {
        let room = Room::new(1_000, 10, 20);
        let held: Vec<_> = (0..10).map(|number| take_all(&room, number)).collect();
        let taken: Vec<_> = held.iter().map(Vec::len).collect();
        // Each as much as is left, until what is left is the shares of those still to come.
        assert_eq!(taken, [500, 250, 110, 20, 20, 20, 20, 20, 20, 20]);
        drop(held);
        // Shares that would be more than half of all are smaller.
        let room = Room::new(1_000, 10, 200);
        let all: Vec<_> = (0..10).map(|number| room.take(front_end(number), 50).unwrap()).collect();
        assert!(room.take(front_end(0), 451).is_none());
        drop(all);
        let state = room.lock();
        assert_eq!((state.free, state.of_shares, state.held.len()), (1_000, 0, 0));
    }

    #[test]
    fn what_does_not_fit_leaves_what_there_is() {
        let room = Room::new(100, 0, 0);
        assert!([51, usize::MAX].iter().all(|&bytes| room.take(front_end(0), bytes).is_none()));
        let mut held = room.take(front_end(0), 0).unwrap();
        assert!(held.grow(30) && held.grow(20) && !held.grow(1));
        assert_eq!(room.taken(), 50);
        drop(held);
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test]
    async fn who_waits_is_told() {
        let room = Room::new(100, 0, 0);
        let held = room.take(front_end(0), 50).unwrap();
        let soon = Duration::from_millis(1);
        assert!(room.wait(front_end(0), 10, soon).await.is_none());
        let waiting = room.wait(front_end(0), 10, Duration::from_secs(60));
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there was no room"),
            () = std::future::ready(()) => drop(held),
        }
        assert_eq!(waiting.await.unwrap().bytes, 10);
    }
}
