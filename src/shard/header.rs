//! The first page of a shard file: a byte table, little-endian, the same on every machine.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `sottoshd` |
//! | 8 | 4 | format version, 2 |
//! | 12 | 4 | bytes of this header, 4096 |
//! | 16 | 32 | database seed |
//! | 48 | 4 | shard number |
//! | 52 | 4 | shards of the database |
//! | 56 | 4 | value field bytes |
//! | 60 | 4 | rows a pack |
//! | 64 | 4 | packs |
//! | 68 | 4 | columns |
//! | 72 | 4 | response bits |
//! | 76 | 4 | hint bits |
//! | 80 | 4 | ribbon seed |
//! | 84 | 4 | zero |
//! | 88 | 8 | records |
//! | 96 | 8 | largest sum of squares over the matrix rows |
//! | 104 | 32 | records digest: BLAKE3 over the sorted records |
//! | 136 | 48 | matrix: offset (8), bytes (8), BLAKE3 over its bytes (32) |
//! | 184 | 48 | tables: the same |
//! | 232 | 48 | hints: offset (8), bytes (8), BLAKE3 over the digests of its packs (32) |
//! | 280 | 3784 | zeros |
//! | 4064 | 32 | BLAKE3 over bytes 0 to 4063: the header digest |
//!
//! The header digest commits to everything, for it covers the digests of the sections; the file is
//! named after it. Not done here: reading the sections ([`super::database`], [`super::verify`]).

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::database::{OpenError, ShardError};
use super::files::open_regular;
use crate::limits;
use crate::params::{FAILURE_LOG2_MAX, Shape, ShapeError, ShapeFields};
use crate::wire::parameters::RIBBON_SEEDS;

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
pub struct Header {
    /// Database seed.
    pub seed: [u8; 32],
    /// Shard number.
    pub shard_index: u32,
    /// Shards of the database.
    pub shard_count: u32,
    /// Sizes of the shard.
    pub shape: Shape,
    /// The ribbon seed that solved it.
    pub ribbon_seed: u32,
    /// Records in it.
    pub records: u64,
    /// Largest sum of squares over the matrix rows.
    pub row_square_sum_max: u64,
    /// BLAKE3 over the sorted records ([`crate::builder`] says how).
    pub records_digest: [u8; 32],
    /// Digests of matrix, tables and hints ([`super::write::Sections::digests`]).
    pub section_digests: [[u8; 32]; 3],
}

/// Why a header is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The first bytes are those of another kind of file.
    #[error("is not a shard file: it begins with {found:02x?}, expected {MAGIC:02x?}")]
    Magic {
        /// The first eight bytes.
        found: [u8; 8],
    },
    /// Written by another version of the program.
    #[error("has {}", other_format(*found))]
    Version {
        /// The version found.
        found: u32,
    },
    /// The header was changed or damaged.
    #[error(
        "has a header that does not match its digest: \
         the file is damaged. Copy it again, or build again where the database is built"
    )]
    Digest,
    /// A number is not what it has to be.
    #[error("has {what} {found} in its header, expected {expected}")]
    Field {
        /// Which field.
        what: &'static str,
        /// The value found.
        found: u64,
        /// The value expected.
        expected: u64,
    },
    /// Bytes that have to be zero are not.
    #[error("has a header with something in bytes that have to be zero")]
    Zeros,
    /// The shape is outside its bounds or too noisy.
    #[error("has a shape that is refused: {0}")]
    Shape(#[from] ShapeError),
    /// The largest row is too noisy.
    #[error(
        "has a matrix row that fails once in 2^{:.1} records, expected at most once in 2^40: \
         build the database again", -log2_failure
    )]
    Noise {
        /// Logarithm (base 2) of the failure probability.
        log2_failure: f64,
    },
}

/// Why a file of another format is refused, and the way on.
pub(super) fn other_format(found: u32) -> String {
    let why = match found {
        1 => "format 1 does not bind a value to its tag, so that a server can change it unnoticed",
        _ => "it was written by another version of the program",
    };
    format!(
        "format {found}, expected {FORMAT_VERSION}: {why}. Build the database again, in another \
         directory: --seed and --signing-key keep what its clients know it by"
    )
}

