//! Who a device's account is, by the bearer token that it sends: a JWT that is verified here, or
//! any token about which a service is asked (`introspect.rs`).
//!
//! The token chooses nothing: the algorithm is EdDSA with Ed25519, the key is one of the operator's
//! file, found by the name in the header. A token's header may have other members, which mean
//! nothing here; `crit` says that one of them must be understood, and is refused. Tokens of sotto's
//! own types are refused too, for they have a `typ` of their own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::Deserialize;

use super::errors::{AccountError, Refusal, RelayError};
use super::introspect::{Introspection, object};
use crate::discovery::jws::from_base64url;
use crate::limits::{
    ACCOUNT_CLOCK_SECONDS, ACCOUNT_NAME_BYTES_MAX, ACCOUNT_TOKEN_BYTES_MAX, JWKS_BYTES_MAX,
    JWKS_KEYS_MAX, KEY_ID_BYTES_MAX,
};
use crate::shard::files::read_regular;

/// How accounts are recognised.
pub(super) enum Accounts {
    Jwks(Jwks),
    Introspection(Introspection),
}

impl Accounts {
    /// The name of the account whose token this is.
    pub(super) async fn check(&self, token: &str, now: u64) -> Result<String, Refusal> {
        match self {
            Self::Jwks(jwks) => Ok(jwks.check(token, now)?),
            Self::Introspection(introspection) => introspection.check(token, now).await,
        }
    }

