//! What the endpoints reply with, whichever of them replies.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

pub(super) const TEXT: &str = "text/plain; charset=utf-8";

pub(super) fn reply(status: StatusCode, content: &'static str, body: String) -> Response {
    (status, [(CONTENT_TYPE, content)], body).into_response()
}

pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
