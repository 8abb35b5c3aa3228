//! One budget for all that connections, requests, bundles, queues and answers may take together.
//!
//! Every part has its bound in [`ServerBounds`]; here they are added up for a database's shape,
//! made to fit what the machine has, and said in one line. Not in it: the engines' scratch, and the
//! maps of shards, which are the system's to keep or drop.

use std::fmt;
use std::path::{Path, PathBuf};

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
        let queries = limits::QUERIES_PER_FRAME_MAX as usize;
        let frame = queries * (shape.query_bytes() + limits::FRAME_OVERHEAD_BYTES);
        let answers =
            queries * (shape.packs() * shape.response_bytes() + limits::QUERY_STATE_BYTES);
        let bundles = limits::BUNDLES_PER_CONNECTION as usize * shape.bundle_bytes();
        Self {
            windows_part: 0.0,
            streams_max: limits::STREAMS_LEAST,
            // One caller has half: enough for a full frame.
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
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let of_machine = read(Path::new("/proc/meminfo")).as_deref().and_then(total_of_meminfo);
    of_machine.into_iter().chain(of_groups(&read)).min()
}

/// Where a hierarchy of control groups that bound memory is to be seen.
struct Hierarchy<'a> {
    /// The group that is seen at `seen_at`.
    root: &'a Path,
    seen_at: &'a Path,
    is_second: bool,
}

impl<'a> Hierarchy<'a> {
    /// Of a line of /proc/self/mountinfo; nothing where it is another mount.
    fn of_line(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, seen_at) = (Path::new(place.next()?), Path::new(place.next()?));
        let mut kind = kind.split(' ');
        let is_second = match (kind.next()?, kind.nth(1)) {
            ("cgroup2", _) => true,
            ("cgroup", Some(controllers)) if has_memory(controllers) => false,
            _ => return None,
        };
        Some(Self { root, seen_at, is_second })
    }

    /// Where they are unless a system has them elsewhere.
    fn usual() -> [Self; 2] {
        let root = Path::new("/");
        let hierarchy = |seen_at, is_second| Hierarchy { root, seen_at, is_second };
        [
            hierarchy(Path::new("/sys/fs/cgroup"), true),
            hierarchy(Path::new("/sys/fs/cgroup/memory"), false),
        ]
    }

    /// This process's group, by the lines of /proc/self/cgroup: number, controllers, path.
    fn group<'g>(&self, groups: &'g str) -> Option<&'g Path> {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let is_meant = match self.is_second {
                true => number == "0" && controllers.is_empty(),
                false => has_memory(controllers),
            };
            is_meant.then_some(Path::new(path))
        })
    }

    /// The files that may bound a group: its own and those of the groups above it.
    fn bounds(&self, group: &Path) -> Vec<PathBuf> {
        let name = if self.is_second { "memory.max" } else { "memory.limit_in_bytes" };
        // In a container the path may be one that is not to be seen there: what is seen is its own.
        let below = group.strip_prefix(self.root).unwrap_or(Path::new(""));
        let folder = self.seen_at.join(below);
        let folders = folder.ancestors().take_while(|folder| folder.starts_with(self.seen_at));
        folders.map(|folder| folder.join(name)).collect()
    }
}

fn has_memory(controllers: &str) -> bool {
    controllers.split(',').any(|controller| controller == "memory")
}

/// Bounds of memory of this process's control groups, of the first version and the second.
fn of_groups(read: &dyn Fn(&Path) -> Option<String>) -> Vec<u64> {
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let mounts = read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    let mut hierarchies: Vec<_> = mounts.lines().filter_map(Hierarchy::of_line).collect();
    if hierarchies.is_empty() {
        hierarchies.extend(Hierarchy::usual());
    }
    let of_hierarchy = |hierarchy: &Hierarchy<'_>| {
        hierarchy.group(&groups).map_or_else(Vec::new, |group| hierarchy.bounds(group))
    };
    // `max`, where there is no bound, is no number.
    let bound = |path: PathBuf| read(&path)?.trim().parse().ok();
    hierarchies.iter().flat_map(of_hierarchy).filter_map(bound).collect()
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
pub fn kib_of(text: &str, name: &str) -> Option<u64> {
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
                let frame = limits::QUERIES_PER_FRAME_MAX as usize * shape.query_bytes();
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
    fn control_groups_of_both_versions_bound_memory() {
        let of = |files: &[(&str, &str)]| {
            let read = |path: &Path| {
                let file = files.iter().find(|(name, _)| Path::new(name) == path);
                file.map(|(_, text)| (*text).to_owned())
            };
            of_groups(&read)
        };
        const OWN: &str = "/proc/self/cgroup";
        const MOUNTS: &str = "/proc/self/mountinfo";
        let second = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let first = "31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                     33 23 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let unified = [
            (OWN, "0::/a.slice/b\n"),
            (MOUNTS, second),
            ("/sys/fs/cgroup/a.slice/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a.slice/memory.max", "300\n"),
        ];
        assert_eq!(of(&unified), [300]);
        let old = [
            (OWN, "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n"),
            (MOUNTS, first),
            ("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "104857600\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/cpu/docker/x/memory.limit_in_bytes", "7"),
        ];
        assert_eq!(of(&old), [104_857_600, 9_223_372_036_854_771_712]);
        // Both are there, the memory in the first.
        let both = [first, second].concat();
        let hybrid = [
            (OWN, "4:cpu,memory:/a\n0::/b\n"),
            (MOUNTS, &*both),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "50"),
            ("/sys/fs/cgroup/b/memory.max", "60"),
        ];
        assert_eq!(of(&hybrid), [50, 60]);
        // In a container: its own group is what is seen, under whatever name it has outside.
        let inner = "33 23 0:29 /docker/x /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        for group in ["4:memory:/docker/x\n", "4:memory:/\n", "4:memory:/../other\n"] {
            let files = [
                (OWN, group),
                (MOUNTS, inner),
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "50"),
            ];
            assert_eq!(of(&files), [50], "{group}");
        }
        let unseen = [(OWN, "4:memory:/a\n"), ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "5")];
        assert_eq!(of(&unseen), [5], "where mounts are not shown");
        assert_eq!(of(&[]), [0; 0]);
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
