//! Opening records: what is accepted, and that nothing else is.

use std::sync::LazyLock;

use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use serde_json::json;

use super::super::blind::BlindKey;
use super::super::directory::{DIRECTORY_TYP, Key, Pins};
use super::super::jws;
use super::super::record::{fit, key_hash, minute_of, record_len, sign, time_of};
use super::*;

/// A whole minute: 2027-01-15.
const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn eu_key() -> SigningKey {
    key(1)
}

fn alice() -> Identifier {
    Identifier::parse("+4930901820", None).unwrap()
}

fn bob() -> Identifier {
    Identifier::parse("+4930901821", None).unwrap()
}

/// Databases eu1 (record keys 1, and 2 until 50 days ago) and us1 (record key 3).
fn made_directory() -> Directory {
    let public = |seed| Key::from(key(seed).verifying_key());
    let provider = |index: u32, name: &str| {
        json!({"index": index, "domain": format!("{name}.example"), "name": name.to_uppercase(),
            "keys_url": format!("https://keys.{name}.example/")})
    };
    let record_key = |index: u8, from: u64, until: u64| {
        let key = public(index);
        json!({"index": index, "key": key, "from": from, "until": until})
    };
    let database = |id: &str, seed: u8, prefix: &str, keys: Vec<serde_json::Value>| {
        json!({"id": id, "operator_key": public(seed), "record_keys": keys,
            "prefixes": [prefix], "region": id[..2].to_uppercase(),
            "endpoints": [format!("{id}.example:4433")]})
    };
    let eu = vec![
        record_key(1, NOW - 50 * DAY, NOW + 100 * DAY),
        record_key(2, NOW - 400 * DAY, NOW - 50 * DAY),
    ];
    let us = vec![record_key(3, NOW - 50 * DAY, NOW + 100 * DAY)];
    let root = key(100);
    let payload = json!({
        "version": 1, "expires": NOW + 30 * DAY, "threshold": 1,
        "roots": [Key::from(root.verifying_key())],
        "providers": [provider(1, "a"), provider(2, "b"), provider(300, "c")],
        "issuers": [],
        "databases": [database("eu1", 101, "+49", eu), database("us1", 102, "+1", us)],
    });
    let signed = jws::sign(DIRECTORY_TYP, payload.to_string().as_bytes(), &root);
    let parts: Vec<&str> = signed.split('.').collect();
    let file = json!({"payload": parts[1],
        "signatures": [{"protected": parts[0], "signature": parts[2]}]});
    let pins = Pins::new(1, vec![Key::from(root.verifying_key())]).unwrap();
    Directory::open(file.to_string().as_bytes(), &pins, NOW).unwrap()
}

static DIRECTORY: LazyLock<Directory> = LazyLock::new(made_directory);

fn service(provider: u32, handle: &str, user_key: &SigningKey) -> Service {
    let key_hash = key_hash(&user_key.verifying_key().to_bytes()).to_vec();
    Service { provider, handle: Some(handle.into()), tags: vec!["work".into()], key_hash }
}

fn preference(sii: &Identifier, ssi: &str, time: u32, user_key: &SigningKey) -> Preference {
    let text = format!("sotto preference 1\0{}\0{ssi}\0{time}", sii.as_str());
    Preference {
        key: user_key.verifying_key().to_bytes().to_vec(),
        signature: user_key.sign(text.as_bytes()).to_vec(),
        time,
    }
}

const SSI: &str = "mimi://b.example/u/alice.b";
const TIME: u32 = 1_790_000_000;

/// Alice is at b, which she prefers, and at a. Her keys there are 11 and 12.
fn whole() -> Body {
    Body {
        signer: 1,
        issued: minute_of(NOW - DAY).unwrap(),
        lifetime_days: None,
        services: vec![service(2, "alice.b", &key(11)), service(1, "alice.a", &key(12))],
        preference: Some(preference(&alice(), SSI, TIME, &key(11))),
    }
}

fn open_body(body: &Body) -> Result<Contact, OpenError> {
    open(&alice(), &sign(body, &alice(), &eu_key()), &DIRECTORY, NOW)
}

