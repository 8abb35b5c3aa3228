//! Bounds of copies of databases, of object storage and of databases on several hosts, each with
//! its reason.

use std::time::Duration;

/// Requests of a few bytes that are on their way at once: a store answers each in some 20 ms, so
/// that ten thousand take a few seconds.
pub const STORE_REQUESTS_AT_ONCE: usize = 64;
/// Files that are uploaded at once, each of which is in memory.
pub const STORE_PUTS_AT_ONCE: usize = 4;
/// Bytes of one request for a part of a file.
pub const STORE_RANGE_BYTES: u64 = 8 << 20;
/// Such requests for one file that are on their way at once.
pub const STORE_RANGES_AT_ONCE: usize = 4;
/// How long one request may take: a file of 400 MB at 2 MB/s.
pub const STORE_REQUEST_TIME: Duration = Duration::from_secs(200);
/// How long connecting to a store may take.
pub const STORE_CONNECT_TIME: Duration = Duration::from_secs(10);
/// Longest placement file: ten thousand hosts of 1 300 bytes.
pub const PLACEMENT_FILE_BYTES_MAX: u64 = 13 << 20;
/// How long an announcement waits before it asks hosts again.
pub const STAGED_PAUSE: Duration = Duration::from_secs(2);
/// Hosts that it asks at once.
pub const STAGED_HOSTS_AT_ONCE: usize = 32;
/// Most hosts of a placement.
pub const HOSTS_MAX: usize = 10_000;
/// Longest name of a host: that of a DNS name.
pub const HOST_NAME_BYTES_MAX: usize = 253;

// Copying databases (`sotto pull`; the first one for `sotto store fetch` too).
/// Files that are downloaded at once: one arrives while the other is verified.
pub const PULL_FILES_AT_ONCE: usize = 2;
/// How long the source may send nothing.
pub const PULL_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Attempts at one file that brought no byte, one after the other, after which it is given up.
pub const PULL_ATTEMPTS_MAX: u32 = 8;
/// The pause after the first of these; it doubles with each. Unit tests do not wait.
pub const PULL_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });
/// Longest such pause: with it a source may be away for a minute.
pub const PULL_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often one run begins again because the source has changed to a newer epoch meanwhile.
pub const PULL_ROUNDS_MAX: u32 = 4;
