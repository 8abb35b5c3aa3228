//! The routing filter of a database: a small file that tells whether a look-up key may be in the
//! database, so that databases which say no need not be asked.
//!
//! It is a binary fuse filter (Graf and Lemire, "Binary Fuse Filters", 2022) with 8 bits a place,
//! about 9 bits a record. A key that is in the database is always covered, one that is not with
//! probability 1/256. Only look-up keys that were derived with the blinding key go in, never
//! identifiers: whoever holds the file cannot try out telephone numbers.
//!
//! The file is a header and a body. The header is one line, a compact token ([`super::jws`]) of
//! type [`FILTER_TYP`], signed with the operator's key, with the claims `version`, `database`,
//! `epoch`, `count` (records) and `blake3` (of the body). The body is, in little-endian order, the
//! seed (8 bytes), the length of a segment (4), the length of all segments but the last two (4),
//! then the fingerprints, one byte each. Nothing of a file is used before all of it was checked.
//!
//! This module decides nothing about look-ups. What is seen when databases are left out is in
//! docs/federation.md.

use serde::{Deserialize, Serialize};
use xorf::{BinaryFuse8, Descriptor, Filter as _};

use ed25519_dalek::VerifyingKey;

#[cfg(feature = "server")]
use super::jws::base64url;
use super::jws::{self, JwsError, from_base64url};
use crate::limits::{FILTER_HEADER_BYTES_MAX, FILTER_RECORDS_MAX, FILTER_SEGMENT_LENGTH_MAX};

/// The type of the token in the first line.
pub const FILTER_TYP: &str = "sotto-filter+jwt";

/// Of the file format.
const VERSION: u32 = 1;

/// What a key is hashed under to its place in a filter. It keeps these hashes apart from others.
const HASH_CONTEXT: &str = "sotto 2026-11-30 routing filter look-up key";

/// Bytes of the body before the fingerprints.
const DESCRIPTOR_BYTES: usize = 16;

/// Why a file is no filter that may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Names say it.
pub enum FilterError {
    #[error(
        "the filter has {found} bytes, and at most {max} are loaded here; ask the database without \
         it"
    )]
    Long { found: u64, max: u64 },
    #[error(
        "the filter does not begin with a line of at most {FILTER_HEADER_BYTES_MAX} bytes; fetch \
         the file that `sotto records make --filter` wrote, whole and unchanged"
    )]
    NoHeader,
    #[error("the first line of the filter is not its signed header: {0}")]
    Header(#[from] JwsError),
    #[error(
        "the header of the filter is not one JSON object with version, database, epoch, count and \
         blake3; fetch the file that `sotto records make --filter` wrote"
    )]
    Claims,
    #[error(
        "the filter is of version {found}, expected {VERSION}: update the program that reads it"
    )]
    Version { found: u32 },
    #[error("the filter is of the database {found:?}, expected {expected:?}: fetch the right one")]
    Database { found: String, expected: String },
    #[error(
        "the filter is of epoch {found}, and one of epoch {seen} was seen before: a filter never \
         goes back; fetch it again, from another server if this one keeps old files"
    )]
    Older { found: u64, seen: u64 },
    #[error(
        "the filter of epoch {epoch} is another one than was seen before: an epoch has one filter; \
         tell the operator of the database"
    )]
    Forked { epoch: u64 },
    #[error(
        "the content of the filter is not what was signed: it was cut short or changed; fetch it \
         again"
    )]
    Digest,
    #[error(
        "the filter has segments of length {length}, expected a power of two up to \
         {FILTER_SEGMENT_LENGTH_MAX}: the operator has to make it again"
    )]
    SegmentLength { length: u32 },
    #[error(
        "the segments of the filter have the length {all} without the last two, expected a \
         multiple of {length} that is not 0: the operator has to make it again"
    )]
    Segments { all: u32, length: u32 },
    #[error(
        "the filter has {found} fingerprints, expected {expected}: the operator has to make it \
         again"
    )]
    Fingerprints { found: u64, expected: u64 },
    #[error(
        "the filter is said to cover {count} records, and its {fingerprints} fingerprints cover at \
         most as many: the operator has to make it again"
    )]
    Count { count: u64, fingerprints: u64 },
}

