//! The messages of draft-ietf-mimi-protocol that hand out keys, in TLS presentation language.
//!
//! The structures are those of the working group's latest text that was at hand, which has the
//! requester's key, credential and signature in a `KeyMaterialRequest`. A `RoomId`, which that text
//! uses and does not define, is read as an `IdentifierUri`. [`ClientListResponse`] is ours: the
//! draft has no way to ask for the user's key and its list of clients.
//!
//! Everything is read from a slice, so that no length that a peer writes makes memory be reserved.
//! Nothing here prints an identifier.

use std::fmt;

use openmls::prelude::{
    BasicCredential, Capabilities, Credential, CredentialType, KeyPackageIn, OpenMlsCrypto,
    OpenMlsSignaturePublicKey, RequiredCapabilitiesExtension, Signable, Signature, SignatureError,
    SignaturePublicKey, SignatureScheme, SignedStruct, Verifiable, VerifiableCiphersuite,
    VerifiedStruct,
};
use tls_codec::{
    DeserializeBytes, Error, Serialize, Size, TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes,
};

/// Which protocol keys are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
#[allow(missing_docs)] // Names say it.
pub enum Protocol {
    Mls10 = 1,
}

/// A URI of a user, client or room.
#[derive(Clone, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct IdentifierUri {
    uri: VLBytes,
}

impl IdentifierUri {
    /// Of a text.
    pub fn new(uri: &str) -> Self {
        Self { uri: uri.as_bytes().into() }
    }

    /// The text, where it is one.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.uri.as_slice()).ok()
    }
}

/// A URI names a person.
impl fmt::Debug for IdentifierUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("IdentifierUri")
    }
}

/// What a requester signs: everything in a request but the signature.
#[derive(Clone, TlsSerialize, TlsSize)]
#[allow(missing_docs)] // As in the draft.
pub struct KeyMaterialRequestTbs {
    pub protocol: Protocol,
    pub requesting_user: IdentifierUri,
    pub target_user: IdentifierUri,
    pub room_id: IdentifierUri,
    pub acceptable_ciphersuites: Vec<VerifiableCiphersuite>,
    pub required_capabilities: RequiredCapabilitiesExtension,
    pub requester_signature_key: SignaturePublicKey,
    pub requester_credential: Credential,
}

/// Asks for a key package of each client of a user.
#[derive(Clone, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[allow(missing_docs)] // As in the draft.
pub struct KeyMaterialRequest {
    pub protocol: Protocol,
    pub requesting_user: IdentifierUri,
    pub target_user: IdentifierUri,
    pub room_id: IdentifierUri,
    pub acceptable_ciphersuites: Vec<VerifiableCiphersuite>,
    pub required_capabilities: RequiredCapabilitiesExtension,
    pub requester_signature_key: SignaturePublicKey,
    pub requester_credential: Credential,
    signature: Signature,
}

const REQUEST_LABEL: &str = "KeyMaterialRequestTBS";

impl Signable for KeyMaterialRequestTbs {
    type SignedOutput = KeyMaterialRequest;

    fn unsigned_payload(&self) -> Result<Vec<u8>, Error> {
        self.tls_serialize_detached()
    }

    fn label(&self) -> &str {
        REQUEST_LABEL
    }
}

impl SignedStruct<KeyMaterialRequestTbs> for KeyMaterialRequest {
    fn from_payload(payload: KeyMaterialRequestTbs, signature: Signature, _: Vec<u8>) -> Self {
        Self {
            protocol: payload.protocol,
            requesting_user: payload.requesting_user,
            target_user: payload.target_user,
            room_id: payload.room_id,
            acceptable_ciphersuites: payload.acceptable_ciphersuites,
            required_capabilities: payload.required_capabilities,
            requester_signature_key: payload.requester_signature_key,
            requester_credential: payload.requester_credential,
            signature,
        }
    }
}

/// A request whose signature was verified.
pub struct SignedRequest(pub KeyMaterialRequest);

