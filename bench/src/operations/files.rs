//! A database's pages in the page cache, and what the system says of a process.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};
use sotto::server::kib_of;
use sotto::shard::manifest::SHARDS_DIR;

use super::place::cannot;
use crate::Failed;

/// Reads every file of a database: its pages are in memory then, if that holds them.
pub(super) fn read_all(db: &Path) -> Result<(), Failed> {
    for path in files(db)? {
        let copied = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
        copied.map_err(cannot("read", &path))?;
    }
    Ok(())
}

/// Drops the pages of every file of a database, which no process may have mapped.
pub(super) fn drop_all(db: &Path) -> Result<(), Failed> {
    files(db)?.iter().try_for_each(|path| drop_pages(path))
}

/// Drops the pages of a file, which no process may have mapped.
pub(crate) fn drop_pages(path: &Path) -> Result<(), Failed> {
    let dropped = File::open(path).and_then(|file| {
        // What is not on disk yet cannot be dropped.
        file.sync_all()?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    });
    dropped.map_err(cannot("drop the pages of", path))
}

fn files(db: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut found = Vec::new();
    for folder in [db.to_owned(), db.join(SHARDS_DIR)] {
        for entry in fs::read_dir(&folder).map_err(cannot("read", &folder))? {
            let path = entry.map_err(cannot("read", &folder))?.path();
            found.extend(path.is_file().then_some(path));
        }
    }
    Ok(found)
}

/// A line of /proc/PROCESS/status, such as `VmHWM:`.
pub(crate) fn memory_bytes(process: &str, name: &str) -> Result<u64, Failed> {
    read(process, "status", name, |text| kib_of(text, name))
}

/// Bytes that a process had the disk read.
pub(crate) fn disk_bytes(process: &str) -> Result<u64, Failed> {
    let name = "read_bytes:";
    let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    read(process, "io", name, |text| text.lines().find_map(value))
}

fn read(
    process: &str,
    file: &str,
    name: &str,
    number: impl FnOnce(&str) -> Option<u64>,
) -> Result<u64, Failed> {
    let path = Path::new("/proc").join(process).join(file);
    let text = fs::read_to_string(&path).map_err(cannot("read", &path))?;
    number(&text).ok_or_else(|| format!("{}: found no {name}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_of_a_database_are_meant_and_a_process_says_what_it_has() {
        let db = tempfile::tempdir().unwrap();
        assert!(read_all(db.path()).is_err(), "no database");
        fs::create_dir(db.path().join(SHARDS_DIR)).unwrap();
        for name in ["manifest.json", "shards/0", "shards/1"] {
            fs::write(db.path().join(name), "content").unwrap();
        }
        assert_eq!(files(db.path()).unwrap().len(), 3);
        read_all(db.path()).unwrap();
        drop_all(db.path()).unwrap();
        let bytes = |name| memory_bytes("self", name).unwrap();
        assert!(bytes("VmHWM:") >= bytes("RssAnon:") && bytes("RssAnon:") > 1 << 16);
        let error = memory_bytes("self", "VmNone:").unwrap_err().to_string();
        assert!(error.contains("/proc/self/status: found no VmNone:"), "{error}");
        assert!(disk_bytes("self").is_ok());
    }
}
