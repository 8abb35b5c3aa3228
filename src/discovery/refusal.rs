//! Why a statement is refused. What a [`Refusal`] says never contains an identifier, a handle or
//! any other text of a claim that may name a person.

use std::fmt;

use super::jws::JwsError;

/// Why a statement is refused: a code for programs, and two texts for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: found {found}; expected {expected}")]
#[allow(missing_docs)] // Names say it.
pub struct Refusal {
    pub code: Code,
    pub found: String,
    pub expected: String,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The reasons for which statements are refused. Their texts never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as programs read it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// Longer than any statement.
    TooLong = "too_long",
    /// Neither a JWS nor a preference, or broken.
    Malformed = "malformed",
    /// A JWS with an `alg`, `typ` or `crit` that is not accepted.
    Header = "header",
    /// A claim is missing, has the wrong type, or a value that it cannot have.
    Claim = "claim",
    /// `sub` is no canonical identifier.
    Identifier = "identifier",
    /// `ssi` is no SSI.
    Ssi = "ssi",
    /// The directory has no such issuer.
    UnknownIssuer = "unknown_issuer",
    /// The issuer had no such key at that time.
    UnknownKey = "unknown_key",
    /// The issuer's signature is false.
    Forged = "forged",
    /// The directory has no such provider.
    UnknownProvider = "unknown_provider",
    /// The issuer may not speak about this provider, number or region.
    OutOfRemit = "out_of_remit",
    /// The proof is weaker than the issuer's remit demands.
    WeakProof = "weak_proof",
    /// Its validity is over.
    Expired = "expired",
    /// It was issued later than now.
    Future = "future",
    /// Its validity is empty or too long.
    Lifetime = "lifetime",
    /// Nobody agreed to be found.
    NoConsent = "no_consent",
    /// The user's signature is false.
    UserForged = "user_forged",
    /// The body of a batch is not the one that was signed.
    BatchBody = "batch_body",
    /// A batch is missing before this one, or it was there before.
    BatchSequence = "batch_sequence",
    /// A batch before this one was refused.
    BatchBefore = "batch_before",
    /// A line of a batch names another issuer, or a user.
    BatchIssuer = "batch_issuer",
    /// A preference whose key stands in no mapping of that identifier in force.
    PreferenceKey = "preference_key",
    /// A preference that would replace the one that another key made, which is in force.
    PreferenceTaken = "preference_taken",
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Refusal {
    /// One with these texts, neither of which may contain what names a person.
    pub fn new(code: Code, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { code, found: found.into(), expected: expected.into() }
    }
}

/// What is wrong about the form of a token.
impl From<JwsError> for Refusal {
    fn from(error: JwsError) -> Self {
        let code = match error {
            JwsError::Long { .. } => Code::TooLong,
            JwsError::Header | JwsError::Algorithm(_) | JwsError::Type { .. } => Code::Header,
            JwsError::Signature => Code::Forged,
            _ => Code::Malformed,
        };
        Self::new(
            code,
            error.to_string(),
            "a token as sotto statements makes it, or a preference as JSON",
        )
    }
}
