//! The folder that a command works in: a temporary one that is removed, or one that is kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::out;

/// How often removal is tried, for something may be written meanwhile.
const REMOVALS_MAX: usize = 20;

/// The folder that a command works in.
pub struct Folder {
    path: PathBuf,
    is_temporary: bool,
}

impl Folder {
    /// A new one below another, named after its purpose; dropping it removes it.
    pub fn temporary(below: &Path, what: &str) -> Result<Self, String> {
        let made = tempfile::Builder::new().prefix(&format!("sotto-{what}-")).tempdir_in(below);
        let path = made.map_err(|error| refused(below, &error))?.keep();
        Ok(Self { path, is_temporary: true })
    }

    /// One to keep: new or empty.
    pub fn kept(path: &Path) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| refused(path, &error))?;
        if fs::read_dir(path).map_err(|error| refused(path, &error))?.next().is_some() {
            let path = path.display();
            return Err(format!("--keep {path}: there are files in it, expected a new folder"));
        }
        Ok(Self { path: path.to_owned(), is_temporary: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn refused(path: &Path, error: &io::Error) -> String {
    format!("cannot work in {}: {error}", path.display())
}

impl Drop for Folder {
    fn drop(&mut self) {
        let is_removed = || match fs::remove_dir_all(&self.path) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(()) => true,
        };
        if self.is_temporary && !(0..REMOVALS_MAX).any(|_| is_removed()) {
            out::complain(format_args!("note: {} could not be removed", self.path.display()));
        }
    }
}

/// Writes a file that was not there, with this mode.
pub(crate) fn write_new(path: &Path, content: &str, mode: u32) -> Result<(), String> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    opened
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
