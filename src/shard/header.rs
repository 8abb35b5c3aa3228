//! The first page of a shard file: a byte table, little-endian, the same on every machine.
//! `shards/README.md` has the table.
//!
//! The header digest commits to everything, for it covers the digests of the sections; the file is
//! named after it. What this module does not do: read the sections ([`super::sections`]).

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::errors::{HeaderError, OpenError, ShardError, same};
use super::files::open_regular;
use crate::limits;
use crate::params::{FAILURE_LOG2_MAX, RIBBON_SEEDS, Shape, ShapeFields};

/// Bytes of a header, and the alignment of sections.
pub const HEADER_BYTES: usize = 4096;
/// The version this program reads and writes.
pub const FORMAT_VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"sottoshd";
const DIGEST_AT: usize = HEADER_BYTES - 32;
const ZEROS_AT: usize = 280;

/// The sections of a shard file, in their order.
pub const SECTION_NAMES: [&str; 3] = ["matrix", "tables", "hints"];

/// Where a section lies and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// First byte, a multiple of 4096.
    pub offset: u64,
    /// Bytes without the zeros that fill its last page.
    pub bytes: u64,
    /// BLAKE3 over its bytes; of the hints, over the digests of its packs.
    pub digest: [u8; 32],
}

/// What a shard file says of itself. Decoded headers are valid: their sizes agree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Header {
    pub seed: [u8; 32],
    pub shard_index: u32,
    pub shard_count: u32,
    pub shape: Shape,
    pub ribbon_seed: u32,
    pub records: u64,
    /// Largest sum of squares over the matrix rows.
    pub row_square_sum_max: u64,
    /// BLAKE3 over the sorted records ([`crate::builder`] says how).
    pub records_digest: [u8; 32],
    /// Digests of matrix, tables and hints ([`super::write::Sections::digests`]).
    pub section_digests: [[u8; 32]; 3],
}

/// Bytes up to the next page.
pub fn page_aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(HEADER_BYTES as u64)
}

/// Exact bytes of a shard file of this shape.
pub fn file_bytes(shape: &Shape) -> u64 {
    HEADER_BYTES as u64 + section_bytes(shape).map(page_aligned).iter().sum::<u64>()
}

fn section_bytes(shape: &Shape) -> [u64; 3] {
    let (packs, matrix) = (shape.packs(), shape.matrix_bytes());
    [matrix, packs * shape.table_bytes(), packs * shape.hint_bytes()].map(|bytes| bytes as u64)
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("this is a bug: a field outside the header")
}

impl Header {
    /// The sections, where the format puts them.
    pub fn sections(&self) -> [Section; 3] {
        let bytes = section_bytes(&self.shape);
        let mut offset = HEADER_BYTES as u64;
        std::array::from_fn(|i| {
            let section = Section { offset, bytes: bytes[i], digest: self.section_digests[i] };
            offset += page_aligned(bytes[i]);
            section
        })
    }

    /// The hint digest that clients check: the first half of the hint section's digest.
    pub fn hint_digest(&self) -> [u8; 16] {
        *self.section_digests[2].first_chunk().expect("16 bytes are half of 32")
    }

