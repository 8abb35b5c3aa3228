//! One budget for all that connections, requests, bundles, queues and answers may take together.
//!
//! Every part has its bound in [`ServerBounds`]; here they are added up for a database's shape,
//! made to fit what the machine has, and said in one line. Not in it: the engines' scratch, and the
//! maps of shards, which are the system's to keep or drop.

use std::fmt;
use std::path::Path;

use super::ServerBounds;
use crate::limits;
use crate::params::Shape;
use crate::schedule::ScheduleBounds;

/// Memory a server's bounds add up to, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBudget {
    /// What connections may have on the way, in both directions; handshakes, streams.
    pub connections: u64,
    /// Requests being read.
    pub requests: u64,
    /// Key bundles that are kept.
    pub bundles: u64,
    /// Queries that wait, each with its bundle.
    pub queries: u64,
    /// Answers that are computed, and replies of every kind that are not yet sent.
    pub answers: u64,
}

impl MemoryBudget {
    /// Each with its name.
    pub fn parts(&self) -> [(&'static str, u64); 5] {
        let Self { connections, requests, bundles, queries, answers } = *self;
        [
            ("connections", connections),
            ("requests", requests),
            ("bundles", bundles),
            ("queries", queries),
            ("answers", answers),
        ]
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.connections + self.requests + self.bundles + self.queries + self.answers
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let Self { connections, requests, bundles, queries, answers } = *self;
        write!(
            f,
            "{} MiB: connections {}, requests {}, key bundles {}, queries {}, answers {}",
            mib(self.total()),
            mib(connections),
            mib(requests),
            mib(bundles),
            mib(queries),
            mib(answers)
        )
    }
}

/// What may be on the way between a peer and us, in bytes: enough for the queries and answers of
/// some round trips, not more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Windows {
    /// What one stream may send unread.
    pub(super) stream: u32,
    /// What all streams of a connection may.
    pub(super) receive: u32,
    /// What we may have sent that was not acknowledged.
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
        let Windows { receive, send, .. } = Windows::new(shape, self.windows_part);
        let one_connection = u64::from(receive) + u64::from(send) + limits::CONNECTION_STATE_BYTES;
        // Of handshakes that ended, QUIC remembers some for seconds.
        let handshakes = (self.handshakes_max + limits::CLOSING_MAX) as u64;
        MemoryBudget {
            connections: self.connections_max as u64 * one_connection
                + handshakes * limits::HANDSHAKE_STATE_BYTES
                + self.streams_max as u64 * limits::STREAM_STATE_BYTES
                + limits::INCOMING_BYTES_MAX,
            requests: self.read_bytes_max as u64,
            // Three bytes as received are a word of four.
            bundles: self.bundle_cache_bytes as u64 / 3 * 4,
            queries: self.schedule.queued_bytes_max as u64,
            answers: self.answer_bytes_max as u64,
        }
    }

    /// The least that serves databases of this shape. As many may come as ever: less memory makes
    /// what each may have on the way smaller, it takes no places.
    fn least(shape: &Shape) -> Self {
        let full = Self::default();
        let queries = limits::QUERIES_PER_BATCH_MAX as usize;
        let frame = queries * (shape.query_bytes() + limits::FRAME_OVERHEAD_BYTES);
        let answers =
            queries * (shape.packs() * shape.response_bytes() + limits::BATCH_QUERY_STATE_BYTES);
        let bundles = limits::BUNDLES_PER_CONNECTION as usize * shape.bundle_bytes();
        Self {
            windows_part: 0.0,
            streams_max: limits::STREAMS_LEAST,
            // One caller has half: enough for a full batch.
            read_bytes_max: (2 * frame).min(full.read_bytes_max),
            bundle_cache_bytes: bundles.min(full.bundle_cache_bytes),
            answer_bytes_max: (2 * answers).min(full.answer_bytes_max),
            schedule: ScheduleBounds {
                queued_bytes_max: (2 * frame).min(full.schedule.queued_bytes_max),
                ..full.schedule
            },
            ..full
        }
    }

    /// The defaults, or so much less of each that all fit `bytes` together.
    ///
    /// # Errors
    /// One full request would not fit: the fewest bytes that are enough.
    pub fn within(bytes: u64, shape: &Shape) -> Result<Self, u64> {
        let (full, least) = (Self::default(), Self::least(shape));
        let (all, few) = (full.memory(shape).total(), least.memory(shape).total());
        if bytes >= all {
            return Ok(full);
        }
        if bytes < few {
            return Err(few);
        }
        let part = (bytes - few) as f64 / (all - few) as f64;
        let between = |few: usize, all: usize| few + ((all - few) as f64 * part) as usize;
        Ok(Self {
            windows_part: part,
            streams_max: between(least.streams_max, full.streams_max),
            read_bytes_max: between(least.read_bytes_max, full.read_bytes_max),
            bundle_cache_bytes: between(least.bundle_cache_bytes, full.bundle_cache_bytes),
            answer_bytes_max: between(least.answer_bytes_max, full.answer_bytes_max),
            schedule: ScheduleBounds {
                queued_bytes_max: between(
                    least.schedule.queued_bytes_max,
                    full.schedule.queued_bytes_max,
                ),
                ..full.schedule
            },
            ..full
        })
    }
}

