//! Contacts that a front-end is told (`--resolve`): a device, a relay, a front-end, an evaluator
//! and answer servers on real sockets, and a recorder before one of these.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, spki::der::pem::LineEnding};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use zeroize::Zeroizing;

use sotto::discovery::Resolver;
use sotto::discovery::blind::BlindKey;
use sotto::discovery::directory::{Content, Key, Pins, RistrettoKey, draft};
use sotto::discovery::filter::{Signing, write};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::jws;
use sotto::discovery::record::{self, Body, Service};
use sotto::discovery::resolver::{Finding, Options, ResolveError, system_clock};
use sotto::front_end::pool::PoolOptions;
use sotto::front_end::{self, FrontEnd};
use sotto::https::{Bounds, Sample, TlsFiles};
use sotto::limits;
use sotto::params::ShapeWishes;
use sotto::relay::{self, AccountsFrom, FrontEndFiles, Relay};
use sotto::server::certificates::{LocalCertificates, localhost};
use sotto::wire::message::RequestBody;

use crate::harness::{Built, Crossing, Recorder, Serving, serve};
use crate::world::{DAY, content, handle, key};

/// Blinded keys, and the numbers that begin with +1888.
const BLIND: &str = "blind";
/// Plain keys, and the numbers that begin with +1999. Addresses are in both.
const PLAIN: &str = "plain";

fn number(at: u64) -> Identifier {
    Identifier::parse(&format!("+1888{at:07}"), None).unwrap()
}

fn plain_number(at: u64) -> Identifier {
    Identifier::parse(&format!("+1999{at:07}"), None).unwrap()
}

/// Is in the plain database.
fn address() -> Identifier {
    Identifier::parse("carol@example.com", None).unwrap()
}

/// Its record was signed by somebody else.
fn forged() -> Identifier {
    number(777)
}

fn absent() -> Identifier {
    number(9_000)
}

/// Two databases that were made just now, and who signs what.
struct Fixture {
    folder: tempfile::TempDir,
    certificates: LocalCertificates,
    blind: Built,
    plain: Built,
    /// The look-up keys of the blinded one.
    keys: Vec<String>,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::new);

fn now() -> u64 {
    (system_clock())()
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let issued = record::minute_of(now() - DAY).unwrap();
        let sign = |contact: &Identifier, signer, with: &str| {
            let service =
                Service { provider: 1, handle: Some(handle(contact)), ..Service::default() };
            let body = Body { signer, issued, services: vec![service], ..Default::default() };
            record::sign(&body, contact, &key(with))
        };
        let blind_key = BlindKey::generate().unwrap();
        blind_key.create(&path("blind.key")).unwrap();
        let signed = (0..80).map(number).map(|it| (sign(&it, 1, "record blind"), it));
        let signed = signed.chain([(sign(&forged(), 1, "somebody"), forged())]);
        let sealed = signed.map(|(record, it)| {
            let derived = blind_key.derive(&it);
            (derived.lookup_key(), derived.seal(issued, &record))
        });
        let sealed: Vec<_> = sealed.collect();
        let plain = (0..40).map(plain_number).chain([address()]);
        let plain: Vec<_> =
            plain.map(|it| (it.as_str().to_owned(), sign(&it, 2, "record plain"))).collect();
        let build = |name: &str, records: &[(String, Vec<u8>)], shards| {
            let file = path(&format!("{name}.pem"));
            let operator = key(&format!("operator {name}"));
            std::fs::write(&file, operator.to_pkcs8_pem(LineEnding::LF).unwrap()).unwrap();
            Built::with(records, shards, |options| {
                options.value_bytes = Some(120);
                options.wishes = ShapeWishes { pack_rows: Some(128), packs: Some(2) };
                options.database = Some(name.to_owned());
                options.signing_key = Some(file);
            })
        };
        let fixture = Self {
            blind: build(BLIND, &sealed, 3),
            plain: build(PLAIN, &plain, 1),
            keys: sealed.into_iter().map(|(key, _)| key).collect(),
            certificates: localhost().unwrap(),
            folder,
        };
        fixture.write_files(&blind_key);
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn write_files(&self, blind_key: &BlindKey) {
        let blinding = Some(RistrettoKey(blind_key.public_key()));
        let content = content([(BLIND, "+1888", blinding), (PLAIN, "+1999", None)]);
        let content = Content { version: 1, expires: now() + 20 * DAY, ..content };
        self.write("directory", &draft::sign(&content, &[key("root")]).unwrap());
        self.write("directory-pins", &self.pins().to_json());
        let made = &self.certificates;
        for (name, text) in [
            ("ca.pem", &made.ca_pem),
            ("server.pem", &made.server_pem),
            ("server.key", &made.server_key),
            ("client.pem", &made.client_pem),
            ("client.key", &made.client_key),
        ] {
            self.write(name, text);
        }
        self.write("relays", "client.localhost 1000000 1000000\n");
    }

    fn pins(&self) -> Pins {
        Pins::new(1, vec![Key::from(key("root").verifying_key())]).unwrap()
    }

    /// A routing filter of the blinded database, as of an epoch.
    fn write_filter(&self, path: &Path, epoch: u64) {
        let mut keys = self.keys.clone();
        keys.sort();
        let lines: String = keys.iter().map(|key| format!("{key},base64:AAAA\n")).collect();
        let mut out = Vec::new();
        let signing = Signing { database: BLIND, epoch, key: &key("operator blind") };
        write(format!("sii,value\n{lines}").as_bytes(), &signing, &mut out).unwrap();
        std::fs::write(path, out).unwrap();
    }

    fn tls(&self, client_ca: Option<PathBuf>) -> TlsFiles {
        TlsFiles { cert: self.path("server.pem"), key: self.path("server.key"), client_ca }
    }
}

