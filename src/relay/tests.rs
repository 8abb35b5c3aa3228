//! A relay between a device and a front-end that does what a test says, over real TLS.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use ed25519_dalek::{Signer as _, SigningKey};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::counters::{Asked, Outcome};
use super::*;
use crate::discovery::directory::{Pins, Provider, draft};
use crate::discovery::jws::base64url;
use crate::https::{self, PeerInfo};
use crate::server::certificates::{LocalCertificates, localhost};

pub(super) const NOW: u64 = 1_796_000_040;
pub(super) const LONG: Duration = Duration::from_secs(60);
pub(super) const SEALED: (&str, &str) = ("content-type", "message/ohttp-req");
pub(super) const SECRET_NAME: &str = "account-of-alice";
const KEY_PROBLEM: &str =
    r#"{"type":"https://iana.org/assignments/http-problem-types#ohttp-key","title":"key"}"#;

pub(super) fn wide() -> Bounds {
    Bounds {
        connections: 100,
        handshakes: 100,
        handshake_time: LONG,
        head_time: LONG,
        idle_time: LONG,
        body_time: LONG,
    }
}

/// What arrived at the front-end.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) names: Vec<String>,
}

/// What the front-end answers next.
pub(super) enum Answer {
    Reply {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    },
    /// Waits until it is told to go on, and then answers with success.
    Wait,
}

/// A front-end that does as it is told, and otherwise answers what a front-end would.
#[derive(Default)]
pub(super) struct FrontEndScript {
    seen: Mutex<Vec<Seen>>,
    pub(super) answers: Mutex<VecDeque<Answer>>,
    pub(super) waiting: Notify,
    pub(super) go_on: Notify,
}

impl FrontEndScript {
    pub(super) fn then(&self, status: u16, headers: &[(&'static str, &str)], body: &[u8]) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let body = Bytes::copy_from_slice(body);
        self.answers.lock().unwrap().push_back(Answer::Reply { status, headers, body });
    }

    pub(super) fn then_wait(&self) {
        self.answers.lock().unwrap().push_back(Answer::Wait);
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn front_end(State(script): State<Arc<FrontEndScript>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    // Where the connection breaks, nobody reads the reply.
    let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let names = head.extensions.get::<PeerInfo>().unwrap().names.clone();
    let (method, uri, headers) = (head.method, head.uri.to_string(), head.headers);
    script.seen.lock().unwrap().push(Seen { method, uri, headers, body, names });
    let answer = script.answers.lock().unwrap().pop_front();
    let (status, headers, body) = match answer {
        Some(Answer::Reply { status, headers, body }) => (status, headers, body),
        Some(Answer::Wait) => {
            script.waiting.notify_one();
            script.go_on.notified().await;
            (200, vec![("content-type", "message/ohttp-res".to_owned())], Bytes::from("waited"))
        }
        None => {
            (200, vec![("content-type", "message/ohttp-res".to_owned())], Bytes::from("sealed"))
        }
    };
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    response.headers_mut().remove("content-type");
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// What becomes of connections to the front-end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Open,
    /// Closed at once.
    Closed,
    /// Accepted, and then nothing.
    Silent,
    /// Closed after so many bytes.
    Cut(u64),
}

/// Stands between relay and front-end.
async fn proxy(listener: TcpListener, to: SocketAddr, way: Arc<Mutex<Way>>) {
    let mut silent = Vec::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let way = *way.lock().unwrap();
        let bytes = match way {
            Way::Closed => continue,
            Way::Silent => {
                silent.push(near);
                continue;
            }
            Way::Open => u64::MAX,
            Way::Cut(bytes) => bytes,
        };
        tokio::spawn(async move {
            let mut far = TcpStream::connect(to).await.unwrap();
            let (mut from_relay, mut to_relay) = near.split();
            let (mut from_front_end, mut to_front_end) = far.split();
            let mut up = tokio::io::AsyncReadExt::take(&mut from_relay, bytes);
            tokio::select! {
                _ = copy(&mut up, &mut to_front_end) => {}
                _ = copy(&mut from_front_end, &mut to_relay) => {}
            }
            let _ = near.shutdown().await;
        });
    }
}

pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    made: LocalCertificates,
    pub(super) front_end: Arc<FrontEndScript>,
    pub(super) way: Arc<Mutex<Way>>,
    pub(super) now: Arc<AtomicU64>,
    url: String,
    service: Arc<Service>,
    pub(super) control: Control,
    device: https::Client,
    leave: oneshot::Sender<()>,
    relay: JoinHandle<()>,
}

pub(super) struct Setting {
    pub(super) evaluate: &'static str,
    pub(super) lookup: &'static str,
    pub(super) forwards: usize,
    pub(super) memory_bytes: usize,
    pub(super) time: Duration,
    pub(super) introspection: Option<String>,
    /// Whether a directory names the front-end as the key service of `b.example`.
    pub(super) key_services: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            evaluate: "1024,128/day",
            lookup: "2048,512/day",
            forwards: 10,
            memory_bytes: 64 << 20,
            time: LONG,
            introspection: None,
            key_services: false,
        }
    }
}

