//! Each route, and each refusal that does not need an attack.

use axum::http::Method;
use serde_json::json;

use crate::world::{AS_JSON, User, World, fresh_key, json_of, number, problem, text};

#[tokio::test]
async fn a_person_is_registered_shown_and_withdrawn() {
    let world = World::new().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let user = User::new(&number(1), "a.example");
    let id = a.register(&user.request(world.now())).await;
    let code = world.gateway.code(&number(1), 1).await;
    let shown = a.get(&format!("/v1/registrations/{id}")).await;
    assert_eq!(shown.status, 200, "{}", text(&shown));
    let entered = a.enter(&id, &code).await;
    assert_eq!(entered.status, 200, "{}", text(&entered));
    let statement = json_of(&entered)["statement"].as_str().unwrap().to_owned();
    assert_eq!(statement.split('.').count(), 3);
    let shown = json_of(&a.get(&format!("/v1/registrations/{id}")).await);
    assert_eq!((&shown["state"], &shown["statement"]), (&json!("active"), &json!(statement)));

    let beat = a.post("/v1/heartbeats", &fresh_key(), &json!({ "ids": [id] })).await;
    assert_eq!(beat.status, 200, "{}", text(&beat));
    let gone = a.post("/v1/withdrawals", &fresh_key(), &json!({ "id": id })).await;
    assert_eq!(gone.status, 200, "{}", text(&gone));
    let shown = json_of(&a.get(&format!("/v1/registrations/{id}")).await);
    assert_eq!((&shown["state"], &shown["statement"]), (&json!("withdrawn"), &json!(null)));
    assert_eq!(running.sample("registrar_requests_total", &["enter", "2xx"]), 1.0);
    assert_eq!(running.sample("registrar_registrations_total", &["active"]), 1.0);
    assert_eq!(world.gateway.count(), 1);
    running.stop().await;
}

#[tokio::test]
async fn an_address_is_proved_by_mail() {
    let world = World::new().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let user = User::new("alice@mail.example", "a.example");
    let id = a.register(&user.request(world.now())).await;
    let code = world.gateway.code("alice@mail.example", 1).await;
    assert_eq!(a.enter(&id, &code).await.status, 200);
}

#[tokio::test]
async fn only_a_certificate_of_one_provider_is_served() {
    let world = World::new().await;
    let running = world.start().await;
    let request = User::new(&number(2), "a.example").request(world.now());
    for names in [&[][..], &["x.example"], &["a.example", "b.example"], &["dp2.example"]] {
        let peer = world.peer(running.address, names);
        let refused = peer.post("/v1/registrations", &fresh_key(), &request).await;
        assert_eq!((refused.status, &*problem(&refused)), (403, "caller"), "{names:?}");
        let refused = peer.get("/v1/registrations/x").await;
        assert_eq!((refused.status, &*problem(&refused)), (403, "caller"), "{names:?}");
    }
    // An application provider is no discovery provider.
    let a = world.peer(running.address, &["a.example"]);
    let refused = a.post("/v1/events", &fresh_key(), &json!({ "statement": "x" })).await;
    assert_eq!((refused.status, &*problem(&refused)), (403, "caller"));
    // Of another authority: there is no TLS.
    let other = World::new().await;
    let peer = other.peer(running.address, &["a.example"]);
    let mut client = peer.clone();
    let ca = world.certificates.ca_pem.as_bytes();
    let (cert, key) = other.certificates.leaf(&["a.example"]);
    let identity = Some((cert.as_bytes(), key.as_bytes()));
    client.client = sotto::https::Client::new(Some(ca), identity, crate::world::LONG).unwrap();
    let url = format!("{}/v1/registrations/x", client.url);
    let sent = client.client.send(Method::GET, &url, &[], "".into(), 1 << 20).await;
    assert!(sent.is_err());
    assert_eq!(world.gateway.count(), 0);
}

