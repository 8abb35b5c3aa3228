//! A query as the schedule knows it: on its way in, admitted, and refused.

use std::time::{Duration, Instant};

/// One number for each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Who pays for a query: a front-end, or a connection where front-ends are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct FrontEnd {
    pub number: u64,
    /// Its weight relative to others.
    pub share: u32,
}

/// A query on its way in.
#[derive(Debug)]
#[allow(missing_docs)] // Names say it.
pub struct Arrival<T> {
    pub connection: ConnectionId,
    pub front_end: FrontEnd,
    pub shard: u32,
    /// Bytes that a scan of the shard reads.
    pub scan_bytes: u64,
    /// Memory that it may take while it waits.
    pub bytes: usize,
    /// From here on it is not computed any more.
    pub deadline: Instant,
    /// The query itself, and where its answer goes.
    pub item: T,
}

impl<T> Arrival<T> {
    /// The same arrival with its item changed.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Arrival<U> {
        let Self { connection, front_end, shard, scan_bytes, bytes, deadline, item } = self;
        Arrival { connection, front_end, shard, scan_bytes, bytes, deadline, item: change(item) }
    }
}

/// Names a query that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    pub(super) number: u64,
    pub(super) shard: u32,
    pub(super) front_end: u64,
}

/// Who may take a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // Names say it.
pub enum Route {
    Any,
    /// Only the processor's, because a device failed at it.
    Processor,
}

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Full {
    Queue,
    /// Queries of this front-end: others need room.
    FrontEnd,
    Connection,
    /// Work before it: its answer would come after the latency target or its deadline.
    Time,
}

/// Why a query was not admitted.
#[derive(Debug)]
#[allow(missing_docs)] // Names say it.
pub struct Overloaded {
    pub full: Full,
    /// When there may be room again.
    pub retry_after: Duration,
}

/// An admitted query. Whoever has it from [`Schedule::next`](super::Schedule::next) gives it to
/// [`Schedule::finished`](super::Schedule::finished) or
/// [`Schedule::put_back`](super::Schedule::put_back).
#[derive(Debug)]
#[allow(missing_docs)] // Names say it.
pub struct Admitted<T> {
    /// Lower than that of queries admitted later.
    pub(super) number: u64,
    pub arrived: Instant,
    pub route: Route,
    pub query: Arrival<T>,
}

impl<T> Admitted<T> {
    pub(super) fn line(&self) -> Line {
        (self.query.shard, self.route)
    }

    pub(super) fn ticket(&self) -> Ticket {
        let Arrival { shard, front_end, .. } = self.query;
        Ticket { number: self.number, shard, front_end: front_end.number }
    }
}

/// Names a line: the waiting queries of one shard that go the same way.
pub(super) type Line = (u32, Route);
