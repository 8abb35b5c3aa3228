//! Which queries are computed next: admission, batching, fair shares, deadlines.
//!
//! A [`Schedule`] holds what waits for an engine. It does no IO, starts no thread and reads no
//! clock: `now` is an argument, so its tests run in simulated time.
//!
//! An engine that is free gets work at once, so queries for one shard are batched while engines
//! are busy. Work goes out a batch at a time. The turn is that of the front-end who has had least
//! for its share (`fair`). It picks among the shards that the engine may take: while none of its
//! queries has waited for half of the latency target, the one for which it has the most queries
//! (a batch costs about the same for each: the shards of a database have one shape); then the one
//! with the oldest. Queries of others for this shard ride along, unless these others are ahead of
//! their share, and pay for their places in the batch. Deadlines end waiting, they do not order it.
//!
//! Who has queries waiting is refused more of them when the new one's answer would come after the
//! latency target or its deadline, as fast as work goes out (`pace`). Two full batches may wait in
//! any case: without batching no engine is fast. A front-end may have waiting what its share of the
//! engines does in that time, or, where all together wait for less, twice as much as is left:
//! one alone gets most of the time, and however many flood, there is room for one more.
//!
//! The pack part of answers is not computed ahead, though it depends only on bundle and shard: what
//! an idle engine may take it takes whole, at once, so there is nothing ahead of which to compute.
//!
//! Not here: which device takes what (whoever asks says what it may take), quotas. What is held
//! besides front-end, connection, shard, sizes and deadline (`item`) is never looked into. Read
//! next: `lines.rs`, `fair.rs`, `pace.rs`, then [`crate::placement`], [`crate::worker`].

mod fair;
mod lines;
mod pace;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use self::fair::{Load, Part, Turns};
use self::lines::{Line, Lines, Rule, Search};
use self::pace::Pace;
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
    /// Bytes of queries waiting. A front-end may have as much of it as is free: one alone gets
    /// half, and however many flood there is room for one more.
    pub queued_bytes_max: usize,
    /// Queries of one connection, waiting or being computed.
    pub queries_per_owner_max: usize,
    /// How long answers should take at most. A front-end whose oldest query has waited for half of
    /// it is served by age; a query whose answer would come later is refused.
    pub latency_target: Duration,
}

impl Default for ScheduleBounds {
    fn default() -> Self {
        Self {
            queued_bytes_max: limits::QUEUED_QUERY_BYTES_MAX,
            queries_per_owner_max: limits::QUERIES_PER_CONNECTION_MAX,
            latency_target: limits::LATENCY_TARGET,
        }
    }
}

/// Whose query it is: one number a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// On whose account it is: a front-end, or a connection where front-ends are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontEnd {
    /// One number a front-end.
    pub number: u64,
    /// Its weight beside others.
    pub share: u32,
}

/// A query on its way in.
#[derive(Debug)]
pub struct Arrival<T> {
    /// Whose it is.
    pub connection: ConnectionId,
    /// On whose account.
    pub front_end: FrontEnd,
    /// The shard asked.
    pub shard: u32,
    /// What a batch of the shard reads.
    pub scan_bytes: u64,
    /// Memory it may take while it waits.
    pub bytes: usize,
    /// From here on it is not computed any more.
    pub deadline: Instant,
    /// The query itself, and where its answer goes.
    pub item: T,
}

impl<T> Arrival<T> {
    /// The same with another item.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Arrival<U> {
        let Self { connection, front_end, shard, scan_bytes, bytes, deadline, item } = self;
        Arrival { connection, front_end, shard, scan_bytes, bytes, deadline, item: change(item) }
    }
}

/// Names a query that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    number: u64,
    shard: u32,
    front_end: u64,
}

/// Who may take a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    /// Any engine.
    Any,
    /// Only the processor's: a device failed at it.
    Processor,
}

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Queries of all front-ends.
    Queue,
    /// Queries of this front-end: others need room.
    FrontEnd,
    /// Queries of this connection.
    Connection,
    /// Queries before it: its answer would come after the latency target or its deadline.
    Time,
}

