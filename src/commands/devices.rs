//! `sotto devices`: what could answer here, and what `sotto serve` would take by itself.

use std::io::Write;
use std::process::ExitCode;

use sotto::engine::{EngineOptions, GpuKind, Integers, Selected, gpus, select_with};

use super::Ended;

/// Lists GPUs with their limits, and which engines would be taken.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Memory for shards while a GPU proves itself, in bytes.
const TRIED_BYTES: u64 = 256 << 20;

pub(crate) fn run(Args {}: Args) -> Ended {
    let mut out = std::io::stdout();
    let found = gpus();
    if found.is_empty() {
        writeln!(out, "no GPU: the Vulkan loader finds none")?;
    }
    for info in found {
        writeln!(out, "{}: {}", info.index, info.name)?;
        let kind = match info.kind {
            GpuKind::Real => "hardware",
            GpuKind::Software => "a processor that plays a GPU; taken only when named",
        };
        let integers = match info.integers {
            Integers::Wide => "64",
            Integers::Halves => "32",
        };
        let (binding, workgroup) = (info.binding_bytes_max >> 20, info.workgroup_bytes_max >> 10);
        writeln!(out, "   {kind}")?;
        writeln!(out, "   driver {}", info.driver)?;
        writeln!(
            out,
            "   {binding} MiB a binding, {workgroup} KiB a workgroup, {integers}-bit integers"
        )?;
        if let Some(lacks) = info.lacks {
            writeln!(out, "   cannot be used: it has too few {lacks}")?;
        }
    }
    // Little, so that memory is not looked for beside a server that needs it.
    let options = EngineOptions { gpu_bytes: Some(TRIED_BYTES), ..EngineOptions::default() };
    let Selected { engines, why_no_gpu } = select_with(&options)?;
    for engine in engines {
        let name = engine.name();
        let parts = name.split(", ").filter(|part| !part.ends_with("for shards"));
        writeln!(out, "auto takes: {}", parts.collect::<Vec<_>>().join(", "))?;
    }
    if let Some(reason) = why_no_gpu {
        writeln!(out, "{reason}")?;
    }
    writeln!(out, "how much memory a GPU has for shards is found when a server starts")?;
    Ok(ExitCode::SUCCESS)
}
