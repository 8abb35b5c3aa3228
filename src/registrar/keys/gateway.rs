//! What is asked through a relay: opened, answered, and sealed again (RFC 9458).
//!
//! The relay is that of the asking user's provider. It is known by its certificate and speaks for
//! the users of its domains; which of them asks, and whom for, is inside the seal. What is wrong
//! outside the seal is told to the relay, what is wrong inside it to the device alone.
//!
//! Nobody learns here who has an account: an unknown user, one who consents to nobody and one who
//! does not consent to this requester are answered with the same bytes after the same queries.

use std::sync::{Arc, PoisonError};

use crate::discovery::identifier::{Identifier, percent_decoded};
use crate::discovery::sealed::SealedError;
use crate::discovery::sealed::capsule::{
    InnerRequest, InnerResponse, REPLY_OVERHEAD_BYTES, Sealer,
};
use crate::discovery::statement::Ssi;
use crate::https::PeerInfo;
use crate::registrar::Problem;
use crate::registrar::problem::PROBLEM_TYPE;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use openmls::prelude::KeyPackageIn;
use tls_codec::DeserializeBytes as _;

use crate::discovery::keys::TLS_TYPE;
use crate::discovery::keys::clients::client_uri;
use crate::discovery::keys::mimi::{
    ClientKeyMaterial, ClientListResponse, ConsentEntry, ConsentOperation, IdentifierQueryCode,
    IdentifierRequest, IdentifierResponse, IdentifierUri, KeyMaterialRequest, KeyMaterialResponse,
    KeyMaterialUserCode, Protocol, SearchIdentifierType, encode,
};
use crate::discovery::keys::packages::{CRYPTO, scheme_of};
use crate::limits::RELAY_EVALUATE_REPLY_BYTES_MAX;
use crate::limits::keys::{
    KEY_REPLY_FIELDS_BYTES, KEY_REPLY_STEP_BYTES, KEY_REQUEST_BYTES_MAX, KEY_RETRY_SECONDS,
};
use crate::registrar::keys::counters::Asked as Kind;
use crate::registrar::keys::shared::{Service, malformed, read, refusal, uri};
use crate::registrar::keys::store::{self, Asked, Claimed, Given, Listed};

const SEALED_REQUEST: &str = "message/ohttp-req";
const SEALED_REPLY: &str = "message/ohttp-res";
/// What tells that a key is not held (RFC 9458, section 5.3).
const OLD_KEY: &str = "{\"type\":\"https://iana.org/assignments/http-problem-types#ohttp-key\",\
                       \"title\":\"this key is not held: fetch the keys\"}";

/// To how many bytes a reply is padded at most: what a relay passes on.
const PADDED_BYTES_MAX: usize = RELAY_EVALUATE_REPLY_BYTES_MAX - REPLY_OVERHEAD_BYTES;

/// Who passes a request on.
struct Relay {
    name: String,
    domains: Vec<String>,
}

/// Why a capsule is not answered with a sealed reply.
enum Unsealed {
    OldKey,
    Refused(Problem),
}

impl From<Problem> for Unsealed {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

/// What a request inside a seal is answered.
struct Answer {
    status: u16,
    body: Vec<u8>,
}

pub(crate) async fn answer(State(service): State<Arc<Service>>, request: Request) -> Response {
    let response = match service.sealed(request).await {
        Ok(sealed) => {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static(SEALED_REPLY)),
                (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (headers, sealed).into_response()
        }
        Err(Unsealed::OldKey) => {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_TYPE))];
            (StatusCode::BAD_REQUEST, headers, OLD_KEY).into_response()
        }
        Err(Unsealed::Refused(problem)) => refusal(problem),
    };
    service.counters.request(Kind::Sealed, response.status().as_u16());
    response
}

impl Service {
    async fn sealed(self: &Arc<Self>, request: Request) -> Result<Vec<u8>, Unsealed> {
        let (head, body) = request.into_parts();
        let relay = self.relay(head.extensions.get::<PeerInfo>())?;
        check_content_type(&head.headers)?;
        let _permit = self.permit()?;
        let capsule = read(body, KEY_REQUEST_BYTES_MAX).await?;
        let (request, sealer) = self.open(capsule).await?;
        let response = match request {
            Ok(request) => {
                let kind = Kind::inside(&request.path);
                let answered = self.inside(&relay, kind, &request).await;
                let response = response(answered);
                self.counters.request(kind, response.status);
                response
            }
            Err(error) => {
                let expected = "binary HTTP as RFC 9292 has it";
                response(Err(Problem::new(400, "malformed", error.to_string(), expected)))
            }
        };
        let bytes = response.body.len() + KEY_REPLY_FIELDS_BYTES;
        let padded = bytes.next_multiple_of(KEY_REPLY_STEP_BYTES).min(PADDED_BYTES_MAX);
        Ok(sealer.seal_to(&response, padded).map_err(|_| failed())?)
    }

