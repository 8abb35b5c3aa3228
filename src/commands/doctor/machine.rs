//! What the machine gives: engines, memory, the system's limits, sockets, large pages, the clock.

use std::fs::read_to_string;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::SystemTime;

use rustix::process::{Resource, getrlimit};
use sotto::arith::{Isa, IsaName};
use sotto::engine::{GpuInfo, GpuKind, gpus};
use sotto::limits::SOCKET_BYTES;
use sotto::server::{machine_bytes, udp_socket};
use sotto::shard::Database;
use sotto::shard::header::file_bytes;
use sotto::text::bytes;

use super::{Finding, serve};
use crate::commands::devices;

/// What is there where a driver for a GPU is, whatever Vulkan finds.
const GPU_FILES: [&str; 3] = ["/dev/dri/renderD128", "/dev/nvidia0", "/dev/nvidiactl"];
/// What tells that something sets the clock.
const CLOCK_FILES: [(&str, &str); 4] = [
    ("/run/systemd/timesync/synchronized", "systemd-timesyncd has set it"),
    ("/run/chrony/chronyd.pid", "chronyd runs"),
    ("/run/ntpd.pid", "ntpd runs"),
    ("/run/ntpsec/ntpd.pid", "ntpd runs"),
];
/// Memory to serve anything at all.
const MEMORY_BYTES_MIN: u64 = 1 << 30;

/// The processor, the GPUs, and what these options take of them.
pub(super) fn engines(args: &serve::Args) -> [Finding; 3] {
    let options = args.engine.options();
    let found = gpus();
    let expected = "engines that give the known answers";
    let taken = match devices::tried(options) {
        Err(error) => Finding::new("engines", error.to_string(), expected)
            .fail("ask for what is there (--engine, --gpu, --isa), or for nothing"),
        Ok((names, why_no_gpu)) => {
            let finding = Finding::new("engines", names.join("; "), expected);
            let usable = found.iter().any(|gpu| gpu.kind == GpuKind::Real);
            match why_no_gpu.filter(|_| usable) {
                Some(why) => finding.warn(format!("{why}; update its driver")),
                None => finding,
            }
        }
    };
    [processor(Isa::detect().name()), devices_found(&found), taken]
}

fn processor(best: IsaName) -> Finding {
    let lacks = |name: &IsaName| name.lacks().filter(|lacks| !lacks.is_empty());
    let faster = IsaName::ALL.iter().rev().take_while(|&&name| name != best);
    let missing: Vec<String> = faster
        .filter_map(|name| Some(format!("{} lacks {}", name.name(), lacks(name)?.join(", "))))
        .collect();
    let found = match missing.is_empty() {
        true => best.name().to_owned(),
        false => format!("{} ({})", best.name(), missing.join("; ")),
    };
    let finding = Finding::new("processor", found, "amx, avx512 or neon");
    match best {
        IsaName::Amx | IsaName::Avx512 | IsaName::Neon => finding,
        IsaName::Avx512Bw | IsaName::Avx2 => finding.warn(
            "a newer processor (Ice Lake, Zen 4 or later) answers about twice as many; in a \
             virtual machine, have the host pass its features on",
        ),
        IsaName::Portable => finding.warn(
            "this is many times slower than a processor with AVX2, or AArch64 with asimddp; in a \
             virtual machine, have the host pass its features on",
        ),
    }
}

fn devices_found(found: &[GpuInfo]) -> Finding {
    let expected = "GPUs that Vulkan finds, or none in the machine";
    if found.is_empty() {
        let file = GPU_FILES.into_iter().find(|file| Path::new(file).exists());
        let Some(file) = file else {
            return Finding::new("gpu", "none: the processor answers", expected);
        };
        return Finding::new("gpu", format!("none by Vulkan, though there is {file}"), expected)
            .warn(
                "apt install libvulkan1 and the driver's Vulkan part (mesa-vulkan-drivers, or in a \
                 container NVIDIA_DRIVER_CAPABILITIES=compute,graphics,utility); be in the file's \
                 group",
            );
    }
    let names = found.iter().map(|gpu| match (&gpu.lacks, gpu.kind) {
        (Some(lacks), _) => format!("{} (too few {lacks})", gpu.name),
        (None, GpuKind::Software) => format!("{} (software, taken when named)", gpu.name),
        (None, GpuKind::Real) => format!("{} (driver {})", gpu.name, gpu.driver),
    });
    let finding = Finding::new("gpu", names.collect::<Vec<_>>().join("; "), expected);
    match found.iter().any(|gpu| gpu.kind == GpuKind::Real && gpu.lacks.is_some()) {
        true => finding.warn("update the driver; `sotto devices` says more"),
        false => finding,
    }
}

