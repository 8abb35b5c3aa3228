//! Two databases with real answers, and a relay with its front-end in one process, which follows a
//! script and records what it is asked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::UNIX_EPOCH;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, spki::der::pem::LineEnding};
use zeroize::Zeroizing;

use sotto::builder::{self, BuildOptions, Silent};
use sotto::discovery::blind::BlindKey;
use sotto::discovery::directory::{
    Content, Database as Entry, Key, Pins, Provider, RecordKey, RistrettoKey, Validity, draft,
};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::log::parameters_digest;
use sotto::discovery::log::proof::OldProofs;
use sotto::discovery::record::{self, Body as RecordBody, Service};
use sotto::discovery::resolver::{Options, Resolver};
use sotto::discovery::sealed::capsule::{Gateway, InnerRequest, InnerResponse};
use sotto::discovery::sealed::evaluate::{EvaluateRequest, EvaluateResponse};
use sotto::discovery::sealed::keys::{GatewayKey, sign_keys};
use sotto::discovery::sealed::lookup::{join_answers, split_request};
use sotto::engine::{Batch, EncryptedQuery, Engine, EngineChoice, IsaChoice, select};
use sotto::https::{Bounds, Server, TlsFiles};
use sotto::keyword::locate;
use sotto::params::ShapeWishes;
use sotto::scheme::{KeyBundle, pack_digest};
use sotto::server::certificates::{LocalCertificates, localhost};
use sotto::shard::manifest::ManifestHead;
use sotto::shard::{Database, Manifest};
use sotto::wire::message::{PirParameterResponse, PirResponse, Reply, ReplyBody};
use sotto::wire::{Bytes, Lifetime, PROTOCOL_VERSION, Status, encode_frame};

pub(crate) const DAY: u64 = 86_400;
/// Has 64 shards, blinded keys, and the numbers that begin with +1555.
pub(crate) const ONE: &str = "one";
/// Has 2 shards, plain keys, and the numbers that begin with +1777. Addresses are in both.
pub(crate) const TWO: &str = "two";
/// Contacts that each database has.
const PRESENT: u64 = 700;
/// Where the numbers begin that no database has.
const ABSENT: u64 = 9_000;

/// A number of the first database, by its place in an order in which the first ones are in distinct
/// shards: those from 0 on are there, those from [`ABSENT`] on are not.
pub(crate) fn number(at: u64) -> Identifier {
    let fixture = fixture();
    match at.checked_sub(ABSENT) {
        None => fixture.present[at as usize].clone(),
        Some(at) => fixture.absent[at as usize].clone(),
    }
}

/// When the tests began, in seconds since 1970: programs have no other clock.
pub(crate) fn now() -> u64 {
    static NOW: LazyLock<u64> = LazyLock::new(|| UNIX_EPOCH.elapsed().unwrap().as_secs());
    *NOW
}

fn some_number(at: u64) -> Identifier {
    Identifier::parse(&format!("+1555{at:07}"), None).unwrap()
}

/// A number of the second database.
pub(crate) fn other_number(at: u64) -> Identifier {
    Identifier::parse(&format!("+1777{at:07}"), None).unwrap()
}

pub(crate) fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(blake3::hash(name.as_bytes()).as_bytes())
}

/// Everything that tests share and do not change.
pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) certificates: LocalCertificates,
    pub(crate) content: Content,
    served: BTreeMap<&'static str, Served>,
    pub(crate) blind_key: BlindKey,
    present: Vec<Identifier>,
    absent: Vec<Identifier>,
}

struct Served {
    database: Database,
    engine: Mutex<Box<dyn Engine>>,
}

pub(crate) fn fixture() -> &'static Fixture {
    static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::new);
    &FIXTURE
}

/// The handle that the record of a contact has.
pub(crate) fn handle(contact: &Identifier) -> String {
    format!("u-{}", &blake3::hash(contact.as_str().as_bytes()).to_hex()[..10])
}

