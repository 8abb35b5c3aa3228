//! The bytes of docs/wire.md: golden frames, and what a peer may send instead of them.
//!
//! Nothing a peer sends may panic or be taken for something else. Every sample is cut off at each
//! byte, changed at each byte, and replaced by noise; every refusal is an error with a type.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Draw, seed};
use prost::Message as _;
use sotto::limits;
use sotto::params::{D, P, Q, Shape};
use sotto::wire::PublicParameters; // the checked one, not message::PublicParameters
use sotto::wire::message::*;
use sotto::wire::*;

const UID: &str = "0123456789abcdef0123456789abcdef";

fn shape() -> Shape {
    Shape::new(24, 128, 1, 192).unwrap()
}

fn unhex(hex: &str) -> Vec<u8> {
    sotto::wire::hex::decode(hex).unwrap()
}

fn parameter_request(bundle: Vec<u8>, uid: &str) -> PirParameterRequest {
    PirParameterRequest {
        protocol_version: 1,
        nonce: "n".into(),
        uid: uid.into(),
        pir_scheme: PIR_SCHEME_SOTTO_2,
        public_key: vec![bundle.into()],
        want_hint_digests: true,
    }
}

/// A query that is valid for this shape, its shard the number that is its nonce.
fn query(shape: &Shape, number: usize) -> PirRequest {
    PirRequest {
        protocol_version: 1,
        nonce: number.to_string(),
        uid: UID.into(),
        pir_scheme: PIR_SCHEME_SOTTO_2,
        shard: number as u32,
        encrypted_vector: vec![Bytes::from(vec![7; shape.query_bytes()])],
        epoch: 1,
        ..PirRequest::default()
    }
}

fn request_samples() -> Vec<(Request, &'static str)> {
    let parameters =
        PirParameterRequest { nonce: "n1".into(), ..parameter_request(vec![1, 2, 3], UID) };
    let query = PirRequest {
        nonce: "q".into(),
        shard: 300,
        encrypted_vector: vec![Bytes::from_static(&[255, 0, 1])],
        epoch: 7,
        want_hint: true,
        deadline_ms: 1500,
        pack: 2,
        ..query(&shape(), 0)
    };
    let hints = HintRequest { epoch: 7, shards: vec![3, 300], digests_only: false };
    vec![
        (
            RequestBody::Parameters(parameters).into(),
            "340a32080112026e311a2030313233343536373839616263646566303132333435363738396162636465\
             6620112a03010203800101",
        ),
        (
            RequestBody::Batch(PirBatch { requests: vec![query] }).into(),
            "4212400a3e08011201711a203031323334353637383961626364656630313233343536373839616263646\
             566201128ac023203ff00018001078801019001dc0b980102",
        ),
        (RequestBody::Hints(hints.clone()).into(), "091a070807120303ac02"),
        (
            RequestBody::Hints(HintRequest { digests_only: true, ..hints }).into(),
            "0b1a090807120303ac021801",
        ),
    ]
}

fn reply_samples() -> Vec<(Reply, &'static str)> {
    let parameters = PirParameterResponse {
        protocol_version: 1,
        nonce: "n1".into(),
        uid: UID.into(),
        response_status: Status::Malformed.code(),
        pir_scheme: PIR_SCHEME_SOTTO_2,
        parameters: Bytes::from_static(&[0xaa, 0xbb]),
        signature: Bytes::from_static(&[1]),
        hint_digests: Bytes::from_static(&[2, 3]),
        limits: Some(Limits {
            queries_per_batch: 1024,
            batches_in_flight: 8,
            bundles_per_connection: 64,
            deadline_ms: 10_000,
        }),
        retry_after_ms: 250,
        detail: "why".into(),
        operator_key: Bytes::from_static(&[9]),
    };
    let answer = PirResponse {
        protocol_version: 1,
        nonce: "q".into(),
        uid: UID.into(),
        response_status: Status::ResponseSuccess.code(),
        encrypted_response: vec![vec![1, 2], vec![3]],
        hint: vec![vec![4], vec![5, 6]],
        epoch: 7,
        retry_after_ms: 50,
        detail: "d".into(),
        hint_digest: vec![7, 8],
        pack_digests: Bytes::from_static(&[6]),
    };
    let hint = Hint {
        shard: 300,
        epoch: 7,
        packs: vec![vec![1], vec![2, 3]],
        digest: vec![4],
        response_status: Status::ResponseSuccess.code(),
        detail: "d".into(),
    };
    vec![
        (
            ReplyBody::Parameters(parameters).into(),
            "570a55080112026e311a203031323334353637383961626364656630313233343536373839616263646\
             56620162811820102aabb8a01010192010202039a010a0880081008184020904ea001fa01aa010377687\
             9b2010109",
        ),
        (
            ReplyBody::Answer(answer).into(),
            "4e124c08011201711a20303132333435363738396162636465663031323334353637383961626364656\
             620032a0201022a01038201010482010205068801079001329a010164a201020708aa010106",
        ),
        (ReplyBody::Hint(hint).into(), "161a1408ac0210071a01011a0202032201042803320164"),
    ]
}

