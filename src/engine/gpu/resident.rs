//! Shards on the device: uploaded when asked for, kept while they fit, by recent use.
//!
//! A [`Store`] outlives the devices it is opened on, and is used by two threads: the engine's, and
//! one that uploads shards meanwhile, without a lock that the engine takes. A shard is cut into
//! parts that fit one binding. One that makes room leaves its buffers to the next of the same
//! shape: submissions are done in order.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use wgpu::{BindGroup, BindGroupLayout, Buffer};

use super::super::known_answer::PROBE_CONTENT;
use super::super::{ContentId, EngineError, Residency, ShardStore, ShardView, StoreUse};
use super::device::{Gpu, UPLOADED, WAIT_TIME, WAITS};
use super::kernels::BINDING_BYTES_MIN;
use super::pipelines::bind;
use super::staging::{STAGING_BYTES, Staging};
use crate::limits::COLUMNS_MAX;
use crate::params::{D, PACK_ROWS_MIN, Shape};

/// How long a thread waits for another, which reads a shard from its file at most, or waits for
/// the device.
const PATIENCE: Duration = WAIT_TIME.saturating_mul(WAITS);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ShardKey {
    /// What the file says it contains.
    Content(ContentId),
    /// Nothing is known of it: good for one call.
    Once(u64),
}

/// Some rows of a matrix, or the tables of some packs.
pub(super) struct Part {
    pub(super) buffer: Buffer,
    pub(super) bound: BindGroup,
    /// First row or pack.
    pub(super) first: u32,
    /// Rows or packs.
    pub(super) count: u32,
}

pub(super) struct Resident {
    shape: Shape,
    pub(super) matrix: Vec<Part>,
    pub(super) tables: Vec<Part>,
}

pub(super) struct Open {
    gpu: Gpu,
    layout: BindGroupLayout,
    binding_bytes_max: u64,
    /// For [`ShardStore::upload`]; none before the first, and while one is under way.
    staging: Mutex<Option<Staging>>,
}

/// All shards on the device; without a device at first.
#[derive(Default)]
pub(super) struct Store {
    state: Mutex<StoreState>,
    /// A shard was uploaded or was not, was used, or the device is gone.
    changed: Condvar,
}

struct StoreState {
    open: Option<Arc<Open>>,
    /// It has proven itself: others than the engine may see it.
    proven: bool,
    shards: LruCache<ShardKey, Slot>,
    /// Shards without a name so far.
    unnamed: u64,
    budget: u64,
    /// Of all slots.
    bytes: u64,
    uploads: u64,
}

impl Default for StoreState {
    fn default() -> Self {
        let shards = LruCache::unbounded();
        Self { open: None, proven: false, shards, unnamed: 0, budget: 0, bytes: 0, uploads: 0 }
    }
}

/// A shard that is here or being uploaded.
struct Slot {
    bytes: u64,
    used: Instant,
    /// None while it is uploaded. The other clones are those of [`Held`].
    resident: Option<Arc<Resident>>,
}

impl Store {
    /// Keeps shards on a device from now on, in parts of at most so many bytes. Only the engine
    /// sees them, and there is no budget, until [`Store::prove`].
    pub(super) fn open(
        &self,
        gpu: &Gpu,
        layout: &BindGroupLayout,
        binding_bytes_max: u64,
    ) -> Arc<Open> {
        let (gpu, layout, staging) = (gpu.clone(), layout.clone(), Mutex::default());
        let open = Arc::new(Open { gpu, layout, binding_bytes_max, staging });
        let mut state = self.lock();
        state.open = Some(Arc::clone(&open));
        state.budget = u64::MAX;
        open
    }

    /// Lets all see what is here, and keeps so many bytes.
    pub(super) fn prove(&self, budget: u64) {
        let mut state = self.lock();
        (state.proven, state.budget) = (true, budget);
    }

    /// Keeps nothing any more. What was there is for the caller to drop, which may take time.
    pub(super) fn close(&self) -> impl Send + use<> {
        self.release(|state| {
            let (unnamed, uploads) = (state.unnamed, state.uploads);
            std::mem::replace(state, StoreState { unnamed, uploads, ..StoreState::default() })
        })
    }

    /// The name under which a shard is kept.
    pub(super) fn key(&self, shard: &ShardView<'_>) -> ShardKey {
        let once = || {
            let mut state = self.lock();
            state.unnamed += 1;
            ShardKey::Once(state.unnamed)
        };
        shard.content.map_or_else(once, ShardKey::Content)
    }

