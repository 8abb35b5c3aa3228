//! A front-end on a real socket, asked by a relay with a certificate. Its databases have answer
//! servers that do not answer: look-ups that succeed are tested where there are answer servers.

use std::fs;
use std::rc::Rc;
use std::time::Duration;

use axum::http::Method;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;

use super::*;
use crate::discovery::blind::{Evaluated, blind};
use crate::discovery::directory::{
    Content, Database, Key, RecordKey, RistrettoKey, Validity, draft,
};
use crate::discovery::identifier::Identifier;
use crate::discovery::sealed::capsule::{InnerRequest, InnerResponse, seal};
use crate::discovery::sealed::evaluate::{EvaluateRequest, EvaluateResponse};
use crate::discovery::sealed::keys::KeyList;
use crate::https::Response;
use crate::server::certificates::{LocalCertificates, localhost};
use crate::wire::Bytes;

/// In the middle of a week.
const NOW: u64 = 2_950 * limits::OHTTP_KEY_SECONDS + 300_000;
const LONG: Duration = Duration::from_secs(60);
const RELAYS: &str = "client.localhost 480000 960000\n";
const SEALED: &str = "message/ohttp-req";

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

/// Everything that a front-end is started with, in a folder.
struct Files {
    folder: tempfile::TempDir,
    certificates: Rc<LocalCertificates>,
    blind_key: Rc<BlindKey>,
}

impl Files {
    fn new() -> Self {
        Self::with(Rc::new(localhost().unwrap()), Rc::new(BlindKey::generate().unwrap()))
    }

    fn with(certificates: Rc<LocalCertificates>, blind_key: Rc<BlindKey>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = Self { folder, certificates, blind_key };
        files.write("cert", &files.certificates.server_pem);
        files.write("key", &files.certificates.server_key);
        files.write("ca", &files.certificates.ca_pem);
        files.write("relays", RELAYS);
        files.write("identity", &key(1).to_pkcs8_pem(LineEnding::LF).unwrap());
        files.blind_key.create(&files.path("blind")).unwrap();
        let pins = Pins::new(1, vec![key(2).verifying_key().into()]).unwrap();
        files.write("pins", &pins.to_json());
        files.write("directory", &files.directory(1));
        files.write("eu1.filter", "a filter");
        files.place("");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A placement of eu1, with a filter and what else is said of it.
    fn place(&self, more: &str) {
        let filter = self.path("eu1.filter");
        let text = format!(
            "[[database]]\nid = \"eu1\"\nfilter = {filter:?}\n{more}\n\
             [[database.server]]\naddress = \"127.0.0.1:9\"\nname = \"localhost\"\n"
        );
        self.write("placement", &text);
    }

    fn place_without_filter(&self) {
        self.place("");
        let text = fs::read_to_string(self.path("placement")).unwrap();
        self.write("placement", &text.replacen("filter", "# filter", 1));
    }

    fn directory(&self, version: u64) -> String {
        let public = |number: u8| Key::from(key(number).verifying_key());
        let database = |id: &str, number| Database {
            id: id.to_owned(),
            operator_key: public(number),
            record_keys: vec![RecordKey {
                index: 0,
                key: public(number + 1),
                validity: Validity { from: NOW - 1_000, until: NOW + 1_000_000 },
            }],
            blinding_key: Some(RistrettoKey(self.blind_key.public_key())),
            log: None,
            prefixes: vec![],
            region: "EU".to_owned(),
            endpoints: vec![],
        };
        let mut draft = draft::new(1, vec![public(2)]).unwrap();
        draft::add_database(&mut draft, database("eu1", 10)).unwrap();
        draft::add_database(&mut draft, database("eu2", 20)).unwrap();
        let content = draft::next(draft, None, NOW + 86_400).unwrap();
        draft::sign(&Content { version, ..content }, &[key(2)]).unwrap()
    }

    fn options(&self) -> Options {
        let LocalCertificates { ca_pem, client_pem, client_key, .. } = &*self.certificates;
        let mut pool = PoolOptions::new(ca_pem.clone().into_bytes());
        let client_key = client_key.clone().into_bytes().into();
        pool.identity_pem = Some((client_pem.clone().into_bytes(), client_key));
        Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: TlsFiles {
                cert: self.path("cert"),
                key: self.path("key"),
                client_ca: Some(self.path("ca")),
            },
            bounds: Bounds {
                connections: 100,
                handshakes: 100,
                handshake_time: LONG,
                head_time: LONG,
                idle_time: LONG,
                body_time: LONG,
            },
            keys: self.path("keys"),
            identity: self.path("identity"),
            relays: self.path("relays"),
            directory: self.path("directory"),
            directory_pins: self.path("pins"),
            placement: self.path("placement"),
            blind_keys: vec![("eu1".to_owned(), self.path("blind"))],
            evaluate_ca: None,
            pool,
            memory_bytes: limits::FRONT_END_MEMORY_BYTES,
            resolve_bytes: None,
            clock: Arc::new(|| NOW),
        }
    }

