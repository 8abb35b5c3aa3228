//! What this process has and may have of the machine: memory, by the machine and its control group,
//! and processor time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Gives the system back the memory that was freed: after a crowd the allocator would keep all.
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
    let meminfo = read(Path::new("/proc/meminfo")).unwrap_or_default();
    let of_machine = kib_of(&meminfo, "MemTotal:");
    of_machine.into_iter().chain(of_groups(&read)).min()
}

/// Bounds of memory of this process's control groups and of those above them, of the first version
/// and the second, where systems have them.
fn of_groups(read: &dyn Fn(&Path) -> Option<String>) -> Vec<u64> {
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    // Lines of number, controllers and path; the second version's have no controllers.
    let files = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (seen_at, name) = match fields.next() {
            Some("") => ("/sys/fs/cgroup", "memory.max"),
            Some(controllers) if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        // In a container the path may be one of outside: what is seen first is its own group then.
        let folder = format!("{seen_at}{}", fields.next().unwrap_or_default());
        let above = Path::new(&folder).ancestors();
        let folders = above.take_while(|folder| folder.starts_with(seen_at));
        folders.map(|folder| folder.join(name)).collect()
    });
    // `max`, where there is no bound, is no number.
    files.filter_map(|file: PathBuf| read(&file)?.trim().parse().ok()).collect()
}

/// Memory that this process has, in bytes, pages of mapped files included.
pub(super) fn resident_bytes() -> Option<u64> {
    kib_of(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
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
        let unified = [
            (OWN, "0::/a.slice/b\n"),
            ("/sys/fs/cgroup/a.slice/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a.slice/memory.max", "300\n"),
        ];
        assert_eq!(of(&unified), [300]);
        let old = [
            (OWN, "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n"),
            ("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "104857600\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/cpu/docker/x/memory.limit_in_bytes", "7"),
        ];
        assert_eq!(of(&old), [104_857_600, 9_223_372_036_854_771_712]);
        // Both are there, the memory in the first.
        let hybrid = [
            (OWN, "4:cpu,memory:/a\n0::/b\n"),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "50"),
            ("/sys/fs/cgroup/b/memory.max", "60"),
        ];
        assert_eq!(of(&hybrid), [50, 60]);
        // In a container: its own group is what is seen, under whatever name it has outside.
        for group in ["4:memory:/docker/x\n", "4:memory:/\n", "4:memory:/../other\n"] {
            let files = [(OWN, group), ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "50")];
            assert_eq!(of(&files), [50], "{group}");
        }
        assert_eq!(of(&[]), [0; 0]);
    }

    #[test]
    fn the_machine_says_what_it_has() {
        let text = "MemTotal:       24589208 kB\nMemFree:  5 kB\n";
        assert_eq!(kib_of(text, "MemTotal:"), Some(24_589_208 * 1024));
        assert_eq!(kib_of("MemFree: 5 kB\n", "MemTotal:"), None);
        #[cfg(target_os = "linux")]
        assert!(machine_bytes().unwrap() > 1 << 20);
        #[cfg(target_os = "linux")]
        assert!(resident_bytes().unwrap() > 1 << 16);
    }
}
