//! JSON Web Signatures (RFC 7515) of the one kind that sotto accepts: compact, Ed25519, with the
//! header `{"alg":"EdDSA","typ":TYP,"kid":KID}`.
//!
//! Whoever verifies says which `typ` it expects and which key; the text chooses neither. A header
//! has these three members, each once, and no other: `crit`, `b64`, `jwk`, `jku` and the like would
//! change what a signature means or whose it is. RFC 7515 would have unknown members ignored; this
//! is narrower on purpose, and a later format gets another `typ`. Base64 has to be canonical, so
//! that there is one text for one token.
//!
//! This is written out, with no crate for JWTs: `jwt-compact` 0.8 binds ed25519-dalek 2, brings
//! chrono and a second sha2, and its header type accepts unknown members, so that the checks here
//! would remain. Claims are bytes to this module; see [`super::directory`] for the JSON form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};

use crate::limits::{JWS_BYTES_MAX, KEY_ID_BYTES_MAX};

const ALGORITHM: &str = "EdDSA";

/// Why a text is no token that can be accepted. No message quotes a claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // Names say it.
pub enum JwsError {
    #[error("the token has {found} bytes, expected at most {max}")]
    Long { found: usize, max: usize },
    #[error("the token has {0} parts between dots, expected three: header.payload.signature")]
    Parts(usize),
    #[error("the {0} of the token is not base64url in canonical form without padding")]
    Base64(&'static str),
    #[error(
        "the header is not one JSON object of the texts alg, typ and kid, each once; other \
         members, such as crit, are not accepted"
    )]
    Header,
    #[error("the algorithm is {0}, expected {ALGORITHM} (Ed25519)")]
    Algorithm(String),
    #[error("the token is of type {found}, expected {expected}")]
    Type { found: String, expected: String },
    #[error("the signature has {0} bytes, expected 64")]
    SignatureLength(usize),
    #[error(
        "the signature was not made by the key that was expected: the token was changed or forged, \
         or signed with another key"
    )]
    Signature,
}

/// A token whose form is right. Whose it is, [`Token::verify`] says.
#[allow(missing_docs)] // Names say it.
pub struct Token {
    pub typ: String,
    pub kid: Option<String>,
    pub payload: Vec<u8>,
    signed: String,
    signature: Signature,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
}

/// A member that may be absent but not `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

impl Token {
    /// Checks the signature, strictly: malleable ones and weak keys are refused.
    ///
    /// # Errors
    /// [`JwsError::Signature`].
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), JwsError> {
        key.verify_strict(self.signed.as_bytes(), &self.signature).map_err(|_| JwsError::Signature)
    }
}

/// Reads a token of type `typ` and at most `max` bytes. Nothing is verified yet.
///
/// # Errors
/// What about its form is wrong.
pub fn parse(text: &str, typ: &str, max: usize) -> Result<Token, JwsError> {
    let [protected, payload, signature] = parts(text, max)?;
    let header = read_header(protected)?;
    if header.typ != typ {
        return Err(JwsError::Type { found: nameable(&header.typ), expected: typ.to_owned() });
    }
    let payload_bytes = from_base64url(payload).ok_or(JwsError::Base64("payload"))?;
    let signature = from_base64url(signature).ok_or(JwsError::Base64("signature"))?;
    let signature = <[u8; Signature::BYTE_SIZE]>::try_from(signature.as_slice())
        .map_err(|_| JwsError::SignatureLength(signature.len()))?;
    Ok(Token {
        typ: header.typ,
        kid: header.kid,
        payload: payload_bytes,
        signed: text[..protected.len() + 1 + payload.len()].to_owned(),
        signature: Signature::from_bytes(&signature),
    })
}

/// The type that a token claims, for choosing how to read it; [`parse`] checks it again.
///
/// # Errors
/// What about its form is wrong.
pub fn peek_typ(text: &str) -> Result<String, JwsError> {
    let [protected, ..] = parts(text, JWS_BYTES_MAX)?;
    read_header(protected).map(|header| header.typ)
}

/// A compact token, its key named by [`key_id`]. `typ` is a constant that needs no escapes in JSON.
pub fn sign(typ: &str, payload: &[u8], key: &SigningKey) -> String {
    let kid = key_id(&key.verifying_key());
    let header = format!(r#"{{"alg":"{ALGORITHM}","typ":"{typ}","kid":"{kid}"}}"#);
    let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(payload));
    let signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", base64url(&signature.to_bytes()))
}

/// The name of a key in headers: the first 8 bytes of SHA-256 over its 32, as base64url. It only
/// says which key to try.
pub fn key_id(key: &VerifyingKey) -> String {
    base64url(&Sha256::digest(key.as_bytes())[..8])
}

