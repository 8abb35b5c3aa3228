//! What a client believes about a database, and what it refuses to hear.
//!
//! The operator signs a database's parameters; a client that knows the operator's key ([`Trust`])
//! checks the signature, and from then on holds on to what must not change ([`Pins`]): another
//! seed, an older epoch, or another number of shards would single out what it looks for
//! (scheme.md, "Keyword layer"). No IO here. Read next: [`super::session`].

use std::fmt;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use super::error::{ClientError, ParameterError};
use crate::limits;
use crate::params::Shape;
use crate::scheme::Seed;

/// What a DER-encoded Ed25519 public key starts with (RFC 8410): the 32 bytes follow.
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The Ed25519 public key with which an operator signs a database's parameters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OperatorKey(pub [u8; 32]);

impl OperatorKey {
    /// Reads what `sotto build` writes to `operator.pub` (a PEM file, RFC 8410), or 64 hex digits.
    pub fn from_text(text: &str) -> Result<Self, ClientError> {
        let text = text.trim();
        if text.len() == 64 && text.is_ascii() {
            return Self::from_hex(text).ok_or(ClientError::OperatorKey { found: "64 other characters" });
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
            .map_err(|_| ClientError::OperatorKey { found: "neither of the two" })?;
        der.as_ref()
            .strip_prefix(&ED25519_SPKI_PREFIX)
            .and_then(|key| key.try_into().ok())
            .map(Self)
            .ok_or(ClientError::OperatorKey { found: "a PEM file with a key of another kind" })
    }

    fn from_hex(text: &str) -> Option<Self> {
        let mut key = [0u8; 32];
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |at: u8| char::from(at).to_digit(16);
            *byte = (digit(digits[0])? * 16 + digit(digits[1])?) as u8;
        }
        Some(Self(key))
    }

    /// 16 hex digits to compare by eye: the start of BLAKE3 over the key, in groups of four.
    pub fn fingerprint(&self) -> String {
        let hash = blake3::hash(&self.0);
        let groups = hash.as_bytes()[..8].chunks_exact(2);
        groups.map(|pair| format!("{:02x}{:02x}", pair[0], pair[1])).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for OperatorKey {
    /// 64 hex digits, as [`OperatorKey::from_text`] reads them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorKey({self})")
    }
}

/// How a client knows that parameters come from the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The operator's key, known from elsewhere.
    Pinned(OperatorKey),
    /// The key the first server shows is believed, and warned about. Whoever answers first can
    /// pass for the operator: read [`super::Client::operator_key`], compare it with what the
    /// operator publishes, and pin it from then on.
    FirstUse,
}

/// What a client remembers of a database; kept across sessions, it makes a change visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pins {
    /// The operator's key.
    pub operator_key: OperatorKey,
    /// The database's seed, for its whole life.
    pub seed: Seed,
    /// The newest epoch seen.
    pub epoch: u64,
    /// The number of shards; it may double.
    pub shard_count: u32,
}

/// What [`Pins`] are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) seed: Seed,
    pub(crate) epoch: u64,
    pub(crate) shard_count: u32,
    pub(crate) shape: Shape,
}

/// Whether signed parameters may be used by a client that remembers `pins`.
pub(crate) fn accept(
    pins: Option<&Pins>,
    claims: &Claims,
    records_per_shard_min: u64,
) -> Result<(), ParameterError> {
    let records = claims.shape.records_expected();
    // The inverse of the columns' rule is rounded down: one record is not a smaller crowd.
    if records.saturating_add(1) < records_per_shard_min {
        let expected = records_per_shard_min;
        return Err(ParameterError::TooFewRecords { found: records, expected });
    }
    if claims.shard_count == 0 || claims.shard_count > limits::SHARDS_MAX {
        return Err(ParameterError::ShardCount { found: claims.shard_count });
    }
    let Some(pins) = pins else { return Ok(()) };
    if claims.seed != pins.seed {
        return Err(ParameterError::SeedChanged);
    }
    if claims.epoch < pins.epoch {
        let (found, expected) = (claims.epoch, pins.epoch);
        return Err(ParameterError::EpochOlder { found, expected });
    }
    if !doublings(pins.shard_count, claims.shard_count) {
        let (found, expected) = (claims.shard_count, pins.shard_count);
        return Err(ParameterError::ShardCountChanged { found, expected });
    }
    Ok(())
}

/// Whether `now` is `was` doubled any number of times: then a key's shard splits, and does not
/// move among the others.
fn doublings(was: u32, now: u32) -> bool {
    was != 0 && now.is_multiple_of(was) && (now / was).is_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPKI: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn operator_keys_are_read_as_pem_and_as_hex() {
        // The public key of RFC 8410, section 10.1.
        let hex = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
        let key = OperatorKey::from_text(SPKI).unwrap();
        assert_eq!(key.to_string(), hex);
        assert_eq!(OperatorKey::from_text(&format!("  {hex}\n")).unwrap(), key);
        assert_eq!(OperatorKey::from_text(&hex.to_uppercase()).unwrap(), key);
        assert_eq!(key.fingerprint().len(), 19);
        let other = SPKI.replace("K2Vw", "K2Vu"); // X25519
        for bad in ["", "19bf", &hex.replace('f', "g"), &other, &SPKI[..60]] {
            let error = OperatorKey::from_text(bad).unwrap_err();
            assert!(matches!(error, ClientError::OperatorKey { .. }), "{bad}: {error}");
        }
    }

    fn claims() -> Claims {
        let shape = Shape::for_records(1 << 16, 40, Default::default()).unwrap();
        Claims { seed: [1; 32], epoch: 5, shard_count: 12, shape }
    }

    fn pins() -> Pins {
        Pins { operator_key: OperatorKey([0; 32]), seed: [1; 32], epoch: 5, shard_count: 12 }
    }

    #[test]
    fn what_changes_as_it_may_is_accepted() {
        let min = limits::RECORDS_PER_SHARD_ACCEPTED_MIN;
        let base = claims();
        accept(None, &base, min).unwrap();
        let allowed = [
            base,
            Claims { epoch: 6, ..base },
            Claims { shard_count: 24, ..base },
            Claims { shard_count: 96, ..base },
        ];
        for claims in allowed {
            accept(Some(&pins()), &claims, min).unwrap();
        }
    }

    #[test]
    fn what_would_single_out_a_key_is_refused() {
        let (base, min) = (claims(), limits::RECORDS_PER_SHARD_ACCEPTED_MIN);
        let refuse = |claims: Claims, min| accept(Some(&pins()), &claims, min).unwrap_err();
        let seed = refuse(Claims { seed: [2; 32], ..base }, min);
        assert!(matches!(seed, ParameterError::SeedChanged));
        let epoch = refuse(Claims { epoch: 4, ..base }, min);
        assert!(matches!(epoch, ParameterError::EpochOlder { found: 4, expected: 5 }));
        for shard_count in [1, 6, 11, 13, 36, 60] {
            let error = refuse(Claims { shard_count, ..base }, min);
            assert!(matches!(error, ParameterError::ShardCountChanged { .. }), "{shard_count}");
        }
        for shard_count in [0, limits::SHARDS_MAX + 1] {
            let error = accept(None, &Claims { shard_count, ..base }, min).unwrap_err();
            assert!(matches!(error, ParameterError::ShardCount { .. }), "{shard_count}");
        }
        let few = Shape::for_records(1 << 15, 40, Default::default()).unwrap();
        let few = Claims { shape: few, ..base };
        assert!(matches!(refuse(few, min), ParameterError::TooFewRecords { .. }));
        accept(Some(&pins()), &few, 1 << 14).unwrap();
    }
}
