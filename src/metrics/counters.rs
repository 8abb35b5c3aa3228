//! What a server counts, and what it is like at a moment.
//!
//! Nothing here is by shard, by query or by peer: a counter must not tell who asked for what.

use crate::wire::{Status, StreamCode};
use crate::worker::{Counter, Times};

/// One counter for every status.
#[derive(Debug, Default)]
pub struct ByStatus([Counter; Status::ALL.len()]);

impl ByStatus {
    /// Replies with this status.
    pub fn get(&self, status: Status) -> u64 {
        self.0[Self::index(status)].get()
    }

    /// Counts one more.
    pub fn add(&self, status: Status) {
        self.0[Self::index(status)].add(1);
    }

    fn index(status: Status) -> usize {
        let at = Status::ALL.iter().position(|&other| other == status);
        at.expect("this is a bug: a status that Status::ALL lacks")
    }
}

/// One counter for every code a stream may be reset with.
#[derive(Debug, Default)]
pub struct ByCode([Counter; StreamCode::ALL.len()]);

impl ByCode {
    /// Streams reset with this code.
    pub fn get(&self, code: StreamCode) -> u64 {
        self.0[code as usize].get()
    }

    /// Counts one more.
    pub fn add(&self, code: StreamCode) {
        self.0[code as usize].add(1);
    }
}

/// Everything a server counts. `families.rs` exports all of it with a sentence for each.
#[derive(Debug, Default)]
#[allow(missing_docs)] // Names say it.
pub struct Counters {
    pub connections: Counter,
    /// Connections refused: too many at once, or the server is leaving.
    pub connections_refused: Counter,
    pub callers_refused: Counter,
    pub front_end_connections_refused: Counter,
    /// Handshakes that failed: not our protocol, not our certificate, or given up.
    pub handshakes_failed: Counter,
    pub handshakes_displaced: Counter,
    pub handshakes_ignored: Counter,
    pub connections_displaced: Counter,
    pub connections_idle: Counter,
    /// Connections whose certificate expired while they lasted.
    pub certificates_expired: Counter,
    /// Handshakes begun again, so that the peer shows that its address is its own.
    pub addresses_asked: Counter,
    pub streams: Counter,
    pub streams_reset: ByCode,
    pub streams_abandoned: Counter,
    pub parameters: ByStatus,
    pub bundles: Counter,
    pub bundles_evicted: Counter,
    /// Frames of queries that could not be read, or for which there was no room as they arrived.
    pub frames_refused: ByStatus,
    pub queries_admitted: Counter,
    /// Queries refused as OVERLOADED because the queue had no room for anyone's.
    pub refused_queue_full: Counter,
    pub refused_front_end_full: Counter,
    pub refused_connection_full: Counter,
    pub refused_no_answer_room: Counter,
    pub refused_too_late: Counter,
    pub refused_quarantined: Counter,
    pub queries: ByStatus,
    pub queries_cancelled: Counter,
    /// Queries whose stream ended while an engine had them: computed for nobody. With this, what
    /// was admitted is what was answered, was late, failed with its device, or was cancelled.
    pub queries_unclaimed: Counter,
    pub hints: ByStatus,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    /// From when a query was read until its reply was written, of those that were admitted.
    pub answer_time: Times,
    /// From when a reply was encoded until its stream had taken all of it.
    pub send_time: Times,
    pub reloads_changed: Counter,
    pub reloads_unchanged: Counter,
    pub reloads_refused: Counter,
    pub scrub_bytes: Counter,
    /// Shards that were taken out, whoever found it.
    pub scrub_problems: Counter,
}

/// What a server is like at a moment.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)] // Names say it.
pub struct Gauges {
    pub connections: usize,
    pub streams: usize,
    pub bundles: usize,
    pub queued_queries: usize,
    /// Memory they may take.
    pub queued_bytes: usize,
    pub shards: u32,
    /// Of these, on devices; one that two devices have counts twice.
    pub resident_shards: usize,
    pub resident_bytes: u64,
    pub devices_up: usize,
    pub devices_down: usize,
    pub served_epoch: u64,
    /// The epoch on disk, as far as it was looked at.
    pub expected_epoch: u64,
    pub database_created_timestamp_seconds: u64,
    pub database_expiry_timestamp_seconds: u64,
    pub quarantined_shards: usize,
    /// Seconds since every byte was last found undamaged, or since the server was started.
    pub scrub_age_seconds: f64,
    /// When the served certificate expires, in seconds since 1970; none where it does not say.
    pub certificate_expiry_timestamp_seconds: Option<i64>,
    /// The bounds of memory, by part.
    pub memory_budget_bytes: Vec<(&'static str, u64)>,
    /// What is taken of it, by part.
    pub memory_used_bytes: Vec<(&'static str, u64)>,
    /// Memory that the process may have, by machine and control group; none where nobody says.
    pub machine_memory_bytes: Option<u64>,
    pub draining: bool,
    /// Whether it should be sent queries.
    pub ready: bool,
    pub start_time_seconds: f64,
    pub process_cpu_seconds: f64,
    /// Memory of the process, shards in the page cache that it looks at included.
    pub process_resident_memory_bytes: u64,
}
