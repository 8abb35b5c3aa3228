//! What a user of this provider does here: settings, key packages, decisions about consent.

use std::sync::Arc;

use crate::discovery::jws::from_base64url;
use crate::discovery::statement::{Ssi, Statement};
use crate::registrar::Problem;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use tls_codec::DeserializeBytes as _;

use crate::discovery::keys::clients::{ClientList, is_client_name};
use crate::discovery::keys::mimi::{ConsentEntry, ConsentOperation};
use crate::discovery::keys::packages::{Package, read_many};
use crate::limits::keys::{
    KEY_MAPPINGS_MAX, KEY_REQUEST_BYTES_MAX, KEY_UPLOAD_BYTES_MAX, KEY_USER_BYTES_MAX,
};
use crate::registrar::keys::counters::Asked;
use crate::registrar::keys::shared::{Service, malformed, read, refusal, uri};
use crate::registrar::keys::store::{self, Consent, Identified, Policy, Settings, Stock};
use crate::relay::object;

/// PUT `/user`: a user's settings.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSettings {
    /// The user's public key, base64url: that of the mapping.
    pub uk: String,
    /// The list of clients, signed by it.
    pub clients: String,
    /// Who may have key packages.
    pub policy: Policy,
    /// Mappings by which the user wants to be found: for records without a handle.
    #[serde(default)]
    pub mappings: Vec<String>,
}

/// GET `/user`: what there is.
#[derive(Serialize, Deserialize)]
pub struct UserShown {
    /// Clients of the list.
    pub clients: Vec<ShownClient>,
}

/// A client, and how many of its packages can be given out.
#[derive(Serialize, Deserialize)]
#[allow(missing_docs)] // Names say it.
pub struct ShownClient {
    pub id: String,
    pub available: u64,
}

/// GET `/consents`.
#[derive(Serialize, Deserialize)]
pub struct ConsentsShown {
    /// Questions first, then decisions.
    pub consents: Vec<Consent>,
}

fn answered(
    service: &Service,
    asked: Asked,
    answer: Result<(StatusCode, Response), Problem>,
) -> Response {
    let response = match answer {
        Ok((status, mut response)) => {
            *response.status_mut() = status;
            response
        }
        Err(problem) => refusal(problem),
    };
    service.counters.request(asked, response.status().as_u16());
    response
}

fn done(status: StatusCode) -> (StatusCode, Response) {
    (status, Body::empty().into_response())
}

pub(crate) async fn put_user(State(service): State<Arc<Service>>, request: Request) -> Response {
    let work = async {
        let _permit = service.permit()?;
        let ssi = service.user(request.headers())?;
        let body = read(request.into_body(), KEY_USER_BYTES_MAX).await?;
        let settings = service.settings(&ssi, &body)?;
        store::set_user(&service.store, &settings, service.now()).await?;
        Ok(done(StatusCode::NO_CONTENT))
    };
    answered(&service, Asked::User, work.await)
}

impl Service {
    fn settings(&self, ssi: &Ssi, body: &[u8]) -> Result<Settings, Problem> {
        let refuse = |found: String, expected: &str| Problem::new(422, "settings", found, expected);
        let expected = "one JSON object of uk, clients, policy and, if at all, mappings";
        let sent: Option<UserSettings> = object(body);
        let sent = sent.ok_or_else(|| refuse("another form".to_owned(), expected))?;
        let uk = from_base64url(&sent.uk).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let key = uk.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        let key = key.filter(|key| !key.is_weak());
        let key = key.ok_or_else(|| refuse("a uk that is no key".to_owned(), "Ed25519"))?;
        let now = self.now();
        let list = ClientList::open(&sent.clients, &key, now).map_err(|error| {
            refuse(error.to_string(), "a list that uk has signed and that holds now")
        })?;
        if list.sub != *ssi {
            let found = "a list of another user's clients".to_owned();
            return Err(refuse(found, "the SSI of the account in sub"));
        }
        if sent.mappings.len() > KEY_MAPPINGS_MAX {
            let found = format!("{} mappings", sent.mappings.len());
            return Err(refuse(found, "at most 4"));
        }
        let identify = |line: &String| self.identify(line, ssi, key.as_bytes(), now);
        let identifiers = sent.mappings.iter().map(identify).collect::<Result<_, _>>()?;
        Ok(Settings { uk: sent.uk, text: sent.clients, list, policy: sent.policy, identifiers })
    }

