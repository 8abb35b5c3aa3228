//! `manifest.json`: which files are the database, signed by its operator (docs/wire.md, "The
//! manifest").
//!
//! Written last and by rename, so a directory either opens or has none. Everything in it is
//! compared with the signed parameters.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::ser::PrettyFormatter;

use super::errors::{ManifestError, Mismatch, OpenError, same};
use super::header::Header;
use super::{files, header};
use crate::limits;
use crate::params::{Shape, ShapeFields};
use crate::text;
use crate::wire;
use crate::wire::hex::{Hex, HexBytes};
use crate::wire::parameters::{Lifetime, ParameterFields, ParametersError, PublicParameters};

/// The manifest's name in a database directory.
pub const MANIFEST_NAME: &str = "manifest.json";
/// The manifest of the epoch before, whose files are kept for running servers.
pub const MANIFEST_PREVIOUS_NAME: &str = "manifest.previous.json";
/// The manifest of an epoch whose files are here, and which is not announced yet.
pub const MANIFEST_NEXT_NAME: &str = "manifest.next.json";
/// The folder of shard files in a database directory.
pub const SHARDS_DIR: &str = "shards";

/// What a manifest says of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // Names say it.
pub struct ShardEntry {
    /// File name below `shards/`: the first half of the header digest, and `.shard`.
    pub file: String,
    /// BLAKE3 of the file's header.
    pub header_digest: Hex<32>,
    pub ribbon_seed: u32,
    pub records: u64,
    /// BLAKE3 over the sorted records: tells a rebuild whether they changed.
    pub records_digest: Hex<32>,
    /// What clients check hints against.
    pub hint_digest: Hex<16>,
}

/// The whole manifest. One that was parsed agrees with itself and with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // Names say it.
pub struct Manifest {
    /// Format version, that of the shard files.
    pub format: u32,
    pub seed: Hex<32>,
    /// Raised by one by every rebuild that changed something.
    pub epoch: u64,
    /// Unix seconds.
    pub created: u64,
    /// Unix seconds; clients refuse the epoch after.
    pub expires: u64,
    pub database: String,
    pub shard_count: u32,
    pub shape: ShapeFields,
    pub records: u64,
    /// A serialized [`PublicParameters`].
    pub parameters: HexBytes,
    /// Ed25519 over `parameters`.
    pub signature: Hex<64>,
    pub operator_key: Hex<32>,
    /// One entry a shard, in order.
    pub shards: Vec<ShardEntry>,
}

/// What the builder decides about a manifest; the rest follows.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Names say it.
pub struct ManifestHead {
    pub seed: [u8; 32],
    pub epoch: u64,
    /// From when until when clients accept it.
    pub lifetime: Lifetime,
    pub database: String,
    pub shape: Shape,
}

