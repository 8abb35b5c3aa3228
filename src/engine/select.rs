//! Picks the engines once, at start, and has each prove itself before it serves.
//!
//! What an operator forces is taken or refused, never replaced. The processor's engine is always
//! there: it answers what a GPU does not hold, and everything when one fails. No timing here, and
//! no logging: the caller logs [`Engine::name`] once.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::Arc;

use super::cpu::CpuEngine;
use super::kernel::{Kernels, PRIMES};
use super::portable::Portable;
use super::{Answer, Batch, ContentId, EncryptedQuery, Engine, EngineError, Residency, ShardView};
use crate::arith::{Isa, IsaName};
use crate::params::{D, Shape};
use crate::scheme::{KeyBundle, reference};

/// Which device answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// Every real GPU that proves itself, or else the processor alone.
    #[default]
    Auto,
    /// GPUs, or an error.
    Gpu,
    /// The processor's cores.
    Cpu,
}

/// Which GPU, of those that [`gpus`] lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuChoice {
    /// The one with this number.
    Index(usize),
    /// One whose name has this in it, in upper or lower case; given again, the next such one.
    Name(String),
}

/// Everything there is to choose.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Which device.
    pub engine: EngineChoice,
    /// Which GPUs; one that is named is taken or refused, and may be a software one. A number given
    /// twice, or a name more often than there are such GPUs, opens one twice.
    pub gpus: Vec<GpuChoice>,
    /// Memory of each GPU that shards may take, in bytes; when absent nearly all it has, or
    /// 4 GiB of the host's.
    pub gpu_bytes: Option<u64>,
    /// Which instruction set of the processor.
    pub isa: IsaChoice,
    /// Threads of the processor; as many as there are cores when absent.
    pub threads: Option<NonZeroUsize>,
}

/// The engines that were picked.
pub struct Selected {
    /// The processor's, then those of GPUs, proven.
    pub engines: Vec<Box<dyn Engine>>,
    /// That a GPU that would have been taken was not, and why: one line for the log.
    pub why_no_gpu: Option<String>,
}

/// A GPU as `sotto devices` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its place in the list, which names it.
    pub index: usize,
    /// What the driver calls it.
    pub name: String,
    /// Where it is plugged in (PCI); empty where the driver does not say.
    pub bus: String,
    /// The driver and its version.
    pub driver: String,
    /// Whether a processor plays the device.
    pub kind: GpuKind,
    /// Largest piece of a shard that one kernel sees, in bytes.
    pub binding_bytes_max: u64,
    /// Workgroup memory, in bytes.
    pub workgroup_bytes_max: u32,
    /// How its kernels multiply.
    pub integers: Integers,
    /// What it lacks to run the kernels; nothing if it can.
    pub lacks: Option<String>,
}

/// Whether a GPU is hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuKind {
    /// Hardware.
    Real,
    /// A processor that plays a GPU: for tests.
    Software,
}

/// How a GPU multiplies and adds up numbers of 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integers {
    /// In 64 bits.
    Wide,
    /// In two halves of 12 bits.
    Halves,
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
    pub const NAMES: [&'static str; 3] = ["auto", "gpu", "cpu"];
}

impl FromStr for EngineChoice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, UnknownChoice> {
        match text {
            "auto" => Ok(Self::Auto),
            "gpu" => Ok(Self::Gpu),
            "cpu" => Ok(Self::Cpu),
            _ => Err(UnknownChoice { found: text.into(), expected: "auto, gpu or cpu" }),
        }
    }
}

impl FromStr for GpuChoice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            let expected = "a number or part of a name that `sotto devices` lists";
            return Err(UnknownChoice { found: text.into(), expected });
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
    /// There is no GPU to take.
    #[error("a GPU was asked for: {reason}; `sotto devices` lists what is here")]
    Gpu {
        /// Why not.
        reason: String,
    },
    /// The engine failed on the known answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine computed something else than the reference.
    #[error(
        "engine {engine} failed its known-answer test: do not serve with it; another \
         instruction set or device may work (--isa portable, --engine cpu)"
    )]
    WrongAnswer {
        /// Its name.
        engine: String,
    },
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
    known_answers(processor.as_mut(), &KNOWN[..1])?;
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

