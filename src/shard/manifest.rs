//! `manifest.json`: which files are the database, signed by its operator (docs/wire.md, "The
//! manifest").
//!
//! Written last and by rename, so a directory either opens or has none. Everything in it is
//! checked against the signed parameters; a manifest whose parts disagree is refused. What this
//! module does not do: look at the shard files ([`super::database`]).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::header;
use crate::limits;
use crate::params::{Shape, ShapeError, ShapeFields};
use crate::text;
use crate::wire::hex::{Hex, HexBytes};
use crate::wire::parameters::{
    Lifetime, LifetimeError, ParameterFields, ParametersError, PublicParameters, SignatureError,
};
use crate::wire::{self, hex};

/// The manifest's name in a database directory.
pub const MANIFEST_NAME: &str = "manifest.json";
/// The manifest of the epoch before, whose files are kept for running servers.
pub const MANIFEST_PREVIOUS_NAME: &str = "manifest.previous.json";
/// The folder of shard files in a database directory.
pub const SHARDS_DIR: &str = "shards";

/// What a manifest says of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// File name below `shards/`: the first half of the header digest, and `.shard`.
    pub file: String,
    /// BLAKE3 of the file's header.
    pub header_digest: Hex<32>,
    /// The ribbon seed that solved the shard.
    pub ribbon_seed: u32,
    /// Records in the shard.
    pub records: u64,
    /// BLAKE3 over the sorted records: tells a rebuild whether they changed.
    pub records_digest: Hex<32>,
    /// What clients check hints against.
    pub hint_digest: Hex<16>,
}

/// The whole manifest. One that was parsed agrees with itself and with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version, that of the shard files.
    pub format: u32,
    /// Database seed.
    pub seed: Hex<32>,
    /// Raised by one by every rebuild that changed something.
    pub epoch: u64,
    /// Unix seconds.
    pub created: u64,
    /// Unix seconds; clients refuse the epoch after.
    pub expires: u64,
    /// The database's name, for its whole life.
    pub database: String,
    /// Shards of the database.
    pub shard_count: u32,
    /// Sizes of every shard.
    pub shape: ShapeFields,
    /// Records of all shards.
    pub records: u64,
    /// A serialized [`PublicParameters`].
    pub parameters: HexBytes,
    /// Ed25519 over `parameters`.
    pub signature: Hex<64>,
    /// The operator's public key.
    pub operator_key: Hex<32>,
    /// One entry a shard, in order.
    pub shards: Vec<ShardEntry>,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Larger than any manifest can be.
    #[error("is larger than {} bytes, which no manifest is", limits::MANIFEST_BYTES_MAX)]
    TooLarge,
    /// Not the JSON of a manifest.
    #[error("is not a manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version of the format.
    #[error("has {}", header::other_format(*found))]
    Version {
        /// The version found.
        found: u32,
    },
    /// A shape outside the bounds or too noisy.
    #[error("has a shape that is refused: {0}")]
    Shape(#[from] ShapeError),
    /// Its time is over or has not begun.
    #[error("{0}")]
    Lifetime(#[from] LifetimeError),
    /// The operator key is none.
    #[error("has an operator_key that is not an Ed25519 public key")]
    OperatorKey,
    /// The signature is not the operator's.
    #[error("was changed after it was signed: {0}")]
    Signature(#[from] SignatureError),
    /// The signed parameters cannot be read.
    #[error("cannot be believed: {0}")]
    Parameters(#[from] ParametersError),
    /// A field says something else than the signed parameters or than its neighbours.
    #[error("disagrees with itself: {what} is {found}, expected {expected}")]
    Disagrees {
        /// Which field.
        what: String,
        /// What it says.
        found: String,
        /// What it has to say.
        expected: String,
    },
    /// Of another database than the one that is served.
    #[error(
        "has {what} {found}, the database that is served has {expected}: it is another database. \
         To serve it, start the server again"
    )]
    Other {
        /// Which field.
        what: &'static str,
        /// What it says.
        found: String,
        /// What the database that is served says.
        expected: String,
    },
    /// Not newer than the one that is served, and another one.
    #[error(
        "has epoch {found} and is not the manifest that is served with epoch {served}, expected a \
         later epoch: clients refuse an older one. `sotto rollback` makes old content a new epoch"
    )]
    NotNewer {
        /// Its epoch.
        found: u64,
        /// The epoch that is served.
        served: u64,
    },
}