#[test]
fn a_record_opens_to_what_was_signed() {
    let blind = BlindKey::generate().unwrap();
    let derived = blind.derive(&alice());
    let (body, value) = (whole(), sign(&whole(), &alice(), &eu_key()));
    let sealed = derived.seal(body.issued, &value);
    let contact = open_sealed(&alice(), &derived, &sealed, &DIRECTORY, NOW).unwrap();
    assert_eq!(contact, open(&alice(), &value, &DIRECTORY, NOW).unwrap());
    assert_eq!(contact.preferred, Preferred::Verified { time: u64::from(TIME) });
    assert_eq!((contact.issued, contact.expires), (NOW - DAY, NOW + 29 * DAY));
    assert_eq!((&*contact.database, contact.unknown_providers), ("eu1", 0));
    let expected = [("b", "B", "alice.b", 11), ("a", "A", "alice.a", 12)];
    assert_eq!(contact.services.len(), expected.len());
    for (service, (domain, name, handle, seed)) in contact.services.iter().zip(expected) {
        assert_eq!(service.provider, format!("{domain}.example"));
        assert_eq!(service.name, name);
        assert_eq!(service.keys_url, format!("https://keys.{domain}.example/"));
        let ssi = format!("mimi://{domain}.example/u/{handle}");
        assert_eq!(service.ssi.as_ref().unwrap().as_str(), ssi);
        assert_eq!(service.tags, ["work"]);
        let hash = key_hash(&key(seed).verifying_key().to_bytes());
        assert_eq!(service.key_hash, Some(hash));
    }
    assert_eq!(contact.record.encode_to_vec(), value);
}

#[test]
fn a_record_may_say_little() {
    let bare = Service { provider: 300, ..Service::default() };
    let contact = open_body(&Body { services: vec![bare], preference: None, ..whole() }).unwrap();
    assert_eq!(contact.preferred, Preferred::None);
    let [service] = &contact.services[..] else { panic!("one service") };
    assert_eq!((&*service.provider, service.tags.len()), ("c.example", 0));
    assert_eq!((service.ssi.is_none(), service.key_hash), (true, None));
}

/// What a server that knows everything but the record key can make of an answer, byte by byte.
#[test]
fn no_byte_of_a_sealed_value_can_be_shifted() {
    let mut body = whole();
    body.services.truncate(1);
    let derived = BlindKey::generate().unwrap().derive(&alice());
    let sealed = derived.seal(body.issued, &sign(&body, &alice(), &eu_key()));
    let original = open_sealed(&alice(), &derived, &sealed, &DIRECTORY, NOW).unwrap();
    let mut refused = 0;
    for byte in 0..sealed.len() {
        for flip in 1..=255 {
            let mut shifted = sealed.clone();
            shifted[byte] ^= flip;
            match open_sealed(&alice(), &derived, &shifted, &DIRECTORY, NOW) {
                Ok(contact) => assert_eq!(contact, original, "byte {byte}, flip {flip}"),
                Err(_) => refused += 1,
            }
        }
    }
    assert_eq!(refused, sealed.len() * 255, "a signed record has no byte that means nothing");
    for length in 0..sealed.len() {
        let cut = &sealed[..length];
        assert!(open_sealed(&alice(), &derived, cut, &DIRECTORY, NOW).is_err(), "{length}");
    }
}

proptest! {
    /// Pieces of two true records, one of another minute and one of another identifier, and any
    /// bytes between them: refused, or one of Alice's two contacts.
    #[test]
    fn pieces_of_true_records_make_no_other(
        pieces in prop::collection::vec(
            (0_usize..3, 0_usize..300, 0_usize..300, prop::collection::vec(any::<u8>(), 0..4)),
            1..5,
        ),
    ) {
        let later = Body { issued: whole().issued + 1, ..whole() };
        let values = [
            sign(&whole(), &alice(), &eu_key()),
            sign(&later, &alice(), &eu_key()),
            sign(&whole(), &bob(), &eu_key()),
        ];
        let mut made = Vec::new();
        for (which, from, until, noise) in pieces {
            let value = &values[which];
            let (from, until) = (from.min(value.len()), until.min(value.len()));
            made.extend_from_slice(&value[from.min(until)..until.max(from)]);
            made.extend(noise);
        }
        if let Ok(contact) = open(&alice(), &made, &DIRECTORY, NOW) {
            let true_ones =
                [0, 1].map(|which| open(&alice(), &values[which], &DIRECTORY, NOW).unwrap());
            prop_assert!(true_ones.contains(&contact));
        }
    }

    #[test]
    fn no_bytes_make_opening_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(open(&alice(), &bytes, &DIRECTORY, NOW).is_err());
        let derived = Derived::from_bytes([5; 64]);
        prop_assert!(open_sealed(&alice(), &derived, &bytes, &DIRECTORY, NOW).is_err());
    }

    /// The same of bodies that the right key signed.
    #[test]
    fn no_signed_bytes_make_opening_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        at in 0_usize..300,
    ) {
        let mut body = whole().encode_to_vec();
        body.splice(at.min(body.len())..at.min(body.len()), bytes);
        let _ = open(&alice(), &signed(body), &DIRECTORY, NOW);
    }
}

