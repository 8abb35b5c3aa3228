//! What a host holds of a database, from a store to its disk.
//!
//! The newest announced epoch becomes the host's `manifest.json`. A newer one that is not
//! announced yet becomes `manifest.next.json` as soon as all its files are here.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::spawn_blocking;

use super::announce::newest_announced;
use super::errors::StoreError;
use super::place::{MANIFESTS, Store};
use super::publish::manifest;
use crate::client::OperatorKey;
use crate::hosts::Ranges;
use crate::limits;
use crate::params::Shape;
use crate::pull::{Folder, PullError, Step, verify};
use crate::shard::header::file_bytes;
use crate::shard::manifest::SHARDS_DIR;
use crate::shard::{Manifest, ShardEntry};

/// What is copied, and where to.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// The directory of the copy. It is created.
    pub db: PathBuf,
    /// Who has to have signed the manifests.
    pub operator_key: OperatorKey,
    /// The shards that this host holds; all of them where nothing is said.
    pub held: Option<Ranges>,
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
/// Unix seconds; `told` hears how far the run is.
///
/// # Errors
/// What was copied so far stays, and the same call goes on with it.
pub async fn fetch(
    store: &Store,
    options: &FetchOptions,
    now: u64,
    told: &(dyn Fn(Step) + Sync),
) -> Result<Fetched, StoreError> {
    let announced = newest_announced(store).await?;
    let newest = store.epochs(MANIFESTS, ".json").await?.last().copied();
    let Some(newest) = newest else { return Err(StoreError::Empty) };
    let mut fetched = Fetched::default();
    for epoch in [announced, Some(newest).filter(|&newest| announced != Some(newest))] {
        let Some(epoch) = epoch else { continue };
        let is_announced = announced.is_some_and(|announced| announced >= epoch);
        let Some(manifest) = manifest(store, epoch).await? else {
            return Err(StoreError::NoEpoch { epoch, newest });
        };
        let mut folder = Folder::enter(&options.db)?;
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
    let is_held = |shard| options.held.as_ref().is_none_or(|held| held.contains(shard));
    let mut names = HashSet::new();
    let held = (0..).zip(&manifest.shards).filter(|&(shard, _)| is_held(shard));
    let missing: Vec<&ShardEntry> = held
        .map(|(_, entry)| entry)
        .filter(|entry| names.insert(&entry.file) && !folder.has(&shape, entry))
        .collect();
    let mut bytes = 0;
    for entry in &missing {
        bytes += file_bytes(&shape) - folder.part_bytes(entry)?.min(file_bytes(&shape));
    }
    told(Step::Missing { files: missing.len() as u64, bytes });
    let files = missing.len() as u64;
    let fetch = async |entry| fetch_file(store, folder, &shape, entry, told).await;
    let fetching = stream::iter(missing).map(fetch).buffer_unordered(limits::PULL_FILES_AT_ONCE);
    let came: Vec<u64> = fetching.try_collect().await?;
    Ok((files, came.iter().sum()))
}

/// Downloads what is missing of a file, verifies it and gives it its name; how many bytes came.
async fn fetch_file(
    store: &Store,
    folder: &Folder,
    shape: &Shape,
    entry: &ShardEntry,
    told: &(dyn Fn(Step) + Sync),
) -> Result<u64, StoreError> {
    let (part, expected) = (folder.part(entry), file_bytes(shape));
    let name = format!("{SHARDS_DIR}/{}", entry.file);
    let in_part = StoreError::io("write", &part);
    let (mut came, mut whole_downloads) = (0, 0);
    // What a run that was killed has left may be damaged, and what comes now may be too, once.
    loop {
        let mut have = folder.part_bytes(entry)?;
        let options = OpenOptions::new().create(true).truncate(false).write(true).open(&part);
        let file = options.map_err(&in_part)?;
        if have > expected {
            file.set_len(0).map_err(&in_part)?;
            have = 0;
        }
        whole_downloads += u32::from(have == 0);
        let starts = (have..expected).step_by(limits::STORE_RANGE_BYTES as usize);
        let ranges = starts.map(|at| at..(at + limits::STORE_RANGE_BYTES).min(expected));
        let get = async |range: std::ops::Range<u64>| {
            let length = range.end - range.start;
            let wrong = |problem: String| StoreError::Object { name: name.clone(), problem };
            let found = store.range(&name, range.clone()).await?;
            let (bytes, size) = found.ok_or_else(|| wrong("is not there".into()))?;
            if size != expected || bytes.len() as u64 != length {
                return Err(wrong(format!("has {size} bytes, expected {expected}")));
            }
            Ok((range.start, bytes))
        };
        // In order, so that the length of the part says how much of it has come.
        let mut ranges = stream::iter(ranges).map(get).buffered(limits::STORE_RANGES_AT_ONCE);
        let mut file = file;
        while let Some((at, bytes)) = ranges.try_next().await? {
            let length = bytes.len() as u64;
            let writing = spawn_blocking(move || file.write_all_at(&bytes, at).map(|()| file));
            file = writing.await.expect("this is a bug: writing panicked").map_err(&in_part)?;
            came += length;
            told(Step::Got(length));
        }
        drop::<File>(file);
        let (path, of, entry_of) = (part.clone(), *shape, entry.clone());
        let verified = spawn_blocking(move || verify(&path, &of, &entry_of)).await;
        let verified = verified.expect("this is a bug: verifying a file panicked");
        let Err(problem) = verified.map_err(StoreError::io("read", &part))? else {
            folder.keep(entry)?;
            return Ok(came);
        };
        fs::remove_file(&part).map_err(StoreError::io("remove", &part))?;
        if whole_downloads >= 2 {
            let (file, problem) = (entry.file.clone(), problem.to_string());
            return Err(PullError::Damaged { file, problem }.into());
        }
    }
}
