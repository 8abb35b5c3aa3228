//! What a device keeps, and its sealed form. There is no file here: see [`super::store`].
//!
//! A sealed state is a version byte, a nonce of 24 bytes and the state under XChaCha20-Poly1305,
//! the version being authenticated too. Each writing draws another nonce. It holds secrets (the
//! device key, derived keys) and names contacts, and is wiped from memory when it is dropped.

use std::collections::{BTreeMap, HashSet};

use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use prost::Message as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::errors::StateError;
use crate::discovery::blind::{DERIVED_BYTES, Derived};
use crate::discovery::sealed::lookup::BATCH;
use crate::scheme::{SecretError, random_bytes};

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + NONCE_BYTES;

/// Bytes of the digest of a routing filter.
const DIGEST_BYTES: usize = 32;

/// Bytes of the key of dummies.
pub(super) const DEVICE_KEY_BYTES: usize = 32;

/// Everything that a device keeps. The field numbers are those of its file.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct State {
    /// Decides the keys of dummies. Drawn once.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) device_key: Vec<u8>,
    /// The directory's pins as JSON; empty before the first directory.
    #[prost(string, tag = "2")]
    pub(super) directory_pins: String,
    /// The newest directory as it was signed.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) directory: Vec<u8>,
    /// What belongs to a database, by its name.
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) databases: BTreeMap<String, DatabaseState>,
}

/// What a device keeps of one database.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct DatabaseState {
    /// The pins of its parameters as JSON; empty before the first ones.
    #[prost(string, tag = "1")]
    pub(super) pins: String,
    /// The body of the newest parameters.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) parameters: Vec<u8>,
    /// The public blinding key with which identifiers were evaluated; empty before.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) blinding_key: Vec<u8>,
    /// What the blinding key derives for a contact: never evaluated twice.
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub(super) derived: BTreeMap<String, Vec<u8>>,
    /// The number of the next slot. No number is used twice.
    #[prost(uint64, tag = "5")]
    pub(super) next_slot: u64,
    /// The batches, whose members never change.
    #[prost(message, repeated, tag = "6")]
    pub(super) batches: Vec<Batch>,
    /// The newest routing filter as it was signed; empty where there is none.
    #[prost(bytes = "vec", tag = "7")]
    pub(super) filter: Vec<u8>,
    /// The newest filter that was ever accepted.
    #[prost(message, optional, tag = "8")]
    pub(super) filter_seen: Option<FilterSeen>,
    /// What was verified of the log of its epochs, as JSON; empty before.
    #[prost(string, tag = "9")]
    pub(super) log: String,
}

/// Sixteen slots that are always asked together.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct Batch {
    /// When it is asked next, in seconds since 1970.
    #[prost(uint64, tag = "1")]
    pub(super) due: u64,
    #[prost(message, repeated, tag = "2")]
    pub(super) slots: Vec<Slot>,
    /// Whether the front-end may have seen it.
    #[prost(bool, tag = "3")]
    pub(super) is_asked: bool,
}

/// Which routing filter was accepted.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FilterSeen {
    #[prost(uint64, tag = "1")]
    pub(super) epoch: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) digest: Vec<u8>,
}

/// A contact of a batch, or a dummy.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct Slot {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    /// The contact in canonical form; empty for a dummy.
    #[prost(string, tag = "2")]
    pub(super) contact: String,
    /// Which key a dummy has: the first one whose shard was free.
    #[prost(uint32, tag = "3")]
    pub(super) attempt: u32,
    /// What the last answer said of a contact.
    #[prost(message, optional, tag = "4")]
    pub(super) answer: Option<StoredAnswer>,
}

/// What an answer said.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct StoredAnswer {
    /// When it came, in seconds since 1970.
    #[prost(uint64, tag = "1")]
    pub(super) asked: u64,
    #[prost(enumeration = "Said", tag = "2")]
    pub(super) said: i32,
    /// The value that was found, sealed as it lies in the database.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) value: Vec<u8>,
}

/// The three outcomes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Said {
    Absent = 0,
    Invalid = 1,
    Found = 2,
}

impl State {
    /// The state of a device that has asked nothing.
    pub(super) fn new() -> Result<Self, SecretError> {
        let mut state = Self::default();
        state.device_key = Zeroizing::new(random_bytes()?).to_vec();
        Ok(state)
    }