/// A value with a body of these bytes, signed by the right key for Alice.
fn signed(body: Vec<u8>) -> Vec<u8> {
    let text = [b"sotto record 1\0", alice().as_str().as_bytes(), b"\0", &body].concat();
    let signature = eu_key().sign(&text).to_vec();
    Record { body, signature, version: None }.encode_to_vec()
}

#[test]
fn every_forged_field_is_refused() {
    let original = Record::decode(&*sign(&whole(), &alice(), &eu_key())).unwrap();
    type Change = fn(&mut Body);
    let changes: [Change; 16] = [
        |body| body.issued += 1,
        |body| body.lifetime_days = Some(31),
        |body| body.lifetime_days = Some(30),
        |body| body.services[0].provider = 1,
        |body| body.services[1].provider = 300,
        |body| body.services[0].handle = Some("mallory".into()),
        |body| body.services[1].handle = None,
        |body| body.services[0].tags.clear(),
        |body| body.services[0].tags.push("home".into()),
        |body| body.services[1].key_hash[15] ^= 1,
        |body| body.services[1].key_hash.clear(),
        |body| body.services.swap(0, 1),
        |body| drop(body.services.pop()),
        |body| body.services.push(Service { provider: 300, ..Service::default() }),
        |body| body.preference = None,
        |body| body.preference.as_mut().unwrap().time += 1,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut body = whole();
        change(&mut body);
        let forged = Record { body: body.encode_to_vec(), ..original.clone() }.encode_to_vec();
        let refused = open(&alice(), &forged, &DIRECTORY, NOW);
        assert_eq!(refused, Err(OpenError::Signature(1)), "change {at}");
    }
    for byte in 0..64 {
        let mut forged = original.clone();
        forged.signature[byte] ^= 0x80;
        let refused = open(&alice(), &forged.encode_to_vec(), &DIRECTORY, NOW);
        assert_eq!(refused, Err(OpenError::Signature(1)), "byte {byte} of the signature");
    }
}

#[test]
fn a_record_is_of_one_identifier_one_key_and_one_time() {
    let value = sign(&whole(), &alice(), &eu_key());
    let with = |change: fn(&mut Body), key: SigningKey| {
        let mut body = whole();
        change(&mut body);
        open(&alice(), &sign(&body, &alice(), &key), &DIRECTORY, NOW)
    };
    assert_eq!(open(&bob(), &value, &DIRECTORY, NOW), Err(OpenError::Signature(1)));
    // Another key of the directory, and one that claims to be another.
    assert_eq!(with(|_| (), key(3)), Err(OpenError::Signature(1)));
    assert_eq!(with(|body| body.signer = 3, key(1)), Err(OpenError::Signature(3)));
    assert_eq!(with(|body| body.signer = 0, key(1)), Err(OpenError::UnknownSigner(0)));
    assert_eq!(with(|body| body.signer = 4, key(4)), Err(OpenError::UnknownSigner(4)));
    // The right key of another database, for a number that is not there.
    let elsewhere = with(|body| body.signer = 3, key(3));
    assert_eq!(elsewhere, Err(OpenError::NotCovered("us1".into())));
    let mail = Identifier::parse("alice@example.com", None).unwrap();
    let mut body = Body { signer: 3, preference: None, ..whole() };
    let value = sign(&body, &mail, &key(3));
    assert_eq!(open(&mail, &value, &DIRECTORY, NOW).unwrap().database, "us1");
    // Keys hold from a time on and until another.
    body.signer = 2;
    let issued = |issued: u64, signer: u32, key_seed: u8| {
        let issued = minute_of(issued).unwrap();
        let body = Body { issued, signer, lifetime_days: Some(366), ..whole() };
        open(&alice(), &sign(&body, &alice(), &key(key_seed)), &DIRECTORY, NOW)
    };
    let until = NOW - 50 * DAY;
    assert!(issued(until - 60, 2, 2).is_ok());
    let refused = Err(OpenError::SignerNotInForce { signer: 2, issued: until });
    assert_eq!(issued(until, 2, 2), refused);
    assert!(issued(until, 1, 1).is_ok());
    let refused = Err(OpenError::SignerNotInForce { signer: 1, issued: until - 60 });
    assert_eq!(issued(until - 60, 1, 1), refused);
}

