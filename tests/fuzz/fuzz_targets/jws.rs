//! Compact tokens: one text for one token, and no signature but that of the key.
#![no_main]

use std::sync::LazyLock;

use ed25519_dalek::SigningKey;
use libfuzzer_sys::fuzz_target;
use sotto::discovery::jws::{self};
use sotto::limits::JWS_BYTES_MAX;

const TYP: &str = "sotto-mapping+jwt";
static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        read(text);
    }
    // What is behind a header and a signature that are right.
    let text = jws::sign(TYP, data, &KEY);
    if text.len() > JWS_BYTES_MAX {
        assert!(jws::parse(&text, TYP, JWS_BYTES_MAX).is_err());
        return;
    }
    let token = jws::parse(&text, TYP, JWS_BYTES_MAX).expect("what was signed is read");
    assert_eq!(token.payload, data);
    assert_eq!(token.verify(&KEY.verifying_key()), Ok(()));
    // The header is that of the signer and the payload is not: never accepted.
    let [header, _, signature] = text.split('.').collect::<Vec<_>>().try_into().expect("a token");
    let other = jws::base64url(&[data, b"x"].concat());
    if let Ok(token) = jws::parse(&format!("{header}.{other}.{signature}"), TYP, JWS_BYTES_MAX) {
        assert!(token.verify(&KEY.verifying_key()).is_err());
    }
});

fn read(text: &str) {
    let typ = jws::peek_typ(text);
    for expected in [TYP, typ.as_deref().unwrap_or(TYP)] {
        let Ok(token) = jws::parse(text, expected, JWS_BYTES_MAX) else { continue };
        assert_eq!(typ.as_deref(), Ok(expected), "the type that was peeked at is the one parsed");
        assert!(text.len() <= JWS_BYTES_MAX);
        let [_, payload, signature] =
            text.split('.').collect::<Vec<_>>().try_into().expect("three parts");
        assert_eq!(jws::base64url(&token.payload), payload, "one text for one payload");
        assert_eq!(jws::from_base64url(signature).map(|bytes| bytes.len()), Some(64));
        let _ = token.verify(&KEY.verifying_key());
    }
}