    /// The key of dummies.
    pub(super) fn device_key(&self) -> Zeroizing<[u8; DEVICE_KEY_BYTES]> {
        let bytes = self.device_key.as_slice().try_into();
        Zeroizing::new(bytes.expect("this is a bug: the device key was checked"))
    }

    /// What is kept of a database.
    pub(super) fn database(&mut self, name: &str) -> &mut DatabaseState {
        self.databases.entry(name.to_owned()).or_default()
    }

    /// The sealed form, for a file.
    pub(super) fn seal(&self, key: &[u8; 32]) -> Result<Vec<u8>, SecretError> {
        let mut sealed = Vec::with_capacity(HEAD_BYTES + self.encoded_len() + TAG_BYTES);
        sealed.push(VERSION);
        sealed.extend_from_slice(&random_bytes()?[..NONCE_BYTES]);
        self.encode(&mut sealed).expect("this is a bug: a vector without room");
        let (head, content) = sealed.split_at_mut(HEAD_BYTES);
        let nonce = XNonce::try_from(&head[1..]).expect("this is a bug: 24 bytes");
        let tag = XChaCha20Poly1305::new(key.into())
            .encrypt_inout_detached(&nonce, &[VERSION], content.into())
            .expect("this is a bug: a state of 256 GiB");
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens the sealed form.
    pub(super) fn open(sealed: &[u8], key: &[u8; 32]) -> Result<Self, StateError> {
        let short = StateError::Short { found: sealed.len(), expected: HEAD_BYTES + TAG_BYTES };
        let Some((&version, rest)) = sealed.split_first() else { return Err(short) };
        if version != VERSION {
            return Err(StateError::Version { found: version, expected: VERSION });
        }
        let (Some((nonce, rest)), true) =
            (rest.split_at_checked(NONCE_BYTES), sealed.len() >= HEAD_BYTES + TAG_BYTES)
        else {
            return Err(short);
        };
        let (content, tag) = rest.split_at(rest.len() - TAG_BYTES);
        let nonce = XNonce::try_from(nonce).expect("this is a bug: 24 bytes");
        let tag = Tag::try_from(tag).expect("this is a bug: 16 bytes");
        let mut content = Zeroizing::new(content.to_vec());
        XChaCha20Poly1305::new(key.into())
            .decrypt_inout_detached(&nonce, &[VERSION], content.as_mut_slice().into(), &tag)
            .map_err(|_| StateError::Unopened)?;
        let state =
            Self::decode(content.as_slice()).map_err(|_| StateError::Content("is unreadable"))?;
        state.check()?;
        Ok(state)
    }

    /// Checks what the rest of the code relies on.
    fn check(&self) -> Result<(), StateError> {
        let expect =
            |is_so, problem| if is_so { Ok(()) } else { Err(StateError::Content(problem)) };
        expect(self.device_key.len() == DEVICE_KEY_BYTES, "its device key has another length")?;
        for database in self.databases.values() {
            let mut numbers = HashSet::new();
            for batch in &database.batches {
                expect(batch.slots.len() == BATCH, "a batch has another number of slots")?;
                let mut slots = batch.slots.iter();
                let is_new =
                    |slot: &Slot| slot.number < database.next_slot && numbers.insert(slot.number);
                expect(slots.all(is_new), "a slot is there twice")?;
            }
            let is_derived = |slot: &Slot| {
                let is_plain = slot.contact.is_empty() || database.blinding_key.is_empty();
                is_plain || database.derived.contains_key(&slot.contact)
            };
            let mut slots = database.batches.iter().flat_map(|batch| &batch.slots);
            expect(slots.all(is_derived), "a contact has no derived key")?;
            let mut derived = database.derived.values();
            expect(derived.all(|key| key.len() == DERIVED_BYTES), "a derived key has no length")?;
            let mut seen = database.filter_seen.iter();
            expect(seen.all(|seen| seen.digest.len() == DIGEST_BYTES), "a digest has no length")?;
        }
        Ok(())
    }
}

impl DatabaseState {
    /// What the blinding key derives for a contact, if it was evaluated.
    pub(super) fn derived_key(&self, contact: &str) -> Option<Derived> {
        let bytes = self.derived.get(contact)?.as_slice().try_into();
        Some(Derived::from_bytes(bytes.expect("this is a bug: a derived key has another length")))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.device_key.zeroize();
    }
}

impl Drop for DatabaseState {
    fn drop(&mut self) {
        self.derived.values_mut().for_each(|key| key.zeroize());
        let slots = self.batches.iter_mut().flat_map(|batch| &mut batch.slots);
        slots.for_each(|slot| slot.contact.zeroize());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTACT: &str = "+15550100123";
    const KEY: [u8; 32] = [7; 32];

    /// A state with a batch of one contact that was found.
    fn sample() -> State {
        let mut state = State::new().unwrap();
        state.directory_pins = "{}".into();
        let slot = |number: u64| Slot {
            number,
            contact: if number == 3 { CONTACT.into() } else { String::new() },
            attempt: 1,
            answer: (number == 3).then(|| StoredAnswer {
                asked: 5,
                said: Said::Found.into(),
                value: b"a value".to_vec(),
            }),
        };
        let database = state.database("eu1");
        let slots = (0..BATCH as u64).map(slot).collect();
        database.batches = vec![Batch { due: 9, slots, is_asked: true }];
        database.filter_seen = Some(FilterSeen { epoch: 3, digest: vec![6; DIGEST_BYTES] });
        database.next_slot = BATCH as u64;
        database.derived.insert(CONTACT.into(), vec![0xd5; DERIVED_BYTES]);
        state
    }

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn a_state_comes_back_and_its_file_shows_nothing() {
        let state = sample();
        let sealed = state.seal(&KEY).unwrap();
        assert!(State::open(&sealed, &KEY).is_ok_and(|opened| opened == state));
        let plain = state.encode_to_vec();
        for part in [CONTACT.as_bytes(), b"eu1", b"a value", &[0xd5; 16], &state.device_key] {
            assert!(contains(&plain, part) && !contains(&sealed, part));
        }
        // Another nonce, and so other bytes, each time.
        assert_ne!(sealed[HEAD_BYTES..], state.seal(&KEY).unwrap()[HEAD_BYTES..]);
    }

    #[test]
    fn another_key_and_every_changed_or_missing_byte_are_refused() {
        let sealed = sample().seal(&KEY).unwrap();
        assert!(matches!(State::open(&sealed, &[8; 32]), Err(StateError::Unopened)));
        for end in 0..sealed.len() {
            let error = State::open(&sealed[..end], &KEY).err();
            let is_short = end < HEAD_BYTES + TAG_BYTES;
            match error {
                Some(StateError::Short { found, .. }) => assert!(is_short && found == end),
                Some(StateError::Unopened) => assert!(!is_short),
                _ => panic!("{end}"),
            }
        }
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            match State::open(&changed, &KEY).err() {
                Some(StateError::Version { found, .. }) => assert!(bit < 8 && found != VERSION),
                Some(StateError::Unopened) => assert!(bit >= 8),
                _ => panic!("{bit}"),
            }
        }
        let mut longer = sealed;
        longer.push(0);
        assert!(matches!(State::open(&longer, &KEY), Err(StateError::Unopened)));
    }

