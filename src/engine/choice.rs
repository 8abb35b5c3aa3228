//! What an operator may choose, and the GPUs there are to choose from.

use std::num::NonZeroUsize;
use std::str::FromStr;

use crate::arith::IsaName;

/// Which device answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum EngineChoice {
    /// Every real GPU that proves itself, or else the processor alone.
    #[default]
    Auto,
    Gpu,
    Cpu,
}

/// Which GPU, of those that [`super::gpus`] lists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum GpuChoice {
    Index(usize),
    /// One whose name has this in it, in upper or lower case; given again, the next such one.
    Name(String),
}

/// The options of the engines.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)] // Names say it.
pub struct EngineOptions {
    pub engine: EngineChoice,
    /// Which GPUs; one that is named is taken or refused, and may be a software one. A number given
    /// twice, or a name more often than there are such GPUs, opens one twice.
    pub gpus: Vec<GpuChoice>,
    /// Memory of each GPU that shards may take, in bytes; when absent nearly all it has, or
    /// 4 GiB of the host's.
    pub gpu_bytes: Option<u64>,
    pub isa: IsaChoice,
    /// Threads of the processor; as many as there are cores when absent.
    pub threads: Option<NonZeroUsize>,
}

/// A GPU as `sotto devices` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct GpuInfo {
    /// Its place in the list, which names it.
    pub index: usize,
    pub name: String,
    /// Where it is plugged in (PCI); empty where the driver does not say.
    pub bus: String,
    pub driver: String,
    pub kind: GpuKind,
    /// Largest piece of a shard that one kernel sees, in bytes.
    pub binding_bytes_max: u64,
    pub workgroup_bytes_max: u32,
    /// What it lacks to run the kernels; nothing if it can.
    pub lacks: Option<String>,
}

/// Whether a GPU is hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum GpuKind {
    Real,
    /// A processor that plays a GPU: for tests.
    Software,
}

/// Which instruction set the CPU engine uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum IsaChoice {
    /// The fastest one this processor has.
    #[default]
    Auto,
    Only(IsaName),
}

fn unknown(found: &str, expected: &str) -> String {
    format!("found {found:?}, expected {expected}")
}

impl FromStr for EngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "gpu" => Ok(Self::Gpu),
            "cpu" => Ok(Self::Cpu),
            _ => Err(unknown(text, "auto, gpu or cpu")),
        }
    }
}

impl FromStr for GpuChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err(unknown(text, "a number or part of a name that `sotto devices` lists"));
        }
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_lowercase()), Self::Index))
    }
}

impl std::fmt::Display for GpuChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for IsaChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let named = IsaName::ALL.into_iter().find(|isa| isa.name() == text);
        let expected = "auto, portable, avx2, avx512bw, avx512, amx or neon";
        named.map(Self::Only).ok_or_else(|| unknown(text, expected))
    }
}
