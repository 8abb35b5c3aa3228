//! Records: what a database says of one identifier, signed by the database's record key. The
//! messages, their signature, and what is left out of a record that is too long. docs/records.md
//! has a table of the fields.
//!
//! Nothing is verified here: [`super::open()`] turns a value into a contact.

use std::fmt;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::identifier::Identifier;
use crate::limits::RECORD_SERVICES_MAX;

/// The version of this format. A record that names another one is refused.
pub const VERSION: u32 = 1;
/// Days for which a record holds that names no other number.
pub const LIFETIME_DAYS_DEFAULT: u32 = 30;
/// Bytes of a key hash: the first ones of SHA-256 of a user's key.
pub const KEY_HASH_BYTES: usize = 16;
/// 2020-01-01 in seconds since 1970, from which the minutes of `issued` are counted.
pub const EPOCH: u64 = 1_577_836_800;

const CONTEXT: &[u8] = b"sotto record 1";

/// A signed record, as it lies in a value.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Record {
    /// An encoded [`Body`]: the bytes that were signed, whatever fields they have.
    #[prost(bytes = "vec", tag = "1")]
    pub body: Vec<u8>,
    /// Ed25519 by the database's record key over `"sotto record 1" 0 sii 0 body`.
    #[prost(bytes = "vec", tag = "2")]
    pub signature: Vec<u8>,
    /// Absent for version 1.
    #[prost(uint32, optional, tag = "3")]
    pub version: Option<u32>,
}

/// What is signed of an identifier. The identifier itself is not in it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Body {
    /// The index of the record key in the directory.
    #[prost(uint32, tag = "1")]
    pub signer: u32,
    /// Minutes since 2020-01-01.
    #[prost(uint32, tag = "2")]
    pub issued: u32,
    /// Days for which it holds, from `issued` on; absent for [`LIFETIME_DAYS_DEFAULT`].
    #[prost(uint32, optional, tag = "3")]
    pub lifetime_days: Option<u32>,
    /// The first one is the preferred one if there is a preference.
    #[prost(message, repeated, tag = "4")]
    pub services: Vec<Service>,
    /// Whose choice the first one is.
    #[prost(message, optional, tag = "5")]
    pub preference: Option<Preference>,
}

/// A service at which the person is reachable.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Service {
    /// The index of the provider in the directory.
    #[prost(uint32, tag = "1")]
    pub provider: u32,
    /// The person's handle there. Absent: ask the provider for the identifier.
    #[prost(string, optional, tag = "2")]
    pub handle: Option<String>,
    /// What the service is for.
    #[prost(string, repeated, tag = "3")]
    pub tags: Vec<String>,
    /// The first 16 bytes of SHA-256 of the user's key there; empty if it is not told.
    #[prost(bytes = "vec", tag = "4")]
    pub key_hash: Vec<u8>,
}

/// The person's own choice of the first service: a preference statement without what the record
/// says anyway.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Preference {
    /// The user's key, an Ed25519 public key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Ed25519 by that key over `"sotto preference 1" 0 sii 0 ssi 0 time`.
    #[prost(bytes = "vec", tag = "2")]
    pub signature: Vec<u8>,
    /// Seconds since 1970, in four bytes: until 2106.
    #[prost(fixed32, tag = "3")]
    pub time: u32,
}

/// What was left out of a record so that it fits, to be counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Dropped {
    pub key_hashes: usize,
    pub handles: usize,
    pub tags: usize,
    pub services: usize,
}

