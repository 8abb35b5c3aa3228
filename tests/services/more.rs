//! What users see and end themselves, receipts over HTTP, long heartbeats, the log that is told
//! what was vouched for, and the carrier that is asked about stale numbers.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::jws::{self, base64url};
use sotto::discovery::statement::{Preference, Ssi, Withdrawal, WithdrawnBy};
use sotto::https::{Bounds, Client, Server, TlsFiles, body};
use sotto::registrar::log::{self, LogServer};
use sotto::registrar::registrations::MINE_TYP;
use sotto::registrar::service::{Control, Registrar};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::yield_now;

use crate::world::{
    AS_JSON, ISSUER, LONG, Peer, Running, User, World, fresh_key, json_of, number, problem, text,
};

const BOUNDS: Bounds = Bounds {
    connections: 100,
    handshakes: 100,
    handshake_time: LONG,
    head_time: LONG,
    idle_time: LONG,
    body_time: LONG,
};

/// Somebody registers and enters the code, the nth message to the number: name and statement.
async fn proved(world: &World, peer: &Peer, user: &User, nth: usize) -> (String, String) {
    let id = peer.register(&user.request(world.now())).await;
    let code = world.gateway.code(user.sii.strip_prefix("tel:").unwrap(), nth).await;
    let entered = peer.enter(&id, &code).await;
    assert_eq!(entered.status, 200, "{}", text(&entered));
    (id, json_of(&entered)["statement"].as_str().unwrap().to_owned())
}

async fn state(peer: &Peer, id: &str) -> Value {
    json_of(&peer.get(&format!("/v1/registrations/{id}")).await)["state"].clone()
}

fn transitions(running: &Running, to: &str) -> f64 {
    running.sample("registrar_registrations_total", &[to])
}

/// The header by which a user asks for the mappings of a number.
fn of_user(sii: &str, user: &User, iat: u64) -> String {
    let uk = base64url(user.key.verifying_key().as_bytes());
    let claims = json!({ "aud": ISSUER, "sub": sii, "uk": uk, "iat": iat });
    format!("Sotto-User {}", jws::sign(MINE_TYP, claims.to_string().as_bytes(), &user.key))
}

#[tokio::test]
async fn users_see_every_mapping_of_their_number() {
    let world = World::new().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let b = world.peer(running.address, &["b.example"]);
    let [of_a, of_b] = ["a.example", "b.example"].map(|ap| User::new(&number(1), ap));
    let (_, first) = proved(&world, &a, &of_a, 1).await;
    let (second_id, second) = proved(&world, &b, &of_b, 2).await;
    // Whoever has the key of one of them, without a certificate.
    let anyone = world.peer(running.address, &[]);
    let mine = async |header: &str| {
        anyone.send(Method::GET, "/v1/mine", &[("authorization", header)], "").await
    };
    for user in [&of_a, &of_b] {
        let shown = mine(&of_user(&user.sii, user, world.now())).await;
        assert_eq!(shown.status, 200, "{}", text(&shown));
        let shown = json_of(&shown);
        let [one, two] = &shown["mappings"].as_array().unwrap()[..] else { panic!("{shown}") };
        assert_eq!((&one["ap"], &two["ap"]), (&json!("a.example"), &json!("b.example")));
        assert_eq!((&one["statement"], &two["statement"]), (&json!(first), &json!(second)));
        assert_eq!((&one["state"], &two["state"]), (&json!("active"), &json!("active")));
    }
    // Another's key, another's number, another scheme, a token of another time.
    let stranger = User::new(&number(2), "a.example");
    let now = world.now();
    for (header, status, code) in [
        (of_user(&of_a.sii, &stranger, now), 404, "unknown"),
        (of_user(&stranger.sii, &of_a, now), 404, "unknown"),
        (of_user(&of_a.sii, &of_a, now).replace("Sotto-User", "Bearer"), 401, "user_token"),
        (of_user(&of_a.sii, &of_a, now - 3_600), 422, "clock"),
        ("Sotto-User x.y.z".to_owned(), 401, "token"),
    ] {
        let refused = mine(&header).await;
        assert_eq!((refused.status, &*problem(&refused)), (status, code));
    }
    b.post("/v1/withdrawals", &fresh_key(), &json!({ "id": second_id })).await;
    let shown = json_of(&mine(&of_user(&of_a.sii, &of_a, now)).await);
    assert_eq!(shown["mappings"].as_array().unwrap().len(), 1, "{shown}");
    let shown = mine(&of_user(&of_b.sii, &of_b, now)).await;
    assert_eq!((shown.status, &*problem(&shown)), (404, "unknown"));
    assert_eq!(running.sample("registrar_requests_total", &["mine", "2xx"]), 3.0);
    running.stop().await;
}