/// No room: what was not admitted comes back.
#[derive(Debug)]
pub struct Overloaded<T> {
    /// The query's item.
    pub item: T,
    /// Why.
    pub full: Full,
    /// When there may be room again.
    pub retry_after: Duration,
}

impl<T> Overloaded<T> {
    /// The same with another item.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Overloaded<U> {
        let Self { item, full, retry_after } = self;
        Overloaded { item: change(item), full, retry_after }
    }
}

/// An admitted query. Whoever has it from [`Schedule::next`] gives it to [`Schedule::finished`] or
/// to [`Schedule::put_back`].
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted<T> {
    number: u64,
    connection: ConnectionId,
    front_end: FrontEnd,
    bytes: usize,
    scan_bytes: u64,
    deadline: Instant,
    /// When it was admitted.
    pub arrived: Instant,
    /// Who may take it.
    pub route: Route,
    /// What was admitted.
    pub item: T,
}

/// Queries of one shard, for one engine.
#[derive(Debug, PartialEq, Eq)]
pub struct ShardWork<T> {
    /// The shard.
    pub shard: u32,
    /// Its queries, all of one route: batch by batch, those of whoever's turn it was before others.
    pub queries: Vec<Admitted<T>>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
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
    /// Batches and queries that all of them are.
    load: Load,
    turns: Turns,
    pace: Pace,
    deadlines: BTreeSet<(Instant, Ticket)>,
    /// Queries of each connection, waiting or being computed.
    connections: HashMap<ConnectionId, usize>,
    queued_bytes: usize,
    queued: usize,
    next_number: u64,
}

