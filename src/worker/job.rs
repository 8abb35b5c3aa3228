//! What workers are given: queries, the content of shards, and calls that may fail or panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::engine::{Answer, EncryptedQuery, EngineError, ShardView};
use crate::shard::{Database, Shard};

/// Where workers find the content of shards.
pub trait Shards: Send + Sync {
    /// What this shard contains, for as long as whoever asks needs it; `None` where there is none.
    fn content(&self, shard: u32) -> Option<Arc<dyn Content>>;
}

/// The content of one shard.
pub trait Content: Send + Sync {
    /// What an engine reads of it.
    fn view(&self) -> ShardView<'_>;

    /// Whether nothing that was read of it so far was lost: asked before an answer goes out.
    fn is_whole(&self) -> bool {
        true
    }
}

impl Shards for Database {
    fn content(&self, shard: u32) -> Option<Arc<dyn Content>> {
        self.shard(shard).map(|shard| shard.clone() as Arc<dyn Content>)
    }
}

impl Content for Shard {
    fn view(&self) -> ShardView<'_> {
        self.view()
    }

    fn is_whole(&self) -> bool {
        self.is_whole()
    }
}

/// What became of one query.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Outcome {
    Answered(Answer),
    Deadline,
    Device,
    /// Its shard is gone, or has lost what it contained.
    Quarantined,
}

/// One query as workers take it.
#[allow(missing_docs)] // Names say it.
pub struct Job {
    pub query: EncryptedQuery,
    /// The sender's number for it, given back with the outcome.
    pub index: usize,
    /// Where the outcome goes. Unbounded, so that a slow reader cannot hold up a worker: whoever
    /// admits bounds how many outcomes there can be.
    pub outcomes: UnboundedSender<(usize, Outcome)>,
}

impl Job {
    pub(super) fn end(self, outcome: Outcome) {
        // The receiver is gone when its stream is: then nobody waits for this.
        let _ = self.outcomes.send((self.index, outcome));
    }
}

/// Runs what may fail or panic; the error says how it did.
pub(super) fn catch_panics<T>(run: impl FnOnce() -> Result<T, EngineError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(ended) => ended.map_err(|error| error.to_string()),
        Err(_) => Err("it panicked: this is a bug".into()),
    }
}
