//! Which queries are computed next: admission, batching, fair shares, deadlines.
//!
//! A [`Schedule`] holds the queries that wait for an engine. It does no IO, starts no thread and
//! reads no clock: `now` is an argument, so that its tests run in simulated time.
//!
//! A free engine gets work at once; while engines are busy, queries for one shard collect and are
//! answered as one batch. A turn is one batch, and the next turn is that of the front-end that has
//! had least for its share (`fair`). It picks the shard for which it has the most queries (a batch
//! costs about the same for each shard), or, once a query of it has waited for half of the latency
//! target, the shard with the oldest. Queries of other front-ends for this shard ride along and pay
//! for their places, unless these front-ends are ahead of their share.
//!
//! A front-end that has queries waiting is refused another one whose answer would come after the
//! latency target or its deadline, at the present pace (`pace`). Two full batches may always wait,
//! because no engine is fast without batches. A front-end may have as much waiting as its share of
//! the engines does in that time, or, where all together wait for less, twice what is left.
//!
//! The schedule does not decide which device takes what (whoever asks says what it may take), nor
//! quotas, and it never looks into a query's `item`. Read next: `lines.rs`, `fair.rs`, `pace.rs`,
//! then [`crate::placement`], [`crate::worker`].

mod fair;
mod lines;
mod pace;
mod query;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use query::{Admitted, Arrival, ConnectionId, FrontEnd, Full, Overloaded, Route, Ticket};

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use self::fair::{Load, Turns, cost};
use self::lines::{Lines, Rule, Search};
use self::pace::Pace;
use self::query::Line;
use crate::engine::CallBounds;
use crate::limits;

/// The part of the latency target within which an answer is expected when its query is taken in:
/// engines are not always as fast as they were.
pub const TIMELY_SHARE: f64 = 0.6;
/// So many queries may wait however long they take: two full batches.
const TIMELY_QUERIES: usize = 2 * limits::BATCH_QUERIES_PER_SCAN_MAX;

/// What a schedule may hold, and how long it lets queries wait to be batched.
#[derive(Debug, Clone, Copy)]
pub struct ScheduleBounds {
    /// Bytes of queries waiting. A front-end may have as much of it as is free: one alone half.
    pub queued_bytes_max: usize,
    /// Queries of one connection, waiting or being computed.
    pub queries_per_connection_max: usize,
    /// How long answers should take at most. A front-end whose oldest query has waited for half of
    /// it is served by age; a query whose answer would come later is refused.
    pub latency_target: Duration,
}

impl Default for ScheduleBounds {
    fn default() -> Self {
        Self {
            queued_bytes_max: limits::QUEUED_QUERY_BYTES_MAX,
            queries_per_connection_max: limits::QUERIES_PER_CONNECTION_MAX,
            latency_target: limits::LATENCY_TARGET,
        }
    }
}

/// Queries of one shard, for one engine.
#[derive(Debug)]
#[allow(missing_docs)] // Names say it.
pub struct ShardWork<T> {
    pub shard: u32,
    /// Its queries, all of one route: batch by batch, those of whoever's turn it was before others.
    pub queries: Vec<Admitted<T>>,
}

/// What to do next.
#[derive(Debug)]
pub struct Work<T> {
    /// To be computed; a shard comes at most once a route.
    pub shards: Vec<ShardWork<T>>,
    /// Too late to be computed: to be answered DEADLINE.
    pub expired: Vec<T>,
}

/// A line as all front-ends have it together.
#[derive(Debug, Default)]
struct Shared {
    front_ends: BTreeSet<u64>,
    queries: usize,
}

/// The queries that wait for an engine.
pub struct Schedule<T> {
    bounds: ScheduleBounds,
    /// By front-end; none without queries stays.
    front_ends: HashMap<u64, Lines<T>>,
    /// Who has queries in a line; no empty line stays.
    lines: HashMap<Line, Shared>,
    load: Load,
    turns: Turns,
    pace: Pace,
    deadlines: BTreeSet<(Instant, Ticket)>,
    /// Queries of each connection, waiting or being computed.
    connections: HashMap<ConnectionId, usize>,
    queued_bytes: usize,
    next_number: u64,
}

impl<T> Schedule<T> {
    /// An empty schedule.
    pub fn new(bounds: ScheduleBounds) -> Self {
        Self {
            bounds,
            front_ends: HashMap::new(),
            lines: HashMap::new(),
            load: Load::default(),
            turns: Turns::default(),
            pace: Pace::default(),
            deadlines: BTreeSet::new(),
            connections: HashMap::new(),
            queued_bytes: 0,
            next_number: 0,
        }
    }

    /// Takes a query in, or says why there is no room or no time for it.
    pub fn admit(&mut self, now: Instant, query: Arrival<T>) -> Result<Ticket, Overloaded> {
        if let Some(full) = self.full(&query) {
            return Err(Overloaded { full, retry_after: self.retry_after(now, query.front_end) });
        }
        if let Some(retry_after) = self.too_late(now, &query) {
            return Err(Overloaded { full: Full::Time, retry_after });
        }
        let number = self.next_number;
        self.next_number += 1;
        *self.connections.entry(query.connection).or_default() += 1;
        let admitted = Admitted { number, arrived: now, route: Route::Any, query };
        let ticket = admitted.ticket();
        self.insert(admitted);
        Ok(ticket)
    }