/// Whether shards and the budget of connections and queues fit together.
pub(super) fn memory(database: Option<&Database>, args: &serve::Args) -> Finding {
    let Some(machine) = machine_bytes() else {
        return Finding::new("memory", "the system does not say", "that it does")
            .warn("mount /proc");
    };
    let Some(database) = database else {
        let expected = format!("{} or more", bytes(MEMORY_BYTES_MIN));
        let finding = Finding::new("memory", bytes(machine), expected);
        return if machine < MEMORY_BYTES_MIN { finding.fail("have more") } else { finding };
    };
    let bounds = match serve::bounds(args.memory, database.shape()) {
        Ok(bounds) => bounds,
        Err(error) => {
            return Finding::new("memory", error, "a budget that fits the machine")
                .fail("change --memory, or have more");
        }
    };
    let budget = bounds.memory(database.shape()).total();
    let shards = u64::from(database.shard_count()) * file_bytes(database.shape());
    let expected = format!(
        "{}: {} of shards, {} of queues",
        bytes(shards + budget),
        bytes(shards),
        bytes(budget)
    );
    let finding = Finding::new("memory", bytes(machine), expected);
    match shards + budget > machine {
        true => finding.warn(
            "shards that are not in memory are read from the disk at each pass: have more, give \
             queues less (--memory), or serve fewer records here",
        ),
        false => finding,
    }
}

/// Files and maps a process may have.
pub(super) fn limits(database: Option<&Database>) -> [Finding; 2] {
    let hard = getrlimit(Resource::Nofile).maximum;
    let found = hard.map_or("any number".to_owned(), |hard| hard.to_string());
    let files = Finding::new("files", found, format!("{} or more", serve::OTHER_FILES));
    let files = match hard.is_some_and(|hard| hard < serve::OTHER_FILES) {
        true => files.fail(format!(
            "raise the hard limit: `ulimit -Hn {0}` as root, LimitNOFILE={0} in the unit",
            serve::OTHER_FILES
        )),
        false => files,
    };
    [files, maps(database.map_or(0, |database| database.shard_count().into()), serve::maps_max())]
}

/// A shard is a map; while a new epoch comes in, those of both are there.
fn maps(shards: u64, maps_max: Option<u64>) -> Finding {
    let (least, wanted) = (shards + serve::OTHER_MAPS, 2 * shards + serve::OTHER_MAPS);
    let expected = format!("vm.max_map_count of {wanted} or more: two a shard, and some");
    let Some(maps_max) = maps_max else {
        return Finding::new("maps", "the system does not say", expected).warn("mount /proc");
    };
    let finding = Finding::new("maps", maps_max.to_string(), expected);
    let advice = format!("sysctl -w vm.max_map_count={wanted} (deploy/90-sotto.conf)");
    match maps_max {
        _ if maps_max < least => finding.fail(advice),
        _ if maps_max < wanted => finding.warn(advice),
        _ => finding,
    }
}

