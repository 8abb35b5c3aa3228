//! The directory of the copy.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::task::spawn_blocking;

use super::errors::PullError;
use super::verify::verify;
use crate::client::OperatorKey;
use crate::params::Shape;
use crate::shard::files::{TEMPORARY_SUFFIX, gone, sync_parent, write_atomically};
use crate::shard::header::{self, file_bytes};
use crate::shard::manifest::{
    MANIFEST_NAME, MANIFEST_NEXT_NAME, MANIFEST_PREVIOUS_NAME, SHARDS_DIR,
};
use crate::shard::{Manifest, OpenError, ShardEntry};

/// Ends the name of a file of which a part has come.
const PART_SUFFIX: &str = ".part";
/// What a DER-encoded Ed25519 public key starts with (RFC 8410): the 32 bytes follow.
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The directory of the copy, which no other run writes to meanwhile.
pub(crate) struct Folder {
    path: PathBuf,
    held: Option<Manifest>,
    /// Unlocked when it is closed.
    _lock: File,
}

impl Folder {
    pub(crate) fn enter(path: &Path) -> Result<Self, PullError> {
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

    /// An error unless a manifest is signed by this operator, valid now (Unix seconds), of the
    /// database that is here, and not older.
    pub(crate) fn check(
        &self,
        newer: &Manifest,
        operator: &OperatorKey,
        now: u64,
    ) -> Result<(), PullError> {
        let found = OperatorKey(newer.operator_key.0);
        if found != *operator {
            let (found, expected) = (found.fingerprint(), operator.fingerprint());
            return Err(PullError::Operator { found, expected });
        }
        newer.lifetime().check(now)?;
        self.check_follows(newer)
    }

    /// An error unless a manifest is of the database that is here, and not older.
    fn check_follows(&self, newer: &Manifest) -> Result<(), PullError> {
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
    pub(crate) fn part(&self, entry: &ShardEntry) -> PathBuf {
        self.path.join(SHARDS_DIR).join(format!("{}{PART_SUFFIX}", entry.file))
    }

    /// Whether a shard's file is here. It was verified before it got its name, so that its length
    /// and its header are enough.
    fn has(&self, shape: &Shape, entry: &ShardEntry) -> bool {
        let found = header::read(&self.shard(entry), shape);
        found.is_ok_and(|found| found.digest() == entry.header_digest.0)
    }

    /// How much of a shard has come.
    pub(crate) fn part_bytes(&self, entry: &ShardEntry) -> Result<u64, PullError> {
        let part = self.part(entry);
        match fs::symlink_metadata(&part) {
            Ok(found) => Ok(found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(PullError::io("look at", &part)(error)),
        }
    }

    /// The entries whose files are not here, each file once, and how many bytes are to come.
    pub(crate) fn missing<'a>(
        &self,
        shape: &Shape,
        entries: impl Iterator<Item = &'a ShardEntry>,
    ) -> Result<(Vec<&'a ShardEntry>, u64), PullError> {
        let mut names = HashSet::new();
        let missing: Vec<&ShardEntry> =
            entries.filter(|entry| names.insert(&entry.file) && !self.has(shape, entry)).collect();
        let expected = file_bytes(shape);
        let mut bytes = 0;
        for entry in &missing {
            bytes += expected - self.part_bytes(entry)?.min(expected);
        }
        Ok((missing, bytes))
    }

    /// Opens what has come of a file, to be written at its end, and says how much that is. More
    /// than there can be is thrown away; what is there and no regular file is an error.
    pub(crate) fn open_part(
        &self,
        shape: &Shape,
        entry: &ShardEntry,
    ) -> Result<(File, u64), PullError> {
        let part = self.part(entry);
        let in_part = PullError::io("write", &part);
        let file = OpenOptions::new().append(true).create(true).open(&part).map_err(&in_part)?;
        let found = file.metadata().map_err(&in_part)?;
        if !found.is_file() {
            return Err(in_part(io::Error::other("it is no regular file")));
        }
        if found.len() <= file_bytes(shape) {
            return Ok((file, found.len()));
        }
        file.set_len(0).map_err(&in_part)?;
        Ok((file, 0))
    }

    /// Has a file brought here, by what completes its part, until it is what its operator signed.
    /// What a run that was killed has left may be damaged, and what comes now may be too, once.
    pub(crate) async fn bring<E: From<PullError>>(
        &self,
        shape: &Shape,
        entry: &ShardEntry,
        mut complete: impl AsyncFnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let part = self.part(entry);
        let mut whole_downloads = 0;
        loop {
            whole_downloads += u32::from(self.part_bytes(entry)? == 0);
            complete().await?;
            let (path, of, expected) = (part.clone(), *shape, entry.clone());
            let verified = spawn_blocking(move || verify(&path, &of, &expected)).await;
            let verified = verified.expect("this is a bug: verifying a file panicked");
            let Err(problem) = verified.map_err(PullError::io("read", &part))? else {
                return Ok(self.keep(entry)?);
            };
            fs::remove_file(&part).map_err(PullError::io("remove", &part))?;
            if whole_downloads >= 2 {
                let (file, problem) = (entry.file.clone(), problem.to_string());
                return Err(PullError::Damaged { file, problem }.into());
            }
        }
    }

    /// Gives a part that is whole and verified the shard's name.
    fn keep(&self, entry: &ShardEntry) -> Result<(), PullError> {
        let shard = self.shard(entry);
        fs::rename(self.part(entry), &shard)
            .and_then(|()| sync_parent(&shard))
            .map_err(PullError::io("create", &shard))
    }

    /// Makes a manifest, all of whose files are here, that of the copy; removes what neither it nor
    /// the one before names. How many files were removed; and whether a running server has to be
    /// started again, because the shape or the number of shards is another.
    pub(crate) fn publish(&mut self, newest: &Manifest) -> Result<(u64, bool), PullError> {
        if self.held.as_ref() != Some(newest) {
            let key = public_pem(&newest.operator_key.0);
            self.write("operator.pub", key.as_bytes())?;
            if let Some(held) = &self.held {
                self.write(MANIFEST_PREVIOUS_NAME, &held.to_json())?;
            }
            self.write(MANIFEST_NAME, &newest.to_json())?;
        }
        let staged = self.path.join(MANIFEST_NEXT_NAME);
        if read_if_any(&staged)?.is_none_or(|staged| staged.epoch <= newest.epoch) {
            gone(fs::remove_file(&staged)).map_err(PullError::io("remove", &staged))?;
        }
        let held = self.held.replace(newest.clone());
        let restart = held.is_some_and(|held| {
            held.shape != newest.shape || held.shard_count != newest.shard_count
        });
        Ok((self.clean_up()?, restart))
    }

    /// Makes a manifest, all of whose files are here, the next one of the copy, which is not to be
    /// used by clients yet.
    #[cfg(feature = "store")]
    pub(crate) fn stage(&mut self, next: &Manifest) -> Result<(), PullError> {
        if read_if_any(&self.path.join(MANIFEST_NEXT_NAME))?.as_ref() != Some(next) {
            self.write(MANIFEST_NEXT_NAME, &next.to_json())?;
        }
        self.clean_up().map(drop)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), PullError> {
        let path = self.path.join(name);
        write_atomically(&path, bytes).map_err(PullError::io("write", &path))
    }

    /// Removes files that no manifest here names.
    fn clean_up(&self) -> Result<u64, PullError> {
        let mut named = HashSet::new();
        self.held.iter().for_each(|held| named.extend(names(held).map(str::to_owned)));
        for name in [MANIFEST_PREVIOUS_NAME, MANIFEST_NEXT_NAME] {
            let other = read_if_any(&self.path.join(name))?;
            other.iter().for_each(|other| named.extend(names(other).map(str::to_owned)));
        }
        let shards = self.path.join(SHARDS_DIR);
        remove_unnamed(&shards, &named).map_err(PullError::io("clean up", &shards))
    }
}

/// A manifest beside the one in use, whose files are kept. Nobody opens one that is damaged.
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
fn remove_unnamed(shards: &Path, named: &HashSet<String>) -> io::Result<u64> {
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
