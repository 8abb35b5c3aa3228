//! The work folder: what lets a run that was killed go on, and what one run leaves for the next.
//!
//! For good it holds `state.json` (the last minute that sealed records, the digest of all that
//! decided them, and the last batch of each issuer) and `keys/` (derived keys, as secret as the
//! blinding key for these identifiers). Of a run that is not finished it holds `run.json` (what was
//! decided and finished), `buckets/` (accepted statements) and `parts/` (finished buckets). The
//! folder is for its owner only.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::errors::{IoContext as _, MergeError};
use super::report::Tally;
use crate::limits::{MERGE_RESUME_SECONDS_MAX, WORK_FILE_BYTES_MAX};
use crate::shard::files::{gone, read_bounded, sync_parent};

pub(super) const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// When records are issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// Now, in seconds since 1970. A run that was interrupted within a day goes on with its own.
    Clock(u64),
    /// As the caller says.
    Given(u64),
}

/// What no later run may contradict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) version: u32,
    /// The database and the public blinding key, or that there is none.
    pub(super) scope: String,
    /// Minutes since 2020 of the last records that were sealed.
    pub(super) issued: u32,
    /// Digest of all that decides these records.
    pub(super) digest: String,
    /// The last batch of each issuer that was ever accepted.
    pub(super) batches: BTreeMap<String, u64>,
}

/// What a run that is not finished has decided and finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    pub(super) version: u32,
    /// Digest of options, and of the files by name, size and times.
    pub(super) arguments: String,
    pub(super) now: u64,
    pub(super) bucket_count: u32,
    /// Once every accepted statement is in its bucket.
    pub(super) checked: Option<Checked>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checked {
    /// SHA-256 over the SHA-256 of each file, sorted.
    pub(super) content: String,
    pub(super) tally: Tally,
    /// The last accepted batch of each issuer.
    pub(super) batches: BTreeMap<String, u64>,
}

/// Of this module's files.
pub(super) const VERSION: u32 = 1;

pub(super) struct WorkDir {
    path: PathBuf,
    _lock: File,
}

impl WorkDir {
    /// Creates the folder if it is not there, and locks it against other runs.
    pub(super) fn enter(path: &Path) -> Result<Self, MergeError> {
        create_folder(path).context("create", path)?;
        let lock = File::open(path).context("open", path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(MergeError::Locked { path: path.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(error).context("lock", path),
        }
        let work = Self { path: path.to_owned(), _lock: lock };
        create_folder(&work.keys()).context("create", &work.keys())?;
        Ok(work)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
    pub(super) fn buckets(&self) -> PathBuf {
        self.path.join("buckets")
    }
    pub(super) fn parts(&self) -> PathBuf {
        self.path.join("parts")
    }
    pub(super) fn keys(&self) -> PathBuf {
        self.path.join("keys")
    }
    /// Statements that were refused before they were in a bucket.
    pub(super) fn refused(&self) -> PathBuf {
        self.path.join("refused")
    }

    pub(super) fn state(&self) -> Result<Option<State>, MergeError> {
        read_json(&self.path.join("state.json"))
    }

    pub(super) fn save_state(&self, state: &State) -> Result<(), MergeError> {
        write_json(&self.path.join("state.json"), state)
    }

    /// The interrupted run with these arguments, if it may go on.
    pub(super) fn interrupted(
        &self,
        arguments: &str,
        time: Time,
    ) -> Result<Option<Run>, MergeError> {
        let run: Option<Run> = read_json(&self.path.join("run.json"))?;
        Ok(run.filter(|run| {
            let is_in_time = match time {
                Time::Given(now) => minute_start(now) == run.now,
                Time::Clock(now) => (run.now..run.now + MERGE_RESUME_SECONDS_MAX).contains(&now),
            };
            run.version == VERSION && run.arguments == arguments && is_in_time
        }))
    }

    pub(super) fn save_run(&self, run: &Run) -> Result<(), MergeError> {
        write_json(&self.path.join("run.json"), run)
    }

    /// Removes all of a run: `run.json` first, so that what is left after an interruption is no run
    /// to continue.
    pub(super) fn clear(&self) -> Result<(), MergeError> {
        let files = [self.path.join("run.json"), self.refused()];
        files.iter().try_for_each(|path| gone(fs::remove_file(path)).context("remove", path))?;
        let folders = [self.buckets(), self.parts()];
        folders
            .iter()
            .try_for_each(|path| gone(fs::remove_dir_all(path)).context("remove", path))?;
        create_folder(&self.parts()).context("create", &self.parts())
    }
}

/// The time as records tell it: the start of its minute, so that the same minute gives the same.
pub(super) fn minute_start(now: u64) -> u64 {
    now - now % 60
}

/// Tells an input file from another and from a changed one.
pub(super) fn identity(path: &Path) -> io::Result<String> {
    let file = fs::metadata(path)?;
    let (modified, changed) = (file.mtime_nsec(), file.ctime_nsec());
    let (bytes, number) = (file.len(), file.ino());
    Ok(format!("{bytes} {}.{modified:09} {}.{changed:09} {number}", file.mtime(), file.ctime()))
}

fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, MergeError> {
    let bytes = match read_bounded(path, WORK_FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("read", path),
    };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|_| MergeError::Damaged { path: path.to_owned() })
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), MergeError> {
    let bytes = serde_json::to_vec_pretty(value).map_err(io::Error::other);
    bytes.and_then(|bytes| write_atomically(path, &bytes)).context("write", path)
}

/// A new file for its owner only.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)
}

/// Puts a file in place by its name, once it is on the disk.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let mut file = create_file(&temporary)?;
    file.write_all(bytes)?;
    put_in_place(&file, &temporary, path)
}

/// The name under which a file is written before it is put in place.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

pub(super) fn put_in_place(file: &File, temporary: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    fault::step()?;
    fs::rename(temporary, path)?;
    sync_parent(path)?;
    fault::step()
}

/// Lets a test end a run after any of its writes, as a kill would.
pub(super) mod fault {
    use std::io;

    #[cfg(test)]
    thread_local! {
        pub(in super::super) static STEPS_LEFT: std::cell::Cell<u32> =
            const { std::cell::Cell::new(u32::MAX) };
    }

    #[cfg(test)]
    pub(in super::super) fn step() -> io::Result<()> {
        let left = STEPS_LEFT.get();
        STEPS_LEFT.set(left.saturating_sub(1));
        if left == 0 { Err(io::Error::other("killed by a test")) } else { Ok(()) }
    }

    #[cfg(not(test))]
    pub(in super::super) fn step() -> io::Result<()> {
        Ok(())
    }
}