fn account_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn jwk_set(kid: &str, key: &SigningKey) -> String {
    let x = base64url(key.verifying_key().as_bytes());
    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x}]}).to_string()
}

fn token_by(kid: &str, key: &SigningKey, claims: &Value) -> String {
    let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid}).to_string();
    let claims = claims.to_string();
    let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    format!("{signed}.{}", base64url(&key.sign(signed.as_bytes()).to_bytes()))
}

pub(super) fn token(sub: &str) -> String {
    token_by("one", &account_key(), &json!({"sub": sub, "exp": NOW + 1_000_000_000}))
}

pub(super) fn write(folder: &tempfile::TempDir, name: &str, content: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn pins() -> Pins {
    Pins::new(1, vec![account_key().verifying_key().into()]).unwrap()
}

/// A directory of providers, each with a key service at a port of this machine.
pub(super) fn write_directory(
    folder: &tempfile::TempDir,
    version: u64,
    providers: &[(&str, &str)],
) -> PathBuf {
    let mut content = draft::new(1, vec![account_key().verifying_key().into()]).unwrap();
    for (domain, place) in providers {
        let (domain, name) = ((*domain).to_owned(), (*domain).to_owned());
        let keys_url = format!("https://localhost:{place}");
        let provider = Provider { index: 0, domain, name, keys_url, keys_identity: None };
        draft::add_provider(&mut content, provider).unwrap();
    }
    let mut content = draft::next(content, None, NOW + 86_400).unwrap();
    content.version = version;
    write(folder, "directory.json", &draft::sign(&content, &[account_key()]).unwrap())
}

/// Serves until the test ends.
pub(super) async fn serve(tls: &TlsFiles, router: Router) -> SocketAddr {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), tls, wide()).await.unwrap();
    let address = server.local_addr();
    tokio::spawn(server.run(router, std::future::pending()));
    address
}

pub(super) async fn start() -> World {
    start_with(Setting::default()).await
}

pub(super) async fn start_with(setting: Setting) -> World {
    let folder = tempfile::tempdir().unwrap();
    let made = localhost().unwrap();
    let ca = write(&folder, "ca.pem", &made.ca_pem);
    let cert = write(&folder, "server.pem", &made.server_pem);
    let key = write(&folder, "server.key", &made.server_key);
    let client_cert = write(&folder, "client.pem", &made.client_pem);
    let client_key = write(&folder, "client.key", &made.client_key);
    let jwks = write(&folder, "jwks.json", &jwk_set("one", &account_key()));

    let front_end = Arc::new(FrontEndScript::default());
    let tls = TlsFiles { cert: cert.clone(), key: key.clone(), client_ca: Some(ca.clone()) };
    let router = Router::new().fallback(self::front_end).with_state(front_end.clone());
    let behind = serve(&tls, router).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let way = Arc::new(Mutex::new(Way::Open));
    tokio::spawn(proxy(listener, behind, way.clone()));

    let now = Arc::new(AtomicU64::new(NOW));
    let clock = now.clone();
    let accounts = match setting.introspection {
        None => AccountsFrom::Jwks { file: jwks, audience: None },
        Some(url) => {
            let authorization = Some(write(&folder, "authorization", "Basic cmVsYXk6eA==\n"));
            AccountsFrom::Introspection { url, ca: ca.clone(), authorization }
        }
    };
    let options = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: TlsFiles { cert, key, client_ca: None },
        front_end: FrontEndFiles {
            url: format!("https://localhost:{}/", address.port()),
            ca: ca.clone(),
            cert: client_cert,
            key: client_key,
            time: setting.time,
        },
        key_services: setting.key_services.then(|| KeyServiceFiles {
            directory: write_directory(&folder, 1, &[("b.example", &address.port().to_string())]),
            pins: write(&folder, "pins.json", &pins().to_json()),
            ca: ca.clone(),
        }),
        accounts,
        evaluate: setting.evaluate.parse().unwrap(),
        lookup: setting.lookup.parse().unwrap(),
        state: folder.path().join("state"),
        memory_bytes: setting.memory_bytes,
        forwards: setting.forwards,
        bounds: wide(),
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
    };
    let relay = Relay::start(options).await.unwrap();
    let url = format!("https://localhost:{}", relay.local_addr().port());
    let (service, control) = (relay.service.clone(), relay.control());
    let (leave, left) = oneshot::channel();
    let relay = tokio::spawn(relay.run(async {
        let _ = left.await;
    }));
    let device = https::Client::new(Some(made.ca_pem.as_bytes()), None, LONG).unwrap();
    World { folder, made, front_end, way, now, url, service, control, device, leave, relay }
}

