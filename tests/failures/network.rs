//! Networks that lose, repeat, delay and reorder packets, that are cut for a while, that move a
//! client to another address.

use std::time::{Duration, Instant};

use sotto::client::Options;

use super::harness::load::{self, Load, reach};
use super::harness::relay::{FINE, Relay, Weather};
use super::harness::{Built, Serving, seed, serve, until};
use super::{Took, record, settled, times};

async fn relayed(weather: Weather) -> (Built, Serving, Relay) {
    let built = load::database();
    let serving = serve(&built.db());
    let relay = Relay::start(serving.address, weather, seed()).await;
    (built, serving, relay)
}

fn through(relay: &Relay, built: &Built, serving: &Serving) -> Options {
    let mut options = reach(built, serving);
    options.replicas[0].addresses = vec![relay.address];
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn every_look_up_ends_right_over_a_bad_network() {
    let weathers = [
        Weather { lost: 10, twice: 0, delay_us_max: 0 },
        Weather { lost: 0, twice: 200, delay_us_max: 20_000 },
        Weather { lost: 50, twice: 20, delay_us_max: 5_000 },
        Weather { lost: 200, twice: 50, delay_us_max: 2_000 },
    ];
    for weather in weathers {
        let (built, serving, relay) = relayed(weather).await;
        let mut load = Load::start(&through(&relay, &built, &serving), 2).await;
        load.more(times(4)).await;
        let calls = load.stop().await;
        let (lost, passed) = relay.packets();
        record(&format!("{weather:?}: {lost} packets lost, {passed} not; {calls}"));
        assert!(passed > 0 && (lost > 0) == (weather.lost > 0));
        settled(&serving.counters).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_cut_for_a_while_loses_no_look_up() {
    let (built, serving, relay) = relayed(FINE).await;
    let mut options = through(&relay, &built, &serving);
    options.answer_timeout = Duration::from_millis(500);
    // A first packet that is lost is sent again after a second (QUIC's first time-out): with less
    // than that, a machine too busy to deliver one loses handshake after handshake.
    options.connect_timeout = Duration::from_millis(1_500);
    let mut load = Load::start(&options, 2).await;
    let mut answers = Took::default();
    for _ in 0..times(2) {
        load.more(2).await;
        relay.cut(true);
        let (lost, _) = relay.packets();
        // Long enough for the clients to give a connection up and fail at another.
        let cut = Instant::now();
        until("packets are lost", || {
            relay.packets().0 >= lost + 4 && cut.elapsed() > Duration::from_millis(2_500)
        })
        .await;
        relay.cut(false);
        let back = Instant::now();
        load.more(2).await;
        answers.since(back);
    }
    let calls = load.stop().await;
    record(&format!("network cut for 2.5 s: answers again after {answers}; {calls}"));
    settled(&serving.counters).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gets_another_address_goes_on() {
    let (built, serving, relay) = relayed(FINE).await;
    let mut load = Load::start(&through(&relay, &built, &serving), 2).await;
    let connections = serving.counters.connections.get();
    for _ in 0..times(3) {
        load.more(2).await;
        relay.move_clients();
    }
    load.more(4).await;
    record(&format!("another address in mid-call: {}", load.stop().await));
    assert_eq!(serving.counters.connections.get(), connections, "a connection was lost");
    settled(&serving.counters).await;
}
