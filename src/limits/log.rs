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
/// Longest file of callers.
pub const CALLERS_BYTES_MAX: u64 = 1 << 20;
/// How long a request to the log may take.
pub const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Longest reply to a request with entries: a place for each of them.
pub const REPLY_BYTES_MAX: usize = 64 << 10;
/// Longest file in which an auditor remembers a log.
pub const STATE_BYTES_MAX: u64 = 64 << 20;