#[tokio::test]
async fn a_preference_is_stored_for_the_key_of_a_mapping() {
    let world = World::new().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let b = world.peer(running.address, &["b.example"]);
    let user = User::new(&number(3), "a.example");
    let (id, _) = proved(&world, &a, &user, 1).await;
    let prefer = |user: &User, time: u64| {
        let (sub, ssi) = (Identifier::from_uri(&user.sii), Ssi::parse(&user.ssi));
        let line = Preference::new(sub.unwrap(), ssi.ok(), time, &user.key).to_line();
        json!({ "statement": line })
    };
    let now = world.now();
    let post =
        async |peer: &Peer, body: &Value| peer.post("/v1/preferences", &fresh_key(), body).await;
    for time in [now, now] {
        let stored = post(&a, &prefer(&user, time)).await;
        assert_eq!(stored.status, 200, "{}", text(&stored));
    }
    world.pass(60);
    let stored = post(&a, &prefer(&user, now + 60)).await;
    assert_eq!(stored.status, 200, "{}", text(&stored));
    let mut forged = prefer(&user, now + 60);
    let line = forged["statement"].as_str().unwrap().replace(&(now + 60).to_string(), "1");
    forged["statement"] = json!(line);
    let stranger = prefer(&User::new(&number(3), "b.example"), now + 60);
    for (peer, body, code) in [
        (&a, prefer(&user, now), "preference_old"),
        (&a, forged, "user_forged"),
        (&a, stranger, "preference_key"),
        // Of a mapping of another provider.
        (&b, prefer(&user, now + 60), "preference_key"),
        (&a, json!({ "statement": "x" }), "malformed"),
    ] {
        let refused = post(peer, &body).await;
        assert!((400..500).contains(&refused.status), "{code}: {}", text(&refused));
        if code != "malformed" {
            assert_eq!(problem(&refused), code);
        }
        assert!(!text(&refused).contains("4915"), "{}", text(&refused));
    }
    a.post("/v1/withdrawals", &fresh_key(), &json!({ "id": id })).await;
    world.pass(1);
    let refused = post(&a, &prefer(&user, now + 61)).await;
    assert_eq!((refused.status, &*problem(&refused)), (409, "preference_key"));
    running.stop().await;
}

