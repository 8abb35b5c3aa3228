//! The OHTTP keys of a front-end: one key, and the signed list that devices get.
//!
//! The list is a compact JWS of type [`TYP`], signed by the front-end's long-term Ed25519 key,
//! which a device has beforehand. So a relay cannot give a device a key of its own, and every
//! device gets the same list. Where keys are kept and when they change is decided by the
//! front-end.

use ed25519_dalek::{SigningKey, VerifyingKey};
use ohttp::hpke::{Aead, Kdf, Kem};
use ohttp::{KeyConfig, SymmetricSuite};
use serde::{Deserialize, Serialize};

use super::errors::SealedError;
use crate::discovery::jws;
use crate::limits::{
    CLOCK_AHEAD_SECONDS_MAX, OHTTP_KEYS_BYTES_MAX, OHTTP_KEYS_MAX, OHTTP_KEYS_SECONDS_MAX,
};

/// The type of the signed list.
pub const TYP: &str = "sotto-ohttp-keys+jwt";
/// Bytes of the secret that a key is derived from.
pub const SEED_BYTES: usize = 32;

/// The one suite there is (RFC 9458, section 3.1): what precedes and what follows the identifier of
/// a key and its public part. DHKEM(X25519, HKDF-SHA256) is 0x0020; a list of one suite of 4 bytes
/// has HKDF-SHA256 (1) and AES-128-GCM (1).
const KEM: [u8; 2] = [0x00, 0x20];
const SUITES: [u8; 6] = [0, 4, 0, 1, 0, 1];
const PUBLIC_BYTES: usize = 32;
const CONFIG_BYTES: usize = 1 + KEM.len() + PUBLIC_BYTES + SUITES.len();

/// A key that opens sealed requests. It is secret and has no Debug.
pub struct GatewayKey {
    id: u8,
    config: Vec<u8>,
    pub(super) server: ohttp::Server,
}

impl GatewayKey {
    /// The key that this secret stands for, under this identifier.
    ///
    /// # Errors
    /// [`SealedError::Seal`], if the cryptography refuses.
    pub fn new(id: u8, seed: &[u8; SEED_BYTES]) -> Result<Self, SealedError> {
        let suite = SymmetricSuite::new(Kdf::HkdfSha256, Aead::Aes128Gcm);
        let failed = |error: ohttp::Error| SealedError::Seal(error.to_string());
        let pair = KeyConfig::derive(id, Kem::X25519Sha256, vec![suite], seed).map_err(failed)?;
        let config = pair.encode().map_err(failed)?;
        check_config(&config)?;
        Ok(Self { id, config, server: ohttp::Server::new(pair).map_err(failed)? })
    }

    /// The first byte of each request for it.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// The public configuration, which devices get.
    pub fn config(&self) -> &[u8] {
        &self.config
    }
}

/// Refuses every configuration but that of the one suite. The crate `ohttp` would panic at a
/// configuration without a suite that it knows.
pub(super) fn check_config(config: &[u8]) -> Result<(), SealedError> {
    let is_so =
        config.len() == CONFIG_BYTES && config[1..].starts_with(&KEM) && config.ends_with(&SUITES);
    if is_so { Ok(()) } else { Err(SealedError::KeyConfig { found: config.len() }) }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iat: u64,
    exp: u64,
    keys: Vec<String>,
}

/// The signed list of these configurations, the newest first.
pub fn sign_keys(configs: &[Vec<u8>], key: &SigningKey, iat: u64, exp: u64) -> String {
    let keys = configs.iter().map(|config| jws::base64url(config)).collect();
    let claims = serde_json::to_vec(&Claims { iat, exp, keys })
        .expect("this is a bug: numbers and texts that are no JSON");
    jws::sign(TYP, &claims, key)
}

/// A list of keys that a device may seal for.
pub struct KeyList {
    configs: Vec<Vec<u8>>,
    expires: u64,
}

impl KeyList {
    /// Reads a signed list at `now` (unix seconds). `key` is the front-end's long-term key.
    ///
    /// # Errors
    /// It is not signed by that key, does not hold now, or holds keys that cannot be used.
    pub fn open(text: &str, key: &VerifyingKey, now: u64) -> Result<Self, SealedError> {
        let token = jws::parse(text, TYP, OHTTP_KEYS_BYTES_MAX)?;
        token.verify(key)?;
        let object = Some(&token.payload).filter(|payload| payload.starts_with(b"{"));
        let claims: Option<Claims> = object.and_then(|json| serde_json::from_slice(json).ok());
        let Claims { iat, exp, keys } = claims.ok_or_else(|| {
            list_error("it holds something else", "one JSON object of iat, exp and keys")
        })?;
        if exp <= iat || exp - iat > OHTTP_KEYS_SECONDS_MAX {
            return Err(list_error("it holds for another time", "at most 9 days after its date"));
        }
        if now >= exp {
            return Err(SealedError::Expired { seconds: now - exp });
        }
        if iat > now.saturating_add(CLOCK_AHEAD_SECONDS_MAX) {
            return Err(SealedError::Future { seconds: iat - now });
        }
        if !(1..=OHTTP_KEYS_MAX).contains(&keys.len()) {
            return Err(list_error(format!("it holds {} keys", keys.len()), "1 to 4 keys"));
        }
        let decoded = keys.iter().map(|key| jws::from_base64url(key));
        let configs = decoded
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| list_error("a key is no base64url", "base64url without padding"))?;
        configs.iter().try_for_each(|config| check_config(config))?;
        Ok(Self { configs, expires: exp })
    }

    /// The configuration to seal for.
    pub fn newest(&self) -> &[u8] {
        &self.configs[0]
    }

    /// When the list has to be fetched again at the latest, in unix seconds.
    pub fn expires(&self) -> u64 {
        self.expires
    }
}

