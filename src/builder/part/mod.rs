//! The parts of a build that a cluster runs: what all shards share ([`BuildSpec`]), which shard a
//! key belongs to ([`BuildSpec::locate`]), one shard from its records ([`ShardRecords::encode`]),
//! and the manifest from what was said of all shards ([`finish`]).
//!
//! The cluster groups records by shard; `docs/scale.md` says how. `sotto build` groups them itself
//! and calls the same functions, so that both make the same bytes. No part keeps anything between
//! two calls, and a part that is repeated makes the same file under the same name.

mod encode;
mod errors;
mod finish;
mod records;
mod spec;

pub use encode::Encoded;
pub(super) use encode::encode;
pub use errors::PartError;
pub use finish::{FinishOptions, Finished, PartEntry, finish, read_entries};
pub(super) use records::{ShardCheck, check};
pub use records::{ShardRecords, on_threads};
pub use spec::{BuildSpec, SpecWishes};
pub(super) use spec::{RECORDS_PER_SHARD_DEFAULT, bounded_shards, fitting_value_len};