fn bounds() -> Bounds {
    let long = Duration::from_secs(60);
    Bounds {
        connections: 64,
        handshakes: 64,
        handshake_time: long,
        head_time: long,
        idle_time: long,
        body_time: long,
    }
}

/// Everything that runs, for one test.
struct Stage {
    folder: tempfile::TempDir,
    servers: [Serving; 2],
    recorder: Recorder,
    control: front_end::Control,
    relay: relay::Control,
    relay_url: String,
}

/// How a front-end differs from test to test.
struct Setting {
    resolve_bytes: Option<usize>,
    /// The epoch of its routing filter of the blinded database, if it has one.
    filter: Option<u64>,
    /// Whether another front-end evaluates.
    passes_on: bool,
}

const USUAL: Setting = Setting { resolve_bytes: Some(1 << 20), filter: None, passes_on: false };

impl Stage {
    async fn start(setting: Setting) -> Self {
        let (fixture, folder) = (&*FIXTURE, tempfile::tempdir().unwrap());
        let servers = [serve(&fixture.blind.db()), serve(&fixture.plain.db())];
        let recorder = Recorder::start(servers[0].address, &servers[0].certificates);
        let addresses = [recorder.address, servers[1].address];
        let authorities = format!(
            "{}{}{}",
            servers[0].certificates.ca_pem,
            servers[1].certificates.ca_pem,
            fixture.certificates.ca_pem
        );
        let database = |name: &str, more: &str, at: usize| {
            let address = addresses[at];
            format!(
                "[[database]]\nid = \"{name}\"\n{more}\n[[database.server]]\n\
                 address = \"{address}\"\nname = \"localhost\"\n"
            )
        };
        let filter = setting.filter.map(|epoch| {
            fixture.write_filter(&folder.path().join("filter"), epoch);
            format!("filter = {:?}", folder.path().join("filter"))
        });
        let mut more = filter.unwrap_or_default();
        let file = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let blind_key = vec![(BLIND.to_owned(), fixture.path("blind.key"))];
        let mut own_key = blind_key.clone();
        if setting.passes_on {
            let placement = file("operator.toml", database(BLIND, "", 0));
            let options = options(folder.path(), "operator", placement, &authorities);
            let (address, _) = run(front_end::Options { blind_keys: blind_key, ..options }).await;
            more += &format!("\nevaluate = \"https://localhost:{}\"", address.port());
            own_key.clear();
        }
        let text = database(BLIND, &more, 0) + &database(PLAIN, "", 1);
        let placement = file("placement.toml", text);
        let options = options(folder.path(), "front-end", placement, &authorities);
        let (resolve_bytes, blind_keys) = (setting.resolve_bytes, own_key);
        let options = front_end::Options { resolve_bytes, blind_keys, ..options };
        let (address, control) = run(options).await;
        let relay = start_relay(folder.path(), address.port()).await;
        let relay_url = format!("https://localhost:{}", relay.local_addr().port());
        let relay_control = relay.control();
        tokio::spawn(relay.run(std::future::pending()));
        Self { folder, servers, recorder, control, relay: relay_control, relay_url }
    }

