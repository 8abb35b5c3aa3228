//! How long registrations take while so many come in a second, over SMPP with PostgreSQL: from the
//! request to the statement, without the wait for the code. By default these are a few. For a
//! measurement `SOTTO_LOAD` is their number in a second, for 20 seconds; `bench/registration.sh`
//! does it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Duration, MissedTickBehavior, interval};

use crate::postgres::said::{load_size, say};
use crate::smpp::{arrived, use_smsc};
use crate::smsc::Smsc;
use crate::world::{APS, User, World, json_of, number, text};

/// Seconds of a measurement.
const SECONDS: u32 = 20;
/// Registrations without one, and how many begin in a second then.
const FEW: u32 = 16;
const RATE: u32 = 200;
/// Application providers, and how many connections each opens: a request waits for one of them.
const CLIENTS: usize = 8;
const CONNECTIONS: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn load() {
    let (Some(smsc), Some(world)) = (Smsc::start(), World::with_postgres().await) else { return };
    let world = Arc::new(world);
    use_smsc(&world, &smsc);
    let arriving = world.clone();
    tokio::spawn(async move {
        loop {
            let (to, text) = arrived(&smsc).await;
            arriving.gateway.put(to, text);
        }
    });
    let running = world.start().await;
    let peers: Vec<_> =
        (0..CLIENTS).map(|at| world.peer(running.address, &[APS[at % APS.len()]])).collect();
    let connections: Vec<_> = (0..CLIENTS).map(|_| Arc::new(Semaphore::new(CONNECTIONS))).collect();
    let (rate, count) = match load_size(0) as u32 {
        0 => (RATE, FEW),
        rate => (rate, rate * SECONDS),
    };
    let mut ticks = interval(Duration::from_secs(1) / rate);
    // Late ones begin at once: what the machine cannot do shows as a longer time.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for index in 0..count {
        let due = ticks.tick().await.into_std();
        let (at, world) = (index as usize % CLIENTS, world.clone());
        let (peer, free) = (peers[at].clone(), connections[at].clone());
        tasks.spawn(async move {
            // A prefix has eight numbers.
            let to = number(index / 8 * 10_000 + index % 8);
            let request = User::new(&to, APS[at % APS.len()]).request(world.now());
            let connection = free.acquire().await.unwrap();
            let id = peer.register(&request).await;
            let registered = due.elapsed();
            drop(connection);
            let code = world.gateway.code(&to, 1).await;
            let asked = Instant::now();
            let _connection = free.acquire().await.unwrap();
            let entered = peer.enter(&id, &code).await;
            assert_eq!(entered.status, 200, "{}", text(&entered));
            assert!(json_of(&entered)["statement"].is_string());
            (registered, asked.elapsed())
        });
    }
    let times = tasks.join_all().await;
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(times.len(), count as usize);
    let of = |time: fn(&(Duration, Duration)) -> Duration| {
        let mut times: Vec<Duration> = times.iter().map(time).collect();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        format!("50% in {:.1} ms, 99% in {:.1} ms", at(50), at(99))
    };
    say(&format!(
        "record: {count} registrations in {took:.1} s: {:.0} a second; {}; of which the request {}, \
         the code {}",
        f64::from(count) / took,
        of(|(request, code)| *request + *code),
        of(|(request, _)| *request),
        of(|(_, code)| *code),
    ));
    running.stop().await;
}
