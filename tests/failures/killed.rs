//! kill -9 under load, and the program again on the same address.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sotto::client::{Client, Options};
use tokio::time::timeout;

use super::harness::PATIENCE;
use super::harness::load::{Load, look_up};
use super::harness::program::{Place, Program, any};
use super::{Took, record, times};

/// Waits for an answer for longer than any test: it has to be told that none will come.
fn patient(place: &Place, server: &Program) -> Options {
    Options { answer_timeout: Duration::from_secs(3_600), ..place.options(server) }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_and_started_again_every_look_up_ends_right() {
    let place = Place::new();
    let mut server = Program::start(place.command(&[], any()), None);
    let address = server.address;
    let mut load = Load::start(&patient(&place, &server), 3).await;
    let (mut listens, mut answers) = (Took::default(), Took::default());
    for _ in 0..times(3) {
        load.more(10).await;
        server.kill();
        let killed = Instant::now();
        server = Program::start(place.command(&[], address), None);
        listens.since(killed);
        load.more(1).await;
        answers.since(killed);
    }
    record(&format!("kill -9 under load: listens again after {listens}; answers after {answers}"));
    load.more(10).await;
    record(&format!("kill -9 under load: {}", load.stop().await));
    server.leave().await;
}

/// A client that was silent when the server was killed is told, too.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_nobody_asks_the_next_look_up_is_right() {
    let place = Place::new();
    let server = Program::start(place.command(&[], any()), None);
    let mut client = Client::connect(patient(&place, &server)).await.unwrap();
    look_up(&mut client, 0).await;
    let address = server.address;
    server.kill();
    let server = Program::start(place.command(&[], address), None);
    let begun = Instant::now();
    timeout(PATIENCE, look_up(&mut client, 1)).await.expect("it is not told");
    let took = begun.elapsed().as_millis();
    record(&format!("kill -9 while silent: the next call took {took} ms"));
    drop(client.close().await);
    server.leave().await;
}

/// A signal that somebody sends is no fault of a map: the program ends by it, and does not go on
/// with maps that nobody guards.
#[tokio::test(flavor = "multi_thread")]
async fn a_bus_error_that_is_sent_ends_the_program() {
    let place = Place::new();
    let server = Program::start(place.command(&[], any()), None);
    server.signal(Signal::BUS);
    let ended = server.ends().await;
    assert_eq!(ended.signal(), Some(Signal::BUS.as_raw()), "{ended}");
}