fn parameters_sample() -> PublicParameters {
    PublicParameters::new(parameter_fields()).unwrap()
}

fn parameter_fields() -> ParameterFields {
    ParameterFields {
        seed: [0x11; 32],
        epoch: 5,
        shape: shape(),
        ribbon_seeds: vec![0, 63, 1],
        hint_digests_hash: [0x22; 32],
        lifetime: Lifetime { created: 1_700_000_000, expires: 1_702_592_000 },
        database: "phones".into(),
        record_count: 305,
        shard_records_min: 97,
        content: [0x33; 32],
    }
}

const PARAMETERS_GOLDEN: &str = "0a2011111111111111111111111111111111111111111111111111111111\
    11111111100518032018288001300138c001400b48115203003f015a202222222222222222222222222222222222\
    2222222222222222222222222222226080e2cfaa066a0670686f6e65737080fcedab0678b1028001618a01203333\
    333333333333333333333333333333333333333333333333333333333333";

/// A batch of queries that are valid for [`shape`], nonces "0", "1", ..
fn valid_batch(count: usize) -> PirBatch {
    PirBatch { requests: (0..count).map(|number| query(&shape(), number)).collect() }
}

fn frame_of(body: RequestBody) -> Bytes {
    Bytes::from(encode_frame(&Request::from(body)))
}

/// Everything the server does with a frame before it acts.
fn read_request(frame: Bytes) -> Result<(), String> {
    let read = move || -> Result<(), Box<dyn std::error::Error>> {
        let shape = shape();
        let head = request_head(&frame, &shape)?.ok_or("cut off in the head")?;
        let body = head.body(frame)?;
        match head.kind {
            RequestKind::Parameters => {
                decode_parameters(body, &shape).map_err(|(_, error)| error)?;
            }
            RequestKind::Queries => {
                let malformed = ValidQueries::decode(body, &shape, Asker::FrontEnd)?.malformed;
                malformed.into_iter().try_for_each(|(_, error)| Err(error))?;
            }
            RequestKind::Hints => drop(decode_hints(body)?),
        }
        Ok(())
    };
    read().map_err(|error| error.to_string())
}

/// A batch as the server reads it.
fn read_batch(batch: PirBatch) -> ValidQueries {
    let frame = frame_of(RequestBody::Batch(batch));
    let head = request_head(&frame, &shape()).unwrap().unwrap();
    ValidQueries::decode(head.body(frame).unwrap(), &shape(), Asker::FrontEnd).unwrap()
}

/// The replies' shape: the golden ones have two packs.
fn reply_shape() -> Shape {
    Shape::new(24, 128, 2, 192).unwrap()
}

fn read_reply(frame: Bytes) -> Result<Reply, String> {
    let shape = reply_shape();
    let head = reply_head(&frame, Some(&shape)).map_err(|error| error.to_string())?;
    let head = head.ok_or("cut off in the head")?;
    decode_reply(&head, frame, Some(&shape)).map_err(|error| error.to_string())
}

