//! What a directory says: its entries, and what must be right about them whoever signed them.

use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::super::identifier::Identifier;
use super::super::jws;
use super::errors::{DirectoryError, shown};
use crate::limits::{
    DATABASE_ENDPOINTS_MAX, DATABASE_NAME_BYTES_MAX, DIRECTORY_KEYS_MAX, DIRECTORY_ROOTS_MAX,
    KEYS_URL_BYTES_MAX, NUMBER_DIGITS_MAX, PROVIDER_NAME_BYTES_MAX, REGION_BYTES_MAX,
    REMIT_PREFIXES_MAX,
};

/// Stands for all addresses among the prefixes of a remit.
const ADDRESSES: &str = "@";

/// An Ed25519 public key, in JSON its 32 bytes as base64url. Weak ones are refused.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(VerifyingKey);

/// An element of ristretto255 in its 32 bytes; whether it is one, its user finds out.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RistrettoKey(pub [u8; 32]);

/// From `from` on, and before `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // Names say it.
pub struct Validity {
    pub from: u64,
    pub until: u64,
}

/// How somebody showed that an identifier is theirs; the later, the stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // Names say it.
pub enum Proof {
    #[serde(rename = "self")]
    SelfDeclared,
    Email,
    Call,
    Sms,
}

/// A service at which people are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Stands for it in records. Never used again for another.
    pub index: u32,
    /// What its service identifiers name.
    pub domain: String,
    /// For people.
    pub name: String,
    /// Its key service, `https://`.
    pub keys_url: String,
    /// The key that signs the OHTTP keys of that service; none where nobody is to be asked for
    /// keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_identity: Option<Key>,
}

/// Who vouches for mappings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// Orders issuers. Never used again for another.
    pub index: u32,
    /// The `iss` of its statements.
    pub domain: String,
    /// Those it signs and signed statements with.
    pub keys: Vec<IssuerKey>,
    /// What it may vouch for.
    pub remit: Remit,
    /// Its mappings from before this time need no signature of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exempt_before: Option<u64>,
    /// Whether it is a number authority: its withdrawals void the mappings of every issuer.
    #[serde(default)]
    pub authority: bool,
}

/// A key of an issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // Names say it.
pub struct IssuerKey {
    pub key: Key,
    #[serde(flatten)]
    pub validity: Validity,
}

/// What an issuer may vouch for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remit {
    /// Domains of the providers; none of them: none.
    pub providers: Vec<String>,
    /// Beginnings of numbers, such as `+49`, and `@` for addresses; none: everything.
    pub prefixes: Vec<String>,
    /// Regions that it may name; none of them: none.
    pub regions: Vec<String>,
    /// The weakest proof that suffices.
    pub proof: Proof,
}

/// A database of records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its name, which its parameters carry.
    pub id: String,
    /// Signs its parameters.
    pub operator_key: Key,
    /// Those that sign and signed its records.
    pub record_keys: Vec<RecordKey>,
    /// Public key of its blinding; none where keys are plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blinding_key: Option<RistrettoKey>,
    /// The log of its epochs; none where its epochs are in no log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Log>,
    /// Beginnings of the numbers that it has; none: every number.
    pub prefixes: Vec<String>,
    /// Where its records lie.
    pub region: String,
    /// Its servers, `host:port`.
    pub endpoints: Vec<String>,
}

/// A log of epochs: devices accept an epoch only with a proof that it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Its name, the origin of its checkpoints.
    pub name: String,
    /// Signs its checkpoints. A log keeps its key.
    pub key: Key,
}

/// A key that signs records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordKey {
    /// Stands for it in records. Unique in the directory, never used again for another.
    pub index: u32,
    #[allow(missing_docs)] // Names say it.
    pub key: Key,
    #[serde(flatten)]
    #[allow(missing_docs)] // Names say it.
    pub validity: Validity,
}

/// The highest index that was ever given, so that those of removed entries are not given again.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // Names say it.
pub struct LastIndex {
    pub provider: u32,
    pub issuer: u32,
    pub record_key: u32,
}

/// What a directory says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // Names say it.
pub struct Content {
    pub version: u64,
    pub expires: u64,
    /// How many of `roots` have to have signed.
    pub threshold: u32,
    pub roots: Vec<Key>,
    pub providers: Vec<Provider>,
    pub issuers: Vec<Issuer>,
    pub databases: Vec<Database>,
    #[serde(default)]
    pub last_index: LastIndex,
}

impl Key {
    /// For checking signatures.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.0
    }

    /// Its name in the headers of signatures.
    pub fn id(&self) -> String {
        jws::key_id(&self.0)
    }
}

