//! Files that appear whole or not at all: written beside, flushed, renamed, the folder flushed. And
//! files that are opened without waiting for anybody: regular ones only.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

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

/// Opens a regular file to be read. Anything else that has a name is refused at once: opening a
/// pipe would wait for somebody to write, and reading a device may never end.
///
/// # Errors
/// It cannot be opened, or is no regular file: the error says what it is.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let refused = |found: FileType| {
        let text = format!("it is {}, expected a regular file", kind_of(found));
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => match file.metadata()?.file_type() {
            found if found.is_file() => Ok(file),
            found => Err(refused(found)),
        },
        // What a socket answers.
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            Err(fs::metadata(path).map_or(error, |found| refused(found.file_type())))
        }
        Err(error) => Err(error),
    }
}

fn kind_of(found: FileType) -> &'static str {
    match found {
        _ if found.is_dir() => "a folder",
        _ if found.is_fifo() => "a pipe (FIFO)",
        _ if found.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Reads a regular file, and at most `bytes_max` of it.
///
/// # Errors
/// As [`open_regular`], or it cannot be read.
pub fn read_regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType as Kind, Mode, mknodat};

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_refused_at_once_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let refused = |path: &Path, expected: &str| {
            let error = read_regular(path, 10).unwrap_err().to_string();
            assert!(error.contains(expected), "{}: {error}", path.display());
        };
        mknodat(CWD, path("pipe"), Kind::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        refused(&path("pipe"), "it is a pipe (FIFO), expected a regular file");
        std::os::unix::fs::symlink("pipe", path("link")).unwrap();
        refused(&path("link"), "it is a pipe (FIFO)");
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        refused(&path("socket"), "it is a socket");
        refused(folder.path(), "it is a folder");
        refused(Path::new("/dev/zero"), "it is a device");
        refused(&path("none"), "No such file");
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
        refused(&path("loop"), "symbolic link");
        std::fs::write(path("text"), "0123456789abc").unwrap();
        assert_eq!(read_regular(&path("text"), 10).unwrap(), b"0123456789");
        std::os::unix::fs::symlink("text", path("good")).unwrap();
        assert_eq!(read_regular(&path("good"), 3).unwrap(), b"012");
    }
}
