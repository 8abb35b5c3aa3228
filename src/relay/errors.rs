//! Why a relay does not start, and what a device is answered when its request is refused.

use std::fmt;
use std::io;
use std::path::PathBuf;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::bucket::Kind;
use super::counters::Outcome;
use crate::https::HttpsError;

/// The body of every sealed request (RFC 9458).
pub(super) const REQUEST_TYPE: &str = "message/ohttp-req";

/// Why a relay does not start, or goes on with what it had when it was told to read files again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum RelayError {
    #[error("cannot read the {what} file {}: {source}", .path.display())]
    Unreadable { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the keys that verify tokens, {}: {why}", .path.display())]
    Jwks { path: PathBuf, why: String },
    #[error("the authorization for introspection, {}: {why}", .path.display())]
    Authorization { path: PathBuf, why: &'static str },
    #[error(
        "the address of the {what} is {found:?}, expected one like https://host.example:8443, \
         without a query"
    )]
    Url { what: &'static str, found: String },
    #[error("the directory, {}: {why}", .path.display())]
    Directory { path: PathBuf, why: String },
    #[error("the connection to the {what} cannot be set up: {source}")]
    Client { what: &'static str, source: HttpsError },
    #[error("the server for devices cannot be set up: {0}")]
    Server(HttpsError),
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why the folder of quotas cannot be used. Nothing in it was removed or replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum StateError {
    #[error("cannot use {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the relay's key {} has {found} bytes, expected 32; quotas are found by it: bring it back, \
         or remove it together with quotas.redb, and every account begins with its full quota",
        .path.display()
    )]
    Key { path: PathBuf, found: usize },
    #[error(
        "the relay's key {} is missing, but quotas are there that are found by it: bring it back, \
         or remove quotas.redb too, and every account begins with its full quota", .path.display()
    )]
    KeyMissing { path: PathBuf },
    #[error(
        "{} is in use: another relay counts in it. Two relays need two folders", .path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "{} is no file of quotas that can be read: {why}. Nothing was removed from it; bring it \
         back from a backup, or move it away, and every account begins with its full quota",
        .path.display()
    )]
    Damaged { path: PathBuf, why: String },
    #[error(
        "{} holds {found}, expected quotas of a relay in version 1: another program's file, or a \
         newer sotto's; name another folder", .path.display()
    )]
    Foreign { path: PathBuf, found: String },
    #[error(
        "cannot write to {}: {why}; quotas are counted in memory until it can be written again",
        .path.display()
    )]
    Unwritable { path: PathBuf, why: String },
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Why a token names no account. No message quotes the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Names and messages say it.
pub enum AccountError {
    #[error("there is no token: send it as `Authorization: Bearer TOKEN`")]
    Missing,
    #[error("the token is not one text of at most {max} letters, digits and -._~+/=")]
    Text { max: usize },
    #[error("the token is no JWT: three parts of base64url with dots between them")]
    Form,
    #[error(
        "the header of the token is not accepted: expected alg, kid and, if at all, typ JWT or \
         at+jwt, each once, and no crit"
    )]
    Header,
    #[error("the algorithm of the token is not EdDSA, which is the only one accepted")]
    Algorithm,
    #[error("the key that the token names is not known here: ask for a new token")]
    UnknownKey,
    #[error("the signature of the token was not made by the key that it names")]
    Signature,
    #[error(
        "the claims of the token are not accepted: expected a text sub of 1 to {max} bytes, a \
         whole number exp and, if at all, a whole number nbf, each once"
    )]
    Claims { max: usize },
    #[error("the token has expired: ask for a new one; if it is new, compare the clocks")]
    Expired,
    #[error("the token is not valid yet: if it is new, compare the clocks")]
    NotYet,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token is not active")]
    Inactive,
}

/// To whom a relay forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    FrontEnd,
    KeyService,
}

impl Peer {
    pub(super) fn overloaded(self) -> &'static str {
        match self {
            Self::FrontEnd => "the front-end is overloaded",
            Self::KeyService => "the key service is overloaded",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FrontEnd => "front-end",
            Self::KeyService => "key service",
        })
    }
}

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Names and messages say it.
pub(super) enum Refusal {
    #[error("{0}")]
    Account(#[from] AccountError),
    #[error("the body has more than {max} bytes, which no such request has")]
    TooLong { max: usize },
    #[error(
        "the body has fewer than {min} bytes, which no look-up has: evaluations go to /evaluate"
    )]
    TooShort { min: usize },
    #[error("the content type is not {REQUEST_TYPE}")]
    ContentType,
    #[error("the account has used its quota of this kind: come again in {seconds} seconds")]
    Quota { kind: Kind, seconds: u64 },
    #[error("the {peer} takes no more of this relay now: come again in {seconds} seconds")]
    RelayBound { peer: Peer, seconds: u64 },
    #[error("the {peer} {why}")]
    Peer { peer: Peer, why: &'static str },
    #[error(
        "this relay knows no key service of that provider: expected /keys/ and the domain of a \
         provider that the directory has"
    )]
    NoKeyService,
    #[error("{why}: come again in {seconds} seconds")]
    Overloaded { why: &'static str, seconds: u64 },
    #[error("the {0} has not answered in time")]
    Late(Peer),
    /// Nobody reads the reply.
    #[error("the body ended early")]
    Gone,
}

impl Refusal {
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Account(_) => Outcome::Account,
            Self::TooLong { .. } => Outcome::TooLong,
            Self::TooShort { .. } => Outcome::TooShort,
            Self::ContentType => Outcome::ContentType,
            Self::Quota { .. } => Outcome::Quota,
            Self::RelayBound { .. } => Outcome::RelayBound,
            Self::Peer { peer: Peer::FrontEnd, .. } => Outcome::FrontEnd,
            Self::Peer { peer: Peer::KeyService, .. } => Outcome::KeyService,
            Self::NoKeyService => Outcome::NoKeyService,
            Self::Overloaded { .. } => Outcome::Overloaded,
            Self::Late(_) => Outcome::Late,
            Self::Gone => Outcome::Gone,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Account(_) => StatusCode::UNAUTHORIZED,
            Self::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooShort { .. } => StatusCode::BAD_REQUEST,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Quota { .. } | Self::RelayBound { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Peer { .. } => StatusCode::BAD_GATEWAY,
            Self::NoKeyService => StatusCode::NOT_FOUND,
            Self::Overloaded { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Gone => StatusCode::BAD_REQUEST,
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match *self {
            Self::Quota { seconds, .. }
            | Self::RelayBound { seconds, .. }
            | Self::Overloaded { seconds, .. } => Some(seconds),
            _ => None,
        }
    }

    /// The reply, whose body is JSON.
    pub(super) fn into_response(self) -> Response {
        #[derive(serde::Serialize)]
        struct Body {
            error: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            kind: Option<&'static str>,
            detail: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after: Option<u64>,
        }
        let kind = match self {
            Self::Quota { kind, .. } => Some(kind.name()),
            _ => None,
        };
        let retry_after = self.retry_after();
        let error = self.outcome().name();
        let body = Body { error, kind, detail: self.to_string(), retry_after };
        let body = serde_json::to_string(&body).expect("this is a bug: texts and a number");
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Self::Account(error) = self {
            let scheme = match error {
                AccountError::Missing => "Bearer",
                _ => "Bearer error=\"invalid_token\"",
            };
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        response
    }
}
