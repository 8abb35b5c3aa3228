//! What `sotto-bench build`, `startup` and `reload` find.

use serde::{Deserialize, Serialize};

use super::{Head, ShapeFacts, Spread};

/// Name and version of [`Build`]'s form.
pub const BUILD_SCHEMA: &str = "sotto-bench-build/1";
/// Name and version of [`Startup`]'s form.
pub const STARTUP_SCHEMA: &str = "sotto-bench-startup/1";
/// Name and version of [`Reload`]'s form.
pub const RELOAD_SCHEMA: &str = "sotto-bench-reload/1";

/// A database of made-up records.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// Records of the input.
    pub records: u64,
    /// Shards.
    pub shards: u32,
    /// Bytes of all its files.
    pub database_bytes: u64,
    /// Of each shard.
    #[serde(flatten)]
    pub shape: ShapeFacts,
}

/// Building a database, from nothing each time, in a process of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// Of [`BUILD_SCHEMA`].
    #[serde(flatten)]
    pub head: Head,
    /// What was built.
    pub content: Content,
    /// Bytes of the input file.
    pub input_bytes: u64,
    /// Threads it might use.
    pub threads: usize,
    /// From start to end.
    pub seconds: Spread,
    /// Processor time of all threads.
    pub cpu_seconds: Spread,
    /// Most memory of any run.
    pub peak_memory_bytes: u64,
    /// Checking every byte of it afterwards (`sotto verify`).
    pub verify_seconds: Spread,
}

/// Starting a server, from its process's start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Startup {
    /// Of [`STARTUP_SCHEMA`].
    #[serde(flatten)]
    pub head: Head,
    /// What is served.
    pub content: Content,
    /// Threads that answer.
    pub threads: usize,
    /// All files in the page cache.
    pub warm: Started,
    /// None of them.
    pub cold: Started,
}

/// How long until what; milliseconds from the process's start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Until it says that it listens.
    pub listening_ms: Spread,
    /// Until /readyz says 200: its engines gave the known answer.
    pub ready_ms: Spread,
    /// Until a look-up that was begun as soon as it listened had its answer, checked.
    pub first_answer_ms: Spread,
    /// Resident memory of the process then, the most of any run: without shards' pages.
    pub own_memory_bytes: u64,
}

/// A new epoch of a server under load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reload {
    /// Of [`RELOAD_SCHEMA`].
    #[serde(flatten)]
    pub head: Head,
    /// What is served.
    pub content: Content,
    /// Threads that answer.
    pub threads: usize,
    /// By how much changed.
    pub changes: Vec<Change>,
    /// Look-ups asked for while the server reloaded, over all.
    pub lookups: u64,
    /// Of those, without the right answer: 0, or the run has failed.
    pub lost: u64,
}

/// Reloads of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Shards of the new epoch that the one before does not have.
    pub shards: u32,
    /// Their bytes.
    pub bytes: u64,
    /// From POST /reload to its answer, which says that the new epoch is served.
    pub reload_ms: Spread,
    /// Of the look-ups meanwhile, the slowest. They go on until every client had one that was begun
    /// after the reload.
    pub lookup_ms_max: f64,
}
