//! The simulated world: which batches devices send, when, and under which rule.
//!
//! A contact is a *cell*: a pack of a shard. Cells are independent and uniform, because look-up
//! keys are blinded. An *event* is one batch that one device sends once. Which device that was and
//! which members are contacts is the truth that guesses are compared with; attacks read times and
//! cells.

use std::ops::Range;

use crate::load::Draws;

/// Queries of a batch.
pub(super) const BATCH: usize = 16;
/// Packs of a shard.
pub(super) const PACKS: usize = 8;
/// The mean time from one look-up of a batch to the next, where the device is on: 7 to 14 days.
pub(super) const PERIOD_DAYS: f64 = 10.5;
/// Seconds of a day.
pub(super) const DAY: f64 = 86_400.0;
/// Seconds of an hour.
pub(super) const HOUR: f64 = 3_600.0;
/// Seconds from one batch to the next of one call: 32 batches take 20 seconds.
pub(super) const GAP: f64 = 0.625;
/// The name of a member that is a dummy. Contacts have the names 0, 1 and so on.
pub(super) const DUMMY: u16 = u16::MAX;
/// Devices have been sending for so long when an observer begins to watch.
const WARM_UP_DAYS: f64 = 60.0;
const OFF_HOURS: f64 = 8.0;

/// What a batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Members {
    /// The same contacts and dummies for good.
    Sticky,
    /// The same contacts, and dummies that are drawn each time.
    Fresh,
    /// The same contacts and no dummies, so that some batches are shorter.
    Unpadded,
    /// Sixteen contacts that were not asked in the last 7 days, drawn each time.
    Redrawn,
}

/// What is sent when the program calls. A new batch is sent by any call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    /// One batch that is due. Others that are due get a random time within the next 24 hours.
    OneBatch,
    /// All batches that are due.
    AllDue,
    /// All batches, which are due at one time.
    AllBatches,
}

/// When a device is on, and calls as soon as something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awake {
    Always,
    /// All day but for 8 hours. It wakes up within an hour of each day that is its own.
    Days,
    /// For one call within an hour of each day that is its own, and when a contact is added.
    Once,
}

/// By which rule devices send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) members: Members,
    pub(super) calls: Calls,
    pub(super) awake: Awake,
}

/// How large a world is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) seed: u64,
    pub(super) devices: usize,
    pub(super) contacts: usize,
    pub(super) shards: usize,
    pub(super) added_per_week: f64,
    pub(super) days: f64,
}

/// One batch, sent once, in seconds since the observer began.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) time: f64,
    pub(super) device: u32,
    members: Range<u32>,
}

/// All events of all devices in the order of their times.
pub(super) struct World {
    pub(super) size: Size,
    pub(super) rule: Rule,
    pub(super) events: Vec<Event>,
    cells: Vec<u32>,
    names: Vec<u16>,
    /// For each device the cells of its contacts by name. Added contacts come last.
    pub(super) contacts: Vec<Vec<u32>>,
}

impl World {
    pub(super) fn new(size: Size, rule: Rule) -> Self {
        let (events, cells, names, contacts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut world = Self { size, rule, events, cells, names, contacts };
        for number in 0..size.devices {
            Device::new(size, rule, number).live(&mut world);
        }
        world.events.sort_by(|a, b| a.time.total_cmp(&b.time));
        world
    }

    pub(super) fn cells_of(&self, event: &Event) -> &[u32] {
        &self.cells[event.members.start as usize..event.members.end as usize]
    }

    pub(super) fn names_of(&self, event: &Event) -> &[u16] {
        &self.names[event.members.start as usize..event.members.end as usize]
    }
}

#[derive(Debug, Clone, Copy)]
struct Member {
    cell: u32,
    name: u16,
}

struct Batch {
    members: Vec<Member>,
    due: f64,
}

struct Device {
    size: Size,
    rule: Rule,
    draws: Draws,
    number: u32,
    contacts: Vec<u32>,
    batches: Vec<Batch>,
    /// When each contact was asked last, where members are redrawn.
    asked: Vec<f64>,
    /// When the device wakes up, seconds of each day but for half an hour.
    habit: f64,
    day: f64,
    woke: f64,
}

fn shard(cell: u32) -> u32 {
    cell / PACKS as u32
}

fn is_apart(members: &[Member], cell: u32) -> bool {
    members.iter().all(|member| shard(member.cell) != shard(cell))
}

impl Device {
    fn new(size: Size, rule: Rule, number: usize) -> Self {
        let mut draws = Draws::new(size.seed, "device", number as u64);
        let habit = draws.unit() * DAY;
        let (contacts, batches, asked) = (Vec::new(), Vec::new(), Vec::new());
        let (number, day) = (number as u32, -WARM_UP_DAYS - 2.0);
        let woke = f64::NEG_INFINITY;
        let mut device =
            Self { size, rule, draws, number, contacts, batches, asked, habit, day, woke };
        let members: Vec<Member> = (0..size.contacts).map(|_| device.new_contact()).collect();
        let session = device.first_due();
        for mut members in deal(&members) {
            device.fill(&mut members);
            let due = device.first_due();
            let due = if rule.calls == Calls::AllBatches { session } else { due };
            device.batches.push(Batch { members, due });
        }
        device
    }

