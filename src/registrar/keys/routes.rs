//! What may be asked.
//!
//! Users of this provider speak to the service themselves (`users.rs`), with a token of the
//! provider's accounts. Everybody else asks through a relay, sealed (`gateway.rs`).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};

use crate::registrar::keys::shared::Service;
use crate::registrar::keys::{gateway, users};

pub(crate) fn router(service: &Arc<Service>) -> Router {
    Router::new()
        .route("/gateway", post(gateway::answer))
        .route("/ohttp-keys", get(list_of_keys))
        .route("/.well-known/mimi-protocol-directory", get(protocol_directory))
        .route("/user", put(users::put_user).get(users::get_user).delete(users::delete_user))
        .route("/clients/{id}/keyPackages", put(users::put_packages))
        .route("/updateConsent/{domain}", post(users::update_consent))
        .route("/consents", get(users::get_consents))
        .with_state(service.clone())
}

async fn list_of_keys(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let list = service.ring.ring().list.clone();
    let tag = crate::https::etag(list.as_bytes());
    if headers.get("if-none-match").is_some_and(|value| value.as_bytes() == tag.as_bytes()) {
        return (axum::http::StatusCode::NOT_MODIFIED, [("etag", tag)]).into_response();
    }
    ([("etag", tag), ("content-type", "application/jwt".to_owned())], list).into_response()
}

/// What the draft has at this place. The paths are those inside the seal, but for `updateConsent`.
async fn protocol_directory(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let host = headers.get("host").and_then(|host| host.to_str().ok());
    let host = host.unwrap_or(&service.domain);
    let at = |path: &str| serde_json::Value::from(format!("https://{host}{path}"));
    let body = serde_json::json!({
        "keyMaterial": at("/keyMaterial/{targetUser}"),
        "requestConsent": at("/requestConsent/{targetDomain}"),
        "updateConsent": at("/updateConsent/{requesterDomain}"),
        "identifierQuery": at("/identifierQuery/{domain}"),
    });
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (json, body.to_string()).into_response()
}
