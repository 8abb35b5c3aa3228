//! Removing what no kept epoch needs.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::errors::StoreError;
use super::place::{ANNOUNCED, Listed, MANIFESTS, Store, manifest_name, shard_name};
use super::publish::manifest;
use crate::limits;
use crate::shard::manifest::SHARDS_DIR;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest epochs; also the newest announced one and all after it.
    pub epochs: usize,
    /// What is younger than this, which may belong to a build under way.
    pub younger: Duration,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Collected {
    pub manifests: u64,
    pub files: u64,
    pub bytes: u64,
}

/// Removes the manifests that are not kept, and the files that no kept one names, which are older
/// than `keep` says. `now` is the time by the store's clock.
///
/// # Errors
/// There is no manifest, or one that is kept cannot be read: nothing is removed then.
pub async fn collect(store: &Store, keep: &Keep, now: SystemTime) -> Result<Collected, StoreError> {
    // Files first: one that is written while manifests are read is younger than what may go.
    let files = store.list(SHARDS_DIR).await?;
    let manifests = store.list(MANIFESTS).await?;
    let mut epochs: Vec<u64> = manifests.iter().filter_map(|found| found.epoch(".json")).collect();
    epochs.sort_unstable();
    let announced = store.epochs(ANNOUNCED, "").await?;
    let oldest_by_number = epochs.iter().rev().nth(keep.epochs.max(1) - 1).or(epochs.first());
    let Some(&oldest) = oldest_by_number else { return Err(StoreError::Empty) };
    let oldest = announced.last().map_or(oldest, |&announced| announced.min(oldest));
    let mut named = HashSet::new();
    for &epoch in epochs.iter().filter(|&&epoch| epoch >= oldest) {
        let Some(kept) = manifest(store, epoch).await? else {
            return Err(StoreError::NoEpoch { epoch, newest: oldest });
        };
        named.extend(kept.shards.into_iter().map(|entry| entry.file));
    }
    let is_old =
        |found: &Listed| now.duration_since(found.modified).is_ok_and(|age| age > keep.younger);
    let mut collected = Collected::default();
    for found in manifests {
        let epoch = found.epoch(".json");
        if let Some(epoch) = epoch.filter(|&epoch| epoch < oldest && is_old(&found)) {
            store.remove(&manifest_name(epoch)).await?;
            collected.manifests += 1;
        }
    }
    for epoch in announced.into_iter().filter(|&epoch| epoch < oldest) {
        store.remove(&format!("{ANNOUNCED}/{epoch}")).await?;
    }
    let removed = files.into_iter().filter(|found| is_old(found) && !named.contains(&found.name));
    let remove =
        async |found: Listed| store.remove(&shard_name(&found.name)).await.map(|()| found.bytes);
    let removing = stream::iter(removed).map(remove);
    let removed: Vec<u64> =
        removing.buffer_unordered(limits::STORE_REQUESTS_AT_ONCE).try_collect().await?;
    collected.files = removed.len() as u64;
    collected.bytes = removed.iter().sum();
    Ok(collected)
}
