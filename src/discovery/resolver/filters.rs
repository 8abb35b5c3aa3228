//! Routing filters as a device uses them: fetched, verified, kept, and asked who is not there.
//!
//! Only keys that were derived with a blinding key are in a filter, so a contact is evaluated
//! before it can be ruled out. Whoever has a slot keeps it: members of a batch never change.

use std::collections::BTreeMap;

use super::errors::ResolveError;
use super::exchange::{Exchange, Fetched};
use super::state::{DatabaseState, FilterSeen};
use crate::discovery::directory::Database;
use crate::discovery::filter::{Filter, Seen};
use crate::limits::{FILTER_DEVICE_BYTES_MAX, FILTER_HEADER_BYTES_MAX};

/// The filters that are in use, by the name of their database.
#[derive(Default)]
pub(super) struct Filters(BTreeMap<String, Filter>);

impl Filters {
    /// Fetches the filter of a database where it is another one than was kept. It is used if it
    /// knows all records of this epoch of the database.
    pub(super) async fn refresh(
        &mut self,
        exchange: &Exchange,
        entry: &Database,
        kept: &mut DatabaseState,
        epoch: u64,
    ) -> Result<(), ResolveError> {
        let path = format!("/databases/{}/filter", entry.id);
        let max = FILTER_DEVICE_BYTES_MAX as usize + FILTER_HEADER_BYTES_MAX;
        let what = "request for the routing filter";
        let used = self.0.remove(&entry.id);
        let filter = match exchange.get_if_there(what, &path, &kept.filter, max).await? {
            Fetched::Nothing => {
                kept.filter.clear();
                return Ok(());
            }
            Fetched::Same => match used {
                Some(filter) => filter,
                None => open(entry, kept, kept.filter.clone())?,
            },
            Fetched::Other(file) => {
                let filter = open(entry, kept, file.to_vec())?;
                let Seen { epoch, digest } = filter.seen();
                kept.filter = file.to_vec();
                kept.filter_seen = Some(FilterSeen { epoch, digest: digest.to_vec() });
                filter
            }
        };
        if filter.is_of(epoch) {
            self.0.insert(entry.id.clone(), filter);
        }
        Ok(())
    }

    /// Whether a database says that it has no record under this key.
    pub(super) fn rules_out(&self, database: &str, key: &[u8]) -> bool {
        self.0.get(database).is_some_and(|filter| !filter.covers(key))
    }
}

/// Checks a file against the operator's key and the newest filter that was accepted.
fn open(entry: &Database, kept: &DatabaseState, file: Vec<u8>) -> Result<Filter, ResolveError> {
    let seen = kept.filter_seen.as_ref().map(|seen| Seen {
        epoch: seen.epoch,
        digest: *seen.digest.first_chunk().expect("this is a bug: a digest was not checked"),
    });
    let max = FILTER_DEVICE_BYTES_MAX + FILTER_HEADER_BYTES_MAX as u64;
    let opened =
        Filter::open(file, &entry.id, entry.operator_key.verifying_key(), seen.as_ref(), max);
    opened.map_err(|error| ResolveError::Filter { database: entry.id.clone(), error })
}
