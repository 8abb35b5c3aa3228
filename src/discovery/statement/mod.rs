//! Statements about who is reached where: what an issuer vouches for ([`Mapping`]), what is taken
//! back ([`Withdrawal`]), and which service a person prefers ([`Preference`]).
//!
//! A statement is one line of text. [`Statement::read`] checks everything that can be checked of it
//! alone: its form, its signatures, the issuer's remit and its times. What several statements mean
//! together is decided where they are merged. A statement whose issuer signed it within a batch has
//! no signature of its own (see [`batch`](super::batch)). How statements are written is in
//! [`claims`](super::claims).
//!
//! What a [`Refusal`] says never contains an identifier, a handle or any other text of a claim that
//! may name a person.

use std::fmt;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::directory::{Directory, Issuer, Proof};
use super::identifier::Identifier;
use super::jws::{self, Token};
pub use super::refusal::{Code, Refusal};
use super::ssi;
pub use super::ssi::Ssi;
use crate::limits::{
    CLOCK_AHEAD_SECONDS_MAX, FRESH_PROOF_SECONDS_MAX, JWS_BYTES_MAX, MAPPING_SECONDS_MAX,
};

/// The `typ` of a mapping.
pub const MAPPING_TYP: &str = "sotto-mapping+jwt";
/// The `typ` of a withdrawal.
pub const WITHDRAWAL_TYP: &str = "sotto-withdrawal+jwt";

/// An Ed25519 public key of a user, as it is written.
pub type UserKey = [u8; 32];
/// An Ed25519 signature, as it is written.
pub type SignatureBytes = [u8; 64];

/// One line of input.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Statement {
    Mapping(Mapping),
    Withdrawal(Withdrawal),
    Preference(Preference),
}

/// An issuer's word that the person with an identifier is reached at an SSI.
#[derive(Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Domain of the issuer.
    pub iss: String,
    /// Whom it is about.
    pub sub: Identifier,
    /// Where that person is reached.
    pub ssi: Ssi,
    /// The issuer's name for this statement.
    pub jti: String,
    /// When the issuer signed it.
    pub iat: u64,
    /// From when on it is void.
    pub exp: u64,
    /// How the person proved to have the identifier.
    pub proof: Proof,
    /// When the person proved it.
    pub proof_at: u64,
    /// The only region in which it may lie, if there is one.
    pub region: Option<String>,
    /// Whether the identifier has another holder since: earlier statements are void.
    pub new_holder: bool,
    /// What the service is for.
    pub tags: Vec<String>,
    /// The user's consent: none only before the date until which the directory exempts the issuer.
    pub user: Option<Consent>,
    /// What the person proved the identifier for.
    pub purpose: Purpose,
}

/// The user's key and its signature over a mapping: `uk` and `up`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub struct Consent {
    pub key: UserKey,
    pub signature: SignatureBytes,
}

/// What a person proved to have an identifier for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// To be found.
    #[default]
    Register,
    /// To set the preferred service although another key did so before.
    Prefer,
}

/// Voids mappings that are not later than it.
#[derive(Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// Who withdraws, and so which mappings.
    pub by: WithdrawnBy,
    /// Whom they are about.
    pub sub: Identifier,
    /// The only SSI that it concerns; none stands for all.
    pub ssi: Option<Ssi>,
    /// The issuer's or user's name for this statement.
    pub jti: String,
    /// Mappings issued at this time or before are void.
    pub iat: u64,
}

/// Who withdraws mappings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WithdrawnBy {
    /// The issuer of this domain: its own mappings.
    Issuer(String),
    /// The user with this key: mappings that have it as `uk`.
    User(UserKey),
    /// The number authority of this domain: mappings of every issuer.
    Authority(String),
}

impl WithdrawnBy {
    /// Domain of the issuer or authority; none if it is by a user.
    pub fn issuer(&self) -> Option<&str> {
        match self {
            Self::Issuer(iss) | Self::Authority(iss) => Some(iss),
            Self::User(_) => None,
        }
    }
}

/// A person's word which of their services comes first.
#[derive(Clone, PartialEq, Eq)]
pub struct Preference {
    /// Whom it is about.
    pub sub: Identifier,
    /// The preferred SSI; none if no service is preferred any more.
    pub ssi: Option<Ssi>,
    /// When it was made.
    pub time: u64,
    /// The user's key, and its signature over [`preference_text`].
    pub user: Consent,
}