    fn first_due(&mut self) -> f64 {
        (self.draws.unit() * 14.0 - WARM_UP_DAYS) * DAY
    }

    fn period(&mut self) -> f64 {
        (7.0 + 7.0 * self.draws.unit()) * DAY
    }

    fn cell(&mut self) -> u32 {
        self.draws.below(self.size.shards * PACKS) as u32
    }

    fn new_contact(&mut self) -> Member {
        let cell = self.cell();
        self.contacts.push(cell);
        self.asked.push(f64::NEG_INFINITY);
        Member { cell, name: (self.contacts.len() - 1) as u16 }
    }

    /// Fills a batch with dummies in other shards than its members'.
    fn fill(&mut self, members: &mut Vec<Member>) {
        while self.rule.members != Members::Unpadded && members.len() < BATCH {
            let cell = self.cell();
            if is_apart(members, cell) {
                members.push(Member { cell, name: DUMMY });
            }
        }
    }

    /// Sends until the observer stops watching.
    fn live(mut self, world: &mut World) {
        let end = self.size.days * DAY;
        let mut added = self.wait();
        loop {
            let due = self.batches.iter().map(|batch| batch.due).fold(f64::INFINITY, f64::min);
            let now = match self.rule.awake {
                Awake::Once => self.next_awake(due).min(added),
                _ => self.next_awake(due.min(added)),
            };
            if now >= end {
                break;
            }
            self.call(now, added <= now, world);
            if added <= now {
                added = now + self.wait();
            }
        }
        world.contacts.push(self.contacts);
    }

    /// The time until a contact is added, from the time on that an observer watches.
    fn wait(&mut self) -> f64 {
        -self.draws.unit().ln() * 7.0 * DAY / self.size.added_per_week
    }

    /// The first time from `time` on at which the device is on. Times must not fall.
    fn next_awake(&mut self, time: f64) -> f64 {
        let on_hours = match self.rule.awake {
            Awake::Always => return time,
            Awake::Days => 24.0 - OFF_HOURS,
            Awake::Once => 0.0,
        };
        let off = |device: &Self| match device.rule.awake {
            Awake::Once => device.woke,
            _ => device.day * DAY + device.habit + on_hours * HOUR,
        };
        while off(self) < time {
            self.day += 1.0;
            self.woke = self.day * DAY + self.habit + (self.draws.unit() - 0.5) * HOUR;
        }
        time.max(self.woke)
    }

    /// The program calls the library.
    fn call(&mut self, now: f64, is_contact_added: bool, world: &mut World) {
        let due = |index: &usize| self.batches[*index].due <= now;
        let mut order: Vec<usize> = (0..self.batches.len()).filter(due).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, self.draws.below(last + 1));
        }
        if self.rule.calls == Calls::OneBatch {
            for later in order.split_off(order.len().min(1)) {
                self.batches[later].due = now + self.draws.unit() * DAY;
            }
        }
        let session = match order.first() {
            Some(_) => now + self.period(),
            None => self.batches[0].due,
        };
        if is_contact_added {
            let mut members = vec![self.new_contact()];
            self.fill(&mut members);
            order.push(self.batches.len());
            self.batches.push(Batch { members, due: now });
        }
        for (place, index) in order.into_iter().enumerate() {
            let time = now + (place as f64 + self.draws.unit() / 2.0) * GAP;
            self.send(index, time, world);
            let due = now + self.period();
            let is_session = self.rule.calls == Calls::AllBatches;
            self.batches[index].due = if is_session { session } else { due };
        }
    }

    fn send(&mut self, index: usize, time: f64, world: &mut World) {
        let mut members = std::mem::take(&mut self.batches[index].members);
        match self.rule.members {
            Members::Sticky | Members::Unpadded => {}
            Members::Fresh => {
                members.retain(|member| member.name != DUMMY);
                self.fill(&mut members);
            }
            Members::Redrawn => self.redraw(&mut members, time),
        }
        if (0.0..self.size.days * DAY).contains(&time) {
            let first = world.cells.len() as u32;
            world.cells.extend(members.iter().map(|member| member.cell));
            world.names.extend(members.iter().map(|member| member.name));
            let members = first..world.cells.len() as u32;
            world.events.push(Event { time, device: self.number, members });
        }
        self.batches[index].members = members;
    }

    fn redraw(&mut self, members: &mut Vec<Member>, time: f64) {
        members.clear();
        // A third of the contacts may be drawn, so these tries are enough but for a few dummies.
        for _ in 0..8 * BATCH {
            let name = self.draws.below(self.contacts.len());
            let cell = self.contacts[name];
            let is_open = self.asked[name] + 7.0 * DAY <= time && is_apart(members, cell);
            if members.len() < BATCH && is_open {
                members.push(Member { cell, name: name as u16 });
                self.asked[name] = time;
            }
        }
        self.fill(members);
    }
}

/// Deals members into batches, those of one shard into different ones.
fn deal(members: &[Member]) -> Vec<Vec<Member>> {
    let mut batches: Vec<Vec<Member>> = vec![Vec::new(); members.len().div_ceil(BATCH)];
    for member in members {
        let fits = |batch: &&mut Vec<Member>| batch.len() < BATCH && is_apart(batch, member.cell);
        match batches.iter_mut().find(fits) {
            Some(batch) => batch.push(*member),
            None => batches.push(vec![*member]),
        }
    }
    batches
}