impl VerifiedStruct for SignedRequest {}

impl Verifiable for KeyMaterialRequest {
    type VerifiedStruct = SignedRequest;

    fn unsigned_payload(&self) -> Result<Vec<u8>, Error> {
        let mut payload = self.tls_serialize_detached()?;
        payload.truncate(payload.len() - self.signature.tls_serialized_len());
        Ok(payload)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn label(&self) -> &str {
        REQUEST_LABEL
    }

    fn verify(
        self,
        crypto: &impl OpenMlsCrypto,
        key: &OpenMlsSignaturePublicKey,
    ) -> Result<SignedRequest, SignatureError> {
        self.verify_no_out(crypto, key)?;
        Ok(SignedRequest(self))
    }
}

impl KeyMaterialRequest {
    /// Verifies the signature by the key in the request, in this scheme, and that the credential is
    /// a basic one of the requesting user.
    ///
    /// # Errors
    /// It is another's, or was changed.
    pub fn authenticate(
        self,
        crypto: &impl OpenMlsCrypto,
        scheme: SignatureScheme,
    ) -> Result<SignedRequest, SignatureError> {
        let named = identity_of(&self.requester_credential);
        if named.is_none() || named.as_deref() != self.requesting_user.as_str() {
            return Err(SignatureError::VerificationError);
        }
        let key = self.requester_signature_key.clone();
        let key = OpenMlsSignaturePublicKey::from_signature_key(key, scheme);
        self.verify(crypto, &key)
    }
}

/// The URI in a basic credential.
pub fn identity_of(credential: &Credential) -> Option<String> {
    let is_basic = credential.credential_type() == CredentialType::Basic;
    let credential = BasicCredential::try_from(is_basic.then(|| credential.clone())?).ok()?;
    String::from_utf8(credential.identity().to_vec()).ok()
}

/// What came of a request for a user's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
#[allow(missing_docs)] // As in the draft.
pub enum KeyMaterialUserCode {
    Success = 0,
    PartialSuccess = 1,
    IncompatibleProtocol = 2,
    NoCompatibleMaterial = 3,
    UserUnknown = 4,
    NoConsent = 5,
    NoConsentForThisRoom = 6,
    UserDeleted = 7,
}

/// What there is of a client.
#[derive(Clone, PartialEq)]
#[allow(missing_docs)] // As in the draft.
pub enum ClientKeyMaterial {
    Success { client: IdentifierUri, key_package: Box<KeyPackageIn> },
    KeyMaterialExhausted { client: IdentifierUri },
    NothingCompatible { client: IdentifierUri, capabilities: Option<Capabilities> },
}

impl ClientKeyMaterial {
    fn parts(&self) -> (u8, &IdentifierUri) {
        match self {
            Self::Success { client, .. } => (0, client),
            Self::KeyMaterialExhausted { client } => (1, client),
            Self::NothingCompatible { client, .. } => (2, client),
        }
    }
}

/// Packages name their owner.
impl fmt::Debug for ClientKeyMaterial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClientKeyMaterial({})", self.parts().0)
    }
}

impl Size for ClientKeyMaterial {
    fn tls_serialized_len(&self) -> usize {
        let rest = match self {
            Self::Success { key_package, .. } => key_package.tls_serialized_len(),
            Self::KeyMaterialExhausted { .. } => 0,
            Self::NothingCompatible { capabilities, .. } => capabilities.tls_serialized_len(),
        };
        1 + self.parts().1.tls_serialized_len() + rest
    }
}

impl Serialize for ClientKeyMaterial {
    fn tls_serialize<W: std::io::Write>(&self, writer: &mut W) -> Result<usize, Error> {
        let (status, client) = self.parts();
        let written = status.tls_serialize(writer)? + client.tls_serialize(writer)?;
        let rest = match self {
            Self::Success { key_package, .. } => key_package.tls_serialize(writer)?,
            Self::KeyMaterialExhausted { .. } => 0,
            Self::NothingCompatible { capabilities, .. } => capabilities.tls_serialize(writer)?,
        };
        Ok(written + rest)
    }
}

