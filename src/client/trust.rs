//! What a client believes about a database, and what it refuses to hear.
//!
//! The operator signs a database's parameters; a client that knows the operator's key ([`Trust`])
//! checks the signature, and from then on holds on to what must not change ([`Pins`]): another
//! seed, an older epoch, or another number of shards would single out what it looks for
//! (scheme.md, "Keyword layer"). No IO here. Read next: [`super::call`].

use std::fmt;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use super::error::{ClientError, ParameterError};
use crate::params::Shape;
use crate::scheme::Seed;
use crate::wire::message::PirParameterResponse;
use crate::wire::{HINT_DIGEST_BYTES, PublicParameters, VerifyingKey, hex, verify};

/// What a DER-encoded Ed25519 public key starts with (RFC 8410): the 32 bytes follow.
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The Ed25519 public key with which an operator signs a database's parameters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OperatorKey(pub [u8; 32]);

impl OperatorKey {
    /// Reads what `sotto build` writes to `operator.pub` (a PEM file, RFC 8410), or 64 hex digits.
    pub fn from_text(text: &str) -> Result<Self, ClientError> {
        let plain = crate::text::plain(text.as_bytes());
        let text = std::str::from_utf8(&plain).unwrap_or(text).trim();
        if text.len() == 64 && text.is_ascii() {
            return hex::decode_array(text)
                .map(Self)
                .ok_or(ClientError::OperatorKey { found: "64 other characters" });
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
            .map_err(|_| ClientError::OperatorKey { found: "neither of the two" })?;
        der.as_ref()
            .strip_prefix(&ED25519_SPKI_PREFIX)
            .and_then(|key| key.try_into().ok())
            .map(Self)
            .ok_or(ClientError::OperatorKey { found: "a PEM file with a key of another kind" })
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
        f.write_str(&hex::encode(&self.0))
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
    /// pass for the operator: compare [`super::Client::operator_key`] with what the operator
    /// publishes, and pin it from then on.
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
    /// BLAKE3 of the parameters of that epoch: every client of an epoch gets the same.
    pub parameters_hash: [u8; 32],
}

/// What a client holds parameters against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) trust: Trust,
    pub(crate) pins: Option<Pins>,
    pub(crate) records_per_shard_min: u64,
}

impl Rules {
    /// Checks a parameter reply that succeeded, from its signature to the last pin. What comes
    /// back may be used; with it, what to remember from now on.
    pub(crate) fn check(
        &self,
        reply: &PirParameterResponse,
    ) -> Result<(PublicParameters, Pins), ParameterError> {
        let operator_key = self.operator_key(&reply.operator_key)?;
        let wrong = |found: String| ParameterError::Signature { found };
        let key = VerifyingKey::from_bytes(&operator_key.0).map_err(|e| wrong(e.to_string()))?;
        verify(&key, &reply.parameters, &reply.signature).map_err(|e| wrong(e.to_string()))?;
        let parameters = PublicParameters::decode(&reply.parameters)?;
        let pins = Pins {
            operator_key,
            seed: *parameters.seed(),
            epoch: parameters.epoch(),
            shard_count: parameters.shard_count(),
            parameters_hash: *blake3::hash(&reply.parameters).as_bytes(),
        };
        self.check_crowd(parameters.shape())?;
        if let Some(held) = &self.pins {
            check_change(held, &pins)?;
        }
        if !parameters.matches_hint_digests(&reply.hint_digests) {
            let expected = parameters.shard_count() as usize * HINT_DIGEST_BYTES;
            let found = format!("{} bytes of another list", reply.hint_digests.len());
            let expected = format!("{expected} bytes with the signed hash");
            return Err(ParameterError::HintDigests { found, expected });
        }
        Ok((parameters, pins))
    }

    /// The key to check with: the pinned or remembered one; the shown one on first use only.
    fn operator_key(&self, shown: &[u8]) -> Result<OperatorKey, ParameterError> {
        let shown: Option<OperatorKey> = shown.try_into().ok().map(OperatorKey);
        let known = match self.trust {
            Trust::Pinned(key) => Some(key),
            Trust::FirstUse => self.pins.map(|pins| pins.operator_key),
        };
        match (known, shown) {
            (Some(known), Some(shown)) if known != shown => Err(ParameterError::OtherKey {
                found: shown.fingerprint(),
                expected: known.fingerprint(),
            }),
            (Some(known), _) => Ok(known),
            (None, Some(shown)) => Ok(shown),
            (None, None) => Err(ParameterError::NoKey),
        }
    }

