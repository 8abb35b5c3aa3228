//! Linking: an observer that sees no device guesses which events are of the device of one event,
//! the seed.
//!
//! Batches that keep their members are recognised by their cells. Different batches are linked by
//! their times: events with short gaps are a *burst*, and batches that are in common bursts again
//! and again are one device's, because two devices are often in one burst by chance and rarely in
//! two. Then come batches that are mostly in bursts of those. Where one burst is all there is, it
//! is believed if more than half of the pairs in bursts are of one device. Batches that are dealt
//! anew are linked by the contacts that come again.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};

use super::view::View;
use super::world::{BATCH, DAY, DUMMY, GAP, Members, PERIOD_DAYS};
use crate::load::Draws;

/// Cells that are linked to a seed are taken to be right with this probability.
const PURITY: f64 = 0.9;
/// How often batches are added that are mostly in bursts of those that were added before.
const STEPS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Linked {
    /// The share of the device's contacts that stand under one pseudonym, those of the seed
    /// included.
    pub(super) list: f64,
    /// Of the linked events, the share that is of the device; none where hardly any is linked.
    pub(super) right: Option<f64>,
}

/// Attacks seeds that are drawn from the events before `end`, and averages.
pub(super) fn link(view: &View, end: f64, seeds: usize, draws: &mut Draws) -> Linked {
    let mut attack = Attack::new(view, end);
    let (mut linked, mut right, mut list) = (0, 0, 0.0);
    for _ in 0..seeds {
        let seed = draws.below(view.count_before(end)) as u32;
        let device = view.event(seed).device;
        let mut found = attack.run(seed);
        linked += found.len() - 1;
        found.retain(|&event| view.event(event).device == device);
        right += found.len() - 1;
        let all = contacts(view, view.of_device(device, end));
        let most = all.max(view.world.size.contacts);
        list += contacts(view, &found) as f64 / most as f64;
    }
    let few = linked < seeds.div_ceil(2);
    let right = (!few).then(|| right as f64 / linked as f64);
    Linked { list: list / seeds as f64, right }
}

/// How many contacts some events of a device name.
fn contacts(view: &View, events: &[u32]) -> usize {
    let names = events.iter().flat_map(|&event| view.names_of(event));
    names.filter(|&&name| name != DUMMY).collect::<HashSet<_>>().len()
}

struct Attack<'v, 'w> {
    view: &'v View<'w>,
    end: f64,
    /// The number of each event's burst.
    bursts: Vec<u32>,
    /// Of the pairs of events in one burst, the share that is of one device. Who knows how
    /// devices send knows it.
    same_device: f64,
    /// How many known cells each event names; zeros between seeds.
    shared: Vec<u8>,
}

impl<'v, 'w> Attack<'v, 'w> {
    fn new(view: &'v View<'w>, end: f64) -> Self {
        let bursts = bursts(view, end);
        let (mut pairs, mut same) = (0, 0);
        let mut first = 0;
        for burst in bursts.chunk_by(|a, b| a == b) {
            let mut of_device = HashMap::new();
            for event in &view.world.events[first..first + burst.len()] {
                *of_device.entry(event.device).or_insert(0) += 1;
            }
            first += burst.len();
            pairs += burst.len() * (burst.len() - 1);
            same += of_device.values().map(|count| count * (count - 1)).sum::<usize>();
        }
        let same_device = same as f64 / pairs.max(1) as f64;
        Self { view, end, same_device, shared: vec![0; bursts.len()], bursts }
    }

    /// The events that are linked to the seed, the seed with them.
    fn run(&mut self, seed: u32) -> Vec<u32> {
        let class = self.view.class_of[seed as usize];
        match self.view.world.rule.members {
            Members::Redrawn => return self.dealt_anew(seed),
            Members::Fresh => return self.alike(seed),
            Members::Sticky | Members::Unpadded => {}
        }
        let mut classes = self.tied_twice(class);
        if classes.is_empty() && self.same_device > 0.5 {
            let seeds = self.view.of_class(class, self.end);
            classes = seeds.iter().flat_map(|&event| self.in_burst(event)).collect();
        }
        classes.push(class);
        // Those that are mostly with them, then those that are mostly with these.
        for _ in 0..STEPS {
            let before = classes.len();
            classes.extend(self.mostly_with(&classes));
            classes.sort_unstable();
            classes.dedup();
            if classes.len() == before {
                break;
            }
        }
        let events = classes.iter().flat_map(|&class| self.view.of_class(class, self.end));
        events.copied().collect()
    }

