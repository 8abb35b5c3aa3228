//! Picks the engines once, at start, and has each prove itself before it serves.
//!
//! What an operator names is taken or refused, never replaced. The processor's engine is always
//! taken: it answers what a GPU does not hold, and everything when GPUs fail.

use std::num::NonZeroUsize;

use super::choice::{EngineChoice, EngineOptions, GpuChoice, GpuInfo, GpuKind, IsaChoice};
use super::cpu::CpuEngine;
use super::kernel::Kernels;
use super::known_answer::{KNOWN_TO_PROCESSORS, prove};
use super::portable::Portable;
use super::{Engine, EngineError};
use crate::arith::Isa;

/// The engines that were picked.
pub struct Selected {
    /// The processor's, then those of GPUs, proven.
    pub engines: Vec<Box<dyn Engine>>,
    /// That a GPU that would have been taken was not, and why: one line for the log.
    pub why_no_gpu: Option<String>,
}

/// Why no engine was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names say it.
pub enum SelectError {
    #[error(
        "the instruction set {wanted} was asked for, this processor does not have all of it: \
         use one of {present}, or auto"
    )]
    IsaMissing { wanted: &'static str, present: String },
    #[error("could not start {threads} engine threads ({reason}): ask for fewer")]
    Threads { threads: usize, reason: String },
    #[error("a GPU was asked for: {reason}; `sotto devices` lists what is here")]
    Gpu { reason: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// One engine, for who wants no more: a GPU's where one is taken, or else the processor's.
pub fn select(
    engine: EngineChoice,
    isa: IsaChoice,
    threads: Option<NonZeroUsize>,
) -> Result<Box<dyn Engine>, SelectError> {
    let options = EngineOptions { engine, isa, threads, ..EngineOptions::default() };
    let mut selected = select_with(&options)?;
    Ok(selected.engines.pop().expect("this is a bug: the processor is always there"))
}

/// Makes the engines asked for and checks each against [`crate::scheme::reference`] on small
/// shards: the processor's always, and the GPUs that are named, or else every real one.
pub fn select_with(options: &EngineOptions) -> Result<Selected, SelectError> {
    let forced = !options.gpus.is_empty() || options.engine == EngineChoice::Gpu;
    let mut processor = cpu(options.isa, options.threads)?;
    prove(processor.as_mut(), &KNOWN_TO_PROCESSORS)?;
    let mut engines = vec![processor];
    if options.engine == EngineChoice::Cpu {
        let reason = "--engine cpu and --gpu contradict each other".into();
        return match forced {
            true => Err(SelectError::Gpu { reason }),
            false => Ok(Selected { engines, why_no_gpu: None }),
        };
    }
    let all = gpus();
    let mut reasons = Vec::new();
    if options.gpus.is_empty() {
        for info in all.iter().filter(|info| info.kind == GpuKind::Real) {
            match take(info, options.gpu_bytes) {
                Ok(engine) => engines.push(engine),
                Err(reason) => reasons.push(reason),
            }
        }
        if engines.len() == 1 && reasons.is_empty() {
            reasons.push(none_of(&all, "there are only software ones, taken when named (--gpu):"));
        }
    }
    let mut before = Vec::new();
    for choice in &options.gpus {
        let taken = take_named(choice, &all, &before, options.gpu_bytes);
        let (index, engine) = taken.map_err(|reason| SelectError::Gpu { reason })?;
        before.push(index);
        engines.push(engine);
    }
    let reason = reasons.join("; ");
    if forced && engines.len() == 1 {
        return Err(SelectError::Gpu { reason });
    }
    let none = if engines.len() == 1 { "no GPU is used" } else { "a GPU is not used" };
    let why_no_gpu = (!reason.is_empty()).then(|| format!("{none}: {reason}"));
    Ok(Selected { engines, why_no_gpu })
}

/// Every GPU that the Vulkan loader finds, in its order.
pub fn gpus() -> Vec<GpuInfo> {
    #[cfg(feature = "gpu")]
    return super::gpu::infos();
    #[cfg(not(feature = "gpu"))]
    return Vec::new();
}

/// The GPU that is named with its number, of several the first that was not taken `before`; or why
/// there is none.
fn take_named(
    choice: &GpuChoice,
    all: &[GpuInfo],
    before: &[usize],
    shard_bytes: Option<u64>,
) -> Result<(usize, Box<dyn Engine>), String> {
    let is_meant = |info: &&GpuInfo| match choice {
        GpuChoice::Index(index) => info.index == *index,
        GpuChoice::Name(name) => info.name.to_lowercase().contains(name.as_str()),
    };
    let mut meant: Vec<&GpuInfo> = all.iter().filter(is_meant).collect();
    if meant.is_empty() {
        return Err(none_of(all, &format!("none is {choice}: there are")));
    }
    meant.sort_by_key(|info| before.iter().filter(|&&index| index == info.index).count());
    let mut reasons = Vec::new();
    for info in meant {
        match take(info, shard_bytes) {
            Ok(engine) => return Ok((info.index, engine)),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join("; "))
}

/// Why none of these may be taken: there is none, or what is to be said before their names.
fn none_of(all: &[GpuInfo], before: &str) -> String {
    if all.is_empty() {
        return NONE_FOUND.into();
    }
    let names: Vec<&str> = all.iter().map(|info| info.name.as_str()).collect();
    format!("{before} {}", names.join(", "))
}

#[cfg(feature = "gpu")]
const NONE_FOUND: &str = "the Vulkan loader finds no GPU (no loader, no driver, or none here)";
#[cfg(not(feature = "gpu"))]
const NONE_FOUND: &str = "this program was built without the feature gpu";

/// Opens a GPU, which proves itself. A driver that panics is one that does not.
#[cfg(feature = "gpu")]
fn take(info: &GpuInfo, shard_bytes: Option<u64>) -> Result<Box<dyn Engine>, String> {
    let options = super::gpu::GpuOptions { shard_bytes, ..Default::default() };
    let opened = std::panic::catch_unwind(|| super::gpu::GpuEngine::new(info.index, &options));
    let why = match opened {
        Ok(Ok(engine)) => return Ok(Box::new(engine)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "its driver or our use of it panicked".into(),
    };
    Err(format!("{}: {why}", info.name))
}

/// None was compiled in.
#[cfg(not(feature = "gpu"))]
fn take(_: &GpuInfo, _: Option<u64>) -> Result<Box<dyn Engine>, String> {
    Err(NONE_FOUND.into())
}

fn cpu(choice: IsaChoice, threads: Option<NonZeroUsize>) -> Result<Box<dyn Engine>, SelectError> {
    let isa = match choice {
        IsaChoice::Auto => Isa::detect(),
        IsaChoice::Only(name) => Isa::new(name).ok_or_else(|| SelectError::IsaMissing {
            wanted: name.name(),
            present: Isa::all().iter().map(|isa| isa.name().name()).collect::<Vec<_>>().join(", "),
        })?,
    };
    let threads = threads.or_else(|| std::thread::available_parallelism().ok());
    let threads = threads.map_or(1, NonZeroUsize::get);
    let made = CpuEngine::new(kernels(isa), isa, threads);
    let made = made.map_err(|error| SelectError::Threads { threads, reason: error.to_string() })?;
    Ok(Box::new(made))
}

fn kernels(isa: Isa) -> Box<dyn Kernels> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m256i, __m512i};
        if let Some(kernels) = super::amx::Amx::new(isa) {
            return Box::new(kernels);
        }
        if let Some(kernels) = super::avx512::Avx512::new(isa) {
            return Box::new(kernels);
        }
        if let Some(kernels) = super::avx::Avx::<__m512i>::new(isa) {
            return Box::new(kernels);
        }
        if let Some(kernels) = super::avx::Avx::<__m256i>::new(isa) {
            return Box::new(kernels);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(kernels) = super::neon::Neon::new(isa) {
        return Box::new(kernels);
    }
    let _ = isa;
    Box::new(Portable)
}