/// Base64url without padding.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of base64url without padding; `None` for any text but the canonical one.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn parts(text: &str, max: usize) -> Result<[&str; 3], JwsError> {
    if text.len() > max {
        return Err(JwsError::Long { found: text.len(), max });
    }
    let parts: Vec<&str> = text.split('.').collect();
    <[&str; 3]>::try_from(parts).map_err(|parts| JwsError::Parts(parts.len()))
}

fn read_header(protected: &str) -> Result<Header, JwsError> {
    let bytes = from_base64url(protected).ok_or(JwsError::Base64("header"))?;
    // Serde would take an array for the object, and its errors would quote the header.
    let object = Some(bytes).filter(|bytes| bytes.starts_with(b"{")).ok_or(JwsError::Header)?;
    let header: Header = serde_json::from_slice(&object).map_err(|_| JwsError::Header)?;
    if header.alg != ALGORITHM {
        return Err(JwsError::Algorithm(nameable(&header.alg)));
    }
    match header.kid.as_ref().map(String::len) {
        None | Some(1..=KEY_ID_BYTES_MAX) => Ok(header),
        Some(_) => Err(JwsError::Header),
    }
}

/// A name from a header for a message, unless it may be something else than a name.
fn nameable(text: &str) -> String {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let is_name = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-".contains(&b));
    match text.len() {
        0 => "empty".to_owned(),
        1..=40 if is_name && digits <= 3 => text.to_owned(),
        _ => "another one".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYP: &str = "sotto-mapping+jwt";
    const PAYLOAD: &[u8] = b"Example of Ed25519 signing";
    /// The name of the key of RFC 8037, appendix A.
    const KID: &str = "If4x36FUomE";

    fn key() -> SigningKey {
        let secret = from_base64url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        SigningKey::from_bytes(&secret.try_into().unwrap())
    }

    /// Signed by the right key over any header, as an attacker who is an issuer could.
    fn with_header(header: &str) -> String {
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(PAYLOAD));
        format!("{signed}.{}", base64url(&key().sign(signed.as_bytes()).to_bytes()))
    }

    fn refused(text: &str) -> JwsError {
        match parse(text, TYP, JWS_BYTES_MAX) {
            Err(error) => error,
            Ok(_) => panic!("{text} was accepted"),
        }
    }

    fn is_accepted(text: &str) -> bool {
        let token = parse(text, TYP, JWS_BYTES_MAX);
        token.is_ok_and(|token| token.verify(&key().verifying_key()).is_ok())
    }

    /// Made by Python's `cryptography` 48: the key of RFC 8037, appendix A, its name as here.
    #[test]
    fn a_token_is_the_one_that_another_program_makes() {
        let token = sign(TYP, PAYLOAD, &key());
        assert_eq!(
            token,
            "eyJhbGciOiJFZERTQSIsInR5cCI6InNvdHRvLW1hcHBpbmcrand0Iiwia2lkIjoiSWY0eDM2RlVvbUUifQ.\
             RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
             Ni3jI8wwdXmh8LY7mNAUTVnzdNWyYFuL4OFz9EzQx4XPFSFSGXRJ6UJq2qmRU8SlKjqpitw0i2De8g8FlGDuAw"
        );
        assert_eq!(peek_typ(&token).unwrap(), TYP);
        let token = parse(&token, TYP, JWS_BYTES_MAX).unwrap();
        assert_eq!((token.typ.as_str(), token.kid.as_deref()), (TYP, Some(KID)));
        assert_eq!(token.payload, PAYLOAD);
        assert!(token.verify(&key().verifying_key()).is_ok());
    }

    #[test]
    fn the_key_decides_and_not_the_token() {
        let other = SigningKey::from_bytes(&[7; 32]);
        let token = parse(&sign(TYP, PAYLOAD, &other), TYP, JWS_BYTES_MAX).unwrap();
        assert_eq!(token.verify(&key().verifying_key()), Err(JwsError::Signature));
        // In the name of the right key.
        let header = format!(r#"{{"alg":"EdDSA","typ":"{TYP}","kid":"{KID}"}}"#);
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(PAYLOAD));
        let forged = format!("{signed}.{}", base64url(&other.sign(signed.as_bytes()).to_bytes()));
        assert!(is_accepted(&with_header(&header)));
        assert!(!is_accepted(&forged));
    }

    #[test]
    fn every_other_algorithm_is_refused() {
        let others =
            ["none", "None", "HS256", "HS512", "RS256", "ES256", "eddsa", "EDDSA", "Ed25519", ""];
        for alg in others {
            let header = format!(r#"{{"alg":"{alg}","typ":"{TYP}","kid":"{KID}"}}"#);
            let error = refused(&with_header(&header));
            assert!(matches!(error, JwsError::Algorithm(_)), "{alg}: {error}");
            assert!(error.to_string().contains(alg), "{alg}: {error}");
            assert!(peek_typ(&with_header(&header)).is_err(), "{alg}");
        }
        // Without a signature, as `none` has it.
        let header = base64url(format!(r#"{{"alg":"none","typ":"{TYP}"}}"#).as_bytes());
        let unsigned = format!("{header}.{}.", base64url(PAYLOAD));
        assert!(matches!(refused(&unsigned), JwsError::Algorithm(_)));
        let header = base64url(format!(r#"{{"alg":"EdDSA","typ":"{TYP}"}}"#).as_bytes());
        let unsigned = format!("{header}.{}.", base64url(PAYLOAD));
        assert_eq!(refused(&unsigned), JwsError::SignatureLength(0));
    }

    #[test]
    fn a_token_of_one_type_is_none_of_another() {
        for typ in ["sotto-withdrawal+jwt", "sotto-batch+jwt", "JWT", "SOTTO-MAPPING+JWT", ""] {
            let error = refused(&sign(typ, PAYLOAD, &key()));
            assert!(matches!(error, JwsError::Type { .. }), "{typ}: {error}");
            assert!(error.to_string().contains(TYP), "{typ}: {error}");
        }
        // RFC 7515 has `application/` in front mean the same; here it does not.
        assert!(matches!(
            refused(&sign("application/sotto-mapping+jwt", PAYLOAD, &key())),
            JwsError::Type { .. }
        ));
    }

    #[test]
    fn a_header_has_its_three_members_once_and_no_other() {
        let three = format!(r#""alg":"EdDSA","typ":"{TYP}","kid":"{KID}""#);
        let two = format!(r#""alg":"EdDSA","typ":"{TYP}""#);
        for right in [format!("{{{three}}}"), format!("{{{two}}}"), format!("{{ {three} }} ")] {
            assert!(is_accepted(&with_header(&right)), "{right}");
        }
        let long = "k".repeat(KEY_ID_BYTES_MAX + 1);
        let wrong = [
            format!(r#"{{{three},"crit":["b64"]}}"#),
            format!(r#"{{{three},"crit":[]}}"#),
            format!(r#"{{{three},"crit":null}}"#),
            format!(r#"{{{three},"b64":false}}"#),
            format!(r#"{{{three},"jwk":{{"kty":"OKP"}}}}"#),
            format!(r#"{{{three},"jku":"https://a.example/"}}"#),
            format!(r#"{{{three},"cty":"JWT"}}"#),
            format!(r#"{{{three},"alg":"EdDSA"}}"#),
            format!(r#"{{"alg":"none",{three}}}"#),
            format!(r#"{{{three},"typ":"{TYP}"}}"#),
            format!(r#"{{{three},"kid":"{KID}"}}"#),
            format!(r#"{{{three},"\u0061lg":"EdDSA"}}"#),
            format!(r#"{{{two},"kid":null}}"#),
            format!(r#"{{{two},"kid":1}}"#),
            format!(r#"{{{two},"kid":""}}"#),
            format!(r#"{{{two},"kid":"{long}"}}"#),
            format!(r#"{{"typ":"{TYP}","kid":"{KID}"}}"#),
            format!(r#"{{"alg":"EdDSA","kid":"{KID}"}}"#),
            format!(r#"{{"alg":["EdDSA"],"typ":"{TYP}"}}"#),
            format!(r#"["EdDSA","{TYP}","{KID}"]"#),
            format!(r#"{{{three}}}{{}}"#),
            format!(" {{{three}}}"),
            format!("{{{three}"),
            "null".to_owned(),
            String::new(),
        ];
        for header in wrong {
            assert_eq!(refused(&with_header(&header)), JwsError::Header, "{header}");
        }
        let not_text = format!("{}.{}.x", base64url(b"{\"alg\":\"\xff\"}"), base64url(PAYLOAD));
        assert_eq!(refused(&not_text), JwsError::Header);
    }

    #[test]
    fn there_is_one_text_for_one_token() {
        let token = sign(TYP, PAYLOAD, &key());
        let [header, payload, signature]: [&str; 3] =
            token.split('.').collect::<Vec<_>>().try_into().unwrap();
        // 26 bytes of payload and 64 of signature leave bits over in the last character.
        for (part, what) in [(header, "header"), (payload, "payload"), (signature, "signature")] {
            let mut others = vec![format!("{part}="), format!("{part}=="), format!("{part}\n")];
            others.extend([format!(" {part}"), format!("{part}A"), format!("+{}", &part[1..])]);
            let last = part.chars().last().unwrap();
            let alphabet = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']);
            let before = &part[..part.len() - 1];
            others.extend(alphabet.filter(|&c| c != last).map(|c| format!("{before}{c}")));
            for other in others {
                let text = token.replace(part, &other);
                assert!(!is_accepted(&text), "{what} {other:?}");
            }
        }
        assert_eq!(
            refused(&token.replace(payload, &format!("{payload}="))),
            JwsError::Base64("payload")
        );
    }

    #[test]
    fn a_token_has_three_parts_and_a_bound() {
        let token = sign(TYP, PAYLOAD, &key());
        assert_eq!(refused(""), JwsError::Parts(1));
        assert_eq!(refused(token.rsplit_once('.').unwrap().0), JwsError::Parts(2));
        assert_eq!(refused(&format!("{token}.")), JwsError::Parts(4));
        assert!(parse(&token, TYP, token.len()).is_ok());
        let error = parse(&token, TYP, token.len() - 1).err().unwrap();
        assert_eq!(error, JwsError::Long { found: token.len(), max: token.len() - 1 });
        assert!(matches!(peek_typ(&"a".repeat(JWS_BYTES_MAX + 1)), Err(JwsError::Long { .. })));
        for bytes in [63, 65] {
            let (signed, _) = token.rsplit_once('.').unwrap();
            let text = format!("{signed}.{}", base64url(&vec![1; bytes]));
            assert_eq!(refused(&text), JwsError::SignatureLength(bytes));
        }
    }

    #[test]
    fn no_bit_of_a_token_can_change() {
        let token = sign(TYP, PAYLOAD, &key());
        for at in 0..token.len() {
            for bit in 0..8 {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert!(
                    !String::from_utf8(bytes).is_ok_and(|text| is_accepted(&text)),
                    "{at} {bit}"
                );
            }
            assert!(!is_accepted(&token[..at]), "cut at {at}");
        }
    }

    /// The order of the group, little-endian: a signature's second half plus this is another that
    /// lax verification takes.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    #[test]
    fn signatures_are_verified_strictly() {
        let token = sign(TYP, PAYLOAD, &key());
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut signature = from_base64url(signature).unwrap();
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        assert!(!is_accepted(&format!("{signed}.{}", base64url(&signature))));
        // The neutral element as key and as R with s = 0 satisfies the equation for any message.
        let mut neutral = [0; 64];
        neutral[0] = 1;
        let weak = VerifyingKey::from_bytes(neutral[..32].try_into().unwrap()).unwrap();
        let token = format!("{signed}.{}", base64url(&neutral));
        let token = parse(&token, TYP, JWS_BYTES_MAX).unwrap();
        assert_eq!(token.verify(&weak), Err(JwsError::Signature));
    }

    #[test]
    fn messages_do_not_quote_what_may_be_about_a_person() {
        for secret in ["+4915112345678", "ada@a.example", "mimi://a.example/u/ada"] {
            let alg = format!(r#"{{"alg":"{secret}","typ":"{TYP}"}}"#);
            let typ = format!(r#"{{"alg":"EdDSA","typ":"{secret}"}}"#);
            let member = format!(r#"{{"alg":"EdDSA","typ":"{TYP}","{secret}":1}}"#);
            let kind = format!(r#"{{"alg":"EdDSA","typ":"{TYP}","kid":["{secret}"]}}"#);
            for header in [alg, typ, member, kind] {
                let error = refused(&with_header(&header));
                assert!(!format!("{error} {error:?}").contains(secret), "{error}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text: String, header: Vec<u8>, payload: Vec<u8>, signature: [u8; 32]) {
            let _ = (peek_typ(&text), parse(&text, TYP, JWS_BYTES_MAX));
            let text = format!(
                "{}.{}.{}", base64url(&header), base64url(&payload), base64url(&signature.repeat(2))
            );
            prop_assert!(!is_accepted(&text));
        }

        #[test]
        fn what_was_signed_is_read(payload: Vec<u8>, secret: [u8; 32]) {
            let key = SigningKey::from_bytes(&secret);
            let token = parse(&sign(TYP, &payload, &key), TYP, usize::MAX).unwrap();
            prop_assert!(token.verify(&key.verifying_key()).is_ok());
            prop_assert_eq!(token.kid, Some(key_id(&key.verifying_key())));
            prop_assert_eq!(token.payload, payload);
        }
    }
}
