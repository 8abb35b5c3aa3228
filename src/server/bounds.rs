//! The bounds of a server, and the memory that they add up to.
//!
//! They are added up for a database's shape and made to fit what the machine has. The engines'
//! scratch and the maps of shards are not in them.

use std::fmt;
use std::time::Duration;

use crate::limits;
use crate::params::Shape;
use crate::schedule::ScheduleBounds;

/// The bounds one server runs under. The defaults are [`limits`]; tests make them small.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Each is documented at the limit that is its default.
pub struct ServerBounds {
    pub connections_max: usize,
    pub handshakes_max: usize,
    /// Most connections of one known front-end at once, or of one network where none is known.
    pub connections_per_front_end_max: usize,
    pub streams_max: usize,
    /// How much of the windows that a shape asks for a connection has: 0 the least, 1 all.
    pub windows_part: f64,
    /// Bytes of requests being read, all connections together.
    pub read_bytes_max: usize,
    pub bundle_cache_bytes: usize,
    /// What waits for an engine.
    pub schedule: ScheduleBounds,
    /// Bytes of answers, from when their queries are taken in until they are sent, and of other
    /// replies that wait to be sent.
    pub answer_bytes_max: usize,
    pub stream_read_timeout: Duration,
    pub stream_write_timeout: Duration,
    pub stream_send_time_max: Duration,
    pub handshake_timeout: Duration,
    pub certificate_check_time: Duration,
    pub idle_timeout: Duration,
    pub drain_timeout: Duration,
    /// How often each engine runs its known-answer test; never when absent, and whether it is right
    /// is then not known.
    pub prove_every: Option<Duration>,
    pub old_epoch_time: Duration,
    /// How fast shards are read again and compared with their digests; 0 is not at all.
    pub scrub_mib_per_second: u32,
    pub file_patience: Duration,
}

impl Default for ServerBounds {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            handshakes_max: limits::HANDSHAKES_MAX,
            connections_per_front_end_max: limits::CONNECTIONS_PER_FRONT_END_MAX,
            streams_max: limits::STREAMS_MAX,
            windows_part: 1.0,
            read_bytes_max: limits::READ_BYTES_MAX,
            bundle_cache_bytes: limits::BUNDLE_CACHE_BYTES,
            schedule: ScheduleBounds::default(),
            answer_bytes_max: limits::ANSWER_BYTES_MAX,
            stream_read_timeout: limits::STREAM_READ_TIMEOUT,
            stream_write_timeout: limits::STREAM_WRITE_TIMEOUT,
            stream_send_time_max: limits::STREAM_SEND_TIME_MAX,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            certificate_check_time: limits::CERTIFICATE_CHECK_TIME,
            idle_timeout: limits::IDLE_TIMEOUT,
            drain_timeout: limits::DRAIN_TIMEOUT,
            prove_every: None,
            old_epoch_time: limits::OLD_EPOCH_TIME,
            scrub_mib_per_second: limits::SCRUB_MIB_PER_SECOND,
            file_patience: limits::FILE_PATIENCE,
        }
    }
}

/// Memory a server's bounds add up to, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct MemoryBudget {
    /// What connections may have on the way, in both directions; handshakes, streams.
    pub connections: u64,
    pub requests: u64,
    pub bundles: u64,
    /// Queries that wait, each with its bundle.
    pub queries: u64,
    /// Answers that are computed, and replies of every kind that are not yet sent.
    pub answers: u64,
}

impl MemoryBudget {
    /// Each with its name.
    pub fn parts(&self) -> [(&'static str, u64); 5] {
        [
            ("connections", self.connections),
            ("requests", self.requests),
            ("bundles", self.bundles),
            ("queries", self.queries),
            ("answers", self.answers),
        ]
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let parts = self.parts().map(|(part, bytes)| match part {
            "bundles" => format!("key bundles {}", mib(bytes)),
            part => format!("{part} {}", mib(bytes)),
        });
        write!(f, "{} MiB: {}", mib(self.total()), parts.join(", "))
    }
}

/// Bytes that may be on the way: enough for the queries and answers of some round trips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Windows {
    /// What one stream may send unread.
    pub(super) stream: u32,
    /// What all streams of a connection may.
    pub(super) receive: u32,
    /// What the server may have sent that was not acknowledged.
    pub(super) send: u32,
}