    /// The page as it is written.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        let shape = self.shape.fields();
        put(&MAGIC);
        put(&FORMAT_VERSION.to_le_bytes());
        put(&(HEADER_BYTES as u32).to_le_bytes());
        put(&self.seed);
        for number in [
            self.shard_index,
            self.shard_count,
            shape.value_len,
            shape.pack_rows,
            shape.packs,
            shape.columns,
            shape.response_bits,
            shape.hint_bits,
            self.ribbon_seed,
            0,
        ] {
            put(&number.to_le_bytes());
        }
        put(&self.records.to_le_bytes());
        put(&self.row_square_sum_max.to_le_bytes());
        put(&self.records_digest);
        for section in self.sections() {
            put(&section.offset.to_le_bytes());
            put(&section.bytes.to_le_bytes());
            put(&section.digest);
        }
        assert_eq!(at, ZEROS_AT, "this is a bug: the header table has another length");
        let digest = blake3::hash(&out[..DIGEST_AT]);
        out[DIGEST_AT..].copy_from_slice(digest.as_bytes());
        out
    }

    /// Checks a page and reads it. Every byte of it counts.
    pub fn decode(page: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let (magic, version) = (array_at(page, 0), u32_at(page, 8));
        if magic != MAGIC {
            return Err(HeaderError::Magic { found: magic, expected: MAGIC });
        }
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version { found: version, expected: FORMAT_VERSION });
        }
        if blake3::hash(&page[..DIGEST_AT]) != array_at::<32>(page, DIGEST_AT) {
            return Err(HeaderError::Digest);
        }
        same("header bytes", u32_at(page, 12), HEADER_BYTES as u32)?;
        let shape = Shape::from_fields(ShapeFields {
            value_len: u32_at(page, 56),
            pack_rows: u32_at(page, 60),
            packs: u32_at(page, 64),
            columns: u32_at(page, 68),
            response_bits: u32_at(page, 72),
            hint_bits: u32_at(page, 76),
        })?;
        let header = Self {
            seed: array_at(page, 16),
            shard_index: u32_at(page, 48),
            shard_count: u32_at(page, 52),
            shape,
            ribbon_seed: u32_at(page, 80),
            records: u64_at(page, 88),
            row_square_sum_max: u64_at(page, 96),
            records_digest: array_at(page, 104),
            section_digests: [array_at(page, 152), array_at(page, 200), array_at(page, 248)],
        };
        header.check(page)?;
        Ok(header)
    }

    fn check(&self, page: &[u8; HEADER_BYTES]) -> Result<(), HeaderError> {
        let count = self.shard_count;
        same("shard count", count, count.clamp(1, limits::SHARDS_MAX))?;
        same("shard number", self.shard_index, self.shard_index.min(count - 1))?;
        same("ribbon seed", self.ribbon_seed, self.ribbon_seed.min(RIBBON_SEEDS - 1))?;
        for (i, section) in self.sections().iter().enumerate() {
            same("section offset", u64_at(page, 136 + 48 * i), section.offset)?;
            same("section bytes", u64_at(page, 144 + 48 * i), section.bytes)?;
        }
        let log2_failure = self.shape.log2_failure_for(self.row_square_sum_max as f64);
        if log2_failure > FAILURE_LOG2_MAX {
            return Err(HeaderError::Noise { log2_failure });
        }
        if u32_at(page, 84) != 0 || page[ZEROS_AT..DIGEST_AT].iter().any(|&byte| byte != 0) {
            return Err(HeaderError::Zeros);
        }
        Ok(())
    }

    /// The header digest: names the file and commits to all of it.
    pub fn digest(&self) -> [u8; 32] {
        array_at(&self.encode(), DIGEST_AT)
    }
}

/// Reads and checks the header of a shard file of this shape; `path` is for messages.
pub(super) fn read_from(file: &File, path: &Path, shape: &Shape) -> Result<Header, OpenError> {
    check_length(file, path, shape)?;
    let mut page = [0; HEADER_BYTES];
    file.read_exact_at(&mut page, 0).map_err(OpenError::io(path))?;
    Header::decode(&page).map_err(OpenError::shard(path))
}

/// The same of a file that is not open.
pub fn read(path: &Path, shape: &Shape) -> Result<Header, OpenError> {
    read_from(&open_regular(path).map_err(OpenError::io(path))?, path, shape)
}

pub(super) fn check_length(file: &File, path: &Path, shape: &Shape) -> Result<(), OpenError> {
    let found = file.metadata().map_err(OpenError::io(path))?.len();
    let expected = file_bytes(shape);
    if found != expected {
        return Err(OpenError::shard(path)(ShardError::Length { found, expected }));
    }
    Ok(())
}

/// The content-addressed name of the file with this header digest.
pub fn file_name(header_digest: &[u8; 32]) -> String {
    format!("{}.shard", crate::wire::hex::encode(&header_digest[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            seed: [7; 32],
            shard_index: 3,
            shard_count: 16,
            shape: Shape::new(120, 128, 1, 192).unwrap(),
            ribbon_seed: 5,
            records: 100,
            row_square_sum_max: 1_100_000,
            records_digest: [9; 32],
            section_digests: [[1; 32], [2; 32], [3; 32]],
        }
    }

    #[test]
    fn a_header_comes_back_and_every_byte_of_it_counts() {
        let page = header().encode();
        assert_eq!(Header::decode(&page).unwrap(), header());
        assert_eq!(header().digest()[..], page[DIGEST_AT..]);
        assert_eq!(file_name(&header().digest()).len(), 32 + 6);
        for at in 0..HEADER_BYTES {
            let mut changed = page;
            changed[at] ^= 1;
            assert!(Header::decode(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_header_with_a_right_digest_and_wrong_fields_is_refused() {
        let changes: [(usize, &[u8], &str); 10] = [
            (12, &[0, 0, 1, 0], "header bytes"),
            (48, &[16, 0, 0, 0], "shard number"),
            (52, &[0; 4], "shard count"),
            (56, &[0; 4], "value field"),
            (80, &[64], "ribbon seed"),
            (84, &[1], "zero"),
            (96, &[255; 7], "row that fails"),
            (136, &[1], "section offset"),
            (144, &[1], "section bytes"),
            (4000, &[1], "zero"),
        ];
        for (at, bytes, reason) in changes {
            let mut page = header().encode();
            page[at..at + bytes.len()].copy_from_slice(bytes);
            let digest = blake3::hash(&page[..DIGEST_AT]);
            page[DIGEST_AT..].copy_from_slice(digest.as_bytes());
            let error = Header::decode(&page).unwrap_err().to_string();
            assert!(error.contains(reason), "{at}: {error}");
        }
    }
}
