//! What attackers try: guessing codes at once, codes and names of others, requests sent again,
//! pumping.

use serde_json::json;
use tokio::task::JoinSet;

use crate::world::{APS, User, World, fresh_key, json_of, number, problem, text};

/// On SQLite and on PostgreSQL.
async fn both(test: impl AsyncFn(World)) {
    test(World::new().await).await;
    if let Some(world) = World::with_postgres().await {
        test(world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_over_fifty_connections_are_five_tries() {
    both(async |world: World| {
        let running = world.start().await;
        let a = world.peer(running.address, &["a.example"]);
        let id = a.register(&User::new(&number(1), "a.example").request(world.now())).await;
        let code: u32 = world.gateway.code(&number(1), 1).await.parse().unwrap();
        let mut guesses = JoinSet::new();
        for guess in 1..=50 {
            let (peer, id) = (world.peer(running.address, &["a.example"]), id.clone());
            let wrong = format!("{:06}", (code + guess) % 1_000_000);
            guesses.spawn(async move { peer.enter(&id, &wrong).await });
        }
        let replies = guesses.join_all().await;
        let mut tries: Vec<u64> = replies
            .iter()
            .filter(|reply| reply.status == 409)
            .map(|reply| json_of(reply)["tries_left"].as_u64().unwrap())
            .collect();
        tries.sort_unstable();
        assert_eq!(tries, [0, 1, 2, 3, 4]);
        assert_eq!(replies.iter().filter(|reply| reply.status == 410).count(), 45);
        // The right one is late.
        let late = a.enter(&id, &format!("{code:06}")).await;
        assert_eq!((late.status, &*problem(&late)), (410, "failed"));
        let shown = json_of(&a.get(&format!("/v1/registrations/{id}")).await);
        assert_eq!((&shown["state"], &shown["statement"]), (&json!("failed"), &json!(null)));
    })
    .await;
}

#[tokio::test]
async fn a_code_is_good_for_its_registration_alone() {
    let world = World::new().await;
    let running = world.start().await;
    let [a, b] = ["a.example", "b.example"].map(|name| world.peer(running.address, &[name]));
    let of_a = a.register(&User::new(&number(1), "a.example").request(world.now())).await;
    let code_a = world.gateway.code(&number(1), 1).await;
    let of_b = b.register(&User::new(&number(1), "b.example").request(world.now())).await;
    let code_b = world.gateway.code(&number(1), 2).await;
    // Later than the one that it takes the place of.
    let mut prefer = User::new(&number(1), "a.example").request(world.now() + 1);
    prefer["purpose"] = json!("prefer");
    let preferring = a.register(&prefer).await;
    let code_p = world.gateway.code(&number(1), 3).await;
    // One in a million draws makes two of them equal.
    assert!(code_a != code_b && code_a != code_p && code_b != code_p, "drawn equal: run it again");
    // Codes of another provider or purpose.
    for (peer, id, code) in [
        (&a, &of_a, &code_b),
        (&b, &of_b, &code_a),
        (&a, &of_a, &code_p),
        (&a, &preferring, &code_a),
    ] {
        let refused = peer.enter(id, code).await;
        assert_eq!((refused.status, &*problem(&refused)), (409, "wrong_code"));
    }
    // Names of another's registrations, which look like any that is not there.
    let path = |id: &str| format!("/v1/registrations/{id}");
    let unknown = text(&b.get(&path("AAAAAAAAAAAAAAAAAAAAAA")).await);
    assert_eq!(text(&b.get(&path(&of_a)).await), unknown);
    for refused in [
        b.enter(&of_a, &code_a).await,
        b.post(&format!("{}/resend", path(&of_a)), &fresh_key(), &json!({})).await,
        b.post("/v1/withdrawals", &fresh_key(), &json!({ "id": of_a })).await,
    ] {
        assert_eq!((refused.status, &*problem(&refused)), (404, "unknown"));
    }
    // None of this cost its owner a try.
    assert_eq!(a.enter(&of_a, &code_a).await.status, 200);
    assert_eq!(b.enter(&of_b, &code_b).await.status, 200);
    assert_eq!(a.enter(&preferring, &code_p).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_again_is_done_once() {
    both(async |world: World| {
        let running = world.start().await;
        let a = world.peer(running.address, &["a.example"]);
        let request = User::new(&number(1), "a.example").request(world.now());
        // At once, over connections of their own.
        let mut sent = JoinSet::new();
        for _ in 0..20 {
            let (peer, request) = (world.peer(running.address, &["a.example"]), request.clone());
            sent.spawn(async move { peer.post("/v1/registrations", "one", &request).await });
        }
        let replies = sent.join_all().await;
        let first = text(&replies[0]);
        assert!(replies.iter().all(|reply| reply.status == 202 && text(reply) == first), "{first}");
        let id = json_of(&replies[0])["id"].as_str().unwrap().to_owned();
        let code = world.gateway.code(&number(1), 1).await;
        // Another request under the key, and the key of another provider, which is its own.
        let other = User::new(&number(2), "a.example").request(world.now());
        let refused = a.post("/v1/registrations", "one", &other).await;
        assert_eq!((refused.status, &*problem(&refused)), (422, "idempotency_key"));
        let b = world.peer(running.address, &["b.example"]);
        let of_b = User::new(&number(1), "b.example").request(world.now());
        assert_eq!(b.post("/v1/registrations", "one", &of_b).await.status, 202);
        world.gateway.code(&number(1), 2).await;
        // A wrong code sent again costs one try.
        let wrong = json!({ "code": if code == "000000" { "000001" } else { "000000" } });
        let path = format!("/v1/registrations/{id}/code");
        let refused = a.post(&path, "two", &wrong).await;
        assert_eq!(json_of(&refused)["tries_left"], 4);
        assert_eq!(text(&a.post(&path, "two", &wrong).await), text(&refused));
        // So does the right one sent again: the same statement.
        let proved = a.post(&path, "three", &json!({ "code": code })).await;
        assert_eq!(proved.status, 200);
        assert_eq!(text(&a.post(&path, "three", &json!({ "code": code })).await), text(&proved));
        // A day later too, when the request itself would be refused for its age.
        world.pass(23 * 3_600);
        assert_eq!(text(&a.post("/v1/registrations", "one", &request).await), first);
        assert_eq!(world.gateway.count(), 2);
    })
    .await;
}

#[tokio::test]
async fn pumping_one_prefix_through_ten_providers_ends_at_its_bound() {
    let world = World::new().await;
    let running = world.start().await;
    let (mut accepted, mut refused) = (0, 0);
    for index in 0..60 {
        let ap = APS[index as usize % 10];
        let peer = world.peer(running.address, &[ap]);
        let request = User::new(&number(10_000 + index), ap).request(world.now());
        let reply = peer.post("/v1/registrations", &fresh_key(), &request).await;
        match reply.status {
            202 => accepted += 1,
            _ => {
                assert_eq!((reply.status, &*problem(&reply)), (429, "fraud_rate"));
                assert!(reply.headers.contains_key("retry-after"));
                refused += 1;
            }
        }
    }
    assert_eq!((accepted, refused), (20, 40));
    assert_eq!(running.sample("registrar_refusals_total", &["fraud_rate"]), 40.0);
}

#[tokio::test]
async fn a_number_gets_three_codes_an_hour_whoever_asks() {
    let world = World::new().await;
    let running = world.start().await;
    for (at, ap) in APS[..4].iter().enumerate() {
        let request = User::new(&number(1), ap).request(world.now());
        let peer = world.peer(running.address, &[ap]);
        let reply = peer.post("/v1/registrations", &fresh_key(), &request).await;
        if at < 3 {
            assert_eq!(reply.status, 202, "{}", text(&reply));
        } else {
            assert_eq!((reply.status, &*problem(&reply)), (429, "too_many_codes"));
            assert!(reply.headers.contains_key("retry-after"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_an_hour_off_lets_no_wrong_code_in_and_loses_nothing() {
    both(async |world: World| {
        let running = world.start().await;
        let a = world.peer(running.address, &["a.example"]);
        let right = world.now();
        let set = |now: u64| world.now.store(now, std::sync::atomic::Ordering::Relaxed);
        // Ahead: the code has expired. It is good when the clock is right again.
        let id = a.register(&User::new(&number(1), "a.example").request(right)).await;
        let code = world.gateway.code(&number(1), 1).await;
        set(right + 3_600);
        let late = a.enter(&id, &code).await;
        assert_eq!((late.status, &*problem(&late)), (410, "expired"));
        set(right);
        assert_eq!(a.enter(&id, &code).await.status, 200);
        // Behind: wrong codes use up tries, and nothing is signed that would begin in the future.
        let id = a.register(&User::new(&number(10_001), "a.example").request(right)).await;
        let code = world.gateway.code(&number(10_001), 1).await;
        set(right - 3_600);
        let wrong = if code == "000000" { "000001" } else { "000000" };
        let refused = a.enter(&id, wrong).await;
        assert_eq!((refused.status, &*problem(&refused)), (409, "wrong_code"));
        let request = User::new(&number(20_001), "a.example").request(right);
        let refused = a.post("/v1/registrations", &fresh_key(), &request).await;
        assert_eq!((refused.status, &*problem(&refused)), (422, "clock"));
        let early = a.enter(&id, &code).await;
        assert_eq!((early.status, &*problem(&early)), (503, "not_issued"));
        set(right);
        let entered = a.enter(&id, &code).await;
        assert_eq!(entered.status, 200, "{}", text(&entered));
        let statement = json_of(&entered)["statement"].as_str().unwrap().to_owned();
        let claims = statement.split('.').nth(1).unwrap();
        let claims = sotto::discovery::jws::from_base64url(claims).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!((&claims["iat"], &claims["proof_at"]), (&json!(right), &json!(right)));
        let shown = json_of(&a.get(&format!("/v1/registrations/{id}")).await);
        assert_eq!(shown["state"], "active");
    })
    .await;
}

#[tokio::test]
async fn a_code_expires_and_a_new_one_ends_the_old() {
    let world = World::new().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let id = a.register(&User::new(&number(1), "a.example").request(world.now())).await;
    let old = world.gateway.code(&number(1), 1).await;
    let resend = format!("/v1/registrations/{id}/resend");
    let soon = a.post(&resend, &fresh_key(), &json!({})).await;
    assert_eq!((soon.status, &*problem(&soon)), (429, "resend_later"));
    world.pass(31);
    let again = a.post(&resend, &fresh_key(), &json!({})).await;
    assert_eq!(again.status, 202, "{}", text(&again));
    let new = world.gateway.code(&number(1), 2).await;
    if old != new {
        let refused = a.enter(&id, &old).await;
        assert_eq!((refused.status, &*problem(&refused)), (409, "wrong_code"));
    }
    world.pass(601);
    let late = a.enter(&id, &new).await;
    assert_eq!((late.status, &*problem(&late)), (410, "expired"));
}
