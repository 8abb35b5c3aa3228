//! How each engine fares: whether it takes work, since when it is busy, and when it last passed its
//! known-answer test. That test is asked between two calls, however busy the engine is, because
//! answers to queries show that an engine responds and not that it is right.

use std::time::{Duration, Instant};

use crate::engine::StoreUse;

/// What a worker notes of its engine.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Since when it is at what it does; none while it waits for work.
    pub(super) busy_since: Option<Instant>,
    /// When it was last given its known-answer test.
    pub(super) asked: Option<Instant>,
    /// When it last answered it, and right; none after a wrong answer or none.
    pub(super) proven: Option<Instant>,
}

/// How one engine fares.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct EngineReport {
    pub name: String,
    pub kind: EngineKind,
    pub state: EngineState,
    /// For how long it has been at what it does; none while it waits for work.
    pub busy: Option<Duration>,
    /// How long ago it gave the right answer to its known-answer test; none if it never did, or
    /// failed at the last.
    pub proven: Option<Duration>,
}

/// What an engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum EngineKind {
    Processor,
    Device(StoreUse),
}

/// Whether an engine takes queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum EngineState {
    Up,
    /// It failed, and is being recreated.
    Down,
}
