//! Engines answer batches of encrypted queries: scan, pack, finish (docs/scheme.md, "Answer").
//!
//! An [`Engine`] owns its threads or its device and is owned by one worker thread. It keeps nothing
//! from one call to the next but scratch memory, and does the same work for every query of a shape.
//! Every engine equals [`crate::scheme::reference`] on every bit.
//!
//! Read next: `cpu.rs` (how a batch is cut), `kernel.rs` (what an instruction set provides),
//! `portable.rs` and the kernels named by their instructions; `gpu`; `selection.rs`.

mod choice;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
mod kernel;
mod known_answer;
mod portable;
mod selection;
mod words;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx_words;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod vector;

use std::sync::Arc;
use std::time::Duration;

use crate::limits;
use crate::params::D;
use crate::scheme::KeyBundle;

pub use crate::shard::{ContentId, ShardView};
pub use choice::{EngineChoice, EngineOptions, GpuChoice, GpuInfo, GpuKind, IsaChoice};
#[cfg(feature = "gpu")]
pub use gpu::{Fault, Faults, GpuEngine, GpuOptions};
pub use known_answer::Probe;
pub use selection::{SelectError, Selected, gpus, select, select_with};

/// One encrypted query: its vector and its checked key bundle.
#[derive(Clone)]
pub struct EncryptedQuery {
    /// 3 bytes a column, little-endian.
    pub vector: Arc<[u8]>,
    /// The bundle that its uid names, decoded for the shard's shape.
    pub bundle: Arc<KeyBundle>,
}

/// One response a pack, coefficients packed by bit.
pub type Answer = Vec<Vec<u8>>;

/// Queries for one shard. Each [`limits::BATCH_QUERIES_PER_SCAN_MAX`] of them are answered by
/// reading its matrix and tables once.
#[allow(missing_docs)] // Names say it.
pub struct Batch<'a> {
    pub shard: ShardView<'a>,
    pub queries: &'a [EncryptedQuery],
}

/// Why an engine gave no answers, or not all of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Names say it.
pub enum EngineError {
    /// A slice does not have the size its shard's shape says. Found before any work is done.
    #[error("batch {batch}: {what} has {found} bytes, the shard's shape says {expected}")]
    Size { batch: usize, what: &'static str, found: usize, expected: usize },
    /// The device failed; queries without an answer may be asked again, here or elsewhere.
    #[error("the device failed: {0}")]
    Device(String),
    #[error(
        "engine {engine} failed its known-answer test: do not serve with it; another \
         instruction set or device may work (--isa portable, --engine cpu)"
    )]
    WrongAnswer { engine: String },
}

/// Time that an engine has spent since it was made, added up over its threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct StageTimes {
    /// Turning queries and key bundles into what the kernels read.
    pub prepare: Duration,
    pub scan: Duration,
    pub pack: Duration,
    pub finish: Duration,
}

/// How much one call of an engine is worth: with more it gains nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct CallBounds {
    pub shards_max: usize,
    pub queries_max: usize,
}

/// A processor or device that answers batches. Owned by one worker thread.
pub trait Engine: Send {
    /// For the log and the records, such as "cpu avx512, 2 threads".
    fn name(&self) -> String;

    /// What its work has taken so far; zeros for an engine that does not measure it.
    fn stage_times(&self) -> StageTimes {
        StageTimes::default()
    }

    /// What to give it in one call. The default is the processor's: one batch for one shard, so
    /// that queries which come meanwhile are batched.
    fn call_bounds(&self) -> CallBounds {
        CallBounds { shards_max: 1, queries_max: limits::BATCH_QUERIES_PER_SCAN_MAX }
    }

    /// The memory of its own in which a device keeps whole shards; none for the processor.
    fn store(&self) -> Option<Arc<dyn ShardStore>> {
        None
    }

    /// Answers every query of every batch; `done(batch, query, answer)` is called once for each, on
    /// the calling thread, in any order. After an error some calls may already have been made, and
    /// no answer is given before [`Engine::renew`]. Without batches it says whether the device is
    /// alive.
    fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError>;

    /// After an error: recreates the device and has it prove itself on known answers. May be
    /// called again when it fails. What was in the store is gone.
    fn renew(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Compares every slice of a call with its shard's shape, before any work.
fn check_sizes(batches: &[Batch<'_>]) -> Result<(), EngineError> {
    for (batch, work) in batches.iter().enumerate() {
        let ShardView { shape, matrix, tables, .. } = work.shard;
        let check = |what, found, expected| match found == expected {
            true => Ok(()),
            false => Err(EngineError::Size { batch, what, found, expected }),
        };
        check("the matrix", matrix.len(), shape.matrix_bytes())?;
        check("the pack tables", tables.len(), shape.packs() * shape.table_bytes())?;
        for query in work.queries {
            check("a query's vector", query.vector.len(), shape.query_bytes())?;
            check("a query's key bundle", query.bundle.keys() * 2 * D * 3, shape.bundle_bytes())?;
        }
    }
    Ok(())
}

/// The memory of a device that keeps whole shards, named by [`ShardView::content`]. Another thread
/// than the engine's uploads shards while the engine answers. The store outlives the device.
pub trait ShardStore: Send + Sync {
    /// Whether a shard is there, or what uploading it would cost others. Never waits.
    fn residency(&self, shard: &ShardView<'_>) -> Residency;

    /// The shards and bytes that the store holds.
    fn held(&self) -> StoreUse;

    /// Uploads a shard, in place of those used longest ago where there is no room; returns when
    /// it can be answered from. Nothing is done for one that is there.
    fn upload(&self, shard: &ShardView<'_>) -> Result<(), EngineError>;
}

/// What a [`ShardStore`] has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreUse {
    /// Shards that can be answered from.
    pub shards: usize,
    /// Memory they take and those that are being uploaded, in bytes.
    pub bytes: u64,
    /// Memory they may take; nothing while there is no device.
    pub bytes_max: u64,
}

/// Where a shard is, as seen from a [`ShardStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Residency {
    Here,
    /// Not there, and there is free memory for it.
    Room,
    /// Not there; it would take the place of one that was last used so long ago.
    InPlace {
        unused: Duration,
    },
    /// It cannot be kept: it has no name or is larger than all the memory, or the device is gone.
    Never,
}