    /// The identifier of a mapping for this user and key, by an issuer of the directory.
    fn identify(
        &self,
        line: &str,
        ssi: &Ssi,
        uk: &[u8; 32],
        now: u64,
    ) -> Result<Identified, Problem> {
        let directory = self.directory.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let expected = "mappings of this SSI and uk, in force and signed by an issuer of the \
                        directory";
        let refuse = |found: String| Problem::new(422, "mapping", found, expected);
        match Statement::read(line, &directory, now) {
            Ok(Statement::Mapping(mapping))
                if mapping.ssi == *ssi && mapping.user.is_some_and(|user| user.key == *uk) =>
            {
                Ok(Identified {
                    mac: self.mac_of(&mapping.sub),
                    issued: mapping.iat,
                    expires: mapping.exp,
                })
            }
            Ok(_) => Err(refuse("a statement about something else".to_owned())),
            Err(refusal) => Err(refuse(refusal.to_string())),
        }
    }
}

pub(crate) async fn get_user(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let work = async {
        let _permit = service.permit()?;
        let ssi = service.user(&headers)?;
        let stocks = store::stocks(&service.store, &ssi, service.now()).await?;
        let client = |(id, available)| ShownClient { id, available };
        let shown = UserShown { clients: stocks.into_iter().map(client).collect() };
        Ok((StatusCode::OK, Json(shown).into_response()))
    };
    answered(&service, Asked::User, work.await)
}

pub(crate) async fn delete_user(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Response {
    let work = async {
        let _permit = service.permit()?;
        let ssi = service.user(&headers)?;
        store::remove_user(&service.store, &ssi).await?;
        Ok(done(StatusCode::NO_CONTENT))
    };
    answered(&service, Asked::User, work.await)
}

pub(crate) async fn put_packages(
    State(service): State<Arc<Service>>,
    Path(client): Path<String>,
    request: Request,
) -> Response {
    let work = async {
        let _permit = service.permit()?;
        let ssi = service.user(request.headers())?;
        if !is_client_name(&client) {
            let found = "a client's name in another form";
            return Err(Problem::new(404, "unknown_client", found, "one of the user's list"));
        }
        let body = read(request.into_body(), KEY_UPLOAD_BYTES_MAX).await?;
        let now = service.now();
        // A hundred packages are a few hundred signatures.
        let validated = tokio::task::spawn_blocking(move || {
            let packages = read_many(&body)?;
            let validated = packages.into_iter().map(|package| Package::validate(package, now));
            validated.collect::<Result<Vec<_>, _>>()
        });
        let failed = "a failure of this service";
        let packages = validated.await;
        let packages = packages
            .map_err(|_| Problem::new(500, "internal", failed, "its operator to read the log"))?
            .map_err(store::refused)?;
        let stock: Stock =
            store::put_packages(&service.store, (&ssi, &client), &packages, now).await?;
        service.counters.stored.add(stock.available);
        Ok((StatusCode::OK, Json(stock).into_response()))
    };
    answered(&service, Asked::Packages, work.await)
}

/// The user's own decision. A decision of another provider's user is of no use to a key service.
pub(crate) async fn update_consent(
    State(service): State<Arc<Service>>,
    request: Request,
) -> Response {
    let work = async {
        let _permit = service.permit()?;
        let ssi = service.user(request.headers())?;
        let body = read(request.into_body(), KEY_REQUEST_BYTES_MAX).await?;
        let entry = ConsentEntry::tls_deserialize_exact_bytes(&body);
        let entry = entry.map_err(|_| malformed("ConsentEntry"))?;
        let refuse = |found: &str, expected: &str| {
            Err(Problem::new(422, "consent", found.to_owned(), expected))
        };
        if entry.target.as_str() != Some(ssi.as_str()) {
            return refuse("a decision for another user", "the account's own SSI as targetUri");
        }
        if !entry.key_packages.is_empty() {
            return refuse("key packages in a grant", "none: the requester fetches them");
        }
        let is_granted = match entry.operation {
            ConsentOperation::Grant => true,
            ConsentOperation::Revoke => false,
            _ => return refuse("another operation", "grant or revoke"),
        };
        let room = entry.room.as_ref().map(|room| uri(room.as_str())).transpose()?;
        let who = (uri(entry.requester.as_str())?, room.unwrap_or(""));
        store::decide_consent(&service.store, &ssi, who, is_granted, service.now()).await?;
        Ok(done(StatusCode::CREATED))
    };
    answered(&service, Asked::Decision, work.await)
}

pub(crate) async fn get_consents(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Response {
    let work = async {
        let _permit = service.permit()?;
        let ssi = service.user(&headers)?;
        let consents = store::consents_of(&service.store, &ssi).await?;
        Ok((StatusCode::OK, Json(ConsentsShown { consents }).into_response()))
    };
    answered(&service, Asked::Decisions, work.await)
}
