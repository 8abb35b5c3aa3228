//! What was found for devices that name their contacts, until it expires, within a bounded memory.
//!
//! Entries lie under a hash with a key of this process, so that nothing here names an identifier.
//! Those that expire first make room for new ones.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use crate::discovery::identifier::Identifier;
use crate::discovery::open::OpenError;
use crate::limits::{RESOLVE_ABSENT_SECONDS, RESOLVE_ENTRY_BYTES, RESOLVE_FOUND_SECONDS_MAX};
use crate::scheme::{SecretError, random_bytes};

/// What a database said of an identifier. It is content and has no Debug.
#[derive(Clone)]
pub(super) enum Said {
    /// A record, as it was signed, and when it expires.
    Record {
        record: Zeroizing<Vec<u8>>,
        expires: u64,
    },
    Absent,
    /// The answer cannot be believed.
    Invalid,
    /// The record was refused.
    Refused(OpenError),
}

impl Said {
    /// Until when it is kept that was said at `now`.
    fn until(&self, now: u64) -> u64 {
        match self {
            Self::Record { expires, .. } => {
                now.saturating_add(RESOLVE_FOUND_SECONDS_MAX).min(*expires)
            }
            // All the same: what a server does to an answer changes nothing between these.
            _ => now.saturating_add(RESOLVE_ABSENT_SECONDS),
        }
    }

    fn bytes(&self) -> usize {
        let record = if let Self::Record { record, .. } = self { record.len() } else { 0 };
        RESOLVE_ENTRY_BYTES + record
    }
}

/// A database and an identifier.
type Id = [u8; 16];

/// The answers that are kept.
pub(super) struct Cache {
    key: Zeroizing<[u8; 32]>,
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    entries: HashMap<Id, (u64, Said)>,
    by_end: BTreeSet<(u64, Id)>,
    bytes: usize,
}

impl Cache {
    /// An empty one that holds at most this many bytes.
    pub(super) fn new(bytes_max: usize) -> Result<Self, SecretError> {
        Ok(Self { key: Zeroizing::new(random_bytes()?), bytes_max, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of databases have no zero byte.
    fn id(&self, database: &str, identifier: &Identifier) -> Id {
        let mut hasher = Zeroizing::new(blake3::Hasher::new_keyed(&self.key));
        hasher.update(database.as_bytes()).update(&[0]).update(identifier.as_str().as_bytes());
        *hasher.finalize().as_bytes().first_chunk().expect("this is a bug: a short hash")
    }

    /// What was said, if it still holds at `now`.
    pub(super) fn get(&self, database: &str, identifier: &Identifier, now: u64) -> Option<Said> {
        let id = self.id(database, identifier);
        let held = self.held();
        held.entries.get(&id).filter(|(until, _)| *until > now).map(|(_, said)| said.clone())
    }

    /// Keeps what was said at `now`.
    pub(super) fn put(&self, database: &str, identifier: &Identifier, said: Said, now: u64) {
        let (id, until, bytes) = (self.id(database, identifier), said.until(now), said.bytes());
        let mut held = self.held();
        held.remove(id);
        while let Some(&(end, first)) = held.by_end.first()
            && (end <= now || held.bytes + bytes > self.bytes_max)
        {
            held.remove(first);
        }
        if until > now && held.bytes + bytes <= self.bytes_max {
            held.entries.insert(id, (until, said));
            held.by_end.insert((until, id));
            held.bytes += bytes;
        }
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.held().bytes
    }
}

impl Held {
    fn remove(&mut self, id: Id) {
        if let Some((until, said)) = self.entries.remove(&id) {
            self.by_end.remove(&(until, id));
            self.bytes -= said.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn identifier(at: u64) -> Identifier {
        Identifier::parse(&format!("+1555010{at:04}"), None).unwrap()
    }

    fn record(byte: u8, expires: u64) -> Said {
        Said::Record { record: Zeroizing::new(vec![byte; 208]), expires }
    }

    fn is_record(said: Option<Said>, byte: u8) -> bool {
        matches!(said, Some(Said::Record { record, .. }) if *record == [byte; 208])
    }

    #[test]
    fn a_record_is_kept_until_it_expires_and_an_absence_for_an_hour() {
        let cache = Cache::new(10_000).unwrap();
        cache.put("eu1", &identifier(1), record(1, NOW + 5_000), NOW);
        cache.put("eu1", &identifier(2), Said::Absent, NOW);
        cache.put("eu1", &identifier(3), Said::Invalid, NOW);
        cache.put("eu1", &identifier(4), record(4, NOW), NOW);
        cache.put("eu1", &identifier(5), record(5, u64::MAX), NOW);
        let get = |at, now| cache.get("eu1", &identifier(at), now);
        assert!(is_record(get(1, NOW + 4_999), 1) && get(1, NOW + 5_000).is_none());
        for at in [2, 3] {
            assert!(get(at, NOW + RESOLVE_ABSENT_SECONDS - 1).is_some(), "{at}");
            assert!(get(at, NOW + RESOLVE_ABSENT_SECONDS).is_none(), "{at}");
        }
        assert!(get(4, NOW).is_none(), "it had expired");
        assert!(is_record(get(5, NOW + RESOLVE_FOUND_SECONDS_MAX - 1), 5));
        assert!(get(5, NOW + RESOLVE_FOUND_SECONDS_MAX).is_none());
        assert!(cache.get("eu2", &identifier(1), NOW).is_none(), "another database");
    }

    #[test]
    fn memory_is_bounded_and_what_expires_first_makes_room() {
        let entry = RESOLVE_ENTRY_BYTES + 208;
        let cache = Cache::new(3 * entry).unwrap();
        for (at, expires) in [(1, 300), (2, 100), (3, 200)] {
            cache.put("eu1", &identifier(at), record(at as u8, NOW + expires), NOW);
        }
        assert_eq!(cache.bytes(), 3 * entry);
        cache.put("eu1", &identifier(1), record(9, NOW + 400), NOW);
        assert_eq!(cache.bytes(), 3 * entry, "the same one counts once");
        cache.put("eu1", &identifier(4), record(4, NOW + 50), NOW);
        let get = |at| cache.get("eu1", &identifier(at), NOW);
        assert!(get(2).is_none() && is_record(get(4), 4) && is_record(get(1), 9));
        // What has expired leaves with the next one.
        cache.put("eu1", &identifier(5), Said::Absent, NOW + 250);
        assert_eq!(cache.bytes(), entry + RESOLVE_ENTRY_BYTES);
        let small = Cache::new(entry - 1).unwrap();
        small.put("eu1", &identifier(1), record(1, NOW + 9), NOW);
        assert_eq!(small.bytes(), 0);
    }
}
