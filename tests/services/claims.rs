//! Key packages claimed from a real key service over PostgreSQL, sealed, as relays pass claims on:
//! how many a second, and that none is given twice, also by one that is killed in between.
//!
//! By default there are few. For a measurement `SOTTO_LOAD` is the number of users and of the
//! packages of each; `bench/registration.sh` does it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer as _, SigningKey};
use http::Method;
use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, KeyPackageIn, Lifetime,
    RequiredCapabilitiesExtension, SignatureScheme,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use serde_json::json;
use sotto::discovery::directory::{Pins, Provider, draft};
use sotto::discovery::jws::base64url;
use sotto::discovery::keys::clients::{ClientList, ListedClient};
use sotto::discovery::keys::fetch::{Requester, request};
use sotto::discovery::keys::mimi::{
    ClientKeyMaterial, KeyMaterialResponse, KeyMaterialUserCode, encode,
};
use sotto::discovery::keys::{TLS_TYPE, encoded};
use sotto::discovery::sealed::capsule::{InnerRequest, Opener, seal};
use sotto::discovery::sealed::keys::KeyList;
use sotto::discovery::statement::Ssi;
use sotto::https::Client;
use sotto::registrar::keys::{Config, KeyService, UserSettings, store::Policy};
use tls_codec::DeserializeBytes as _;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::postgres::Postgres;
use crate::postgres::said::{load_size, say};
use crate::world::{Certificates, LONG, clock_now};

/// Users, and packages of each, without a measurement.
const FEW: usize = 4;
/// Claims at once, each over a connection of its own.
const WORKERS: usize = 32;
const DAY: u64 = 86_400;
const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// A key service of `b.example`, and the relay of `a.example`.
struct Place {
    folder: tempfile::TempDir,
    certificates: Certificates,
    database: String,
    _postgres: Postgres,
}

/// A claim, sealed, and what opens the reply.
type Sealed = (Vec<u8>, Opener);

impl Place {
    async fn new() -> Option<Self> {
        if !Postgres::is_there() {
            return None;
        }
        let postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap()?;
        let (folder, certificates) = (tempfile::tempdir().unwrap(), Certificates::new());
        let place =
            Self { folder, certificates, database: postgres.database(), _postgres: postgres };
        let (cert, tls_key) = place.certificates.leaf(&["localhost"]);
        place.write("cert.pem", &cert);
        place.write("key.pem", &tls_key);
        place.write("ca.pem", &place.certificates.ca_pem);
        let x = base64url(key(7).verifying_key().as_bytes());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": x});
        place.write("accounts.jwks", &json!({ "keys": [jwk] }).to_string());
        place.write("identity.pem", &key(5).to_pkcs8_pem(LineEnding::LF).unwrap());
        let mut content = draft::new(1, vec![key(1).verifying_key().into()]).unwrap();
        let (domain, name) = ("b.example".to_owned(), "B".to_owned());
        let keys_url = "https://keys.b.example/".to_owned();
        let provider = Provider { index: 0, domain, name, keys_url, keys_identity: None };
        draft::add_provider(&mut content, provider).unwrap();
        let content = draft::next(content, None, clock_now() + 30 * DAY).unwrap();
        place.write("directory.json", &draft::sign(&content, &[key(1)]).unwrap());
        place.write("pins.json", &Pins::new(1, content.roots.clone()).unwrap().to_json());
        let path = |name: &str| place.folder.path().join(name).display().to_string();
        let config = format!(
            "listen = '127.0.0.1:0'\ncert = '{}'\nkey = '{}'\nclient-ca = '{}'\n\
             database = '{}'\ndomain = 'b.example'\naccounts = '{}'\nohttp-keys = '{}'\n\
             identity = '{}'\nidentifiers-key = '{}'\ndirectory = '{}'\ndirectory-pins = '{}'\n\
             [[relay]]\nname = 'relay.a.example'\ndomains = ['a.example']\n",
            path("cert.pem"),
            path("key.pem"),
            path("ca.pem"),
            place.database,
            path("accounts.jwks"),
            path("ohttp"),
            path("identity.pem"),
            path("identifiers.key"),
            path("directory.json"),
            path("pins.json"),
        );
        place.write("keys.toml", &config);
        Some(place)
    }

    fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The service in this process.
    async fn start(&self) -> SocketAddr {
        let config = Config::read(&self.folder.path().join("keys.toml")).unwrap();
        let clock = sotto::relay::system_clock();
        let service = KeyService::start(config, None, clock).await.unwrap();
        let address = service.local_addr();
        tokio::spawn(service.run(std::future::pending()));
        address
    }

    /// The service as a process, which is killed when it is dropped.
    async fn spawn(&self) -> (SocketAddr, tokio::process::Child) {
        use tokio::io::AsyncBufReadExt as _;
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sotto"));
        command.args(["keys", "serve", "--admin", "off", "--config"]);
        command.arg(self.folder.path().join("keys.toml")).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        let mut output = tokio::io::BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).await.unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}"));
        (address.parse().unwrap(), child)
    }

    /// The relay, or with no name a user's device.
    fn client(&self, name: Option<&str>) -> Client {
        let leaf = name.map(|name| self.certificates.leaf(&[name]));
        let identity = leaf.as_ref().map(|(cert, key)| (cert.as_bytes(), key.as_bytes()));
        Client::new(Some(self.certificates.ca_pem.as_bytes()), identity, LONG).unwrap()
    }

    /// Stores a user with so many packages.
    async fn store(&self, address: SocketAddr, device: &Client, handle: &str, count: usize) {
        let (ssi, uk) = (Ssi::new("b.example", handle).unwrap(), key(9));
        let signer = SignatureKeyPair::new(SignatureScheme::ED25519).unwrap();
        let (now, client) = (clock_now(), "phone".to_owned());
        let list = ClientList {
            sub: ssi.clone(),
            clients: vec![ListedClient { id: client.clone(), key: signer.to_public_vec() }],
            iat: now,
            exp: now + 100 * DAY,
            version: 1,
        };
        let settings = UserSettings {
            uk: base64url(uk.verifying_key().as_bytes()),
            clients: list.sign(&uk),
            policy: Policy::All,
            mappings: Vec::new(),
        };
        let owner = CredentialWithKey {
            credential: BasicCredential::new(ssi.as_str().as_bytes().to_vec()).into(),
            signature_key: signer.public().into(),
        };
        let mls = OpenMlsRustCrypto::default();
        let package = |_| {
            let lifetime = Lifetime::init(now - 60, now + 30 * DAY);
            let builder = KeyPackage::builder().key_package_lifetime(lifetime);
            let bundle = builder.build(SUITE, &mls, &signer, owner.clone()).unwrap();
            bundle.key_package().clone().into()
        };
        let packages: Vec<KeyPackageIn> = (0..count).map(package).collect();
        let header = json!({"alg": "EdDSA", "kid": "one"}).to_string();
        let claims = json!({"sub": handle, "exp": now + DAY}).to_string();
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let signature = base64url(&key(7).sign(signed.as_bytes()).to_bytes());
        let bearer = format!("Bearer {signed}.{signature}");
        for (path, body, status) in [
            ("/user".to_owned(), serde_json::to_vec(&settings).unwrap(), 204),
            (format!("/clients/{client}/keyPackages"), encode(&packages), 200),
        ] {
            let url = format!("https://localhost:{}{path}", address.port());
            let headers = [("authorization", &*bearer)];
            let reply = device.send(Method::PUT, &url, &headers, body.into(), 1 << 20).await;
            let reply = reply.unwrap();
            assert_eq!(reply.status, status, "{}", String::from_utf8_lossy(&reply.body));
        }
    }

    /// Sealed claims of these users, each by another requester.
    async fn claims(
        &self,
        address: SocketAddr,
        handles: impl Iterator<Item = String>,
    ) -> Vec<Mutex<Option<Sealed>>> {
        let url = format!("https://localhost:{}/ohttp-keys", address.port());
        let client = self.client(None);
        let list = client.send(Method::GET, &url, &[], Bytes::new(), 1 << 16).await.unwrap();
        let list = std::str::from_utf8(&list.body).unwrap();
        let list = KeyList::open(list, &key(5).verifying_key(), clock_now()).unwrap();
        let signer = SignatureKeyPair::new(SignatureScheme::ED25519).unwrap();
        let seal = |(number, handle): (usize, String)| {
            let target = Ssi::new("b.example", &handle).unwrap();
            let requester = Requester {
                user: Ssi::new("a.example", &format!("requester{number}")).unwrap(),
                signer: &signer,
                suites: vec![SUITE],
                required: RequiredCapabilitiesExtension::default(),
            };
            let inner = InnerRequest {
                method: "POST".to_owned(),
                path: format!("/keyMaterial/{}", encoded(target.as_str())),
                content_type: Some(TLS_TYPE.to_owned()),
                body: encode(&request(&requester, &target, "").unwrap()),
            };
            Mutex::new(Some(seal(list.newest(), &inner).unwrap()))
        };
        handles.enumerate().map(seal).collect()
    }
}

