//! HTTP/1.1 over TLS 1.3, as the relay and the front-end speak it: a server for an axum router and
//! a client, both within bounds.
//!
//! What a request means is not decided here. [`server`] keeps connections within [`Bounds`]: a
//! connection waits for its peer only for a limited time, and one connection too many ends the one
//! that has kept the server waiting longest. [`client`] sends one request and says of an error
//! whether the request may have arrived ([`HttpsError::never_sent`]). [`body`] reads a request body
//! of bounded length.

#[cfg(feature = "front-end")]
mod admin;
#[cfg(feature = "front-end")]
mod body;
#[cfg(feature = "front-end")]
mod bounds;
mod cached;
pub mod client;
#[cfg(feature = "front-end")]
mod counters;
mod errors;
mod pem;
#[cfg(feature = "front-end")]
mod phase;
#[cfg(feature = "front-end")]
pub mod server;
#[cfg(feature = "front-end")]
mod table;
#[cfg(test)]
#[cfg(feature = "front-end")]
mod tests;
#[cfg(feature = "front-end")]
mod tracked;

#[cfg(feature = "front-end")]
pub use crate::server::Counter;
#[cfg(feature = "front-end")]
pub use admin::{Admin, AdminCallers, AdminError, Readiness, Shown};
#[cfg(feature = "front-end")]
pub use body::{BodyError, body};
#[cfg(feature = "front-end")]
pub use bounds::Bounds;
pub use cached::etag;
#[cfg(feature = "front-end")]
pub use cached::public_file;
pub use client::{Client, Reply, Response};
#[cfg(feature = "front-end")]
pub(crate) use counters::labels;
#[cfg(feature = "front-end")]
pub use counters::{Counters, Sample, client_certificate_expiry};
pub use errors::HttpsError;
#[cfg(feature = "front-end")]
pub use server::{PeerInfo, Reloader, Server, TlsFiles};