/// What a device keeps of the newest filter of a database that it accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The epoch of the database.
    pub epoch: u64,
    /// BLAKE3 of the content. Two filters of one epoch would let an operator treat two devices
    /// differently and watch which of them asks.
    pub digest: [u8; 32],
}

/// What is signed.
#[derive(Serialize, Deserialize)]
struct Claims {
    version: u32,
    database: String,
    epoch: u64,
    count: u64,
    blake3: String,
}

/// A filter whose signature and every field were checked.
#[derive(Clone)]
pub struct Filter {
    count: u64,
    seen: Seen,
    fuse: BinaryFuse8,
}

impl Filter {
    /// Checks a file of at most `bytes_max` bytes against the operator's key, and that it is not
    /// older than the one before. A device passes [`crate::limits::FILTER_DEVICE_BYTES_MAX`].
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(
        mut file: Vec<u8>,
        database: &str,
        operator_key: &VerifyingKey,
        seen: Option<&Seen>,
        bytes_max: u64,
    ) -> Result<Self, FilterError> {
        let found = file.len() as u64;
        if found > bytes_max {
            return Err(FilterError::Long { found, max: bytes_max });
        }
        let (line, after) = header_line(&file)?;
        let token = jws::parse(line, FILTER_TYP, FILTER_HEADER_BYTES_MAX)?;
        token.verify(operator_key)?;
        let claims = Claims::read(&token.payload)?;
        if claims.database != database {
            let (found, expected) = (claims.database, database.to_owned());
            return Err(FilterError::Database { found, expected });
        }
        let digest = claims.digest()?;
        check_seen(claims.epoch, &digest, seen)?;
        let body = &file[after..];
        if *blake3::hash(body).as_bytes() != digest {
            return Err(FilterError::Digest);
        }
        let descriptor = descriptor(body, claims.count)?;
        file.drain(..after + DESCRIPTOR_BYTES);
        Ok(Self {
            count: claims.count,
            seen: Seen { epoch: claims.epoch, digest },
            fuse: BinaryFuse8 { descriptor, fingerprints: file.into_boxed_slice() },
        })
    }

    /// Whether the database may have a record under this key. `false` is certain, as of the epoch
    /// of the filter; `true` is wrong for one in 256 of the keys that are not there.
    pub fn covers(&self, lookup_key: impl AsRef<[u8]>) -> bool {
        self.fuse.contains(&hash(lookup_key.as_ref()))
    }

    /// Whether it knows all records of this epoch of the database. An older filter lacks those that
    /// were added since: who does not want to miss them asks the database without it.
    pub fn is_of(&self, epoch: u64) -> bool {
        self.seen.epoch >= epoch
    }

    /// The epoch of the database for which it was made.
    pub fn epoch(&self) -> u64 {
        self.seen.epoch
    }

    /// The number of records that it covers.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.fuse.len()
    }

    /// What to keep, for the next file.
    pub fn seen(&self) -> Seen {
        self.seen
    }
}

/// The first line without its end, and where the body begins.
fn header_line(file: &[u8]) -> Result<(&str, usize), FilterError> {
    let head = &file[..file.len().min(FILTER_HEADER_BYTES_MAX + 1)];
    let end = head.iter().position(|&byte| byte == b'\n').ok_or(FilterError::NoHeader)?;
    let line = std::str::from_utf8(&head[..end]).map_err(|_| FilterError::NoHeader)?;
    Ok((line, end + 1))
}

impl Claims {
    fn read(json: &[u8]) -> Result<Self, FilterError> {
        // Of another version only the number has to be readable. Serde would take an array for the
        // object.
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        if !json.starts_with(b"{") {
            return Err(FilterError::Claims);
        }
        match serde_json::from_slice(json) {
            Ok(Version { version: VERSION }) => {}
            Ok(Version { version: found }) => return Err(FilterError::Version { found }),
            Err(_) => return Err(FilterError::Claims),
        }
        serde_json::from_slice(json).map_err(|_| FilterError::Claims)
    }

    fn digest(&self) -> Result<[u8; 32], FilterError> {
        let digest = from_base64url(&self.blake3).and_then(|bytes| bytes.try_into().ok());
        digest.ok_or(FilterError::Claims)
    }
}

