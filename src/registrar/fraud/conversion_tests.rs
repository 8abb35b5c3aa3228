//! Conversion: what is closed, when it opens again, and what closes it for longer.

use super::*;
use crate::registrar::store::transaction;

/// Numbers of one prefix.
fn numbers(count: usize) -> Vec<Identifier> {
    (0..count).map(|number| mobile(1, number)).collect()
}

async fn hours(world: &World<'_>, sii: &Identifier, now: u64) -> u64 {
    let (code, _, after) = world.refusal(sii, now).await;
    assert_eq!(code, "fraud_closed");
    let seconds = after.unwrap();
    assert_eq!(seconds % HOUR, 0);
    seconds / HOUR
}

#[tokio::test]
async fn fifty_and_a_fifth_are_the_bounds_of_a_prefix() {
    for (sent, entered, closes) in
        [(50, 9, true), (50, 10, false), (49, 0, false), (55, 10, true), (55, 11, false)]
    {
        both(MIGRATIONS, async |store| {
            let world = World { store: &store, fraud: wide(without_rates()) };
            world.send(&numbers(sent), entered, NOW).await;
            // The message that finds it so is the last one.
            world.admit(AP, &mobile(1, 100), SETTLED).await.unwrap();
            let next = world.admit(AP, &mobile(1, 101), SETTLED).await;
            assert_eq!(next.is_err(), closes, "{sent} {entered}");
            if closes {
                assert_eq!(hours(&world, &mobile(1, 102), SETTLED).await, 1);
                // For others it is open; all of them are of one country, which is closed as well.
                world.admit("other.example", &mobile(1, 102), SETTLED).await.unwrap();
                assert_eq!(hours(&world, &mobile(2, 1), SETTLED).await, 1);
                world.admit(AP, &sii("+12015550123"), SETTLED).await.unwrap();
                world.admit(AP, &sii("anna@example.com"), SETTLED).await.unwrap();
                let closings = ["group", "area"]
                    .map(|of| world.sample("registrar_fraud_closings_total", &[of]));
                assert_eq!(closings, [1.0, 1.0]);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_prefix_is_closed_where_its_country_is_well() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: wide(without_rates()) };
        world.send(&numbers(50), 0, NOW).await;
        world.send(&spread_out(60)[2..], 58, NOW).await;
        world.admit(AP, &mobile(1, 100), SETTLED).await.unwrap();
        assert_eq!(hours(&world, &mobile(1, 101), SETTLED).await, 1);
        world.admit(AP, &mobile(2, 1), SETTLED).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_country_and_email_are_closed_over_all_prefixes_and_domains() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: wide(rules()) };
        world.send(&spread_out(50), 9, NOW).await;
        world.admit(AP, &mobile(100, 1), SETTLED).await.unwrap();
        assert_eq!(hours(&world, &mobile(101, 1), SETTLED).await, 1);
        world.admit(AP, &sii("+12015550123"), SETTLED).await.unwrap();
        let address = |index| sii(&format!("anna@domain{index}.example"));
        let addresses: Vec<_> = (0..50).map(address).collect();
        world.send(&addresses, 9, NOW).await;
        world.admit(AP, &address(100), SETTLED).await.unwrap();
        assert_eq!(hours(&world, &address(101), SETTLED).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_large_domain_is_closed_too() {
    both(MIGRATIONS, async |store| {
        // Its counters have several rows.
        let world = World { store: &store, fraud: fraud(rules(), ap(100_000, 100_000_000)) };
        let address = |index| sii(&format!("user{index}@gmail.com"));
        world.send(&(0..50).map(address).collect::<Vec<_>>(), 9, NOW).await;
        world.admit(AP, &address(51), SETTLED).await.unwrap();
        assert_eq!(hours(&world, &address(52), SETTLED).await, 1);
        let rows = world.rows().await;
        let groups = rows.iter().filter(|row| row.starts_with("group ") && row.contains(", 0, "));
        assert!(groups.count() > 4, "{rows:?}");
    })
    .await;
}

#[tokio::test]
async fn codes_that_may_still_be_entered_do_not_count() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: wide(without_rates()) };
        // Two slices of five minutes: until the second after has begun, a code may still come.
        for now in [NOW + 299, NOW + 301] {
            world.send(&numbers(25), 0, now).await;
        }
        for now in [NOW + 599, NOW + 600, NOW + 899] {
            world.send(&numbers(5), 0, now).await;
        }
        world.send(&numbers(1), 0, NOW + 900).await;
        assert_eq!(hours(&world, &mobile(1, 1), NOW + 900).await, 1);
    })
    .await;
}