fn list_error(found: impl Into<String>, expected: &'static str) -> SealedError {
    SealedError::KeyList { found: found.into(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_780_000_000;

    fn identity() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    fn config(id: u8) -> Vec<u8> {
        GatewayKey::new(id, &[id; SEED_BYTES]).expect("a key").config().to_vec()
    }

    fn open(text: &str, now: u64) -> Result<KeyList, SealedError> {
        KeyList::open(text, &identity().verifying_key(), now)
    }

    fn refused(text: &str, now: u64) -> SealedError {
        open(text, now).err().expect("the list was accepted")
    }

    fn list() -> String {
        sign_keys(&[config(7), config(6)], &identity(), NOW, NOW + OHTTP_KEYS_SECONDS_MAX)
    }

    #[test]
    fn a_list_gives_the_newest_key_until_it_expires() {
        let keys = open(&list(), NOW).expect("the list");
        assert_eq!(keys.newest(), config(7));
        assert_eq!(keys.expires(), NOW + OHTTP_KEYS_SECONDS_MAX);
        let last = NOW + OHTTP_KEYS_SECONDS_MAX - 1;
        assert!(open(&list(), last).is_ok());
        assert_eq!(refused(&list(), last + 1), SealedError::Expired { seconds: 0 });
        assert_eq!(refused(&list(), last + 3_601), SealedError::Expired { seconds: 3_600 });
    }

    #[test]
    fn a_clock_may_be_five_minutes_behind_and_not_an_hour() {
        assert!(open(&list(), NOW - CLOCK_AHEAD_SECONDS_MAX).is_ok());
        let seconds = CLOCK_AHEAD_SECONDS_MAX + 1;
        assert_eq!(refused(&list(), NOW - seconds), SealedError::Future { seconds });
        assert_eq!(refused(&list(), NOW - 3_600), SealedError::Future { seconds: 3_600 });
    }

    #[test]
    fn a_list_of_another_identity_is_refused() {
        let other = SigningKey::from_bytes(&[4; 32]);
        let text = sign_keys(&[config(7)], &other, NOW, NOW + 60);
        assert!(matches!(refused(&text, NOW), SealedError::Signature(_)));
    }

    #[test]
    fn a_list_cut_off_or_changed_anywhere_is_refused() {
        let list = list();
        for end in 0..list.len() {
            assert!(open(&list[..end], NOW).is_err(), "cut off at {end}");
        }
        for at in 0..list.len() {
            for bit in 0..7 {
                let mut bytes = list.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let text = String::from_utf8(bytes).expect("ASCII");
                assert!(open(&text, NOW).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_signed_list_with_wrong_content_is_refused() {
        let signed = |claims: &str| jws::sign(TYP, claims.as_bytes(), &identity());
        let key = jws::base64url(&config(7));
        let fields = format!(r#""iat":{NOW},"exp":{},"keys":["{key}"]"#, NOW + 60);
        assert!(open(&signed(&format!("{{{fields}}}")), NOW).is_ok());
        let wrong = [
            format!(r#"{{{fields},"more":1}}"#),
            format!(r#"[{NOW},{},["{key}"]]"#, NOW + 60),
            format!(r#"{{"iat":{NOW},"exp":{},"keys":[]}}"#, NOW + 60),
            format!(r#"{{"iat":{NOW},"exp":{},"keys":["{key}="]}}"#, NOW + 60),
            format!(r#"{{"iat":{NOW},"exp":{NOW},"keys":["{key}"]}}"#),
            format!(r#"{{"iat":0,"exp":{},"keys":["{key}"]}}"#, u64::MAX),
            String::new(),
        ];
        for claims in wrong {
            assert!(
                matches!(refused(&signed(&claims), NOW), SealedError::KeyList { .. }),
                "{claims}"
            );
        }
        let five = sign_keys(&vec![config(1); 5], &identity(), NOW, NOW + 60);
        assert!(matches!(refused(&five, NOW), SealedError::KeyList { .. }));
        let typ = jws::sign("sotto-batch+jwt", format!("{{{fields}}}").as_bytes(), &identity());
        assert!(matches!(refused(&typ, NOW), SealedError::Signature(_)));
    }

    #[test]
    fn a_configuration_of_another_suite_is_refused() {
        let right = config(7);
        assert_eq!(right.len(), CONFIG_BYTES);
        for end in 0..right.len() {
            assert_eq!(check_config(&right[..end]), Err(SealedError::KeyConfig { found: end }));
        }
        for at in (1..3).chain(CONFIG_BYTES - SUITES.len()..CONFIG_BYTES) {
            for bit in 0..8 {
                let mut wrong = right.clone();
                wrong[at] ^= 1 << bit;
                assert!(check_config(&wrong).is_err(), "bit {bit} of byte {at}");
                let text = sign_keys(&[wrong], &identity(), NOW, NOW + 60);
                assert_eq!(refused(&text, NOW), SealedError::KeyConfig { found: CONFIG_BYTES });
            }
        }
    }
}