    pub(super) fn uploads(&self) -> u64 {
        self.lock().uploads
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    pub(super) fn largest(&self) -> u64 {
        self.lock().shards.iter().map(|(_, slot)| slot.bytes).max().unwrap_or_default()
    }

    pub(super) fn budget(&self) -> u64 {
        self.lock().budget
    }

    /// Lets go of shards; those who wait for room look again.
    fn release<T>(&self, drop: impl FnOnce(&mut StoreState) -> T) -> T {
        let dropped = drop(&mut self.lock());
        self.changed.notify_all();
        dropped
    }

    fn lock(&self) -> MutexGuard<'_, StoreState> {
        // A panic of another thread leaves nothing half done that is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A shard that is here, or uploaded now; the caller holds others of `held_bytes`.
    fn bring(
        &self,
        open: &Arc<Open>,
        staging: &mut Staging,
        (key, shard): (ShardKey, &ShardView<'_>),
        held_bytes: u64,
    ) -> Result<Arc<Resident>, EngineError> {
        loop {
            let (coming, reused) = match self.reserve(open, key, shard.shape, held_bytes)? {
                Reserved::Here(resident) => return Ok(resident),
                Reserved::Coming(coming, reused) => (coming, reused),
            };
            match reused.map_or_else(|| open.make(shard.shape), Ok) {
                Ok(resident) => {
                    open.fill(staging, shard, &resident)?;
                    return coming.arrived(resident);
                }
                Err(error @ wgpu::Error::OutOfMemory { .. }) => {
                    if !coming.lower_budget() {
                        return Err(open.gpu.failed(&error));
                    }
                }
                Err(error) => return Err(open.gpu.failed(&error)),
            }
        }
    }

    /// Finds a shard here, or makes room for it and notes that it is coming: once, whoever asks.
    fn reserve(
        &self,
        open: &Arc<Open>,
        key: ShardKey,
        shape: &Shape,
        held_bytes: u64,
    ) -> Result<Reserved<'_>, EngineError> {
        let bytes = shard_bytes(shape);
        let deadline = Instant::now() + PATIENCE;
        let mut dropped = Vec::new();
        let mut state = self.lock();
        loop {
            state.is_open(open)?;
            if let Some(resident) = state.touch(key) {
                return Ok(Reserved::Here(resident));
            }
            let waits_for = if state.shards.contains(&key) {
                "the shard that another thread uploads"
            } else if held_bytes + bytes > state.budget {
                let message = format!("a shard has {bytes} bytes, the budget {}", state.budget);
                return Err(open.gpu.failed(&message));
            } else if state.make_room(bytes, &mut dropped) {
                break;
            } else {
                "room: all shards are in use"
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(open.gpu.failed(&format!("waited in vain for {waits_for}")));
            }
            let woken = self.changed.wait_timeout(state, left);
            (state, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes += bytes;
        state.shards.put(key, Slot { bytes, used: Instant::now(), resident: None });
        drop(state);
        let coming = Coming { store: self, open: Arc::clone(open), key, bytes };
        let none_dropped = dropped.is_empty();
        let reused = dropped.into_iter().find(|dropped| dropped.shape == *shape);
        if reused.is_none() && !none_dropped {
            // What is under way may read them: their memory is free when it is done.
            open.gpu.probe()?;
        }
        Ok(Reserved::Coming(coming, reused))
    }
}

impl ShardStore for Store {
    fn residency(&self, shard: &ShardView<'_>) -> Residency {
        let state = self.lock();
        let Some(content) = shard.content.filter(|_| state.proven) else { return Residency::Never };
        let bytes = shard_bytes(shard.shape);
        match state.shards.peek(&ShardKey::Content(content)) {
            Some(Slot { resident: Some(_), .. }) => Residency::Here,
            Some(Slot { resident: None, .. }) => Residency::Room,
            None if bytes > state.budget => Residency::Never,
            None if state.bytes + bytes <= state.budget => Residency::Room,
            None => {
                let unused = state.oldest().map(|(_, used)| used.elapsed());
                Residency::InPlace { unused: unused.unwrap_or_default() }
            }
        }
    }

    fn held(&self) -> StoreUse {
        let state = self.lock();
        let ours = |(key, slot): &(&ShardKey, &Slot)| {
            slot.resident.is_some() && **key != ShardKey::Content(PROBE_CONTENT)
        };
        let bytes_max = if state.proven { state.budget } else { 0 };
        let shards = state.shards.iter().filter(ours).count();
        StoreUse { shards, bytes: state.bytes, bytes_max }
    }

    fn upload(&self, shard: &ShardView<'_>) -> Result<(), EngineError> {
        let gone = || EngineError::Device("the device is gone, and not renewed yet".into());
        let open = {
            let state = self.lock();
            state.open.clone().filter(|_| state.proven).ok_or_else(gone)?
        };
        let mut staging = open.staging.lock().unwrap_or_else(PoisonError::into_inner);
        // After an error it is recreated: what state its buffers are in is not known.
        let mut ring = staging.take().map_or_else(|| Staging::new(&open.gpu), Ok)?;
        let brought = self.bring(&open, &mut ring, (self.key(shard), shard), 0)?;
        *staging = Some(ring);
        self.release(|_| drop(brought));
        Ok(())
    }
}

impl StoreState {
    fn is_open(&self, open: &Arc<Open>) -> Result<(), EngineError> {
        match &self.open {
            Some(now) if Arc::ptr_eq(now, open) => Ok(()),
            _ => Err(open.gpu.failed(&"given up after an error")),
        }
    }

    /// A shard that is here, and is being used.
    fn touch(&mut self, key: ShardKey) -> Option<Arc<Resident>> {
        let slot = self.shards.get_mut(&key)?;
        slot.used = Instant::now();
        slot.resident.clone()
    }

    /// The shard used longest ago of those that nobody holds, and when that was.
    fn oldest(&self) -> Option<(ShardKey, Instant)> {
        let is_free =
            |slot: &Slot| slot.resident.as_ref().is_some_and(|one| Arc::strong_count(one) == 1);
        let oldest = self.shards.iter().rev().find(|(_, slot)| is_free(slot));
        oldest.map(|(key, slot)| (*key, slot.used))
    }

    /// Drops the shards used longest ago until there is room; whether there is.
    fn make_room(&mut self, bytes: u64, dropped: &mut Vec<Resident>) -> bool {
        while self.bytes + bytes > self.budget {
            let Some((oldest, _)) = self.oldest() else { return false };
            dropped.extend(self.remove(oldest));
        }
        true
    }

    /// Takes a shard out; returns it if it was here and nobody holds it.
    fn remove(&mut self, key: ShardKey) -> Option<Resident> {
        let slot = self.shards.pop(&key)?;
        self.bytes -= slot.bytes;
        Arc::into_inner(slot.resident?)
    }
}

enum Reserved<'a> {
    Here(Arc<Resident>),
    /// With buffers to take over.
    Coming(Coming<'a>, Option<Resident>),
}

/// A shard that this thread is uploading. Dropped before it arrived, it does not come.
struct Coming<'a> {
    store: &'a Store,
    open: Arc<Open>,
    key: ShardKey,
    bytes: u64,
}

impl Coming<'_> {
    fn arrived(self, resident: Resident) -> Result<Arc<Resident>, EngineError> {
        let mut state = self.store.lock();
        state.is_open(&self.open)?;
        let resident = Arc::new(resident);
        let (bytes, used) = (self.bytes, Instant::now());
        state.shards.put(self.key, Slot { bytes, used, resident: Some(resident.clone()) });
        state.uploads += 1;
        Ok(resident)
    }

    /// There was no memory for it beside all others: there is no more than what they take, or it
    /// alone. Whether others can make room.
    fn lower_budget(self) -> bool {
        let mut state = self.store.lock();
        if state.is_open(&self.open).is_err() {
            return false;
        }
        let others = state.bytes - self.bytes;
        state.budget = others.max(self.bytes).min(state.budget);
        others > 0
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.store.release(|state| {
            let coming = state.shards.peek(&self.key).is_some_and(|slot| slot.resident.is_none());
            if coming && state.is_open(&self.open).is_ok() {
                state.remove(self.key);
            }
        });
    }
}

/// Shards that the engine is about to use, or whose use is not over: none of them makes room for
/// another. Those without a name leave when it is dropped.
pub(super) struct Held {
    store: Arc<Store>,
    open: Arc<Open>,
    shards: Vec<(ShardKey, Arc<Resident>)>,
    bytes: u64,
}

impl Held {
    pub(super) fn new(store: &Arc<Store>, open: &Arc<Open>) -> Self {
        let (store, open) = (Arc::clone(store), Arc::clone(open));
        Self { store, open, shards: Vec::new(), bytes: 0 }
    }