    /// Reads the file of keys again. Where it cannot be used, the keys stay as they were.
    pub(super) fn reload(&self) -> Result<(), RelayError> {
        match self {
            Self::Jwks(jwks) => jwks.reload(),
            Self::Introspection(_) => Ok(()),
        }
    }
}

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
    pub(crate) fn open(path: PathBuf, audience: Option<String>) -> Result<Self, RelayError> {
        let keys = RwLock::new(read_keys(&path)?);
        Ok(Self { path, audience, keys })
    }

    pub(crate) fn reload(&self) -> Result<(), RelayError> {
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

fn read_keys(path: &Path) -> Result<Keys, RelayError> {
    let bad = |why: String| RelayError::Jwks { path: path.to_owned(), why };
    let bytes = read_regular(path, JWKS_BYTES_MAX + 1).map_err(|source| {
        RelayError::Unreadable { what: "keys of accounts", path: path.to_owned(), source }
    })?;
    if bytes.len() as u64 > JWKS_BYTES_MAX {
        return Err(bad(format!("it has more than {JWKS_BYTES_MAX} bytes, which no JWK set has")));
    }
    parse_keys(&bytes).map_err(bad)
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

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use serde_json::{Value, json};

    use super::*;
    use crate::discovery::jws::base64url;

    const NOW: u64 = 1_796_000_000;
    const HOUR: u64 = 3_600;
    const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT","kid":"one"}"#;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn jwk(kid: &str, key: &SigningKey) -> Value {
        let x = base64url(key.verifying_key().as_bytes());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "use": "sig", "alg": "EdDSA"})
    }

    /// Accounts by one key of the name `one`.
    fn jwks(audience: Option<&str>) -> (tempfile::TempDir, Jwks) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        std::fs::write(&path, json!({"keys": [jwk("one", &key())]}).to_string()).unwrap();
        let jwks = Jwks::open(path, audience.map(str::to_owned)).unwrap();
        (folder, jwks)
    }

    fn token(header: &str, claims: &str, key: &SigningKey) -> String {
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        format!("{signed}.{}", base64url(&key.sign(signed.as_bytes()).to_bytes()))
    }

    fn claims() -> String {
        json!({"sub": "account 1", "exp": NOW + HOUR}).to_string()
    }

    fn refused(header: &str, claims: &str) -> AccountError {
        let (_folder, jwks) = jwks(None);
        jwks.check(&token(header, claims, &key()), NOW).unwrap_err()
    }

    #[test]
    fn a_token_names_its_account() {
        let (_folder, jwks) = jwks(None);
        let headers = [
            HEADER,
            r#"{"alg":"EdDSA","kid":"one"}"#,
            r#"{"typ":"at+jwt","alg":"EdDSA","kid":"one","x5t":"abc"}"#,
            r#" {"typ":"application/at+JWT","alg":"EdDSA","kid":"one"}"#,
        ];
        for header in headers {
            let token = token(header, &claims(), &key());
            assert_eq!(jwks.check(&token, NOW).unwrap(), "account 1", "{header}");
        }
    }

    #[test]
    fn the_file_decides_which_key_and_which_algorithm() {
        assert_eq!(refused(r#"{"alg":"EdDSA","kid":"two"}"#, &claims()), AccountError::UnknownKey);
        for alg in ["none", "None", "HS256", "ES256", "RS256", "eddsa", "Ed25519", ""] {
            let header = json!({"alg": alg, "kid": "one"}).to_string();
            assert_eq!(refused(&header, &claims()), AccountError::Algorithm, "{alg}");
        }
        let wrong = [
            r#"{"alg":"EdDSA"}"#,
            r#"{"alg":"EdDSA","kid":null}"#,
            r#"{"kid":"one"}"#,
            r#"{"alg":"EdDSA","kid":"one","crit":["exp"],"exp":1}"#,
            r#"{"alg":"EdDSA","kid":"one","crit":null}"#,
            r#"{"alg":"EdDSA","kid":"one","alg":"EdDSA"}"#,
            r#"{"alg":"EdDSA","kid":"one","kid":"one"}"#,
            r#"{"alg":"EdDSA","kid":"one","typ":"sotto-mapping+jwt"}"#,
            r#"["EdDSA","one",null,false]"#,
            "null",
            "",
        ];
        for header in wrong {
            assert_eq!(refused(header, &claims()), AccountError::Header, "{header}");
        }
        // Without a signature, as `none` has it, and signed with the public key as a secret.
        let (_folder, jwks) = jwks(None);
        let none = base64url(br#"{"alg":"none","kid":"one"}"#);
        let unsigned = format!("{none}.{}.", base64url(claims().as_bytes()));
        assert_eq!(jwks.check(&unsigned, NOW), Err(AccountError::Algorithm));
        let right = base64url(HEADER.as_bytes());
        let unsigned = format!("{right}.{}.", base64url(claims().as_bytes()));
        assert_eq!(jwks.check(&unsigned, NOW), Err(AccountError::Signature));
    }

    #[test]
    fn every_byte_of_a_token_is_signed() {
        let (_folder, jwks) = jwks(None);
        let other = SigningKey::from_bytes(&[8; 32]);
        let forged = token(HEADER, &claims(), &other);
        assert_eq!(jwks.check(&forged, NOW), Err(AccountError::Signature));
        let right = token(HEADER, &claims(), &key());
        for at in 0..right.len() {
            let mut bytes = right.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(jwks.check(&changed, NOW).is_err(), "byte {at}");
            assert!(jwks.check(&right[..at], NOW).is_err(), "the first {at} bytes");
        }
        for text in ["", ".", "...", "a.b", "a.b.c.d", "!.!.!"] {
            assert_eq!(jwks.check(text, NOW), Err(AccountError::Form), "{text}");
        }
        assert_eq!(jwks.check(&format!("{right}="), NOW), Err(AccountError::Form));
    }

    #[test]
    fn clocks_may_differ_by_a_minute_and_not_by_an_hour() {
        let (_folder, jwks) = jwks(None);
        let at = |claims: Value, now: u64| {
            jwks.check(&token(HEADER, &claims.to_string(), &key()), now).map(|_| ())
        };
        let expires = json!({"sub": "a", "exp": NOW});
        assert_eq!(at(expires.clone(), NOW - HOUR), Ok(()));
        assert_eq!(at(expires.clone(), NOW + ACCOUNT_CLOCK_SECONDS - 1), Ok(()));
        assert_eq!(at(expires.clone(), NOW + ACCOUNT_CLOCK_SECONDS), Err(AccountError::Expired));
        assert_eq!(at(expires, NOW + HOUR), Err(AccountError::Expired));
        let begins = json!({"sub": "a", "exp": NOW + HOUR, "nbf": NOW});
        assert_eq!(at(begins.clone(), NOW - ACCOUNT_CLOCK_SECONDS), Ok(()));
        assert_eq!(at(begins.clone(), NOW - HOUR), Err(AccountError::NotYet));
        assert_eq!(at(begins, u64::MAX), Err(AccountError::Expired));
        let for_ever = json!({"sub": "a", "exp": u64::MAX, "nbf": 0});
        assert_eq!(at(for_ever, u64::MAX - 1), Ok(()));
    }

    #[test]
    fn claims_are_complete_and_of_their_types() {
        let long = "a".repeat(ACCOUNT_NAME_BYTES_MAX + 1);
        let wrong = [
            json!({"exp": NOW + HOUR}).to_string(),
            json!({"sub": "a"}).to_string(),
            json!({"sub": "", "exp": NOW + HOUR}).to_string(),
            json!({"sub": long, "exp": NOW + HOUR}).to_string(),
            json!({"sub": 1, "exp": NOW + HOUR}).to_string(),
            json!({"sub": "a", "exp": "never"}).to_string(),
            json!({"sub": "a", "exp": -1}).to_string(),
            json!({"sub": "a", "exp": NOW + HOUR, "nbf": "now"}).to_string(),
            format!(r#"{{"sub":"a","sub":"b","exp":{}}}"#, NOW + HOUR),
            format!(r#"["a",{}]"#, NOW + HOUR),
            format!(r#"{{"sub":"a","exp":{}}}x"#, NOW + HOUR),
            String::new(),
        ];
        for claims in wrong {
            let error = refused(HEADER, &claims);
            assert!(matches!(error, AccountError::Claims { .. }), "{claims}: {error}");
        }
    }

    #[test]
    fn a_token_is_for_the_audience_that_is_asked_for() {
        let (_folder, jwks) = jwks(Some("relay"));
        let with = |aud: Value| {
            let claims = json!({"sub": "a", "exp": NOW + HOUR, "aud": aud}).to_string();
            jwks.check(&token(HEADER, &claims, &key()), NOW).map(|_| ())
        };
        assert_eq!(with(json!("relay")), Ok(()));
        assert_eq!(with(json!(["other", "relay"])), Ok(()));
        for aud in [json!("other"), json!([]), json!(["relays"]), Value::Null] {
            assert_eq!(with(aud.clone()), Err(AccountError::Audience), "{aud}");
        }
        let none = jwks.check(&token(HEADER, &claims(), &key()), NOW);
        assert_eq!(none, Err(AccountError::Audience));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_and_the_keys_stay() {
        let (folder, jwks) = jwks(None);
        let path = folder.path().join("jwks.json");
        let right = token(HEADER, &claims(), &key());
        let mut private = jwk("one", &key());
        private["d"] = json!("secret");
        let mut short = jwk("one", &key());
        short["x"] = json!("AAAA");
        let mut weak = jwk("one", &key());
        weak["x"] = json!(base64url(&[0; 32]));
        let mut nameless = jwk("one", &key());
        nameless["kid"] = Value::Null;
        let rsa = json!({"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB"});
        let many: Vec<Value> = (0..=JWKS_KEYS_MAX).map(|n| jwk(&n.to_string(), &key())).collect();
        for (keys, why) in [
            (json!({"keys": [private]}), "private half"),
            (json!({"keys": [short]}), "no Ed25519 point"),
            (json!({"keys": [weak]}), "no Ed25519 point"),
            (json!({"keys": [nameless]}), "no name"),
            (json!({"keys": [jwk("a", &key()), jwk("a", &key())]}), "of another"),
            (json!({"keys": [rsa]}), "no Ed25519 key"),
            (json!({"keys": []}), "no Ed25519 key"),
            (json!({"keys": many}), "at most"),
            (json!({}), "no JWK set"),
            (json!([]), "no JWK set"),
        ] {
            std::fs::write(&path, keys.to_string()).unwrap();
            let error = jwks.reload().unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
            assert!(jwks.check(&right, NOW).is_ok(), "{why}");
        }
        std::fs::write(&path, vec![b' '; JWKS_BYTES_MAX as usize + 1]).unwrap();
        assert!(jwks.reload().unwrap_err().to_string().contains("more than"));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(jwks.reload(), Err(RelayError::Unreadable { .. })));
        assert!(jwks.check(&right, NOW).is_ok());

        let other = SigningKey::from_bytes(&[8; 32]);
        let keys = json!({"keys": [rsa, jwk("two", &other)]});
        std::fs::write(&path, keys.to_string()).unwrap();
        jwks.reload().unwrap();
        assert_eq!(jwks.check(&right, NOW), Err(AccountError::UnknownKey));
        let new = token(r#"{"alg":"EdDSA","kid":"two"}"#, &claims(), &other);
        assert!(jwks.check(&new, NOW).is_ok());
    }

    #[test]
    fn a_token_is_one_header_of_its_characters() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        for value in ["Bearer a.b-c_d~e+f/g==", "bearer a.b-c_d~e+f/g==", "BEARER  a.b-c_d~e+f/g=="]
        {
            assert_eq!(of(&[value]).unwrap(), "a.b-c_d~e+f/g==", "{value}");
        }
        for value in ["", "Basic YTpi", "Bearer", "Bearer:a"] {
            assert_eq!(of(&[value]), Err(AccountError::Missing), "{value}");
        }
        assert_eq!(of(&[]), Err(AccountError::Missing));
        let max = ACCOUNT_TOKEN_BYTES_MAX;
        let long = format!("Bearer {}", "a".repeat(max + 1));
        for value in ["Bearer ", "Bearer a b", "Bearer \"a\"", "Bearer a,b", &long] {
            assert_eq!(of(&[value]), Err(AccountError::Text { max }), "{value}");
        }
        assert!(of(&[&long[..long.len() - 1]]).is_ok());
        assert_eq!(of(&["Bearer a", "Bearer a"]), Err(AccountError::Text { max }));
    }
}