impl World {
    pub(super) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> https::Response {
        let (url, body) = (format!("{}{path}", self.url), Bytes::copy_from_slice(body));
        self.device.send(Method::POST, &url, headers, body, 8 << 20).await.unwrap()
    }

    /// A request of an account as a device sends it.
    pub(super) async fn ask(&self, path: &str, sub: &str, body: &[u8]) -> https::Response {
        let bearer = format!("Bearer {}", token(sub));
        self.post(path, &[SEALED, ("authorization", &bearer)], body).await
    }

    pub(super) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> https::Response {
        let url = format!("{}{path}", self.url);
        self.device.send(Method::GET, &url, headers, Bytes::new(), 8 << 20).await.unwrap()
    }

    pub(super) fn count(&self, asked: Asked, outcome: Outcome) -> u64 {
        self.service.counters.requests(asked, outcome)
    }

    pub(super) fn sample(&self, name: &str, label: Option<&str>) -> f64 {
        let has = |sample: &Sample| sample.labels.iter().any(|(_, value)| Some(&**value) == label);
        let samples = self.control.samples();
        let mut found = samples.iter().filter(|sample| sample.name == name);
        found.find(|sample| label.is_none() || has(sample)).unwrap().value
    }

    /// The bytes of memory for bodies that are in use, once no connection holds any.
    async fn no_room_is_used(&self) {
        while self.service.room_used() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

pub(super) fn error_of(response: &https::Response) -> Value {
    assert_eq!(response.headers["content-type"], "application/json");
    serde_json::from_slice(&response.body).unwrap()
}

#[track_caller]
pub(super) fn is_error(response: &https::Response, status: u16, error: &str) {
    assert_eq!(response.status, status, "{}", String::from_utf8_lossy(&response.body));
    assert_eq!(error_of(response)["error"], error);
}

#[tokio::test]
async fn the_front_end_sees_the_body_and_nothing_else_of_a_device() {
    let world = start().await;
    let bearer = format!("Bearer {}", token(SECRET_NAME));
    let told = [
        SEALED,
        ("authorization", &*bearer),
        ("cookie", "session=1"),
        ("user-agent", "phone/1.0"),
        ("accept-language", "de"),
        ("forwarded", "for=192.0.2.1"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-request-id", "7"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    let reply_headers = [
        ("content-type", "message/ohttp-res"),
        ("set-cookie", "tracked=1"),
        ("server", "front-end/1.0"),
        ("etag", "\"1\""),
    ];
    for (path, length) in [("/lookup?device=1", 1_572_864), ("/evaluate", 4_096), ("/lookup", 1)] {
        let body = vec![0xa5; length];
        world.front_end.then(200, &reply_headers, b"a sealed reply");
        let response = world.post(path, &told, &body).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.body, "a sealed reply");
        let mut names: Vec<&str> = response.headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["cache-control", "content-length", "content-type", "date"]);
        assert_eq!(response.headers["content-type"], "message/ohttp-res");
        assert_eq!(response.headers["cache-control"], "no-store");

        let seen = world.front_end.seen();
        let [seen] = &seen[..] else { panic!("{} requests", seen.len()) };
        assert_eq!((&seen.method, &*seen.uri), (&Method::POST, "/gateway"));
        assert_eq!(seen.names, ["client.localhost"]);
        assert_eq!(seen.body, body);
        let mut headers: Vec<(&str, String)> = seen
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap().to_owned()))
            .collect();
        headers.sort();
        let host = seen.headers["host"].to_str().unwrap().to_owned();
        assert!(host.starts_with("localhost:"), "{host}");
        let expected = [
            ("content-length", length.to_string()),
            ("content-type", "message/ohttp-req".to_owned()),
            ("host", host),
        ];
        assert_eq!(headers, expected);
    }
    assert_eq!(world.count(Asked::Lookup, Outcome::Answered), 2);
    assert_eq!(world.count(Asked::Evaluate, Outcome::Answered), 1);
    world.no_room_is_used().await;
}

