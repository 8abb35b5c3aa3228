//! What a person may type as an identifier, and URIs of statements: canonical or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sotto::discovery::identifier::{Identifier, Region};
use sotto::limits::{EMAIL_BYTES_MAX, NUMBER_DIGITS_MAX};

const REGIONS: [Option<Region>; 6] = [
    None,
    Some(Region::DE),
    Some(Region::US),
    Some(Region::AR),
    Some(Region::MX),
    Some(Region::IT),
];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for region in REGIONS {
        if let Ok(identifier) = Identifier::parse(text, region) {
            check(&identifier);
        }
    }
    if let Ok(identifier) = Identifier::from_uri(text) {
        assert_eq!(identifier.to_uri(), text, "an identifier has one URI");
        check(&identifier);
    }
});

fn check(identifier: &Identifier) {
    let text = identifier.as_str();
    for region in REGIONS {
        let again = Identifier::parse(text, region).expect("a result is an identifier");
        assert_eq!(again.as_str(), text, "a result gives itself, wherever it is read");
    }
    let uri = identifier.to_uri();
    assert!(uri.is_ascii());
    assert_eq!(Identifier::from_uri(&uri).as_ref(), Ok(identifier));
    match (identifier.digits(), identifier.domain()) {
        (Some(digits), None) => {
            assert!(digits.len() <= NUMBER_DIGITS_MAX);
            assert!(digits.bytes().all(|byte| byte.is_ascii_digit()));
        }
        (None, Some(domain)) => {
            assert!(text.len() <= EMAIL_BYTES_MAX);
            assert!(domain.is_ascii() && !domain.bytes().any(|byte| byte.is_ascii_uppercase()));
        }
        _ => panic!("neither a number nor an address"),
    }
}
