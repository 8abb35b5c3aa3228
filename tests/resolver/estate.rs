//! Real parties on real sockets: answer servers, an evaluator, a front-end and a relay, with the
//! databases, keys and certificates that they share. [`Chain`] runs all of them in this process,
//! with a clock of its own and a recorder on every link; [`super::programs`] runs them as programs.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ed25519_dalek::pkcs8::{EncodePrivateKey as _, spki::der::pem::LineEnding};
use serde_json::json;
use sotto::discovery::jws::{base64url, key_id, sign};
use sotto::discovery::resolver::{Options, Resolver};
use sotto::discovery::sealed::capsule::InnerRequest;
use sotto::engine::{EngineChoice, IsaChoice, select};
use sotto::front_end::keys::Keyring;
use sotto::front_end::pool::PoolOptions;
use sotto::front_end::{self, FrontEnd};
use sotto::https::{Client, Sample, TlsFiles};
use sotto::relay::{self, AccountsFrom, FrontEndFiles, Relay};
use sotto::server::certificates::LocalCertificates;
use zeroize::Zeroizing;

use crate::harness::{Recorder, Serving, Setting};
use crate::links::{Exchange, Link, Tap, wide};
use crate::world::{DAY, Fixture, ONE, TWO, fixture, key, now};

/// The account of all devices here.
pub(crate) const ACCOUNT: &str = "account-of-alice";
const LONG: Duration = Duration::from_secs(60);
/// No canary comes before a test has ended.
const NEVER: Duration = Duration::from_secs(3_600);

/// What all parties share, in the folder of the databases.
pub(crate) struct Estate(&'static Fixture);

pub(crate) fn estate() -> &'static Estate {
    static ESTATE: LazyLock<Estate> = LazyLock::new(|| {
        let estate = Estate(fixture());
        estate.write_files();
        estate
    });
    &ESTATE
}

/// An account's token for a year and more.
pub(crate) fn token(account: &str) -> String {
    let claims = json!({ "sub": account, "exp": now() + 400 * DAY });
    sign("JWT", claims.to_string().as_bytes(), &key("accounts"))
}

/// A database in a placement file: where its servers are, and who evaluates.
pub(crate) fn placed(id: &str, servers: &[SocketAddr], evaluate: Option<&str>) -> String {
    let evaluate = evaluate.map(|url| format!("evaluate = \"{url}\"\n")).unwrap_or_default();
    let server = |address: &SocketAddr| {
        format!("[[database.server]]\naddress = \"{address}\"\nname = \"localhost\"\n")
    };
    let servers: String = servers.iter().map(server).collect();
    format!("[[database]]\nid = \"{id}\"\n{evaluate}{servers}")
}