/// Bytes up to the next page.
pub fn page_aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(HEADER_BYTES as u64)
}

/// Exact bytes of a shard file of this shape.
pub fn file_bytes(shape: &Shape) -> u64 {
    let [matrix, tables, hints] = section_bytes(shape);
    HEADER_BYTES as u64 + page_aligned(matrix) + page_aligned(tables) + page_aligned(hints)
}

fn section_bytes(shape: &Shape) -> [u64; 3] {
    let packs = shape.packs();
    [
        shape.matrix_bytes() as u64,
        (packs * shape.table_bytes()) as u64,
        (packs * shape.hint_bytes()) as u64,
    ]
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn expect(what: &'static str, found: u64, expected: u64) -> Result<(), HeaderError> {
    if found == expected {
        return Ok(());
    }
    Err(HeaderError::Field { what, found, expected })
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
        let mut out = [0; 16];
        out.copy_from_slice(&self.section_digests[2][..16]);
        out
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
        if page[..8] != MAGIC {
            return Err(HeaderError::Magic { found: array_at(page, 0) });
        }
        if u32_at(page, 8) != FORMAT_VERSION {
            return Err(HeaderError::Version { found: u32_at(page, 8) });
        }
        if blake3::hash(&page[..DIGEST_AT]) != array_at::<32>(page, DIGEST_AT) {
            return Err(HeaderError::Digest);
        }
        expect("header bytes", u32_at(page, 12).into(), HEADER_BYTES as u64)?;
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
        if self.shard_count == 0 || self.shard_count > limits::SHARDS_MAX {
            let (found, expected) = (self.shard_count.into(), limits::SHARDS_MAX.into());
            return Err(HeaderError::Field { what: "shard count", found, expected });
        }
        if self.shard_index >= self.shard_count {
            let (found, expected) = (self.shard_index.into(), (self.shard_count - 1).into());
            return Err(HeaderError::Field { what: "shard number", found, expected });
        }
        if self.ribbon_seed >= RIBBON_SEEDS {
            let (found, expected) = (self.ribbon_seed.into(), (RIBBON_SEEDS - 1).into());
            return Err(HeaderError::Field { what: "ribbon seed", found, expected });
        }
        for (i, section) in self.sections().iter().enumerate() {
            expect("section offset", u64_at(page, 136 + 48 * i), section.offset)?;
            expect("section bytes", u64_at(page, 144 + 48 * i), section.bytes)?;
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

/// Reads and checks the header of a shard file that has to be of this shape.
pub fn read(path: &Path, shape: &Shape) -> Result<Header, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let file = open_regular(path).map_err(io)?;
    read_from(&file, path, shape)
}

/// The same of an open file; `path` is for messages.
pub(super) fn read_from(file: &File, path: &Path, shape: &Shape) -> Result<Header, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let refuse = |source| OpenError::Shard { path: path.to_owned(), source };
    let (found, expected) = (file.metadata().map_err(io)?.len(), file_bytes(shape));
    if found != expected {
        return Err(refuse(ShardError::Length { found, expected }));
    }
    let mut page = [0; HEADER_BYTES];
    file.read_exact_at(&mut page, 0).map_err(io)?;
    Header::decode(&page).map_err(|error| refuse(error.into()))
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
    fn a_header_comes_back() {
        let page = header().encode();
        assert_eq!(Header::decode(&page).unwrap(), header());
        assert_eq!(header().digest()[..], page[DIGEST_AT..]);
        assert_eq!(file_name(&header().digest()).len(), 32 + 6);
    }

    #[test]
    fn other_formats_are_refused_with_the_reason_and_the_way() {
        for (format, reason) in [(1, "does not bind a value to its tag"), (3, "another version")] {
            let mut page = header().encode();
            page[8] = format;
            let error = Header::decode(&page).unwrap_err().to_string();
            assert!(error.contains(&format!("has format {format}, expected 2")), "{error}");
            assert!(error.contains(reason) && error.contains("in another directory"), "{error}");
        }
    }

    #[test]
    fn every_byte_of_a_header_counts() {
        let page = header().encode();
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
