//! `sotto devices`: the GPUs of this machine, and the engines that `sotto serve` would use.

use std::process::ExitCode;

use sotto::engine::{EngineOptions, GpuKind, SelectError, Selected, gpus, select_with};

use super::{Ended, out};

/// Lists GPUs with their limits, and the engines that a server would use.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Memory for shards during the known-answer test of a GPU, in bytes.
const TRIED_BYTES: u64 = 256 << 20;

/// The names of the engines that these options select, and why there is no GPU among them. Each
/// passes its known-answer test with little memory, because a server beside it may need the rest.
pub(super) fn tried(options: EngineOptions) -> Result<(Vec<String>, Option<String>), SelectError> {
    let options = EngineOptions { gpu_bytes: Some(TRIED_BYTES), ..options };
    let Selected { engines, why_no_gpu } = select_with(&options)?;
    let names = engines.iter().map(|engine| {
        let name = engine.name();
        let parts = name.split(", ").filter(|part| !part.ends_with("for shards"));
        parts.collect::<Vec<_>>().join(", ")
    });
    Ok((names.collect(), why_no_gpu))
}

pub(crate) fn run(Args {}: Args) -> Ended {
    let found = gpus();
    if found.is_empty() {
        out::say("no GPU: the Vulkan loader finds none")?;
    }
    for info in found {
        out::say(format_args!("{}: {}", info.index, info.name))?;
        let kind = match info.kind {
            GpuKind::Real => "hardware",
            GpuKind::Software => "emulated by the processor; used only when --gpu names it",
        };
        let (binding, workgroup) = (info.binding_bytes_max >> 20, info.workgroup_bytes_max >> 10);
        out::say(format_args!("   {kind}"))?;
        out::say(format_args!("   driver {}", info.driver))?;
        out::say(format_args!("   {binding} MiB a binding, {workgroup} KiB a workgroup"))?;
        if let Some(lacks) = info.lacks {
            out::say(format_args!("   cannot be used: it has too few {lacks}"))?;
        }
    }
    let (names, why_no_gpu) = tried(EngineOptions::default())?;
    for name in names {
        out::say(format_args!("used by default: {name}"))?;
    }
    if let Some(reason) = why_no_gpu {
        out::say(reason)?;
    }
    out::say("a server finds at its start how much memory a GPU has for shards")?;
    Ok(ExitCode::SUCCESS)
}