impl Estate {
    pub(crate) fn folder(&self) -> &Path {
        self.0.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(crate) fn certificates(&self) -> &LocalCertificates {
        &self.0.certificates
    }

    fn write_files(&self) {
        let write = |name: &str, text: &str| std::fs::write(self.path(name), text).unwrap();
        let made = self.certificates();
        write("ca.pem", &made.ca_pem);
        write("client.pem", &made.client_pem);
        write("client.key", &made.client_key);
        write("identity.pem", &key("front-end").to_pkcs8_pem(LineEnding::LF).unwrap());
        write("front-end.pub", &base64url(key("front-end").verifying_key().as_bytes()));
        write("directory.json", &Fixture::sign(&self.0.content));
        write("pins.json", &Fixture::pins().to_json());
        write("relays", "client.localhost 1000000 1000000\n");
        write("token", &token(ACCOUNT));
        let public = key("accounts").verifying_key();
        let (x, kid) = (base64url(public.as_bytes()), key_id(&public));
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x });
        write("accounts.jwks", &json!({ "keys": [jwk] }).to_string());
        self.0.blind_key.create(&self.path("blind.key")).unwrap();
    }

    /// A certificate, and the authority of whoever connects.
    pub(crate) fn tls(&self, client_ca: bool) -> TlsFiles {
        TlsFiles {
            cert: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: client_ca.then(|| self.path("ca.pem")),
        }
    }

    /// One that shows the certificate of the relay and the front-end.
    pub(crate) fn client(&self) -> Client {
        let LocalCertificates { ca_pem, client_pem, client_key, .. } = self.certificates();
        let identity = Some((client_pem.as_bytes(), client_key.as_bytes()));
        Client::new(Some(ca_pem.as_bytes()), identity, LONG).unwrap()
    }

    /// A front-end with its OHTTP keys and its placement in a folder; one that evaluates has the
    /// blinding key.
    pub(crate) fn front_end(
        &self,
        folder: &Path,
        placement: &str,
        evaluates: bool,
        clock: Arc<AtomicU64>,
    ) -> front_end::Options {
        let placement_file = folder.join("placement.toml");
        std::fs::write(&placement_file, placement).unwrap();
        let LocalCertificates { ca_pem, client_pem, client_key, .. } = self.certificates();
        let mut pool = PoolOptions::new(ca_pem.clone().into_bytes());
        let client_key = Zeroizing::new(client_key.clone().into_bytes());
        pool.identity_pem = Some((client_pem.clone().into_bytes(), client_key));
        pool.records_per_shard_min = 1;
        pool.canary_mean = NEVER;
        let blind_key = evaluates.then(|| (ONE.to_owned(), self.path("blind.key")));
        front_end::Options {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: self.tls(true),
            bounds: wide(),
            keys: folder.join("ohttp-keys"),
            identity: self.path("identity.pem"),
            relays: self.path("relays"),
            directory: self.path("directory.json"),
            directory_pins: self.path("pins.json"),
            placement: placement_file,
            blind_keys: blind_key.into_iter().collect(),
            evaluate_ca: None,
            pool,
            memory_bytes: sotto::limits::FRONT_END_MEMORY_BYTES,
            resolve_bytes: None,
            clock: Arc::new(move || clock.load(Ordering::SeqCst)),
        }
    }

    /// A relay in front of a front-end, with what it counts in a folder.
    pub(crate) fn relay(
        &self,
        folder: &Path,
        front_end: String,
        clock: Arc<AtomicU64>,
    ) -> relay::Options {
        relay::Options {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: self.tls(false),
            front_end: FrontEndFiles {
                url: front_end,
                ca: self.path("ca.pem"),
                cert: self.path("client.pem"),
                key: self.path("client.key"),
                time: sotto::limits::RELAY_FORWARD_TIME,
            },
            key_services: None,
            accounts: AccountsFrom::Jwks { file: self.path("accounts.jwks"), audience: None },
            evaluate: "1024,128/day".parse().unwrap(),
            lookup: "2048,512/day".parse().unwrap(),
            state: folder.join("relay-state"),
            memory_bytes: sotto::limits::RELAY_MEMORY_BYTES,
            forwards: sotto::limits::RELAY_FORWARDS_MAX,
            bounds: wide(),
            clock: Arc::new(move || clock.load(Ordering::SeqCst)),
        }
    }

    /// What a device of [`ACCOUNT`] is given.
    pub(crate) fn device(&self, relay: String, state: PathBuf, clock: Arc<AtomicU64>) -> Options {
        let token = token(ACCOUNT);
        let token = Box::new(move || token.clone());
        Options { token, ..self.0.device(relay, state, clock) }
    }

    /// What a device asked, opened with the keys of its front-end.
    pub(crate) fn opened(
        &self,
        keys: &Path,
        now: u64,
        exchanges: &[Exchange],
    ) -> Vec<InnerRequest> {
        let ring = Keyring::open(keys, &key("front-end"), now).unwrap();
        let sealed = exchanges.iter().filter(|exchange| exchange.path == "/gateway");
        sealed.map(|exchange| ring.gateway.open(&exchange.body).unwrap().0).collect()
    }
}

/// A front-end in this process.
pub(crate) struct FrontEndHere {
    pub(crate) address: SocketAddr,
    pub(crate) control: front_end::Control,
}

pub(crate) async fn start_front_end(options: front_end::Options) -> FrontEndHere {
    let front_end = FrontEnd::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    let (address, control) = (front_end.local_addr(), front_end.control());
    tokio::spawn(front_end.run(std::future::pending()));
    FrontEndHere { address, control }
}

/// A relay in this process.
pub(crate) struct RelayHere {
    pub(crate) address: SocketAddr,
    pub(crate) control: relay::Control,
}

pub(crate) async fn start_relay(options: relay::Options) -> RelayHere {
    let relay = Relay::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    let (address, control) = (relay.local_addr(), relay.control());
    tokio::spawn(relay.run(std::future::pending()));
    RelayHere { address, control }
}

