//! Confirming: an observer that knows the cell of person Y tests whether device X asks for it.
//! Anybody with an account can have an identifier evaluated and compute its cell; who holds the
//! blinding key can do it for all identifiers.

use std::collections::HashSet;

use serde::Serialize;

use super::setting::Setting;
use super::view::View;
use super::world::{Awake, Calls, DAY};
use crate::load::Draws;

/// People among whom the contacts of a device are looked for.
pub(super) const TOWN: f64 = 10_000.0;

/// Who tests, and how often the test says yes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Confirmed {
    pub(crate) rule: &'static str,
    pub(crate) shards: usize,
    /// Relay and front-end together, all batches of an account: yes where one names Y's cell.
    pub(crate) account: Vec<Test>,
    /// A front-end without accounts, one batch that is known to be X's.
    pub(crate) batch: Test,
    /// An added contact, to who knows the account; null where batches may be out for longer than
    /// this is watched.
    pub(crate) added: Option<Crowd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Test {
    /// The probability of yes where Y is a contact.
    pub(crate) contact: f64,
    /// The probability of yes where Y is not.
    pub(crate) stranger: f64,
    /// What a yes is worth: the logarithm to base 2 of the ratio of the two.
    pub(crate) bits: f64,
    /// Of the people of a town for whom the test says yes, the share that are contacts.
    pub(crate) right_in_town: f64,
}

impl Test {
    pub(super) fn new(contact: f64, stranger: f64, contacts: usize) -> Self {
        let right = contacts as f64 * contact;
        let wrong = (TOWN - contacts as f64) * stranger;
        let (bits, right_in_town) = ((contact / stranger).log2(), right / (right + wrong));
        Self { contact, stranger, bits, right_in_town }
    }
}

/// Among how many cells a contact hides that a device added.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Crowd {
    /// When it was asked once: the cells of its batch that the account did not name before.
    pub(crate) first: f64,
    /// When all batches were asked again: those of them that the account named again.
    pub(crate) again: f64,
}

pub(super) fn confirm(view: &View, setting: &Setting, draws: &mut Draws) -> Confirmed {
    let (rule, days) = (view.world.rule, setting.days);
    // By a session of all batches, an account sends nothing at most times.
    let is_soon = rule.awake == Awake::Always && rule.calls == Calls::OneBatch;
    Confirmed {
        rule: rule.name,
        shards: view.world.size.shards,
        account: days.map(|days| account(view, days * DAY, setting.samples, draws)).to_vec(),
        batch: batch(view, setting.samples, draws),
        added: if is_soon { crowd(view) } else { None },
    }
}

/// Tests all batches of devices before `end`. A stranger has any cell, so the probability of a yes
/// is the share of all cells that were named.
pub(super) fn account(view: &View, end: f64, samples: usize, draws: &mut Draws) -> Test {
    let size = view.world.size;
    let (mut contacts, mut strangers) = (0.0, 0.0);
    for _ in 0..samples {
        let device = draws.below(size.devices);
        let named = named(view, view.of_device(device as u32, end));
        let of_beginning = &view.world.contacts[device][..size.contacts];
        let yes = of_beginning.iter().filter(|&cell| named.contains(cell)).count();
        contacts += yes as f64 / size.contacts as f64;
        strangers += named.len() as f64 / view.cells as f64;
    }
    Test::new(contacts / samples as f64, strangers / samples as f64, size.contacts)
}

/// Tests single batches, any of those that were sent.
pub(super) fn batch(view: &View, samples: usize, draws: &mut Draws) -> Test {
    let size = view.world.size;
    let (mut named_contacts, mut cells) = (0, 0);
    for _ in 0..samples {
        let event = draws.below(view.world.events.len()) as u32;
        let names = view.names_of(event);
        named_contacts += names.iter().filter(|&&name| usize::from(name) < size.contacts).count();
        cells += names.len();
    }
    let stranger = cells as f64 / samples as f64 / view.cells as f64;
    let named = named_contacts as f64 / samples as f64 / size.contacts as f64;
    // A contact that the batch does not name has any cell, like a stranger.
    Test::new(named + (1.0 - named) * stranger, stranger, size.contacts)
}

/// Follows the contacts that were added between two full periods: every batch of the device was
/// sent before, and is sent again.
fn crowd(view: &View) -> Option<Crowd> {
    let size = view.world.size;
    let (mut first, mut again, mut followed) = (0, 0, 0);
    for device in 0..size.devices as u32 {
        let own = view.of_device(device, f64::INFINITY);
        let is_new = |event: &u32| view.names_of(*event).iter().any(is_added(size.contacts));
        let mut seen = HashSet::new();
        for (place, event) in own.iter().enumerate().filter(|(_, event)| is_new(event)) {
            let added = view.names_of(*event).iter().copied().find(|n| is_added(size.contacts)(n));
            let days = view.event(*event).time / DAY;
            if !seen.insert(added) || days < 14.01 || days > size.days - 14.01 {
                continue;
            }
            let (before, after) = (named(view, &own[..place]), named(view, &own[place + 1..]));
            let mut candidates: Vec<u32> = view.cells_of(*event).collect();
            candidates.retain(|cell| !before.contains(cell));
            first += candidates.len();
            again += candidates.iter().filter(|cell| after.contains(cell)).count();
            followed += 1;
        }
    }
    let mean = |sum: usize| sum as f64 / f64::from(followed);
    (followed > 0).then(|| Crowd { first: mean(first), again: mean(again) })
}

fn is_added(contacts: usize) -> impl Fn(&u16) -> bool {
    move |&name| usize::from(name) >= contacts && name != super::world::DUMMY
}

fn named(view: &View, events: &[u32]) -> HashSet<u32> {
    events.iter().flat_map(|&event| view.cells_of(event)).collect()
}
