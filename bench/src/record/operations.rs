//! What `sotto-bench build`, `startup` and `reload` find.

#![allow(missing_docs, reason = "bench/README.md says what each field is; a test compares")]

use serde::{Deserialize, Serialize};

use super::head::{Head, ShapeFacts, Spread};

pub const BUILD_SCHEMA: &str = "sotto-bench-build/1";
pub const STARTUP_SCHEMA: &str = "sotto-bench-startup/1";
pub const RELOAD_SCHEMA: &str = "sotto-bench-reload/1";

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Content {
    pub records: u64,
    pub shards: u32,
    pub database_bytes: u64,
    #[serde(flatten)]
    pub shape: ShapeFacts,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Build {
    #[serde(flatten)]
    pub head: Head,
    pub content: Content,
    pub input_bytes: u64,
    pub threads: usize,
    pub seconds: Spread,
    pub cpu_seconds: Spread,
    pub peak_memory_bytes: u64,
    pub verify_seconds: Spread,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Startup {
    #[serde(flatten)]
    pub head: Head,
    pub content: Content,
    pub threads: usize,
    pub warm: Started,
    pub cold: Started,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Started {
    pub listening_ms: Spread,
    pub ready_ms: Spread,
    pub first_answer_ms: Spread,
    pub own_memory_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reload {
    #[serde(flatten)]
    pub head: Head,
    pub content: Content,
    pub threads: usize,
    pub changes: Vec<Change>,
    pub lookups: u64,
    pub lost: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub shards: u32,
    pub bytes: u64,
    pub reload_ms: Spread,
    pub lookup_ms_max: f64,
}
