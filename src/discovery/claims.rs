//! The JSON of statements: claims and preferences as they are written, read into the types of
//! [`statement`](super::statement), with what is wrong about one that cannot be. Here is form
//! alone.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize};

use super::directory::Proof;
use super::identifier::Identifier;
use super::jws;
use super::refusal::{Code, Refusal};
use super::ssi::Ssi;
use super::statement::{
    Consent, Mapping, Preference, Purpose, Withdrawal, WithdrawnBy, no_consent,
};
use crate::limits::{JTI_BYTES_MAX, MAPPING_TAGS_MAX, TAG_BYTES_MAX};

/// The claims of a mapping as they are written.
#[derive(Serialize, Deserialize)]
struct MappingClaims<'a> {
    #[serde(borrow)]
    iss: Cow<'a, str>,
    #[serde(borrow)]
    sub: Cow<'a, str>,
    #[serde(borrow)]
    ssi: Cow<'a, str>,
    #[serde(borrow)]
    jti: Cow<'a, str>,
    iat: u64,
    exp: u64,
    #[serde(borrow)]
    proof: Cow<'a, str>,
    proof_at: u64,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    new_holder: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    uk: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    up: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    purpose: Option<String>,
}

impl Mapping {
    /// Reads the claims and checks their form, without their signatures.
    ///
    /// # Errors
    /// The first claim that is wrong.
    pub fn from_claims(json: &[u8]) -> Result<Self, Refusal> {
        let claims: MappingClaims<'_> = read_object(json, MAPPING_MEMBERS)?;
        check_tags(&claims.tags)?;
        let purpose = match claims.purpose.as_deref() {
            None => Purpose::default(),
            Some(name) => read_name(name)
                .ok_or_else(|| wrong("another purpose", "register or prefer as purpose"))?,
        };
        Ok(Self {
            iss: claims.iss.into_owned(),
            sub: read_identifier(&claims.sub)?,
            ssi: Ssi::parse(&claims.ssi)?,
            jti: read_jti(&claims.jti)?,
            iat: claims.iat,
            exp: claims.exp,
            proof: read_name(&claims.proof)
                .ok_or_else(|| wrong("another proof", "sms, call, email or self as proof"))?,
            proof_at: claims.proof_at,
            region: claims.region,
            new_holder: claims.new_holder,
            tags: claims.tags,
            user: read_consent(claims.uk.as_deref(), claims.up.as_deref())?,
            purpose,
        })
    }

