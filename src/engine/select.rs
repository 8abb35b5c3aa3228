//! Picks the engine once, at start, and has it prove itself before it serves.
//!
//! What an operator forces is taken or refused, never replaced. No timing here, and no logging:
//! the caller logs [`Engine::name`] once.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::Arc;

use super::cpu::CpuEngine;
use super::kernel::{Kernels, PRIMES};
use super::portable::Portable;
use super::{Batch, EncryptedQuery, Engine, EngineError, ShardView};
use crate::arith::{Isa, IsaName};
use crate::params::{D, Shape};
use crate::scheme::{KeyBundle, reference};

/// Which device answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The fastest one here.
    #[default]
    Auto,
    /// The processor's cores.
    Cpu,
}

/// Which instruction set the CPU engine uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IsaChoice {
    /// The fastest one this processor has.
    #[default]
    Auto,
    /// This one, or an error.
    Only(IsaName),
}

/// An option's value that names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}, expected {expected}")]
pub struct UnknownChoice {
    found: String,
    expected: &'static str,
}

impl EngineChoice {
    /// The values an option may have.
    pub const NAMES: [&'static str; 2] = ["auto", "cpu"];
}

impl FromStr for EngineChoice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, UnknownChoice> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => Err(UnknownChoice { found: text.into(), expected: "auto or cpu" }),
        }
    }
}

impl FromStr for IsaChoice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, UnknownChoice> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let named = IsaName::ALL.into_iter().find(|isa| isa.name() == text);
        let expected = "auto, portable, avx2, avx512bw, avx512, amx or neon";
        named.map(Self::Only).ok_or_else(|| UnknownChoice { found: text.into(), expected })
    }
}

/// Why no engine was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// A forced instruction set that the processor does not have.
    #[error(
        "the instruction set {wanted} was asked for, this processor does not have all of it: \
         use one of {present}, or auto"
    )]
    IsaMissing {
        /// What was asked for.
        wanted: &'static str,
        /// What is here.
        present: String,
    },
    /// The system gave no threads.
    #[error("could not start {threads} engine threads ({reason}): ask for fewer")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
    /// The engine failed on the known answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine computed something else than the reference.
    #[error(
        "engine {engine} gave a wrong answer to a known query: do not serve with it; another \
         instruction set may work (portable)"
    )]
    WrongAnswer {
        /// Its name.
        engine: String,
    },
}

/// Makes the engine asked for, with `threads` threads (none: as many as there are cores), and
/// checks it against [`crate::scheme::reference`] on a small shard.
pub fn select(
    engine: EngineChoice,
    isa: IsaChoice,
    threads: Option<NonZeroUsize>,
) -> Result<Box<dyn Engine>, SelectError> {
    let mut engine = match engine {
        EngineChoice::Auto | EngineChoice::Cpu => cpu(isa, threads)?,
    };
    known_answer(engine.as_mut())?;
    Ok(engine)
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

/// Packs of the known shard: a four and a one, twos and a one, so that two tile shapes run of each
/// pack kernel.
const KNOWN_PACKS: u32 = 5;
/// Queries of the known batch: tiles of six and of five, or of two and one over.
const KNOWN_QUERIES: usize = 11;

/// A small shard of pseudorandom bytes, answered by the engine and by the reference.
fn known_answer(engine: &mut dyn Engine) -> Result<(), SelectError> {
    let shape = Shape::new(120, 128, KNOWN_PACKS, 2112).expect("this is a bug: known shape");
    let mut bytes = blake3::Hasher::new_derive_key("sotto engine known answer").finalize_xof();
    let mut fill = |count: usize| {
        let mut drawn = vec![0; count];
        bytes.fill(&mut drawn);
        drawn
    };
    let matrix = fill(shape.matrix_bytes());
    let mut tables = fill(shape.packs() * shape.table_bytes());
    tables.chunks_exact_mut(shape.table_bytes()).for_each(reduce_residues);
    let queries: Vec<_> = (0..KNOWN_QUERIES)
        .map(|_| {
            let vector = fill(shape.query_bytes()).into();
            let mut bundle = fill(shape.bundle_bytes());
            bundle.chunks_exact_mut(2 * D * 3).for_each(reduce_residues);
            let bundle = KeyBundle::decode(&bundle, &shape).expect("this is a bug: known bundle");
            EncryptedQuery { vector, bundle: Arc::new(bundle) }
        })
        .collect();
    let shard = ShardView { shape: &shape, matrix: &matrix, tables: &tables, content: None };
    let mut answers = vec![None; queries.len()];
    engine.answer(&[Batch { shard, queries: &queries }], &mut |_, query, answer| {
        answers[query] = Some(answer);
    })?;
    for (query, answer) in queries.iter().zip(answers) {
        let known = reference::answer(&shape, &matrix, &tables, &query.vector, &query.bundle);
        if answer != Some(known) {
            return Err(SelectError::WrongAnswer { engine: engine.name() });
        }
    }
    Ok(())
}

/// Random bytes to residues of 3 bytes: a half modulo Q, a half modulo P.
fn reduce_residues(bytes: &mut [u8]) {
    let half = bytes.len() / 2;
    for (bytes, prime) in bytes.chunks_exact_mut(half).zip(PRIMES) {
        for residue in bytes.chunks_exact_mut(3) {
            let drawn = u32::from_le_bytes([residue[0], residue[1], residue[2], 0]);
            residue.copy_from_slice(&(drawn % prime).to_le_bytes()[..3]);
        }
    }
}
