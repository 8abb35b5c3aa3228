//! Which hosts have which shards of a database: `placement.json`.
//!
//! It is not signed. A host that has not what it says refuses queries for it, and what it answers
//! is checked against hints that the operator signed; who it is, TLS says.

mod make;
mod placement;

pub use make::{make, score};
pub use placement::{Difference, Host, HostsError, Placement, Ranges, has_port};
