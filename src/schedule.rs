//! Which queries are computed next: admission, grouping by shard, deadlines.
//!
//! A [`Schedule`] holds what waits for an engine. It does no IO, starts no thread and reads no
//! clock: `now` is an argument, so its tests run in simulated time. Work is handed out as soon as
//! someone asks, oldest first; what failed comes back with its age and deadline. Waiting for
//! company, fairness between front-ends and quotas are not here, nor which device should take what:
//! whoever asks says what it may take. What is held besides owner, shard, size and deadline
//! (`item`) is never looked into. Read next: [`crate::placement`], [`crate::worker`].

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::engine::CallBounds;
use crate::limits;

/// What a schedule may hold.
#[derive(Debug, Clone, Copy)]
pub struct ScheduleBounds {
    /// Bytes of queries waiting.
    pub queued_bytes_max: usize,
    /// Queries of one connection, waiting or being computed.
    pub queries_per_owner_max: usize,
}

impl Default for ScheduleBounds {
    fn default() -> Self {
        Self {
            queued_bytes_max: limits::QUEUED_QUERY_BYTES_MAX,
            queries_per_owner_max: limits::QUERIES_PER_CONNECTION_MAX,
        }
    }
}

/// Whose query it is: one number a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(pub u64);

/// A query on its way in.
#[derive(Debug)]
pub struct Arrival<T> {
    /// Whose it is.
    pub owner: Owner,
    /// The shard asked.
    pub shard: u32,
    /// Memory it may take while it waits.
    pub bytes: usize,
    /// From here on it is not computed any more.
    pub deadline: Instant,
    /// The query itself, and where its answer goes.
    pub item: T,
}

/// Names a query that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    number: u64,
    shard: u32,
}

/// Who may take a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Route {
    /// Any engine.
    Any,
    /// Only the processor's: a device failed at it.
    Processor,
}

/// No room: what was not admitted comes back.
#[derive(Debug)]
pub struct Overloaded<T> {
    /// The query's item.
    pub item: T,
    /// When there may be room again.
    pub retry_after: Duration,
}

