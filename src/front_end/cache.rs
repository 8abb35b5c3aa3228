//! What databases said of contacts that devices name: for a day, within a bounded memory.
//!
//! **Nothing here depends on an outcome:** entries take the same memory and are kept for the same
//! time. If what was found were kept for longer, the times of look-ups would tell answer servers
//! who is there, and a server that makes the records of a group absent would learn who was in it.
//!
//! Entries lie under a hash with a key of this process, so that nothing here names an identifier.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use zeroize::Zeroizing;

use crate::discovery::identifier::Identifier;
use crate::discovery::open::OpenError;
use crate::limits::{RESOLVE_ENTRY_BYTES, RESOLVE_KEPT_SECONDS};
use crate::scheme::{SecretError, random_bytes};

/// What a database said of an identifier. It is content and has no Debug.
#[derive(Clone)]
pub(super) enum Said {
    /// A record, as it was signed.
    Record(Zeroizing<Vec<u8>>),
    Absent,
    /// The answer cannot be believed.
    Invalid,
    /// The record was refused.
    Refused(OpenError),
}

/// A database and an identifier.
type Id = [u8; 16];

/// The answers that are kept.
pub(super) struct Cache {
    key: Zeroizing<[u8; 32]>,
    /// With the time until which they are kept; those that were asked for last.
    held: Mutex<LruCache<Id, (u64, Said)>>,
}

impl Cache {
    /// An empty one that holds at most this many bytes, or one entry.
    pub(super) fn new(bytes_max: usize) -> Result<Self, SecretError> {
        let entries = NonZeroUsize::new(bytes_max / RESOLVE_ENTRY_BYTES);
        let held = Mutex::new(LruCache::new(entries.unwrap_or(NonZeroUsize::MIN)));
        Ok(Self { key: Zeroizing::new(random_bytes()?), held })
    }

    fn held(&self) -> MutexGuard<'_, LruCache<Id, (u64, Said)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of databases have no zero byte.
    fn id(&self, database: &str, identifier: &Identifier) -> Id {
        let mut hasher = Zeroizing::new(blake3::Hasher::new_keyed(&self.key));
        hasher.update(database.as_bytes()).update(&[0]).update(identifier.as_str().as_bytes());
        *hasher.finalize().as_bytes().first_chunk().expect("this is a bug: a short hash")
    }

    /// What was said, if it is still kept at `now`.
    pub(super) fn get(&self, database: &str, identifier: &Identifier, now: u64) -> Option<Said> {
        let id = self.id(database, identifier);
        let mut held = self.held();
        match held.get(&id) {
            Some((until, said)) if *until > now => Some(said.clone()),
            _ => {
                held.pop(&id);
                None
            }
        }
    }

    /// Keeps what was said at `now`.
    pub(super) fn put(&self, database: &str, identifier: &Identifier, said: Said, now: u64) {
        let until = now.saturating_add(RESOLVE_KEPT_SECONDS);
        self.held().put(self.id(database, identifier), (until, said));
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.held().len() * RESOLVE_ENTRY_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn identifier(at: u64) -> Identifier {
        Identifier::parse(&format!("+1555010{at:04}"), None).unwrap()
    }

    fn record(byte: u8) -> Said {
        Said::Record(Zeroizing::new(vec![byte; 208]))
    }

    fn is_record(said: Option<Said>, byte: u8) -> bool {
        matches!(said, Some(Said::Record(record)) if *record == [byte; 208])
    }

    #[test]
    fn every_answer_is_kept_for_the_same_time() {
        let cache = Cache::new(100_000).unwrap();
        let all =
            [record(7), Said::Absent, Said::Invalid, Said::Refused(OpenError::Unreadable(""))];
        for (at, said) in (0..).zip(all) {
            cache.put("eu1", &identifier(at), said, NOW);
            let get = |now| cache.get("eu1", &identifier(at), now);
            assert!(get(NOW).is_some() && get(NOW + RESOLVE_KEPT_SECONDS - 1).is_some(), "{at}");
        }
        assert!(is_record(cache.get("eu1", &identifier(0), NOW), 7));
        assert!(cache.get("eu2", &identifier(0), NOW).is_none(), "another database");
        for at in 0..4 {
            assert!(
                cache.get("eu1", &identifier(at), NOW + RESOLVE_KEPT_SECONDS).is_none(),
                "{at}"
            );
        }
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn memory_is_bounded_and_every_answer_takes_the_same() {
        let cache = Cache::new(3 * RESOLVE_ENTRY_BYTES + 1).unwrap();
        for (at, said) in (1..).zip([record(1), Said::Absent, record(3)]) {
            cache.put("eu1", &identifier(at), said, NOW);
        }
        assert_eq!(cache.bytes(), 3 * RESOLVE_ENTRY_BYTES);
        cache.put("eu1", &identifier(1), record(9), NOW);
        assert_eq!(cache.bytes(), 3 * RESOLVE_ENTRY_BYTES, "the same one counts once");
        cache.put("eu1", &identifier(4), record(4), NOW);
        let get = |at| cache.get("eu1", &identifier(at), NOW);
        assert!(get(2).is_none() && is_record(get(1), 9) && is_record(get(3), 3));
        assert!(is_record(get(4), 4) && cache.bytes() == 3 * RESOLVE_ENTRY_BYTES);
        // One entry has room in any case.
        let small = Cache::new(0).unwrap();
        small.put("eu1", &identifier(1), record(1), NOW);
        assert!(is_record(small.get("eu1", &identifier(1), NOW), 1));
    }
}