#[test]
fn a_record_holds_for_its_time() {
    let issued = NOW - DAY;
    let at = |days: Option<u32>, now: u64| {
        let body = Body { lifetime_days: days, ..whole() };
        open(&alice(), &sign(&body, &alice(), &eu_key()), &DIRECTORY, now).map(|_| ())
    };
    let expired = |days: u64, now| Err(OpenError::Expired { expires: issued + days * DAY, now });
    let no_directory = |now| Err(OpenError::DirectoryExpired { expires: NOW + 30 * DAY, now });
    let cases = [
        (None, issued + 30 * DAY - 1, Ok(())),
        (None, issued + 30 * DAY, expired(30, issued + 30 * DAY)),
        (Some(1), issued + DAY - 1, Ok(())),
        (Some(1), issued + DAY, expired(1, issued + DAY)),
        (Some(366), NOW + 30 * DAY - 1, Ok(())),
        (Some(366), NOW + 30 * DAY, no_directory(NOW + 30 * DAY)),
        (Some(366), issued + 366 * DAY - 1, no_directory(issued + 366 * DAY - 1)),
        (Some(367), NOW, Err(OpenError::Lifetime(367))),
        (Some(u32::MAX), NOW, Err(OpenError::Lifetime(u32::MAX))),
        (Some(0), NOW, Err(OpenError::Lifetime(0))),
        (None, issued, Ok(())),
        (None, issued - 300, Ok(())),
        (None, issued - 301, Err(OpenError::Future { issued, now: issued - 301 })),
        (None, 0, Err(OpenError::Future { issued, now: 0 })),
        (None, u64::MAX, expired(30, u64::MAX)),
    ];
    for (days, now, expected) in cases {
        assert_eq!(at(days, now), expected, "{days:?} at {now}");
    }
}

#[test]
fn versions_and_unknown_fields() {
    let value = sign(&whole(), &alice(), &eu_key());
    let contact = open(&alice(), &value, &DIRECTORY, NOW).unwrap();
    let record = Record::decode(&*value).unwrap();
    for version in [0, 1, 2, u32::MAX] {
        let value = Record { version: Some(version), ..record.clone() }.encode_to_vec();
        let expected = match version {
            1 => Ok(contact.clone()),
            _ => Err(OpenError::Version(version)),
        };
        assert_eq!(open(&alice(), &value, &DIRECTORY, NOW), expected, "version {version}");
    }
    // Fields of the body that are not known here were signed, and are kept.
    let body = [&record.body[..], &[0x7a, 3, 1, 2, 3], &[0x80, 0x01, 5]].concat();
    let later = open(&alice(), &signed(body.clone()), &DIRECTORY, NOW).unwrap();
    assert_eq!((&later.services, later.preferred), (&contact.services, contact.preferred));
    assert_eq!(later.record.body, body);
    // Those beside it were not, and change nothing.
    let more = [&value[..], &[0x7a, 3, 1, 2, 3]].concat();
    assert_eq!(open(&alice(), &more, &DIRECTORY, NOW), Ok(contact));
}