/// The sum of the samples of this name that have these values of labels.
pub(crate) fn value(samples: &[Sample], name: &str, labels: &[&str]) -> f64 {
    let has = |sample: &Sample| {
        labels.iter().all(|label| sample.labels.iter().any(|(_, value)| value == label))
    };
    let mut found = samples.iter().filter(|sample| sample.name == name && has(sample)).peekable();
    assert!(found.peek().is_some(), "no sample {name} {labels:?}");
    found.map(|sample| sample.value).sum()
}

/// A link that has both: every byte of TCP, and what is inside TLS.
pub(crate) struct Recorded {
    pub(crate) tap: Tap,
    pub(crate) link: Link,
}

impl Recorded {
    async fn start(to: SocketAddr, tls: &TlsFiles, client: Client) -> Self {
        let link = Link::start(to, tls, client).await;
        Self { tap: Tap::start(link.address).await, link }
    }
}

/// All parties in this process, with a recorder on every link.
pub(crate) struct Chain {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) to_relay: Recorded,
    pub(crate) relay: RelayHere,
    pub(crate) to_front_end: Recorded,
    pub(crate) front_end: FrontEndHere,
    /// Two replicas of the first database, and the only server of the second.
    pub(crate) to_servers: [Recorder; 3],
    pub(crate) to_evaluator: Recorded,
    _servers: [Serving; 3],
}

impl Chain {
    pub(crate) async fn start(change: impl FnOnce(&mut front_end::Options)) -> Self {
        let estate = estate();
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicU64::new(now()));
        let part = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let made = || {
            let LocalCertificates { ca_pem, server_pem, server_key, client_pem, client_key } =
                estate.certificates();
            LocalCertificates {
                ca_pem: ca_pem.clone(),
                server_pem: server_pem.clone(),
                server_key: server_key.clone(),
                client_pem: client_pem.clone(),
                client_key: client_key.clone(),
            }
        };
        let serve = |name: &str| {
            let engine = select(EngineChoice::Cpu, IsaChoice::Auto, NonZeroUsize::new(1)).unwrap();
            let setting = Setting { engines: vec![engine], ..Setting::default() };
            Setting { certificates: made(), ..setting }.serve(&estate.path(name))
        };
        let servers = [serve(ONE), serve(ONE), serve(TWO)];
        let to_servers =
            [0, 1, 2].map(|at| Recorder::start(servers[at].address, estate.certificates()));
        let [first, second, other] = [0, 1, 2].map(|at| to_servers[at].address);
        // It asks no answer server: nobody looks up there.
        let placement = placed(ONE, &[servers[0].address], None);
        let options = estate.front_end(&part("evaluator"), &placement, true, clock.clone());
        let evaluator = start_front_end(options).await;
        let mutual = estate.tls(true);
        let to_evaluator = Recorded::start(evaluator.address, &mutual, estate.client()).await;
        let placement = placed(ONE, &[first, second], Some(&to_evaluator.tap.url()))
            + &placed(TWO, &[other], None);
        let mut options = estate.front_end(&part("front-end"), &placement, false, clock.clone());
        change(&mut options);
        let front_end = start_front_end(options).await;
        let to_front_end = Recorded::start(front_end.address, &mutual, estate.client()).await;
        let options = estate.relay(folder.path(), to_front_end.tap.url(), clock.clone());
        let relay = start_relay(options).await;
        let to_relay = Recorded::start(relay.address, &estate.tls(false), estate.client()).await;
        Self {
            folder,
            clock,
            to_relay,
            relay,
            to_front_end,
            front_end,
            to_servers,
            to_evaluator,
            _servers: servers,
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// The clock of relay, front-ends and devices goes on; OHTTP keys follow it.
    pub(crate) fn set_now(&self, now: u64) {
        self.clock.store(now, Ordering::SeqCst);
        self.front_end.control.reload().unwrap();
    }

    pub(crate) fn options(&self, name: &str) -> Options {
        let state = self.folder.path().join(name);
        estate().device(self.to_relay.tap.url(), state, self.clock.clone())
    }

    /// The device of this name.
    pub(crate) async fn device(&self, name: &str) -> Resolver {
        Resolver::open(self.options(name)).await.unwrap()
    }

    /// What was inside the seals of these requests.
    pub(crate) fn opened(&self, exchanges: &[Exchange]) -> Vec<InnerRequest> {
        estate().opened(&self.folder.path().join("front-end/ohttp-keys"), self.now(), exchanges)
    }
}
