//! Reading every byte of a database: section digests, fill, lengths.
//!
//! [`verify`] reads the files, so that a failing disk is an error and not a signal. [`verify_map`]
//! reads a shard through its map: what is served, also where another file has its name by now.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::database::{Database, OpenError, Shard, ShardError};
use super::files::open_regular;
use super::header::{
    HEADER_BYTES, Header, HeaderError, SECTION_NAMES, Section, file_bytes, page_aligned,
};
use super::manifest::SHARDS_DIR;
use crate::params::Shape;
use crate::scheme::pack_digest;

const READ_BYTES: usize = 1 << 20;

/// What a verification found.
#[derive(Debug)]
pub struct VerifyReport {
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong, at most one problem a section, in the order of the shards.
    pub problems: Vec<OpenError>,
}

/// Bytes that [`verify`] will read, for a progress bar.
pub fn verify_bytes(database: &Database) -> u64 {
    file_bytes(database.shape()) * u64::from(database.shard_count())
}

/// Reads every byte of an open database; `read` is told how many bytes more were read.
pub fn verify(database: &Database, read: &(dyn Fn(u64) + Sync)) -> VerifyReport {
    let folder = database.directory().join(SHARDS_DIR);
    // Every file's sections are parts of their own, so that one large shard keeps all cores busy.
    let parts = database.shard_count() as usize * SECTION_NAMES.len();
    let problems: Vec<Option<OpenError>> = (0..parts)
        .into_par_iter()
        .map(|part| {
            let (index, section) = (part / SECTION_NAMES.len(), part % SECTION_NAMES.len());
            let path = folder.join(&database.manifest().shards[index].file);
            let shard = database.shard(index as u32).expect("this is a bug: a shard past the last");
            verify_section(&path, shard.header(), section, read).err()
        })
        .collect();
    VerifyReport {
        bytes: verify_bytes(database),
        problems: problems.into_iter().flatten().collect(),
    }
}

/// Reads every byte of one shard of an open database, from its file.
///
/// # Errors
/// It cannot be read, or is not what its digests say.
pub fn verify_shard(database: &Database, index: u32) -> Result<(), OpenError> {
    let shard = database.shard(index).expect("this is a bug: a shard past the last");
    let name = &database.manifest().shards[index as usize].file;
    verify_file(&database.directory().join(SHARDS_DIR).join(name), shard.header(), &|_| ())
}

/// Reads every byte of one shard file; `read` is told how many bytes more were read.
pub(super) fn verify_file(
    path: &Path,
    header: &Header,
    read: &(dyn Fn(u64) + Sync),
) -> Result<(), OpenError> {
    (0..SECTION_NAMES.len()).try_for_each(|which| verify_section(path, header, which, read))
}

/// Reads every byte that is served of a shard, a piece at a time; `go_on` is told how many more
/// were read, and says whether to read more. If not, there is nothing to say of the shard.
pub fn verify_map(shard: &Shard, mut go_on: impl FnMut(u64) -> bool) -> Result<(), ShardError> {
    let (header, bytes) = (shard.header(), shard.bytes());
    if bytes[..HEADER_BYTES] != header.encode() {
        return Err(HeaderError::Digest.into());
    }
    for (which, section) in header.sections().into_iter().enumerate() {
        let name = SECTION_NAMES[which];
        let Section { offset, bytes: length, digest } = section;
        let (start, end) = (offset as usize, (offset + length) as usize);
        let mut hasher = SectionHasher::new(&header.shape, which);
        for piece in bytes[start..end].chunks(hasher.piece_bytes) {
            hasher.update(piece);
            if !go_on(piece.len() as u64) {
                return Ok(());
            }
        }
        if hasher.finalize() != digest {
            return Err(ShardError::Section { section: name });
        }
        if bytes[end..start + page_aligned(length) as usize].iter().any(|&byte| byte != 0) {
            return Err(ShardError::Fill { section: name });
        }
    }
    Ok(())
}

/// Hashes a section in pieces, as its digest is defined: matrix and tables over their bytes, the
/// hint over the digests of its packs, each of which is a piece.
struct SectionHasher {
    piece_bytes: usize,
    is_hint: bool,
    hasher: blake3::Hasher,
}

impl SectionHasher {
    fn new(shape: &Shape, which: usize) -> Self {
        let is_hint = SECTION_NAMES[which] == "hints";
        let piece_bytes = if is_hint { shape.hint_bytes() } else { READ_BYTES };
        Self { piece_bytes, is_hint, hasher: blake3::Hasher::new() }
    }

    fn update(&mut self, piece: &[u8]) {
        if self.is_hint {
            self.hasher.update(&pack_digest(piece));
        } else {
            self.hasher.update(piece);
        }
    }

    fn finalize(&self) -> blake3::Hash {
        self.hasher.finalize()
    }
}

fn verify_section(
    path: &Path,
    header: &Header,
    which: usize,
    read: &(dyn Fn(u64) + Sync),
) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let refuse = |source| OpenError::Shard { path: path.to_owned(), source };
    let section = header.sections()[which];
    let file = open_regular(path).map_err(io)?;
    let (found, expected) = (file.metadata().map_err(io)?.len(), file_bytes(&header.shape));
    if found != expected {
        return Err(refuse(ShardError::Length { found, expected }));
    }
    if which == 0 {
        let mut page = [0; HEADER_BYTES];
        file.read_exact_at(&mut page, 0).map_err(io)?;
        if page != header.encode() {
            return Err(refuse(HeaderError::Digest.into()));
        }
        read(HEADER_BYTES as u64);
    }
    let mut hasher = SectionHasher::new(&header.shape, which);
    let mut buffer = vec![0; hasher.piece_bytes.max(HEADER_BYTES)];
    let (mut at, end) = (section.offset, section.offset + section.bytes);
    while at < end {
        let bytes = &mut buffer[..hasher.piece_bytes.min((end - at) as usize)];
        file.read_exact_at(bytes, at).map_err(io)?;
        hasher.update(bytes);
        at += bytes.len() as u64;
        read(bytes.len() as u64);
    }
    let name = SECTION_NAMES[which];
    if hasher.finalize() != section.digest {
        return Err(refuse(ShardError::Section { section: name }));
    }
    let fill = &mut buffer[..(page_aligned(section.bytes) - section.bytes) as usize];
    file.read_exact_at(fill, end).map_err(io)?;
    read(fill.len() as u64);
    if fill.iter().any(|&byte| byte != 0) {
        return Err(refuse(ShardError::Fill { section: name }));
    }
    Ok(())
}

/// Files below `shards/` that the manifest does not name: of the epoch before, or left over.
pub fn unnamed_files(database: &Database) -> std::io::Result<Vec<PathBuf>> {
    let named: std::collections::HashSet<&str> =
        database.manifest().shards.iter().map(|entry| entry.file.as_str()).collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(database.directory().join(SHARDS_DIR))? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