    async fn refused(&self, options: Options) -> FrontEndError {
        FrontEnd::start(options).await.err().expect("the front-end started")
    }

    async fn start(&self, options: Options) -> Running {
        let front_end = FrontEnd::start(options).await.unwrap_or_else(|error| panic!("{error}"));
        let url = format!("https://localhost:{}", front_end.local_addr().port());
        let control = front_end.control();
        tokio::spawn(front_end.run(std::future::pending()));
        let LocalCertificates { ca_pem, client_pem, client_key, .. } = &*self.certificates;
        let client = |identity| Client::new(Some(ca_pem.as_bytes()), identity, LONG).unwrap();
        let relay = client(Some((client_pem.as_bytes(), client_key.as_bytes())));
        Running { url, control, relay, anyone: client(None) }
    }
}

/// A front-end that runs, and who asks it.
struct Running {
    url: String,
    control: Control,
    relay: Client,
    anyone: Client,
}

impl Running {
    async fn get(&self, path: &str, tag: Option<&str>) -> Response {
        let headers: Vec<(&str, &str)> =
            tag.map(|tag| ("if-none-match", tag)).into_iter().collect();
        let url = format!("{}{path}", self.url);
        self.anyone.send(Method::GET, &url, &headers, Bytes::new(), 1 << 23).await.unwrap()
    }

    async fn post(&self, client: &Client, path: &str, of_type: &str, body: &[u8]) -> Response {
        let (url, body) = (format!("{}{path}", self.url), Bytes::copy_from_slice(body));
        client.send(Method::POST, &url, &[("content-type", of_type)], body, 1 << 23).await.unwrap()
    }

    /// The configuration that devices get, checked as they do.
    async fn config(&self) -> Vec<u8> {
        let list = self.get("/ohttp-keys", None).await;
        assert_eq!(list.status, 200);
        let text = std::str::from_utf8(&list.body).unwrap();
        KeyList::open(text, &key(1).verifying_key(), NOW).unwrap().newest().to_vec()
    }

    /// What comes back for a sealed request, opened.
    async fn sealed(&self, method: &str, path: &str, body: Vec<u8>) -> InnerResponse {
        let (capsule, opener) = seal(&self.config().await, &request(method, path, body)).unwrap();
        let reply = self.post(&self.relay, "/gateway", SEALED, &capsule).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        assert_eq!(reply.headers["content-type"], "message/ohttp-res");
        assert_eq!(reply.headers["cache-control"], "no-store");
        opener.open(&reply.body).unwrap_or_else(|error| panic!("{error}"))
    }

    fn value(&self, name: &str, labels: &[&str]) -> f64 {
        let samples = self.control.samples();
        let has = |sample: &Sample, value: &str| sample.labels.iter().any(|label| label.1 == value);
        let is_it =
            |sample: &&Sample| sample.name == name && labels.iter().all(|label| has(sample, label));
        samples.iter().find(is_it).unwrap_or_else(|| panic!("no {name} {labels:?}")).value
    }
}