    /// Whether a shard is among them, or fits beside them.
    pub(super) fn fits(&self, key: ShardKey, shape: &Shape) -> bool {
        self.has(key) || self.bytes + shard_bytes(shape) <= self.store.budget()
    }

    /// Adds a shard, and uploads it if it is not on the device.
    pub(super) fn add(
        &mut self,
        staging: &mut Staging,
        key: ShardKey,
        shard: &ShardView<'_>,
    ) -> Result<(), EngineError> {
        if self.has(key) {
            self.store.lock().touch(key);
        } else {
            let resident = self.store.bring(&self.open, staging, (key, shard), self.bytes)?;
            self.shards.push((key, resident));
            self.bytes += shard_bytes(shard.shape);
        }
        Ok(())
    }

    pub(super) fn get(&self, key: ShardKey) -> &Resident {
        let found = self.shards.iter().find(|(held, _)| *held == key);
        &found.expect("this is a bug: a shard is used that is not held").1
    }

    fn has(&self, key: ShardKey) -> bool {
        self.shards.iter().any(|(held, _)| *held == key)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let shards = std::mem::take(&mut self.shards);
        let left = self.store.release(|state| {
            let mut left = Vec::new();
            for (key, resident) in shards {
                drop(resident);
                if matches!(key, ShardKey::Once(_)) && state.is_open(&self.open).is_ok() {
                    left.push(state.remove(key));
                }
            }
            left
        });
        drop(left); // which takes time, and no lock
    }
}

impl Open {
    fn make(&self, shape: &Shape) -> Result<Resident, wgpu::Error> {
        let limit = self.binding_bytes_max;
        let row_step = PACK_ROWS_MIN; // whole tiles of any scan but the widest
        let matrix = cut(shape.rows() as u32, row_step, shape.columns() as u64, limit);
        let tables = cut(shape.packs() as u32, 1, shape.table_bytes() as u64, limit);
        let part = |unit: usize| {
            move |(first, count): (u32, u32)| {
                let bytes = u64::from(count) * unit as u64;
                let buffer = self.gpu.buffer("shard", bytes, UPLOADED);
                let bound = bind(&self.gpu, &self.layout, &[&buffer]);
                Part { buffer, bound, first, count }
            }
        };
        self.gpu.caught(|| Resident {
            shape: *shape,
            matrix: matrix.into_iter().map(part(shape.columns())).collect(),
            tables: tables.into_iter().map(part(shape.table_bytes())).collect(),
        })
    }