/// What the builder decides about a manifest; the rest follows.
#[derive(Debug, Clone)]
pub struct ManifestHead {
    /// Database seed.
    pub seed: [u8; 32],
    /// Epoch of this content.
    pub epoch: u64,
    /// From when until when clients accept it.
    pub lifetime: Lifetime,
    /// The database's name.
    pub database: String,
    /// Sizes of every shard.
    pub shape: Shape,
}

/// What every version of a manifest says of itself.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn agree<T: PartialEq + ToString>(what: &str, found: T, expected: T) -> Result<(), ManifestError> {
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (found.to_string(), expected.to_string());
    Err(ManifestError::Disagrees { what: what.to_owned(), found, expected })
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
        let record_count = shards.iter().map(|entry| entry.records).sum();
        let parameters = PublicParameters::new(ParameterFields {
            seed: head.seed,
            epoch: head.epoch,
            shape: head.shape,
            ribbon_seeds: shards.iter().map(|entry| entry.ribbon_seed).collect(),
            hint_digests_hash: *blake3::hash(&hint_digests(&shards)).as_bytes(),
            lifetime: head.lifetime,
            database: head.database.clone(),
            record_count,
            shard_records_min: shard_records_min(&shards),
            content: content(&shards),
        })?
        .encode();
        let manifest = Self {
            format: header::FORMAT_VERSION,
            seed: Hex(head.seed),
            epoch: head.epoch,
            created: head.lifetime.created,
            expires: head.lifetime.expires,
            database: head.database.clone(),
            shard_count: shards.len() as u32,
            shape: head.shape.fields(),
            records: record_count,
            signature: Hex(wire::sign(key, &parameters)),
            parameters: HexBytes(parameters),
            operator_key: Hex(key.verifying_key().to_bytes()),
            shards,
        };
        Ok(manifest)
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
            return Err(ManifestError::Version { found: format });
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
        agree("shard_count", self.shard_count, signed.shard_count())?;
        agree("the number of shards listed", self.shards.len(), signed.shard_count() as usize)?;
        agree("seed", hex::encode(&self.seed.0), hex::encode(signed.seed()))?;
        agree("epoch", self.epoch, signed.epoch())?;
        agree("created", self.created, signed.lifetime().created)?;
        agree("expires", self.expires, signed.lifetime().expires)?;
        agree("database", &*self.database, signed.database())?;
        agree("shape", format!("{shape:?}"), format!("{:?}", signed.shape()))?;
        agree("records", self.records, signed.record_count())?;
        self.check_shards(&signed)
    }

    /// Whether the shards listed are those of the signed parameters.
    fn check_shards(&self, signed: &PublicParameters) -> Result<(), ManifestError> {
        let hash = |digest: &[u8]| hex::encode(digest);
        let digests_hash = blake3::hash(&hint_digests(&self.shards));
        let signed_hash = hash(signed.hint_digests_hash());
        agree("the hash of the hint digests", hash(digests_hash.as_bytes()), signed_hash)?;
        let mut records = 0u64;
        for (index, entry) in self.shards.iter().enumerate() {
            let seed = signed.ribbon_seed(index as u32);
            if seed != Some(entry.ribbon_seed) {
                let (what, seed) = (format!("ribbon_seed of shard {index}"), seed.unwrap_or(0));
                agree(&what, entry.ribbon_seed, seed)?;
            }
            let name = header::file_name(&entry.header_digest.0);
            if entry.file != name {
                agree(&format!("file of shard {index}"), &entry.file, &name)?;
            }
            records = records.saturating_add(entry.records);
        }
        let what = "the hash of the header digests (content)";
        agree(what, hash(&content(&self.shards)), hash(signed.content()))?;
        agree("the sum of the shards' records", records, signed.record_count())?;
        let least = shard_records_min(&self.shards);
        agree("the smallest number of records of a shard", least, signed.shard_records_min())
    }

    /// From when until when clients accept it.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime { created: self.created, expires: self.expires }
    }

    /// An error, naming the manifest of `directory`, unless clients accept it at `now` (unix
    /// seconds).
    pub fn check_time(&self, directory: &Path, now: u64) -> Result<(), super::OpenError> {
        let path = directory.join(MANIFEST_NAME);
        let checked = self.lifetime().check(now);
        checked.map_err(|error| super::OpenError::Manifest { path, source: error.into() })
    }

    /// Whether clients and engines of a database that is served can go on with this manifest: of
    /// the same operator, seed, number and shape of shards, and of a later epoch; or the same.
    pub(super) fn may_follow(&self, served: &Self) -> Result<(), ManifestError> {
        let same = |what, found: String, expected: String| {
            if found == expected {
                return Ok(());
            }
            Err(ManifestError::Other { what, found, expected })
        };
        let digits = |bytes: &[u8; 32]| hex::encode(bytes);
        same("operator key", digits(&self.operator_key.0), digits(&served.operator_key.0))?;
        same("seed", digits(&self.seed.0), digits(&served.seed.0))?;
        same("database name", self.database.clone(), served.database.clone())?;
        let count = |manifest: &Self| manifest.shard_count.to_string();
        same("shard count", count(self), count(served))?;
        let shape = |manifest: &Self| format!("{:?}", manifest.shape);
        same("shape", shape(self), shape(served))?;
        if self.epoch <= served.epoch && self != served {
            let (found, served) = (self.epoch, served.epoch);
            return Err(ManifestError::NotNewer { found, served });
        }
        Ok(())
    }

    /// The sizes, which were checked when the manifest was parsed or made.
    pub fn shape(&self) -> Shape {
        Shape::from_fields(self.shape).expect("this is a bug: a manifest with an unchecked shape")
    }

    /// Records of the emptiest shard.
    pub fn shard_records_min(&self) -> u32 {
        shard_records_min(&self.shards)
    }

    /// The hint digests of all shards, 16 bytes each, in order.
    pub fn hint_digests(&self) -> Vec<u8> {
        hint_digests(&self.shards)
    }

    /// JSON for people too: one field a line, one shard a line.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2048 + 400 * self.shards.len());
        let formatter = TwoLevels { depth: 0 };
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        self.serialize(&mut serializer).expect("this is a bug: a manifest is not JSON");
        out.push(b'\n');
        out
    }

    /// Reads and checks the manifest of a file; at most the bytes a manifest may have.
    pub fn read(path: &Path) -> Result<Self, super::OpenError> {
        let bytes = super::files::read_regular(path, limits::MANIFEST_BYTES_MAX + 1)
            .map_err(|source| super::OpenError::Io { path: path.to_owned(), source })?;
        Self::parse(&bytes)
            .map_err(|source| super::OpenError::Manifest { path: path.to_owned(), source })
    }
}

