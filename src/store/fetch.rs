//! What a host holds of a database, from a store to its disk.
//!
//! The newest announced epoch becomes the host's `manifest.json`. A newer one that is not
//! announced yet becomes `manifest.next.json` as soon as all its files are here.

use std::io::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::spawn_blocking;

use super::announce::newest_announced;
use super::errors::StoreError;
use super::place::{MANIFESTS, Store, shard_name};
use super::publish::manifest;
use crate::client::OperatorKey;
use crate::limits;
use crate::params::Shape;
use crate::pull::{Folder, Step};
use crate::shard::header::file_bytes;
use crate::shard::{HeldBy, Manifest, ShardEntry};

/// What is copied, and where to.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// The directory of the copy. It is created.
    pub db: PathBuf,
    /// Who has to have signed the manifests.
    pub operator_key: OperatorKey,
    /// Whose shards are copied; all of them where nothing is said.
    pub held_by: Option<HeldBy>,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The announced epoch, where there is one.
    pub epoch: Option<u64>,
    /// A newer one whose files are all here.
    pub staged: Option<u64>,
    /// Files that came and were verified, and bytes of them that came.
    #[allow(missing_docs)]
    pub files: u64,
    #[allow(missing_docs)]
    pub bytes: u64,
    /// Whether a running server has to be started again: it does not load another shape or number
    /// of shards by itself.
    pub restart: bool,
}

/// Copies what this host holds of the announced epoch, and of the newest one. `now` is the time in
/// Unix seconds; `told` hears how far the run is. `known` has the manifests that the call before
/// read, and then those that this one did: in a store they never change, and have some megabytes.
///
/// # Errors
/// What was copied so far stays, and the same call goes on with it.
pub async fn fetch(
    store: &Store,
    options: &FetchOptions,
    now: u64,
    known: &mut Vec<Manifest>,
    told: &(dyn Fn(Step) + Sync),
) -> Result<Fetched, StoreError> {
    let announced = newest_announced(store).await?;
    let newest = store.epochs(MANIFESTS, ".json").await?.last().copied();
    let Some(newest) = newest else { return Err(StoreError::Empty) };
    let mut folder = Folder::enter(&options.db)?;
    let (mut fetched, mut before) = (Fetched::default(), std::mem::take(known));
    for epoch in [announced, Some(newest).filter(|&newest| announced != Some(newest))] {
        let Some(epoch) = epoch else { continue };
        let is_announced = announced.is_some_and(|announced| announced >= epoch);
        let read_before = before.iter().position(|manifest| manifest.epoch == epoch);
        let manifest = match read_before.map(|at| before.swap_remove(at)) {
            Some(manifest) => manifest,
            None => manifest(store, epoch).await?.ok_or(StoreError::NoEpoch { epoch, newest })?,
        };
        folder.check(&manifest, &options.operator_key, now)?;
        let (files, bytes) = fetch_files(store, options, &folder, &manifest, told).await?;
        fetched.files += files;
        fetched.bytes += bytes;
        if is_announced {
            fetched.restart |= folder.publish(&manifest)?.1;
            fetched.epoch = Some(epoch);
        } else {
            folder.stage(&manifest)?;
            fetched.staged = Some(epoch);
        }
        known.push(manifest);
    }
    Ok(fetched)
}

/// Downloads the files of held shards that are not here; how many, and their bytes.
async fn fetch_files(
    store: &Store,
    options: &FetchOptions,
    folder: &Folder,
    manifest: &Manifest,
    told: &(dyn Fn(Step) + Sync),
) -> Result<(u64, u64), StoreError> {
    let shape = manifest.shape();
    let held = options.held_by.as_ref().map(|held_by| held_by.shards(manifest.shard_count));
    let held = held.transpose().map_err(StoreError::Placement)?;
    let is_held = |shard| held.as_ref().is_none_or(|held| held.contains(shard));
    let held = (0..).zip(&manifest.shards).filter(|&(shard, _)| is_held(shard));
    let (missing, bytes) = folder.missing(&shape, held.map(|(_, entry)| entry))?;
    let files = missing.len() as u64;
    told(Step::Missing { files, bytes });
    let came = AtomicU64::new(0);
    let told = |step: Step| {
        if let Step::Got(bytes) = step {
            came.fetch_add(bytes, Ordering::Relaxed);
        }
        told(step);
    };
    let fetch = async |entry: &ShardEntry| {
        folder.bring(&shape, entry, || complete(store, folder, &shape, entry, &told)).await
    };
    let fetching = stream::iter(missing).map(fetch).buffer_unordered(limits::PULL_FILES_AT_ONCE);
    fetching.try_collect::<()>().await?;
    Ok((files, came.into_inner()))
}

/// Downloads what is missing of a file.
async fn complete(
    store: &Store,
    folder: &Folder,
    shape: &Shape,
    entry: &ShardEntry,
    told: &(dyn Fn(Step) + Sync),
) -> Result<(), StoreError> {
    let (expected, name) = (file_bytes(shape), shard_name(&entry.file));
    let (mut file, have) = folder.open_part(shape, entry)?;
    let starts = (have..expected).step_by(limits::STORE_RANGE_BYTES as usize);
    let ranges = starts.map(|at| at..(at + limits::STORE_RANGE_BYTES).min(expected));
    let get = async |range: Range<u64>| {
        let length = range.end - range.start;
        let wrong = |problem: String| StoreError::Object { name: name.clone(), problem };
        let found = store.range(&name, range).await?;
        let (bytes, size) = found.ok_or_else(|| wrong("is not there".into()))?;
        if size != expected || bytes.len() as u64 != length {
            return Err(wrong(format!("has {size} bytes, expected {expected}")));
        }
        Ok(bytes)
    };
    // In order, so that the length of the part says how much of it has come.
    let mut ranges = stream::iter(ranges).map(get).buffered(limits::STORE_RANGES_AT_ONCE);
    while let Some(bytes) = ranges.try_next().await? {
        let length = bytes.len() as u64;
        let writing = spawn_blocking(move || file.write_all(&bytes).map(|()| file));
        let written = writing.await.expect("this is a bug: writing panicked");
        file = written.map_err(StoreError::io("write", &folder.part(entry)))?;
        told(Step::Got(length));
    }
    Ok(())
}
