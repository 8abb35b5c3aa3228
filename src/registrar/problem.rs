//! Errors as clients of the services see them: problem details (RFC 9457) with a `code`, what was
//! found, what was expected, and when to try again.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

/// The content type of a problem.
pub const PROBLEM_TYPE: &str = "application/problem+json";

/// Why a request was not done. It never contains a number, an address, a handle or a code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: found {found}; expected {expected}")]
pub struct Problem {
    /// Status of the reply.
    pub status: u16,
    /// Its name, of a closed set: snake case.
    pub code: &'static str,
    /// What was found.
    pub found: String,
    /// What was expected, and what to do.
    pub expected: String,
    /// Seconds after which the same request may succeed.
    pub retry_after: Option<u64>,
    /// Further members, such as `tries_left`.
    pub members: Map<String, Value>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: String,
    status: u16,
    code: &'a str,
    detail: String,
    found: &'a str,
    expected: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

impl Problem {
    /// A problem without further members.
    pub fn new(
        status: u16,
        code: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        let (found, expected) = (found.into(), expected.into());
        Self { status, code, found, expected, retry_after: None, members: Map::new() }
    }

    /// The same, to be tried again after so many seconds.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The same with a further member.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The bytes of the reply's body.
    pub fn to_json(&self) -> Vec<u8> {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = Body {
            r#type: format!("tag:sotto,2026:{}", self.code),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: self.status,
            code: self.code,
            detail: format!("found {}; expected {}", self.found, self.expected),
            found: &self.found,
            expected: &self.expected,
            retry_after: self.retry_after,
            members: &self.members,
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.to_json()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
