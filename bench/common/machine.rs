//! What machine this is, and what its commands say.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// Processor flags that decide which engine runs.
const FLAGS: [&str; 12] = [
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
    "avx512ifma",
    "avx512vbmi",
    "amx_tile",
    "amx_int8",
    "asimd",
    "asimddp",
];

/// What was measured.
#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    logical_cpus: usize,
    pub(crate) pinned_to: Vec<usize>,
    flags: Vec<&'static str>,
    arch: &'static str,
    kernel: Option<String>,
    /// Before the run.
    pub(crate) load: String,
}

impl Machine {
    pub(crate) fn new(cores: &[usize]) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name));
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let flags = field("flags").or_else(|| field("Features")).unwrap_or_default();
        let has = |flag: &&str| flags.split(' ').any(|found| found == *flag);
        let cpu = field("model name").or_else(|| field("CPU part"));
        Self {
            cpu: cpu.unwrap_or_else(|| "unknown".into()),
            logical_cpus: info.lines().filter(|line| line.starts_with("processor")).count(),
            pinned_to: cores.to_vec(),
            flags: FLAGS.into_iter().filter(has).collect(),
            arch: std::env::consts::ARCH,
            kernel: said("uname", &["-sr"]),
            load: fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
        }
    }
}

/// What a command prints, if it can be run.
pub(crate) fn said(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The commit: of the working tree, or what a program carried elsewhere was told it was built from.
pub(crate) fn commit() -> Option<String> {
    let told = std::env::var("SOTTO_COMMIT").ok();
    told.or_else(|| said("git", &["describe", "--always", "--dirty"]))
}
