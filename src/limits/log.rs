//! Bounds of the log, each with its reason.

use std::time::Duration;

/// Most entries of a request.
pub const BATCH_ENTRIES_MAX: usize = 1_000;
/// Most bytes of a request: some 150 for each entry.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// How long an `Idempotency-Key` is remembered, in seconds.
pub const REQUEST_SECONDS: u64 = 86_400;
/// Time between two checkpoints, at least.
pub const PUBLISH_TIME: Duration = Duration::from_secs(1);
/// How long to wait before publishing again what failed.
pub const PUBLISH_RETRY_TIME: Duration = Duration::from_secs(5);
/// Longest configuration file.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Longest file of callers.
pub const CALLERS_BYTES_MAX: u64 = 1 << 20;
/// Most connections of callers and readers.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Most connections to PostgreSQL, by default.
pub const DATABASE_CONNECTIONS: u32 = 16;
/// Most TLS handshakes at once.
pub const HANDSHAKES_MAX: usize = 256;
/// How long a TLS handshake may take.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long the head of a request may take.
pub const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a connection may be idle.
pub const IDLE_TIME: Duration = Duration::from_secs(120);
/// How long the body of a request may take.
pub const BODY_TIME: Duration = Duration::from_secs(60);
/// How long a request to the log may take.
pub const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Longest reply to a request with entries: a place for each of them.
pub const REPLY_BYTES_MAX: usize = 64 << 10;
/// Longest file in which an auditor remembers a log.
pub const STATE_BYTES_MAX: u64 = 64 << 20;
