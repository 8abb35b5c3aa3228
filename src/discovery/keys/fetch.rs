//! Fetches a contact's keys: sealed to the key service, through the relay of the own provider.
//!
//! The user's key and list are asked for first, and verified, so that no package is spent on a
//! contact that would not be accepted. A claim that may have arrived is not sent again by itself:
//! it would spend another package.

use std::sync::{Mutex, PoisonError};

use crate::discovery::open::Reachable;
use crate::discovery::sealed::SealedError;
use crate::discovery::sealed::capsule::{InnerRequest, InnerResponse, seal_to};
use crate::discovery::sealed::keys::KeyList;
use crate::discovery::statement::Ssi;
use crate::https::{Client, HttpsError};
use crate::limits::{OHTTP_KEYS_BYTES_MAX, RELAY_EVALUATE_REPLY_BYTES_MAX};
use ed25519_dalek::VerifyingKey;
use http::Method;
use openmls::prelude::{
    BasicCredential, Ciphersuite, RequiredCapabilitiesExtension, Signable as _,
    VerifiableCiphersuite,
};
use openmls_basic_credential::SignatureKeyPair;
use tls_codec::DeserializeBytes as _;
use zeroize::Zeroizing;

use super::{Ready, VerifyError, verify_list, verify_material};
use crate::discovery::keys::TLS_TYPE;
use crate::discovery::keys::encoded;
use crate::discovery::keys::mimi::{
    ClientListResponse, ConsentEntry, ConsentOperation, IdentifierQueryCode, IdentifierRequest,
    IdentifierResponse, IdentifierUri, KeyMaterialRequest, KeyMaterialRequestTbs,
    KeyMaterialResponse, KeyMaterialUserCode, Protocol, SearchIdentifierType, encode,
};
use crate::limits::keys::KEY_REQUEST_STEP_BYTES;

const REQUEST_TYPE: &str = "message/ohttp-req";
/// What tells that the service does not hold a key (RFC 9458, section 5.3).
const KEY_PROBLEM: &str = "https://iana.org/assignments/http-problem-types#ohttp-key";
/// Bytes of a request besides its path and body.
const MESSAGE_BYTES: usize = 128;