    /// The claims as one line of JSON.
    pub fn to_claims(&self) -> String {
        let user = self.user.as_ref();
        to_json(&MappingClaims {
            iss: Cow::Borrowed(&self.iss),
            sub: self.sub.to_uri().into(),
            ssi: self.ssi.as_str().into(),
            jti: Cow::Borrowed(&self.jti),
            iat: self.iat,
            exp: self.exp,
            proof: proof_name(self.proof).into(),
            proof_at: self.proof_at,
            region: self.region.clone(),
            new_holder: self.new_holder,
            tags: self.tags.clone(),
            uk: user.map(|user| jws::base64url(&user.key)),
            up: user.map(|user| jws::base64url(&user.signature)),
            purpose: (self.purpose == Purpose::Prefer).then(|| "prefer".to_owned()),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct WithdrawalClaims<'a> {
    #[serde(borrow)]
    by: Cow<'a, str>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    uk: Option<String>,
    #[serde(borrow)]
    sub: Cow<'a, str>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    ssi: Option<String>,
    #[serde(borrow)]
    jti: Cow<'a, str>,
    iat: u64,
}

impl Withdrawal {
    /// Reads the claims and checks their form, without the signature.
    ///
    /// # Errors
    /// The first claim that is wrong.
    pub fn from_claims(json: &[u8]) -> Result<Self, Refusal> {
        let claims: WithdrawalClaims<'_> = read_object(json, WITHDRAWAL_MEMBERS)?;
        let by = match (&*claims.by, claims.iss, claims.uk) {
            ("issuer", Some(iss), None) => WithdrawnBy::Issuer(iss),
            ("authority", Some(iss), None) => WithdrawnBy::Authority(iss),
            ("user", None, Some(key)) => WithdrawnBy::User(read_bytes("uk", &key)?),
            _ => {
                let expected = "by: issuer or authority with iss, or by: user with uk";
                return Err(wrong("by, iss and uk that do not go together", expected));
            }
        };
        Ok(Self {
            by,
            sub: read_identifier(&claims.sub)?,
            ssi: claims.ssi.as_deref().map(Ssi::parse).transpose()?,
            jti: read_jti(&claims.jti)?,
            iat: claims.iat,
        })
    }

    /// The claims as one line of JSON.
    pub fn to_claims(&self) -> String {
        let (by, iss, uk) = match &self.by {
            WithdrawnBy::Issuer(iss) => ("issuer", Some(iss.clone()), None),
            WithdrawnBy::Authority(iss) => ("authority", Some(iss.clone()), None),
            WithdrawnBy::User(key) => ("user", None, Some(jws::base64url(key))),
        };
        to_json(&WithdrawalClaims {
            by: by.into(),
            iss,
            uk,
            sub: self.sub.to_uri().into(),
            ssi: self.ssi.as_ref().map(|ssi| ssi.as_str().to_owned()),
            jti: Cow::Borrowed(&self.jti),
            iat: self.iat,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct PreferenceLine<'a> {
    #[serde(borrow)]
    preference: PreferenceMembers<'a>,
}

#[derive(Serialize, Deserialize)]
struct PreferenceMembers<'a> {
    #[serde(borrow)]
    sub: Cow<'a, str>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    ssi: Option<String>,
    time: u64,
    #[serde(borrow)]
    uk: Cow<'a, str>,
    #[serde(borrow)]
    signature: Cow<'a, str>,
}

impl Preference {
    /// Reads the line and checks its form, without the signature.
    ///
    /// # Errors
    /// The first member that is wrong.
    pub fn from_line(line: &str) -> Result<Self, Refusal> {
        let is_object = |line| {
            let value: serde_json::Value = serde_json::from_str(line).ok()?;
            value.get("preference")?.is_object().then_some(())
        };
        let read = is_object(line).and_then(|()| serde_json::from_str(line).ok());
        let read: PreferenceLine<'_> = read.ok_or_else(|| explain_preference(line))?;
        let read = read.preference;
        Ok(Self {
            sub: read_identifier(&read.sub)?,
            ssi: read.ssi.as_deref().map(Ssi::parse).transpose()?,
            time: read.time,
            user: Consent {
                key: read_bytes("uk", &read.uk)?,
                signature: read_bytes("signature", &read.signature)?,
            },
        })
    }

    /// The line of input.
    pub fn to_line(&self) -> String {
        to_json(&PreferenceLine {
            preference: PreferenceMembers {
                sub: self.sub.to_uri().into(),
                ssi: self.ssi.as_ref().map(|ssi| ssi.as_str().to_owned()),
                time: self.time,
                uk: jws::base64url(&self.user.key).into(),
                signature: jws::base64url(&self.user.signature).into(),
            },
        })
    }
}

/// What each member of a JSON object has to be, for saying what is wrong about it.
pub(super) type Members = [(&'static str, Kind, Presence)];

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Number,
    Flag,
    Texts,
    Object,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Presence {
    Required,
    Optional,
}

use Kind::{Flag, Number, Object, Text, Texts};
use Presence::{Optional, Required};

const MAPPING_MEMBERS: &Members = &[
    ("iss", Text, Required),
    ("sub", Text, Required),
    ("ssi", Text, Required),
    ("jti", Text, Required),
    ("iat", Number, Required),
    ("exp", Number, Required),
    ("proof", Text, Required),
    ("proof_at", Number, Required),
    ("region", Text, Optional),
    ("new_holder", Flag, Optional),
    ("tags", Texts, Optional),
    ("uk", Text, Optional),
    ("up", Text, Optional),
    ("purpose", Text, Optional),
];

const WITHDRAWAL_MEMBERS: &Members = &[
    ("by", Text, Required),
    ("iss", Text, Optional),
    ("uk", Text, Optional),
    ("sub", Text, Required),
    ("ssi", Text, Optional),
    ("jti", Text, Required),
    ("iat", Number, Required),
];

const PREFERENCE_LINE_MEMBERS: &Members = &[("preference", Object, Required)];

const PREFERENCE_MEMBERS: &Members = &[
    ("sub", Text, Required),
    ("ssi", Text, Optional),
    ("time", Number, Required),
    ("uk", Text, Required),
    ("signature", Text, Required),
];

/// A member that may be absent, but not null.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads an object. serde would take an array of its values for it.
pub(super) fn read_object<'a, T: Deserialize<'a>>(
    json: &'a [u8],
    members: &Members,
) -> Result<T, Refusal> {
    let is_object = json.trim_ascii_start().starts_with(b"{");
    let read = if is_object { serde_json::from_slice(json).ok() } else { None };
    read.ok_or_else(|| explain(json, members))
}

/// Why serde refused an object. What serde says itself may quote a claim.
pub(super) fn explain(json: &[u8], members: &Members) -> Refusal {
    let expected = "one JSON object with the claims that docs/records.md lists";
    let value: serde_json::Value = match serde_json::from_slice(json) {
        Ok(value) => value,
        Err(error) => {
            let found = format!("JSON that is broken at column {}", error.column());
            return Refusal::new(Code::Malformed, found, expected);
        }
    };
    let Some(object) = value.as_object() else {
        return Refusal::new(Code::Malformed, "JSON that is no object", expected);
    };
    for &(name, kind, presence) in members {
        let (is_right, wanted) = match (object.get(name), kind) {
            (None, _) if presence == Required => {
                let wanted = format!("the claim {name}");
                return Refusal::new(Code::Claim, format!("no claim {name}"), wanted);
            }
            (None, _) => continue,
            (Some(value), Text) => (value.is_string(), "a text"),
            (Some(value), Number) => (value.is_u64(), "a whole number, not negative"),
            (Some(value), Flag) => (value.is_boolean(), "true or false"),
            (Some(value), Object) => (value.is_object(), "an object"),
            (Some(value), Texts) => {
                let texts = value.as_array();
                (texts.is_some_and(|t| t.iter().all(|t| t.is_string())), "a list of texts")
            }
        };
        if !is_right {
            let found = format!("the claim {name} of another type");
            return Refusal::new(Code::Claim, found, format!("{wanted} as {name}"));
        }
    }
    Refusal::new(Code::Claim, "a claim that is there twice", "each claim once")
}

/// A claim whose value cannot be.
fn wrong(found: &str, expected: &str) -> Refusal {
    Refusal::new(Code::Claim, found, expected)
}

fn read_identifier(sub: &str) -> Result<Identifier, Refusal> {
    Identifier::from_uri(sub).map_err(|error| {
        let expected =
            "tel:+ and the digits of a number, or mailto: and an address, in canonical form";
        Refusal::new(Code::Identifier, format!("a sub that is no identifier ({error})"), expected)
    })
}

fn read_jti(jti: &str) -> Result<String, Refusal> {
    match jti.len() {
        1..=JTI_BYTES_MAX => Ok(jti.to_owned()),
        _ => Err(wrong("a jti that is empty or too long", "a jti of 1 to 64 bytes")),
    }
}

/// A value from a closed set that serde knows by name.
fn read_name<'a, T: Deserialize<'a>>(name: &'a str) -> Option<T> {
    let from = serde::de::value::BorrowedStrDeserializer::<serde::de::value::Error>::new(name);
    T::deserialize(from).ok()
}

/// Bytes of a known number from canonical base64url.
pub(super) fn read_bytes<const N: usize>(claim: &str, text: &str) -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(length) if length == N => Ok(bytes),
        _ => Err(Refusal::new(
            Code::Claim,
            format!("a claim {claim} that is not {N} bytes in base64url"),
            format!("{N} bytes in base64url without padding"),
        )),
    }
}

fn read_consent(key: Option<&str>, signature: Option<&str>) -> Result<Option<Consent>, Refusal> {
    match (key, signature) {
        (None, None) => Ok(None),
        (Some(key), Some(signature)) => Ok(Some(Consent {
            key: read_bytes("uk", key)?,
            signature: read_bytes("up", signature)?,
        })),
        (Some(_), None) => Err(no_consent("uk without up")),
        (None, Some(_)) => Err(no_consent("up without uk")),
    }
}

fn proof_name(proof: Proof) -> &'static str {
    match proof {
        Proof::SelfDeclared => "self",
        Proof::Email => "email",
        Proof::Call => "call",
        Proof::Sms => "sms",
    }
}

pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("claims are texts and numbers, which JSON has")
}

pub(super) fn check_tags(tags: &[String]) -> Result<(), Refusal> {
    let is_tag = |tag: &String| {
        (1..=TAG_BYTES_MAX).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_graphic())
    };
    if tags.len() <= MAPPING_TAGS_MAX && tags.iter().all(is_tag) {
        return Ok(());
    }
    Err(wrong("tags that a record has no room for", "at most 8 tags of 1 to 16 ASCII characters"))
}

fn explain_preference(line: &str) -> Refusal {
    let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
    match value.as_ref().and_then(|value| value.get("preference")).filter(|p| p.is_object()) {
        Some(preference) => explain(preference.to_string().as_bytes(), PREFERENCE_MEMBERS),
        None => explain(line.as_bytes(), PREFERENCE_LINE_MEMBERS),
    }
}