impl DeserializeBytes for ClientKeyMaterial {
    fn tls_deserialize_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        let (status, rest) = u8::tls_deserialize_bytes(bytes)?;
        let (client, rest) = IdentifierUri::tls_deserialize_bytes(rest)?;
        match status {
            0 => {
                let (key_package, rest) = KeyPackageIn::tls_deserialize_bytes(rest)?;
                Ok((Self::Success { client, key_package: Box::new(key_package) }, rest))
            }
            1 => Ok((Self::KeyMaterialExhausted { client }, rest)),
            2 => {
                let (capabilities, rest) = Option::<Capabilities>::tls_deserialize_bytes(rest)?;
                Ok((Self::NothingCompatible { client, capabilities }, rest))
            }
            _ => Err(unknown("client status")),
        }
    }
}

/// The reply to a request for a user's keys.
#[derive(Debug, Clone, PartialEq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[allow(missing_docs)] // As in the draft.
pub struct KeyMaterialResponse {
    pub protocol: Protocol,
    pub user_status: KeyMaterialUserCode,
    pub user_uri: IdentifierUri,
    pub clients: Vec<ClientKeyMaterial>,
}

/// The reply to the same request at `/clientList/{targetUser}`: the user's key and the list of
/// clients that it signed; both empty unless the status is success.
#[derive(Clone, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[allow(missing_docs)] // Names say it.
pub struct ClientListResponse {
    pub user_status: KeyMaterialUserCode,
    pub user_uri: IdentifierUri,
    pub user_key: VLBytes,
    pub client_list: VLBytes,
}

/// What is done about consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // As in the draft.
pub enum ConsentOperation {
    Cancel,
    Request,
    Grant,
    Revoke,
}

/// Asks for consent, takes the question back, gives consent or takes it back.
#[derive(Clone, PartialEq)]
#[allow(missing_docs)] // As in the draft.
pub struct ConsentEntry {
    pub operation: ConsentOperation,
    pub requester: IdentifierUri,
    pub target: IdentifierUri,
    pub room: Option<IdentifierUri>,
    /// Of a grant; otherwise empty.
    pub key_packages: Vec<KeyPackageIn>,
}

impl ConsentEntry {
    fn is_grant(&self) -> bool {
        self.operation == ConsentOperation::Grant
    }
}

impl Size for ConsentEntry {
    fn tls_serialized_len(&self) -> usize {
        let packages = if self.is_grant() { self.key_packages.tls_serialized_len() } else { 0 };
        1 + self.requester.tls_serialized_len()
            + self.target.tls_serialized_len()
            + self.room.tls_serialized_len()
            + packages
    }
}

impl Serialize for ConsentEntry {
    fn tls_serialize<W: std::io::Write>(&self, writer: &mut W) -> Result<usize, Error> {
        let operation = self.operation as u8;
        let mut written = operation.tls_serialize(writer)?;
        written += self.requester.tls_serialize(writer)?;
        written += self.target.tls_serialize(writer)?;
        written += self.room.tls_serialize(writer)?;
        if self.is_grant() {
            written += self.key_packages.tls_serialize(writer)?;
        }
        Ok(written)
    }
}

impl DeserializeBytes for ConsentEntry {
    fn tls_deserialize_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        let (operation, rest) = u8::tls_deserialize_bytes(bytes)?;
        let operation = match operation {
            0 => ConsentOperation::Cancel,
            1 => ConsentOperation::Request,
            2 => ConsentOperation::Grant,
            3 => ConsentOperation::Revoke,
            _ => return Err(unknown("consent operation")),
        };
        let (requester, rest) = IdentifierUri::tls_deserialize_bytes(rest)?;
        let (target, rest) = IdentifierUri::tls_deserialize_bytes(rest)?;
        let (room, rest) = Option::<IdentifierUri>::tls_deserialize_bytes(rest)?;
        let (key_packages, rest) = match operation {
            ConsentOperation::Grant => Vec::<KeyPackageIn>::tls_deserialize_bytes(rest)?,
            _ => (Vec::new(), rest),
        };
        Ok((Self { operation, requester, target, room, key_packages }, rest))
    }
}

