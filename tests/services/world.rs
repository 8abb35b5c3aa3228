//! A discovery provider with its directory, application providers and a gateway, over real TLS.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::postgres::Postgres;
use axum::body::Bytes;
use axum::http::Method;
use ed25519_dalek::SigningKey;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer as Authority,
    KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};
use sotto::discovery::directory::{
    Issuer, IssuerKey, Key, Pins, Proof, Provider, Remit, Validity, draft,
};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::jws::base64url;
use sotto::discovery::statement::{Ssi, consent_text};
use sotto::https::{Client, Response};
use sotto::registrar::service::{Control, Keys, Registrar};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::gateway::Gateway;

pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const ISSUER: &str = "dp.example";
pub(crate) const OTHER: &str = "dp2.example";
pub(crate) const APS: [&str; 12] = [
    "a.example",
    "b.example",
    "c.example",
    "d.example",
    "e.example",
    "f.example",
    "g.example",
    "h.example",
    "i.example",
    "j.example",
    "k.example",
    "l.example",
];
/// What each may vouch for; the prefix that both have is moving.
const OWN_PREFIXES: [&str; 3] = ["+49", "+4915888", "@"];
const OTHER_PREFIXES: [&str; 3] = ["+33", "+4915888", "+4915999"];
const DAY: u64 = 86_400;

/// An authority that signs the certificates of all.
pub(crate) struct Certificates {
    pub(crate) ca_pem: String,
    authority: Authority<'static, KeyPair>,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&key).unwrap().pem();
        Self { ca_pem, authority: Authority::new(params, key) }
    }

    /// A certificate and its key, PEM.
    pub(crate) fn leaf(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.authority).unwrap();
        (leaf.pem(), key.serialize_pem())
    }
}

/// Everything around a registrar.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) certificates: Certificates,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) now: Arc<AtomicU64>,
    pub(crate) database: String,
    pub(crate) postgres: Option<Arc<Postgres>>,
}

/// A registrar that runs in this process.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) control: Control,
    leave: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// A service that runs as a process of its own, killed when dropped.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    child: Child,
}