/// An admitted query. Whoever has it from [`Schedule::next`] gives it to [`Schedule::finished`] or
/// to [`Schedule::put_back`].
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted<T> {
    number: u64,
    owner: Owner,
    bytes: usize,
    arrived: Instant,
    deadline: Instant,
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
    /// Its queries, oldest first, all of one route.
    pub queries: Vec<Admitted<T>>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub struct Work<T> {
    /// To be computed, the oldest query first; a shard comes at most once a route.
    pub shards: Vec<ShardWork<T>>,
    /// Too late to be computed: to be answered DEADLINE.
    pub expired: Vec<T>,
}

/// The queries that wait for an engine.
pub struct Schedule<T> {
    bounds: ScheduleBounds,
    /// By shard and route, oldest first; no empty queue stays.
    queues: HashMap<(u32, Route), VecDeque<Admitted<T>>>,
    /// The number of the first of every queue, and its queue.
    heads: BTreeSet<(u64, u32, Route)>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    /// Queries of each owner, waiting or being computed.
    owners: HashMap<Owner, usize>,
    queued_bytes: usize,
    queued: usize,
    next_number: u64,
}

impl<T> Schedule<T> {
    /// An empty one.
    pub fn new(bounds: ScheduleBounds) -> Self {
        Self {
            bounds,
            queues: HashMap::new(),
            heads: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            owners: HashMap::new(),
            queued_bytes: 0,
            queued: 0,
            next_number: 0,
        }
    }

    /// Takes a query in, or hands it back when its owner or all together have too many waiting.
    pub fn admit(&mut self, now: Instant, arrival: Arrival<T>) -> Result<Ticket, Overloaded<T>> {
        let Arrival { owner, shard, bytes, deadline, item } = arrival;
        let owned = self.owners.get(&owner).copied().unwrap_or(0);
        let full = self.queued_bytes + bytes > self.bounds.queued_bytes_max;
        if full || owned >= self.bounds.queries_per_owner_max {
            return Err(Overloaded { item, retry_after: self.retry_after(now) });
        }
        let number = self.next_number;
        self.next_number += 1;
        self.owners.insert(owner, owned + 1);
        let route = Route::Any;
        self.insert(shard, Admitted { number, owner, bytes, arrived: now, deadline, route, item });
        Ok(Ticket { number, shard })
    }

    /// Takes a query out that nobody waits for any more; `None` when it is being computed, was
    /// answered or was cancelled before.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let query = self.remove(ticket)?;
        self.disown(query.owner);
        Some(query.item)
    }

    /// What to compute next: as much as one call is worth, oldest first, of each shard as many as
    /// there are and fit. What the asker may not take stays where it is.
    pub fn next(
        &mut self,
        now: Instant,
        bounds: CallBounds,
        mut may_take: impl FnMut(u32, Route) -> bool,
    ) -> Work<T> {
        let expired = self.expire(now);
        let mut room = bounds.queries_max;
        let mut chosen = Vec::new();
        for &(_, shard, route) in &self.heads {
            if room == 0 || chosen.len() == bounds.shards_max {
                break;
            }
            if may_take(shard, route) {
                let count = room.min(self.queues[&(shard, route)].len());
                room -= count;
                chosen.push((shard, route, count));
            }
        }
        let take = |(shard, route, count)| ShardWork {
            shard,
            queries: (0..count).map(|_| self.remove_at(shard, route, 0)).collect(),
        };
        Work { shards: chosen.into_iter().map(take).collect(), expired }
    }

    /// A query handed out by [`Schedule::next`] is done with, computed or not.
    pub fn finished(&mut self, query: Admitted<T>) -> T {
        self.disown(query.owner);
        query.item
    }

    /// A query handed out by [`Schedule::next`] for this shard was not computed: it waits again, in
    /// its old place, for the processor alone. There is always room: it was admitted before.
    pub fn put_back(&mut self, shard: u32, query: Admitted<T>) {
        self.insert(shard, Admitted { route: Route::Processor, ..query });
    }

    /// Queries waiting.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes of the queries waiting.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whoever comes now would wait about as long as the oldest one has.
    fn retry_after(&self, now: Instant) -> Duration {
        let oldest = self.heads.first();
        let oldest = oldest.and_then(|&(_, shard, route)| self.queues[&(shard, route)].front());
        let waited = oldest.map(|query| now.saturating_duration_since(query.arrived));
        waited.unwrap_or_default().clamp(limits::RETRY_AFTER_MIN, limits::RETRY_AFTER_MAX)
    }

    fn expire(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some(&(deadline, ticket)) = self.deadlines.first()
            && deadline <= now
        {
            let late = self.remove(ticket).expect("this is a bug: a deadline without its query");
            self.disown(late.owner);
            expired.push(late.item);
        }
        expired
    }

    fn disown(&mut self, owner: Owner) {
        let owned = self.owners.get_mut(&owner).expect("this is a bug: an owner without queries");
        *owned -= 1;
        if *owned == 0 {
            self.owners.remove(&owner);
        }
    }

    /// Puts a query into its queue, by age.
    fn insert(&mut self, shard: u32, query: Admitted<T>) {
        let Admitted { number, route, .. } = query;
        self.queued += 1;
        self.queued_bytes += query.bytes;
        self.deadlines.insert((query.deadline, Ticket { number, shard }));
        let queue = self.queues.entry((shard, route)).or_default();
        let at = queue.partition_point(|other| other.number < number);
        if at == 0 {
            if let Some(first) = queue.front() {
                self.heads.remove(&(first.number, shard, route));
            }
            self.heads.insert((number, shard, route));
        }
        queue.insert(at, query);
    }

    fn remove(&mut self, Ticket { number, shard }: Ticket) -> Option<Admitted<T>> {
        [Route::Any, Route::Processor].into_iter().find_map(|route| {
            let queue = self.queues.get(&(shard, route))?;
            let at = queue.binary_search_by_key(&number, |query| query.number).ok()?;
            Some(self.remove_at(shard, route, at))
        })
    }

    fn remove_at(&mut self, shard: u32, route: Route, at: usize) -> Admitted<T> {
        let queue = self.queues.get_mut(&(shard, route));
        let queue = queue.expect("this is a bug: a queue that is not there");
        let query = queue.remove(at).expect("this is a bug: a place beyond its queue");
        self.queued -= 1;
        self.queued_bytes -= query.bytes;
        self.deadlines.remove(&(query.deadline, Ticket { number: query.number, shard }));
        if at == 0 {
            self.heads.remove(&(query.number, shard, route));
            match queue.front() {
                Some(first) => {
                    self.heads.insert((first.number, shard, route));
                }
                None => {
                    self.queues.remove(&(shard, route));
                }
            }
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: ScheduleBounds =
        ScheduleBounds { queued_bytes_max: 1000, queries_per_owner_max: 8 };

    /// At most so many queries, over any number of shards.
    fn up_to(queries_max: usize) -> CallBounds {
        CallBounds { shards_max: usize::MAX, queries_max }
    }

    fn any(_: u32, _: Route) -> bool {
        true
    }

    fn arrival(owner: u64, shard: u32, deadline: Instant, item: u32) -> Arrival<u32> {
        Arrival { owner: Owner(owner), shard, bytes: 100, deadline, item }
    }

    fn items(work: &Work<u32>) -> Vec<(u32, Vec<u32>)> {
        let of = |shard: &ShardWork<u32>| shard.queries.iter().map(|query| query.item).collect();
        work.shards.iter().map(|shard| (shard.shard, of(shard))).collect()
    }

    /// A schedule with items 0, 1, .. admitted for these shards, one owner each, a second apart.
    fn filled(start: Instant, shards: &[u32]) -> (Schedule<u32>, Vec<Ticket>) {
        let mut schedule = Schedule::new(BOUNDS);
        let mut tickets = Vec::new();
        for (item, &shard) in shards.iter().enumerate() {
            let now = start + Duration::from_secs(item as u64);
            let deadline = start + Duration::from_secs(100 - item as u64);
            let arrival = arrival(item as u64, shard, deadline, item as u32);
            tickets.push(schedule.admit(now, arrival).unwrap());
        }
        (schedule, tickets)
    }

    #[test]
    fn groups_by_shard_and_goes_oldest_first() {
        let start = Instant::now();
        let (mut schedule, _) = filled(start, &[7, 5, 7, 9, 7, 7, 5]);
        let work = schedule.next(start, up_to(5), any);
        assert_eq!(items(&work), [(7, vec![0, 2, 4, 5]), (5, vec![1])]);
        let work = schedule.next(start, up_to(5), any);
        assert_eq!(items(&work), [(9, vec![3]), (5, vec![6])]);
        assert_eq!((schedule.queued(), schedule.queued_bytes()), (0, 0));
        assert_eq!(items(&schedule.next(start, up_to(5), any)), []);
    }

    #[test]
    fn a_shard_that_did_not_fit_keeps_its_place() {
        let start = Instant::now();
        let (mut schedule, _) = filled(start, &[1, 1, 1, 1, 2]);
        assert_eq!(items(&schedule.next(start, up_to(3), any)), [(1, vec![0, 1, 2])]);
        let one_shard = CallBounds { shards_max: 1, queries_max: 10 };
        assert_eq!(items(&schedule.next(start, one_shard, any)), [(1, vec![3])]);
        assert_eq!(items(&schedule.next(start, one_shard, any)), [(2, vec![4])]);
    }

    #[test]
    fn what_the_asker_may_not_take_stays_where_it_is() {
        let start = Instant::now();
        let (mut schedule, _) = filled(start, &[1, 2, 1, 3, 2]);
        let but_one = |shard, _| shard != 1;
        assert_eq!(items(&schedule.next(start, up_to(2), but_one)), [(2, vec![1, 4])]);
        assert_eq!(items(&schedule.next(start, up_to(9), any)), [(1, vec![0, 2]), (3, vec![3])]);
    }

    #[test]
    fn what_failed_waits_for_the_processor_as_old_as_it_is() {
        let start = Instant::now();
        let (mut schedule, tickets) = filled(start, &[1, 1, 2, 1, 1]);
        let mut failed = schedule.next(start, up_to(3), |shard, _| shard == 1).shards.remove(0);
        assert_eq!(schedule.cancel(tickets[0]), None, "it is being computed");
        for query in failed.queries.drain(..).rev() {
            schedule.put_back(1, query);
        }
        assert_eq!(schedule.cancel(tickets[1]), Some(1));
        let elsewhere = |_, route| route == Route::Any;
        assert_eq!(items(&schedule.next(start, up_to(1), elsewhere)), [(2, vec![2])]);
        let work = schedule.next(start, up_to(9), any);
        assert_eq!(items(&work), [(1, vec![0, 3]), (1, vec![4])]);
        let routes = work.shards.iter().map(|work| work.queries[0].route);
        assert_eq!(routes.collect::<Vec<_>>(), [Route::Processor, Route::Any]);
        // Its deadline, of 100 s, is what it was.
        let late = start + Duration::from_secs(100);
        for query in work.shards.into_iter().flat_map(|work| work.queries) {
            schedule.put_back(1, query);
        }
        let work = schedule.next(late, up_to(9), any);
        assert_eq!((work.expired, work.shards.len()), (vec![4, 3, 0], 0));
    }

    #[test]
    fn what_is_too_late_is_never_handed_out() {
        let start = Instant::now();
        let (mut schedule, _) = filled(start, &[1, 1, 2]);
        // Deadlines: item 2 at 98 s, item 1 at 99 s, item 0 at 100 s.
        let work = schedule.next(start + Duration::from_secs(99), up_to(10), any);
        assert_eq!(work.expired, [2, 1]);
        assert_eq!(items(&work), [(1, vec![0])]);
        assert_eq!(schedule.queued_bytes(), 0);
    }

    #[test]
    fn cancelled_queries_are_taken_out() {
        let start = Instant::now();
        let (mut schedule, tickets) = filled(start, &[1, 1, 1, 2]);
        assert_eq!(schedule.cancel(tickets[0]), Some(0));
        assert_eq!(schedule.cancel(tickets[0]), None);
        assert_eq!(schedule.cancel(tickets[2]), Some(2));
        assert_eq!(schedule.cancel(tickets[3]), Some(3));
        assert_eq!(items(&schedule.next(start, up_to(10), any)), [(1, vec![1])]);
        assert_eq!(schedule.cancel(tickets[1]), None);
        assert_eq!((schedule.queued(), schedule.queued_bytes()), (0, 0));
    }

    #[test]
    fn too_many_bytes_are_refused_with_a_time_to_come_again() {
        let start = Instant::now();
        let (mut schedule, tickets) = filled(start, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let late = start + Duration::from_secs(50);
        let refused = schedule.admit(start, arrival(99, 1, late, 77)).unwrap_err();
        assert_eq!((refused.item, refused.retry_after), (77, limits::RETRY_AFTER_MIN));
        let later = start + Duration::from_millis(700);
        let refused = schedule.admit(later, arrival(99, 1, late, 77)).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_millis(700));
        let much_later = start + Duration::from_secs(49);
        let refused = schedule.admit(much_later, arrival(99, 1, late, 77)).unwrap_err();
        assert_eq!(refused.retry_after, limits::RETRY_AFTER_MAX);
        schedule.cancel(tickets[4]).unwrap();
        schedule.admit(start, arrival(99, 1, late, 77)).unwrap();
    }

    #[test]
    fn one_owner_cannot_have_more_than_its_bound_waiting_or_computed() {
        let start = Instant::now();
        let late = start + Duration::from_secs(50);
        let mut schedule = Schedule::new(ScheduleBounds { queries_per_owner_max: 2, ..BOUNDS });
        schedule.admit(start, arrival(1, 1, late, 0)).unwrap();
        schedule.admit(start, arrival(1, 2, late, 1)).unwrap();
        assert!(schedule.admit(start, arrival(1, 3, late, 2)).is_err());
        schedule.admit(start, arrival(2, 3, late, 3)).unwrap();
        let mut work = schedule.next(start, up_to(10), any);
        assert_eq!(work.shards.len(), 3);
        assert!(schedule.admit(start, arrival(1, 3, late, 4)).is_err());
        schedule.finished(work.shards[0].queries.remove(0));
        schedule.admit(start, arrival(1, 3, late, 5)).unwrap();
    }

    /// A query of the plain list: number, owner, shard, route, deadline. Its number is its item.
    #[derive(Clone, Copy)]
    struct Plain {
        number: u32,
        owner: u64,
        shard: u32,
        route: Route,
        deadline: Instant,
    }

    /// What the schedule should hand out of a list: the first query of each shard and route that
    /// may be taken, with those behind it while there is room, then the next.
    fn expected(
        waiting: &[Plain],
        bounds: CallBounds,
        may_take: impl Fn(u32, Route) -> bool,
    ) -> Vec<(u32, Vec<u32>)> {
        let mut out: Vec<(u32, Vec<u32>)> = Vec::new();
        let mut seen = Vec::new();
        let mut room = bounds.queries_max;
        for first in waiting {
            let line = (first.shard, first.route);
            if room == 0 || out.len() == bounds.shards_max {
                break;
            }
            if seen.contains(&line) || !may_take(first.shard, first.route) {
                continue;
            }
            seen.push(line);
            let same = waiting.iter().filter(|query| (query.shard, query.route) == line);
            let taken: Vec<u32> = same.take(room).map(|query| query.number).collect();
            room -= taken.len();
            out.push((first.shard, taken));
        }
        out
    }

    /// Random admitting, cancelling, taking, putting back and waiting against a plain list.
    #[test]
    fn agrees_with_a_plain_list() {
        let seed = std::process::id();
        println!("seed {seed}");
        let mut state = u64::from(seed) | 1;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut now = Instant::now();
        let mut schedule = Schedule::new(BOUNDS);
        let mut waiting: Vec<Plain> = Vec::new();
        let mut tickets: HashMap<u32, Ticket> = HashMap::new();
        let mut computed: Vec<(Plain, Admitted<u32>)> = Vec::new();
        for number in 0..20_000 {
            now += Duration::from_millis(random(50));
            match random(6) {
                0..=2 => {
                    let deadline = now + Duration::from_millis(random(900));
                    let (owner, shard) = (random(4), random(5) as u32);
                    let owned = |query: &&Plain| query.owner == owner;
                    let owned = waiting.iter().filter(owned).count()
                        + computed.iter().map(|(query, _)| query).filter(owned).count();
                    let admitted = schedule.admit(now, arrival(owner, shard, deadline, number));
                    let fits = waiting.len() < 10 && owned < 8;
                    assert_eq!(admitted.is_ok(), fits, "{owned} of {} waiting", waiting.len());
                    if let Ok(ticket) = admitted {
                        tickets.insert(number, ticket);
                        let route = Route::Any;
                        waiting.push(Plain { number, owner, shard, route, deadline });
                    }
                }
                3 if !waiting.is_empty() => {
                    let query = waiting.remove(random(waiting.len() as u64) as usize);
                    assert_eq!(schedule.cancel(tickets[&query.number]), Some(query.number));
                }
                4 if !computed.is_empty() => {
                    let at = random(computed.len() as u64) as usize;
                    let (query, admitted) = computed.remove(at);
                    assert_eq!(schedule.cancel(tickets[&query.number]), None);
                    if random(2) == 0 {
                        assert_eq!(schedule.finished(admitted), query.number);
                    } else {
                        schedule.put_back(query.shard, admitted);
                        let at = waiting.partition_point(|other| other.number < query.number);
                        waiting.insert(at, Plain { route: Route::Processor, ..query });
                    }
                }
                _ => {
                    let shards_max = 1 + random(3) as usize;
                    let bounds = CallBounds { shards_max, queries_max: 1 + random(4) as usize };
                    let (modulus, but) = (1 + random(3) as u32, random(2) == 0);
                    let may_take = move |shard: u32, route| {
                        shard.is_multiple_of(modulus) && (but || route == Route::Any)
                    };
                    let work = schedule.next(now, bounds, may_take);
                    let mut late = waiting.clone();
                    late.retain(|query| query.deadline <= now);
                    late.sort_by_key(|query| (query.deadline, query.number));
                    let late: Vec<u32> = late.iter().map(|query| query.number).collect();
                    assert_eq!(work.expired, late);
                    waiting.retain(|query| query.deadline > now);
                    assert_eq!(items(&work), expected(&waiting, bounds, may_take));
                    for query in work.shards.into_iter().flat_map(|work| work.queries) {
                        let at = waiting.iter().position(|plain| plain.number == query.item);
                        computed.push((waiting.remove(at.unwrap()), query));
                    }
                }
            }
            assert_eq!(schedule.queued(), waiting.len());
            assert_eq!(schedule.queued_bytes(), waiting.len() * 100);
        }
    }
}
