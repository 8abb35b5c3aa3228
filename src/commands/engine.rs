//! The options that say what computes, for every command that does.

use std::num::{NonZeroU16, NonZeroUsize};

use clap::builder::TypedValueParser as _;
use clap::value_parser;
use sotto::engine::{EngineChoice, EngineOptions, GpuChoice, IsaChoice};
use sotto::limits;

/// What computes.
#[derive(clap::Args, Clone)]
pub(crate) struct EngineArgs {
    /// What computes: auto (every GPU that proves itself, beside the processor), gpu or cpu.
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    engine: EngineChoice,
    /// Which GPU, by number or part of its name (see `sotto devices`); may be given again.
    #[arg(long, value_name = "INDEX|NAME")]
    gpu: Vec<GpuChoice>,
    /// Memory of each GPU that shards may take; when absent nearly all there is, or 4 GiB where
    /// it uses the host's.
    #[arg(long, value_name = "MIB", value_parser = value_parser!(u32).range(1..))]
    gpu_memory: Option<u32>,
    /// The CPU engine's instruction set: auto, portable, avx2, avx512bw, avx512,
    /// amx or neon.
    #[arg(long, value_name = "ISA", default_value = "auto")]
    isa: IsaChoice,
    /// Threads of the CPU engine; as many as there are cores when absent.
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