/// What the operator's signature covers the files of all shards by: each header has the digests of
/// its sections, and this is over the digests of all headers.
fn content(shards: &[ShardEntry]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for entry in shards {
        hasher.update(&entry.header_digest.0);
    }
    *hasher.finalize().as_bytes()
}

/// Records of the emptiest shard.
fn shard_records_min(shards: &[ShardEntry]) -> u32 {
    let least = shards.iter().map(|entry| entry.records).min().unwrap_or(0);
    u32::try_from(least).unwrap_or(u32::MAX)
}

fn hint_digests(shards: &[ShardEntry]) -> Vec<u8> {
    shards.iter().flat_map(|entry| entry.hint_digest.0).collect()
}

/// Breaks lines in the outer object and in the lists directly within it, and nowhere else.
struct TwoLevels {
    depth: usize,
}

impl TwoLevels {
    fn begin_item<W: ?Sized + std::io::Write>(
        &self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        match self.depth {
            1 => out.write_all(b"\n "),
            2 => out.write_all(b"\n  "),
            _ if first => Ok(()),
            _ => out.write_all(b" "),
        }
    }

    fn end<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        close: &[u8],
    ) -> std::io::Result<()> {
        self.depth -= 1;
        match self.depth {
            0 => out.write_all(b"\n")?,
            1 => out.write_all(b"\n ")?,
            _ => {}
        }
        out.write_all(close)
    }
}

impl serde_json::ser::Formatter for TwoLevels {
    fn begin_array<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.depth += 1;
        out.write_all(b"[")
    }
    fn end_array<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.end(out, b"]")
    }
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.begin_item(out, first)
    }
    fn begin_object<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.depth += 1;
        out.write_all(b"{")
    }
    fn end_object<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.end(out, b"}")
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.begin_item(out, first)
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
    ) -> std::io::Result<()> {
        out.write_all(b": ")
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
            let error = Manifest::parse(other.as_bytes()).unwrap_err();
            assert!(
                matches!(error, ManifestError::Version { found } if found == version),
                "{error}"
            );
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
