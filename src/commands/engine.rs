//! The options that say what computes, for every command that does.

use std::num::{NonZeroU16, NonZeroUsize};

use clap::builder::TypedValueParser as _;
use clap::value_parser;
use sotto::engine::{EngineChoice, EngineOptions, GpuChoice, IsaChoice};
use sotto::limits;

/// What computes.
#[derive(clap::Args, Clone)]
pub(crate) struct EngineArgs {
    /// Engines that answer: auto (the processor and every GPU that passes its known-answer test),
    /// gpu or cpu.
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    engine: EngineChoice,
    /// Use this GPU only, by number or part of its name (see `sotto devices`); may be given several
    /// times.
    #[arg(long, value_name = "INDEX|NAME")]
    gpu: Vec<GpuChoice>,
    /// Memory of each GPU that shards may take. By default nearly all of it, or 4 GiB on a GPU that
    /// uses the host's memory.
    #[arg(long, value_name = "MIB", value_parser = value_parser!(u32).range(1..))]
    gpu_memory: Option<u32>,
    /// The CPU engine's instruction set: auto, portable, avx2, avx512bw, avx512,
    /// amx or neon.
    #[arg(long, value_name = "ISA", default_value = "auto")]
    isa: IsaChoice,
    /// Threads of the CPU engine. By default as many as there are cores.
    #[arg(long, value_name = "N", value_parser = value_parser!(u16)
        .range(1..=limits::THREADS_MAX as i64).try_map(NonZeroU16::try_from))]
    threads: Option<NonZeroU16>,
}

impl EngineArgs {
    /// The same as the library takes it.
    pub(crate) fn options(&self) -> EngineOptions {
        EngineOptions {
            engine: self.engine,
            gpus: self.gpu.clone(),
            gpu_bytes: self.gpu_memory.map(|mib| u64::from(mib) << 20),
            isa: self.isa,
            threads: self.threads.map(NonZeroUsize::from),
        }
    }
}