impl Deref for Key {
    type Target = VerifyingKey;

    fn deref(&self) -> &VerifyingKey {
        &self.0
    }
}

impl From<VerifyingKey> for Key {
    fn from(key: VerifyingKey) -> Self {
        Self(key)
    }
}

impl TryFrom<String> for Key {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = bytes32(&text).ok_or("expected a key: 43 characters of base64url")?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| "this is no key of Ed25519")?;
        // A second way to write a key would count as a second key.
        let is_canonical = key.to_edwards().compress().as_bytes() == &bytes;
        match key.is_weak() || !is_canonical {
            true => Err("this key of Ed25519 is weak: any signature would be right"),
            false => Ok(Self(key)),
        }
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.to_string()
    }
}

/// As in JSON.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&jws::base64url(self.0.as_bytes()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl TryFrom<String> for RistrettoKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = bytes32(&text).ok_or("expected a blinding key: 43 characters of base64url")?;
        match bytes == [0; 32] {
            true => Err("this blinding key is the identity, which blinds nothing"),
            false => Ok(Self(bytes)),
        }
    }
}

impl From<RistrettoKey> for String {
    fn from(key: RistrettoKey) -> Self {
        key.to_string()
    }
}

/// As in JSON.
impl fmt::Display for RistrettoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&jws::base64url(&self.0))
    }
}

/// As in JSON.
impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SelfDeclared => "self",
            Self::Email => "email",
            Self::Call => "call",
            Self::Sms => "sms",
        })
    }
}

impl fmt::Debug for RistrettoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RistrettoKey({self})")
    }
}

fn bytes32(text: &str) -> Option<[u8; 32]> {
    jws::from_base64url(text)?.try_into().ok()
}

impl Validity {
    /// Whether a time is in it.
    pub fn contains(&self, time: u64) -> bool {
        self.from <= time && time < self.until
    }
}

impl Proof {
    /// Whether `found` is enough for this identifier where `weakest` is asked for. Calls and SMS
    /// prove numbers, mail proves addresses: an address has no more than `Email`, which is
    /// therefore enough for it, and a number has none of it.
    pub fn suffices(found: Self, weakest: Self, identifier: &Identifier) -> bool {
        match (identifier.digits(), found) {
            (_, Self::SelfDeclared) => weakest == Self::SelfDeclared,
            (Some(_), Self::Call | Self::Sms) => found >= weakest,
            (None, Self::Email) => true,
            (Some(_), Self::Email) | (None, Self::Call | Self::Sms) => false,
        }
    }
}

impl Remit {
    /// Whether an identifier is within the prefixes.
    pub fn covers(&self, identifier: &Identifier) -> bool {
        match identifier.digits() {
            Some(_) => covers(&self.prefixes, identifier),
            None => self.prefixes.is_empty() || self.prefixes.iter().any(|p| p == ADDRESSES),
        }
    }
}

impl Database {
    /// Whether this database is where an identifier's record would be. Addresses may be in any.
    pub fn covers(&self, identifier: &Identifier) -> bool {
        identifier.digits().is_none() || covers(&self.prefixes, identifier)
    }
}

fn covers(prefixes: &[String], identifier: &Identifier) -> bool {
    prefixes.is_empty() || prefixes.iter().any(|prefix| identifier.as_str().starts_with(prefix))
}

impl Issuer {
    /// Its key of this name (`kid`) that was in force at a time.
    pub fn key(&self, kid: &str, time: u64) -> Option<&IssuerKey> {
        self.keys.iter().find(|key| key.validity.contains(time) && key.key.id() == kid)
    }

    /// Whether it is a number authority for this identifier, which is never so for addresses.
    pub fn is_authority_over(&self, identifier: &Identifier) -> bool {
        self.authority && identifier.digits().is_some() && self.remit.covers(identifier)
    }
}

impl Content {
    /// The highest index that was ever given, as far as this content knows.
    pub fn last_index(&self) -> LastIndex {
        let record_keys = self.databases.iter().flat_map(|database| &database.record_keys);
        let highest = |indices: &mut dyn Iterator<Item = u32>| indices.max().unwrap_or(0);
        let LastIndex { provider, issuer, record_key } = self.last_index;
        LastIndex {
            provider: provider.max(highest(&mut self.providers.iter().map(|entry| entry.index))),
            issuer: issuer.max(highest(&mut self.issuers.iter().map(|entry| entry.index))),
            record_key: record_key.max(highest(&mut record_keys.map(|key| key.index))),
        }
    }

