//! Which query goes when, one rule at a time, and all of them against a plain list.

use super::simulation::Random;
use super::*;
use crate::limits::BATCH_QUERIES_PER_SCAN_MAX;

const TARGET: Duration = Duration::from_secs(40);
const BOUNDS: ScheduleBounds = ScheduleBounds {
    queued_bytes_max: 1000,
    queries_per_connection_max: 8,
    latency_target: TARGET,
};

const SCAN_BYTES: u64 = 18_000;

/// At most so many queries, over any number of shards.
fn up_to(queries_max: usize) -> CallBounds {
    CallBounds { shards_max: usize::MAX, queries_max }
}

fn any(_: u32, _: Route) -> bool {
    true
}

/// Of a connection that is a front-end of its own.
fn arrival(connection: u64, shard: u32, deadline: Instant, item: u32) -> Arrival<u32> {
    let front_end = FrontEnd { number: connection, share: 1 };
    let connection = ConnectionId(connection);
    Arrival { connection, front_end, shard, scan_bytes: SCAN_BYTES, bytes: 100, deadline, item }
}

fn items(work: &Work<u32>) -> Vec<(u32, Vec<u32>)> {
    let of =
        |shard: &ShardWork<u32>| shard.queries.iter().map(|admitted| admitted.query.item).collect();
    work.shards.iter().map(|shard| (shard.shard, of(shard))).collect()
}

/// Room for more than a batch, which is all that is taken of one shard.
const ONE_BATCH: CallBounds = CallBounds { shards_max: 1, queries_max: 64 };

/// Admits queries of one front-end for this shard, a number of them.
fn admit_all(
    schedule: &mut Schedule<u32>,
    now: Instant,
    (number, share): (u64, u32),
    (shard, count): (u32, u32),
) -> Vec<Ticket> {
    let late = now + Duration::from_secs(1000);
    let front_end = FrontEnd { number, share };
    let admit = |item| {
        let arrival = Arrival { front_end, ..arrival(number, shard, late, item) };
        schedule.admit(now, arrival).unwrap()
    };
    (0..count).map(admit).collect()
}

/// The shards of so many turns, and of each how many queries it had.
fn turns(schedule: &mut Schedule<u32>, now: Instant, count: usize) -> Vec<(u32, usize)> {
    let mut turn = || {
        let work = schedule.next(now, ONE_BATCH, any).shards.pop()?;
        let turn = (work.shard, work.queries.len());
        work.queries.into_iter().for_each(|query| _ = schedule.finished(query));
        Some(turn)
    };
    (0..count).map_while(|_| turn()).collect()
}

/// Room for everything.
const WIDE: ScheduleBounds = ScheduleBounds {
    queued_bytes_max: 1 << 30,
    queries_per_connection_max: usize::MAX,
    latency_target: TARGET,
};

#[test]
fn most_queries_first_until_one_has_waited_for_half_of_the_target() {
    let start = Instant::now();
    let filled = || {
        let mut schedule = Schedule::new(WIDE);
        for (shard, count) in [(1, 1), (2, 3), (3, 40), (4, 3), (5, 33)] {
            admit_all(&mut schedule, start, (0, 1), (shard, count));
        }
        schedule
    };
    // More than a full batch is no better than a full batch.
    let by_count = [(3, 32), (5, 32), (3, 8), (2, 3), (4, 3), (1, 1), (5, 1)];
    let just_before = start + TARGET / 2 - Duration::from_millis(1);
    assert_eq!(turns(&mut filled(), just_before, 9), by_count);
    let by_age = [(1, 1), (2, 3), (3, 32), (3, 8), (4, 3), (5, 32), (5, 1)];
    assert_eq!(turns(&mut filled(), start + TARGET / 2, 9), by_age);
}

#[test]
fn who_is_refused_is_told_how_long_its_own_or_all_waited() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let mut schedule = Schedule::new(BOUNDS);
    admit_all(&mut schedule, at(0), (1, 1), (1, 5));
    admit_all(&mut schedule, at(300), (2, 1), (1, 3));
    let refused = |schedule: &mut Schedule<u32>, now, front_end| {
        let refused = schedule.admit(now, arrival(front_end, 1, at(90_000), 0)).unwrap_err();
        (refused.full, refused.retry_after)
    };
    assert_eq!(refused(&mut schedule, at(900), 2), (Full::FrontEnd, Duration::from_millis(600)));
    assert_eq!(refused(&mut schedule, at(300), 2), (Full::FrontEnd, limits::RETRY_AFTER_MIN));
    admit_all(&mut schedule, at(900), (3, 1), (1, 1));
    admit_all(&mut schedule, at(900), (4, 1), (1, 1));
    assert_eq!(refused(&mut schedule, at(900), 9), (Full::Queue, Duration::from_millis(900)));
    assert_eq!(refused(&mut schedule, at(49_000), 9), (Full::Queue, limits::RETRY_AFTER_MAX));
}

