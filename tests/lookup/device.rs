//! `client::device`: the frames of a device's batch, answered by a server through a front-end of
//! the test, which asks for all packs and hands one of them on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sotto::client::device::{DeviceBatch, Known, Progress};
use sotto::client::frames::{FrameSender, Heard, PreparedQuery};
use sotto::client::{Client, LookupError, Outcome, ParameterError};
use sotto::limits;
use sotto::params::{Shape, ShapeWishes};
use sotto::scheme::pack_digest;
use sotto::wire::message::{PirResponse, ReplyBody};
use sotto::wire::{
    Asker, Bytes, Status, ValidQueries, ValidQuery, decode_parameters, request_head,
};
use zeroize::Zeroizing;

use crate::harness::{Built, CROWD, Serving, record, serve};

/// Few enough shards for a bundle a query, and enough for one a batch.
const SHARDS: [u32; 2] = [3, limits::SHARDS_FOR_ONE_BUNDLE];
const RECORDS: u64 = 3_000;

fn build(shards: u32) -> Built {
    let records: Vec<_> = (0..RECORDS).map(record).collect();
    let wishes = ShapeWishes { pack_rows: Some(128), packs: Some(4) };
    Built::with(&records, shards, |options| options.wishes = wishes)
}

/// What a front-end does, with one server.
struct FrontEnd {
    client: Client,
    sender: FrameSender,
}

impl FrontEnd {
    async fn new(serving: &Serving, built: &Built) -> Self {
        let mut options = serving.options(built.pins());
        options.records_per_shard_min = 0;
        let mut client = Client::connect(options).await.unwrap();
        Self { sender: client.frame_sender().await.unwrap(), client }
    }

    fn shape(&self) -> Shape {
        *self.client.parameters().shape()
    }

    fn known(&self, built: &Built) -> Known {
        let mut known = Known::new(built.pins(), 1);
        known.accept(self.client.signed_parameters(), now()).unwrap();
        known
    }

    /// All packs of the hints of shards.
    async fn hints(&self, shards: &HashSet<u32>) -> HashMap<u32, Vec<Vec<u8>>> {
        let mut hints = HashMap::new();
        let frame = self.sender.hint_frame(shards.iter().copied().collect());
        let mut hear = |heard| {
            if let Heard::Reply(ReplyBody::Hint(hint), _) = heard {
                hints.insert(hint.shard, hint.packs);
            }
        };
        self.sender.send(frame, &[], shards.len(), &mut hear).await;
        hints
    }