fn request(method: &str, path: &str, body: Vec<u8>) -> InnerRequest {
    let content_type = Some("application/x-protobuf".to_owned());
    InnerRequest { method: method.to_owned(), path: path.to_owned(), content_type, body }
}

fn identifiers() -> Vec<Identifier> {
    let number = |at| Identifier::parse(&format!("+155501001{at:02}"), None).unwrap();
    (0..16).map(number).collect()
}

/// A request for evaluation, and what checks the reply and gives the derived keys.
fn evaluation(database: &str) -> (Vec<u8>, impl FnOnce(&[u8], &BlindKey)) {
    let (blinded, elements) = blind(&identifiers()).unwrap();
    let elements = elements.try_into().unwrap();
    let body = EvaluateRequest { database: database.to_owned(), elements }.encode();
    let check = move |reply: &[u8], key: &BlindKey| {
        let EvaluateResponse { elements, proof } = EvaluateResponse::decode(reply).unwrap();
        let evaluated = Evaluated { elements: elements.to_vec(), proof };
        let derived = blinded.finalize(&evaluated, &key.public_key()).unwrap();
        for (derived, identifier) in derived.iter().zip(identifiers()) {
            assert!(derived.as_bytes() == key.derive(&identifier).as_bytes());
        }
    };
    (body, check)
}

fn error_of(body: &[u8]) -> serde_json::Value {
    serde_json::from_slice(body).unwrap()
}

#[tokio::test]
async fn a_device_gets_everything_through_a_relay() {
    let files = Files::new();
    let running = files.start(files.options()).await;

    let (body, check) = evaluation("eu1");
    let evaluated = running.sealed("POST", "/evaluate", body).await;
    assert_eq!(evaluated.status, 200);
    check(&evaluated.body, &files.blind_key);
    for path in ["/directory", "/ohttp-keys", "/databases/eu1/filter"] {
        let (inside, outside) =
            (running.sealed("GET", path, vec![]).await, running.get(path, None).await);
        assert_eq!((inside.status, outside.status), (200, 200), "{path}");
        assert_eq!(inside.body, outside.body, "{path}");
        let header = |name| outside.headers[name].to_str().unwrap();
        assert_eq!(inside.etag.as_deref(), Some(header("etag")), "{path}");
        assert_eq!(inside.content_type.as_deref(), Some(header("content-type")), "{path}");
        assert_eq!(running.get(path, Some(header("etag"))).await.status, 304, "{path}");
    }
    // The answer servers of eu1 do not answer, eu2 has none, and eu3 does not exist.
    let cases = [
        ("GET", "/databases/eu1/parameters", 503, "overloaded"),
        ("GET", "/databases/eu2/parameters", 404, "database"),
        ("GET", "/databases/eu2/filter", 404, "path"),
        ("POST", "/databases/eu1/lookup", 503, "overloaded"),
        ("POST", "/databases/eu3/lookup", 404, "database"),
        ("POST", "/databases/../lookup", 404, "path"),
        ("POST", "/resolve", 404, "path"),
        ("POST", "/directory", 405, "method"),
        ("GET", "/evaluate", 405, "method"),
        ("POST", "/evaluate", 400, "malformed"),
    ];
    for (method, path, status, error) in cases {
        let inside = running.sealed(method, path, vec![1, 2, 3]).await;
        assert_eq!(inside.status, status, "{method} {path}");
        assert_eq!(error_of(&inside.body)["error"], error, "{method} {path}");
        assert_eq!(inside.retry_after.is_some(), status == 503, "{method} {path}");
        if method == "GET" && path != "/evaluate" {
            assert_eq!(running.get(path, None).await.status, status, "{path}");
        }
    }
    assert_eq!(running.value("front_end_inside_total", &["evaluate", "200"]), 1.0);
    assert_eq!(running.value("front_end_inside_total", &["lookup", "503"]), 1.0);
    assert_eq!(running.value("front_end_requests_total", &["answered"]), 14.0);
    assert_eq!(running.value("front_end_evaluations_total", &[]), 1.0);
}

