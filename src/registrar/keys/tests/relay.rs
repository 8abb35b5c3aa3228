//! Over real TLS: a device asks through a real relay, sealed, and a user stores keys with a token.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::discovery::directory::{
    Issuer, IssuerKey, Pins, Proof, Provider, Remit, Validity, draft,
};
use crate::discovery::identifier::Identifier;
use crate::discovery::sealed::capsule::{InnerRequest, seal};
use crate::discovery::sealed::keys::KeyList;
use crate::discovery::statement::{Consent, Mapping, Purpose, consent_text};
use crate::https::{Bounds, Client, Response, TlsFiles};
use crate::relay::{AccountsFrom, FrontEndFiles, KeyServiceFiles, Options, Relay};
use crate::server::certificates::{LocalCertificates, localhost};
use axum::body::Bytes;
use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::*;
use crate::discovery::keys::fetch::{FetchError, KeyClient, Requester, request};
use crate::discovery::keys::mimi::{
    ConsentEntry, ConsentOperation, IdentifierUri, KeyMaterialResponse, KeyMaterialUserCode, encode,
};
use crate::registrar::keys::{
    Config, ConsentsShown, Control, KeyService, RelayEntry, UserSettings, UserShown,
};

const LONG: Duration = Duration::from_secs(60);
const NUMBER: &str = "+4915550100123";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn token(key: &SigningKey, sub: &str) -> String {
    let header = json!({"alg": "EdDSA", "kid": "one"}).to_string();
    let claims = json!({"sub": sub, "exp": now() + 1_000 * DAY}).to_string();
    let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    format!("{signed}.{}", base64url(&key.sign(signed.as_bytes()).to_bytes()))
}

struct World {
    folder: tempfile::TempDir,
    made: LocalCertificates,
    clock: Arc<AtomicU64>,
    url: String,
    relay_url: String,
    control: Control,
    direct: Client,
    signer: SignatureKeyPair,
    leave: Vec<oneshot::Sender<()>>,
    running: Vec<JoinHandle<()>>,
}

fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A directory in which dp.example may vouch for people at b.example.
fn write_directory(folder: &Path, keys_url: &str) -> (PathBuf, PathBuf) {
    let root = key(1);
    let mut content = draft::new(1, vec![root.verifying_key().into()]).unwrap();
    let provider = Provider {
        index: 0,
        domain: "b.example".into(),
        name: "B".into(),
        keys_url: keys_url.into(),
        keys_identity: Some(key(5).verifying_key().into()),
    };
    draft::add_provider(&mut content, provider).unwrap();
    let validity = Validity { from: now() - DAY, until: now() + 100 * DAY };
    let issuer = Issuer {
        index: 0,
        domain: "dp.example".into(),
        keys: vec![IssuerKey { key: key(2).verifying_key().into(), validity }],
        remit: Remit {
            providers: vec!["b.example".into()],
            prefixes: vec!["+49".into()],
            regions: Vec::new(),
            proof: Proof::Sms,
        },
        exempt_before: None,
        authority: false,
    };
    draft::add_issuer(&mut content, issuer).unwrap();
    let content = draft::next(content, None, now() + 30 * DAY).unwrap();
    let pins = Pins::new(1, vec![root.verifying_key().into()]).unwrap();
    let file = draft::sign(&content, &[root]).unwrap();
    (write(folder, "directory.jws", &file), write(folder, "pins.json", &pins.to_json()))
}

