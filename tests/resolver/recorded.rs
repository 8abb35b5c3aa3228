//! What crosses the links between device, relay, front-end, evaluator and answer servers, recorded
//! on all of them while devices look their contacts up.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::resolver::Resolver;
use sotto::discovery::sealed::capsule::InnerRequest;
use sotto::wire::Bytes;
use sotto::wire::message::{PirRequest, Reply, ReplyBody, Request, RequestBody};

use crate::estate::{ACCOUNT, Chain, token};
use crate::harness::Crossing;
use crate::links::{Exchange, Tapped};
use crate::world::{DAY, fixture, handle, now, number, other_number};

/// Everything that crossed, by link.
#[derive(Default)]
pub(crate) struct Crossed {
    to_relay: (Tapped, Vec<Exchange>),
    to_front_end: (Tapped, Vec<Exchange>),
    to_evaluator: (Tapped, Vec<Exchange>),
    to_servers: Vec<Crossing>,
    /// What was inside the seals.
    inner: Vec<InnerRequest>,
}

impl Crossed {
    /// What crossed since the last call.
    pub(crate) fn take(chain: &Chain) -> Self {
        let take = |recorded: &crate::estate::Recorded| (recorded.tap.take(), recorded.link.take());
        let to_front_end = take(&chain.to_front_end);
        Self {
            to_relay: take(&chain.to_relay),
            inner: chain.opened(&to_front_end.1),
            to_front_end,
            to_evaluator: take(&chain.to_evaluator),
            to_servers: chain.to_servers.iter().flat_map(|recorder| recorder.take()).collect(),
        }
    }

    fn add(&mut self, more: Self) {
        for (all, more) in [
            (&mut self.to_relay, more.to_relay),
            (&mut self.to_front_end, more.to_front_end),
            (&mut self.to_evaluator, more.to_evaluator),
        ] {
            all.0.up.extend(more.0.up);
            all.0.down.extend(more.0.down);
            all.0.connections += more.0.connections;
            all.1.extend(more.1);
        }
        self.to_servers.extend(more.to_servers);
        self.inner.extend(more.inner);
    }

    /// All bytes on the link to the relay.
    fn at_relay(&self) -> Vec<u8> {
        all_bytes(&self.to_relay)
    }

    /// All bytes beyond the relay, those inside seals and inside TLS included.
    fn beyond_relay(&self) -> Vec<u8> {
        let mut bytes = all_bytes(&self.to_front_end);
        bytes.extend(all_bytes(&self.to_evaluator));
        for crossing in &self.to_servers {
            bytes.extend_from_slice(&crossing.request_bytes);
            bytes.extend(crossing.replies.concat());
        }
        for inner in &self.inner {
            bytes.extend_from_slice(inner.path.as_bytes());
            bytes.extend_from_slice(&inner.body);
        }
        bytes
    }
}

fn all_bytes((tapped, exchanges): &(Tapped, Vec<Exchange>)) -> Vec<u8> {
    let mut bytes = [&tapped.up[..], &tapped.down].concat();
    exchanges.iter().for_each(|exchange| bytes.extend(exchange.bytes()));
    bytes
}

/// Texts to be found among very many bytes.
#[derive(Default)]
struct Needles {
    /// By their first eight bytes.
    starting: HashMap<[u8; 8], Vec<(String, Vec<u8>)>>,
    firsts: HashSet<u8>,
}

impl Needles {
    fn add(&mut self, about: impl Into<String>, needle: &[u8]) {
        let start = *needle.first_chunk().expect("eight bytes at least, or chance finds them");
        self.firsts.insert(start[0]);
        self.starting.entry(start).or_default().push((about.into(), needle.to_vec()));
    }

    /// A text as it is, and wherever it may stand in base64 of something longer.
    fn add_encoded(&mut self, about: &str, bytes: &[u8]) {
        self.add(about, bytes);
        self.add(format!("{about}, hex"), sotto::wire::hex::encode(bytes).as_bytes());
        for skipped in 0..3 {
            let shifted = [&vec![0; skipped][..], bytes].concat();
            for encoded in [STANDARD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
                // Characters at both ends also depend on what stands beside it.
                let whole = &encoded[(skipped * 8).div_ceil(6)..shifted.len() * 8 / 6];
                self.add(format!("{about}, base64"), whole.as_bytes());
            }
        }
    }

