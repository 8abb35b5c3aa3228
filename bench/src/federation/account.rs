//! Accounts of a relay: a key that signs their tokens, the file by which the relay knows it, and
//! tokens.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use sotto::builder::keys;
use sotto::discovery::jws;
use sotto::wire::SigningKey;

use crate::Failed;

/// Whoever may sign tokens.
pub(crate) struct Issuer(SigningKey);

impl Issuer {
    /// The key of a file; a new one where there is no file.
    pub(crate) fn open(path: &Path) -> Result<Self, Failed> {
        let key = keys::load(path)?;
        Ok(Self(key.map_or_else(|| keys::create(path), Ok)?))
    }

    /// The JWK set that `sotto relay --accounts` reads.
    pub(crate) fn jwks(&self) -> String {
        let key = self.0.verifying_key();
        let x = jws::base64url(&key.to_bytes());
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": jws::key_id(&key), "x": x });
        json!({ "keys": [key] }).to_string()
    }

    /// A token of an account, for an hour.
    pub(crate) fn token(&self, account: &str) -> String {
        let claims = json!({ "sub": account, "exp": now() + 3_600 });
        jws::sign("JWT", claims.to_string().as_bytes(), &self.0)
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
