//! Opens what was looked up: a value becomes a contact with what was verified of it, or a reason.
//!
//! Only the directory is trusted. Who served the value, built the database from records or mirrors
//! it cannot change a contact. They can withhold it, or give an older one that has not expired.
//! Who holds the record key could invent services with keys of its own, and a preference by one of
//! these. What it cannot do is speak for a key that a person has: compare the key that a provider's
//! key service gives with [`Reachable::key_hash`].

use std::fmt;

use ed25519_dalek::{Signature, VerifyingKey};
use prost::Message as _;

use super::blind::{BlindError, Derived};
use super::claims;
use super::directory::{Directory, Key, Provider};
use super::identifier::Identifier;
use super::record::{self, Body, KEY_HASH_BYTES, Preference, Record, Service, VERSION};
use super::ssi::Ssi;
use super::statement::preference_text;
use crate::limits::{
    CLOCK_AHEAD_SECONDS_MAX, RECORD_BYTES_MAX, RECORD_LIFETIME_DAYS_MAX, RECORD_SERVICES_MAX,
};

/// Where a person is reached, signed by the database and for this identifier.
#[derive(Clone, PartialEq, Eq)]
pub struct Contact {
    /// The preferred one first, if [`Contact::preferred`] is verified. Not empty unless no provider
    /// is known.
    pub services: Vec<Reachable>,
    /// Whether the person chose the first one.
    pub preferred: Preferred,
    /// When the record was made, in seconds since 1970.
    pub issued: u64,
    /// From when on it no longer holds, in seconds since 1970.
    pub expires: u64,
    /// The database that signed it.
    pub database: String,
    /// Services left out because the directory does not know their provider. A newer one may.
    pub unknown_providers: usize,
    /// The record as it was signed, with the fields that are not known here.
    pub record: Record,
}

/// A service at which the person is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Reachable {
    /// The provider's domain.
    pub provider: String,
    /// The provider's name, for people.
    pub name: String,
    /// The provider's key service.
    pub keys_url: String,
    /// The key that signs the OHTTP keys of that service; none where it cannot be asked.
    pub keys_identity: Option<Key>,
    /// The person's name there: none if the provider has to be asked for the identifier.
    pub ssi: Option<Ssi>,
    /// What the service is for.
    pub tags: Vec<String>,
    /// By which the user's key is recognised when the key service gives it.
    pub key_hash: Option<[u8; KEY_HASH_BYTES]>,
}

/// What is known of the person's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preferred {
    /// None was made.
    None,
    /// A key of one of the services signed that the first service is preferred, at this time.
    Verified {
        /// Seconds since 1970.
        time: u64,
    },
    /// The database says that the first service is preferred, and this is why nobody can verify it.
    NotVerifiable(NotVerifiable),
}

/// Why a preference cannot be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum NotVerifiable {
    #[error(
        "the handle at the preferred service was left out of the record, and is what was signed"
    )]
    HandleLeftOut,
    #[error("the key that signed it is that of no service in the record")]
    KeyOfNoService,
    #[error("the directory does not know the provider of the preferred service; get a newer one")]
    UnknownProvider,
}

