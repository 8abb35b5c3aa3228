//! What is served: a database, and those before it, each until its time.
//!
//! A query names its epoch and is answered from that epoch's shard. The schedule, the placement and
//! the workers know neither epochs nor shard numbers: to them a shard is a *slot*, a number for what
//! one opened file contains. A shard that a new epoch left as it was keeps its slot, so queries of
//! both epochs find company and devices keep what they have. A slot is never given twice while
//! anything remembers it. Reads no clock: `now` is an argument. Read next: `reload`, which brings
//! the databases, and `scrub`, which condemns shards and has old epochs forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::{Duration, Instant};

use crate::limits;
use crate::shard::{Database, Shard};
use crate::worker::{Content, Shards};

/// The shard that a query or a hint request is for.
pub(super) struct Found {
    pub(super) shard: Arc<Shard>,
    pub(super) slot: u32,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// The epoch is not served, or not any more.
    Epoch,
    /// The database has no such shard.
    Shard,
    /// It was taken out.
    Condemned,
}

/// The databases that are served.
pub(super) struct Epochs {
    state: RwLock<State>,
    /// How long an epoch is answered after the next one came.
    keep: Duration,
}

struct State {
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
    /// By shard.
    slots: Vec<u32>,
}

impl Epochs {
    pub(super) fn new(database: Arc<Database>, keep: Duration) -> Self {
        let newest = Served { database, slots: Vec::new() };
        let (before, slots) = (VecDeque::new(), HashMap::new());
        let mut state = State { newest, before, slots, next_slot: 0, stale: false };
        let database = state.newest.database.clone();
        state.newest.slots = state.slots_for(&database);
        Self { state: RwLock::new(state), keep }
    }

    /// The newest one.
    pub(super) fn database(&self) -> Arc<Database> {
        self.read().newest.database.clone()
    }

    /// Its epoch.
    pub(super) fn epoch(&self) -> u64 {
        self.read().newest.database.epoch()
    }

    /// A shard of an epoch that is answered.
    pub(super) fn find(&self, now: Instant, epoch: u64, index: u32) -> Result<Found, Absent> {
        let state = self.read();
        let served = state.served(now, epoch).ok_or(Absent::Epoch)?;
        let shard = served.database.shard(index).ok_or(Absent::Shard)?;
        if shard.is_condemned() {
            return Err(Absent::Condemned);
        }
        Ok(Found { shard: shard.clone(), slot: served.slots[index as usize] })
    }

    /// From now on this one is served, and the one before for its time. Of one epoch there is one:
    /// when it comes again, with shards that were condemned, it takes its own place.
    pub(super) fn swap(&self, now: Instant, database: Arc<Database>) {
        let mut state = self.write();
        let slots = state.slots_for(&database);
        let before = std::mem::replace(&mut state.newest, Served { database, slots });
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

    /// Lets go of epochs whose time is up, and of slots that nobody has any more; says whether there
    /// were any.
    pub(super) fn forget(&self, now: Instant) -> bool {
        let late = |before: &VecDeque<(Served, Instant)>| {
            before.iter().take_while(|(_, until)| *until <= now).count()
        };
        let state = self.read();
        if late(&state.before) == 0 && !state.stale {
            return false;
        }
        drop(state);
        let mut state = self.write();
        let late = late(&state.before);
        let gone: Vec<_> = state.before.drain(..late).collect();
        drop(state);
        drop(gone);
        let mut state = self.write();
        state.slots.retain(|_, shard| shard.strong_count() > 0);
        state.stale = false;
        true
    }

    /// Shards that were taken out and are not yet reported, by the names of their files; each once.
    pub(super) fn newly_condemned(&self) -> Vec<String> {
        let state = self.read();
        let all = state.before.iter().map(|(served, _)| served).chain([&state.newest]);
        let shards = all.flat_map(|served| served.database.shards());
        shards.filter(|shard| shard.tell_condemned()).map(|shard| shard.file_name()).collect()
    }

    /// Shards of the newest database that are taken out.
    pub(super) fn condemned(&self) -> usize {
        let database = self.database();
        database.shards().iter().filter(|shard| shard.is_condemned()).count()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn served(&self, now: Instant, epoch: u64) -> Option<&Served> {
        if self.newest.database.epoch() == epoch {
            return Some(&self.newest);
        }
        let kept = self.before.iter().filter(|(_, until)| *until > now);
        kept.map(|(served, _)| served).find(|served| served.database.epoch() == epoch)
    }

    /// A slot for each shard: the one it has in the newest database, else a new one. New ones follow
    /// each other, so that shards spread over devices whichever of them changed.
    fn slots_for(&mut self, database: &Database) -> Vec<u32> {
        let held = self.newest.database.shards().iter().zip(&self.newest.slots);
        let mut held = held.map(|(shard, &slot)| (shard, slot));
        let mut slots = Vec::with_capacity(database.shards().len());
        for shard in database.shards() {
            let kept = held.next().filter(|(held, _)| Arc::ptr_eq(held, shard));
            let slot = kept.map(|(_, slot)| slot);
            let slot = slot.unwrap_or_else(|| free_slot(&self.slots, &mut self.next_slot));
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
        let shard = self.read().slots.get(&slot)?.upgrade()?;
        Some(shard)
    }
}