#[tokio::test]
async fn what_is_wrong_outside_the_seal_is_told_to_the_relay() {
    let files = Files::new();
    let running = files.start(files.options()).await;
    let (capsule, _) =
        seal(&running.config().await, &request("GET", "/directory", vec![])).unwrap();
    let error = |reply: &Response| error_of(&reply.body)["error"].as_str().map(str::to_owned);

    let stranger = running.post(&running.anyone, "/gateway", SEALED, &capsule).await;
    assert_eq!((stranger.status, error(&stranger).as_deref()), (403, Some("relay")));
    let ask = async |of_type: &str, body: &[u8]| {
        running.post(&running.relay, "/gateway", of_type, body).await
    };
    let other = ask("application/json", &capsule).await;
    assert_eq!((other.status, error(&other).as_deref()), (400, Some("malformed")));
    let longest = vec![0; limits::LOOKUP_BODY_BYTES_MAX];
    assert_eq!(ask(SEALED, &longest).await.status, 400);
    // Whoever is refused before the body is read gets to see why.
    let stranger = running.post(&running.anyone, "/gateway", SEALED, &longest).await;
    assert_eq!(stranger.status, 403);
    let long = ask(SEALED, &[&longest[..], &[0]].concat()).await;
    assert_eq!((long.status, error(&long).as_deref()), (413, Some("too_long")));
    let short = ask(SEALED, &capsule[..50]).await;
    assert_eq!((short.status, error(&short).as_deref()), (400, Some("malformed")));

    // Another key, and a capsule that was changed or cut off.
    let mut other_key = capsule.clone();
    other_key[0] ^= 0x80;
    let mut changed = capsule.clone();
    changed[60] ^= 1;
    for wrong in [&other_key[..], &changed, &capsule[..capsule.len() - 1]] {
        let reply = ask(SEALED, wrong).await;
        assert_eq!(reply.status, 400);
        assert_eq!(reply.headers["content-type"], "application/problem+json");
        let kind = "https://iana.org/assignments/http-problem-types#ohttp-key";
        assert_eq!(error_of(&reply.body)["type"], kind);
    }
    assert_eq!(running.value("front_end_requests_total", &["ohttp_key"]), 2.0);
    assert_eq!(running.value("front_end_requests_total", &["unopened"]), 2.0);
    assert_eq!(running.get("/gateway", None).await.status, 405);
    assert_eq!(running.get("/other", None).await.status, 404);
    assert_eq!(ask(SEALED, &capsule).await.status, 200, "it serves afterwards");
}

#[tokio::test]
async fn a_relay_has_its_bound_and_a_replay_counts_again() {
    let files = Files::new();
    // Room for two requests of each kind at once.
    files.write("relays", "client.localhost 768 768\n");
    let running = files.start(files.options()).await;
    let (capsule, _) =
        seal(&running.config().await, &request("POST", "/evaluate", evaluation("eu1").0)).unwrap();
    for _ in 0..2 {
        let reply = running.post(&running.relay, "/gateway", SEALED, &capsule).await;
        assert_eq!(reply.status, 200);
    }
    let reply = running.post(&running.relay, "/gateway", SEALED, &capsule).await;
    assert_eq!(reply.status, 429);
    // 16 elements leak in 1 800 s.
    assert_eq!(reply.headers["retry-after"], "1800");
    assert_eq!(error_of(&reply.body)["error"], "relay_bound");
    assert_eq!(running.sealed("POST", "/databases/eu1/lookup", vec![]).await.status, 503);
    assert_eq!(running.sealed("GET", "/directory", vec![]).await.status, 200, "it is not counted");
    assert_eq!(running.value("front_end_relay_counted_total", &["evaluate"]), 32.0);
    assert_eq!(running.value("front_end_relay_refused_total", &["evaluate"]), 1.0);
    assert_eq!(running.value("front_end_evaluations_total", &[]), 2.0);
}

