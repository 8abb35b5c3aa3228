//! What measures discovery: `sotto-bench federation`, for `bench/federation.sh`.
//!
//! [`hollow`] makes a database whose shards have the standard shape and take no room on the disk,
//! [`account`] makes accounts of a relay, [`sealed`] seals requests as a device does, and [`relay`]
//! sends them over many connections. Devices themselves are `sotto resolve`.

pub(crate) mod account;
pub(crate) mod hollow;
pub(crate) mod relay;
pub(crate) mod sealed;
