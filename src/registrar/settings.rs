//! What the configurations of the registrar and of the log have in common.

use serde::de::DeserializeOwned;

use crate::https::Bounds;
use crate::limits::registrar::{
    SERVICE_BODY_TIME, SERVICE_HANDSHAKE_TIME, SERVICE_HANDSHAKES_MAX, SERVICE_HEAD_TIME,
    SERVICE_IDLE_TIME,
};

/// Reads the text of a configuration. An error names the line and does not quote it: it may be
/// secret.
pub(super) fn from_toml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!("line {}: {}", before.matches('\n').count() + 1, error.message())
    })
}

/// The bounds of a server with so many connections.
pub(super) fn bounds(connections: usize) -> Bounds {
    Bounds {
        connections,
        handshakes: SERVICE_HANDSHAKES_MAX,
        handshake_time: SERVICE_HANDSHAKE_TIME,
        head_time: SERVICE_HEAD_TIME,
        idle_time: SERVICE_IDLE_TIME,
        body_time: SERVICE_BODY_TIME,
    }
}
