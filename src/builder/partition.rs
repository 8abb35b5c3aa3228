//! Records on their way to a shard: one temporary file a shard, written with bounded memory.
//!
//! A record is its line number (8 bytes), key length (2), value length (2), key, value. Files are
//! opened only to append a full buffer, so that no number of shards meets a limit on open files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::limits;
use crate::shard::files::gone;

const HEAD_BYTES: usize = 12;
const BUFFER_BYTES_MIN: usize = 4 << 10;
const BUFFER_BYTES_MAX: usize = 1 << 20;

pub(super) struct PartitionWriter {
    folder: PathBuf,
    buffers: Vec<Vec<u8>>,
    buffer_bytes: usize,
}

/// Bytes a record takes in its partition file.
pub(super) fn record_bytes(key_bytes: usize, value_bytes: usize) -> usize {
    HEAD_BYTES + key_bytes + value_bytes
}

/// Adds a record as a partition has it.
pub(super) fn push_record(buffer: &mut Vec<u8>, line: u64, key: &[u8], value: &[u8]) {
    buffer.extend_from_slice(&line.to_le_bytes());
    buffer.extend_from_slice(&(key.len() as u16).to_le_bytes());
    buffer.extend_from_slice(&(value.len() as u16).to_le_bytes());
    buffer.extend_from_slice(key);
    buffer.extend_from_slice(value);
}

pub(super) fn path(folder: &Path, shard: u32) -> PathBuf {
    folder.join(format!("{shard:05}"))
}

impl PartitionWriter {
    /// Starts again: an existing folder is emptied.
    pub(super) fn create(folder: &Path, shard_count: u32) -> io::Result<Self> {
        gone(fs::remove_dir_all(folder))?;
        fs::create_dir(folder)?;
        let share = limits::PARTITION_BUFFER_BYTES / shard_count as usize;
        let buffer_bytes = share.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
        let buffers = vec![Vec::new(); shard_count as usize];
        Ok(Self { folder: folder.to_owned(), buffers, buffer_bytes })
    }

    /// Adds a record. Key and value are within the bounds that reading the input checks.
    pub(super) fn push(
        &mut self,
        shard: u32,
        line: u64,
        key: &[u8],
        value: &[u8],
    ) -> io::Result<()> {
        let buffer = &mut self.buffers[shard as usize];
        if buffer.len() + record_bytes(key.len(), value.len()) > self.buffer_bytes {
            append(&path(&self.folder, shard), buffer)?;
        }
        push_record(buffer, line, key, value);
        Ok(())
    }

    /// Writes what is left and waits until all of it is on the disk, for what is noted next is that
    /// it is. Every shard has a file then, an empty one too.
    pub(super) fn finish(mut self) -> io::Result<()> {
        for (shard, buffer) in self.buffers.iter_mut().enumerate() {
            append(&path(&self.folder, shard as u32), buffer)?;
            *buffer = Vec::new();
        }
        sync_all(&self.folder)
    }
}

/// One call for ten thousand files.
#[cfg(target_os = "linux")]
fn sync_all(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fs::File::open(folder)?)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_all(folder: &Path) -> io::Result<()> {
    for file in fs::read_dir(folder)? {
        fs::File::open(file?.path())?.sync_all()?;
    }
    Ok(())
}

fn append(path: &Path, buffer: &mut Vec<u8>) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(buffer)?;
    buffer.clear();
    Ok(())
}

/// The records of one shard, in memory, sorted by key.
pub(super) struct Partition {
    bytes: Vec<u8>,
    starts: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub(super) line: u64,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl Partition {
    /// Reads and sorts a shard's records, by key, then by line, on the current rayon pool.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        Self::from_bytes(fs::read(path)?)
    }

    /// The same from the bytes of such a file.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> io::Result<Self> {
        let mut starts = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (row, end) = row_at(&bytes, at).ok_or_else(|| damaged(at))?;
            if row.key.is_empty() {
                return Err(damaged(at));
            }
            starts.push(at as u64);
            at = end;
        }
        let mut partition = Self { bytes, starts: Vec::new() };
        starts.par_sort_unstable_by(|&a, &b| {
            let (a, b) = (partition.row_from(a), partition.row_from(b));
            (a.key, a.line).cmp(&(b.key, b.line))
        });
        partition.starts = starts;
        Ok(partition)
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }
    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }
    pub(super) fn row(&self, index: usize) -> Row<'_> {
        self.row_from(self.starts[index])
    }
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.starts.iter().map(|&at| self.row_from(at))
    }

    fn row_from(&self, at: u64) -> Row<'_> {
        row_at(&self.bytes, at as usize).expect("this is a bug: a record past the partition").0
    }

    /// BLAKE3 over the sorted records: key length (4), key, value length (4), value of each.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = Vec::with_capacity(BUFFER_BYTES_MAX);
        for row in self.rows() {
            for field in [row.key, row.value] {
                buffer.extend_from_slice(&(field.len() as u32).to_le_bytes());
                buffer.extend_from_slice(field);
            }
            if buffer.len() > BUFFER_BYTES_MAX - (4 << 10) {
                hasher.update(&buffer);
                buffer.clear();
            }
        }
        *hasher.update(&buffer).finalize().as_bytes()
    }
}

fn damaged(at: usize) -> io::Error {
    let message = format!("the partition is damaged at byte {at}: run again with --restart");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn row_at(bytes: &[u8], at: usize) -> Option<(Row<'_>, usize)> {
    let head: &[u8; HEAD_BYTES] = bytes.get(at..at + HEAD_BYTES)?.try_into().ok()?;
    let [l0, l1, l2, l3, l4, l5, l6, l7, k0, k1, v0, v1] = *head;
    let line = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
    let key_end = at + HEAD_BYTES + usize::from(u16::from_le_bytes([k0, k1]));
    let end = key_end + usize::from(u16::from_le_bytes([v0, v1]));
    let row =
        Row { line, key: bytes.get(at + HEAD_BYTES..key_end)?, value: bytes.get(key_end..end)? };
    Some((row, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_sorted_whatever_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("parts");
        let mut digests = Vec::new();
        for order in [1u64, 6151] {
            let mut writer = PartitionWriter::create(&folder, 3).unwrap();
            for i in 0..10_000 {
                let i = i * order % 10_000;
                let (key, value) = (format!("key{i}"), vec![i as u8; (i % 50) as usize]);
                writer.push((i % 2) as u32, i, key.as_bytes(), &value).unwrap();
            }
            writer.finish().unwrap();
            let first = Partition::read(&path(&folder, 0)).unwrap();
            assert_eq!(first.len(), 5_000);
            assert!(first.rows().zip(first.rows().skip(1)).all(|(a, b)| a.key < b.key));
            assert_eq!(first.row(1).key, b"key10");
            assert_eq!((first.row(1).line, first.row(1).value), (10, &[10u8; 10][..]));
            assert!(Partition::read(&path(&folder, 2)).unwrap().is_empty());
            digests.push(first.digest());
        }
        assert_eq!(digests[0], digests[1]);
        let mut bytes = fs::read(path(&folder, 1)).unwrap();
        bytes.pop();
        fs::write(path(&folder, 1), bytes).unwrap();
        assert!(Partition::read(&path(&folder, 1)).is_err());
    }
}
