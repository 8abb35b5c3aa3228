//! Routing filters that this front-end uses itself, of any size: opened and verified against the
//! directory, and never one that is older than the last one.
//!
//! A filter that lacks records of the newest epoch is not used; its database is asked without it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::errors::FrontEndError;
use super::placement::{PlacedDatabase, Placement};
use crate::discovery::directory::Directory;
use crate::discovery::filter::{Filter, FilterError, Seen};
use crate::limits::FILTER_BYTES_MAX;
use crate::shard::files::read_regular;

const WHAT: &str = "routing filter";

/// A filter, and whether the log says already that it is too old.
struct Held {
    filter: Filter,
    is_told: AtomicBool,
}

/// The filters in use, by database.
pub(super) struct Filters(RwLock<HashMap<String, Arc<Held>>>);

impl Filters {
    /// Opens the filters of a placement.
    ///
    /// # Errors
    /// One that cannot be read or verified.
    pub(super) fn open(
        placement: &Placement,
        directory: &Directory,
    ) -> Result<Self, FrontEndError> {
        let mut held = HashMap::new();
        for (placed, path) in with_filters(placement) {
            held.insert(placed.id.clone(), open(&placed.id, path, directory, None)?);
        }
        Ok(Self(RwLock::new(held)))
    }

    /// Reads them again. One that is refused, also because it is older than the one before, leaves
    /// that one in use, and the others are taken up.
    pub(super) fn reload(
        &self,
        placement: &Placement,
        directory: &Directory,
    ) -> Vec<FrontEndError> {
        let mut refused = Vec::new();
        for (placed, path) in with_filters(placement) {
            let seen = self.held(&placed.id).map(|held| held.filter.seen());
            match open(&placed.id, path, directory, seen.as_ref()) {
                Ok(held) => {
                    let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
                    all.insert(placed.id.clone(), held);
                }
                Err(error) => refused.push(error),
            }
        }
        refused
    }

    fn held(&self, database: &str) -> Option<Arc<Held>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(database).cloned()
    }

    /// Whether a database with this epoch says that it has no record under a key. `false` without a
    /// filter that knows the epoch.
    pub(super) fn rules_out(&self, database: &str, epoch: u64, lookup_key: &[u8]) -> bool {
        let Some(held) = self.held(database) else { return false };
        if !held.filter.is_of(epoch) {
            if !held.is_told.swap(true, Ordering::Relaxed) {
                let filter = held.filter.epoch();
                tracing::warn!(
                    database,
                    filter,
                    epoch,
                    "the routing filter is older than the database and not used: give a newer one \
                     and reload"
                );
            }
            return false;
        }
        !held.filter.covers(lookup_key)
    }

    /// Of each database with a filter, the epoch of the filter.
    pub(super) fn epochs(&self) -> Vec<(String, u64)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut epochs: Vec<_> =
            all.iter().map(|(id, held)| (id.clone(), held.filter.epoch())).collect();
        epochs.sort();
        epochs
    }

    /// Bytes of all filters.
    pub(super) fn bytes(&self) -> usize {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.values().map(|held| held.filter.bytes()).sum()
    }
}

fn with_filters(placement: &Placement) -> impl Iterator<Item = (&PlacedDatabase, &Path)> {
    let databases = placement.databases.iter();
    databases.filter_map(|placed| Some((placed, placed.filter.as_deref()?)))
}