/// Frames the server accepts, one of each kind.
fn accepted_requests() -> Vec<Bytes> {
    let bundle = vec![0; shape().bundle_bytes()];
    let uid = Uid::of(&bundle).to_string();
    let parameters = parameter_request(bundle, &uid);
    vec![
        frame_of(RequestBody::Parameters(parameters)),
        frame_of(RequestBody::Batch(valid_batch(3))),
        frame_of(RequestBody::Hints(HintRequest {
            epoch: 1,
            shards: vec![0, 5, 70_000],
            digests_only: false,
        })),
    ]
}

#[test]
fn golden_frames() {
    for (request, golden) in request_samples() {
        assert_eq!(encode_frame(&request), unhex(golden), "{request:?}");
    }
    for (reply, golden) in reply_samples() {
        assert_eq!(encode_frame(&reply), unhex(golden), "{reply:?}");
        assert_eq!(read_reply(unhex(golden).into()).unwrap(), reply);
    }
    let parameters = parameters_sample();
    assert_eq!(parameters.encode(), unhex(PARAMETERS_GOLDEN));
    assert_eq!(PublicParameters::decode(&unhex(PARAMETERS_GOLDEN)).unwrap(), parameters);
    assert_eq!((parameters.ribbon_seed(1), parameters.ribbon_seed(3)), (Some(63), None));
}

#[test]
fn what_is_cut_off_at_any_byte_is_refused() {
    for frame in accepted_requests() {
        assert_eq!(read_request(frame.clone()), Ok(()));
        for length in 0..frame.len() {
            read_request(frame.slice(..length)).unwrap_err();
            // The same cut inside its own message: the lengths in front agree with what is there.
            // Where it falls between two fields, what is left may be a valid, poorer request.
            if let Ok(Some(head)) = request_head(&frame, &shape()) {
                let body = frame.slice(head.body_at.min(length)..length);
                let _ = decode_parameters(body.clone(), &shape());
                let _ = decode_hints(body.clone());
                let _ = ValidQueries::decode(body, &shape(), Asker::FrontEnd);
            }
        }
    }
    for (reply, _) in reply_samples() {
        let frame = Bytes::from(encode_frame(&reply));
        for length in 0..frame.len() {
            read_reply(frame.slice(..length)).unwrap_err();
        }
    }
    let bytes = parameters_sample().encode();
    for length in 0..bytes.len() {
        PublicParameters::decode(&bytes[..length]).unwrap_err();
    }
}

#[test]
fn changed_bytes_and_noise_never_panic() {
    let mut draw = Draw::new(seed(), "noise");
    let mut below = |bound| draw.below(bound) as usize;
    for frame in accepted_requests() {
        // All of the first fields, and some of the long middle.
        for at in (0..frame.len()).filter(|&at| at < 200 || at % 97 == 0) {
            for change in [1, 0x80, 0xff, 1 + below(255) as u8] {
                let mut changed = frame.to_vec();
                changed[at] ^= change;
                let _ = read_request(changed.into());
            }
        }
    }
    for (reply, _) in reply_samples() {
        let frame = encode_frame(&reply);
        for at in 0..frame.len() {
            for change in 1..=255 {
                let mut changed = frame.clone();
                changed[at] ^= change;
                let _ = read_reply(changed.into());
            }
        }
    }
    for _ in 0..50_000 {
        let mut noise: Vec<u8> = (0..below(80)).map(|_| below(256) as u8).collect();
        let _ = PublicParameters::decode(&noise);
        let _ = read_request(noise.clone().into());
        let _ = read_reply(noise.clone().into());
        // Noise behind a head that is right.
        let inner = noise.len() as u8;
        noise.splice(0..0, [inner + 2, [0x0a, 0x12, 0x1a][below(3)], inner]);
        let _ = read_request(noise.clone().into());
        let _ = read_reply(noise.into());
    }
}

fn varint(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(value, &mut bytes);
    bytes
}

/// The first bytes of a frame whose message claims to have `body` bytes.
fn claim(tag: u8, body: u64) -> Vec<u8> {
    let inner = varint(body);
    let mut head = varint(1 + inner.len() as u64 + body);
    head.push(tag);
    head.extend(inner);
    head
}

