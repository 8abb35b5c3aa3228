//! A manifest from disk: parsed whole, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sotto::shard::Manifest;

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = Manifest::parse(data) {
        let again = Manifest::parse(&manifest.to_json()).expect("what was parsed parses again");
        assert_eq!(again.to_json(), manifest.to_json());
    }
});