/// A directory of databases with these names, prefixes and blinding keys. Record keys are numbered
/// from 1.
pub(crate) fn content(databases: [(&str, &str, Option<RistrettoKey>); 2]) -> Content {
    let mut content = draft::new(1, vec![Key::from(key("root").verifying_key())]).unwrap();
    let provider = Provider {
        index: 1,
        domain: "a.example".into(),
        name: "A".into(),
        keys_url: "https://keys.a.example/".into(),
        keys_identity: None,
    };
    draft::add_provider(&mut content, provider).unwrap();
    for (index, (name, prefix, blinding_key)) in (1..).zip(databases) {
        let entry = Entry {
            id: name.into(),
            operator_key: Key::from(key(&format!("operator {name}")).verifying_key()),
            record_keys: vec![RecordKey {
                index,
                key: Key::from(key(&format!("record {name}")).verifying_key()),
                validity: Validity { from: now() - 99 * DAY, until: now() + 99 * DAY },
            }],
            blinding_key,
            log: None,
            prefixes: vec![prefix.into()],
            region: "us".into(),
            endpoints: vec!["localhost:4433".into()],
        };
        draft::add_database(&mut content, entry).unwrap();
    }
    content
}

impl Fixture {
    fn new() -> Self {
        let (folder, now) = (tempfile::tempdir().unwrap(), now());
        let blind_key = BlindKey::generate().unwrap();
        let issued = record::minute_of(now - DAY).unwrap();
        let sign = |contact: &Identifier, signer| {
            let service =
                Service { provider: 1, handle: Some(handle(contact)), ..Service::default() };
            let body = RecordBody { signer, issued, services: vec![service], ..Default::default() };
            record::sign(
                &body,
                contact,
                &key(if signer == 1 { "record one" } else { "record two" }),
            )
        };
        let address = Identifier::parse("bob@example.com", None).unwrap();
        let sealed = (0..PRESENT).map(some_number).map(|contact| {
            let derived = blind_key.derive(&contact);
            (derived.lookup_key(), derived.seal(issued, &sign(&contact, 1)))
        });
        let plain = (0..PRESENT).map(other_number).chain([address]);
        let plain = plain.map(|contact| (contact.as_str().to_owned(), sign(&contact, 2)));
        let served = BTreeMap::from([
            (ONE, Served::new(folder.path(), ONE, sealed.collect(), 64)),
            (TWO, Served::new(folder.path(), TWO, plain.collect(), 2)),
        ]);
        let blinding = Some(RistrettoKey(blind_key.public_key()));
        let databases = [(ONE, "+1555", blinding), (TWO, "+1777", None)];
        let content = Content { version: 5, expires: now + 30 * DAY, ..content(databases) };
        let spread = |range: std::ops::Range<u64>| {
            served[ONE]
                .spread(range.map(some_number), |contact| blind_key.derive(contact).lookup_key())
        };
        let present = spread(0..PRESENT);
        let mut absent = spread(ABSENT..ABSENT + PRESENT);
        // Its first ones are in the last shards, those of the others in the first.
        absent[..64].reverse();
        let certificates = localhost().unwrap();
        let write = |name: &str, pem: &str| std::fs::write(folder.path().join(name), pem).unwrap();
        write("server.pem", &certificates.server_pem);
        write("server.key", &certificates.server_key);
        Self { folder, certificates, content, served, blind_key, present, absent }
    }

    /// The roots of its directory.
    pub(crate) fn pins() -> Pins {
        Pins::new(1, vec![Key::from(key("root").verifying_key())]).unwrap()
    }

    /// What a device is given that reaches a relay at this address.
    pub(crate) fn device(&self, relay: String, state: PathBuf, clock: Arc<AtomicU64>) -> Options {
        Options {
            relay,
            ca_pem: self.certificates.ca_pem.clone().into_bytes(),
            token: Box::new(|| "a-token".into()),
            front_end_key: key("front-end").verifying_key(),
            state,
            state_key: Zeroizing::new([9; 32]),
            directory_pins: Self::pins(),
            pack_records_min: 1,
            clock: Box::new(move || clock.load(Ordering::SeqCst)),
        }
    }

    /// The signed file of a directory.
    pub(crate) fn sign(content: &Content) -> String {
        draft::sign(content, &[key("root")]).unwrap()
    }

    /// The epoch of the first database.
    pub(crate) fn epoch(&self) -> u64 {
        self.served[ONE].database.epoch()
    }

    /// What a log has of an epoch of the first database, so many epochs later.
    pub(crate) fn parameters_digest(&self, later: u64) -> [u8; 32] {
        parameters_digest(&self.served[ONE].manifest(ONE, later).parameters.0)
    }

