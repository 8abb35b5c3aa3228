//! What one account gets in a year if it asks at full speed: through a real relay, which counts in
//! its file, and a real evaluator, under a clock that the test sets.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use sotto::discovery::blind::{Derived, Evaluated, blind};
use sotto::discovery::directory::Content;
use sotto::discovery::identifier::Identifier;
use sotto::discovery::sealed::capsule::{InnerRequest, seal};
use sotto::discovery::sealed::evaluate::{EvaluateRequest, EvaluateResponse};
use sotto::discovery::sealed::keys::KeyList;
use sotto::https::{Client, Response};
use sotto::limits::{DEVICE_BATCH, OHTTP_KEY_SECONDS};
use sotto::wire::Bytes;

use crate::estate::{FrontEndHere, RelayHere, estate, placed, start_front_end, start_relay, token};
use crate::world::{DAY, Fixture, ONE, fixture, key, now};

const YEAR: u64 = 365 * DAY;
/// Of the numbers that it tries, one in sixteen has a record: one of each request.
const RECORDS: u64 = 4_000;
/// 1 024 at once and 128 a day, in requests of sixteen.
const REQUESTS: u64 = (BURST + 365 * 128) / DEVICE_BATCH as u64;
const BURST: u64 = 1_024;
const AT_ONCE: u64 = BURST / DEVICE_BATCH as u64;
/// Seconds in which the quota of one more request comes back.
const REFILL: u64 = DAY * DEVICE_BATCH as u64 / 128;
/// Requests of which one is made too early, to see that it is refused.
const PATIENT: u64 = 16;

fn tried(at: u64) -> Identifier {
    Identifier::parse(&format!("+1555{at:07}"), None).unwrap()
}

/// Somebody with an account, a copy of the database, and patience.
struct Scraper {
    relay: RelayHere,
    front_end: FrontEndHere,
    clock: Arc<AtomicU64>,
    client: Client,
    authorization: String,
    config: Vec<u8>,
    /// The directory, and the file of it that the front-end reads.
    content: Content,
    directory: PathBuf,
}

