//! What a device does with the keys of a contact: whether they may be used, and how they are
//! fetched ([`fetch`]).
//!
//! Trust comes from the record alone: it has the hash of the user's key, that key signed the list
//! of clients, and each key package is signed by a key of the list. So neither the key service nor
//! the provider nor a relay can put a client of its own into a conversation. Only what [`verify`]
//! returns makes a contact ready to be written to.

pub mod clients;
pub mod fetch;
pub mod mimi;
pub mod packages;

/// Bodies in TLS presentation language.
pub const TLS_TYPE: &str = "application/octet-stream";

use crate::discovery::open::Reachable;
use crate::discovery::record::key_hash;
use crate::discovery::statement::Ssi;
use ed25519_dalek::VerifyingKey;
use openmls::prelude::KeyPackageIn;

use crate::discovery::keys::clients::{ClientList, ClientListError, client_uri};
use crate::discovery::keys::mimi::ClientKeyMaterial;
use crate::discovery::keys::packages::{Package, PackageError};

/// Why keys of a contact cannot be used: whoever served them, or the contact's own devices, did
/// something wrong. Ask again later; do not write to the contact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum VerifyError {
    #[error("the SSI is not the one in the record, or of another provider")]
    Ssi,
    #[error(
        "the record has no hash of the user's key: nothing shows that keys are this person's; \
         compare them with the person"
    )]
    NoKeyHash,
    #[error("the user's key is not the one whose hash is in the record")]
    UserKey,
    #[error("the user's list of clients: {0}")]
    List(#[from] ClientListError),
    #[error("the list of clients is that of another user")]
    OtherUser,
    #[error("client {number} of the reply is not in the user's list, or is there twice")]
    UnlistedClient { number: usize },
    #[error("the key package of client {number} of the reply: {error}")]
    Package { number: usize, error: PackageError },
    #[error("no client of the contact has a key package now: ask again later")]
    Nothing,
}

/// A contact that can be written to. It names a person and has no Debug.
#[derive(Clone)]
pub struct Ready {
    /// Whom.
    pub ssi: Ssi,
    /// The contact's clients that can be added to a room.
    pub clients: Vec<ReadyClient>,
    /// Clients of the contact that have no package now: they do not get the first message.
    pub without: Vec<String>,
    /// The list that was verified: a later one has to have a higher version.
    pub list: ClientList,
}

/// A client, and the key package to add it with.
#[derive(Clone)]
#[allow(missing_docs)] // Names say it.
pub struct ReadyClient {
    pub id: String,
    pub package: KeyPackageIn,
    /// Others may have been given the same package.
    pub last_resort: bool,
}

/// Verifies the user's key and list of clients against a service of a record.
///
/// # Errors
/// The first reason why they cannot be used.
pub fn verify_list(
    service: &Reachable,
    ssi: &Ssi,
    (uk, list): (&[u8], &str),
    now: u64,
) -> Result<ClientList, VerifyError> {
    let is_same = service.ssi.as_ref().is_none_or(|named| named == ssi);
    if !is_same || ssi.domain() != service.provider {
        return Err(VerifyError::Ssi);
    }
    let hash = service.key_hash.ok_or(VerifyError::NoKeyHash)?;
    let uk = <[u8; 32]>::try_from(uk).map_err(|_| VerifyError::UserKey)?;
    if key_hash(&uk) != hash {
        return Err(VerifyError::UserKey);
    }
    let uk = VerifyingKey::from_bytes(&uk).map_err(|_| VerifyError::UserKey)?;
    let list = ClientList::open(list, &uk, now)?;
    if list.sub == *ssi { Ok(list) } else { Err(VerifyError::OtherUser) }
}

/// Verifies everything that was fetched: the user's key, the list of clients, and the key packages.
///
/// # Errors
/// The first reason why the contact is not ready. One bad package spoils all: an honest service
/// has none.
pub fn verify(
    service: &Reachable,
    ssi: &Ssi,
    user: (&[u8], &str),
    material: Vec<ClientKeyMaterial>,
    now: u64,
) -> Result<Ready, VerifyError> {
    let list = verify_list(service, ssi, user, now)?;
    verify_material(list, material, now)
}

/// Verifies key packages against a list that was verified.
///
/// # Errors
/// As [`verify`].
pub fn verify_material(
    list: ClientList,
    material: Vec<ClientKeyMaterial>,
    now: u64,
) -> Result<Ready, VerifyError> {
    let mut clients: Vec<ReadyClient> = Vec::new();
    for (client, number) in material.into_iter().zip(1..) {
        let ClientKeyMaterial::Success { client, key_package } = client else { continue };
        let is_it = |id: &str| client.as_str() == Some(&*client_uri(&list.sub, id));
        let listed = list.clients.iter().find(|listed| is_it(&listed.id));
        let listed = listed.filter(|listed| clients.iter().all(|done| done.id != listed.id));
        let listed = listed.ok_or(VerifyError::UnlistedClient { number })?;
        let wrong = |error| VerifyError::Package { number, error };
        let package = Package::validate((*key_package).clone(), now).map_err(wrong)?;
        package.check_owner(&list.sub, &listed.key).map_err(wrong)?;
        let last_resort = package.last_resort;
        clients.push(ReadyClient { id: listed.id.clone(), package: *key_package, last_resort });
    }
    if clients.is_empty() {
        return Err(VerifyError::Nothing);
    }
    let has = |id: &str| clients.iter().any(|client| client.id == id);
    let without = list.clients.iter().filter(|listed| !has(&listed.id));
    let without = without.map(|listed| listed.id.clone()).collect();
    Ok(Ready { ssi: list.sub.clone(), clients, without, list })
}

/// A text as a segment of a path.
pub fn encoded(text: &str) -> String {
    let mut segment = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                segment.push(byte as char);
            }
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}