    /// Copies a shard into its buffers; returns when it is there.
    fn fill(
        &self,
        staging: &mut Staging,
        shard: &ShardView<'_>,
        resident: &Resident,
    ) -> Result<(), EngineError> {
        let sections = [
            (&resident.matrix, shard.matrix, shard.shape.columns()),
            (&resident.tables, shard.tables, shard.shape.table_bytes()),
        ];
        for (parts, bytes, unit) in sections {
            for part in parts {
                let bytes = &bytes[part.first as usize * unit..][..part.count as usize * unit];
                self.send(staging, bytes, &part.buffer)?;
            }
        }
        staging.wait(&self.gpu)
    }

    /// Copies bytes into a buffer, a staging buffer at a time.
    fn send(&self, staging: &mut Staging, bytes: &[u8], to: &Buffer) -> Result<(), EngineError> {
        for (index, piece) in bytes.chunks(STAGING_BYTES as usize).enumerate() {
            let offset = index as u64 * STAGING_BYTES;
            staging.send(
                &self.gpu,
                |write| write(0, piece),
                |encoder, from| {
                    encoder.copy_buffer_to_buffer(from, 0, to, offset, piece.len() as u64);
                },
            )?;
        }
        Ok(())
    }
}

fn shard_bytes(shape: &Shape) -> u64 {
    (shape.matrix_bytes() + shape.packs() * shape.table_bytes()) as u64
}

/// Cuts `count` units of `bytes` each into parts of at most `limit` bytes, or one step of `step`
/// units where that is more: (first, count).
fn cut(count: u32, step: u32, bytes: u64, limit: u64) -> Vec<(u32, u32)> {
    let steps = u32::try_from(limit / (bytes * u64::from(step))).unwrap_or(u32::MAX);
    let most = steps.clamp(1, count.div_ceil(step)) * step;
    let parts = (0..count).step_by(most as usize);
    parts.map(|first| (first, most.min(count - first))).collect()
}

// One step always fits.
const _: () = assert!(PACK_ROWS_MIN as u64 * COLUMNS_MAX as u64 <= BINDING_BYTES_MIN);
const _: () = assert!((D * (D - 1) * 2 * 3) as u64 <= BINDING_BYTES_MIN);

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn parts_cover_everything_and_fit() {
        assert_eq!(cut(8192, 128, 17_280, 1 << 31), [(0, 8192)]);
        let parts = cut(8192, 128, 17_280, 128 << 20);
        assert_eq!(parts, [(0, 7680), (7680, 512)]);
        assert_eq!(cut(5, 1, 100, 250), [(0, 2), (2, 2), (4, 1)]);
        assert_eq!(cut(3, 1, 100, 99), [(0, 1), (1, 1), (2, 1)]);
    }
}
