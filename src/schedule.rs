//! Which queries are computed next: admission, grouping by shard, deadlines.
//!
//! A [`Schedule`] holds what waits for an engine. It does no IO, starts no thread and reads no
//! clock: `now` is an argument, so its tests run in simulated time. Work is handed out as soon as
//! someone asks, oldest first; waiting for company, fairness between front-ends and quotas are not
//! here. What it holds besides owner, shard, size and deadline (`item`) it never looks into.
//! Read next: [`crate::worker`].

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::limits;

/// What a schedule may hold.
#[derive(Debug, Clone, Copy)]
pub struct ScheduleBounds {
    /// Bytes of queries waiting.
    pub queued_bytes_max: usize,
    /// Queries of one connection, waiting or being computed.
    pub queries_per_owner_max: usize,
    /// Queries of one shard handed out together.
    pub queries_per_shard_max: usize,
}

impl Default for ScheduleBounds {
    fn default() -> Self {
        Self {
            queued_bytes_max: limits::QUEUED_QUERY_BYTES_MAX,
            queries_per_owner_max: limits::QUERIES_PER_CONNECTION_MAX,
            queries_per_shard_max: limits::BATCH_QUERIES_PER_SCAN_MAX,
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

/// No room: what was not admitted comes back.
#[derive(Debug)]
pub struct Overloaded<T> {
    /// The query's item.
    pub item: T,
    /// When there may be room again.
    pub retry_after: Duration,
}

/// Queries of one shard: one pass over its matrix and tables.
#[derive(Debug, PartialEq, Eq)]
pub struct ShardWork<T> {
    /// The shard.
    pub shard: u32,
    /// Its queries, oldest first, with their owners.
    pub queries: Vec<(Owner, T)>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub struct Work<T> {
    /// To be computed, the shard with the oldest query first, none twice.
    pub shards: Vec<ShardWork<T>>,
    /// Too late to be computed: to be answered DEADLINE.
    pub expired: Vec<T>,
}

struct Entry<T> {
    number: u64,
    owner: Owner,
    bytes: usize,
    arrived: Instant,
    deadline: Instant,
    item: T,
}

/// The queries that wait for an engine.
pub struct Schedule<T> {
    bounds: ScheduleBounds,
    /// By shard, oldest first; no empty queue stays.
    queues: HashMap<u32, VecDeque<Entry<T>>>,
    /// The first ticket of every queue.
    heads: BTreeSet<Ticket>,
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
        let ticket = Ticket { number: self.next_number, shard };
        self.next_number += 1;
        self.owners.insert(owner, owned + 1);
        self.queued_bytes += bytes;
        self.queued += 1;
        self.deadlines.insert((deadline, ticket));
        let queue = self.queues.entry(shard).or_default();
        if queue.is_empty() {
            self.heads.insert(ticket);
        }
        let number = ticket.number;
        queue.push_back(Entry { number, owner, bytes, arrived: now, deadline, item });
        Ok(ticket)
    }

    /// Takes a query out that nobody waits for any more; `None` when it is being computed, was
    /// answered or was cancelled before.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let (owner, item) = self.remove(ticket)?;
        self.finished(owner);
        Some(item)
    }

    /// What to compute next: at most `queries_max` queries, oldest first, those of one shard
    /// together. Whoever takes work calls [`Schedule::finished`] once for each query of it.
    pub fn next(&mut self, now: Instant, queries_max: usize) -> Work<T> {
        let mut work = Work { shards: Vec::new(), expired: self.expire(now) };
        let mut room = queries_max;
        while room > 0
            && let Some(head) = self.heads.pop_first()
        {
            let take = room.min(self.bounds.queries_per_shard_max);
            let queries = self.take(head.shard, take);
            room -= queries.len();
            work.shards.push(ShardWork { shard: head.shard, queries });
        }
        // A shard that was handed out only in part is in line again, but not within this call.
        for shard_work in &work.shards {
            if let Some(first) = self.queues.get(&shard_work.shard).and_then(VecDeque::front) {
                self.heads.insert(Ticket { number: first.number, shard: shard_work.shard });
            }
        }
        work
    }

    /// A query handed out by [`Schedule::next`] is done with, computed or not.
    pub fn finished(&mut self, owner: Owner) {
        let owned = self.owners.get_mut(&owner).expect("this is a bug: an owner without queries");
        *owned -= 1;
        if *owned == 0 {
            self.owners.remove(&owner);
        }
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
        let oldest = self.heads.first().and_then(|head| self.queues[&head.shard].front());
        let waited = oldest.map(|entry| now.saturating_duration_since(entry.arrived));
        waited.unwrap_or_default().clamp(limits::RETRY_AFTER_MIN, limits::RETRY_AFTER_MAX)
    }

    fn expire(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some(&(deadline, ticket)) = self.deadlines.first()
            && deadline <= now
        {
            let removed = self.remove(ticket);
            let (owner, item) = removed.expect("this is a bug: a deadline without its query");
            self.finished(owner);
            expired.push(item);
        }
        expired
    }

    fn take(&mut self, shard: u32, count: usize) -> Vec<(Owner, T)> {
        let queue = self.queues.get_mut(&shard).expect("this is a bug: a head without a queue");
        let taken: Vec<Entry<T>> = queue.drain(..count.min(queue.len())).collect();
        if queue.is_empty() {
            self.queues.remove(&shard);
        }
        self.queued -= taken.len();
        for entry in &taken {
            self.queued_bytes -= entry.bytes;
            self.deadlines.remove(&(entry.deadline, Ticket { number: entry.number, shard }));
        }
        taken.into_iter().map(|entry| (entry.owner, entry.item)).collect()
    }

    fn remove(&mut self, ticket: Ticket) -> Option<(Owner, T)> {
        let queue = self.queues.get_mut(&ticket.shard)?;
        let at = queue.binary_search_by_key(&ticket.number, |entry| entry.number).ok()?;
        let entry = queue.remove(at)?;
        self.queued -= 1;
        self.queued_bytes -= entry.bytes;
        self.deadlines.remove(&(entry.deadline, ticket));
        if at == 0 {
            self.heads.remove(&ticket);
            match queue.front() {
                Some(first) => {
                    self.heads.insert(Ticket { number: first.number, shard: ticket.shard });
                }
                None => {
                    self.queues.remove(&ticket.shard);
                }
            }
        }
        Some((entry.owner, entry.item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: ScheduleBounds = ScheduleBounds {
        queued_bytes_max: 1000,
        queries_per_owner_max: 8,
        queries_per_shard_max: 3,
    };

    fn arrival(owner: u64, shard: u32, deadline: Instant, item: u32) -> Arrival<u32> {
        Arrival { owner: Owner(owner), shard, bytes: 100, deadline, item }
    }

    fn items(work: &Work<u32>) -> Vec<(u32, Vec<u32>)> {
        let of = |shard: &ShardWork<u32>| shard.queries.iter().map(|&(_, item)| item).collect();
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
        let work = schedule.next(start, 5);
        assert_eq!(items(&work), [(7, vec![0, 2, 4]), (5, vec![1, 6])]);
        let work = schedule.next(start, 5);
        assert_eq!(items(&work), [(9, vec![3]), (7, vec![5])]);
        assert_eq!((schedule.queued(), schedule.queued_bytes()), (0, 0));
        assert_eq!(items(&schedule.next(start, 5)), []);
    }

    #[test]
    fn a_shard_comes_once_a_call_and_keeps_its_place() {
        let start = Instant::now();
        let (mut schedule, _) = filled(start, &[1, 1, 1, 1, 2]);
        assert_eq!(items(&schedule.next(start, 10)), [(1, vec![0, 1, 2]), (2, vec![4])]);
        assert_eq!(items(&schedule.next(start, 10)), [(1, vec![3])]);
    }

    #[test]
    fn what_is_too_late_is_never_handed_out() {
        let start = Instant::now();
        let (mut schedule, _) = filled(start, &[1, 1, 2]);
        // Deadlines: item 2 at 98 s, item 1 at 99 s, item 0 at 100 s.
        let work = schedule.next(start + Duration::from_secs(99), 10);
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
        assert_eq!(items(&schedule.next(start, 10)), [(1, vec![1])]);
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
        assert_eq!(schedule.next(start, 10).shards.len(), 3);
        assert!(schedule.admit(start, arrival(1, 3, late, 4)).is_err());
        schedule.finished(Owner(1));
        schedule.admit(start, arrival(1, 3, late, 5)).unwrap();
    }

    /// Random admitting, cancelling, taking and waiting against a plain list.
    #[test]
    fn agrees_with_a_plain_list() {
        let seed = std::process::id();
        println!("seed {seed}");
        let mut state = u64::from(seed) | 1;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let start = Instant::now();
        let (mut now, mut schedule) = (start, Schedule::new(BOUNDS));
        let mut waiting: Vec<(Ticket, Instant, u32)> = Vec::new();
        for item in 0..20_000 {
            now += Duration::from_millis(random(50));
            match random(4) {
                0 | 1 => {
                    let deadline = now + Duration::from_millis(random(400));
                    let query = arrival(random(5), random(6) as u32, deadline, item);
                    match schedule.admit(now, query) {
                        Ok(ticket) => waiting.push((ticket, deadline, item)),
                        Err(_) => assert!(waiting.len() >= 8),
                    }
                }
                2 if !waiting.is_empty() => {
                    let at = random(waiting.len() as u64) as usize;
                    let (ticket, _, item) = waiting.remove(at);
                    assert_eq!(schedule.cancel(ticket), Some(item));
                }
                _ => {
                    let work = schedule.next(now, 4);
                    let late = |item: &u32| {
                        waiting.iter().any(|(_, deadline, i)| i == item && *deadline <= now)
                    };
                    assert!(work.expired.iter().all(late));
                    let taken = work.shards.iter().flat_map(|shard| &shard.queries);
                    let taken: Vec<(Owner, u32)> = taken.copied().collect();
                    assert!(taken.len() <= 4 && !taken.iter().any(|(_, item)| late(item)));
                    waiting.retain(|(_, deadline, item)| {
                        *deadline > now && !taken.iter().any(|(_, taken)| taken == item)
                    });
                    taken.iter().for_each(|&(owner, _)| schedule.finished(owner));
                }
            }
            assert_eq!(schedule.queued(), waiting.len());
            assert_eq!(schedule.queued_bytes(), waiting.len() * 100);
        }
    }
}