/// The address, and how much the system keeps of a socket.
pub(super) fn sockets(listen: Option<SocketAddr>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(address) = listen {
        let expected = "an address that can be listened on (UDP)";
        let finding = |found: String| Finding::new("address", found, expected);
        findings.push(match udp_socket(address).map_err(|error| (error.kind(), error)) {
            Ok(_) => finding(format!("{address} is free")),
            Err((ErrorKind::AddrInUse, _)) => finding(format!("{address} is taken"))
                .warn("it is this server's, if that runs; if not, take another (--listen)"),
            Err((ErrorKind::PermissionDenied, _)) => finding(format!("{address} is not allowed"))
                .fail("take a port from 1024 on, or give the server CAP_NET_BIND_SERVICE"),
            Err((_, error)) => finding(format!("{address}: {error}"))
                .fail("take an address of this machine (--listen)"),
        });
    }
    let any = SocketAddr::from((IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    match udp_socket(any) {
        Ok((_, room)) => {
            findings.push(buffer("receive buffer", "rmem_max", room.receive));
            findings.push(buffer("send buffer", "wmem_max", room.send));
        }
        Err(error) => findings.push(
            Finding::new("receive buffer", error.to_string(), "a UDP socket on loopback")
                .fail("allow this process sockets of AF_INET"),
        ),
    }
    findings
}

fn buffer(check: &'static str, setting: &str, room: usize) -> Finding {
    let setting = format!("net.core.{setting}");
    let path = Path::new("/proc/sys").join(setting.replace('.', "/"));
    let bound = read_to_string(path).map(|text| format!("{setting} is {}", text.trim()));
    let bound = bound.unwrap_or_else(|_| format!("{setting} is not shown here"));
    let found = format!("a socket gets {} ({bound})", bytes(room as u64));
    let finding = Finding::new(check, found, format!("{} or more", bytes(SOCKET_BYTES as u64)));
    match room < SOCKET_BYTES {
        true => finding.warn(format!(
            "packets are lost in bursts: sysctl -w {setting}={SOCKET_BYTES} (deploy/90-sotto.conf)"
        )),
        false => finding,
    }
}

/// Whether maps of shards may have large pages.
pub(super) fn large_pages() -> Finding {
    const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let expected = "always or madvise";
    match read_to_string(SETTING) {
        Err(error) => Finding::new("large pages", format!("not shown here ({error})"), expected)
            .warn(format!("look at {SETTING} on the host")),
        Ok(text) => {
            let chosen = text.split(['[', ']']).nth(1).unwrap_or("unknown");
            let finding = Finding::new("large pages", chosen, expected);
            match chosen {
                "always" | "madvise" => finding,
                _ => finding
                    .warn(format!("a pass over a shard takes longer: echo madvise > {SETTING}")),
            }
        }
    }
}

/// Unix seconds.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

/// Whether it is not before the database was made, and whether something sets it.
pub(super) fn clock(created: Option<u64>) -> Finding {
    let expected = "a clock that is set over the network; certificates are checked by it";
    let created = i64::try_from(created.unwrap_or(0)).unwrap_or(i64::MAX);
    let behind = created.saturating_sub(now());
    if behind > 0 {
        return Finding::new("clock", format!("{behind} s before the database was made"), expected)
            .fail("set it: `timedatectl set-ntp true`");
    }
    match CLOCK_FILES.iter().find(|(file, _)| Path::new(file).exists()) {
        Some((_, sign)) => Finding::new("clock", *sign, expected),
        None => Finding::new("clock", "no sign here that something sets it", expected)
            .warn("`timedatectl set-ntp true`; in a container the host's is what counts"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn maps_are_enough_for_one_epoch_or_for_two() {
        let status = |shards, maps_max| maps(shards, maps_max).status;
        assert_eq!(status(10_000, Some(65_530)), Status::Ok);
        assert_eq!(status(40_000, Some(65_530)), Status::Warn);
        assert_eq!(status(65_000, Some(65_530)), Status::Fail);
        assert_eq!(status(0, None), Status::Warn);
        assert!(maps(65_000, Some(65_530)).advice.contains("vm.max_map_count=131000"));
    }

    #[test]
    fn a_processor_says_what_a_faster_one_has() {
        let slow = processor(IsaName::Portable);
        assert_eq!(slow.status, Status::Warn);
        let here = Isa::detect().name();
        let finding = processor(here);
        assert!(finding.found.starts_with(here.name()), "{finding:?}");
        // What this one lacks of the next, it says; of another kind of processor it says nothing.
        let other = if cfg!(target_arch = "x86_64") { "neon" } else { "avx" };
        assert!(!processor(IsaName::Portable).found.contains(other));
    }

    #[test]
    fn a_clock_before_the_database_fails() {
        assert_ne!(clock(None).status, Status::Fail);
        assert_ne!(clock(Some(now() as u64)).status, Status::Fail);
        let ahead = clock(Some(now() as u64 + 1_000));
        assert_eq!(ahead.status, Status::Fail);
        assert!(ahead.found.ends_with("s before the database was made"), "{ahead:?}");
        assert_eq!(clock(Some(u64::MAX)).status, Status::Fail);
    }

    #[test]
    fn buffers_are_what_was_asked_for_or_a_warning() {
        assert_eq!(buffer("receive buffer", "rmem_max", SOCKET_BYTES).status, Status::Ok);
        let less = buffer("receive buffer", "rmem_max", 212_992);
        assert_eq!(less.status, Status::Warn);
        assert!(less.advice.contains("sysctl -w net.core.rmem_max=8388608"), "{less:?}");
    }
}