    /// The relay that has one of these names in its certificate.
    fn relay(&self, peer: Option<&PeerInfo>) -> Result<Relay, Problem> {
        let names = peer.map(|peer| peer.names.as_slice()).unwrap_or_default();
        let relays = self.relays.read().unwrap_or_else(PoisonError::into_inner);
        let found = names.iter().find_map(|name| {
            let domains = relays.get(name)?.clone();
            Some(Relay { name: name.clone(), domains })
        });
        let expected = "the certificate of a relay in the configuration";
        found.ok_or_else(|| Problem::new(403, "unknown_relay", "another or none", expected))
    }

    /// Opens a capsule. If its key is not known, another process may just have made it.
    async fn open(
        self: &Arc<Self>,
        capsule: axum::body::Bytes,
    ) -> Result<(Result<InnerRequest, SealedError>, Sealer), Unsealed> {
        let service = self.clone();
        let opened = tokio::task::spawn_blocking(move || {
            match service.ring.ring().gateway.decapsulate(&capsule) {
                Err(SealedError::UnknownKey) => match service.ring.look_again(service.now()) {
                    Some(ring) => ring.gateway.decapsulate(&capsule),
                    None => Err(SealedError::UnknownKey),
                },
                opened => opened,
            }
        });
        opened.await.map_err(|_| failed())?.map_err(|error| match error {
            SealedError::UnknownKey => Unsealed::OldKey,
            error => {
                let expected = "a request that is sealed to a key of this service";
                Problem::new(400, "unopened", error.to_string(), expected).into()
            }
        })
    }

    async fn inside(
        &self,
        relay: &Relay,
        kind: Kind,
        request: &InnerRequest,
    ) -> Result<Answer, Problem> {
        let segment = request.path.rsplit('/').next().unwrap_or_default();
        let segment = percent_decoded(segment).ok_or_else(|| malformed("path"))?;
        if kind == Kind::Other {
            let expected = "keyMaterial, clientList, identifierQuery or requestConsent";
            return Err(Problem::new(404, "no_path", "another path", expected));
        }
        if request.method != "POST" {
            return Err(Problem::new(405, "method", "another method", "POST"));
        }
        match kind {
            Kind::KeyMaterial => self.key_material(relay, &segment, &request.body).await,
            Kind::ClientList => self.client_list(relay, &segment, &request.body).await,
            Kind::Search => self.search(relay, &segment, &request.body).await,
            _ => self.question(relay, &segment, &request.body).await,
        }
    }

    async fn key_material(
        &self,
        relay: &Relay,
        segment: &str,
        body: &[u8],
    ) -> Result<Answer, Problem> {
        let protocol = body.first().copied().unwrap_or(Protocol::Mls10 as u8);
        let (code, clients, target) = if protocol == Protocol::Mls10 as u8 {
            let asked = self.read_request(relay, segment, body)?;
            match store::claim(&self.store, &asked, self.now()).await? {
                Claimed::Limited { seconds } => return Err(limited(seconds)),
                Claimed::Answered { code, clients } => {
                    self.count_given(&clients);
                    (code, material(&asked.target, clients)?, asked.target.as_str().to_owned())
                }
            }
        } else {
            let target = uri(Some(segment))?.to_owned();
            (KeyMaterialUserCode::IncompatibleProtocol, Vec::new(), target)
        };
        self.counters.code(code);
        let response = KeyMaterialResponse {
            protocol: Protocol::Mls10,
            user_status: code,
            user_uri: IdentifierUri::new(&target),
            clients,
        };
        Ok(Answer { status: 200, body: encode(&response) })
    }

    fn count_given(&self, clients: &[Given]) {
        for client in clients {
            match client {
                Given::Package { last_resort: false, .. } => self.counters.packages.add(1),
                Given::Package { .. } => self.counters.last_resorts.add(1),
                Given::Exhausted { .. } => self.counters.exhausted.add(1),
                Given::Incompatible { .. } => {}
            }
        }
    }

