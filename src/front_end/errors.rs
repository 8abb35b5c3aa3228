//! Why a front-end does not start, and why a request is refused.

use std::path::PathBuf;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::counters::Outcome;
use super::keys::KeysError;
use super::placement::PlacementError;
use super::pool::PoolError;
use super::relays::RelaysError;
use crate::discovery::blind::BlindError;
use crate::discovery::directory::DirectoryError;
use crate::discovery::sealed::capsule::InnerResponse;
use crate::https::HttpsError;

/// What tells a device to fetch the OHTTP keys again (RFC 9458, section 5.3).
const OLD_KEY: &str = concat!(
    r#"{"type":"https://iana.org/assignments/http-problem-types#ohttp-key","#,
    r#""title":"the request is not sealed for a key that is held here: fetch /ohttp-keys again"}"#,
);
const PROBLEM: &str = "application/problem+json";
const JSON: &str = "application/json";

/// Why a front-end does not start, or does not take up a file that was read again.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum FrontEndError {
    #[error("the {what} {path} cannot be read: {error}")]
    Unreadable { what: &'static str, path: PathBuf, error: std::io::Error },
    #[error("the {what} {path} is refused: found {found}; expected {expected}")]
    File { what: &'static str, path: PathBuf, found: String, expected: &'static str },
    #[error("the directory is refused: {0}")]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Placement(#[from] PlacementError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Relays(#[from] RelaysError),
    #[error(transparent)]
    Blind(#[from] BlindError),
    #[error("the server for relays: {0}")]
    Server(HttpsError),
    #[error("the client for other front-ends: {0}")]
    Client(HttpsError),
    #[error("{error}")]
    Randomness { error: String },
    #[error("database {id}: {what}; {todo}")]
    Database { id: String, what: &'static str, todo: &'static str },
}

/// Why a request is not answered with what it asked for. The text goes to a relay, or to a device
/// inside the seal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the certificate of the sender names no relay that is known here")]
    UnknownRelay,
    #[error("this relay has used its bound; there is room again in {seconds} s")]
    RelayBound { seconds: u64 },
    #[error("the body has more than {max} bytes")]
    TooLong { max: usize },
    #[error("the body ended early")]
    Gone,
    #[error("{0}")]
    Malformed(String),
    #[error("the request is sealed for another key")]
    OldKey,
    #[error("the request cannot be opened with the key that it names")]
    Unopened,
    #[error("{why}")]
    Overloaded { why: &'static str, seconds: u32 },
    #[error("there is no database of this name here")]
    NoDatabase,
    #[error("there is nothing at this path")]
    NoPath,
    #[error(
        "this front-end does not resolve contacts that are named to it (it was started without \
         --resolve): look them up sealed"
    )]
    NotResolving,
    #[error("this path is not asked with this method")]
    WrongMethod,
    #[error("{0}")]
    Internal(&'static str),
}

#[derive(serde::Serialize)]
struct Body<'a> {
    error: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::UnknownRelay => Outcome::UnknownRelay,
            Self::RelayBound { .. } => Outcome::RelayBound,
            Self::TooLong { .. } => Outcome::TooLong,
            Self::Gone => Outcome::Gone,
            Self::Malformed(_) => Outcome::Malformed,
            Self::OldKey => Outcome::OldKey,
            Self::Unopened => Outcome::Unopened,
            Self::Overloaded { .. } => Outcome::Overloaded,
            Self::NoDatabase => Outcome::NoDatabase,
            Self::NoPath | Self::NotResolving => Outcome::NoPath,
            Self::WrongMethod => Outcome::WrongMethod,
            Self::Internal(_) => Outcome::Internal,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::UnknownRelay => StatusCode::FORBIDDEN,
            Self::RelayBound { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Gone | Self::Malformed(_) | Self::OldKey | Self::Unopened => {
                StatusCode::BAD_REQUEST
            }
            Self::Overloaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoDatabase | Self::NoPath | Self::NotResolving => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match *self {
            Self::RelayBound { seconds } => Some(seconds),
            Self::Overloaded { seconds, .. } => Some(seconds.into()),
            _ => None,
        }
    }

    fn json(&self) -> String {
        let detail = self.to_string();
        let body =
            Body { error: self.outcome().name(), detail: &detail, retry_after: self.retry_after() };
        serde_json::to_string(&body).expect("this is a bug: texts and a number that are no JSON")
    }

    /// The reply to whoever sent the request.
    pub(super) fn into_response(self) -> Response {
        // The identifier may be that of another key: a device that fetches the keys finds out.
        let (content_type, body) = match self {
            Self::OldKey | Self::Unopened => (PROBLEM, OLD_KEY.to_owned()),
            _ => (JSON, self.json()),
        };
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The reply to the device, inside the seal.
    pub(super) fn inside(&self) -> InnerResponse {
        InnerResponse {
            status: self.status().as_u16(),
            content_type: Some(JSON.to_owned()),
            retry_after: self.retry_after().map(|seconds| seconds.min(u32::MAX.into()) as u32),
            etag: None,
            body: self.json().into_bytes(),
        }
    }
}