    /// Everything that names a contact.
    fn add_contact(&mut self, contact: &Identifier) {
        let text = contact.as_str();
        self.add_encoded("an identifier", text.as_bytes());
        if let Some(digits) = contact.digits() {
            self.add_encoded("digits", digits.as_bytes());
            self.add_encoded("digits without the country", &digits.as_bytes()[1..]);
        }
        let derived = fixture().blind_key.derive(contact);
        self.add("a derived key", derived.as_bytes());
        self.add_encoded("a look-up key", derived.lookup_key().as_bytes());
        self.add_encoded("a hash", blake3::hash(text.as_bytes()).as_bytes());
        self.add_encoded("a handle", handle(contact).as_bytes());
    }

    /// The first that is there.
    fn found(&self, bytes: &[u8]) -> Option<&str> {
        let at_start = bytes.windows(8).enumerate().filter(|(_, it)| self.firsts.contains(&it[0]));
        let starting = at_start.filter_map(|(at, start)| {
            let start: &[u8; 8] = start.try_into().unwrap();
            Some((at, self.starting.get(start)?))
        });
        let mut needles = starting.flat_map(|(at, needles)| needles.iter().map(move |it| (at, it)));
        let found = needles.find(|(at, (_, needle))| bytes[*at..].starts_with(needle));
        found.map(|(_, (about, _))| &**about)
    }
}

/// The frames of a sealed look-up: key bundles and queries.
fn frames(inner: &InnerRequest) -> Vec<Request> {
    let mut rest = Bytes::from(inner.body.clone());
    let mut requests = Vec::new();
    while !rest.is_empty() {
        requests.push(prost::Message::decode_length_delimited(&mut rest).unwrap());
    }
    requests
}

/// The rule on secrets over all that devices and the front-end have sent: of one (bundle, shard)
/// there is one vector, whoever sent it and however often; a bundle of a name is always the same,
/// and only one set of shards is ever asked for under it.
#[derive(Default)]
pub(crate) struct OnceOnly {
    vectors: HashMap<(String, u32), Bytes>,
    bundles: HashMap<String, Bytes>,
    batches: HashMap<String, Vec<u32>>,
    pub(crate) queries: usize,
}

impl OnceOnly {
    fn add(&mut self, request: &Request) -> Vec<(String, u32)> {
        match request.body.as_ref().unwrap() {
            RequestBody::Parameters(asked) => {
                for bundle in &asked.public_key {
                    let held = self.bundles.entry(asked.uid.clone()).or_insert(bundle.clone());
                    assert!(held == bundle, "two bundles of one name");
                }
                Vec::new()
            }
            RequestBody::Batch(batch) => {
                batch.requests.iter().map(|query| self.add_query(query)).collect()
            }
            RequestBody::Hints(_) => Vec::new(),
        }
    }

    fn add_query(&mut self, query: &PirRequest) -> (String, u32) {
        let [vector] = &query.encrypted_vector[..] else { panic!("not one vector") };
        let place = (query.uid.clone(), query.shard);
        let held = self.vectors.entry(place.clone()).or_insert(vector.clone());
        assert!(held == vector, "a second ciphertext under one secret");
        self.queries += 1;
        place
    }

    /// Adds sealed look-ups.
    pub(crate) fn add_inner(&mut self, inner: &[InnerRequest]) {
        for inner in inner.iter().filter(|inner| inner.path.ends_with("/lookup")) {
            let mut shards: HashMap<String, Vec<u32>> = HashMap::new();
            for (uid, shard) in frames(inner).iter().flat_map(|request| self.add(request)) {
                shards.entry(uid).or_default().push(shard);
            }
            for (uid, mut shards) in shards {
                shards.sort_unstable();
                let held = self.batches.entry(uid).or_insert(shards.clone());
                assert!(*held == shards, "one secret for two sets of shards");
            }
        }
    }

    /// Adds what arrived at answer servers.
    pub(crate) fn add_frames(&mut self, crossings: &[Crossing]) {
        crossings.iter().for_each(|crossing| drop(self.add(&crossing.request)));
    }
}