impl Windows {
    /// For databases of this shape; with less memory so large a part of what is above the least.
    pub(super) fn new(shape: &Shape, part: f64) -> Self {
        let bytes = |queries: usize, each: usize| {
            let wanted = u32::try_from(queries * each).unwrap_or(u32::MAX);
            let wanted = wanted.clamp(limits::WINDOW_BYTES_MIN, limits::WINDOW_BYTES_MAX);
            let least = limits::WINDOW_BYTES_LEAST;
            least + (f64::from(wanted - least) * part) as u32
        };
        let answer_bytes = shape.packs() * shape.response_bytes();
        Self {
            stream: bytes(limits::WINDOW_QUERIES, shape.query_bytes()),
            receive: bytes(2 * limits::WINDOW_QUERIES, shape.query_bytes()),
            send: bytes(2 * limits::WINDOW_QUERIES, answer_bytes),
        }
    }
}

impl ServerBounds {
    /// What they add up to for databases of this shape.
    pub fn memory(&self, shape: &Shape) -> MemoryBudget {
        // Of handshakes that ended, QUIC remembers some for seconds.
        let handshakes = (self.handshakes_max + limits::CLOSING_MAX) as u64;
        MemoryBudget {
            connections: self.connection_bytes(shape, self.connections_max, self.streams_max)
                + handshakes * limits::HANDSHAKE_STATE_BYTES
                + limits::INCOMING_BYTES_MAX,
            requests: self.read_bytes_max as u64,
            // Three bytes as received are a word of four.
            bundles: self.bundle_cache_bytes as u64 / 3 * 4,
            queries: self.schedule.queued_bytes_max as u64,
            answers: self.answer_bytes_max as u64,
        }
    }

    /// The defaults, for so many connections: with more of them than by default, each has as much
    /// room for key bundles.
    fn full(connections: usize) -> Self {
        let more = connections.div_ceil(limits::CONNECTIONS_MAX).max(1);
        Self {
            connections_max: connections,
            bundle_cache_bytes: limits::BUNDLE_CACHE_BYTES * more,
            ..Self::default()
        }
    }

    /// The least that serves databases of this shape, and so large a part of what `full` has above
    /// it: less memory makes what each connection may have on the way smaller, it takes no places.
    fn scaled(full: &Self, shape: &Shape, part: f64) -> Self {
        let full = full.clone();
        let queries = limits::QUERIES_PER_FRAME_MAX as usize;
        let frame = queries * (shape.query_bytes() + limits::FRAME_OVERHEAD_BYTES);
        let answers =
            queries * (shape.packs() * shape.response_bytes() + limits::QUERY_STATE_BYTES);
        let bundles = limits::BUNDLES_PER_CONNECTION as usize * shape.bundle_bytes();
        let between = |least: usize, full: usize| {
            let least = least.min(full);
            least + ((full - least) as f64 * part) as usize
        };
        Self {
            windows_part: part,
            streams_max: between(limits::STREAMS_LEAST, full.streams_max),
            // One caller has half: enough for a full frame.
            read_bytes_max: between(2 * frame, full.read_bytes_max),
            bundle_cache_bytes: between(bundles, full.bundle_cache_bytes),
            answer_bytes_max: between(2 * answers, full.answer_bytes_max),
            schedule: ScheduleBounds {
                queued_bytes_max: between(2 * frame, full.schedule.queued_bytes_max),
                ..full.schedule
            },
            ..full
        }
    }