#[test]
fn lengths_are_refused_before_anything_is_kept() {
    let shape = shape();
    let kinds = [RequestKind::Parameters, RequestKind::Queries, RequestKind::Hints];
    for (tag, kind) in [0x0a, 0x12, 0x1a].into_iter().zip(kinds) {
        let max = kind.bytes_max(&shape);
        // The largest body whose frame is within the bound, found from the bound down.
        let fits = |body: usize| claim(tag, body as u64).len() + body <= max;
        let body = (0..max).rev().find(|&body| fits(body)).unwrap() as u64;
        let head = request_head(&claim(tag, body), &shape).unwrap().unwrap();
        assert_eq!((head.kind, head.frame_bytes <= max), (kind, true));
        let longer = request_head(&claim(tag, body + 1), &shape);
        assert!(matches!(longer, Err(FrameError::TooLong { .. })), "{longer:?}");
        let huge = request_head(&claim(tag, u64::from(u32::MAX) - 6), &shape);
        assert_eq!(huge.unwrap_err().stream_code(), StreamCode::FrameTooLarge);
    }
    for tag in [0x0a, 0x12, 0x1a] {
        let longest = ReplyKind::Parameters.bytes_max(None) as u64;
        let refused = reply_head(&claim(tag, longest), Some(&shape));
        assert!(matches!(refused, Err(FrameError::TooLong { .. })), "{refused:?}");
    }
    // Before the shape is known, an answer has no room.
    let answer = claim(0x12, shape.response_bytes() as u64 + 2048);
    assert!(matches!(reply_head(&answer, None), Err(FrameError::TooLong { .. })));
    assert!(reply_head(&claim(0x0a, 1_000_000), None).unwrap().is_some());
}

#[test]
fn replies_with_more_elements_than_packs_are_refused_before_they_grow() {
    let packs = reply_shape().packs();
    let answer = |responses, hints| {
        ReplyBody::Answer(PirResponse {
            encrypted_response: vec![Vec::new(); responses],
            hint: vec![Vec::new(); hints],
            ..Default::default()
        })
    };
    let hint =
        |packs| ReplyBody::Hint(Hint { packs: vec![Vec::new(); packs], ..Default::default() });
    let frame = |body: ReplyBody| Bytes::from(encode_frame(&Reply::from(body)));
    for fits in [answer(packs, packs), hint(packs)] {
        read_reply(frame(fits)).unwrap();
    }
    for over in [answer(packs + 1, 0), answer(0, packs + 1), answer(500, 0), hint(packs + 1)] {
        let error = read_reply(frame(over)).unwrap_err();
        assert!(error.contains("more than 2 elements"), "{error}");
    }
    // Before the shape is known there is no pack to have.
    let frame = frame(answer(1, 0));
    let head = reply_head(&frame, None).unwrap().unwrap();
    let refused = decode_reply(&head, frame, None);
    assert!(matches!(refused, Err(FrameError::TooManyElements { max: 0, .. })), "{refused:?}");
}

#[test]
fn heads_that_are_none_are_refused_by_type() {
    let shape = shape();
    let refused = |bytes: &[u8]| request_head(bytes, &shape).unwrap_err();
    // The third has not the shortest form.
    for bytes in [&[0x80; 5][..], &[0xff, 0xff, 0xff, 0xff, 0x7f], &[0x82, 0x00, 0x0a, 0x00]] {
        assert_eq!(refused(bytes), FrameError::Length, "{bytes:?}");
    }
    for bytes in [&[0][..], &[1, 0x0a], &[3, 0x0a, 0], &[3, 0x0a, 2]] {
        assert!(matches!(refused(bytes), FrameError::NotOneMessage { .. }), "{bytes:?}");
    }
    for found in [0x22, 0x08] {
        assert_eq!(refused(&[3, found, 1, 0]), FrameError::Kind { found });
    }
    for cut_off in [&[][..], &[0x80], &[0x80, 0x80, 0x80], &[2], &[2, 0x0a], &[3, 0x0a, 0x80]] {
        assert_eq!(request_head(cut_off, &shape), Ok(None), "{cut_off:?}");
    }
    // Eleven bytes always suffice.
    for first in 0..=255u8 {
        for next in [0, 1, 0x0a, 0x7f, 0x80, 0xff] {
            let mut bytes = [next; FRAME_HEAD_BYTES_MAX];
            bytes[0] = first;
            assert_ne!(request_head(&bytes, &shape), Ok(None), "{bytes:?}");
        }
    }
}

