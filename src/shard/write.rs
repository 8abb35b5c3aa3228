//! Writing one shard file, whole or not at all.

use std::io::{self, Write as _};
use std::path::Path;

use super::files::write_file;
use super::header::{Header, file_name, page_aligned};
use super::manifest::ShardEntry;
use crate::params::Shape;
use crate::scheme::hint_hash;
use crate::wire::hex::Hex;

/// The sections of a shard to be written, in their order.
#[derive(Clone, Copy)]
pub struct Sections<'a> {
    /// rows x columns signed bytes, row-major.
    pub matrix: &'a [u8],
    /// Pack tables, one after the other.
    pub tables: &'a [u8],
    /// Packed hints, packs in order.
    pub hints: &'a [u8],
}

impl Sections<'_> {
    /// The digests that go into the header: BLAKE3 over matrix and tables, and over the digests
    /// of the hint's packs.
    pub fn digests(&self, shape: &Shape) -> [[u8; 32]; 3] {
        let [matrix, tables] = [self.matrix, self.tables].map(|bytes| blake3::hash(bytes).into());
        [matrix, tables, hint_hash(self.hints.chunks(shape.hint_bytes()))]
    }
}

/// The manifest entry of a shard with this header.
pub fn entry(header: &Header) -> ShardEntry {
    let digest = header.digest();
    ShardEntry {
        file: file_name(&digest),
        header_digest: Hex(digest),
        ribbon_seed: header.ribbon_seed,
        records: header.records,
        records_digest: Hex(header.records_digest),
        hint_digest: Hex(header.hint_digest()),
    }
}

/// The zeros that follow a section in the file.
pub fn fill(section: &[u8]) -> Vec<u8> {
    vec![0; page_aligned(section.len() as u64) as usize - section.len()]
}

/// Writes the file below `folder` under its content's name.
pub fn write_shard(
    folder: &Path,
    header: &Header,
    sections: &Sections<'_>,
) -> io::Result<ShardEntry> {
    let entry = entry(header);
    write_file(&folder.join(&entry.file), |file| {
        file.write_all(&header.encode())?;
        [sections.matrix, sections.tables, sections.hints].into_iter().try_for_each(|bytes| {
            file.write_all(bytes)?;
            file.write_all(&fill(bytes))
        })
    })?;
    Ok(entry)
}