    fn check_crowd(&self, shape: &Shape) -> Result<(), ParameterError> {
        let (found, expected) = (shape.records_expected(), self.records_per_shard_min);
        // The inverse of the columns' rule is rounded down: one record is not a smaller crowd.
        if found.saturating_add(1) < expected {
            return Err(ParameterError::TooFewRecords { found, expected });
        }
        Ok(())
    }
}

/// Whether a database that was `held` may now be `now`.
fn check_change(held: &Pins, now: &Pins) -> Result<(), ParameterError> {
    if now.seed != held.seed {
        return Err(ParameterError::SeedChanged);
    }
    if now.epoch < held.epoch {
        let (found, expected) = (now.epoch, held.epoch);
        return Err(ParameterError::EpochOlder { found, expected });
    }
    if now.epoch == held.epoch && now.parameters_hash != held.parameters_hash {
        return Err(ParameterError::EpochForked { epoch: now.epoch });
    }
    if !doublings(held.shard_count, now.shard_count) {
        let (found, expected) = (now.shard_count, held.shard_count);
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
    use crate::limits;
    use crate::wire::{SigningKey, sign};

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
        assert_eq!(OperatorKey::from_text(&format!("\u{feff}{hex}\r\n")).unwrap(), key);
        let from_windows = format!("\u{feff}{}", SPKI.replace('\n', "\r\n"));
        assert_eq!(OperatorKey::from_text(&from_windows).unwrap(), key);
        assert_eq!(key.fingerprint().len(), 19);
        let other = SPKI.replace("K2Vw", "K2Vu"); // X25519
        for bad in ["", "19bf", &hex.replace('f', "g"), &other, &SPKI[..60]] {
            let error = OperatorKey::from_text(bad).unwrap_err();
            assert!(matches!(error, ClientError::OperatorKey { .. }), "{bad}: {error}");
        }
    }

    fn signer() -> SigningKey {
        SigningKey::from_bytes(&[42; 32])
    }

    fn digests(shards: usize) -> Vec<u8> {
        (0..shards * HINT_DIGEST_BYTES).map(|at| at as u8).collect()
    }

    fn parameters(seed: u8, epoch: u64, shards: usize) -> PublicParameters {
        let shape = Shape::for_records(1 << 16, 40, Default::default()).unwrap();
        let hash = *blake3::hash(&digests(shards)).as_bytes();
        PublicParameters::new([seed; 32], epoch, shape, &vec![0; shards], hash, 1).unwrap()
    }

    fn reply(parameters: &PublicParameters) -> PirParameterResponse {
        let bytes = parameters.encode();
        PirParameterResponse {
            signature: sign(&signer(), &bytes).to_vec().into(),
            parameters: bytes.into(),
            hint_digests: digests(parameters.shard_count() as usize).into(),
            operator_key: signer().verifying_key().to_bytes().to_vec().into(),
            ..Default::default()
        }
    }

    fn rules() -> Rules {
        let key = OperatorKey(signer().verifying_key().to_bytes());
        let min = limits::RECORDS_PER_SHARD_ACCEPTED_MIN;
        Rules { trust: Trust::Pinned(key), pins: None, records_per_shard_min: min }
    }

    #[test]
    fn what_changes_as_it_may_is_accepted() {
        let (_, pins) = rules().check(&reply(&parameters(1, 5, 12))).unwrap();
        assert_eq!((pins.seed, pins.epoch, pins.shard_count), ([1; 32], 5, 12));
        let again = Rules { pins: Some(pins), ..rules() };
        for allowed in [parameters(1, 5, 12), parameters(1, 6, 12), parameters(1, 6, 96)] {
            again.check(&reply(&allowed)).unwrap();
        }
    }

    #[test]
    fn what_would_single_out_a_key_is_refused() {
        let (_, pins) = rules().check(&reply(&parameters(1, 5, 12))).unwrap();
        let again = Rules { pins: Some(pins), ..rules() };
        let refuse = |parameters| again.check(&reply(&parameters)).unwrap_err();
        assert!(matches!(refuse(parameters(2, 6, 12)), ParameterError::SeedChanged));
        let older = refuse(parameters(1, 4, 12));
        assert!(matches!(older, ParameterError::EpochOlder { found: 4, expected: 5 }));
        assert!(matches!(refuse(parameters(1, 5, 24)), ParameterError::EpochForked { epoch: 5 }));
        for shards in [1, 6, 11, 13, 36, 60] {
            let error = refuse(parameters(1, 6, shards));
            assert!(matches!(error, ParameterError::ShardCountChanged { .. }), "{shards}");
        }
        let more = Rules { records_per_shard_min: 1 << 17, ..rules() };
        let error = more.check(&reply(&parameters(1, 5, 12))).unwrap_err();
        assert!(matches!(error, ParameterError::TooFewRecords { .. }));
    }

    #[test]
    fn signature_key_and_digests_are_checked() {
        let good = reply(&parameters(1, 5, 12));
        let mut changed = good.parameters.to_vec();
        changed[40] ^= 1;
        let refuse = |reply| rules().check(&reply).unwrap_err();
        let bytes = refuse(PirParameterResponse { parameters: changed.into(), ..good.clone() });
        assert!(matches!(bytes, ParameterError::Signature { .. }), "{bytes}");
        let none = refuse(PirParameterResponse { signature: Default::default(), ..good.clone() });
        assert!(matches!(none, ParameterError::Signature { .. }), "{none}");
        let other =
            refuse(PirParameterResponse { operator_key: vec![7; 32].into(), ..good.clone() });
        assert!(matches!(other, ParameterError::OtherKey { .. }), "{other}");
        let unsigned_list = digests(13)[16..].to_vec();
        for list in [Vec::new(), digests(11), digests(13), unsigned_list] {
            let error = refuse(PirParameterResponse { hint_digests: list.into(), ..good.clone() });
            assert!(matches!(error, ParameterError::HintDigests { .. }), "{error}");
        }
    }

    #[test]
    fn first_use_believes_once_and_then_remembers() {
        let first = Rules { trust: Trust::FirstUse, ..rules() };
        let good = reply(&parameters(1, 5, 12));
        let (_, pins) = first.check(&good).unwrap();
        assert_eq!(pins.operator_key.0, signer().verifying_key().to_bytes());
        let silent = PirParameterResponse { operator_key: Default::default(), ..good.clone() };
        assert!(matches!(first.check(&silent).unwrap_err(), ParameterError::NoKey));
        let later = Rules { pins: Some(pins), ..first };
        later.check(&silent).unwrap();
        let impostor = SigningKey::from_bytes(&[43; 32]);
        let other = PirParameterResponse {
            signature: sign(&impostor, &good.parameters).to_vec().into(),
            operator_key: impostor.verifying_key().to_bytes().to_vec().into(),
            ..good
        };
        first.check(&other).unwrap();
        assert!(matches!(later.check(&other).unwrap_err(), ParameterError::OtherKey { .. }));
    }
}