    /// Refuses roots that cannot sign, and entries that are wrong or contradict each other.
    pub(super) fn check(&self) -> Result<(), DirectoryError> {
        check_roots(self.threshold, &self.roots).map_err(|problem| at("the roots", problem))?;
        self.check_unique()?;
        for provider in &self.providers {
            let place = || format!("provider {} ({:?})", provider.index, provider.domain);
            provider.check().map_err(|problem| at(place(), problem))?;
        }
        let domains = self.providers.iter().map(|provider| provider.domain.as_str()).collect();
        for issuer in &self.issuers {
            let place = || format!("issuer {} ({:?})", issuer.index, issuer.domain);
            issuer.check(&domains).map_err(|problem| at(place(), problem))?;
        }
        for database in &self.databases {
            let place = || format!("database {:?}", database.id);
            database.check().map_err(|problem| at(place(), problem))?;
        }
        Ok(())
    }

    fn check_unique(&self) -> Result<(), DirectoryError> {
        let (providers, issuers) = (&self.providers, &self.issuers);
        let record_keys = || self.databases.iter().flat_map(|database| &database.record_keys);
        let issuer_keys = issuers.iter().flat_map(|issuer| &issuer.keys).map(|key| key.key);
        let keys = self.roots.iter().copied().chain(issuer_keys);
        let keys: Vec<Key> = keys.chain(record_keys().map(|key| key.key)).collect();
        let operators: HashSet<[u8; 32]> =
            self.databases.iter().map(|database| database.operator_key.to_bytes()).collect();
        once("providers", "index", providers.iter().map(|entry| entry.index))?;
        once("providers", "domain", providers.iter().map(|entry| &entry.domain))?;
        once("issuers", "index", issuers.iter().map(|entry| entry.index))?;
        once("issuers", "domain", issuers.iter().map(|entry| &entry.domain))?;
        once("databases", "id", self.databases.iter().map(|entry| &entry.id))?;
        once("record keys", "index", record_keys().map(|key| key.index))?;
        // One key for two purposes is one theft for two.
        let with_operators = keys.iter().map(|key| key.to_bytes()).chain(operators);
        once("keys of roots, issuers, records and operators", "key", with_operators.map(Hex))
    }
}

/// A key in the message of [`once`].
#[derive(PartialEq, Eq, Hash)]
struct Hex([u8; 32]);

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&jws::base64url(&self.0))
    }
}

/// An error at a place of the content.
pub(super) fn at(place: impl Into<String>, problem: impl Into<String>) -> DirectoryError {
    DirectoryError::Content { place: shown(place.into()), problem: shown(problem.into()) }
}

fn once<T: Eq + Hash + fmt::Debug>(
    place: &str,
    what: &str,
    items: impl Iterator<Item = T>,
) -> Result<(), DirectoryError> {
    let mut seen = HashSet::new();
    for item in items {
        if seen.contains(&item) {
            return Err(at(format!("the {place}"), format!("the {what} {item:?} is there twice")));
        }
        seen.insert(item);
    }
    Ok(())
}

/// Why an entry is refused.
type Problem = Result<(), String>;

fn expect(is_right: bool, problem: impl FnOnce() -> String) -> Problem {
    if is_right { Ok(()) } else { Err(problem()) }
}

impl Provider {
    fn check(&self) -> Problem {
        check_index(self.index)?;
        check_domain(&self.domain)?;
        check_name(&self.name)?;
        check_url(&self.keys_url)
    }
}

impl Issuer {
    fn check(&self, providers: &HashSet<&str>) -> Problem {
        check_index(self.index)?;
        check_domain(&self.domain)?;
        check_count("keys", self.keys.len(), 1, DIRECTORY_KEYS_MAX)?;
        self.keys.iter().try_for_each(|key| key.validity.check())?;
        let Remit { providers: domains, prefixes, regions, .. } = &self.remit;
        for domain in domains {
            expect(providers.contains(domain.as_str()), || {
                format!("the remit names {domain:?}, which is no provider of this directory")
            })?;
        }
        check_prefixes(prefixes.iter().filter(|prefix| *prefix != ADDRESSES))?;
        check_count("prefixes", prefixes.len(), 0, REMIT_PREFIXES_MAX)?;
        regions.iter().try_for_each(|region| check_region(region))?;
        match self.authority {
            true => expect(!prefixes.is_empty(), || {
                "a number authority without prefixes could withdraw every number: name its own"
                    .to_owned()
            }),
            false => expect(!domains.is_empty(), || {
                "the remit names no provider, so that this issuer can say nothing".to_owned()
            }),
        }
    }
}