impl Scraper {
    fn time(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Time goes on. Each week the front-end has another key, and gets a newer directory.
    async fn wait(&mut self, seconds: u64) {
        let before = self.clock.fetch_add(seconds, Ordering::SeqCst);
        if before / OHTTP_KEY_SECONDS != self.time() / OHTTP_KEY_SECONDS {
            self.content.version += 1;
            self.content.expires = self.time() + 30 * DAY;
            std::fs::write(&self.directory, Fixture::sign(&self.content)).unwrap();
            self.front_end.control.reload().unwrap();
            // A request for an old key would count, too.
            self.fetch_key().await;
        }
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Response {
        let url = format!("https://localhost:{}{path}", self.relay.address.port());
        let headers =
            [("content-type", "message/ohttp-req"), ("authorization", &*self.authorization)];
        let body = Bytes::from(body);
        self.client.send(method, &url, &headers, body, 1 << 16).await.unwrap()
    }

    async fn fetch_key(&mut self) {
        let reply = self.send(Method::GET, "/ohttp-keys", Vec::new()).await;
        let list = std::str::from_utf8(&reply.body).unwrap();
        assert_eq!(reply.status, 200, "{list}");
        let list = KeyList::open(list, &key("front-end").verifying_key(), self.time()).unwrap();
        self.config = list.newest().to_vec();
    }

    /// Has numbers evaluated as soon as the quota allows it; none if that is after `end`.
    async fn evaluate(&mut self, numbers: &[Identifier], end: u64) -> Option<Vec<Derived>> {
        let (blinded, elements) = blind(numbers).unwrap();
        let elements = elements.try_into().unwrap();
        let request = InnerRequest {
            method: "POST".into(),
            path: "/evaluate".into(),
            content_type: Some("application/x-protobuf".into()),
            body: EvaluateRequest { database: ONE.into(), elements }.encode(),
        };
        while self.time() <= end {
            let (capsule, opener) = seal(&self.config, &request).unwrap();
            let reply = self.send(Method::POST, "/evaluate", capsule).await;
            if reply.status == 429 {
                let after = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
                self.wait(after).await;
                continue;
            }
            assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
            let inner = opener.open(&reply.body).unwrap();
            let EvaluateResponse { elements, proof } =
                EvaluateResponse::decode(&inner.body).unwrap();
            let evaluated = Evaluated { elements: elements.to_vec(), proof };
            let public = fixture().blind_key.public_key();
            return Some(blinded.finalize(&evaluated, &public).unwrap());
        }
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_at_full_speed_opens_what_the_quota_says_and_no_record_more() {
    let (estate, folder) = (estate(), tempfile::tempdir().unwrap());
    let begin = now();
    let clock = Arc::new(AtomicU64::new(begin));
    // Nobody looks up here: the copy is at hand.
    let placement = placed(ONE, &[([127, 0, 0, 1], 9).into()], None);
    let mut options = estate.front_end(folder.path(), &placement, true, clock.clone());
    let (content, directory) = (fixture().content.clone(), folder.path().join("directory"));
    std::fs::write(&directory, Fixture::sign(&content)).unwrap();
    options.directory.clone_from(&directory);
    let front_end = start_front_end(options).await;
    let url = format!("https://localhost:{}", front_end.address.port());
    let relay = start_relay(estate.relay(folder.path(), url, clock.clone())).await;
    let ca_pem = estate.certificates().ca_pem.as_bytes();
    let client = Client::new(Some(ca_pem), None, Duration::from_secs(60)).unwrap();
    let authorization = format!("Bearer {}", token("a-scraper"));
    let config = Vec::new();
    let mut scraper =
        Scraper { relay, front_end, clock, client, authorization, config, content, directory };
    scraper.fetch_key().await;

    let blind_key = &fixture().blind_key;
    let value = |at: u64| format!("record {at}").into_bytes();
    let record = |at: u64| {
        let derived = blind_key.derive(&tried(16 * at));
        (derived.lookup_key(), derived.seal(1, &value(at)))
    };
    let mut copy: HashMap<String, Vec<u8>> = (0..RECORDS).map(record).collect();
    let (mut requests, mut last) = (0, Vec::new());
    loop {
        // It has been told by now when the next one is allowed.
        if requests > AT_ONCE && requests % PATIENT != 0 {
            scraper.wait(REFILL).await;
        }
        let first = 16 * requests;
        let numbers: Vec<_> = (first..first + 16).map(tried).collect();
        let Some(derived) = scraper.evaluate(&numbers, begin + YEAR).await else { break };
        let mut values = derived.iter().filter_map(|it| Some((it, copy.remove(&it.lookup_key())?)));
        let (derived_key, sealed) = values.next().expect("one of sixteen has a record");
        assert!(
            derived_key.unseal(&sealed).unwrap().1 == value(requests) && values.next().is_none()
        );
        requests += 1;
        last = derived;
    }
    assert_eq!((requests, copy.len() as u64), (REQUESTS, RECORDS - REQUESTS));
    // The others stay sealed: keys that it has make noise of them.
    let is_opened = |(key, sealed): (&Derived, &Vec<u8>)| {
        key.unseal(sealed).is_ok_and(|(_, record)| record.starts_with(b"record "))
    };
    let pairs = last.iter().flat_map(|key| copy.values().map(move |sealed| (key, sealed)));
    assert_eq!(pairs.filter(|pair| is_opened(*pair)).count(), 0);
    let samples = scraper.relay.control.samples();
    let relayed = |outcome| {
        crate::estate::value(&samples, "relay_requests_total", &["evaluate", outcome]) as u64
    };
    assert_eq!(relayed("answered"), REQUESTS);
    assert_eq!(relayed("quota"), (REQUESTS - AT_ONCE).div_ceil(PATIENT));
    let samples = scraper.front_end.control.samples();
    let evaluated = crate::estate::value(&samples, "front_end_evaluations_total", &[]);
    assert_eq!(evaluated as u64, REQUESTS);
}