pub(crate) fn clock_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl World {
    /// With SQLite.
    pub(crate) async fn new() -> Self {
        Self::with(None, "").await
    }

    /// With a PostgreSQL server of its own, which a test may stop.
    pub(crate) async fn with_postgres() -> Option<Self> {
        // Here, and not on a thread of another name.
        if !Postgres::is_there() {
            return None;
        }
        let postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap()?;
        Some(Self::with(Some(Arc::new(postgres)), "").await)
    }

    pub(crate) async fn with(postgres: Option<Arc<Postgres>>, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = match &postgres {
            Some(postgres) => postgres.database(),
            None => format!("sqlite:{}/registrar.sqlite", folder.path().display()),
        };
        let (certificates, gateway) = (Certificates::new(), Gateway::start().await);
        let now = Arc::new(AtomicU64::new(clock_now()));
        let world = Self { folder, certificates, gateway, now, database, postgres };
        world.write("ca.pem", &world.certificates.ca_pem);
        let (cert, key) = world.certificates.leaf(&["localhost", ISSUER]);
        world.write("cert.pem", &cert);
        world.write("key.pem", &key);
        let keys = Keys::create(&world.path("issuer.pem"), &world.path("keys")).unwrap();
        world.write_directory(&keys.signing);
        world.write_config(more);
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.path("registrar.toml")
    }

    /// The directory: both issuers, and all application providers.
    fn write_directory(&self, signing: &SigningKey) {
        let now = self.now();
        let root = SigningKey::from_bytes(&[1; 32]);
        let mut content = draft::new(1, vec![Key::from(root.verifying_key())]).unwrap();
        for domain in APS {
            let keys_url = format!("https://keys.{domain}/");
            let provider = Provider {
                index: 0,
                domain: domain.into(),
                name: domain.into(),
                keys_url,
                keys_identity: None,
            };
            draft::add_provider(&mut content, provider).unwrap();
        }
        let other = other_key();
        for (domain, key, prefixes) in
            [(ISSUER, signing, &OWN_PREFIXES[..]), (OTHER, &other, &OTHER_PREFIXES)]
        {
            let validity = Validity { from: now - 400 * DAY, until: now + 800 * DAY };
            let issuer = Issuer {
                index: 0,
                domain: domain.into(),
                keys: vec![IssuerKey { key: Key::from(key.verifying_key()), validity }],
                remit: Remit {
                    providers: APS.map(str::to_owned).to_vec(),
                    prefixes: prefixes.iter().map(ToString::to_string).collect(),
                    regions: vec![],
                    proof: Proof::Email,
                },
                exempt_before: None,
                authority: false,
            };
            draft::add_issuer(&mut content, issuer).unwrap();
        }
        let content = draft::next(content, None, now + 30 * DAY).unwrap();
        self.write("directory.json", &draft::sign(&content, &[root]).unwrap());
        let pins = Pins::new(1, content.roots.clone()).unwrap();
        self.write("pins.json", &pins.to_json());
    }

    /// `more` comes after everything else: tables.
    pub(crate) fn write_config(&self, more: &str) {
        let path = |name: &str| self.path(name).display().to_string();
        let mut text = format!(
            "listen = '127.0.0.1:0'\ncert = '{}'\nkey = '{}'\nclient-ca = '{}'\n\
             issuer = '{ISSUER}'\nissuer-key = '{}'\nkeys = '{}'\ndatabase = '{}'\n\
             directory = '{}'\ndirectory-pins = '{}'\ndp-ca = '{}'\nreceipts = '127.0.0.1:0'\n",
            path("cert.pem"),
            path("key.pem"),
            path("ca.pem"),
            path("issuer.pem"),
            path("keys"),
            self.database,
            path("directory.json"),
            path("pins.json"),
            path("ca.pem"),
        );
        for domain in APS {
            text += &format!(
                "[[ap]]\ndomain = '{domain}'\nname = 'Chat {}'\n[ap.rules]\n{}\n",
                &domain[..1],
                crate::RULES
            );
        }
        text += &format!("[fraud]\n{}\n", crate::FRAUD);
        text += &format!(
            "[channels]\ndp = 'Dp'\nsms = ['test']\ncall = []\nemail = ['test']\n\
             [channels.gateways.test]\nkind = 'http'\n\
             url = 'http://{}/send?to={{to}}&text={{text}}'\n",
            self.gateway.address
        );
        self.write("registrar.toml", &(text + more));
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }

    /// A registrar of this process that answers.
    pub(crate) async fn start(&self) -> Running {
        let running = self.start_without_database().await;
        running.control.until_database(true).await;
        running
    }

    pub(crate) async fn start_without_database(&self) -> Running {
        let now = self.now.clone();
        let clock = Arc::new(move || now.load(Ordering::Relaxed));
        let registrar = Registrar::start(&self.config_path(), clock, None).await.unwrap();
        let (address, control) = (registrar.local_addr(), registrar.control());
        let (leave, left) = oneshot::channel();
        let task = tokio::spawn(registrar.run(async {
            let _ = left.await;
        }));
        Running { address, control, leave, task }
    }

    /// A registrar of its own process; its clock is that of the machine.
    pub(crate) fn spawn(&self) -> Process {
        let config = self.config_path();
        let config = config.to_str().unwrap();
        Process::start(&["registrar", "serve", "--admin", "off", "--config", config])
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
        command.arg("registrar").args(arguments).output().unwrap()
    }

    /// Who shows a certificate with these names; none for nobody.
    pub(crate) fn peer(&self, address: SocketAddr, names: &[&str]) -> Peer {
        let (cert, key) = self.certificates.leaf(names);
        let identity = (!names.is_empty()).then_some((cert.as_bytes(), key.as_bytes()));
        let ca = self.certificates.ca_pem.as_bytes();
        let client = Client::new(Some(ca), identity, LONG).unwrap();
        Peer { client, url: format!("https://localhost:{}", address.port()) }
    }
}

impl Running {
    pub(crate) async fn stop(self) {
        self.leave.send(()).unwrap();
        self.task.await.unwrap();
    }