/// Opens a GPU and has it prove itself. A driver that panics is one that does not.
#[cfg(feature = "gpu")]
fn take(info: &GpuInfo, shard_bytes: Option<u64>) -> Result<Box<dyn Engine>, String> {
    let options = super::gpu::GpuOptions { shard_bytes, ..Default::default() };
    let taken = std::panic::catch_unwind(|| {
        let mut engine = super::gpu::GpuEngine::new(info.index, &options)?;
        prove(&mut engine, info.kind)?;
        Ok::<_, SelectError>(Box::new(engine) as Box<dyn Engine>)
    });
    let why = match taken {
        Ok(Ok(engine)) => return Ok(engine),
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

/// A small shard, and how many queries for it are answered at once.
pub(super) struct Known {
    pub(super) pack_rows: u32,
    pub(super) packs: u32,
    columns: u32,
    pub(super) batches: &'static [usize],
}

/// Queries that differ: tiles of six and of five, or of two and one over, of the processor's
/// kernels. Larger batches repeat them.
const KNOWN_QUERIES: usize = 11;

/// What an engine has to know. The processor gets the first: a four and a one, twos and a one of
/// packs, so that two tile shapes run of each of its pack kernels. A GPU gets all, so that each of
/// its kernels runs (which ones follows from packs and queries), and both keys.
pub(super) const KNOWN: [Known; 4] = [
    Known { pack_rows: 128, packs: 5, columns: 2112, batches: &[11] },
    Known { pack_rows: 128, packs: 5, columns: 2112, batches: &[1, 2, 3, 8, 16, 32] },
    Known { pack_rows: 2048, packs: 1, columns: 192, batches: &[1, 2, 3, 7, 17] },
    Known { pack_rows: 2048, packs: 2, columns: 192, batches: &[1, 5, 9, 17] },
];

/// What a software GPU has to know: one batch of short packs and one query of a long one. The other
/// batches and packs take it seconds each time it is opened. It exists for tests, and
/// `tests/engines.rs` compares all of them with the reference.
#[cfg(feature = "gpu")]
const KNOWN_OF_SOFTWARE: [Known; 2] = [
    Known { pack_rows: 128, packs: 5, columns: 2112, batches: &[11] },
    Known { pack_rows: 2048, packs: 1, columns: 192, batches: &[1] },
];

/// Has a GPU's engine prove itself: before it serves, and again when it was recreated. Hardware
/// runs every kernel.
#[cfg(feature = "gpu")]
pub(super) fn prove(engine: &mut dyn Engine, kind: GpuKind) -> Result<(), SelectError> {
    let known = match kind {
        GpuKind::Real => &KNOWN[..],
        GpuKind::Software => &KNOWN_OF_SOFTWARE[..],
    };
    known_answers(engine, known)
}

/// Small shards of pseudorandom bytes, answered by the engine and by the reference.
fn known_answers(engine: &mut dyn Engine, known: &[Known]) -> Result<(), SelectError> {
    known.iter().try_for_each(|known| known_answer(engine, known))
}

fn known_answer(engine: &mut dyn Engine, known: &Known) -> Result<(), SelectError> {
    let exam = Exam::new(known, KNOWN_QUERIES);
    for &count in known.batches {
        if !exam.is_passed(engine, count)? {
            return Err(SelectError::WrongAnswer { engine: engine.name() });
        }
    }
    Ok(())
}

/// A small shard of pseudorandom bytes, queries for it, and what the reference answers.
struct Exam {
    shape: Shape,
    matrix: Vec<u8>,
    tables: Vec<u8>,
    queries: Vec<EncryptedQuery>,
    answers: Vec<Answer>,
    content: Option<ContentId>,
}

impl Exam {
    fn new(known: &Known, queries: usize) -> Self {
        let shape = Shape::new(120, known.pack_rows, known.packs, known.columns)
            .expect("this is a bug: known shape");
        let mut bytes = blake3::Hasher::new_derive_key("sotto engine known answer").finalize_xof();
        let mut fill = |count: usize| {
            let mut drawn = vec![0; count];
            bytes.fill(&mut drawn);
            drawn
        };
        let matrix = fill(shape.matrix_bytes());
        let mut tables = fill(shape.packs() * shape.table_bytes());
        tables.chunks_exact_mut(shape.table_bytes()).for_each(reduce_residues);
        let queries: Vec<_> = (0..queries)
            .map(|_| {
                let vector = fill(shape.query_bytes()).into();
                let mut bundle = fill(shape.bundle_bytes());
                bundle.chunks_exact_mut(2 * D * 3).for_each(reduce_residues);
                let bundle =
                    KeyBundle::decode(&bundle, &shape).expect("this is a bug: known bundle");
                EncryptedQuery { vector, bundle: Arc::new(bundle) }
            })
            .collect();
        let answer = |query: &EncryptedQuery| {
            reference::answer(&shape, &matrix, &tables, &query.vector, &query.bundle)
        };
        let answers = queries.iter().map(answer).collect();
        Self { shape, matrix, tables, queries, answers, content: None }
    }

    fn shard(&self) -> ShardView<'_> {
        let Self { shape, matrix, tables, content, .. } = self;
        ShardView { shape, matrix, tables, content: *content }
    }

    /// Whether so many queries at once are all answered right; the queries repeat.
    fn is_passed(&self, engine: &mut dyn Engine, count: usize) -> Result<bool, EngineError> {
        let queries: Vec<_> = self.queries.iter().cycle().take(count).cloned().collect();
        let mut right = 0;
        let batch = Batch { shard: self.shard(), queries: &queries };
        engine.answer(&[batch], &mut |_, query, answer| {
            right += usize::from(answer == self.answers[query % self.answers.len()]);
        })?;
        Ok(right == count)
    }
}

/// One known-answer test, with which an engine that serves shows now and then that it still
/// answers, and right. Takes the processor less than a millisecond, and a device no shard's place.
pub struct Probe(Exam);

/// Under this name the known shard stays on a device: uploaded each time, it would make room for
/// itself. No file's digest is likely to begin so.
pub(super) const PROBE_CONTENT: ContentId = ContentId(*b"sotto's probe \0\0");

impl Probe {
    /// Has the reference answer it.
    pub fn new() -> Self {
        let known = Known { pack_rows: 128, packs: 1, columns: 192, batches: &[1] };
        Self(Exam { content: Some(PROBE_CONTENT), ..Exam::new(&known, 1) })
    }

    /// Asks an engine. A device without memory for any shard has nothing to be right about.
    ///
    /// # Errors
    /// The engine failed, or its answer is wrong.
    pub fn ask(&self, engine: &mut dyn Engine) -> Result<(), EngineError> {
        let store = engine.store();
        if store.is_some_and(|store| store.residency(&self.0.shard()) == Residency::Never) {
            return Ok(());
        }
        match self.0.is_passed(engine, 1)? {
            true => Ok(()),
            false => Err(EngineError::Device("it failed its known-answer test".into())),
        }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self::new()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as the reference does, but for one bit of one answer.
    struct Wrong {
        query: usize,
    }

    impl Engine for Wrong {
        fn name(&self) -> String {
            "wrong".into()
        }

        fn answer(
            &mut self,
            batches: &[Batch<'_>],
            done: &mut dyn FnMut(usize, usize, crate::engine::Answer),
        ) -> Result<(), EngineError> {
            for (at, Batch { shard, queries }) in batches.iter().enumerate() {
                for (index, query) in queries.iter().enumerate() {
                    let ShardView { shape, matrix, tables, .. } = *shard;
                    let EncryptedQuery { vector, bundle } = query;
                    let mut answer = reference::answer(shape, matrix, tables, vector, bundle);
                    answer[0][0] ^= u8::from(index == self.query);
                    done(at, index, answer);
                }
            }
            Ok(())
        }
    }

    #[test]
    fn a_probe_tells_right_from_wrong() {
        let probe = Probe::new();
        probe.ask(&mut Wrong { query: 1 }).unwrap();
        let wrong = probe.ask(&mut Wrong { query: 0 }).unwrap_err().to_string();
        assert_eq!(wrong, "the device failed: it failed its known-answer test");
        for isa in Isa::all() {
            probe
                .ask(cpu(IsaChoice::Only(isa.name()), NonZeroUsize::new(1)).unwrap().as_mut())
                .unwrap();
        }
    }

    #[test]
    fn an_engine_that_is_wrong_in_one_bit_is_not_taken() {
        known_answers(&mut Wrong { query: KNOWN_QUERIES }, &KNOWN[..1]).unwrap();
        for query in [0, KNOWN_QUERIES - 1] {
            let refused = known_answers(&mut Wrong { query }, &KNOWN[..1]).unwrap_err();
            assert!(matches!(refused, SelectError::WrongAnswer { .. }), "{refused}");
        }
    }
}
