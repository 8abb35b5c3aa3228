//! Comparing a downloaded shard file with what the manifest says of it, every byte.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use crate::params::Shape;
use crate::scheme::pack_digest;
use crate::shard::header::{HEADER_BYTES, Header, SECTION_NAMES, page_aligned};
use crate::shard::{HeaderError, ShardEntry, ShardError};

const READ_BYTES: usize = 1 << 20;

/// Reads a file of the right length; whether it is the shard. It is also flushed to the disk.
pub(super) fn verify(
    path: &Path,
    shape: &Shape,
    entry: &ShardEntry,
) -> io::Result<Result<(), ShardError>> {
    let file = File::open(path)?;
    file.sync_all()?;
    let mut file = BufReader::with_capacity(READ_BYTES, file);
    let mut page = [0; HEADER_BYTES];
    file.read_exact(&mut page)?;
    let header = match Header::decode(&page) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error.into())),
    };
    // The digest covers shape, seed and number too, but where the sections end has to be known.
    if header.digest() != entry.header_digest.0 || header.shape.fields() != shape.fields() {
        return Ok(Err(HeaderError::Digest.into()));
    }
    let mut piece = Vec::new();
    for (section, at) in SECTION_NAMES.into_iter().zip(header.sections()) {
        let is_hint = section == "hints";
        let piece_bytes = if is_hint { shape.hint_bytes() } else { READ_BYTES };
        let (mut hasher, mut left) = (blake3::Hasher::new(), at.bytes);
        while left > 0 {
            piece.resize(piece_bytes.min(left as usize), 0);
            file.read_exact(&mut piece)?;
            left -= piece.len() as u64;
            match is_hint {
                true => hasher.update(&pack_digest(&piece)),
                false => hasher.update(&piece),
            };
        }
        if hasher.finalize() != at.digest {
            return Ok(Err(ShardError::Section { section }));
        }
        piece.resize((page_aligned(at.bytes) - at.bytes) as usize, 0);
        file.read_exact(&mut piece)?;
        if piece.iter().any(|&byte| byte != 0) {
            return Ok(Err(ShardError::Fill { section }));
        }
    }
    Ok(Ok(()))
}
