//! The waiting queries of one front-end, a line of them for each shard and route, and which of its
//! lines goes next.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use super::fair::Load;
use super::query::{Admitted, Line};
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The one with the most queries, then the one with the oldest.
    Fullest,
    Age,
}

/// A line's place among others; the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Queries that it lacks to a full batch; 0 where only age counts.
    missing: usize,
    /// Of its oldest query.
    number: u64,
    line: Line,
}

/// How far a front-end's lines were looked through. Taking queries moves a line further back, so
/// that it is looked at again only where something is left.
pub(super) struct Search {
    rule: Rule,
    after: Bound<Rank>,
}

impl Search {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, after: Bound::Unbounded }
    }
}

pub(super) struct Lines<T> {
    /// Oldest first; no empty queue stays.
    queues: HashMap<Line, VecDeque<Admitted<T>>>,
    /// By [`Rule`].
    orders: [BTreeSet<Rank>; 2],
    /// Of all its queries.
    pub(super) bytes: usize,
    /// What they take if nobody else's ride along.
    pub(super) load: Load,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self { queues: HashMap::new(), orders: Default::default(), bytes: 0, load: Load::default() }
    }
}

impl<T> Lines<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    pub(super) fn queries(&self, line: Line) -> usize {
        self.queues.get(&line).map_or(0, VecDeque::len)
    }

    pub(super) fn oldest(&self) -> Option<&Admitted<T>> {
        self.queues.get(&self.orders[Rule::Age as usize].first()?.line)?.front()
    }

    pub(super) fn next(&self, search: &mut Search) -> Option<Line> {
        let order = &self.orders[search.rule as usize];
        let rank = *order.range((search.after, Bound::Unbounded)).next()?;
        search.after = Bound::Excluded(rank);
        Some(rank.line)
    }

    pub(super) fn insert(&mut self, admitted: Admitted<T>) {
        self.bytes += admitted.query.bytes;
        self.change(admitted.line(), |queue| {
            let at = queue.partition_point(|other| other.number < admitted.number);
            queue.insert(at, admitted);
        });
    }

    pub(super) fn remove(&mut self, line: Line, number: u64) -> Option<Admitted<T>> {
        let queue = self.queues.get(&line)?;
        let at = queue.binary_search_by_key(&number, |admitted| admitted.number).ok()?;
        let removed = self.change(line, |queue| queue.remove(at))?;
        self.bytes -= removed.query.bytes;
        Some(removed)
    }

    pub(super) fn take(&mut self, line: Line, most: usize) -> Vec<Admitted<T>> {
        let taken: Vec<_> =
            self.change(line, |queue| queue.drain(..most.min(queue.len())).collect());
        self.bytes -= taken.iter().map(|admitted| admitted.query.bytes).sum::<usize>();
        taken
    }

    /// Changes a line and ranks it again.
    fn change<R>(&mut self, line: Line, change: impl FnOnce(&mut VecDeque<Admitted<T>>) -> R) -> R {
        let queue = self.queues.entry(line).or_default();
        for (order, rank) in self.orders.iter_mut().zip(ranks(line, queue)) {
            order.remove(&rank);
        }
        let before = queue.len();
        let changed = change(queue);
        self.load.change(before, queue.len());
        for (order, rank) in self.orders.iter_mut().zip(ranks(line, queue)) {
            order.insert(rank);
        }
        if queue.is_empty() {
            self.queues.remove(&line);
        }
        changed
    }
}

/// A line's place by each [`Rule`]; none if it is empty.
fn ranks<T>(line: Line, queue: &VecDeque<Admitted<T>>) -> impl Iterator<Item = Rank> {
    let missing = BATCH_QUERIES_PER_SCAN_MAX.saturating_sub(queue.len());
    let number = queue.front().map(|oldest| oldest.number);
    let by_rule = move |number| [missing, 0].map(|missing| Rank { missing, number, line });
    number.map(by_rule).into_iter().flatten()
}