#[test]
fn what_is_out_of_form_is_refused() {
    let with = |change: fn(&mut Body)| {
        let mut body = whole();
        change(&mut body);
        open_body(&body).err()
    };
    let service = |number, what| Some(OpenError::Service { number, what });
    type Change = fn(&mut Body);
    let cases: [(Change, Option<OpenError>); 17] = [
        (|_| (), None),
        (|b| b.services.clear(), Some(OpenError::Services(0))),
        (|b| b.services = vec![b.services[1].clone(); 15], None),
        (|b| b.services[0].handle = Some(String::new()), service(1, "handle")),
        (|b| b.services[1].handle = Some("a/b".into()), service(2, "handle")),
        (|b| b.services[1].handle = Some("a\u{202e}b".into()), service(2, "handle")),
        (|b| b.services[1].handle = Some("h".repeat(129)), service(2, "handle")),
        (|b| b.services[0].tags.push("a\u{202e}b".into()), service(1, "tag")),
        (|b| b.services[0].tags = vec!["t".into(); 9], service(1, "tag")),
        (|b| b.services[0].key_hash.truncate(15), service(1, "key_hash")),
        (|b| b.services[1].key_hash.push(0), service(2, "key_hash")),
        (|b| b.preference.as_mut().unwrap().key.truncate(31), Some(OpenError::Preference)),
        (|b| b.preference.as_mut().unwrap().key.push(0), Some(OpenError::Preference)),
        (|b| b.preference.as_mut().unwrap().key.clear(), Some(OpenError::Preference)),
        (|b| b.preference.as_mut().unwrap().signature.push(0), Some(OpenError::Preference)),
        (|b| b.preference.as_mut().unwrap().signature.clear(), Some(OpenError::Preference)),
        (|b| b.preference = Some(Preference::default()), Some(OpenError::Preference)),
    ];
    for (at, (change, expected)) in cases.into_iter().enumerate() {
        let found = with(change);
        // A list of one provider's services has no preferred one, or the preference is forged.
        if at == 2 {
            assert_eq!(found, Some(OpenError::PreferenceForged));
            continue;
        }
        assert_eq!(found, expected, "case {at}");
    }
    let sixteen = vec![Service { provider: 1, ..Service::default() }; 16];
    let body = Body { services: sixteen.clone(), preference: None, ..whole() };
    assert!(open_body(&body).is_ok());
    let services = [sixteen, vec![Service { provider: 1, ..Service::default() }]].concat();
    let body = Body { services, preference: None, ..whole() };
    assert_eq!(open_body(&body), Err(OpenError::Services(17)));

    let refused = |value: &[u8]| open(&alice(), value, &DIRECTORY, NOW).unwrap_err();
    assert_eq!(refused(&[0; 1_025]), OpenError::Long(1_025));
    assert_eq!(refused(&[0; 1_024]), OpenError::Unreadable("record"));
    assert_eq!(refused(&[]), OpenError::UnknownSigner(0));
    assert_eq!(refused(&signed(vec![0x08])), OpenError::Unreadable("body"));
    let body = Body { signer: 1, ..Body::default() }.encode_to_vec();
    let issued = time_of(0);
    assert_eq!(refused(&signed(body)), OpenError::SignerNotInForce { signer: 1, issued });
}

#[test]
fn the_longest_record_that_fits_is_opened() {
    let long: Vec<Service> =
        (0..16).map(|n| service(1 + n % 2, &"h".repeat(100), &key(n as u8))).collect();
    let mut body = Body { services: long, preference: None, ..whole() };
    assert!(record_len(&body) > RECORD_BYTES_MAX);
    let dropped = fit(&mut body, RECORD_BYTES_MAX);
    assert!(dropped.handles > 0 && dropped.services == 0);
    assert_eq!(open_body(&body).unwrap().services.len(), 16);
}

#[test]
fn providers_that_are_not_known_are_left_out_and_counted() {
    let mut body = whole();
    body.services.push(Service { provider: 77, ..Service::default() });
    let contact = open_body(&body).unwrap();
    assert_eq!((contact.services.len(), contact.unknown_providers), (2, 1));
    assert_eq!(contact.preferred, Preferred::Verified { time: u64::from(TIME) });
    // The first that is known is not the preferred one.
    body.services.rotate_right(1);
    let contact = open_body(&body).unwrap();
    assert_eq!((contact.services.len(), contact.unknown_providers), (2, 1));
    let unknown = Preferred::NotVerifiable(NotVerifiable::UnknownProvider);
    assert_eq!(contact.preferred, unknown);
    for service in &mut body.services {
        service.provider = 77;
    }
    let contact = open_body(&body).unwrap();
    assert_eq!((contact.services.len(), contact.unknown_providers), (0, 3));
    assert_eq!(contact.preferred, unknown);
}