impl<T> Schedule<T> {
    /// An empty one.
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
            queued: 0,
            next_number: 0,
        }
    }

    /// Takes a query in, or hands it back when its connection, its front-end or all together have
    /// too many waiting.
    pub fn admit(&mut self, now: Instant, arrival: Arrival<T>) -> Result<Ticket, Overloaded<T>> {
        let Arrival { connection, front_end, shard, scan_bytes, bytes, deadline, item } = arrival;
        let owned = self.connections.get(&connection).copied().unwrap_or(0);
        if let Some(full) = self.full(front_end, bytes, owned) {
            return Err(Overloaded { item, full, retry_after: self.retry_after(now, front_end) });
        }
        if let Some(retry_after) = self.too_late(now, front_end, shard, deadline) {
            return Err(Overloaded { item, full: Full::Time, retry_after });
        }
        let number = self.next_number;
        self.next_number += 1;
        self.connections.insert(connection, owned + 1);
        let (arrived, route) = (now, Route::Any);
        let query = Admitted {
            number,
            connection,
            front_end,
            bytes,
            scan_bytes,
            arrived,
            deadline,
            route,
            item,
        };
        let ticket = query.ticket(shard);
        self.insert(shard, query);
        Ok(ticket)
    }

    /// Takes a query out that nobody waits for any more; `None` when it is being computed, was
    /// answered or was cancelled before.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let query = self.remove(ticket)?;
        self.leave_connection(query.connection);
        if self.queued == 0 {
            self.pace.nothing_waits();
        }
        Some(query.item)
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
        if self.queued == 0 {
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
            self.pace.handed_out(now, taken, self.queued > 0);
        }
        Work { shards, expired }
    }

    /// A query handed out by [`Schedule::next`] is done with, computed or not.
    pub fn finished(&mut self, query: Admitted<T>) -> T {
        self.leave_connection(query.connection);
        query.item
    }

    /// A query handed out by [`Schedule::next`] for this shard was not computed: it waits again, in
    /// its old place, for the processor alone. There is always room: it was admitted before.
    pub fn put_back(&mut self, shard: u32, query: Admitted<T>) {
        self.insert(shard, Admitted { route: Route::Processor, ..query });
    }

    /// A front-end was sent or brought so many bytes besides its queries and their answers: its
    /// next turn comes as if engines had scanned as many for it.
    pub fn charge(&mut self, front_end: FrontEnd, bytes: u64) {
        self.turns.charge_bytes(front_end, bytes);
    }

    /// Queries waiting.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes of the queries waiting.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// What keeps a query out, if anything does.
    fn full(&self, front_end: FrontEnd, bytes: usize, owned: usize) -> Option<Full> {
        let free = self.bounds.queued_bytes_max.saturating_sub(self.queued_bytes);
        let held = self.front_ends.get(&front_end.number).map_or(0, Lines::bytes);
        if owned >= self.bounds.queries_per_owner_max {
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
    fn too_late(
        &self,
        now: Instant,
        front_end: FrontEnd,
        shard: u32,
        deadline: Instant,
    ) -> Option<Duration> {
        let lines = self.front_ends.get(&front_end.number)?;
        if self.queued < TIMELY_QUERIES {
            return None;
        }
        let line = (shard, Route::Any);
        let [mut own, mut all] = [lines.load(), self.load];
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
            self.leave_connection(late.connection);
            expired.push(late.item);
        }
        expired
    }

    fn leave_connection(&mut self, connection: ConnectionId) {
        let owned = self
            .connections
            .get_mut(&connection)
            .expect("this is a bug: a connection without queries");
        *owned -= 1;
        if *owned == 0 {
            self.connections.remove(&connection);
        }
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
                let waited =
                    lines.oldest().map(|query| now.saturating_duration_since(query.arrived));
                let long = waited.is_some_and(|waited| waited >= self.bounds.latency_target / 2);
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
        let mut queries = self.take(front_end, line, most);
        let (own, scan_bytes) = (queries.len(), queries[0].scan_bytes);
        self.turns.begin(front_end);
        let others =
            self.lines.get(&line).into_iter().flat_map(|shared| &shared.front_ends).copied();
        for other in self.turns.riders(front_end, scan_bytes, others) {
            queries.append(&mut self.take(other, line, most - queries.len()));
        }
        // What failed on a device was paid for when it went there.
        if line.1 == Route::Any {
            let riders = queries.len() - own;
            let places = limits::BATCH_QUERIES_PER_SCAN_MAX - riders;
            self.turns.charge(front_end, Part { scan_bytes, places, queries: own });
            for rider in &queries[own..] {
                self.turns
                    .charge(rider.front_end.number, Part { scan_bytes, places: 1, queries: 1 });
            }
        }
        queries
    }

    /// Puts a query into its line.
    fn insert(&mut self, shard: u32, query: Admitted<T>) {
        let (front_end, line) = (query.front_end, (shard, query.route));
        self.queued += 1;
        self.queued_bytes += query.bytes;
        self.deadlines.insert((query.deadline, query.ticket(shard)));
        let shared = self.lines.entry(line).or_default();
        shared.front_ends.insert(front_end.number);
        self.load.change(shared.queries, shared.queries + 1);
        shared.queries += 1;
        self.turns.enter(front_end);
        self.front_ends.entry(front_end.number).or_default().insert(line, query);
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Admitted<T>> {
        let Ticket { number, shard, front_end } = ticket;
        let lines = self.front_ends.get_mut(&front_end)?;
        let mut routes = [Route::Any, Route::Processor].into_iter();
        let (line, query) = routes.find_map(|route| {
            let line = (shard, route);
            Some((line, lines.remove(line, number)?))
        })?;
        self.removed(line, &query);
        Some(query)
    }

    fn take(&mut self, front_end: u64, line: Line, most: usize) -> Vec<Admitted<T>> {
        let lines = self
            .front_ends
            .get_mut(&front_end)
            .expect("this is a bug: a front-end without queries");
        let taken = lines.take(line, most);
        taken.iter().for_each(|query| self.removed(line, query));
        taken
    }

    /// Takes note that a query left its line.
    fn removed(&mut self, line: Line, query: &Admitted<T>) {
        self.queued -= 1;
        self.queued_bytes -= query.bytes;
        self.deadlines.remove(&(query.deadline, query.ticket(line.0)));
        let front_end = query.front_end.number;
        let shared = self.lines.get_mut(&line).expect("this is a bug: a query without its line");
        self.load.change(shared.queries, shared.queries - 1);
        shared.queries -= 1;
        let Some(lines) = self.front_ends.get(&front_end) else { return };
        if !lines.contains(line) {
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

impl<T> Admitted<T> {
    fn ticket(&self, shard: u32) -> Ticket {
        Ticket { number: self.number, shard, front_end: self.front_end.number }
    }
}
