//! What a device and a front-end say to each other, sealed so that the relay between them reads
//! nothing of it (docs/federation.md).
//!
//! A request is binary HTTP (RFC 9292) inside Oblivious HTTP (RFC 9458): [`capsule`]. Its keys come
//! in a list that the front-end signs: [`keys`]. The bodies are [`evaluate`] and [`lookup`], and
//! [`resolve`] where the front-end may know the contacts. This module does no IO and reads no
//! clock. It checks form; what a request means is decided by the front-end, what an answer means by
//! the device.

pub mod capsule;
mod errors;
pub mod evaluate;
pub mod keys;
pub mod lookup;
pub mod resolve;

pub use errors::SealedError;