#[tokio::test]
async fn an_evaluation_cannot_pass_for_a_look_up() {
    let files = Files::new();
    let running = files.start(files.options()).await;
    // Binary HTTP may have zeros behind it, so a capsule can be as long as a look-up.
    let (body, _) = evaluation("eu1");
    let mut padded = body.clone();
    padded.resize(limits::EVALUATE_BODY_BYTES_MAX, 0);
    let inside = running.sealed("POST", "/evaluate", padded).await;
    assert_eq!(inside.status, 400);
    assert!(error_of(&inside.body)["detail"].as_str().unwrap().contains("at most 4096 bytes"));
    assert_eq!(running.value("front_end_evaluations_total", &[]), 0.0);
    assert_eq!(running.sealed("POST", "/evaluate", body).await.status, 200);
}

#[tokio::test]
async fn contacts_are_resolved_only_where_that_was_asked_for() {
    let files = Files::new();
    let ask = br#"{"identifiers":["+15550100101"]}"#.to_vec();
    let running = files.start(files.options()).await;
    let refused = running.sealed("POST", "/resolve", ask.clone()).await;
    assert_eq!(refused.status, 404);
    assert!(error_of(&refused.body)["detail"].as_str().unwrap().contains("without --resolve"));
    assert_eq!(running.value("front_end_relay_counted_total", &["evaluate"]), 0.0);
    assert_eq!(running.value("front_end_inside_total", &["resolve", "404"]), 0.0);

    // What is there is no filter: whoever resolves has to verify it.
    let options = || Options { resolve_bytes: Some(1 << 20), ..files.options() };
    let error = files.refused(options()).await;
    assert!(error.to_string().contains("eu1.filter"), "{error}");
    files.place_without_filter();
    // Room for one request of both kinds, and another look-up, at once.
    files.write("relays", "client.localhost 384 768\n");
    let running = files.start(options()).await;
    // No answer server of eu1 answers, and eu2 is not asked here.
    let told = running.sealed("POST", "/resolve", ask.clone()).await;
    assert_eq!((told.status, told.content_type.as_deref()), (200, Some("application/json")));
    let results = &error_of(&told.body)["results"];
    assert_eq!(results.as_array().unwrap().len(), 1);
    assert_eq!(results[0]["result"], "failed");
    for kind in ["evaluate", "lookup"] {
        assert_eq!(running.value("front_end_relay_counted_total", &[kind]), 16.0, "{kind}");
    }
    assert_eq!(running.value("front_end_inside_total", &["resolve", "200"]), 1.0);
    assert_eq!(running.value("front_end_resolve_contacts_total", &[]), 2.0);
    assert_eq!(running.value("front_end_resolve_failed_total", &[]), 2.0);
    assert_eq!(running.value("front_end_resolve_cache_bytes", &[]), 0.0);
    assert_eq!(running.sealed("GET", "/resolve", vec![]).await.status, 405);
    // The next one is beyond the bound for evaluations, and no look-up is counted for it.
    let (capsule, _) = seal(&running.config().await, &request("POST", "/resolve", ask)).unwrap();
    let reply = running.post(&running.relay, "/gateway", SEALED, &capsule).await;
    assert_eq!(reply.status, 429);
    assert_eq!(running.value("front_end_relay_counted_total", &["lookup"]), 16.0);
    assert_eq!(running.value("front_end_relay_refused_total", &["evaluate"]), 1.0);
}