/// Leaves out of a body what does not fit into a record of so many bytes: key hashes, then handles,
/// tags and services, each from the last service on.
///
/// A record for a blinded value has four bytes less than the value ([`super::blind::SEAL_BYTES`]).
pub fn fit(body: &mut Body, record_bytes_max: usize) -> Dropped {
    let mut dropped = Dropped::default();
    let last = body.services.len().min(RECORD_SERVICES_MAX);
    dropped.services = body.services.len() - last;
    body.services.truncate(last);
    for index in (0..last).rev() {
        if record_len(body) <= record_bytes_max {
            return dropped;
        }
        let key_hash = std::mem::take(&mut body.services[index].key_hash);
        dropped.key_hashes += usize::from(!key_hash.is_empty());
    }
    for index in (0..last).rev() {
        if record_len(body) <= record_bytes_max {
            return dropped;
        }
        dropped.handles += usize::from(body.services[index].handle.take().is_some());
    }
    for index in (0..last).rev() {
        if record_len(body) <= record_bytes_max {
            return dropped;
        }
        dropped.tags += std::mem::take(&mut body.services[index].tags).len();
    }
    while record_len(body) > record_bytes_max && body.services.pop().is_some() {
        dropped.services += 1;
    }
    dropped
}

/// Bytes of the record with this body.
pub fn record_len(body: &Body) -> usize {
    let signature = 1 + 1 + ed25519_dalek::SIGNATURE_LENGTH;
    let body = body.encoded_len();
    1 + prost::length_delimiter_len(body) + body + signature
}

/// Signs a record of an identifier and encodes it.
pub fn sign(body: &Body, sii: &Identifier, key: &SigningKey) -> Vec<u8> {
    let body = body.encode_to_vec();
    let signature = key.sign(&signed_bytes(sii, &body)).to_bytes().to_vec();
    Record { body, signature, version: None }.encode_to_vec()
}

/// What a record tells of a user's key at a service: enough to recognise it by.
pub fn key_hash(key: &[u8; 32]) -> [u8; KEY_HASH_BYTES] {
    let mut hash = [0; KEY_HASH_BYTES];
    hash.copy_from_slice(&Sha256::digest(key)[..KEY_HASH_BYTES]);
    hash
}

/// Whether this key signed this body for this identifier.
pub(super) fn is_signed(record: &Record, sii: &Identifier, key: &VerifyingKey) -> bool {
    let Ok(signature) = Signature::from_slice(&record.signature) else { return false };
    key.verify_strict(&signed_bytes(sii, &record.body), &signature).is_ok()
}

fn signed_bytes(sii: &Identifier, body: &[u8]) -> Vec<u8> {
    [CONTEXT, sii.as_str().as_bytes(), body].join(&0)
}

/// The minute of a time in seconds since 1970, as `issued` counts; `None` before 2020 and from the
/// year 10186 on.
pub fn minute_of(time: u64) -> Option<u32> {
    u32::try_from(time.checked_sub(EPOCH)? / 60).ok()
}

/// The time of a minute, in seconds since 1970.
pub fn time_of(minute: u32) -> u64 {
    EPOCH + u64::from(minute) * 60
}

impl Body {
    /// From when on the record no longer holds, in seconds since 1970.
    pub fn expires(&self) -> u64 {
        let days = self.lifetime_days.unwrap_or(LIFETIME_DAYS_DEFAULT);
        time_of(self.issued) + u64::from(days) * 86_400
    }
}

// A record tells where a person is found, so none of it is printed.

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} bytes of body)", self.body.len())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} services)", self.services.len())
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service(..)")
    }
}

