//! Files that appear whole or not at all, and files that are opened without waiting for anybody.

use std::fs::{self, File, FileType, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use tempfile::NamedTempFile;

/// Ends the name of a file that is still being written.
pub const TEMPORARY_SUFFIX: &str = ".tmp";
const TEMPORARY_RANDOM_CHARACTERS: usize = 16;

/// Writes a file that appears whole or not at all: beside, under a random name that ends with
/// [`TEMPORARY_SUFFIX`], flushed, then renamed and the folder flushed. Two processes that write the
/// same path at once do not meet: the last one that ends has written it.
pub fn write_file(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    beside(path, write)?.persist(path).map_err(|error| error.error)?;
    sync_parent(path)
}

/// The same, but a file that is there stays; whether it was written.
pub fn write_new_file(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<bool> {
    match beside(path, write)?.persist_noclobber(path) {
        Ok(_) => sync_parent(path).map(|()| true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error),
    }
}

fn beside(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<NamedTempFile> {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    let mut temporary = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(TEMPORARY_SUFFIX)
        .rand_bytes(TEMPORARY_RANDOM_CHARACTERS)
        .permissions(Permissions::from_mode(0o666)) // less what the process's mask takes away
        .tempfile_in(parent(path))?;
    write(temporary.as_file_mut())?;
    temporary.as_file().sync_all()?;
    Ok(temporary)
}

/// The same of a small file.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_file(path, |file| file.write_all(bytes))
}

/// Makes names that were created in or renamed into the folder of `path` last through a crash.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The outcome of removing something, which may be gone already.
pub fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// The permissions of a file or folder (`0o640`), if others than its owner have some.
pub fn open_to_others(found: &Metadata) -> Option<u32> {
    let mode = found.mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Reads a file, and at most `bytes_max` of it.
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a regular file to be read. Anything else is refused at once: opening a pipe would wait for
/// a writer, and reading a device may never end.
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
pub fn read_regular(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a regular file as text, and at most `bytes_max` of it.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let text = crate::text::utf8(&read_regular(path, bytes_max)?);
    text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
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