    /// A device of its own.
    async fn resolver(&self, name: &str) -> Resolver {
        let claims = serde_json::json!({ "sub": name, "exp": now() + 3_600 });
        let token = jws::sign("JWT", claims.to_string().as_bytes(), &key("accounts"));
        let options = Options {
            relay: self.relay_url.clone(),
            ca_pem: FIXTURE.certificates.ca_pem.clone().into_bytes(),
            token: Box::new(move || token.clone()),
            front_end_key: key("identity front-end").verifying_key(),
            state: self.state(name),
            state_key: Zeroizing::new([9; 32]),
            directory_pins: FIXTURE.pins(),
            pack_records_min: 1,
            clock: system_clock(),
        };
        Resolver::open(options).await.unwrap()
    }

    fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("state-of-{name}"))
    }

    /// Queries that answer servers took.
    fn queries(&self) -> u64 {
        self.servers.iter().map(|server| server.counters.queries_admitted.get()).sum()
    }

    fn value(&self, name: &str) -> f64 {
        sum(&self.control.samples(), name)
    }

    /// Bytes of sealed requests and of their replies, as the relay has seen them.
    fn bytes(&self) -> (f64, f64) {
        let samples = self.relay.samples();
        (sum(&samples, "relay_forwarded_bytes_total"), sum(&samples, "relay_reply_bytes_total"))
    }
}

fn sum(samples: &[Sample], name: &str) -> f64 {
    assert!(samples.iter().any(|sample| sample.name == name), "no {name}");
    samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
}

/// What a front-end of this name is started with, without keys.
fn options(folder: &Path, name: &str, placement: PathBuf, authorities: &str) -> front_end::Options {
    let fixture = &*FIXTURE;
    let identity = folder.join(format!("{name}.identity"));
    let key: SigningKey = key(&format!("identity {name}"));
    std::fs::write(&identity, key.to_pkcs8_pem(LineEnding::LF).unwrap()).unwrap();
    let made = &fixture.certificates;
    let client_key = made.client_key.clone().into_bytes().into();
    let pool = PoolOptions {
        identity_pem: Some((made.client_pem.clone().into_bytes(), client_key)),
        records_per_shard_min: 1,
        canary_mean: limits::CANARY_MEAN_MAX, // none comes during the test
        ..PoolOptions::new(authorities.as_bytes().to_vec())
    };
    front_end::Options {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: fixture.tls(Some(fixture.path("ca.pem"))),
        bounds: bounds(),
        keys: folder.join(format!("{name}.keys")),
        identity,
        relays: fixture.path("relays"),
        directory: fixture.path("directory"),
        directory_pins: fixture.path("directory-pins"),
        placement,
        blind_keys: Vec::new(),
        evaluate_ca: Some(fixture.path("ca.pem")),
        pool,
        memory_bytes: limits::FRONT_END_MEMORY_BYTES,
        resolve_bytes: None,
        clock: front_end::system_clock(),
    }
}

async fn run(options: front_end::Options) -> (std::net::SocketAddr, front_end::Control) {
    let front_end = FrontEnd::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    let (address, control) = (front_end.local_addr(), front_end.control());
    tokio::spawn(front_end.run(std::future::pending()));
    (address, control)
}

async fn start_relay(folder: &Path, front_end: u16) -> Relay {
    let fixture = &*FIXTURE;
    let accounts = key("accounts").verifying_key();
    let (kid, x) = (jws::key_id(&accounts), jws::base64url(accounts.as_bytes()));
    let jwks = serde_json::json!({ "keys": [
        { "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x }
    ] });
    let file = folder.join("accounts.jwks");
    std::fs::write(&file, jwks.to_string()).unwrap();
    let options = relay::Options {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: fixture.tls(None),
        front_end: FrontEndFiles {
            url: format!("https://localhost:{front_end}"),
            ca: fixture.path("ca.pem"),
            cert: fixture.path("client.pem"),
            key: fixture.path("client.key"),
            time: limits::RELAY_FORWARD_TIME,
        },
        key_services: None,
        accounts: AccountsFrom::Jwks { file, audience: None },
        evaluate: "1024,128/day".parse().unwrap(),
        lookup: "2048,512/day".parse().unwrap(),
        state: folder.join("relay-state"),
        memory_bytes: limits::RELAY_MEMORY_BYTES,
        forwards: limits::RELAY_FORWARDS_MAX,
        bounds: bounds(),
        clock: relay::system_clock(),
    };
    Relay::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}

/// What this program logs, with all fields.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0.lock().unwrap(), "{field}: {value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("sotto")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The log of all tests of this program.
fn log() -> &'static Log {
    static LOG: LazyLock<Log> = LazyLock::new(|| {
        let log = Log::default();
        tracing::subscriber::set_global_default(log.clone()).unwrap();
        log
    });
    &LOG
}

