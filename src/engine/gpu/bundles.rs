//! Key bundles on the device: a pool of equal slots, in which a bundle stays until another needs
//! its place.

use std::sync::{Arc, Weak};

use lru::LruCache;
use wgpu::{Buffer, BufferTransition, BufferUses, CommandEncoder};

use super::super::kernel::KeyLayout;
use super::super::{EncryptedQuery, EngineError};
use super::device::{Gpu, UPLOADED};
use super::kernels::{BINDING_BYTES_MIN, SLOT_WORDS};
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;
use crate::params::D;
use crate::scheme::KeyBundle;

/// Bytes of a slot, whatever the shape: 48 KiB.
pub(super) const SLOT_BYTES: u64 = SLOT_WORDS as u64 * 4;
/// Slots: a bundle for each of 16 000 queries by the rule of 16 queries a secret, a quarter of a
/// second at the rate that is aimed at, and little beside one shard: 48 MiB.
pub(super) const SLOTS: usize = 1024;
const _: () = assert!(SLOTS as u64 * SLOT_BYTES <= BINDING_BYTES_MIN);
// Two slots are named by a word of a dispatch's numbers.
const _: () = assert!(SLOTS <= 1 << 16);

/// Which bundle lies in which slot, by the bundle's address: the `Weak` keeps the allocation, so
/// that no other bundle has that address while it is here.
struct Slots {
    by_address: LruCache<usize, (Weak<KeyBundle>, usize)>,
    count: usize,
}

impl Slots {
    fn new(count: usize) -> Self {
        Self { by_address: LruCache::unbounded(), count }
    }

    /// The slot of a bundle, and whether the bundle is new in it: in place of the one used longest
    /// ago where there is none left. A submission has no more bundles than there are slots, so none
    /// of its own is taken.
    fn place(&mut self, bundle: &Arc<KeyBundle>) -> (usize, bool) {
        let address = Arc::as_ptr(bundle).addr();
        if let Some(&(_, slot)) = self.by_address.get(&address) {
            return (slot, false);
        }
        let slot = match self.by_address.len() {
            len if len < self.count => len,
            _ => self.by_address.pop_lru().expect("this is a bug: no slots").1.1,
        };
        self.by_address.put(address, (Arc::downgrade(bundle), slot));
        (slot, true)
    }
}

/// The pool, and what has to be uploaded by the next submission.
pub(super) struct Bundles {
    pub(super) pool: Buffer,
    slots: Slots,
    /// Placed since the last submission, in the order in which they are written: slot, bundle.
    fresh: Vec<(usize, Arc<KeyBundle>)>,
    uploaded: u64,
}

impl Bundles {
    /// A pool of so many slots, at least one for each query of a batch.
    pub(super) fn new(gpu: &Gpu, slots: usize) -> Result<Self, EngineError> {
        let slots = slots.clamp(BATCH_QUERIES_PER_SCAN_MAX, SLOTS);
        let pool = gpu.checked(|| Ok(gpu.buffer("keys", slots as u64 * SLOT_BYTES, UPLOADED)))?;
        let slots = Slots::new(slots);
        Ok(Self { pool, slots, fresh: Vec::new(), uploaded: 0 })
    }

    /// Queries that one submission may have, each with a bundle of its own.
    pub(super) fn queries_max(&self) -> usize {
        self.slots.count
    }

    pub(super) fn uploaded(&self) -> u64 {
        self.uploaded
    }

    /// The slot of each query's bundle, two a word, for a dispatch's numbers.
    pub(super) fn place(
        &mut self,
        queries: &[EncryptedQuery],
    ) -> [u32; BATCH_QUERIES_PER_SCAN_MAX / 2] {
        let mut words = [0; BATCH_QUERIES_PER_SCAN_MAX / 2];
        for (index, query) in queries.iter().enumerate() {
            let (slot, new) = self.slots.place(&query.bundle);
            if new {
                self.fresh.push((slot, Arc::clone(&query.bundle)));
            }
            words[index / 2] |= (slot as u32) << (index % 2 * 16);
        }
        words
    }

    pub(super) fn fresh_bytes(&self) -> u64 {
        self.fresh.iter().map(|(_, bundle)| bundle_bytes(bundle)).sum()
    }

    pub(super) fn write(&self, mut write: impl FnMut(&[u8])) {
        self.fresh.iter().for_each(|(_, bundle)| write_bundle(bundle, &mut write));
    }

    pub(super) fn copy_in(&self, encoder: &mut CommandEncoder, from: &Buffer, at: u64) {
        let mut at = at;
        for (slot, bundle) in &self.fresh {
            let bytes = bundle_bytes(bundle);
            encoder.copy_buffer_to_buffer(from, at, &self.pool, *slot as u64 * SLOT_BYTES, bytes);
            at += bytes;
        }
    }

    pub(super) fn sent(&mut self) {
        self.uploaded += self.fresh.len() as u64;
        self.fresh.clear();
    }

    /// What the pack reads.
    pub(super) fn before_pack(&self) -> BufferTransition<&Buffer> {
        BufferTransition { buffer: &self.pool, state: BufferUses::STORAGE_READ_ONLY }
    }
}

fn bundle_bytes(bundle: &KeyBundle) -> u64 {
    (2 * (bundle.keys() + 1) * D * 4) as u64
}

/// A bundle, either prime's keys as [`KeyLayout`] has them.
fn write_bundle(bundle: &KeyBundle, write: &mut impl FnMut(&[u8])) {
    let mut words = vec![0u32; (bundle.keys() + 1) * D];
    for prime in 0..2 {
        KeyLayout::write(&|key| bundle.half(key, prime), &mut words);
        write(bytemuck::cast_slice(&words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Shape;

    fn bundle(shape: &Shape, first: u8) -> Arc<KeyBundle> {
        let bytes = (0..shape.bundle_bytes()).map(|i| [first, i as u8, (i >> 11) as u8][i % 3] / 2);
        Arc::new(KeyBundle::decode(&bytes.collect::<Vec<_>>(), shape).expect("a bundle"))
    }

    #[test]
    fn the_bundle_used_longest_ago_makes_room_and_none_is_taken_for_another() {
        let shape = Shape::new(40, 128, 1, 192).expect("a shape");
        let mut slots = Slots::new(3);
        let [a, b, c, d] = [1, 2, 3, 4].map(|first| bundle(&shape, first));
        let mut place = |bundle: &Arc<KeyBundle>| slots.place(bundle);
        let placed = [&a, &b, &a, &c, &d, &a, &b].map(&mut place);
        let expected = [(0, true), (1, true), (0, false), (2, true), (1, true), (0, false)];
        assert_eq!(placed[..6], expected);
        assert_eq!(placed[6], (2, true));
        for first in 0..64 {
            // Dropped at once: an allocator would give the same address again.
            assert!(place(&bundle(&shape, first)).1);
        }
    }
}