impl fmt::Debug for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preference(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RECORD_BYTES_MAX;

    const ISSUED: u32 = 3_639_360; // 2026-12-02

    fn service(provider: u32, handle_bytes: usize, has_hash: bool) -> Service {
        Service {
            provider,
            handle: (handle_bytes > 0).then(|| "h".repeat(handle_bytes)),
            tags: Vec::new(),
            key_hash: if has_hash { vec![7; KEY_HASH_BYTES] } else { Vec::new() },
        }
    }

    fn body(services: Vec<Service>, has_preference: bool) -> Body {
        let preference =
            Preference { key: vec![1; 32], signature: vec![2; 64], time: 1_790_000_000 };
        Body {
            signer: 1,
            issued: ISSUED,
            lifetime_days: None,
            services,
            preference: has_preference.then_some(preference),
        }
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[9; 32])
    }

    fn sii() -> Identifier {
        Identifier::parse("+4930901820", None).unwrap()
    }

    /// The sizes that capacity plans rest on: of services with handles of so many bytes, with or
    /// without a preference, where the lifetime is written.
    #[test]
    fn sizes_are_those_of_field_arithmetic() {
        let cases = [
            (1, 0, false, 81),
            (1, 16, false, 99),
            (1, 0, true, 188),
            // The body has more than 127 bytes from here on, and its length two.
            (1, 16, true, 207),
            (3, 0, true, 197),
            (3, 13, true, 242),
        ];
        for (services, handle, has_preference, bytes) in cases {
            let made = |has_hash| {
                let services = (1..=services).map(|p| service(p, handle, has_hash)).collect();
                Body { lifetime_days: Some(30), ..body(services, has_preference) }
            };
            let case = format!("{services} services, {handle} bytes, {has_preference}");
            let plain = made(false);
            assert_eq!(record_len(&plain), bytes, "{case}");
            assert_eq!(sign(&plain, &sii(), &key()).len(), bytes, "{case}");
            let longer_len =
                |body: &Body| usize::from(plain.encoded_len() < 128 && body.encoded_len() >= 128);
            // A key hash has 18 bytes, an index from 128 on one more, a lifetime two.
            let hashed = made(true);
            let expected = bytes + 18 * services as usize + longer_len(&hashed);
            assert_eq!(record_len(&hashed), expected, "{case}");
            let mut high = made(false);
            (high.signer, high.services[0].provider) = (128, 128);
            assert_eq!(record_len(&high), bytes + 2 + longer_len(&high), "{case}");
            let short = Body { lifetime_days: None, ..made(false) };
            let shorter_len = usize::from(plain.encoded_len() >= 128 && short.encoded_len() < 128);
            assert_eq!(record_len(&short), bytes - 2 - shorter_len, "{case}");
        }
    }

    #[test]
    fn a_record_is_encoded_as_documented() {
        let mut body = body(vec![service(2, 3, true)], true);
        body.lifetime_days = Some(7);
        body.services[0].tags = vec!["work".into()];
        let mut expected = vec![
            0x08, 1, // signer
            0x10, 0xc0, 0x90, 0xde, 0x01, // issued
            0x18, 7, // lifetime_days
            0x22, 31, 0x08, 2, 0x12, 3, b'h', b'h', b'h', // provider, handle
            0x1a, 4, b'w', b'o', b'r', b'k', // tags
            0x22, 16, // key_hash
        ];
        expected.extend([7; 16]);
        expected.extend([0x2a, 105, 0x0a, 32]); // preference: key
        expected.extend([1; 32]);
        expected.extend([0x12, 64]); // signature
        expected.extend([2; 64]);
        expected.push(0x1d); // time
        expected.extend(1_790_000_000_u32.to_le_bytes());
        assert_eq!(body.encode_to_vec(), expected);

        let text = [b"sotto record 1\0+4930901820\0", &*expected].concat();
        let signature = key().sign(&text).to_bytes();
        let length = [0x0a, 0x80 | (expected.len() % 128) as u8, (expected.len() / 128) as u8];
        let record = [&length[..], &expected, &[0x12, 64], &signature].concat();
        assert_eq!(sign(&body, &sii(), &key()), record);
    }

    #[test]
    fn a_record_is_signed_for_one_identifier_by_one_key() {
        let value = sign(&body(vec![service(1, 5, true)], false), &sii(), &key());
        let record = Record::decode(&*value).unwrap();
        let public = key().verifying_key();
        assert!(is_signed(&record, &sii(), &public));
        let other = Identifier::parse("+4930901821", None).unwrap();
        assert!(!is_signed(&record, &other, &public));
        assert!(!is_signed(&record, &sii(), &SigningKey::from_bytes(&[8; 32]).verifying_key()));
        for length in [0, 63, 65] {
            let signature = record.signature.iter().copied().cycle().take(length).collect();
            assert!(!is_signed(&Record { signature, ..record.clone() }, &sii(), &public));
        }
    }

    /// Bytes for the record, and what is left: key hashes, handles, tags, services.
    #[test]
    fn what_does_not_fit_is_left_out_from_the_last_service_on() {
        let mut whole = body((1..=3).map(|p| service(p, 10, true)).collect(), true);
        for service in &mut whole.services {
            service.tags = vec!["a".into(), "b".into()];
        }
        let full = record_len(&whole);
        // One more for the length of the body, which has more than 127 bytes.
        assert_eq!(full, 194 + 1 + 3 * (12 + 18 + 6));
        let cases = [
            (full, [3, 3, 6, 3]),
            (full - 1, [2, 3, 6, 3]),
            (full - 18, [2, 3, 6, 3]),
            (full - 19, [1, 3, 6, 3]),
            (full - 54, [0, 3, 6, 3]),
            (full - 55, [0, 2, 6, 3]),
            (full - 90, [0, 0, 6, 3]),
            (full - 91, [0, 0, 4, 3]),
            (194, [0, 0, 0, 3]),
            (193, [0, 0, 0, 2]),
            (189, [0, 0, 0, 1]),
            (186, [0, 0, 0, 1]),
            (185, [0, 0, 0, 0]),
        ];
        for (bytes, [key_hashes, handles, tags, services]) in cases {
            let mut fitted = whole.clone();
            let dropped = fit(&mut fitted, bytes);
            let left = Dropped {
                key_hashes: 3 - dropped.key_hashes,
                handles: 3 - dropped.handles,
                tags: 6 - dropped.tags,
                services: 3 - dropped.services,
            };
            assert_eq!(left, Dropped { key_hashes, handles, tags, services }, "{bytes} bytes");
            assert!(record_len(&fitted) <= bytes || fitted.services.is_empty(), "{bytes} bytes");
            assert_eq!(fitted.services.len(), services);
            // From the last one on: the first ones keep what they had.
            for (at, (now, before)) in fitted.services.iter().zip(&whole.services).enumerate() {
                assert_eq!(now.key_hash == before.key_hash, at < key_hashes, "{bytes} bytes");
                assert_eq!(now.handle == before.handle, at < handles, "{bytes} bytes");
                assert_eq!(now.tags == before.tags, at < tags / 2, "{bytes} bytes");
            }
        }
    }

    #[test]
    fn a_record_has_at_most_sixteen_services() {
        let mut long = body((1..=18).map(|p| service(p, 0, false)).collect(), false);
        assert_eq!(fit(&mut long, RECORD_BYTES_MAX), Dropped { services: 2, ..Dropped::default() });
        assert_eq!(long.services.len(), RECORD_SERVICES_MAX);
        assert_eq!(long.services[15].provider, 16);
    }

    #[test]
    fn minutes_count_from_2020() {
        let cases = [
            (0, None),
            (EPOCH - 1, None),
            (EPOCH, Some(0)),
            (EPOCH + 59, Some(0)),
            (EPOCH + 60, Some(1)),
            (1_796_198_400, Some(ISSUED)),
            (EPOCH + 60 * u64::from(u32::MAX), Some(u32::MAX)),
            (EPOCH + 60 * (u64::from(u32::MAX) + 1), None),
            (u64::MAX, None),
        ];
        for (time, minute) in cases {
            assert_eq!(minute_of(time), minute, "{time}");
            assert!(
                minute.is_none_or(|minute| time_of(minute) <= time && time - time_of(minute) < 60)
            );
        }
        let mut longest = body(Vec::new(), false);
        (longest.issued, longest.lifetime_days) = (u32::MAX, Some(u32::MAX));
        assert!(longest.expires() > u64::from(u32::MAX) * 86_400);
    }

    #[test]
    fn nothing_of_a_record_is_printed() {
        let body = body(vec![service(1, 5, true)], true);
        let record = Record { body: body.encode_to_vec(), ..Record::default() };
        let printed = format!("{record:?} {body:?} {:?} {:?}", body.services, body.preference);
        assert!(!printed.contains("hhh") && !printed.contains(", 7"), "{printed}");
    }
}