#[tokio::test]
async fn a_user_withdraws_whoever_carries_it() {
    let world = World::new().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let b = world.peer(running.address, &["b.example"]);
    let user = User::new(&number(4), "a.example");
    let other = User::new(&number(4), "b.example");
    let begun = world.now();
    let (id, _) = proved(&world, &a, &user, 1).await;
    let (other_id, _) = proved(&world, &b, &other, 2).await;
    world.pass(10);
    let withdrawal = |user: &User, signer: &User| {
        let withdrawal = Withdrawal {
            by: WithdrawnBy::User(user.key.verifying_key().to_bytes()),
            sub: Identifier::from_uri(&user.sii).unwrap(),
            ssi: None,
            jti: fresh_key(),
            iat: world.now(),
        };
        json!({ "statement": withdrawal.sign(&signer.key) })
    };
    let forged = b.post("/v1/withdrawals", &fresh_key(), &withdrawal(&user, &other)).await;
    assert!((400..500).contains(&forged.status), "{}", text(&forged));
    assert_eq!(state(&a, &id).await, "active");
    // By the other provider, and twice: one is ended, and counted, once.
    let (key, body) = (fresh_key(), withdrawal(&user, &user));
    for _ in 0..2 {
        let ended = b.post("/v1/withdrawals", &key, &body).await;
        assert_eq!((ended.status, &json_of(&ended)["withdrawn"]), (200, &json!(1)));
    }
    let none = b.post("/v1/withdrawals", &fresh_key(), &withdrawal(&user, &user)).await;
    assert_eq!((none.status, &json_of(&none)["withdrawn"]), (200, &json!(0)));
    assert_eq!(transitions(&running, "withdrawn"), 1.0);
    assert_eq!(state(&a, &id).await, "withdrawn");
    assert_eq!(state(&b, &other_id).await, "active");
    // What the user signed before counts no more, whatever code is entered.
    let again = a.register(&user.request(begun)).await;
    let refused = a.enter(&again, &world.gateway.code(&number(4), 3).await).await;
    assert_eq!((refused.status, &*problem(&refused)), (409, "consent_old"));
    assert_eq!(transitions(&running, "failed"), 1.0);
    assert_eq!(transitions(&running, "wrong_code"), 0.0);
    running.stop().await;
}

#[tokio::test]
async fn thousands_of_accounts_are_in_use_by_one_request() {
    let world = World::new().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let b = world.peer(running.address, &["b.example"]);
    let (own, _) = proved(&world, &a, &User::new(&number(5), "a.example"), 1).await;
    let (others, _) = proved(&world, &b, &User::new(&number(6), "b.example"), 1).await;
    let mut ids: Vec<String> =
        (0..9_998).map(|at| format!("unknown-registration-{at:04}")).collect();
    ids.extend([own, others]);
    let body = json!({ "ids": ids });
    assert!(body.to_string().len() > 16 << 10);
    let beat = a.post("/v1/heartbeats", &fresh_key(), &body).await;
    assert_eq!((beat.status, &json_of(&beat)["noted"]), (200, &json!(1)), "{}", text(&beat));
    ids.push("one-more".to_owned());
    let refused = a.post("/v1/heartbeats", &fresh_key(), &json!({ "ids": ids })).await;
    assert_eq!((refused.status, &*problem(&refused)), (413, "too_many_ids"));
    // Other requests are as short as before.
    let long = json!({ "statement": "x".repeat(16 << 10) });
    let refused = a.post("/v1/preferences", &fresh_key(), &long).await;
    assert_eq!((refused.status, &*problem(&refused)), (413, "too_long"));
    running.stop().await;
}

/// The tokens of the messages that a gateway was given.
type Tokens = watch::Sender<Vec<String>>;

async fn take(State(tokens): State<Arc<Tokens>>, request: Request) -> StatusCode {
    let query = request.uri().query().unwrap_or_default();
    let id = query.split('&').find_map(|part| part.strip_prefix("id=")).unwrap().to_owned();
    tokens.send_modify(|all| all.push(id));
    StatusCode::ACCEPTED
}

