//! Which user a token stands for: the same tokens, and the same file of keys, as at the relay.
//!
//! This is a copy of what `crate::relay` keeps to itself (`relay/accounts.rs`: `Jwks` and
//! `bearer`): in the tree, those are made `pub(crate)`, and this file goes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::Deserialize;

use crate::discovery::jws::from_base64url;
use crate::limits::{
    ACCOUNT_CLOCK_SECONDS, ACCOUNT_NAME_BYTES_MAX, ACCOUNT_TOKEN_BYTES_MAX, JWKS_BYTES_MAX,
    JWKS_KEYS_MAX, KEY_ID_BYTES_MAX,
};

pub(crate) use crate::relay::AccountError;

use crate::registrar::keys::errors::KeysError;
use crate::registrar::keys::files::{object, read_file};

/// The token of a request: one header, of the characters that RFC 6750 allows.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, AccountError> {
    let max = ACCOUNT_TOKEN_BYTES_MAX;
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| AccountError::Text { max })?,
        (None, _) => return Err(AccountError::Missing),
        (Some(_), Some(_)) => return Err(AccountError::Text { max }),
    };
    let (scheme, token) = value.split_once(' ').ok_or(AccountError::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AccountError::Missing);
    }
    let token = token.trim_matches(' ');
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    match (1..=max).contains(&token.len()) && token.bytes().all(inner) {
        true => Ok(token),
        false => Err(AccountError::Text { max }),
    }
}

/// The keys of a file (JWK set, RFC 7517), by their names.
type Keys = HashMap<String, VerifyingKey>;

/// Tokens that are verified by the keys of a file.
pub(crate) struct Jwks {
    path: PathBuf,
    audience: Option<String>,
    keys: RwLock<Keys>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    /// Whatever it says, `null` included.
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

fn is_there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    nbf: Option<u64>,
    aud: Option<Audience>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Several(several) => several.iter().any(|one| one == name),
        }
    }
}

impl Jwks {
    /// Reads the file. Tokens have to be for this audience, if one is given.
    pub(crate) fn open(path: PathBuf, audience: Option<String>) -> Result<Self, KeysError> {
        let keys = RwLock::new(read_keys(&path)?);
        Ok(Self { path, audience, keys })
    }

    pub(crate) fn reload(&self) -> Result<(), KeysError> {
        let keys = read_keys(&self.path)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    pub(crate) fn check(&self, token: &str, now: u64) -> Result<String, AccountError> {
        let mut parts = token.split('.');
        let (Some(protected), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AccountError::Form);
        };
        let key = self.key(protected)?;
        let signature = from_base64url(signature).ok_or(AccountError::Form)?;
        let signature = Signature::from_slice(&signature).map_err(|_| AccountError::Signature)?;
        let signed = &token.as_bytes()[..protected.len() + 1 + payload.len()];
        key.verify_strict(signed, &signature).map_err(|_| AccountError::Signature)?;
        let payload = from_base64url(payload).ok_or(AccountError::Form)?;
        self.read_claims(&payload, now)
    }

    /// The key that the header names.
    fn key(&self, protected: &str) -> Result<VerifyingKey, AccountError> {
        let header = from_base64url(protected).ok_or(AccountError::Form)?;
        let header: Header = object(&header).ok_or(AccountError::Header)?;
        if header.alg != "EdDSA" {
            return Err(AccountError::Algorithm);
        }
        let typ = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        if header.crit || !["jwt", "at+jwt"].contains(&typ) {
            return Err(AccountError::Header);
        }
        let kid = header.kid.ok_or(AccountError::Header)?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(&kid).copied().ok_or(AccountError::UnknownKey)
    }

    fn read_claims(&self, payload: &[u8], now: u64) -> Result<String, AccountError> {
        let unreadable = AccountError::Claims { max: ACCOUNT_NAME_BYTES_MAX };
        let claims: Claims = object(payload).ok_or(unreadable)?;
        if !(1..=ACCOUNT_NAME_BYTES_MAX).contains(&claims.sub.len()) {
            return Err(unreadable);
        }
        if claims.exp.saturating_add(ACCOUNT_CLOCK_SECONDS) <= now {
            return Err(AccountError::Expired);
        }
        if claims.nbf.is_some_and(|nbf| nbf > now.saturating_add(ACCOUNT_CLOCK_SECONDS)) {
            return Err(AccountError::NotYet);
        }
        match (&self.audience, &claims.aud) {
            (Some(wanted), Some(found)) if found.has(wanted) => Ok(claims.sub),
            (Some(_), _) => Err(AccountError::Audience),
            (None, _) => Ok(claims.sub),
        }
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    /// The private half of a key, which has no business here.
    #[serde(default, deserialize_with = "is_there")]
    d: bool,
}

fn read_keys(path: &Path) -> Result<Keys, KeysError> {
    let bytes = read_file("keys of accounts (accounts)", path, JWKS_BYTES_MAX)?;
    parse_keys(&bytes).map_err(|why| KeysError::Jwks { path: path.to_owned(), why })
}

/// The Ed25519 keys of a set; those of other kinds are for other readers of it.
fn parse_keys(bytes: &[u8]) -> Result<Keys, String> {
    let form = "it is no JWK set: expected JSON like {\"keys\":[{\"kty\":\"OKP\",\
                \"crv\":\"Ed25519\",\"kid\":NAME,\"x\":BASE64URL}]}";
    let set: JwkSet = object(bytes).ok_or(form)?;
    if set.keys.len() > JWKS_KEYS_MAX {
        return Err(format!("it has {} keys, expected at most {JWKS_KEYS_MAX}", set.keys.len()));
    }
    let mut keys = Keys::new();
    for (at, jwk) in set.keys.iter().enumerate() {
        let number = at + 1;
        if jwk.d {
            return Err(format!(
                "key {number} has its private half (d): publish the public one only"
            ));
        }
        let is_ours = jwk.kty == "OKP"
            && jwk.crv.as_deref() == Some("Ed25519")
            && jwk.alg.as_deref().is_none_or(|alg| ["EdDSA", "Ed25519"].contains(&alg))
            && jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
        if !is_ours {
            continue;
        }
        let kid = jwk.kid.clone().filter(|kid| (1..=KEY_ID_BYTES_MAX).contains(&kid.len()));
        let kid = kid.ok_or_else(|| {
            format!("key {number} has no name (kid) of 1 to {KEY_ID_BYTES_MAX} bytes")
        })?;
        let key = jwk.x.as_deref().and_then(from_base64url);
        let key = key.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let key = key.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        let key = key.filter(|key| !key.is_weak());
        let key = key.ok_or_else(|| format!("key {number} has no Ed25519 point in x"))?;
        if keys.insert(kid, key).is_some() {
            return Err(format!("key {number} has the name (kid) of another"));
        }
    }
    match keys.is_empty() {
        true => Err("it has no Ed25519 key, so that no token would be accepted".to_owned()),
        false => Ok(keys),
    }
}