/// Why keys were not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum FetchError {
    #[error("the relay cannot be reached: {0}")]
    Unreachable(#[from] HttpsError),
    #[error("the relay answers {status}; ask again later")]
    Relay { status: u16, retry_after: Option<u64> },
    #[error("the keys of the key service, or a sealed reply, cannot be used: {0}")]
    Sealed(#[from] SealedError),
    #[error("the key service does not hold the newest key that it gives out")]
    KeyUnknown,
    #[error("the key service answers {status}")]
    Service { status: u16, retry_after: Option<u32> },
    #[error("a reply of the key service is no {0}")]
    Unreadable(&'static str),
    #[error("the contact has not agreed to be asked, or is not known there")]
    NoConsent,
    #[error("the key service has nothing that fits: {0:?}")]
    Code(KeyMaterialUserCode),
    #[error(transparent)]
    Refused(#[from] VerifyError),
    #[error("the request cannot be signed")]
    Signature,
}

/// The own user, on whose behalf is asked.
pub struct Requester<'a> {
    /// The own SSI, of the relay's provider.
    pub user: Ssi,
    /// The key of this client.
    pub signer: &'a SignatureKeyPair,
    /// Suites for the room, the best first; the signer's scheme has to be that of the first.
    pub suites: Vec<Ciphersuite>,
    /// What clients have to be able to do in it.
    pub required: RequiredCapabilitiesExtension,
}

/// Where keys of one provider's users are fetched.
pub struct KeyClient {
    /// Speaks to the relay.
    pub http: Client,
    /// The relay, without a slash at the end: sealed requests go to `/keys/PROVIDER` there.
    pub relay: String,
    /// Domain of the provider whose key service is asked.
    pub provider: String,
    /// A token of the own account at the relay.
    pub token: Box<dyn Fn() -> Zeroizing<String> + Send + Sync>,
    /// The long-term key of the key service, as the directory has it.
    pub service_key: VerifyingKey,
    /// The time.
    pub clock: std::sync::Arc<dyn Fn() -> u64 + Send + Sync>,
    /// The keys to seal to; fetched when they are needed.
    pub keys: Mutex<Option<KeyList>>,
}

impl KeyClient {
    /// Fetches and verifies everything that is needed to write to a contact for the first time.
    ///
    /// # Errors
    /// Why the contact is not ready.
    pub async fn fetch(
        &self,
        service: &Reachable,
        ssi: &Ssi,
        requester: &Requester<'_>,
        room: &str,
    ) -> Result<Ready, FetchError> {
        let request = request(requester, ssi, room)?;
        let listed = self.client_list(&request).await?;
        let text = std::str::from_utf8(listed.client_list.as_slice());
        let text = text.map_err(|_| FetchError::Unreadable("ClientListResponse"))?;
        let now = (self.clock)();
        let list = verify_list(service, ssi, (listed.user_key.as_slice(), text), now)?;
        let material = self.claim(&request).await?;
        match material.user_status {
            KeyMaterialUserCode::Success | KeyMaterialUserCode::PartialSuccess => {}
            code => return Err(refused(code)),
        }
        Ok(verify_material(list, material.clients, (self.clock)())?)
    }

    /// The contact's key and list of clients as the service gives them.
    ///
    /// # Errors
    /// There are none.
    pub async fn client_list(
        &self,
        request: &KeyMaterialRequest,
    ) -> Result<ClientListResponse, FetchError> {
        let path = path("clientList", request.target_user.as_str());
        let body = self.ask(path, encode(request), 200).await?;
        let listed = ClientListResponse::tls_deserialize_exact_bytes(&body);
        let listed = listed.map_err(|_| FetchError::Unreadable("ClientListResponse"))?;
        match listed.user_status {
            KeyMaterialUserCode::Success => Ok(listed),
            code => Err(refused(code)),
        }
    }

    /// Claims key packages.
    ///
    /// # Errors
    /// There is no reply that can be read.
    pub async fn claim(
        &self,
        request: &KeyMaterialRequest,
    ) -> Result<KeyMaterialResponse, FetchError> {
        let path = path("keyMaterial", request.target_user.as_str());
        let body = self.ask(path, encode(request), 200).await?;
        KeyMaterialResponse::tls_deserialize_exact_bytes(&body)
            .map_err(|_| FetchError::Unreadable("KeyMaterialResponse"))
    }

    /// The SSI of an identifier, for a record without a handle.
    ///
    /// # Errors
    /// There is no reply that can be read.
    pub async fn find(
        &self,
        domain: &str,
        sii: &crate::discovery::identifier::Identifier,
    ) -> Result<Option<Ssi>, FetchError> {
        let is_phone = sii.digits().is_some();
        let request = IdentifierRequest {
            search_type: match is_phone {
                true => SearchIdentifierType::Phone,
                false => SearchIdentifierType::Email,
            },
            search_value: sii.as_str().as_bytes().into(),
            field_name: None,
        };
        let body = self.ask(path("identifierQuery", Some(domain)), encode(&request), 200).await?;
        let unreadable = || FetchError::Unreadable("IdentifierResponse");
        let found = IdentifierResponse::tls_deserialize_exact_bytes(&body);
        let found = found.map_err(|_| unreadable())?;
        match (found.response_code, &found.uri[..]) {
            (IdentifierQueryCode::NotFound, []) => Ok(None),
            (IdentifierQueryCode::Success, [uri]) => {
                let ssi = uri.as_str().and_then(|text| Ssi::parse(text).ok());
                let ssi = ssi.filter(|ssi| ssi.domain() == domain);
                ssi.map(Some).ok_or_else(unreadable)
            }
            _ => Err(unreadable()),
        }
    }

    /// Asks a contact for consent. That this succeeds says nothing of the contact.
    ///
    /// # Errors
    /// The question did not arrive.
    pub async fn ask_consent(&self, user: &Ssi, target: &Ssi) -> Result<(), FetchError> {
        let entry = ConsentEntry {
            operation: ConsentOperation::Request,
            requester: IdentifierUri::new(user.as_str()),
            target: IdentifierUri::new(target.as_str()),
            room: None,
            key_packages: Vec::new(),
        };
        let path = path("requestConsent", Some(target.domain()));
        self.ask(path, encode(&entry), 201).await.map(drop)
    }

    /// Sends a request, and once more where the service does not hold the key any more: then it
    /// did not read it.
    async fn ask(&self, path: String, body: Vec<u8>, status: u16) -> Result<Vec<u8>, FetchError> {
        let request = InnerRequest {
            method: "POST".to_owned(),
            path,
            content_type: Some(TLS_TYPE.to_owned()),
            body,
        };
        let mut reply = self.try_ask(&request).await?;
        if reply.is_none() {
            *self.lock() = None;
            reply = self.try_ask(&request).await?;
        }
        let reply = reply.ok_or(FetchError::KeyUnknown)?;
        match reply.status {
            found if found == status => Ok(reply.body),
            status => Err(FetchError::Service { status, retry_after: reply.retry_after }),
        }
    }

    /// `None` where the service does not hold the key.
    async fn try_ask(&self, request: &InnerRequest) -> Result<Option<InnerResponse>, FetchError> {
        let key = self.newest_key().await?;
        let bytes = request.path.len() + request.body.len() + MESSAGE_BYTES;
        let padded = bytes.next_multiple_of(KEY_REQUEST_STEP_BYTES);
        // A request that fills its last step is sent without the rest of it.
        let room = crate::limits::keys::KEY_REQUEST_BYTES_MAX
            - crate::discovery::sealed::capsule::REQUEST_OVERHEAD_BYTES;
        let (capsule, opener) = seal_to(&key, request, padded.min(room))?;
        let bearer = Zeroizing::new(format!("Bearer {}", &*(self.token)()));
        let headers = [("content-type", REQUEST_TYPE), ("authorization", &*bearer)];
        let url = format!("{}/keys/{}", self.relay, self.provider);
        let max = RELAY_EVALUATE_REPLY_BYTES_MAX;
        let reply = self.http.send(Method::POST, &url, &headers, capsule.into(), max).await?;
        if reply.status == 400 && is_key_problem(&reply.body) {
            return Ok(None);
        }
        if reply.status != 200 {
            let after = reply.headers.get("retry-after").and_then(|value| value.to_str().ok());
            let retry_after = after.and_then(|text| text.parse().ok());
            return Err(FetchError::Relay { status: reply.status, retry_after });
        }
        Ok(Some(opener.open(&reply.body)?))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<KeyList>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn newest_key(&self) -> Result<Vec<u8>, FetchError> {
        let now = (self.clock)();
        let held = |keys: &KeyList| (keys.expires() > now).then(|| keys.newest().to_vec());
        if let Some(key) = self.lock().as_ref().and_then(held) {
            return Ok(key);
        }
        let url = format!("{}/keys/{}/ohttp-keys", self.relay, self.provider);
        let max = OHTTP_KEYS_BYTES_MAX;
        let reply = self.http.send(Method::GET, &url, &[], Default::default(), max).await?;
        if reply.status != 200 {
            return Err(FetchError::Relay { status: reply.status, retry_after: None });
        }
        let text = std::str::from_utf8(&reply.body);
        let text = text.map_err(|_| FetchError::Unreadable("list of keys"))?;
        let list = KeyList::open(text, &self.service_key, now)?;
        let key = list.newest().to_vec();
        *self.lock() = Some(list);
        Ok(key)
    }
}

/// A signed request for a contact's keys.
///
/// # Errors
/// The signer refuses.
pub fn request(
    requester: &Requester<'_>,
    target: &Ssi,
    room: &str,
) -> Result<KeyMaterialRequest, FetchError> {
    let user = requester.user.as_str();
    let unsigned = KeyMaterialRequestTbs {
        protocol: Protocol::Mls10,
        requesting_user: IdentifierUri::new(user),
        target_user: IdentifierUri::new(target.as_str()),
        room_id: IdentifierUri::new(room),
        acceptable_ciphersuites: requester.suites.iter().map(|suite| suite_of(*suite)).collect(),
        required_capabilities: requester.required.clone(),
        requester_signature_key: requester.signer.public().into(),
        requester_credential: BasicCredential::new(user.as_bytes().to_vec()).into(),
    };
    unsigned.sign(requester.signer).map_err(|_| FetchError::Signature)
}

fn suite_of(suite: Ciphersuite) -> VerifiableCiphersuite {
    suite.into()
}

fn path(what: &str, segment: Option<&str>) -> String {
    format!("/{what}/{}", encoded(segment.unwrap_or_default()))
}

fn refused(code: KeyMaterialUserCode) -> FetchError {
    use KeyMaterialUserCode as Code;
    match code {
        Code::NoConsent | Code::NoConsentForThisRoom | Code::UserUnknown => FetchError::NoConsent,
        code => FetchError::Code(code),
    }
}

fn is_key_problem(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Problem {
        r#type: String,
    }
    serde_json::from_slice::<Problem>(body).is_ok_and(|problem| problem.r#type == KEY_PROBLEM)
}