/// Gives the system back what the allocator keeps of memory that was freed: after a crowd it would
/// keep all that the crowd took.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number and looks at nothing but the allocator's own free memory, under
    // the allocator's own locks; every thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Memory this process may have, in bytes: the machine's, or its control group's where that is
/// less. Nothing where the system does not say.
pub fn machine_bytes() -> Option<u64> {
    let memory = std::fs::read_to_string("/proc/meminfo").ok();
    let of_machine = memory.as_deref().and_then(total_of_meminfo);
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok();
    let group =
        groups.as_deref().and_then(|text| text.lines().find_map(|l| l.strip_prefix("0::/")));
    let of_groups = group.into_iter().flat_map(|group| {
        // The bound may stand at any group above.
        let folder = Path::new("/sys/fs/cgroup").join(group);
        let bounds = folder.ancestors().map(|folder| folder.join("memory.max"));
        let read =
            bounds.filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
        read.collect::<Vec<u64>>()
    });
    of_machine.into_iter().chain(of_groups).min()
}

/// Memory that this process has, in bytes, pages of mapped files included. Nothing where the system
/// does not say.
pub(super) fn resident_bytes() -> Option<u64> {
    kib_of(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

fn total_of_meminfo(text: &str) -> Option<u64> {
    kib_of(text, "MemTotal:")
}

/// Bytes of the line of /proc/meminfo or a process's status that begins so.
pub(crate) fn kib_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes() -> [Shape; 3] {
        [(128, 2, 192), (2048, 4, 17_280), (2048, 64, limits::COLUMNS_MAX)]
            .map(|(rows, packs, columns)| Shape::new(120, rows, packs, columns).unwrap())
    }

    #[test]
    fn bounds_are_cut_to_what_there_is() {
        for shape in shapes() {
            let full = ServerBounds::default().memory(&shape).total();
            let least = ServerBounds::within(0, &shape).unwrap_err();
            assert!(least < full, "{least} {full}");
            assert_eq!(ServerBounds::within(least - 1, &shape).unwrap_err(), least);
            for bytes in [least, full / 2, full - 1, full, 2 * full] {
                let Ok(bounds) = ServerBounds::within(bytes, &shape) else { continue };
                let memory = bounds.memory(&shape);
                assert!(memory.total() <= bytes.min(full), "{bytes}: {memory}");
                assert!(memory.total() >= bytes.min(full) / 100 * 98, "{bytes}: {memory}");
                // Places are what others could be kept out of: there are always as many.
                let all = ServerBounds::default();
                let places = |bounds: &ServerBounds| {
                    let per_front_end = bounds.connections_per_front_end_max;
                    [bounds.connections_max, bounds.handshakes_max, per_front_end]
                };
                assert_eq!(places(&bounds), places(&all));
                let frame = limits::QUERIES_PER_BATCH_MAX as usize * shape.query_bytes();
                assert!(bounds.read_bytes_max >= frame && bounds.connections_max > 0);
                assert!(bounds.schedule.queued_bytes_max / 2 >= frame);
            }
        }
    }

    #[test]
    fn little_memory_is_enough_for_a_shard_of_a_million() {
        let standard = shapes()[1];
        let least = ServerBounds::within(0, &standard).unwrap_err();
        assert!(least <= 512 << 20, "{} MiB", least >> 20);
    }

    #[test]
    fn windows_hold_some_queries_and_stay_small() {
        let [small, standard, large] = shapes().map(|shape| Windows::new(&shape, 1.0));
        assert_eq!(small.stream, limits::WINDOW_BYTES_MIN);
        assert_eq!(standard.stream as usize, limits::WINDOW_QUERIES * 17_280 * 3);
        assert_eq!(standard.receive, 2 * standard.stream);
        assert!(
            large.send <= limits::WINDOW_BYTES_MAX && large.receive <= limits::WINDOW_BYTES_MAX
        );
        let least = Windows::new(&shapes()[1], 0.0);
        let bytes = limits::WINDOW_BYTES_LEAST;
        assert_eq!(least, Windows { stream: bytes, receive: bytes, send: bytes });
    }

    #[test]
    fn the_machine_says_what_it_has() {
        let text = "MemTotal:       24589208 kB\nMemFree:  5 kB\n";
        assert_eq!(total_of_meminfo(text), Some(24_589_208 * 1024));
        assert_eq!(total_of_meminfo("MemFree: 5 kB\n"), None);
        #[cfg(target_os = "linux")]
        assert!(machine_bytes().unwrap() > 1 << 20);
        #[cfg(target_os = "linux")]
        assert!(resident_bytes().unwrap() > 1 << 16);
    }
}