fn open(
    id: &str,
    path: &Path,
    directory: &Directory,
    seen: Option<&Seen>,
) -> Result<Arc<Held>, FrontEndError> {
    let file = read_regular(path, FILTER_BYTES_MAX + 1)
        .map_err(|error| FrontEndError::Unreadable { what: WHAT, path: path.to_owned(), error })?;
    let entry = directory.database(id).ok_or_else(|| FrontEndError::Database {
        id: id.to_owned(),
        what: "there is a routing filter for it, but it is not in the directory",
        todo: "check the name",
    })?;
    let refused = |error: FilterError| FrontEndError::File {
        what: WHAT,
        path: path.to_owned(),
        found: format!("a file of which this is wrong: {error}"),
        expected: "the filter that the operator of the database signed last",
    };
    let key = entry.operator_key.verifying_key();
    let filter = Filter::open(file, id, key, seen, FILTER_BYTES_MAX).map_err(refused)?;
    Ok(Arc::new(Held { filter, is_told: AtomicBool::new(false) }))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::discovery::directory::{self, RecordKey, Validity, draft};
    use crate::discovery::filter::{Signing, write};
    use crate::discovery::jws::base64url;

    fn key(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32])
    }

    /// With the database eu1, whose operator has key 10.
    fn directory() -> Directory {
        let mut content = draft::new(1, vec![key(1).verifying_key().into()]).unwrap();
        let validity = Validity { from: 1, until: 2 };
        let database = directory::Database {
            id: "eu1".into(),
            operator_key: key(10).verifying_key().into(),
            record_keys: vec![RecordKey {
                index: 0,
                key: key(11).verifying_key().into(),
                validity,
            }],
            blinding_key: None,
            log: None,
            prefixes: Vec::new(),
            region: "EU".into(),
            endpoints: Vec::new(),
        };
        draft::add_database(&mut content, database).unwrap();
        let content = directory::Content { version: 1, expires: 1_790_000_000, ..content };
        let file = draft::sign(&content, &[key(1)]).unwrap();
        draft::open_unpinned(file.as_bytes()).unwrap()
    }

    fn lookup_key(number: u64) -> String {
        base64url(blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    /// A filter of the first hundred keys.
    fn filter(epoch: u64, operator: u8) -> Vec<u8> {
        let mut keys: Vec<_> = (0..100).map(lookup_key).collect();
        keys.sort();
        let lines: String = keys.iter().map(|key| format!("{key},base64:AAAA\n")).collect();
        let mut out = Vec::new();
        let signing = Signing { database: "eu1", epoch, key: &key(operator) };
        write(format!("sii,value\n{lines}").as_bytes(), &signing, &mut out).unwrap();
        out
    }

    fn placement(id: &str, path: &Path) -> Placement {
        let (id, filter) = (id.to_owned(), Some(path.to_owned()));
        let placed = PlacedDatabase { id, filter, ..PlacedDatabase::default() };
        Placement { databases: vec![placed] }
    }

    #[test]
    fn a_filter_rules_out_while_it_knows_the_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eu1.filter");
        let (placement, directory) = (placement("eu1", &path), directory());
        std::fs::write(&path, filter(5, 10)).unwrap();
        let filters = Filters::open(&placement, &directory).unwrap();
        assert_eq!(filters.epochs(), [("eu1".to_owned(), 5)]);
        assert!(filters.bytes() >= 100);
        let absent =
            (100..200).map(lookup_key).find(|key| filters.rules_out("eu1", 5, key.as_bytes()));
        let absent = absent.expect("one in 256 passes, not a hundred");
        assert!((0..100).all(|at| !filters.rules_out("eu1", 5, lookup_key(at).as_bytes())));
        assert!(filters.rules_out("eu1", 4, absent.as_bytes()), "an older epoch");
        assert!(!filters.rules_out("eu1", 6, absent.as_bytes()), "a newer epoch");
        assert!(!filters.rules_out("eu2", 5, absent.as_bytes()), "no filter");

        // An older one is refused, and the one before stays.
        std::fs::write(&path, filter(4, 10)).unwrap();
        let refused = filters.reload(&placement, &directory);
        assert!(refused[0].to_string().contains("never goes back"), "{}", refused[0]);
        assert!(filters.rules_out("eu1", 5, absent.as_bytes()));
        std::fs::write(&path, filter(6, 10)).unwrap();
        assert!(filters.reload(&placement, &directory).is_empty());
        assert!(filters.rules_out("eu1", 6, absent.as_bytes()));
    }

    #[test]
    fn what_cannot_be_verified_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eu1.filter");
        let open = |id: &str| match Filters::open(&placement(id, &path), &directory()) {
            Ok(_) => panic!("it was opened"),
            Err(error) => error,
        };
        assert!(matches!(open("eu1"), FrontEndError::Unreadable { .. }));
        for wrong in [b"a filter".to_vec(), filter(5, 12), filter(5, 10)[..99].to_vec()] {
            std::fs::write(&path, wrong).unwrap();
            let error = open("eu1");
            assert!(matches!(error, FrontEndError::File { .. }), "{error}");
            assert!(error.to_string().contains("eu1.filter"), "{error}");
        }
        std::fs::write(&path, filter(5, 10)).unwrap();
        assert!(matches!(open("eu2"), FrontEndError::Database { .. }));
    }
}
