//! What the machine gives: engines, memory, the system's limits, sockets.

use std::fs::read_to_string;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
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

use super::finding::Finding;
use crate::commands::{devices, serve};

/// What is there where a driver for a GPU is, whatever Vulkan finds.
const GPU_FILES: [&str; 3] = ["/dev/dri/renderD128", "/dev/nvidia0", "/dev/nvidiactl"];
/// Maps a process has besides those of shards: code, stacks, heap.
const OTHER_MAPS: u64 = 1_000;
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
            let is_usable = found.iter().any(|gpu| gpu.kind == GpuKind::Real);
            let is_wrong = is_usable && why_no_gpu.is_some();
            Finding::new("engines", names.join("; "), expected)
                .warn_if(is_wrong, why_no_gpu.unwrap_or_default() + "; update its driver")
        }
    };
    [processor(Isa::detect().name()), devices_found(&found), taken]
}

fn processor(best: IsaName) -> Finding {
    let faster = IsaName::ALL.iter().rev().take_while(|&&name| name != best);
    let lacks = faster.filter_map(|name| {
        let lacks = name.lacks().filter(|lacks| !lacks.is_empty())?;
        Some(format!("; {} lacks {}", name.name(), lacks.join(", ")))
    });
    let found = best.name().to_owned() + &lacks.collect::<String>();
    let finding = Finding::new("processor", found, "amx, avx512 or neon");
    let advice = match best {
        IsaName::Amx | IsaName::Avx512 | IsaName::Neon => return finding,
        IsaName::Avx512Bw | IsaName::Avx2 => {
            "a newer processor (Ice Lake, Zen 4 or later) answers about twice as many"
        }
        IsaName::Portable => {
            "this is many times slower than a processor with AVX2, or AArch64 with asimddp"
        }
    };
    finding.warn(format!("{advice}; in a virtual machine, let the host pass its features on"))
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
    let is_lacking = found.iter().any(|gpu| gpu.kind == GpuKind::Real && gpu.lacks.is_some());
    Finding::new("gpu", names.collect::<Vec<_>>().join("; "), expected)
        .warn_if(is_lacking, "update the driver; `sotto devices` says more")
}

/// Whether shards and the budget of connections and queues fit together.
pub(super) fn memory(database: Option<&Database>, args: &serve::Args) -> Finding {
    let Some(machine) = machine_bytes() else {
        return Finding::new("memory", "the system does not say", "that it does")
            .warn("mount /proc");
    };
    let Some(database) = database else {
        let expected = format!("{} or more", bytes(MEMORY_BYTES_MIN));
        return Finding::new("memory", bytes(machine), expected)
            .fail_if(machine < MEMORY_BYTES_MIN, "add memory");
    };
    let bounds = match serve::bounds(args.memory, args.connections, database.shape()) {
        Ok(bounds) => bounds,
        Err(error) => {
            return Finding::new("memory", error, "a budget that fits the machine")
                .fail("lower --memory, or add memory");
        }
    };
    let budget = bounds.memory(database.shape()).total();
    let shards = database.held().len() as u64 * file_bytes(database.shape());
    let expected = format!(
        "{}: {} of shards, {} of queues",
        bytes(shards + budget),
        bytes(shards),
        bytes(budget)
    );
    Finding::new("memory", bytes(machine), expected).warn_if(
        shards + budget > machine,
        "shards that are not in memory are read from the disk for each batch: add memory, \
         lower --memory, or serve fewer records here",
    )
}

/// Files and maps a process may have.
pub(super) fn limits(database: Option<&Database>) -> [Finding; 2] {
    let (hard, least) = (getrlimit(Resource::Nofile).maximum, serve::OTHER_FILES);
    let found = hard.map_or("any number".to_owned(), |hard| hard.to_string());
    let files = Finding::new("files", found, format!("{least} or more")).fail_if(
        hard.is_some_and(|hard| hard < least),
        format!(
            "raise the hard limit: `ulimit -Hn {least}` as root, LimitNOFILE={least} in the unit"
        ),
    );
    let maps_max = read_to_string("/proc/sys/vm/max_map_count").ok();
    let maps_max = maps_max.and_then(|text| text.trim().parse().ok());
    [files, maps(database.map_or(0, |database| database.held().len() as u64), maps_max)]
}

/// A shard is a map; while a new epoch comes in, those of both are there.
fn maps(shards: u64, maps_max: Option<u64>) -> Finding {
    let (least, wanted) = (shards + OTHER_MAPS, 2 * shards + OTHER_MAPS);
    let expected = format!("vm.max_map_count of {wanted} or more: two a shard, and some");
    let Some(maps_max) = maps_max else {
        return Finding::new("maps", "the system does not say", expected).warn("mount /proc");
    };
    let advice = format!("sysctl -w vm.max_map_count={wanted} (deploy/90-sotto.conf)");
    Finding::new("maps", maps_max.to_string(), expected)
        .warn_if(maps_max < wanted, &advice)
        .fail_if(maps_max < least, &advice)
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
    match udp_socket((Ipv4Addr::LOCALHOST, 0).into()) {
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
    Finding::new(check, found, format!("{} or more", bytes(SOCKET_BYTES as u64))).warn_if(
        room < SOCKET_BYTES,
        format!(
            "packets are lost in bursts: sysctl -w {setting}={SOCKET_BYTES} (deploy/90-sotto.conf)"
        ),
    )
}

/// Unix seconds.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    #[test]
    fn maps_are_enough_for_one_epoch_or_for_two() {
        for (shards, maps_max, expected) in [
            (10_000, Some(65_530), Status::Ok),
            (40_000, Some(65_530), Status::Warn),
            (65_000, Some(65_530), Status::Fail),
            (0, None, Status::Warn),
        ] {
            assert_eq!(maps(shards, maps_max).status, expected, "{shards}");
        }
        assert!(maps(65_000, Some(65_530)).advice.contains("vm.max_map_count=131000"));
    }

    #[test]
    fn a_processor_is_named_and_a_slow_one_is_a_warning() {
        assert_eq!(processor(IsaName::Portable).status, Status::Warn);
        let here = Isa::detect().name();
        assert!(processor(here).found.starts_with(here.name()));
    }

    #[test]
    fn buffers_are_what_was_asked_for_or_a_warning() {
        assert_eq!(buffer("receive buffer", "rmem_max", SOCKET_BYTES).status, Status::Ok);
        let less = buffer("receive buffer", "rmem_max", 212_992);
        assert_eq!(less.status, Status::Warn);
        assert!(less.advice.contains("sysctl -w net.core.rmem_max=8388608"), "{less:?}");
    }
}
