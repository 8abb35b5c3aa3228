//! What an interrupted build leaves behind so that the same command can go on.
//!
//! `OUT/work/` holds `work.json` (what was decided before a manifest exists), `journal.jsonl` (one
//! line a finished shard), the partition files, and a copy of an input that can be read only once.
//! All of it goes once the manifest is in place. What this module does not do: decide anything.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::input::InputFormat;
use super::{BuildError, IoContext as _};
use crate::limits;
use crate::params::{Shape, ShapeFields};
use crate::shard::ShardEntry;
use crate::shard::files::{read_bounded, write_atomically};
use crate::wire::hex::Hex;

const WORK_VERSION: u32 = 1;
const WORK_NAME: &str = "work.json";

/// How far the work on disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// The input was counted; partition files may be missing or half-written.
    Counted,
    /// Every record is in its shard's partition file.
    Partitioned,
}

/// Tells an input file from another, or from itself after a change. The system alone sets the time
/// of the last change to a file's entry, so a file that was given the old size and time shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InputIdentity {
    pub(super) bytes: u64,
    pub(super) modified_ns: i128,
    pub(super) changed_ns: i128,
    pub(super) inode: u64,
}

impl InputIdentity {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Ok(Self {
            bytes: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        })
    }
}

/// What was decided about a build before its manifest exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkFile {
    version: u32,
    /// The command line, as far as it changes the outcome.
    pub(super) arguments: BTreeMap<String, String>,
    /// `None` for standard input or another stream, which is kept.
    pub(super) input: Option<InputIdentity>,
    pub(super) input_format: InputFormat,
    pub(super) seed: Hex<32>,
    pub(super) shape: ShapeFields,
    pub(super) widenings: u32,
    pub(super) shard_count: u32,
    pub(super) records: u64,
    pub(super) value_bytes_longest: usize,
    pub(super) input_bytes: u64,
    pub(super) epoch: u64,
    pub(super) stage: Stage,
}

/// One line of the journal: a shard whose file is in place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct JournalLine {
    pub(super) shard: u32,
    pub(super) shape: ShapeFields,
    pub(super) entry: ShardEntry,
}

impl WorkFile {
    fn is_usable(&self) -> bool {
        self.version == WORK_VERSION
            && Shape::from_fields(self.shape).is_ok()
            && (1..=limits::SHARDS_MAX).contains(&self.shard_count)
            && self.value_bytes_longest < limits::VALUE_BYTES_MAX as usize
    }

    pub(super) fn new(
        arguments: BTreeMap<String, String>,
        input: Option<InputIdentity>,
        input_format: InputFormat,
        choice: &super::choose::Choice,
        count: &super::count::Count,
        epoch: u64,
    ) -> Self {
        Self {
            version: WORK_VERSION,
            arguments,
            input,
            input_format,
            seed: Hex(choice.seed),
            shape: choice.shape.fields(),
            widenings: 0,
            shard_count: choice.shard_count,
            records: count.records,
            value_bytes_longest: count.value_bytes_longest,
            input_bytes: count.entry_bytes,
            epoch,
            stage: Stage::Counted,
        }
    }
}

/// The work folder of a database directory.
pub(super) struct WorkDir {
    path: PathBuf,
}

impl WorkDir {
    pub(super) fn of(out: &Path) -> Self {
        Self { path: out.join("work") }
    }
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
    /// An input that can be read only once, kept while it is counted.
    pub(super) fn spool(&self) -> PathBuf {
        self.path.join("input")
    }
    /// Folder of the partition files.
    pub(super) fn partitions(&self) -> PathBuf {
        self.path.join("partitions")
    }
    fn journal(&self) -> PathBuf {
        self.path.join("journal.jsonl")
    }

    /// Makes the folder where there is none.
    pub(super) fn create(&self) -> Result<(), BuildError> {
        fs::create_dir_all(&self.path).context("create", &self.path)
    }

