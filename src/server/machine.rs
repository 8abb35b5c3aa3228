//! What this process has and may have of the machine: memory, by the machine and its control group,
//! and processor time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

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

pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
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