#[test]
fn a_preference_is_of_its_person_key_and_service() {
    let with = |change: &dyn Fn(&mut Body)| {
        let mut body = whole();
        change(&mut body);
        open_body(&body).map(|contact| contact.preferred)
    };
    let set = |made: Preference| move |body: &mut Body| body.preference = Some(made.clone());
    let verified = Ok(Preferred::Verified { time: u64::from(TIME) });
    let not = |why| Ok(Preferred::NotVerifiable(why));
    assert_eq!(with(&|_| ()), verified);
    // By the key of her other service: she has both.
    assert_eq!(with(&set(preference(&alice(), SSI, TIME, &key(12)))), verified);
    // By a key that is nobody's.
    let by_nobody = with(&set(preference(&alice(), SSI, TIME, &key(13))));
    assert_eq!(by_nobody, not(NotVerifiable::KeyOfNoService));
    // Stolen from somebody else, for another service, at another time, or changed.
    let other = "mimi://a.example/u/alice.a";
    let mut forged = vec![
        preference(&bob(), SSI, TIME, &key(11)),
        preference(&alice(), other, TIME, &key(11)),
        preference(&alice(), "", TIME, &key(11)),
        Preference { time: TIME + 1, ..preference(&alice(), SSI, TIME, &key(11)) },
        Preference {
            key: key(12).verifying_key().to_bytes().to_vec(),
            ..preference(&alice(), SSI, TIME, &key(11))
        },
        // A weak key, under which a signature of zeros may hold for any text.
        Preference { key: [&[1][..], &[0; 31]].concat(), signature: vec![0; 64], time: TIME },
        Preference {
            key: [&[1][..], &[0; 31]].concat(),
            signature: [&[1][..], &[0; 63]].concat(),
            time: TIME,
        },
        Preference { key: vec![255; 32], signature: vec![0; 64], time: TIME },
    ];
    for byte in 0..64 {
        let mut made = preference(&alice(), SSI, TIME, &key(11));
        made.signature[byte] ^= 1;
        forged.push(made);
    }
    for (at, made) in forged.into_iter().enumerate() {
        assert_eq!(with(&set(made)), Err(OpenError::PreferenceForged), "case {at}");
    }
    assert_eq!(with(&|body| body.services.swap(0, 1)), Err(OpenError::PreferenceForged));
    // What was left out of the record.
    let no_handle = with(&|body| body.services[0].handle = None);
    assert_eq!(no_handle, not(NotVerifiable::HandleLeftOut));
    let no_hashes = with(&|body| body.services.iter_mut().for_each(|s| s.key_hash.clear()));
    assert_eq!(no_hashes, not(NotVerifiable::KeyOfNoService));
    assert_eq!(with(&|body| body.services[1].key_hash.clear()), verified);
}

#[test]
fn a_seal_and_its_record_name_the_same_minute() {
    let derived = BlindKey::generate().unwrap().derive(&alice());
    let value = sign(&whole(), &alice(), &eu_key());
    let record = whole().issued;
    let seal = record + 1;
    let refused = open_sealed(&alice(), &derived, &derived.seal(seal, &value), &DIRECTORY, NOW);
    assert_eq!(refused, Err(OpenError::Sealed { seal, record }));
    let short = open_sealed(&alice(), &derived, &[0; 3], &DIRECTORY, NOW);
    assert_eq!(short, Err(OpenError::Short(3)));
    // Sealed for somebody else, whose key this is not.
    let other = BlindKey::generate().unwrap().derive(&alice());
    let sealed = derived.seal(record, &value);
    assert!(open_sealed(&alice(), &other, &sealed, &DIRECTORY, NOW).is_err());
}

#[test]
fn nothing_of_a_contact_is_printed() {
    let contact = open_body(&whole()).unwrap();
    let printed = format!("{contact:?} {:?}", contact.services);
    assert!(!printed.contains("alice"), "{printed}");
    for number in [1_usize, 7] {
        let error = OpenError::Service { number, what: "handle" };
        assert!(error.to_string().contains(&number.to_string()));
    }
}
