//! Claims of key packages at a key service with PostgreSQL, as a relay passes them on: over TLS
//! with the relay's certificate, each sealed to the service and signed by a requester of its own.
//! Those are made before the clock starts, and replies are opened after it has stopped. By default
//! these are a few. For a measurement `SOTTO_LOAD` is their number in a second, for 20 seconds; to
//! be run alone and optimised: `SOTTO_LOAD=1000 cargo test --release --features registration --test
//! services claims:: -- --nocapture` (`bench/registration.sh`).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use axum::body::Bytes;
use axum::http::Method;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use openmls::prelude::{Ciphersuite, RequiredCapabilitiesExtension, SignatureScheme};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use serde_json::json;
use sotto::discovery::jws::base64url;
use sotto::discovery::keys::clients::{ClientList, ListedClient};
use sotto::discovery::keys::fetch::{Requester, request};
use sotto::discovery::keys::mimi::{
    ClientKeyMaterial, KeyMaterialResponse, KeyMaterialUserCode, encode,
};
use sotto::discovery::keys::packages::{Package, make};
use sotto::discovery::keys::{TLS_TYPE, encoded};
use sotto::discovery::sealed::capsule::{InnerRequest, Opener, seal_to};
use sotto::discovery::sealed::keys::KeyList;
use sotto::discovery::statement::Ssi;
use sotto::https::{Client, HttpsError, Response};
use sotto::limits::keys::{KEY_PACKAGES_MAX, KEY_REQUEST_STEP_BYTES};
use sotto::registrar::keys::store::{MIGRATIONS, Policy, Settings, put_packages, set_user};
use sotto::registrar::keys::{Config, KeyService};
use sotto::registrar::service::system_clock;
use tls_codec::{DeserializeBytes as _, Serialize as _};
use tokio::task::JoinSet;

use crate::Store;
use crate::postgres::said::say;
use crate::timed::{Load, Watch};
use crate::world::{LONG, Process, World, clock_now, other_key};

/// Claims without a measurement, and how many begin in a second then.
const FEW: Load = Load { count: 16, rate: 1_000 };
/// Packages of a user without one.
const FEW_PACKAGES: usize = 4;
/// Connections of the relay: as many as a client keeps.
const CONNECTIONS: usize = 64;
const RELAY: &str = "relay.a.example";
const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const DAY: u64 = 86_400;

/// A key service that answers a relay.
struct KeyWorld {
    world: World,
    store: Store,
    url: String,
    /// The relay, with its certificate.
    relay: Client,
    /// What requests are sealed to.
    key: Vec<u8>,
    /// Of every requester's client.
    signer: SignatureKeyPair,
}

/// A claim as the relay passes it on.
struct Claim {
    capsule: Bytes,
    opener: Opener,
}

impl KeyWorld {
    async fn start() -> Option<Self> {
        let world = World::with_postgres().await?;
        let config = Config::read(&write_config(&world)).unwrap();
        let service = KeyService::start(config, None, system_clock()).await.unwrap();
        let url = format!("https://localhost:{}", service.local_addr().port());
        tokio::spawn(service.run(std::future::pending()));
        Some(Self::new(world, url).await)
    }

    /// A relay of a service that answers at `url`.
    async fn new(world: World, url: String) -> Self {
        let store = Store::open(&world.database, 4, MIGRATIONS).await.unwrap();
        let (cert, key) = world.certificates.leaf(&[RELAY]);
        let ca = world.certificates.ca_pem.as_bytes();
        let relay = Client::new(Some(ca), Some((cert.as_bytes(), key.as_bytes())), LONG).unwrap();
        let keys = format!("{url}/ohttp-keys");
        let list = relay.send(Method::GET, &keys, &[], Bytes::new(), 1 << 16).await.unwrap();
        let list = std::str::from_utf8(&list.body).unwrap();
        let list = KeyList::open(list, &identity().verifying_key(), clock_now()).unwrap();
        let key = list.newest().to_vec();
        let signer = SignatureKeyPair::new(SignatureScheme::ED25519).unwrap();
        Self { world, store, url, relay, key, signer }
    }