/// The fields that [`ValidQueries`] refuses one query for, while the others go on.
#[test]
fn each_malformed_query_has_its_own_reply() {
    type Change = fn(&mut PirRequest);
    let cases: [(&str, Change); 13] = [
        ("protocol_version is 2, expected 1", |query| query.protocol_version = 2),
        ("nonce is 33 bytes", |query| query.nonce = "n".repeat(33)),
        ("nonce is there twice", |query| query.nonce = "0".into()),
        ("pir_scheme is -1, expected 17", |query| query.pir_scheme = -1),
        ("pir_scheme is 16, expected 17", |query| query.pir_scheme = 16),
        ("pack is 1, expected 0", |query| query.pack = 1),
        ("pack is 4294967295, expected 0", |query| query.pack = u32::MAX),
        ("uid is 0 bytes of text, expected 32", |query| query.uid.clear()),
        ("uid is 32 bytes of text", |query| query.uid = UID.to_uppercase()),
        ("uid is 32 bytes of text", |query| query.uid = "ä".repeat(16)),
        ("encrypted_vector is 0 elements", |query| query.encrypted_vector.clear()),
        ("encrypted_vector is 575 bytes, expected 576 bytes", |query| {
            query.encrypted_vector[0].truncate(575);
        }),
        ("encrypted_vector is 2 elements", |query| {
            query.encrypted_vector = vec![Bytes::from_static(&[0; 288]); 2];
        }),
    ];
    for (expected, change) in cases {
        let mut batch = valid_batch(3);
        change(&mut batch.requests[1]);
        let nonce: String = batch.requests[1].nonce.chars().take(32).collect();
        let decoded = read_batch(batch);
        let good: Vec<&str> = decoded.requests.iter().map(|query| query.nonce.as_str()).collect();
        assert_eq!(good, ["0", "2"]);
        let [(found_nonce, malformed)] = decoded.malformed.as_slice() else { panic!("{expected}") };
        assert_eq!(*found_nonce, nonce);
        assert!(malformed.to_string().starts_with(expected), "{malformed} for {expected}");
    }
}

#[test]
fn a_batch_that_cannot_be_told_apart_is_refused_whole() {
    let refuse = |body: Vec<u8>, expected: &str| {
        let found =
            ValidQueries::decode(body.into(), &shape(), Asker::FrontEnd).err().unwrap().to_string();
        assert!(found.contains(expected), "{found} for {expected}");
    };
    refuse(vec![], "requests is empty");
    refuse([0x0a, 0].repeat(1025), "more queries, expected at most 1024");
    // A frame of empty queries is counted before it grows.
    refuse([0x0a, 0].repeat(1024), "nonce is empty");
    refuse(vec![0x0a, 5, 1, 2], "cut off 2 bytes into a query");
    refuse(vec![0x0a, 2, 0xff, 0xff], "requests is unreadable");
    refuse(vec![0x0b], "batch is unreadable");
    refuse(vec![0x08], "batch is unreadable");
    let mut long = vec![0x0a];
    long.extend(varint(5000));
    long.extend(vec![0; 5000]);
    refuse(long, "a query of 5000 bytes");
}

#[test]
fn deadlines_are_bounded() {
    let mut batch = valid_batch(3);
    batch.requests[1].deadline_ms = 2500;
    batch.requests[2].deadline_ms = u32::MAX;
    let deadlines: Vec<_> = read_batch(batch).requests.iter().map(|query| query.deadline).collect();
    let asked = std::time::Duration::from_millis(2500);
    assert_eq!(deadlines, [limits::DEADLINE_DEFAULT, asked, limits::DEADLINE_MAX]);
}

