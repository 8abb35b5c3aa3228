//! How long registrations take while so many come in a second, over SMPP with PostgreSQL: from the
//! request to the statement, without the wait for the code. All are of one application provider, so
//! that they share the counters of its budget. By default these are a few. For a measurement
//! `SOTTO_LOAD` is their number in a second, for 20 seconds; to be run alone and optimised:
//! `SOTTO_LOAD=200 cargo test --release --features registration --test services load::
//! -- --nocapture` (`bench/registration.sh`).

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::postgres::said::say;
use crate::smpp::{arrived, use_smsc};
use crate::smsc::Smsc;
use crate::timed::{Load, Watch};
use crate::world::{APS, Peer, User, World, json_of, number, text};

/// Registrations without a measurement, and how many begin in a second then.
const FEW: Load = Load { count: 16, rate: 200 };
/// Machines of the application provider, each with connections of its own.
const PEERS: usize = 8;
/// Connections of each.
const CONNECTIONS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn registrations() {
    let (Some(smsc), Some(world)) = (Smsc::start(), World::with_postgres().await) else { return };
    let world = Arc::new(world);
    use_smsc(&world, &smsc);
    let running = world.start().await;
    while running.sample("registrar_channel_up", &["sms"]) < 1.0 {
        tokio::task::yield_now().await;
    }
    let arriving = world.clone();
    tokio::spawn(async move {
        loop {
            let (to, text) = arrived(&smsc).await;
            arriving.gateway.put(to, text);
        }
    });
    let peers: Vec<Peer> = (0..PEERS).map(|_| world.peer(running.address, &[APS[0]])).collect();
    connect(&peers).await;
    let watch = Watch::start();
    let register = |index: u32, due: Instant| {
        let (world, peer) = (world.clone(), peers[index as usize % PEERS].clone());
        async move {
            // A prefix has eight numbers.
            let to = number(index / 8 * 10_000 + index % 8);
            let request = User::new(&to, APS[0]).request(world.now());
            let id = peer.register(&request).await;
            let registered = due.elapsed();
            let code = world.gateway.code(&to, 1).await;
            let asked = Instant::now();
            let entered = peer.enter(&id, &code).await;
            assert_eq!(entered.status, 200, "{}", text(&entered));
            assert!(json_of(&entered)["statement"].is_string());
            registered + asked.elapsed()
        }
    };
    let load = Load::or_few(FEW.count, FEW.rate);
    let times = load.run(PEERS * CONNECTIONS, register).await;
    assert_eq!(times.len(), load.count as usize);
    say(&watch.line("registrations", times));
    running.stop().await;
}

/// Opens the connections that an application provider keeps: each answers a request.
async fn connect(peers: &[Peer]) {
    let mut asking = JoinSet::new();
    for peer in peers {
        for _ in 0..CONNECTIONS {
            let peer = peer.clone();
            asking.spawn(async move { peer.get("/v1/registrations/none").await });
        }
    }
    assert!(asking.join_all().await.iter().all(|reply| reply.status == 404));
}
