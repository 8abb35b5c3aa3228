//! Why a server does not start and why a request has no reply.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a server does not start, or why a request has no reply. No message contains a path, a
/// header or a body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names and messages say it.
pub enum HttpsError {
    #[error("no {what} in the PEM text given: {detail}")]
    Pem { what: &'static str, detail: String },
    #[error(transparent)]
    Files(Box<dyn Error + Send + Sync>),
    #[error("the certificate and the key cannot be used for TLS 1.3: {0}")]
    Unusable(rustls::Error),
    #[error("cannot listen on {address} (TCP): {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(
        "no certificate authority is given, and servers are not believed without one: give a PEM \
         file of authorities, such as the system's /etc/ssl/certs/ca-certificates.crt"
    )]
    NoAuthority,
    #[error("the URL is refused: {detail}; expected one like https://host.example:8443/path")]
    Url { detail: String },
    #[error("a header is refused: {detail}")]
    Header { detail: String },
    #[error("cannot connect to {origin}: {source}")]
    Connect { origin: String, source: io::Error },
    #[error("no TLS with {origin}: {source}")]
    Handshake { origin: String, source: io::Error },
    #[error(
        "{origin} has not answered within {} ms{}", .after.as_millis(),
        if *.sent { "" } else { ", and nothing was sent to it" }
    )]
    Late { origin: String, after: Duration, sent: bool },
    #[error("the connection to {origin} broke: {source}")]
    Broken { origin: String, source: hyper::Error, sent: bool },
    #[error("the reply of {origin} has more than {max} bytes, which no reply here has")]
    ReplyTooLong { origin: String, max: usize },
}

impl HttpsError {
    /// Whether no byte of the request has left: the same request may be sent to another server, and
    /// need not be counted. Where this is false the request may have arrived.
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Late { sent, .. } | Self::Broken { sent, .. } => !sent,
            Self::ReplyTooLong { .. } => false,
            _ => true,
        }
    }
}
