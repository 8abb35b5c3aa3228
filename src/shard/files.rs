//! Files that appear whole or not at all: written beside, flushed, renamed, the folder flushed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

/// Ends the name of a file that is still being written.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// A file being written under a temporary name. Dropped before [`NewFile::publish`], it is removed.
pub struct NewFile {
    file: Option<File>,
    temporary: PathBuf,
}

impl NewFile {
    /// Creates `<path>.tmp`, replacing what an interrupted run may have left there.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(TEMPORARY_SUFFIX);
        let temporary = PathBuf::from(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
        Ok(Self { file: Some(file), temporary })
    }

    /// Flushes the file, gives it its name, flushes the folder.
    pub fn publish(mut self, path: &Path) -> io::Result<()> {
        let file = self.file.take().expect("this is a bug: a file published twice");
        let outcome = file.sync_all().and_then(|()| fs::rename(&self.temporary, path));
        if outcome.is_err() {
            let _ = fs::remove_file(&self.temporary);
        }
        outcome?;
        sync_parent(path)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().expect("this is a bug: a file written after publishing").write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Best effort: the next run replaces or removes it.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes a whole small file.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = NewFile::create(path)?;
    file.write_all(bytes)?;
    file.publish(path)
}

/// Makes names that were created in or renamed into the folder of `path` last through a crash.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Reads a file, and at most `bytes_max` of it.
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}
