//! What follows from times and sizes alone: how well the relay knows the length of a list, how
//! often a batch is asked, what a first synchronisation shows, and what a habit does.

use std::collections::HashMap;

use serde::Serialize;

use super::setting::Setting;
use super::view::View;
use super::world::{BATCH, Calls, DAY, HOUR, Members, PERIOD_DAYS, Rule, Size, World};

/// How well the relay knows how many contacts an account has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Length {
    pub(crate) rule: &'static str,
    /// After each number of days: contacts of the interval that has the number in 90 of 100 cases.
    pub(crate) width: Vec<f64>,
    /// The share of accounts that sent what can be counted: a session, or anything.
    pub(crate) counted: Vec<f64>,
}

pub(super) fn length(view: &View, setting: &Setting) -> Length {
    let (width, counted) = setting.days.map(|days| width(view, days)).into_iter().unzip();
    Length { rule: view.world.rule.name, width, counted }
}

/// Measures the spread of what devices with equally many contacts send.
fn width(view: &View, days: f64) -> (f64, f64) {
    let rule = view.world.rule;
    let mut guesses = Vec::new();
    for device in 0..view.world.size.devices as u32 {
        let events = view.of_device(device, days * DAY);
        let sent = events.iter().map(|&event| (view.event(event).time, view.names_of(event).len()));
        let guess = match rule.calls {
            // A single batch is an added contact and no session.
            Calls::AllBatches => Some(largest_session(sent)).filter(|&largest| largest > BATCH),
            _ => Some(sent.map(|(_, size)| size).sum::<usize>()).filter(|&sum| sum > 0),
        };
        let periods = if rule.calls == Calls::AllBatches { 1.0 } else { days / PERIOD_DAYS };
        guesses.extend(guess.map(|guess| guess as f64 / periods));
    }
    guesses.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (share * guesses.len().saturating_sub(1) as f64).round() as usize;
        guesses.get(place).copied().unwrap_or(0.0)
    };
    // A padded batch may have one contact or sixteen.
    let rounding = if rule.members == Members::Unpadded { 1.0 } else { BATCH as f64 };
    let counted = guesses.len() as f64 / view.world.size.devices as f64;
    (at(0.95) - at(0.05) + rounding, counted)
}

/// The queries of the largest session: what was sent with gaps of a few seconds.
fn largest_session(sent: impl Iterator<Item = (f64, usize)>) -> usize {
    let (mut largest, mut sum, mut last) = (0, 0, f64::NEG_INFINITY);
    for (time, size) in sent {
        sum = if time - last > 3.0 { size } else { sum + size };
        last = time;
        largest = largest.max(sum);
    }
    largest
}

/// How often a batch is asked under a rule, in days, where no contact is added.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Interval {
    pub(crate) rule: &'static str,
    pub(crate) contacts: usize,
    pub(crate) mean: f64,
    /// Nine of ten intervals are shorter.
    pub(crate) p90: f64,
    pub(crate) p99: f64,
}

/// For as many contacts as the world has, and for a fifth of them.
pub(super) fn interval(size: Size, rule: Rule) -> Vec<Interval> {
    let of = |contacts: usize| {
        let size = Size { days: 400.0, contacts, added_per_week: 0.0, ..size };
        let world = World::new(size, rule);
        let mut last = HashMap::new();
        let mut days: Vec<f64> = Vec::new();
        for event in &world.events {
            // Batches have no contact in common: the first one stands for all.
            let batch = (event.device, world.names_of(event)[0]);
            days.extend(last.insert(batch, event.time).map(|last| (event.time - last) / DAY));
        }
        days.sort_by(f64::total_cmp);
        let at = |share: f64| days[(share * (days.len() - 1) as f64) as usize];
        // The intervals that begin and end within the time are the shorter ones.
        let mean = size.days * last.len() as f64 / world.events.len() as f64;
        Interval { rule: rule.name, contacts, mean, p90: at(0.9), p99: at(0.99) }
    };
    vec![of(size.contacts), of(size.contacts / 5)]
}

/// What a first synchronisation shows to the front-end and to answer servers: batches that they
/// never saw before, and their times. Closed forms, for n batches at random times within T
/// seconds: two new batches with a lag of t are one device's with the odds (n - 1) (1 - t / T) / T
/// to the new batches of others in a second. The attack links what has odds above one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct FirstSync {
    pub(crate) devices: f64,
    pub(crate) seconds: f64,
    /// The share of the list that is linked to one of its batches.
    pub(crate) list: f64,
    /// Of the linked batches the share that is the device's; null where none is linked.
    pub(crate) right: Option<f64>,
    /// The highest probability with which two batches can be said to be of one device.
    pub(crate) probability: f64,
}

/// Devices that are set up in a day, as a share of all.
const SET_UP_PER_DAY: f64 = 0.001;

pub(super) fn first_syncs(setting: &Setting) -> Vec<FirstSync> {
    let mut syncs = Vec::new();
    for devices in [10_000.0, 1_000_000.0] {
        let new = setting.added_per_week / 7.0 + SET_UP_PER_DAY * setting.batches();
        for seconds in [20.0, 600.0, HOUR, 6.0 * HOUR, DAY] {
            syncs.push(first_sync(setting.batches(), seconds, devices, devices * new / DAY));
        }
    }
    syncs
}

pub(super) fn first_sync(batches: f64, seconds: f64, devices: f64, others: f64) -> FirstSync {
    let most = (batches - 1.0) / seconds / others;
    // Odds fall below one at this share of the time.
    let reach = (1.0 - 1.0 / most).max(0.0);
    let own = (batches - 1.0) * (1.0 - (1.0 - reach).powi(2));
    let strangers = 2.0 * reach * seconds * others;
    FirstSync {
        devices,
        seconds,
        list: (1.0 + own) / batches,
        right: (own > 0.0).then(|| own / (own + strangers)),
        probability: most / (1.0 + most),
    }
}

/// What it is worth that a device always sends at the same time of the day.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Habit {
    /// Within so many seconds.
    pub(crate) seconds: f64,
    /// At most, for two batches that are known to follow a habit.
    pub(crate) bits: f64,
    /// Devices of a service that still have this habit in common.
    pub(crate) in_common: f64,
}

pub(super) fn habits(setting: &Setting) -> Vec<Habit> {
    let habit = |seconds: f64| Habit {
        seconds,
        bits: (DAY / seconds).log2(),
        in_common: setting.devices as f64 * seconds / DAY,
    };
    [1.0, 60.0, 600.0, HOUR].map(habit).to_vec()
}
