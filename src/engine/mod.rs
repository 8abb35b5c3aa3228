//! Engines answer batches of queries: stub, being written.
use std::sync::Arc;

use crate::scheme::KeyBundle;

pub use crate::shard::ShardView;

/// One encrypted query: its vector (3 bytes a column, exact length) and its checked key bundle.
#[derive(Clone)]
pub struct EncryptedQuery {
    /// 3 bytes a column, little-endian.
    pub vector: Arc<[u8]>,
    /// The bundle its uid names.
    pub bundle: Arc<KeyBundle>,
}

/// One response a pack, coefficients packed by bit.
pub type Answer = Vec<Vec<u8>>;

/// Queries for one shard: one pass over its matrix and tables answers them all.
pub struct Batch<'a> {
    /// The shard.
    pub shard: ShardView<'a>,
    /// Its queries.
    pub queries: &'a [EncryptedQuery],
}

/// Why an engine gave no answers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

/// A device that answers batches. Owned by one worker thread.
pub trait Engine: Send {
    /// For the log and the records, such as "cpu avx512, 2 threads".
    fn name(&self) -> String;

    /// Answers every query of every batch; `done(batch, query, answer)` is called once for each,
    /// as soon as the answer exists, in any order.
    fn answer(
        &mut self,
        batches: &[Batch<'_>],
        done: &mut dyn FnMut(usize, usize, Answer),
    ) -> Result<(), EngineError>;
}