#[test]
fn hint_requests_are_bounded_and_without_repeats() {
    let refuse = |shards: Vec<u32>, expected: &str| {
        let frame =
            frame_of(RequestBody::Hints(HintRequest { epoch: 1, shards, digests_only: false }));
        let found = read_request(frame).unwrap_err();
        assert!(found.contains(expected), "{found} for {expected}");
    };
    refuse(vec![], "0 shards");
    refuse((0..1025).collect(), "1025 shards, expected 1 to 1024");
    refuse(vec![4, 5, 4], "a list with repeats");
    let most = (0..1024).map(|shard| u32::MAX - shard).collect();
    let frame = frame_of(RequestBody::Hints(HintRequest {
        epoch: u64::MAX,
        shards: most,
        digests_only: true,
    }));
    assert_eq!(read_request(frame), Ok(()));
}

#[test]
fn bundles_are_checked_by_length_residue_and_name() {
    let good = vec![0; shape().bundle_bytes()];
    let request = |bundle: &[u8], uid: &str| {
        read_request(frame_of(RequestBody::Parameters(parameter_request(bundle.to_vec(), uid))))
    };
    let uid = Uid::of(&good).to_string();
    assert_eq!(request(&good, &uid), Ok(()));
    assert_eq!(uid, blake3::hash(&good).to_hex()[..32]);
    let refused = request(&good, UID).unwrap_err();
    assert!(refused.contains("uid is another bundle's"), "{refused}");
    let mut wrong = vec![(good[1..].to_vec(), "12287 bytes, expected 12288".to_owned())];
    for (index, prime) in [(0, Q), (D - 1, Q), (D, P), (2 * D - 1, P)] {
        let mut large = good.clone();
        large[3 * index..][..3].copy_from_slice(&prime.to_le_bytes()[..3]);
        wrong.push((large, format!("residue {index} is not below its prime")));
    }
    for (bundle, said) in wrong {
        let refused = request(&bundle, &Uid::of(&bundle).to_string()).unwrap_err();
        assert!(refused.contains("public_key is") && refused.contains(&said), "{refused}");
    }
}

#[test]
fn parameters_with_a_wrong_field_are_refused_by_name() {
    let golden = message::PublicParameters::decode(&unhex(PARAMETERS_GOLDEN)[..]).unwrap();
    let read = |change: &dyn Fn(&mut message::PublicParameters)| {
        let mut changed = golden.clone();
        change(&mut changed);
        PublicParameters::decode(&changed.encode_to_vec())
    };
    let refuse = |change: &dyn Fn(&mut message::PublicParameters), said: &str| {
        let error = read(change).unwrap_err().to_string();
        assert!(error.contains(said), "{error} for {said}");
    };
    type Change = fn(&mut message::PublicParameters);
    let wrong: [(Change, &str); 12] = [
        (|p| p.shard_count = 0, "shard_count is 0"),
        (|p| p.shard_count = 4, "ribbon_seeds is 3 bytes, expected 4 bytes"),
        (|p| (p.shard_count, p.ribbon_seeds) = (65_001, vec![0; 65_001]), "shard_count is 65001"),
        (|p| p.ribbon_seeds[1] = 64, "ribbon_seeds is 64 for shard 1, expected below 64"),
        (|p| p.packs = 0, "packs is 0"),
        (|p| p.response_bits = 99, "response bits is 99"),
        (|p| p.seed.truncate(31), "seed is 31 bytes, expected 32 bytes"),
        (|p| p.hint_digests_hash.push(0), "hint_digests_hash is 33 bytes"),
        (|p| p.content.clear(), "content is 0 bytes"),
        (|p| p.created = p.expires, "expires is 1702592000"),
        (|p| p.created = p.expires + 1, "expires is 1702592000"),
        (|p| p.shard_records_min = 102, "shard_records_min is 102, expected at most 101"),
    ];
    for (change, said) in wrong {
        refuse(&change, said);
    }
    for name in ["", "-a", ".a", "a b", "a/b", "a\u{1b}[2J", "gr\u{fc}n", &"x".repeat(65)] {
        refuse(&|p| p.database = name.into(), "database is");
    }
    // The groups' columns hold no more.
    let room = (shape().groups() * shape().columns()) as u32;
    let crowd = |records| {
        move |p: &mut message::PublicParameters| {
            (p.record_count, p.shard_records_min) = (u64::MAX, records);
        }
    };
    read(&crowd(room)).unwrap();
    refuse(&crowd(room + 1), &format!("at most {room}"));
    // A builder's seed may be larger than a byte.
    let fields = ParameterFields { ribbon_seeds: vec![0, 1 << 20, 1], ..parameter_fields() };
    let error = PublicParameters::new(fields).unwrap_err().to_string();
    assert!(error.contains("below 64"), "{error}");

    let shards = limits::SHARDS_MAX;
    let most = read(&|p| {
        (p.shard_count, p.ribbon_seeds) = (shards, vec![63; shards as usize]);
        (p.record_count, p.database) = (u64::MAX, "x".repeat(64));
    });
    let most = most.unwrap();
    assert_eq!(PublicParameters::decode(&most.encode()).unwrap(), most);
    let digests = shards as usize * HINT_DIGEST_BYTES;
    assert!(most.encode().len() + digests + 1024 < limits::PARAMETERS_REPLY_BYTES_MAX);
}

