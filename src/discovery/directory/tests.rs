//! Tests of the directory: what is refused, and that nothing else is.

use ed25519_dalek::{SigningKey, VerifyingKey};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::identifier::Identifier;
use super::super::jws::JwsError;
use super::draft::{self, Described};
use super::*;
use crate::limits::DIRECTORY_BYTES_MAX;

const NOW: u64 = 1_796_000_000;
const DAY: u64 = 86_400;

fn secret(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn key(seed: u8) -> Key {
    secret(seed).verifying_key().into()
}

fn keys<const N: usize>(seeds: [u8; N]) -> Vec<SigningKey> {
    seeds.map(secret).to_vec()
}

fn texts<const N: usize>(items: [&str; N]) -> Vec<String> {
    items.map(str::to_owned).to_vec()
}

fn identifier(text: &str) -> Identifier {
    Identifier::parse(text, None).unwrap()
}

/// Three roots of which two have to sign: 1, 2 and 3. Every member is there.
fn content() -> Content {
    let validity = Validity { from: NOW - 100 * DAY, until: NOW + 100 * DAY };
    let provider = |index, domain: &str, name: &str| Provider {
        index,
        domain: domain.to_owned(),
        name: name.to_owned(),
        keys_url: format!("https://keys.{domain}/v1"),
        keys_identity: None,
    };
    let issuer = Issuer {
        index: 1,
        domain: "dp.example".to_owned(),
        keys: vec![
            IssuerKey { key: key(11), validity },
            IssuerKey { key: key(12), validity: Validity { from: NOW, ..validity } },
        ],
        remit: Remit {
            providers: texts(["a.example", "xn--bcher-kva.example"]),
            prefixes: texts(["+49", "+4311", "@"]),
            regions: texts(["EU"]),
            proof: Proof::Sms,
        },
        exempt_before: Some(NOW - 50 * DAY),
        authority: false,
    };
    let authority = Issuer {
        index: 2,
        domain: "authority.example".to_owned(),
        keys: vec![IssuerKey { key: key(13), validity }],
        remit: Remit { providers: vec![], regions: vec![], ..issuer.remit.clone() },
        exempt_before: None,
        authority: true,
    };
    let database = |id: &str, index, seed| Database {
        id: id.to_owned(),
        operator_key: key(31),
        record_keys: vec![RecordKey { index, key: key(seed), validity }],
        blinding_key: Some(RistrettoKey([9; 32])),
        log: None,
        prefixes: texts(["+49"]),
        region: "EU".to_owned(),
        endpoints: texts(["pir.example:4433", "192.0.2.1:443", "[2001:db8::1]:443"]),
    };
    Content {
        version: 7,
        expires: NOW + 30 * DAY,
        threshold: 2,
        roots: vec![key(1), key(2), key(3)],
        providers: vec![
            provider(1, "a.example", "A"),
            provider(4, "xn--bcher-kva.example", "Bücher & Söhne"),
        ],
        issuers: vec![issuer, authority],
        databases: vec![database("eu1", 1, 21), database("eu2", 5, 22)],
        last_index: LastIndex { provider: 6, issuer: 2, record_key: 5 },
    }
}

fn pins() -> Pins {
    Pins::new(2, vec![key(1), key(2), key(3)]).unwrap()
}

fn file(content: &Content) -> String {
    draft::sign(content, &keys([1, 3])).unwrap()
}

/// A payload of any form, rightly signed.
fn signed_text(payload: &str) -> String {
    signed::sign(payload.as_bytes(), &keys([1, 2]))
}

fn open(file: &str) -> Result<Directory, DirectoryError> {
    Directory::open(file.as_bytes(), &pins(), NOW)
}

#[track_caller]
fn refused(file: &str, pins: &Pins, now: u64) -> DirectoryError {
    match Directory::open(file.as_bytes(), pins, now) {
        Err(error) => error,
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn a_directory_that_enough_roots_signed_is_read() {
    let directory = open(&file(&content())).unwrap();
    assert_eq!(directory.content(), &content());
    assert_eq!(directory.provider(4).unwrap().name, "Bücher & Söhne");
    assert_eq!(directory.provider_of("a.example").unwrap().index, 1);
    assert_eq!(directory.issuer_of("authority.example").unwrap().index, 2);
    assert_eq!(directory.database("eu2").unwrap().record_keys[0].index, 5);
    let (database, record_key) = directory.record_key(5).unwrap();
    assert_eq!((database.id.as_str(), record_key.key), ("eu2", key(22)));
    assert!(directory.provider(2).is_none() && directory.record_key(2).is_none());
    assert!(directory.provider_of("dp.example").is_none());
    assert!(directory.issuer_of("a.example").is_none() && directory.database("eu3").is_none());
    let kept = directory.pins();
    assert_eq!((kept.version(), kept.threshold(), kept.roots()), (7, 2, &content().roots[..]));
    assert_eq!(Pins::from_json(kept.to_json().as_bytes()).unwrap(), kept);
}

/// Two of three signatures, so that each is needed; and all three, of which one is not.
#[test]
fn no_byte_of_the_file_can_change() {
    for signers in [&keys([1, 3])[..], &keys([1, 2, 3])] {
        let file = draft::sign(&content(), signers).unwrap();
        for at in 0..file.len() {
            for flip in [0x01, 0x20] {
                let mut bytes = file.clone().into_bytes();
                bytes[at] ^= flip;
                match Directory::open(&bytes, &pins(), NOW) {
                    Err(_) => {}
                    // The name of the key of the third signature, which then counts for nobody.
                    Ok(opened) => {
                        assert_eq!(signers.len(), 3, "byte {at} ^ {flip:#x}");
                        assert_eq!(opened.content(), &content(), "byte {at} ^ {flip:#x}");
                    }
                }
            }
        }
        for end in 0..file.trim_end().len() {
            assert!(
                Directory::open(&file.as_bytes()[..end], &pins(), NOW).is_err(),
                "cut at {end}"
            );
        }
    }
}

#[test]
fn one_key_counts_once_and_others_not_at_all() {
    let threshold = |whose, found| DirectoryError::Threshold { whose, found, expected: 2 };
    let one = draft::sign(&content(), &keys([2])).unwrap();
    assert_eq!(refused(&one, &pins(), NOW), threshold(Whose::Pinned, 1));
    let twice = draft::sign(&content(), &keys([2, 2])).unwrap();
    assert_eq!(refused(&twice, &pins(), NOW), threshold(Whose::Pinned, 1));
    // The second one with another header, so that its bytes differ.
    let header = |kid: &str| format!(r#"{{"typ":"{DIRECTORY_TYP}","alg":"EdDSA","kid":"{kid}"}}"#);
    let mut value: Value = serde_json::from_str(&one).unwrap();
    let other = part(&header(&key(2).id()), value["payload"].as_str().unwrap(), 2);
    value["signatures"].as_array_mut().unwrap().push(other);
    assert_eq!(refused(&value.to_string(), &pins(), NOW), threshold(Whose::Pinned, 1));
    // An issuer's key, and one that nobody knows.
    let others = draft::sign(&content(), &keys([2, 11, 99])).unwrap();
    assert_eq!(refused(&others, &pins(), NOW), threshold(Whose::Pinned, 1));
    let none = draft::sign(&content(), &[]).unwrap();
    assert_eq!(refused(&none, &pins(), NOW), threshold(Whose::Pinned, 0));
    // Besides two that count, a foreign one is no matter.
    assert!(open(&draft::sign(&content(), &keys([99, 1, 2])).unwrap()).is_ok());
}

/// A signature by the key of a seed under any protected header.
fn part(header: &str, payload: &str, seed: u8) -> Value {
    use ed25519_dalek::Signer as _;
    let protected = jws::base64url(header.as_bytes());
    let signature = secret(seed).sign(format!("{protected}.{payload}").as_bytes());
    json!({ "protected": protected, "signature": jws::base64url(&signature.to_bytes()) })
}

#[test]
fn each_signature_is_one_of_a_directory() {
    let payload = jws::base64url(serde_json::to_string(&content()).unwrap().as_bytes());
    let kid = key(2).id();
    let with = |header: &str, seed| {
        let good = part(
            &format!(r#"{{"alg":"EdDSA","typ":"{DIRECTORY_TYP}","kid":"{}"}}"#, key(1).id()),
            &payload,
            1,
        );
        json!({ "payload": payload, "signatures": [good, part(header, &payload, seed)] })
            .to_string()
    };
    let right = format!(r#"{{"alg":"EdDSA","typ":"{DIRECTORY_TYP}","kid":"{kid}"}}"#);
    assert!(open(&with(&right, 2)).is_ok());
    let number_2 = |file: &str, expected: fn(&JwsError) -> bool| match refused(file, &pins(), NOW) {
        DirectoryError::Signature { number: 2, why } => assert!(expected(&why), "{why}"),
        other => panic!("{other}"),
    };
    // In the name of a root, by another key.
    number_2(&with(&right, 99), |why| *why == JwsError::Signature);
    number_2(&with(&right.replace("EdDSA", "none"), 2), |why| {
        matches!(why, JwsError::Algorithm(_))
    });
    number_2(&with(&right.replace("EdDSA", "HS256"), 2), |why| {
        matches!(why, JwsError::Algorithm(_))
    });
    let mapping = right.replace(DIRECTORY_TYP, "sotto-mapping+jwt");
    number_2(&with(&mapping, 2), |why| matches!(why, JwsError::Type { .. }));
    let crit = right.replace(r#""kid""#, r#""crit":["b64"],"kid""#);
    number_2(&with(&crit, 2), |why| *why == JwsError::Header);
    let twice = right.replace(r#""kid""#, r#""typ":"x","kid""#);
    number_2(&with(&twice, 2), |why| *why == JwsError::Header);
    // Without a name it is nobody's.
    let anonymous = format!(r#"{{"alg":"EdDSA","typ":"{DIRECTORY_TYP}"}}"#);
    let error = refused(&with(&anonymous, 2), &pins(), NOW);
    assert_eq!(error, DirectoryError::Threshold { whose: Whose::Pinned, found: 1, expected: 2 });
    // The signature of another payload.
    let other = file(&Content { version: 8, ..content() });
    let mut mixed: Value = serde_json::from_str(&other).unwrap();
    mixed["payload"] = payload.clone().into();
    assert!(matches!(refused(&mixed.to_string(), &pins(), NOW), DirectoryError::Signature { .. }));
}

#[test]
fn a_file_has_bounds() {
    let many: Vec<SigningKey> = (1..=17).map(secret).collect();
    let file = draft::sign(&content(), &many[..16]).unwrap();
    assert!(open(&file).is_ok());
    let file = signed::sign(b"{}", &many);
    assert_eq!(refused(&file, &pins(), NOW), DirectoryError::Signatures(17));
    let padded = |bytes: usize| {
        let file = self::file(&content());
        format!("{}{file}", " ".repeat(bytes - file.len()))
    };
    assert!(open(&padded(DIRECTORY_BYTES_MAX)).is_ok());
    let long = padded(DIRECTORY_BYTES_MAX + 1);
    assert_eq!(refused(&long, &pins(), NOW), DirectoryError::Long);
    // Errors of JSON quote what was found; not all of it.
    let file = signed_text(&format!(r#"{{"version":"{}"}}"#, "ä".repeat(10_000)));
    assert!(refused(&file, &pins(), NOW).to_string().chars().count() < 400);
    let mut long = content();
    long.providers[0].domain = "a".repeat(10_000);
    let file = signed_text(&json!(long).to_string());
    assert!(refused(&file, &pins(), NOW).to_string().chars().count() < 500);
}

#[test]
fn an_older_version_is_refused_and_so_is_another_of_the_same() {
    let seen = open(&file(&content())).unwrap().pins();
    let of = |version| file(&Content { version, ..content() });
    let rolled_back = DirectoryError::RolledBack { found: 6, seen: 7 };
    assert_eq!(refused(&of(6), &seen, NOW), rolled_back);
    assert!(Directory::open(of(7).as_bytes(), &seen, NOW).is_ok());
    assert!(Directory::open(of(8).as_bytes(), &seen, NOW).is_ok());
    // More signatures of the same content are no other directory.
    let more = draft::add_signatures(of(7).as_bytes(), &keys([2])).unwrap();
    assert_eq!(Directory::open(more.as_bytes(), &seen, NOW).unwrap().pins(), seen);
    let fork = file(&Content { expires: content().expires - 1, ..content() });
    assert_eq!(refused(&fork, &seen, NOW), DirectoryError::Forked { version: 7 });
    // The same content in other bytes.
    let other = signed_text(&serde_json::to_string_pretty(&content()).unwrap());
    assert_eq!(refused(&other, &seen, NOW), DirectoryError::Forked { version: 7 });
    let zero = file(&Content { version: 0, ..content() });
    assert!(refused(&zero, &pins(), NOW).to_string().contains("a draft"));
    assert!(open(&of(u64::MAX)).is_ok());
}

#[test]
fn a_directory_expires_and_not_too_late() {
    let of = |expires| file(&Content { expires, ..content() });
    for (expires, now, is_open) in [
        (NOW, NOW - 1, true),
        (NOW, NOW, false),
        (NOW, NOW + 1, false),
        (NOW + 30 * DAY + 300, NOW, true),
        (NOW + 30 * DAY + 301, NOW, false),
        (0, 0, false),
        (u64::MAX, 0, false),
        (u64::MAX, u64::MAX - 1, true),
    ] {
        let opened = Directory::open(of(expires).as_bytes(), &pins(), now);
        assert_eq!(opened.is_ok(), is_open, "{expires} at {now}");
        match opened.err() {
            None => {}
            Some(DirectoryError::Expired { .. }) => assert!(expires <= now),
            Some(DirectoryError::HoldsTooLong { .. }) => assert!(expires > now),
            Some(other) => panic!("{other}"),
        }
    }
}

#[test]
fn new_roots_are_signed_by_the_old_and_have_signed() {
    let old = open(&file(&content())).unwrap().pins();
    let next = Content { version: 8, roots: vec![key(3), key(4), key(5)], ..content() };
    let by = |content: &Content, signers: &[SigningKey]| draft::sign(content, signers).unwrap();
    let threshold = |whose, found| DirectoryError::Threshold { whose, found, expected: 2 };
    // One of the new roots has an old key: neither side alone is enough.
    let only_old = by(&next, &keys([1, 2]));
    assert_eq!(refused(&only_old, &old, NOW), threshold(Whose::Its, 0));
    let only_new = by(&next, &keys([4, 5]));
    assert_eq!(refused(&only_new, &old, NOW), threshold(Whose::Pinned, 0));
    let one_each = by(&next, &keys([1, 4]));
    assert_eq!(refused(&one_each, &old, NOW), threshold(Whose::Pinned, 1));
    // 3 counts on both sides.
    let both = by(&next, &keys([1, 3, 4]));
    let new = Directory::open(both.as_bytes(), &old, NOW).unwrap().pins();
    assert_eq!((new.version(), new.roots()), (8, &next.roots[..]));
    // From then on the old ones count for nothing, and who has not seen 8 refuses 9.
    let third = Content { version: 9, ..next.clone() };
    assert!(Directory::open(by(&third, &keys([4, 5])).as_bytes(), &new, NOW).is_ok());
    assert_eq!(refused(&by(&third, &keys([1, 2])), &new, NOW), threshold(Whose::Pinned, 0));
    assert_eq!(refused(&by(&third, &keys([4, 5])), &old, NOW), threshold(Whose::Pinned, 0));
    // The threshold may rise, and the new one holds at once.
    let strict = Content { version: 8, threshold: 3, ..content() };
    let expected = DirectoryError::Threshold { whose: Whose::Its, found: 2, expected: 3 };
    assert_eq!(refused(&by(&strict, &keys([1, 2])), &old, NOW), expected);
    assert!(Directory::open(by(&strict, &keys([1, 2, 3])).as_bytes(), &old, NOW).is_ok());
    // It cannot be lowered by fewer than before.
    let lax = Content { version: 8, threshold: 1, ..content() };
    assert_eq!(refused(&by(&lax, &keys([1])), &old, NOW), threshold(Whose::Pinned, 1));
}

/// Every object of a JSON value, as JSON pointers.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.push(at.to_owned());
            for (name, value) in members {
                objects(value, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            let below = items.iter().enumerate();
            below.for_each(|(index, item)| objects(item, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

/// Every member of every object: the pointer of the object, and the name.
fn members(value: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    objects(value, "", &mut found);
    let names = |at: &String| value.pointer(at).unwrap().as_object().unwrap().keys().cloned();
    found.iter().flat_map(|at| names(at).map(move |name| (at.clone(), name))).collect()
}

/// The text of a value in which this member is there twice.
fn with_twice(value: &Value, at: &str, name: &str) -> String {
    let mut value = value.clone();
    let object = value.pointer_mut(at).unwrap().as_object_mut().unwrap();
    let again = object[name].clone();
    object.insert("TWICE".to_owned(), again);
    value.to_string().replace("TWICE", name)
}

#[test]
fn a_member_that_is_there_twice_is_refused() {
    let payload = json!(content());
    assert!(open(&signed_text(&payload.to_string())).is_ok());
    for (at, name) in members(&payload) {
        let text = with_twice(&payload, &at, &name);
        let error = refused(&signed_text(&text), &pins(), NOW).to_string();
        assert!(error.contains("duplicate field"), "{at}/{name}: {error}");
        assert!(draft::read(text.as_bytes()).is_err(), "{at}/{name} of a draft");
    }
    let file: Value = serde_json::from_str(&file(&content())).unwrap();
    for (at, name) in members(&file) {
        assert!(open(&with_twice(&file, &at, &name)).is_err(), "{at}/{name} of the file");
    }
}

#[test]
fn unknown_members_are_ignored_and_refused_in_drafts() {
    let mut places = Vec::new();
    objects(&json!(content()), "", &mut places);
    assert_eq!(places.len(), 15, "{places:?}");
    for at in places {
        let mut payload = json!(content());
        let object = payload.pointer_mut(&at).unwrap().as_object_mut().unwrap();
        object.insert("later".to_owned(), json!({"a": [1]}));
        let opened = open(&signed_text(&payload.to_string()));
        assert_eq!(opened.unwrap().content(), &content(), "{at}");
        let error = draft::read(payload.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains("\"later\""), "{at}: {error}");
    }
    let mut file: Value = serde_json::from_str(&file(&content())).unwrap();
    file["later"] = json!(1);
    file["signatures"][0]["header"] = json!({"alg": "none"});
    assert!(open(&file.to_string()).is_ok());
    // An object as the list of its members, which serde would take.
    let mut listed = json!(content());
    listed["providers"][0] = json!([1, "a.example", "A", "https://keys.a.example/v1"]);
    assert!(draft::read(listed.to_string().as_bytes()).is_err());
}

#[test]
fn a_member_that_is_missing_or_of_another_kind_is_refused() {
    let optional = ["exempt_before", "authority", "blinding_key", "last_index"];
    for (at, name) in members(&json!(content())) {
        let mut payload = json!(content());
        let object = payload.pointer_mut(&at).unwrap().as_object_mut().unwrap();
        let removed = object.remove(&name).unwrap();
        let is_optional = optional.contains(&name.as_str()) || at == "/last_index";
        // Without it, the authority is an issuer for nobody.
        let is_needed = removed == json!(true);
        let opened = open(&signed_text(&payload.to_string()));
        assert_eq!(opened.is_ok(), is_optional && !is_needed, "{at}/{name}: {:?}", opened.err());
        let kinds = [json!(-1), json!(1.5), json!("?"), json!([[]]), json!({"x": 1}), json!(null)];
        for other in kinds {
            let object = payload.pointer_mut(&at).unwrap().as_object_mut().unwrap();
            object.insert(name.clone(), other.clone());
            let is_right = match name.as_str() {
                "name" => other == "?",
                "exempt_before" | "blinding_key" => other.is_null(),
                // Every member of it may be absent.
                "last_index" => other.is_object(),
                _ => false,
            };
            let opened = open(&signed_text(&payload.to_string()));
            assert_eq!(opened.is_ok(), is_right, "{at}/{name} = {other}: {:?}", opened.err());
        }
    }
}

fn long(count: usize) -> Value {
    json!("x".repeat(count))
}

/// What is changed at a pointer, and what the error says.
fn wrong_providers() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/threshold", json!(0), "the threshold is 0"),
        ("/threshold", json!(4), "the threshold is 4"),
        ("/roots", json!([]), "0 root keys"),
        ("/roots/1", json!(key(1)), "twice"),
        ("/roots/1", json!("AAAA"), "expected a key"),
        ("/roots/1", json!(format!("{}=", key(2))), "expected a key"),
        ("/roots/1", json!(key(31)), "there twice"),
        ("/providers/0/index", json!(0), "provider 0 (\"a.example\") of the directory: the index"),
        ("/providers/0/index", json!(4), "the index 4 is there twice"),
        ("/providers/0/index", json!(1_u64 << 32), "JSON"),
        ("/providers/1/domain", json!("a.example"), "the domain \"a.example\" is there twice"),
        ("/providers/0/domain", json!("A.example"), "lower case"),
        ("/providers/0/domain", json!("bücher.example"), "lower case"),
        ("/providers/0/domain", json!("a..example"), "lower case"),
        ("/providers/0/domain", json!("a.example."), "lower case"),
        ("/providers/0/domain", json!("a.example/x"), "lower case"),
        ("/providers/0/domain", json!("b@a.example"), "lower case"),
        ("/providers/0/domain", json!(""), "lower case"),
        ("/providers/0/domain", json!("other.example"), "no provider of this directory"),
        ("/providers/0/name", json!(""), "visible text"),
        ("/providers/0/name", json!(" A"), "visible text"),
        ("/providers/0/name", json!("A\u{202e}B"), "visible text"),
        ("/providers/0/name", json!("A\nB"), "visible text"),
        ("/providers/0/name", long(65), "visible text"),
        ("/providers/0/keys_url", json!("http://a.example/"), "https://"),
        ("/providers/0/keys_url", json!("https://"), "https://"),
        ("/providers/0/keys_url", json!("https://a@b.example/"), "https://"),
        ("/providers/0/keys_url", json!("https://a.example/ x"), "https://"),
    ]
}

/// As [`wrong_providers`].
fn wrong_issuers_and_databases() -> Vec<(&'static str, Value, &'static str)> {
    let many = |count: usize| json!(vec!["+49"; count]);
    vec![
        ("/issuers/0/index", json!(2), "the index 2 is there twice"),
        ("/issuers/0/domain", json!("authority.example"), "twice"),
        ("/issuers/0/keys", json!([]), "0 keys"),
        ("/issuers/0/keys/0/key", json!(key(12)), "there twice"),
        ("/issuers/0/keys/0/key", json!(key(13)), "there twice"),
        ("/issuers/0/keys/0/key", json!(key(1)), "there twice"),
        ("/issuers/0/keys/0/until", json!(NOW - 100 * DAY), "which is never"),
        ("/issuers/0/remit/providers", json!([]), "names no provider"),
        ("/issuers/0/remit/providers/0", json!("dp.example"), "no provider of this directory"),
        ("/issuers/0/remit/prefixes/0", json!("49"), "prefix"),
        ("/issuers/0/remit/prefixes/0", json!("+"), "prefix"),
        ("/databases/0/prefixes/0", json!("@"), "prefix"),
        ("/issuers/0/remit/prefixes/0", json!("+049"), "prefix"),
        ("/issuers/0/remit/prefixes/0", json!("+49 30"), "prefix"),
        ("/issuers/0/remit/prefixes/0", json!("+1234567890123456"), "prefix"),
        ("/issuers/0/remit/prefixes", many(513), "513 prefixes"),
        ("/issuers/0/remit/regions/0", json!("E U"), "region"),
        ("/issuers/0/remit/regions/0", long(17), "region"),
        ("/issuers/0/remit/proof", json!("Sms"), "unknown variant"),
        ("/issuers/0/remit/proof", json!("passport"), "unknown variant"),
        ("/issuers/1/remit/prefixes", json!([]), "could withdraw every number"),
        ("/databases/0/id", json!("eu2"), "twice"),
        ("/databases/0/id", json!(""), "the id"),
        ("/databases/0/id", json!("-eu"), "the id"),
        ("/databases/0/id", json!("eu/1"), "the id"),
        ("/databases/0/id", long(65), "the id"),
        ("/databases/0/operator_key", json!(key(1)), "there twice"),
        ("/databases/0/record_keys", json!([]), "0 record keys"),
        ("/databases/0/record_keys/0/index", json!(0), "the index is 0"),
        ("/databases/0/record_keys/0/index", json!(5), "the index 5 is there twice"),
        ("/databases/0/record_keys/0/key", json!(key(22)), "there twice"),
        ("/databases/0/record_keys/0/from", json!(u64::MAX), "which is never"),
        ("/databases/0/blinding_key", json!("AAAA"), "expected a blinding key"),
        ("/databases/0/blinding_key", json!("A".repeat(43)), "identity"),
        ("/databases/0/region", json!(""), "region"),
        ("/databases/0/endpoints/0", json!("pir.example"), "host:port"),
        ("/databases/0/endpoints/0", json!("pir.example:0"), "host:port"),
        ("/databases/0/endpoints/0", json!("pir.example:65536"), "host:port"),
        ("/databases/0/endpoints/0", json!("pir.example:+443"), "host:port"),
        ("/databases/0/endpoints/0", json!(":443"), "host:port"),
        ("/databases/0/endpoints/0", json!("2001:db8::1:443"), "host:port"),
        ("/databases/0/endpoints/0", json!("[a.example]:443"), "host:port"),
    ]
}

#[test]
fn entries_that_are_wrong_are_refused_with_their_place() {
    for (at, value, expected) in wrong_providers().into_iter().chain(wrong_issuers_and_databases())
    {
        let mut payload = json!(content());
        *payload.pointer_mut(at).unwrap() = value.clone();
        let error = refused(&signed_text(&payload.to_string()), &pins(), NOW).to_string();
        assert!(error.contains(expected), "{at} = {value}: {error}");
        assert!(draft::read(payload.to_string().as_bytes()).is_err(), "{at} = {value} in a draft");
    }
    let right = [
        ("/providers/0/keys_url", json!("https://a.example")),
        ("/providers/0/keys_url", json!("https://a.example:8443/x?y#z")),
        ("/issuers/0/remit/prefixes", json!([])),
        ("/issuers/0/remit/prefixes", json!(vec!["+123456789012345"; 512])),
        ("/issuers/0/remit/regions", json!([])),
        ("/databases/0/prefixes", json!([])),
        ("/databases/0/endpoints", json!([])),
        ("/databases/0/endpoints/0", json!("localhost:4433")),
    ];
    for (at, value) in right {
        let mut payload = json!(content());
        *payload.pointer_mut(at).unwrap() = value.clone();
        assert!(open(&signed_text(&payload.to_string())).is_ok(), "{at} = {value}");
    }
}

#[test]
fn weak_keys_and_second_writings_of_a_key_are_refused() {
    let is_key = |bytes: &[u8; 32]| Key::try_from(jws::base64url(bytes)).is_ok();
    assert!(is_key(key(1).as_bytes()));
    // The points of small order, by their y: 1, -1 and 0 (order 1, 2 and 4).
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let mut one = [0; 32];
    one[0] = 1;
    for weak in [one, minus_one, [0; 32]] {
        assert!(VerifyingKey::from_bytes(&weak).is_ok() && !is_key(&weak), "{weak:?}");
    }
    // y + p, for the y below 19 for which there is a point.
    let mut others = 0;
    for y in 0..19 {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (0xed + y, 0x7f);
        if let Ok(key) = VerifyingKey::from_bytes(&bytes) {
            others += usize::from(!key.is_weak());
            assert!(!is_key(&bytes), "{y}");
        }
    }
    assert!(others > 3);
}

#[test]
fn pins_that_would_trust_anybody_are_refused() {
    assert!(Pins::new(0, vec![key(1)]).is_err());
    assert!(Pins::new(2, vec![key(1)]).is_err());
    assert!(Pins::new(1, vec![]).is_err());
    assert!(Pins::new(2, vec![key(1), key(1)]).is_err());
    let digest = jws::base64url(&[1; 32]);
    let cases = [
        (json!({"version": 0, "threshold": 1, "roots": [key(1)]}), true),
        (json!({"version": 3, "digest": digest, "threshold": 1, "roots": [key(1)]}), true),
        (json!({"version": 3, "threshold": 1, "roots": [key(1)]}), false),
        (json!({"version": 0, "digest": digest, "threshold": 1, "roots": [key(1)]}), false),
        (json!({"version": 3, "digest": "AAAA", "threshold": 1, "roots": [key(1)]}), false),
        (json!({"version": 0, "threshold": 0, "roots": [key(1)]}), false),
        (json!({"version": 0, "threshold": 1, "roots": []}), false),
        (json!({"version": 0, "threshold": 1, "roots": [key(1)], "x": 1}), false),
        (json!({"threshold": 1, "roots": [key(1)]}), false),
    ];
    for (pins, is_right) in cases {
        assert_eq!(Pins::from_json(pins.to_string().as_bytes()).is_ok(), is_right, "{pins}");
    }
}

#[test]
fn a_proof_suffices_for_what_it_proves() {
    use Proof::{Call, Email, SelfDeclared, Sms};
    let (number, address) = (identifier("+4915112345678"), identifier("ada@a.example"));
    let all = [SelfDeclared, Email, Call, Sms];
    let enough = |found, identifier| -> Vec<bool> {
        all.iter().map(|&weakest| Proof::suffices(found, weakest, identifier)).collect()
    };
    // For each proof that was found: whether it is enough where self, email, call, sms are asked.
    assert_eq!(enough(SelfDeclared, &number), [true, false, false, false]);
    assert_eq!(enough(Email, &number), [false; 4]);
    assert_eq!(enough(Call, &number), [true, true, true, false]);
    assert_eq!(enough(Sms, &number), [true; 4]);
    assert_eq!(enough(SelfDeclared, &address), [true, false, false, false]);
    assert_eq!(enough(Email, &address), [true; 4]);
    assert_eq!(enough(Call, &address), [false; 4]);
    assert_eq!(enough(Sms, &address), [false; 4]);
    for (proof, text) in all.iter().zip(["self", "email", "call", "sms"]) {
        assert_eq!((json!(proof), proof.to_string()), (json!(text), text.to_owned()));
    }
}

#[test]
fn a_remit_covers_its_prefixes_and_an_authority_no_addresses() {
    let content = content();
    let [issuer, authority] = &content.issuers[..] else { panic!() };
    let everywhere = Remit { prefixes: vec![], ..issuer.remit.clone() };
    for (text, is_covered) in
        [("+4915112345678", true), ("+431112345678", true), ("+432212345678", false)]
    {
        let number = identifier(text);
        assert_eq!(issuer.remit.covers(&number), is_covered, "{text}");
        assert_eq!(authority.is_authority_over(&number), is_covered, "{text}");
        assert!(!issuer.is_authority_over(&number), "{text}");
        assert!(everywhere.covers(&number), "{text}");
    }
    let address = identifier("ada@a.example");
    assert!(issuer.remit.covers(&address) && content.databases[0].covers(&address));
    assert!(everywhere.covers(&address));
    let numbers = Remit { prefixes: texts(["+49"]), ..issuer.remit.clone() };
    assert!(!numbers.covers(&address), "who may vouch for numbers may not for addresses");
    assert!(!authority.is_authority_over(&address));
    assert!(!content.databases[0].covers(&identifier("+431112345678")));
}

#[test]
fn keys_are_those_of_their_time() {
    let content = content();
    let issuer = &content.issuers[0];
    let (old, new) = (key(11).id(), key(12).id());
    assert!(issuer.key(&old, NOW - 1).is_some() && issuer.key(&new, NOW - 1).is_none());
    assert_eq!(issuer.key(&new, NOW).unwrap().key, key(12));
    assert!(issuer.key(&old, NOW - 100 * DAY).is_some());
    assert!(issuer.key(&old, NOW - 100 * DAY - 1).is_none());
    assert!(issuer.key(&old, NOW + 100 * DAY - 1).is_some());
    assert!(issuer.key(&old, NOW + 100 * DAY).is_none());
    assert!(issuer.key(&key(13).id(), NOW).is_none() && issuer.key("", NOW).is_none());
}

#[test]
fn a_draft_becomes_a_directory() {
    let mut draft = draft::new(2, vec![key(1), key(2), key(3)]).unwrap();
    assert!(draft::new(4, vec![key(1)]).is_err());
    let Content { providers, issuers, databases, .. } = content();
    for (number, provider) in (1..).zip(providers) {
        assert_eq!(draft::add_provider(&mut draft, Provider { index: 0, ..provider }), Ok(number));
    }
    for (number, issuer) in (1..).zip(issuers) {
        assert_eq!(draft::add_issuer(&mut draft, Issuer { index: 0, ..issuer }), Ok(number));
    }
    for mut database in databases {
        database.record_keys[0].index = 0;
        database.record_keys.push(RecordKey {
            key: key(40 + database.id.len() as u8 + database.id.as_bytes()[2]),
            ..database.record_keys[0].clone()
        });
        draft::add_database(&mut draft, database).unwrap();
    }
    let of = |draft: &Content| -> Vec<u32> {
        let databases = draft.databases.iter();
        databases.flat_map(|entry| entry.record_keys.iter().map(|key| key.index)).collect()
    };
    assert_eq!(of(&draft), [1, 2, 3, 4]);
    // What is refused leaves no trace.
    let before = draft.clone();
    let twice = draft.providers[0].clone();
    assert!(draft::add_provider(&mut draft, Provider { index: 0, ..twice }).is_err());
    assert_eq!(draft, before);
    // Through a file that a person could edit.
    let text = draft::to_json(&draft);
    assert!(text.starts_with("{\n  \"version\": 0,\n"), "{text}");
    assert_eq!(draft::read(text.as_bytes()).unwrap(), draft);
    let first = draft::next(draft.clone(), None, NOW + DAY).unwrap();
    assert_eq!((first.version, first.expires), (1, NOW + DAY));
    // Signed by one person after the other.
    let file = draft::sign(&first, &keys([2])).unwrap();
    assert!(open(&file).is_err() && draft::open_unpinned(file.as_bytes()).is_err());
    let file = draft::add_signatures(file.as_bytes(), &keys([2, 3])).unwrap();
    assert_eq!(open(&file).unwrap().content(), &first);
    assert_eq!(file.matches("protected").count(), 2);
    assert!(draft::is_signed(file.as_bytes()) && !draft::is_signed(text.as_bytes()));
    let previous = draft::open_unpinned(file.as_bytes()).unwrap();
    let second = draft::next(draft, Some(previous.content()), NOW + 2 * DAY).unwrap();
    assert_eq!((second.version, second.last_index), (2, first.last_index));
    // For people: each entry is named.
    let described = Described(&first).to_string();
    for part in ["version 1", "a.example (A)", "number authority", "+49 +4311", "eu2 in EU"] {
        assert!(described.contains(part), "{part}: {described}");
    }
}

type Change = fn(&mut Content);

#[test]
fn an_index_is_never_used_again() {
    let previous = content();
    let successor = |change: Change| {
        let mut next = content();
        next.last_index = LastIndex::default();
        change(&mut next);
        draft::next(next, Some(&previous), NOW).map_err(|error| error.to_string())
    };
    let right: [Change; 6] = [
        |_| {},
        |next| next.providers[0].name = "A (renamed)".to_owned(),
        |next| next.providers[1].index = 7,
        |next| next.databases.truncate(1),
        |next| next.issuers.truncate(1),
        |next| next.databases[1].record_keys[0].index = 6,
    ];
    for (number, change) in right.into_iter().enumerate() {
        let next = successor(change).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(next.version, 8);
        // What was given away is kept in mind where it is gone.
        assert!(next.last_index.provider >= 6 && next.last_index.record_key >= 5, "{number}");
        assert_eq!(next.last_index.issuer, 2, "{number}");
    }
    let rename = |next: &mut Content| {
        next.providers[0].domain = "z.example".to_owned();
        next.issuers.iter_mut().for_each(|issuer| issuer.remit.providers.truncate(0));
        next.issuers[0].remit.providers.push("z.example".to_owned());
    };
    assert!(successor(rename).unwrap_err().contains("provider 1"));
    let wrong: [(Change, &str); 7] = [
        // Swapped.
        (|next| (next.providers[0].index, next.providers[1].index) = (4, 1), "provider"),
        // 2, 3, 5 and 6 belonged to providers that are gone.
        (|next| next.providers[1].index = 2, "provider 2"),
        (|next| next.providers[1].index = 6, "provider 6"),
        (|next| next.issuers[0].domain = "z.example".to_owned(), "issuer 1"),
        (|next| next.databases[0].record_keys[0].key = key(50), "record key 1"),
        (|next| next.databases[0].id = "eu3".to_owned(), "record key 1"),
        (|next| next.databases[1].record_keys[0].index = 3, "record key 3"),
    ];
    for (number, (change, expected)) in wrong.into_iter().enumerate() {
        let error = successor(change).unwrap_err();
        assert!(error.contains(expected), "{number}: {error}");
        assert!(error.contains("never used again"), "{number}: {error}");
    }
    let last = Content { version: u64::MAX, ..content() };
    assert!(draft::next(content(), Some(&last), NOW).is_err());
    let mut full = content();
    full.last_index.provider = u32::MAX;
    let more = Provider { index: 0, domain: "z.example".to_owned(), ..full.providers[0].clone() };
    assert!(draft::add_provider(&mut full, more).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_panics(bytes: Vec<u8>, text: String, at: usize, other: u8) {
        let _ = (Directory::open(&bytes, &pins(), NOW), draft::open_unpinned(&bytes));
        let _ = (open(&signed_text(&text)), draft::read(&bytes), Pins::from_json(&bytes));
        // A payload that is nearly right, rightly signed: whatever opens is printed and looked up.
        let mut payload = serde_json::to_vec(&content()).unwrap();
        let at = at % payload.len();
        payload[at] = other;
        let file = signed::sign(&payload, &keys([1, 2]));
        if let Ok(directory) = Directory::open(file.as_bytes(), &pins(), NOW) {
            let _ = (Described(directory.content()).to_string(), directory.pins());
        }
        let _ = draft::read(&payload);
    }
}
