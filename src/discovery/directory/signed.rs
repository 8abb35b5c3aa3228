//! The file of a directory: a JWS in JSON form, before anything is believed.

use std::borrow::Cow;
use std::collections::HashSet;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::jws::{self, JwsError, Token};
use super::content::{Content, Key};
use super::errors::{DirectoryError, Whose, shown};
use crate::limits::{DIRECTORY_BYTES_MAX, DIRECTORY_ROOTS_MAX};

/// The `typ` of each signature.
pub const DIRECTORY_TYP: &str = "sotto-directory+jws";

#[derive(Serialize, Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow)]
    signatures: Vec<Part<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    protected: Cow<'a, str>,
    #[serde(borrow)]
    signature: Cow<'a, str>,
}

/// Content and signatures of a file, none of which was verified.
pub(super) struct Signed {
    payload: Vec<u8>,
    tokens: Vec<Token>,
}

impl Signed {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, DirectoryError> {
        let file = File::read(bytes)?;
        let payload = jws::from_base64url(&file.payload).ok_or(DirectoryError::Payload)?;
        let tokens = file.signatures.iter().enumerate().map(|(at, part)| {
            let text = format!("{}.{}.{}", part.protected, file.payload, part.signature);
            let token = jws::parse(&text, DIRECTORY_TYP, DIRECTORY_BYTES_MAX);
            token.map_err(|why| DirectoryError::Signature { number: at + 1, why })
        });
        Ok(Self { payload, tokens: tokens.collect::<Result<_, _>>()? })
    }

    /// Refuses a file that fewer than `threshold` of these roots have signed. Signatures of others
    /// are no matter; a wrong one in the name of a root is.
    pub(super) fn check(
        &self,
        whose: Whose,
        threshold: u32,
        roots: &[Key],
    ) -> Result<(), DirectoryError> {
        let mut signers = HashSet::new();
        for (at, token) in self.tokens.iter().enumerate() {
            let named = |root: &&Key| token.kid.as_ref() == Some(&root.id());
            let named: Vec<&Key> = roots.iter().filter(named).collect();
            match named.iter().find(|root| token.verify(root).is_ok()) {
                Some(root) => _ = signers.insert(root.as_bytes()),
                None if named.is_empty() => {}
                None => {
                    let why = JwsError::Signature;
                    return Err(DirectoryError::Signature { number: at + 1, why });
                }
            }
        }
        match signers.len() >= threshold as usize {
            true => Ok(()),
            false => {
                Err(DirectoryError::Threshold { whose, found: signers.len(), expected: threshold })
            }
        }
    }

    pub(super) fn content(&self) -> Result<Content, DirectoryError> {
        json("payload", &self.payload)
    }

    /// SHA-256 of the payload, whoever signed it.
    pub(super) fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.payload).into()
    }
}

impl<'a> File<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DirectoryError> {
        if bytes.len() > DIRECTORY_BYTES_MAX {
            return Err(DirectoryError::Long);
        }
        let file: Self = json("file", bytes)?;
        match file.signatures.len() <= DIRECTORY_ROOTS_MAX {
            true => Ok(file),
            false => Err(DirectoryError::Signatures(file.signatures.len())),
        }
    }

    fn to_json(&self) -> String {
        text(self) + "\n"
    }
}

/// A file of this payload, signed with each of these keys.
pub(super) fn sign(payload: &[u8], keys: &[SigningKey]) -> String {
    let encoded = jws::base64url(payload);
    let signatures = keys.iter().map(|key| Part::sign(payload, key)).collect();
    File { payload: Cow::Owned(encoded), signatures }.to_json()
}

/// The same file with signatures of these keys after those it has; where one of them has signed
/// before, in its place.
pub(super) fn add_signatures(bytes: &[u8], keys: &[SigningKey]) -> Result<String, DirectoryError> {
    let mut file = File::read(bytes)?;
    let payload = jws::from_base64url(&file.payload).ok_or(DirectoryError::Payload)?;
    for key in keys {
        let part = Part::sign(&payload, key);
        file.signatures.retain(|other| other.protected != part.protected);
        file.signatures.push(part);
    }
    Ok(file.to_json())
}

impl Part<'_> {
    fn sign(payload: &[u8], key: &SigningKey) -> Self {
        let token = jws::sign(DIRECTORY_TYP, payload, key);
        let mut parts = token.split('.').map(|part| Cow::Owned(part.to_owned()));
        let protected = parts.next().unwrap_or_default();
        let signature = parts.next_back().unwrap_or_default();
        Self { protected, signature }
    }
}

/// Writes JSON, members in the order of the struct.
pub(super) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("this is a bug: a directory that is no JSON")
}

/// The same for people, a member a line.
pub(super) fn lines(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value);
    text.expect("this is a bug: a directory that is no JSON") + "\n"
}

/// Reads JSON. A directory is public, so that errors may quote it.
pub(super) fn json<'a, T: Deserialize<'a>>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<T, DirectoryError> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        // serde would take an array of its values for an object.
        return Err(DirectoryError::Json { what, problem: "expected an object".to_owned() });
    }
    serde_json::from_slice(bytes)
        .map_err(|error| DirectoryError::Json { what, problem: shown(error.to_string()) })
}