#[test]
fn signatures_hold_for_one_key_and_one_message() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let other = SigningKey::from_bytes(&[8; 32]);
    let bytes = parameters_sample().encode();
    let signature = sign(&key, &bytes);
    verify(&key.verifying_key(), &bytes, &signature).unwrap();
    let wrong = |key: &SigningKey, bytes: &[u8], signature: &[u8]| {
        verify(&key.verifying_key(), bytes, signature).unwrap_err()
    };
    assert_eq!(wrong(&other, &bytes, &signature), SignatureError::Wrong);
    assert_eq!(wrong(&key, &bytes[1..], &signature), SignatureError::Wrong);
    assert_eq!(wrong(&key, &bytes, &signature[1..]), SignatureError::Length(63));
    for at in 0..signature.len() {
        let mut changed = signature;
        changed[at] ^= 1;
        assert_eq!(wrong(&key, &bytes, &changed), SignatureError::Wrong);
    }
}

#[test]
fn statuses_are_those_of_the_table() {
    let known: Vec<i32> = (0..=4).chain(16..=24).collect();
    for code in -70_000..70_000 {
        assert_eq!(Status::try_from(code).is_ok(), known.contains(&code), "{code}");
    }
    assert_eq!(Status::ALL.map(Status::code).to_vec(), known);
}

/// The bounds are not only kept, they also leave room for the largest honest message.
#[test]
fn the_largest_honest_messages_fit_their_bounds() {
    let shapes = [shape(), Shape::new(120, 2048, 4, 17_280).unwrap()];
    let most_packs = Shape::new(24, 128, limits::PACKS_MAX, 192).unwrap();
    for shape in shapes.into_iter().chain([most_packs]) {
        let query = PirRequest {
            nonce: "n".repeat(limits::NONCE_BYTES_MAX),
            shard: u32::MAX,
            epoch: u64::MAX,
            want_hint: true,
            deadline_ms: u32::MAX,
            pack: u32::MAX,
            ..query(&shape, 0)
        };
        let requests = vec![query; limits::QUERIES_PER_FRAME_MAX as usize];
        let parameters = PirParameterRequest {
            nonce: "n".repeat(limits::NONCE_BYTES_MAX),
            ..parameter_request(vec![0; shape.bundle_bytes()], UID)
        };
        for body in [RequestBody::Batch(PirBatch { requests }), RequestBody::Parameters(parameters)]
        {
            let frame = frame_of(body);
            assert_eq!(request_head(&frame, &shape).unwrap().unwrap().frame_bytes, frame.len());
        }
        let answer = PirResponse {
            protocol_version: 1,
            nonce: "n".repeat(limits::NONCE_BYTES_MAX),
            uid: UID.into(),
            response_status: Status::Device.code(),
            encrypted_response: vec![vec![0; shape.response_bytes()]; shape.packs()],
            hint: vec![vec![0; shape.hint_bytes()]; shape.packs()],
            epoch: u64::MAX,
            retry_after_ms: u32::MAX,
            detail: "d".repeat(500),
            hint_digest: vec![0; HINT_DIGEST_BYTES],
            pack_digests: vec![0; HINT_DIGEST_BYTES * shape.packs()].into(),
        };
        let hint = Hint {
            shard: u32::MAX,
            epoch: u64::MAX,
            packs: answer.hint.clone(),
            digest: answer.hint_digest.clone(),
            response_status: Status::Device.code(),
            detail: answer.detail.clone(),
        };
        for body in [ReplyBody::Answer(answer), ReplyBody::Hint(hint)] {
            let frame = encode_frame(&Reply::from(body));
            assert_eq!(reply_head(&frame, Some(&shape)).unwrap().unwrap().frame_bytes, frame.len());
        }
    }
}

