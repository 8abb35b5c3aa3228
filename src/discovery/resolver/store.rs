//! The file of a state: one writer at a time, replaced as a whole, never half written.
//!
//! A new content goes into a file beside it (`.new` at the end of its name), reaches the disk, and
//! takes the name. Whoever has the state open holds a lock on that very file, which the next
//! content takes over before it has the name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::errors::StateError;
use crate::limits::DEVICE_STATE_BYTES_MAX;

/// The open file of a state.
pub(super) struct Store {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Holds the lock; none before the first writing.
    held: Option<File>,
    /// The number of the content that the file has.
    written: u64,
}

impl Store {
    /// Opens the file, and gives what it holds; none if there is no file.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<Vec<u8>>), StateError> {
        let failed = |error| file_error("read", path, error);
        let found = lock(path, OpenOptions::new().read(true))?;
        let content = match &found {
            None => None,
            Some(file) => {
                let mut bytes = Vec::new();
                let max = DEVICE_STATE_BYTES_MAX;
                file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
                if bytes.len() as u64 > max {
                    return Err(StateError::TooLong { max });
                }
                Some(bytes)
            }
        };
        let inner = Mutex::new(Inner { held: found, written: 0 });
        Ok((Self { path: path.to_owned(), inner }, content))
    }

    /// Replaces the content. A `number` that is not later than one that was written is left: a
    /// writing that somebody did not wait for never comes after a later one.
    pub(super) fn write(&self, number: u64, content: &[u8]) -> Result<(), StateError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if number <= inner.written {
            return Ok(());
        }
        let failed = |error| file_error("write", &self.path, error);
        let next = self.write_beside(content)?;
        // Whoever began at the same time may have been first.
        if inner.held.is_none() && self.path.exists() {
            return Err(in_use(&self.path));
        }
        fs::rename(beside(&self.path), &self.path).map_err(failed)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = File::open(parent.unwrap_or(Path::new("."))).map_err(failed)?;
        parent.sync_all().map_err(failed)?;
        (inner.held, inner.written) = (Some(next), number);
        Ok(())
    }

    /// Writes the content to the file beside; it is locked and on the disk then.
    fn write_beside(&self, content: &[u8]) -> Result<File, StateError> {
        let path = beside(&self.path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = lock(&path, &options)?.ok_or_else(|| in_use(&self.path))?;
        let write = |file: &mut File| {
            // A kill may have left one.
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(content)?;
            file.sync_all()
        };
        write(&mut file).map_err(|error| file_error("write", &path, error))?;
        Ok(file)
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Opens and locks the file that has this name; none if there is none.
fn lock(path: &Path, options: &OpenOptions) -> Result<Option<File>, StateError> {
    let failed = |error| file_error("open", path, error);
    // A pipe is refused below, and opening it is not to wait for a writer.
    let mut options = options.clone();
    options.custom_flags(libc::O_NONBLOCK);
    loop {
        let file = match options.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let problem = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
            return Err(failed(problem));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Another file may have taken the name meanwhile.
        let named = fs::metadata(path).ok();
        let is_named =
            |named: fs::Metadata| (named.dev(), named.ino()) == (metadata.dev(), metadata.ino());
        if named.is_some_and(is_named) {
            return Ok(Some(file));
        }
    }
}

fn in_use(path: &Path) -> StateError {
    StateError::InUse { path: path.display().to_string() }
}

fn file_error(doing: &'static str, path: &Path, error: io::Error) -> StateError {
    StateError::File { doing, path: path.display().to_string(), error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn content(path: &Path) -> Option<Vec<u8>> {
        Store::open(path).unwrap().1
    }

    #[test]
    fn a_content_replaces_the_one_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let (store, nothing) = Store::open(&path).unwrap();
        assert!(nothing.is_none() && !path.exists());
        store.write(1, b"first").unwrap();
        store.write(3, b"third").unwrap();
        // One that nobody waited for.
        store.write(2, b"second").unwrap();
        drop(store);
        assert_eq!(content(&path).unwrap(), b"third");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_kill_between_writing_and_renaming_leaves_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let (store, _) = Store::open(&path).unwrap();
        store.write(1, b"first").unwrap();
        drop(store.write_beside(b"a longer second content").unwrap());
        drop(store);
        assert!(beside(&path).exists());
        let (store, found) = Store::open(&path).unwrap();
        assert_eq!(found.unwrap(), b"first");
        // What was left over is no obstacle and no part of what follows.
        store.write(1, b"next").unwrap();
        drop(store);
        assert!(!beside(&path).exists());
        assert_eq!(content(&path).unwrap(), b"next");
        // And before the first one there is nothing.
        fs::rename(&path, beside(&path)).unwrap();
        assert!(content(&path).is_none());
    }

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let is_in_use = |error| matches!(error, Some(StateError::InUse { .. }));
        let (first, _) = Store::open(&path).unwrap();
        let (second, _) = Store::open(&path).unwrap();
        first.write(1, b"first").unwrap();
        assert!(is_in_use(second.write(1, b"second").err()));
        assert!(is_in_use(Store::open(&path).err()));
        first.write(2, b"again").unwrap();
        assert!(is_in_use(Store::open(&path).err()));
        drop((first, second));
        assert_eq!(content(&path).unwrap(), b"again");
    }

    #[test]
    fn what_is_no_file_or_too_long_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Store::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("no regular file"), "{error}");
        let path = folder.path().join("long");
        File::create(&path).unwrap().set_len(DEVICE_STATE_BYTES_MAX + 1).unwrap();
        assert!(matches!(Store::open(&path).err(), Some(StateError::TooLong { .. })));
    }
}