/// Refuses an older filter than was seen, and another one of the same epoch.
fn check_seen(epoch: u64, digest: &[u8; 32], seen: Option<&Seen>) -> Result<(), FilterError> {
    match seen {
        Some(seen) if epoch < seen.epoch => {
            Err(FilterError::Older { found: epoch, seen: seen.epoch })
        }
        Some(seen) if epoch == seen.epoch && *digest != seen.digest => {
            Err(FilterError::Forked { epoch })
        }
        _ => Ok(()),
    }
}

/// Checks the fields of a body. A key has one place in each of three neighbouring segments, the
/// first of them at a place below `all`. So no key can be looked for outside the fingerprints if
/// segments are a power of two long, `all` is whole segments, and two more follow. The seed may be
/// any number.
fn descriptor(body: &[u8], count: u64) -> Result<Descriptor, FilterError> {
    let short = FilterError::Fingerprints { found: 0, expected: count };
    let Some((seed, rest)) = body.split_first_chunk::<8>() else { return Err(short) };
    let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Err(short) };
    let Some((all, fingerprints)) = rest.split_first_chunk::<4>() else { return Err(short) };
    let (length, all) = (u32::from_le_bytes(*length), u32::from_le_bytes(*all));
    if !length.is_power_of_two() || length > FILTER_SEGMENT_LENGTH_MAX {
        return Err(FilterError::SegmentLength { length });
    }
    if all == 0 || !all.is_multiple_of(length) {
        return Err(FilterError::Segments { all, length });
    }
    let (found, expected) = (fingerprints.len() as u64, u64::from(all) + 2 * u64::from(length));
    if found != expected || expected > u64::from(u32::MAX) {
        return Err(FilterError::Fingerprints { found, expected });
    }
    if count > found || count > FILTER_RECORDS_MAX {
        return Err(FilterError::Count { count, fingerprints: found });
    }
    Ok(Descriptor {
        seed: u64::from_le_bytes(*seed),
        segment_length: length,
        segment_length_mask: length - 1,
        segment_count_length: all,
    })
}

/// What the filter knows of a key.
fn hash(lookup_key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let mut hasher = blake3::Hasher::new_derive_key(HASH_CONTEXT);
    hasher.update(lookup_key).finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(feature = "server")]
pub use write::{Signing, WriteError, Written, write};

/// Making the file, which is for whoever has the records.
#[cfg(feature = "server")]
mod write {
    use std::io::{self, BufRead, Write};

    use ed25519_dalek::SigningKey;

    use super::*;

    /// The length of a look-up key: 32 bytes in base64url.
    const KEY_LEN: usize = 43;