impl Statement {
    /// Reads a line and checks all of it that can be checked alone. What costs least comes first.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn read(line: &str, directory: &Directory, now: u64) -> Result<Self, Refusal> {
        check_length(line)?;
        if line.starts_with('{') {
            let preference = Preference::from_line(line)?;
            preference.check(now)?;
            return Ok(Self::Preference(preference));
        }
        match jws::peek_typ(line)?.as_str() {
            MAPPING_TYP => {
                let token = jws::parse(line, MAPPING_TYP, JWS_BYTES_MAX)?;
                let mapping = Mapping::from_claims(&token.payload)?;
                let issuer = mapping.check(directory, now)?;
                verify(&token, issuer, mapping.iat)?;
                mapping.verify_consent()?;
                Ok(Self::Mapping(mapping))
            }
            WITHDRAWAL_TYP => {
                let token = jws::parse(line, WITHDRAWAL_TYP, JWS_BYTES_MAX)?;
                let withdrawal = Withdrawal::from_claims(&token.payload)?;
                withdrawal.check(directory, now)?;
                match &withdrawal.by {
                    WithdrawnBy::User(key) => verify_by_user(&token, key)?,
                    WithdrawnBy::Issuer(iss) | WithdrawnBy::Authority(iss) => {
                        verify(&token, issuer_of(directory, iss)?, withdrawal.iat)?;
                    }
                }
                Ok(Self::Withdrawal(withdrawal))
            }
            _ => Err(Refusal::new(
                Code::Header,
                "a token of another type",
                format!("{MAPPING_TYP} or {WITHDRAWAL_TYP} (a batch has a file of its own)"),
            )),
        }
    }

    /// Whom it is about.
    pub fn sub(&self) -> &Identifier {
        match self {
            Self::Mapping(mapping) => &mapping.sub,
            Self::Withdrawal(withdrawal) => &withdrawal.sub,
            Self::Preference(preference) => &preference.sub,
        }
    }
}

pub(super) fn check_length(line: &str) -> Result<(), Refusal> {
    match line.len() {
        0..=JWS_BYTES_MAX => Ok(()),
        long => Err(Refusal::new(
            Code::TooLong,
            format!("{long} bytes"),
            format!("at most {JWS_BYTES_MAX} bytes; shorten the claims"),
        )),
    }
}

/// Verifies a token by the key that it names and that its issuer had at that time.
pub(super) fn verify(token: &Token, issuer: &Issuer, at: u64) -> Result<(), Refusal> {
    let key = token.kid.as_deref().and_then(|kid| issuer.key(kid, at));
    let Some(key) = key else {
        return Err(Refusal::new(
            Code::UnknownKey,
            format!("a kid of no key that {} had at the time of the statement", issuer.domain),
            "one of the keys that the directory gives this issuer for that time",
        ));
    };
    token.verify(key.key.verifying_key()).map_err(|_| {
        let found = format!("a signature that the key of {} did not make over this", issuer.domain);
        Refusal::new(
            Code::Forged,
            found,
            "the statement as it was signed; sign changed claims again",
        )
    })
}

fn verify_by_user(token: &Token, key: &UserKey) -> Result<(), Refusal> {
    let key = VerifyingKey::from_bytes(key).ok();
    if key.is_some_and(|key| token.verify(&key).is_ok()) {
        return Ok(());
    }
    Err(user_forged("the withdrawal as it was signed with the private key of uk"))
}

fn user_forged(expected: &str) -> Refusal {
    Refusal::new(Code::UserForged, "a signature that the key uk did not make over this", expected)
}

pub(super) fn issuer_of<'a>(directory: &'a Directory, iss: &str) -> Result<&'a Issuer, Refusal> {
    directory.issuer_of(iss).ok_or_else(|| unknown_issuer(iss))
}

fn unknown_issuer(iss: &str) -> Refusal {
    Refusal::new(
        Code::UnknownIssuer,
        format!("the issuer {}", ssi::nameable_domain(iss)),
        "an issuer of the directory; use a newer directory if it was added",
    )
}

