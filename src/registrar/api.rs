//! Requests and replies of the registrar as JSON, and what the parts of the registrar hand each
//! other.

use serde::{Deserialize, Serialize};

/// How a code reaches the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // Names say it.
pub enum Channel {
    Sms,
    Call,
    Email,
}

/// POST `/v1/registrations`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRegistration {
    /// The identifier as a URI, `tel:+…` or `mailto:…`, in canonical form.
    pub sii: String,
    /// Where the person is reached: `mimi://` and a domain that the application provider speaks
    /// for.
    pub ssi: String,
    /// The user's public key, base64url.
    pub uk: String,
    /// The user's signature over `consent_text(sii, ssi, iss, iat)`, base64url; `iss` is the
    /// registrar's issuer.
    pub up: String,
    /// When the user signed. It becomes `iat` and `proof_at` of the mapping: the proof is never
    /// older than that.
    pub iat: u64,
    /// How the code is to be sent.
    pub channel: Channel,
    /// `register` (default) or `prefer`.
    #[serde(default)]
    pub purpose: crate::discovery::statement::Purpose,
    /// Language of the message, such as `de`; unknown ones get the default.
    #[serde(default)]
    pub language: Option<String>,
    /// The person says that the number is theirs since somebody else had it.
    #[serde(default)]
    pub new_holder: bool,
}

/// POST `/v1/registrations/{id}/code`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entered {
    /// Six digits.
    pub code: String,
}

/// POST `/v1/heartbeats`: accounts in use.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeats {
    /// Identifiers of registrations, 10 000 at most.
    pub ids: Vec<String>,
}

/// POST `/v1/withdrawals`: by the application provider for one of its registrations, or signed by
/// the user's key (a withdrawal JWS, `by` user), which ends every mapping of this `uk`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewWithdrawal {
    /// The registration; without `statement`.
    #[serde(default)]
    pub id: Option<String>,
    /// The user's withdrawal, as a JWS; without `id`.
    #[serde(default)]
    pub statement: Option<String>,
}

/// POST `/v1/preferences`: a preference line as docs/records.md defines it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPreference {
    /// The signed line.
    pub statement: String,
}

/// POST `/v1/events`: another discovery provider's mapping with `new_holder`, which voids those
/// here.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// The mapping as its issuer signed it.
    pub statement: String,
}

/// What changes something.
#[derive(Clone)]
#[allow(missing_docs)] // Names say it.
pub enum Change {
    Register(NewRegistration),
    Enter { id: String, entered: Entered },
    Resend { id: String },
    Heartbeats(Heartbeats),
    Withdraw(NewWithdrawal),
    Prefer(NewPreference),
    Event(NewEvent),
}

/// A reply, kept under its `Idempotency-Key` so that a replayed request gets the same again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status of the reply.
    pub status: u16,
    /// JSON, or a problem where the status is 400 or above.
    pub body: Vec<u8>,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u64>,
}

/// Reply to a request to register or to resend: 202.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accepted {
    /// Name of the registration.
    pub id: String,
    /// When the code expires, in seconds since 1970.
    pub expires_at: u64,
    /// When another code may be asked for.
    pub resend_after: u64,
}

/// GET `/v1/registrations/{id}`: what the application provider is told of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    /// Name of the registration.
    pub id: String,
    /// Its state.
    pub state: State,
    /// Since when.
    pub since: u64,
    /// The mapping, while it is in force (`active`, `stale`, `proof_due`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
}

/// What a registration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // Names say it.
pub enum State {
    Requested,
    Sent,
    Active,
    ProofDue,
    Stale,
    Ended,
    Failed,
    Expired,
    Withdrawn,
    Superseded,
    Voided,
}

/// A code on its way: handed to the channels once the request is stored, and wiped when it is
/// dropped.
pub struct Outgoing {
    /// The registration whose code it is.
    pub id: String,
    /// Domain of the application provider.
    pub ap: String,
    /// Whom to send it to.
    pub to: crate::discovery::identifier::Identifier,
    /// How.
    pub channel: Channel,
    /// What for: the two have messages of their own.
    pub purpose: crate::discovery::statement::Purpose,
    /// Language that was asked for.
    pub language: Option<String>,
    /// Six digits.
    pub code: zeroize::Zeroizing<String>,
}
