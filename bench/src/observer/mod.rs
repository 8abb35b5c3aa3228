//! `sotto-bench observer`: what observers of shard numbers link and confirm over time. Simulated
//! devices send batches, and attacks guess which batches are of one device and who is a contact.
//!
//! Observers: an operator of answer servers (shards, and which queries are one batch by their key
//! bundle), the front-end (shards and packs), both without accounts; the relay (accounts, times,
//! sizes); relay and front-end together; a front-end that can compute where a person's record is.
//! `world` has devices and what they send, `view` arranges what an observer sees, `link` and
//! `confirm` are the attacks, `times` has what follows from times and sizes alone, and `text` the
//! tables. [`crate::html::picture`] draws them.
//!
//! Attacks know the rules by which devices send. Better ones may exist, so the results are the
//! least that an observer learns: links are guessed without the hours of the day, which are worth
//! some bits ([`Habit`]). Not modelled, though each helps an observer: relays that are
//! told apart, several databases, lost requests, and that new batches can be told by their hints.
//! Contacts of different devices are independent of each other, which helps an observer too.

mod confirm;
mod link;
mod setting;
#[cfg(test)]
mod tests;
mod text;
mod times;
mod view;
mod world;

use serde::Serialize;

use crate::load::Draws;
use crate::record::Head;

pub(crate) use confirm::{Confirmed, Test};
pub(crate) use setting::Setting;
pub(crate) use times::{FirstSync, Habit, Interval, Length};

use view::View;
use world::{Awake, BATCH, Calls, DAY, Members, PACKS, Rule, Size, World};

pub(crate) const SCHEMA: &str = "sotto-bench-observer/1";

/// By which rules devices may send. The first three are the library's, by when the device is on.
const RULES: [Rule; 10] = {
    use {Awake::*, Calls::*, Members::*};
    const fn rule(name: &'static str, members: Members, calls: Calls, awake: Awake) -> Rule {
        Rule { name, members, calls, awake }
    }
    [
        rule("one batch a call, always on", Sticky, OneBatch, Always),
        rule("one batch a call, off at night", Sticky, OneBatch, Days),
        rule("one batch a call, awake once a day", Sticky, OneBatch, Once),
        rule("all due batches together, off at night", Sticky, AllDue, Days),
        rule("all due batches together, awake once a day", Sticky, AllDue, Once),
        rule("every batch in one session", Sticky, AllBatches, Always),
        rule("fresh dummies", Fresh, OneBatch, Always),
        rule("no padding", Unpadded, OneBatch, Always),
        rule("no padding, every batch in one session", Unpadded, AllBatches, Always),
        rule("members dealt anew each time", Redrawn, OneBatch, Always),
    ]
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Observer {
    FrontEnd,
    AnswerServers,
}

/// What one observer links under one rule.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Links {
    pub(crate) observer: Observer,
    pub(crate) rule: &'static str,
    pub(crate) shards: usize,
    /// After each number of days: the share of a device's contacts that stand under one pseudonym.
    pub(crate) list: Vec<f64>,
    /// Of the batches that were linked to one, the share that is of its device; null where hardly
    /// any was linked.
    pub(crate) right: Vec<Option<f64>>,
}

/// Everything that was simulated.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Observed {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) setting: Setting,
    pub(crate) links: Vec<Links>,
    pub(crate) confirmed: Vec<Confirmed>,
    pub(crate) lengths: Vec<Length>,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) first_syncs: Vec<FirstSync>,
    pub(crate) habits: Vec<Habit>,
}

/// Simulates everything.
pub(crate) fn observe(setting: Setting) -> Observed {
    let mut observed = Observed {
        head: Head::new(SCHEMA),
        links: Vec::new(),
        confirmed: Vec::new(),
        lengths: Vec::new(),
        intervals: Vec::new(),
        first_syncs: times::first_syncs(&setting),
        habits: times::habits(&setting),
        setting,
    };
    for shards in observed.setting.shards {
        for rule in RULES {
            observed.add_world(shards, rule);
        }
    }
    let few = observed.setting.devices.div_ceil(50);
    for rule in RULES.into_iter().filter(|rule| rule.members == Members::Sticky) {
        let size = Size { devices: few, ..observed.setting.size(observed.setting.shards[0]) };
        observed.intervals.extend(times::interval(size, rule));
    }
    observed
}

impl Observed {
    /// Everything that one world shows.
    fn add_world(&mut self, shards: usize, rule: Rule) {
        let setting = &self.setting;
        let world = World::new(setting.size(shards), rule);
        let draws = |label: &str| Draws::new(setting.seed, label, shards as u64);
        for (observer, divisor) in [(Observer::AnswerServers, PACKS), (Observer::FrontEnd, 1)] {
            let view = View::new(&world, divisor);
            let linked = setting
                .days
                .map(|days| link::link(&view, days * DAY, setting.seeds, &mut draws(rule.name)));
            self.links.push(Links {
                observer,
                rule: rule.name,
                shards,
                list: linked.iter().map(|linked| linked.list).collect(),
                right: linked.iter().map(|linked| linked.right).collect(),
            });
            if observer == Observer::FrontEnd && rule.members != Members::Redrawn {
                let mut draws = draws("confirm");
                self.confirmed.push(confirm::confirm(&view, setting, &mut draws));
            }
            let is_counted = rule.awake == Awake::Always && rule.members != Members::Redrawn;
            if observer == Observer::FrontEnd && is_counted && shards == setting.shards[0] {
                self.lengths.push(times::length(&view, setting));
            }
        }
    }
}
