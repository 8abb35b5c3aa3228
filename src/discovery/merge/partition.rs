//! Accepted statements, apart by the hash of their identifier: one file a bucket, written with
//! bounded memory. A file is opened only to append a full buffer.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::work::FILE_MODE;
use crate::limits::{MERGE_BUCKET_INPUT_BYTES, MERGE_BUCKETS_MAX, MERGE_BUFFER_BYTES};
use crate::shard::files::gone;

/// How many buckets an input of so many bytes has: a power of two, so that it seldom changes and
/// derived keys are found again.
pub(super) fn bucket_count(input_bytes: u64) -> u32 {
    let needed = input_bytes.div_ceil(MERGE_BUCKET_INPUT_BYTES).next_power_of_two();
    needed.clamp(1, MERGE_BUCKETS_MAX) as u32
}

/// SHA-256 of an identifier: tells its bucket, and stands for it in the cache of derived keys.
pub(super) fn identifier_hash(sub: &str) -> [u8; 32] {
    Sha256::digest(sub).into()
}

pub(super) fn bucket_of(hash: &[u8; 32], bucket_count: u32) -> u32 {
    u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]) % bucket_count
}

pub(super) struct Partition {
    folder: PathBuf,
    buffers: Vec<Vec<u8>>,
}

pub(super) fn path(folder: &Path, bucket: u32) -> PathBuf {
    folder.join(format!("{bucket:05}"))
}

impl Partition {
    /// Begins in an empty folder.
    pub(super) fn create(folder: &Path, bucket_count: u32) -> io::Result<Self> {
        gone(fs::remove_dir_all(folder))?;
        fs::create_dir(folder)?;
        Ok(Self { folder: folder.to_owned(), buffers: vec![Vec::new(); bucket_count as usize] })
    }

    pub(super) fn push(&mut self, bucket: u32, row: &[u8]) -> io::Result<()> {
        let most = MERGE_BUFFER_BYTES / self.buffers.len();
        let buffer = &mut self.buffers[bucket as usize];
        buffer.extend_from_slice(row);
        match buffer.len() > most {
            true => append(&path(&self.folder, bucket), buffer),
            false => Ok(()),
        }
    }

    /// Writes what is left and waits until it is on the disk. Every bucket has a file then.
    pub(super) fn finish(mut self) -> io::Result<()> {
        for (bucket, buffer) in self.buffers.iter_mut().enumerate() {
            let path = path(&self.folder, bucket as u32);
            append(&path, buffer)?;
            *buffer = Vec::new();
            fs::File::open(path)?.sync_all()?;
        }
        Ok(())
    }
}

fn append(path: &Path, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(FILE_MODE).open(path)?.write_all(buffer)?;
    buffer.clear();
    Ok(())
}
