//! A shard's header page, with its digest made right so that what lies behind it is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sotto::shard::Header;
use sotto::shard::header::HEADER_BYTES;

fuzz_target!(|data: &[u8]| {
    let mut page = [0; HEADER_BYTES];
    let length = data.len().min(HEADER_BYTES);
    page[..length].copy_from_slice(&data[..length]);
    let _ = Header::decode(&page);
    let digest = blake3::hash(&page[..HEADER_BYTES - 32]);
    page[HEADER_BYTES - 32..].copy_from_slice(digest.as_bytes());
    if let Ok(header) = Header::decode(&page) {
        assert_eq!(header.encode(), page, "every byte of an accepted header counts");
    }
});