    fn tls(&self) -> TlsFiles {
        let path = |name: &str| self.folder.path().join(name);
        TlsFiles { cert: path("server.pem"), key: path("server.key"), client_ca: None }
    }
}

impl Served {
    fn new(folder: &Path, name: &str, records: Vec<(String, Vec<u8>)>, shards: u32) -> Self {
        use base64::Engine as _;
        let base64 = |value: &[u8]| base64::engine::general_purpose::STANDARD.encode(value);
        let line = |(key, value): &(String, Vec<u8>)| {
            let value = format!("base64:{}", base64(value));
            format!("{}\n", serde_json::json!({ "sii": key, "value": value }))
        };
        let input = folder.join(format!("{name}.jsonl"));
        std::fs::write(&input, records.iter().map(line).collect::<String>()).unwrap();
        let signing_key = folder.join(format!("{name}.pem"));
        let pem = key(&format!("operator {name}")).to_pkcs8_pem(LineEnding::LF).unwrap();
        std::fs::write(&signing_key, pem.as_bytes()).unwrap();
        let out = folder.join(name);
        let options = BuildOptions {
            shards: Some(shards),
            value_bytes: Some(120),
            wishes: ShapeWishes { pack_rows: Some(128), packs: Some(2) },
            database: Some(name.to_owned()),
            signing_key: Some(signing_key),
            created: Some(now() - DAY),
            jobs: Some(2),
            ..BuildOptions::new(builder::Input::File(input), out.clone())
        };
        builder::run(&options, &Silent).unwrap_or_else(|error| panic!("{error}"));
        let engine = select(EngineChoice::Cpu, IsaChoice::Auto, NonZeroUsize::new(1)).unwrap();
        Self { database: Database::open(&out).unwrap(), engine: Mutex::new(engine) }
    }

    /// Contacts in an order that goes through the shards again and again.
    fn spread(
        &self,
        contacts: impl Iterator<Item = Identifier>,
        key: impl Fn(&Identifier) -> String,
    ) -> Vec<Identifier> {
        let (seed, shards) = (self.database.seed(), self.database.shard_count());
        let groups = self.database.shape().groups() as u32;
        let mut rounds: BTreeMap<(u32, u32), Identifier> = BTreeMap::new();
        for contact in contacts {
            let shard = locate(seed, key(&contact).as_bytes(), shards, groups).shard;
            let free = (0..).find(|&round| !rounds.contains_key(&(round, shard))).unwrap();
            rounds.insert((free, shard), contact);
        }
        let first = rounds.keys().take_while(|(round, _)| *round == 0).count();
        assert_eq!(first, shards as usize, "a shard without a contact");
        rounds.into_values().collect()
    }

    /// The body of the parameters, as of a later epoch if `later` is not 0.
    fn manifest(&self, name: &str, later: u64) -> Manifest {
        let manifest = self.database.manifest();
        let head = ManifestHead {
            seed: manifest.seed.0,
            epoch: manifest.epoch + later,
            lifetime: Lifetime { created: manifest.created, expires: manifest.expires },
            database: name.to_owned(),
            shape: *self.database.shape(),
        };
        let operator = key(&format!("operator {name}"));
        Manifest::sign(&head, manifest.shards.clone(), &operator).unwrap()
    }

    fn parameters(&self, name: &str, later: u64) -> Vec<u8> {
        let manifest = self.manifest(name, later);
        encode_frame(&Reply::from(ReplyBody::Parameters(PirParameterResponse {
            protocol_version: PROTOCOL_VERSION,
            pir_scheme: sotto::wire::PIR_SCHEME_SOTTO_2,
            parameters: manifest.parameters.0.into(),
            signature: manifest.signature.0.to_vec().into(),
            hint_digests: self.database.hint_digests().to_vec().into(),
            ..Default::default()
        })))
    }

