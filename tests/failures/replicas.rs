//! Two servers of one database, of which one dies or is cut off in mid-call: what it had not
//! answered goes to the other at once, every look-up ends right, and no call takes much longer.

use std::time::{Duration, Instant};

use sotto::client::Client;
use tokio::time::{sleep, timeout};

use super::harness::load;
use super::harness::program::Two;
use super::harness::relay::{FINE, Relay};
use super::harness::{PATIENCE, record as entry, seed};
use super::{Took, record, times};

/// Over all shards, in many batches.
const KEYS: u64 = 400;
/// How much longer a call may take when a server is lost in the middle of it.
const LONGER: Duration = Duration::from_secs(2);

/// A call of many keys, some of them absent, every outcome right; how long it took.
async fn call(client: &mut Client) -> Duration {
    let keys: Vec<String> = (0..KEYS).map(|n| entry(n).0).collect();
    let begun = Instant::now();
    let called = load::call(client, &keys, &load::check);
    timeout(PATIENCE, called).await.expect("a call hangs");
    begun.elapsed()
}

async fn undisturbed(client: &mut Client) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..3 {
        longest = longest.max(call(client).await);
    }
    longest
}

/// Three calls, each disturbed at another time, and one after each; by how much the longest of
/// them took longer than one that is not disturbed.
async fn disturbed(client: &mut Client, mut disturb: impl AsyncFnMut(u32), what: &str) {
    let usual = undisturbed(client).await;
    let mut longer = Took::default();
    for turn in 0..3 * times(1) as u32 {
        let begun = Instant::now();
        let meanwhile = async {
            sleep(usual * (turn % 3 + 1) / 4).await;
            disturb(turn).await;
        };
        let (took, ()) = tokio::join!(call(client), meanwhile);
        let next = call(client).await;
        let most = took.max(next);
        longer.0.push(most.saturating_sub(usual).as_millis());
        assert!(most <= usual + LONGER, "{what}: {most:?} instead of {usual:?}");
        assert!(begun.elapsed() >= took);
    }
    let usual = usual.as_millis();
    record(&format!("{what}: a call of {KEYS} keys of {usual} ms takes longer by {longer}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_answers_when_the_first_is_killed_in_mid_call() {
    let mut two = Two::start();
    let mut client = Client::connect(two.options(two.addresses)).await.unwrap();
    let what = "one of two servers killed (-9) in mid-call";
    // The one that is asked is killed, and back for when the other is.
    let disturb = async |turn: u32| {
        let (this, other) = (turn as usize % 2, (turn as usize + 1) % 2);
        if two.servers[other].is_none() {
            two.start_again(other);
        }
        two.kill(this);
    };
    disturbed(&mut client, disturb, what).await;
    drop(client.close().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_answers_when_the_first_was_killed_while_nobody_asked() {
    let mut two = Two::start();
    let mut client = Client::connect(two.options(two.addresses)).await.unwrap();
    let usual = undisturbed(&mut client).await;
    two.kill(0);
    let took = call(&mut client).await;
    assert!(took <= usual + LONGER, "{took:?} instead of {usual:?}");
    let (took, usual) = (took.as_millis(), usual.as_millis());
    record(&format!("killed while nobody asks: the next call took {took} ms instead of {usual}"));
    // And whoever connects now is not kept by the dead one.
    let begun = Instant::now();
    let late = Client::connect(two.options(two.addresses)).await.unwrap();
    let took = begun.elapsed();
    assert!(took <= LONGER, "{took:?}");
    record(&format!("a dead first server: connected after {} ms", took.as_millis()));
    drop(late.close().await);
    drop(client.close().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_answers_when_the_network_to_the_first_is_cut_in_mid_call() {
    let two = Two::start();
    let first = Relay::start(two.addresses[0], FINE, seed()).await;
    let second = Relay::start(two.addresses[1], FINE, seed()).await;
    let options = two.options([first.address, second.address]);
    let mut client = Client::connect(options).await.unwrap();
    let relays = [first, second];
    let disturb = async |turn: u32| {
        relays[(turn as usize + 1) % 2].cut(false);
        relays[turn as usize % 2].cut(true);
    };
    disturbed(&mut client, disturb, "network to one of two servers cut in mid-call").await;
    drop(client.close().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_both_are_killed_the_first_that_is_back_answers() {
    let mut two = Two::start();
    let mut client = Client::connect(two.options(two.addresses)).await.unwrap();
    let usual = undisturbed(&mut client).await;
    for back in [1, 0] {
        let restart = async {
            sleep(usual / 3).await;
            two.kill(0);
            two.kill(1);
            two.start_again(back);
        };
        let (took, ()) = tokio::join!(call(&mut client), restart);
        record(&format!("both killed, one is back: the call took {} ms", took.as_millis()));
        two.start_again(1 - back);
    }
    drop(client.close().await);
}