    /// Whose filter it is, and of when.
    pub struct Signing<'a> {
        /// The name of the database.
        pub database: &'a str,
        /// The epoch that the database has, or will have, with these records.
        pub epoch: u64,
        /// The operator's key, which also signs the parameters of the database.
        pub key: &'a SigningKey,
    }

    /// What was written.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Written {
        /// Records in the filter.
        pub count: u64,
        /// Bytes of the file.
        pub bytes: u64,
    }

    /// Why no filter was written. A line has number 1 if it is the first.
    #[derive(Debug, thiserror::Error)]
    #[allow(missing_docs)] // Names say it.
    pub enum WriteError {
        #[error("the first line is not \"sii,value\": give the records of `sotto records make`")]
        NoRecords,
        #[error(
            "line {line} has no look-up key of {KEY_LEN} characters of base64url before a comma: \
             give the records of `sotto records make --blind`; a filter over readable keys would \
             let anybody try out identifiers"
        )]
        Key { line: u64 },
        #[error("line {line} has the key of the line before: a key has one record")]
        Duplicate { line: u64 },
        #[error(
            "the key of line {line} belongs before that of the line before: give the records as \
             `sotto records make` sorted them"
        )]
        Unsorted { line: u64 },
        #[error("there are more than {FILTER_RECORDS_MAX} records: a filter has no more")]
        Many,
        #[error("no filter was found for these records; this is a bug, please report it")]
        Construction,
        #[error(transparent)]
        Io(#[from] io::Error),
    }

    /// Writes the filter of the records in a file of `sotto records make`, which is read once. The
    /// same records give the same bytes. While it is made, each record takes 8 bytes of memory and
    /// some 26 more for the tables of the construction; the filter itself takes 9 bits.
    ///
    /// # Errors
    /// The records are not sorted, blinded and distinct, or a file cannot be read or written.
    pub fn write(
        records: impl BufRead,
        signing: &Signing<'_>,
        out: &mut impl Write,
    ) -> Result<Written, WriteError> {
        let mut hashes = hashes(records)?;
        let count = hashes.len() as u64;
        // Two keys have one hash once in a while (among 100 million with probability 1/3700), and
        // the construction takes each once.
        hashes.sort_unstable();
        hashes.dedup();
        let fuse = BinaryFuse8::try_from(&hashes).map_err(|_| WriteError::Construction)?;
        if !hashes.iter().all(|hash| fuse.contains(hash)) {
            return Err(WriteError::Construction);
        }
        drop(hashes);
        let descriptor = descriptor_bytes(&fuse.descriptor);
        let digest =
            blake3::Hasher::new().update(&descriptor).update(&fuse.fingerprints).finalize();
        let claims = Claims {
            version: VERSION,
            database: signing.database.to_owned(),
            epoch: signing.epoch,
            count,
            blake3: base64url(digest.as_bytes()),
        };
        let claims = serde_json::to_vec(&claims).map_err(io::Error::other)?;
        let line = jws::sign(FILTER_TYP, &claims, signing.key) + "\n";
        let parts: [&[u8]; 3] = [line.as_bytes(), &descriptor, &fuse.fingerprints];
        parts.iter().try_for_each(|part| out.write_all(part))?;
        Ok(Written { count, bytes: parts.iter().map(|part| part.len() as u64).sum() })
    }

    pub(super) fn descriptor_bytes(descriptor: &Descriptor) -> [u8; DESCRIPTOR_BYTES] {
        let mut bytes = [0; DESCRIPTOR_BYTES];
        bytes[..8].copy_from_slice(&descriptor.seed.to_le_bytes());
        bytes[8..12].copy_from_slice(&descriptor.segment_length.to_le_bytes());
        bytes[12..].copy_from_slice(&descriptor.segment_count_length.to_le_bytes());
        bytes
    }

    /// The hash of each key, which have to be distinct and in ascending order.
    fn hashes(mut records: impl BufRead) -> Result<Vec<u64>, WriteError> {
        let mut text = Vec::new();
        let mut before: Vec<u8> = Vec::new();
        let mut hashes = Vec::new();
        for line in 1.. {
            text.clear();
            if records.read_until(b'\n', &mut text)? == 0 {
                match line {
                    1 => return Err(WriteError::NoRecords),
                    _ => break,
                }
            }
            if line == 1 {
                match text.trim_ascii_end() {
                    b"sii,value" => continue,
                    _ => return Err(WriteError::NoRecords),
                }
            }
            let key = lookup_key(&text).ok_or(WriteError::Key { line })?;
            match key.cmp(&before) {
                std::cmp::Ordering::Less => return Err(WriteError::Unsorted { line }),
                std::cmp::Ordering::Equal => return Err(WriteError::Duplicate { line }),
                std::cmp::Ordering::Greater => {}
            }
            if hashes.len() as u64 == FILTER_RECORDS_MAX {
                return Err(WriteError::Many);
            }
            hashes.push(hash(key));
            before.clear();
            before.extend_from_slice(key);
        }
        Ok(hashes)
    }

    fn lookup_key(line: &[u8]) -> Option<&[u8]> {
        let (key, rest) = line.split_at_checked(KEY_LEN)?;
        let is_key = key.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
        (is_key && rest.starts_with(b",")).then_some(key)
    }
}