    async fn client_list(
        &self,
        relay: &Relay,
        segment: &str,
        body: &[u8],
    ) -> Result<Answer, Problem> {
        let asked = self.read_request(relay, segment, body)?;
        let (code, uk, list) = match store::list(&self.store, &asked, self.now()).await? {
            Listed::Limited { seconds } => return Err(limited(seconds)),
            Listed::NoConsent => (KeyMaterialUserCode::NoConsent, Vec::new(), String::new()),
            Listed::Found { uk, list } => {
                let uk = crate::discovery::jws::from_base64url(&uk).ok_or_else(failed)?;
                (KeyMaterialUserCode::Success, uk, list)
            }
        };
        let response = ClientListResponse {
            user_status: code,
            user_uri: IdentifierUri::new(asked.target.as_str()),
            user_key: uk.into(),
            client_list: list.into_bytes().into(),
        };
        Ok(Answer { status: 200, body: encode(&response) })
    }

    /// A request whose signature is that of the requester, who is a user of the relay's.
    fn read_request(&self, relay: &Relay, segment: &str, body: &[u8]) -> Result<Asked, Problem> {
        let request = KeyMaterialRequest::tls_deserialize_exact_bytes(body);
        let request = request.map_err(|_| malformed("KeyMaterialRequest"))?;
        let target = self.user_here(request.target_user.as_str())?;
        if target.as_str() != segment {
            let expected = "the same user in the path and in targetUser";
            return Err(Problem::new(400, "malformed", "two users", expected));
        }
        let room = request.room_id.as_str().filter(|room| !room.is_empty());
        let room = room.map(|room| uri(Some(room))).transpose()?.unwrap_or_default().to_owned();
        let requester = requester(relay, request.requesting_user.as_str())?;
        let scheme = scheme_of(&request.acceptable_ciphersuites).ok_or_else(|| {
            let expected = "a suite of MLS 1.0 in acceptableCiphersuites";
            Problem::new(400, "suites", "none that is known", expected)
        })?;
        let signed = request.authenticate(&*CRYPTO, scheme).map_err(|_| {
            let expected = "a signature by requesterSignatureKey, in the scheme of the first known \
                            suite, and a basic credential of requestingUser";
            Problem::new(403, "requester", "another signature or credential", expected)
        })?;
        Ok(Asked {
            counted_as: self.mac("requester", requester.as_str()),
            requester: requester.as_str().to_owned(),
            target,
            room,
            suites: signed.0.acceptable_ciphersuites,
            required: signed.0.required_capabilities,
            an_hour: self.claims_an_hour,
        })
    }

    /// An SSI of this provider.
    fn user_here(&self, text: Option<&str>) -> Result<Ssi, Problem> {
        let ssi = Ssi::parse(uri(text)?).map_err(|refusal| {
            Problem::new(400, "malformed", refusal.found, "mimi://domain/u/handle")
        })?;
        match ssi.domain() == self.domain {
            true => Ok(ssi),
            false => Err(elsewhere()),
        }
    }

    async fn search(&self, relay: &Relay, domain: &str, body: &[u8]) -> Result<Answer, Problem> {
        if domain != self.domain {
            return Err(elsewhere());
        }
        self.count_query(&relay.name)?;
        let request = IdentifierRequest::tls_deserialize_exact_bytes(body);
        let request = request.map_err(|_| malformed("IdentifierRequest"))?;
        let value = uri(std::str::from_utf8(request.search_value.as_slice()).ok())?;
        let (code, found) = match request.search_type {
            SearchIdentifierType::Handle => found(self.by_handle(value).await?),
            SearchIdentifierType::Email | SearchIdentifierType::Phone => {
                found(self.by_identifier(request.search_type, value).await?)
            }
            _ => (IdentifierQueryCode::UnsupportedField, Vec::new()),
        };
        let response =
            IdentifierResponse { response_code: code, uri: found, found_profiles: Vec::new() };
        Ok(Answer { status: 200, body: encode(&response) })
    }

    async fn by_handle(&self, handle: &str) -> Result<Option<String>, Problem> {
        let Ok(ssi) = Ssi::new(&self.domain, handle) else { return Ok(None) };
        let is_there = store::has(&self.store, &ssi).await?;
        Ok(is_there.then(|| ssi.as_str().to_owned()))
    }

    /// Only the canonical form is looked for: exact matches alone.
    async fn by_identifier(
        &self,
        kind: SearchIdentifierType,
        value: &str,
    ) -> Result<Option<String>, Problem> {
        let Ok(sii) = Identifier::parse(value, None) else { return Ok(None) };
        let is_phone = kind == SearchIdentifierType::Phone;
        if sii.as_str() != value || sii.digits().is_some() != is_phone {
            return Ok(None);
        }
        Ok(store::find(&self.store, &self.mac_of(&sii), self.now()).await?)
    }