    fn answer(&self, body: Vec<u8>, seen: &mut Lookup) -> Vec<PirResponse> {
        let shape = *self.database.shape();
        let request = split_request(Bytes::from(body), &shape).unwrap();
        let bundles: HashMap<_, _> = request
            .bundles
            .iter()
            .map(|(uid, bytes)| (*uid, Arc::new(KeyBundle::decode(bytes, &shape).unwrap())))
            .collect();
        seen.bundles = request.bundles.iter().map(|(uid, _)| uid.to_string()).collect();
        let mut answers = Vec::new();
        for query in request.queries {
            seen.queries.push((query.uid.to_string(), query.shard, query.vector.to_vec()));
            seen.want_hints = query.want_hint;
            let shard = self.database.shard(query.shard).unwrap();
            let encrypted =
                EncryptedQuery { vector: query.vector, bundle: bundles[&query.uid].clone() };
            let batch = Batch { shard: shard.view(), queries: &[encrypted] };
            let mut responses = Vec::new();
            let mut done = |_, _, answer| responses = answer;
            self.engine.lock().unwrap().answer(&[batch], &mut done).unwrap();
            let hints = shard.hints().chunks_exact(shape.hint_bytes());
            let pack = query.pack as usize - 1;
            answers.push(PirResponse {
                protocol_version: PROTOCOL_VERSION,
                nonce: query.nonce,
                uid: query.uid.to_string(),
                response_status: Status::ResponseSuccess.code(),
                encrypted_response: vec![responses.swap_remove(pack)],
                hint: match query.want_hint {
                    true => vec![hints.clone().nth(pack).unwrap().to_vec()],
                    false => Vec::new(),
                },
                pack_digests: hints.flat_map(pack_digest).collect::<Vec<u8>>().into(),
                epoch: query.epoch,
                hint_digest: shard.hint_digest().to_vec(),
                ..Default::default()
            });
        }
        answers
    }
}

/// A request as the relay or, where it was opened, the front-end saw it.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) bytes: usize,
    pub(crate) authorization: Option<String>,
    /// Of the relay's reply; 0 if there was none.
    pub(crate) status: u16,
    pub(crate) inner: Option<Inner>,
}

/// What was in a seal.
#[derive(Clone)]
pub(crate) struct Inner {
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
    pub(crate) lookup: Option<Lookup>,
}

/// What a look-up shows.
#[derive(Clone, Default)]
pub(crate) struct Lookup {
    pub(crate) bundles: Vec<String>,
    /// Name of the bundle, shard, encrypted vector.
    pub(crate) queries: Vec<(String, u32, Vec<u8>)>,
    pub(crate) want_hints: bool,
}

impl Lookup {
    pub(crate) fn shards(&self) -> Vec<u32> {
        let mut shards: Vec<u32> = self.queries.iter().map(|(_, shard, _)| *shard).collect();
        shards.sort_unstable();
        shards
    }
}

/// What a hook gives in place of an answer.
pub(crate) enum Instead {
    /// Nothing: it is answered as it should be.
    Nothing,
    /// A reply of the relay.
    Reply(u16, &'static str, Vec<u8>),
    /// A sealed reply.
    Sealed(InnerResponse),
    /// Never an answer.
    Silence,
}

type BeforeHook = Box<dyn FnMut(&str, Option<&InnerRequest>) -> Instead + Send>;
type AnswersHook = Box<dyn FnMut(&str, &mut Vec<PirResponse>) + Send>;
type RepliesHook = Box<dyn FnMut(&str, &mut Vec<u8>) + Send>;

/// What a relay does.
pub(crate) struct Script {
    pub(crate) directory: String,
    /// How many epochs the parameters are later than those of the answers.
    pub(crate) later: u64,
    /// Seeds of OHTTP keys, the newest last.
    pub(crate) ohttp: Vec<u8>,
    /// What the signed list names, if it is another key.
    pub(crate) listed: Option<u8>,
    pub(crate) front_end_key: SigningKey,
    pub(crate) blind_key: Option<BlindKey>,
    /// The routing filter of the first database.
    pub(crate) filter: Option<Vec<u8>>,
    /// The proofs of the first database.
    pub(crate) proof: Option<Vec<u8>>,
    /// All that its operator keeps.
    pub(crate) old_proofs: Option<Vec<u8>>,
    pub(crate) before: BeforeHook,
    pub(crate) answers: AnswersHook,
    pub(crate) replies: RepliesHook,
}

/// A relay and its front-end.
pub(crate) struct Relay {
    pub(crate) url: String,
    pub(crate) clock: Arc<AtomicU64>,
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
}

impl Relay {
    /// Serves until the runtime ends.
    pub(crate) async fn start() -> Arc<Self> {
        let second = std::time::Duration::from_secs(30);
        let bounds = Bounds {
            connections: 64,
            handshakes: 16,
            handshake_time: second,
            head_time: second,
            idle_time: second,
            body_time: second,
        };
        let fixture = fixture();
        let address = ([127, 0, 0, 1], 0).into();
        let server = Server::bind(address, &fixture.tls(), bounds).await.unwrap();
        let script = Script {
            directory: Fixture::sign(&fixture.content),
            later: 0,
            ohttp: vec![1],
            listed: None,
            front_end_key: key("front-end"),
            blind_key: None,
            filter: None,
            proof: None,
            old_proofs: None,
            before: Box::new(|_, _| Instead::Nothing),
            answers: Box::new(|_, _| {}),
            replies: Box::new(|_, _| {}),
        };
        let relay = Arc::new(Self {
            url: format!("https://localhost:{}", server.local_addr().port()),
            clock: Arc::new(AtomicU64::new(now())),
            script: Mutex::new(script),
            seen: Mutex::default(),
        });
        let router = axum::Router::new().fallback(handle_request).with_state(relay.clone());
        tokio::spawn(server.run(router, std::future::pending()));
        relay
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    pub(crate) fn set_now(&self, now: u64) {
        self.clock.store(now, Ordering::SeqCst);
    }

    /// What was seen since the last call.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    pub(crate) fn options(&self, state: PathBuf) -> Options {
        fixture().device(self.url.clone(), state, self.clock.clone())
    }

