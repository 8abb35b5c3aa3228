use super::*;

fn gateway(ids: &[u8]) -> Gateway {
    Gateway::new(ids.iter().map(|&id| GatewayKey::new(id, &[id; 32]).expect("a key")).collect())
}

fn config(id: u8) -> Vec<u8> {
    gateway(&[id]).configs().remove(0)
}

fn inner_request() -> InnerRequest {
    InnerRequest {
        method: "POST".to_owned(),
        path: "/databases/eu1/lookup".to_owned(),
        content_type: Some("application/x-sotto-frames".to_owned()),
        body: vec![7; 300],
    }
}

fn inner_response() -> InnerResponse {
    InnerResponse {
        status: 503,
        content_type: Some("application/json".to_owned()),
        retry_after: Some(12),
        etag: Some("\"00112233445566778899aabbccddeeff\"".to_owned()),
        body: vec![8; 200],
    }
}

fn error<T>(result: Result<T, SealedError>) -> SealedError {
    result.err().expect("it was accepted")
}

/// Seals any bytes, as a hostile device could.
fn seal_bytes(bytes: &[u8]) -> Vec<u8> {
    let client = ClientRequest::from_encoded_config(&config(1)).expect("a configuration");
    client.encapsulate(bytes).expect("sealed").0
}

#[test]
fn a_request_and_its_reply_come_back() {
    let gateway = gateway(&[1, 2]);
    for id in [1, 2] {
        let (capsule, opener) = seal(&config(id), &inner_request()).expect("sealed");
        let (request, sealer) = gateway.open(&capsule).expect("opened");
        assert!(request == inner_request());
        let reply = sealer.seal(&inner_response()).expect("sealed");
        assert!(opener.open(&reply).is_ok_and(|response| response == inner_response()));
    }
    let bare = InnerRequest { content_type: None, body: vec![], ..inner_request() };
    let (capsule, opener) = seal(&config(1), &bare).expect("sealed");
    let (request, sealer) = gateway.open(&capsule).expect("opened");
    assert!(request == bare);
    let nothing = InnerResponse {
        status: 304,
        content_type: None,
        retry_after: None,
        etag: None,
        body: vec![],
    };
    let reply = sealer.seal(&nothing).expect("sealed");
    assert!(opener.open(&reply).is_ok_and(|response| response == nothing));
}

#[test]
fn sealing_adds_what_is_said() {
    let small = InnerRequest { content_type: None, body: vec![], ..inner_request() };
    let capsule = seal(&config(1), &small).expect("sealed").0;
    let inner = 1 + (1 + 4) + (1 + 5) + (1 + 17) + (1 + 21) + 3;
    assert_eq!(capsule.len(), REQUEST_OVERHEAD_BYTES + inner);
}

#[test]
fn a_replayed_capsule_opens_to_the_same_request_and_each_reply_only_once() {
    let gateway = gateway(&[1]);
    let (capsule, opener) = seal(&config(1), &inner_request()).expect("sealed");
    let (first, first_sealer) = gateway.open(&capsule).expect("opened");
    let (second, second_sealer) = gateway.open(&capsule).expect("opened again");
    assert!(first == second);
    let replies =
        [first_sealer, second_sealer].map(|sealer| sealer.seal(&inner_response()).expect("sealed"));
    assert!(replies[0] != replies[1], "two replies under one nonce");
    assert!(opener.open(&replies[1]).is_ok_and(|response| response == inner_response()));
}

#[test]
fn a_request_for_another_key_is_refused() {
    let (capsule, _) = seal(&config(3), &inner_request()).expect("sealed");
    assert_eq!(error(gateway(&[1, 2]).open(&capsule)), SealedError::UnknownKey);
    assert_eq!(error(gateway(&[]).open(&capsule)), SealedError::UnknownKey);
    // Another key under the same identifier.
    let other = Gateway::new(vec![GatewayKey::new(3, &[99; 32]).expect("a key")]);
    assert_eq!(error(other.open(&capsule)), SealedError::Unopened);
}

#[test]
fn a_reply_to_another_request_is_refused() {
    let gateway = gateway(&[1]);
    let (capsule, _) = seal(&config(1), &inner_request()).expect("sealed");
    let (_, other) = seal(&config(1), &inner_request()).expect("sealed");
    let (_, sealer) = gateway.open(&capsule).expect("opened");
    let reply = sealer.seal(&inner_response()).expect("sealed");
    assert_eq!(error(other.open(&reply)), SealedError::Unopened);
}

#[test]
fn a_capsule_cut_off_or_changed_anywhere_is_refused() {
    let gateway = gateway(&[1]);
    let request = InnerRequest { body: vec![7; 16], ..inner_request() };
    let (capsule, _) = seal(&config(1), &request).expect("sealed");
    for end in 0..capsule.len() {
        let found = error(gateway.open(&capsule[..end]));
        let is_short = matches!(found, SealedError::Short { .. });
        assert_eq!(is_short, end <= REQUEST_OVERHEAD_BYTES, "{end}: {found}");
    }
    for bit in 0..capsule.len() * 8 {
        let mut wrong = capsule.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let found = error(gateway.open(&wrong));
        let expected = [SealedError::UnknownKey, SealedError::Unopened];
        assert!(expected.contains(&found), "bit {bit}: {found}");
        assert_eq!(bit / 8 < 7, found == SealedError::UnknownKey, "bit {bit}: {found}");
    }
    let mut longer = capsule.clone();
    longer.push(0);
    assert_eq!(error(gateway.open(&longer)), SealedError::Unopened);
}