    /// Stores a user with one client, which has so many packages, for everybody.
    async fn user(&self, handle: &str, packages: usize) -> Ssi {
        let (ssi, now) = (Ssi::new("b.example", handle).unwrap(), clock_now());
        let signer = SignatureKeyPair::new(SignatureScheme::ED25519).unwrap();
        let uk = other_key();
        let client = ListedClient { id: "phone".into(), key: signer.to_public_vec() };
        let (exp, clients) = (now + 100 * DAY, vec![client]);
        let list = ClientList { sub: ssi.clone(), clients, iat: now, exp, version: 1 };
        let settings = Settings {
            uk: base64url(uk.verifying_key().as_bytes()),
            text: list.sign(&uk),
            list,
            policy: Policy::All,
            identifiers: Vec::new(),
        };
        set_user(&self.store, &settings, now).await.unwrap();
        let (mls, times) = (OpenMlsRustCrypto::default(), (now - 60, now + 30 * DAY));
        let package = |_| {
            let made = make(&mls, SUITE, &signer, ssi.as_str(), times, false).unwrap();
            Package::validate(made, now).unwrap()
        };
        let packages: Vec<Package> = (0..packages).map(package).collect();
        put_packages(&self.store, (&ssi, "phone"), &packages, now).await.unwrap();
        ssi
    }

    /// A claim of a requester.
    fn claim(&self, requester: &str, target: &Ssi) -> Claim {
        let requester = Requester {
            user: Ssi::new("a.example", requester).unwrap(),
            signer: &self.signer,
            suites: vec![SUITE],
            required: RequiredCapabilitiesExtension::default(),
        };
        let inner = InnerRequest {
            method: "POST".into(),
            path: format!("/keyMaterial/{}", encoded(target.as_str())),
            content_type: Some(TLS_TYPE.into()),
            body: encode(&request(&requester, target, "").unwrap()),
        };
        // As long as one that a device pads.
        let (capsule, opener) = seal_to(&self.key, &inner, KEY_REQUEST_STEP_BYTES).unwrap();
        Claim { capsule: capsule.into(), opener }
    }

    /// Passes a capsule on.
    fn pass(&self, capsule: Bytes) -> impl Future<Output = Response> + use<> {
        let passed = self.try_pass(capsule);
        async { passed.await.unwrap() }
    }

    fn try_pass(
        &self,
        capsule: Bytes,
    ) -> impl Future<Output = Result<Response, HttpsError>> + use<> {
        let (relay, url) = (self.relay.clone(), format!("{}/gateway", self.url));
        async move {
            let headers = [("content-type", "message/ohttp-req")];
            relay.send(Method::POST, &url, &headers, capsule, 1 << 16).await
        }
    }

    /// Opens the connections that a relay keeps: each answers a request.
    async fn connect(&self) {
        let mut asking = JoinSet::new();
        for _ in 0..CONNECTIONS {
            asking.spawn(self.pass(Bytes::from_static(b"no capsule")));
        }
        assert!(asking.join_all().await.iter().all(|reply| reply.status == 400));
    }
}

/// The key that signs what is sealed to.
fn identity() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

/// Writes the files of a key service.
fn write_config(world: &World) -> PathBuf {
    write_secret(world, "identity.pem", &identity().to_pkcs8_pem(LineEnding::LF).unwrap());
    let x = base64url(other_key().verifying_key().as_bytes());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": x});
    world.write("jwks.json", &json!({"keys": [jwk]}).to_string());
    let path = |name: &str| world.path(name).display().to_string();
    let config = format!(
        "listen = '127.0.0.1:0'\ncert = '{}'\nkey = '{}'\nclient-ca = '{}'\ndatabase = '{}'\n\
         domain = 'b.example'\naccounts = '{}'\nohttp-keys = '{}'\nidentity = '{}'\n\
         identifiers-key = '{}'\ndirectory = '{}'\ndirectory-pins = '{}'\n\
         [[relay]]\nname = '{RELAY}'\ndomains = ['a.example']\n",
        path("cert.pem"),
        path("key.pem"),
        path("ca.pem"),
        world.database,
        path("jwks.json"),
        path("ohttp"),
        path("identity.pem"),
        path("identifiers.key"),
        path("directory.json"),
        path("pins.json"),
    );
    world.write("keys.toml", &config);
    world.path("keys.toml")
}

fn write_secret(world: &World, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    world.write(name, text);
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(world.path(name), mode).unwrap();
}