    pub(crate) async fn resolver(&self, folder: &tempfile::TempDir) -> Resolver {
        Resolver::open(self.options(folder.path().join("state"))).await.unwrap()
    }

    fn gateway(&self) -> Gateway {
        let seeds = self.script().ohttp.clone();
        let key = |&seed: &u8| GatewayKey::new(seed, &[seed; 32]).unwrap();
        Gateway::new(seeds.iter().rev().map(key).collect())
    }

    fn keys(&self) -> String {
        let mut configs = self.gateway().configs();
        let script = self.script();
        if let Some(seed) = script.listed {
            configs = vec![GatewayKey::new(seed, &[seed; 32]).unwrap().config().to_vec()];
        }
        sign_keys(&configs, &script.front_end_key, self.now() - 60, self.now() + 7 * DAY)
    }

    fn open_body(&self, path: &str) -> Option<Vec<u8>> {
        match path {
            "/directory" => Some(self.script().directory.clone().into_bytes()),
            "/ohttp-keys" => Some(self.keys().into_bytes()),
            "/databases/one/filter" => self.script().filter.clone(),
            "/databases/one/proof" => self.script().proof.clone(),
            _ if path.starts_with("/databases/one/proof/") => {
                let size = path.rsplit('/').next()?.parse().ok()?;
                let kept = OldProofs::decode(self.script().old_proofs.clone()?).unwrap();
                kept.after(size).map(<[u8]>::to_vec)
            }
            _ => {
                let name = path.strip_prefix("/databases/")?.strip_suffix("/parameters")?;
                let served = fixture().served.get(name)?;
                Some(served.parameters(name, self.script().later))
            }
        }
    }