#[tokio::test]
async fn what_has_another_form_is_a_problem() {
    let world = World::new().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let right = User::new(&number(3), "a.example").request(world.now());
    let path = "/v1/registrations";
    let key = ("idempotency-key", "k");
    let long = "k".repeat(65);
    let body = right.to_string();
    for (headers, status, code) in [
        (vec![AS_JSON], 400, "idempotency_key"),
        (vec![AS_JSON, ("idempotency-key", "")], 400, "idempotency_key"),
        (vec![AS_JSON, ("idempotency-key", "a b")], 400, "idempotency_key"),
        (vec![AS_JSON, ("idempotency-key", &*long)], 400, "idempotency_key"),
        (vec![AS_JSON, key, key], 400, "idempotency_key"),
        (vec![key], 415, "content_type"),
        (vec![("content-type", "text/plain"), key], 415, "content_type"),
        (vec![AS_JSON, AS_JSON, key], 415, "content_type"),
    ] {
        let refused = a.send(Method::POST, path, &headers, &body).await;
        assert_eq!((refused.status, &*problem(&refused)), (status, code), "{headers:?}");
    }
    let mut unknown = right.clone();
    unknown["more"] = json!(1);
    let mut missing = right.clone();
    missing.as_object_mut().unwrap().remove("up");
    let twice = body.replacen('{', "{\"iat\":1,", 1);
    for body in ["", "x", "[]", "{}", "null", &unknown.to_string(), &missing.to_string(), &twice] {
        let refused = a.send(Method::POST, path, &[AS_JSON, key], body).await;
        assert_eq!((refused.status, &*problem(&refused)), (400, "malformed"), "{body}");
        assert!(!text(&refused).contains("4915"), "{}", text(&refused));
    }
    let long = format!("{{\"sii\":\"{}\"}}", "x".repeat(16 << 10));
    let refused = a.send(Method::POST, path, &[AS_JSON, key], &long).await;
    assert_eq!((refused.status, &*problem(&refused)), (413, "too_long"));
    for (method, path, status, code) in [
        (Method::GET, "/", 404, "no_such_route"),
        (Method::POST, "/v1/registrations/x/y", 404, "no_such_route"),
        (Method::GET, "/v1/registrations", 405, "method"),
        (Method::DELETE, "/v1/registrations/x", 405, "method"),
        (Method::PUT, "/v1/heartbeats", 405, "method"),
        (Method::GET, "/v1/registrations/none", 404, "unknown"),
        (Method::GET, "/v1/registrations/%2e%00", 404, "unknown"),
        (Method::GET, "/v1/mine", 401, "user_token"),
    ] {
        let refused = a.send(method, path, &[], "").await;
        assert_eq!((refused.status, &*problem(&refused)), (status, code), "{path}");
        assert_eq!(refused.headers.contains_key("allow"), status == 405, "{path}");
    }
    let counted = running.sample("registrar_refusals_total", &["malformed"]);
    assert_eq!(counted, 8.0);
    assert_eq!(world.gateway.count(), 0);
}

#[tokio::test]
async fn another_clock_number_or_service_is_refused_before_anything_is_sent() {
    let world = World::new().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let now = world.now();
    let user = User::new(&number(4), "a.example");
    for iat in [now - 3_600, now + 3_600] {
        let refused = a.post("/v1/registrations", &fresh_key(), &user.request(iat)).await;
        assert_eq!((refused.status, &*problem(&refused)), (422, "clock"));
    }
    // The home of this number is elsewhere: by a longer prefix, and by another one.
    for sii in ["+4915999123456", "+33612345678"] {
        let user = User::new(sii, "a.example");
        let refused = a.post("/v1/registrations", &fresh_key(), &user.request(now)).await;
        assert_eq!((refused.status, &*problem(&refused)), (421, "not_home"));
        assert_eq!(json_of(&refused)["home"], crate::world::OTHER);
    }
    // Another's user, and a signature over something else.
    let refused = a
        .post("/v1/registrations", &fresh_key(), &User::new(&number(4), "b.example").request(now))
        .await;
    assert_eq!((refused.status, &*problem(&refused)), (403, "ssi_domain"));
    let mut forged = user.request(now);
    forged["sii"] = json!(User::new(&number(5), "a.example").sii);
    let refused = a.post("/v1/registrations", &fresh_key(), &forged).await;
    assert_eq!((refused.status, &*problem(&refused)), (422, "user_forged"));
    // A landline.
    let user = User::new("+4930901820", "a.example");
    let refused = a.post("/v1/registrations", &fresh_key(), &user.request(now)).await;
    assert_eq!((refused.status, &*problem(&refused)), (403, "fraud_number_type"));
    assert_eq!(world.gateway.count(), 0);
}

#[tokio::test]
async fn files_are_read_again() {
    let world = World::new().await;
    let running = world.start().await;
    let request = User::new(&number(6), "a.example").request(world.now());
    let a = world.peer(running.address, &["a.example"]);
    let x = world.peer(running.address, &["x.example"]);
    assert_eq!(x.get("/v1/registrations/x").await.status, 403);
    let rules = crate::RULES;
    world.write_config(&format!("[[ap]]\ndomain = 'x.example'\nname = 'X'\n[ap.rules]\n{rules}\n"));
    running.control.reload().unwrap();
    assert_eq!(x.get("/v1/registrations/x").await.status, 404);
    let config = std::fs::read_to_string(world.config_path()).unwrap();
    world.write("registrar.toml", &config.replace("issuer = 'dp.example'", "issuer = 'z.example'"));
    let refused = running.control.reload().unwrap_err();
    assert!(refused.contains("issuer"), "{refused}");
    world.write("registrar.toml", "listen =");
    let refused = running.control.reload().unwrap_err();
    assert!(refused.contains("line 1"), "{refused}");
    // All stays as it was.
    assert_eq!(x.get("/v1/registrations/x").await.status, 404);
    a.register(&request).await;
    assert_eq!(running.sample("registrar_reloads_total", &["failed"]), 2.0);
}