    /// 201 whoever is asked, and whether or not there is such a user.
    async fn question(&self, relay: &Relay, segment: &str, body: &[u8]) -> Result<Answer, Problem> {
        let entry = ConsentEntry::tls_deserialize_exact_bytes(body);
        let entry = entry.map_err(|_| malformed("ConsentEntry"))?;
        let target = self.user_here(entry.target.as_str())?;
        if segment != self.domain && segment != target.as_str() {
            return Err(elsewhere());
        }
        self.count_query(&relay.name)?;
        let requester = requester(relay, entry.requester.as_str())?;
        let room = entry.room.as_ref().map(|room| uri(room.as_str())).transpose()?;
        let who = (requester.as_str(), room.unwrap_or(""));
        match entry.operation {
            ConsentOperation::Request => {
                store::ask_consent(&self.store, &target, who, self.now()).await?;
            }
            ConsentOperation::Cancel => store::cancel_consent(&self.store, &target, who).await?,
            ConsentOperation::Grant | ConsentOperation::Revoke => {
                let expected = "request or cancel; a user decides at /updateConsent, with a token";
                return Err(Problem::new(403, "consent", "another operation", expected));
            }
        }
        Ok(Answer { status: 201, body: Vec::new() })
    }
}

impl Kind {
    fn inside(path: &str) -> Self {
        let mut parts = path.split('/');
        let (Some(""), Some(what), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Self::Other;
        };
        match what {
            "keyMaterial" => Self::KeyMaterial,
            "clientList" => Self::ClientList,
            "identifierQuery" => Self::Search,
            "requestConsent" => Self::Question,
            _ => Self::Other,
        }
    }
}

fn found(ssi: Option<String>) -> (IdentifierQueryCode, Vec<IdentifierUri>) {
    match ssi {
        Some(ssi) => (IdentifierQueryCode::Success, vec![IdentifierUri::new(&ssi)]),
        None => (IdentifierQueryCode::NotFound, Vec::new()),
    }
}

/// A requester for whom the relay speaks.
fn requester(relay: &Relay, text: Option<&str>) -> Result<Ssi, Problem> {
    let ssi = Ssi::parse(uri(text)?).map_err(|refusal| {
        Problem::new(400, "malformed", refusal.found, "mimi://domain/u/handle")
    })?;
    let found = "a requester of a provider that this relay does not speak for";
    match relay.domains.iter().any(|domain| domain == ssi.domain()) {
        true => Ok(ssi),
        false => Err(Problem::new(403, "requester", found, "a user of the relay's provider")),
    }
}

fn material(target: &Ssi, given: Vec<Given>) -> Result<Vec<ClientKeyMaterial>, Problem> {
    let uri = |client: &str| IdentifierUri::new(&client_uri(target, client));
    let one = |given| match given {
        Given::Package { client, bytes, .. } => {
            let key_package = KeyPackageIn::tls_deserialize_exact_bytes(&bytes);
            let key_package = Box::new(key_package.map_err(|_| failed())?);
            Ok(ClientKeyMaterial::Success { client: uri(&client), key_package })
        }
        Given::Exhausted { client } => {
            Ok(ClientKeyMaterial::KeyMaterialExhausted { client: uri(&client) })
        }
        Given::Incompatible { client } => {
            let client = uri(&client);
            Ok(ClientKeyMaterial::NothingCompatible { client, capabilities: None })
        }
    };
    given.into_iter().map(one).collect()
}

fn elsewhere() -> Problem {
    Problem::new(404, "elsewhere", "a user of another provider", "one of this provider")
}

fn limited(seconds: u64) -> Problem {
    let found = "as many requests as a requester may make in an hour";
    Problem::new(429, "requester_limit", found, "the same request, later").retry_after(seconds)
}

fn failed() -> Problem {
    Problem::new(500, "internal", "a failure of this service", "its operator to read the log")
}

fn response(answered: Result<Answer, Problem>) -> InnerResponse {
    match answered {
        Ok(Answer { status, body }) => InnerResponse {
            status,
            content_type: Some(TLS_TYPE.to_owned()),
            retry_after: None,
            etag: None,
            body,
        },
        Err(problem) => {
            let after = problem.retry_after;
            let is_full = problem.status == 503;
            let after = after.or_else(|| is_full.then_some(KEY_RETRY_SECONDS));
            InnerResponse {
                status: problem.status,
                content_type: Some(PROBLEM_TYPE.to_owned()),
                retry_after: after.and_then(|seconds| u32::try_from(seconds).ok()),
                etag: None,
                body: problem.to_json(),
            }
        }
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let is_right = |value: &HeaderValue| {
        value.to_str().is_ok_and(|value| {
            value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(SEALED_REQUEST)
        })
    };
    match (values.next(), values.next()) {
        (Some(value), None) if is_right(value) => Ok(()),
        _ => Err(Problem::new(415, "content_type", "another content type", SEALED_REQUEST)),
    }
}
