//! The error of a field that is wrong.

use std::fmt;

/// A field that is not what docs/wire.md says: `detail` of a MALFORMED reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}, expected {expected}")]
pub struct Malformed {
    /// The field, by its name in docs/wire.md.
    pub field: &'static str,
    /// What was there, never a query's content.
    pub found: String,
    /// What would have been right.
    pub expected: String,
}

impl Malformed {
    /// A field with something else in it than expected.
    pub fn new(field: &'static str, found: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self { field, found: found.to_string(), expected: expected.into() }
    }

    /// A field of the wrong length.
    pub fn bytes(field: &'static str, found: usize, expected: usize) -> Self {
        Self::new(field, format_args!("{found} bytes"), format!("{expected} bytes"))
    }

    pub(super) fn unreadable(field: &'static str, error: &prost::DecodeError) -> Self {
        Self::new(field, format_args!("unreadable ({error})"), "a protobuf message of docs/wire.md")
    }
}