/// A message (as prost writes it) with one more field at its end, which counts in place of an
/// earlier one of the same number.
fn and_number(message: &[u8], tag: u64, value: u64) -> Vec<u8> {
    [message, &varint(tag << 3), &varint(value)].concat()
}

/// A message with its length in front, and a tag before that.
fn wrapped(tag: u8, message: &[u8]) -> Vec<u8> {
    [&[tag][..], &varint(message.len() as u64), message].concat()
}

#[test]
fn numbers_above_32_bits_are_no_other_numbers() {
    let frame = encode_frame(&valid_batch(1).requests[0]);
    let query = &frame[varint(frame.len() as u64).len()..];
    let malformed = |value: u64| {
        let body = wrapped(0x0a, &and_number(query, 5, value));
        let batch = ValidQueries::decode(body.into(), &shape(), Asker::FrontEnd).unwrap();
        batch.malformed.into_iter().next().map(|(nonce, malformed)| (nonce, malformed.field))
    };
    assert_eq!(malformed(1), None);
    assert_eq!(malformed((1 << 32) + 1), Some(("0".into(), "shard")));
    for shards in [and_number(&[], 2, (1 << 32) + 7), wrapped(0x12, &varint((1 << 32) + 7))] {
        let refused = decode_hints(shards.into()).unwrap_err();
        assert_eq!(refused.to_string(), "shards is a number above 2^32, expected below 2^32");
    }
    let (nonce, refused) = decode_parameters(
        [and_number(&[], 1, (1 << 32) + 1), wrapped(0x12, b"n")].concat().into(),
        &shape(),
    )
    .err()
    .unwrap();
    assert_eq!((nonce.as_str(), refused.field), ("n", "protocol_version"));
    // Replies and parameters, as clients read them.
    let (hint, inner) = (and_number(&[], 1, 1 << 32), and_number(&[], 3, 1 << 32));
    let limits = [&[0x9a, 1, inner.len() as u8][..], &inner].concat(); // a message inside another
    for (tag, message, field) in [(0x1a, hint, "shard"), (0x0a, limits, "bundles_per_connection")] {
        let reply = wrapped(tag, &message);
        let frame = [varint(reply.len() as u64), reply].concat();
        let refused = read_reply(frame.into()).unwrap_err();
        assert!(refused.contains(&format!("{field} is a number above 2^32")), "{refused}");
    }
    let signed = and_number(&parameters_sample().encode(), 7, (1 << 32) + 192);
    let refused = PublicParameters::decode(&signed).unwrap_err().to_string();
    assert!(refused.contains("columns is a number above 2^32"), "{refused}");
}

#[test]
fn a_parameter_reply_in_pieces_is_the_same_frame() {
    let bytes = |count: usize| Bytes::from(vec![7; count]);
    let Some(ReplyBody::Parameters(sample)) = reply_samples().swap_remove(0).0.body else {
        panic!("the first sample is a parameter reply")
    };
    for (parameters, digests) in [(0, 0), (100, 48), (5_000, 0), (100, 70_000), (70_000, 70_000)] {
        let reply = PirParameterResponse {
            parameters: bytes(parameters),
            hint_digests: bytes(digests),
            ..sample.clone()
        };
        let pieces = parameters_frame(reply.clone());
        // What is long is sent from where it lies.
        for field in [&reply.parameters, &reply.hint_digests] {
            let shared = pieces.iter().any(|piece| piece.as_ptr() == field.as_ptr());
            assert_eq!(shared, field.len() > 1_000, "{parameters} {digests}");
        }
        let whole = encode_frame(&Reply::from(ReplyBody::Parameters(reply)));
        assert_eq!(pieces.concat(), whole, "{parameters} {digests}");
    }
}
