//! Parties that misbehave: a relay that replays and cuts off, requests that are a byte too long
//! inside their seal, answer servers that garble one pack or give answers of other queries, and
//! clocks that are wrong. Each ends in an error of its own, and is counted where somebody counts.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::Method;
use sotto::discovery::directory::{Content, DirectoryError};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::resolver::{ResolveError, Resolver};
use sotto::discovery::sealed::SealedError;
use sotto::discovery::sealed::capsule::{InnerRequest, InnerResponse, seal};
use sotto::discovery::sealed::keys::KeyList;
use sotto::https::{Client, Response};
use sotto::limits::EVALUATE_BODY_BYTES_MAX;
use sotto::wire::Bytes;
use sotto::wire::message::{Reply, ReplyBody};

use crate::estate::{ACCOUNT, Chain, estate, token, value};
use crate::harness::until;
use crate::links::Exchange;
use crate::recorded::{OnceOnly, garble_second_pack, is_found, sync};
use crate::world::{DAY, Fixture, Relay, fixture, key, now, number};

/// What the front-end counts.
fn at_front_end(chain: &Chain, name: &str, labels: &[&str]) -> f64 {
    value(&chain.front_end.control.samples(), name, labels)
}

/// What the front-end counts of its sealed requests.
fn requests(chain: &Chain, outcome: &str) -> f64 {
    at_front_end(chain, "front_end_requests_total", &[outcome])
}

/// Checks that what was sent keeps the rule on secrets, and says how many queries there were in
/// sealed look-ups and at answer servers.
fn check_once_only(chain: &Chain, sent: &[Exchange]) -> (usize, usize) {
    let mut once_only = OnceOnly::default();
    once_only.add_inner(&chain.opened(sent));
    let sealed = once_only.queries;
    let crossings: Vec<_> = chain.to_servers.iter().flat_map(|recorder| recorder.take()).collect();
    once_only.add_frames(&crossings);
    (sealed, once_only.queries - sealed)
}

/// Somebody who sends sealed requests of its own through the relay.
struct Sender<'a> {
    chain: &'a Chain,
    client: Client,
}

