//! What happens to registrations, as it is counted.

/// What happened to a registration. Those from [`Transition::Requested`] to [`Transition::Voided`]
/// happen in a transaction of the core, which reports them once it is committed; the others are for
/// whoever sends messages and erases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Names say it.
pub enum Transition {
    Requested,
    Resent,
    WrongCode,
    Active,
    Failed,
    Expired,
    Stale,
    /// Active again, after it was stale.
    Returned,
    ProofDue,
    Ended,
    Withdrawn,
    Superseded,
    Voided,
    /// A gateway has taken the message.
    Sent,
    /// No gateway has.
    NotSent,
    Erased,
}

impl Transition {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Requested,
        Self::Resent,
        Self::WrongCode,
        Self::Active,
        Self::Failed,
        Self::Expired,
        Self::Stale,
        Self::Returned,
        Self::ProofDue,
        Self::Ended,
        Self::Withdrawn,
        Self::Superseded,
        Self::Voided,
        Self::Sent,
        Self::NotSent,
        Self::Erased,
    ];

    /// Its name among labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Resent => "resent",
            Self::WrongCode => "wrong_code",
            Self::Active => "active",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Stale => "stale",
            Self::Returned => "returned",
            Self::ProofDue => "proof_due",
            Self::Ended => "ended",
            Self::Withdrawn => "withdrawn",
            Self::Superseded => "superseded",
            Self::Voided => "voided",
            Self::Sent => "sent",
            Self::NotSent => "not_sent",
            Self::Erased => "erased",
        }
    }
}

/// Transitions, each with the number of registrations.
pub type Transitions = Vec<(Transition, u64)>;