/// The files of a key service and its configuration, which names them.
fn configure(at: &Path, made: &LocalCertificates) -> Config {
    let x = base64url(key(7).verifying_key().as_bytes());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": x});
    let pem = key(5).to_pkcs8_pem(LineEnding::LF).unwrap();
    let (directory, directory_pins) = write_directory(at, "https://keys.b.example");
    let domains = vec!["a.example".into()];
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        cert: write(at, "server.pem", &made.server_pem),
        key: write(at, "server.key", &made.server_key),
        client_ca: write(at, "ca.pem", &made.ca_pem),
        database: format!("sqlite:{}", at.join("keys.sqlite").display()),
        connections: 4,
        domain: "b.example".into(),
        accounts: write(at, "jwks.json", &json!({"keys": [jwk]}).to_string()),
        audience: None,
        ohttp_keys: at.join("ohttp"),
        identity: write(at, "identity.pem", &pem),
        identifiers_key: at.join("identifiers.key"),
        directory,
        directory_pins,
        claims_an_hour: 20,
        queries_an_hour: 20,
        relays: vec![RelayEntry { name: "client.localhost".into(), domains }],
    }
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let made = localhost().unwrap();
        let config = configure(at, &made);
        let (ca, accounts) = (config.client_ca.clone(), config.accounts.clone());
        let (cert, tls_key) = (config.cert.clone(), config.key.clone());
        let clock = Arc::new(AtomicU64::new(now()));
        let reads = clock.clone();
        let service_clock: crate::registrar::Clock =
            Arc::new(move || reads.load(Ordering::Relaxed));
        let service = KeyService::start(config, None, service_clock.clone()).await.unwrap();
        let url = format!("https://localhost:{}", service.local_addr().port());
        let control = service.control();
        // The relay has a directory with the address that the service has got.
        let relays = at.join("relay");
        std::fs::create_dir(&relays).unwrap();
        let (directory, pins) = write_directory(&relays, &url);
        let options = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: TlsFiles { cert, key: tls_key, client_ca: None },
            // There is none: everything that is asked for goes to the key service.
            front_end: FrontEndFiles {
                url: "https://front-end.invalid".into(),
                ca: ca.clone(),
                cert: write(at, "client.pem", &made.client_pem),
                key: write(at, "client.key", &made.client_key),
                time: LONG,
            },
            key_services: Some(KeyServiceFiles { directory, pins, ca }),
            accounts: AccountsFrom::Jwks { file: accounts, audience: None },
            evaluate: "10000,128/day".parse().unwrap(),
            lookup: "10000,128/day".parse().unwrap(),
            state: at.join("state"),
            memory_bytes: 64 << 20,
            forwards: 100,
            bounds: Bounds {
                connections: 100,
                handshakes: 100,
                handshake_time: LONG,
                head_time: LONG,
                idle_time: LONG,
                body_time: LONG,
            },
            clock: service_clock,
        };
        let relay = Relay::start(options).await.unwrap();
        let relay_url = format!("https://localhost:{}", relay.local_addr().port());
        let ((leave, left), (leave_relay, relay_left)) = (oneshot::channel(), oneshot::channel());
        let wait = |left: oneshot::Receiver<()>| async move {
            let _ = left.await;
        };
        let running =
            vec![tokio::spawn(service.run(wait(left))), tokio::spawn(relay.run(wait(relay_left)))];
        let direct = Client::new(Some(made.ca_pem.as_bytes()), None, LONG).unwrap();
        let signer = SignatureKeyPair::new(SignatureScheme::ED25519).unwrap();
        let leave = vec![leave, leave_relay];
        let (made, clock) = (made, clock);
        Self { folder, made, clock, url, relay_url, control, direct, signer, leave, running }
    }

    async fn end(self) {
        self.leave.into_iter().for_each(|leave| leave.send(()).unwrap());
        for running in self.running {
            running.await.unwrap();
        }
    }

    fn device(&self) -> KeyClient {
        let clock = self.clock.clone();
        KeyClient {
            http: self.direct.clone(),
            relay: self.relay_url.clone(),
            provider: "b.example".to_owned(),
            token: Box::new(|| Zeroizing::new(token(&key(7), "alice"))),
            service_key: key(5).verifying_key(),
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            keys: Mutex::new(None),
        }
    }

    fn alice(&self) -> Requester<'_> {
        Requester {
            user: Ssi::parse("mimi://a.example/u/alice").unwrap(),
            signer: &self.signer,
            suites: vec![SUITE],
            required: RequiredCapabilitiesExtension::default(),
        }
    }

    async fn send(&self, sub: &str, method: Method, path: &str, body: Vec<u8>) -> Response {
        let bearer = format!("Bearer {}", token(&key(7), sub));
        let headers = [("authorization", &*bearer)];
        let url = format!("{}{path}", self.url);
        self.direct.send(method, &url, &headers, body.into(), 1 << 20).await.unwrap()
    }

    async fn register(&self, person: &Person, policy: Policy, mappings: Vec<String>) -> Response {
        let sent = UserSettings {
            uk: base64url(person.uk.verifying_key().as_bytes()),
            clients: person.list(now()).sign(&person.uk),
            policy,
            mappings,
        };
        let body = serde_json::to_vec(&sent).unwrap();
        self.send(person.ssi.handle(), Method::PUT, "/user", body).await
    }

    async fn upload(&self, person: &Person, at: usize, packages: &Vec<KeyPackageIn>) -> Response {
        let path = format!("/clients/{}/keyPackages", person.clients[at].0);
        self.send(person.ssi.handle(), Method::PUT, &path, encode(packages)).await
    }
}