impl Database {
    fn check(&self) -> Problem {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let begins = self.id.starts_with(|first: char| first.is_ascii_alphanumeric());
        let is_name = begins && self.id.len() <= DATABASE_NAME_BYTES_MAX;
        expect(is_name && self.id.bytes().all(inner), || {
            let most = DATABASE_NAME_BYTES_MAX;
            format!(
                "the id is not 1 to {most} ASCII letters, digits, `-`, `_` and `.`, a letter or \
                 digit first"
            )
        })?;
        check_count("record keys", self.record_keys.len(), 1, DIRECTORY_KEYS_MAX)?;
        for key in &self.record_keys {
            check_index(key.index)?;
            key.validity.check()?;
        }
        check_prefixes(self.prefixes.iter())?;
        check_count("prefixes", self.prefixes.len(), 0, REMIT_PREFIXES_MAX)?;
        check_region(&self.region)?;
        check_count("endpoints", self.endpoints.len(), 0, DATABASE_ENDPOINTS_MAX)?;
        self.endpoints.iter().try_for_each(|endpoint| {
            expect(is_endpoint(endpoint), || {
                format!("the endpoint {endpoint:?} is not host:port, such as pir.example:4433")
            })
        })
    }
}

impl Validity {
    fn check(self) -> Problem {
        let Self { from, until } = self;
        expect(from < until, || format!("a key is valid from {from} until {until}, which is never"))
    }
}

/// Refuses roots of which too few or too many have to sign.
pub(super) fn check_roots(threshold: u32, roots: &[Key]) -> Problem {
    check_count("root keys", roots.len(), 1, DIRECTORY_ROOTS_MAX)?;
    let distinct: HashSet<&[u8; 32]> = roots.iter().map(|key| key.as_bytes()).collect();
    expect(distinct.len() == roots.len(), || "a root key is there twice".to_owned())?;
    expect((1..=roots.len()).contains(&(threshold as usize)), || {
        format!("the threshold is {threshold}, expected 1 to {}, the number of roots", roots.len())
    })
}

fn check_index(index: u32) -> Problem {
    expect(index != 0, || "the index is 0, which stands for none".to_owned())
}

fn check_count(what: &str, found: usize, least: usize, most: usize) -> Problem {
    expect((least..=most).contains(&found), || {
        format!("there are {found} {what}, expected {least} to {most}")
    })
}

/// In the form that a domain has in an identifier.
fn is_domain(text: &str) -> bool {
    let address = format!("x@{text}");
    Identifier::parse(&address, None).is_ok_and(|canonical| canonical.as_str() == address)
}

fn check_domain(domain: &str) -> Problem {
    expect(is_domain(domain), || {
        format!("the domain {domain:?} is not one in lower case ASCII, such as a.example")
    })
}

fn check_name(name: &str) -> Problem {
    let is_plain = !name.chars().any(|c| c.is_control() || is_invisible(c)) && name.trim() == name;
    expect(is_plain && (1..=PROVIDER_NAME_BYTES_MAX).contains(&name.len()), || {
        format!("the name {name:?} is not 1 to {PROVIDER_NAME_BYTES_MAX} bytes of visible text")
    })
}

/// Characters that make a name look like another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

fn check_url(url: &str) -> Problem {
    let host = url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', '#']).next());
    let is_host = host.is_some_and(|host| is_domain(host) || is_endpoint(host));
    let is_text =
        url.len() <= KEYS_URL_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic());
    expect(is_host && is_text, || {
        format!(
            "the key service {url:?} is not https:// and a domain, in at most {KEYS_URL_BYTES_MAX} \
             bytes \
             of ASCII"
        )
    })
}

fn check_prefixes<'a>(mut prefixes: impl Iterator<Item = &'a String>) -> Problem {
    prefixes.try_for_each(|prefix| {
        let digits = prefix.strip_prefix('+').unwrap_or_default();
        let is_prefix = (1..=NUMBER_DIGITS_MAX).contains(&digits.len()) && !digits.starts_with('0');
        expect(is_prefix && digits.bytes().all(|byte| byte.is_ascii_digit()), || {
            format!("the prefix {prefix:?} is not + and the first digits of numbers, such as +49")
        })
    })
}

fn check_region(region: &str) -> Problem {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    expect((1..=REGION_BYTES_MAX).contains(&region.len()) && region.bytes().all(inner), || {
        format!(
            "the region {region:?} is not 1 to {REGION_BYTES_MAX} ASCII letters, digits and `-`"
        )
    })
}

fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let number: u16 = port.parse().unwrap_or(0);
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match inner {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_domain(host) || host.parse::<Ipv4Addr>().is_ok(),
    };
    is_host && number != 0 && number.to_string() == port
}
