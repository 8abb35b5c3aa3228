//! The directory a build works in: locked against other builders, and cleaned up of files that its
//! manifests do not name.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::errors::{BuildError, IoContext as _};
use super::options::BuildOptions;
use super::work::WorkDir;
use crate::shard::files::TEMPORARY_SUFFIX;
use crate::shard::manifest::{MANIFEST_NAME, MANIFEST_PREVIOUS_NAME, SHARDS_DIR};
use crate::shard::{Manifest, OpenError, ShardEntry};

/// Locks a database directory against other builders, until what comes back is dropped.
pub(super) fn lock(out: &Path) -> Result<File, BuildError> {
    let lock = File::open(out).context("open", out)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(BuildError::Locked { path: out.to_owned() }),
        Err(TryLockError::Error(error)) => Err(error).context("lock", out),
    }
}

pub(super) fn existing(out: &Path) -> Result<Option<Manifest>, BuildError> {
    match Manifest::read(&out.join(MANIFEST_NAME)) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(OpenError::Io { path, source }) => Err(BuildError::Io { doing: "read", path, source }),
        Err(error) => Err(BuildError::Existing(error)),
    }
}

/// Bytes that an ordinary user may still write below a path.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(path)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

pub(super) struct Directory {
    pub(super) out: PathBuf,
    pub(super) work: WorkDir,
    created: bool,
    resumed: bool,
    pub(super) existing: Option<Manifest>,
    _lock: File,
}

impl Directory {
    pub(super) fn enter(options: &BuildOptions) -> Result<Self, BuildError> {
        let out = options.out.clone();
        let created = !out.exists();
        fs::create_dir_all(&out).context("create", &out)?;
        let lock = lock(&out)?;
        let work = WorkDir::of(&out);
        if options.restart {
            work.remove()?;
        }
        let resumed = work.load()?.is_some();
        let existing = existing(&out)?;
        Ok(Self { out, work, created, resumed, existing, _lock: lock })
    }

    pub(super) fn shards(&self) -> PathBuf {
        self.out.join(SHARDS_DIR)
    }

    /// Whether nothing should be left of a build that failed so: wrong input and options leave
    /// nothing, trouble with the machine leaves what can be continued.
    pub(super) fn discard_after(&self, error: &BuildError) -> bool {
        let nothing_to_continue = !matches!(self.work.load(), Ok(Some(_)));
        match error {
            BuildError::OtherArguments { .. }
            | BuildError::InputChanged { .. }
            | BuildError::ForeignWork { .. } => false,
            BuildError::Io { .. }
            | BuildError::Read { .. }
            | BuildError::SelfCheck { .. }
            | BuildError::Randomness(_) => nothing_to_continue,
            BuildError::DiskSpace { .. } => nothing_to_continue || !self.resumed,
            _ => true,
        }
    }

    /// Removes what this build made. Best effort: there is an error to be shown already.
    pub(super) fn discard(&self) {
        let _ = self.work.remove();
        let _ = self.remove_unnamed(&[]);
        if self.created {
            let _ = fs::remove_dir(self.shards());
            let _ = fs::remove_dir(&self.out);
        }
    }

    /// An error unless so many bytes are free.
    pub(super) fn room_for(&self, needed: u64) -> Result<(), BuildError> {
        let found = free_bytes(&self.out).context("look for room in", &self.out)?;
        if found >= needed {
            return Ok(());
        }
        Err(BuildError::DiskSpace { path: self.out.clone(), found, needed })
    }

    /// Removes shard files that are named neither by the manifests here nor by `kept`.
    pub(super) fn clean_up(&self, kept: &[Option<ShardEntry>]) -> Result<(), BuildError> {
        self.remove_unnamed(kept).context("clean up", &self.shards())
    }

    fn remove_unnamed(&self, kept: &[Option<ShardEntry>]) -> io::Result<()> {
        let mut named = HashSet::new();
        for name in [MANIFEST_NAME, MANIFEST_PREVIOUS_NAME] {
            match Manifest::read(&self.out.join(name)) {
                Ok(manifest) => named.extend(manifest.shards.into_iter().map(|entry| entry.file)),
                Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                // Nobody opens what it names.
                Err(OpenError::Manifest { .. }) if name == MANIFEST_PREVIOUS_NAME => {}
                // What the database needs is not known: nothing goes.
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        named.extend(kept.iter().flatten().map(|entry| entry.file.clone()));
        for file in fs::read_dir(self.shards())? {
            let file = file?;
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            let ours = name.ends_with(".shard") || name.ends_with(TEMPORARY_SUFFIX);
            if ours && !named.contains(name) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Input;

    #[test]
    fn nothing_is_removed_beside_a_manifest_that_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let options = BuildOptions::new(Input::Stdin, directory.path().to_owned());
        let entered = Directory::enter(&options).unwrap();
        fs::create_dir(entered.shards()).unwrap();
        let shard = entered.shards().join("00.shard");
        fs::write(&shard, "content").unwrap();
        fs::write(directory.path().join(MANIFEST_NAME), "unreadable").unwrap();
        assert!(entered.remove_unnamed(&[]).is_err() && shard.exists());
        let path = |name: &str| directory.path().join(name);
        fs::rename(path(MANIFEST_NAME), path(MANIFEST_PREVIOUS_NAME)).unwrap();
        assert!(entered.remove_unnamed(&[]).is_ok() && !shard.exists());
    }
}