#[tokio::test]
async fn requests_to_resolve_have_a_form_and_a_length() {
    let files = Files::new();
    files.place_without_filter();
    let running = files.start(Options { resolve_bytes: Some(1 << 20), ..files.options() }).await;
    let seventeen = vec!["\"+15550100101\""; 17].join(",");
    let cases = [
        "{}".to_owned(),
        r#"{"identifiers":[]}"#.to_owned(),
        format!("{{\"identifiers\":[{seventeen}]}}"),
        r#"{"identifiers":["5550100101"]}"#.to_owned(),
        format!("{{\"identifiers\":[\"+15550100101\"]}}{}", " ".repeat(4_100)),
    ];
    for case in cases {
        let refused = running.sealed("POST", "/resolve", case.clone().into_bytes()).await;
        assert_eq!(refused.status, 400, "{case}");
        assert!(!String::from_utf8(refused.body).unwrap().contains("5550"), "{case}");
    }
    let count = |count: usize| vec!["\"+15550100101\""; count].join(",");
    let mut lengths = Vec::new();
    for number in [1, 2, 16] {
        let body = format!("{{\"identifiers\":[{}]}}", count(number));
        let told = running.sealed("POST", "/resolve", body.into_bytes()).await;
        lengths.push(told.body.len());
    }
    assert_eq!(lengths, [526, 526 + 513, 526 + 15 * 513]);
}

#[tokio::test]
async fn evaluations_are_passed_on_to_who_has_the_key() {
    let operator_files = Files::new();
    let operator = operator_files.start(operator_files.options()).await;
    // Another front-end with the same authority and directory.
    let files = Files::with(operator_files.certificates.clone(), operator_files.blind_key.clone());
    files.place(&format!("evaluate = \"{}/\"", operator.url));
    let mut options = files.options();
    options.blind_keys.clear();
    let running = files.start(options).await;

    let (body, check) = evaluation("eu1");
    let evaluated = running.sealed("POST", "/evaluate", body).await;
    assert_eq!(evaluated.status, 200);
    check(&evaluated.body, &operator_files.blind_key);
    assert_eq!(running.value("front_end_evaluations_passed_on_total", &[]), 1.0);
    assert_eq!(operator.value("front_end_evaluate_requests_total", &["answered"]), 1.0);
    assert_eq!(operator.value("front_end_relay_counted_total", &["evaluate"]), 16.0);
    let nobody = running.sealed("POST", "/evaluate", evaluation("eu2").0).await;
    assert_eq!(nobody.status, 404, "nobody evaluates for it");

    // Who asks in the clear has to be known, is bounded, and is never passed on.
    let body = evaluation("eu1").0;
    let protobuf = "application/x-protobuf";
    let ask = async |at: &Running, client: &Client, body: &[u8]| {
        at.post(client, "/evaluate", protobuf, body).await.status
    };
    assert_eq!(ask(&operator, &operator.anyone, &body).await, 403);
    assert_eq!(ask(&operator, &operator.relay, &body).await, 200);
    assert_eq!(ask(&operator, &operator.relay, &evaluation("eu2").0).await, 404);
    assert_eq!(ask(&operator, &operator.relay, &[0; 4_097]).await, 413);
    assert_eq!(ask(&operator, &operator.relay, b"something").await, 400);
    assert_eq!(ask(&running, &operator.relay, &body).await, 404);

    // An operator that does not know this front-end evaluates nothing for it.
    operator_files.write("relays", "");
    operator.control.reload().unwrap();
    let refused = running.sealed("POST", "/evaluate", evaluation("eu1").0).await;
    assert_eq!((refused.status, refused.retry_after), (503, Some(1)));
    assert_eq!(running.value("front_end_evaluations_failed_total", &[]), 1.0);
}

