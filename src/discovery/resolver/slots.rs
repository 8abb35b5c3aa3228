//! Which contacts are asked together, and the dummies that fill their batches.
//!
//! An observer sees the set of shards of a batch. It learns something from a set only where sets
//! differ from time to time. So a batch has sixteen members for ever, its dummies included, whose
//! keys follow from a key of the device and the number of their slot. What is new goes into new
//! batches. The members of a batch are in different shards where there are enough of them, so that
//! one key bundle may serve them all. They stay so when the number of shards doubles, because each
//! shard then splits in two.

use std::collections::{BTreeMap, HashSet};

use super::state::{Batch, DatabaseState, Slot};
use crate::discovery::jws::base64url;
use crate::discovery::sealed::lookup::BATCH;
use crate::limits::SHARDS_FOR_ONE_BUNDLE;
use crate::scheme::{SecretError, random_permutation};

/// Fewest shards of a database where the members of a batch are in distinct ones. One key bundle
/// serves a batch only from [`crate::limits::SHARDS_FOR_ONE_BUNDLE`] on, but the number of shards
/// may grow to that while batches stay.
const SHARDS_DISTINCT_MIN: u32 = BATCH as u32;

/// A contact that is to get a slot.
pub(super) struct Newcomer {
    pub(super) contact: String,
    pub(super) shard: u32,
}

/// What decides the keys of dummies of a database, and where they are.
pub(super) struct Dummies<'a, ShardOf: Fn(&[u8]) -> u32> {
    pub(super) device_key: &'a [u8; 32],
    pub(super) database: &'a str,
    pub(super) shard_count: u32,
    pub(super) shard_of: ShardOf,
}

/// The key that a dummy looks up: of the form of a derived key, and in no database.
pub(super) fn dummy_key(device_key: &[u8; 32], database: &str, slot: u64, attempt: u32) -> String {
    let mut hasher = blake3::Hasher::new_keyed(device_key);
    // Names of databases have no zero byte.
    hasher.update(b"dummy\0").update(database.as_bytes()).update(b"\0");
    hasher.update(&slot.to_le_bytes()).update(&attempt.to_le_bytes());
    base64url(hasher.finalize().as_bytes())
}

/// Whether a batch whose members are in these shards can be sent: under one key bundle no shard may
/// be twice in it.
pub(super) fn is_fit(mut shards: impl Iterator<Item = u32>, shard_count: u32) -> bool {
    let mut seen = HashSet::new();
    shard_count < SHARDS_FOR_ONE_BUNDLE || shards.all(|shard| seen.insert(shard))
}

/// Gives newcomers slots in new batches, which are due at `now`.
pub(super) fn deal<ShardOf: Fn(&[u8]) -> u32>(
    state: &mut DatabaseState,
    newcomers: Vec<Newcomer>,
    dummies: &Dummies<'_, ShardOf>,
    now: u64,
) -> Result<(), SecretError> {
    let is_distinct = dummies.shard_count >= SHARDS_DISTINCT_MIN;
    let mut batches = Vec::new();
    for newcomers in grouped(newcomers, is_distinct)? {
        let mut taken: HashSet<u32> = newcomers.iter().map(|newcomer| newcomer.shard).collect();
        let mut contacts = newcomers.into_iter().map(|newcomer| newcomer.contact);
        let mut slots = Vec::with_capacity(BATCH);
        for number in (state.next_slot..).take(BATCH) {
            slots.push(match contacts.next() {
                Some(contact) => Slot { number, contact, ..Slot::default() },
                None => dummy(number, dummies, is_distinct.then_some(&mut taken)),
            });
        }
        state.next_slot += BATCH as u64;
        batches.push(Batch { due: now, slots, is_asked: false });
    }
    state.batches.append(&mut batches);
    Ok(())
}

/// A dummy for a slot: in a shard that is free, where that matters.
fn dummy<ShardOf: Fn(&[u8]) -> u32>(
    number: u64,
    dummies: &Dummies<'_, ShardOf>,
    taken: Option<&mut HashSet<u32>>,
) -> Slot {
    let slot = |attempt| Slot { number, attempt, ..Slot::default() };
    let Some(taken) = taken else { return slot(0) };
    let is_free = |attempt: &u32| {
        let key = dummy_key(dummies.device_key, dummies.database, number, *attempt);
        taken.insert((dummies.shard_of)(key.as_bytes()))
    };
    // At least one shard is free, because the batch has one member less than shards or fewer.
    slot((0..u32::MAX).find(is_free).expect("this is a bug: no shard is free"))
}

