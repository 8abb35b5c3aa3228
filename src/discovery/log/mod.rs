//! The log as whoever verifies it sees it: an append-only Merkle tree (RFC 6962) of hashes of
//! accepted statements and of the manifest of every epoch, with signed checkpoints (C2SP
//! tlog-checkpoint) and tiles (C2SP tlog-tiles).
//!
//! Nothing here reads a file, a clock or the network. [`entry`] has the bytes of leaves, [`tree`]
//! hashes and covers, [`tiles`] the static files, [`note`] checkpoints, [`proof`] what a device
//! checks before it accepts an epoch ([`accept`]). The server is `registrar::log`.

pub mod entry;
mod errors;
pub mod note;
pub mod proof;
pub mod tiles;
pub mod tree;

#[cfg(test)]
mod tests;

pub use entry::{Entry, Manifest, parameters_digest, salted_hash};
pub use errors::LogError;
pub use note::{Checkpoint, LogKey};
pub use proof::{EpochProof, Pinned, accept, advance};
pub use tree::{Hash, leaf_hash};
