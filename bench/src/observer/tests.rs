//! Known cases and closed forms: the simulation must give what can be computed by hand.

use std::collections::{HashMap, HashSet};

use super::confirm::{account, batch};
use super::link::{Linked, link};
use super::world::{DUMMY, Event, HOUR, PERIOD_DAYS};
use super::*;
use crate::common::Effort;

const RULE: &str = "one batch a call, always on";
const ONCE: &str = "one batch a call, awake once a day";
const ONCE_ALL: &str = "all due batches together, awake once a day";

fn size(devices: usize) -> Size {
    let (contacts, shards) = (500, 1_000);
    Size { seed: 7, devices, contacts, shards, added_per_week: 1.0, days: 30.0 }
}

fn rule(name: &str) -> Rule {
    RULES.into_iter().find(|rule| rule.name == name).unwrap()
}

fn draws() -> Draws {
    Draws::new(7, "test", 0)
}

fn linked(size: Size, name: &str) -> Linked {
    let world = World::new(size, rule(name));
    link(&View::new(&world, 1), size.days * DAY, 60, &mut draws())
}

fn near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "found {found}, expected {expected}");
}

fn of_device(world: &World, device: u32) -> Vec<&Event> {
    world.events.iter().filter(|event| event.device == device).collect()
}

#[test]
fn every_batch_has_sixteen_members_of_distinct_shards() {
    for rule in RULES {
        let world = World::new(size(20), rule);
        for event in &world.events {
            let shards: HashSet<u32> = world.cells_of(event).iter().map(|cell| cell / 8).collect();
            assert_eq!(shards.len(), world.names_of(event).len(), "{}", rule.name);
            assert!(shards.len() == BATCH || rule.members == Members::Unpadded, "{}", rule.name);
        }
    }
}

#[test]
fn every_contact_is_asked_again_after_one_to_two_weeks() {
    for rule in RULES.into_iter().filter(|rule| rule.awake == Awake::Always) {
        let world = World::new(size(5), rule);
        let mut last = HashMap::new();
        for event in &world.events {
            for &name in world.names_of(event).iter().filter(|&&name| name != DUMMY) {
                let Some(before) = last.insert((event.device, name), event.time) else { continue };
                let days = (event.time - before) / DAY;
                // A new batch joins the next session, and of those that are dealt anew any that
                // was not asked for a week may come, or not.
                let early = rule.calls == Calls::AllBatches;
                assert!(early || days > 6.99, "{}: {days}", rule.name);
                assert!(rule.members == Members::Redrawn || days < 14.01, "{}: {days}", rule.name);
            }
        }
        assert!(last.len() >= 5 * 500, "{}", rule.name);
    }
}

/// How many batches, those of new contacts aside, a device sends within 23 hours at most.
fn most_a_day(world: &World) -> usize {
    let most = (0..world.size.devices as u32).map(|device| {
        let old = of_device(world, device).into_iter().filter(|event| {
            let names = world.names_of(event);
            names.iter().any(|&name| usize::from(name) < world.size.contacts)
        });
        let times: Vec<f64> = old.map(|event| event.time).collect();
        let within = |&from: &f64| {
            times.iter().filter(|&&time| (from..from + 22.9 * HOUR).contains(&time)).count()
        };
        times.iter().map(within).max().unwrap_or(0)
    });
    most.max().unwrap()
}

#[test]
fn a_device_that_wakes_once_a_day_sends_one_batch_a_day_or_all_that_are_due() {
    let size = Size { added_per_week: 0.0, ..size(50) };
    assert_eq!(most_a_day(&World::new(size, rule(ONCE))), 1);
    // Of 32 batches 3 are due a day.
    assert!(most_a_day(&World::new(size, rule(ONCE_ALL))) > 5);
}

#[test]
fn a_device_that_is_off_at_night_sends_nothing_then() {
    let world = World::new(size(50), rule("one batch a call, off at night"));
    let open = World::new(size(50), rule(RULE));
    let longest_gap = |world: &World, device: u32| {
        let events = of_device(world, device);
        let mut hours: Vec<f64> = events.iter().map(|event| event.time % DAY / HOUR).collect();
        hours.sort_by(f64::total_cmp);
        let around = hours[0] + 24.0 - hours[hours.len() - 1];
        hours.windows(2).map(|pair| pair[1] - pair[0]).fold(around, f64::max)
    };
    for device in 0..50 {
        // It may wake up half an hour early.
        assert!(longest_gap(&world, device) > 7.4, "{device}");
        assert!(longest_gap(&open, device) < 4.0, "{device}");
    }
    near(world.events.len() as f64 / open.events.len() as f64, 1.0, 0.05);
}

#[test]
fn a_batch_is_asked_as_often_as_calls_allow() {
    let mean = |name: &str| {
        let [all, fifth] = &times::interval(size(20), rule(name))[..] else { panic!("two") };
        assert_eq!((all.contacts, fifth.contacts), (500, 100));
        (all.mean, fifth.mean, all.p99)
    };
    let (all, fifth, p99) = mean(RULE);
    near(all, PERIOD_DAYS, 0.1);
    near(fifth, PERIOD_DAYS, 0.2);
    assert!(p99 < 14.0);
    // One of 32 batches each day.
    let (all, fifth, p99) = mean(ONCE);
    near(all, 32.0, 1.0);
    assert!(fifth < 13.0 && p99 > 60.0, "{fifth} {p99}");
    // Half a day until it wakes up.
    near(mean(ONCE_ALL).0, PERIOD_DAYS + 0.5, 0.2);
}

