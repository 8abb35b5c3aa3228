//! Which processors there are, and threads pinned to them: first to one of each core, then to the
//! cores' others; nothing of this is in the library.

use std::fs;

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// What this process may use; at least one.
pub(super) struct Cores {
    /// By thread: one processor of each core, then the others.
    pub(super) cpus: Vec<usize>,
    /// How many are the first of their core.
    pub(super) cores: usize,
}

impl Cores {
    pub(super) fn new() -> Self {
        let allowed = sched_getaffinity(None).unwrap_or_else(|_| cpu_set(&[0]));
        let (mut taken, mut cpus, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)) {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            let siblings = fs::read_to_string(path).unwrap_or_else(|_| cpu.to_string());
            if taken.contains(&siblings) {
                others.push(cpu);
            } else {
                taken.push(siblings);
                cpus.push(cpu);
            }
        }
        let cores = cpus.len();
        cpus.append(&mut others);
        Self { cpus, cores }
    }

    /// Numbers of threads to measure: 1, 2, 4, .., one a core, and one a processor.
    pub(super) fn counts(&self) -> Vec<usize> {
        let powers = (0..).map(|power| 1 << power).take_while(|&count| count < self.cores);
        let mut counts: Vec<_> = powers.chain([self.cores, self.cpus.len()]).collect();
        counts.dedup();
        counts
    }
}

fn cpu_set(cpus: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    set
}

fn pin(thread: Option<Pid>, cpus: &[usize]) {
    if let Err(error) = sched_setaffinity(thread, &cpu_set(cpus)) {
        tracing::warn!("a thread is not pinned to {cpus:?} ({error}): times will vary more");
    }
}

pub(super) fn pin_this_thread(cpus: &[usize]) {
    pin(None, cpus);
}

/// Pins thread i of every engine's pool to the i-th processor.
pub(super) fn pin_engines(cpus: &[usize]) -> std::io::Result<()> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        let name = fs::read_to_string(task.path().join("comm"))?;
        let index = name.trim().strip_prefix("engine-cpu-").and_then(|i| i.parse::<usize>().ok());
        let id = task.file_name().to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        if let (Some(index), Some(id)) = (index, id) {
            pin(Some(id), &cpus[index % cpus.len()..][..1]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_powers_of_two_then_cores_then_processors() {
        let counts = |cores, cpus| Cores { cpus: (0..cpus).collect(), cores }.counts();
        assert_eq!(counts(1, 1), [1]);
        assert_eq!(counts(2, 2), [1, 2]);
        assert_eq!(counts(6, 12), [1, 2, 4, 6, 12]);
        assert_eq!(counts(8, 16), [1, 2, 4, 8, 16]);
        let here = Cores::new();
        assert!(here.cores >= 1 && here.cpus.len() >= here.cores);
    }
}
