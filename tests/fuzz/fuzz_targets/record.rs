//! A value from a server, and a body with a signature that is right, so that what lies behind it is
//! reached: a contact that is within its bounds, or refused.
#![no_main]

use std::sync::LazyLock;

use ed25519_dalek::{Signer as _, SigningKey};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use sotto::discovery::blind::{DERIVED_BYTES, Derived};
use sotto::discovery::directory::{Directory, Pins, draft};
use sotto::discovery::identifier::Identifier;
use sotto::discovery::open::{open, open_sealed};
use sotto::discovery::record::Record;
use sotto::limits::{RECORD_BYTES_MAX, RECORD_SERVICES_MAX};

const NOW: u64 = 1_796_000_000;
const DRAFT: &str = r#"{"version":0,"expires":0,"threshold":1,"roots":["ROOT"],
    "providers":[{"index":1,"domain":"a.example","name":"A","keys_url":"https://keys.a.example/"},
        {"index":300,"domain":"b.example","name":"B","keys_url":"https://b.example/keys"}],
    "issuers":[],
    "databases":[{"id":"eu1","operator_key":"OPERATOR",
        "record_keys":[{"index":1,"key":"RECORD","from":1577836800,"until":4000000000}],
        "prefixes":["+49"],"region":"EU","endpoints":[]}]}"#;

static RECORD_KEY: LazyLock<SigningKey> = LazyLock::new(|| key(1));
static SII: LazyLock<Identifier> =
    LazyLock::new(|| Identifier::parse("+4930901820", None).expect("a number"));
static DIRECTORY: LazyLock<Directory> = LazyLock::new(|| {
    let public = |seed| sotto::discovery::jws::base64url(key(seed).verifying_key().as_bytes());
    let text = DRAFT
        .replace("ROOT", &public(7))
        .replace("OPERATOR", &public(8))
        .replace("RECORD", &public(1));
    let draft = draft::read(text.as_bytes()).expect("the draft above");
    let content = draft::next(draft, None, NOW + 86_400).expect("a first version");
    let file = draft::sign(&content, &[key(7)]).expect("a small directory");
    let pins = Pins::new(1, vec![key(7).verifying_key().into()]).expect("one root");
    Directory::open(file.as_bytes(), &pins, NOW).expect("a directory")
});

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fuzz_target!(|data: &[u8]| {
    let _ = open(&SII, data, &DIRECTORY, NOW);
    let derived = Derived::from_bytes([3; DERIVED_BYTES]);
    let _ = open_sealed(&SII, &derived, data, &DIRECTORY, NOW);
    if let Ok((issued, record)) = derived.unseal(data) {
        assert_eq!(derived.seal(issued, &record), data);
    }

    let text = [b"sotto record 1".as_slice(), SII.as_str().as_bytes(), data].join(&0);
    let signature = RECORD_KEY.sign(&text).to_bytes().to_vec();
    let value = Record { body: data.to_vec(), signature, version: None }.encode_to_vec();
    let Ok(contact) = open(&SII, &value, &DIRECTORY, NOW) else { return };
    assert!(value.len() <= RECORD_BYTES_MAX);
    assert_eq!(contact.record.body, data, "the signed bytes are kept as they came");
    assert!(contact.services.len() + contact.unknown_providers <= RECORD_SERVICES_MAX);
    assert!(contact.issued < contact.expires && NOW < contact.expires);
    for service in &contact.services {
        let provider = service.ssi.as_ref().map(|ssi| ssi.domain());
        assert!(provider.is_none_or(|domain| domain == service.provider));
    }
    let again = open(&SII, &contact.record.encode_to_vec(), &DIRECTORY, NOW);
    assert_eq!(again.as_ref(), Ok(&contact), "what was kept opens again");
    let other = Identifier::parse("+4930901821", None).expect("a number");
    assert!(open(&other, &value, &DIRECTORY, NOW).is_err(), "it is of one identifier");
});
