//! Databases in object storage: S3, Google Cloud Storage, Azure, and a folder.
//!
//! A store has `shards/<digest>.shard`, `manifests/<epoch>.json` and `announced/<epoch>`. Every
//! object is written once, if it is not there, and never changed: so builders and hosts need no
//! lock, and no pointer can go back. The newest epoch that is served is the largest announced one.
//! What the store sends is believed only as far as the operator signed it.

mod announce;
mod errors;
mod fetch;
mod gc;
mod place;
mod publish;
#[cfg(test)]
mod tests;

pub use announce::{Announced, Behind, Hosts, announce, until_staged};
pub use errors::StoreError;
pub use fetch::{FetchOptions, Fetched, fetch};
pub use gc::{Collected, Keep, collect};
pub use place::{Listed, Store, shard_name};
pub use publish::{Pushed, check_files, newest, publish, push};