fn found(told: &Result<Finding, String>) -> Option<&str> {
    match told {
        Ok(Finding::Found(contact)) => Some(contact.services[0].ssi.as_ref()?.as_str()),
        _ => None,
    }
}

fn ssi(contact: &Identifier) -> String {
    format!("mimi://a.example/u/{}", handle(contact))
}

/// The rule on secrets, and how many key bundles there were.
fn check_once_only(crossings: &[Crossing]) -> usize {
    let (mut vectors, mut bundles) = (HashMap::new(), HashMap::new());
    for crossing in crossings {
        match crossing.request.body.as_ref().unwrap() {
            RequestBody::Batch(batch) => {
                for query in &batch.requests {
                    let vector = query.encrypted_vector.clone();
                    let before = vectors.insert((query.uid.clone(), query.shard), vector.clone());
                    assert!(before.is_none_or(|it| it == vector), "a second ciphertext");
                    assert_eq!(query.pack, 0);
                }
            }
            RequestBody::Parameters(request) if !request.public_key.is_empty() => {
                let before = bundles.insert(request.uid.clone(), request.public_key.clone());
                assert!(before.is_none_or(|it| it == request.public_key), "another bundle");
            }
            _ => {}
        }
    }
    assert!(!vectors.is_empty() && vectors.keys().all(|(uid, _)| bundles.contains_key(uid)));
    bundles.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn contacts_are_told_to_the_front_end_and_answered_from_its_cache() {
    let log = log();
    let stage = Stage::start(Setting { passes_on: true, ..USUAL }).await;
    let mut resolver = stage.resolver("alice").await;
    let contacts = [number(1), absent(), forged(), plain_number(2), address(), number(2)];
    let told = resolver.resolve_openly(&contacts).await.unwrap();
    for (at, contact) in contacts.iter().enumerate().filter(|(at, _)| ![1, 2].contains(at)) {
        assert_eq!(found(&told[at]), Some(&*ssi(contact)), "{at}");
    }
    assert_eq!(told[1], Ok(Finding::Absent));
    let Err(reason) = &told[2] else { panic!("a forged record: {:?}", told[2]) };
    assert!(reason.contains("the signature is not that of record key 1"), "{reason}");
    let report = resolver.report();
    assert_eq!((report.found, report.absent, report.directory_version), (4, 1, 1));
    assert_eq!((report.evaluations, report.lookups, report.evaluated), (1, 0, 0));
    // An address is asked for in both.
    assert_eq!((stage.queries(), stage.value("front_end_resolve_queries_total")), (7, 7.0));
    assert_eq!(stage.value("front_end_resolve_contacts_total"), 7.0);
    assert_eq!(stage.value("front_end_evaluations_passed_on_total"), 1.0);

    // Whoever asks again is answered without a query, also another device.
    let again = resolver.resolve_openly(&contacts).await.unwrap();
    let other = stage.resolver("bob").await.resolve_openly(&contacts).await.unwrap();
    assert!(again == told && other == told);
    assert_eq!((stage.queries(), stage.value("front_end_resolve_cached_total")), (7, 14.0));
    assert_eq!(stage.value("front_end_evaluations_passed_on_total"), 1.0);
    assert!(stage.value("front_end_resolve_cache_bytes") > 0.0);
    assert!(!stage.state("alice").exists(), "something was kept");

    // Seventy contacts in three shards: never a second ciphertext under one secret.
    let many: Vec<Identifier> = (3..73).map(number).collect();
    let told = resolver.resolve_openly(&many).await.unwrap();
    assert!(many.iter().zip(&told).all(|(contact, told)| found(told) == Some(&*ssi(contact))));
    let bundles = check_once_only(&stage.recorder.take());
    assert!(bundles >= 70 / 3, "{bundles} bundles for 70 queries in three shards");

    // Neither log nor metrics name anybody.
    let log = log.0.lock().unwrap().clone();
    assert!(log.contains("may name their contacts"), "{log}");
    let metrics = format!("{:?}{:?}", stage.control.samples(), stage.relay.samples());
    for text in [&log, &metrics] {
        for contact in contacts.iter().chain(&many) {
            let (name, handle) = (contact.as_str(), handle(contact));
            assert!(!text.contains(name) && !text.contains(&handle), "{name}");
        }
        assert!(!text.contains("+1888") && !text.contains("alice"));
    }
    assert!(!format!("{told:?}").contains("u-"), "Debug shows a handle");
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_do_not_tell_what_was_found() {
    let stage = Stage::start(USUAL).await;
    let mut resolver = stage.resolver("alice").await;
    let nowhere = Identifier::parse("+17770000001", None).unwrap();
    let mut sizes = Vec::new();
    for contact in [number(1), absent(), forged(), address(), plain_number(1), nowhere, number(1)] {
        let before = stage.bytes();
        resolver.resolve_openly(&[contact]).await.unwrap();
        let after = stage.bytes();
        sizes.push((after.0 - before.0, after.1 - before.1));
    }
    println!("one contact: {:?} bytes up and down", sizes[0]);
    assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
    // What docs/federation.md says.
    assert_eq!(sizes[0], (311.0, 595.0));
    // The second time in a session nothing else crosses but that the directory is the same.
    let report = resolver.report();
    assert_eq!((report.bytes_up, report.bytes_down, report.requests), (311, 595, 2));

    let mut sizes = Vec::new();
    for from in [10, 9_010] {
        let before = stage.bytes();
        let contacts: Vec<Identifier> = (from..from + 16).map(number).collect();
        let told = resolver.resolve_openly(&contacts).await.unwrap();
        assert!(told.iter().all(|told| found(told).is_some() == (from == 10)));
        let after = stage.bytes();
        sizes.push((after.0 - before.0, after.1 - before.1));
    }
    println!("sixteen contacts: {:?} bytes up and down", sizes[0]);
    assert_eq!(sizes[0], sizes[1]);
    assert_eq!(sizes[0], (567.0, 8_290.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_front_end_is_told_that_was_not_started_for_it() {
    let stage = Stage::start(Setting { resolve_bytes: None, ..USUAL }).await;
    let mut resolver = stage.resolver("alice").await;
    let error = resolver.resolve_openly(&[number(1)]).await.unwrap_err();
    let ResolveError::FrontEnd { status: 404, detail, .. } = &error else { panic!("{error}") };
    assert!(detail.contains("without --resolve"), "{detail}");
    assert_eq!((stage.queries(), stage.value("front_end_resolve_contacts_total")), (0, 0.0));
    // The same device looks up sealed.
    resolver.sync(&[plain_number(1)], |_| {}).await.unwrap();
    assert!(resolver.contact(&plain_number(1)).unwrap().contact(now()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_filter_saves_queries_while_it_is_new_enough() {
    let none: Vec<Identifier> = (9_000..9_016).map(number).collect();
    for (epoch, is_used) in [(1, true), (0, false)] {
        let stage = Stage::start(Setting { filter: Some(epoch), ..USUAL }).await;
        let mut resolver = stage.resolver("alice").await;
        let told = resolver.resolve_openly(&none).await.unwrap();
        assert!(told.iter().all(|told| *told == Ok(Finding::Absent)));
        let ruled_out = stage.value("front_end_resolve_filtered_total");
        assert_eq!(ruled_out as u64 + stage.queries(), 16);
        assert_eq!(stage.value("front_end_filter_used"), f64::from(u8::from(is_used)));
        // One in 256 that is not there passes.
        assert!(if is_used { ruled_out > 10.0 } else { ruled_out == 0.0 }, "{ruled_out}");
        let told = resolver.resolve_openly(&[number(1)]).await.unwrap();
        assert_eq!(found(&told[0]), Some(&*ssi(&number(1))));
        assert_eq!(stage.value("front_end_resolve_filtered_total"), ruled_out);
    }
}