    #[test]
    fn the_version_is_authenticated() {
        // As a later version would write it: the same content, another version byte.
        let mut sealed = sample().seal(&KEY).unwrap();
        sealed[0] = 2;
        let error = State::open(&sealed, &KEY).err();
        assert!(matches!(error, Some(StateError::Version { found: 2, expected: 1 })));
        let (head, content) = sealed.split_at_mut(HEAD_BYTES);
        let (content, tag) = content.split_at_mut(content.len() - TAG_BYTES);
        let nonce = XNonce::try_from(&head[1..]).unwrap();
        let tag = Tag::try_from(&*tag).unwrap();
        XChaCha20Poly1305::new((&KEY).into())
            .decrypt_inout_detached(&nonce, &[2], content.into(), &tag)
            .unwrap_err();
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let changes: [fn(&mut State); 8] = [
            |state| state.database("eu1").filter_seen.as_mut().unwrap().digest.truncate(31),
            |state| state.device_key.truncate(31),
            |state| state.database("eu1").batches[0].slots.truncate(15),
            |state| state.database("eu1").batches[0].slots[0].number = 1,
            |state| state.database("eu1").next_slot = 15,
            |state| state.database("eu1").derived.values_mut().for_each(|key| key.truncate(63)),
            |state| {
                state.database("eu1").blinding_key = vec![1; 32];
                state.database("eu1").derived.clear();
            },
            |state| {
                let again = state.database("eu1").batches[0].clone();
                state.database("eu1").batches.push(again);
            },
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut state = sample();
            change(&mut state);
            let sealed = state.seal(&KEY).unwrap();
            let error = State::open(&sealed, &KEY).err();
            assert!(matches!(error, Some(StateError::Content(_))), "{at}");
        }
    }
}
