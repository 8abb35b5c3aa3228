//! How long registrations take while so many come in a second, over SMPP with PostgreSQL: from the
//! request to the statement, without the wait for the code. By default these are a few. For a
//! measurement `SOTTO_LOAD` is their number in a second, for 20 seconds; to be run alone and
//! optimised: `SOTTO_LOAD=200 cargo test --release --features registration --test services load --
//! --nocapture`.

use std::sync::Arc;
use std::time::Instant;

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
/// Clients, each with connections of its own.
const CLIENTS: usize = 8;

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
        let peer = peers[at].clone();
        tasks.spawn(async move {
            // A prefix has eight numbers.
            let to = number(index / 8 * 10_000 + index % 8);
            let request = User::new(&to, APS[at % APS.len()]).request(world.now());
            let id = peer.register(&request).await;
            let registered = due.elapsed();
            let code = world.gateway.code(&to, 1).await;
            let asked = Instant::now();
            let entered = peer.enter(&id, &code).await;
            assert_eq!(entered.status, 200, "{}", text(&entered));
            assert!(json_of(&entered)["statement"].is_string());
            registered + asked.elapsed()
        });
    }
    let mut times = tasks.join_all().await;
    let took = begun.elapsed();
    assert_eq!(times.len(), count as usize);
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    say(&format!(
        "{} registrations in {:.1} s: {:.0} a second; 50% in {:.1} ms, 99% in {:.1} ms",
        times.len(),
        took.as_secs_f64(),
        times.len() as f64 / took.as_secs_f64(),
        at(50).as_secs_f64() * 1e3,
        at(99).as_secs_f64() * 1e3
    ));
    running.stop().await;
}