/// Puts lines after the heading of a table of the configuration.
fn configure(world: &World, heading: &str, lines: &str) {
    let config = std::fs::read_to_string(world.config_path()).unwrap();
    assert!(config.contains(heading));
    let config = config.replace(heading, &format!("{heading}{lines}"));
    world.write("registrar.toml", &config);
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_over_http_decide_whether_another_gateway_is_asked() {
    let world = World::new().await;
    let tokens = Arc::new(Tokens::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = listener.local_addr().unwrap();
    let router = Router::new().fallback(take).with_state(tokens.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    world.write_config(&format!(
        "[channels.gateways.first]\nkind = 'http'\n\
         url = 'http://{gateway}/send?to={{to}}&text={{text}}&id={{id}}'\n\
         receipt-url = 'http://localhost/receipts?token={{id}}&status=%d'\n"
    ));
    configure(&world, "[channels]\n", "receipt-wait-ms = 300000\nanswer-wait-ms = 300000\n");
    let config = std::fs::read_to_string(world.config_path()).unwrap();
    let config = config.replace("sms = ['test']", "sms = ['first', 'test']");
    world.write("registrar.toml", &config);
    let now = world.now.clone();
    let clock = Arc::new(move || now.load(Ordering::Relaxed));
    let registrar = Registrar::start(&world.config_path(), clock, None).await.unwrap();
    let (address, control) = (registrar.local_addr(), registrar.control());
    let receipts = registrar.receipts_addr().unwrap();
    let running = tokio::spawn(registrar.run(std::future::pending()));
    control.until_database(true).await;
    let a = world.peer(address, &["a.example"]);
    let client = Client::with_plain(None, LONG).unwrap();
    let receipt = async |method: Method, query: &str, form: &str| {
        let url = format!("http://{receipts}/receipts{query}");
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let sent = client.send(method, &url, &headers, form.to_owned().into(), 4_096).await;
        sent.unwrap().status
    };
    // One that failed: the other gateway gets the same code.
    let id = a.register(&User::new(&number(7), "a.example").request(world.now())).await;
    let token = nth(&tokens, 1).await;
    assert_eq!(receipt(Method::GET, "?status=2", "").await, 400);
    assert_eq!(receipt(Method::GET, "?token=00ff&status=2", "").await, 404);
    // On its way: nothing follows.
    assert_eq!(receipt(Method::GET, &format!("?token={token}&status=8"), "").await, 204);
    assert_eq!(world.gateway.count(), 0);
    assert_eq!(receipt(Method::GET, &format!("?token={token}&status=2"), "").await, 204);
    let code = world.gateway.code(&number(7), 1).await;
    assert_eq!(receipt(Method::GET, &format!("?token={token}&status=2"), "").await, 404);
    let entered = a.enter(&id, &code).await;
    assert_eq!(entered.status, 200, "{}", text(&entered));
    // One that was delivered, by a form: no other gateway is asked.
    a.register(&User::new(&number(8), "a.example").request(world.now())).await;
    let token = nth(&tokens, 2).await;
    assert_eq!(receipt(Method::POST, "", &format!("token={token}&status=1")).await, 204);
    while channel(&control, "first", "delivered") < 1.0 {
        yield_now().await;
    }
    assert_eq!(channel(&control, "first", "failed"), 1.0);
    assert_eq!(world.gateway.count(), 1);
    running.abort();
}

async fn nth(tokens: &Tokens, nth: usize) -> String {
    let mut seen = tokens.subscribe();
    let all = seen.wait_for(|all| all.len() >= nth).await.unwrap();
    all[nth - 1].clone()
}

fn channel(control: &Control, gateway: &str, outcome: &str) -> f64 {
    let samples = control.samples();
    let mut found = samples.iter().filter(|sample| sample.name == "channel_messages_total");
    let has = |text: &str, sample: &sotto::https::Sample| {
        sample.labels.iter().any(|(_, value)| value == text)
    };
    found.find(|it| has(gateway, it) && has(outcome, it)).map_or(0.0, |it| it.value)
}

/// A log that takes statements of the registrar.
pub(crate) async fn start_log(world: &World) -> (SocketAddr, log::Control) {
    let path = |name: &str| world.path(name);
    world.write("log-callers.toml", &format!("[callers.'{ISSUER}']\nstatements = true\n"));
    sotto::builder::keys::create(&path("log-key.pem")).unwrap();
    let now = world.now.clone();
    let options = log::Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: TlsFiles {
            cert: path("cert.pem"),
            key: path("key.pem"),
            client_ca: Some(path("ca.pem")),
        },
        name: "log.example/1".to_owned(),
        key: path("log-key.pem"),
        callers: path("log-callers.toml"),
        store: format!("sqlite:{}", path("log.sqlite").display()),
        connections: 1,
        folder: path("log"),
        publish_time: Duration::ZERO,
        bounds: BOUNDS,
        clock: Arc::new(move || now.load(Ordering::Relaxed)),
        at_step: |_| {},
    };
    let log = LogServer::start(options).await.unwrap();
    let (address, control) = (log.local_addr(), log.control());
    tokio::spawn(log.run(std::future::pending()));
    (address, control)
}

/// The table of the configuration for a log at this port.
pub(crate) fn log_at(world: &World, port: u16) -> String {
    let ca = world.path("ca.pem");
    format!("[log]\nurl = 'https://localhost:{port}'\nca = '{}'\n", ca.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_vouched_for_gets_to_the_log_once_it_is_there() {
    let world = World::new().await;
    // Nobody listens on port 1.
    world.write_config(&log_at(&world, 1));
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let is_noted = || running.control.readiness().notes.iter().any(|it| it.contains("the log"));
    assert!(!is_noted());
    // A log that is away stops nobody.
    for at in [10, 11] {
        proved(&world, &a, &User::new(&number(at), "a.example"), 1).await;
    }
    world.pass(30);
    // The queue was looked at after an attempt that failed, at the new time.
    while running.sample("registrar_log_waiting", &[]) < 2.0
        || running.sample("registrar_log_age_seconds", &[]) < 30.0
        || !is_noted()
    {
        yield_now().await;
    }
    assert!(running.sample("registrar_log_submissions_total", &["away"]) >= 1.0);
    assert!(running.control.readiness().missing.is_empty());
    // It is there: told of by the configuration, it is asked at once.
    let (address, log) = start_log(&world).await;
    world.write_config(&log_at(&world, address.port()));
    running.control.reload().unwrap();
    while running.sample("registrar_log_waiting", &[]) > 0.0 || is_noted() {
        yield_now().await;
    }
    let entries = || {
        let samples = log.samples();
        samples.iter().find(|sample| sample.name == "log_entries").unwrap().value
    };
    assert!(entries() >= 2.0);
    assert_eq!(running.sample("registrar_log_age_seconds", &[]), 0.0);
    // The next one gets there by itself.
    let (before, done) = (entries(), running.sample("registrar_log_submissions_total", &["done"]));
    assert!(done >= 1.0);
    proved(&world, &a, &User::new(&number(12), "a.example"), 1).await;
    while running.sample("registrar_log_submissions_total", &["done"]) <= done {
        yield_now().await;
    }
    assert!(entries() > before);
    // Whether there is one is fixed at the start, and its address is checked.
    world.write_config("");
    let refused = running.control.reload().unwrap_err();
    assert!(refused.contains("log: found another value than at the start"), "{refused}");
    world.write_config("[log]\nurl = 'http://localhost'\n");
    let refused = running.control.reload().unwrap_err();
    assert!(refused.contains("[log]: url: expected"), "{refused}");
    running.stop().await;
}

/// The numbers that a carrier was asked about.
type Asked = watch::Sender<Vec<String>>;

/// A carrier that knows of one number with another holder, and of one with the same.
async fn carrier(State(asked): State<Arc<Asked>>, request: Request) -> String {
    let sent = body(request.into_body(), 1 << 20).await.unwrap();
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    let number_asked = sent["phoneNumber"].as_str().unwrap().to_owned();
    let is_recycled = number_asked == number(20);
    asked.send_modify(|all| all.push(number_asked));
    json!({ "phoneNumberRecycled": is_recycled }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_number_that_changed_hands_is_void_and_one_in_use_is_not_asked_about() {
    let world = World::new().await;
    let asked = Arc::new(Asked::default());
    let tls =
        TlsFiles { cert: world.path("cert.pem"), key: world.path("key.pem"), client_ca: None };
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), &tls, BOUNDS).await.unwrap();
    let port = server.local_addr().port();
    let router = Router::new().fallback(carrier).with_state(asked.clone());
    tokio::spawn(server.run(router, std::future::pending()));
    world.write("carrier.token", "secret");
    let token = world.path("carrier.token");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let lines = format!(
        "recycling-check-url = 'https://localhost:{port}/check'\n\
         recycling-check-token = '{}'\nrecycling-check-ca = '{}'\n",
        token.display(),
        world.path("ca.pem").display()
    );
    configure(&world, "[fraud]\n", &lines);
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let (mut ids, address) = (Vec::new(), User::new("bob@mail.example", "a.example"));
    for at in [20, 21, 22] {
        ids.push(proved(&world, &a, &User::new(&number(at), "a.example"), 1).await.0);
    }
    // An address has no carrier.
    let mail = a.register(&address.request(world.now())).await;
    let code = world.gateway.code("bob@mail.example", 1).await;
    assert_eq!(a.enter(&mail, &code).await.status, 200);
    running.stop().await;
    // All but the last number were in use 30 days ago.
    sqlx::any::install_default_drivers();
    let pool = sqlx::AnyPool::connect(&world.database).await.unwrap();
    let age = "UPDATE registrations SET heartbeat_at = heartbeat_at - 2592000,
        due_at = due_at - 2592000 WHERE id <> $1";
    let aged = sqlx::query(age).bind(ids[2].as_str()).execute(&pool).await.unwrap();
    assert_eq!(aged.rows_affected(), 3);
    pool.close().await;

    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    while running.sample("registrar_recycling_checks_total", &["unchanged"]) < 1.0
        || transitions(&running, "voided") < 1.0
    {
        yield_now().await;
    }
    let mut numbers = asked.borrow().clone();
    numbers.sort();
    assert_eq!(numbers, [number(20), number(21)]);
    assert_eq!(running.sample("registrar_recycling_checks_total", &["recycled"]), 1.0);
    assert_eq!(transitions(&running, "stale"), 3.0);
    assert_eq!(state(&a, &ids[0]).await, "voided");
    assert_eq!(state(&a, &ids[1]).await, "stale");
    assert_eq!(state(&a, &ids[2]).await, "active");
    // One that is in use again is back.
    let back = a.post("/v1/heartbeats", &fresh_key(), &json!({ "ids": ids })).await;
    assert_eq!((back.status, &json_of(&back)["noted"]), (200, &json!(2)), "{}", text(&back));
    assert_eq!(transitions(&running, "returned"), 1.0);
    assert_eq!(state(&a, &ids[1]).await, "active");
    running.stop().await;
}

#[tokio::test]
async fn every_transition_of_a_request_is_counted_once() {
    let world = World::new().await;
    let running = world.start().await;
    let a = world.peer(running.address, &["a.example"]);
    let b = world.peer(running.address, &["b.example"]);
    let user = User::new(&number(30), "a.example");
    let first = a.register(&user.request(world.now())).await;
    let code = world.gateway.code(&number(30), 1).await;
    let wrong = if code == "000000" { "000001" } else { "000000" };
    let (path, key) = (format!("/v1/registrations/{first}/code"), fresh_key());
    for _ in 0..3 {
        let refused = a.post(&path, &key, &json!({ "code": wrong })).await;
        assert_eq!((refused.status, &*problem(&refused)), (409, "wrong_code"));
    }
    assert_eq!(transitions(&running, "wrong_code"), 1.0);
    // The newer one stands in place of it.
    proved(&world, &a, &user, 2).await;
    assert_eq!(transitions(&running, "superseded"), 1.0);
    world.pass(3_601);
    let mut request = User::new(&number(30), "b.example").request(world.now());
    request["new_holder"] = json!(true);
    let (key, body) = (fresh_key(), request.to_string());
    let headers = [AS_JSON, ("idempotency-key", &*key)];
    let mut id = Value::Null;
    for _ in 0..2 {
        let accepted = b.send(Method::POST, "/v1/registrations", &headers, &body).await;
        assert_eq!(accepted.status, 202, "{}", text(&accepted));
        id = json_of(&accepted)["id"].clone();
    }
    let entered = b.enter(id.as_str().unwrap(), &world.gateway.code(&number(30), 3).await).await;
    assert_eq!(entered.status, 200, "{}", text(&entered));
    for (to, count) in [("requested", 3.0), ("active", 2.0), ("voided", 1.0), ("failed", 0.0)] {
        assert_eq!(transitions(&running, to), count, "{to}");
    }
    running.stop().await;
}