/// Why a value is no contact. Whatever it says, ask again later or another server; only what is
/// said to do otherwise helps at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum OpenError {
    #[error("the record has {0} bytes, expected at most {RECORD_BYTES_MAX}")]
    Long(usize),
    #[error("the sealed value has {0} bytes, expected at least a seal and a record")]
    Short(usize),
    #[error("the {0} is not in its form: it was changed, or sealed for another identifier")]
    Unreadable(&'static str),
    #[error("the record has version {0}, expected {VERSION}: update this program")]
    Version(u32),
    #[error("the directory has no record key {0}: get a newer directory")]
    UnknownSigner(u32),
    #[error(
        "the signature is not that of record key {0} for this identifier: the record was changed \
         or forged, or belongs to another identifier"
    )]
    Signature(u32),
    #[error("record key {signer} was not in force at {issued}, when the record says it was issued")]
    SignerNotInForce { signer: u32, issued: u64 },
    #[error("the seal names minute {seal} and the record minute {record}: the value was changed")]
    Sealed { seal: u32, record: u32 },
    #[error("the directory expired at {expires}, and it is {now}: get a newer one")]
    DirectoryExpired { expires: u64, now: u64 },
    #[error("the record was issued at {issued}, after {now}: set the clock")]
    Future { issued: u64, now: u64 },
    #[error("the record expired at {expires}, and it is {now}")]
    Expired { expires: u64, now: u64 },
    #[error("the record holds for {0} days, expected 1 to {RECORD_LIFETIME_DAYS_MAX}")]
    Lifetime(u32),
    #[error("the record was signed for database {0}, which does not have such identifiers")]
    NotCovered(String),
    #[error("the record has {0} services, expected 1 to {RECORD_SERVICES_MAX}")]
    Services(usize),
    #[error("service {number} of the record has a {what} in another form than is defined")]
    Service { number: usize, what: &'static str },
    #[error("the key or signature of the preference has another length than those of Ed25519")]
    Preference,
    #[error(
        "the preference was not signed by its key for this identifier and service: the database's \
         signer passes on a forged or stolen one"
    )]
    PreferenceForged,
}

/// Opens a sealed value: what [`Derived::seal`] made.
///
/// # Errors
/// The first reason why it is no contact of this identifier.
pub fn open_sealed(
    sii: &Identifier,
    derived: &Derived,
    value: &[u8],
    directory: &Directory,
    now: u64,
) -> Result<Contact, OpenError> {
    let (seal, record) = derived.unseal(value).map_err(|error| match error {
        BlindError::Short { found } => OpenError::Short(found),
        _ => OpenError::Unreadable("seal"),
    })?;
    let opened = Signed::verify(sii, &record, directory)?;
    if opened.body.issued != seal {
        return Err(OpenError::Sealed { seal, record: opened.body.issued });
    }
    opened.contact(sii, directory, now)
}

/// Opens a value that is a record as it was signed.
///
/// # Errors
/// The first reason why it is no contact of this identifier.
pub fn open(
    sii: &Identifier,
    value: &[u8],
    directory: &Directory,
    now: u64,
) -> Result<Contact, OpenError> {
    Signed::verify(sii, value, directory)?.contact(sii, directory, now)
}

/// A record whose signature was verified, for this identifier and by a key in force.
struct Signed {
    record: Record,
    body: Body,
    database: String,
}

impl Signed {
    fn verify(sii: &Identifier, value: &[u8], directory: &Directory) -> Result<Self, OpenError> {
        if value.len() > RECORD_BYTES_MAX {
            return Err(OpenError::Long(value.len()));
        }
        let mut record = Record::decode(value).map_err(|_| OpenError::Unreadable("record"))?;
        let version = record.version.take().unwrap_or(VERSION);
        if version != VERSION {
            return Err(OpenError::Version(version));
        }
        let body = &*record.body;
        let body = Body::decode(body).map_err(|_| OpenError::Unreadable("body"))?;
        let signer = body.signer;
        let (database, key) =
            directory.record_key(signer).ok_or(OpenError::UnknownSigner(signer))?;
        if !record::is_signed(&record, sii, key.key.verifying_key()) {
            return Err(OpenError::Signature(signer));
        }
        let issued = record::time_of(body.issued);
        if !key.validity.contains(issued) {
            return Err(OpenError::SignerNotInForce { signer, issued });
        }
        if !database.covers(sii) {
            return Err(OpenError::NotCovered(database.id.clone()));
        }
        let database = database.id.clone();
        Ok(Self { record, body, database })
    }

