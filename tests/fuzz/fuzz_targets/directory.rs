//! The file of a directory as it comes, and a payload with a signature that is right, so that what
//! lies behind it is reached: a directory that reads again, or refused.
#![no_main]

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use libfuzzer_sys::fuzz_target;
use sotto::discovery::directory::{DIRECTORY_TYP, Directory, Pins, draft};
use sotto::discovery::jws;

const NOW: u64 = 1_796_000_000;
static ROOT: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));
static PINS: LazyLock<Pins> = LazyLock::new(|| {
    Pins::new(1, vec![ROOT.verifying_key().into()]).expect("one root that signs alone")
});

fuzz_target!(|data: &[u8]| {
    let _ = Directory::open(data, &PINS, NOW);
    let _ = draft::open_unpinned(data);
    if let Ok(pins) = Pins::from_json(data) {
        assert_eq!(Pins::from_json(pins.to_json().as_bytes()), Ok(pins));
    }
    if let Ok(content) = draft::read(data) {
        let again = draft::read(draft::to_json(&content).as_bytes());
        assert_eq!(again, Ok(content), "a draft that is written reads again");
    }
    if let Ok(directory) = Directory::open(&signed(data), &PINS, NOW) {
        check(&directory);
    }
});

/// The file of this payload, signed by the root.
fn signed(payload: &[u8]) -> Vec<u8> {
    let token = jws::sign(DIRECTORY_TYP, payload, &ROOT);
    let [protected, payload, signature] =
        token.split('.').collect::<Vec<_>>().try_into().expect("a token");
    format!(
        "{{\"payload\":\"{payload}\",\"signatures\":[{{\"protected\":\"{protected}\",\
         \"signature\":\"{signature}\"}}]}}"
    )
    .into_bytes()
}

fn check(directory: &Directory) {
    let content = directory.content();
    for provider in &content.providers {
        assert_eq!(directory.provider(provider.index), Some(provider));
        assert_eq!(directory.provider_of(&provider.domain), Some(provider));
    }
    for issuer in &content.issuers {
        assert_eq!(directory.issuer_of(&issuer.domain), Some(issuer));
    }
    for database in &content.databases {
        assert_eq!(directory.database(&database.id), Some(database));
        for key in &database.record_keys {
            assert_eq!(directory.record_key(key.index), Some((database, key)));
        }
    }
    // Written again it says the same; the pins that it gives refuse anything older.
    let Ok(file) = draft::sign(content, std::slice::from_ref(&ROOT)) else { return };
    let again = Directory::open(file.as_bytes(), &PINS, NOW).expect("what is written is read");
    assert_eq!(again.content(), content);
    let pins = again.pins();
    assert!(Directory::open(file.as_bytes(), &pins, NOW).is_ok(), "it was seen");
    assert_eq!(pins.version(), content.version);
}
