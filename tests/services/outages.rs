//! The database stopped and started, gateways that are away, refuse or do not answer.

use axum::http::Method;
use serde_json::json;

use crate::gateway::Manner;
use crate::world::{
    AS_JSON, Peer, Running, User, World, fresh_key, json_of, number, problem, text,
};

/// Every route is put off.
async fn is_put_off(world: &World, running: &Running, a: &Peer, index: u32) {
    let request = User::new(&number(index), "a.example").request(world.now());
    let none = json!({});
    let posts = [
        ("/v1/registrations", &request),
        ("/v1/registrations/x/code", &none),
        ("/v1/registrations/x/resend", &none),
        ("/v1/heartbeats", &none),
        ("/v1/withdrawals", &none),
        ("/v1/preferences", &none),
    ];
    for (path, body) in posts {
        let refused = a.post(path, &fresh_key(), body).await;
        assert_eq!((refused.status, &*problem(&refused)), (503, "unavailable"), "{path}");
        assert!(refused.headers.contains_key("retry-after"), "{path}");
    }
    let user = ("authorization", "Sotto-User x");
    for (path, headers) in [("/v1/registrations/x", &[][..]), ("/v1/mine", &[user])] {
        let refused = a.send(Method::GET, path, headers, "").await;
        assert_eq!((refused.status, &*problem(&refused)), (503, "unavailable"), "{path}");
        assert!(refused.headers.contains_key("retry-after"), "{path}");
    }
    let missing = running.control.readiness().missing;
    assert!(missing.iter().any(|line| line.contains("database")), "{missing:?}");
    assert_eq!(running.sample("registrar_database_up", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stops_puts_requests_off_and_loses_nothing() {
    let Some(world) = World::with_postgres().await else { return };
    let postgres = world.postgres.clone().unwrap();
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let request = User::new(&number(1), "a.example").request(world.now());
    let accepted = a.post("/v1/registrations", "one", &request).await;
    assert_eq!(accepted.status, 202);
    let id = json_of(&accepted)["id"].as_str().unwrap().to_owned();
    let code = world.gateway.code(&number(1), 1).await;
    for _ in 0..2 {
        let stopped = postgres.clone();
        tokio::task::spawn_blocking(move || stopped.stop()).await.unwrap();
        // The first request finds it away, if nobody has yet.
        let first = a.enter(&id, &code).await;
        assert_eq!((first.status, &*problem(&first)), (503, "unavailable"));
        assert!(first.headers.contains_key("retry-after"));
        running.control.until_database(false).await;
        is_put_off(&world, &running, &a, 2).await;
        let resumed = postgres.clone();
        tokio::task::spawn_blocking(move || resumed.resume()).await.unwrap();
        running.control.until_database(true).await;
        assert!(running.control.readiness().missing.is_empty());
    }
    assert_eq!(text(&a.post("/v1/registrations", "one", &request).await), text(&accepted));
    assert_eq!(a.enter(&id, &code).await.status, 200);
    // Nothing of what was put off was stored or sent.
    assert_eq!(world.gateway.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrar_starts_before_its_database() {
    let Some(world) = World::with_postgres().await else { return };
    let postgres = world.postgres.clone().unwrap();
    let stopped = postgres.clone();
    tokio::task::spawn_blocking(move || stopped.kill()).await.unwrap();
    let running = world.start_without_database().await;
    let a = world.peer(running.address, &["a.example"]);
    is_put_off(&world, &running, &a, 1).await;
    tokio::task::spawn_blocking(move || postgres.resume()).await.unwrap();
    running.control.until_database(true).await;
    a.register(&User::new(&number(1), "a.example").request(world.now())).await;
    running.stop().await;
}

#[tokio::test]
async fn without_a_gateway_nothing_is_stored() {
    let world = World::new().await;
    // Nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = std::fs::read_to_string(world.config_path()).unwrap();
    let gateway = world.gateway.address.to_string();
    world.write("registrar.toml", &config.replace(&gateway, &closed.to_string()));
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    // That it is away is known after the first message.
    let mut index = 1;
    let refused = loop {
        let request = User::new(&number(index * 10_000), "a.example").request(world.now());
        let reply = a.post("/v1/registrations", &format!("key{index}"), &request).await;
        if reply.status != 202 {
            break reply;
        }
        index += 1;
        assert!(index < 20, "nothing was refused");
    };
    assert_eq!((refused.status, &*problem(&refused)), (503, "channel_down"));
    assert!(refused.headers.contains_key("retry-after"));
    let notes = running.control.readiness().notes;
    assert!(notes.iter().any(|note| note.contains("no gateway for sms")), "{notes:?}");
    assert_eq!(running.sample("registrar_channel_up", &["sms"]), 0.0);
    // Nothing was kept under its key: another request may have it.
    world.write("registrar.toml", &config);
    running.stop().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let other = User::new(&number(2), "a.example").request(world.now());
    let reply = a.post("/v1/registrations", &format!("key{index}"), &other).await;
    assert_eq!(reply.status, 202, "{}", text(&reply));
    world.gateway.code(&number(2), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_may_have_gone_is_not_sent_again() {
    let world = World::new().await;
    let config = std::fs::read_to_string(world.config_path()).unwrap();
    let quick = config.replace("[channels]\n", "[channels]\nanswer-wait-ms = 50\n");
    world.write("registrar.toml", &quick);
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    world.gateway.be(Manner::Stall);
    let id = a.register(&User::new(&number(1), "a.example").request(world.now())).await;
    // It has the message, though it never said so: its code is good.
    let code = world.gateway.code(&number(1), 1).await;
    assert_eq!(a.enter(&id, &code).await.status, 200);
    world.gateway.be(Manner::Refuse);
    a.register(&User::new(&number(10_001), "a.example").request(world.now())).await;
    while running.sample("registrar_registrations_total", &["not_sent"]) < 2.0 {
        tokio::task::yield_now().await;
    }
    world.gateway.be(Manner::Take);
    running.stop().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    // After a start nothing is sent by itself.
    let headers = [AS_JSON, ("idempotency-key", "k")];
    let reply = a.send(Method::POST, "/v1/heartbeats", &headers, "{\"ids\":[]}").await;
    assert!(reply.status < 500, "{}", text(&reply));
    assert_eq!(world.gateway.count(), 1);
}
