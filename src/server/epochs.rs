//! The databases that are served: the newest, and older ones until their time is up.
//!
//! A query names its epoch and is answered from that epoch's shard. Schedule, placement and workers
//! know neither epochs nor shard numbers: they know a shard by its *slot*, a number for the content
//! of one opened file. A shard that a new epoch left unchanged keeps its slot, so queries of both
//! epochs are batched together and devices keep their copy. A slot is never given twice while
//! anything remembers it. This module reads no clock: `now` is an argument.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::{Duration, Instant};

use crate::limits;
use crate::shard::{Database, Shard};
use crate::wire::Bytes;
use crate::wire::message::PirParameterResponse;
use crate::worker::{Content, Shards};

pub(super) struct Found {
    pub(super) shard: Arc<Shard>,
    pub(super) slot: u32,
}

/// Why a shard is not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    Epoch,
    Shard,
    Quarantined,
}

/// What every client of an epoch is sent. All replies share the buffers.
fn published(database: &Database) -> PirParameterResponse {
    PirParameterResponse {
        parameters: Bytes::copy_from_slice(&database.manifest().parameters.0),
        signature: Bytes::copy_from_slice(&database.manifest().signature.0),
        operator_key: Bytes::copy_from_slice(database.operator_key()),
        hint_digests: Bytes::copy_from_slice(database.hint_digests()),
        ..Default::default()
    }
}

pub(super) struct Epochs {
    state: RwLock<EpochTable>,
    /// How long an epoch is answered after the next one came.
    keep: Duration,
}

struct EpochTable {
    newest: Served,
    /// The oldest first, with the time until which each is answered.
    before: VecDeque<(Served, Instant)>,
    slots: HashMap<u32, Weak<Shard>>,
    next_slot: u32,
    /// Some slots may be nobody's.
    stale: bool,
}

struct Served {
    database: Arc<Database>,
    published: PirParameterResponse,
    /// By shard.
    slots: Vec<u32>,
}

impl Epochs {
    pub(super) fn new(database: Arc<Database>, keep: Duration) -> Self {
        let published = published(&database);
        let newest = Served { database: database.clone(), published, slots: Vec::new() };
        let (before, slots) = (VecDeque::new(), HashMap::new());
        let mut state = EpochTable { newest, before, slots, next_slot: 0, stale: false };
        state.newest.slots = state.slots_for(&database);
        Self { state: RwLock::new(state), keep }
    }

    pub(super) fn database(&self) -> Arc<Database> {
        self.read().newest.database.clone()
    }

    pub(super) fn published(&self) -> PirParameterResponse {
        self.read().newest.published.clone()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.read().newest.database.epoch()
    }

    pub(super) fn find(&self, now: Instant, epoch: u64, index: u32) -> Result<Found, Absent> {
        let state = self.read();
        let served = state.served(now, epoch).ok_or(Absent::Epoch)?;
        let shard = served.database.shard(index).ok_or(Absent::Shard)?;
        if shard.is_quarantined() {
            return Err(Absent::Quarantined);
        }
        Ok(Found { shard: shard.clone(), slot: served.slots[index as usize] })
    }

    /// From now on this one is served, and the one before for its time. Of one epoch there is one:
    /// when it comes again, with shards that were quarantined, it takes its own place.
    pub(super) fn swap(&self, now: Instant, database: Arc<Database>) {
        let published = published(&database);
        let mut state = self.write();
        let slots = state.slots_for(&database);
        let next = Served { database, published, slots };
        let before = std::mem::replace(&mut state.newest, next);
        let mut gone = Vec::new();
        if before.database.epoch() == state.newest.database.epoch() {
            gone.push(before);
        } else {
            state.before.push_back((before, now + self.keep));
        }
        if state.before.len() > limits::OLD_EPOCHS_MAX {
            gone.extend(state.before.pop_front().map(|(oldest, _)| oldest));
        }
        state.stale |= !gone.is_empty();
        drop(state);
        // Unmapping a database takes its time: nobody waits for it.
        drop(gone);
    }

    /// Lets go of epochs whose time is up and of their slots; false if there were none.
    pub(super) fn forget(&self, now: Instant) -> bool {
        let mut state = self.write();
        let late = state.before.iter().take_while(|(_, until)| *until <= now).count();
        if late == 0 && !state.stale {
            return false;
        }
        let gone: Vec<_> = state.before.drain(..late).collect();
        drop(state);
        drop(gone);
        let mut state = self.write();
        state.slots.retain(|_, shard| shard.strong_count() > 0);
        state.stale = false;
        true
    }

    /// The file names of quarantined shards that are not yet reported.
    pub(super) fn newly_quarantined(&self) -> Vec<String> {
        let state = self.read();
        let all = state.before.iter().map(|(served, _)| served).chain([&state.newest]);
        let shards = all.flat_map(|served| served.database.shards());
        shards.filter(|shard| shard.report_quarantined()).map(|shard| shard.file_name()).collect()
    }

    /// Quarantined shards of the newest database.
    pub(super) fn quarantined(&self) -> usize {
        let database = self.database();
        database.shards().iter().filter(|shard| shard.is_quarantined()).count()
    }

    fn read(&self) -> RwLockReadGuard<'_, EpochTable> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, EpochTable> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EpochTable {
    fn served(&self, now: Instant, epoch: u64) -> Option<&Served> {
        if self.newest.database.epoch() == epoch {
            return Some(&self.newest);
        }
        let kept = self.before.iter().filter(|(_, until)| *until > now);
        kept.map(|(served, _)| served).find(|served| served.database.epoch() == epoch)
    }

