//! The databases that are answered: the one that is served, older ones until their time is up, and
//! the one that is staged, which clients are not told of yet.
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
    /// The one that clients are told of.
    newest: Served,
    /// The one that comes next: clients that know it from another host are answered.
    staged: Option<Served>,
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
    slots: HashMap<u32, u32>,
}

impl Served {
    fn new(database: Arc<Database>) -> Self {
        Self { published: published(&database), database, slots: HashMap::new() }
    }

    /// The slot of this shard, where it is this database's too.
    fn slot_of(&self, index: u32, shard: &Arc<Shard>) -> Option<u32> {
        let held = self.database.shard(index)?;
        self.slots.get(&index).copied().filter(|_| Arc::ptr_eq(held, shard))
    }
}

impl Epochs {
    pub(super) fn new(database: Arc<Database>, keep: Duration) -> Self {
        let (newest, before, slots) = (Served::new(database), VecDeque::new(), HashMap::new());
        let (staged, next_slot, stale) = (None, 0, false);
        let mut state = EpochTable { newest, staged, before, slots, next_slot, stale };
        state.newest.slots = state.slots_for(&state.newest.database.clone());
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

    pub(super) fn staged(&self) -> Option<Arc<Database>> {
        self.read().staged.as_ref().map(|staged| staged.database.clone())
    }

    pub(super) fn find(&self, now: Instant, epoch: u64, index: u32) -> Result<Found, Absent> {
        let state = self.read();
        let served = state.served(now, epoch).ok_or(Absent::Epoch)?;
        let shard = served.database.shard(index).ok_or(Absent::Shard)?;
        if shard.is_quarantined() {
            return Err(Absent::Quarantined);
        }
        Ok(Found { shard: shard.clone(), slot: served.slots[&index] })
    }

    /// From now on this one is served, and the one before for its time. Of one epoch there is one:
    /// when it comes again, with shards that were quarantined, it takes its own place. Nothing is
    /// staged any more.
    pub(super) fn swap(&self, now: Instant, database: Arc<Database>) {
        let mut next = Served::new(database);
        let mut state = self.write();
        next.slots = state.slots_for(&next.database);
        let before = std::mem::replace(&mut state.newest, next);
        let mut gone = Vec::from_iter(state.staged.take());
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

    /// From now on this one is answered too, or none but those that were served.
    pub(super) fn stage(&self, database: Option<Arc<Database>>) {
        let next = database.map(Served::new);
        let mut state = self.write();
        let next = next.map(|next| Served { slots: state.slots_for(&next.database), ..next });
        let gone = std::mem::replace(&mut state.staged, next);
        state.stale |= gone.is_some();
        drop(state);
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
        let all = all.chain(&state.staged);
        let shards = all.flat_map(|served| served.database.shards());
        shards.filter(|shard| shard.report_quarantined()).map(|shard| shard.file_name()).collect()
    }

    /// Quarantined shards of the newest database.
    pub(super) fn quarantined(&self) -> usize {
        let database = self.database();
        database.shards().filter(|shard| shard.is_quarantined()).count()
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
        let kept = self.before.iter().filter(|(_, until)| *until > now);
        let all = [&self.newest].into_iter().chain(&self.staged);
        all.chain(kept.map(|(served, _)| served)).find(|served| served.database.epoch() == epoch)
    }

    /// A slot for each shard: the one it has in the newest or the staged database, else a new one.
    /// New ones follow each other, so that shards spread over devices whichever of them changed.
    fn slots_for(&mut self, database: &Database) -> HashMap<u32, u32> {
        let mut slots = HashMap::with_capacity(database.held().len());
        for &(index, ref shard) in database.held() {
            let mut known = [&self.newest].into_iter().chain(&self.staged);
            let kept = known.find_map(|served| served.slot_of(index, shard));
            let slot = kept.unwrap_or_else(|| free_slot(&self.slots, &mut self.next_slot));
            self.slots.insert(slot, Arc::downgrade(shard));
            slots.insert(index, slot);
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
    fn a_staged_epoch_is_answered_and_keeps_its_slots_when_it_is_served() {
        let bench = Bench::new();
        let next = |epoch, labels: &[u8]| {
            noise::write(bench.folder.path(), epoch, labels);
            let manifest = Database::read_manifest(bench.folder.path()).unwrap();
            Arc::new(bench.epochs.database().follow(manifest, &|_| ()).unwrap().unwrap())
        };
        let staged = next(2, &[0, 9, 2]);
        bench.epochs.stage(Some(staged.clone()));
        assert_eq!((bench.epochs.epoch(), bench.slots(1, 2)), (1, vec![0, 3, 2]));
        bench.epochs.swap(bench.start + 2 * SECOND, staged);
        assert_eq!((bench.epochs.epoch(), bench.slots(2, 2)), (2, vec![0, 3, 2]));
        assert!(bench.epochs.staged().is_none());
        assert_eq!(bench.slots(2, 1), [0, 1, 2]);
        // One that is staged no more is not answered, and its own slots are nobody's.
        bench.epochs.stage(Some(next(3, &[0, 9, 7])));
        assert_eq!(bench.find(3, 3, 2), Ok(4));
        bench.epochs.stage(None);
        assert_eq!(bench.find(3, 3, 2), Err(Absent::Epoch));
        assert!(bench.epochs.forget(bench.start + 3 * SECOND));
        assert!(bench.epochs.content(4).is_none() && bench.epochs.content(3).is_some());
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