/// What every version of a manifest says of itself.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Manifest {
    /// Puts a manifest together and signs its parameters.
    ///
    /// # Errors
    /// No shards, or too many of them, or a ribbon seed past the last.
    pub fn sign(
        head: &ManifestHead,
        shards: Vec<ShardEntry>,
        key: &wire::SigningKey,
    ) -> Result<Self, ParametersError> {
        let mut manifest = Self::unsigned(head, shards, key.verifying_key().to_bytes())?;
        manifest.signature = Hex(wire::sign(key, &manifest.parameters.0));
        Ok(manifest)
    }

    /// The same with zeros for the signature, which somebody else makes over `parameters`. It is
    /// no manifest yet.
    ///
    /// # Errors
    /// As [`Manifest::sign`].
    pub fn unsigned(
        head: &ManifestHead,
        shards: Vec<ShardEntry>,
        operator_key: [u8; 32],
    ) -> Result<Self, ParametersError> {
        let mut manifest = Self {
            format: header::FORMAT_VERSION,
            seed: Hex(head.seed),
            epoch: head.epoch,
            created: head.lifetime.created,
            expires: head.lifetime.expires,
            database: head.database.clone(),
            shard_count: shards.len() as u32,
            shape: head.shape.fields(),
            records: shards.iter().map(|entry| entry.records).sum(),
            parameters: HexBytes(Vec::new()),
            signature: Hex([0; 64]),
            operator_key: Hex(operator_key),
            shards,
        };
        let parameters = PublicParameters::new(ParameterFields {
            seed: head.seed,
            epoch: head.epoch,
            shape: head.shape,
            ribbon_seeds: manifest.shards.iter().map(|entry| entry.ribbon_seed).collect(),
            hint_digests_hash: *blake3::hash(&manifest.hint_digests()).as_bytes(),
            lifetime: head.lifetime,
            database: head.database.clone(),
            record_count: manifest.records,
            shard_records_min: manifest.shard_records_min(),
            content: manifest.content(),
        })?
        .encode();
        manifest.parameters = HexBytes(parameters);
        Ok(manifest)
    }

    /// An unsigned manifest with its operator's signature.
    ///
    /// # Errors
    /// It is not the operator's, or is over something else.
    pub fn with_signature(mut self, signature: [u8; 64]) -> Result<Self, ManifestError> {
        self.signature = Hex(signature);
        self.check()?;
        Ok(self)
    }

    /// What it was made from, for the next epoch to differ in some of it.
    pub fn head(&self) -> ManifestHead {
        ManifestHead {
            seed: self.seed.0,
            epoch: self.epoch,
            lifetime: self.lifetime(),
            database: self.database.clone(),
            shape: self.shape(),
        }
    }

    /// Reads a manifest and checks that all of it agrees and that its operator signed it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > limits::MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge);
        }
        let bytes = bytes.strip_prefix(text::BYTE_ORDER_MARK).unwrap_or(bytes);
        // First of all the version: another one may have other fields.
        let Format { format } = serde_json::from_slice(bytes)?;
        if format != header::FORMAT_VERSION {
            return Err(ManifestError::Version { found: format, expected: header::FORMAT_VERSION });
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let shape = Shape::from_fields(self.shape)?;
        let key = wire::VerifyingKey::from_bytes(&self.operator_key.0)
            .map_err(|_| ManifestError::OperatorKey)?;
        wire::verify(&key, &self.parameters.0, &self.signature.0)?;
        let signed = PublicParameters::decode(&self.parameters.0)?;
        same("shard_count", self.shard_count, signed.shard_count())?;
        same("the number of shards listed", self.shards.len(), signed.shard_count() as usize)?;
        same("seed", self.seed, Hex(*signed.seed()))?;
        same("epoch", self.epoch, signed.epoch())?;
        same("created", self.created, signed.lifetime().created)?;
        same("expires", self.expires, signed.lifetime().expires)?;
        same("database", &*self.database, signed.database())?;
        same("shape", format!("{shape:?}"), format!("{:?}", signed.shape()))?;
        let fields = signed.fields();
        same("records", self.records, fields.record_count)?;
        let hints = Hex(*blake3::hash(&self.hint_digests()).as_bytes());
        same("the hash of the hint digests", hints, Hex(fields.hint_digests_hash))?;
        for (index, entry) in self.shards.iter().enumerate() {
            let seed = signed.ribbon_seed(index as u32).unwrap_or(0);
            same(format_args!("ribbon_seed of shard {index}"), entry.ribbon_seed, seed)?;
            let name = header::file_name(&entry.header_digest.0);
            same(format_args!("file of shard {index}"), &entry.file, &name)?;
        }
        let what = "the hash of the header digests (content)";
        same(what, Hex(self.content()), Hex(fields.content))?;
        let records =
            self.shards.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.records));
        same("the sum of the shards' records", records, fields.record_count)?;
        let least = self.shard_records_min();
        same("the smallest number of records of a shard", least, signed.shard_records_min())?;
        Ok(())
    }

    /// From when until when clients accept it.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime { created: self.created, expires: self.expires }
    }

    /// An error, naming the manifest of `directory`, unless clients accept it at `now` (unix
    /// seconds).
    pub fn check_time(&self, directory: &Path, now: u64) -> Result<(), OpenError> {
        let path = directory.join(MANIFEST_NAME);
        self.lifetime().check(now).map_err(OpenError::manifest(&path))
    }

    /// Whether clients and engines of a database that is served can go on with this manifest: of
    /// the same operator, seed, number and shape of shards, and of a later epoch; or the same.
    pub(super) fn may_follow(&self, served: &Self) -> Result<(), ManifestError> {
        let shape = |manifest: &Self| format!("{:?}", manifest.shape);
        same("operator key", self.operator_key, served.operator_key)
            .and_then(|()| same("seed", self.seed, served.seed))
            .and_then(|()| same("database name", &self.database, &served.database))
            .and_then(|()| same("shard count", self.shard_count, served.shard_count))
            .and_then(|()| same("shape", shape(self), shape(served)))
            .map_err(ManifestError::Other)?;
        if self.epoch <= served.epoch && self != served {
            let (found, served) = (self.epoch, served.epoch);
            return Err(ManifestError::NotNewer { found, served });
        }
        Ok(())
    }

    /// Whether a file's header is that of a shard. The shard is one that there is.
    ///
    /// # Errors
    /// What differs.
    pub fn check_header(&self, header: &Header, index: u32) -> Result<(), Mismatch> {
        let entry = &self.shards[index as usize];
        same("seed", Hex(header.seed), self.seed)?;
        same("shard number", header.shard_index, index)?;
        same("shard count", header.shard_count, self.shard_count)?;
        let shape = header.shape.fields();
        if shape != self.shape {
            same("shape", format!("{shape:?}"), format!("{:?}", self.shape))?;
        }
        same("ribbon seed", header.ribbon_seed, entry.ribbon_seed)?;
        same("record count", header.records, entry.records)?;
        same("records digest", Hex(header.records_digest), entry.records_digest)?;
        same("hint digest", Hex(header.hint_digest()), entry.hint_digest)?;
        same("header digest", Hex(header.digest()), entry.header_digest)
    }

    /// The sizes, which were checked when the manifest was parsed or made.
    pub fn shape(&self) -> Shape {
        Shape::from_fields(self.shape).expect("this is a bug: a manifest with an unchecked shape")
    }

    /// Records of the emptiest shard.
    pub fn shard_records_min(&self) -> u32 {
        let least = self.shards.iter().map(|entry| entry.records).min().unwrap_or(0);
        u32::try_from(least).unwrap_or(u32::MAX)
    }

    /// The hint digests of all shards, 16 bytes each, in order.
    pub fn hint_digests(&self) -> Vec<u8> {
        self.shards.iter().flat_map(|entry| entry.hint_digest.0).collect()
    }

    /// What the operator's signature covers the files of all shards by: each header has the digests
    /// of its sections, and this is over the digests of all headers.
    fn content(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        self.shards.iter().for_each(|entry| _ = hasher.update(&entry.header_digest.0));
        *hasher.finalize().as_bytes()
    }

    /// JSON for people too: one field a line, one shard a line.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let formatter = PrettyFormatter::with_indent(b" ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        self.serialize(&mut serializer).expect("this is a bug: a manifest is not JSON");
        let text = String::from_utf8(out).expect("this is a bug: JSON is not UTF-8");
        // The lines of a shard become one. No line ends within a string: JSON escapes them there.
        let text = text.replace("{\n   ", "{").replace(",\n   ", ", ").replace("\n  }", "}");
        (text + "\n").into_bytes()
    }

    /// Reads and checks the manifest of a file; at most the bytes a manifest may have.
    pub fn read(path: &Path) -> Result<Self, OpenError> {
        let bytes = files::read_regular(path, limits::MANIFEST_BYTES_MAX + 1);
        Self::parse(&bytes.map_err(OpenError::io(path))?).map_err(OpenError::manifest(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(shard_count: u8) -> Manifest {
        let entry = |i: u8| ShardEntry {
            file: header::file_name(&[i; 32]),
            header_digest: Hex([i; 32]),
            ribbon_seed: u32::from(i),
            records: 100,
            records_digest: Hex([i; 32]),
            hint_digest: Hex([i; 16]),
        };
        let shape = Shape::new(120, 128, 1, 192).unwrap();
        let lifetime = Lifetime { created: 5, expires: 50 };
        let database = "phones".to_owned();
        let head = ManifestHead { seed: [1; 32], epoch: 4, lifetime, database, shape };
        let key = wire::SigningKey::from_bytes(&[3; 32]);
        Manifest::sign(&head, (0..shard_count).map(entry).collect(), &key).unwrap()
    }

    #[test]
    fn a_manifest_comes_back_one_shard_a_line() {
        let json = signed(3).to_json();
        assert_eq!(Manifest::parse(&json).unwrap(), signed(3));
        let text = String::from_utf8(json).unwrap();
        let edited = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        assert_eq!(Manifest::parse(edited.as_bytes()).unwrap(), signed(3));
        assert_eq!(text.lines().filter(|line| line.starts_with("  {\"file\"")).count(), 3);
        assert!(text.lines().all(|line| line.len() < 700), "{text}");
        let many = signed(64).to_json().len() as u64;
        assert!(many / 64 * u64::from(limits::SHARDS_MAX) < limits::MANIFEST_BYTES_MAX);
    }

    #[test]
    fn a_manifest_whose_parts_disagree_is_refused() {
        type Change = fn(&mut Manifest);
        let changes: [(&str, Change); 22] = [
            ("format 1, expected 2: format 1 does not bind a value to its tag", |m| m.format = 1),
            ("format 3, expected 2", |m| m.format = 3),
            ("seed is", |m| m.seed.0[0] ^= 1),
            ("epoch is 5, expected 4", |m| m.epoch += 1),
            ("created is", |m| m.created += 1),
            ("expires is", |m| m.expires += 1),
            ("database is mails", |m| m.database = "mails".into()),
            ("shard_count is 4", |m| m.shard_count += 1),
            ("shards listed is 2", |m| drop(m.shards.pop())),
            ("shape is", |m| m.shape.columns += 64),
            ("refused", |m| m.shape.columns += 1),
            ("records is", |m| m.records += 1),
            ("sum of the shards' records is 301", |m| m.shards[1].records += 1),
            ("number of records of a shard is 99", |m| {
                m.shards[1].records -= 1;
                m.shards[2].records += 1;
            }),
            ("hash of the header digests", |m| {
                m.shards[1].header_digest.0[0] ^= 1;
                m.shards[1].file = header::file_name(&m.shards[1].header_digest.0);
            }),
            ("hash of the header digests", |m| {
                let (first, second) = (m.shards[0].clone(), m.shards[1].clone());
                (m.shards[0].file, m.shards[1].file) = (second.file, first.file);
                m.shards[0].header_digest = second.header_digest;
                m.shards[1].header_digest = first.header_digest;
            }),
            ("hint digests", |m| m.shards[1].hint_digest.0[0] ^= 1),
            ("ribbon_seed of shard 2", |m| m.shards[2].ribbon_seed += 1),
            ("file of shard 1", |m| m.shards[1].header_digest.0[0] ^= 1),
            ("changed after it was signed", |m| m.signature.0[0] ^= 1),
            ("changed after it was signed", |m| m.parameters.0[40] ^= 1),
            ("operator", |m| m.operator_key.0[0] ^= 1),
        ];
        for (reason, change) in changes {
            let mut manifest = signed(3);
            change(&mut manifest);
            let error = Manifest::parse(&manifest.to_json()).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }

    #[test]
    fn a_manifest_of_another_version_is_named_as_such_whatever_its_fields() {
        for version in [0, 1, header::FORMAT_VERSION + 1] {
            let other = format!("{{\"format\": {version}, \"ribbons\": []}}");
            let error = Manifest::parse(other.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(&format!("has format {version}, expected 2")), "{error}");
        }
    }

    #[test]
    fn a_manifest_cut_short_or_with_more_fields_is_refused() {
        let json = signed(2).to_json();
        for end in 0..json.len() - 2 {
            assert!(Manifest::parse(&json[..end]).is_err(), "{end}");
        }
        let more = String::from_utf8(json).unwrap().replacen('{', "{\"more\": 1,", 1);
        assert!(Manifest::parse(more.as_bytes()).unwrap_err().to_string().contains("more"));
    }
}