    /// What these many connections and streams may take together of it.
    pub(super) fn connection_bytes(
        &self,
        shape: &Shape,
        connections: usize,
        streams: usize,
    ) -> u64 {
        let Windows { receive, send, .. } = Windows::new(shape, self.windows_part);
        let one = u64::from(receive) + u64::from(send) + limits::CONNECTION_STATE_BYTES;
        connections as u64 * one + streams as u64 * limits::STREAM_STATE_BYTES
    }

    /// The defaults for so many connections, or so much less of each that all fit `bytes` together.
    ///
    /// # Errors
    /// One full request would not fit: the fewest bytes that are enough.
    pub fn within(bytes: u64, shape: &Shape, connections: usize) -> Result<Self, u64> {
        let full = Self::full(connections);
        let total = |part| Self::scaled(&full, shape, part).memory(shape).total();
        let (few, all) = (total(0.0), total(1.0));
        if bytes < few {
            return Err(few);
        }
        let part = (bytes.min(all) - few) as f64 / (all - few) as f64;
        Ok(Self::scaled(&full, shape, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes() -> [Shape; 3] {
        [(128, 2, 192), (2048, 4, 17_280), (2048, 64, limits::COLUMNS_MAX)]
            .map(|(rows, packs, columns)| Shape::new(120, rows, packs, columns).unwrap())
    }

    fn places(bounds: &ServerBounds) -> [usize; 3] {
        [bounds.connections_max, bounds.handshakes_max, bounds.connections_per_front_end_max]
    }

    #[test]
    fn bounds_are_cut_to_what_there_is() {
        let numbers = [limits::CONNECTIONS_MAX, 1_000];
        for (shape, connections) in shapes().into_iter().flat_map(|it| numbers.map(|n| (it, n))) {
            let full = ServerBounds::full(connections);
            let (places_of_full, full) = (places(&full), full.memory(&shape).total());
            let least = ServerBounds::within(0, &shape, connections).unwrap_err();
            assert!(least < full, "{least} {full}");
            let one_less = ServerBounds::within(least - 1, &shape, connections);
            assert_eq!(one_less.unwrap_err(), least);
            for bytes in [least, full / 2, full - 1, full, 2 * full] {
                let Ok(bounds) = ServerBounds::within(bytes, &shape, connections) else { continue };
                let memory = bounds.memory(&shape);
                let (total, bytes) = (memory.total(), bytes.min(full));
                assert!((bytes / 100 * 98..=bytes).contains(&total), "{bytes}: {memory}");
                // Others could be kept out of places: there are always as many.
                assert_eq!(places(&bounds), places_of_full);
                let frame = limits::QUERIES_PER_FRAME_MAX as usize * shape.query_bytes();
                assert!(bounds.read_bytes_max >= frame && bounds.connections_max > 0);
                assert!(bounds.schedule.queued_bytes_max / 2 >= frame);
            }
        }
        // Little memory is enough for a shard of a million records.
        let least = ServerBounds::within(0, &shapes()[1], limits::CONNECTIONS_MAX);
        let least = least.unwrap_err();
        assert!(least <= 512 << 20, "{} MiB", least >> 20);
        // The thousand front-ends of the MIMI scenario.
        let least = ServerBounds::within(0, &shapes()[1], 1_000).unwrap_err();
        assert!(least <= 768 << 20, "{} MiB", least >> 20);
    }

    #[test]
    fn windows_hold_some_queries_and_stay_small() {
        let [small, standard, large] = shapes().map(|shape| Windows::new(&shape, 1.0));
        assert_eq!(small.stream, limits::WINDOW_BYTES_MIN);
        assert_eq!(standard.stream as usize, limits::WINDOW_QUERIES * 17_280 * 3);
        assert_eq!(standard.receive, 2 * standard.stream);
        assert!(large.send.max(large.receive) <= limits::WINDOW_BYTES_MAX);
        let least @ Windows { stream, .. } = Windows::new(&shapes()[1], 0.0);
        assert_eq!(least, Windows { stream, receive: stream, send: stream });
        assert_eq!(stream, limits::WINDOW_BYTES_LEAST);
    }
}
