//! Reading a request body of bounded length.

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;

/// Why there is no request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Names and messages say it.
pub enum BodyError {
    #[error("the body has more than {max} bytes")]
    TooLong { max: usize },
    /// The peer left, or was too slow. Nobody reads a reply to it.
    #[error("the body ended early")]
    Broken,
}

/// Reads a body of at most `max` bytes. One that announces more is refused before any of it is
/// read, and of one that does not announce its length no more than `max` bytes are kept.
pub async fn body(body: Body, max: usize) -> Result<Bytes, BodyError> {
    let too_long = BodyError::TooLong { max };
    if body.size_hint().lower() > max as u64 {
        return Err(too_long);
    }
    match Limited::new(body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_long),
        Err(_) => Err(BodyError::Broken),
    }
}
