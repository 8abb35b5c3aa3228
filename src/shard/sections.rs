//! Comparing a shard file with its digests, from the file or through its map.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::errors::{HeaderError, OpenError, ShardError};
use super::files::open_regular;
use super::header::{HEADER_BYTES, Header, SECTION_NAMES, Section, check_length, page_aligned};
use crate::scheme::pack_digest;

const READ_BYTES: usize = 1 << 20;

/// Where the bytes of a shard are read.
pub(super) enum Bytes<'a> {
    File(&'a File),
    Map(&'a [u8]),
}

impl Bytes<'_> {
    /// Some bytes of the shard, read into `buffer` unless they are mapped.
    fn get<'b>(&'b self, at: u64, count: usize, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
        match self {
            Self::Map(map) => Ok(&map[at as usize..][..count]),
            Self::File(file) => {
                buffer.resize(count, 0);
                file.read_exact_at(buffer, at)?;
                Ok(buffer)
            }
        }
    }
}

/// Compares the sections of one shard file with their digests; `read` is told how many bytes more
/// were read.
///
/// # Errors
/// The file cannot be read, or is not what its digests say.
pub(super) fn verify_sections(
    path: &Path,
    header: &Header,
    sections: Range<usize>,
    read: &(dyn Fn(u64) + Sync),
) -> Result<(), OpenError> {
    let file = open_regular(path).map_err(OpenError::io(path))?;
    check_length(&file, path, &header.shape)?;
    let mut go_on = |bytes| {
        read(bytes);
        true
    };
    let checked = check(&Bytes::File(&file), header, sections, &mut go_on);
    checked.map_err(OpenError::io(path))?.map_err(OpenError::shard(path))
}

/// Compares a shard file of which the header was read, and its length checked, with its digests.
///
/// # Errors
/// The file cannot be read.
pub fn verify_file(file: &File, header: &Header) -> io::Result<Result<(), ShardError>> {
    check(&Bytes::File(file), header, 0..SECTION_NAMES.len(), &mut |_| true)
}

/// The same of a shard file that is in memory.
///
/// # Errors
/// It is not what its digests say.
pub fn verify_bytes(bytes: &[u8], header: &Header) -> Result<(), ShardError> {
    let checked = check(&Bytes::Map(bytes), header, 0..SECTION_NAMES.len(), &mut |_| true);
    checked.expect("this is a bug: memory is read without system calls")
}

/// Checks some sections, and the header with the first; `go_on` is told how many bytes more were
/// read, and says whether to read more. The digest of a section is over its bytes, and that of the
/// hints over the digests of their packs.
pub(super) fn check(
    shard: &Bytes<'_>,
    header: &Header,
    sections: Range<usize>,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> io::Result<Result<(), ShardError>> {
    let mut buffer = Vec::new();
    if sections.start == 0 {
        if *shard.get(0, HEADER_BYTES, &mut buffer)? != header.encode() {
            return Ok(Err(HeaderError::Digest.into()));
        }
        if !go_on(HEADER_BYTES as u64) {
            return Ok(Ok(()));
        }
    }
    for which in sections {
        let Section { offset, bytes, digest } = header.sections()[which];
        let (section, end) = (SECTION_NAMES[which], offset + bytes);
        let is_hint = section == "hints";
        let piece_bytes = if is_hint { header.shape.hint_bytes() } else { READ_BYTES };
        let (mut hasher, mut at) = (blake3::Hasher::new(), offset);
        while at < end {
            let piece = shard.get(at, piece_bytes.min((end - at) as usize), &mut buffer)?;
            if is_hint {
                hasher.update(&pack_digest(piece))
            } else {
                hasher.update(piece)
            };
            at += piece.len() as u64;
            if !go_on(piece.len() as u64) {
                return Ok(Ok(()));
            }
        }
        if hasher.finalize() != digest {
            return Ok(Err(ShardError::Section { section }));
        }
        let fill = shard.get(end, (page_aligned(bytes) - bytes) as usize, &mut buffer)?;
        if fill.iter().any(|&byte| byte != 0) {
            return Ok(Err(ShardError::Fill { section }));
        }
        if !go_on(fill.len() as u64) {
            return Ok(Ok(()));
        }
    }
    Ok(Ok(()))
}
