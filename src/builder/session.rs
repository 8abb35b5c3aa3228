//! What all steps of one build use: its options, and the directory it works in, which is locked
//! against other builders and cleaned up of files that its manifests do not name.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::errors::{BuildError, IoContext as _};
use super::input::Input;
use super::options::BuildOptions;
use super::progress::Progress;
use super::source;
use super::work::{WorkDir, identity};
use crate::limits;
use crate::shard::files::TEMPORARY_SUFFIX;
use crate::shard::manifest::{MANIFEST_NAME, MANIFEST_PREVIOUS_NAME, SHARDS_DIR};
use crate::shard::{Manifest, OpenError, ShardEntry};
use crate::wire::Lifetime;

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

/// From `created` (unix seconds) for so many days.
pub fn lifetime(created: u64, days: u32) -> Result<Lifetime, BuildError> {
    if !(1..=limits::EXPIRES_DAYS_MAX).contains(&days) {
        let most = limits::EXPIRES_DAYS_MAX;
        let problem = format!("--expires-days is {days}, expected 1 to {most}");
        return Err(BuildError::Option(problem));
    }
    Ok(Lifetime { created, expires: created.saturating_add(u64::from(days) * 86_400) })
}

/// Unix seconds, or what SOURCE_DATE_EPOCH says, so that builds can be repeated to the byte.
pub fn now() -> Result<u64, BuildError> {
    let Some(fixed) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        return Ok(since.map_or(0, |since| since.as_secs()));
    };
    fixed.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
        let expected = "expected seconds since 1970 in digits";
        BuildError::Option(format!("SOURCE_DATE_EPOCH is {fixed:?}, {expected}"))
    })
}

pub(super) struct Session<'a> {
    pub(super) options: &'a BuildOptions,
    pub(super) progress: &'a dyn Progress,
    pub(super) pool: rayon::ThreadPool,
    /// When it begins, and until when clients are to accept what is built.
    pub(super) lifetime: Lifetime,
    pub(super) work: WorkDir,
    /// Whether the input can be read only once.
    is_stream: bool,
    created: bool,
    resumed: bool,
    existing: Option<Manifest>,
    _lock: File,
}

impl<'a> Session<'a> {
    pub(super) fn enter(
        options: &'a BuildOptions,
        progress: &'a dyn Progress,
    ) -> Result<Self, BuildError> {
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(options.jobs.unwrap_or(0)).build()?;
        let lifetime = lifetime(options.created.map_or_else(now, Ok)?, options.expires_days)?;
        let is_stream = source::is_stream(&options.input);
        let is_stream = is_stream.map_err(|source| options.input.unreadable(source))?;
        let out = &options.out;
        let created = !out.exists();
        fs::create_dir_all(out).context("create", out)?;
        let lock = lock(out)?;
        let work = WorkDir::of(out);
        if options.restart {
            work.remove()?;
        }
        let resumed = work.load()?.is_some();
        let existing = existing(out)?;
        Ok(Self {
            options,
            progress,
            pool,
            lifetime,
            work,
            is_stream,
            created,
            resumed,
            existing,
            _lock: lock,
        })
    }

    pub(super) fn shards(&self) -> PathBuf {
        self.options.out.join(SHARDS_DIR)
    }

    pub(super) fn say(&self, line: impl AsRef<str>) {
        self.progress.say(line.as_ref());
    }

    pub(super) fn existing(&self) -> Option<&Manifest> {
        self.existing.as_ref()
    }

    /// The input where it is a file, which can be read again.
    pub(super) fn input_file(&self) -> Option<&Path> {
        match &self.options.input {
            Input::File(path) if !self.is_stream => Some(path),
            _ => None,
        }
    }

    pub(super) fn input_identity(&self) -> Result<Option<String>, BuildError> {
        let identity = self.input_file().map(identity).transpose();
        identity.map_err(|source| self.options.input.unreadable(source))
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
            let _ = fs::remove_dir(&self.options.out);
        }
    }

    /// An error unless so many bytes are free.
    pub(super) fn room_for(&self, needed: u64) -> Result<(), BuildError> {
        let found = free_bytes(&self.options.out).context("look for room in", &self.options.out)?;
        if found >= needed {
            return Ok(());
        }
        Err(BuildError::DiskSpace { path: self.options.out.clone(), found, needed })
    }

    /// Removes shard files that are named neither by the manifests here nor by `kept`.
    pub(super) fn clean_up(&self, kept: &[Option<ShardEntry>]) -> Result<(), BuildError> {
        self.remove_unnamed(kept).context("clean up", &self.shards())
    }

    fn remove_unnamed(&self, kept: &[Option<ShardEntry>]) -> io::Result<()> {
        let mut named = HashSet::new();
        for name in [MANIFEST_NAME, MANIFEST_PREVIOUS_NAME] {
            match Manifest::read(&self.options.out.join(name)) {
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
    use crate::builder::Silent;

    #[test]
    fn nothing_is_removed_beside_a_manifest_that_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let options = BuildOptions::new(Input::Stdin, directory.path().to_owned());
        let entered = Session::enter(&options, &Silent).unwrap();
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