#[tokio::test]
async fn files_are_read_again_each_for_itself() {
    let files = Files::new();
    let running = files.start(files.options()).await;
    let first = running.get("/directory", None).await.body;
    files.write("directory", &files.directory(2));
    files.write("relays", "other.example 1 1\n");
    files.write("eu1.filter", "another filter");
    running.control.reload().unwrap();
    let second = running.get("/directory", None).await.body;
    assert!(first != second);
    assert_eq!(&running.get("/databases/eu1/filter", None).await.body[..], b"another filter");
    let stranger = running.post(&running.relay, "/gateway", SEALED, b"x").await;
    assert_eq!(stranger.status, 403);

    // An older directory changes nothing; relays do.
    files.write("directory", &files.directory(1));
    files.write("relays", RELAYS);
    let error = running.control.reload().unwrap_err();
    assert!(error.starts_with("the directory is refused"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(running.get("/directory", None).await.body == second);
    assert_eq!(running.sealed("GET", "/directory", vec![]).await.status, 200);
    assert_eq!(running.value("front_end_reloads_failed_total", &[]), 1.0);
}

#[tokio::test]
async fn the_operator_sees_whether_it_is_ready_and_numbers_once_each() {
    let files = Files::new();
    let running = files.start(files.options()).await;
    let Readiness { missing, notes } = running.control.readiness();
    assert_eq!(missing, ["a database has no answer server that works"]);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(running.control.public_key(), base64url(key(1).verifying_key().as_bytes()));
    let samples = running.control.samples();
    for (at, sample) in samples.iter().enumerate() {
        let is_twin = |other: &Sample| (other.name, &other.labels) == (sample.name, &sample.labels);
        assert!(!samples[..at].iter().any(is_twin), "{} {:?}", sample.name, sample.labels);
        assert!(!sample.name.starts_with("sotto_"), "{}", sample.name);
    }
    assert_eq!(running.value("front_end_ohttp_key_current", &[]), 1.0);
    assert_eq!(running.value("front_end_memory_bytes", &[]), 0.0);
}

#[tokio::test]
async fn without_memory_a_request_is_refused_and_not_kept() {
    let files = Files::new();
    let memory_bytes = limits::FRONT_END_REQUEST_BYTES + (8 << 10);
    let running = files.start(Options { memory_bytes, ..files.options() }).await;
    let reply = running.post(&running.relay, "/gateway", SEALED, &[0; 3_000]).await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(error_of(&reply.body)["error"], "overloaded");
    assert_eq!(running.sealed("POST", "/evaluate", evaluation("eu1").0).await.status, 200);
}

#[tokio::test]
async fn files_that_contradict_each_other_are_refused() {
    let files = Files::new();
    let of_database = |error: FrontEndError| matches!(error, FrontEndError::Database { .. });
    BlindKey::generate().unwrap().create(&files.path("other")).unwrap();
    for (id, name) in [("eu1", "other"), ("eu3", "blind")] {
        let blind_keys = vec![(id.to_owned(), files.path(name))];
        assert!(of_database(files.refused(Options { blind_keys, ..files.options() }).await));
    }
    let twice = vec![("eu1".to_owned(), files.path("blind")); 2];
    assert!(of_database(files.refused(Options { blind_keys: twice, ..files.options() }).await));
    for url in ["http://localhost/", "localhost"] {
        files.place(&format!("evaluate = {url:?}"));
        let options = Options { blind_keys: vec![], ..files.options() };
        assert!(of_database(files.refused(options).await), "{url}");
    }
    files.place("evaluate = \"https://localhost/\"");
    let mut options = Options { blind_keys: vec![], ..files.options() };
    options.pool.identity_pem = None;
    assert!(of_database(files.refused(options).await));
    files.place("");
    for (name, what) in [("identity", "front-end's key"), ("relays", "file of relays")] {
        let text = fs::read(files.path(name)).unwrap();
        files.write(name, "something");
        let error = files.refused(files.options()).await.to_string();
        assert!(error.contains(what), "{error}");
        fs::remove_file(files.path(name)).unwrap();
        let error = files.refused(files.options()).await.to_string();
        assert!(error.contains(what), "{error}");
        fs::write(files.path(name), text).unwrap();
    }
    let options = Options { clock: Arc::new(|| NOW + 86_400), ..files.options() };
    assert!(matches!(files.refused(options).await, FrontEndError::Directory(_)));
}
