//! New holders, between discovery providers.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use sotto::discovery::directory::Proof;
use sotto::discovery::identifier::Identifier;
use sotto::discovery::statement::{Consent, Mapping, Purpose, Ssi, consent_text};
use sotto::https::{Bounds, PeerInfo, Server, TlsFiles, body};
use tokio::sync::watch;

use crate::world::{
    ISSUER, LONG, OTHER, User, World, fresh_key, json_of, other_key, problem, text,
};

/// A number whose prefix both discovery providers have.
const MOVING: &str = "+4915888123456";

/// What another discovery provider was told, and by whom.
type Told = watch::Sender<Vec<(Vec<String>, Value)>>;

/// Is away the first time, and acknowledges from then on.
async fn take(State(told): State<Arc<Told>>, request: Request) -> StatusCode {
    let (head, sent) = request.into_parts();
    assert_eq!(head.uri.path(), "/v1/events");
    let names = head.extensions.get::<PeerInfo>().unwrap().names.clone();
    let sent = body(sent, 1 << 20).await.unwrap();
    let is_first = told.borrow().is_empty();
    told.send_modify(|all| all.push((names, serde_json::from_slice(&sent).unwrap())));
    if is_first { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_holder_is_told_to_others_until_they_acknowledge_it() {
    let world = World::new().await;
    let told = Arc::new(Told::default());
    let tls = TlsFiles {
        cert: world.path("cert.pem"),
        key: world.path("key.pem"),
        client_ca: Some(world.path("ca.pem")),
    };
    let bounds = Bounds {
        connections: 10,
        handshakes: 10,
        handshake_time: LONG,
        head_time: LONG,
        idle_time: LONG,
        body_time: LONG,
    };
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), &tls, bounds).await.unwrap();
    let url = format!("https://localhost:{}", server.local_addr().port());
    let router = Router::new().fallback(take).with_state(told.clone());
    tokio::spawn(server.run(router, std::future::pending()));
    world.write_config(&format!("[[dp]]\ndomain = '{OTHER}'\nurl = '{url}'\n"));
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let mut request = User::new(MOVING, "a.example").request(world.now());
    request["new_holder"] = json!(true);
    let id = a.register(&request).await;
    let entered = a.enter(&id, &world.gateway.code(MOVING, 1).await).await;
    assert_eq!(entered.status, 200, "{}", text(&entered));
    let mut seen = told.subscribe();
    seen.wait_for(|all| all.len() == 1).await.unwrap();
    // Not again before its time.
    world.pass(3_600);
    let all = seen.wait_for(|all| all.len() == 2).await.unwrap().clone();
    for (names, body) in all {
        assert!(names.iter().any(|name| name == ISSUER), "{names:?}");
        assert_eq!(body["statement"], json_of(&entered)["statement"]);
    }
    while running.sample("registrar_events_total", &["done"]) < 1.0
        || running.sample("registrar_events_pending", &[]) > 0.0
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.sample("registrar_events_total", &["failed"]), 1.0);
    running.stop().await;
}

#[tokio::test]
async fn an_event_voids_what_is_earlier_here() {
    let world = World::new().await;
    world.write_config(&format!("[[dp]]\ndomain = '{OTHER}'\nurl = 'https://localhost:1'\n"));
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let other = world.peer(running.address, &[OTHER]);
    let id = a.register(&User::new(MOVING, "a.example").request(world.now())).await;
    let own = a.enter(&id, &world.gateway.code(MOVING, 1).await).await;
    assert_eq!(own.status, 200, "{}", text(&own));
    world.pass(60);
    let holder = User::new(MOVING, "b.example");
    let (sub, ssi) = (Identifier::parse(MOVING, None).unwrap(), Ssi::parse(&holder.ssi).unwrap());
    let iat = world.now();
    let statement = |new_holder, iss: &str| {
        let mapping = Mapping {
            iss: iss.to_owned(),
            sub: sub.clone(),
            ssi: ssi.clone(),
            jti: fresh_key(),
            iat,
            exp: iat + 86_400,
            proof: Proof::Sms,
            proof_at: iat,
            region: None,
            new_holder,
            tags: vec![],
            user: Some(Consent::new(&consent_text(&sub, &ssi, iss, iat), &holder.key)),
            purpose: Purpose::Register,
        };
        json!({ "statement": mapping.sign(&other_key()) })
    };
    // The certificate of an application provider, a mapping without a new holder, one in the name
    // of another, one of this registrar.
    let refused = a.post("/v1/events", &fresh_key(), &statement(true, OTHER)).await;
    assert_eq!((refused.status, &*problem(&refused)), (403, "caller"));
    let own_statement = json!({ "statement": json_of(&own)["statement"] });
    for body in [statement(false, OTHER), statement(true, ISSUER), own_statement] {
        let refused = other.post("/v1/events", &fresh_key(), &body).await;
        assert!((400..500).contains(&refused.status), "{}", text(&refused));
    }
    let path = format!("/v1/registrations/{id}");
    assert_eq!(json_of(&a.get(&path).await)["state"], "active");
    let taken = other.post("/v1/events", &fresh_key(), &statement(true, OTHER)).await;
    assert_eq!(taken.status, 200, "{}", text(&taken));
    let shown = json_of(&a.get(&path).await);
    assert_eq!((&shown["state"], &shown["statement"]), (&json!("voided"), &json!(null)));
}