/// A schedule whose engine has shown to take a second for each batch of 32 queries over shard 1.
fn paced(start: Instant) -> (Schedule<u32>, Instant) {
    let mut schedule = Schedule::new(WIDE);
    admit_all(&mut schedule, start, (9, 1), (1, 99));
    let at = |second| start + Duration::from_secs(second);
    (0..3).for_each(|second| assert_eq!(turns(&mut schedule, at(second), 1), [(1, 32)]));
    (schedule, at(3))
}

/// Queries that one front-end gets in, up to the first that is refused; why, and until when.
fn admitted(
    schedule: &mut Schedule<u32>,
    now: Instant,
    (number, share): (u64, u32),
    deadline: Instant,
) -> (usize, Full, Duration) {
    let front_end = FrontEnd { number, share };
    let of = |item| Arrival { front_end, ..arrival(number, 1, deadline, item) };
    let mut refused = (0..).map(|item| (item, schedule.admit(now, of(item))));
    let (count, refused) = refused.find_map(|(item, tried)| Some((item, tried.err()?))).unwrap();
    (count as usize, refused.full, refused.retry_after)
}

#[test]
fn what_would_be_answered_too_late_is_refused() {
    let start = Instant::now();
    let much_later = start + Duration::from_secs(1000);
    // A target of 40 s, of which 24 may pass: two thirds of those for one.
    let (mut schedule, now) = paced(start);
    let (count, full, after) = admitted(&mut schedule, now, (1, 1), much_later);
    assert_eq!((full, after), (Full::Time, limits::RETRY_AFTER_MAX));
    assert!((15 * 32..=17 * 32).contains(&count), "{count}");
    // Another one of three still has its third, and whoever has none waiting gets one in.
    let (count, ..) = admitted(&mut schedule, now, (2, 1), much_later);
    assert!((7 * 32..=8 * 32).contains(&count), "{count}");
    for front_end in 3..200 {
        assert!(admitted(&mut schedule, now, (front_end, 1), much_later).0 >= 1);
    }
    // A large share may have more waiting.
    let (mut schedule, now) = paced(start);
    let [(small, ..), (large, ..)] =
        [(1, 1), (2, 9)].map(|front_end| admitted(&mut schedule, now, front_end, much_later));
    assert!(large > small, "{large}, {small}");
    // The deadline counts where it is sooner.
    let (mut schedule, now) = paced(start);
    let soon = now + Duration::from_secs(5);
    let (count, full, after) = admitted(&mut schedule, now, (1, 1), soon);
    assert_eq!(full, Full::Time);
    assert!((64..=4 * 32).contains(&count), "{count}");
    assert!(after > Duration::from_secs(4), "{after:?}");
}

#[test]
fn what_is_not_known_to_be_late_is_taken_in() {
    let start = Instant::now();
    let soon = start + Duration::from_millis(1);
    // Nothing was measured yet.
    let mut schedule = Schedule::new(WIDE);
    (0..500).for_each(|item| _ = schedule.admit(start, arrival(1, 1, soon, item)).unwrap());
    // It was too long ago.
    let (mut schedule, now) = paced(start);
    let (now, soon) = (now + Duration::from_secs(2), now + Duration::from_secs(3));
    (0..500).for_each(|item| _ = schedule.admit(now, arrival(1, 1, soon, item)).unwrap());
    // Two batches are no queue.
    let (mut schedule, now) = paced(start);
    (0..61).for_each(|item| _ = schedule.admit(now, arrival(1, 1, now, item)).unwrap());
    assert!(schedule.admit(now, arrival(1, 1, now, 61)).is_err());
}