/// The one package of a reply.
fn package_of(opener: Opener, reply: &Response) -> Vec<u8> {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let inner = opener.open(&reply.body).unwrap();
    assert_eq!(inner.status, 200, "{}", String::from_utf8_lossy(&inner.body));
    let response = KeyMaterialResponse::tls_deserialize_exact_bytes(&inner.body).unwrap();
    assert_eq!(response.user_status, KeyMaterialUserCode::Success);
    let [ClientKeyMaterial::Success { key_package, .. }] = &response.clients[..] else {
        panic!("another reply than one package");
    };
    key_package.tls_serialize_detached().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn claims() {
    let Some(keys) = KeyWorld::start().await else { return };
    let load = Load::or_few(FEW.count, FEW.rate);
    let count = load.count as usize;
    let each = if count > FEW.count as usize { KEY_PACKAGES_MAX } else { FEW_PACKAGES };
    let mut users = Vec::new();
    for at in 0..count.div_ceil(each) {
        users.push(keys.user(&format!("user{at}"), each).await);
    }
    // Neighbours ask for different users.
    let claims = (0..count).map(|at| keys.claim(&format!("r{at}"), &users[at % users.len()]));
    let (mut capsules, mut openers) = (Vec::new(), Vec::new());
    for Claim { capsule, opener } in claims {
        capsules.push(capsule);
        openers.push(opener);
    }
    keys.connect().await;
    let watch = Watch::start();
    let pass = |index: u32, due: Instant| {
        let passed = keys.pass(capsules[index as usize].clone());
        async move {
            let reply = passed.await;
            (index as usize, due.elapsed(), reply)
        }
    };
    let mut done = load.run(CONNECTIONS, pass).await;
    say(&watch.line("claims", done.iter().map(|(_, time, _)| *time).collect()));
    done.sort_unstable_by_key(|(index, _, _)| *index);
    let opened = openers.into_iter().zip(&done);
    let packages: HashSet<_> =
        opened.map(|(opener, (_, _, reply))| package_of(opener, reply)).collect();
    assert_eq!(packages.len(), count, "a package was handed out twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_claimers_of_one_user_at_once_get_distinct_packages() {
    let Some(keys) = KeyWorld::start().await else { return };
    let user = keys.user("crowded", KEY_PACKAGES_MAX).await;
    let mut passing = JoinSet::new();
    for at in 0..KEY_PACKAGES_MAX {
        let Claim { capsule, opener } = keys.claim(&format!("r{at}"), &user);
        let passed = keys.pass(capsule);
        passing.spawn(async move { package_of(opener, &passed.await) });
    }
    let packages: HashSet<_> = passing.join_all().await.into_iter().collect();
    assert_eq!(packages.len(), KEY_PACKAGES_MAX);
    say(&format!("{} claimers of one user: {} packages", KEY_PACKAGES_MAX, packages.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_killed_gives_no_package_twice() {
    const ROUNDS: usize = 6;
    let Some(world) = World::with_postgres().await else { return };
    let config = write_config(&world);
    let start = |config: &Path| {
        let config = config.to_str().unwrap();
        let process = Process::start(&["keys", "serve", "--admin", "off", "--config", config]);
        let url = format!("https://localhost:{}", process.address.port());
        (process, url)
    };
    let (mut process, url) = start(&config);
    let mut keys = KeyWorld::new(world, url).await;
    let user = keys.user("bob", KEY_PACKAGES_MAX).await;
    let (mut given, mut lost) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        let mut passing = JoinSet::new();
        for at in 0..KEY_PACKAGES_MAX / ROUNDS {
            let Claim { capsule, opener } = keys.claim(&format!("r{round}x{at}"), &user);
            let passed = keys.try_pass(capsule);
            passing.spawn(async move { passed.await.ok().map(|reply| package_of(opener, &reply)) });
        }
        let mut take = |package: Option<Vec<u8>>| match package {
            Some(package) => given.push(package),
            None => lost += 1,
        };
        // Before any is answered, and in each round after more of them were.
        for _ in 0..2 * round {
            take(passing.join_next().await.unwrap().unwrap());
        }
        process.kill();
        passing.join_all().await.into_iter().for_each(take);
        (process, keys.url) = start(&config);
    }
    assert!(given.len() >= ROUNDS * (ROUNDS - 1) && given.len() + lost <= KEY_PACKAGES_MAX);
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len(), "one was given twice");
    say(&format!("{} packages given, {lost} claims without a reply", given.len()));
}