#[tokio::test]
async fn who_has_no_account_is_not_forwarded() {
    let world = start().await;
    let claims = json!({"sub": "a", "exp": NOW + 3_600});
    let other = SigningKey::from_bytes(&[8; 32]);
    let mut right = token("a").into_bytes();
    let at = right.len() - 10;
    right[at] = if right[at] == b'A' { b'B' } else { b'A' };
    let none = format!("{}.{}.", base64url(br#"{"alg":"none","kid":"one"}"#), "e30");
    let bad = [
        token_by("two", &account_key(), &claims),
        token_by("one", &other, &claims),
        token_by("one", &account_key(), &json!({"sub": "a", "exp": NOW - 3_600})),
        token_by(
            "one",
            &account_key(),
            &json!({"sub": "a", "exp": NOW + 7_200, "nbf": NOW + 3_600}),
        ),
        String::from_utf8(right).unwrap(),
        none,
        "opaque".to_owned(),
        String::new(),
    ];
    for token in &bad {
        let bearer = format!("Bearer {token}");
        let headers = [SEALED, ("authorization", &*bearer)];
        let response = world.post("/lookup", &headers, b"body").await;
        is_error(&response, 401, "account");
        let text = String::from_utf8(response.body.to_vec()).unwrap();
        assert!(token.is_empty() || !text.contains(token.as_str()), "{text}");
        assert!(response.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
    is_error(&world.post("/evaluate", &[SEALED], b"body").await, 401, "account");
    assert!(world.front_end.seen().is_empty());
    assert_eq!(world.count(Asked::Lookup, Outcome::Account), bad.len() as u64);
    // A clock an hour ahead takes the token of an hour for expired.
    let bearer = format!("Bearer {}", token_by("one", &account_key(), &claims));
    let headers = [SEALED, ("authorization", &*bearer)];
    assert_eq!(world.post("/lookup", &headers, b"body").await.status, 200);
    world.now.store(NOW + 7_200, Ordering::Relaxed);
    is_error(&world.post("/lookup", &headers, b"body").await, 401, "account");
}

/// A body that does not announce its length.
struct Unannounced(VecDeque<Bytes>);

impl HttpBody for Unannounced {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[tokio::test]
async fn a_body_may_have_its_most_bytes_and_not_one_more() {
    let world = start().await;
    let router = TowerToHyperService::new(world.service.router());
    for (path, max) in [("/evaluate", 4_096), ("/lookup", 1_572_864)] {
        for (more, status) in [(0, 200), (1, 413)] {
            let body = vec![1; max + more];
            let response = world.ask(path, "a", &body).await;
            assert_eq!(response.status, status, "{path}: {more} more");
            if status == 413 {
                is_error(&response, 413, "too_long");
            }
            // The same without a length: in parts, of which the last is too much.
            let parts = body.chunks(max.div_ceil(3)).map(Bytes::copy_from_slice).collect();
            let request = Request::post(path)
                .header(SEALED.0, SEALED.1)
                .header("authorization", format!("Bearer {}", token("a")))
                .body(Body::new(Unannounced(parts)))
                .unwrap();
            let response = router.call(request).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{path}: {more} more in parts");
        }
    }
    // Those that were too long did not arrive, and were not counted.
    assert_eq!(world.front_end.seen().len(), 4);
    for asked in [Asked::Evaluate, Asked::Lookup] {
        assert_eq!(world.count(asked, Outcome::TooLong), 2);
        assert_eq!(world.count(asked, Outcome::Answered), 2);
    }
    // Far too long: it is not read either, and the connection may break before the reply is seen.
    let bearer = format!("Bearer {}", token("a"));
    let headers = [SEALED, ("authorization", &*bearer)];
    let url = format!("{}/evaluate", world.url);
    let body = Bytes::from(vec![1; 4 << 20]);
    if let Ok(response) = world.device.send(Method::POST, &url, &headers, body, 1 << 20).await {
        is_error(&response, 413, "too_long");
    }
    assert!(world.front_end.seen().is_empty());
    world.no_room_is_used().await;
}

#[tokio::test]
async fn another_content_type_or_method_or_path_is_refused() {
    let world = start().await;
    let bearer = format!("Bearer {}", token("a"));
    let authorization = ("authorization", &*bearer);
    for content_type in ["", "message/ohttp-res", "application/json", "message/ohttp-reqs"] {
        let headers = [("content-type", content_type), authorization];
        is_error(&world.post("/lookup", &headers, b"body").await, 415, "content_type");
    }
    is_error(&world.post("/lookup", &[authorization], b"body").await, 415, "content_type");
    is_error(
        &world.post("/lookup", &[SEALED, SEALED, authorization], b"").await,
        415,
        "content_type",
    );
    for content_type in ["message/ohttp-req; v=1", "Message/OHTTP-req"] {
        let headers = [("content-type", content_type), authorization];
        assert_eq!(world.post("/lookup", &headers, b"body").await.status, 200, "{content_type}");
    }
    assert_eq!(world.front_end.seen().len(), 2);
    assert_eq!(world.get("/lookup", &[]).await.status, 405);
    assert_eq!(world.post("/gateway", &[SEALED, authorization], b"body").await.status, 404);
    assert_eq!(world.get("/metrics", &[]).await.status, 404);
    assert!(world.front_end.seen().is_empty());
}

#[tokio::test]
async fn beyond_its_quota_an_account_is_told_when_to_come_again() {
    let world = start_with(Setting { evaluate: "32,16/day", ..Setting::default() }).await;
    for _ in 0..2 {
        assert_eq!(world.ask("/evaluate", SECRET_NAME, b"body").await.status, 200);
    }
    assert_eq!(world.front_end.seen().len(), 2);
    for _ in 0..3 {
        let response = world.ask("/evaluate", SECRET_NAME, b"body").await;
        is_error(&response, 429, "quota");
        let error = error_of(&response);
        assert_eq!((&error["kind"], &error["retry_after"]), (&json!("evaluate"), &json!(86_400)));
        assert_eq!(response.headers["retry-after"], "86400");
        assert!(!String::from_utf8_lossy(&response.body).contains(SECRET_NAME));
    }
    assert!(world.front_end.seen().is_empty());
    // Of the other kind, and of another account.
    assert_eq!(world.ask("/lookup", SECRET_NAME, b"body").await.status, 200);
    assert_eq!(world.ask("/evaluate", "b", b"body").await.status, 200);
    world.now.fetch_add(86_399, Ordering::Relaxed);
    let response = world.ask("/evaluate", SECRET_NAME, b"body").await;
    assert_eq!((response.status, &error_of(&response)["retry_after"]), (429, &json!(1)));
    world.now.fetch_add(1, Ordering::Relaxed);
    assert_eq!(world.ask("/evaluate", SECRET_NAME, b"body").await.status, 200);
    assert_eq!(world.count(Asked::Evaluate, Outcome::Quota), 4);
}

#[tokio::test]
async fn what_did_not_reach_the_front_end_is_given_back_and_nothing_else_is() {
    let setting =
        Setting { lookup: "16,16/day", time: Duration::from_millis(300), ..Setting::default() };
    let world = start_with(setting).await;
    for way in [Way::Closed, Way::Silent] {
        *world.way.lock().unwrap() = way;
        for _ in 0..2 {
            let response = world.ask("/lookup", "a", b"body").await;
            is_error(&response, 502, "front_end");
        }
    }
    let readiness = world.control.readiness();
    assert_eq!(readiness.notes, ["the front-end does not answer"]);
    assert!(readiness.missing.is_empty());
    assert_eq!(world.sample("relay_given_back_total", None), 4.0);
    assert!(world.front_end.seen().is_empty());
    // It broke half-way: it may have arrived.
    *world.way.lock().unwrap() = Way::Cut(50_000);
    is_error(&world.ask("/lookup", "a", &[1; 500_000]).await, 502, "front_end");
    is_error(&world.ask("/lookup", "a", b"body").await, 429, "quota");
    *world.way.lock().unwrap() = Way::Open;
    assert_eq!(world.ask("/lookup", "b", b"body").await.status, 200);
    assert!(world.control.readiness().notes.is_empty());
}

#[tokio::test]
async fn a_front_end_that_does_not_answer_in_time_is_late_and_the_request_counts() {
    let setting =
        Setting { lookup: "16,16/day", time: Duration::from_millis(300), ..Setting::default() };
    let world = start_with(setting).await;
    world.front_end.then_wait();
    is_error(&world.ask("/lookup", "a", b"body").await, 504, "late");
    assert_eq!(world.front_end.seen().len(), 1);
    is_error(&world.ask("/lookup", "a", b"body").await, 429, "quota");
    assert!(world.front_end.seen().is_empty());
    assert_eq!(world.count(Asked::Lookup, Outcome::Late), 1);
}

#[tokio::test]
async fn replies_of_the_front_end_are_passed_on_as_the_contract_says() {
    let world = start().await;
    let problem = [("content-type", "application/problem+json"), ("x-other", "1")];
    world.front_end.then(400, &problem, KEY_PROBLEM.as_bytes());
    let response = world.ask("/lookup", "a", b"body").await;
    assert_eq!((response.status, &response.body[..]), (400, KEY_PROBLEM.as_bytes()));
    assert_eq!(response.headers["content-type"], "application/problem+json");
    assert!(!response.headers.contains_key("x-other"));
    assert_eq!(world.count(Asked::Lookup, Outcome::OldKey), 1);

    let json = [("content-type", "application/json")];
    let other_problem = KEY_PROBLEM.replace("ohttp-key", "date");
    let sealed = [("content-type", "message/ohttp-res")];
    let long = vec![0; (4 << 20) + 1];
    let wait = [("retry-after", "77")];
    type Headers<'a> = &'a [(&'static str, &'a str)];
    type Case<'a> = (u16, Headers<'a>, &'a [u8], u16, &'a str, Option<&'a str>);
    let cases: [Case<'_>; 13] = [
        (400, &json, br#"{"error":"malformed"}"#, 502, "front_end", None),
        (400, &json, KEY_PROBLEM.as_bytes(), 502, "front_end", None),
        (400, &problem, other_problem.as_bytes(), 502, "front_end", None),
        (400, &problem, b"not json", 502, "front_end", None),
        (403, &json, b"{}", 502, "front_end", None),
        (429, &wait, b"", 429, "relay_bound", Some("77")),
        (429, &[("retry-after", "soon")], b"", 429, "relay_bound", Some("1")),
        (503, &wait, b"", 503, "overloaded", Some("77")),
        (500, &[], b"", 502, "front_end", None),
        (302, &[("location", "https://evil.example/")], b"", 502, "front_end", None),
        (200, &json, b"{}", 502, "front_end", None),
        (204, &sealed, b"", 502, "front_end", None),
        (200, &sealed, &long, 502, "front_end", None),
    ];
    for (status, headers, body, expected, error, retry_after) in cases {
        world.front_end.then(status, headers, body);
        let response = world.ask("/lookup", "a", b"body").await;
        is_error(&response, expected, error);
        let found = response.headers.get("retry-after").map(|value| value.to_str().unwrap());
        assert_eq!(found, retry_after, "{status} {error}");
        if status == 403 {
            assert_eq!(world.control.readiness().notes, ["the front-end refuses this relay"]);
        }
    }
    world.no_room_is_used().await;
}

#[tokio::test]
async fn too_many_requests_on_their_way_are_refused_at_once() {
    let setting = Setting { forwards: 1, lookup: "32,16/day", ..Setting::default() };
    let world = Arc::new(start_with(setting).await);
    world.front_end.then_wait();
    let first = tokio::spawn({
        let world = world.clone();
        async move { world.ask("/lookup", "a", b"body").await }
    });
    world.front_end.waiting.notified().await;
    assert_eq!(world.sample("relay_waiting", None), 1.0);
    let response = world.ask("/lookup", "b", b"body").await;
    is_error(&response, 503, "overloaded");
    assert_eq!(response.headers["retry-after"], "1");
    world.front_end.go_on.notify_one();
    assert_eq!(first.await.unwrap().body, "waited");
    assert_eq!(world.front_end.seen().len(), 1);
    // The one that was refused does not count: two are left to it.
    for status in [200, 200, 429] {
        assert_eq!(world.ask("/lookup", "b", b"body").await.status, status);
    }
}

#[tokio::test]
async fn bodies_have_a_bounded_memory() {
    let world = start_with(Setting { memory_bytes: 100 << 10, ..Setting::default() }).await;
    let response = world.ask("/lookup", "a", &[1; 100_000]).await;
    is_error(&response, 503, "overloaded");
    assert_eq!(world.ask("/lookup", "a", &[1; 50_000]).await.status, 200);
    world.no_room_is_used().await;
    assert_eq!(world.ask("/lookup", "a", &[1; 50_000]).await.status, 200);
}

#[tokio::test]
async fn files_are_read_again_and_bad_ones_change_nothing() {
    let world = start().await;
    let other = SigningKey::from_bytes(&[8; 32]);
    let new = token_by("two", &other, &json!({"sub": "a", "exp": NOW + 3_600}));
    let bearer = format!("Bearer {new}");
    let headers = [SEALED, ("authorization", &*bearer)];
    assert_eq!(world.post("/lookup", &headers, b"body").await.status, 401);
    write(&world.folder, "jwks.json", &jwk_set("two", &other));
    world.control.reload().unwrap();
    assert_eq!(world.post("/lookup", &headers, b"body").await.status, 200);
    is_error(&world.ask("/lookup", "a", b"body").await, 401, "account");

    write(&world.folder, "jwks.json", "{}");
    write(&world.folder, "client.pem", "none");
    write(&world.folder, "server.pem", "none");
    let error = world.control.reload().unwrap_err();
    assert_eq!(error.lines().count(), 3, "{error}");
    assert!(error.contains("jwks.json"), "{error}");
    assert_eq!(world.post("/lookup", &headers, b"body").await.status, 200);
    // One that is good changes though others are not.
    write(&world.folder, "jwks.json", &jwk_set("one", &account_key()));
    assert_eq!(world.control.reload().unwrap_err().lines().count(), 2);
    assert_eq!(world.ask("/lookup", "a", b"body").await.status, 200);
    write(&world.folder, "client.pem", &world.made.client_pem);
    write(&world.folder, "server.pem", &world.made.server_pem);
    world.control.reload().unwrap();
    assert_eq!(world.sample("relay_reloads_total", Some("failed")), 2.0);
    assert_eq!(world.sample("relay_reloads_total", Some("done")), 2.0);
}

#[tokio::test]
async fn a_relay_that_leaves_ends_what_was_begun_and_writes_what_was_counted() {
    let world = start_with(Setting { lookup: "16,16/day", ..Setting::default() }).await;
    world.front_end.then_wait();
    let (device, url) = (world.device.clone(), format!("{}/lookup", world.url));
    let asked = tokio::spawn(async move {
        let bearer = format!("Bearer {}", token("a"));
        let headers = [SEALED, ("authorization", &*bearer)];
        device.send(Method::POST, &url, &headers, Bytes::from("body"), 1 << 20).await
    });
    world.front_end.waiting.notified().await;
    world.leave.send(()).unwrap();
    while world.control.readiness().missing.is_empty() {
        tokio::task::yield_now().await;
    }
    world.front_end.go_on.notify_one();
    assert_eq!(asked.await.unwrap().unwrap().body, "waited");
    world.relay.await.unwrap();
    let account = world.service.quotas.account("a");
    drop((world.service, world.control));
    let clock: Clock = Arc::new(|| NOW);
    let quotas = ["16,16/day"; 2].map(|text| text.parse().unwrap());
    let quotas = Quotas::open(&world.folder.path().join("state"), quotas, clock).unwrap();
    let taken = Arc::new(quotas).take(account, Kind::Lookup);
    assert!(matches!(taken, Err(super::quotas::NotTaken::Quota { .. })));
}

#[tokio::test]
async fn a_relay_that_asks_a_service_about_tokens_refuses_when_it_is_away() {
    let url = "https://localhost:1/introspect".to_owned();
    let world = start_with(Setting { introspection: Some(url), ..Setting::default() }).await;
    let response = world.post("/lookup", &[SEALED, ("authorization", "Bearer x")], b"body").await;
    is_error(&response, 503, "overloaded");
    assert!(world.front_end.seen().is_empty());
}