/// The package that a claim is given; none where there is no reply.
async fn claim(client: &Client, address: SocketAddr, sealed: Sealed) -> Option<Vec<u8>> {
    let (capsule, opener) = sealed;
    let url = format!("https://localhost:{}/gateway", address.port());
    let headers = [("content-type", "message/ohttp-req")];
    let reply = client.send(Method::POST, &url, &headers, capsule.into(), 1 << 16).await.ok()?;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let inside = opener.open(&reply.body).unwrap();
    assert_eq!(inside.status, 200, "{}", String::from_utf8_lossy(&inside.body));
    let reply = KeyMaterialResponse::tls_deserialize_exact_bytes(&inside.body).unwrap();
    assert_eq!(reply.user_status, KeyMaterialUserCode::Success);
    match &reply.clients[..] {
        [ClientKeyMaterial::Success { key_package, .. }] => Some(encode(&**key_package)),
        _ => panic!("one package was expected"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_a_second() {
    let Some(place) = Place::new().await else { return };
    let (size, address) = (load_size(FEW), place.start().await);
    let device = place.client(None);
    for user in 0..size {
        place.store(address, &device, &format!("user{user}"), size).await;
    }
    // Neighbours ask for different users.
    let handles = (0..size * size).map(|at| format!("user{}", at % size));
    let claims = Arc::new(place.claims(address, handles).await);
    let next = Arc::new(AtomicUsize::new(0));
    let (mut workers, begun) = (JoinSet::new(), Instant::now());
    for _ in 0..WORKERS {
        let (client, claims, next) =
            (place.client(Some("relay.a.example")), claims.clone(), next.clone());
        workers.spawn(async move {
            let mut done = Vec::new();
            while let Some(sealed) = claims.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (sealed, began) = (sealed.lock().await.take().unwrap(), Instant::now());
                let package = claim(&client, address, sealed).await.unwrap();
                done.push((began.elapsed(), package));
            }
            done
        });
    }
    let done: Vec<_> = workers.join_all().await.into_iter().flatten().collect();
    let seconds = begun.elapsed().as_secs_f64();
    let (mut times, packages): (Vec<_>, HashSet<_>) = done.into_iter().unzip();
    assert_eq!((times.len(), packages.len()), (size * size, size * size), "each was given once");
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    say(&format!(
        "record: {} claims in {seconds:.2} s: {:.0} a second, {WORKERS} at once; 50% in {:.1} ms, \
         99% in {:.1} ms",
        times.len(),
        times.len() as f64 / seconds,
        at(50),
        at(99)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_killed_gives_no_package_twice() {
    const ROUNDS: usize = 6;
    const PACKAGES: usize = 90;
    let Some(place) = Place::new().await else { return };
    let (address, mut child) = place.spawn().await;
    place.store(address, &place.client(None), "bob", PACKAGES).await;
    let handles = (0..PACKAGES).map(|_| "bob".to_owned());
    let claims = place.claims(address, handles).await;
    let mut claims = claims.into_iter().map(|sealed| sealed.into_inner().unwrap());
    let (mut address, mut given, mut lost) = (address, Vec::new(), 0);
    for round in 0..ROUNDS {
        let client = place.client(Some("relay.a.example"));
        let mut asking = JoinSet::new();
        for sealed in claims.by_ref().take(PACKAGES / ROUNDS) {
            let client = client.clone();
            asking.spawn(async move { claim(&client, address, sealed).await });
        }
        // Before, while and after they are answered.
        tokio::time::sleep(Duration::from_millis(12 * round as u64)).await;
        child.kill().await.unwrap();
        for package in asking.join_all().await {
            match package {
                Some(package) => given.push(package),
                None => lost += 1,
            }
        }
        (address, child) = place.spawn().await;
    }
    assert_eq!(given.len() + lost, PACKAGES);
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len(), "one was given twice");
    say(&format!("record: {} packages given, {lost} claims without a reply", given.len()));
}
