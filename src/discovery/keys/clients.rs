//! The list of a user's clients: a compact JWS of type [`CLIENTS_TYP`], signed by the user's key
//! `uk`, the one whose hash is in the record. So whoever serves keys cannot add a client.

use crate::discovery::jws::{self, JwsError, base64url, from_base64url};
use crate::discovery::statement::Ssi;
use crate::limits::CLOCK_AHEAD_SECONDS_MAX;
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::limits::keys::{
    CLIENT_KEY_BYTES_MAX, CLIENT_LIST_BYTES_MAX, CLIENT_LIST_SECONDS_MAX, CLIENT_NAME_BYTES_MAX,
    CLIENTS_MAX,
};

/// The type of the list.
pub const CLIENTS_TYP: &str = "sotto-clients+jwt";

/// Why a list is refused. Nothing in it is quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum ClientListError {
    #[error("the list of clients cannot be accepted: {0}")]
    Jws(#[from] JwsError),
    #[error(
        "the list of clients is not one JSON object of sub (an SSI), clients, iat, exp and \
         version, each once"
    )]
    Form,
    #[error(
        "the list has other clients than 1 to {CLIENTS_MAX}, each with an id of its own of 1 to \
         {CLIENT_NAME_BYTES_MAX} letters, digits, - and _ and a key in base64url of its own"
    )]
    Clients,
    #[error("the list has expired, or holds for longer than 400 days: sign a new one")]
    Expired,
    #[error("the list is of a later time than now: compare the clocks")]
    Future,
}

/// A client and its key for signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct ListedClient {
    pub id: String,
    pub key: Vec<u8>,
}

/// A list. It names a person and has no Debug.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct ClientList {
    pub sub: Ssi,
    pub clients: Vec<ListedClient>,
    pub iat: u64,
    pub exp: u64,
    /// The later of two lists has the higher one.
    pub version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    sub: String,
    clients: Vec<ClaimedClient>,
    iat: u64,
    exp: u64,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimedClient {
    id: String,
    key: String,
}

impl ClientList {
    /// The list with the user's signature.
    pub fn sign(&self, uk: &SigningKey) -> String {
        let client = |client: &ListedClient| ClaimedClient {
            id: client.id.clone(),
            key: base64url(&client.key),
        };
        let claims = Claims {
            sub: self.sub.as_str().to_owned(),
            clients: self.clients.iter().map(client).collect(),
            iat: self.iat,
            exp: self.exp,
            version: self.version,
        };
        let claims = serde_json::to_vec(&claims).expect("this is a bug: texts that are no JSON");
        jws::sign(CLIENTS_TYP, &claims, uk)
    }

    /// Reads a list that this key has signed and that holds at `now`.
    ///
    /// # Errors
    /// Why it cannot be accepted.
    pub fn open(text: &str, uk: &VerifyingKey, now: u64) -> Result<Self, ClientListError> {
        let token = jws::parse(text, CLIENTS_TYP, CLIENT_LIST_BYTES_MAX)?;
        token.verify(uk)?;
        let object = Some(&token.payload).filter(|payload| payload.starts_with(b"{"));
        let claims: Option<Claims> = object.and_then(|json| serde_json::from_slice(json).ok());
        let Claims { sub, clients, iat, exp, version } = claims.ok_or(ClientListError::Form)?;
        let sub = Ssi::parse(&sub).map_err(|_| ClientListError::Form)?;
        if exp <= now || exp.saturating_sub(iat) > CLIENT_LIST_SECONDS_MAX || exp <= iat {
            return Err(ClientListError::Expired);
        }
        if iat > now.saturating_add(CLOCK_AHEAD_SECONDS_MAX) {
            return Err(ClientListError::Future);
        }
        // Version numbers are stored as signed integers of 64 bits.
        if i64::try_from(version).is_err() || i64::try_from(exp).is_err() {
            return Err(ClientListError::Form);
        }
        let clients: Option<Vec<_>> = clients.into_iter().map(listed).collect();
        let clients = clients.filter(|clients| are_distinct(clients));
        let clients = clients.ok_or(ClientListError::Clients)?;
        Ok(Self { sub, clients, iat, exp, version })
    }

    /// The client that has this key.
    pub fn client_with(&self, key: &[u8]) -> Option<&ListedClient> {
        self.clients.iter().find(|client| client.key == key)
    }
}

fn listed(client: ClaimedClient) -> Option<ListedClient> {
    let key = from_base64url(&client.key)?;
    let is_right = is_client_name(&client.id) && (1..=CLIENT_KEY_BYTES_MAX).contains(&key.len());
    is_right.then_some(ListedClient { id: client.id, key })
}

/// Whether a text may name a client.
pub fn is_client_name(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=CLIENT_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_inner)
}

fn are_distinct(clients: &[ListedClient]) -> bool {
    let repeats = clients.iter().enumerate().any(|(at, client)| {
        clients[..at].iter().any(|other| other.id == client.id || other.key == client.key)
    });
    (1..=CLIENTS_MAX).contains(&clients.len()) && !repeats
}

/// The URI of a client, as the draft has it.
pub fn client_uri(ssi: &Ssi, id: &str) -> String {
    format!("mimi://{}/d/{id}", ssi.domain())
}