    /// A slot for each shard: the one it has in the newest database, else a new one. New ones
    /// follow each other, so that shards spread over devices whichever of them changed.
    fn slots_for(&mut self, database: &Database) -> Vec<u32> {
        let mut held = self.newest.database.shards().iter().zip(&self.newest.slots);
        let mut slots = Vec::with_capacity(database.shards().len());
        for shard in database.shards() {
            let kept = held.next().filter(|(held, _)| Arc::ptr_eq(held, shard));
            let new = || free_slot(&self.slots, &mut self.next_slot);
            let slot = kept.map_or_else(new, |(_, &slot)| slot);
            self.slots.insert(slot, Arc::downgrade(shard));
            slots.push(slot);
        }
        slots
    }
}

fn free_slot(taken: &HashMap<u32, Weak<Shard>>, next: &mut u32) -> u32 {
    while taken.contains_key(next) {
        *next = next.wrapping_add(1);
    }
    *next
}

impl Shards for Epochs {
    fn content(&self, slot: u32) -> Option<Arc<dyn Content>> {
        Some(self.read().slots.get(&slot)?.upgrade()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::noise;

    const KEEP: Duration = Duration::from_secs(600);
    const SECOND: Duration = Duration::from_secs(1);

    /// Epoch 1 with three shards, in a folder that goes with it.
    struct Bench {
        folder: tempfile::TempDir,
        epochs: Epochs,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            noise::write(folder.path(), 1, &[0, 1, 2]);
            let database = Database::open(folder.path()).unwrap();
            let epochs = Epochs::new(Arc::new(database), KEEP);
            Self { folder, epochs, start: Instant::now() }
        }

        /// Serves another epoch, so many seconds after the start.
        fn serve(&self, second: u32, epoch: u64, labels: &[u8]) {
            noise::write(self.folder.path(), epoch, labels);
            let manifest = Database::read_manifest(self.folder.path()).unwrap();
            let next = self.epochs.database().follow(manifest, &|_| ()).unwrap().unwrap();
            self.epochs.swap(self.start + second * SECOND, Arc::new(next));
        }

        fn find(&self, second: u32, epoch: u64, shard: u32) -> Result<u32, Absent> {
            let found = self.epochs.find(self.start + second * SECOND, epoch, shard);
            found.map(|found| {
                let content = self.epochs.content(found.slot).unwrap();
                assert_eq!(content.view().content, found.shard.view().content);
                found.slot
            })
        }

        fn slots(&self, second: u32, epoch: u64) -> Vec<u32> {
            (0..3).map(|shard| self.find(second, epoch, shard).unwrap()).collect()
        }
    }

    #[test]
    fn an_epoch_is_answered_until_its_time_and_what_did_not_change_keeps_its_slot() {
        let bench = Bench::new();
        bench.serve(10, 2, &[0, 9, 2]);
        assert_eq!((bench.slots(10, 1), bench.slots(10, 2)), (vec![0, 1, 2], vec![0, 3, 2]));
        bench.serve(20, 3, &[8, 9, 7]);
        assert_eq!(bench.slots(609, 1), [0, 1, 2]);
        assert_eq!((bench.slots(609, 2), bench.slots(609, 3)), (vec![0, 3, 2], vec![4, 3, 5]));
        assert!(!bench.epochs.forget(bench.start + 609 * SECOND));
        // Its time is up, whether anybody has tidied up or not.
        assert_eq!(bench.find(610, 1, 0), Err(Absent::Epoch));
        // Slot 1 was the first epoch's alone; one that is being computed lives on.
        let computed = bench.epochs.content(1).unwrap();
        assert!(bench.epochs.forget(bench.start + 610 * SECOND));
        assert!(bench.epochs.content(1).is_some());
        drop(computed);
        let are_there = |slots: [u32; 3]| slots.map(|slot| bench.epochs.content(slot).is_some());
        assert_eq!(are_there([0, 1, 2]), [true, false, true]);
        assert!(bench.epochs.forget(bench.start + 620 * SECOND));
        assert!(!bench.epochs.forget(bench.start + 620 * SECOND), "once");
        assert_eq!(are_there([0, 2, 3]), [false, false, true]);
    }

    #[test]
    fn there_are_never_many_epochs() {
        let bench = Bench::new();
        let most = limits::OLD_EPOCHS_MAX as u64;
        for epoch in 2..=most + 2 {
            bench.serve(epoch as u32, epoch, &[0, 1, 10 + epoch as u8]);
        }
        assert_eq!(bench.find(10, 1, 2), Err(Absent::Epoch));
        assert_eq!(bench.find(10, 2, 2), Ok(3));
        assert!(bench.epochs.forget(bench.start + 10 * SECOND), "the first one's shard is gone");
        assert!(bench.epochs.content(2).is_none() && bench.epochs.content(0).is_some());
    }

    #[test]
    fn a_shard_that_is_good_again_has_a_slot_of_its_own() {
        let bench = Bench::new();
        bench.epochs.database().shard(1).unwrap().quarantine();
        bench.serve(1, 1, &[0, 1, 2]);
        assert_eq!((bench.slots(1, 1), bench.epochs.quarantined()), (vec![0, 3, 2], 0));
        assert!(bench.epochs.content(1).is_none());
        assert!(bench.epochs.forget(bench.start + SECOND));
    }

    #[test]
    fn slots_spread_over_devices_whichever_shards_change() {
        let bench = Bench::new();
        bench.serve(1, 2, &[5, 1, 6]);
        bench.serve(2, 3, &[7, 1, 8]);
        assert_eq!([0, 2].map(|shard| bench.find(2, 3, shard)), [Ok(5), Ok(6)]);
        // Numbers that are taken are not given again when they come round.
        bench.epochs.write().next_slot = 1;
        bench.serve(3, 4, &[9, 1, 10]);
        let taken = bench.find(3, 4, 0).unwrap();
        assert!(taken > 6, "{taken}");
    }
}