    /// Removes the folder and all that is in it.
    pub(super) fn remove(&self) -> Result<(), BuildError> {
        // The work file goes first: what is left after an interruption is no work to continue.
        let work = self.path.join(WORK_NAME);
        for outcome in [fs::remove_file(&work), fs::remove_dir_all(&self.path)] {
            match outcome {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context("remove", &self.path);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What an interrupted build had decided; `None` where there is nothing to continue.
    pub(super) fn load(&self) -> Result<Option<WorkFile>, BuildError> {
        let path = self.path.join(WORK_NAME);
        let bytes = match read_bounded(&path, limits::MANIFEST_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("read", &path),
        };
        match serde_json::from_slice::<WorkFile>(&bytes) {
            Ok(work) if work.is_usable() => Ok(Some(work)),
            _ => Err(BuildError::ForeignWork { path }),
        }
    }

    pub(super) fn save(&self, work: &WorkFile) -> Result<(), BuildError> {
        let path = self.path.join(WORK_NAME);
        let bytes = serde_json::to_vec_pretty(work).expect("this is a bug: work is not JSON");
        write_atomically(&path, &bytes).context("write", &path)
    }

    /// The finished shards of an interrupted build, by what its journal says. A last line that was
    /// cut short is dropped, from the file too.
    pub(super) fn read_journal(&self) -> Result<Vec<JournalLine>, BuildError> {
        let path = self.journal();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("read", &path),
        };
        let mut lines = Vec::new();
        let mut good = 0;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(entry) if line.ends_with(b"\n") => lines.push(entry),
                _ => break,
            }
            good += line.len();
        }
        if good < text.len() {
            write_atomically(&path, &text[..good]).context("write", &path)?;
        }
        Ok(lines)
    }

    pub(super) fn open_journal(&self) -> Result<Journal, BuildError> {
        let path = self.journal();
        let file = OpenOptions::new().append(true).create(true).open(&path);
        Ok(Journal { file: Mutex::new(file.context("open", &path)?), path })
    }
}

/// Finished shards, appended line by line.
pub(super) struct Journal {
    file: Mutex<File>,
    path: PathBuf,
}

impl Journal {
    /// Notes a shard whose file is in place; the line is on disk when this returns.
    pub(super) fn append(&self, line: &JournalLine) -> Result<(), BuildError> {
        let mut bytes =
            serde_json::to_vec(line).expect("this is a bug: a journal line is not JSON");
        bytes.push(b'\n');
        let mut file = self.file.lock().expect("this is a bug: the journal's lock is poisoned");
        let outcome = file.write_all(&bytes).and_then(|()| file.sync_data());
        outcome.context("write", &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_journal_line_is_dropped_and_the_rest_kept() {
        let directory = tempfile::tempdir().unwrap();
        let work = WorkDir::of(directory.path());
        work.create().unwrap();
        assert!(work.read_journal().unwrap().is_empty());
        let line = |shard: u32| JournalLine {
            shard,
            shape: Shape::new(40, 128, 1, 192).unwrap().fields(),
            entry: ShardEntry {
                file: "x".into(),
                header_digest: Hex([1; 32]),
                ribbon_seed: 0,
                records: 1,
                records_digest: Hex([2; 32]),
                hint_digest: Hex([3; 16]),
            },
        };
        let journal = work.open_journal().unwrap();
        journal.append(&line(0)).unwrap();
        journal.append(&line(1)).unwrap();
        let whole = fs::read(work.journal()).unwrap();
        let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for end in 0..whole.len() {
            fs::write(work.journal(), &whole[..end]).unwrap();
            let expected = usize::from(end >= first);
            assert_eq!(work.read_journal().unwrap().len(), expected, "{end}");
            work.open_journal().unwrap().append(&line(7)).unwrap();
            let lines = work.read_journal().unwrap();
            assert_eq!((lines.len(), lines[expected].shard), (expected + 1, 7), "{end}");
        }
    }
}