pub(crate) async fn sync(device: &mut Resolver, contacts: &[Identifier]) {
    let report = device.sync(contacts, |_| {}).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(report.failed.is_empty() && report.refused.is_empty(), "{report:?}");
}

pub(crate) fn is_found(device: &Resolver, contact: &Identifier, now: u64) -> bool {
    let contact = device.contact(contact).and_then(|resolved| resolved.contact(now));
    contact.is_some_and(|contact| contact.services.len() == 1)
}

/// All calls until nothing of these contacts is missing: batches that are due again go one a call.
pub(crate) async fn sync_until_found(chain: &Chain, device: &mut Resolver, all: &[Identifier]) {
    while !all.iter().all(|contact| is_found(device, contact, chain.now())) {
        let due = device.next_due().expect("a contact is missing, and nothing is due");
        chain.set_now(due.max(chain.now()));
        sync(device, all).await;
    }
}

/// Sizes of a link as an observer sees them, in the order in which they crossed.
type Sizes = Vec<(String, usize, usize, u16, usize, usize)>;

/// What an observer on each link sees of one device's calls.
#[derive(Debug, PartialEq)]
struct Shape {
    connections: usize,
    links: [Sizes; 3],
    /// Lengths of vectors, and of frames with an answer.
    at_servers: [Vec<usize>; 2],
}

impl Shape {
    fn of(crossed: &Crossed) -> Self {
        let sizes = |exchanges: &[Exchange]| exchanges.iter().map(Exchange::sizes).collect();
        let queries = crossed.to_servers.iter().filter_map(|crossing| {
            match crossing.request.body.as_ref().unwrap() {
                RequestBody::Batch(batch) => Some((batch.requests.as_slice(), &crossing.replies)),
                _ => None,
            }
        });
        let (mut vectors, mut answers) = (Vec::new(), Vec::new());
        for (requests, replies) in queries {
            vectors.extend(requests.iter().map(|query| query.encrypted_vector[0].len()));
            answers.extend(replies.iter().map(Vec::len));
        }
        Self {
            connections: crossed.to_relay.0.connections,
            links: [
                sizes(&crossed.to_relay.1),
                sizes(&crossed.to_front_end.1),
                sizes(&crossed.to_evaluator.1),
            ],
            at_servers: [vectors, answers],
        }
    }
}

/// Garbles one pack of an answer and leaves the other as it is.
pub(crate) fn garble_second_pack(reply: &mut Reply) {
    if let Some(ReplyBody::Answer(answer)) = &mut reply.body
        && let Some(pack) = answer.encrypted_response.get_mut(1)
    {
        pack.fill(0x5a);
    }
}

/// Whether two numbers of bytes differ by no more than how they were cut into records of TLS.
fn about_equal(one: usize, other: usize) -> bool {
    one.abs_diff(other) * 100 <= one
}