#[tokio::test]
async fn each_closing_is_twice_as_long_until_a_week_went_well() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: wide(without_rates()) };
        let mut now = NOW;
        for expected in [1, 2, 4, 8, 16, 24, 24] {
            // Open, with a new sample: one below the bound passes.
            world.send(&numbers(49), 0, now).await;
            world.send(&numbers(1), 0, now + 600).await;
            world.send(&numbers(1), 0, now + 1_200).await;
            assert_eq!(hours(&world, &mobile(1, 1), now + 1_200).await, expected);
            let end = now + 1_200 + expected * HOUR;
            assert_eq!(world.refusal(&mobile(1, 1), end - 1).await.2, Some(1));
            // On the next day from then on, since a day begins a sample too.
            now = end.next_multiple_of(DAY);
        }
        let opened = now;
        world.send(&numbers(50), 0, opened + 8 * DAY).await;
        world.send(&numbers(1), 0, opened + 8 * DAY + 600).await;
        assert_eq!(hours(&world, &mobile(1, 1), opened + 8 * DAY + 600).await, 1);
    })
    .await;
}

#[tokio::test]
async fn what_reopens_stays_open_if_codes_are_entered() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: wide(without_rates()) };
        world.send(&numbers(50), 0, NOW).await;
        world.send(&numbers(1), 0, SETTLED).await;
        assert_eq!(hours(&world, &mobile(1, 1), SETTLED).await, 1);
        let reopened = SETTLED + HOUR;
        world.send(&numbers(60), 30, reopened).await;
        world.send(&numbers(10), 0, reopened + 600).await;
        world.admit(AP, &mobile(1, 1), reopened + 1_200).await.unwrap();
        world.admit(AP, &mobile(1, 1), reopened + 1_200).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_opens_nothing() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: wide(without_rates()) };
        world.send(&numbers(50), 0, NOW).await;
        world.send(&numbers(1), 0, SETTLED).await;
        assert_eq!(hours(&world, &mobile(1, 1), SETTLED - HOUR).await, 2);
        // Over midnight, yesterday's sample goes on.
        let midnight = 20_801 * DAY;
        let world = World { store: &store, fraud: wide(without_rates()) };
        let others: Vec<_> = (0..50).map(|number| sii(&format!("+1201555{number:04}"))).collect();
        world.send(&others, 0, midnight - 900).await;
        world.send(&others[..2], 0, midnight).await;
        world.send(&others[..1], 0, midnight - 1).await;
        assert_eq!(hours(&world, &others[0], midnight - 1).await, 1);
    })
    .await;
}

#[tokio::test]
async fn codes_of_a_provider_whose_rules_are_gone_are_entered_all_the_same() {
    both(MIGRATIONS, async |store| {
        let world = World { store: &store, fraud: wide(rules()) };
        world.send(&numbers(1), 0, NOW).await;
        world.fraud.replace(rules(), BTreeMap::new()).unwrap();
        let (number, sii_mac) = (mobile(1, 0), mac(&mobile(1, 0)));
        let entered = transaction!(store, |db| world
            .fraud
            .entered(db, &attempt(AP, &number, &sii_mac), NOW)
            .await);
        entered.await.unwrap();
        let rows = world.rows().await;
        let counted = rows.iter().filter(|row| row.ends_with(", 1, 0, 0, 1]")).count();
        assert_eq!(counted, 2, "{rows:?}");
    })
    .await;
}
