//! The folder a command works in: a temporary one that goes with it, or one that is kept.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::out;

/// How often removal begins again when something was written meanwhile.
const REMOVALS_MAX: usize = 20;

enum Afterwards {
    Remove,
    Keep,
}

/// The folder a command works in.
pub struct Folder {
    path: PathBuf,
    afterwards: Afterwards,
}

impl Folder {
    /// A new one below another, named after what it is for; goes when this is dropped.
    pub fn temporary(below: &Path, what: &str) -> Result<Self, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("sotto-{what}-{}-{}", std::process::id(), now.as_nanos());
        let path = below.join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| refused(&path, error))?;
        Ok(Self { path, afterwards: Afterwards::Remove })
    }

    /// One to keep: new or empty.
    pub fn kept(path: &Path) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| refused(path, error))?;
        let mut entries = fs::read_dir(path).map_err(|error| refused(path, error))?;
        if entries.next().is_some() {
            let path = path.display();
            return Err(format!("--keep {path}: there are files in it, expected a new folder"));
        }
        Ok(Self { path: path.to_owned(), afterwards: Afterwards::Keep })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn refused(path: &Path, error: io::Error) -> String {
    format!("cannot work in {}: {error}", path.display())
}

impl Drop for Folder {
    fn drop(&mut self) {
        if matches!(self.afterwards, Afterwards::Keep) {
            return;
        }
        for _ in 0..REMOVALS_MAX {
            match fs::remove_dir_all(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => continue,
                _ => return,
            }
        }
        out::complain(format_args!("note: {} could not be removed", self.path.display()));
    }
}

/// A new file that only its owner reads.
pub(crate) fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_goes_with_all_that_is_in_it() {
        let folder = Folder::temporary(&std::env::temp_dir(), "test").unwrap();
        let path = folder.path().to_owned();
        fs::create_dir(path.join("db")).unwrap();
        write_private(&path.join("db/file"), "content").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_kept_folder_stays_and_must_be_empty() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("kept");
        let folder = Folder::kept(&path).unwrap();
        write_private(&path.join("file"), "content").unwrap();
        drop(folder);
        assert!(path.join("file").exists());
        assert!(Folder::kept(&path).is_err());
    }
}
