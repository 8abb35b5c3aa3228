//! What an interrupted build leaves in `OUT/work/` so that the same command can go on: `work.json`
//! (what was decided before a manifest exists), the partition files, and a copy of an input that
//! can be read only once. All of it goes once the manifest is in place.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::errors::{BuildError, IoContext as _};
use super::input::InputFormat;
use super::part::BuildSpec;
use crate::limits;
use crate::params::{Shape, ShapeFields};
use crate::shard::files::{gone, read_bounded, write_atomically};
use crate::wire::hex::Hex;

pub(super) const WORK_VERSION: u32 = 2;
const WORK_NAME: &str = "work.json";

/// Tells an input file from another and from a changed one: by size, number, and the times of its
/// content and of its entry, which the system alone sets.
pub(super) fn identity(path: &Path) -> io::Result<String> {
    let file = fs::metadata(path)?;
    let (modified, changed) = (file.mtime_nsec(), file.ctime_nsec());
    let (bytes, number) = (file.len(), file.ino());
    Ok(format!("{bytes} {}.{modified:09} {}.{changed:09} {number}", file.mtime(), file.ctime()))
}

/// What was decided about a build before its manifest exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkFile {
    pub(super) version: u32,
    /// The command line, as far as it changes the outcome.
    pub(super) arguments: BTreeMap<String, String>,
    /// `None` for standard input or another stream, which is kept.
    pub(super) input: Option<String>,
    pub(super) input_format: InputFormat,
    pub(super) seed: Hex<32>,
    pub(super) shape: ShapeFields,
    pub(super) widenings: u32,
    pub(super) shard_count: u32,
    pub(super) records: u64,
    pub(super) value_bytes_longest: usize,
    pub(super) epoch: u64,
    /// Whether every record is in its shard's partition file. Before, files may be missing or
    /// half-written.
    pub(super) is_partitioned: bool,
}

impl WorkFile {
    fn is_usable(&self) -> bool {
        self.version == WORK_VERSION
            && Shape::from_fields(self.shape).is_ok()
            && (1..=limits::SHARDS_MAX).contains(&self.shard_count)
            && self.value_bytes_longest < limits::VALUE_BYTES_MAX as usize
    }

    pub(super) fn spec(&self) -> BuildSpec {
        let shape = Shape::from_fields(self.shape);
        let shape = shape.expect("this is a bug: work with an unchecked shape");
        BuildSpec { seed: self.seed.0, shard_count: self.shard_count, shape }
    }
}

pub(super) struct WorkDir {
    pub(super) path: PathBuf,
}

impl WorkDir {
    pub(super) fn of(out: &Path) -> Self {
        Self { path: out.join("work") }
    }
    /// An input that can be read only once, kept while it is counted.
    pub(super) fn spool(&self) -> PathBuf {
        self.path.join("input")
    }
    pub(super) fn partitions(&self) -> PathBuf {
        self.path.join("partitions")
    }

    pub(super) fn remove(&self) -> Result<(), BuildError> {
        // The work file goes first: what is left after an interruption is no work to continue.
        gone(fs::remove_file(self.path.join(WORK_NAME)))
            .and_then(|()| gone(fs::remove_dir_all(&self.path)))
            .context("remove", &self.path)
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
}
