//! What leaves are: the bytes of an entry. The first byte says which kind it is.
//!
//! | kind | bytes after it |
//! |---|---|
//! | 0: padding | 8: its index |
//! | 1: statement | 32: SHA-256 of a salt of 16 random bytes and the statement |
//! | 2: manifest | 1 and the database's name, 8: epoch, 32: SHA-256 of its signed parameters |
//!
//! Numbers are big-endian. The salt stays with the registrar and is deleted with the statement:
//! what is left in the log is a random number to everybody. Without a salt whoever has the
//! signature of a statement could look for it; with it, no number can be tried.

use sha2::{Digest as _, Sha256};

use super::errors::LogError;
use super::tree::Hash;

/// Bytes of a salt.
pub const SALT_BYTES: usize = 16;
/// Most bytes of an entry.
pub const ENTRY_BYTES_MAX: usize = 1 + 1 + NAME_BYTES_MAX + 8 + 32;
/// Most bytes of a database's name, as in its parameters.
const NAME_BYTES_MAX: usize = 64;

const PADDING: u8 = 0;
const STATEMENT: u8 = 1;
const MANIFEST: u8 = 2;

/// The manifest of an epoch of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The database's name.
    pub database: String,
    /// The epoch.
    pub epoch: u64,
    /// Of its signed parameters, which cover every byte that is served: [`parameters_digest`].
    pub digest: Hash,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Fills up to the beginning of a tile, which keeps proofs short.
    Padding(u64),
    /// An accepted statement: [`salted_hash`].
    Statement(Hash),
    /// What an epoch of a database is.
    Manifest(Manifest),
}

/// What the log has of a statement.
pub fn salted_hash(salt: &[u8; SALT_BYTES], statement: &[u8]) -> Hash {
    Sha256::new().chain_update(salt).chain_update(statement).finalize().into()
}

/// What the log has of an epoch, from the parameters of the database as its operator signed them.
pub fn parameters_digest(parameters: &[u8]) -> Hash {
    Sha256::digest(parameters).into()
}

impl Entry {
    /// The bytes of the leaf.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Padding(index) => [&[PADDING][..], &index.to_be_bytes()].concat(),
            Self::Statement(hash) => [&[STATEMENT][..], hash].concat(),
            Self::Manifest(Manifest { database, epoch, digest }) => {
                let name = database.as_bytes();
                let head = [MANIFEST, name.len() as u8];
                [&head[..], name, &epoch.to_be_bytes(), digest].concat()
            }
        }
    }

    /// Reads what [`Entry::encode`] wrote.
    ///
    /// # Errors
    /// It is no entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        let wrong = || {
            let found = format!("{} bytes", bytes.len());
            LogError::malformed("an entry", found, "padding, a statement or a manifest")
        };
        let (&kind, rest) = bytes.split_first().ok_or_else(wrong)?;
        match kind {
            PADDING => rest.try_into().map(|index| Self::Padding(u64::from_be_bytes(index))).ok(),
            STATEMENT => rest.try_into().map(Self::Statement).ok(),
            MANIFEST => decode_manifest(rest).map(Self::Manifest),
            _ => None,
        }
        .ok_or_else(wrong)
    }
}

fn decode_manifest(bytes: &[u8]) -> Option<Manifest> {
    let (&length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(length.into())?;
    let (epoch, digest) = rest.split_first_chunk()?;
    let manifest = Manifest {
        database: std::str::from_utf8(name).ok()?.to_owned(),
        epoch: u64::from_be_bytes(*epoch),
        digest: digest.try_into().ok()?,
    };
    is_name(&manifest.database).then_some(manifest)
}

/// Whether a text may be the name of a database.
pub fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.len() <= NAME_BYTES_MAX
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(inner)
}