pub(super) fn check_not_future(what: &str, time: u64, now: u64) -> Result<(), Refusal> {
    if time <= now.saturating_add(CLOCK_AHEAD_SECONDS_MAX) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::Future,
        format!("{what} {time}, {} seconds after now", time - now),
        format!("at most {CLOCK_AHEAD_SECONDS_MAX} seconds after now ({now}); check both clocks"),
    ))
}

pub(super) fn no_consent(found: &str) -> Refusal {
    let expected = "the user's key uk and its signature up: without them nobody agreed to be found";
    Refusal::new(Code::NoConsent, found, expected)
}

/// What the user signs to agree to a mapping.
pub fn consent_text(sub: &Identifier, ssi: &Ssi, iss: &str, iat: u64) -> Vec<u8> {
    let (sub, ssi) = (sub.to_uri(), ssi.as_str());
    format!("sotto mapping 1\0{sub}\0{ssi}\0{iss}\0{iat}").into_bytes()
}

/// What the user signs to prefer an SSI, or none.
pub fn preference_text(sii: &str, ssi: Option<&str>, time: u64) -> Vec<u8> {
    format!("sotto preference 1\0{sii}\0{}\0{time}", ssi.unwrap_or("")).into_bytes()
}

impl Consent {
    /// Signs a text as a user.
    pub fn new(text: &[u8], key: &SigningKey) -> Self {
        Self { key: key.verifying_key().to_bytes(), signature: key.sign(text).to_bytes() }
    }

    /// Whether the key made the signature over this text. Strict: malleable signatures and weak
    /// keys are refused.
    pub fn is_of(&self, text: &[u8]) -> bool {
        let signature = Signature::from_bytes(&self.signature);
        let key = VerifyingKey::from_bytes(&self.key);
        key.is_ok_and(|key| key.verify_strict(text, &signature).is_ok())
    }
}

impl Mapping {
    /// Checks the times, the issuer's remit, and that the user's consent is there. Returns the
    /// issuer. Verifies no signature.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn check<'a>(&self, directory: &'a Directory, now: u64) -> Result<&'a Issuer, Refusal> {
        let issuer = issuer_of(directory, &self.iss)?;
        self.check_times(now)?;
        self.check_remit(issuer, directory)?;
        self.check_proof(issuer)?;
        let is_exempt = issuer.exempt_before.is_some_and(|before| self.iat < before);
        if self.user.is_none() && !(is_exempt && self.purpose == Purpose::Register) {
            return Err(no_consent("neither uk nor up"));
        }
        Ok(issuer)
    }

    fn check_times(&self, now: u64) -> Result<(), Refusal> {
        check_not_future("iat", self.iat, now)?;
        if self.exp <= now {
            let expected = format!("exp after now ({now}); let the issuer sign a new statement");
            return Err(Refusal::new(Code::Expired, format!("exp {}", self.exp), expected));
        }
        let lifetime = self.exp.saturating_sub(self.iat);
        if lifetime == 0 || lifetime > MAPPING_SECONDS_MAX {
            let found = format!("iat {} and exp {}", self.iat, self.exp);
            let expected = "exp after iat by at most 400 days";
            return Err(Refusal::new(Code::Lifetime, found, expected));
        }
        Ok(())
    }

    fn check_remit(&self, issuer: &Issuer, directory: &Directory) -> Result<(), Refusal> {
        let domain = self.ssi.domain();
        let out = |found: String, expected: &str| {
            let found = format!("{} speaking about {found}", issuer.domain);
            Err(Refusal::new(Code::OutOfRemit, found, expected))
        };
        if directory.provider_of(domain).is_none() {
            return Err(Refusal::new(
                Code::UnknownProvider,
                format!("the provider {}", ssi::nameable_domain(domain)),
                "a provider of the directory; use a newer directory if it was added",
            ));
        }
        if !issuer.remit.providers.iter().any(|provider| provider == domain) {
            return out(format!("the provider {domain}"), "a provider of its remit");
        }
        if !issuer.remit.covers(&self.sub) {
            return out("a number elsewhere".into(), "a number with a prefix of its remit");
        }
        match &self.region {
            Some(region) if !issuer.remit.regions.contains(region) => {
                out("a region that it has not".into(), "a region of its remit, or none")
            }
            _ => Ok(()),
        }
    }

    fn check_proof(&self, issuer: &Issuer) -> Result<(), Refusal> {
        let weak =
            |found: String, expected: &str| Err(Refusal::new(Code::WeakProof, found, expected));
        if self.proof_at > self.iat {
            return weak(format!("proof_at {}", self.proof_at), "proof_at no later than iat");
        }
        if !Proof::suffices(self.proof, issuer.remit.proof, &self.sub) {
            let found = format!("the proof {:?}", self.proof);
            return weak(found, "a proof as strong as the directory demands of this issuer");
        }
        if self.purpose == Purpose::Register {
            return Ok(());
        }
        if self.proof == Proof::SelfDeclared {
            return weak("the proof self".into(), "for the purpose prefer: sms, call or email");
        }
        if self.iat - self.proof_at > FRESH_PROOF_SECONDS_MAX {
            let found = format!("a proof {} seconds before iat", self.iat - self.proof_at);
            return weak(found, "for the purpose prefer: a proof made for it within an hour");
        }
        Ok(())
    }

    /// Verifies the user's signature, if it is there.
    ///
    /// # Errors
    /// [`Code::UserForged`].
    pub fn verify_consent(&self) -> Result<(), Refusal> {
        match &self.user {
            Some(user) if !user.is_of(&self.consent_text()) => {
                Err(user_forged("up over sub, ssi, iss and iat of this statement, made with uk"))
            }
            _ => Ok(()),
        }
    }

    /// What the user signs to agree.
    pub fn consent_text(&self) -> Vec<u8> {
        consent_text(&self.sub, &self.ssi, &self.iss, self.iat)
    }

    /// The line with the issuer's signature.
    pub fn sign(&self, key: &SigningKey) -> String {
        jws::sign(MAPPING_TYP, self.to_claims().as_bytes(), key)
    }
}