/// By what a user is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // As in the draft.
pub enum SearchIdentifierType {
    Handle = 1,
    Nick = 2,
    Email = 3,
    Phone = 4,
    PartialName = 5,
    WholeProfile = 6,
    OidcStdClaim = 7,
    VcardField = 8,
}

/// Asks which user an identifier belongs to.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)] // As in the draft.
pub struct IdentifierRequest {
    pub search_type: SearchIdentifierType,
    pub search_value: VLBytes,
    /// The claim or field, for the two types that have one.
    pub field_name: Option<VLBytes>,
}

impl Size for IdentifierRequest {
    fn tls_serialized_len(&self) -> usize {
        let field = self.field_name.as_ref().map_or(0, Size::tls_serialized_len);
        1 + self.search_value.tls_serialized_len() + field
    }
}

impl Serialize for IdentifierRequest {
    fn tls_serialize<W: std::io::Write>(&self, writer: &mut W) -> Result<usize, Error> {
        let kind = self.search_type as u8;
        let written = kind.tls_serialize(writer)? + self.search_value.tls_serialize(writer)?;
        match &self.field_name {
            Some(name) => Ok(written + name.tls_serialize(writer)?),
            None => Ok(written),
        }
    }
}

impl DeserializeBytes for IdentifierRequest {
    fn tls_deserialize_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        use SearchIdentifierType as Type;
        let (search_type, rest) = u8::tls_deserialize_bytes(bytes)?;
        let search_type = match search_type {
            1 => Type::Handle,
            2 => Type::Nick,
            3 => Type::Email,
            4 => Type::Phone,
            5 => Type::PartialName,
            6 => Type::WholeProfile,
            7 => Type::OidcStdClaim,
            8 => Type::VcardField,
            _ => return Err(unknown("search type")),
        };
        let (search_value, rest) = VLBytes::tls_deserialize_bytes(rest)?;
        let (field_name, rest) = match search_type {
            Type::OidcStdClaim | Type::VcardField => {
                let (name, rest) = VLBytes::tls_deserialize_bytes(rest)?;
                (Some(name), rest)
            }
            _ => (None, rest),
        };
        Ok((Self { search_type, search_value, field_name }, rest))
    }
}

/// What came of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
#[allow(missing_docs)] // As in the draft.
pub enum IdentifierQueryCode {
    Success = 0,
    NotFound = 1,
    Ambiguous = 2,
    Forbidden = 3,
    UnsupportedField = 4,
}

/// Where a field of a profile is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u8)]
#[allow(missing_docs)] // As in the draft.
pub enum FieldSource {
    OidcStdClaim = 7,
    VcardField = 8,
}

/// A field of a profile. This service gives none out.
#[derive(Debug, Clone, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[allow(missing_docs)] // As in the draft.
pub struct ProfileField {
    pub field_source: FieldSource,
    pub field_name: VLBytes,
    pub field_value: VLBytes,
}

/// A profile that was found. This service gives none out.
#[derive(Debug, Clone, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[allow(missing_docs)] // As in the draft.
pub struct UserProfile {
    pub stable_uri: IdentifierUri,
    pub fields: Vec<ProfileField>,
}

/// The reply to a search.
#[derive(Debug, Clone, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[allow(missing_docs)] // As in the draft.
pub struct IdentifierResponse {
    pub response_code: IdentifierQueryCode,
    pub uri: Vec<IdentifierUri>,
    pub found_profiles: Vec<UserProfile>,
}

fn unknown(what: &str) -> Error {
    Error::DecodingError(format!("an unknown {what}"))
}

/// The bytes of a message of ours, which is always short enough to be written.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    message.tls_serialize_detached().expect("this is a bug: a message longer than TLS allows")
}