#[test]
fn a_reply_cut_off_or_changed_anywhere_is_refused() {
    let gateway = gateway(&[1]);
    let sealed = || {
        let (capsule, opener) = seal(&config(1), &inner_request()).expect("sealed");
        let (_, sealer) = gateway.open(&capsule).expect("opened");
        let response = InnerResponse { body: vec![1; 4], ..inner_response() };
        (sealer.seal(&response).expect("sealed"), opener)
    };
    let length = sealed().0.len();
    for end in 0..length {
        let (reply, opener) = sealed();
        assert!(opener.open(&reply[..end]).is_err(), "{end}");
    }
    for byte in 0..length {
        let (mut reply, opener) = sealed();
        reply[byte] ^= 1 << (byte % 8);
        assert_eq!(error(opener.open(&reply)), SealedError::Unopened, "byte {byte}");
    }
}

#[test]
fn content_that_is_no_request_is_told_apart_and_can_be_answered() {
    let mut right = Vec::new();
    let parts = [&b"GET"[..], SCHEME, AUTHORITY, b"/directory"].map(<[u8]>::to_vec);
    let [method, scheme, authority, path] = parts;
    let message = Message::request(method, scheme, authority, path);
    message.write_bhttp(Mode::KnownLength, &mut right).expect("written");
    assert!(request(&right).is_ok());

    let gateway = gateway(&[1]);
    let without_trailers = right.len() - 1;
    for end in 0..without_trailers {
        assert!(request(&right[..end]).is_err(), "cut off at {end}");
    }
    for bit in 0..right.len() * 8 {
        let mut wrong = right.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        // No panic; a path or a method may have become another one.
        let _ = request(&wrong);
    }
    let reply = [1, 0x40, 200, 0, 0, 0];
    assert!(read(&reply, Kind::Reply).is_ok());
    for wrong in [&reply[..], &[2, 0], &[9], &[0, 0xff], &[]] {
        assert!(matches!(error(request(wrong)), SealedError::NotHttp(_)));
    }
    assert!(error(read(&[1, 0x40, 100, 0, 0, 0], Kind::Reply)).to_string().contains("final"));

    let (content, sealer) = gateway.decapsulate(&seal_bytes(&[9; 20])).expect("opened");
    assert!(content.is_err());
    assert!(sealer.seal(&inner_response()).is_ok());
}

#[test]
fn a_message_has_bounds() {
    let message = |authority: &[u8], path: &[u8], fields: usize, tail: &[u8]| {
        let [method, scheme] = [&b"GET"[..], SCHEME].map(<[u8]>::to_vec);
        let mut message = Message::request(method, scheme, authority.to_vec(), path.to_vec());
        for _ in 0..fields {
            message.put_header("a", "");
        }
        let mut bytes = Vec::new();
        message.write_bhttp(Mode::KnownLength, &mut bytes).expect("written");
        bytes.extend(tail);
        request(&bytes)
    };
    assert!(message(AUTHORITY, b"/", 341, &[]).is_ok());
    let found = error(message(AUTHORITY, b"/", 342, &[]));
    assert!(matches!(found, SealedError::TooLong { found: 1_026, .. }), "{found}");
    assert!(message(AUTHORITY, &[b'a'; SEALED_PATH_BYTES_MAX], 0, &[]).is_ok());
    let found = error(message(AUTHORITY, &[b'a'; SEALED_PATH_BYTES_MAX + 1], 0, &[]));
    assert!(matches!(found, SealedError::TooLong { .. }), "{found}");
    assert!(message(b"other.example", b"/", 0, &[]).is_err());
    assert!(message(AUTHORITY, b"/\x80", 0, &[]).is_err());
    assert!(message(AUTHORITY, b"/\n", 0, &[]).is_err());
    assert!(message(AUTHORITY, b"/", 0, &[0, 0]).is_ok(), "padding");
    assert!(message(AUTHORITY, b"/", 0, &[0, 1]).is_err());
}

#[test]
fn a_reply_has_a_final_status() {
    for status in [0, 99, 100, 199, 600, 65_535] {
        let (capsule, _) = seal(&config(1), &inner_request()).expect("sealed");
        let (_, sealer) = gateway(&[1]).open(&capsule).expect("opened");
        let found = error(sealer.seal(&InnerResponse { status, ..inner_response() }));
        assert!(matches!(found, SealedError::Seal(_)), "{status}: {found}");
    }
}

#[test]
fn a_configuration_that_is_not_ours_is_refused() {
    let mut wrong = config(1);
    wrong[38] = 9;
    let found = error(seal(&wrong, &inner_request()));
    assert_eq!(found, SealedError::KeyConfig { found: 41 });
    assert_eq!(error(seal(&[], &inner_request())), SealedError::KeyConfig { found: 0 });
    // An element of small order has no shared secret.
    let mut zero = config(1);
    zero[3..35].fill(0);
    assert!(seal(&zero, &inner_request()).is_err());
}
