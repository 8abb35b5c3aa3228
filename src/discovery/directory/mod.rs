//! The directory: one signed file that says who may vouch for what, and which databases there are.
//! It is the root of trust of everything else in [`super`].
//!
//! The file is a JWS in JSON form (RFC 7515, section 7.2.1), type `sotto-directory+jws`. Its
//! payload is [`Content`]. A device keeps [`Pins`]: root keys and how many of them have to have
//! signed, and the newest version that it saw. [`Directory::open`] accepts a file that enough of
//! the pinned roots signed, that has enough signatures of the roots it names itself (so that the
//! next version can be verified), that has not expired, and that is not older than what was seen.
//!
//! Members that are not known here are ignored when a file is opened, so that later versions can
//! add some. Drafts, which people write, are read strictly: see [`draft`].

mod content;
pub mod draft;
mod errors;
mod signed;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use super::jws;
use crate::limits::{CLOCK_AHEAD_SECONDS_MAX, DIRECTORY_SECONDS_MAX};
use errors::utc;
use signed::Signed;

pub use content::{
    Content, Database, Issuer, IssuerKey, Key, LastIndex, Log, Proof, Provider, RecordKey, Remit,
    RistrettoKey, Validity,
};
pub use errors::{DirectoryError, Whose};
pub use signed::DIRECTORY_TYP;

/// What a device keeps of the directory: what it trusts, and what it has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredPins", into = "StoredPins")]
pub struct Pins {
    version: u64,
    /// SHA-256 of the payload of that version; none before the first.
    digest: Option<[u8; 32]>,
    threshold: u32,
    roots: Vec<Key>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPins {
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    threshold: u32,
    roots: Vec<Key>,
}

/// A directory whose signatures and content were checked.
#[derive(Debug, Clone)]
pub struct Directory {
    content: Content,
    digest: [u8; 32],
    providers: HashMap<u32, usize>,
    provider_domains: HashMap<String, usize>,
    issuer_domains: HashMap<String, usize>,
    databases: HashMap<String, usize>,
    record_keys: HashMap<u32, (usize, usize)>,
}

impl Directory {
    /// What the file says, if it can be trusted.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn open(bytes: &[u8], pins: &Pins, now: u64) -> Result<Self, DirectoryError> {
        let signed = Signed::read(bytes)?;
        signed.check(Whose::Pinned, pins.threshold, &pins.roots)?;
        let content = signed.content()?;
        if content.version == 0 {
            return Err(content::at("version", "it is 0, which is that of a draft: sign it"));
        }
        content.check()?;
        signed.check(Whose::Its, content.threshold, &content.roots)?;
        let digest = signed.digest();
        pins.check_seen(content.version, &digest)?;
        check_expiry(content.expires, now)?;
        Ok(Self::indexed(content, digest))
    }

    fn indexed(content: Content, digest: [u8; 32]) -> Self {
        let Content { providers, issuers, databases, .. } = &content;
        let record_keys = databases.iter().enumerate().flat_map(|(database, entry)| {
            let keys = entry.record_keys.iter().enumerate();
            keys.map(move |(at, key)| (key.index, (database, at)))
        });
        Self {
            providers: positions(providers.iter().map(|entry| entry.index)),
            provider_domains: positions(providers.iter().map(|entry| entry.domain.clone())),
            issuer_domains: positions(issuers.iter().map(|entry| entry.domain.clone())),
            databases: positions(databases.iter().map(|entry| entry.id.clone())),
            record_keys: record_keys.collect(),
            digest,
            content,
        }
    }

    /// What to keep: the pins with which the next version is opened.
    pub fn pins(&self) -> Pins {
        Pins {
            version: self.content.version,
            digest: Some(self.digest),
            threshold: self.content.threshold,
            roots: self.content.roots.clone(),
        }
    }

    /// Everything that it says.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The provider of an index.
    pub fn provider(&self, index: u32) -> Option<&Provider> {
        self.providers.get(&index).map(|&at| &self.content.providers[at])
    }

