//! The registrar killed without warning at any time, and started again.

use serde_json::json;
use tokio::time::{Duration, sleep};

use crate::world::{Peer, User, World, json_of, number, problem, text};

/// Rounds of killing, each at another moment.
const ROUNDS: u32 = 12;

/// Waits until the registrar has reached its database: it says so by other replies than 503.
async fn is_ready(peer: &Peer) {
    while peer.get("/v1/registrations/x").await.status == 503 {
        tokio::task::yield_now().await;
    }
}

/// A reply, or none where the registrar was killed before.
async fn maybe(peer: &Peer, path: &str, key: &str, body: &serde_json::Value) -> Option<u16> {
    let headers = [crate::world::AS_JSON, ("idempotency-key", key)];
    let url = format!("{}{path}", peer.url);
    let sent =
        peer.client.send(http::Method::POST, &url, &headers, body.to_string().into(), 1 << 20);
    sent.await.ok().map(|reply| reply.status)
}

/// Does a request and kills the registrar after so long: before, while or after it is done. The
/// reply, if there was one.
async fn killed_during(
    world: &World,
    delay: Duration,
    path: &str,
    key: &str,
    body: &serde_json::Value,
) -> Option<u16> {
    let process = world.spawn();
    let peer = world.peer(process.address, &["a.example"]);
    is_ready(&peer).await;
    let (peer, path, key, body) = (peer.clone(), path.to_owned(), key.to_owned(), body.clone());
    let request = tokio::spawn(async move { maybe(&peer, &path, &key, &body).await });
    // Not to wait for anything: the moments of the rounds spread over the request.
    sleep(delay).await;
    process.kill();
    request.await.unwrap()
}

async fn rounds(world: World) {
    for round in 0..ROUNDS {
        let delay = Duration::from_micros(u64::from(round) * 1_500);
        let to = number(round * 10_000);
        let request = User::new(&to, "a.example").request(crate::world::clock_now());
        let key = format!("register{round}");
        let before = killed_during(&world, delay, "/v1/registrations", &key, &request).await;

        // The same request again: what was acknowledged is there, and nothing is sent twice.
        let process = world.spawn();
        let a = world.peer(process.address, &["a.example"]);
        is_ready(&a).await;
        let again = a.post("/v1/registrations", &key, &request).await;
        assert_eq!(again.status, 202, "round {round}: {}", text(&again));
        assert!(matches!(before, None | Some(202)), "round {round}: {before:?}");
        let id = json_of(&again)["id"].as_str().unwrap().to_owned();
        let shown = json_of(&a.get(&format!("/v1/registrations/{id}")).await);
        assert!(shown["statement"].is_null(), "round {round}: {shown}");
        // A registration that was stored before the kill may have no message; it has never two.
        process.kill();
        let messages = world.gateway.messages();
        let messages = messages.get(&to).map_or(&[][..], Vec::as_slice);
        assert!(messages.len() <= 1, "round {round}: a code was sent twice");
        let Some(message) = messages.first() else { continue };
        let code = crate::gateway::code_of(message);

        // A wrong code, and the right one, each killed in the middle and sent again.
        let path = format!("/v1/registrations/{id}/code");
        let wrong = json!({ "code": if code == "000000" { "000001" } else { "000000" } });
        let key = format!("wrong{round}");
        let before = killed_during(&world, delay, &path, &key, &wrong).await;
        assert!(matches!(before, None | Some(409)), "round {round}: {before:?}");
        let process = world.spawn();
        let a = world.peer(process.address, &["a.example"]);
        is_ready(&a).await;
        let again = a.post(&path, &key, &wrong).await;
        assert_eq!((again.status, &*problem(&again)), (409, "wrong_code"), "round {round}");
        assert_eq!(json_of(&again)["tries_left"], 4, "round {round}");
        process.kill();

        let right = json!({ "code": code });
        let key = format!("right{round}");
        let before = killed_during(&world, delay, &path, &key, &right).await;
        assert!(matches!(before, None | Some(200)), "round {round}: {before:?}");
        let process = world.spawn();
        let a = world.peer(process.address, &["a.example"]);
        is_ready(&a).await;
        if before == Some(200) {
            let shown = json_of(&a.get(&format!("/v1/registrations/{id}")).await);
            assert_eq!(shown["state"], "active", "round {round}: an acknowledged state is lost");
        }
        let again = a.post(&path, &key, &right).await;
        assert_eq!(again.status, 200, "round {round}: {}", text(&again));
        let shown = json_of(&a.get(&format!("/v1/registrations/{id}")).await);
        assert_eq!(shown["statement"], json_of(&again)["statement"], "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_time_with_postgresql() {
    let Some(world) = World::with_postgres().await else { return };
    rounds(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_time_with_sqlite() {
    rounds(World::new().await).await;
}