    fn answer(&self, request: &InnerRequest, seen: &mut Inner) -> InnerResponse {
        let ok = |body| InnerResponse {
            status: 200,
            content_type: None,
            retry_after: None,
            etag: None,
            body,
        };
        if request.path == "/evaluate" {
            let asked = EvaluateRequest::decode(&request.body).unwrap();
            assert_eq!(asked.database, ONE);
            let script = self.script();
            let key = script.blind_key.as_ref().unwrap_or(&fixture().blind_key);
            let evaluated = key.evaluate(&asked.elements).unwrap();
            let elements = evaluated.elements.try_into().unwrap();
            return ok(EvaluateResponse { elements, proof: evaluated.proof }.encode());
        }
        let name = request.path.strip_prefix("/databases/").unwrap();
        let name = name.strip_suffix("/lookup").unwrap().to_owned();
        let lookup = seen.lookup.insert(Lookup::default());
        let mut answers = fixture().served[&*name].answer(request.body.clone(), lookup);
        (self.script().answers)(&name, &mut answers);
        ok(join_answers(&answers))
    }
}

async fn handle_request(State(relay): State<Arc<Relay>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let header = |name: &str| parts.headers.get(name).map(|it| it.to_str().unwrap().to_owned());
    let body = sotto::https::body(body, 2 << 20).await.unwrap();
    let mut seen = Seen {
        path: path.clone(),
        bytes: body.len(),
        authorization: header("authorization"),
        status: 0,
        inner: None,
    };
    let response = respond(&relay, &path, header("if-none-match"), &body, &mut seen);
    seen.status = response.as_ref().map_or(0, |response| response.status().as_u16());
    relay.seen.lock().unwrap().push(seen);
    match response {
        Some(response) => response,
        None => std::future::pending().await,
    }
}

fn reply(status: u16, content_type: &str, body: Vec<u8>) -> Response {
    let response = Response::builder().status(status).header("content-type", content_type);
    response.body(Body::from(body)).unwrap()
}

const KEY_PROBLEM: &str =
    r#"{"type":"https://iana.org/assignments/http-problem-types#ohttp-key","title":"key"}"#;

fn respond(
    relay: &Relay,
    path: &str,
    held: Option<String>,
    body: &[u8],
    seen: &mut Seen,
) -> Option<Response> {
    if !matches!(path, "/evaluate" | "/lookup") {
        if let Instead::Reply(status, kind, body) = (relay.script().before)(path, None) {
            return Some(reply(status, kind, body));
        }
        let Some(body) = relay.open_body(path) else {
            return Some(reply(404, "text/plain", Vec::new()));
        };
        return Some(match held {
            Some(held) if held == etag(&body) => reply(304, "text/plain", Vec::new()),
            _ => reply(200, "application/octet-stream", body),
        });
    }
    let Ok((request, sealer)) = relay.gateway().open(body) else {
        return Some(reply(400, "application/problem+json", KEY_PROBLEM.into()));
    };
    let mut inner = Inner { path: request.path.clone(), body: request.body.clone(), lookup: None };
    let instead = (relay.script().before)(path, Some(&request));
    let answer = match instead {
        Instead::Reply(status, kind, body) => return Some(reply(status, kind, body)),
        Instead::Silence => {
            // As far as it can be told from the request alone.
            relay.answer(&request, &mut inner);
            seen.inner = Some(inner);
            return None;
        }
        Instead::Sealed(answer) => answer,
        Instead::Nothing => relay.answer(&request, &mut inner),
    };
    seen.inner = Some(inner);
    let mut sealed = sealer.seal(&answer).unwrap();
    (relay.script().replies)(path, &mut sealed);
    Some(reply(200, "message/ohttp-res", sealed))
}

/// The look-ups among what was seen, each with its database.
pub(crate) fn lookups(seen: &[Seen]) -> Vec<(String, Lookup)> {
    let inner = seen.iter().filter_map(|seen| seen.inner.as_ref());
    let lookup = |inner: &Inner| Some((inner.path.clone(), inner.lookup.clone()?));
    inner.filter_map(lookup).collect()
}

/// The rule on secrets: what was encrypted under one secret for one shard never differs, and one
/// secret is for one batch.
pub(crate) fn check_once_only(seen: &[Seen]) {
    let mut vectors: HashMap<(String, u32), Vec<u8>> = HashMap::new();
    let mut owners: HashMap<String, HashSet<Vec<u32>>> = HashMap::new();
    for (_, lookup) in lookups(seen) {
        assert_eq!(lookup.queries.len(), 16);
        for (uid, shard, vector) in &lookup.queries {
            let first = vectors.entry((uid.clone(), *shard)).or_insert_with(|| vector.clone());
            assert!(first == vector, "a second ciphertext under one secret");
        }
        for uid in &lookup.bundles {
            owners.entry(uid.clone()).or_default().insert(lookup.shards());
        }
    }
    assert!(owners.values().all(|batches| batches.len() == 1), "a secret for two batches");
}

/// The tag under which everybody gets the same bytes.
fn etag(body: &[u8]) -> String {
    let hash = blake3::hash(body).to_hex();
    format!("\"{}\"", &hash[..32])
}
