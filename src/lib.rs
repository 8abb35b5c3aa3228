//! sotto: a private look-up server.
//!
//! A client asks for the record of an identifier; the server answers without learning which record
//! it was. An answer is the product of a byte matrix and an encrypted vector (`scan`), packed into
//! few ring elements (`pack`). ARCHITECTURE.md describes the modules; [`scheme`] has the
//! cryptography.

pub mod limits;
pub mod params;
pub mod text;

pub mod arith;
pub mod keyword;
pub mod scheme;
pub mod wire;

#[cfg(feature = "lookup")]
pub mod client;
#[cfg(feature = "lookup")]
pub mod discovery;
#[cfg(feature = "lookup")]
pub mod hosts;
#[cfg(feature = "client")]
pub mod https;

#[cfg(feature = "server")]
pub mod builder;
#[cfg(feature = "server")]
pub mod commands;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "front-end")]
pub mod front_end;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod placement;
#[cfg(feature = "front-end")]
pub mod pull;
#[cfg(feature = "registration")]
pub mod registrar;
#[cfg(feature = "front-end")]
pub mod relay;
#[cfg(feature = "server")]
pub mod schedule;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod shard;
#[cfg(feature = "store")]
pub mod store;
#[cfg(feature = "server")]
pub mod worker;

// The commands name the library as its other users do.
#[cfg(feature = "server")]
extern crate self as sotto;