#[test]
fn time_after_everything_that_waited_has_expired_does_not_slow_the_pace() {
    let start = Instant::now();
    let (mut schedule, _) = paced(start);
    let later = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(schedule.next(later(1000), ONE_BATCH, any).expired.len(), 3);
    admit_all(&mut schedule, later(2000), (9, 1), (1, 64));
    assert_eq!(turns(&mut schedule, later(2000), 1), [(1, 32)]);
    // Still a second a batch: a target of 24 s, two thirds of it for one.
    let (count, ..) = admitted(&mut schedule, later(2000), (1, 1), later(3000));
    assert!(count > 10 * 32, "{count}");
}

#[test]
fn ten_thousand_shards_are_not_looked_through() {
    let start = Instant::now();
    let mut schedule = Schedule::new(WIDE);
    let (front_ends, shards) = (4, 10_000);
    for shard in 0..shards {
        admit_all(&mut schedule, start, (u64::from(shard % front_ends), 1), (shard, 1));
    }
    let mut looks = 0;
    let all = |_, _| {
        looks += 1;
        true
    };
    assert_eq!(schedule.next(start, up_to(1000), all).shards.len(), 1000);
    assert_eq!(looks, 1000, "one a turn");
    let mut looks = 0;
    let some = |shard: u32, _| {
        looks += 1;
        shard >= 9000
    };
    // What may not be taken is looked at once a call, not once a turn.
    assert_eq!(schedule.next(start, up_to(500), some).shards.len(), 500);
    assert!((8500..=9500).contains(&looks), "{looks}");
}

#[test]
fn callers_that_are_gone_are_forgotten() {
    let start = Instant::now();
    let mut schedule = Schedule::new(WIDE);
    for number in 0..10_000 {
        admit_all(&mut schedule, start, (number, 1), (1, 1));
        assert_eq!(turns(&mut schedule, start, 1), [(1, 1)]);
    }
    assert!(schedule.turns.remembered() <= limits::FRONT_ENDS_REMEMBERED_MAX);
    assert_eq!((schedule.front_ends.len(), schedule.lines.len()), (0, 0));
}

/// A query of the plain list. Its number is its item.
#[derive(Clone, Copy)]
struct Plain {
    number: u32,
    connection: u64,
    front_end: u64,
    shard: u32,
    route: Route,
    arrived: Instant,
    deadline: Instant,
}

/// What a part of a batch costs.
fn cost(places: usize, queries: usize) -> u128 {
    let scan = u128::from(SCAN_BYTES) << 32;
    scan * places as u128 / 32 + scan * queries as u128 / 12
}

/// The rules as plainly as they can be said: a list, and what each front-end has had. The share of
/// a front-end is its number and one.
#[derive(Default)]
struct Model {
    waiting: Vec<Plain>,
    spent: HashMap<u64, u128>,
    level: u128,
}

impl Model {
    fn insert(&mut self, query: Plain) {
        if self.waiting.iter().all(|other| other.front_end != query.front_end) {
            let spent = self.spent.entry(query.front_end).or_default();
            *spent = self.level.max(*spent);
        }
        let at = self.waiting.partition_point(|other| other.number < query.number);
        self.waiting.insert(at, query);
    }

    fn oldest(&self, front_end: u64) -> Instant {
        self.waiting.iter().find(|query| query.front_end == front_end).unwrap().arrived
    }

    /// The line a front-end picks.
    fn pick(
        &self,
        front_end: u64,
        rule: Rule,
        may_take: &impl Fn(u32, Route) -> bool,
    ) -> Option<Line> {
        let own = self.waiting.iter().filter(|query| query.front_end == front_end);
        let mut lines: Vec<(usize, u32, Line)> = Vec::new();
        for query in own {
            let line = (query.shard, query.route);
            match lines.iter_mut().find(|(.., other)| *other == line) {
                Some((count, ..)) => *count = (*count + 1).min(BATCH_QUERIES_PER_SCAN_MAX),
                None => lines.push((1, query.number, line)),
            }
        }
        lines.retain(|(.., (shard, route))| may_take(*shard, *route));
        if rule == Rule::Fullest {
            lines.sort_by_key(|&(count, number, _)| (std::cmp::Reverse(count), number));
        }
        lines.first().map(|&(.., line)| line)
    }