/// Devices whose contacts are there, absent, dummies, or answered wrong: no link shows which.
async fn check_shapes(chain: &Chain, all: &mut Vec<Identifier>, crossed: &mut Crossed) {
    // Sixteen that are there, sixteen that are not, one and fifteen dummies; and sixteen that are
    // there, of which every answer has its second pack garbled.
    let mut shapes = Vec::new();
    for (name, range) in [
        ("there", 64..80),
        ("absent", 9_000..9_016),
        ("dummies", 9_016..9_017),
        ("garbled", 64..80),
    ] {
        if name == "garbled" {
            chain.to_servers.iter().for_each(|recorder| recorder.change(garble_second_pack));
        }
        let contacts: Vec<_> = range.map(number).collect();
        let mut device = chain.device(name).await;
        sync(&mut device, &contacts).await;
        // Nothing comes of asking again, whatever was found.
        sync(&mut device, &contacts).await;
        let found = contacts.iter().filter(|it| is_found(&device, it, chain.now())).count();
        match name {
            "there" => assert_eq!(found, 16),
            "garbled" => assert!((1..16).contains(&found), "{found}"),
            _ => assert_eq!(found, 0),
        }
        all.extend(contacts);
        let part = Crossed::take(chain);
        shapes.push((Shape::of(&part), part.to_relay.0.up.len(), part.to_relay.0.down.len()));
        crossed.add(part);
    }
    chain.to_servers.iter().for_each(|recorder| recorder.change(|_| {}));
    let (there, up, down) = &shapes[0];
    assert_eq!(there.at_servers.each_ref().map(Vec::len), [16, 16]);
    for (other, other_up, other_down) in &shapes[1..] {
        assert_eq!(there, other);
        assert!(about_equal(*up, *other_up) && about_equal(*down, *other_down));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_link_shows_sizes_and_nothing_else() {
    let chain = Chain::start(|_| {}).await;
    // One before all others: public files are then at the relay, hints at the front-end.
    let mut all = Vec::from_iter((0..64).map(number));
    all.push(other_number(1));
    let mut device = chain.device("first").await;
    sync(&mut device, &all).await;
    assert!(all.iter().all(|contact| is_found(&device, contact, chain.now())));
    let mut crossed = Crossed::take(&chain);
    assert!(
        crossed
            .to_servers
            .iter()
            .any(|crossing| { matches!(crossing.request.body, Some(RequestBody::Hints(_))) })
    );

    check_shapes(&chain, &mut all, &mut crossed).await;

    // A fortnight later: replies are cut off, and one device starts again.
    chain.to_front_end.link.script().reply = {
        let mut left = 2;
        Box::new(move |path, reply| {
            if path == "/gateway" && left > 0 {
                left -= 1;
                reply.truncate(reply.len() / 2);
            }
        })
    };
    chain.set_now(now() + 14 * DAY);
    sync(&mut device, &[]).await;
    drop(device);
    let mut device = chain.device("first").await;
    all.push(number(100));
    sync_until_found(&chain, &mut device, &all[..65]).await;
    sync(&mut device, &all[all.len() - 1..]).await;
    crossed.add(Crossed::take(&chain));
    look_for_names(&crossed, &all);
    look_for_the_account(&crossed);
    let mut once_only = OnceOnly::default();
    once_only.add_inner(&crossed.inner);
    let sealed = once_only.queries;
    once_only.add_frames(&crossed.to_servers);
    assert!(sealed >= 16 * (5 + 4 + 2 + 1) && once_only.queries > sealed, "{sealed}");
}

fn look_for_names(crossed: &Crossed, contacts: &[Identifier]) {
    let mut needles = Needles::default();
    contacts.iter().for_each(|contact| needles.add_contact(contact));
    // They are found where they are.
    let contact = contacts[3].as_str();
    let derived = fixture().blind_key.derive(&contacts[3]);
    for planted in [
        format!("GET /contact?of={contact} HTTP/1.1").into_bytes(),
        STANDARD.encode(format!("{{\"contact\":\"{contact}\"}}")).into_bytes(),
        [&[1, 2, 3][..], derived.as_bytes(), &[4]].concat(),
        format!("key {}", derived.lookup_key()).into_bytes(),
    ] {
        assert!(needles.found(&planted).is_some(), "{}", String::from_utf8_lossy(&planted));
    }
    for bytes in [crossed.at_relay(), crossed.beyond_relay()] {
        assert!(bytes.len() > 1 << 20, "little was recorded");
        assert_eq!(needles.found(&bytes), None);
    }
}

fn look_for_the_account(crossed: &Crossed) {
    let mut needles = Needles::default();
    needles.add_encoded("the account", ACCOUNT.as_bytes());
    let token = token(ACCOUNT);
    needles.add("the token", token.as_bytes());
    token.split('.').for_each(|part| needles.add("a part of the token", part.as_bytes()));
    assert!(needles.found(&crossed.at_relay()).is_some(), "the relay has to see the token");
    assert_eq!(needles.found(&crossed.beyond_relay()), None);
    for (_, exchanges) in [&crossed.to_front_end, &crossed.to_evaluator] {
        for exchange in exchanges {
            assert_eq!(exchange.names, ["client.localhost"]);
            let allowed = ["content-type", "content-length", "host", "if-none-match"];
            let mut names = exchange.headers.keys().map(|name| name.as_str());
            assert!(names.all(|name| allowed.contains(&name)), "{:?}", exchange.headers);
        }
    }
}
