use super::*;
use crate::wire::message::{PirBatch, PirParameterResponse, PirRequest, Request, RequestBody};
use crate::wire::{PIR_SCHEME_SOTTO_2, PROTOCOL_VERSION, Status};

fn shape() -> Shape {
    Shape::new(16, 1024, 2, 192).expect("a shape")
}

fn bundle_bytes(number: u8) -> Bytes {
    let mut bytes = vec![0; shape().bundle_bytes()];
    bytes[0] = number;
    Bytes::from(bytes)
}

fn bundle_frame(number: u8) -> Bytes {
    let bytes = bundle_bytes(number);
    let request = PirParameterRequest {
        protocol_version: PROTOCOL_VERSION,
        uid: Uid::of(&bytes).to_string(),
        pir_scheme: PIR_SCHEME_SOTTO_2,
        public_key: vec![bytes],
        ..Default::default()
    };
    encode_frame(&Request::from(RequestBody::Parameters(request))).into()
}

/// Sixteen queries, the one at an index under the bundle of that number.
fn queries(bundle_of: impl Fn(usize) -> u8) -> Vec<PirRequest> {
    let vector = Bytes::from(vec![5; shape().query_bytes()]);
    let query = |index| PirRequest {
        protocol_version: PROTOCOL_VERSION,
        nonce: nonce(index),
        uid: Uid::of(&bundle_bytes(bundle_of(index))).to_string(),
        pir_scheme: PIR_SCHEME_SOTTO_2,
        shard: index as u32,
        encrypted_vector: vec![vector.clone()],
        epoch: 3,
        want_hint: true,
        pack: index as u32 % 3,
        ..Default::default()
    };
    (0..BATCH).map(query).collect()
}

fn batch(requests: Vec<PirRequest>) -> Bytes {
    encode_frame(&Request::from(RequestBody::Batch(PirBatch { requests }))).into()
}

fn body(bundles: u8, requests: Vec<PirRequest>) -> Bytes {
    let bundles: Vec<Bytes> = (0..bundles).map(bundle_frame).collect();
    join(&bundles, batch(requests)).into()
}

fn split(body: Bytes) -> Result<LookupRequest, SealedError> {
    split_request(body, &shape())
}

fn refused(body: Bytes) -> SealedError {
    split(body).err().expect("the look-up was accepted")
}

fn answers() -> Vec<PirResponse> {
    let answer = |index| PirResponse {
        protocol_version: PROTOCOL_VERSION,
        nonce: nonce(index),
        response_status: Status::ResponseSuccess.code(),
        encrypted_response: vec![vec![index as u8; shape().response_bytes()]],
        hint: vec![vec![1; shape().hint_bytes()]],
        pack_digests: vec![2; 16 * shape().packs()].into(),
        epoch: 3,
        ..Default::default()
    };
    (0..BATCH).map(answer).collect()
}

#[test]
fn a_look_up_comes_back_with_one_bundle_and_with_sixteen() {
    let one = split(body(1, queries(|_| 0))).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((one.bundles.len(), one.queries.len()), (1, BATCH));
    assert!(one.bundles[0].1 == bundle_bytes(0));
    let each = split(body(16, queries(|index| 15 - index as u8)));
    let each = each.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((each.bundles.len(), each.queries.len()), (16, BATCH));
    for (index, (uid, bytes)) in each.bundles.iter().enumerate() {
        assert!(*uid == Uid::of(bytes) && *bytes == bundle_bytes(index as u8));
    }
    for (index, query) in each.queries.iter().enumerate() {
        assert_eq!((query.shard, query.epoch, query.want_hint), (index as u32, 3, true));
        assert!(query.uid == each.bundles[15 - index].0);
        assert_eq!(query.pack, index as u32 % 3);
    }
}

#[test]
fn counts_other_than_said_are_refused() {
    for bundles in [0, 2, 15] {
        let found = refused(body(bundles, queries(|_| 0)));
        assert!(matches!(found, SealedError::Batch { .. }), "{bundles}: {found}");
    }
    assert!(matches!(refused(body(17, queries(|_| 0))), SealedError::Batch { .. }));
    for count in [1, 15] {
        let found = refused(body(1, queries(|_| 0)[..count].to_vec()));
        assert!(matches!(found, SealedError::Batch { .. }), "{count}: {found}");
    }
    let mut more = queries(|_| 0);
    more.push(PirRequest { nonce: nonce(16), ..more[0].clone() });
    assert!(matches!(refused(body(1, more)), SealedError::Batch { .. }));
    assert!(matches!(refused(body(1, vec![])), SealedError::Malformed { index: 1, .. }));
    assert!(matches!(refused(Bytes::new()), SealedError::Frame { index: 0, .. }));
    assert!(matches!(refused(bundle_frame(0)), SealedError::Frame { index: 1, .. }));
}