impl Withdrawal {
    /// Checks the time, and that an authority is one and stays within its remit. Verifies no
    /// signature.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn check(&self, directory: &Directory, now: u64) -> Result<(), Refusal> {
        check_not_future("iat", self.iat, now)?;
        let WithdrawnBy::Authority(iss) = &self.by else { return Ok(()) };
        let authority = issuer_of(directory, iss)?;
        let out = |found: &str, expected: &str| {
            let found = format!("{} {found}", authority.domain);
            Err(Refusal::new(Code::OutOfRemit, found, expected))
        };
        if !authority.authority {
            return out("withdrawing as a number authority", "an authority of the directory");
        }
        if !authority.is_authority_over(&self.sub) {
            return out(
                "withdrawing an identifier elsewhere",
                "a number with a prefix of its remit",
            );
        }
        Ok(())
    }

    /// The line with the signature of the issuer or user.
    pub fn sign(&self, key: &SigningKey) -> String {
        jws::sign(WITHDRAWAL_TYP, self.to_claims().as_bytes(), key)
    }
}

impl Preference {
    /// Signs a preference as a user.
    pub fn new(sub: Identifier, ssi: Option<Ssi>, time: u64, key: &SigningKey) -> Self {
        let text = preference_text(sub.as_str(), ssi.as_ref().map(Ssi::as_str), time);
        Self { user: Consent::new(&text, key), sub, ssi, time }
    }

    /// Checks the time and the signature. Whether its key may speak for the identifier follows from
    /// mappings.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn check(&self, now: u64) -> Result<(), Refusal> {
        check_not_future("time", self.time, now)?;
        let ssi = self.ssi.as_ref().map(Ssi::as_str);
        if self.user.is_of(&preference_text(self.sub.as_str(), ssi, self.time)) {
            return Ok(());
        }
        Err(user_forged("signature over sub, ssi and time of this preference, made with uk"))
    }
}

/// A statement is about a person: no more than its kind and its issuer goes to logs.
impl fmt::Debug for Mapping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mapping").field("iat", &self.iat).finish_non_exhaustive()
    }
}

impl fmt::Debug for Withdrawal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Withdrawal").field("iat", &self.iat).finish_non_exhaustive()
    }
}

impl fmt::Debug for Preference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Preference").field("time", &self.time).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
