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

/// Everything a server counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections whose handshake succeeded.
    pub connections: Counter,
    /// Connections refused: too many at once, or the server is leaving.
    pub connections_refused: Counter,
    /// Connections closed because their certificate names nobody who may call.
    pub callers_refused: Counter,
    /// Connections closed because their front-end has as many as it may.
    pub front_end_connections_refused: Counter,
    /// Handshakes that failed: not our protocol, not our certificate, or given up.
    pub handshakes_failed: Counter,
    /// Handshakes that had to make room: the oldest of whoever has the most.
    pub handshakes_displaced: Counter,
    /// First packets that were left unanswered: too many handshakes were given up lately.
    pub handshakes_ignored: Counter,
    /// Connections that asked nothing and had to make room for others.
    pub connections_displaced: Counter,
    /// Connections that asked nothing for too long.
    pub connections_idle: Counter,
    /// Connections whose certificate expired while they lasted.
    pub certificates_expired: Counter,
    /// Handshakes begun again, so that the peer shows that its address is its own.
    pub addresses_asked: Counter,
    /// Request streams opened.
    pub streams: Counter,
    /// Streams this server reset, by code.
    pub streams_reset: ByCode,
    /// Streams the peer reset or stopped, or lost with their connection.
    pub streams_abandoned: Counter,
    /// Replies to parameter requests, by status.
    pub parameters: ByStatus,
    /// Key bundles taken into the cache.
    pub bundles: Counter,
    /// Key bundles that had to make room for others.
    pub bundles_evicted: Counter,
    /// Frames of queries that could not be read, or for which there was no room as they arrived.
    pub frames_refused: ByStatus,
    /// Queries taken into the schedule.
    pub queries_admitted: Counter,
    /// Queries refused as OVERLOADED because the queue had no room for anyone's.
    pub refused_queue_full: Counter,
    /// The same because their front-end had as much of the queue as was left for others.
    pub refused_front_end_full: Counter,
    /// The same because their connection had as many as it may.
    pub refused_connection_full: Counter,
    /// The same because their answers could not be held until they are sent.
    pub refused_no_answer_room: Counter,
    /// The same because their answers would have come too late.
    pub refused_too_late: Counter,
    /// Queries refused because their shard is quarantined: its file is damaged.
    pub refused_quarantined: Counter,
    /// Replies to queries, by status.
    pub queries: ByStatus,
    /// Queries taken out of the queue because their stream ended.
    pub queries_cancelled: Counter,
    /// Queries whose stream ended while an engine had them: computed for nobody. With this, what
    /// was admitted is what was answered, was late, failed with its device, or was cancelled.
    pub queries_unclaimed: Counter,
    /// Replies to hint requests, by status, one a shard.
    pub hints: ByStatus,
    /// Bytes of requests taken from streams.
    pub received_bytes: Counter,
    /// Bytes of replies given to streams.
    pub sent_bytes: Counter,
    /// From when a query was read until its reply was written, of those that were admitted.
    pub answer_time: Times,
    /// From when a reply was encoded until its stream had taken all of it.
    pub send_time: Times,
    /// Reloads that brought another database.
    pub reloads_changed: Counter,
    /// Reloads that found what is served.
    pub reloads_unchanged: Counter,
    /// Reloads that were refused.
    pub reloads_refused: Counter,
    /// Bytes that were read again and compared with their digests.
    pub scrub_bytes: Counter,
    /// Shards that were taken out, whoever found it.
    pub scrub_problems: Counter,
}

/// What a server is like at a moment.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Connections that are served.
    pub connections: usize,
    /// Request streams open.
    pub streams: usize,
    /// Key bundles kept.
    pub bundles: usize,
    /// Queries that wait for an engine.
    pub queued_queries: usize,
    /// Memory they may take.
    pub queued_bytes: usize,
    /// Shards of the database.
    pub shards: u32,
    /// Of these, on devices; one that two devices have counts twice.
    pub resident_shards: usize,
    /// Memory of devices they take.
    pub resident_bytes: u64,
    /// Devices that take queries.
    pub devices_up: usize,
    /// Devices that failed and are not yet recreated.
    pub devices_down: usize,
    /// The epoch that queries are answered from.
    pub served_epoch: u64,
    /// The epoch on disk, as far as it was looked at.
    pub expected_epoch: u64,
    /// When the served epoch was signed, in seconds since 1970.
    pub database_created_timestamp_seconds: u64,
    /// When clients refuse it, in seconds since 1970.
    pub database_expiry_timestamp_seconds: u64,
    /// Shards that are not served: their files are damaged.
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
    /// Whether it is leaving.
    pub draining: bool,
    /// Whether it should be sent queries.
    pub ready: bool,
    /// When it was started, in seconds since 1970.
    pub start_time_seconds: f64,
    /// Processor time of the process so far, of all its threads, in user and system.
    pub process_cpu_seconds: f64,
    /// Memory of the process, shards in the page cache that it looks at included.
    pub process_resident_memory_bytes: u64,
}