impl<'a> Sender<'a> {
    fn new(chain: &'a Chain) -> Self {
        let ca_pem = estate().certificates().ca_pem.as_bytes();
        let client = Client::new(Some(ca_pem), None, Duration::from_secs(60)).unwrap();
        Self { chain, client }
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Response {
        let url = format!("https://localhost:{}{path}", self.chain.relay.address.port());
        let bearer = format!("Bearer {}", token(ACCOUNT));
        let headers = [("content-type", "message/ohttp-req"), ("authorization", &*bearer)];
        self.client.send(method, &url, &headers, Bytes::from(body), 8 << 20).await.unwrap()
    }

    async fn seal(&self, request: &InnerRequest) -> InnerResponse {
        let list = self.send(Method::GET, "/ohttp-keys", Vec::new()).await.body;
        let text = std::str::from_utf8(&list).unwrap();
        let keys = KeyList::open(text, &key("front-end").verifying_key(), self.chain.now());
        let (capsule, opener) = seal(keys.unwrap().newest(), request).unwrap();
        let path = if request.path == "/evaluate" { "/evaluate" } else { "/lookup" };
        let reply = self.send(Method::POST, path, capsule).await;
        assert_eq!(reply.status, 200);
        opener.open(&reply.body).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_replays_or_cuts_off_gains_nothing() {
    let chain = Chain::start(|_| {}).await;
    let numbers = |range: std::ops::Range<u64>| -> Vec<Identifier> { range.map(number).collect() };
    let mut device = chain.device("device").await;
    // Every request twice: it is counted twice, and the same ciphertexts arrive twice.
    chain.to_front_end.link.script().request =
        Box::new(|path, _| if path == "/gateway" { 2 } else { 1 });
    sync(&mut device, &numbers(0..16)).await;
    assert!(numbers(0..16).iter().all(|it| is_found(&device, it, chain.now())));
    assert_eq!(requests(&chain, "answered"), 4.0);
    for kind in ["evaluate", "lookup"] {
        assert_eq!(at_front_end(&chain, "front_end_relay_counted_total", &[kind]), 32.0);
    }
    let first = chain.to_front_end.link.take();
    assert_eq!(check_once_only(&chain, &first), (16, 32));

    // Replies that were given before: the device cannot open them, and sends the same again.
    let earlier = first.last().unwrap().reply.clone();
    let mut left = 2;
    chain.to_front_end.link.script().request = Box::new(|_, _| 1);
    chain.to_front_end.link.script().reply = Box::new(move |path, reply| {
        if path == "/gateway" && reply.len() == earlier.len() && left > 0 {
            left -= 1;
            *reply = earlier.to_vec();
        }
    });
    sync(&mut device, &numbers(16..32)).await;
    assert!(numbers(16..32).iter().all(|it| is_found(&device, it, chain.now())));
    let second = chain.to_front_end.link.take();
    let bodies: Vec<_> =
        chain.opened(&second).into_iter().filter(|it| it.path != "/evaluate").collect();
    assert!(bodies.len() == 3 && bodies[1..].iter().all(|it| it.body == bodies[0].body));

    // Requests that are cut off: the front-end opens none of them, and nothing of the batch is
    // lost: it was never seen.
    chain.to_front_end.link.script().request = Box::new(|path, body| {
        if path == "/gateway" && body.len() > EVALUATE_BODY_BYTES_MAX {
            body.pop();
        }
        1
    });
    let error = device.sync(&numbers(32..48), |_| {}).await.unwrap_err();
    assert!(matches!(error, ResolveError::KeyUnknown), "{error}");
    assert_eq!(requests(&chain, "unopened"), 2.0);
    let refused =
        value(&chain.relay.control.samples(), "relay_requests_total", &["lookup", "ohttp_key"]);
    assert_eq!(refused, 2.0);
    chain.to_front_end.link.script().request = Box::new(|_, _| 1);
    sync(&mut device, &numbers(32..48)).await;
    assert!(numbers(0..48).iter().all(|it| is_found(&device, it, chain.now())));
    let third = chain.to_front_end.link.take();
    assert!(third.iter().any(|exchange| exchange.body.len() > EVALUATE_BODY_BYTES_MAX));
    check_once_only(&chain, &[&second[..], &third].concat());
    a_byte_more_inside_is_refused(&chain, &bodies[0]).await;
}

/// A look-up as it was sent, by somebody who sends it once more, and with a byte more.
async fn a_byte_more_inside_is_refused(chain: &Chain, lookup: &InnerRequest) {
    let sender = Sender::new(chain);
    assert_eq!(sender.seal(lookup).await.status, 200);
    let mut longer = lookup.clone();
    longer.body.push(0);
    let reply = sender.seal(&longer).await;
    assert_eq!(reply.status, 400);
    assert_eq!(at_front_end(chain, "front_end_inside_total", &["lookup", "400"]), 1.0);
    // An evaluation of the most bytes that the relay takes, and of one more.
    let asked = |length: usize| InnerRequest {
        method: "POST".into(),
        path: "/evaluate".into(),
        content_type: None,
        body: vec![1; length],
    };
    let seal_and_http = 200;
    let reply = sender.seal(&asked(EVALUATE_BODY_BYTES_MAX - seal_and_http)).await;
    assert_eq!(reply.status, 400);
    assert_eq!(at_front_end(chain, "front_end_inside_total", &["evaluate", "400"]), 1.0);
    for (path, max) in
        [("/evaluate", EVALUATE_BODY_BYTES_MAX), ("/lookup", sotto::limits::LOOKUP_BODY_BYTES_MAX)]
    {
        let reply = sender.send(Method::POST, path, vec![0; max + 1]).await;
        assert_eq!(reply.status, 413, "{path}");
    }
    let relayed = chain.relay.control.samples();
    assert_eq!(value(&relayed, "relay_requests_total", &["too_long"]), 2.0);
}

/// Gives each query the answer to the one before it.
fn answers_of_others() -> impl FnMut(&mut Reply) + Send + 'static {
    let mut before = None;
    move |reply| {
        if let Some(ReplyBody::Answer(answer)) = &mut reply.body {
            let own = answer.encrypted_response.clone();
            answer.encrypted_response = before.replace(own.clone()).unwrap_or(own);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_find_who_garbles_a_pack_or_answers_other_queries() {
    let chain = Chain::start(|options| {
        options.pool.canary_mean = Duration::from_millis(20);
        options.pool.mix_time = Duration::from_millis(5);
    })
    .await;
    let of_server = |name: &str, at: usize| {
        at_front_end(&chain, name, &[&chain.to_servers[at].address.to_string()])
    };
    let is_out = |at| of_server("pool_server_taken_out", at) == 1.0;
    let mut device = chain.device("device").await;
    for (round, change) in [(0_u64, 0), (1, 1)] {
        let recorder = &chain.to_servers[change];
        match change {
            0 => recorder.change(garble_second_pack),
            _ => recorder.change(answers_of_others()),
        }
        until("the server is taken out", || is_out(change)).await;
        assert!(!is_out(1 - change));
        // A device is answered by the other one.
        let contacts: Vec<_> = (16 * round..16 * round + 16).map(number).collect();
        sync(&mut device, &contacts).await;
        assert!(contacts.iter().all(|it| is_found(&device, it, chain.now())));
        recorder.change(|_| {});
        until("it is asked again", || !is_out(change)).await;
    }
    for at in [0, 1] {
        assert!(of_server("pool_canary_queries_failed_total", at) >= 2.0);
    }
    check_once_only(&chain, &chain.to_front_end.link.take());
}

/// A device whose clock is so many seconds off, and what comes of it.
async fn with_clock(relay: &Relay, clock: u64) -> Result<Resolver, ResolveError> {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let clock = Arc::new(AtomicU64::new(clock));
    let options = fixture().device(relay.url.clone(), state, clock);
    let mut device = Resolver::open(options).await?;
    device.sync(&[number(0)], |_| {}).await?;
    Ok(device)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_an_hour_off_is_named() {
    const HOUR: u64 = 3_600;
    let relay = Relay::start().await;
    let content = |expires| Content { expires, ..fixture().content.clone() };
    // Behind: the directory holds for longer than one may.
    let error = with_clock(&relay, now() - HOUR).await.err().unwrap();
    let is_long = |error: &DirectoryError| matches!(error, DirectoryError::HoldsTooLong { .. });
    assert!(matches!(&error, ResolveError::Directory(error) if is_long(error)), "{error}");
    // Where that cannot be seen, the keys are signed in the future.
    relay.script().directory = Fixture::sign(&content(now() + DAY));
    let error = with_clock(&relay, now() - HOUR).await.err().unwrap();
    assert!(matches!(error, ResolveError::Keys(SealedError::Future { .. })), "{error}");
    // Ahead: a directory that holds for less than an hour has expired.
    relay.script().directory = Fixture::sign(&content(now() + HOUR - 1));
    let error = with_clock(&relay, now() + HOUR).await.err().unwrap();
    let is_over = |error: &DirectoryError| matches!(error, DirectoryError::Expired { .. });
    assert!(matches!(&error, ResolveError::Directory(error) if is_over(error)), "{error}");
    // Nothing was asked of anybody.
    assert!(relay.take_seen().iter().all(|seen| seen.inner.is_none()));
    // With a day left all is well, an hour ahead.
    relay.script().directory = Fixture::sign(&content(now() + DAY));
    let device = with_clock(&relay, now() + HOUR).await.unwrap();
    assert!(device.contact(&number(0)).unwrap().contact(now() + HOUR).is_some());
}