/// Newcomers in as few groups of at most sixteen as there can be; where they have to be in distinct
/// shards, no shard is twice in one. At random otherwise.
fn grouped(newcomers: Vec<Newcomer>, is_distinct: bool) -> Result<Vec<Vec<Newcomer>>, SecretError> {
    let mut by_shard: BTreeMap<u32, Vec<Newcomer>> = BTreeMap::new();
    let count = newcomers.len();
    for (at, newcomer) in newcomers.into_iter().enumerate() {
        // Without the rule each is in a shard of its own.
        let shard = if is_distinct { newcomer.shard } else { at as u32 };
        by_shard.entry(shard).or_default().push(newcomer);
    }
    let most_in_a_shard = by_shard.values().map(Vec::len).max().unwrap_or(0);
    let mut groups: Vec<Vec<Newcomer>> = Vec::new();
    groups.resize_with(count.div_ceil(BATCH).max(most_in_a_shard), Vec::new);
    let mut by_shard: Vec<Vec<Newcomer>> = by_shard.into_values().collect();
    for at in random_permutation(by_shard.len())? {
        // The emptiest groups, ties at random: then the sizes of groups differ by one at most, so
        // that none grows beyond sixteen.
        let mut order = random_permutation(groups.len())?;
        order.sort_by_key(|&group| groups[group].len());
        for (newcomer, group) in by_shard[at].drain(..).zip(order) {
            groups[group].push(newcomer);
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::resolver::state::State;

    const DEVICE_KEY: [u8; 32] = [3; 32];
    const NOW: u64 = 1_800_000_000;

    /// As a database places keys: by the upper bits of a hash.
    fn shard_of(shard_count: u32) -> impl Fn(&[u8]) -> u32 {
        move |key| {
            let hash = blake3::hash(key);
            let word = u32::from_le_bytes(*hash.as_bytes().first_chunk().unwrap());
            ((u64::from(word) * u64::from(shard_count)) >> 32) as u32
        }
    }

    fn dummies(shard_count: u32) -> Dummies<'static, impl Fn(&[u8]) -> u32> {
        let shard_of = shard_of(shard_count);
        Dummies { device_key: &DEVICE_KEY, database: "eu1", shard_count, shard_of }
    }

    fn newcomers(range: std::ops::Range<u32>, shard_count: u32) -> Vec<Newcomer> {
        let shard_of = shard_of(shard_count);
        let contact = |number| format!("+1555{number:07}");
        let newcomer = |contact: String| Newcomer { shard: shard_of(contact.as_bytes()), contact };
        range.map(contact).map(newcomer).collect()
    }

    /// The look-up keys of each batch; contacts stand for their own keys.
    fn keys(state: &DatabaseState) -> Vec<Vec<String>> {
        let key = |slot: &Slot| match slot.contact.as_str() {
            "" => dummy_key(&DEVICE_KEY, "eu1", slot.number, slot.attempt),
            contact => contact.to_owned(),
        };
        state.batches.iter().map(|batch| batch.slots.iter().map(key).collect()).collect()
    }

    fn distinct_shards(batch: &[String], shard_count: u32) -> usize {
        let shard_of = shard_of(shard_count);
        batch.iter().map(|key| shard_of(key.as_bytes())).collect::<HashSet<_>>().len()
    }

    #[test]
    fn contacts_fill_the_fewest_batches_and_dummies_the_rest() {
        for (count, shard_count, expected) in
            [(0, 1_000, 0), (1, 16, 1), (16, 5, 1), (17, 5, 2), (500, 1_000, 32), (500, 5, 32)]
        {
            let mut state = DatabaseState::default();
            deal(&mut state, newcomers(0..count, shard_count), &dummies(shard_count), NOW).unwrap();
            let slots: Vec<&Slot> = state.batches.iter().flat_map(|batch| &batch.slots).collect();
            assert_eq!((state.batches.len(), slots.len()), (expected, expected * BATCH));
            let contacts: HashSet<&str> = slots.iter().map(|slot| &*slot.contact).collect();
            assert_eq!(
                contacts.len(),
                count as usize + usize::from(!(count as usize).is_multiple_of(BATCH))
            );
            let numbers: Vec<u64> = slots.iter().map(|slot| slot.number).collect();
            assert_eq!(numbers, (0..state.next_slot).collect::<Vec<_>>());
            assert!(state.batches.iter().all(|batch| batch.due == NOW));
            if shard_count >= SHARDS_DISTINCT_MIN {
                let keys = keys(&state);
                assert!(keys.iter().all(|keys| distinct_shards(keys, shard_count) == BATCH));
            }
        }
    }

    #[test]
    fn contacts_of_one_shard_are_in_different_batches() {
        let shard = |contact: u32, shard| Newcomer { contact: contact.to_string(), shard };
        // Twenty in one shard, five in another, and others.
        let crowd = (0..20).map(|at| shard(at, 7)).chain((20..25).map(|at| shard(at, 8)));
        let groups =
            grouped(crowd.chain((25..60).map(|at| shard(at, at))).collect(), true).unwrap();
        assert_eq!(groups.len(), 20);
        for group in &groups {
            let shards: HashSet<u32> = group.iter().map(|newcomer| newcomer.shard).collect();
            assert_eq!(shards.len(), group.len());
            assert_eq!(group.len(), 3);
        }
    }

    #[test]
    fn who_is_with_whom_is_random() {
        let companions = || {
            let mut state = DatabaseState::default();
            deal(&mut state, newcomers(0..64, 1_000), &dummies(1_000), NOW).unwrap();
            let batch = keys(&state).into_iter().find(|keys| keys.contains(&"+15550000000".into()));
            let mut batch = batch.unwrap();
            batch.sort();
            batch
        };
        assert_ne!(companions(), companions());
    }

    #[test]
    fn batches_stay_when_contacts_come_shards_double_and_the_device_starts_again() {
        let mut state = State::new().unwrap();
        state.device_key = DEVICE_KEY.to_vec();
        deal(state.database("eu1"), newcomers(0..100, 64), &dummies(64), NOW).unwrap();
        let before = keys(state.database("eu1"));
        let sealed = state.seal(&[1; 32]).unwrap();
        let mut state = State::open(&sealed, &[1; 32]).unwrap();
        // The number of shards doubled: each split in two.
        deal(state.database("eu1"), newcomers(100..101, 128), &dummies(128), NOW + 5).unwrap();
        let after = keys(state.database("eu1"));
        assert_eq!((&after[..before.len()], after.len()), (&before[..], before.len() + 1));
        let batches = &state.database("eu1").batches;
        assert_eq!((batches[0].due, batches[before.len()].due), (NOW, NOW + 5));
        for batch in &before {
            for shard_count in [64, 128, 256] {
                assert_eq!(distinct_shards(batch, shard_count), BATCH);
            }
        }
        let all: HashSet<&String> = after.iter().flatten().collect();
        assert_eq!(all.len(), after.len() * BATCH);
    }

    #[test]
    fn dummies_follow_from_the_device_key_and_the_slot() {
        let key =
            |device: u8, database, slot, attempt| dummy_key(&[device; 32], database, slot, attempt);
        let first = key(1, "eu1", 0, 0);
        assert_eq!((first.len(), &first), (43, &key(1, "eu1", 0, 0)));
        for other in [key(2, "eu1", 0, 0), key(1, "eu", 0, 0), key(1, "eu1", 1, 0)] {
            assert_ne!(first, other);
        }
        assert_ne!(first, key(1, "eu1", 0, 1));
    }

    #[test]
    fn a_batch_of_few_shards_cannot_be_sent_among_many() {
        for (shards, shard_count, expected) in [
            ([1, 2, 3], 64, true),
            ([1, 2, 1], 63, true),
            ([1, 2, 1], 64, false),
            ([0, 0, 0], 65_000, false),
        ] {
            assert_eq!(is_fit(shards.into_iter(), shard_count), expected, "{shard_count}");
        }
        // Those that were dealt among sixteen shards can be sent after any doubling.
        let mut state = DatabaseState::default();
        deal(&mut state, newcomers(0..40, 16), &dummies(16), NOW).unwrap();
        for batch in keys(&state) {
            let shard_of = shard_of(64);
            assert!(is_fit(batch.iter().map(|key| shard_of(key.as_bytes())), 64));
        }
    }

    #[test]
    fn a_dummy_avoids_the_shards_of_its_batch() {
        let mut state = DatabaseState::default();
        for number in 0..40 {
            deal(&mut state, newcomers(number..number + 1, 64), &dummies(64), NOW).unwrap();
        }
        let attempts = state.batches.iter().flat_map(|batch| &batch.slots);
        assert!(attempts.filter(|slot| slot.attempt > 0).count() > 10);
        assert!(keys(&state).iter().all(|keys| distinct_shards(keys, 64) == BATCH));
    }
}