    async fn answer(&self, batch: &DeviceBatch) -> Vec<PirResponse> {
        for bundle in batch.bundles() {
            let uid = uid_of(bundle, &self.shape());
            let bytes = Arc::from(bundle_of(bundle).as_ref());
            self.sender.upload(&self.sender.bundle_frame(&uid, bytes)).await.unwrap();
        }
        let queries = read(&batch.batch(), &self.shape());
        let prepared = queries.iter().map(|query| PreparedQuery {
            shard: query.shard,
            uid: query.uid.to_string(),
            epoch: query.epoch,
            vector: query.vector.clone(),
        });
        let mut answers = vec![PirResponse::default(); queries.len()];
        let mut hear = |heard| {
            if let Heard::Reply(ReplyBody::Answer(answer), _) = heard {
                let at: usize = answer.nonce.parse().unwrap();
                answers[at] = answer;
            }
        };
        let frame = self.sender.query_frame(prepared);
        self.sender.send(frame, &[], queries.len(), &mut hear).await;
        let hints = self.hints(&queries.iter().map(|query| query.shard).collect()).await;
        let cut = |(answer, query)| one_pack(answer, query, &hints);
        answers.into_iter().zip(&queries).map(cut).collect()
    }
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn bundle_of(frame: &Bytes) -> Bytes {
    use prost::Message as _;
    let request = sotto::wire::message::Request::decode_length_delimited(frame.clone()).unwrap();
    let Some(sotto::wire::message::RequestBody::Parameters(request)) = request.body else {
        panic!("no bundle")
    };
    request.public_key[0].clone()
}

fn uid_of(frame: &Bytes, shape: &Shape) -> String {
    let head = request_head(frame, shape).unwrap().unwrap();
    let valid = decode_parameters(head.body(frame.clone()).unwrap(), shape);
    let (uid, _) = valid.ok().unwrap().bundle.unwrap();
    uid.to_string()
}

fn read(frame: &Bytes, shape: &Shape) -> Vec<ValidQuery> {
    let head = request_head(frame, shape).unwrap().unwrap();
    let body = head.body(frame.clone()).unwrap();
    let read = ValidQueries::decode(body.clone(), shape, Asker::Device).unwrap();
    assert!(read.malformed.is_empty());
    // An answer server refuses each of them.
    let refused = ValidQueries::decode(body, shape, Asker::FrontEnd).unwrap();
    assert!(refused.requests.is_empty() && refused.malformed.len() == read.requests.len());
    read.requests
}

/// The answer as a front-end hands it on.
fn one_pack(
    mut answer: PirResponse,
    query: &ValidQuery,
    hints: &HashMap<u32, Vec<Vec<u8>>>,
) -> PirResponse {
    if answer.response_status != Status::ResponseSuccess.code() {
        return answer;
    }
    let pack = query.pack as usize - 1;
    answer.encrypted_response = vec![answer.encrypted_response.swap_remove(pack)];
    if query.want_hint {
        let hint = &hints[&query.shard];
        answer.hint = vec![hint[pack].clone()];
        answer.pack_digests = hint.iter().flat_map(|pack| pack_digest(pack)).collect();
    }
    answer
}

/// Sixteen keys in distinct shards where there are enough, of which every second one is there.
fn keys(known: &Known) -> Vec<Zeroizing<Vec<u8>>> {
    let spread = known.parameters().unwrap().shard_count() >= limits::SHARDS_FOR_ONE_BUNDLE;
    let (mut keys, mut shards) = (Vec::new(), HashSet::new());
    for n in 0.. {
        let present = keys.len() % 2 == 0;
        let key = if present { record(n).0 } else { format!("nobody-{n}") };
        if shards.insert(known.shard(key.as_bytes())) || !spread {
            keys.push(Zeroizing::new(key.into_bytes()));
        }
        if keys.len() == limits::DEVICE_BATCH {
            break;
        }
    }
    keys
}

fn check(keys: &[Zeroizing<Vec<u8>>], outcomes: Vec<Result<Outcome, LookupError>>) {
    assert_eq!(outcomes.len(), keys.len());
    for (key, outcome) in keys.iter().zip(outcomes) {
        let key = String::from_utf8(key.to_vec()).unwrap();
        match outcome.unwrap_or_else(|error| panic!("{key}: {error}")) {
            Outcome::Found(value) => {
                let there = (0..RECORDS).map(record).find(|(known, _)| *known == key);
                assert_eq!(Some(value), there.map(|(_, value)| value), "{key}");
            }
            Outcome::Absent => assert!(key.starts_with("nobody"), "{key}"),
            Outcome::Invalid => panic!("{key}: INVALID"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pack_is_enough_and_its_hint_is_asked_for_once() {
    for shards in SHARDS {
        let built = build(shards);
        let serving = serve(&built.db());
        let front_end = FrontEnd::new(&serving, &built).await;
        let known = front_end.known(&built);
        let keys = keys(&known);
        let mut lengths = HashSet::new();
        for (round, wants_hint) in [true, false].into_iter().enumerate() {
            let mut batch = DeviceBatch::encrypt(&known, keys.clone()).unwrap();
            let bundles = if shards < limits::SHARDS_FOR_ONE_BUNDLE { 16 } else { 1 };
            assert_eq!(batch.bundles().len(), bundles);
            let queries = read(&batch.batch(), &front_end.shape());
            assert!(queries.iter().all(|query| query.want_hint == wants_hint), "round {round}");
            assert!(batch.batch() == batch.batch(), "the same bytes each time");
            lengths.insert(batch.batch().len() + 2 * usize::from(!wants_hint) * queries.len());
            let answers = front_end.answer(&batch).await;
            let packs = |answer: &PirResponse| answer.encrypted_response.len();
            assert!(answers.iter().all(|answer| packs(answer) == 1));
            assert_eq!(batch.take(answers), Progress::Done);
            check(&keys, batch.open());
        }
        assert!(lengths.len() <= 2, "{lengths:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_front_end_changes_is_found_out() {
    let built = build(SHARDS[1]);
    let serving = serve(&built.db());
    let front_end = FrontEnd::new(&serving, &built).await;
    type Change = fn(&mut Vec<PirResponse>);
    let changes: [(&str, Change); 6] = [
        ("hint", |answers| answers[0].hint[0][9] ^= 1),
        ("hint", |answers| {
            let mut digests = answers[0].pack_digests.to_vec();
            digests[17] ^= 1;
            answers[0].pack_digests = digests.into();
        }),
        ("hint", |answers| answers[0].pack_digests = Bytes::new()),
        ("hint", |answers| answers.swap(0, 1)),
        ("encrypted_response", |answers| answers[0].encrypted_response.clear()),
        ("epoch", |answers| answers[0].epoch += 1),
    ];
    for (what, change) in changes {
        let known = front_end.known(&built);
        let mut batch = DeviceBatch::encrypt(&known, keys(&known)).unwrap();
        let mut answers = front_end.answer(&batch).await;
        change(&mut answers);
        assert_eq!(batch.take(answers), Progress::Done);
        let outcomes = batch.open();
        let failed = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        let failed: Vec<String> = failed.map(ToString::to_string).collect();
        assert!((1..=2).contains(&failed.len()), "{what}: {failed:?}");
        assert!(failed.iter().all(|error| error.contains(what)), "{what}: {failed:?}");
    }
    // Without noise a server adds what it likes; with noise the answer is not believed.
    let known = front_end.known(&built);
    let mut batch = DeviceBatch::encrypt(&known, keys(&known)).unwrap();
    let mut answers = front_end.answer(&batch).await;
    answers.iter_mut().for_each(|answer| answer.encrypted_response[0].fill(0x5a));
    assert_eq!(batch.take(answers), Progress::Done);
    for outcome in batch.open() {
        assert!(matches!(outcome, Ok(Outcome::Invalid)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_sent_again_in_the_identical_bytes_until_its_shards_are_solved_anew() {
    let built = build(SHARDS[0]);
    let serving = serve(&built.db());
    let mut front_end = FrontEnd::new(&serving, &built).await;
    let mut known = front_end.known(&built);
    let keys = keys(&known);
    let mut batch = DeviceBatch::encrypt(&known, keys.clone()).unwrap();
    let before = batch.batch();
    let refusal =
        |status: Status| PirResponse { response_status: status.code(), ..PirResponse::default() };
    let refused = |status| vec![refusal(status); limits::DEVICE_BATCH];
    for status in [Status::Overloaded, Status::Draining, Status::KeyMissing, Status::Deadline] {
        assert!(matches!(batch.take(refused(status)), Progress::Again { .. }), "{status:?}");
        assert!(batch.batch() == before);
    }
    // Some are answered, and the whole batch goes out again for the rest.
    let mut answers = front_end.answer(&batch).await;
    answers[5] = refusal(Status::Overloaded);
    assert!(matches!(batch.take(answers), Progress::Again { .. }));
    assert!(batch.batch() == before);

    // A new epoch with the same ribbon seeds changes the epoch alone.
    let vectors = |batch: &DeviceBatch| {
        let shape = front_end.client.parameters().shape();
        let read = read(&batch.batch(), shape).into_iter();
        read.map(|query| (query.uid, query.vector)).collect::<Vec<_>>()
    };
    let was = vectors(&batch);
    let mut records: Vec<_> = (0..RECORDS).map(record).collect();
    records[RECORDS as usize - 1].1 = b"another".to_vec();
    built.build(&records, SHARDS[0]);
    serving.reloader.reload().await.unwrap();
    assert!(matches!(batch.take(refused(Status::EpochGone)), Progress::Refresh { .. }));
    front_end.client.fetch_parameters().await.unwrap();
    front_end.sender = front_end.client.frame_sender().await.unwrap();
    known.accept(front_end.client.signed_parameters(), now()).unwrap();
    batch.renew(&known).unwrap();
    assert!(batch.batch() != before, "the epoch is another one");
    let vectors = |batch: &DeviceBatch| {
        let read = read(&batch.batch(), &front_end.shape()).into_iter();
        read.map(|query| (query.uid, query.vector)).collect::<Vec<_>>()
    };
    assert!(vectors(&batch) == was);
    let answers = front_end.answer(&batch).await;
    assert_eq!(batch.take(answers), Progress::Done);
    check(&keys, batch.open());
}

#[tokio::test(flavor = "multi_thread")]
async fn small_crowds_and_shared_shards_are_refused() {
    let built = build(SHARDS[1]);
    let serving = serve(&built.db());
    let front_end = FrontEnd::new(&serving, &built).await;
    let records = front_end.client.parameters().shard_records_min();
    let crowd = u64::from(records / 4);
    assert!(crowd < CROWD);
    for (least, fits) in [(crowd, true), (crowd + 1, false)] {
        let mut known = Known::new(built.pins(), least);
        let accepted = known.accept(front_end.client.signed_parameters(), now());
        let expected = matches!(accepted, Err(ParameterError::TooFewPackRecords { .. }));
        assert_eq!((accepted.is_ok(), expected), (fits, !fits));
    }
    let known = front_end.known(&built);
    let mut keys = keys(&known);
    keys[3] = keys[9].clone();
    let error = DeviceBatch::encrypt(&known, keys).err().unwrap().to_string();
    assert!(error.contains("distinct shards"), "{error}");
    let empty = vec![Zeroizing::new(Vec::new()); limits::DEVICE_BATCH];
    assert!(DeviceBatch::encrypt(&known, empty).is_err());
    assert!(DeviceBatch::encrypt(&Known::new(built.pins(), 1), Vec::new()).is_err());
}