#[test]
fn batches_at_times_of_their_own_are_recognised_and_not_linked() {
    for name in [RULE, ONCE, "fresh dummies", "no padding"] {
        let linked = linked(Size { added_per_week: 0.01, ..size(300) }, name);
        near(linked.list, 16.0 / 500.0, 0.004);
        assert!(linked.right.is_none_or(|right| right > 0.9), "{name}: {linked:?}");
    }
}

#[test]
fn batches_that_are_sent_together_are_linked() {
    for (name, least) in [(ONCE_ALL, 0.55), ("every batch in one session", 0.8)] {
        let linked = linked(size(300), name);
        assert!(linked.list > least && linked.right > Some(0.9), "{name}: {linked:?}");
    }
    // A day shows one session, and the three batches of it.
    let day = linked(Size { days: 1.0, ..size(300) }, ONCE_ALL);
    assert!((0.06..0.2).contains(&day.list), "{day:?}");
}

#[test]
fn batches_that_are_dealt_anew_are_linked_by_what_is_in_them() {
    let name = "members dealt anew each time";
    let sparse = linked(Size { shards: 20_000, ..size(300) }, name);
    assert!(sparse.list > 0.9 && sparse.right > Some(0.8), "{sparse:?}");
    // No contact comes again within a week.
    let week = linked(Size { shards: 20_000, days: 6.9, ..size(300) }, name);
    near(week.list, 16.0 / 500.0, 0.01);
}

/// A stranger is a yes with 1 - (1 - 1/M)^n, and a contact always, once all batches were seen.
#[test]
fn testing_an_account_meets_its_closed_form() {
    for shards in [1_000, 20_000] {
        let world = World::new(Size { shards, ..size(200) }, rule(RULE));
        let test = account(&View::new(&world, 1), 30.0 * DAY, 200, &mut draws());
        near(test.contact, 1.0, 1e-9);
        // 512 members, and 16 of each of the 30 / 7 contacts that were added.
        let closed = 1.0 - (1.0 - 1.0 / (8 * shards) as f64).powf(512.0 + 16.0 * 30.0 / 7.0);
        near(test.stranger / closed, 1.0, 0.03);
        near(test.bits, -closed.log2(), 0.05);
    }
    let known = Test::new(0.5, 0.125, 2_000);
    // 1 000 contacts and 1 000 strangers.
    assert_eq!((known.bits, known.right_in_town), (2.0, 0.5));
}

#[test]
fn testing_one_batch_meets_its_closed_form() {
    let world = World::new(size(200), rule(RULE));
    let test = batch(&View::new(&world, 1), 20_000, &mut draws());
    near(test.stranger, 16.0 / 8_000.0, 1e-9);
    // Some of the batches are those of added contacts, and name no others.
    near(test.contact, 1.0 / 34.0 + 16.0 / 8_000.0, 0.003);
}

/// Dummies that stick leave sixteen cells but for those that the account named before by chance:
/// 512 and some of 8 000. Others leave the contact.
#[test]
fn an_added_contact_hides_among_dummies_that_stick() {
    let setting = Setting::new(Effort::Test);
    let crowd = |name: &str| {
        let world = World::new(size(200), rule(name));
        confirm::confirm(&View::new(&world, 1), &setting, &mut draws()).added.unwrap()
    };
    let sticky = crowd(RULE);
    let new = 1.0 + 15.0 * (1.0 - 1.0 / 8_000.0_f64).powi(512 + 32);
    near(sticky.first, new, 0.5);
    assert_eq!(sticky.first, sticky.again);
    let fresh = crowd("fresh dummies");
    assert!(fresh.first > 13.0 && fresh.again < 1.8, "{fresh:?}");
    assert!(crowd("no padding").first <= 1.0);
}

#[test]
fn the_relay_counts_a_session_and_not_what_is_spread() {
    let width = |name: &str| {
        let world = World::new(size(300), rule(name));
        times::length(&View::new(&world, 1), &Setting::new(Effort::Test)).width[2]
    };
    // Up to some 7 contacts are added in a month, each with a batch of its own.
    assert!(width("no padding, every batch in one session") <= 8.0);
    near(width("every batch in one session"), 6.0 * 16.0, 33.0);
    assert!(width("no padding") > 40.0);
}

#[test]
fn a_first_synchronisation_meets_its_closed_form() {
    // 32 batches within 20 s beside one new batch of others in 50 s: odds of at most 31 / 20 * 50.
    let burst = times::first_sync(32.0, 20.0, 1.0, 0.02);
    near(burst.probability, 77.5 / 78.5, 1e-9);
    near(burst.list, 1.0, 0.001);
    near(burst.right.unwrap(), 31.0 / 31.8, 0.001);
    // Within a day: odds below one.
    let day = times::first_sync(32.0, DAY, 1.0, 0.02);
    assert_eq!((day.list, day.right), (1.0 / 32.0, None));
    near(day.probability, 31.0 / (86_400.0 * 0.02), 0.001);
    let habits = times::habits(&Setting::new(Effort::Full));
    near(habits[3].bits, 24.0_f64.log2(), 1e-9);
    near(habits[3].in_common, 10_000.0 / 24.0, 1e-9);
}

#[test]
fn the_same_seed_gives_the_same_tables_that_name_every_rule() {
    let setting = Setting::new(Effort::Test);
    let observed = observe(setting.clone());
    let (text, picture) = (observed.text(), crate::html::picture(&observed));
    for rule in RULES {
        assert!(text.contains(rule.name) && picture.contains(rule.name), "{}", rule.name);
    }
    assert!(!text.contains("NaN") && !picture.contains("NaN"), "{text}");
    let tables = |text: &str| text.split_once("\n1. ").unwrap().1.to_owned();
    assert_eq!(tables(&text), tables(&observe(setting.clone()).text()));
    assert_ne!(tables(&text), tables(&observe(Setting { seed: 19, ..setting }).text()));
}
