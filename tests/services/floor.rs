//! What the load tests are compared with: how often this machine alone does each thing that a
//! registration or a claim consists of. By default each is done a few times. For a measurement
//! `SOTTO_LOAD` is how often: `SOTTO_LOAD=2000 cargo test --release --features registration --test
//! services floor:: -- --nocapture` (`bench/registration.sh`).

use std::time::Instant;

use axum::http::Method;
use ed25519_dalek::Signer as _;
use sotto::discovery::sealed::capsule::{Gateway, InnerRequest, InnerResponse, seal_to};
use sotto::discovery::sealed::keys::GatewayKey;
use sotto::https::Client;
use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;
use tokio::task::JoinSet;

use crate::postgres::said::say;
use crate::timed::load_size;
use crate::world::{APS, LONG, World, other_key};

/// Transactions or requests at once: as many as services have connections to PostgreSQL.
const AT_ONCE: usize = 16;

fn say_rate(what: &str, count: usize, begun: Instant) {
    let took = begun.elapsed().as_secs_f64();
    let (each, rate) = (took * 1e3 / count as f64, count as f64 / took);
    say(&format!("floor: {what}: {rate:.0} a second, {each:.3} ms each"));
}

#[tokio::test(flavor = "multi_thread")]
async fn floor() {
    let Some(world) = World::with_postgres().await else { return };
    let count = load_size(AT_ONCE);
    signatures(count);
    capsules(count);
    requests(&world, count).await;
    transactions(&world, count).await;
}

fn signatures(count: usize) {
    let (key, text) = (other_key(), [7; 700]);
    let (signature, public) = (key.sign(&text), key.verifying_key());
    let begun = Instant::now();
    for _ in 0..count {
        public.verify_strict(&text, &signature).unwrap();
    }
    say_rate("Ed25519 verifications on one thread", count, begun);
}

/// A capsule opened and its reply sealed, which is half of the work: the device does the other.
fn capsules(count: usize) {
    let gateway = Gateway::new(vec![GatewayKey::new(1, &[3; 32]).unwrap()]);
    let request = InnerRequest {
        method: "POST".into(),
        path: "/keyMaterial/x".into(),
        content_type: None,
        body: vec![7; 500],
    };
    let reply = InnerResponse {
        status: 200,
        content_type: None,
        retry_after: None,
        etag: None,
        body: vec![7; 500],
    };
    let (capsule, _) = seal_to(&gateway.configs()[0], &request, 1_024).unwrap();
    let begun = Instant::now();
    for _ in 0..count {
        let (_, sealer) = gateway.open(&capsule).unwrap();
        sealer.seal(&reply).unwrap();
    }
    say_rate("OHTTP capsules opened and answered on one thread", count, begun);
}

/// Both sides, client and server, in this process.
async fn requests(world: &World, count: usize) {
    let running = world.start().await;
    let peer = world.peer(running.address, &[APS[0]]);
    let (cert, key) = world.certificates.leaf(&[APS[0]]);
    let ca = world.certificates.ca_pem.as_bytes();
    let begun = Instant::now();
    for _ in 0..count {
        let identity = Some((cert.as_bytes(), key.as_bytes()));
        let client = Client::new(Some(ca), identity, LONG).unwrap();
        let url = format!("{}/none", peer.url);
        let reply = client.send(Method::GET, &url, &[], Default::default(), 1 << 16).await;
        assert_eq!(reply.unwrap().status, 404);
    }
    say_rate("connections with both certificates and one request, one by one", count, begun);
    let begun = Instant::now();
    let each = count / AT_ONCE;
    let mut asking = JoinSet::new();
    for _ in 0..AT_ONCE {
        let peer = peer.clone();
        asking.spawn(async move {
            for _ in 0..each {
                assert_eq!(peer.get("/none").await.status, 404);
            }
        });
    }
    asking.join_all().await;
    say_rate("requests over open connections, 16 at once", each * AT_ONCE, begun);
    running.stop().await;
}

/// With fsync, as the services have them.
async fn transactions(world: &World, count: usize) {
    sqlx::any::install_default_drivers();
    let pool = AnyPoolOptions::new().max_connections(AT_ONCE as u32);
    let pool = pool.connect(&world.postgres.as_ref().unwrap().database()).await.unwrap();
    for sql in [
        "CREATE TABLE rows (id BIGINT PRIMARY KEY, count BIGINT NOT NULL)",
        "INSERT INTO rows SELECT n, 0 FROM generate_series(0, 15) n",
    ] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    let begun = Instant::now();
    for _ in 0..count {
        sqlx::query("SELECT 1").execute(&pool).await.unwrap();
    }
    say_rate("queries of PostgreSQL that read nothing, one by one", count, begun);
    let begun = Instant::now();
    update(pool.clone(), 0, count).await;
    say_rate("PostgreSQL transactions of one update, one by one", count, begun);
    let begun = Instant::now();
    let mut updating = JoinSet::new();
    for row in 0..AT_ONCE {
        updating.spawn(update(pool.clone(), row, count / AT_ONCE));
    }
    updating.join_all().await;
    say_rate("the same, 16 at once", count / AT_ONCE * AT_ONCE, begun);
}

async fn update(pool: AnyPool, row: usize, count: usize) {
    for _ in 0..count {
        let update = sqlx::query("UPDATE rows SET count = count + 1 WHERE id = $1");
        update.bind(row as i64).execute(&pool).await.unwrap();
    }
}
