//! What a record means, and why a device may trust it without trusting whoever served it.
//!
//! An issuer signs [`statement`]s about who is reached where, within the remit that the signed
//! [`directory`] gives it. [`merge`] makes of them one signed [`record`] for each [`identifier`],
//! sealed under a key that only the blinding key derives ([`blind`]). A device that found a value
//! [opens](open()) it with the directory alone. docs/records.md explains all of it.
//!
//! Nothing here reads a clock or a socket: the time is an argument, in seconds since 1970.

pub mod blind;
mod claims;
pub mod directory;
pub mod filter;
pub mod identifier;
pub mod jws;
pub mod log;
pub mod open;
pub mod record;
mod refusal;
mod ssi;
pub mod statement;

pub use open::{open, open_sealed};
#[cfg(feature = "client")]
pub use resolver::Resolver;

#[cfg(feature = "client")]
pub mod resolver;
#[cfg(feature = "client")]
pub mod sealed;

#[cfg(feature = "front-end")]
pub mod contacts;

#[cfg(feature = "registration")]
pub mod keys;

#[cfg(feature = "server")]
pub mod batch;
#[cfg(feature = "server")]
pub mod files;
#[cfg(feature = "server")]
pub mod merge;
#[cfg(feature = "server")]
pub mod sample;
