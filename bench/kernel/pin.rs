//! Which cores there are, and threads pinned to them. One thread a core, no two of one core's
//! hyperthreads; nothing of this is in the library.

use std::fs;

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// Threads at most: the targets are about one core and two.
const CORES_MAX: usize = 2;

/// The first processor of each of the first two cores this process may use; at least one.
pub(super) fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap_or_else(|_| cpu_set(&[0]));
    let mut taken: Vec<(String, usize)> = Vec::new();
    for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)) {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let siblings = fs::read_to_string(path).unwrap_or_else(|_| cpu.to_string());
        if taken.len() < CORES_MAX && taken.iter().all(|(others, _)| *others != siblings) {
            taken.push((siblings, cpu));
        }
    }
    let mut cores: Vec<_> = taken.into_iter().map(|(_, cpu)| cpu).collect();
    if cores.is_empty() {
        cores.push(0);
    }
    if cores.len() < CORES_MAX {
        println!("One core only: nothing is measured with two threads.");
    }
    cores
}

fn cpu_set(cpus: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    set
}

fn pin(thread: Option<Pid>, cpus: &[usize]) {
    if let Err(error) = sched_setaffinity(thread, &cpu_set(cpus)) {
        println!("WARNING: a thread is not pinned to {cpus:?} ({error}): times will vary more.");
    }
}

pub(super) fn pin_this_thread(cpus: &[usize]) {
    pin(None, cpus);
}

/// Pins thread i of every engine's pool to the i-th core.
pub(super) fn pin_engines(cores: &[usize]) -> std::io::Result<()> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        let name = fs::read_to_string(task.path().join("comm"))?;
        let index = name.trim().strip_prefix("engine-cpu-").and_then(|i| i.parse::<usize>().ok());
        let id = task.file_name().to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        if let (Some(index), Some(id)) = (index, id) {
            pin(Some(id), &cores[index % cores.len()..][..1]);
        }
    }
    Ok(())
}