    /// Takes one batch: the front-end's own and others'.
    fn take_batch(&mut self, front_end: u64, line: Line, room: usize) -> (Vec<Plain>, Vec<Plain>) {
        let places = room.min(32);
        let in_line = |query: &&Plain| (query.shard, query.route) == line;
        let in_line = self.waiting.iter().filter(in_line).copied();
        let (mut own, others): (Vec<_>, Vec<_>) =
            in_line.partition(|query| query.front_end == front_end);
        own.truncate(places);
        let mut riders = others;
        let full = cost(32, 32);
        let most = |other: u64| self.spent[&front_end] + full / u128::from(other + 1);
        riders.retain(|rider| self.spent[&rider.front_end] <= most(rider.front_end));
        riders.sort_by_key(|rider| (self.spent[&rider.front_end], rider.front_end, rider.number));
        riders.truncate(places - own.len());
        let taken = |query: &Plain| own.iter().chain(&riders).any(|t| t.number == query.number);
        self.waiting.retain(|query| !taken(query));
        self.level = self.level.max(self.spent[&front_end]);
        if line.1 == Route::Any {
            self.charge(front_end, 32 - riders.len(), own.len());
            riders.iter().for_each(|rider| self.charge(rider.front_end, 1, 1));
        }
        (own, riders)
    }

    fn charge(&mut self, front_end: u64, places: usize, queries: usize) {
        let spent = self.spent.get_mut(&front_end).unwrap();
        *spent = self.level.max(*spent) + cost(places, queries) / u128::from(front_end + 1);
    }

    /// What the schedule should hand out, by shard.
    fn next(
        &mut self,
        now: Instant,
        bounds: CallBounds,
        may_take: impl Fn(u32, Route) -> bool,
    ) -> Vec<(u32, Vec<u32>)> {
        let mut out: Vec<(Line, Vec<u32>)> = Vec::new();
        let mut rules = HashMap::new();
        let mut room = bounds.queries_max;
        while room > 0 && out.len() < bounds.shards_max {
            let mut front_ends: Vec<u64> =
                self.waiting.iter().map(|query| query.front_end).collect();
            front_ends.sort_by_key(|front_end| (self.spent[front_end], *front_end));
            let picked = front_ends.into_iter().find_map(|front_end| {
                let rule = *rules.entry(front_end).or_insert_with(|| {
                    let long = now - self.oldest(front_end) >= TARGET / 2;
                    if long { Rule::Age } else { Rule::Fullest }
                });
                Some((front_end, self.pick(front_end, rule, &may_take)?))
            });
            let Some((front_end, line)) = picked else { break };
            let (own, riders) = self.take_batch(front_end, line, room);
            room -= own.len() + riders.len();
            let batch = own.iter().chain(&riders);
            let numbers = batch.map(|query| query.number);
            match out.iter_mut().find(|(other, _)| *other == line) {
                Some((_, taken)) => taken.extend(numbers),
                None => out.push((line, numbers.collect())),
            }
        }
        out.into_iter().map(|((shard, _), taken)| (shard, taken)).collect()
    }
}

/// The schedule and the list, of which the same is asked.
struct Both {
    schedule: Schedule<u32>,
    model: Model,
    tickets: HashMap<u32, Ticket>,
    computed: Vec<(Plain, Admitted<u32>)>,
}

impl Both {
    fn admit(&mut self, now: Instant, number: u32, random: &mut Random) {
        let (front_end, shard) = (random.below(3), random.below(5) as u32);
        let connection = front_end * 2 + random.below(2);
        let deadline = now + Duration::from_millis(random.below(80_000));
        let waiting = &self.model.waiting;
        let computed = self.computed.iter().map(|(query, _)| query);
        let owned =
            waiting.iter().chain(computed).filter(|query| query.connection == connection).count();
        let held = waiting.iter().filter(|query| query.front_end == front_end).count();
        let full = match 200 - waiting.len() {
            _ if owned >= 30 => Some(Full::Connection),
            0 => Some(Full::Queue),
            free if held >= free => Some(Full::FrontEnd),
            _ => None,
        };
        let share = front_end as u32 + 1;
        let arrival = Arrival {
            front_end: FrontEnd { number: front_end, share },
            ..arrival(connection, shard, deadline, number)
        };
        match self.schedule.admit(now, arrival) {
            Err(Overloaded { full: Full::Time, .. }) => {
                assert!(full.is_none() && held > 0 && waiting.len() >= TIMELY_QUERIES);
            }
            Err(refused) => assert_eq!(Some(refused.full), full, "{owned} owned, {held} held"),
            Ok(ticket) => {
                assert_eq!(full, None);
                self.tickets.insert(number, ticket);
                let (route, arrived) = (Route::Any, now);
                let plain =
                    Plain { number, connection, front_end, shard, route, arrived, deadline };
                self.model.insert(plain);
            }
        }
    }

