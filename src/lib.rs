//! sotto: a private look-up server.
//!
//! A client asks for the record of an identifier; the server answers without learning which
//! record it was. One answer is a product of a byte matrix with an encrypted vector (`scan`), then
//! a packing of the result into few ring elements (`pack`). ARCHITECTURE.md is the map;
//! [`scheme`] is the heart.

pub mod limits;
pub mod params;
pub mod text;

pub mod arith;
pub mod scheme;

pub mod keyword;

pub mod wire;

#[cfg(feature = "server")]
pub mod shard;

#[cfg(feature = "server")]
pub mod builder;

#[cfg(feature = "server")]
pub mod engine;

#[cfg(feature = "server")]
pub mod schedule;

#[cfg(feature = "server")]
pub mod placement;

#[cfg(feature = "server")]
pub mod worker;

#[cfg(feature = "server")]
pub mod metrics;

#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "server")]
pub mod commands;

// The commands name the library as its other users do.
#[cfg(feature = "server")]
extern crate self as sotto;