    /// Takes a query out that nobody waits for any more; `None` when it is being computed, was
    /// answered or was cancelled before.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let admitted = self.remove(ticket)?;
        if self.queued() == 0 {
            self.pace.nothing_waits();
        }
        Some(self.finished(admitted))
    }

    /// What to compute next: as much as one call is worth, in turns of one batch. What the peer may
    /// not take stays where it is.
    pub fn next(
        &mut self,
        now: Instant,
        bounds: CallBounds,
        mut may_take: impl FnMut(u32, Route) -> bool,
    ) -> Work<T> {
        let expired = self.expire(now);
        if self.queued() == 0 {
            self.pace.nothing_waits();
        }
        let mut room = bounds.queries_max;
        let mut taken = Load::default();
        let mut shards: Vec<ShardWork<T>> = Vec::new();
        let mut places: HashMap<Line, usize> = HashMap::new();
        let mut searches = HashMap::new();
        while room > 0 && shards.len() < bounds.shards_max {
            let Some((front_end, line)) = self.turn(now, &mut searches, &mut may_take) else {
                break;
            };
            let queries = self.take_batch(front_end, line, room);
            room -= queries.len();
            taken.change(0, queries.len());
            let place = *places.entry(line).or_insert(shards.len());
            match shards.get_mut(place) {
                Some(work) => work.queries.extend(queries),
                None => shards.push(ShardWork { shard: line.0, queries }),
            }
        }
        if !shards.is_empty() {
            self.pace.handed_out(now, taken, self.queued() > 0);
        }
        Work { shards, expired }
    }

    /// A query handed out by [`Schedule::next`] is done with, computed or not.
    pub fn finished(&mut self, admitted: Admitted<T>) -> T {
        let connection = admitted.query.connection;
        let owned = self.connections.get_mut(&connection);
        let owned = owned.expect("this is a bug: a connection without queries");
        *owned -= 1;
        if *owned == 0 {
            self.connections.remove(&connection);
        }
        admitted.query.item
    }

    /// A query handed out by [`Schedule::next`] was not computed: it waits again, in its old place,
    /// for the processor alone. There is always room: it was admitted before.
    pub fn put_back(&mut self, admitted: Admitted<T>) {
        self.insert(Admitted { route: Route::Processor, ..admitted });
    }

    /// A front-end was sent or brought so many bytes besides its queries and their answers: its
    /// next turn comes as if engines had scanned as many for it.
    pub fn charge(&mut self, front_end: FrontEnd, bytes: u64) {
        self.turns.charge_bytes(front_end, bytes);
    }

    /// Queries waiting.
    pub fn queued(&self) -> usize {
        self.load.queries
    }

    /// Bytes of the queries waiting.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    fn full(&self, query: &Arrival<T>) -> Option<Full> {
        let Arrival { connection, front_end, bytes, .. } = *query;
        let owned = self.connections.get(&connection).copied().unwrap_or(0);
        let free = self.bounds.queued_bytes_max.saturating_sub(self.queued_bytes);
        let held = self.front_ends.get(&front_end.number).map_or(0, |lines| lines.bytes);
        if owned >= self.bounds.queries_per_connection_max {
            Some(Full::Connection)
        } else if bytes > free {
            Some(Full::Queue)
        } else if held + bytes > free {
            Some(Full::FrontEnd)
        } else {
            None
        }
    }

    /// Whether a query would be answered too late; if so, how long until the time for what waits
    /// now has passed. Never where its front-end has none waiting: every front-end gets on.
    fn too_late(&self, now: Instant, query: &Arrival<T>) -> Option<Duration> {
        let Arrival { front_end, shard, deadline, .. } = *query;
        let lines = self.front_ends.get(&front_end.number)?;
        if self.queued() < TIMELY_QUERIES {
            return None;
        }
        let line = (shard, Route::Any);
        let [mut own, mut all] = [lines.load, self.load];
        let waiting = lines.queries(line);
        own.change(waiting, waiting + 1);
        let waiting = self.lines.get(&line).map_or(0, |shared| shared.queries);
        all.change(waiting, waiting + 1);
        let own = self.pace.time_for(now, own)?;
        let of_its_share = own.mul_f64(self.turns.one_in(front_end.number));
        let expected = of_its_share.min(self.pace.time_for(now, all)? + own / 2);
        let patience = deadline.saturating_duration_since(now);
        let timely = self.bounds.latency_target.mul_f64(TIMELY_SHARE).min(patience);
        let late = expected > timely;
        late.then(|| expected.clamp(limits::RETRY_AFTER_MIN, limits::RETRY_AFTER_MAX))
    }

    /// Whoever comes now would wait about as long as the front-end's oldest query has, or the
    /// oldest of all where it has none.
    fn retry_after(&self, now: Instant, front_end: FrontEnd) -> Duration {
        let own = self.front_ends.get(&front_end.number).and_then(Lines::oldest);
        let all = self.front_ends.values().filter_map(Lines::oldest);
        let oldest = own.or_else(|| all.min_by_key(|query| query.number));
        let waited = oldest.map(|query| now.saturating_duration_since(query.arrived));
        waited.unwrap_or_default().clamp(limits::RETRY_AFTER_MIN, limits::RETRY_AFTER_MAX)
    }

    fn expire(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some(&(deadline, ticket)) = self.deadlines.first()
            && deadline <= now
        {
            let late = self.remove(ticket).expect("this is a bug: a deadline without its query");
            expired.push(self.finished(late));
        }
        expired
    }

    /// Whose turn it is, and the line it picks. Each front-end's lines are looked through once a
    /// call.
    fn turn(
        &self,
        now: Instant,
        searches: &mut HashMap<u64, Search>,
        may_take: &mut impl FnMut(u32, Route) -> bool,
    ) -> Option<(u64, Line)> {
        for front_end in self.turns.order() {
            let lines = &self.front_ends[&front_end];
            let search = searches.entry(front_end).or_insert_with(|| {
                let half = self.bounds.latency_target / 2;
                let waited = |query: &Admitted<T>| now.saturating_duration_since(query.arrived);
                let long = lines.oldest().is_some_and(|query| waited(query) >= half);
                Search::new(if long { Rule::Age } else { Rule::Fullest })
            });
            while let Some(line) = lines.next(search) {
                if may_take(line.0, line.1) {
                    return Some((front_end, line));
                }
            }
        }
        None
    }

    /// Takes one batch out of a line, the oldest queries of whoever's turn it is first, then those
    /// of others, and charges all of them.
    fn take_batch(&mut self, front_end: u64, line: Line, room: usize) -> Vec<Admitted<T>> {
        let most = room.min(limits::BATCH_QUERIES_PER_SCAN_MAX);
        let mut batch = self.take(front_end, line, most);
        let (own, scan_bytes) = (batch.len(), batch[0].query.scan_bytes);
        self.turns.begin(front_end);
        let others =
            self.lines.get(&line).into_iter().flat_map(|shared| &shared.front_ends).copied();
        for other in self.turns.riders(front_end, scan_bytes, others) {
            batch.append(&mut self.take(other, line, most - batch.len()));
        }
        // What failed on a device was paid for when it went there.
        if line.1 == Route::Any {
            let places = limits::BATCH_QUERIES_PER_SCAN_MAX - (batch.len() - own);
            self.turns.charge(front_end, cost(scan_bytes, places, own));
            for rider in &batch[own..] {
                self.turns.charge(rider.query.front_end.number, cost(scan_bytes, 1, 1));
            }
        }
        batch
    }

    fn insert(&mut self, admitted: Admitted<T>) {
        let (front_end, line) = (admitted.query.front_end, admitted.line());
        self.queued_bytes += admitted.query.bytes;
        self.deadlines.insert((admitted.query.deadline, admitted.ticket()));
        let shared = self.lines.entry(line).or_default();
        shared.front_ends.insert(front_end.number);
        self.load.change(shared.queries, shared.queries + 1);
        shared.queries += 1;
        self.turns.enter(front_end);
        self.front_ends.entry(front_end.number).or_default().insert(admitted);
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Admitted<T>> {
        let Ticket { number, shard, front_end } = ticket;
        let lines = self.front_ends.get_mut(&front_end)?;
        let mut routes = [Route::Any, Route::Processor].into_iter();
        let admitted = routes.find_map(|route| lines.remove((shard, route), number))?;
        self.removed(&admitted);
        Some(admitted)
    }

    fn take(&mut self, front_end: u64, line: Line, most: usize) -> Vec<Admitted<T>> {
        let lines = self.front_ends.get_mut(&front_end);
        let taken = lines.expect("this is a bug: a front-end without queries").take(line, most);
        taken.iter().for_each(|admitted| self.removed(admitted));
        taken
    }

    fn removed(&mut self, admitted: &Admitted<T>) {
        let (front_end, line) = (admitted.query.front_end.number, admitted.line());
        self.queued_bytes -= admitted.query.bytes;
        self.deadlines.remove(&(admitted.query.deadline, admitted.ticket()));
        let shared = self.lines.get_mut(&line).expect("this is a bug: a query without its line");
        self.load.change(shared.queries, shared.queries - 1);
        shared.queries -= 1;
        let Some(lines) = self.front_ends.get(&front_end) else { return };
        if lines.queries(line) == 0 {
            shared.front_ends.remove(&front_end);
        }
        if shared.queries == 0 {
            self.lines.remove(&line);
        }
        if lines.is_empty() {
            self.front_ends.remove(&front_end);
            self.turns.leave(front_end);
        }
    }
}