    /// Classes that stay tied to the seed's by common bursts when any one burst is taken away,
    /// over two steps.
    fn tied_twice(&self, seed_class: u32) -> Vec<u32> {
        let mut classes = vec![seed_class];
        let mut places = HashMap::from([(seed_class, 0)]);
        let mut meetings: HashMap<u32, Vec<usize>> = HashMap::new();
        let (mut place, mut first_step) = (0, 1);
        while self.same_device > 0.0 && place < classes.len() {
            for &event in self.view.of_class(classes[place], self.end) {
                meetings.entry(self.bursts[event as usize]).or_default().push(place);
                for class in self.in_burst(event).filter(|_| place < first_step) {
                    if let Entry::Vacant(vacant) = places.entry(class) {
                        vacant.insert(classes.len());
                        classes.push(class);
                    }
                }
            }
            place += 1;
            if place == 1 {
                first_step = classes.len();
            }
        }
        let meetings = meetings.into_values().filter(|present| present.len() > 1).collect();
        let tied = tied_without_any_one(classes.len(), meetings);
        classes.into_iter().zip(tied).skip(1).filter(|(_, tied)| *tied).map(|(c, _)| c).collect()
    }

    /// Classes most of whose events are in bursts of several others.
    fn mostly_with(&self, classes: &[u32]) -> Vec<u32> {
        let events = || classes.iter().flat_map(|&class| self.view.of_class(class, self.end));
        let bursts: HashSet<u32> = events().map(|&event| self.bursts[event as usize]).collect();
        let near = events().flat_map(|&event| self.in_burst(event));
        let mut near: Vec<u32> = near.filter(|_| classes.len() > 1).collect();
        near.sort_unstable();
        near.dedup();
        near.retain(|&class| {
            let own = self.view.of_class(class, self.end);
            let with = own.iter().filter(|&&event| bursts.contains(&self.bursts[event as usize]));
            2 * with.count() > own.len()
        });
        near
    }

    /// The classes of the events of an event's burst.
    fn in_burst(&self, event: u32) -> impl Iterator<Item = u32> + '_ {
        let burst = self.bursts[event as usize];
        let first = self.bursts.partition_point(|&other| other < burst);
        let rest = self.bursts[first..].iter().take_while(move |&&other| other == burst);
        (first..first + rest.count()).map(|event| self.view.class_of[event])
    }

    /// Counts what the cells of an event share with all events; `touched` has those that do.
    fn count(&mut self, event: u32, known: &mut HashSet<u32>, touched: &mut Vec<u32>) {
        for cell in self.view.cells_of(event).filter(|&cell| known.insert(cell)) {
            for &other in self.view.naming(cell, self.end) {
                let shared = &mut self.shared[other as usize];
                if *shared == 0 {
                    touched.push(other);
                }
                *shared = shared.saturating_add(1);
            }
        }
    }

    /// The events that share more cells with the seed than chance explains.
    fn alike(&mut self, seed: u32) -> Vec<u32> {
        let (mut touched, mut known) = (Vec::new(), HashSet::new());
        self.count(seed, &mut known, &mut touched);
        let is_alike = |&event: &u32| event == seed || self.shared[event as usize] >= self.least();
        let found = touched.iter().copied().filter(is_alike).collect();
        touched.iter().for_each(|&event| self.shared[event as usize] = 0);
        found
    }

    fn least(&self) -> u8 {
        self.view.recognised as u8
    }

    /// Adds events whose cells are known, those with the most first: a list of so many contacts is
    /// asked with a batch's worth at a time.
    fn dealt_anew(&mut self, seed: u32) -> Vec<u32> {
        let size = self.view.world.size;
        let periods = self.end / DAY / PERIOD_DAYS;
        let most = (1.1 * size.contacts as f64 / BATCH as f64 * periods) as usize + 1;
        let (mut touched, mut known) = (Vec::new(), HashSet::new());
        let (mut found, mut counted) = (vec![seed], 0);
        while counted < found.len() && found.len() < most {
            for &event in &found[counted..] {
                self.count(event, &mut known, &mut touched);
            }
            counted = found.len();
            let hit = (PURITY * known.len() as f64 / size.contacts as f64).min(0.97);
            let chance = (known.len() as f64 / self.view.cells as f64).min(0.99);
            let odds = |shared: u8| {
                let (shared, missed) = (f64::from(shared), BATCH as f64 - f64::from(shared));
                shared * (hit / chance).ln() + missed * ((1.0 - hit) / (1.0 - chance)).ln()
            };
            let least = (1..=BATCH as u8).find(|&n| odds(n) > (size.devices as f64).ln());
            let least = least.unwrap_or(u8::MAX);
            let mut near: Vec<u32> = touched.clone();
            near.retain(|event| self.shared[*event as usize] >= least && !found.contains(event));
            near.sort_by_key(|&event| std::cmp::Reverse((self.shared[event as usize], event)));
            near.truncate(counted.min(most - counted));
            found.extend(near);
        }
        touched.iter().for_each(|&event| self.shared[event as usize] = 0);
        found
    }
}

