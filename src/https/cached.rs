//! Public files, which caches keep: the tag of their bytes, and the reply that gives one.

#[cfg(feature = "front-end")]
use axum::body::Bytes;
#[cfg(feature = "front-end")]
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
#[cfg(feature = "front-end")]
use axum::http::{HeaderMap, HeaderValue, StatusCode};
#[cfg(feature = "front-end")]
use axum::response::{IntoResponse as _, Response};

/// A minute: as long as a relay keeps a file.
#[cfg(feature = "front-end")]
const CACHED: &str = "public, max-age=60";

/// The tag of a file, in quotes: the first half of its BLAKE3, so that everybody gets the same.
pub fn etag(body: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(body).to_hex()[..32])
}

/// A file with its tag; without its bytes for whoever says in `asked` that they have it already.
#[cfg(feature = "front-end")]
pub fn public_file(
    body: Bytes,
    tag: &str,
    content_type: HeaderValue,
    asked: &HeaderMap,
) -> Response {
    let is_held = asked.get_all(IF_NONE_MATCH).iter().any(|value| {
        let tags = value.to_str().unwrap_or_default().split(',').map(str::trim);
        tags.map(|held| held.strip_prefix("W/").unwrap_or(held))
            .any(|held| held == tag || held == "*")
    });
    let mut response = match is_held {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => body.into_response(),
    };
    let headers = response.headers_mut();
    if !is_held {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHED));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(ETAG, tag);
    }
    response
}