fn mapping(person: &Person, issuer: &SigningKey) -> String {
    let (sub, iat) = (Identifier::parse(NUMBER, None).unwrap(), now());
    let text = consent_text(&sub, &person.ssi, "dp.example", iat);
    let mapping = Mapping {
        iss: "dp.example".into(),
        sub,
        ssi: person.ssi.clone(),
        jti: "1".into(),
        iat,
        exp: iat + 100 * DAY,
        proof: Proof::Sms,
        proof_at: iat,
        region: None,
        new_holder: false,
        tags: Vec::new(),
        user: Some(Consent::new(&text, &person.uk)),
        purpose: Purpose::Register,
    };
    mapping.sign(issuer)
}

fn problem(response: &Response) -> String {
    assert_eq!(response.headers["content-type"], "application/problem+json");
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    body["code"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_finds_asks_fetches_and_verifies() {
    let world = World::start().await;
    let bob = Person::new("bob", &["phone", "tablet"]);
    let stored = world.register(&bob, Policy::List, vec![mapping(&bob, &key(2))]).await;
    assert_eq!(stored.status, 204, "{}", String::from_utf8_lossy(&stored.body));
    for at in 0..2 {
        let packages = vec![bob.package(at, 20, false), bob.package(at, 20, true)];
        let stored = world.upload(&bob, at, &packages).await;
        assert_eq!(stored.status, 200, "{}", String::from_utf8_lossy(&stored.body));
    }
    let shown = world.send("bob", Method::GET, "/user", Vec::new()).await;
    let shown: UserShown = serde_json::from_slice(&shown.body).unwrap();
    let counts: Vec<_> =
        shown.clients.iter().map(|client| (&*client.id, client.available)).collect();
    assert_eq!(counts, [("phone", 1), ("tablet", 1)]);

    // A record without a handle.
    let (device, alice) = (world.device(), world.alice());
    let number = Identifier::parse(NUMBER, None).unwrap();
    assert!(device.find("b.example", &number).await.unwrap() == Some(bob.ssi.clone()));
    let other = Identifier::parse("+4915550100124", None).unwrap();
    assert!(device.find("b.example", &other).await.unwrap().is_none());
    let service = Reachable { ssi: None, ..bob.reachable() };
    let refused = device.fetch(&service, &bob.ssi, &alice, "").await.err().unwrap();
    assert!(matches!(refused, FetchError::NoConsent), "{refused}");
    device.ask_consent(&alice.user, &bob.ssi).await.unwrap();
    let consents = world.send("bob", Method::GET, "/consents", Vec::new()).await;
    let consents: ConsentsShown = serde_json::from_slice(&consents.body).unwrap();
    assert_eq!(consents.consents[0].requester, "mimi://a.example/u/alice");
    let grant = ConsentEntry {
        operation: ConsentOperation::Grant,
        requester: IdentifierUri::new(alice.user.as_str()),
        target: IdentifierUri::new(bob.ssi.as_str()),
        room: None,
        key_packages: Vec::new(),
    };
    let path = "/updateConsent/a.example";
    assert_eq!(world.send("bob", Method::POST, path, encode(&grant)).await.status, 201);
    let ready = device.fetch(&service, &bob.ssi, &alice, "").await.unwrap();
    assert_eq!(ready.clients.len(), 2);
    assert!(ready.clients.iter().all(|client| !client.last_resort));
    let again = device.fetch(&service, &bob.ssi, &alice, "").await.unwrap();
    assert!(again.clients.iter().all(|client| client.last_resort));
    // The record is of another key: no package is spent.
    let mut forged = bob.reachable();
    forged.key_hash = Some([0; 16]);
    let refused = device.fetch(&forged, &bob.ssi, &alice, "").await.err().unwrap();
    assert!(matches!(refused, FetchError::Refused(_)), "{refused}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_user_is_one_who_does_not_consent() {
    let world = World::start().await;
    for (name, policy) in [("none", Policy::None), ("list", Policy::List)] {
        let person = Person::new(name, &["phone"]);
        assert_eq!(world.register(&person, policy, Vec::new()).await.status, 204);
        world.upload(&person, 0, &vec![person.package(0, 5, false)]).await;
    }
    let device = world.device();
    let mut replies = Vec::new();
    for name in ["none", "list", "gone"] {
        let target = Ssi::new("b.example", name).unwrap();
        let request = request(&world.alice(), &target, "").unwrap();
        let reply = device.claim(&request).await.unwrap();
        let same = IdentifierUri::new(target.as_str()) == reply.user_uri;
        assert!(same && reply.user_status == KeyMaterialUserCode::NoConsent);
        let listed = device.client_list(&request).await.err().unwrap();
        assert!(matches!(listed, FetchError::NoConsent));
        device.ask_consent(&world.alice().user, &target).await.unwrap();
        let uri = IdentifierUri::new("");
        replies.push(encode(&KeyMaterialResponse { user_uri: uri, ..reply }));
    }
    assert!(replies.iter().all(|reply| *reply == replies[0]));
    world.end().await;
}

/// Seals a request as a relay gets it, and sends it to the service with this certificate.
async fn as_relay(world: &World, inner: &InnerRequest, with_certificate: bool) -> (Response, u16) {
    let identity = (world.made.client_pem.as_bytes(), world.made.client_key.as_bytes());
    let identity = with_certificate.then_some(identity);
    let client = Client::new(Some(world.made.ca_pem.as_bytes()), identity, LONG).unwrap();
    let list = client
        .send(Method::GET, &format!("{}/ohttp-keys", world.url), &[], Bytes::new(), 1 << 16)
        .await
        .unwrap();
    let list = std::str::from_utf8(&list.body).unwrap();
    let list = KeyList::open(list, &key(5).verifying_key(), now()).unwrap();
    let (capsule, opener) = seal(list.newest(), inner).unwrap();
    let headers = [("content-type", "message/ohttp-req")];
    let url = format!("{}/gateway", world.url);
    let reply = client.send(Method::POST, &url, &headers, capsule.into(), 1 << 16).await.unwrap();
    let inside = match reply.status {
        200 => opener.open(&reply.body).unwrap().status,
        _ => 0,
    };
    (reply, inside)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_refused_where_it_is_wrong() {
    let world = World::start().await;
    let bob = Person::new("bob", &["phone"]);
    world.register(&bob, Policy::All, Vec::new()).await;
    let signed = encode(&request(&world.alice(), &bob.ssi, "").unwrap());
    let inner = |path: &str, body: &[u8]| InnerRequest {
        method: "POST".into(),
        path: path.into(),
        content_type: None,
        body: body.to_vec(),
    };
    let path = format!("/keyMaterial/{}", crate::discovery::keys::encoded(bob.ssi.as_str()));
    let (reply, _) = as_relay(&world, &inner(&path, &signed), false).await;
    assert_eq!((reply.status, &*problem(&reply)), (403, "unknown_relay"));
    let mallory = Requester { user: Ssi::parse("mimi://m.example/u/m").unwrap(), ..world.alice() };
    let foreign = encode(&request(&mallory, &bob.ssi, "").unwrap());
    let mut forged = signed.clone();
    *forged.last_mut().unwrap() ^= 1;
    let cases: [(&str, &[u8], u16); 9] = [
        (&path, &signed, 200),
        (&path, &foreign, 403),
        (&path, &forged, 403),
        (&path, &signed[..signed.len() - 1], 400),
        (&path, b"", 400),
        (&path, b"\x02whatever", 200),
        ("/keyMaterial/mimi%3A%2F%2Fb.example%2Fu%2Feve", &signed, 400),
        ("/keyMaterial/%4", &signed, 400),
        ("/update/room", b"", 404),
    ];
    for (path, body, status) in cases {
        let (reply, inside) = as_relay(&world, &inner(path, body), true).await;
        assert_eq!((reply.status, inside), (200, status), "{path}");
    }
    let mut get = inner(&path, &signed);
    get.method = "GET".into();
    assert_eq!(as_relay(&world, &get, true).await.1, 405);
    // Users.
    let bearer = format!("Bearer {}", token(&key(8), "bob"));
    let headers = [("authorization", &*bearer)];
    let url = format!("{}/user", world.url);
    let reply =
        world.direct.send(Method::GET, &url, &headers, Bytes::new(), 1 << 16).await.unwrap();
    assert_eq!((reply.status, &*problem(&reply)), (401, "account"));
    let eve = Person::new("eve", &["phone"]);
    let reply = world.register(&bob, Policy::All, vec![mapping(&bob, &key(3))]).await;
    assert_eq!((reply.status, &*problem(&reply)), (422, "mapping"));
    let reply = world.register(&bob, Policy::All, vec![mapping(&eve, &key(2))]).await;
    assert_eq!((reply.status, &*problem(&reply)), (422, "mapping"));
    let other = world.send("eve", Method::GET, "/user", Vec::new()).await;
    assert_eq!(other.body, r#"{"clients":[]}"#);
    let text =
        world.control.samples().iter().map(|sample| format!("{sample:?}")).collect::<String>();
    assert!(!text.contains("bob") && !text.contains("alice"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requesters_and_relays_have_limits_and_files_are_read_again() {
    let world = World::start().await;
    let bob = Person::new("bob", &["phone"]);
    world.register(&bob, Policy::None, Vec::new()).await;
    let device = world.device();
    let request = request(&world.alice(), &bob.ssi, "").unwrap();
    for _ in 0..20 {
        device.claim(&request).await.unwrap();
    }
    let limited = device.claim(&request).await.err().unwrap();
    let FetchError::Service { status: 429, retry_after: Some(1..=3_600) } = limited else {
        panic!("{limited}");
    };
    let number = Identifier::parse(NUMBER, None).unwrap();
    for _ in 0..20 {
        assert!(device.find("b.example", &number).await.unwrap().is_none());
    }
    let limited = device.find("b.example", &number).await.err().unwrap();
    assert!(matches!(limited, FetchError::Service { status: 429, .. }), "{limited}");
    world.control.reload().unwrap();
    assert_eq!(world.control.readiness().missing, Vec::<String>::new());
    // A week later there is another OHTTP key: a device that has the old one fetches it.
    world.clock.fetch_add(10 * DAY, Ordering::Relaxed);
    world.control.reload().unwrap();
    device.claim(&request).await.unwrap();
    std::fs::write(world.folder.path().join("jwks.json"), "{}").unwrap();
    let wrong = world.control.reload().unwrap_err();
    assert!(wrong.contains("jwks.json"), "{wrong}");
    device.claim(&request).await.unwrap();
    world.end().await;
}