    /// The provider of a domain.
    pub fn provider_of(&self, domain: &str) -> Option<&Provider> {
        self.provider_domains.get(domain).map(|&at| &self.content.providers[at])
    }

    /// The issuer of a domain.
    pub fn issuer_of(&self, domain: &str) -> Option<&Issuer> {
        self.issuer_domains.get(domain).map(|&at| &self.content.issuers[at])
    }

    /// The database of this name.
    pub fn database(&self, id: &str) -> Option<&Database> {
        self.databases.get(id).map(|&at| &self.content.databases[at])
    }

    /// The record key of an index, and whose it is.
    pub fn record_key(&self, index: u32) -> Option<(&Database, &RecordKey)> {
        let &(database, key) = self.record_keys.get(&index)?;
        let database = &self.content.databases[database];
        Some((database, &database.record_keys[key]))
    }
}

fn positions<K: Eq + Hash>(keys: impl Iterator<Item = K>) -> HashMap<K, usize> {
    keys.zip(0..).collect()
}

fn check_expiry(expires: u64, now: u64) -> Result<(), DirectoryError> {
    if expires <= now {
        return Err(DirectoryError::Expired { expires, now });
    }
    match expires - now <= DIRECTORY_SECONDS_MAX + CLOCK_AHEAD_SECONDS_MAX {
        true => Ok(()),
        false => Err(DirectoryError::HoldsTooLong { expires, now }),
    }
}

impl Pins {
    /// For a first contact: root keys that are known from elsewhere.
    ///
    /// # Errors
    /// The threshold is 0 or more than the keys, or a key is there twice.
    pub fn new(threshold: u32, roots: Vec<Key>) -> Result<Self, DirectoryError> {
        content::check_roots(threshold, &roots).map_err(DirectoryError::Pins)?;
        Ok(Self { version: 0, digest: None, threshold, roots })
    }

    /// Reads a file of pins.
    ///
    /// # Errors
    /// It is not JSON of this form, or nothing could be trusted by it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, DirectoryError> {
        signed::json("pins", bytes)
    }

    /// What a file of pins holds.
    pub fn to_json(&self) -> String {
        signed::lines(self)
    }

    /// Refuses an older version than was seen, and another content of the same one.
    fn check_seen(&self, version: u64, digest: &[u8; 32]) -> Result<(), DirectoryError> {
        match version.cmp(&self.version) {
            Ordering::Less => {
                Err(DirectoryError::RolledBack { found: version, seen: self.version })
            }
            Ordering::Equal if self.digest.as_ref() != Some(digest) => {
                Err(DirectoryError::Forked { version })
            }
            Ordering::Equal | Ordering::Greater => Ok(()),
        }
    }

    /// The newest version that was seen; 0 before the first.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many of the roots have to have signed.
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// The keys that are trusted.
    pub fn roots(&self) -> &[Key] {
        &self.roots
    }
}

impl TryFrom<StoredPins> for Pins {
    type Error = DirectoryError;

    fn try_from(stored: StoredPins) -> Result<Self, Self::Error> {
        let mut pins = Self::new(stored.threshold, stored.roots)?;
        let refused = |problem: &str| DirectoryError::Pins(problem.to_owned());
        let bytes = |text: String| jws::from_base64url(&text)?.try_into().ok();
        let digest = stored.digest.map(|text| {
            bytes(text).ok_or_else(|| refused("the digest is not 43 characters of base64url"))
        });
        let digest = digest.transpose()?;
        if (stored.version == 0) != digest.is_none() {
            return Err(refused("a version that was seen has a digest, and version 0 has none"));
        }
        (pins.version, pins.digest) = (stored.version, digest);
        Ok(pins)
    }
}

impl From<Pins> for StoredPins {
    fn from(pins: Pins) -> Self {
        let digest = pins.digest.map(|digest| jws::base64url(&digest));
        Self { version: pins.version, digest, threshold: pins.threshold, roots: pins.roots }
    }
}