    fn cancel(&mut self, random: &mut Random) {
        let at = random.below(self.model.waiting.len() as u64) as usize;
        let query = self.model.waiting.remove(at);
        assert_eq!(self.schedule.cancel(self.tickets[&query.number]), Some(query.number));
    }

    fn end(&mut self, random: &mut Random) {
        let at = random.below(self.computed.len() as u64) as usize;
        let (query, admitted) = self.computed.remove(at);
        assert_eq!(self.schedule.cancel(self.tickets[&query.number]), None);
        if random.below(4) > 0 {
            assert_eq!(self.schedule.finished(admitted), query.number);
        } else {
            self.schedule.put_back(admitted);
            self.model.insert(Plain { route: Route::Processor, ..query });
        }
    }

    fn take(&mut self, now: Instant, random: &mut Random) {
        let shards_max = 1 + random.below(3) as usize;
        let bounds = CallBounds { shards_max, queries_max: 1 + random.below(45) as usize };
        let (modulus, but) = (1 + random.below(3) as u32, random.below(2) == 0);
        let may_take =
            move |shard: u32, route| shard.is_multiple_of(modulus) && (but || route == Route::Any);
        let before = self.model.waiting.clone();
        let work = self.schedule.next(now, bounds, may_take);
        let mut late = before.clone();
        late.retain(|query| query.deadline <= now);
        late.sort_by_key(|query| (query.deadline, query.number));
        let late: Vec<u32> = late.iter().map(|query| query.number).collect();
        assert_eq!(work.expired, late);
        self.model.waiting.retain(|query| query.deadline > now);
        assert_eq!(items(&work), self.model.next(now, bounds, may_take));
        for admitted in work.shards.into_iter().flat_map(|work| work.queries) {
            let plain = before.iter().find(|plain| plain.number == admitted.query.item).unwrap();
            assert_eq!((admitted.route, admitted.arrived), (plain.route, plain.arrived));
            // Most are done at once.
            if random.below(8) > 0 {
                self.schedule.finished(admitted);
            } else {
                self.computed.push((*plain, admitted));
            }
        }
    }
}

/// Random admitting, cancelling, taking, putting back and waiting against a plain list.
#[test]
fn agrees_with_a_plain_list() {
    let seed = std::process::id();
    println!("seed {seed}");
    let mut random = Random(u64::from(seed) | 1);
    let mut now = Instant::now();
    let bounds =
        ScheduleBounds { queued_bytes_max: 20_000, queries_per_connection_max: 30, ..BOUNDS };
    let (schedule, model) = (Schedule::new(bounds), Model::default());
    let mut both = Both { schedule, model, tickets: HashMap::new(), computed: Vec::new() };
    for number in 0..20_000 {
        now += Duration::from_millis(random.below(1_000));
        match random.below(60) {
            0..=50 => both.admit(now, number, &mut random),
            51..=52 if !both.model.waiting.is_empty() => both.cancel(&mut random),
            53..=57 if !both.computed.is_empty() => both.end(&mut random),
            _ => both.take(now, &mut random),
        }
        assert_eq!(both.schedule.queued(), both.model.waiting.len());
        assert_eq!(both.schedule.queued_bytes(), both.model.waiting.len() * 100);
    }
}

#[test]
fn other_bytes_of_a_front_end_count_like_those_scanned_for_it() {
    let start = Instant::now();
    // Also those of a front-end that has nothing waiting yet.
    let first_of = |charged: &[(u64, u64)], charged_first: bool| {
        let mut schedule = Schedule::new(BOUNDS);
        let charge = |schedule: &mut Schedule<u32>| {
            for &(number, bytes) in charged {
                schedule.charge(FrontEnd { number, share: 1 }, bytes);
            }
        };
        if charged_first {
            charge(&mut schedule);
        }
        for number in 0..2 {
            admit_all(&mut schedule, start, (number, 1), (number as u32, 1));
        }
        if !charged_first {
            charge(&mut schedule);
        }
        turns(&mut schedule, start, 1)[0].0
    };
    for charged_first in [false, true] {
        assert_eq!(first_of(&[], charged_first), 0);
        assert_eq!(first_of(&[(0, 1)], charged_first), 1, "a byte more");
        assert_eq!(first_of(&[(0, 10), (1, 11)], charged_first), 0);
    }
}