#[test]
fn queries_that_do_not_fit_together_are_refused() {
    let change = |change: fn(&mut Vec<PirRequest>)| {
        let mut requests = queries(|_| 0);
        change(&mut requests);
        refused(body(1, requests))
    };
    let batch = [
        change(|all| all[3].want_hint = false),
        change(|all| all.swap(2, 3)),
        change(|all| all[15].nonce = "x".to_owned()),
        change(|all| all[4].uid = Uid::of(b"another").to_string()),
    ];
    for found in batch {
        assert!(matches!(found, SealedError::Batch { .. }), "{found}");
    }
    let malformed = [
        change(|all| all[5].nonce = nonce(4)),
        change(|all| all[5].nonce = String::new()),
        change(|all| all[5].encrypted_vector[0].truncate(1)),
        change(|all| all[5].uid = "none".to_owned()),
        change(|all| all[5].pir_scheme = 16),
        change(|all| all[5].pack = 3),
    ];
    for found in malformed {
        assert!(matches!(found, SealedError::Malformed { index: 1, .. }), "{found}");
    }
    // Sixteen bundles, of which two queries use one.
    let found = refused(body(16, queries(|index| index.min(14) as u8)));
    assert!(matches!(found, SealedError::Batch { .. }), "{found}");
    // One bundle sixteen times.
    let bundles = vec![bundle_frame(0); 16];
    let found = refused(join(&bundles, super::tests::batch(queries(|_| 0))).into());
    assert!(matches!(found, SealedError::Batch { .. }), "{found}");
}

#[test]
fn frames_in_another_order_or_of_another_kind_are_refused() {
    let (bundle, queries) = (bundle_frame(0), batch(queries(|_| 0)));
    let found = refused(join(std::slice::from_ref(&queries), bundle.clone()).into());
    assert!(matches!(found, SealedError::Batch { .. }), "{found}");
    let hints =
        crate::wire::message::HintRequest { epoch: 3, shards: vec![1], digests_only: false };
    let hints: Bytes = encode_frame(&Request::from(RequestBody::Hints(hints))).into();
    let found = refused(join(&[bundle.clone(), hints], queries.clone()).into());
    assert!(matches!(found, SealedError::Batch { .. }), "{found}");
    let mut without = PirParameterRequest { pir_scheme: PIR_SCHEME_SOTTO_2, ..Default::default() };
    without.protocol_version = PROTOCOL_VERSION;
    let without: Bytes = encode_frame(&Request::from(RequestBody::Parameters(without))).into();
    let found = refused(join(&[without], queries).into());
    assert!(matches!(found, SealedError::Malformed { index: 0, .. }), "{found}");
}

#[test]
fn a_look_up_cut_off_anywhere_is_refused() {
    let body = body(1, queries(|_| 0));
    // Each byte near the ends of frames, and a stride between them.
    let bundle_end = bundle_frame(0).len();
    let near = |end: usize| end.saturating_sub(40)..end + 40;
    let ends = near(0).chain(near(bundle_end)).chain((0..body.len()).step_by(97));
    for end in ends.chain(body.len() - 700..body.len()) {
        assert!(split(body.slice(..end)).is_err(), "{end}");
    }
    let longer = [&body[..], &[0]].concat();
    assert!(split(longer.into()).is_err());
}

#[test]
fn a_flipped_bit_never_panics() {
    let body = body(1, queries(|_| 0));
    let bundle_end = bundle_frame(0).len();
    for byte in (0..80).chain(bundle_end..bundle_end + 200).chain(body.len() - 40..body.len()) {
        for bit in 0..8 {
            let mut wrong = body.to_vec();
            wrong[byte] ^= 1 << bit;
            let _ = split(wrong.into());
        }
    }
}

#[test]
fn answers_come_back_and_are_checked() {
    let body = Bytes::from(join_answers(&answers()));
    let split = |body: Bytes| split_answers(body, &shape());
    assert!(split(body.clone()).is_ok_and(|found| found == answers()));
    for end in (0..60).chain((0..body.len()).step_by(89)).chain(body.len() - 60..body.len()) {
        assert!(split(body.slice(..end)).is_err(), "{end}");
    }
    for byte in (0..60).chain(body.len() - 60..body.len()) {
        for bit in 0..8 {
            let mut wrong = body.to_vec();
            wrong[byte] ^= 1 << bit;
            let _ = split(wrong.into());
        }
    }
    let change = |change: fn(&mut Vec<PirResponse>)| {
        let mut answers = answers();
        change(&mut answers);
        split(join_answers(&answers).into()).expect_err("the answers were accepted")
    };
    let batch = [
        change(|all| all.swap(0, 1)),
        change(|all| all[7].nonce = String::new()),
        change(|all| all.push(all[15].clone())),
    ];
    for found in batch {
        assert!(matches!(found, SealedError::Batch { .. }), "{found}");
    }
    let found = change(|all| {
        all.pop();
    });
    assert!(matches!(found, SealedError::Frame { index: 15, .. }), "{found}");
    let found = change(|all| all[3].encrypted_response = vec![vec![]; 3]);
    assert!(matches!(found, SealedError::Frame { index: 3, .. }), "{found}");
    let parameters = PirParameterResponse::default();
    let other = encode_frame(&Reply::from(ReplyBody::Parameters(parameters)));
    let found = split(other.into()).expect_err("it was accepted");
    assert!(matches!(found, SealedError::Batch { .. } | SealedError::Frame { .. }), "{found}");
}

#[test]
fn a_refusal_may_stand_in_an_answer() {
    let mut answers = answers();
    answers[2] = PirResponse {
        nonce: nonce(2),
        response_status: Status::Overloaded.code(),
        retry_after_ms: 50,
        ..Default::default()
    };
    let found = split_answers(join_answers(&answers).into(), &shape());
    assert!(found.is_ok_and(|found| found == answers));
}
