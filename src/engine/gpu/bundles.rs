//! Key bundles on the device: a pool of equal slots, in which a bundle stays until another needs
//! its place.
//!
//! A bundle is known by its address: a `Weak` to it keeps the allocation, so that no other bundle
//! has that address while the slot names it. What is not here: the kernel that reads the pool
//! (`shaders/pack.wgsl`), or how bundles reach the device's memory (`staging.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use wgpu::{Buffer, BufferDescriptor, BufferTransition, BufferUsages, BufferUses, CommandEncoder};

use super::super::{EncryptedQuery, EngineError};
use super::device::Gpu;
use super::kernels::{BINDING_BYTES_MIN, SLOT_WORDS};
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;
use crate::params::HALF;
use crate::scheme::KeyBundle;

/// Bytes of a slot, whatever the shape: 48 KiB.
pub(super) const SLOT_BYTES: u64 = SLOT_WORDS as u64 * 4;
/// Slots: a bundle for each of 16 000 queries by the rule of 16 queries a secret, a quarter of a
/// second at the rate that is aimed at, and little beside one shard: 48 MiB.
pub(super) const SLOTS: usize = 1024;
const _: () = assert!(SLOTS as u64 * SLOT_BYTES <= BINDING_BYTES_MIN);
// Two slots are named by a word of a dispatch's numbers.
const _: () = assert!(SLOTS <= 1 << 16);

/// Which bundle lies in which slot.
struct Slots {
    held: Vec<BundleSlot>,
    by_address: HashMap<usize, usize>,
    /// Slots whose bundle is gone.
    free: Vec<usize>,
    /// Counts rounds: what was used in this one stays.
    round: u64,
    /// The round in which slots were last looked through for bundles that are gone.
    searched: u64,
}

struct BundleSlot {
    bundle: Weak<KeyBundle>,
    used: u64,
}

impl Slots {
    fn new(slots: usize) -> Self {
        let held = (0..slots).map(|_| BundleSlot { bundle: Weak::new(), used: 0 }).collect();
        Self { held, by_address: HashMap::new(), free: Vec::new(), round: 0, searched: 0 }
    }

    /// The slot of a bundle, if it has one; it is used in this round.
    fn find(&mut self, bundle: &Arc<KeyBundle>) -> Option<usize> {
        let slot = *self.by_address.get(&address(&Arc::downgrade(bundle)))?;
        self.held[slot].used = self.round;
        Some(slot)
    }

    /// Gives a bundle a slot: of one that is gone, or else of the one used longest ago.
    fn place(&mut self, bundle: &Arc<KeyBundle>) -> usize {
        if self.free.is_empty() && self.searched < self.round {
            self.searched = self.round;
            let gone =
                self.held.iter().zip(0..).filter(|(held, _)| held.bundle.strong_count() == 0);
            self.free.extend(gone.map(|(_, slot)| slot));
        }
        let oldest = || {
            let before = (0..self.held.len()).filter(|&slot| self.held[slot].used < self.round);
            before.min_by_key(|&slot| self.held[slot].used)
        };
        let slot = self.free.pop().or_else(oldest);
        let slot = slot.expect("this is a bug: a round has more bundles than there are slots");
        let bundle = Arc::downgrade(bundle);
        self.by_address.insert(address(&bundle), slot);
        let before =
            std::mem::replace(&mut self.held[slot], BundleSlot { bundle, used: self.round });
        if self.by_address.get(&address(&before.bundle)) == Some(&slot) {
            self.by_address.remove(&address(&before.bundle));
        }
        slot
    }
}

fn address(bundle: &Weak<KeyBundle>) -> usize {
    bundle.as_ptr().addr()
}

/// The pool, and what has to go up for the next submission.
pub(super) struct Bundles {
    pub(super) pool: Buffer,
    slots: Slots,
    /// Placed in this round, in the order in which they are written: slot, bundle.
    fresh: Vec<(usize, Arc<KeyBundle>)>,
    fresh_bytes: u64,
    uploaded: u64,
}

