//! Derived keys that are kept from one run to the next, a file a bucket: for each identifier its
//! hash and what the blinding key gives for it. Whoever reads these files can open the records in
//! them, as with the blinding key.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::super::blind::{BlindKey, DERIVED_BYTES, Derived};
use super::errors::{IoContext as _, MergeError};
use super::work::{WorkDir, write_atomically};
use crate::shard::files::gone;

const HASH_BYTES: usize = 32;
const ENTRY_BYTES: usize = HASH_BYTES + DERIVED_BYTES;

/// Removes the keys of another number of buckets, which no run would read or remove any more.
pub(super) fn keep_only(work: &WorkDir, bucket_count: u32) -> Result<(), MergeError> {
    let folder = work.keys();
    let end = name_end(bucket_count);
    for entry in fs::read_dir(&folder).context("read", &folder)? {
        let path = entry.context("read", &folder)?.path();
        if !path.as_os_str().as_encoded_bytes().ends_with(end.as_bytes()) {
            gone(fs::remove_file(&path)).context("remove", &path)?;
        }
    }
    Ok(())
}

fn name_end(bucket_count: u32) -> String {
    format!("-of-{bucket_count}")
}

pub(super) struct Cache {
    path: PathBuf,
    /// What the file begins with: a word, and the public blinding key.
    head: Vec<u8>,
}

impl Cache {
    pub(super) fn of(work: &WorkDir, bucket: u32, bucket_count: u32, blind: &BlindKey) -> Self {
        let path = work.keys().join(format!("{bucket:05}{}", name_end(bucket_count)));
        Self { path, head: [b"sotto-keys-1\n", &blind.public_key()[..]].concat() }
    }

    /// The kept keys; none if the file is of another blinding key, or damaged.
    pub(super) fn read(&self) -> Result<HashMap<[u8; HASH_BYTES], Derived>, MergeError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
            Err(error) => return Err(error).context("read", &self.path),
        };
        Ok(self.entries(&bytes).unwrap_or_default())
    }

    fn entries(&self, bytes: &[u8]) -> Option<HashMap<[u8; HASH_BYTES], Derived>> {
        let (content, sum) = bytes.split_last_chunk::<HASH_BYTES>()?;
        let entries = content.strip_prefix(&self.head[..])?;
        if Sha256::digest(content)[..] != sum[..] {
            return None;
        }
        let (entries, []) = entries.as_chunks::<ENTRY_BYTES>() else { return None };
        let entry = |entry: &[u8; ENTRY_BYTES]| {
            let (hash, derived) = entry.split_first_chunk::<HASH_BYTES>()?;
            Some((*hash, Derived::from_bytes(derived.try_into().ok()?)))
        };
        entries.iter().map(entry).collect()
    }

    /// Keeps these keys and no others.
    pub(super) fn write<'a>(
        &self,
        entries: impl ExactSizeIterator<Item = (&'a [u8; HASH_BYTES], &'a Derived)>,
    ) -> Result<(), MergeError> {
        let bytes = self.head.len() + entries.len() * ENTRY_BYTES + HASH_BYTES;
        let mut content = Zeroizing::new(Vec::with_capacity(bytes));
        content.extend_from_slice(&self.head);
        for (hash, derived) in entries {
            content.extend_from_slice(hash);
            content.extend_from_slice(derived.as_bytes());
        }
        let sum = Sha256::digest(&content[..]);
        content.extend_from_slice(&sum);
        write_atomically(&self.path, &content).context("write", &self.path)
    }
}
