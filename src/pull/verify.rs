//! Comparing a downloaded shard file with what the manifest says of it, every byte.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::params::Shape;
use crate::shard::header::{HEADER_BYTES, Header};
use crate::shard::{HeaderError, ShardEntry, ShardError, verify_file};

/// Reads a file of the right length; whether it is the shard. It is also flushed to the disk.
pub(super) fn verify(
    path: &Path,
    shape: &Shape,
    entry: &ShardEntry,
) -> io::Result<Result<(), ShardError>> {
    let file = File::open(path)?;
    file.sync_all()?;
    let mut page = [0; HEADER_BYTES];
    file.read_exact_at(&mut page, 0)?;
    let header = match Header::decode(&page) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error.into())),
    };
    // The digest covers shape, seed and number too, but where the sections end has to be known.
    if header.digest() != entry.header_digest.0 || header.shape.fields() != shape.fields() {
        return Ok(Err(HeaderError::Digest.into()));
    }
    verify_file(&file, &header)
}