impl Bundles {
    /// A pool of so many slots, at least one for each query of a lane.
    pub(super) fn new(gpu: &Gpu, slots: usize) -> Result<Self, EngineError> {
        let slots = slots.clamp(BATCH_QUERIES_PER_SCAN_MAX, SLOTS);
        let descriptor = BufferDescriptor {
            label: Some("keys"),
            size: slots as u64 * SLOT_BYTES,
            usage: BufferUsages::STORAGE | BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let pool = gpu.checked(|| Ok(gpu.buffer(&descriptor)))?;
        let slots = Slots::new(slots);
        Ok(Self { pool, slots, fresh: Vec::new(), fresh_bytes: 0, uploaded: 0 })
    }

    /// Queries one round may have, each with a bundle of its own.
    pub(super) fn queries_max(&self) -> usize {
        self.slots.held.len()
    }

    /// Bundles that went to the device so far.
    pub(super) fn uploaded(&self) -> u64 {
        self.uploaded
    }

    /// A new round: slots of earlier ones may be taken, for submissions follow each other.
    pub(super) fn begin(&mut self) {
        self.slots.round += 1;
        self.fresh_bytes = 0;
    }

    /// The slot of each query's bundle, two a word, for a dispatch's numbers.
    pub(super) fn place(
        &mut self,
        queries: &[EncryptedQuery],
    ) -> [u32; BATCH_QUERIES_PER_SCAN_MAX / 2] {
        let mut words = [0; BATCH_QUERIES_PER_SCAN_MAX / 2];
        for (index, query) in queries.iter().enumerate() {
            let slot = self.slots.find(&query.bundle).unwrap_or_else(|| {
                let slot = self.slots.place(&query.bundle);
                self.fresh_bytes += bundle_bytes(&query.bundle);
                self.fresh.push((slot, Arc::clone(&query.bundle)));
                slot
            });
            words[index / 2] |= (slot as u32) << (index % 2 * 16);
        }
        words
    }

    /// Bytes that this round's new bundles take.
    pub(super) fn fresh_bytes(&self) -> u64 {
        self.fresh_bytes
    }

    /// Writes the new bundles.
    pub(super) fn write(&self, mut write: impl FnMut(&[u8])) {
        self.fresh.iter().for_each(|(_, bundle)| write_bundle(bundle, &mut write));
    }

    /// Copies them to their slots.
    pub(super) fn copy_in(&self, encoder: &mut CommandEncoder, from: &Buffer, at: u64) {
        let mut at = at;
        for (slot, bundle) in &self.fresh {
            let bytes = bundle_bytes(bundle);
            encoder.copy_buffer_to_buffer(from, at, &self.pool, *slot as u64 * SLOT_BYTES, bytes);
            at += bytes;
        }
    }

    /// They are on their way.
    pub(super) fn sent(&mut self) {
        self.uploaded += self.fresh.len() as u64;
        self.fresh.clear();
    }

    /// What the pack reads.
    pub(super) fn before_pack(&self) -> BufferTransition<&Buffer> {
        BufferTransition { buffer: &self.pool, state: BufferUses::STORAGE_READ_ONLY }
    }
}

/// Bytes of a bundle on the device.
fn bundle_bytes(bundle: &KeyBundle) -> u64 {
    (2 * (bundle.keys() + 1) * 2 * HALF * 4) as u64
}

/// A bundle as `KeyLayout` of `kernel.rs` lays out either prime's keys.
fn write_bundle(bundle: &KeyBundle, write: &mut impl FnMut(&[u8])) {
    for prime in 0..2 {
        for half in bundle.half(0, prime).chunks_exact(HALF) {
            write(bytemuck::cast_slice(half));
            write(bytemuck::cast_slice(half));
        }
        if bundle.keys() > 1 {
            write(bytemuck::cast_slice(bundle.half(1, prime)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::kernel::KeyLayout;
    use super::*;
    use crate::params::Shape;

    fn bundle(shape: &Shape, first: u8) -> Arc<KeyBundle> {
        let bytes = (0..shape.bundle_bytes()).map(|i| [first, i as u8, (i >> 11) as u8][i % 3] / 2);
        Arc::new(KeyBundle::decode(&bytes.collect::<Vec<_>>(), shape).expect("a bundle"))
    }

    #[test]
    fn bundles_lie_as_the_layout_says() {
        for pack_rows in [128, 2048] {
            let shape = Shape::new(40, pack_rows, 1, 192).expect("a shape");
            let bundle = bundle(&shape, 3);
            let layout = KeyLayout::new(&shape);
            let mut expected: Vec<u32> = Vec::new();
            for prime in 0..2 {
                let mut words = vec![0; layout.words()];
                layout.write(|key| bundle.half(key, prime), &mut words);
                expected.extend(words);
            }
            let mut found = Vec::new();
            write_bundle(&bundle, &mut |bytes: &[u8]| found.extend_from_slice(bytes));
            assert_eq!(found.len() as u64, bundle_bytes(&bundle));
            assert_eq!(found, bytemuck::cast_slice::<u32, u8>(&expected));
            assert!(expected.len() <= SLOT_WORDS);
        }
    }

    /// Finds or places, as a round does; whether it was there.
    fn ask(slots: &mut Slots, bundle: &Arc<KeyBundle>) -> (usize, bool) {
        match slots.find(bundle) {
            Some(slot) => (slot, true),
            None => (slots.place(bundle), false),
        }
    }

    #[test]
    fn slots_of_bundles_that_are_gone_come_first_and_then_the_oldest() {
        let shape = Shape::new(40, 128, 1, 192).expect("a shape");
        let mut slots = Slots::new(3);
        let [a, b, c, d] = [1, 2, 3, 4].map(|first| bundle(&shape, first));
        let round = |slots: &mut Slots, bundles: &[&Arc<KeyBundle>]| -> Vec<(usize, bool)> {
            slots.round += 1;
            bundles.iter().map(|bundle| ask(slots, bundle)).collect()
        };
        let first = round(&mut slots, &[&a, &b, &a]);
        assert_eq!(first[0].0, first[2].0);
        assert_eq!(first.iter().map(|found| found.1).collect::<Vec<_>>(), [false, false, true]);
        let [slot_a, slot_b] = [first[0].0, first[1].0];
        let slot_c = round(&mut slots, &[&c, &a])[0].0;
        assert_ne!(slot_c, slot_a);
        assert_ne!(slot_c, slot_b);
        drop(c);
        // The slot of the one that is gone, though b was used longer ago.
        assert_eq!(round(&mut slots, &[&d]), [(slot_c, false)]);
        assert_eq!(round(&mut slots, &[&a]), [(slot_a, true)]);
        // Then the oldest.
        let e = bundle(&shape, 5);
        assert_eq!(round(&mut slots, &[&e]), [(slot_b, false)]);
        assert_eq!(
            round(&mut slots, &[&a, &d, &e]),
            [(slot_a, true), (slot_c, true), (slot_b, true)]
        );
        assert!(slots.find(&b).is_none());
    }

    #[test]
    fn a_new_bundle_is_never_taken_for_one_that_is_gone() {
        let shape = Shape::new(40, 128, 1, 192).expect("a shape");
        let mut slots = Slots::new(4);
        for first in 0..64 {
            slots.round += 1;
            // Dropped at once: an allocator would give the same address again.
            assert!(!ask(&mut slots, &bundle(&shape, first)).1);
        }
        assert!(slots.by_address.len() <= 4);
    }
}