    /// The number of a metric that has all of these values of labels.
    pub(crate) fn sample(&self, name: &str, labels: &[&str]) -> f64 {
        let samples = self.control.samples();
        let mut found = samples.iter().filter(|sample| sample.name == name);
        let has = |label: &&str, sample: &sotto::https::Sample| {
            sample.labels.iter().any(|(_, value)| value == label)
        };
        found.find(|it| labels.iter().all(|label| has(label, it))).map_or(0.0, |it| it.value)
    }
}

impl Process {
    /// Starts a service and waits until it says where it listens.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sotto"));
        command.args(arguments).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}"));
        Self { address: address.parse().unwrap(), child }
    }

    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // SIGKILL.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whoever asks a registrar.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) client: Client,
    pub(crate) url: String,
}

pub(crate) const AS_JSON: (&str, &str) = ("content-type", "application/json");

impl Peer {
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let (url, body) = (format!("{}{path}", self.url), Bytes::copy_from_slice(body.as_bytes()));
        self.client.send(method, &url, headers, body, 1 << 20).await.unwrap()
    }

    /// A POST under this `Idempotency-Key`.
    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Response {
        let headers = [AS_JSON, ("idempotency-key", key)];
        self.send(Method::POST, path, &headers, &body.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, &[], "").await
    }

    /// A registration that has to be accepted; its name.
    pub(crate) async fn register(&self, body: &Value) -> String {
        let response = self.post("/v1/registrations", &fresh_key(), body).await;
        assert_eq!(response.status, 202, "{}", text(&response));
        json_of(&response)["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn enter(&self, id: &str, code: &str) -> Response {
        let path = format!("/v1/registrations/{id}/code");
        self.post(&path, &fresh_key(), &json!({ "code": code })).await
    }
}

/// A key that no other request has.
pub(crate) fn fresh_key() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    base64url(&bytes)
}

pub(crate) fn text(response: &Response) -> String {
    String::from_utf8_lossy(&response.body).into_owned()
}

pub(crate) fn json_of(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|_| panic!("{}", text(response)))
}

/// The `code` of a problem, whose form is checked.
pub(crate) fn problem(response: &Response) -> String {
    let content_type = response.headers.get("content-type").unwrap().to_str().unwrap();
    assert_eq!(content_type, "application/problem+json", "{}", text(response));
    let body = json_of(response);
    assert_eq!(body["status"], response.status);
    for member in ["type", "title", "detail", "found", "expected"] {
        assert!(body[member].is_string(), "{member}: {body}");
    }
    body["code"].as_str().unwrap().to_owned()
}

pub(crate) fn other_key() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

/// Somebody with a number or an address, at one application provider.
pub(crate) struct User {
    pub(crate) sii: String,
    pub(crate) ssi: String,
    pub(crate) key: SigningKey,
}

impl User {
    /// The owner of this number or address; the application provider is given.
    pub(crate) fn new(sii: &str, ap: &str) -> Self {
        let mut seed = [7_u8; 32];
        for (at, byte) in sii.bytes().chain(ap.bytes()).enumerate() {
            seed[at % 32] = seed[at % 32].wrapping_mul(31).wrapping_add(byte);
        }
        let sii = Identifier::parse(sii, None).unwrap().to_uri();
        let ssi = format!("mimi://{ap}/u/user{}", base64url(&seed[..6]));
        Self { sii, ssi, key: SigningKey::from_bytes(&seed) }
    }

    /// What its application provider sends at a time.
    pub(crate) fn request(&self, iat: u64) -> Value {
        let (sub, ssi) = (Identifier::from_uri(&self.sii).unwrap(), Ssi::parse(&self.ssi).unwrap());
        let text = consent_text(&sub, &ssi, ISSUER, iat);
        let up = ed25519_dalek::Signer::sign(&self.key, &text).to_bytes();
        let channel = if self.sii.starts_with("tel:") { "sms" } else { "email" };
        json!({
            "sii": self.sii, "ssi": self.ssi, "uk": base64url(self.key.verifying_key().as_bytes()),
            "up": base64url(&up), "iat": iat, "channel": channel,
        })
    }
}

/// A German mobile number; each ten thousand have a prefix of their own.
pub(crate) fn number(index: u32) -> String {
    format!("+49151{index:08}")
}
