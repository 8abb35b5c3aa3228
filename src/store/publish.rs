//! Shard files and manifests to a store.

use std::fs;
use std::path::Path;

use crate::wire::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::spawn_blocking;

use super::errors::StoreError;
use super::place::{MANIFESTS, Store, manifest_name, shard_name};
use crate::limits;
use crate::shard::header::{HEADER_BYTES, Header, file_bytes};
use crate::shard::manifest::{MANIFEST_NAME, SHARDS_DIR};
use crate::shard::{Manifest, ShardEntry, verify_bytes};

/// The newest manifest of a store; `None` where there is none.
///
/// # Errors
/// The store cannot be read, or the manifest is none.
pub async fn newest(store: &Store) -> Result<Option<Manifest>, StoreError> {
    match store.epochs(MANIFESTS, ".json").await?.last() {
        Some(&epoch) => manifest(store, epoch).await,
        None => Ok(None),
    }
}

/// The manifest of an epoch; `None` where there is none.
pub(super) async fn manifest(store: &Store, epoch: u64) -> Result<Option<Manifest>, StoreError> {
    let name = manifest_name(epoch);
    let Some(bytes) = store.get(&name, limits::MANIFEST_BYTES_MAX).await? else { return Ok(None) };
    let parsed = Manifest::parse(&bytes);
    let manifest = parsed.map_err(|source| StoreError::Manifest { name: name.clone(), source })?;
    if manifest.epoch != epoch {
        let problem = format!("is of epoch {}", manifest.epoch);
        return Err(StoreError::Object { name, problem });
    }
    Ok(Some(manifest))
}

/// Looks at the header and the length of every file that a manifest names.
///
/// # Errors
/// A file is missing, or is another shard.
pub async fn check_files(store: &Store, manifest: &Manifest) -> Result<(), StoreError> {
    let expected = file_bytes(&manifest.shape());
    let check = async |(shard, entry): (u32, &ShardEntry)| {
        let name = shard_name(&entry.file);
        let wrong = |problem: String| StoreError::File { shard, name: name.clone(), problem };
        let found = store.range(&name, 0..HEADER_BYTES as u64).await?;
        let (head, bytes) = found.ok_or_else(|| wrong("is not in the store".into()))?;
        if bytes != expected {
            return Err(wrong(format!("has {bytes} bytes, expected {expected}")));
        }
        let page = head.first_chunk().ok_or_else(|| wrong("has no header".into()))?;
        let header = Header::decode(page).map_err(|error| wrong(error.to_string()))?;
        manifest.check_header(&header, shard).map_err(|error| wrong(error.to_string()))
    };
    let checks = stream::iter((0..).zip(&manifest.shards)).map(check);
    checks.buffer_unordered(limits::STORE_REQUESTS_AT_ONCE).try_collect().await
}

/// Publishes a manifest, whose files are there. It is not announced yet.
///
/// # Errors
/// There is another one of its epoch.
pub async fn publish(store: &Store, manifest: &Manifest) -> Result<(), StoreError> {
    let (name, json) = (manifest_name(manifest.epoch), manifest.to_json());
    if store.put_new(&name, vec![Bytes::from(json.clone())]).await? {
        return Ok(());
    }
    // The same one is there where this is done again.
    match store.get(&name, limits::MANIFEST_BYTES_MAX).await? {
        Some(found) if found == json => Ok(()),
        _ => Err(StoreError::Taken { epoch: manifest.epoch }),
    }
}

/// What a push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Pushed {
    pub epoch: u64,
    pub shards: u32,
    /// Files that the store lacked, and their bytes.
    pub files: u64,
    pub bytes: u64,
}

/// Copies a database directory to a store: the files that it lacks, each of which is verified
/// first, and the manifest. `told` hears how many files are missing, then of each that was written.
///
/// # Errors
/// A file is damaged, or the store has another manifest of the epoch. What was copied stays.
pub async fn push(
    store: &Store,
    db: &Path,
    told: &(dyn Fn(Option<u64>) + Sync),
) -> Result<Pushed, StoreError> {
    let manifest = Manifest::read(&db.join(MANIFEST_NAME))?;
    let expected = file_bytes(&manifest.shape());
    let mut entries: Vec<&ShardEntry> = manifest.shards.iter().collect();
    entries.sort_unstable_by_key(|entry| &entry.file);
    entries.dedup_by_key(|entry| &entry.file);
    let missing = stream::iter(entries)
        .map(|entry| lacking(store, entry, expected))
        .buffer_unordered(limits::STORE_REQUESTS_AT_ONCE);
    let missing: Vec<&ShardEntry> = missing.try_filter_map(async |it| Ok(it)).try_collect().await?;
    told(Some(missing.len() as u64));
    let files = missing.len() as u64;
    let upload = async |entry: &ShardEntry| {
        let path = db.join(SHARDS_DIR).join(&entry.file);
        let bytes = spawn_blocking(move || verified(&path)).await;
        let bytes = bytes.expect("this is a bug: reading a file panicked")?;
        store.put_new(&shard_name(&entry.file), vec![bytes.into()]).await?;
        told(None);
        Ok::<(), StoreError>(())
    };
    let uploads = stream::iter(missing).map(upload).buffer_unordered(limits::STORE_PUTS_AT_ONCE);
    uploads.try_collect::<()>().await?;
    publish(store, &manifest).await?;
    let (epoch, shards) = (manifest.epoch, manifest.shard_count);
    Ok(Pushed { epoch, shards, files, bytes: files * expected })
}

/// The entry, if the store lacks its file.
async fn lacking<'a>(
    store: &Store,
    entry: &'a ShardEntry,
    expected: u64,
) -> Result<Option<&'a ShardEntry>, StoreError> {
    let name = shard_name(&entry.file);
    match store.size(&name).await? {
        None => Ok(Some(entry)),
        Some(found) if found == expected => Ok(None),
        Some(found) => {
            let problem = format!("has {found} bytes, expected {expected}: remove it");
            Err(StoreError::Object { name, problem })
        }
    }
}

/// The bytes of a shard file that is what its header says.
fn verified(path: &Path) -> Result<Vec<u8>, StoreError> {
    let read = StoreError::io("read", path);
    let bytes = fs::read(path).map_err(&read)?;
    let damaged = |problem| StoreError::Damaged { name: path.display().to_string(), problem };
    let page = bytes.first_chunk().ok_or_else(|| read(std::io::ErrorKind::UnexpectedEof.into()))?;
    let header = Header::decode(page).map_err(|error| damaged(error.into()))?;
    if bytes.len() as u64 != file_bytes(&header.shape) {
        return Err(read(std::io::ErrorKind::UnexpectedEof.into()));
    }
    verify_bytes(&bytes, &header).map_err(damaged)?;
    Ok(bytes)
}