    fn contact(
        self,
        sii: &Identifier,
        directory: &Directory,
        now: u64,
    ) -> Result<Contact, OpenError> {
        let Self { record, body, database } = self;
        let (issued, expires) = check_times(&body, now)?;
        let trusted_until = directory.content().expires;
        if trusted_until <= now {
            return Err(OpenError::DirectoryExpired { expires: trusted_until, now });
        }
        if !(1..=RECORD_SERVICES_MAX).contains(&body.services.len()) {
            return Err(OpenError::Services(body.services.len()));
        }
        let mut services = Vec::with_capacity(body.services.len());
        for (at, service) in body.services.iter().enumerate() {
            let malformed = |what| OpenError::Service { number: at + 1, what };
            if let Some(provider) = directory.provider(service.provider) {
                services.push(reachable(service, provider).map_err(malformed)?);
            }
        }
        let preferred = match &body.preference {
            None => Preferred::None,
            Some(preference) => {
                let is_first_known = directory.provider(body.services[0].provider).is_some();
                let first = services.first().filter(|_| is_first_known);
                check_preference(sii, preference, first, &services)?
            }
        };
        let unknown_providers = body.services.len() - services.len();
        Ok(Contact { services, preferred, issued, expires, database, unknown_providers, record })
    }
}

/// When the record was issued, and when it expires.
fn check_times(body: &Body, now: u64) -> Result<(u64, u64), OpenError> {
    let (issued, expires) = (record::time_of(body.issued), body.expires());
    let days = body.lifetime_days.unwrap_or(record::LIFETIME_DAYS_DEFAULT);
    if !(1..=RECORD_LIFETIME_DAYS_MAX).contains(&days) {
        return Err(OpenError::Lifetime(days));
    }
    if issued > now.saturating_add(CLOCK_AHEAD_SECONDS_MAX) {
        return Err(OpenError::Future { issued, now });
    }
    if expires <= now {
        return Err(OpenError::Expired { expires, now });
    }
    Ok((issued, expires))
}

/// Refused with the name of the field that is wrong.
fn reachable(service: &Service, provider: &Provider) -> Result<Reachable, &'static str> {
    let ssi = match &service.handle {
        Some(handle) => Some(Ssi::new(&provider.domain, handle).map_err(|_| "handle")?),
        None => None,
    };
    claims::check_tags(&service.tags).map_err(|_| "tag")?;
    let key_hash = match &*service.key_hash {
        [] => None,
        hash => Some(hash.try_into().map_err(|_| "key_hash")?),
    };
    Ok(Reachable {
        provider: provider.domain.clone(),
        name: provider.name.clone(),
        keys_url: provider.keys_url.clone(),
        keys_identity: provider.keys_identity,
        ssi,
        tags: service.tags.clone(),
        key_hash,
    })
}

fn check_preference(
    sii: &Identifier,
    preference: &Preference,
    first: Option<&Reachable>,
    services: &[Reachable],
) -> Result<Preferred, OpenError> {
    let key: [u8; 32] = (*preference.key).try_into().map_err(|_| OpenError::Preference)?;
    let signature =
        Signature::from_slice(&preference.signature).map_err(|_| OpenError::Preference)?;
    let Some(first) = first else {
        return Ok(Preferred::NotVerifiable(NotVerifiable::UnknownProvider));
    };
    let Some(ssi) = &first.ssi else {
        return Ok(Preferred::NotVerifiable(NotVerifiable::HandleLeftOut));
    };
    let time = u64::from(preference.time);
    let text = preference_text(sii.as_str(), Some(ssi.as_str()), time);
    let is_signed = VerifyingKey::from_bytes(&key)
        .is_ok_and(|verifying| verifying.verify_strict(&text, &signature).is_ok());
    if !is_signed {
        return Err(OpenError::PreferenceForged);
    }
    let hash = Some(record::key_hash(&key));
    match services.iter().any(|service| service.key_hash == hash) {
        true => Ok(Preferred::Verified { time }),
        false => Ok(Preferred::NotVerifiable(NotVerifiable::KeyOfNoService)),
    }
}

// A contact tells where a person is found, so none of it is printed.

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contact({} services, {:?})", self.services.len(), self.preferred)
    }
}

impl fmt::Debug for Reachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reachable({})", self.provider)
    }
}

#[cfg(test)]
mod tests;
