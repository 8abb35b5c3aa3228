//! The directory of the copy.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::copy::{Pulled, Signed};
use super::errors::PullError;
use crate::params::Shape;
use crate::shard::files::{TEMPORARY_SUFFIX, sync_parent, write_atomically};
use crate::shard::header;
use crate::shard::manifest::{MANIFEST_NAME, MANIFEST_PREVIOUS_NAME, SHARDS_DIR};
use crate::shard::{Manifest, OpenError, ShardEntry};

/// Ends the name of a file of which a part has come.
const PART_SUFFIX: &str = ".part";
/// What a DER-encoded Ed25519 public key starts with (RFC 8410): the 32 bytes follow.
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The directory of the copy, which no other run writes to meanwhile.
pub(super) struct Folder {
    path: PathBuf,
    held: Option<Manifest>,
    /// Unlocked when it is closed.
    _lock: File,
}

impl Folder {
    pub(super) fn enter(path: &Path) -> Result<Self, PullError> {
        let shards = path.join(SHARDS_DIR);
        fs::create_dir_all(&shards).map_err(PullError::io("create", &shards))?;
        let lock = File::open(path).map_err(PullError::io("open", path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PullError::Busy { path: path.into() }),
            Err(TryLockError::Error(error)) => return Err(PullError::io("lock", path)(error)),
        }
        let held = match Manifest::read(&path.join(MANIFEST_NAME)) {
            Ok(manifest) => Some(manifest),
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(PullError::Held(error)),
        };
        Ok(Self { path: path.to_owned(), held, _lock: lock })
    }

    /// An error unless a manifest is of the database that is here, and not older.
    pub(super) fn check_follows(&self, newer: &Manifest) -> Result<(), PullError> {
        let Some(held) = &self.held else { return Ok(()) };
        for (what, is_same) in [
            ("operator's key", newer.operator_key == held.operator_key),
            ("seed", newer.seed == held.seed),
            ("name", newer.database == held.database),
        ] {
            if !is_same {
                return Err(PullError::Other { what });
            }
        }
        if newer.epoch < held.epoch {
            return Err(PullError::Older { found: newer.epoch, held: held.epoch });
        }
        if newer.epoch == held.epoch && newer != held {
            return Err(PullError::Forked { epoch: newer.epoch });
        }
        Ok(())
    }

    fn shard(&self, entry: &ShardEntry) -> PathBuf {
        self.path.join(SHARDS_DIR).join(&entry.file)
    }

    /// The file into which a shard is downloaded.
    pub(super) fn part(&self, entry: &ShardEntry) -> PathBuf {
        self.path.join(SHARDS_DIR).join(format!("{}{PART_SUFFIX}", entry.file))
    }

    /// Whether a shard's file is here. It was verified before it got its name, so that its length
    /// and its header are enough.
    pub(super) fn has(&self, shape: &Shape, entry: &ShardEntry) -> bool {
        let found = header::read(&self.shard(entry), shape);
        found.is_ok_and(|found| found.digest() == entry.header_digest.0)
    }

    /// How much of a shard has come.
    pub(super) fn part_bytes(&self, entry: &ShardEntry) -> Result<u64, PullError> {
        let part = self.part(entry);
        match fs::symlink_metadata(&part) {
            Ok(found) => Ok(found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(PullError::io("look at", &part)(error)),
        }
    }

    /// Gives a part that is whole and verified the shard's name.
    pub(super) fn keep(&self, entry: &ShardEntry) -> Result<(), PullError> {
        let shard = self.shard(entry);
        fs::rename(self.part(entry), &shard)
            .and_then(|()| sync_parent(&shard))
            .map_err(PullError::io("create", &shard))
    }

    /// Makes a manifest, all of whose files are here, that of the copy; removes what neither it nor
    /// the one before names.
    pub(super) fn publish(
        &self,
        newest: &Signed,
        files: u64,
        bytes: u64,
    ) -> Result<Pulled, PullError> {
        let Signed { manifest, bytes: text } = newest;
        let write = |name: &str, bytes: &[u8]| {
            let path = self.path.join(name);
            write_atomically(&path, bytes).map_err(PullError::io("write", &path))
        };
        if self.held.as_ref() != Some(manifest) {
            write("operator.pub", public_pem(&manifest.operator_key.0).as_bytes())?;
            if let Some(held) = &self.held {
                write(MANIFEST_PREVIOUS_NAME, &held.to_json())?;
            }
            write(MANIFEST_NAME, text)?;
        }
        let restart = self.held.as_ref().is_some_and(|held| {
            held.shape != manifest.shape || held.shard_count != manifest.shard_count
        });
        let previous = read_if_any(&self.path.join(MANIFEST_PREVIOUS_NAME))?;
        let named = names(manifest).chain(previous.iter().flat_map(names)).collect();
        let shards = self.path.join(SHARDS_DIR);
        let removed =
            remove_unnamed(&shards, &named).map_err(PullError::io("clean up", &shards))?;
        let (epoch, shards) = (manifest.epoch, manifest.shard_count);
        Ok(Pulled { epoch, shards, files, bytes, removed, restart })
    }
}

/// The manifest before, whose files running servers may still use. Nobody opens one that is
/// damaged.
fn read_if_any(path: &Path) -> Result<Option<Manifest>, PullError> {
    match Manifest::read(path) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(OpenError::Io { source, .. }) if source.kind() != io::ErrorKind::NotFound => {
            Err(PullError::io("read", path)(source))
        }
        Err(_) => Ok(None),
    }
}

fn names(manifest: &Manifest) -> impl Iterator<Item = &str> {
    manifest.shards.iter().map(|entry| &*entry.file)
}

/// Removes shard files and parts of them that have no name of these; how many.
fn remove_unnamed(shards: &Path, named: &HashSet<&str>) -> io::Result<u64> {
    let mut removed = 0;
    for file in fs::read_dir(shards)? {
        let file = file?;
        let name = file.file_name();
        let Some(name) = name.to_str() else { continue };
        let ours = [".shard", PART_SUFFIX, TEMPORARY_SUFFIX].iter().any(|end| name.ends_with(end));
        if ours && !named.contains(name) {
            fs::remove_file(file.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// An operator's key as `sotto build` writes it.
fn public_pem(key: &[u8; 32]) -> String {
    let der = STANDARD.encode([&ED25519_SPKI_PREFIX[..], key].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
}