#[cfg(test)]
#[cfg(feature = "server")]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::limits::{FILTER_BYTES_MAX, FILTER_DEVICE_BYTES_MAX};

    const DATABASE: &str = "eu1";

    fn operator() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    /// A look-up key: any 32 bytes in base64url.
    fn key(number: u64) -> String {
        base64url(blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    /// What `sotto records make` writes of these keys.
    fn records(mut keys: Vec<String>) -> String {
        keys.sort();
        let lines = keys.iter().map(|key| format!("{key},base64:AAAA\n"));
        std::iter::once("sii,value\n".to_owned()).chain(lines).collect()
    }

    fn made(epoch: u64, records: &str) -> Result<(Vec<u8>, Written), WriteError> {
        let mut out = Vec::new();
        let key = operator();
        let signing = Signing { database: DATABASE, epoch, key: &key };
        let written = write(records.as_bytes(), &signing, &mut out)?;
        Ok((out, written))
    }

    fn filter(epoch: u64, count: u64) -> Vec<u8> {
        made(epoch, &records((0..count).map(key).collect())).unwrap().0
    }

    fn open(file: &[u8]) -> Result<Filter, FilterError> {
        let key = operator().verifying_key();
        Filter::open(file.to_vec(), DATABASE, &key, None, FILTER_BYTES_MAX)
    }

    fn refused(file: &[u8]) -> FilterError {
        match open(file) {
            Ok(_) => panic!("a file was accepted"),
            Err(error) => error,
        }
    }

    /// A file with this body, signed by the operator with these claims.
    fn signed(body: &[u8], change: impl FnOnce(&mut Claims)) -> Vec<u8> {
        let blake3 = base64url(blake3::hash(body).as_bytes());
        let mut claims =
            Claims { version: VERSION, database: DATABASE.into(), epoch: 3, count: 0, blake3 };
        change(&mut claims);
        with_claims(&serde_json::to_vec(&claims).unwrap(), body)
    }

    fn with_claims(claims: &[u8], body: &[u8]) -> Vec<u8> {
        let line = jws::sign(FILTER_TYP, claims, &operator());
        [line.as_bytes(), b"\n", body].concat()
    }

    fn body(seed: u64, length: u32, all: u32, fingerprints: usize) -> Vec<u8> {
        let descriptor = Descriptor {
            seed,
            segment_length: length,
            segment_length_mask: 0,
            segment_count_length: all,
        };
        [&write::descriptor_bytes(&descriptor)[..], &vec![0; fingerprints]].concat()
    }

    #[test]
    fn every_record_is_covered_at_every_size() {
        for count in (0..20).chain([99, 1_000, 11_515, 40_000]) {
            let (file, written) = made(5, &records((0..count).map(key).collect())).unwrap();
            let filter = open(&file).unwrap();
            assert_eq!((filter.count(), filter.epoch()), (count, 5));
            assert_eq!(written, Written { count, bytes: file.len() as u64 });
            assert!((0..count).all(|number| filter.covers(key(number))), "{count}");
            assert!(filter.is_of(5) && filter.is_of(4) && !filter.is_of(6));
            // The same records, the same bytes.
            assert_eq!(file, self::filter(5, count));
        }
    }

    /// 9.04 bits a record and one key in 256 are what the paper and the crate say.
    #[test]
    fn a_million_records_take_nine_bits_each_and_cover_one_in_256_others() {
        const COUNT: u64 = 1_000_000;
        let file = filter(1, COUNT);
        let filter = open(&file).unwrap();
        assert!((0..COUNT).all(|number| filter.covers(key(number))));
        let others = (COUNT..2 * COUNT).filter(|&number| filter.covers(key(number))).count();
        let (bits, share) =
            (file.len() as f64 * 8.0 / COUNT as f64, others as f64 / COUNT as f64 * 100.0);
        assert!(bits < 9.1, "{bits}");
        // A binomial of 1/256 has a standard deviation of 0.0062 % here.
        assert!((0.36..0.42).contains(&share), "{share}");
        // What a device loads at most holds 3.7 million at this rate.
        assert!(3_700_000.0 * bits / 8.0 < FILTER_DEVICE_BYTES_MAX as f64);
    }

    #[test]
    fn a_file_is_of_one_operator_one_database_and_one_size() {
        let file = filter(2, 100);
        let key = operator().verifying_key();
        let open = |database: &str, key: &VerifyingKey, most: usize| {
            Filter::open(file.clone(), database, key, None, most as u64).map(|_| ())
        };
        assert_eq!(open(DATABASE, &key, file.len()), Ok(()));
        let (found, max) = (file.len() as u64, file.len() as u64 - 1);
        assert_eq!(open(DATABASE, &key, file.len() - 1), Err(FilterError::Long { found, max }));
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert_eq!(
            open(DATABASE, &other, file.len()),
            Err(FilterError::Header(JwsError::Signature))
        );
        let error = FilterError::Database { found: DATABASE.into(), expected: "us1".into() };
        assert_eq!(open("us1", &key, file.len()), Err(error));
    }

    #[test]
    fn a_filter_never_goes_back_and_an_epoch_has_one() {
        let key = operator().verifying_key();
        let next = |file: Vec<u8>, seen: &Seen| {
            Filter::open(file, DATABASE, &key, Some(seen), FILTER_BYTES_MAX)
                .map(|filter| filter.seen())
        };
        let seen = open(&filter(5, 10)).unwrap().seen();
        assert_eq!(next(filter(5, 10), &seen), Ok(seen));
        assert_eq!(next(filter(4, 10), &seen), Err(FilterError::Older { found: 4, seen: 5 }));
        assert_eq!(next(filter(5, 11), &seen), Err(FilterError::Forked { epoch: 5 }));
        let later = next(filter(6, 11), &seen).unwrap();
        assert_eq!(later.epoch, 6);
        // What is kept survives being kept.
        let kept: Seen = serde_json::from_str(&serde_json::to_string(&later).unwrap()).unwrap();
        assert_eq!(kept, later);
    }

    #[test]
    fn a_file_that_was_cut_or_changed_anywhere_is_refused() {
        let file = filter(9, 40);
        for end in 0..file.len() {
            refused(&file[..end]);
        }
        for at in 0..file.len() {
            for bit in [0x01, 0x20, 0x80] {
                let mut changed = file.clone();
                changed[at] ^= bit;
                refused(&changed);
            }
        }
        assert_eq!(refused(&[&file[..], b"\0"].concat()), FilterError::Digest);
        assert_eq!(refused(b""), FilterError::NoHeader);
        assert_eq!(refused(&[b'a'; 5_000]), FilterError::NoHeader);
        assert_eq!(refused(b"\xff\xfe\n"), FilterError::NoHeader);
    }

    #[test]
    fn a_header_that_was_signed_is_checked_nevertheless() {
        let body = body(0, 4, 4, 12);
        assert_eq!(open(&signed(&body, |_| {})).unwrap().count(), 0);
        let version = |claims: &mut Claims| claims.version = 2;
        assert_eq!(refused(&signed(&body, version)), FilterError::Version { found: 2 });
        let other = |claims: &mut Claims| claims.database = "us1".into();
        assert!(matches!(refused(&signed(&body, other)), FilterError::Database { .. }));
        for digest in ["", "AAAA", "=", &base64url(&[0; 31]), &base64url(&[0; 33])] {
            let change = |claims: &mut Claims| claims.blake3 = digest.into();
            assert_eq!(refused(&signed(&body, change)), FilterError::Claims, "{digest}");
        }
        let change = |claims: &mut Claims| claims.blake3 = base64url(&[0; 32]);
        assert_eq!(refused(&signed(&body, change)), FilterError::Digest);
        for claims in [
            "",
            "{}",
            "[1,\"eu1\",3,0,\"\"]",
            r#"{"version":1}"#,
            r#"{"version":-1}"#,
            r#"{"version":1,"version":1}"#,
            r#"{"version":1,"database":"eu1","epoch":-3,"count":0,"blake3":""}"#,
            r#"{"version":1,"database":"eu1","epoch":3,"count":0}"#,
        ] {
            assert_eq!(refused(&with_claims(claims.as_bytes(), &body)), FilterError::Claims);
        }
        // Another version may have other members.
        let later = with_claims(br#"{"version":7,"more":[]}"#, &body);
        assert_eq!(refused(&later), FilterError::Version { found: 7 });
        // Another token of the operator is no header.
        let token = jws::sign("sotto-mapping+jwt", b"{}", &operator());
        let error = refused(&[token.as_bytes(), b"\n", &body].concat());
        assert!(matches!(error, FilterError::Header(JwsError::Type { .. })), "{error}");
    }

    #[test]
    fn every_field_of_a_body_that_was_signed_is_checked() {
        let check = |body: &[u8], count| {
            let file = signed(body, |claims| claims.count = count);
            open(&file).map(|filter| {
                // No key may be looked for outside.
                (0..2_000).filter(|&number| filter.covers(key(number))).count()
            })
        };
        let length = |length| Err(FilterError::SegmentLength { length });
        let segments = |all, length| Err(FilterError::Segments { all, length });
        let found = |found, expected| Err(FilterError::Fingerprints { found, expected });
        let most = FILTER_SEGMENT_LENGTH_MAX;
        // Any seed, and the least and the largest that segments may be.
        for (seed, segment, all) in
            [(0, 1, 1), (u64::MAX, 1, 7), (1, 4, 4), (2, 8, 800), (3, most, most)]
        {
            let fingerprints = (all + 2 * segment) as usize;
            check(&body(seed, segment, all, fingerprints), 1).unwrap();
            for wrong in [0, fingerprints - 1, fingerprints + 1] {
                let expected = fingerprints as u64;
                assert_eq!(
                    check(&body(seed, segment, all, wrong), 0),
                    found(wrong as u64, expected)
                );
            }
        }
        for wrong in [0, 3, 5, 12, most + 1, 2 * most, 1 << 31, u32::MAX] {
            assert_eq!(check(&body(0, wrong, 12, 36), 0), length(wrong));
        }
        for wrong in [0, 1, 2, 3, 5, 6, 7, u32::MAX] {
            assert_eq!(check(&body(0, 4, wrong, 12), 0), segments(wrong, 4));
        }
        // Places are numbers of 32 bits: what would pass their end is refused before it is there.
        let end = u32::MAX - 3;
        assert_eq!(check(&body(0, 4, end, 12), 0), found(12, u64::from(end) + 8));
        // Fewer bytes than the fields have.
        let whole = body(0, 4, 4, 12);
        for end in 0..DESCRIPTOR_BYTES {
            assert_eq!(check(&whole[..end], 6), found(0, 6));
        }
        check(&whole, 12).unwrap();
        for count in [13, FILTER_RECORDS_MAX, u64::MAX] {
            assert_eq!(check(&whole, count), Err(FilterError::Count { count, fingerprints: 12 }));
        }
    }

    #[test]
    fn records_are_blinded_sorted_and_distinct() {
        let line = |key: &str| format!("{key},base64:AAAA\n");
        let (first, second) = (line(&"A".repeat(43)), line(&"B".repeat(43)));
        let write = |text: &str| made(1, text).map(|(_, written)| written.count);
        let with = |lines: &[&str]| write(&format!("sii,value\n{}", lines.concat()));
        assert_eq!(with(&[]).unwrap(), 0);
        assert_eq!(with(&[&first, &second]).unwrap(), 2);
        assert_eq!(write("sii,value\r\n").unwrap(), 0);
        let error = |result: Result<u64, WriteError>| result.unwrap_err().to_string();
        assert!(error(with(&[&first, &second, &second])).starts_with("line 4 has the key of"));
        assert!(error(with(&[&second, &first])).starts_with("the key of line 3 belongs before"));
        for text in ["", "sii", "key,value\n", &first] {
            assert!(error(write(text)).starts_with("the first line is not"), "{text}");
        }
        let readable = line("+15550100123");
        let short = line(&"A".repeat(42));
        let long = line(&"A".repeat(44));
        let quoted = line(&format!("\"{}\"", "A".repeat(41)));
        for text in ["\n", &readable, &short, &long, &quoted, &"A".repeat(43)] {
            let error = error(with(&[text]));
            assert!(error.starts_with("line 2 has no look-up key"), "{error}");
            // No refusal repeats what it refuses.
            assert!(!error.contains("+1555") && !error.contains("AAAA"), "{error}");
        }
    }

    #[test]
    fn records_that_cannot_be_read_or_filters_that_cannot_be_written_are_errors() {
        struct Full(usize);
        impl std::io::Write for Full {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let taken = self.0.min(bytes.len());
                self.0 -= taken;
                Ok(taken)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let records = records((0..10).map(key).collect());
        let key = operator();
        let signing = Signing { database: DATABASE, epoch: 1, key: &key };
        let whole = filter(1, 10).len();
        for room in [0, 1, whole - 1] {
            let result = write(records.as_bytes(), &signing, &mut Full(room));
            assert!(matches!(result, Err(WriteError::Io(_))), "{room}");
        }
        write(records.as_bytes(), &signing, &mut Full(whole)).unwrap();
        let folder = std::fs::File::open(std::env::temp_dir()).unwrap();
        let result = write(std::io::BufReader::new(folder), &signing, &mut Vec::new());
        assert!(matches!(result, Err(WriteError::Io(_))));
    }

    /// The hash of a key never changes: filters are files.
    #[test]
    fn the_hash_of_a_key_is_fixed() {
        let bytes = blake3::derive_key(HASH_CONTEXT, b"A");
        assert_eq!(hash(b"A").to_le_bytes(), bytes[..8]);
        assert_ne!(hash(b"A"), hash(b"B"));
    }
}
