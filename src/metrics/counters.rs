//! What a server counts.
//!
//! Nothing here is by shard, by query or by peer: a counter must not tell who asked for what.

use crate::wire::{Status, StreamCode};
use crate::worker::{Counter, Times};

/// One counter for every status.
#[derive(Debug, Default)]
pub struct ByStatus([Counter; Status::ALL.len()]);

impl ByStatus {
    /// So many had this status.
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
    /// Too many at once, or the server is leaving.
    pub connections_refused: Counter,
    pub callers_refused: Counter,
    pub front_end_connections_refused: Counter,
    /// Another protocol, no good certificate, or given up.
    pub handshakes_failed: Counter,
    pub handshakes_displaced: Counter,
    pub handshakes_ignored: Counter,
    pub connections_displaced: Counter,
    pub connections_idle: Counter,
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
    pub refused_queue_full: Counter,
    pub refused_front_end_full: Counter,
    pub refused_connection_full: Counter,
    pub refused_no_answer_room: Counter,
    pub refused_too_late: Counter,
    pub refused_quarantined: Counter,
    pub queries: ByStatus,
    pub queries_cancelled: Counter,
    /// Queries whose stream ended while an engine had them: computed for nobody.
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