/// Numbers runs of events that follow each other as fast as those of one call.
fn bursts(view: &View, end: f64) -> Vec<u32> {
    let (mut burst, mut last) = (0, 0.0);
    let events = &view.world.events[..view.count_before(end)];
    let numbers = events.iter().map(|event| {
        burst += u32::from(event.time - last > 1.5 * GAP);
        last = event.time;
        burst
    });
    numbers.collect()
}

/// For each person, whether no single meeting ties it to person 0. `meetings` has those who were
/// at each of them.
fn tied_without_any_one(people: usize, meetings: Vec<Vec<usize>>) -> Vec<bool> {
    let mut attended = vec![Vec::new(); people];
    for (meeting, present) in meetings.iter().enumerate() {
        present.iter().for_each(|&person| attended[person].push(meeting));
    }
    let mut tied = vec![true; people];
    for without in (0..meetings.len()).chain([usize::MAX]) {
        let reached = reached(&attended, &meetings, without);
        tied.iter_mut().zip(reached).for_each(|(tied, reached)| *tied &= reached);
    }
    tied
}

/// Who is reached from person 0 over meetings other than one.
fn reached(attended: &[Vec<usize>], meetings: &[Vec<usize>], without: usize) -> Vec<bool> {
    let mut reached = vec![false; attended.len()];
    let mut visited = vec![false; meetings.len()];
    let mut open = vec![0];
    reached[0] = true;
    while let Some(person) = open.pop() {
        for &meeting in attended[person].iter().filter(|&&meeting| meeting != without) {
            if std::mem::replace(&mut visited[meeting], true) {
                continue;
            }
            for &other in &meetings[meeting] {
                if !std::mem::replace(&mut reached[other], true) {
                    open.push(other);
                }
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_one_meeting_ties_is_not_tied() {
        // Two pairs that meet twice each, one meeting of all four, and a person alone.
        let mut meetings = vec![vec![0, 1], vec![0, 1], vec![2, 3], vec![2, 3], vec![0, 1, 2, 3]];
        let tied = |meetings: &Vec<Vec<usize>>| tied_without_any_one(5, meetings.clone());
        assert_eq!(tied(&meetings), [true, true, false, false, false]);
        meetings.push(vec![1, 2]);
        assert_eq!(tied(&meetings), [true, true, true, true, false]);
        // A chain ties nobody, and a ring everybody.
        let chain = vec![vec![0, 1], vec![1, 2], vec![2, 3]];
        assert_eq!(tied_without_any_one(4, chain.clone()), [true, false, false, false]);
        let ring = [chain, vec![vec![3, 0]]].concat();
        assert_eq!(tied_without_any_one(4, ring), [true; 4]);
    }
}
